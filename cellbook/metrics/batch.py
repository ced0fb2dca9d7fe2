"""Whether the batch can be read from controls, which are alike everywhere: what tells them apart is not biology."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cellbook.errors import CellbookError
from cellbook.metrics.neighbours import Floats, choose, complete, plain
from cellbook.profiles.table import check_finite

Model = Literal["logistic", "forest"]
Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


@dataclass(frozen=True)
class BatchAccuracy:
    """How well a classifier tells the batches of controls apart; lower is better."""

    accuracy: float  # mean over folds, 0 to 1
    majority: float  # share of the largest batch among all rows: what is reached without looking
    noise_baseline: float  # the same classifier on the same folds when every coordinate is an independent N(0, 1)
    n: int  # rows
    n_batches: int
    converged: bool  # whether every logistic regression reached its optimum within the library's iterations
    correct: NDArray[np.bool_] = field(repr=False)  # (n,), whether each row, when held out, got its batch


def classify_batch(
    controls: pd.DataFrame,
    label: str = "Metadata_batch",
    group: str | None = "Metadata_plate",
    model: Model = "logistic",
    folds: int = 3,
    seed: int = 0,
    *,
    standardise: bool = False,
) -> BatchAccuracy:
    """Measure how well the batch of control profiles can be predicted by cross-validation (Tabak et al. 2020).

    The paper uses logistic regression (L2, C = 1) and a random forest of 100 trees with the library's defaults, on
    cells, in stratified folds. Wells of one plate resemble each other for more reasons than their week: with `group` a
    plate is never in training and test at once, so that what is found holds for a new plate.

    Parameters
    ----------
    controls : DataFrame (n rows)
        Profiles of controls only, wells or cells.
    label : str
        The column to predict.
    group : str or None
        Rows that share it stay in the same fold; None shuffles rows, stratified by label, and asks the easier question.
    model : {"logistic", "forest"}
    folds : int
    seed : int
        Of folds, trees and noise.
    standardise : bool
        Scale every feature to mean 0 and SD 1 on the training rows, inside each fold. The paper does not; badly scaled
        features then keep the logistic regression from converging, see `converged`.

    Raises
    ------
    CellbookError
        On one batch only, too few plates or rows in a batch for the folds, or features that are not finite.
    """
    choose("model", model, Model)
    if folds < 2:
        raise CellbookError(f"folds={folds}: cross-validation needs at least 2.")
    complete(controls, [label] if group is None else [label, group])
    y = controls[label].astype(str).to_numpy(dtype=str)
    _check_folds(controls, label, group, folds)
    x = check_finite(controls)
    splits = _splits(y, None if group is None else controls[group].astype(str).to_numpy(dtype=str), folds, seed)
    scores, correct, converged = _cross_validate(x, y, splits, model, seed, standardise)
    noise = np.random.default_rng(seed).standard_normal(x.shape)
    baseline, _, _ = _cross_validate(noise, y, splits, model, seed, standardise=False)
    counts = np.unique(y, return_counts=True)[1]
    return BatchAccuracy(
        accuracy=float(np.mean(scores)),
        majority=float(counts.max() / len(y)),
        noise_baseline=float(np.mean(baseline)),
        n=len(y),
        n_batches=len(counts),
        converged=converged,
        correct=correct,
    )


def _check_folds(controls: pd.DataFrame, label: str, group: str | None, folds: int) -> None:
    name = plain(label)
    units = controls[label] if group is None else controls.drop_duplicates([label, group])[label]
    per_batch = units.value_counts()
    if len(per_batch) < 2:
        raise CellbookError(
            f"all {len(controls)} rows have {label} '{per_batch.index[0]}'; telling {name}s apart needs at least two."
            if len(per_batch)
            else "controls has no rows; pass the control rows of a profile table."
        )
    few = per_batch[per_batch < folds]
    if few.size:
        what = "rows" if group is None else f"{plain(group)}s"
        raise CellbookError(
            f"{few.size} of {len(per_batch)} values of {label} have fewer than {folds} {what} (first: '{few.index[0]}' "
            f"with {few.iloc[0]}), so a fold would lack them; use folds={max(2, int(few.min()))}"
            + ("" if group is None else ", or group=None")
            + ", or leave them out."
        )


def _splits(y: NDArray[np.str_], groups: NDArray[np.str_] | None, folds: int, seed: int) -> Folds:
    cv = StratifiedKFold if groups is None else StratifiedGroupKFold
    return list(cv(n_splits=folds, shuffle=True, random_state=seed).split(np.zeros(len(y)), y, groups))


def _classifier(model: Model, seed: int, standardise: bool) -> ClassifierMixin:
    if model == "forest":
        return RandomForestClassifier(n_estimators=100, random_state=seed, n_jobs=1)
    logistic = LogisticRegression(C=1.0)
    return make_pipeline(StandardScaler(), logistic) if standardise else logistic


def _cross_validate(
    x: Floats, y: NDArray[np.str_], splits: Folds, model: Model, seed: int, standardise: bool
) -> tuple[list[float], NDArray[np.bool_], bool]:
    scores, correct, converged = [], np.zeros(len(y), dtype=bool), True
    # The fits are small: threads that wait for each other cost more than they bring.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        for train, test in splits:
            classifier = _classifier(model, seed, standardise).fit(x[train], y[train])
            correct[test] = classifier.predict(x[test]) == y[test]
            scores.append(float(np.mean(correct[test])))
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            converged = False
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return scores, correct, converged
