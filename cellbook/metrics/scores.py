"""Applying a protocol: from a table of wells to accuracies with intervals, and on to a results file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cellbook.metrics.moa import Match, factorize, match
from cellbook.metrics.neighbours import Design, Floats, candidates, design, distance_matrix
from cellbook.metrics.protocols import Measure, Protocol
from cellbook.metrics.protocols import protocol as find
from cellbook.metrics.units import Units, prepare
from cellbook.profiles.table import matrix


@dataclass(frozen=True)
class Score:
    """One measure of one protocol on one table of profiles; see `Match` for the counts."""

    protocol: str
    measure: str
    k: int
    accuracy: float
    correct: int
    scored: int
    excluded: int
    excluded_why: dict[str, int]
    interval: tuple[float, float]  # (low, high), 95 %, from resampling compounds; NaN with fewer than two
    null: float | None  # frequency of the largest class among the queries scored, where the paper compares with it
    notes: tuple[str, ...]  # what was dropped, weighted or decided on the way
    match: Match = field(repr=False)


def score(
    profiles: pd.DataFrame,
    protocol: str | Protocol,
    *,
    controls: str = "DMSO",
    seed: int = 0,
    resamples: int = 10_000,
    drop_unlabelled: bool = False,
    drop_unusable: bool = False,
    distances: ArrayLike | None = None,
) -> list[Score]:
    """Score profiles by a paper's protocol: from wells (or units) to accuracies with intervals.

    Parameters
    ----------
    profiles : DataFrame (n rows)
        Wells, or units already; needs Metadata_compound, _concentration, _moa and _batch; without concentrations all
        wells of a compound are one treatment. Rows are aggregated to the protocol's unit if any unit occurs twice, and
        taken as they are otherwise.
    protocol : str or Protocol
        A key of `PROTOCOLS`.
    controls : str
        Rows whose compound or MOA has this name are left out.
    seed, resamples : int
        Of the bootstrap over compounds behind the intervals.
    drop_unlabelled : bool
        Leave out rows without MOA instead of refusing them.
    drop_unusable : bool
        Leave out features that are constant or not finite instead of refusing them.
    distances : float (n, n), optional
        Distances between the rows, which must then be units, in place of features.

    Returns
    -------
    list of Score
        One a measure, in the protocol's order.

    Raises
    ------
    CellbookError
        On missing columns or values, unusable features, duplicate wells, treatments with two MOAs.
    """
    p = find(protocol)
    u = prepare(
        profiles,
        p,
        controls=controls,
        drop_unlabelled=drop_unlabelled,
        drop_unusable=drop_unusable,
        distances=distances,
    )
    d = u.distances if u.distances is not None else distance_matrix(matrix(u.profiles), p.distance)
    return [_score(u, d, p, measure, resamples, seed) for measure in p.measures]


def _score(u: Units, d: Floats, p: Protocol, measure: Measure, resamples: int, seed: int) -> Score:
    m = match(u.profiles, distances=d, **measure.arguments())
    notes = list(u.notes)
    if m.n_queries == 0:
        notes.append(f"nothing can be scored: {'; '.join(f'{why} ({n})' for why, n in m.excluded_why.items())}")
    labels = m.per_query.loc[m.per_query["counted"] > 0, "label"]
    return Score(
        protocol=p.name,
        measure=measure.name,
        k=measure.k,
        accuracy=m.accuracy,
        correct=m.correct,
        scored=m.scored,
        excluded=m.excluded,
        excluded_why=m.excluded_why,
        interval=m.bootstrap(resamples, seed),
        null=float(labels.value_counts(normalize=True).max()) if measure.null and len(labels) else None,
        notes=tuple(notes),
        match=m,
    )


def measure_design(units: pd.DataFrame, measure: Measure) -> Design:
    """Decide who may be matched with whom under a measure, from the metadata of the units."""
    labels, names = factorize(units[measure.label])
    return design(
        labels,
        candidates(units, measure.exclude),
        names,
        drop_unmatchable=measure.drop_unmatchable,
        count_unmatchable=measure.count_unmatchable,
    )


def as_json(scores: list[Score]) -> list[dict[str, Any]]:
    """Turn scores into plain Python values for a results file: everything but the match; null where undefined."""
    rows = [{f.name: getattr(s, f.name) for f in fields(s) if f.name != "match"} for s in scores]
    for row in rows:
        row["accuracy"], row["null"] = _number(row["accuracy"]), _number(row["null"])
        row["interval"] = [_number(end) for end in row["interval"]]
        row["notes"] = list(row["notes"])
    return rows


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
