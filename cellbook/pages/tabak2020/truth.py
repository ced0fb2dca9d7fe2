"""How much of the biology that week effects hid does a correction bring back? Only a screen with a truth can say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.metrics import distance_matrix
from cellbook.profiles import aggregate, controls_mask, matrix
from cellbook.profiles.aggregate import TREATMENT
from cellbook.screens.named import is_positive

K = 5  # nearest neighbours that are looked for again
CORRELATION, KEPT, ERROR = "rank correlation", "neighbours kept", "relative error"
UNIT = [*TREATMENT, "Metadata_batch"]


@dataclass(frozen=True)
class Pairs:
    """Distances between treatments of different compounds, in the corrected screen and in truth; i before j.

    Attributes
    ----------
    distances : float64 (2, p), corrected and true
    places : int (2, p), of each distance among the distinct ones, from 0 on
    compounds : int (p, 2), compound of both ends
    near : bool (2, p, 2), corrected and true: whether the second is among the `K` nearest of the first, and the other
        way round
    chance : dict, value of each measure without any knowledge of the truth
    """

    distances: np.ndarray
    places: np.ndarray
    compounds: np.ndarray
    near: np.ndarray
    chance: dict[str, float]


def restored(
    corrected: pd.DataFrame, clean: pd.DataFrame, controls: str = "DMSO", n: int = 1_000, seed: int = 0
) -> pd.DataFrame:
    """Measure how much of the true distances between treatments a corrected screen has.

    Treatment instances (a treatment in a week; controls and positive controls left out) are the means of their rows
    less the mean of all controls, in both screens; distances are cosine. Pairs of one compound's doses are left out:
    they are near each other in any screen.

    Parameters
    ----------
    corrected, clean : DataFrame
        The same cells (or wells) in the same order, with week effects and after a correction; and without any. Their
        features need not be the same.
    controls : str
    n : int
        Resamples of compounds behind the 95 % intervals. A pair counts as often as both of its compounds were drawn,
        one times the other.
    seed : int

    Returns
    -------
    DataFrame
        measure, value, low, high, chance. "rank correlation": Spearman's, of all distances (higher is better, chance
        0); "neighbours kept": share of the five truly nearest neighbours that are among the five nearest (higher;
        chance: five of all candidates); "relative error": root of the summed squared differences after the best
        common scale, over that of the true distances (lower; chance: that of distances that are all equal).

    Raises
    ------
    CellbookError
        If the tables do not have the same rows, or fewer than three compounds besides the controls.
    """
    pairs = treatment_pairs(corrected, clean, controls)
    c = int(pairs.compounds.max()) + 1
    draws = np.random.default_rng(seed).multinomial(c, np.full(c, 1 / c), size=n)
    again = pd.DataFrame([agreement(pairs, draw[pairs.compounds].prod(axis=1)) for draw in draws])
    rows = []
    for name, value in agreement(pairs, np.ones(len(pairs.compounds))).items():
        low, high = again[name].quantile([0.025, 0.975])  # with few compounds a draw may leave no pair: not counted
        rows.append((name, value, low, high, pairs.chance[name]))
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "chance"])


def treatment_pairs(corrected: pd.DataFrame, clean: pd.DataFrame, controls: str = "DMSO") -> Pairs:
    """Distances between the treatment instances of both screens; see `restored`."""
    _check_same_rows(corrected, clean)
    kept = ~controls_mask(clean, controls) & ~is_positive(clean)
    units, means = None, []
    for table in (corrected, clean):
        origin = matrix(table[controls_mask(table, controls)]).mean(axis=0)
        units = aggregate(table[kept], UNIT)
        means.append(matrix(units) - origin)
    compound = pd.factorize(units["Metadata_compound"])[0]
    if (many := len(set(compound))) < 3:
        raise CellbookError(f"{many} compounds besides {controls!r} are too few to compare distances: 3 are needed")
    return compare(*(distance_matrix(x) for x in means), compound)


def compare(corrected: np.ndarray, clean: np.ndarray, compound: np.ndarray) -> Pairs:
    """Put two distance matrices (u, u) beside each other, pair by pair of different compounds (u,)."""
    others = compound[:, None] != compound[None, :]
    i, j = np.nonzero(np.triu(others, 1))
    distances = np.stack([corrected[i, j], clean[i, j]])
    nearest = [_nearest(d, others) for d in (corrected, clean)]
    near = np.stack([np.stack([found[i, j], found[j, i]], axis=1) for found in nearest])
    candidates = others.sum(axis=1)
    wanted = np.minimum(K, candidates)
    squares = np.square(distances[1]).mean()
    spread = distances[1].var() / squares if squares > 0 else np.nan
    return Pairs(
        distances=distances,
        places=np.stack([np.unique(d, return_inverse=True)[1].reshape(-1) for d in distances]),
        compounds=np.stack([compound[i], compound[j]], axis=1),
        near=near,
        chance={CORRELATION: 0.0, KEPT: float((wanted**2 / candidates).sum() / wanted.sum()), ERROR: spread**0.5},
    )


def agreement(pairs: Pairs, weight: np.ndarray) -> dict[str, float]:
    """Measures of `restored` over weighted pairs (p,), a pair of weight 2 counting as two; NaN where undefined."""
    own, truth = pairs.distances
    ranks = [weighted_ranks(place, weight) for place in pairs.places]
    both, true = pairs.near.all(axis=0).sum(axis=1), pairs.near[1].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = (weight @ (own * truth)) ** 2 / ((weight @ own**2) * (weight @ truth**2))
        return {
            CORRELATION: _correlation(*ranks, weight),
            KEPT: float(np.divide(weight @ both, weight @ true)),
            ERROR: float(np.sqrt(np.maximum(0.0, 1 - explained))),
        }


def weighted_ranks(place: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Ranks of values that occur `weight` times, from their places among the distinct values; equal ones share a rank.

    As `scipy.stats.rankdata` of the values repeated `weight` times, (p,).
    """
    mass = np.bincount(place, weights=weight)
    return (np.cumsum(mass) - (mass - 1) / 2)[place]


def _correlation(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    x, y = (v - weight @ v / weight.sum() for v in (x, y))
    return float(weight @ (x * y) / np.sqrt((weight @ np.square(x)) * (weight @ np.square(y))))


def _nearest(d: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Whether the column is among the `K` nearest eligible ones of the row, (u, u); equal ones in order."""
    order = np.argsort(np.where(eligible, d, np.inf), axis=1, kind="stable")[:, :K]
    out = np.zeros_like(eligible)
    np.put_along_axis(out, order, True, axis=1)
    return out & eligible


def _check_same_rows(corrected: pd.DataFrame, clean: pd.DataFrame) -> None:
    if len(corrected) != len(clean):
        raise CellbookError(
            f"corrected has {len(corrected)} rows and clean {len(clean)}: they must be of the same cells"
        )
    for name in (*UNIT, "Metadata_well"):
        if name in corrected and name in clean:
            pair = [table[name].reset_index(drop=True) for table in (corrected, clean)]
            differ = ~((pair[0] == pair[1]) | (pair[0].isna() & pair[1].isna())).to_numpy(dtype=bool)
            if differ.any():
                raise CellbookError(
                    f"{name} differs between corrected and clean in {int(differ.sum())} of {len(clean)} rows (first: "
                    f"row {int(differ.argmax())}): pass the same cells in the same order"
                )
