"""The data behind the figures of the page: selections of the products and of the measured numbers."""

from __future__ import annotations

import pandas as pd

from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.measures import BOOTSTRAP, RESTORED
from cellbook.pages.tabak2020.shown import BEYOND, MEASURES, METHODS, mains
from cellbook.pages.tabak2020.sources import EMBEDDINGS
from cellbook.runs import Run
from cellbook.study.measured import optional
from cellbook.study.rows import pick


def in_order(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Rows in the order of sources and methods, both as everywhere on the page."""
    sources, methods = run.table("sources")["source"].tolist(), [*METHODS, *BEYOND]
    order = pd.DataFrame({"source": table["source"].map(sources.index), "method": table["method"].map(methods.index)})
    return table.loc[order.sort_values(["source", "method"], kind="stable").index].reset_index(drop=True)


def violin_rows(run: Run) -> pd.DataFrame:
    """Bootstrapped accuracies of the paper's methods (figure 5)."""
    table = pick(run.table("bootstraps"), method=list(METHODS), measure=MEASURES)
    return in_order(table[["source", "method", "measure", "k", "value"]], run)


def violin_columns(violins: pd.DataFrame) -> pd.DataFrame:
    """The same with one row a violin and one column a resample, which takes a tenth of the room."""
    keys = ["source", "method", "measure", "k"]
    place = violins.groupby(keys, sort=False).cumcount()
    numbered = violins.assign(value=violins["value"].astype(float).round(4), place=place)
    table = numbered.pivot_table(index=keys, columns="place", values="value", sort=False)
    return table.rename(columns=lambda n: f"resample_{n + 1}").reset_index()


def bands(numbers: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """Silhouettes of methods that have no steps (figure 6)."""
    flat = {"source": mains(sources), "method": [c.UNCORRECTED, c.CORAL, c.CORAL_MEANS]}
    lines = pick(numbers, protocol=BOOTSTRAP, measure="silhouette", **flat)
    return lines[["source", "method", "value", "se"]].rename(columns={"value": "mean", "se": "sd"})


def batch_rows(run: Run) -> pd.DataFrame:
    """How often the week of controls is named, at every step or by a method without steps; folds of rows (figure 7)."""
    table = pick(run.table("leak"), how=c.ROWS, draw=0, method=["WDN", c.UNCORRECTED, c.CORAL])
    keys = ["source", "method", "model", "step", "repeat"]
    sums = table.groupby(keys, sort=False, dropna=False).agg({"right": "sum", "total": "sum", "noise": "first"})
    each = sums.reset_index().assign(value=lambda t: t["right"] / t["total"])
    # A step that one training alone chose has no spread over trainings.
    grouped = each.groupby(keys[:-1], sort=False, dropna=False)
    found = grouped.agg(mean=("value", "mean"), sd=("value", "std"), baseline=("noise", "mean"), n=("value", "size"))
    found = found.reset_index()
    most = found.groupby(["source", "method"])["n"].transform("max")
    return found[found["n"] == most].drop(columns="n").fillna({"sd": 0.0}).reset_index(drop=True)


def pca_rows(run: Run) -> pd.DataFrame:
    """Two principal components of controls under the paper's methods (figure 8)."""
    rows = in_order(run.table("pca"), run)[["source", "method", "x", "y", "batch"]]
    return rows.astype({"x": float, "y": float}).round(3)


def damage_rows(run: Run) -> pd.DataFrame:
    """Variance, gap and change of the maps at every step."""
    lines = pick(run.table("steps"), measure=["variance", "gap", "change"])
    return lines[["source", "repeat", "step", "measure", "value"]].reset_index(drop=True)


def truth_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """What corrections restore, by strength of the week effect; empty where no truth is known.

    Methods are in the order in which they stand everywhere on the page.
    """
    lines = pick(numbers, protocol=RESTORED)
    lines = lines.sort_values("method", key=lambda names: names.map([*METHODS, *BEYOND].index), kind="stable")
    columns = ["source", "embedding", "week_effect", "method", "measure", "value", "low", "high", "sd", "null"]
    return lines.assign(embedding=lines["family"].map(EMBEDDINGS))[columns]


def carried_rows(run: Run) -> pd.DataFrame:
    """What maps do on plates that they have not seen, at every step; empty where there is no positive control.

    Screens without a week effect are left out, as there is nothing to bring together; so are further strengths.
    """
    table, about = optional(run, "carry"), run.table("sources").set_index("source")
    shown = about[about["main"] & (about["week_effect"] != 0)].index
    return table if table.empty else table[table["source"].isin(shown)].reset_index(drop=True)
