"""Distances, who may be matched with whom, and the vote of the nearest: the arithmetic under every matching protocol.

Everything here works on stacks: a leading axis holds draws of chance or checkpoints, so that a baseline is the same
code as one evaluation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from cellbook.errors import CellbookError
from cellbook.profiles.table import require

Distance = Literal["cosine", "euclidean"]
Vote = Literal["share", "majority", "pooled"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DECIMALS = 12  # coarser than the last bits in which two machines differ, finer than any difference of meaning
SEVERAL = "|"  # joins the batches of a treatment made in more than one


def choose(argument: str, value: str, allowed: object) -> None:
    """Refuse a value that is none of a Literal's, naming the argument and what it may be."""
    if value not in get_args(allowed):
        raise CellbookError(f"{argument}={value!r}: it must be one of {', '.join(map(repr, get_args(allowed)))}.")


def complete(profiles: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuse a missing value in any of these columns, and a column that is not there."""
    columns = list(columns)
    require(profiles, columns)
    for column in columns:
        if missing := int(profiles[column].isna().sum()):
            raise CellbookError(
                f"{column} is missing in {missing} of {len(profiles)} rows; fill it in or drop those rows."
            )


def distance_matrix(features: ArrayLike, distance: Distance = "cosine") -> Floats:
    """Compute all pairwise distances between rows, in float64, rounded so that ties are ties on every machine.

    Parameters
    ----------
    features : float (..., n, d)
        One row a unit; leading axes are independent screens.
    distance : {"cosine", "euclidean"}
        Cosine distance is 1 - cosine similarity, 0 to 2; a row of zeros has similarity 0 with every row, also itself.

    Returns
    -------
    float64 (..., n, n)
        Cosine distances are rounded to 12 decimals; Euclidean ones to 12 decimals of the largest of their matrix, which
        keeps the order of neighbours independent of the features' scale.
    """
    choose("distance", distance, Distance)
    x = np.asarray(features, dtype=np.float64)
    if distance == "cosine":
        # Dividing by the largest entry first keeps the squares of very large or very small rows finite.
        largest = np.abs(x).max(axis=-1, keepdims=True, initial=0.0)
        x = x / np.where(largest > 0, largest, 1.0)
        norm = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
        x = x / np.where(norm > 0, norm, 1.0)
        return np.clip(np.round(1.0 - x @ x.swapaxes(-1, -2), DECIMALS), 0.0, 2.0)
    # Differences, not the expanded square: rows that are equal must be at distance zero, however large their entries.
    stack = x.reshape((-1, *x.shape[-2:]))
    d = np.stack([cdist(rows, rows) for rows in stack]).reshape((*x.shape[:-1], x.shape[-2]))
    largest = d.max(axis=(-1, -2), keepdims=True, initial=0.0)
    largest = np.where(largest > 0, largest, 1.0)
    return np.round(d / largest, DECIMALS) * largest


def shares_value(column: pd.Series) -> Bools:
    """Tell for every pair of rows whether they share a value of the column.

    A `Metadata_batch` of several batches ("Week1|Week3") is a set; two rows share a batch when their sets intersect.
    Returns bool (n, n), true on the diagonal.
    """
    if column.name == "Metadata_batch":
        member = column.astype(str).str.get_dummies(SEVERAL).to_numpy(np.float64)
        return np.asarray(member @ member.T > 0)
    codes = pd.factorize(column)[0]
    return np.asarray(codes[:, None] == codes[None, :])


def plain(column: str) -> str:
    """Give a metadata column its name in prose: "Metadata_moa" is MOA, "Metadata_batch" is batch."""
    word = column.removeprefix("Metadata_")
    return "MOA" if word == "moa" else word


@dataclass(frozen=True)
class Design:
    """Who may be matched with whom: labels and exclusions, without any feature."""

    names: list[str]  # the distinct labels, sorted
    labels: Ints  # (..., n), index into `names`; leading axes are relabellings
    eligible: Bools  # (..., n, n), row = query, column = candidate
    scored: Bools  # (..., n), queries that count

    @property
    def positives(self) -> Ints:
        """Number of eligible candidates that carry the query's label, int (..., n)."""
        return np.asarray((self.eligible & _same(self.labels)).sum(axis=-1))


def _same(labels: Ints) -> Bools:
    return np.asarray(labels[..., :, None] == labels[..., None, :])


def candidates(table: pd.DataFrame, exclude: tuple[str, ...] = ("Metadata_compound",)) -> Bools:
    """Tell which rows may be candidates of which: all others that share no value of an excluded column, (n, n)."""
    eligible = ~np.eye(len(table), dtype=bool)
    for column in exclude:
        eligible &= ~shares_value(table[column])
    return eligible


def design(
    labels: Ints, eligible: Bools, names: list[str], *, drop_unmatchable: bool = False, count_unmatchable: bool = False
) -> Design:
    """Decide which queries count: those with an eligible candidate of their label.

    Parameters
    ----------
    labels : int (..., n), index into `names`
    eligible : bool (n, n), as from `candidates`
    names : list of str
    drop_unmatchable, count_unmatchable
        As in `match`.
    """
    if drop_unmatchable and count_unmatchable:
        raise CellbookError("drop_unmatchable and count_unmatchable contradict each other: set one of them to False.")
    matchable: Bools = np.asarray((eligible & _same(labels)).any(axis=-1))
    if drop_unmatchable:
        eligible = eligible & matchable[..., None, :]
    scored = np.ones_like(matchable) if count_unmatchable else matchable
    return Design(names, labels, eligible, scored)


@dataclass(frozen=True)
class Tally:
    """What the neighbours of each row say; leading axes are resamples."""

    correct: Ints  # (..., n), votes for the query's label (0 where the query is not scored)
    counted: Ints  # (..., n), votes counted (0 where the query is not scored)
    predicted: Ints  # (..., n), label of the nearest candidate, or of the majority; -1 without any candidate
    nearest: Ints  # (..., n), row of the nearest candidate; -1 without any candidate


def tally(distances: Floats, plan: Design, k: int = 1, vote: Vote = "share") -> Tally:
    """Count, for every query, how its k nearest eligible candidates vote; equal distances keep the order of the rows.

    Parameters
    ----------
    distances : float64 (..., n, n)
    plan : Design of the n rows
    k, vote
        As in `match`.
    """
    n = plan.labels.shape[-1]
    labels = plan.labels[..., :, None]
    available = plan.eligible.sum(axis=-1)
    masked = np.where(plan.eligible, distances, np.inf)
    k = min(k, n)
    # (..., n, k); the minimum alone is much cheaper than a sort, and takes the first of equals as well.
    order = masked.argmin(axis=-1)[..., None] if k == 1 else masked.argsort(axis=-1, kind="stable")[..., :k]
    limit = np.minimum(available, plan.positives) if vote == "pooled" else available
    valid = np.arange(k) < limit[..., None]  # (..., n, k)
    stack = np.broadcast_shapes(plan.labels.shape[:-1], order.shape[:-2])
    flat = order.reshape(*order.shape[:-2], n * k)
    votes = np.take_along_axis(
        np.broadcast_to(plan.labels, (*stack, n)), np.broadcast_to(flat, (*stack, n * k)), axis=-1
    ).reshape(*stack, n, k)
    nearest = np.where(available > 0, order[..., 0], -1)
    if vote == "majority":
        # The first of the largest counts belongs to the closest neighbour among the tied labels.
        support = (_same(votes) & valid[..., None, :]).sum(axis=-1) * valid
        winner = np.take_along_axis(votes, support.argmax(axis=-1)[..., None], axis=-1)[..., 0]
        predicted = np.where(available > 0, winner, -1)
        correct = (predicted == plan.labels) & plan.scored
        counted = plan.scored
    else:
        predicted = np.where(available > 0, votes[..., 0], -1)
        correct = ((votes == labels) & valid).sum(axis=-1) * plan.scored
        counted = valid.sum(axis=-1) * plan.scored
    return Tally(correct.astype(np.int64), counted.astype(np.int64), predicted, nearest)
