"""What the page measures, all of it from the stored products of its runs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from cellbook import metrics
from cellbook.pages.cells.config import BY_PLATE, PERMUTED, POOLED
from cellbook.runs import Run

BENCHMARK = metrics.PROTOCOLS["ljosa2013"]
SIMULATED, SAMPLE, CELLPROFILER = "simulated", "sample", "CellProfiler"


@dataclass(frozen=True)
class Source:
    """One table of treatments with their distances by setting, and what it was measured on."""

    screen: str  # SIMULATED, SAMPLE or CELLPROFILER
    seed: float  # of the simulation; NaN for real cells
    week_effect: float  # NaN for real cells
    treatments: pd.DataFrame
    distances: dict[tuple[str, str], np.ndarray]  # (profile, scaling) -> (n, n)
    weeks: pd.DataFrame
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The screen in the words of the tables."""
        if self.screen != SIMULATED:
            return self.screen
        return f"simulated, seed {self.seed:.0f}, week effect {self.week_effect:g}"

    def draws(self, name: str) -> dict[str, int]:
        """Number of draws of a kind, and the seed of the page."""
        return {"n": self.config[name], "seed": 0}


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page: accuracies, drops, baselines, weeks, the truth; and of the real cells where they are."""
    simulated = [run for run in runs if run.record["method"] == "cells-simulated"]
    real = [run for run in runs if run.record["method"] == "cells-real"]
    found = [source for run in runs for source in sources(run)]
    parts = [
        part for source in found for part in (score_settings(source), drop(source), permuted(source), week(source))
    ]
    parts += [alone(found[0], "week alone"), alone(found[0], "cell count alone")]
    parts += [alone(source, "cell count alone") for source in found if source.screen == CELLPROFILER]
    parts += [paired(source) for source in found if source.screen == SAMPLE]
    tables = {"truth": truth(simulated), "sizes": sizes(runs)}
    for run in real:
        parts += [nuclei(run), told_apart(run)]
        tables |= {"calibration": run.table("calibration"), "areas": run.table("areas"), "nuclei": run.table("nuclei")}
    return {"numbers": pd.concat(parts, ignore_index=True), **tables}


def sources(run: Run) -> list[Source]:
    """What a run holds: one simulated screen, or the sample and the published profiles."""
    config = run.record["config"]

    def read(screen: str, prefix: str, seed: float, week_effect: float, weeks: str = "") -> Source:
        stored = run.table(f"{prefix}distances")
        squares = {tuple(name.split(", ")): squareform(stored[name].to_numpy(np.float64)) for name in stored}
        named = run.table(weeks) if weeks else pd.DataFrame()
        return Source(screen, seed, week_effect, run.table(f"{prefix}treatments"), squares, named, config)

    if run.record["method"] == "cells-simulated":
        made = config["simulated"]
        return [read(SIMULATED, "", made["seed"], made["week_effect"], "weeks")]
    nan = float("nan")
    return [
        read(SAMPLE, "sample-", nan, nan, "sample-weeks"),
        read(CELLPROFILER, "cellprofiler-", nan, nan),
    ]


def row(
    source: Source, profile: str, scaling: str, protocol: str, measure: str, value: float, **more: Any
) -> dict[str, Any]:
    """One line of the table of numbers; what does not apply is missing."""
    line = {"low": np.nan, "high": np.nan, "correct": np.nan, "scored": np.nan, "excluded": np.nan, "null": np.nan}
    names = ", ".join(filter(None, (source.name, profile, scaling)))
    what = {"setting": names, "protocol": protocol, "measure": measure, "k": 1, "value": value}
    where = {"screen": source.screen, "seed": source.seed, "week_effect": source.week_effect}
    return {**what, **line, **more, **where, "profile": profile, "scaling": scaling}


def query_row(
    source: Source, setting: tuple[str, str], protocol: str, measure: str, queries: pd.DataFrame
) -> dict[str, Any]:
    """The line of an accuracy over queries, or of a mean difference, with its interval over compounds."""
    low, high = metrics.bootstrap_compounds(
        queries["correct"], queries["counted"], queries["compound"], **source.draws("resamples")
    )
    correct, counted = int(queries["correct"].sum()), int(queries["counted"].sum())
    counts = {"correct": correct, "scored": counted, "excluded": int((queries["counted"] == 0).sum())}
    value = correct / counted if counted else float("nan")
    return row(source, *setting, protocol, measure, value, low=low, high=high, **counts)


def matches(source: Source, setting: tuple[str, str]) -> dict[str, pd.DataFrame]:
    """What every query found under NSC and under NSCB."""
    return {
        measure.name: metrics.match(
            source.treatments, distances=source.distances[setting], **measure.arguments()
        ).per_query
        for measure in BENCHMARK.measures
    }


def score_settings(source: Source) -> pd.DataFrame:
    """Score every setting under the benchmark's protocol."""
    rows = [
        query_row(source, setting, BENCHMARK.name, name, queries)
        for setting in source.distances
        for name, queries in matches(source, setting).items()
    ]
    return pd.DataFrame(rows)


def drop(source: Source) -> pd.DataFrame:
    """NSC and NSCB on the queries of NSCB, their difference, and NSC with as many candidates removed at random."""
    rows = []
    for setting, square in source.distances.items():
        if setting[0] not in (PERMUTED, CELLPROFILER):
            continue
        found = matches(source, setting)
        counted = found["NSCB"]["counted"] > 0
        for name in ("NSC", "NSCB"):
            rows.append(query_row(source, setting, "drop", name, found[name][counted]))
        difference = found["NSC"].assign(correct=found["NSC"]["correct"] - found["NSCB"]["correct"])
        rows.append(query_row(source, setting, "drop", "NSC - NSCB", difference[counted]))
        for name, alike in (("at random", False), ("alike at random", True)):
            values = metrics.thinned(source.treatments, square, alike=alike, **source.draws("thinnings")).values
            rows.append(draws_row(source, setting, "drop", name, values))
    return pd.DataFrame(rows)


