"""Screens by name: their cells or wells, where they come from, and what the cells of all of them have in common."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.cells import CellSet, save_parts
from cellbook.errors import CellbookError
from cellbook.files import digest
from cellbook.profiles.aggregate import TREATMENT, WELL
from cellbook.runs import obtain
from cellbook.screens import bbbc021, locate, outlines, planted
from cellbook.screens.preflight import usable_rows
from cellbook.screens.simulated import in_turns
from cellbook.screens.simulator import SimulatedScreen
from cellbook.screens.simulator.design import GENETIC_CONTROL
from cellbook.screens.simulator.simulate import screen_tables

log = logging.getLogger(__name__)

SIMULATED, SAMPLE = "simulated", "bbbc021-sample"  # cells; the name of a folder is a cell set of one's own
IN_WORDS = {SIMULATED: "simulated cells", SAMPLE: "real crops of BBBC021"}
FEATURES, PLANTED = "bbbc021-features", "planted"  # well profiles
CROPS = ("crops_all_treatments.npz", "crops_all_treatments.csv")
TABLES = (bbbc021.IMAGE_TABLE, bbbc021.MOA_TABLE, bbbc021.LJOSA_TABLE)
POSITIVE = "positive control"
# Where a cell lies and how it was cut says nothing about its treatment.
PLACE = ("Metadata_site", "Metadata_field", "Metadata_cell", "Metadata_y", "Metadata_x", "Metadata_dapi_centre_ratio")
PLACE += outlines.COLUMNS
# Fingerprints by the digest of a simulated screen, as their tables take seconds; processes tell each other.
drawn_before: dict[str, str] = {}
VERSION = 1  # of the cells that a simulated screen is drawn with; if it rises, `fingerprint` has to tell it, too


# --- cells ----------------------------------------------------------------------------------------------------------


def load(
    screen: str,
    simulated: SimulatedScreen,
    store: str | Path,
    device: str = "cpu",
    per_well: int = 0,
    canvas: int = 0,
    times: int = 1,
) -> CellSet:
    """The cells of a screen: all, or at most `per_well` of every well, whose choice depends on no seed.

    Parameters
    ----------
    screen : "simulated", "bbbc021-sample", or the folder of a cell set
    simulated : what is simulated, if it is that
    store : folder of the runs, where simulated cells are kept
    device : where they are drawn
    per_well : cells; 0: all
    canvas : side of crops in which every cell is alone and in the middle, see `outlines`; 0: crops as they are
    times : pixels that become one of the canvas, a side

    Raises
    ------
    CellbookError : if there is no such screen, or nothing of it can be scored.
    """
    if screen == SIMULATED:
        cells = simulated_cells(simulated, store, device, canvas, times)
    elif screen == SAMPLE:
        from cellbook.screens.sample import bbbc021_sample

        cells = bbbc021_sample()
    else:
        cells = open_own(screen)
    if screen == SIMULATED and simulated.design == "genetic":  # its empty wells are called what all controls are
        labels = cells.table[["Metadata_compound", "Metadata_moa"]].replace(GENETIC_CONTROL, "DMSO")
        cells = replace(cells, table=cells.table.assign(**labels))
    usable = usable_rows(cells.table)
    if not usable.all():
        log.warning("%d of %d cells have no mechanism and are left out", len(cells) - usable.sum(), len(cells))
        cells = cells.select(np.flatnonzero(usable))
    if per_well:
        order = np.random.default_rng(0).permutation(len(cells))
        turn = cells.table.iloc[order].groupby(WELL).cumcount().to_numpy()
        cells = cells.select(np.sort(order[turn < per_well]))
    return outlines.outlined(cells, canvas, times, device) if canvas and screen != SIMULATED else cells


def fingerprint(screen: str, simulated: SimulatedScreen, canvas: int = 0, times: int = 1) -> str:
    """Digest of what the cells of `load` will be, known before any pixel is drawn or read.

    Of a simulated screen it is that of its tables, rounded to five digits, so that machines whose exponential differs
    in the last bit agree, and devices that draw a grey level apart.
    """
    if canvas:
        return outlines.known_as(fingerprint(screen, replace(simulated, crop=canvas)), canvas, times)
    if screen == SAMPLE:
        return digest(checksums(CROPS))[:32]
    if screen != SIMULATED:
        return open_own(screen).fingerprint
    which = digest(asdict(simulated))  # by which 1 and 1.0 are two screens, as they are in keys of runs
    if which not in drawn_before:
        drawn_before[which] = _fingerprint(simulated)
    return drawn_before[which]


def _fingerprint(simulated: SimulatedScreen) -> str:
    parts = []
    for table in screen_tables(simulated):
        numbers = table.select_dtypes("number").to_numpy(np.float64)
        scale = 10.0 ** (4 - np.floor(np.log10(np.abs(numbers) + 1e-12)))
        hashes = pd.util.hash_pandas_object(pd.DataFrame(np.round(numbers * scale) / scale), index=False)
        parts.append(hashes.to_numpy().tobytes().hex())
    return digest([asdict(simulated), *parts])[:32]


def simulated_cells(
    config: SimulatedScreen, store: str | Path, device: str = "cpu", canvas: int = 0, times: int = 1
) -> CellSet:
    """The cells of a simulated screen, drawn once and kept in the store as a run of their own, memory-mapped."""
    known = fingerprint(SIMULATED, config, canvas, times)
    config, how = replace(config, crop=canvas or config.crop), {"outlined": True, "times": times} if canvas else {}

    def make(folder: Path) -> None:
        save_parts(in_turns(config, device=device, **how), folder / "cells", True, known)

    run = obtain(store, "screen", VERSION, asdict(config) | how, known, make, device=device)
    return CellSet.open(run.folder / "cells", known)  # cells kept by earlier versions do not say it themselves


def open_own(screen: str) -> CellSet:
    """A cell set from a folder; an error that names the known screens where there is none."""
    if not (Path(screen) / "cellset.json").is_file():
        raise CellbookError(
            f"screen {screen!r} is neither simulated nor {SAMPLE} nor the folder of a cell set: import one with "
            "`cellbook import`"
        )
    return CellSet.open(screen)


def balanced_rows(cells: CellSet, n: int, seed: int = 0) -> np.ndarray:
    """Rows of `n` random cells (or all there are), a cell of every treatment before a second of any; sorted."""
    order = np.random.default_rng(seed).permutation(len(cells))
    turn = cells.table.iloc[order].groupby(TREATMENT, dropna=False).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")][:n])


def middle(cells: CellSet, sides: Sequence[int]) -> CellSet:
    """Cells with the middle of their crops, (height, width) pixels of it; as they are if that is all.

    Raises
    ------
    CellbookError : if the crops are smaller.
    """
    have = cells.images.shape[-2:]
    if tuple(sides) == have:
        return cells
    if any(new > side for side, new in zip(have, sides, strict=True)):
        wanted, found = (" x ".join(map(str, both)) for both in (sides, have))
        raise CellbookError(f"the crops have {found} pixels, and {wanted} are asked for: cut larger ones")
    y, x = (slice((side - new) // 2, (side + new) // 2) for side, new in zip(have, sides, strict=True))
    return replace(cells, images=np.ascontiguousarray(cells.images[..., y, x]), known_as=None)


def is_positive(table: pd.DataFrame) -> np.ndarray:
    """Which rows are of the positive control, (rows,): trained on, never part of a treatment's profile."""
    return (table["Metadata_role"] == POSITIVE).to_numpy() if "Metadata_role" in table else np.zeros(len(table), bool)


