"""From codes of cells to distances between treatments, as a study keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from sklearn.covariance import ledoit_wolf_shrinkage
from threadpoolctl import threadpool_limits

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.files import write_atomically
from cellbook.metrics import prepare
from cellbook.profiles.aggregate import TREATMENT, WELL
from cellbook.screens.named import cell_counts, is_positive, without_place

SUMMARIES = ("mean", "mean, whitened", "mean+SD", "mean+SD, whitened")
BY_PLATE = ", by plate"  # behind a whitened summary: each plate by its own controls, where it has enough of them
DISTANCES = ("cosine", "euclidean")
Key = TypeVar("Key")


# --- summaries of wells ---------------------------------------------------------------------------------------------


def to_wells(cells: pd.DataFrame) -> pd.DataFrame:
    """Means and standard deviations of the features of cells by well, as a training keeps them of its codes."""
    return profiles.to_wells(without_place(cells), "mean_sd", single="zero")


def means(wells: pd.DataFrame) -> pd.DataFrame:
    """Of the wells of `to_wells`, as a training keeps them, the means."""
    return wells[[name for name in wells if not str(name).endswith("_sd")]]


def mean_codes(wells: pd.DataFrame) -> pd.DataFrame:
    """The same means under the names of the codes of cells."""
    return means(wells).rename(columns=lambda name: str(name).removesuffix("_mean"))


def without_positives(wells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the wells of `to_wells` the means, and means beside standard deviations; the positive control is left out.

    One cell has no standard deviation. Such wells are left out of the second table, unless their treatment has no
    other: then the standard deviation is 0.
    """
    both = wells[~is_positive(wells)].reset_index(drop=True)
    several = (both["Metadata_n"] > 1).to_numpy()
    usable = several | ~both.assign(several=several).groupby(TREATMENT)["several"].transform("any").to_numpy()
    return means(both), both[usable].reset_index(drop=True)


def shrinkage_ridge(controls: np.ndarray, groups: np.ndarray) -> float:
    """Ridge, relative to the mean eigenvalue, that shrinking the controls' covariance as Ledoit and Wolf (2004) adds.

    It is chosen by the controls alone, so that no mechanism and no treatment has a say. Where every group is whitened
    by its own few controls, the ridge of all controls together, centred by group, grows with the number of groups, as
    the error of a covariance does when its sample is cut.
    """
    means = pd.DataFrame(controls).groupby(groups).transform("mean").to_numpy()
    share = min(float(ledoit_wolf_shrinkage(controls - means)), 0.99)
    return max(share / (1 - share), 1e-3) * len(np.unique(groups))


