"""How good made images are as a population: whether they lie where real ones lie, everywhere there, and apart.

Samples have no original to be compared with, so that everything here compares two clouds of features: float matrices
(n, d) of real cells and (m, d) of made ones, from a frozen network that is named beside the numbers. All of them depend
on how many cells there are: compare models at equal numbers, and beside them real cells with other real cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cellbook.errors import CellbookError, some
from cellbook.metrics.neighbours import Floats

Labels = NDArray[np.str_]


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Compute the Fréchet distance of two clouds taken for Gaussian (Heusel et al. 2017); lower is better, 0 if alike.

    |mean_a - mean_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2)). No root of a matrix is taken, which fails where
    there are fewer rows than features: with C_a = X'X and C_b = Y'Y the last trace is the sum of the singular values of
    XY', which are real and not negative however many rows there are.

    It is biased upwards, more with fewer rows: two halves of one cloud are not at 0.
    """
    x, y = _pair(a, b)
    roots = [_root(cloud) for cloud in (x, y)]
    with threadpool_limits(1, user_api="blas"):
        both = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    apart = float(np.square(x.mean(axis=0) - y.mean(axis=0)).sum())
    spread = sum(float(np.square(root).sum()) for root in roots)
    return max(0.0, apart + spread - 2 * float(both))


def kernel_distance(a: ArrayLike, b: ArrayLike, subsets: int = 10, seed: int = 0) -> tuple[float, float]:
    """Compute the squared maximum mean discrepancy with the kernel (x.y / d + 1)^3 (Bińkowski et al. 2018).

    Both clouds are divided at random into as many subsets, that share no cell; each pair of them gives one unbiased
    estimate, which lies on both sides of 0 if the clouds are alike. Subsets that overlap, as in the paper, would make
    the error look smaller than it is.

    Returns
    -------
    value, error : float
        Mean over subsets, lower is better, and its standard error.

    Raises
    ------
    CellbookError
        If there are fewer than two subsets, or fewer than two cells a subset.
    """
    x, y = _pair(a, b)
    if not 2 <= subsets <= min(len(x), len(y)) // 2:
        raise CellbookError(
            f"subsets={subsets} for {len(x)} and {len(y)} cells: use from 2 to half as many as there are cells"
        )
    rng = np.random.default_rng(seed)
    parts = [np.array_split(rng.permutation(len(cloud)), subsets) for cloud in (x, y)]
    found = np.array([_discrepancy(x[i], y[j]) for i, j in zip(*parts, strict=True)])
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(subsets))


def precision_recall(real: ArrayLike, made: ArrayLike, k: int = 5) -> tuple[float, float]:
    """Compute how many made cells look real, and how much of what is real is made (Kynkäänniemi et al. 2019).

    A cloud covers the balls around its cells that reach to their k-th neighbours in it. Precision is the share of made
    cells within what real ones cover, recall the share of real cells within what made ones cover.

    Returns
    -------
    precision, recall : float
        0 to 1, higher is better; of two halves of one cloud both lie below 1.

    Raises
    ------
    CellbookError
        If `k` is no number of neighbours that both clouds have.
    """
    x, y = _pair(real, made)
    if not 1 <= k < min(len(x), len(y)):
        raise CellbookError(f"k={k} for {len(x)} real and {len(y)} made cells: use from 1 to one less than there are")
    between = cdist(x, y)
    covered = between <= _reach(x, k)[:, None], between <= _reach(y, k)[None]  # by real cells, by made ones
    return float(covered[0].any(axis=0).mean()), float(covered[1].any(axis=1).mean())


def near_duplicates(real: ArrayLike, made: ArrayLike, quantile: float = 0.05, seed: int = 0) -> float:
    """Compute the share of made cells that have another made cell nearer than real cells have each other.

    Nearer than the `quantile` of the distances from real cells to their nearest real ones; the more numerous cloud is
    thinned at random to as many as the other has, since neighbours come nearer as cells grow in number.

    Returns
    -------
    float
        0 to 1: about `quantile` if made cells differ as real ones do, 1 if there is only one.
    """
    if not 0 < quantile < 1:
        raise CellbookError(f"quantile={quantile} must lie between 0 and 1")
    x, y = _pair(real, made)
    n, rng = min(len(x), len(y)), np.random.default_rng(seed)
    x, y = (cloud if len(cloud) == n else cloud[rng.permutation(len(cloud))[:n]] for cloud in (x, y))
    return float((_reach(y, 1) < np.quantile(_reach(x, 1), quantile)).mean())


