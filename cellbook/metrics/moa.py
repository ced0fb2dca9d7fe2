"""Nearest-neighbour matching of labels: whether the most similar profile of another compound shares the mechanism.

The papers call this "accuracy", "NSC", "NSCB" or "k-NN"; they differ in what may be a candidate, in the vote and in the
average. There is one implementation, `match`, and every difference is an argument. `protocols` names their settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cellbook.errors import CellbookError
from cellbook.metrics.neighbours import (
    Design,
    Distance,
    Floats,
    Ints,
    Tally,
    Vote,
    candidates,
    choose,
    complete,
    design,
    distance_matrix,
    plain,
    tally,
)
from cellbook.metrics.uncertainty import Average, accuracy, bootstrap_compounds
from cellbook.profiles.table import check_finite, metadata


@dataclass(frozen=True)
class Match:
    """The outcome of matching: counts, and tables for whoever wants to look closer.

    Attributes
    ----------
    accuracy : float
        Share of counted votes that are correct, 0 to 1, higher is better; with average "compounds" the mean over
        compounds of their shares. NaN if no row can be scored.
    correct, scored : int
        Correct votes, and votes counted. One vote a query for "majority" and for k = 1; one a neighbour otherwise, so
        that the accuracy over queries is always correct / scored.
    n_queries, excluded : int
        Rows scored as queries, and rows that are not; together all rows.
    excluded_why : dict
        Reason -> number of rows.
    per_query : DataFrame (n)
        One row a query, in the order of the profiles: compound, concentration, label, neighbour (row number of the
        nearest candidate), neighbour_compound, neighbour_concentration, neighbour_label, predicted (label of the
        nearest or of the majority), distance (to the nearest), correct and counted (votes), excluded (reason or "").
    """

    accuracy: float
    correct: int
    scored: int
    n_queries: int
    excluded: int
    excluded_why: dict[str, int]
    average: Average
    per_query: pd.DataFrame = field(repr=False)

    @property
    def confusion(self) -> pd.DataFrame:
        """Count scored queries by true label (rows) and predicted label (columns), square, labels sorted."""
        rows = self.per_query[(self.per_query["excluded"] == "") & (self.per_query["neighbour"] >= 0)]
        names = sorted(set(self.per_query["label"]))
        table = pd.crosstab(rows["label"], rows["predicted"])
        return table.reindex(index=names, columns=names, fill_value=0).rename_axis(index="true", columns="predicted")

    def bootstrap(self, n: int = 10_000, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
        """Compute an interval of the accuracy by resampling compounds (rows, if the profiles name no compound)."""
        q = self.per_query
        return bootstrap_compounds(q["correct"], q["counted"], q["cluster"], n, seed, level, self.average)


def match(
    profiles: pd.DataFrame,
    *,
    label: str = "Metadata_moa",
    exclude: tuple[str, ...] = ("Metadata_compound",),
    k: int = 1,
    distance: Distance = "cosine",
    vote: Vote = "share",
    average: Average = "queries",
    drop_unmatchable: bool = False,
    count_unmatchable: bool = False,
    distances: ArrayLike | None = None,
) -> Match:
    """Match the label of every profile with those of its nearest neighbours.

    Candidates of a query are all other rows that share no value with it in any `exclude` column. A query is scored if
    at least one candidate carries its label. Distances are in float64 and rounded (see `distance_matrix`); equal ones
    keep the order of the rows.

    Parameters
    ----------
    profiles : DataFrame (n rows)
        The units to match, usually treatments, without controls: metadata columns and features.
    label : str
        The column to be matched.
    exclude : tuple of str
        ("Metadata_compound",) is "not same compound" (NSC), with "Metadata_batch" added "not same compound or batch"
        (NSCB); () leaves out the query alone. A batch "Week1|Week3" is a set; sets that intersect share a batch.
    k : int
        Neighbours; a query with fewer candidates uses those it has.
    distance : {"cosine", "euclidean"}
    vote : {"share", "majority", "pooled"}
        "share" counts each of the k neighbours; "majority" lets them elect one label, a tie going to the closest
        neighbour among the tied; "pooled" counts like "share", but cuts k for each query to the number of candidates
        with its label, so that a perfect representation reaches 1 (Tabak et al. 2020).
    average : {"queries", "compounds"}
        "compounds" is the unweighted mean of the compounds' shares (Goldsborough et al. 2017).
    drop_unmatchable : bool
        Rows that cannot be scored are no candidates either (the published notebook of Caicedo et al. 2018).
    count_unmatchable : bool
        Rows that cannot be right count as wrong (leave-one-out classification).
    distances : float (n, n), optional
        Replaces the features; used as it is, in the order of the rows.

    Returns
    -------
    Match
        Chance is the share of candidates that carry the query's label: see `baselines.chance`.

    Raises
    ------
    CellbookError
        On missing columns or labels, features that are not finite, fewer than two rows, or an unknown argument.
    """
    _check_arguments(k, vote, average)
    columns = dict.fromkeys([label, *exclude, *(["Metadata_compound"] if average == "compounds" else [])])
    if len(profiles) < 2:
        raise CellbookError(f"profiles has {len(profiles)} rows; matching needs at least two, controls removed.")
    complete(profiles, columns)
    table = profiles[metadata(profiles)].reset_index(drop=True)
    eligible = candidates(table, exclude)
    codes, names = factorize(table[label])
    plan = design(codes, eligible, names, drop_unmatchable=drop_unmatchable, count_unmatchable=count_unmatchable)
    if distances is None:
        d = distance_matrix(check_finite(profiles), distance)
    else:
        d = check_distances(distances, len(profiles))
    votes = tally(d, plan, k, vote)
    cluster = table["Metadata_compound"] if "Metadata_compound" in table else pd.Series(range(len(table)))
    after = f" after excluding same {' and '.join(map(plain, exclude))}" if exclude else ""
    reasons = np.where(eligible.any(axis=1), f"no candidate of the same {plain(label)}{after}", "no candidate at all")
    per_query = _per_query(table, plan, d, votes).assign(
        excluded=np.where(plan.scored, "", reasons), cluster=cluster.astype(str)
    )
    why = per_query["excluded"][~plan.scored].value_counts(sort=False)
    return Match(
        accuracy=float(accuracy(votes.correct, votes.counted, cluster, average)),
        correct=int(votes.correct.sum()),
        scored=int(votes.counted.sum()),
        n_queries=int(plan.scored.sum()),
        excluded=int((~plan.scored).sum()),
        excluded_why={str(reason): int(count) for reason, count in why.items()},
        average=average,
        per_query=per_query,
    )


def _per_query(table: pd.DataFrame, plan: Design, d: Floats, votes: Tally) -> pd.DataFrame:
    """List what every query found; the columns are those of Match.per_query."""
    found = votes.nearest >= 0
    described = [name for name in ("compound", "concentration") if f"Metadata_{name}" in table]
    names = np.array([*plan.names, ""])  # the last is for "none", code -1
    columns: dict[str, object] = {name: table[f"Metadata_{name}"] for name in described}
    columns |= {"label": names[plan.labels], "neighbour": votes.nearest}
    for name in described:
        columns[f"neighbour_{name}"] = table[f"Metadata_{name}"].take(votes.nearest).where(found).to_numpy()
    columns |= {
        "neighbour_label": names[np.where(found, plan.labels[votes.nearest], -1)],
        "predicted": names[votes.predicted],
        "distance": np.where(found, d[np.arange(len(d)), votes.nearest], np.nan),
        "correct": votes.correct,
        "counted": votes.counted,
    }
    return pd.DataFrame(columns)


def factorize(labels: pd.Series) -> tuple[Ints, list[str]]:
    """Number the labels in sorted order: codes (n,) and names."""
    codes, names = pd.factorize(labels.astype(str), sort=True)
    return codes.astype(np.int64), [str(name) for name in names]


def check_distances(distances: ArrayLike, n: int) -> Floats:
    """Return a distance matrix as float64 (n, n), or say what is wrong with it."""
    d = np.asarray(distances, dtype=np.float64)
    if d.shape != (n, n):
        raise CellbookError(f"distances has shape {d.shape}, but there are {n} profiles; it must be ({n}, {n}).")
    if not np.isfinite(d).all():
        rows = int((~np.isfinite(d)).any(axis=1).sum())
        raise CellbookError(f"distances holds NaN or infinity in {rows} of {n} rows; compute it from finite features.")
    return d


def _check_arguments(k: int, vote: str, average: str) -> None:
    if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
        raise CellbookError(f"k={k!r}: it must be a whole number of neighbours, at least 1.")
    choose("vote", vote, Vote)
    choose("average", average, Average)
