"""From crops to what is scored: features, scaling on controls, distances of treatments, week and truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from cellbook import features, metrics, profiles
from cellbook.cells import CellSet
from cellbook.metrics.scores import prepare
from cellbook.pages.cells.config import BY_PLATE

PROTOCOL = "ljosa2013"
# Where a cell lies and how it was cut says nothing about its treatment.
PLACE = ("Metadata_site", "Metadata_field", "Metadata_cell", "Metadata_y", "Metadata_x", "Metadata_dapi_centre_ratio")
CONTROL, POSITIVE = "negative control", "positive control"
NO_PARAMETER = ("truth_phase",)  # orders mitoses only
CHUNK = 2048  # cells
ALPHAS = tuple(10.0**power for power in range(6))


def encode(cells: CellSet, encoder: str, device: str = "cpu", seed: int = 0) -> pd.DataFrame:
    """Features of every cell by the name of the encoder; metadata of its well, without its place."""
    if encoder == "classical features":
        # In parts, as the memory of many small tensors is handed back only between calls.
        parts = [features.classical(cells.select(slice(i, i + CHUNK))) for i in range(0, len(cells), CHUNK)]
        table = pd.concat(parts, ignore_index=True)
    elif encoder == "pixel PCA":
        table = features.pixel_pca(cells, n=min(50, len(cells)), seed=seed)
    else:
        table = features.random_network(cells, seed=seed, device=device)
    return table.drop(columns=[name for name in PLACE if name in table])


def scale(cells: pd.DataFrame, scaling: str) -> pd.DataFrame:
    """Standardise cells by the DMSO cells of their plate, or by all DMSO cells; constant features are dropped."""
    by = "Metadata_plate" if scaling == BY_PLATE else None
    return profiles.PlateScaler("standardise", by=by, on_constant="drop").fit_transform(cells)


def wells_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean over the cells of each well, without the wells of the positive control."""
    return profiles.to_wells(cells[cells["Metadata_role"] != POSITIVE])


@dataclass(frozen=True)
class Treatments:
    """Treatments of the benchmark's protocol, and the condensed distances between them by setting."""

    table: pd.DataFrame
    distances: pd.DataFrame


def treatments(wells: dict[str, pd.DataFrame]) -> Treatments:
    """Aggregate wells to treatments by setting, and measure their distances, float32."""
    columns = {}
    for setting, table in wells.items():
        units = prepare(table, PROTOCOL, drop_unusable=True).profiles
        square = metrics.distance_matrix(profiles.matrix(units), metrics.PROTOCOLS[PROTOCOL].distance)
        columns[setting] = squareform(square, checks=False).astype(np.float32)
    return Treatments(units[profiles.metadata(units)], pd.DataFrame(columns))


def week_of_controls(cells: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Whether logistic regression names the week of single taxol control cells on plates held out, one row a cell.

    Columns: plate, correct, majority (share of the largest week), noise (accuracy on Gaussian noise). The positive
    control lies on every plate like DMSO; it did not fit the scaling, so what is left of the week is seen as treated
    cells show it.
    """
    controls = cells[cells["Metadata_role"] == POSITIVE].reset_index(drop=True)
    found = metrics.classify_batch(controls, seed=seed, standardise=True)
    return pd.DataFrame(
        {
            "plate": controls["Metadata_plate"],
            "correct": found.correct,
            "majority": found.majority,
            "noise": found.noise_baseline,
        }
    )


@threadpool_limits.wrap(1, user_api="blas")
def probe(encoded: pd.DataFrame, truth: pd.DataFrame, folds: int) -> pd.DataFrame:
    """R2 with which ridge regression reads each known parameter from the features of a cell, on plates held out.

    Parameters
    ----------
    encoded : DataFrame (cells)
        Unscaled features, as of `encode`.
    truth : DataFrame (cells)
        The columns ``truth_*`` of the same cells; the state of the cell becomes one indicator a state.
    folds : int

    Returns
    -------
    DataFrame
        parameter, kind ("cell", "treatment" or "nuisance": the same for all cells of a well), r2, spread (standard
        deviation over folds). R2 is at most 1; 0 is reached by guessing the mean. Constant parameters are left out.
    """
    states = pd.get_dummies(truth["truth_state"], dtype=np.float64).add_prefix("truth_state: ")
    targets = pd.concat([truth.select_dtypes("number").drop(columns=list(NO_PARAMETER)), states], axis=1)
    targets = targets.loc[:, targets.std() > 1e-9].astype(np.float64)
    plate = encoded["Metadata_plate"].to_numpy()
    well = encoded.groupby(["Metadata_plate", "Metadata_well"]).ngroup().to_numpy()
    within = targets.groupby(well).agg(np.ptp).max()
    x, y = profiles.matrix(encoded), targets.to_numpy()
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    # A dead or empty crop lies hundreds of standard deviations out and would turn every line.
    clip = FunctionTransformer(lambda z: np.clip(z, -8, 8))
    scores, predicted = [], np.empty_like(y)
    for train, test in GroupKFold(folds).split(x, groups=plate):
        model = make_pipeline(StandardScaler(), clip, RidgeCV(ALPHAS, alpha_per_target=True)).fit(x[train], y[train])
        predicted[test] = model.predict(x[test])
        error = ((predicted[test] - y[test]) ** 2).mean(axis=0)
        scores.append(1 - error / np.maximum(((y[test] - y[train].mean(axis=0)) ** 2).mean(axis=0), 1e-12))
    names = [str(name).removeprefix("truth_") for name in targets]
    kinds = [
        "treatment" if name in ("dose_effect", "effect") else "cell" if varies else "nuisance"
        for name, varies in zip(names, within > 1e-6, strict=True)
    ]
    return pd.DataFrame(
        {
            "parameter": names,
            "kind": kinds,
            "r2": 1 - ((predicted - y) ** 2).mean(axis=0),
            "spread": np.std(scores, axis=0),
        }
    )
