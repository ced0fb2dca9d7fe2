"""What the maps do at every checkpoint: neighbours, silhouette, and what they leave of the controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from cellbook.methods.wdn.alignment import Alignment
from cellbook.methods.wdn.units import Screen, control_rows, make_screen, unit_means
from cellbook.metrics import classify_batch, distance_matrix
from cellbook.metrics.batch import BatchAccuracy, Model
from cellbook.profiles.table import check_finite

KS = (1, 2, 3, 4)
VOTES = ("pooled", "plain")  # k cut to the number of right candidates, as in the paper's tables; or as it is
Vote = Literal["pooled", "plain"]


def nearest(distances: np.ndarray, eligible: np.ndarray, depth: int) -> np.ndarray:
    """Nearest eligible candidates of every row, (..., u, depth), by distance and then by place; -1 beyond the last."""
    masked = np.where(eligible, distances, np.inf)
    order = masked.argsort(axis=-1, kind="stable")[..., :depth]
    return np.where(np.arange(order.shape[-1]) < eligible.sum(axis=1)[:, None], order, -1)


def votes(screen: Screen, measure: str, found: np.ndarray, without: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """Count right neighbours for every k and both ways to count.

    Parameters
    ----------
    screen : Screen
    measure : {"NSC", "NSCB"}
    found : int (..., u, depth), from `nearest`; deep enough that k neighbours remain without one compound
    without : int
        Leave this compound out, as a query and as a candidate; -1 leaves nothing out.

    Returns
    -------
    correct : int (..., 2, 4, u), votes for the right MOA: pooled and plain, k = 1 to 4, queries
    counted : int (2, 4, u), votes counted; 0 for queries that cannot be right or are left out
    """
    eligible = screen.eligible[measure] & (screen.compounds != without)
    positives = (eligible & (screen.labels[:, None] == screen.labels)).sum(axis=1)
    scored = (positives > 0) & (screen.compounds != without)
    limits = np.stack([[np.minimum(k, n) * scored for k in KS] for n in (positives, eligible.sum(axis=1))])  # (2, 4, u)
    kept = (found >= 0) & (screen.compounds[found] != without)
    rank = kept.cumsum(axis=-1)
    right = kept & (screen.labels[found] == screen.labels[:, None])
    # Right neighbours among the first 1, 2, ...; a query's limit then picks one of these numbers.
    upto = np.stack([(right & (rank <= k)).sum(axis=-1) for k in range(KS[-1] + 1)])  # (5, ..., u)
    lead = upto.ndim - 2
    index = np.broadcast_to(limits.reshape(-1, *[1] * lead, limits.shape[-1]), (8, *upto.shape[1:]))
    correct = np.take_along_axis(upto, index, axis=0)
    return np.moveaxis(correct, 0, -2).reshape(*upto.shape[1:-1], 2, 4, -1), limits


def depth_of(screen: Screen) -> int:
    """Neighbours to keep so that four remain when any one compound is left out."""
    return min(len(screen.labels), KS[-1] + int(np.bincount(screen.compounds).max()))


def silhouettes(distances: np.ndarray, labels: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    """Mean silhouette of each matrix of a stack (..., u, u), over rows marked in `keep`; as `metrics.silhouette`."""
    keep = np.ones(len(labels), dtype=bool) if keep is None else keep
    kinds = np.unique(labels[keep])
    member = (labels[:, None] == kinds) & keep[:, None]  # (u, kinds)
    size = member.sum(axis=0).astype(np.float64)
    d = distances * ~np.eye(len(labels), dtype=bool)
    total = (d @ member.astype(np.float64))[..., keep, :]  # (..., kept, kinds)
    own = member[keep]
    alone = size[own.argmax(axis=1)] == 1
    inside = (total * own).sum(axis=-1) / np.where(alone, 1, size[own.argmax(axis=1)] - 1)
    outside = np.where(own, np.inf, total / size).min(axis=-1)
    largest = np.maximum(inside, outside)
    s = np.divide(outside - inside, largest, out=np.zeros_like(largest), where=largest > 0)
    return np.where(alone, 0.0, s).mean(axis=-1)


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
    for measure, eligible in screen.eligible.items():
        correct, counted = votes(screen, measure, nearest(d, eligible, depth_of(screen)))
        right, total = correct.sum(axis=-1), counted.sum(axis=-1)  # (C, 2, 4), (2, 4)
        for c in everything:
            for i, vote in enumerate(VOTES):
                for j, k in enumerate(KS):
                    r, t = int(right[c, i, j]), int(total[i, j])
                    rows.append((int(alignment.steps[c]), measure, k, vote, r / t if t else np.nan, r, t))
    silhouette = silhouettes(d, screen.labels)
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


def leakage(
    alignment: Alignment,
    profiles: pd.DataFrame,
    steps: Sequence[int] | None = None,
    *,
    by: str = "Metadata_batch",
    group: str | None = "Metadata_plate",
    model: Model = "logistic",
    controls: str = "DMSO",
    limit: int = 10_000,
    seed: int = 0,
    standardise: bool = False,
) -> dict[int, BatchAccuracy]:
    """Measure at map steps (by default all checkpoints) how well a control's domain can be told; see `classify_batch`.

    With `group` a plate is never in training and test at once; None is the paper's easier question. The maps have seen
    the same controls: to keep them apart, fit on the plates that `hold_out_plates` leaves and pass the others here.
    Of more than `limit` controls as many are drawn, as in the published code.
    """
    rows = control_rows(profiles, controls, limit, seed, by)
    wanted = alignment.steps if steps is None else steps
    return {
        int(step): classify_batch(
            alignment.transform(rows, int(step)), by, group, model, seed=seed, standardise=standardise
        )
        for step in wanted
    }
