"""Slow and plain versions of the metrics, and random screens to compare them on."""

import numpy as np
import pandas as pd


def random_units(seed: int, n: int = 40, d: int = 6, *, tied: bool = False) -> pd.DataFrame:
    """Make units with random compounds, MOAs and sets of batches; features far from centred and of very unlike scales.

    `tied` rounds the features to a few values, so that many distances are equal and some rows are zero.
    """
    rng = np.random.default_rng(seed)
    compound = rng.integers(0, n // 3, n)
    moa = rng.integers(0, 5, n // 3)[compound]
    weeks = [f"Week{w}" for w in (1, 2, 3, 10)]
    batch = ["|".join(sorted(rng.choice(weeks, rng.choice([1, 1, 1, 2]), replace=False))) for _ in range(n)]
    if tied:
        x = rng.integers(0, 2, (n, 3)).astype(float)
    else:
        x = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-3, 4, d) + rng.normal(size=d) * 10.0 ** rng.integers(
            -3, 3, d
        )
    table = pd.DataFrame(
        {
            "Metadata_compound": [f"c{c}" for c in compound],
            "Metadata_concentration": np.arange(n) / 10,
            "Metadata_moa": [f"m{m}" for m in moa],
            "Metadata_batch": batch,
        }
    )
    return pd.concat([table, pd.DataFrame(x, columns=[f"f{i}" for i in range(x.shape[1])])], axis=1)


def shares(a: str, b: str, column: str) -> bool:
    return bool(set(a.split("|")) & set(b.split("|"))) if column == "Metadata_batch" else a == b


def slow_match(table, distances, label, exclude, k, vote, average, drop, count):
    """Match one query after the other; returns accuracy, correct, scored, excluded, and the predicted label or None."""
    n = len(table)
    columns = {c: list(table[c]) for c in {label, *exclude, "Metadata_compound"}}
    labels = columns[label]

    def eligible(i):
        return [j for j in range(n) if j != i and not any(shares(columns[c][i], columns[c][j], c) for c in exclude)]

    able = [any(labels[j] == labels[i] for j in eligible(i)) for i in range(n)]
    votes, predictions = [], []
    for i in range(n):
        found = sorted((j for j in eligible(i) if able[j] or not drop), key=lambda j: (distances[i][j], j))
        if not (able[i] or count):
            predictions.append(None)
            continue
        limit = min(k, sum(labels[j] == labels[i] for j in found)) if vote == "pooled" else k
        near = [labels[j] for j in found[:limit]]
        if vote == "majority":
            most = max((near.count(x) for x in near), default=0)
            winner = next((x for x in near if near.count(x) == most), None)
            votes.append((columns["Metadata_compound"][i], int(winner == labels[i]), 1))
            predictions.append(winner)
        else:
            votes.append((columns["Metadata_compound"][i], near.count(labels[i]), len(near)))
            predictions.append(labels[found[0]] if found else None)
    correct, scored = sum(v[1] for v in votes), sum(v[2] for v in votes)
    if average == "compounds":
        parts = []
        for compound in sorted({v[0] for v in votes}):
            mine = [v for v in votes if v[0] == compound]
            if sum(v[2] for v in mine):
                parts.append(sum(v[1] for v in mine) / sum(v[2] for v in mine))
        accuracy = sum(parts) / len(parts) if parts else np.nan
    else:
        accuracy = correct / scored if scored else np.nan
    return accuracy, correct, scored, n - len(votes), predictions
