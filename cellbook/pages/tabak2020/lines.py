"""Lines of the table of numbers, and what is known of their uncertainty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cellbook import metrics
from cellbook.pages.tabak2020.config import Config
from cellbook.runs import Run


def row(setting: str, protocol: str, measure: str, k: int, value: float, **more: Any) -> dict[str, Any]:
    """One line of the table of numbers; what does not apply is missing.

    `sd` is over trainings, `se` the paper's standard error, the deviation over as many resamples as `draws` says;
    `agree` is the share of trainings on the side of their mean.
    """
    names = ("low", "high", "sd", "trainings", "agree", "se", "draws", "correct", "scored", "null")
    line = {"setting": setting, "protocol": protocol, "measure": measure, "k": k, "value": float(value)}
    return {**line, **dict.fromkeys(names, np.nan), **more}


def name(source: object, method: object) -> str:
    """Name of a setting."""
    return f"{source}: {method}"


def over_trainings(values: list[float] | np.ndarray) -> dict[str, float]:
    """Sample standard deviation over trainings (missing for one), their number, and how many agree with their mean."""
    values = np.asarray(values, dtype=np.float64)
    agree = float(np.mean(np.sign(values) == np.sign(values.mean())))
    return {
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else np.nan,
        "trainings": len(values),
        "agree": agree,
    }


def interval(
    values: np.ndarray, counted: np.ndarray, groups: pd.Series | np.ndarray, config: Config
) -> dict[str, float]:
    """95 % interval of a ratio of sums, resampling compounds, or plates."""
    low, high = metrics.bootstrap_compounds(values, counted, groups, config.resamples, config.seed)
    return {"low": low, "high": high}


def optional(run: Run, table: str) -> pd.DataFrame:
    """A product that some screens have, or an empty table."""
    return run.table(table) if f"{table}.parquet" in run.products() else pd.DataFrame()
