"""How much an accuracy owes to which wells were made: resampling the wells of every unit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cellbook.errors import CellbookError
from cellbook.metrics.neighbours import Floats, Ints, distance_matrix, tally
from cellbook.metrics.protocols import Protocol
from cellbook.metrics.protocols import protocol as find
from cellbook.metrics.scores import measure_design, prepare
from cellbook.metrics.uncertainty import accuracy
from cellbook.profiles.table import matrix

CHUNK_BYTES = 8 * 2**20  # of gathered wells at a time: stays near the cache, larger chunks are no faster


def bootstrap_wells(
    wells: pd.DataFrame,
    protocol: str | Protocol,
    n: int = 100,
    seed: int = 0,
    *,
    controls: str = "DMSO",
    drop_unlabelled: bool = False,
    drop_unusable: bool = False,
) -> pd.DataFrame:
    """Score every measure of a protocol on resamples of the wells within each treatment.

    As many wells as a unit has are drawn from it with replacement; units are aggregated again and scored again. Who may
    be matched with whom stays as it is in the full data. Tabak et al. 2020 resample cells within wells: this is the
    next level up, and the wider one.

    Parameters
    ----------
    wells, protocol, controls, drop_unlabelled, drop_unusable
        As in `score`.
    n : int
        Resamples.
    seed : int

    Returns
    -------
    DataFrame (n, measures)
        Accuracy of each resample; columns are "NSC, 1-NN" and the like. Its standard deviation is the standard error of
        the measure for these treatments; the spread over treatments is `bootstrap_compounds`. A resample repeats wells,
        so that its mean accuracy lies a little below the accuracy of the full data.
    """
    if n < 1:
        raise CellbookError(f"n={n}: at least one resample is needed.")
    p = find(protocol)
    u = prepare(wells, p, controls=controls, drop_unlabelled=drop_unlabelled, drop_unusable=drop_unusable)
    plans = [measure_design(u.profiles, m) for m in p.measures]
    x = matrix(u.rows)
    weights = np.ones(len(x)) if u.weight is None else u.rows[u.weight].to_numpy(np.float64)
    values = np.empty((n, len(plans)))
    # The products are many and small: threads that wait for each other cost more than they bring.
    with threadpool_limits(1, user_api="blas"):
        for part, draws in _chunks(draw_wells(u.unit, n, seed), x.shape[1]):
            profiles = _medians(x, u.unit, draws) if p.statistic == "median" else _means(x, u.unit, draws, weights)
            d = distance_matrix(profiles, p.distance)
            for j, (m, plan) in enumerate(zip(p.measures, plans, strict=True)):
                votes = tally(d, plan, m.k, m.vote)
                values[part, j] = accuracy(votes.correct, votes.counted, u.profiles["Metadata_compound"], m.average)
    return pd.DataFrame(
        values, columns=pd.Index([m.column for m in p.measures]), index=pd.RangeIndex(n, name="replicate")
    )


def draw_wells(unit: NDArray[np.integer], n: int, seed: int = 0) -> Ints:
    """Draw wells with replacement within each unit, int (n, w): which well stands in the place of each well.

    `unit` (w,) names the unit of each well; the place of a well is always taken by one of the same unit.
    """
    order = np.argsort(unit, kind="stable")  # wells of a unit side by side
    size = np.bincount(unit)
    start = np.cumsum(size) - size
    pick = np.floor(np.random.default_rng(seed).random((n, len(unit))) * size[unit]).astype(np.int64)
    return np.asarray(order[start[unit] + pick])


def _chunks(draws: Ints, n_features: int) -> Iterator[tuple[slice, Ints]]:
    step = max(1, CHUNK_BYTES // (8 * draws.shape[1] * n_features))
    for start in range(0, len(draws), step):
        yield slice(start, start + step), draws[start : start + step]


def _means(x: Floats, unit: NDArray[np.integer], draws: Ints, weights: Floats) -> Floats:
    """Average the drawn wells of each unit by one matrix of weights a resample: (b, u, d)."""
    b, u = len(draws), int(unit.max()) + 1
    share = np.zeros((b, u, len(x)))
    np.add.at(share, (np.arange(b)[:, None], unit[None, :], draws), weights[draws])
    total = share.sum(axis=-1, keepdims=True)
    return np.asarray((share / total) @ x)


def _medians(x: Floats, unit: NDArray[np.integer], draws: Ints) -> Floats:
    """Take the element-wise median over the drawn wells of each unit: (b, u, d)."""
    size = np.bincount(unit)
    order = np.argsort(unit, kind="stable")
    start = np.cumsum(size) - size
    out = np.empty((len(draws), len(size), x.shape[1]))
    for m in np.unique(size):  # units of equal size together
        members = np.flatnonzero(size == m)
        places = order[start[members][:, None] + np.arange(m)]  # (units, m)
        drawn = x[draws[:, places]]  # (b, units, m, d)
        drawn.sort(axis=2)
        out[:, members] = (drawn[:, :, (m - 1) // 2] + drawn[:, :, m // 2]) / 2
    return out
