"""What the page measures, all of it from the stored products of its run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook.configure import restore
from cellbook.pages.lafarge2019 import config as lafarge2019
from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.carry import LEFT
from cellbook.pages.tabak2020.config import Config
from cellbook.pages.tabak2020.sources import ENGINEERED, LEARNED
from cellbook.runs import Run
from cellbook.study import premises
from cellbook.study.encoding import UNTRAINED
from cellbook.study.measured import optional
from cellbook.study.rows import Draws, Votes, average, by_repeat, counts, difference, numbers, pick, random, row, spread

POOLED, PLAIN = "tabak2020", "tabak2020-plain"
VOTES = {"pooled": POOLED, "plain": PLAIN}
SILHOUETTE, BOOTSTRAP, PAIRED, COURSE = "silhouette", "bootstrap", "paired", "course"
EMBEDDED = "beside classical features"
DAMAGE, STOPPING, RESTORED, CARRIED = "damage", "stopping", "restored", "carried over"
STEP, SAME_STEP = "step", "compounds with the same step"
RISE, FALL, NOISE = "rise", "fall", "noise"
OWN = ("source", "method", "left", "right", "turn", "how", "fit", "step", "on")  # columns of numbers, of this page
MEAN = 0  # k of a mean over k = 1 to 4
BEST = c.HINDSIGHT["silhouette"]
ALIGNED = (*c.CROSS_VALIDATED.values(), *c.HINDSIGHT.values(), c.LAST)  # differ from one training to the next
# Differences that claims are about.
PAIRS = (
    *((wdn, other) for wdn in c.CROSS_VALIDATED.values() for other in (c.UNCORRECTED, c.CORAL)),
    *((c.CROSS_VALIDATED[rule], c.HINDSIGHT[rule]) for rule in c.CROSS_VALIDATED),
    *((wdn, c.LAST) for wdn in c.CROSS_VALIDATED.values()),
    (c.CORAL, c.UNCORRECTED),
    (c.CORAL_MEANS, c.UNCORRECTED),
)
SILHOUETTE_PAIRS = ((BEST, c.UNCORRECTED), (BEST, c.CORAL), (c.CORAL, c.UNCORRECTED))
WEEK_PAIRS = ((BEST, c.UNCORRECTED), (c.LAST, c.UNCORRECTED))
Repeats = dict[tuple[Any, ...], list[Votes]]  # source, method -> votes, one set a training


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of its run."""
    (run,) = runs
    config = restore(Config, run.record["config"])
    parts = (
        accuracies,
        premise,
        silhouettes,
        bootstraps,
        turns,
        weeks,
        resampled_weeks,
        damage,
        stops,
        restored,
        carried,
    )
    sources = run.table("sources").astype({"main": int})
    table = numbers({**dict.fromkeys(OWN), **line} for part in parts for line in part(run, config))
    about = sources.set_index("source")[["family", "main", "week_effect"]]
    return {"numbers": table.join(about, on="source"), "variants": run.table("variants"), "sources": sources}


def name(source: object, what: object) -> str:
    """Name of a setting."""
    return f"{source}: {what}"


def named(source: object, method: object) -> dict[str, Any]:
    """Name of a setting, and the columns that it is made of."""
    return {"setting": name(source, method), "source": source, "method": method}


def draws_of(config: Config) -> Draws:
    """Resamples behind an interval."""
    return Draws(config.resamples, config.seed)


# --- accuracy -------------------------------------------------------------------------------------------------------