def told_states(
    real: ArrayLike, states: ArrayLike, made: ArrayLike, folds: int = 5, seed: int = 0
) -> tuple[Labels, Labels]:
    """Tell the states of real and of made cells by logistic regression on the known states of real ones.

    Parameters
    ----------
    real, made : float (n, d), (m, d)
    states : (n,)
        Known state of each real cell; a state that fewer than `folds` cells have cannot be learned and is refused.

    Returns
    -------
    real, made : str (n,), (m,)
        Each real cell is told by a classifier that has not seen it, so that errors are alike on both sides.
    """
    x, y = _pair(real, made)
    known = np.asarray(states).astype(str)
    names, counts = np.unique(known, return_counts=True)
    if known.shape != (len(x),) or len(names) < 2 or counts.min() < folds or folds < 2:
        raise CellbookError(
            f"states has shape {known.shape} and {some(f'{n} {s}' for n, s in zip(counts, names, strict=True))} for "
            f"{len(x)} cells: give one a cell, at least two, each in {folds} cells (folds) or more"
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with threadpool_limits(1, user_api="blas"):
        held_out = cross_val_predict(model, x, known, cv=parts)
        return np.asarray(held_out, dtype=np.str_), np.asarray(model.fit(x, known).predict(y), dtype=np.str_)


@dataclass(frozen=True)
class Coverage:
    """Which states made cells are in, beside real ones; see `coverage`."""

    states: Labels  # (s,)
    real: Floats  # (s,) share of each among real cells
    made: Floats  # (s,) share among made ones
    covered: float  # share of the states that are made, 0 to 1
    distance: float  # half the sum of the differences of shares: 0 if alike, 1 if no state is shared
    number: float  # of equally frequent states with the entropy of made cells, 1 if all are in one
    number_real: float  # the same of real ones


def coverage(real: ArrayLike, made: ArrayLike, least: float = 0.1) -> Coverage:
    """Compare the states that one classifier told of real and of made cells, (n,) and (m,), see `told_states`.

    A state of real cells is covered if among made ones it has at least `least` of its share.
    """
    given = [np.asarray(labels).astype(str) for labels in (real, made)]
    if min(map(len, given)) == 0:
        raise CellbookError(f"{len(given[0])} real and {len(given[1])} made cells have states: give at least one each")
    states = np.unique(np.concatenate(given))
    p, q = ((labels[:, None] == states).mean(axis=0) for labels in given)
    there = p > 0
    covered = float((q[there] >= least * p[there]).mean())
    return Coverage(states, p, q, covered, float(np.abs(p - q).sum() / 2), _number(q), _number(p))


def _number(shares: Floats) -> float:
    """Exponential of the entropy."""
    some_of = shares[shares > 0]
    return float(np.exp(-(some_of * np.log(some_of)).sum()))


def _root(cloud: Floats) -> Floats:
    """X, at most (d, d), with X'X the covariance of the rows."""
    centred = (cloud - cloud.mean(axis=0)) / np.sqrt(len(cloud) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))


def _discrepancy(x: Floats, y: Floats) -> float:
    """Unbiased estimate: pairs of a cell with itself are left out."""

    def kernel(p: Floats, q: Floats) -> Floats:
        return np.asarray((p @ q.T / p.shape[1] + 1) ** 3)

    def within(p: Floats) -> float:
        k = kernel(p, p)
        return float((k.sum() - np.trace(k)) / (len(p) * (len(p) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def _reach(cloud: Floats, k: int) -> Floats:
    """Distance of each row to its k-th neighbour among the others, (n,)."""
    return np.asarray(np.partition(cdist(cloud, cloud), k, axis=1)[:, k])  # the nearest of all is the row itself


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    x, y = (np.asarray(cloud, dtype=np.float64) for cloud in (a, b))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2 or not x.shape[1]:
        raise CellbookError(
            f"features have shapes {x.shape} and {y.shape}: give two tables of the same features, of 2 cells or more"
        )
    for cloud in (x, y):
        if bad := int((~np.isfinite(cloud)).any(axis=1).sum()):
            raise CellbookError(f"features of {bad} of {len(cloud)} cells hold NaN or infinity: leave them out")
    return x, y
