"""What the page measures, all of it from the stored products of its runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from cellbook import metrics
from cellbook.pages.cells import enough
from cellbook.pages.cells.config import BY_PLATE, ENCODERS, PERMUTED, POOLED
from cellbook.runs import Run
from cellbook.study import rows
from cellbook.study.measured import matched
from cellbook.study.rows import Draws, Votes
from cellbook.study.show import percent

BENCHMARK = metrics.PROTOCOLS["ljosa2013"]
SIMULATED, SAMPLE, CELLPROFILER = "simulated", "sample", "CellProfiler"
DROP = "NSC - NSCB"  # on the queries of NSCB
ABSENT = "The real cells are not on this machine, so this part of the page is left out."
Setting = tuple[str, str]  # profile, scaling
Line = dict[str, Any]
SETTINGS = [(profile, scaling) for profile in (*ENCODERS, CELLPROFILER) for scaling in (BY_PLATE, POOLED)]


def strengths(numbers: pd.DataFrame) -> list[float]:
    """The week effects that were simulated, the strongest first."""
    return sorted(numbers["week_effect"].dropna().unique(), reverse=True)


def over_seeds(values: pd.Series) -> str:
    """The range of shares over seeds in per cent, behind their mean; empty for one seed."""
    return f" (seeds {percent(values.min())} to {percent(values.max())})" if len(values) > 1 else ""


def has_real(numbers: pd.DataFrame) -> bool:
    """Whether the real cells were looked at."""
    return bool((numbers["screen"] == SAMPLE).any())


@dataclass(frozen=True)
class Source:
    """One table of treatments with their distances by setting, and what it was measured on."""

    screen: str  # SIMULATED, SAMPLE or CELLPROFILER
    seed: float  # of the simulation; NaN for real cells
    week_effect: float  # NaN for real cells
    treatments: pd.DataFrame
    distances: dict[Setting, np.ndarray]  # (n, n)
    weeks: pd.DataFrame
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The screen in the words of the tables."""
        if self.screen != SIMULATED:
            return self.screen
        return f"simulated, seed {self.seed:.0f}, week effect {self.week_effect:g}"

    def draws(self, name: str) -> Draws:
        """Number of draws of a kind, and the seed of the page."""
        return Draws(self.config[name], 0)

    def about(self, profile: str, scaling: str = "") -> Line:
        """What a line was measured on: its name, and the parts of it as columns."""
        of = {"screen": self.screen, "seed": self.seed, "week_effect": self.week_effect}
        name = ", ".join(filter(None, (self.name, profile, scaling)))
        return {"setting": name, **of, "profile": profile, "scaling": scaling}

    def matches(self, setting: Setting) -> dict[str, Votes]:
        """Votes under NSC and under NSCB."""
        square = self.distances[setting]
        return {measure.name: matched(self.treatments, square, measure) for measure in BENCHMARK.measures}

    def share(self, setting: Setting, protocol: str, measure: str, votes: Votes, **more: Any) -> Line:
        """The line of votes, with their interval and counts."""
        names = self.about(*setting) | {"protocol": protocol, "measure": measure}
        return rows.average(repeats=[votes], draws=self.draws("resamples"), **names, **rows.counts([votes]), **more)

    def random(self, setting: Setting, protocol: str, measure: str, values: np.ndarray, **more: Any) -> Line:
        """The line of something random."""
        return rows.random(protocol=protocol, measure=measure, values=values, **self.about(*setting), **more)


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page: accuracies, drops, baselines, weeks, the truth; and of the real cells where they are."""
    curves = [run for run in runs if run.record["method"] == enough.METHOD]
    held = [(run, sources(run)) for run in runs if run not in curves]
    found = [source for _, of in held for source in of]
    lines = [line for source in found for of in (scores, drop, permuted, week) for line in of(source)]
    lines += [*week_alone(found[0]), *count_alone(found[0])]
    lines += [line for source in found if source.screen == CELLPROFILER for line in count_alone(source)]
    lines += [line for source in found if source.screen == SAMPLE for line in paired(source)]
    simulated = [(run, first) for run, (first, *_) in held if first.screen == SIMULATED]
    truth = [run.table("truth").assign(seed=of.seed, week_effect=of.week_effect) for run, of in simulated]
    sizes = [run.table("size").assign(screen=first.name) for run, (first, *_) in held]
    tables = {"truth": pd.concat(truth, ignore_index=True), "sizes": pd.concat(sizes, ignore_index=True)}
    if curves:
        tables["enough"] = enough.measure(curves)
    for run, of in held:
        if of[0].screen == SAMPLE:
            lines += [*nuclei(run.table("nuclei")), told_apart(of[0], run.table("calibration"))]
            tables |= {name: run.table(name) for name in ("calibration", "areas", "nuclei")}
    return {"numbers": rows.numbers(lines, without=("sd", "trainings", "agree", "se", "draws")), **tables}


def sources(run: Run) -> list[Source]:
    """What a run holds: one simulated screen, or the sample and the published profiles."""
    config = run.record["config"]

    def read(screen: str, prefix: str, seed: float, week_effect: float, weeks: str = "") -> Source:
        stored = run.table(f"{prefix}distances")
        names = {(profile, scaling): f"{profile}, {scaling}" for profile, scaling in SETTINGS}
        squares = {of: squareform(stored[name].to_numpy(np.float64)) for of, name in names.items() if name in stored}
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


def scores(source: Source) -> Iterator[Line]:
    """Every setting under the benchmark's protocol."""
    for setting in source.distances:
        for name, votes in source.matches(setting).items():
            yield source.share(setting, BENCHMARK.name, name, votes)


