"""Trainings of a study: each is a run of its own in the store, made once, and measured by the study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.runs import Run, run_key
from cellbook.study.processes import one_thread, side_by_side
from cellbook.training import State, load_run, train_run

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Training:
    """One training of a study: the name its numbers have, which repeat it is, and what is trained."""

    variant: str
    repeat: int
    method: str  # the name of a module of `methods`: a module itself cannot be sent to another process
    config: Any
    cells: Any = None  # which of the study's screens; None: its own

    @property
    def module(self) -> Any:
        """The method."""
        return import_module(f"cellbook.methods.{self.method}")


@dataclass(frozen=True)
class Place:
    """Where trainings are made and kept."""

    store: str | Path
    device: str = "cpu"
    force: bool = False  # make them anew

    def of(self, one: Training, cells: CellSet) -> Run:
        """The run of a training, made if it is not there; in one thread, so that it is the same bits everywhere."""
        with one_thread():
            return train_run(one.module, one.config, cells, self.store, self.device, force=self.force)

    def stored(self, one: Training, cells: CellSet) -> Run:
        """The run of a training that is in the store."""
        key = run_key(one.method, one.module.VERSION, asdict(one.config), cells.fingerprint)
        return Run(Path(self.store) / key)

    def state(self, one: Training, cells: CellSet) -> State:
        """Its trained networks, on the CPU."""
        return load_run(one.module, one.config, cells, self.stored(one, cells), "cpu")

    def codes(self, one: Training, cells: CellSet) -> pd.DataFrame:
        """Its codes of all cells, with their metadata."""
        return self.stored(one, cells).table("embeddings")


def train_all(
    todo: Sequence[Training],
    screens: Mapping[Any, CellSet],
    place: Place,
    measure: Callable[[Training, Run, CellSet, Any], tuple[Tables, dict[str, np.ndarray]]],
    config: Any,
    *,
    workers: int | None = None,
    worth: bool = False,
) -> tuple[Tables, dict[str, np.ndarray]]:
    """Train and measure everything, side by side where that is worth it.

    Parameters
    ----------
    todo : trainings, in the order of their rows
    screens : cells by what a training calls them
    place : where trainings are made and kept
    measure : a function of the study, given a training, its run, its cells and `config`: tables and arrays by name
    workers, worth : see `side_by_side`

    Returns
    -------
    dict, dict
        Tables of all trainings under one another, with the columns variant and repeat behind the others; arrays by
        "variant|repeat|name".
    """
    tasks = [(one, screens[one.cells], place, measure, config) for one in todo]
    found = side_by_side(_train_one, tasks, workers=workers, worth=worth)
    arrays = {name: values for _, some in found for name, values in some.items()}
    return under_one_another(tables for tables, _ in found), arrays


def _train_one(
    one: Training, cells: CellSet, place: Place, measure: Callable[..., Any], config: Any
) -> tuple[Tables, dict[str, np.ndarray]]:
    tables, arrays = measure(one, place.of(one, cells), cells, config)
    named = {name: table.assign(variant=one.variant, repeat=one.repeat) for name, table in tables.items()}
    return named, {f"{one.variant}|{one.repeat}|{name}": values for name, values in arrays.items()}


def under_one_another(found: Iterable[Tables]) -> Tables:
    """Tables of the same name as one; those without rows are left out."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for tables in found:
        for name, table in tables.items():
            if len(table):
                parts.setdefault(name, []).append(table)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
