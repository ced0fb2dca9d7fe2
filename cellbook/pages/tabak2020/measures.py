"""What the page measures, all of it from the stored products of its run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.carry import LEFT
from cellbook.pages.tabak2020.config import Config, config_of
from cellbook.pages.tabak2020.leaking import stopped, weeks
from cellbook.pages.tabak2020.lines import interval, name, optional, over_trainings, row
from cellbook.runs import Run

POOLED, PLAIN = "tabak2020", "tabak2020-plain"
VOTES = {"pooled": POOLED, "plain": PLAIN}
SILHOUETTE, BOOTSTRAP, PAIRED, COURSE = "silhouette", "bootstrap", "paired", "course"
DAMAGE, STOPPING, RESTORED, CARRIED = "damage", "stopping", "restored", "carried over"
MEAN = 0  # k of a mean over k = 1 to 4
# Differences that claims are about.
PAIRS = (
    *((wdn, other) for wdn in c.CROSS_VALIDATED.values() for other in (c.UNCORRECTED, c.CORAL)),
    *((c.CROSS_VALIDATED[rule], c.HINDSIGHT[rule]) for rule in c.CROSS_VALIDATED),
    *((wdn, c.LAST) for wdn in c.CROSS_VALIDATED.values()),
    (c.CORAL, c.UNCORRECTED),
    (c.CORAL_MEANS, c.UNCORRECTED),
)
SILHOUETTE_PAIRS = (
    (c.HINDSIGHT["silhouette"], c.UNCORRECTED),
    (c.HINDSIGHT["silhouette"], c.CORAL),
    (c.CORAL, c.UNCORRECTED),
)


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of its run."""
    (run,) = runs
    config = config_of(run.record["config"])
    parts = [accuracies, silhouettes, bootstraps, turns, weeks, damage, stops, restored, carried]
    rows = [line for part in parts for line in part(run, config)]
    numbers = pd.DataFrame(rows)
    parts_of = numbers["setting"].str.split(": ", n=1, expand=True)
    about = run.table("sources").astype({"main": int}).set_index("source")[["family", "main", "week_effect"]]
    of_source = {column: parts_of[0].map(about[column]) for column in about}
    numbers = numbers.assign(source=parts_of[0], method=parts_of[1], **of_source)
    return {
        "numbers": numbers,
        "variants": variants(run),
        "sources": run.table("sources").astype({"main": int}),
    }


# --- accuracy -------------------------------------------------------------------------------------------------------


def by_repeat(table: pd.DataFrame) -> dict[tuple[str, str], list[pd.DataFrame]]:
    """Parts of a table by source and method, one a repeat."""
    found: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for (source, method, _), part in table.groupby(["source", "method", "repeat"], sort=False):
        found.setdefault((str(source), str(method)), []).append(part)
    return found


