"""The data behind the figures of the page: selections of the products and of the measured numbers."""

from __future__ import annotations

import pandas as pd

from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.carry import LEFT
from cellbook.pages.tabak2020.lines import optional
from cellbook.pages.tabak2020.measures import BOOTSTRAP, CARRIED, RESTORED
from cellbook.pages.tabak2020.tables import BEYOND, SHOWN, mains
from cellbook.runs import Run
from cellbook.study.rows import pick
from cellbook.study.show import percent, plain


def bands(numbers: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """Silhouettes of methods that have no steps (figure 6)."""
    rows = pick(numbers, protocol=BOOTSTRAP, measure="silhouette")
    rows = rows[rows["method"].isin([c.UNCORRECTED, c.CORAL, c.CORAL_MEANS]) & rows["source"].isin(mains(sources))]
    return rows[["source", "method", "value", "se"]].rename(columns={"value": "mean", "se": "sd"})


def violin_rows(run: Run) -> pd.DataFrame:
    """Bootstrapped accuracies of the paper's methods (figure 5)."""
    table = run.table("bootstraps")
    table = table[table["method"].isin(SHOWN) & table["measure"].isin(["NSC", "NSCB"])]
    return in_order(table[["source", "method", "measure", "k", "value"]], run)


def violin_columns(violins: pd.DataFrame) -> pd.DataFrame:
    """The same with one row a violin and one column a resample, which takes a tenth of the room."""
    keys = ["source", "method", "measure", "k"]
    place = violins.groupby(keys, sort=False).cumcount()
    numbered = violins.assign(value=violins["value"].astype(float).round(4), place=place)
    wide = numbered.pivot_table(index=keys, columns="place", values="value", sort=False)
    return wide.rename(columns=lambda n: f"resample_{n + 1}").reset_index()


def pca_rows(run: Run) -> pd.DataFrame:
    """Two principal components of controls under the paper's methods (figure 8)."""
    rows = in_order(run.table("pca"), run)[["source", "method", "x", "y", "batch"]]
    return rows.astype({"x": float, "y": float}).round(3)


def carried_rows(run: Run) -> pd.DataFrame:
    """What maps do on plates that they have not seen, at every step; empty where there is no positive control.

    Screens without a week effect are left out: there is nothing to bring together.
    """
    table, about = optional(run, "carry"), run.table("sources").set_index("source")["week_effect"]
    return table if table.empty else table[table["source"].map(about) != 0].reset_index(drop=True)


def converged_rows(run: Run) -> pd.DataFrame:
    """Scores of uncorrected wells by when their factor analysis stops; empty where there are no wells."""
    return optional(run, "converged")


def in_order(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Rows in the order of sources and methods, both as everywhere on the page."""
    sources, methods = run.table("sources")["source"].tolist(), [*SHOWN, *BEYOND]
    order = pd.DataFrame({"source": table["source"].map(sources.index), "method": table["method"].map(methods.index)})
    return table.loc[order.sort_values(["source", "method"], kind="stable").index].reset_index(drop=True)


def batch_rows(run: Run) -> pd.DataFrame:
    """How often the week of controls is named, at every step or by a method without steps; folds of rows (figure 7)."""
    table = run.table("leak")
    table = table[(table["how"] == c.ROWS) & (table["draw"] == 0)]
    table = table[table["method"].isin(["WDN", c.UNCORRECTED, c.CORAL])]
    keys = ["source", "method", "model", "step", "repeat"]
    sums = table.groupby(keys, sort=False, dropna=False).agg({"right": "sum", "total": "sum", "noise": "first"})
    each = sums.reset_index().assign(value=lambda t: t["right"] / t["total"])
    # A step that one training alone chose has no spread over trainings.
    grouped = each.groupby(keys[:-1], sort=False, dropna=False)
    found = grouped.agg(mean=("value", "mean"), sd=("value", "std"), baseline=("noise", "mean"), n=("value", "size"))
    found = found.reset_index()
    most = found.groupby(["source", "method"])["n"].transform("max")
    return found[found["n"] == most].drop(columns="n").fillna({"sd": 0.0}).reset_index(drop=True)


def damage_rows(run: Run) -> pd.DataFrame:
    """Variance, gap and change of the maps at every step."""
    table = run.table("steps")
    wanted = table["measure"].isin(["variance", "gap", "change"])
    return table[wanted][["source", "repeat", "step", "measure", "value"]].reset_index(drop=True)


def truth_rows(numbers: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """What corrections restore, by strength of the week effect; empty where no truth is known."""
    rows = pick(numbers, protocol=RESTORED)
    about = sources.set_index("source")
    return rows.assign(
        week_effect=rows["source"].map(about["week_effect"]), embedding=rows["source"].str.split(", ").str[-1]
    )[["source", "embedding", "week_effect", "method", "measure", "value", "low", "high", "null"]]


def truth_table(truth: pd.DataFrame) -> pd.DataFrame:
    """Restoration as a table, one row a source and method."""
    texts = [plain(r["value"], r["low"], r["high"]) for _, r in truth.iterrows()]
    wide = truth.assign(text=texts).pivot_table(
        index=["embedding", "week_effect", "method"], columns="measure", values="text", aggfunc="first", sort=False
    )
    return wide.reset_index().rename(columns={"week_effect": "week effect"})


def carried_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Gap left and week named on unseen plates, DMSO and the positive control, at the last step of each fit.

    Beside a gap left stands what would be left if weeks were equal.
    """
    rows = pick(numbers, protocol=CARRIED)
    rows = rows[rows["week_effect"] != 0] if len(rows) else rows
    if rows.empty:
        return pd.DataFrame()
    parts = rows["method"].str.extract(r"^(?P<fit>.*), step (?P<step>\d+)$")
    rows = rows.assign(fit=parts["fit"], step=parts["step"].astype(float))
    last = rows[rows["step"] == rows.groupby(["source", "fit"])["step"].transform("max")]
    last = last[~last["measure"].str.endswith(": gap")]
    texts = [
        percent(r["value"], r["low"], r["high"]) if "named" in r["measure"] else plain(r["value"], r["low"], r["high"])
        for _, r in last.iterrows()
    ]
    last = last.assign(text=texts)
    gaps = last[last["measure"].str.endswith(f": {LEFT}")]
    floors = gaps.assign(text=gaps["null"].map(plain), measure=gaps["measure"] + ", if weeks were equal")
    wide = pd.concat([last, floors]).pivot_table(
        index=["source", "fit"], columns="measure", values="text", aggfunc="first", sort=False
    )
    return wide[sorted(wide)].reset_index().rename(columns={"source": "profiles", "fit": "maps fitted on"})