def drop(source: Source) -> Iterator[Line]:
    """NSC and NSCB on the queries of NSCB, their difference, and NSC with as many candidates removed at random."""
    for setting, square in source.distances.items():
        if setting[0] not in (PERMUTED, CELLPROFILER):
            continue
        votes = source.matches(setting)
        nsc, nscb = (votes[name].where(votes["NSCB"].counted > 0) for name in ("NSC", "NSCB"))
        yield source.share(setting, "drop", "NSC", nsc)
        yield source.share(setting, "drop", "NSCB", nscb)
        (gap,) = rows.gaps([nsc], [nscb])
        yield source.share(setting, "drop", DROP, gap, left="NSC", right="NSCB")
        for name, alike in (("at random", False), ("alike at random", True)):
            n, seed = source.draws("thinnings")
            left = metrics.thinned(source.treatments, square, alike=alike, n=n, seed=seed)
            yield source.random(setting, "drop", name, left)


def permuted(source: Source) -> Iterator[Line]:
    """Accuracy with permuted labels, and what a random candidate then gives: the chance that two labels agree."""
    counts = source.treatments["Metadata_moa"].value_counts()
    agree = float((counts * (counts - 1)).sum() / (counts.sum() * (counts.sum() - 1)))
    n, seed = source.draws("permutations")
    for (profile, scaling), square in source.distances.items():
        if profile not in (PERMUTED, CELLPROFILER) or (source.screen != SAMPLE and scaling != BY_PLATE):
            continue
        for measure in BENCHMARK.measures:
            chance = metrics.chance(source.treatments, measure, distances=square, n=n, seed=seed)
            yield source.random(("labels permuted", scaling), "baseline", measure.name, chance, null=agree)


def week_alone(source: Source) -> Iterator[Line]:
    """What the week would reach without any picture."""
    n, seed = source.draws("permutations")
    for measure in BENCHMARK.measures:
        found = metrics.expected_under_ties(source.treatments, measure, by="Metadata_batch", n=n, seed=seed)
        yield source.random(("week alone", ""), "baseline", measure.name, found)


def count_alone(source: Source) -> Iterator[Line]:
    """What the number of cells would reach without any picture."""
    for measure in BENCHMARK.measures:
        found = metrics.one_feature(source.treatments, measure=measure).per_query
        votes = Votes.of(found["correct"], found["compound"], found["counted"])
        yield source.share(("cell count alone", ""), "baseline", measure.name, votes)


def paired(source: Source) -> Iterator[Line]:
    """Classical features against each other encoder, on the same queries, with intervals over compounds."""
    best = source.matches((PERMUTED, POOLED))
    for profile, scaling in source.distances:
        if profile == PERMUTED:
            continue
        other, setting = source.matches((profile, scaling)), (f"{PERMUTED} - {profile}", scaling)
        for name, votes in best.items():
            (gap,) = rows.gaps([votes], [other[name]])
            yield source.share(setting, "paired", name, gap, left=PERMUTED, right=profile)


def week(source: Source) -> Iterator[Line]:
    """How often the week of a taxol control cell is named, on plates held out; intervals over plates."""
    if source.weeks.empty:
        return
    for setting, cells in source.weeks.groupby(["encoder", "scaling"], sort=False):
        votes = Votes.of(cells["correct"], cells["plate"])
        yield source.share(setting, "week", "logistic", votes, null=cells["majority"].iloc[0])


def nuclei(table: pd.DataFrame) -> Iterator[Line]:
    """Precision and recall of the centres of nuclei, each field and all together, with Wilson's intervals."""
    together = table.groupby("method", as_index=False).sum(numeric_only=True).assign(plate="all fields", field="")
    for line in pd.concat([table, together]).itertuples():
        place = f"{line.plate} {line.field[:6]}".strip()  # plate, well and site
        for measure, hits, n in (
            ("precision", line.found_matched, line.found),
            ("recall", line.published_matched, line.published),
        ):
            low, high = binomtest(hits, n).proportion_ci(0.95, "wilson") if n else (0.0, 1.0)
            more = {
                "low": low,
                "high": high,
                "correct": hits,
                "scored": n,
                "screen": "fields",
                "method": line.method,
                "field": place,
            }
            value = hits / n if n else float("nan")
            yield rows.row(f"{line.method}, {place}", "nuclei", measure, value, **more)


def told_apart(sample: Source, calibration: pd.DataFrame) -> Line:
    """How often a random forest tells a simulated control cell from a real one; chance is 0.5."""
    value = calibration.set_index("measurement").loc["told apart", "simulated"]
    return rows.row(protocol="calibration", measure="forest", value=value, null=0.5, **sample.about("told apart"))
