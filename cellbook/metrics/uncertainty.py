"""How far an accuracy can be trusted: resampling compounds."""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellbook.errors import CellbookError
from cellbook.metrics.neighbours import choose

Average = Literal["queries", "compounds"]
Floats = NDArray[np.float64]


def _by_compound(correct: ArrayLike, counted: ArrayLike, compounds: ArrayLike) -> tuple[Floats, Floats]:
    """Sum votes per compound, correct and counted, each (..., c)."""
    right, total = np.asarray(correct, dtype=np.float64), np.asarray(counted, dtype=np.float64)
    codes = np.unique(np.asarray(compounds).astype(str), return_inverse=True)[1]
    if not right.shape[-1] == total.shape[-1] == len(codes):
        raise CellbookError(
            "correct, counted and compounds must have one entry a query, not "
            f"{right.shape[-1]}, {total.shape[-1]} and {len(codes)}."
        )
    member = np.eye(codes.max(initial=-1) + 1)[codes]  # (n, c)
    return right @ member, total @ member


def accuracy(correct: ArrayLike, counted: ArrayLike, compounds: ArrayLike, average: Average = "queries") -> Floats:
    """Compute the share of counted votes that are correct, over all queries or as the mean over compounds.

    Parameters
    ----------
    correct, counted : int (..., n)
        Votes per query; leading axes are resamples.
    compounds : (n,)
    average : {"queries", "compounds"}
        "compounds" takes the share per compound and then their unweighted mean.

    Returns
    -------
    float64 (...)
        Higher is better; NaN where nothing was counted.
    """
    choose("average", average, Average)
    right, total = _by_compound(correct, counted, compounds)
    if average == "compounds":
        right, total = _ratio(right, total, 0.0), (total > 0).astype(np.float64)
    return _ratio(right.sum(axis=-1), total.sum(axis=-1), np.nan)


def _ratio(above: Floats, below: Floats, otherwise: float) -> Floats:
    """Divide, with a value for nothing divided by nothing."""
    out = np.full(np.broadcast_shapes(above.shape, below.shape), otherwise)
    return np.asarray(np.divide(above, below, out=out, where=below > 0))


def bootstrap_compounds(
    correct: ArrayLike,
    counted: ArrayLike,
    compounds: ArrayLike,
    n: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    average: Average = "queries",
) -> tuple[float, float]:
    """Compute a percentile interval of an accuracy by resampling whole compounds with replacement.

    The doses of one compound rise and fall together, so that treating 103 treatments as independent makes intervals too
    narrow. The accuracy of a resample is the ratio of its sums, or the mean over its compounds.

    Parameters
    ----------
    correct, counted : int (n_queries,)
        Votes per query; queries with `counted` 0 do not take part.
    compounds : (n_queries,)
        The compound of each query.
    n : int
        Resamples.
    seed : int
    level : float
        Coverage, between 0 and 1.
    average : {"queries", "compounds"}

    Returns
    -------
    (low, high)
        NaN, NaN with fewer than two compounds: one compound says nothing about the next.
    """
    choose("average", average, Average)
    if n < 1 or not 0 < level < 1:
        raise CellbookError(f"n={n}, level={level}: n must be at least 1 and level between 0 and 1.")
    right, total = _by_compound(correct, counted, compounds)
    right, total = right[total > 0], total[total > 0]
    c = len(total)
    if c < 2:
        return float("nan"), float("nan")
    draws = _draws(c, n, seed)  # (n, c)
    values = draws @ (right / total) / c if average == "compounds" else (draws @ right) / (draws @ total)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(c: int, n: int, seed: int) -> NDArray[np.int64]:
    """Draw n resamples of c compounds, as counts; a page asks for the same ones a thousand times."""
    draws = np.random.default_rng(seed).multinomial(c, np.full(c, 1 / c), size=n)
    draws.flags.writeable = False
    return draws
