"""What fewer candidates cost: the share of a fall in accuracy that is no batch effect."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cellbook.errors import CellbookError
from cellbook.metrics.moa import check_distances, factorize
from cellbook.metrics.neighbours import Bools, Floats, candidates
from cellbook.metrics.protocols import SAME_COMPOUND, SAME_COMPOUND_OR_BATCH
from cellbook.profiles.table import require


def thinned(
    profiles: pd.DataFrame, distances: ArrayLike, *, alike: bool = False, n: int = 200, seed: int = 0
) -> Floats:
    """Compute the 1-NN accuracy that is left of NSC when as many candidates as NSCB excludes go at random.

    NSCB takes from every query of NSC the candidates of its own batch. That leaves fewer candidates, and fewer right
    ones, whether or not there is a batch effect; the fall from NSC to NSCB beyond this accuracy is what is left for it.

    Parameters
    ----------
    profiles : DataFrame (rows)
        The units to match, without controls.
    distances : float (rows, rows)
    alike : bool
        False removes any candidates. True removes as many right and as many wrong ones as NSCB does,
        compound by compound, as the doses of one compound leave together: the stricter comparison.
    n : int
        Draws.
    seed : int

    Returns
    -------
    float64 (n,)
        Accuracies on the queries that can still be scored under NSCB; 0 to 1, NaN if there are none.

    Raises
    ------
    CellbookError
        On missing columns, a distance matrix of another shape, or no draw.
    """
    require(profiles, ["Metadata_moa", *SAME_COMPOUND_OR_BATCH])
    if n < 1:
        raise CellbookError(f"n={n}: at least one draw is needed.")
    d = check_distances(distances, len(profiles))
    labels, _ = factorize(profiles["Metadata_moa"])
    compounds = pd.factorize(profiles["Metadata_compound"])[0]
    before = candidates(profiles, SAME_COMPOUND)
    after = candidates(profiles, SAME_COMPOUND_OR_BATCH)
    right = labels[:, None] == labels[None, :]
    groups = [before & right, before & ~right] if alike else [before]
    scored = (after & right).any(axis=1)
    rng = np.random.default_rng(seed)
    values = np.full(n, np.nan)
    for draw in range(n if scored.any() else 0):
        kept = before.copy()
        key = rng.random(d.shape)
        if alike:  # one random number a query and compound; the own one of each dose only breaks the tie
            key = rng.random((len(d), compounds.max() + 1))[:, compounds] + 1e-9 * key
        for group in groups:
            kept &= ~_first(key, group, (group & ~after).sum(axis=1))
        nearest = np.where(kept, d, np.inf).argmin(axis=1)
        correct = kept.any(axis=1) & (labels[nearest] == labels)
        values[draw] = correct[scored].mean()
    return values


def _first(key: Floats, group: Bools, count: np.ndarray) -> Bools:
    """Mark, in each row, the `count` members of the group with the smallest keys."""
    ordered = np.sort(np.where(group, key, np.inf), axis=1)
    last = np.where(count > 0, ordered[np.arange(len(key)), count - 1], -np.inf)
    return np.asarray(group & (key <= last[:, None]))
