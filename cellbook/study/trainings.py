"""Trainings of a study: each is a run of its own in the store, made once, and measured by the study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.files import write_atomically
from cellbook.runs import Run, obtain, obtain_page, run_key, save_table, to_float32
from cellbook.screens import named
from cellbook.study.processes import one_thread, side_by_side
from cellbook.training import State, load_run, train_run
from cellbook.training.loop import keyed

Tables = dict[str, pd.DataFrame]
Arrays = dict[str, np.ndarray]
Measure = Callable[["Training", Run, CellSet, Any], tuple[Tables, Arrays]]

VERSION = 1  # of what is kept of a training that was measured
ARRAYS = "arrays.npz"
LONG = 50  # steps of a training; below, starting another process takes longer


@dataclass(frozen=True)
class Training:
    """One training of a study: the name its numbers have, which repeat it is, and what is trained."""

    variant: str
    repeat: int
    method: str  # the name of a module of `methods`: a module itself cannot be sent to another process
    config: Any
    cells: Any = None  # which of the study's screens; None: its own
    course: bool = False  # whether it is looked at on its way

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
            return train_run(
                one.module, one.config, cells, self.store, self.device, force=self.force, course=one.course
            )

    def stored(self, one: Training, cells: CellSet) -> Run:
        """The run of a training that is in the store."""
        return Run(Path(self.store) / key_of(one, cells))

    def state(self, one: Training, cells: CellSet) -> State:
        """Its trained networks, on the CPU."""
        return load_run(one.module, one.config, cells, self.stored(one, cells), "cpu")


def key_of(one: Training, cells: CellSet) -> str:
    """Key of the run of a training."""
    return run_key(one.method, one.module.VERSION, keyed(one.config, one.course), cells.fingerprint)


def measured(
    one: Training, cells: CellSet, place: Place, measure: Measure, config: Any, settings: Mapping[str, Any]
) -> Run:
    """What a study keeps of a training, a run of its own: wherever this one is, the training itself is not needed.

    Parameters
    ----------
    one, cells, place : what is trained, if it is not there, on what, and where
    measure : a function of the study, given a training, its run, its cells and `config`: tables and arrays by name
    config : of the study
    settings : all that decides, beside the training, what `measure` finds
    """

    def make(folder: Path) -> None:
        save_contents(*measure(one, place.of(one, cells), cells, config), folder)

    method, version, about, data = _identity(one, cells, settings)
    return obtain(place.store, method, version, about, data, make, device=place.device, force=place.force)


def key_of_measured(one: Training, cells: CellSet, settings: Mapping[str, Any]) -> str:
    """Key of the run of `measured`, whether it is there or not."""
    return run_key(*_identity(one, cells, settings))


def _identity(one: Training, cells: CellSet, settings: Mapping[str, Any]) -> tuple[str, int, dict[str, Any], str]:
    return f"measured-{one.method}", VERSION, {"training": key_of(one, cells), **settings}, cells.fingerprint


def obtain_trainings(
    page: str,
    version: int,
    config: Any,
    store: str | Path,
    make: Callable[[Any, Place, Path, int | None], None],
    *,
    cells: str | None = None,
    device: str = "auto",
    force: bool = False,
    workers: int | None = None,
) -> Run:
    """The run of a page of trainings, whose configuration has a screen; `make` writes its products into a folder.

    Parameters
    ----------
    page, version : of the page
    config : with `screen`, and `simulated` for the cells of the simulated one
    store : folder of the runs
    make : given the configuration, where trainings are made, the folder, and `workers`
    cells : fingerprint of the cells, where they are not all of the screen as it is
    device : where networks are trained
    force : make all anew, trainings as well
    workers : processes that train; as many as cores and memory bear, if trainings are long and on a CPU
    """

    def products(folder: Path, on: str) -> None:
        make(config, Place(store, on, force), folder, workers)

    cells = cells or named.fingerprint(config.screen, config.simulated)
    return obtain_page(store, page, version, config, cells, products, device=device, force=force)


def save_contents(tables: Tables, arrays: Arrays, folder: Path) -> None:
    """Write tables and arrays as products."""
    for name, table in tables.items():
        save_table(table, folder / f"{name}.parquet")
    write_atomically(folder / ARRAYS, lambda path: np.savez_compressed(path, **arrays))  # type: ignore[arg-type]


def save_products(tables: Tables, folder: Path) -> None:
    """Write the tables of a page in single precision, but for what is told of its trainings."""
    for name, table in tables.items():
        save_table(table if name == "trainings" else to_float32(table), folder / f"{name}.parquet")


def contents(run: Run) -> tuple[Tables, Arrays]:
    """Tables and arrays of a run of `measured`."""
    with np.load(run.path(ARRAYS)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = (Path(name) for name in run.products())
    return {name.stem: run.table(name.stem) for name in names if name.suffix == ".parquet"}, arrays


def train_all(
    todo: Sequence[Training],
    screens: Mapping[Any, CellSet],
    place: Place,
    measure: Measure,
    config: Any,
    settings: Mapping[str, Any],
    *,
    workers: int | None = None,
    worth: bool = False,
) -> tuple[Tables, Arrays]:
    """Train and measure everything, side by side where that is worth it.

    Parameters
    ----------
    todo : trainings, in the order of their rows
    screens : cells by what a training calls them
    place, measure, config, settings : see `measured`
    workers, worth : see `side_by_side`

    Returns
    -------
    dict, dict
        Tables of all trainings under one another, with the columns variant and repeat behind the others; arrays by
        "variant|repeat|name".
    """
    tasks = [(one, screens[one.cells], place, measure, config, settings) for one in todo]
    found = side_by_side(_train_one, tasks, workers=workers, worth=worth)
    arrays = {name: values for _, some in found for name, values in some.items()}
    return under_one_another(tables for tables, _ in found), arrays


def told(run: Run) -> dict[str, Any]:
    """What pages keep of the record of a training, for a table of the name "trainings"; older records tell less."""
    names = ("key", "seconds", "device", "peak_memory_mib", "processes", "fingerprint")
    return {name: run.record.get(name, np.nan) for name in names}


def _train_one(one: Training, *how: Any) -> tuple[Tables, Arrays]:
    tables, arrays = contents(measured(one, *how))
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
