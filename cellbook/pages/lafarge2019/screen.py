"""The cells of the page: simulated, real, or a folder of the reader's own."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.files import digest
from cellbook.pages.lafarge2019.config import Config
from cellbook.screens.preflight import usable_rows

log = logging.getLogger(__name__)

SAMPLE = "bbbc021-sample"
POSITIVE = "positive control"


def open_own(screen: str) -> CellSet:
    """A cell set from a folder; an error that names the known screens where there is none."""
    if not (Path(screen) / "cellset.json").is_file():
        raise CellbookError(
            f"screen {screen!r} is neither simulated nor {SAMPLE} nor the folder of a cell set: import one with "
            "`cellbook import`"
        )
    return CellSet.open(screen)


def fingerprint(config: Config) -> str:
    """Digest of what the cells will be, known before any pixel is drawn or read."""
    if config.screen == "simulated":
        from cellbook.pages.cells.making import fingerprint as of_simulated

        return of_simulated(config.simulated)
    if config.screen == SAMPLE:
        from cellbook.screens.locate import KNOWN_FILES

        parts = ("crops_all_treatments.npz", "crops_all_treatments.csv")
        return digest([KNOWN_FILES[name].sha256 for name in parts])[:32]
    return open_own(config.screen).fingerprint


def load(config: Config, store: str | Path, device: str = "cpu") -> CellSet:
    """The cells that are trained on: all, or some of every well where `per_well` says so.

    The choice of cells does not depend on the seed of a training.
    """
    if config.screen == "simulated":
        from cellbook.pages.cells.making import simulated_cells

        cells = simulated_cells(config.simulated, store, device)
    elif config.screen == SAMPLE:
        from cellbook.screens.sample import bbbc021_sample

        cells = bbbc021_sample()
    else:
        cells = open_own(config.screen)
    usable = usable_rows(cells.table)
    if not usable.all():
        log.warning("%d of %d cells have no mechanism and are left out", len(cells) - usable.sum(), len(cells))
        cells = cells.select(np.flatnonzero(usable))
    if config.per_well:
        order = np.random.default_rng(0).permutation(len(cells))
        shuffled = cells.table.iloc[order]
        turn = shuffled.groupby(["Metadata_plate", "Metadata_well"]).cumcount().to_numpy()
        cells = cells.select(np.sort(order[turn < config.per_well]))
    return cells


def balanced_rows(cells: CellSet, n: int, seed: int = 0) -> np.ndarray:
    """Rows of `n` random cells (or all there are), a cell of every treatment before a second of any; sorted."""
    order = np.random.default_rng(seed).permutation(len(cells))
    names = ["Metadata_compound", "Metadata_concentration"]
    turn = cells.table.iloc[order].groupby(names, dropna=False).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")][:n])


def is_positive(table) -> np.ndarray:
    """Which rows are of the positive control, (rows,): trained on, never part of a treatment's profile."""
    return (table["Metadata_role"] == POSITIVE).to_numpy() if "Metadata_role" in table else np.zeros(len(table), bool)
