"""Walks from control cells to target cells of treatments: figure 3 of the paper, and what can be measured on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from cellbook.methods.vae_plus import nearest_to_mean
from cellbook.profiles.aggregate import TREATMENT

SHOWN = (("cytochalasin D", 0.3), ("simvastatin", 20.0))  # the paper's two rows
CLUSTERS = 3  # target cells of a treatment where its population is looked at part by part


def path_similarity(start: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Cosine similarity to the target after each feature of the walk, (d + 1,): start first, target last.

    Features take the target's value one by one, those with the largest difference first.
    """
    z, goal = np.asarray(start, dtype=np.float64), np.asarray(target, dtype=np.float64)
    order = np.argsort(-np.abs(goal - z), kind="stable")
    dot = np.concatenate([[z @ goal], z @ goal + np.cumsum((goal * (goal - z))[order])])
    square = np.concatenate([[z @ z], z @ z + np.cumsum((goal**2 - z**2)[order])])
    return dot / np.sqrt(np.maximum(square, np.finfo(float).tiny) * max(goal @ goal, np.finfo(float).tiny))


def statistics(codes: np.ndarray, table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """One walk to every treatment, from a random control cell of a plate of the same batch where there is one.

    Returns
    -------
    DataFrame
        compound, concentration, moa; start (similarity before the first feature), falls (share of features that lower
        the similarity), largest_fall (from any point of the walk to a later one), half (share of features after which
        half of the rise is done).
    """
    generator = np.random.default_rng(seed)
    control = (table["Metadata_compound"] == "DMSO").to_numpy()
    rows = []
    for (compound, concentration), group in table[~control].groupby(TREATMENT, sort=True):
        near = control & table["Metadata_batch"].isin(group["Metadata_batch"].unique()).to_numpy()
        start = generator.choice(np.flatnonzero(near if near.any() else control))
        own = codes[group.index.to_numpy()]
        path = path_similarity(codes[start], own[nearest_to_mean(own)])
        steps = np.diff(path)
        rows.append(
            {
                "compound": compound,
                "concentration": concentration,
                "moa": group["Metadata_moa"].iloc[0],
                "start": path[0],
                "falls": float((steps < -1e-9).mean()),
                "largest_fall": float((np.maximum.accumulate(path) - path).max()),
                "half": float((path < (path[0] + path[-1]) / 2).sum() / len(steps)),
            }
        )
    return pd.DataFrame(rows)


def choose_treatments(table: pd.DataFrame, n: int) -> list[tuple[str, float]]:
    """The paper's two treatments where they are, then the one with the most cells of each further mechanism."""
    treated = table[table["Metadata_compound"] != "DMSO"]
    counts = treated.groupby([*TREATMENT, "Metadata_moa"]).size().rename("cells").reset_index()
    chosen = [pair for pair in SHOWN if (counts[TREATMENT] == list(pair)).all(axis=1).any()]
    seen = set(counts.loc[[tuple(pair) in chosen for pair in counts[TREATMENT].to_numpy()], "Metadata_moa"])
    largest = counts.sort_values(["cells", *TREATMENT], ascending=[False, True, True]).drop_duplicates("Metadata_moa")
    for compound, concentration, moa in largest[[*TREATMENT, "Metadata_moa"]].sort_values("Metadata_moa").to_numpy():
        if moa not in seen:
            chosen.append((str(compound), float(concentration)))
    return chosen[:n]


def rows_of(table: pd.DataFrame, compound: str, concentration: float) -> np.ndarray:
    """Row numbers of the cells of a treatment."""
    return np.flatnonzero((table["Metadata_compound"] == compound) & (table["Metadata_concentration"] == concentration))


def typical(codes: np.ndarray, rows: np.ndarray) -> int:
    """Row of the cell whose code is nearest to the mean code of the given rows: the paper's target cell."""
    return int(rows[nearest_to_mean(codes[rows])])


@threadpool_limits.wrap(1, user_api="blas")
def cluster_targets(codes: np.ndarray, rows: np.ndarray, n: int = CLUSTERS, seed: int = 0) -> list[tuple[int, int]]:
    """A target cell for each cluster (k-means) of a treatment's codes, the largest first: row, and the cluster's size.

    The paper proposes several targets for mixed populations; how to find them is ours.
    """
    n = min(n, len(rows))
    labels = KMeans(n, n_init=10, random_state=seed).fit_predict(codes[rows].astype(np.float64))
    groups = [rows[labels == label] for label in range(n)]
    return [(typical(codes, group), len(group)) for group in sorted(groups, key=len, reverse=True) if len(group)]