def accuracies(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Accuracy of every correction for k = 1 to 4, and paired differences of the mean over k."""
    queries = run.table("queries").astype({"correct": np.float64, "counted": np.float64})
    for (vote, measure), table in queries.groupby(["vote", "measure"], sort=False):
        means: Repeats = {}
        for (source, method), repeats in by_repeat(table, "source", "method").items():
            for k in sorted(table["k"].unique()):
                at = [part[part["k"] == k] for part in repeats]
                votes = [Votes.of(part["correct"], part["compound"], part["counted"]) for part in at]
                about = {"protocol": VOTES[str(vote)], "measure": str(measure), "k": int(k)}
                yield average(**named(source, method), **about, repeats=votes, draws=draws_of(config), **counts(votes))
            means[source, method] = [mean_over_k(part) for part in repeats]
        if vote == "pooled":
            yield from differences(means, PAIRS, str(measure), config)
            yield from beside_classical(means, str(measure), run, config)


def mean_over_k(queries: pd.DataFrame) -> Votes:
    """Votes of queries whose mean over those that count is the mean accuracy over k."""
    total = queries.groupby("k")["counted"].transform("sum")
    share = queries.assign(value=queries["correct"] / total, counted=queries["counted"] > 0)
    each = share.groupby("query").agg({"compound": "first", "value": "sum", "counted": "max"})
    return Votes.of(each["value"] * each["counted"].sum() / queries["k"].nunique(), each["compound"], each["counted"])


def differences(
    votes: Repeats,
    pairs: tuple[tuple[str, str], ...],
    measure: str,
    config: Config,
    protocol: str = PAIRED,
    k: int = MEAN,
    **more: Any,
) -> Iterator[dict[str, Any]]:
    """Paired differences between methods on the same queries; a method with one repeat stands beside each."""
    for source in dict.fromkeys(source for source, _ in votes):
        for left, right in pairs:
            if (source, left) not in votes or (source, right) not in votes:
                continue
            sides, setting = (votes[source, left], votes[source, right]), name(source, f"{left} - {right}")
            # Differences of corrections without chance need no repeats.
            alone = {} if left in ALIGNED else {"trainings": config.repeats}
            about = {"source": source, "left": left, "right": right, **more}
            yield difference(setting, protocol, measure, *sides, draws_of(config), k, **alone) | about


def beside_classical(means: Repeats, measure: str, run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Paired differences of other features from classical ones of the same cells, without a correction and under two.

    A correction without chance stands beside itself; WDN with one alignment of both, seed by seed.
    """
    main = pick(run.table("sources"), main=True, unit="cells")
    for _, sources in main.groupby("screen", sort=False):
        classical = pick(sources, family=ENGINEERED)["source"].iloc[0]
        for source in sources["source"]:
            for method in (c.UNCORRECTED, c.CORAL, *c.CROSS_VALIDATED.values()):
                if source != classical:
                    sides, setting = (
                        (means[source, method], means[classical, method]),
                        name(source, f"{method} - {classical}"),
                    )
                    about = {"source": source, "method": method, "right": classical}
                    yield difference(setting, EMBEDDED, measure, *sides, draws_of(config), MEAN) | about


def premise(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """How far the encoder of learned features was trained, and what their accuracy gains over it untrained."""
    queries = pick(run.table("queries").astype({"correct": np.float64, "counted": np.float64}), vote="pooled")
    for _, learned in pick(run.table("sources"), family=LEARNED, main=True).iterrows():
        source, about = str(learned["source"]), {"source": learned["source"]}
        yield from premises.budget(source, int(learned["views"]), lafarge2019.PAPERS_VIEWS, **about)
        yield from premises.changes(source, [learned["change"]], **about)
        for measure, table in pick(queries, source=source).groupby("measure", sort=False):
            methods = (pick(table, method=method, repeat=0) for method in (c.UNCORRECTED, UNTRAINED))
            after, before = ([mean_over_k(part)] if len(part) else [] for part in methods)
            if before:
                yield from premises.gained(source, str(measure), after, before, draws_of(config), **about)


def silhouettes(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Mean silhouette of mechanisms, and paired differences."""
    parts = by_repeat(run.table("silhouettes").astype({"value": np.float64}), "source", "method")
    votes = {key: [Votes.of(part["value"], part["compound"]) for part in parts[key]] for key in parts}
    for (source, method), repeats in votes.items():
        about = {"protocol": SILHOUETTE, "measure": "MOA"}
        yield average(**named(source, method), **about, repeats=repeats, draws=draws_of(config))
    yield from differences(votes, SILHOUETTE_PAIRS, "silhouette", config)


def resamples(table: pd.DataFrame, index: str) -> dict[str, Any]:
    """Standard error of resamples, mean over trainings, from how many, and the spread over trainings."""
    wide = table.pivot_table(index=index, columns="repeat", values="value")
    return {"se": float(wide.std().mean()), "draws": len(wide), **spread(wide.mean())}


def bootstraps(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Mean over resampled cells, the paper's standard error and the central 95 %; means over trainings."""
    table = run.table("bootstraps").astype({"value": np.float64})
    for (source, method, measure, k), part in table.groupby(["source", "method", "measure", "k"], sort=False):
        about = {"protocol": BOOTSTRAP, "measure": str(measure), "k": int(k)}
        yield random(**named(source, method), **about, values=part["value"], **resamples(part, "replicate"))


def turns(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """How far accuracy and silhouette rise from step 0 to their top, and fall from there to the last step.

    The top is chosen on one half of the resamples and measured on the other, and the other way round. The interval is
    the central 95 % of resamples, means over trainings: of cells alone (wells, where rows are wells), with compounds
    and plates as they are.
    """
    table = run.table("turns").astype(dict.fromkeys(("start", "top", "last"), np.float64))
    table = table.assign(**{RISE: table["top"] - table["start"], FALL: table["last"] - table["top"]})
    for (source, measure), part in table.groupby(["source", "measure"], sort=False):
        for what in (RISE, FALL):
            wide = part.pivot_table(index="replicate", columns="repeat", values=what)
            more = spread(wide.mean(), signs=True)
            yield random(
                name(source, what), COURSE, str(measure), wide.mean(axis=1), MEAN, source=source, turn=what, **more
            )


# --- the week of controls -------------------------------------------------------------------------------------------


def week_protocol(how: str) -> str:
    """Name of the protocol of naming the week."""
    return f"week, {how}"


def stopped(run: Run) -> pd.DataFrame:
    """Map steps of the best silhouette and of the last checkpoint, by source and repeat."""
    best = pick(run.table("choices"), rule="silhouette", compound="all")
    last = run.table("steps").groupby(["source", "repeat"])["step"].max().rename("last").reset_index()
    return best[["source", "repeat", "step"]].rename(columns={"step": "best"}).merge(last, on=["source", "repeat"])


def at_stops(table: pd.DataFrame, run: Run) -> list[pd.DataFrame]:
    """Rows of a table of map steps at the best silhouette and at the last one, as methods."""
    steps = table.merge(stopped(run), on=["source", "repeat"])
    ends = (("best", BEST), ("last", c.LAST))
    return [
        steps[steps["step"] == steps[when]].assign(method=method).drop(columns=["best", "last"])
        for when, method in ends
    ]


def leaks(run: Run) -> pd.DataFrame:
    """How often the week of controls is named, with WDN at the best silhouette and at the last step as methods."""
    table = run.table("leak")
    is_wdn = table["method"] == "WDN"
    return pd.concat([table[~is_wdn], *at_stops(table[is_wdn], run)], ignore_index=True)


def weeks(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Naming the week of controls by every correction, intervals over plates; and what WDN changes, paired."""
    for (source, model, how), group in pick(leaks(run), draw=0).groupby(["source", "model", "how"], sort=False):
        protocol, model, plates = week_protocol(str(how)), str(model), group["plate"].unique()
        votes: Repeats = {}
        for key, repeats in by_repeat(group, "source", "method").items():
            parts = [part.set_index("plate").reindex(plates) for part in repeats]
            votes[key] = [Votes.of(part["right"], plates, part["total"]) for part in parts]
        more = {"how": how, "null": float(group["majority"].iloc[0])}
        yield row(**named(source, NOISE), protocol=protocol, measure=model, value=group["noise"].mean(), **more)
        for (_, method), repeats in votes.items():
            about = {"protocol": protocol, "measure": model, "repeats": repeats, "draws": draws_of(config)}
            yield average(**named(source, method), **about, **counts(repeats), **more)
        yield from differences(votes, WEEK_PAIRS, model, config, f"{protocol}, paired", 1, how=how)


def resampled_weeks(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Naming the week of resampled controls in folds of rows: the mean, and the paper's standard error."""
    table = leaks(run)
    table = table[table["draw"] > 0].assign(value=lambda t: t["right"] / t["total"])
    for (source, method, model), part in table.groupby(["source", "method", "model"], sort=False):
        about = {"protocol": week_protocol(BOOTSTRAP), "measure": str(model), "value": part["value"].mean()}
        yield row(**named(source, method), **about, **resamples(part, "draw"), how=c.ROWS)


# --- damage, stopping, truth ----------------------------------------------------------------------------------------


def damage(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Variance, gap and distance from the identity at the best silhouette and at the last step."""
    steps = pick(run.table("steps"), measure=["variance", "gap", "change", "largest_change"])
    whole = pd.concat([pick(steps, step=0, repeat=0).assign(method=c.UNCORRECTED), *at_stops(steps, run)])
    for (source, method, measure), part in whole.groupby(["source", "method", "measure"], sort=False):
        values = part["value"].astype(float)
        yield row(**named(source, method), protocol=DAMAGE, measure=str(measure), value=values.mean(), **spread(values))


def stops(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Which steps the rules choose with all compounds, and for how many compounds they choose the same without it."""
    for (source, rule), repeats in by_repeat(run.table("choices"), "source", "rule").items():
        whole = [float(pick(part, compound="all")["step"].iloc[0]) for part in repeats]
        without = [part.loc[part["compound"] != "all", "step"] for part in repeats]
        same = [float((steps == best).mean()) for steps, best in zip(without, whole, strict=True)]
        for measure, values in ((STEP, whole), (SAME_STEP, same)):
            about = {"protocol": STOPPING, "measure": measure, "value": np.mean(values)}
            yield row(**named(source, c.HINDSIGHT[rule]), **about, **spread(values))


def over_trainings(part: pd.DataFrame) -> dict[str, Any]:
    """Means over trainings of a value, its interval and its chance, and the spread of the value."""
    ends = {"value": "value", "low": "low", "high": "high", "null": "chance"}
    return {column: float(part[of].mean()) for column, of in ends.items()} | spread(part["value"].dropna())


def restored(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """How much of the truth is there before and after corrections, intervals over compounds."""
    table = optional(run, "truth")
    if table.empty:
        return
    table = table.astype(dict.fromkeys(("value", "low", "high", "chance"), np.float64))
    for (source, method, measure), part in table.groupby(["source", "method", "measure"], sort=False):
        yield row(**named(source, method), protocol=RESTORED, measure=str(measure), **over_trainings(part))


def carried(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """Gap and week of DMSO and the positive control on plates that no map has seen; intervals over plates.

    Of gaps left, `agree` is the share of trainings that are below 1 with their interval.
    """
    table = optional(run, "carry")
    if table.empty:
        return
    table = table.astype(dict.fromkeys(("value", "low", "high", "chance"), np.float64))
    groups = ["source", "fit", "measured on", "measure", "step"]
    for (source, fit, on, measure, step), part in table.groupby(groups, sort=False):
        setting = name(source, f"{fit}, step {step:g}, on {on}")
        about = over_trainings(part) | {"source": source, "fit": fit, "step": step, "on": on}
        if measure == LEFT:
            about["agree"] = float(((part["value"] < 1) & (part["high"] < 1)).mean())
        yield row(setting, CARRIED, str(measure), **about)
