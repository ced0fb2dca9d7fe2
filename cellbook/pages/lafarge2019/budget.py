"""How the time of the preset `long` is spent: the curves of `benchmarks/budget.csv`, in words and as a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cellbook.study import tables, words
from cellbook.study.rows import pick
from cellbook.study.show import percent

FILE = "benchmarks/budget.csv"
BOTH = "mean of both"  # of the summaries, plain and whitened
SPEND = ["model", "width", "code", "batch"]


def read(root: Path) -> pd.DataFrame:
    """Rows of the benchmark, one a spend, checkpoint and summary, with a name of each spend."""
    found = pd.read_csv(root / FILE)
    parts = found["width"].astype(str), found["code"].astype(str), found["batch"].astype(str)
    return found.assign(spend="width " + parts[0] + ", code " + parts[1] + ", batch " + parts[2])


def last(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows at the end of each training, in the order of the benchmark."""
    return rows[rows["step"] == rows.groupby(SPEND)["step"].transform("max")]


def sentences(rows: pd.DataFrame) -> str:
    """Which spend is best at the end and by how much, and how often training was worse than none; a line a model."""
    return "\n".join(
        f"- {_about(model, part)}" for model, part in pick(rows, summary=BOTH).groupby("model", sort=False)
    )


def _about(model: str, rows: pd.DataFrame) -> str:
    ends = last(rows)
    ranked = ends.sort_values("value", ascending=False, kind="stable")
    best = ranked.iloc[0]
    text = f"{model}, {ends['seconds'].max() / 60:.0f} minutes of one core: "
    text += f"{best['spend']} ends with {percent(best['value'], best['low'], best['high'])} % NSC "
    text += f"({BOTH}), {_points(best, 'gain')} against the same network untrained"
    if len(ranked) > 1:
        second, worst = ranked.iloc[1], ranked.iloc[-1]
        behind = [second] if len(ranked) == 2 else [second, worst]
        beaten = [f"{_points(one, 'behind')} before {one['spend']}" for one in behind]
        sure = (ends["behind_low"] > 0).sum()
        text += f"; it is {', and '.join(beaten)}, surely better than {sure} of {len(ends) - 1}"
    forgot = rows[rows["gain_high"] < 0]
    text += f". {len(forgot.groupby(SPEND))} of {len(ends)} surely fall below their untrained networks on the way, "
    return text + f"{(ends['gain_low'] > 0).sum()} surely end above them."


def _points(line: pd.Series, name: str) -> str:
    return words.points(pd.Series({"value": line[name], "low": line[f"{name}_low"], "high": line[f"{name}_high"]}))


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """The ends beside the untrained networks: a row a spend, NSC in per cent with 95 % intervals over compounds."""
    ends = last(rows).assign(
        steps=lambda lines: lines["step"].map("{:,}".format), seen=lambda lines: lines["views"].map("{:,}".format)
    )
    untrained = rows[rows["step"] == 0].set_index([*SPEND, "summary"])["value"]
    lines = ends.join(untrained.rename("before"), on=[*SPEND, "summary"])
    index = [*SPEND, "steps", "seen"]

    def text(line: pd.Series) -> str:
        return f"{percent(line['before'])} → {percent(line['value'], line['low'], line['high'])}"

    found = tables.wide(lines, index, text, columns="summary").rename(columns={"seen": "cell views"})
    objective = lines.drop_duplicates(SPEND)["objective"]
    return found.assign(objective=[f"{value:.4g}" for value in objective])
