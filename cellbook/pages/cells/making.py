"""Runs of the page: one for every simulated screen, one for the real cells where they are."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook.cells import CellSet
from cellbook.files import digest
from cellbook.pages.cells import grids, real
from cellbook.pages.cells.config import (
    BY_PLATE,
    ENCODERS,
    POOLED,
    VERSION,
    Config,
    RealRun,
    ScreenRun,
    real_run,
    screen_runs,
)
from cellbook.pages.cells.encoding import encode, probe, scale, treatments, week_of_controls, wells_of
from cellbook.runs import Run, choose_device, obtain, processes, run_key, save_table
from cellbook.screens.simulator import SimulatedScreen, simulate
from cellbook.screens.simulator.simulate import screen_tables

SMALL = 3_000  # cells; below, starting another process takes longer than the work


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
    workers : processes for the simulated screens; as many as there are cores, if they are large and on a CPU

    Returns
    -------
    list of Run
        The simulated screens in the order of `config.screen_runs`, then the real cells.
    """
    device, screens = choose_device(device), screen_runs(config)
    missing = [each for each in screens if force or not is_made(each, store)]
    if workers is None:
        large = config.cells * config.sites > 8 and device == "cpu"
        workers = min(len(missing), os.cpu_count() or 1) if large else 1
    if workers > 1:
        with processes(workers) as pool:
            for waiting in [pool.submit(make_screen_run, each, store, device, force) for each in missing]:
                waiting.result()
        force = False
    found = [make_screen_run(each, store, device, force) for each in screens]
    if with_real and not real.missing():
        found.append(make_real_run(real_run(config), store, device, force))
    return found


def fingerprint(config: SimulatedScreen) -> str:
    """Digest of what a simulated screen shows, before any pixel is drawn.

    Cells and nuisances are rounded to five digits, so that machines whose exponential differs in the last bit agree.
    """
    parts = []
    for table in screen_tables(config):
        numbers = table.select_dtypes("number").to_numpy(np.float64)
        scale_ = 10.0 ** (4 - np.floor(np.log10(np.abs(numbers) + 1e-12)))
        hashes = pd.util.hash_pandas_object(pd.DataFrame(np.round(numbers * scale_) / scale_), index=False)
        parts.append(hashes.to_numpy().tobytes().hex())
    return digest([asdict(config), *parts])[:32]


def is_made(config: ScreenRun, store: str | Path) -> bool:
    """Whether the run of a simulated screen is in the store."""
    key = run_key("cells-simulated", VERSION, asdict(config), fingerprint(config.simulated))
    return (Path(store) / key / "run.json").exists()


def simulated_cells(config: SimulatedScreen, store: str | Path, device: str = "cpu") -> CellSet:
    """The cells of a simulated screen, drawn once and kept in the store as a run of their own, memory-mapped."""

    def make(folder: Path) -> None:
        simulate(config, device).save(folder / "cells", overwrite=True)

    run = obtain(store, "screen", VERSION, config, fingerprint(config), make, device=device)
    return CellSet.open(run.folder / "cells")


def make_screen_run(config: ScreenRun, store: str | Path, device: str = "cpu", force: bool = False) -> Run:
    """Draw one simulated screen and keep what the page says of it."""

    def make(folder: Path) -> None:
        with threadpool_limits(1, user_api="blas"):
            # Only the screen that others look at, too, is kept: it takes 28 kB a cell.
            keep = config.grid > 0
            cells = simulated_cells(config.simulated, store, device) if keep else simulate(config.simulated, device)
            make_screen_products(config, cells, folder, device)

    key = fingerprint(config.simulated)
    return obtain(store, "cells-simulated", VERSION, config, key, make, device=device, force=force)


def make_screen_products(config: ScreenRun, cells: CellSet, folder: Path, device: str) -> None:
    """Distances between treatments, the week of controls, what can be read of the truth, and crops for figures."""
    seed = config.simulated.seed
    wells, weeks = {}, []
    for encoder in config.encoders:
        encoded = encode(cells, encoder, device, seed)
        if encoder == ENCODERS[0]:
            truth = cells.table.filter(like="truth_")
            save_table(probe(encoded, truth, config.folds), folder / "truth.parquet")
        for scaling in (BY_PLATE, POOLED):
            scaled = scale(encoded, scaling)
            wells[f"{encoder}, {scaling}"] = wells_of(scaled)
            weeks.append(week_of_controls(scaled, seed).assign(encoder=encoder, scaling=scaling))
    found = treatments(wells)
    save_table(found.table, folder / "treatments.parquet")
    save_table(found.distances, folder / "distances.parquet")
    save_table(pd.concat(weeks, ignore_index=True), folder / "weeks.parquet")
    table = cells.table
    size = {"cells": len(cells), "wells": table.groupby(["Metadata_plate", "Metadata_well"]).ngroups}
    save_table(pd.DataFrame([size | {"plates": table["Metadata_plate"].nunique()}]), folder / "size.parquet")
    if config.grid:
        chosen, images = grids.mechanisms(cells, config.grid, seed)
        names, weeks_images = grids.one_cell(config.simulated)
        save_table(chosen, folder / "grid.parquet")
        np.savez_compressed(folder / "grid.npz", mechanisms=images, weeks=weeks_images, names=np.array(names))


def make_real_run(config: RealRun, store: str | Path, device: str = "cpu", force: bool = False) -> Run:
    """Look at the real cells, fields and profiles, and keep what the page says of them."""

    def make(folder: Path) -> None:
        with threadpool_limits(1, user_api="blas"):
            simulated = simulated_cells(config.simulated, store, device)
            real.make_products(config, simulated, folder, device)

    key = digest([real.fingerprint(), fingerprint(config.simulated)])[:32]
    return obtain(store, "cells-real", VERSION, config, key, make, device=device, force=force)
