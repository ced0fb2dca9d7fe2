"""How far models were trained: the lines on which the premise of a verdict rests, see `judging`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cellbook.study.judging import CHANGE, PAPERS_VIEWS, PREMISE, VIEWS, gain
from cellbook.study.rows import Draws, Votes, average, gaps, row


def budget(setting: str, views: int, papers: int, **parts: Any) -> Iterator[dict[str, Any]]:
    """Lines of the cell views of each training of a model, here and in the paper."""
    for measure, value in ((VIEWS, views), (PAPERS_VIEWS, papers)):
        yield row(setting, PREMISE, measure, value, **parts)


def change(history: pd.DataFrame, weights: Mapping[str, float]) -> float:
    """Relative change of an objective from the tenth of the steps before the last tenth to the last tenth.

    The difference of the two means over the mean of the earlier one; NaN where the history is too short.

    Parameters
    ----------
    history : step, term, value; means of each term since the line before
    weights : of the terms that are in the objective at its end
    """
    steps = history[history["term"].isin(list(weights))].pivot_table(index="step", columns="term", values="value")
    objective = sum(weights[term] * steps[term].astype(np.float64) for term in steps)
    if not len(steps):
        return float("nan")
    part = steps.index.to_numpy() / steps.index.max()
    before, last = objective[(part > 0.8) & (part <= 0.9)].mean(), objective[part > 0.9].mean()
    return float((last - before) / abs(before))


def changes(setting: str, found: Sequence[float], **parts: Any) -> Iterator[dict[str, Any]]:
    """Lines of the change of the objective, one a training."""
    for repeat, value in enumerate(found, 1):
        yield row(f"{setting}, training {repeat}", PREMISE, CHANGE, value, trainings=1, **parts)


def gained(
    setting: str,
    measure: str,
    trained: Sequence[Votes],
    untrained: Sequence[Votes],
    draws: Draws,
    *,
    lower: bool = False,
    **parts: Any,
) -> Iterator[dict[str, Any]]:
    """Lines of what each training has gained over the network of the same seed before its first step.

    Above 0 is better; `lower`: less of the measure is. Intervals are over the groups of the votes.
    """
    sides = (untrained, trained) if lower else (trained, untrained)
    for repeat, gap in enumerate(gaps(*sides), 1):
        yield average(f"{setting}, training {repeat}", PREMISE, gain(measure), [gap], draws, **parts)