def draws_row(source: Source, setting: tuple[str, str], protocol: str, measure: str, values: np.ndarray) -> dict:
    """The line of something random: mean and central 95 % of its draws."""
    low, high = np.quantile(values, [0.025, 0.975])
    return row(source, *setting, protocol, measure, float(np.mean(values)), low=low, high=high)


def permuted(source: Source) -> pd.DataFrame:
    """Accuracy with permuted labels, and what a random candidate then gives: the chance that two labels agree."""
    rows = []
    counts = source.treatments["Metadata_moa"].value_counts()
    agree = float((counts * (counts - 1)).sum() / (counts.sum() * (counts.sum() - 1)))
    for (profile, scaling), measure in product(source.distances, BENCHMARK.measures):
        if profile not in (PERMUTED, CELLPROFILER) or (source.screen != SAMPLE and scaling != BY_PLATE):
            continue
        square = source.distances[profile, scaling]
        chance = metrics.chance(source.treatments, measure, distances=square, **source.draws("permutations"))
        rows.append(draws_row(source, ("labels permuted", scaling), "baseline", measure.name, chance.values))
    return pd.DataFrame(rows).assign(null=agree)


def alone(source: Source, what: str) -> pd.DataFrame:
    """What the week, or the number of cells, would reach without any picture."""
    rows = []
    for measure in BENCHMARK.measures:
        if what == "week alone":
            found = metrics.expected_under_ties(
                source.treatments, measure, by="Metadata_batch", **source.draws("permutations")
            )
            rows.append(draws_row(source, (what, ""), "baseline", measure.name, found.values))
        else:
            queries = metrics.one_feature(source.treatments, measure=measure).per_query
            rows.append(query_row(source, (what, ""), "baseline", measure.name, queries))
    return pd.DataFrame(rows)


def paired(source: Source) -> pd.DataFrame:
    """Classical features against each other encoder, on the same queries, with intervals over compounds."""
    rows = []
    best = matches(source, (PERMUTED, POOLED))
    for profile, scaling in source.distances:
        if profile == PERMUTED:
            continue
        other = matches(source, (profile, scaling))
        for name, queries in best.items():
            difference = queries.assign(correct=queries["correct"] - other[name]["correct"])
            setting = (f"{PERMUTED} - {profile}", scaling)
            rows.append(query_row(source, setting, "paired", name, difference))
    return pd.DataFrame(rows)


def week(source: Source) -> pd.DataFrame:
    """How often the week of a taxol control cell is named, on plates held out; intervals over plates."""
    rows = []
    groups = source.weeks.groupby(["encoder", "scaling"], sort=False) if len(source.weeks) else []
    for setting, cells in groups:
        low, high = metrics.bootstrap_compounds(
            cells["correct"].astype(int), np.ones(len(cells)), cells["plate"], **source.draws("resamples")
        )
        counts = {"correct": int(cells["correct"].sum()), "scored": len(cells)}
        line = row(source, *setting, "week", "logistic", cells["correct"].mean(), low=low, high=high, **counts)
        rows.append(line | {"null": cells["majority"].iloc[0]})
    return pd.DataFrame(rows)


def nuclei(run: Run) -> pd.DataFrame:
    """Precision and recall of the centres of nuclei, each field and all together, with Wilson's intervals."""
    table = run.table("nuclei")
    _, source = sources(run)
    rows = []
    together = table.groupby("method", as_index=False).sum(numeric_only=True).assign(plate="all fields", field="")
    for line in pd.concat([table, together]).itertuples():
        for measure, hits, n in (
            ("precision", line.found_matched, line.found),
            ("recall", line.published_matched, line.published),
        ):
            low, high = binomtest(hits, n).proportion_ci(0.95, "wilson") if n else (0.0, 1.0)
            place = f"{line.plate} {line.field[:6]}".strip()  # plate, well and site
            counts = {"correct": hits, "scored": n, "low": low, "high": high}
            entry = row(source, line.method, place, "nuclei", measure, hits / n if n else float("nan"), **counts)
            rows.append(entry | {"setting": f"{line.method}, {place}", "screen": "fields"})
    return pd.DataFrame(rows)


def told_apart(run: Run) -> pd.DataFrame:
    """How often a random forest tells a simulated control cell from a real one; chance is 0.5."""
    table = run.table("calibration").set_index("measurement")
    sample, _ = sources(run)
    value = float(table.loc["told apart", "simulated"])
    line = row(sample, "told apart", "", "calibration", "forest", value, null=0.5)
    return pd.DataFrame([line])


def truth(runs: list[Run]) -> pd.DataFrame:
    """R2 of the linear probe for every parameter: one row a parameter, seed and week effect."""
    parts = []
    for run in runs:
        made = run.record["config"]["simulated"]
        parts.append(run.table("truth").assign(seed=made["seed"], week_effect=made["week_effect"]))
    return pd.concat(parts, ignore_index=True)


def sizes(runs: list[Run]) -> pd.DataFrame:
    """How many cells, wells and plates each run looked at."""
    parts = []
    for run in runs:
        made = run.record["config"]["simulated"]
        simulated = run.record["method"] == "cells-simulated"
        of = f"simulated, seed {made['seed']}, week effect {made['week_effect']:g}" if simulated else SAMPLE
        parts.append(run.table("size").assign(screen=of))
    return pd.concat(parts, ignore_index=True)