def whiten(
    table: pd.DataFrame, by: str | None = None, kind: Literal["pca", "zca"] = "zca"
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Whiten by the DMSO rows; also how many there are, their rank and the ridge (of a group, on average)."""
    control = profiles.controls_mask(table)
    groups = np.zeros(len(table), int) if by is None else table[by].to_numpy()
    ridge = shrinkage_ridge(profiles.matrix(table)[control], groups[control])
    white = profiles.Whitening(ridge, relative=True, kind=kind, by=by)
    result = white.fit_transform(table)
    size = control.sum() / len(white.groups_)
    used = {"controls": float(size), "features": float(len(white.features_)), "rank": float(np.mean(white.rank_))}
    return result, used | {"ridge": ridge}


def whiten_wide(wells: pd.DataFrame, ridge: float) -> pd.DataFrame:
    """Whiten by the DMSO rows with a ridge in units of the mean eigenvalue; for any number of features.

    Where there are more features than wells, these are turned into the directions that they span first, which changes
    no distance between them; the ridge stays the same, as its mean is over all features.
    """
    x = profiles.matrix(wells)
    x -= x[profiles.controls_mask(wells)].mean(axis=0)
    width = x.shape[1]
    if width > len(x):
        axes, size, _ = np.linalg.svd(x, full_matrices=False)
        x = axes * size
    table = profiles.replace_features(wells, x, [f"span_{i}" for i in range(x.shape[1])])
    return profiles.Whitening(ridge * x.shape[1] / width, relative=True).fit_transform(table)


def whiten_shrunk(wells: pd.DataFrame) -> pd.DataFrame:
    """`whiten_wide` with the ridge of `shrinkage_ridge`, all plates together."""
    control = profiles.controls_mask(wells)
    ridge = shrinkage_ridge(profiles.matrix(wells)[control], np.zeros(control.sum(), int))
    return whiten_wide(wells, ridge)


def base(wells: pd.DataFrame, components: int, one_unit: bool) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """What corrections by wells or cells start from, as a function of wells or cells with these features.

    Features are in deviations of the DMSO wells, each in its own or, where all have one unit, in the root of their mean
    variance: outputs of a network that hardly vary among a few dozen controls are noise that deviations of their own
    would blow up. More than `components` features are turned into the directions in which wells vary most around the
    mean of the controls. No label plays a part.
    """
    usable = profiles.drop_unusable(wells)[0]
    scaler = profiles.PlateScaler("standardise", by=None, on_constant="drop").fit(usable)
    names = scaler.features_
    weights = scaler.spread_[0] / np.sqrt((scaler.spread_**2).mean()) if one_unit else np.ones(len(names))
    x = profiles.matrix(scaler.transform(usable)) * weights
    axes = np.linalg.svd(x, full_matrices=False)[2][:components].T  # (features, n)

    def start(table: pd.DataFrame) -> pd.DataFrame:
        scaled = scaler.transform(table[[*profiles.metadata(table), *profiles.features(usable)]])
        y = profiles.matrix(scaled) * weights
        if len(axes) <= components:
            return profiles.replace_features(scaled, y, names)
        return profiles.replace_features(scaled, y @ axes, [f"axis_{i}" for i in range(axes.shape[1])])

    return start


def enough_by_plate(wells: pd.DataFrame) -> bool:
    """Whether every plate has at least two control wells of its own."""
    counts = profiles.controls_mask(wells)
    return bool(pd.Series(counts).groupby(wells["Metadata_plate"].to_numpy()).sum().ge(2).all())


@threadpool_limits.wrap(1, user_api="blas")
def summaries(both: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """All summaries of wells, of `to_wells`: profiles by name, and what each whitening was fitted on, one row each."""
    found: dict[str, pd.DataFrame] = {}
    used = []
    for name, wells in zip(("mean", "mean+SD"), without_positives(both), strict=True):
        varying = profiles.drop_unusable(wells)[0]
        found[name] = varying
        for by, ending in ((None, ""), ("Metadata_plate", BY_PLATE)):
            if by is None or enough_by_plate(varying):
                found[f"{name}, whitened{ending}"], numbers = whiten(varying, by)
                used.append({"summary": f"{name}, whitened{ending}", **numbers})
    return found, pd.DataFrame(used)


# --- treatments and their distances ---------------------------------------------------------------------------------


def treatments(wells: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Treatment profiles of a protocol, in the order of compound and concentration."""
    units = prepare(wells, protocol, drop_unusable=True).profiles
    return units.sort_values(TREATMENT, ignore_index=True)


def with_counts(units: pd.DataFrame, cells: CellSet, screen: str) -> pd.DataFrame:
    """Metadata of treatments, with the number of cells of their wells as ``count`` where it is known."""
    known = units[profiles.metadata(units)]
    counts = cell_counts(cells, screen)
    return known if counts is None else known.merge(counts.rename(columns={"Metadata_cell_count": "count"}), how="left")


def condensed(units: pd.DataFrame, distance: str) -> np.ndarray:
    """Distances between profiles, (n (n - 1) / 2,) float32, pair by pair."""
    square = metrics.distance_matrix(profiles.matrix(units), distance)  # type: ignore[arg-type]
    return squareform(square, checks=False).astype(np.float32)


def distances(
    by_summary: Mapping[str, pd.DataFrame], protocol: str, wanted: tuple[str, ...] = DISTANCES
) -> dict[str, np.ndarray]:
    """Condensed distances between treatments by "summary|distance"; of a whitening by plate only the first."""
    found, first = {}, None
    for summary, wells in by_summary.items():
        units = treatments(wells, protocol)
        keys = units[TREATMENT]
        if first is not None and not keys.equals(first):
            raise CellbookError(f"summary {summary!r} has {len(keys)} treatments, the others {len(first)}: not alike")
        first = keys
        for distance in wanted[:1] if summary.endswith(BY_PLATE) else wanted:
            found[f"{summary}|{distance}"] = condensed(units, distance)
    return found


def save_distances(found: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write distances with 16 bits each, a 65,535th of the largest of their setting: a third of the size."""
    scale, kept = quantised(list(found.values()))

    def write(path: Path) -> None:
        np.savez_compressed(path, names=np.array(list(found)), scale=scale, values=kept)

    write_atomically(folder / "distances.npz", write)


def nearest_alone(
    distances: Mapping[Key, np.ndarray],
    treatments: pd.DataFrame,
    measures: Iterable[metrics.Measure],
    *,
    second: bool = False,
) -> dict[Key, np.ndarray]:
    """Condensed distances of which those to the nearest candidates are kept, and all others are the largest.

    For pages whose numbers all ask for the nearest candidate alone: hundreds of settings and checkpoints with all their
    distances take ten times the room. `second` also keeps the nearest candidate of another compound than that one, for
    what is asked when a compound is not there.
    """
    allowed = [metrics.measure_design(treatments, measure).eligible for measure in measures]
    compounds = treatments["Metadata_compound"].to_numpy()
    found = {}
    for key, line in distances.items():
        square = squareform(line)
        kept = np.zeros(square.shape, bool)
        for eligible in allowed:
            for _ in range(1 + second):
                asks = eligible.any(axis=1)
                nearest = np.where(eligible, square, np.inf).argmin(axis=1)
                kept[asks, nearest[asks]] = True
                eligible = eligible & (compounds != compounds[nearest][:, None])
        kept |= kept.T
        found[key] = squareform(np.where(kept, square, square.max()), checks=False) if kept.any() else line
    return found


def quantised(lines: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Values that are not negative in 16 bits: the step of each line, (n,), and how many of it, (n, pairs) uint16."""
    values = np.stack(lines).astype(np.float64)
    scale = np.maximum(values.max(axis=1), np.finfo(float).tiny) / 65535
    return scale, np.round(values / scale[:, None]).astype(np.uint16)


def size(cells: CellSet, n_treatments: int) -> pd.DataFrame:
    """How much there is: cells, wells, plates, DMSO cells and wells, treatments; one row."""
    table = cells.table
    control = table[table["Metadata_compound"] == "DMSO"]
    numbers = {
        "cells": len(table),
        "wells": len(table[WELL].drop_duplicates()),
        "plates": table["Metadata_plate"].nunique(),
        "weeks": table["Metadata_batch"].nunique(),
        "control_cells": len(control),
        "control_wells": len(control[WELL].drop_duplicates()),
        "treatments": n_treatments,
    }
    return pd.DataFrame([numbers])
