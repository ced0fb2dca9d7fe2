"""What the maps do at every checkpoint: neighbours, silhouette, and what they leave of the controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from cellbook.methods.wdn.alignment import Alignment
from cellbook.methods.wdn.instances import Screen, control_rows, make_screen, unit_means
from cellbook.metrics import distance_matrix
from cellbook.metrics.neighbours import DECIMALS
from cellbook.profiles.table import check_finite

KS = (1, 2, 3, 4)
Sums = tuple[np.ndarray, np.ndarray]  # see `sum_distances`
Vote = Literal["pooled", "plain"]  # k cut to the number of right candidates, as in the paper's tables; or as it is
VOTES: tuple[Vote, ...] = get_args(Vote)


@dataclass(frozen=True)
class Neighbours:
    """The nearest candidates of every treatment instance; the axes between are checkpoints and resamples."""

    compound: np.ndarray  # int16 (depth, ..., u), compound of each, nearest first, -1 beyond the last
    right: np.ndarray  # bool (depth, ..., u), whether it has the MOA of the query
    eligible: np.ndarray  # bool (u, u)


def nearest(screen: Screen, distances: np.ndarray) -> dict[str, Neighbours]:
    """Find as many neighbours under NSC and NSCB as leave four when any one compound is left out.

    Equal distances keep the order of the rows, as in `metrics.match`.

    Parameters
    ----------
    screen : Screen
    distances : float64 (..., u, u), cosine distances as `metrics.distance_matrix` rounds them
    """
    u = len(screen.labels)
    depth = min(u, KS[-1] + int(np.bincount(screen.compounds).max()))
    # Distance and place in one whole number: integers are sorted several times faster, and none are equal.
    keys = np.rint(distances * 10.0**DECIMALS).astype(np.int64) * u + np.arange(u)
    compounds, found = screen.compounds.astype(np.int16), {}
    for name, eligible in screen.eligible.items():
        order = np.sort(np.where(eligible, keys, np.iinfo(np.int64).max), axis=-1)[..., :depth] % u
        there = np.arange(depth) < eligible.sum(axis=1)[:, None]
        right = (screen.labels[order] == screen.labels[:, None]) & there
        compound = np.where(there, compounds[order], np.int16(-1))
        first = (np.ascontiguousarray(np.moveaxis(part, -1, 0)) for part in (compound, right))
        found[name] = Neighbours(*first, eligible)
    return found


def votes(
    screen: Screen, found: Neighbours, vote: Vote = "pooled", without: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Count right neighbours of every query for k = 1 to 4.

    Parameters
    ----------
    screen : Screen
    found : Neighbours
    vote : {"pooled", "plain"}
        "pooled" cuts k for each query to the number of candidates that are right, as the paper's tables do.
    without : int, optional
        Leave this compound out, as a query and as a candidate.

    Returns
    -------
    correct : int (..., 4, u), votes for the right MOA
    counted : int (4, u), votes counted; 0 for queries that cannot be right or are left out
    """
    others = np.ones(len(screen.labels), dtype=bool) if without is None else screen.compounds != without
    eligible = found.eligible & others
    positives = (eligible & (screen.labels[:, None] == screen.labels)).sum(axis=1)
    most = positives if vote == "pooled" else eligible.sum(axis=1)
    limits = np.stack([np.minimum(k, most) for k in KS]) * ((positives > 0) & others)  # (4, u)
    depth = KS[-1] if without is None else KS[-1] + int((~others).sum())
    shape = found.right.shape[1:]
    rank, correct = np.zeros(shape, dtype=np.int8), np.zeros((len(KS), *shape), dtype=np.int8)
    for compound, right in zip(found.compound[:depth], found.right[:depth], strict=True):
        kept = np.bool_(True) if without is None else compound != without
        rank += kept
        hit = right & kept
        for j, limit in enumerate(limits):
            correct[j] += hit & (rank <= limit.astype(np.int8))
    return np.moveaxis(correct, 0, -2), limits


def sum_distances(screen: Screen, distances: np.ndarray) -> Sums:
    """Add up distances (..., u, u) from each row by MOA and by compound: float64 (MOAs or compounds, ..., u) each.

    Silhouettes with and without a compound follow from these sums. A row's distance to itself is taken for 0.
    """
    d = distances * ~np.eye(len(screen.labels), dtype=bool)
    by_moa, by_compound = (
        np.ascontiguousarray(np.moveaxis(d @ np.eye(int(codes.max()) + 1)[codes], -1, 0))
        for codes in (screen.labels, screen.compounds)
    )
    return by_moa, by_compound


