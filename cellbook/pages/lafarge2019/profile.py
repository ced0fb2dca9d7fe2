"""From codes of cells to distances between treatments: the four summaries of the paper's table, and the baselines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import squareform
from sklearn.covariance import ledoit_wolf_shrinkage
from threadpoolctl import threadpool_limits

from cellbook import features, metrics, profiles
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods import vae_plus
from cellbook.metrics.scores import prepare
from cellbook.pages.lafarge2019.screen import is_positive

PROTOCOL = "lafarge2019"
SUMMARIES = ("mean", "mean, whitened", "mean+SD", "mean+SD, whitened")
BY_PLATE = ", by plate"  # behind a whitened summary: each plate by its own controls, where it has enough of them
DISTANCES = ("cosine", "euclidean")
TREATMENT = ["Metadata_compound", "Metadata_concentration"]
WELL = ["Metadata_plate", "Metadata_well"]
# Where a cell lies and how it was cut says nothing about its treatment.
PLACE = ("Metadata_site", "Metadata_field", "Metadata_cell", "Metadata_y", "Metadata_x", "Metadata_dapi_centre_ratio")


def wells_of(cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Well profiles: means, and means beside standard deviations; the positive control is left out.

    One cell has no standard deviation. Such wells are left out of the second table, unless their treatment has no
    other: then the standard deviation is 0.
    """
    cells = cells[~is_positive(cells)].drop(columns=[name for name in PLACE if name in cells])
    both = profiles.to_wells(cells, "mean_sd", single="zero")
    mean = both[[name for name in both if not str(name).endswith("_sd")]]
    several = (both["Metadata_n"] > 1).to_numpy()
    usable = several | ~both.assign(several=several).groupby(TREATMENT)["several"].transform("any").to_numpy()
    return mean, both[usable].reset_index(drop=True)


def shrinkage_ridge(controls: np.ndarray, groups: np.ndarray) -> float:
    """Ridge, relative to the mean eigenvalue, that shrinking the controls' covariance as Ledoit and Wolf (2004) adds.

    It is chosen by the controls alone, so that no mechanism and no treatment has a say. Where every group is whitened
    by its own few controls, the ridge of all controls together, centred by group, grows with the number of groups, as
    the error of a covariance does when its sample is cut.
    """
    means = pd.DataFrame(controls).groupby(groups).transform("mean").to_numpy()
    share = min(float(ledoit_wolf_shrinkage(controls - means)), 0.99)
    return max(share / (1 - share), 1e-3) * len(np.unique(groups))


def whiten(wells: pd.DataFrame, by: str | None = None) -> tuple[pd.DataFrame, dict[str, float]]:
    """Whiten wells by their DMSO wells; also how many there are, their rank and the ridge (of a group, on average)."""
    control = profiles.controls_mask(wells)
    groups = np.zeros(len(wells), int) if by is None else wells[by].to_numpy()
    ridge = shrinkage_ridge(profiles.matrix(wells)[control], groups[control])
    white = profiles.Whitening(ridge, relative=True, kind="zca", by=by)
    result = white.fit_transform(wells)
    size = control.sum() / len(white.groups_)
    used = {"controls": float(size), "features": float(len(white.features_)), "rank": float(np.mean(white.rank_))}
    return result, used | {"ridge": ridge}


def enough_by_plate(wells: pd.DataFrame) -> bool:
    """Whether every plate has at least two control wells of its own."""
    counts = profiles.controls_mask(wells)
    return bool(pd.Series(counts).groupby(wells["Metadata_plate"].to_numpy()).sum().ge(2).all())


@threadpool_limits.wrap(1, user_api="blas")
def summaries(cells: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """All summaries of codes of cells: well profiles by name, and what each whitening was fitted on, one row each."""
    found: dict[str, pd.DataFrame] = {}
    used = []
    for name, wells in zip(("mean", "mean+SD"), wells_of(cells), strict=True):
        varying = profiles.drop_unusable(wells)[0]
        found[name] = varying
        for by, ending in ((None, ""), ("Metadata_plate", BY_PLATE)):
            if by is None or enough_by_plate(varying):
                found[f"{name}, whitened{ending}"], numbers = whiten(varying, by)
                used.append({"summary": f"{name}, whitened{ending}", **numbers})
    return found, pd.DataFrame(used)


def treatments(wells: pd.DataFrame) -> pd.DataFrame:
    """Treatment profiles of the protocol, in the order of compound and concentration."""
    units = prepare(wells, PROTOCOL, drop_unusable=True).profiles
    return units.sort_values(TREATMENT, ignore_index=True)


def distances(by_summary: dict[str, pd.DataFrame], wanted: tuple[str, ...] = DISTANCES) -> dict[str, np.ndarray]:
    """Condensed distances between treatments, float32, by "summary|distance"."""
    found, first = {}, None
    for summary, wells in by_summary.items():
        units = treatments(wells)
        keys = units[TREATMENT]
        if first is not None and not keys.equals(first):
            raise CellbookError(f"summary {summary!r} has {len(keys)} treatments, the others {len(first)}: not alike")
        first = keys
        for distance in wanted[:1] if summary.endswith(BY_PLATE) else wanted:
            square = metrics.distance_matrix(profiles.matrix(units), distance)  # type: ignore[arg-type]
            found[f"{summary}|{distance}"] = squareform(square, checks=False).astype(np.float32)
    return found


def treatment_table(wells: pd.DataFrame) -> pd.DataFrame:
    """Metadata of the treatments in the order of `distances`."""
    units = treatments(wells)
    return units[profiles.metadata(units)]


def standardise(cells: pd.DataFrame) -> pd.DataFrame:
    """Scale features of cells by all DMSO cells, for baselines that have no scale of their own."""
    return profiles.PlateScaler("standardise", by=None, on_constant="drop").fit_transform(cells)


def untrained(config: vae_plus.Config, cells: CellSet) -> pd.DataFrame:
    """Codes of the same encoder before its first step: what the architecture alone gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        state = vae_plus.begin(config, cells, torch.device("cpu"))
    codes = pd.DataFrame(vae_plus.encode(state, cells), columns=[f"z{i}" for i in range(config.latent)])
    return pd.concat([cells.table.filter(like="Metadata_"), codes], axis=1)


def baseline(name: str, cells: CellSet, config: vae_plus.Config) -> pd.DataFrame:
    """Standardised features of cells by the name of a baseline."""
    if name == "untrained encoder":
        table = untrained(config, cells)
    elif name == "pixel PCA":
        table = features.pixel_pca(cells, n=min(config.latent, len(cells)), seed=config.seed)
    else:
        table = features.classical(cells)
    return standardise(table)


BASELINES = ("untrained encoder", "pixel PCA", "classical features")


def cell_counts(cells: CellSet, screen: str) -> pd.DataFrame | None:
    """Median cell count of the wells of each treatment, or None where it is not known.

    The real sample was gathered unevenly, so its own numbers of crops mean nothing; the published profiles have the
    true ones.
    """
    table = cells.table
    if screen == "bbbc021-sample":
        from cellbook.screens import bbbc021

        try:
            table = bbbc021.ljosa2013()
        except CellbookError:
            return None
    elif "Metadata_cell_count" not in table:
        return None
    wells = table[~is_positive(table)].drop_duplicates(WELL)
    counts = wells.groupby(TREATMENT, as_index=False)["Metadata_cell_count"].median()
    return counts[counts["Metadata_compound"] != "DMSO"].sort_values(TREATMENT, ignore_index=True)
