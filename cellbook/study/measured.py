"""Lines of numbers from the products that every page leaves: distances between treatments, and what needs none.

Products are read, never made: a number can be computed again wherever they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform

from cellbook import metrics
from cellbook.runs import Run
from cellbook.study.rows import Draws, Votes, average, counts, random, row

Setting = tuple[str, str, str]  # variant, summary, distance


def stored_distances(run: Run) -> Iterator[tuple[Setting, np.ndarray]]:
    """Distances between treatments, (n, n), one training after another, with their variant, summary and distance."""
    with np.load(run.path("distances.npz")) as stored:
        for name, line, scale in zip(stored["names"], stored["values"], stored["scale"], strict=True):
            variant, _, summary, distance = str(name).split("|")  # as they are written, see `save_distances`
            yield (variant, summary, distance), squareform(line * scale)


def matches(run: Run, protocol: metrics.Protocol) -> dict[tuple[Setting, str], list[Votes]]:
    """Votes under every setting and measure of a protocol, one set a training."""
    treatments = run.table("treatments")
    found: dict[tuple[Setting, str], list[Votes]] = {}
    for setting, square in stored_distances(run):
        for measure in protocol.measures:
            found.setdefault((setting, measure.name), []).append(matched(treatments, square, measure))
    return found


def matched(treatments: pd.DataFrame, distances: np.ndarray, measure: metrics.Measure) -> Votes:
    """Votes of all treatments under one measure, grouped by compound."""
    queries = metrics.match(treatments, distances=distances, **measure.arguments()).per_query
    return Votes.of(queries["correct"], queries["compound"], queries["counted"])


def without_profile(
    treatments: pd.DataFrame,
    measures: Iterable[metrics.Measure],
    distances: np.ndarray,
    alone: dict[str, np.ndarray],
    permutations: Draws,
    draws: Draws,
) -> Iterator[dict[str, Any]]:
    """Lines of what needs no profile: the largest class, permuted labels, and one property alone.

    Parameters
    ----------
    treatments : (n rows)
    measures : of the benchmark
    distances : (n, n), between profiles whose labels are permuted
    alone : of each property its values, (n, m): the week, a position, the number of cells
    permutations : of labels, and of candidates that a property alone cannot tell apart
    draws : of compounds, where a property leaves no such ties and its accuracy is one like any other
    """
    yield row("largest class", "baseline", "NSC", metrics.majority(treatments))
    n, seed = permutations
    for measure in measures:
        chance = metrics.chance(treatments, measure, distances=distances, n=n, seed=seed)
        yield random("labels permuted", "baseline", measure.name, chance.values)
        for name, values in alone.items():
            apart = metrics.distance_matrix(values, "euclidean")
            expected = metrics.expected_under_ties(treatments, measure, distances=apart, n=n, seed=seed).values
            if np.ptp(expected) > 0:
                yield random(name, "baseline", measure.name, expected)
            else:
                votes = [matched(treatments, apart, measure)]
                yield average(name, "baseline", measure.name, votes, draws, **counts(votes))