def without_place(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out where in a field a cell lay."""
    return table.drop(columns=[name for name in PLACE if name in table])


def cell_counts(cells: CellSet, screen: str) -> pd.DataFrame | None:
    """Median cell count of the wells of each treatment, or None where it is not known.

    The real sample was gathered unevenly, so its own numbers of crops mean nothing; the published profiles have the
    true ones.
    """
    table = cells.table
    if screen == SAMPLE:
        try:
            table = bbbc021.ljosa2013()
        except CellbookError:
            return None
    elif "Metadata_cell_count" not in table:
        return None
    wells = table[~is_positive(table)].drop_duplicates(WELL)
    counts = wells.groupby(TREATMENT, as_index=False)["Metadata_cell_count"].median()
    return counts[counts["Metadata_compound"] != "DMSO"].sort_values(TREATMENT, ignore_index=True)


# --- wells, files ---------------------------------------------------------------------------------------------------


def load_wells(screen: str, n_features: int = 60) -> pd.DataFrame:
    """Well profiles: the published ones of BBBC021, or a planted stand-in of `n_features` that needs no data."""
    return bbbc021.ljosa2013() if screen == FEATURES else planted.planted_wells(n_features=n_features)


def real_files() -> list[str]:
    """Names of all files of BBBC021 that a page may read: crops, reassembled fields, tables."""
    fields = [name for name, file in locate.KNOWN_FILES.items() if "/fields_reassembled/" in file.path]
    return [*CROPS, *fields, *TABLES]


def missing_files() -> list[str]:
    """Those of them that are not on this machine; empty if all are there."""
    return [name for name in real_files() if not locate.is_local(name)]


def checksums(names: tuple[str, ...] | list[str]) -> list[str]:
    """Published checksums of known files, which every file is compared with before it is read."""
    return [locate.KNOWN_FILES[name].sha256 for name in names]
