"""Lines of the table of numbers: a score, an accuracy over queries, a random baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cellbook import metrics
from cellbook.pages.classical.config import Config


def row(setting: str, protocol: str, measure: str, k: int, value: float, **more: Any) -> dict[str, Any]:
    """One line of the table of numbers; what does not apply is missing."""
    line = {"low": np.nan, "high": np.nan, "correct": np.nan, "scored": np.nan, "excluded": np.nan, "null": np.nan}
    return {"setting": setting, "protocol": protocol, "measure": measure, "k": k, "value": value, **line, **more}


def score_row(setting: str, score: metrics.Score) -> dict[str, Any]:
    """The line of one score."""
    return row(
        setting,
        score.protocol,
        score.measure,
        score.k,
        score.accuracy,
        low=score.interval[0],
        high=score.interval[1],
        correct=score.correct,
        scored=score.scored,
        excluded=score.excluded,
        null=np.nan if score.null is None else score.null,
    )


def query_row(setting: str, protocol: str, measure: str, queries: pd.DataFrame, config: Config) -> dict[str, Any]:
    """The line of an accuracy over queries, or of a mean difference, with its interval over compounds."""
    low, high = metrics.bootstrap_compounds(
        queries["correct"], queries["counted"], queries["compound"], config.resamples, config.seed
    )
    correct, counted = int(queries["correct"].sum()), int(queries["counted"].sum())
    return row(
        setting,
        protocol,
        measure,
        1,
        correct / counted,
        low=low,
        high=high,
        correct=correct,
        scored=counted,
        excluded=int((queries["counted"] == 0).sum()),
    )


def draws_row(setting: str, measure: str, values: np.ndarray, protocol: str = "baseline") -> dict[str, Any]:
    """The line of a random baseline: mean and central 95 % of its draws."""
    low, high = np.quantile(values, [0.025, 0.975])
    return row(setting, protocol, measure, 1, float(np.mean(values)), low=low, high=high)
