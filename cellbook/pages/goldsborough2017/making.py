"""The run of the page: all trainings, each a run of its own in the store, and what the page keeps of them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cellbook.cells import CellSet
from cellbook.methods import cytogan
from cellbook.pages.goldsborough2017.config import PROTOCOL, VERSION, Config, trainings
from cellbook.pages.goldsborough2017.crops import load
from cellbook.pages.goldsborough2017.features import distances, of_layers
from cellbook.runs import Run
from cellbook.study import course
from cellbook.study.trainings import Arrays, Place, Tables, Training, measured, told
from cellbook.training import load_run


def parts(config: Config) -> dict[str, Training | None]:
    """What can be made by itself, on another machine or beside others, most worth first; None: no training."""
    return {f"{one.variant}, {one.repeat}": one for one in trainings(config)}


def make_part(config: Config, name: str, place: Place) -> list[Run]:
    """Make one of the `parts`, if it is not in the store."""
    one, cells = parts(config)[name], part_cells(config, name, place)
    assert one is not None
    return [measured(one, cells, place, measure, config, how(config))]


def part_cells(config: Config, name: str, place: Place) -> CellSet:
    """The cells of a part, which are those of the page."""
    return load(config, place.store, place.device)


def how(config: Config) -> dict[str, Any]:
    """What decides, beside a training, what `measure` finds."""
    names = ("seed", "drawn", "watched", "blocks", "triples", "frames", "shown")
    return {name: getattr(config, name) for name in names} | {"page": PROTOCOL, "version": VERSION}


def measure(training: Training, run: Run, cells: CellSet, config: Config) -> tuple[Tables, Arrays]:
    """Tables of a finished training, and distances between treatments by "summary|distance"."""
    state = load_run(cytogan, training.config, cells, run, "cpu")
    found = distances(run.table("codes"), run.table("wells")) | of_layers(state, cells)
    followed, weeks = course.parts(run, (training.variant, training.repeat), PROTOCOL)
    tables = weeks | {
        "history": run.table("history").melt("step", var_name="term"),
        "trainings": pd.DataFrame([told(run) | {"model": training.config.model}]),
    }
    return tables, found | followed
