"""Runs of the page: one for every simulated screen, one for the real cells where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.files import digest
from cellbook.machine import GIB, WORKER
from cellbook.metrics import prepare
from cellbook.pages.cells import enough, grids, real
from cellbook.pages.cells.config import (
    BY_PLATE,
    ENCODERS,
    POOLED,
    PROTOCOL,
    VERSION,
    Config,
    RealRun,
    ScreenRun,
    real_run,
    screen_runs,
)
from cellbook.profiles import metadata, to_wells
from cellbook.profiles.aggregate import WELL
from cellbook.runs import Run, choose_device, obtain, run_key, save_table
from cellbook.screens import bbbc021
from cellbook.screens.named import (
    SIMULATED,
    checksums,
    fingerprint,
    is_positive,
    missing_files,
    real_files,
    simulated_cells,
)
from cellbook.screens.sample import bbbc021_sample
from cellbook.screens.simulator import plate_map, simulate
from cellbook.study.encoding import encode, standardise
from cellbook.study.known import probe, week_of_controls
from cellbook.study.processes import one_thread, side_by_side
from cellbook.study.profile import condensed

SCALINGS = {BY_PLATE: "Metadata_plate", POOLED: None}


def run(
    config: Config,
    store: str | Path,
    *,
    device: str = "auto",
    force: bool = False,
    with_real: bool = True,
    workers: int | None = None,
) -> list[Run]:
    """The runs of this configuration, each computed only if it is not in the store.

    Parameters
    ----------
    config : Config
    store : folder of the runs
    device : where cells are drawn and the random network runs
    force : make all anew
    with_real : look at the real cells as well; left out where they are not on this machine
    workers : processes for the simulated screens; as many as cores and memory bear, if they are large and on a CPU

    Returns
    -------
    list of Run
        The simulated screens in the order of `config.screen_runs`, then the real cells, then the curves.
    """
    device, screens = choose_device(device), screen_runs(config)
    folders = [Path(store) / run_key(*key_of(each)) for each in screens]
    made = [(folder / "run.json").exists() and not force for folder in folders]
    tasks = [(each, store, device, force) for each, done in zip(screens, made, strict=True) if not done]
    worth = config.cells * config.sites > 8 and device == "cpu"
    side_by_side(make_screen_run, tasks, workers=workers, worth=worth, gib=memory_of(screens[0]))
    found = [Run(folder) for folder in folders]
    with_real = with_real and not missing_files()
    if with_real:
        found += side_by_side(make_real_run, [(real_run(config), store, device, force)])
    with one_thread():  # but encoding, side by side
        return found + [enough.make(each, store, device, force) for each in enough.enough_runs(config, with_real)]


def memory_of(config: ScreenRun) -> float:
    """GiB of a process that draws a screen and encodes it."""
    screen = config.simulated
    return WORKER + len(plate_map(screen)) * screen.cells * 3 * 2 * screen.crop**2 / GIB


def key_of(config: ScreenRun) -> tuple[str, int, dict[str, Any], str]:
    """Method, version, configuration and data of the run of a simulated screen."""
    return "cells-simulated", VERSION, asdict(config), fingerprint(SIMULATED, config.simulated)


def make_screen_run(config: ScreenRun, store: str | Path, device: str = "cpu", force: bool = False) -> Run:
    """Draw one simulated screen and keep what the page says of it."""

    def make(folder: Path) -> None:
        # Only the screen that others look at, too, is kept: it takes 28 kB a cell.
        keep = config.grid > 0
        cells = simulated_cells(config.simulated, store, device) if keep else simulate(config.simulated, device)
        make_screen_products(config, cells, folder, device)

    return obtain(store, *key_of(config), make, device=device, force=force)


def make_screen_products(config: ScreenRun, cells: CellSet, folder: Path, device: str) -> None:
    """Distances between treatments, the week of controls, what can be read of the truth, and crops for figures."""
    seed = config.simulated.seed
    wells, weeks = {}, []
    for encoder in config.encoders:
        encoded = encode(encoder, cells, seed, device=device)
        if encoder == ENCODERS[0]:
            truth = cells.table.filter(like="truth_")
            save_table(probe(encoded, truth, config.folds), folder / "truth.parquet")
        for scaling, by in SCALINGS.items():
            scaled = standardise(encoded, by)
            wells[f"{encoder}, {scaling}"] = wells_of(scaled)
            weeks.append(week_of_controls(scaled, seed).assign(encoder=encoder, scaling=scaling))
    save_distances(wells, folder)
    save_table(pd.concat(weeks, ignore_index=True), folder / "weeks.parquet")
    size = {"cells": len(cells), "wells": len(cells.table[WELL].drop_duplicates())}
    save_table(pd.DataFrame([size | {"plates": cells.table["Metadata_plate"].nunique()}]), folder / "size.parquet")
    if config.grid:
        chosen, images = grids.mechanisms(cells, config.grid, seed)
        names, weeks_images = grids.one_cell(config.simulated)
        save_table(chosen, folder / "grid.parquet")
        np.savez_compressed(folder / "grid.npz", mechanisms=images, weeks=weeks_images, names=np.array(names))


def wells_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean over the cells of each well, without the wells of the positive control."""
    return to_wells(cells[~is_positive(cells)])


