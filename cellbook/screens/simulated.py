"""Simulated screens on disk, as cell sets or as whole fields: complete or not there, and never over something else."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cellbook import files
from cellbook.cells import HEADER, TABLE, CellSet, save_parts
from cellbook.errors import CellbookError
from cellbook.machine import give_back
from cellbook.screens.fields import known_plates
from cellbook.screens.outlines import check_times, shrunk
from cellbook.screens.simulator import SimulatedScreen, plate_map, simulate, simulate_fields
from cellbook.screens.simulator.export import IMAGE_TABLE, TRUTH
from cellbook.screens.simulator.simulate import AREA_PER_CELL

# Crops that are drawn before they are written, a tenth of a gigabyte; on a GPU 3 to 10, so that its threads seldom run
# empty.
CELLS_AT_ONCE, ON_A_GPU = 4_000, 100_000


@dataclass(frozen=True)
class Fields:
    """Whole fields on disk: how many, of how many cells, and the hash of all files (32 hexadecimal digits)."""

    folder: Path
    fields: int
    cells: int
    fingerprint: str


def write_cells(
    config: SimulatedScreen, out: str | Path, plates: Sequence[str] | None = None, *, force: bool = False, **how: Any
) -> CellSet:
    """Simulate a screen into a folder, some plates at a time, so that memory does not grow with the screen.

    Parameters
    ----------
    config, plates : see `simulator.simulate`; its cells are the same.
    out : folder of the cell set. A simulated screen or an empty folder that is there is replaced.
    force : replace anything else, too.
    how : ``device``, ``progress``, ``outlined``: see `simulator.simulate`; ``times``: see `in_turns`.

    Raises
    ------
    CellbookError : if a plate is unknown, the folder is taken, or the disk is full.
    """
    drawn = in_turns(config, plates, **how)
    with replacing(Path(out), force) as work:
        save_parts(drawn, work)
    return CellSet.open(out)


def in_turns(
    config: SimulatedScreen, plates: Sequence[str] | None = None, times: int = 1, **how: Any
) -> Iterator[CellSet]:
    """The cells of a screen, about `CELLS_AT_ONCE` (or `ON_A_GPU`) of them at a time, whole plates together.

    They are drawn so many `times` as large and `shrunk`, fewer at a time.
    """
    check_times(times)
    config = replace(config, crop=times * config.crop)
    wells = _plates(config, plates).groupby("Metadata_plate", sort=False).size()
    expected = config.cells if config.field is None else config.sites * np.prod(config.field) / AREA_PER_CELL
    at_once = CELLS_AT_ONCE if torch.device(how.get("device", "cpu")).type == "cpu" else ON_A_GPU
    turn = (wells.cumsum() - wells) * expected * times**2 // at_once
    turns = [list(some.index) for _, some in wells.groupby(turn)]

    def drawn() -> Iterator[CellSet]:
        for some in turns:
            yield shrunk(simulate(config, plates=some, **how), times)
            give_back()

    return drawn()


def write_fields(
    config: SimulatedScreen, out: str | Path, plates: Sequence[str] | None = None, *, force: bool = False, **how: Any
) -> Fields:
    """Write the fields of a screen, whose configuration has a `field` size, as TIFFs with the official tables.

    See `simulator.simulate_fields` for what is written and `write_cells` for the rest.

    Raises
    ------
    CellbookError : as `write_cells`, and if the disk has too little room, before the first field is drawn.
    """
    if config.field is None:
        raise CellbookError("field is None; give the height and width of fields in pixels")
    count = len(_plates(config, plates)) * config.sites
    with replacing(Path(out), force) as work:
        need, free = count * 6 * config.field[0] * config.field[1], shutil.disk_usage(work.parent).free
        if need > free:
            raise CellbookError(
                f"{count} fields take {need / 1e6:,.0f} MB and {Path(out).parent} has {free / 1e6:,.0f} MB free; "
                "simulate fewer plates, wells or sites, or smaller fields"
            )
        index = simulate_fields(config, work, config.field, config.sites, plates, **how)
    cells = len(pd.read_parquet(Path(out) / TRUTH, columns=["Metadata_plate"]))
    return Fields(Path(out), len(index), cells, folder_fingerprint(Path(out)))


def _plates(config: SimulatedScreen, plates: Sequence[str] | None) -> pd.DataFrame:
    """Wells of the plates asked for."""
    wells = plate_map(config)
    return wells[wells["Metadata_plate"].isin(known_plates(plates, list(wells["Metadata_plate"].unique())))]


def folder_fingerprint(folder: Path) -> str:
    """Hash of all files below a folder and of their names (32 hexadecimal digits)."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{files.sha256(file)}\n".encode())
    return digest.hexdigest()


@contextmanager
def replacing(out: Path, force: bool = False) -> Iterator[Path]:
    """Give a new name, beside `out`, of a folder that takes its place when all went well, and is removed otherwise.

    What a killed run left of it goes with the next run.

    Raises
    ------
    CellbookError : if `out` is a file, holds something that is no simulated screen (without `force`), is the home or
        working folder or above it, is being written by another run, or cannot be written.
    """
    whole = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not out.is_dir():
            raise CellbookError(f"{out} is a file; give a folder")
        if not force and not _made(out):
            raise CellbookError(f"{out} is not empty and holds no simulated screen; give another folder, or --force")
        home = Path(os.path.expanduser("~"))  # a user of a container may have none
        if any(place.resolve().is_relative_to(whole) for place in (Path.cwd(), home)):
            raise CellbookError(f"{out} holds the working or home folder and is not replaced; give another folder")
    work = whole.with_name(f".{whole.name}.new")
    with files.writing(out), files.alone(whole, wait=False):
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            yield work / whole.name
            files.put_folder(work / whole.name, whole)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _made(folder: Path) -> bool:
    """Whether a folder is what this module writes, and so can be made again."""
    import pyarrow.parquet as pq

    for table, mark in ((TABLE, HEADER), (TRUTH, IMAGE_TABLE)):
        if (folder / table).is_file() and (folder / mark).is_file():
            try:
                return any(column.startswith("truth_") for column in pq.read_schema(folder / table).names)
            except (OSError, ValueError):
                return False
    return False