def silhouettes(screen: Screen, sums: Sums, without: int | None = None) -> np.ndarray:
    """Mean silhouette of MOAs of each matrix of a stack (...), without the rows of a compound; as `metrics.silhouette`.

    Nothing is excluded but the compound: doses of one compound and rows of one batch count as neighbours.
    """
    labels, (total, by_compound) = screen.labels, sums
    keep = np.ones(len(labels), dtype=bool)
    if without is not None:
        keep = screen.compounds != without
        total = total.copy()
        for moa in np.unique(labels[~keep]):  # one, as every compound has one
            total[moa] -= by_compound[without]
    size = np.bincount(labels[keep], minlength=len(total)).astype(np.float64)
    inside, outside = np.zeros(total.shape[1:]), np.full(total.shape[1:], np.inf)
    for moa in np.flatnonzero(size):
        own = labels == moa
        inside[..., own] = total[moa][..., own] / max(size[moa] - 1, 1)
        np.minimum(outside, np.where(own, np.inf, total[moa] / size[moa]), out=outside)
    largest = np.maximum(inside, outside)
    s = np.divide(outside - inside, largest, out=np.zeros_like(largest), where=largest > 0)
    return np.where(size[labels] == 1, 0.0, s)[..., keep].mean(axis=-1)


def evaluate(alignment: Alignment, profiles: pd.DataFrame, controls: str = "DMSO") -> pd.DataFrame:
    """Measure biology and damage at every checkpoint; step 0 is the uncorrected table.

    Parameters
    ----------
    alignment : Alignment
    profiles : DataFrame, cells or wells, with controls
    controls : str

    Returns
    -------
    DataFrame
        One row a checkpoint and measure: step, measure, k, vote, value, correct, scored. Measures are NSC and NSCB
        (higher is better; chance is the share of candidates with the right MOA), silhouette (higher), and of the
        controls: variance (total, relative to step 0: falling below 1 is shrinkage), gap (mean distance between the
        domains' control means over the root of their variance within; lower), change (mean over domains of the
        Frobenius norm of M - I) and largest_change.
    """
    screen = make_screen(alignment, profiles, controls)
    everything = range(len(alignment.steps))
    d = distance_matrix(unit_means(screen, everything)[0])
    rows = []
    for measure, found in nearest(screen, d).items():
        for vote in VOTES:
            correct, counted = votes(screen, found, vote)
            right, total = correct.sum(axis=-1), counted.sum(axis=-1)  # (C, 4), (4,)
            for c in everything:
                for k, r, t in zip(KS, right[c].tolist(), total.tolist(), strict=True):
                    rows.append((int(alignment.steps[c]), measure, k, vote, r / t if t else np.nan, r, t))
    silhouette = silhouettes(screen, sum_distances(screen, d))
    for c in everything:
        damage = control_moments(alignment, profiles, c, controls)
        for name, value in {"silhouette": float(silhouette[c]), **damage}.items():
            rows.append((int(alignment.steps[c]), name, 0, "", value, 0, 0))
    table = pd.DataFrame(rows, columns=["step", "measure", "k", "vote", "value", "correct", "scored"])
    variance = table["measure"] == "variance"
    table.loc[variance, "value"] /= table.loc[variance, "value"].iloc[0]
    return table


def control_moments(
    alignment: Alignment, profiles: pd.DataFrame, checkpoint: int, controls: str = "DMSO", limit: int = 20_000
) -> dict[str, float]:
    """Spread of the mapped controls and size of the maps; see `evaluate`, but with the variance as it is."""
    last = alignment.levels[-1]
    rows = control_rows(profiles, controls, limit, 0, last.by)
    codes = alignment.codes(rows)
    y = alignment.map_rows(check_finite(rows, alignment.features), codes, checkpoint)
    present, group = np.unique(codes[:, -1], return_inverse=True)
    count = np.bincount(group)
    means = np.stack([y[group == g].mean(axis=0) for g in range(len(present))])
    within = float(np.square(y - means[group]).sum() / max(len(y) - len(present), 1))
    upper = np.triu_indices(len(present), 1)
    gaps = np.linalg.norm(means[upper[0]] - means[upper[1]], axis=1)
    m, _ = alignment.affine_maps(np.unique(codes, axis=0), checkpoint)
    change = np.linalg.norm(m - np.eye(m.shape[1]), axis=(1, 2))
    return {
        "variance": float(np.square(y - y.mean(axis=0)).sum() / max(count.sum() - 1, 1)),
        "gap": float(gaps.mean() / np.sqrt(within)) if len(gaps) and within > 0 else float("nan"),
        "change": float(change.mean()),
        "largest_change": float(change.max()),
    }
