"""What compounds drawn anew do to a comparison: values, ranks, agreement of rankings, and choices made without labels.

A point is a representation under a correction. Every measure gives each point one value a treatment, so that one draw
of compounds gives all points and all measures a value at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cellbook import metrics
from cellbook.metrics.neighbours import tally
from cellbook.metrics.scores import measure_design
from cellbook.study.rows import Draws, Votes


def drawn(votes: Mapping[Hashable, Votes], draws: Draws) -> np.ndarray:
    """Shares of all points when compounds are drawn anew, (1 + draws, points); the first line is without drawing.

    Compounds are drawn as for the intervals of the book; NaN where a draw leaves nothing that is counted.
    """
    compounds = np.unique(np.concatenate([one.group.astype(str) for one in votes.values()]))
    sums = np.zeros((2, len(votes), len(compounds)))
    for place, one in enumerate(votes.values()):
        codes = np.searchsorted(compounds, one.group.astype(str))
        for side, values in enumerate((one.correct, one.counted)):
            np.add.at(sums[side, place], codes, values)
    c = len(compounds)
    weights = np.random.default_rng(draws.seed).multinomial(c, np.full(c, 1 / c), size=draws.n)
    weights = np.concatenate([np.ones((1, c), dtype=weights.dtype), weights])
    right, total = (weights @ side.T for side in sums)
    return np.divide(right, total, out=np.full_like(right, np.nan), where=total > 0)


def rank_probabilities(values: np.ndarray, most: int | None = None) -> np.ndarray:
    """Probability of every rank, or of the first `most`, over draws: (draws, points) -> (points, ranks).

    Rank 1 is the largest value. Points that are equal in a draw share their ranks evenly.
    """
    first = rankdata(-values, method="min", axis=1)
    last = rankdata(-values, method="max", axis=1)
    ranks = range(1, (most or values.shape[1]) + 1)
    share = 1 / (last - first + 1)
    return np.stack([(share * ((first <= r) & (r <= last))).mean(axis=0) for r in ranks], axis=1)


def correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Spearman's correlation over points, draw by draw: (draws, points) twice -> (draws,); NaN of what is all equal."""
    a, b = (rankdata(side, axis=1) for side in (left, right))
    a, b = (side - side.mean(axis=1, keepdims=True) for side in (a, b))
    below = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), below, out=np.full(len(a), np.nan), where=below > 0)


def not_dominated(left: Sequence[float], kept: Sequence[float]) -> np.ndarray:
    """Which points no other beats: none has less left and no less kept, or more kept and no more left; (points,)."""
    x, y = np.asarray(left, dtype=np.float64), np.asarray(kept, dtype=np.float64)
    no_worse = (x[None, :] <= x[:, None]) & (y[None, :] >= y[:, None])
    better = (x[None, :] < x[:, None]) | (y[None, :] > y[:, None])
    return ~(no_worse & better).any(axis=1)


def chosen_without(
    treatments: pd.DataFrame, distances: np.ndarray, measures: Sequence[metrics.Measure]
) -> dict[str, int]:
    """The best point by the mean of some measures when a compound is not there, neither asked nor a candidate.

    Parameters
    ----------
    treatments : (n rows)
    distances : (points, n, n)
    measures : of a protocol

    Returns
    -------
    dict : compound -> number of the point; of equal ones the first
    """
    found = {}
    for compound in treatments["Metadata_compound"].unique():
        keep = (treatments["Metadata_compound"] != compound).to_numpy()
        others = treatments[keep].reset_index(drop=True)
        squares = distances[:, keep][:, :, keep]
        shares = []
        for measure in measures:
            votes = tally(squares, measure_design(others, measure), measure.k, measure.vote)
            if votes.counted.any():  # none where every compound has the only batch
                shares.append(votes.correct.sum(axis=-1) / votes.counted.sum(axis=-1))
        found[str(compound)] = int(np.mean(shares, axis=0).argmax()) if shares else 0
    return found


def scored_by_choice(votes: Sequence[Votes], choice: Mapping[str, int]) -> Votes:
    """Every compound's votes under the point that was chosen without it."""
    group = votes[0].group.astype(str)
    point = np.array([choice[compound] for compound in group])
    correct = np.stack([one.correct for one in votes])[point, np.arange(len(group))]
    return Votes(correct, votes[0].counted, group)