def accuracies(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Accuracy of every correction for k = 1 to 4, and paired differences of the mean over k."""
    queries = run.table("queries").astype({"correct": np.float64, "counted": np.float64})
    for (vote, measure), table in queries.groupby(["vote", "measure"], sort=False):
        means: dict[tuple[str, str], list[pd.DataFrame]] = {}
        for (source, method), repeats in by_repeat(table).items():
            for k in sorted(table["k"].unique()):
                parts = [part[part["k"] == k] for part in repeats]
                votes = parts[0].assign(correct=np.mean([part["correct"] for part in parts], axis=0))
                values = [part["correct"].sum() / part["counted"].sum() for part in parts]
                yield row(
                    name(source, method),
                    VOTES[str(vote)],
                    str(measure),
                    int(k),
                    float(np.mean(values)),
                    **interval(votes["correct"], votes["counted"], votes["compound"], config),
                    **over_trainings(values),
                    correct=float(votes["correct"].sum()),
                    scored=int(votes["counted"].sum()),
                )
            means[source, method] = [mean_over_k(part) for part in repeats]
        if vote == "pooled":
            yield from differences(means, PAIRS, str(measure), config)


def mean_over_k(queries: pd.DataFrame) -> pd.DataFrame:
    """Queries with a value each, whose mean over those that count is the mean accuracy over k."""
    total = queries.groupby("k")["counted"].transform("sum")
    share = queries.assign(value=queries["correct"] / total, counted=queries["counted"] > 0)
    each = share.groupby("query").agg({"compound": "first", "value": "sum", "counted": "max"})
    scored = each["counted"].sum()
    return each.assign(value=each["value"] * scored / queries["k"].nunique(), counted=each["counted"].astype(float))


def differences(
    means: dict[tuple[str, str], list[pd.DataFrame]], pairs: tuple[tuple[str, str], ...], measure: str, config: Config
) -> Iterator[dict[str, Any]]:
    """Paired differences between methods on the same queries; a method with one repeat stands beside each."""
    for source in dict.fromkeys(source for source, _ in means):
        for left, right in pairs:
            sides = [means.get((source, method)) for method in (left, right)]
            if sides[0] is None or sides[1] is None:
                continue
            n = max(map(len, sides))
            a, b = (side * n if len(side) == 1 else side for side in sides)
            gaps = [x["value"].to_numpy() - y["value"].to_numpy() for x, y in zip(a, b, strict=True)]
            counted = a[0]["counted"].to_numpy()
            single = [float(gap.sum() / counted.sum()) for gap in gaps]
            spread = interval(np.mean(gaps, axis=0), counted, a[0]["compound"], config)
            found = over_trainings(single)
            # Differences of corrections without chance need no repeats.
            found["trainings"] = config.repeats if n == 1 else found["trainings"]
            yield row(name(source, f"{left} - {right}"), PAIRED, measure, MEAN, np.mean(single), **spread, **found)


def silhouettes(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Mean silhouette of mechanisms, and paired differences."""
    table = run.table("silhouettes").astype({"value": np.float64})
    parts = by_repeat(table)
    for (source, method), repeats in parts.items():
        values = np.mean([part["value"] for part in repeats], axis=0)
        spread = interval(values, np.ones(len(values)), repeats[0]["compound"], config)
        single = [part["value"].mean() for part in repeats]
        yield row(name(source, method), SILHOUETTE, "MOA", 1, values.mean(), **spread, **over_trainings(single))
    means = {key: [part.assign(counted=1.0) for part in repeats] for key, repeats in parts.items()}
    yield from differences(means, SILHOUETTE_PAIRS, "silhouette", config)


def bootstraps(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Mean over resampled cells, the paper's standard error and the central 95 %; means over trainings."""
    table = run.table("bootstraps").astype({"value": np.float64})
    groups = ["source", "method", "measure", "k"]
    for (source, method, measure, k), part in table.groupby(groups, sort=False):
        wide = part.pivot_table(index="replicate", columns="repeat", values="value")
        low, high = np.quantile(part["value"], [0.025, 0.975])
        yield row(
            name(source, method),
            BOOTSTRAP,
            str(measure),
            int(k),
            wide.to_numpy().mean(),
            low=low,
            high=high,
            se=float(wide.std().mean()),
            draws=len(wide),
            **over_trainings(wide.mean().to_numpy()),
        )


def turns(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """How far accuracy and silhouette rise from step 0 to their top, and fall from there to the last step.

    The top is chosen on one half of the resamples and measured on the other, and the other way round. The interval is
    the central 95 % of resamples, means over trainings: of cells alone (wells, where rows are wells), with compounds
    and plates as they are.
    """
    table = run.table("turns").astype({name: np.float64 for name in ("start", "top", "last")})
    table = table.assign(rise=table["top"] - table["start"], fall=table["last"] - table["top"])
    for (source, measure), part in table.groupby(["source", "measure"], sort=False):
        for what in ("rise", "fall"):
            wide = part.pivot_table(index="replicate", columns="repeat", values=what)
            low, high = np.quantile(wide.mean(axis=1), [0.025, 0.975])
            single = wide.mean().to_numpy()
            yield row(
                name(source, what),
                COURSE,
                str(measure),
                MEAN,
                single.mean(),
                low=low,
                high=high,
                **over_trainings(single),
            )


# --- damage, stopping, truth ----------------------------------------------------------------------------------------


def damage(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Variance, gap and distance from the identity at the best silhouette and at the last step."""
    steps = run.table("steps").merge(stopped(run), on=["source", "repeat"])
    table = steps[steps["measure"].isin(["variance", "gap", "change", "largest_change"])]
    start = table[(table["step"] == 0) & (table["repeat"] == 0)].assign(method=c.UNCORRECTED)
    ends = [
        table[table["step"] == table[when]].assign(method=method)
        for when, method in (("best", c.HINDSIGHT["silhouette"]), ("last", c.LAST))
    ]
    whole = pd.concat([start, *ends])
    for (source, method, measure), part in whole.groupby(["source", "method", "measure"], sort=False):
        values = part["value"].to_numpy(np.float64)
        yield row(name(source, method), DAMAGE, str(measure), 1, values.mean(), **over_trainings(values))


def stops(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Which steps the rules choose with all compounds, and for how many compounds they choose the same without it."""
    choices = run.table("choices")
    for (source, rule), part in choices.groupby(["source", "rule"], sort=False):
        whole, same = [], []
        for _, one in part.groupby("repeat"):
            best = float(one.loc[one["compound"] == "all", "step"].iloc[0])
            whole.append(best)
            same.append(float((one.loc[one["compound"] != "all", "step"] == best).mean()))
        setting = name(source, c.HINDSIGHT[str(rule)])
        yield row(setting, STOPPING, "step", 1, np.mean(whole), **over_trainings(whole))
        yield row(setting, STOPPING, "compounds with the same step", 1, np.mean(same), **over_trainings(same))


def restored(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """How much of the truth is there before and after corrections, intervals over compounds."""
    table = optional(run, "truth")
    if table.empty:
        return
    for (source, method, measure), part in table.groupby(["source", "method", "measure"], sort=False):
        values = part["value"].astype(float).to_numpy()
        spread = {end: float(part[end].mean()) for end in ("low", "high")} | {"null": float(part["chance"].mean())}
        yield row(name(source, method), RESTORED, str(measure), 1, values.mean(), **spread, **over_trainings(values))


def carried(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Gap and week of DMSO and the positive control on plates that no map has seen; intervals over plates.

    Of gaps left, `agree` is the share of trainings that are below 1 with their interval.
    """
    table = optional(run, "carry")
    if table.empty:
        return
    table = table.astype({name: np.float64 for name in ("value", "low", "high", "chance")})
    groups = ["source", "fit", "measured on", "measure"]
    for (source, fit, on, measure), part in table.groupby(groups, sort=False):
        what = f"{on}: {measure}"
        wide = part.pivot_table(index="repeat", columns="step", values="value")
        for step in wide:
            at = part[part["step"] == step]
            spread = {end: float(at[end].mean()) for end in ("low", "high")} | {"null": float(at["chance"].mean())}
            found = over_trainings(wide[step].dropna().to_numpy())
            if measure == LEFT:
                found["agree"] = float(((at["value"] < 1) & (at["high"] < 1)).mean())
            setting = f"{source}: {fit}, step {step:g}"
            yield row(setting, CARRIED, what, 1, wide[step].mean(), **spread, **found)


def variants(run: Run) -> pd.DataFrame:
    """Scores of every variant: at step 0, at the steps that the rules choose, and what is left at the last."""
    return run.table("variants")
