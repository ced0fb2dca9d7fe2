"""What a score is worth: labels at random, the largest class, one feature alone, features that are only categories."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cellbook.errors import CellbookError
from cellbook.metrics.moa import Match, check_distances, factorize, match
from cellbook.metrics.neighbours import Floats, candidates, design, distance_matrix, tally
from cellbook.metrics.protocols import Measure
from cellbook.metrics.scores import measure_design
from cellbook.metrics.uncertainty import accuracy
from cellbook.profiles.table import check_finite, require

CHUNK = 100  # relabellings or orders at a time


def chance(
    profiles: pd.DataFrame,
    measure: Measure | None = None,
    *,
    distances: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> Floats:
    """Compute the accuracy that remains when labels are permuted over the rows and everything else stays.

    Parameters
    ----------
    profiles : DataFrame (rows)
        The units to match, without controls, as for `match`.
    measure : Measure, optional
        What is measured; by default 1-NN, not same compound.
    distances : float (rows, rows), optional
        Replaces the features, between which the cosine distance is taken.
    n : int
        Permutations.
    seed : int

    Returns
    -------
    float64 (n,)
        Accuracies, 0 to 1, NaN where no row could be scored. Their 95th percentile is what chance rarely exceeds.

    Raises
    ------
    CellbookError
        As `match`.
    """
    m = measure or Measure("NSC")
    d = _checked(profiles, m, distances, n)
    labels, names = factorize(profiles[m.label])
    relabelled = np.random.default_rng(seed).permuted(np.tile(labels, (n, 1)), axis=1)
    eligible = candidates(profiles, m.exclude)
    values = np.empty(n)
    for start in range(0, n, CHUNK):
        plan = design(
            relabelled[start : start + CHUNK],
            eligible,
            names,
            drop_unmatchable=m.drop_unmatchable,
            count_unmatchable=m.count_unmatchable,
        )
        votes = tally(d, plan, m.k, m.vote)
        values[start : start + CHUNK] = accuracy(votes.correct, votes.counted, _compounds(profiles), m.average)
    return values


def expected_under_ties(
    profiles: pd.DataFrame,
    measure: Measure | None = None,
    *,
    by: str | None = None,
    distances: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> Floats:
    """Compute the accuracy expected when equal distances are broken at random instead of by the order of rows.

    For features that are only categories, such as the week or the position on the plate alone, nearly all distances are
    equal and the order of the rows would decide.

    Parameters
    ----------
    profiles : DataFrame (rows)
        The units to match, without controls.
    measure : Measure, optional
        By default 1-NN, not same compound.
    by : str
        A column: rows with the same value are at distance 0, others at 1. Either this or `distances`.
    distances : float (rows, rows)
    n : int
        Random orders.
    seed : int

    Returns
    -------
    float64 (n,)
        The accuracy under each order, 0 to 1; their mean is the one expected.
    """
    m = measure or Measure("NSC")
    if (by is None) == (distances is None):
        raise CellbookError("give either by= (a column of categories) or distances=, not both or none.")
    if by is not None:
        require(profiles, by)
        distances = profiles[by].to_numpy()[:, None] != profiles[by].to_numpy()[None, :]
    d, rows = _checked(profiles, m, distances, n), len(profiles)
    # Distance first, random place second, as one whole number: no two candidates of a query are then equal.
    rank = np.unique(d, return_inverse=True)[1].reshape(rows, rows)
    plan = measure_design(profiles, m)
    place = np.random.default_rng(seed).random((n, rows)).argsort(axis=1).argsort(axis=1)
    values = np.empty(n)
    for start in range(0, n, CHUNK):
        keys = (rank * rows + place[start : start + CHUNK, None, :]).astype(np.float64)
        votes = tally(keys, plan, m.k, m.vote)
        values[start : start + CHUNK] = accuracy(votes.correct, votes.counted, _compounds(profiles), m.average)
    return values


def majority(profiles: pd.DataFrame, label: str = "Metadata_moa") -> float:
    """Compute the share of the most frequent label: what is reached by always naming it, 0 to 1."""
    require(profiles, label)
    if profiles[label].notna().sum() == 0:
        raise CellbookError(f"{label} is missing in all {len(profiles)} rows; there is no most frequent label.")
    return float(profiles[label].value_counts(normalize=True).iloc[0])


def one_feature(profiles: pd.DataFrame, column: str = "Metadata_cell_count", measure: Measure | None = None) -> Match:
    """Match by one number alone, such as the cell count: the absolute difference is the distance.

    Parameters
    ----------
    profiles : DataFrame (rows)
        The units to match, without controls.
    column : str
        A numeric column, feature or metadata.
    measure : Measure, optional
        By default 1-NN, not same compound.
    """
    require(profiles, column)
    x = pd.to_numeric(profiles[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if bad := int((~np.isfinite(x)).sum()):
        raise CellbookError(f"{column} is not a finite number in {bad} of {len(x)} rows; drop those rows.")
    m = measure or Measure("NSC")
    return match(profiles, distances=distance_matrix(x[:, None], "euclidean"), **m.arguments())


def _checked(profiles: pd.DataFrame, m: Measure, distances: ArrayLike | None, n: int) -> Floats:
    """Return the distances once `match` has accepted the input."""
    if n < 1:
        raise CellbookError(f"n={n}: at least one repetition is needed.")
    d = check_distances(distance_matrix(check_finite(profiles)) if distances is None else distances, len(profiles))
    match(profiles, distances=d, **m.arguments())
    return d


def _compounds(profiles: pd.DataFrame) -> ArrayLike:
    """Name the compound of each row, or the row where there is none; only average="compounds" looks at it."""
    if "Metadata_compound" in profiles:
        return profiles["Metadata_compound"].astype(str).to_numpy(dtype=str)
    return np.arange(len(profiles))