def save_distances(wells: Mapping[str, pd.DataFrame], folder: Path, prefix: str = "") -> int:
    """Write treatments of the benchmark's protocol and their distances by setting; how many treatments there are."""
    columns = {}
    for setting, table in wells.items():
        units = prepare(table, PROTOCOL, drop_unusable=True).profiles
        columns[setting] = condensed(units, "cosine")
    save_table(units[metadata(units)], folder / f"{prefix}treatments.parquet")
    save_table(pd.DataFrame(columns), folder / f"{prefix}distances.parquet")
    return len(units)


# --- the real cells -------------------------------------------------------------------------------------------------


def make_real_run(config: RealRun, store: str | Path, device: str = "cpu", force: bool = False) -> Run:
    """Look at the real cells, fields and profiles, and keep what the page says of them."""

    def make(folder: Path) -> None:
        make_real_products(config, simulated_cells(config.simulated, store, device), folder, device)

    cells = digest([digest(checksums(real_files())), fingerprint(SIMULATED, config.simulated)])[:32]
    return obtain(store, "cells-real", VERSION, config, cells, make, device=device, force=force)


def make_real_products(config: RealRun, simulated: CellSet, folder: Path, device: str) -> None:
    """Distances between treatments of the sample and of the published profiles, weeks, nuclei, calibration."""
    sample = bbbc021_sample()
    wells, weeks = {}, []
    for encoder in config.encoders:
        scaled = standardise(encode(encoder, sample, config.seed, device=device))
        wells[f"{encoder}, {POOLED}"] = wells_of(scaled)
        weeks.append(week_of_controls(scaled, config.seed).assign(encoder=encoder, scaling=POOLED))
    save_distances(wells, folder, "sample-")
    save_table(pd.concat(weeks, ignore_index=True), folder / "sample-weeks.parquet")
    published = bbbc021.ljosa2013()
    wells = {f"CellProfiler, {scaling}": standardise(published, by) for scaling, by in SCALINGS.items()}
    treatments = save_distances(wells, folder, "cellprofiler-")

    save_table(real.nuclei(), folder / "nuclei.parquet")
    controls, drawn = (cells.select("Metadata_compound == 'DMSO'") for cells in (sample, simulated))
    drawn = real.some_fields(drawn, config.seed)
    for name, table in real.beside(controls, drawn, config.seed).items():
        save_table(table, folder / f"{name}.parquet")
    size = {"cells": len(sample), "control_cells": len(controls), "simulated_control_cells": len(drawn)}
    size |= {"treatments": treatments, "wells": len(sample.table[WELL].drop_duplicates())}
    save_table(pd.DataFrame([size]), folder / "size.parquet")
