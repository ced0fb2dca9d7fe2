"""How often the week of controls is named, from the stored counts of every plate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.config import Config
from cellbook.pages.tabak2020.lines import interval, name, over_trainings, row
from cellbook.runs import Run


def stopped(run: Run) -> pd.DataFrame:
    """Map steps of the best silhouette and of the last checkpoint, by source and repeat."""
    choices = run.table("choices")
    best = choices[(choices["rule"] == "silhouette") & (choices["compound"] == "all")]
    last = run.table("steps").groupby(["source", "repeat"])["step"].max().rename("last").reset_index()
    return best[["source", "repeat", "step"]].rename(columns={"step": "best"}).merge(last, on=["source", "repeat"])


def leaks(run: Run) -> pd.DataFrame:
    """How often the week of controls is named, with WDN at the best silhouette and at the last step as methods."""
    table = run.table("leak")
    steps = table.merge(stopped(run), on=["source", "repeat"], how="left")
    still = steps[steps["method"] != "WDN"]
    at = [
        steps[(steps["method"] == "WDN") & (steps["step"] == steps[when])].assign(method=method)
        for when, method in (("best", c.HINDSIGHT["silhouette"]), ("last", c.LAST))
    ]
    return pd.concat([still, *at], ignore_index=True).drop(columns=["best", "last"])


def weeks(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Naming the week of controls by every correction, intervals over plates; and what WDN changes, paired."""
    table = leaks(run)
    for (source, model, how), group in table[table["draw"] == 0].groupby(["source", "model", "how"], sort=False):
        parts = {
            method: [part.set_index("plate")[["right", "total"]] for _, part in rows.groupby("repeat")]
            for method, rows in group.groupby("method", sort=False)
        }
        protocol = week_protocol(str(how))
        null = {"null": float(group["majority"].iloc[0])}
        yield row(name(source, "noise"), protocol, str(model), 1, group["noise"].mean(), **null)
        for method, repeats in parts.items():
            values = [part["right"].sum() / part["total"].sum() for part in repeats]
            right = np.mean([part["right"] for part in repeats], axis=0)
            total = repeats[0]["total"].to_numpy(np.float64)
            spread = interval(right, total, repeats[0].index.to_numpy(), config)
            found = over_trainings(values)
            more = {"correct": right.sum(), "scored": total.sum()} | null
            yield row(name(source, method), protocol, str(model), 1, np.mean(values), **spread, **found, **more)
        for method in (c.HINDSIGHT["silhouette"], c.LAST):
            if method in parts and c.UNCORRECTED in parts:
                yield week_difference(
                    f"{source}: {method} - {c.UNCORRECTED}",
                    protocol,
                    str(model),
                    parts[method],
                    parts[c.UNCORRECTED][0],
                    config,
                )
    drawn = table[table["draw"] > 0]
    for (source, method, model), part in drawn.groupby(["source", "method", "model"], sort=False):
        values = part.assign(value=part["right"] / part["total"]).pivot_table(
            index="draw", columns="repeat", values="value"
        )
        se = float(values.std().mean()) if len(values) > 1 else np.nan
        yield row(
            name(source, method),
            "week, bootstrap",
            str(model),
            1,
            values.to_numpy().mean(),
            se=se,
            draws=len(values),
            **over_trainings(values.mean().to_numpy()),
        )


def week_protocol(how: str) -> str:
    """Name of the protocol of naming the week."""
    return f"week, {how}"


def week_difference(
    setting: str, protocol: str, model: str, repeats: list[pd.DataFrame], before: pd.DataFrame, config: Config
) -> dict[str, Any]:
    """What a correction changes in how often the week is named, on the same rows; interval over plates."""
    gaps = [part["right"] - before["right"].reindex(part.index) for part in repeats]
    total = repeats[0]["total"].to_numpy(np.float64)
    single = [float(gap.sum() / total.sum()) for gap in gaps]
    spread = interval(np.mean(gaps, axis=0), total, before.reindex(repeats[0].index).index.to_numpy(), config)
    return row(setting, f"{protocol}, paired", model, 1, np.mean(single), **spread, **over_trainings(single))
