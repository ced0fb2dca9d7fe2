"""What is known of cells beside their mechanism: the week of controls, and on simulated cells all that was drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from cellbook import metrics, profiles
from cellbook.profiles.aggregate import WELL
from cellbook.screens.named import is_positive

NO_PARAMETER = ("truth_phase",)  # orders mitoses only
ALPHAS = tuple(10.0**power for power in range(6))


def week_of_controls(cells: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Whether logistic regression names the week of single positive control cells on plates held out, one row a cell.

    Columns: plate, correct, majority (share of the largest week), noise (accuracy on Gaussian noise). The positive
    control lies on every plate like DMSO; it fits no scaling and no whitening, so what is left of the week is seen as
    treated cells show it. Weeks with fewer than three such plates are left out; without positive controls, or with one
    week, the table is empty.
    """
    control = cells[is_positive(cells)].reset_index(drop=True)
    plates = control.groupby("Metadata_batch")["Metadata_plate"].nunique()
    control = control[control["Metadata_batch"].isin(plates.index[plates >= 3])].reset_index(drop=True)
    if control["Metadata_batch"].nunique() < 2:
        return pd.DataFrame()
    found = metrics.classify_batch(control, seed=seed, standardise=True)
    columns = {"plate": control["Metadata_plate"], "correct": found.correct, "majority": found.majority}
    return pd.DataFrame(columns | {"noise": found.noise_baseline})


@threadpool_limits.wrap(1, user_api="blas")
def probe(encoded: pd.DataFrame, truth: pd.DataFrame, folds: int) -> pd.DataFrame:
    """R2 with which ridge regression reads each known parameter from the features of a cell, on plates held out.

    Parameters
    ----------
    encoded : DataFrame (cells)
        Unscaled features.
    truth : DataFrame (cells)
        The columns ``truth_*`` of the same cells; the state of the cell becomes one indicator a state.
    folds : int

    Returns
    -------
    DataFrame
        parameter, kind ("cell", "treatment" or "nuisance": the same for all cells of a well), r2, spread (standard
        deviation over folds). R2 is at most 1; 0 is reached by guessing the mean. Constant parameters are left out.
    """
    targets = parameters(truth)
    well = encoded.groupby(WELL).ngroup().to_numpy()
    r2, folded = read(profiles.matrix(encoded), targets, encoded["Metadata_plate"].to_numpy(), folds)
    return _told(targets, well).assign(r2=r2, spread=np.std(folded, axis=0))


@threadpool_limits.wrap(1, user_api="blas")
def probe_wells(wells: pd.DataFrame, cells: pd.DataFrame, folds: int) -> pd.DataFrame:
    """R2 with which ridge regression reads the mean of each known parameter from the profile of a well.

    Compounds are held out, each with all of its wells, so that no compound is recognised; wells of controls take no
    part, as most of them are one compound.

    Parameters
    ----------
    wells : DataFrame (wells)
        Unscaled profiles.
    cells : DataFrame (cells)
        Table of the same simulated screen, with the columns ``truth_*``.
    folds : int

    Returns
    -------
    DataFrame
        parameter, kind, r2 as of `probe`.
    """
    targets = parameters(cells)
    told = _told(targets, cells.groupby(WELL).ngroup().to_numpy())
    treated = wells[~(is_positive(wells) | (wells["Metadata_compound"] == "DMSO"))]
    means = targets.groupby([cells[name] for name in WELL]).mean().loc[pd.MultiIndex.from_frame(treated[WELL])]
    varies = (means.std() > 1e-9).to_numpy()
    r2, _ = read(profiles.matrix(treated), means.loc[:, varies], treated["Metadata_compound"].to_numpy(), folds)
    return told[varies].assign(r2=r2).reset_index(drop=True)


def parameters(truth: pd.DataFrame) -> pd.DataFrame:
    """The known parameters of cells that vary, (cells, parameters) float64; the state is one indicator a state."""
    states = pd.get_dummies(truth["truth_state"], dtype=np.float64).add_prefix("truth_state: ")
    numbers = truth.filter(like="truth_").select_dtypes("number").drop(columns=list(NO_PARAMETER))
    targets = pd.concat([numbers, states], axis=1)
    return targets.loc[:, targets.std() > 1e-9].astype(np.float64)


def read(x: np.ndarray, targets: pd.DataFrame, groups: np.ndarray, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """R2 of ridge regression of every target from features x (n, d), with groups (n,) held out; (targets,).

    Also that of every fold, (folds, targets), against the mean of the other folds.
    """
    y = targets.to_numpy()
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    # A dead or empty crop lies hundreds of standard deviations out and would turn every line.
    clip = FunctionTransformer(lambda z: np.clip(z, -8, 8))
    scores, predicted = [], np.empty_like(y)
    for train, test in GroupKFold(folds).split(x, groups=groups):
        model = make_pipeline(StandardScaler(), clip, RidgeCV(ALPHAS, alpha_per_target=True)).fit(x[train], y[train])
        predicted[test] = model.predict(x[test])
        error = ((predicted[test] - y[test]) ** 2).mean(axis=0)
        scores.append(1 - error / np.maximum(((y[test] - y[train].mean(axis=0)) ** 2).mean(axis=0), 1e-12))
    return 1 - ((predicted - y) ** 2).mean(axis=0), np.array(scores)


def _told(targets: pd.DataFrame, well: np.ndarray) -> pd.DataFrame:
    """Name and kind of every parameter of cells, whose wells are given by number."""
    of_wells = targets.groupby(well)
    within = (of_wells.max() - of_wells.min()).max()
    names = [str(name).removeprefix("truth_") for name in targets]
    kinds = [
        "treatment" if name in ("dose_effect", "effect") else "cell" if varies else "nuisance"
        for name, varies in zip(names, within > 1e-6, strict=True)
    ]
    return pd.DataFrame({"parameter": names, "kind": kinds})
