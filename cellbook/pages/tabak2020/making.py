"""The run of the page: all alignments, each a run of its own in the store, and what the page keeps of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook.methods import wdn
from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.config import VERSION, Config
from cellbook.pages.tabak2020.sources import Source, load, source_digest
from cellbook.profiles import controls_mask, features
from cellbook.profiles.aggregate import TREATMENT
from cellbook.runs import Run, obtain_page, processes, save_table, to_float32

LARGE = 1_000  # critic steps; below, starting another process takes longer than an alignment
Tables = dict[str, pd.DataFrame]


def run(
    config: Config, store: str | Path, *, device: str = "auto", force: bool = False, workers: int | None = None
) -> Run:
    """The run of this configuration, computed only if it is not in the store; so is each of its alignments.

    Parameters
    ----------
    config : Config
    store : folder of the runs
    device : where networks are trained; everything else is done on the CPU
    force : make all anew, alignments as well
    workers : processes that align and measure; as many as there are cores, if alignments are long and on a CPU
    """

    def make(folder: Path, on: str) -> None:
        make_products(config, store, folder, on, force, workers)

    return obtain_page(store, "tabak2020", VERSION, config, source_digest(config), make, device=device, force=force)


def make_products(
    config: Config, store: str | Path, folder: Path, device: str, force: bool, workers: int | None
) -> None:
    """Load the profiles, do every task, and write what they found."""
    sources, note = load(config, store, device)
    work = Work({source.name: source for source in sources}, config, str(store), device, force)
    found = collect(do_all(tasks(work), work, workers))
    found["sources"] = describe(sources, config).assign(left_out=note)
    found["layout"] = layout(sources[0])
    for name, table in found.items():
        save_table(to_float32(table), folder / f"{name}.parquet")


def describe(sources: list[Source], config: Config) -> pd.DataFrame:
    """What every source is made of, one row each."""
    rows = []
    for source in sources:
        table, control = source.profiles, controls_mask(source.profiles)
        treated = table[~control][TREATMENT]
        rows.append(
            {
                "source": source.name,
                "unit": source.unit,
                "family": source.family,
                "main": source.main,
                "week_effect": source.week_effect,
                "rows": len(table),
                "controls": int(control.sum()),
                "fewest_controls_of_a_week": int(table[control].groupby("Metadata_batch").size().min()),
                "treatments": len(treated.drop_duplicates()),
                "weeks": table["Metadata_batch"].nunique(),
                "plates": table["Metadata_plate"].nunique(),
                "features": len(features(table)),
                "positives": len(source.positives),
                "map_steps": config.alignment(source.unit, 0).iterations,
            }
        )
    return pd.DataFrame(rows).astype({"week_effect": float})


def layout(source: Source) -> pd.DataFrame:
    """Which treatment lies in which week."""
    names = ["batch", "compound", "concentration", "moa"]
    table = source.profiles[[f"Metadata_{name}" for name in names]].drop_duplicates()
    return table.rename(columns=lambda name: name.removeprefix("Metadata_")).reset_index(drop=True)


# --- tasks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What every task needs."""

    sources: dict[str, Source]
    config: Config
    store: str
    device: str
    force: bool


@dataclass(frozen=True)
class Task:
    """One piece of work that can be done in a process of its own."""

    kind: str
    source: str = ""
    argument: Any = None


def tasks(work: Work) -> list[Task]:
    """Everything to be done, the longest first."""
    config, sources = work.config, list(work.sources.values())
    main = [source for source in sources if source.main]
    todo = [Task("alignment", source.name, repeat) for source in main for repeat in range(config.repeats)]
    todo += [Task("alignment", source.name, 0) for source in sources if not source.main and source.clean]
    todo += [Task("corrections", source.name) for source in main]
    todo += [Task("variant", main[-1].name, variant) for variant in config.variants]
    todo += [Task("toy"), Task("bugs", main[0].name)]
    for source in sources:
        if len(source.positives):
            repeats = config.carry_repeats if source.main else 1
            todo += [Task("carry over", source.name, repeat) for repeat in range(repeats)]
    return todo


def do_all(todo: list[Task], work: Work, workers: int | None) -> Iterator[Tables]:
    """Do all tasks, in several processes where that is faster; results in the order of the tasks."""
    if workers is None:
        config = work.config
        large = max(config.well_pretraining, config.cell_pretraining) >= LARGE and work.device == "cpu"
        workers = min(len(todo), os.cpu_count() or 1) if large else 1
    if workers == 1:
        yield from (do(task, work) for task in todo)
        return
    with processes(workers, receive, work) as pool:
        yield from pool.map(do_here, todo)


_received: list[Work] = []


def receive(work: Work) -> None:
    """Keep in a new process what its tasks need."""
    _received[:] = [work]


def do_here(task: Task) -> Tables:
    """`do` in a process that received its work."""
    with threadpool_limits(1, user_api="blas"):
        return do(task, _received[0])


def do(task: Task, work: Work) -> Tables:
    """Do one task: tables by name, with what they are of."""
    found = KINDS[task.kind](task, work)
    labels = {"source": task.source} if task.source else {}
    return {name: label(table, **labels) for name, table in found.items() if len(table)}


def label(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Put columns in front that are not there yet."""
    new = {name: value for name, value in values.items() if name not in table}
    return pd.concat([pd.DataFrame(new, index=table.index), table], axis=1)


def collect(found: Iterator[Tables]) -> Tables:
    """Tables of all tasks under one another, by name."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for tables in found:
        for name, table in tables.items():
            parts.setdefault(name, []).append(table)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def corrections(task: Task, work: Work) -> Tables:
    """Measure every correction but WDN, none among them."""
    source, config = work.sources[task.source], work.config
    parts = []
    for method, table in c.corrections(source, config):
        still = wdn.unmoved(table)
        found = c.outcomes(still, table) | c.resampled(still, table, config)
        controls = c.some_controls(table[controls_mask(table)], config)
        found["leak"] = c.leak(controls, source, config, resample=True)
        if method in (c.UNCORRECTED, c.CORAL):
            found["pca"] = c.principal(controls, config)
        parts.append({name: label(t.assign(method=method), repeat=0) for name, t in found.items() if len(t)})
    if source.clean:
        clean = work.sources[source.clean]
        for method, table in [(c.UNCORRECTED, source.table), *aligned_with_positives(source, config)]:
            parts.append({"truth": restored(table, clean).assign(method=method, repeat=0)})
    if source.unit == "wells":
        parts.append({"converged": c.converged(source, config)})
    if len(source.positives):
        parts.append({"leak": positives(source, source.positives, config).assign(method=c.UNCORRECTED, repeat=0)})
        for method, step in c.aligning(config).items():
            mapped = step.fit(source.profiles).transform(source.positives)
            parts.append({"leak": positives(source, mapped, config).assign(method=method, repeat=0)})
    return collect(iter([{name: t for name, t in part.items() if len(t)} for part in parts]))


def aligned_with_positives(source: Source, config: Config) -> Iterator[tuple[str, pd.DataFrame]]:
    """All rows of a source under the corrections that map a week by its controls."""
    for method, step in c.aligning(config).items():
        yield method, step.fit(source.profiles).transform(source.table)


def alignment(task: Task, work: Work) -> Tables:
    """Align, and measure the alignment at all its checkpoints; of further strengths only what is known of the truth."""
    source, config, repeat = work.sources[task.source], work.config, int(task.argument)
    table, seed = source.profiles, config.seeds[repeat]
    done = wdn.run(table, config.alignment(source.unit, seed), work.store, device=work.device, force=work.force)
    aligned = wdn.load(done)
    found = c.outcomes(aligned, table)
    step = c.best_step(found["choices"])
    truth = [
        restored(aligned.transform(source.table, at), work.sources[source.clean]).assign(method=method)
        for method, at in ((c.HINDSIGHT["silhouette"], step), (c.LAST, int(aligned.steps[-1])))
        if source.clean
    ]
    tables = {"truth": pd.concat(truth, ignore_index=True) if truth else pd.DataFrame()}
    if not source.main:
        others = [(c.UNCORRECTED, source.table), *aligned_with_positives(source, config)]
        more = [restored(t, work.sources[source.clean]).assign(method=m) for m, t in others if source.clean]
        tables["truth"] = pd.concat([tables["truth"], *more], ignore_index=True)
        return {name: label(t, repeat=repeat) for name, t in tables.items()}
    tables |= found | c.resampled(aligned, table, config)
    tables["steps"] = done.table("checkpoints")
    tables["trainings"] = pd.DataFrame([{"key": done.key, "seconds": done.record["seconds"], "seed": seed}])
    controls = c.some_controls(table[controls_mask(table)], config)
    leaks = []
    for at in c.leak_steps(aligned, found["choices"], config):
        mapped = aligned.transform(controls, at)
        leaks.append(c.leak(mapped, source, config, resample=at == step).assign(step=at))
        if at in (0, step, int(aligned.steps[-1])) and len(source.positives):
            leaks.append(positives(source, aligned.transform(source.positives, at), config).assign(step=at))
    if repeat == 0:
        tables["pca"] = c.principal(aligned.transform(controls, step), config).assign(method=c.HINDSIGHT["silhouette"])
    if repeat < config.unseen_repeats:
        leaks.append(unseen(source, config, seed, work, step))
    leaks = [label(part, method="WDN") for part in leaks if len(part)]
    tables["leak"] = pd.concat(leaks, ignore_index=True) if leaks else pd.DataFrame()
    return {name: label(t, repeat=repeat) for name, t in tables.items()}


def restored(table: pd.DataFrame, clean: Source) -> pd.DataFrame:
    """How much of the distances of the screen without week effect a corrected screen has."""
    from cellbook.pages.tabak2020 import truth

    return truth.restored(table, clean.table)


def positives(source: Source, rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Name the week of positive controls, which no correction has seen; logistic regression in folds of plates."""
    if rows.empty:
        return pd.DataFrame()
    rows = c.some_controls(rows, config)
    found = pd.DataFrame(list(c.week_named(rows, c.PLATES, config, models=("logistic",))))
    return found.assign(how="positive control")


def unseen(source: Source, config: Config, seed: int, work: Work, step: int) -> pd.DataFrame:
    """Name the week of controls on plates that no correction has seen; nothing where weeks have too few controls."""
    control = source.profiles[controls_mask(source.profiles)].reset_index(drop=True)
    plates, weeks = control.groupby("Metadata_batch")["Metadata_plate"].nunique(), control["Metadata_batch"].nunique()
    if plates.min() < 2:
        return pd.DataFrame()
    out = wdn.hold_out_plates(control, seed=config.seed)
    seen, held = control[~out].reset_index(drop=True), c.some_controls(control[out], config)
    counts = seen.groupby("Metadata_batch").size()
    if len(counts) < weeks or counts.min() < 2 or held["Metadata_batch"].nunique() < weeks:
        return pd.DataFrame()
    treated = source.profiles[~controls_mask(source.profiles)]  # not looked at by any fit; scored by the run
    fitted_on = pd.concat([seen, treated], ignore_index=True)
    budget = config.alignment(source.unit, seed)
    done = wdn.load(wdn.run(fitted_on, budget, work.store, device=work.device, force=work.force))
    tables = [(c.UNCORRECTED, float("nan"), held)]
    tables += [(name, float("nan"), s.fit(seen).transform(held)) for name, s in c.aligning(config).items()]
    tables += [("WDN", float(at), done.transform(held, at)) for at in sorted({step, int(done.steps[-1])})]
    parts = [
        pd.DataFrame(list(c.week_named(table, c.UNSEEN, config))).assign(method=method, step=at)
        for method, at, table in tables
    ]
    return pd.concat(parts, ignore_index=True)


def variant(task: Task, work: Work) -> Tables:
    """Align in another way than the paper, at a short budget, and score the steps that the rules choose."""
    source, config, name = work.sources[task.source], work.config, str(task.argument)
    table = source.profiles
    done = wdn.run(table, config.short(config.seed, name), work.store, device=work.device, force=work.force)
    scores, _ = wdn.stopping(wdn.load(done), table)
    scores = scores[scores["vote"] == "pooled"].rename(columns={"rule": "at"})[["at", "measure", "k", "value"]]
    checkpoints = done.table("checkpoints")
    last = checkpoints[(checkpoints["step"] == checkpoints["step"].max()) & (checkpoints["vote"] == "")]
    best = checkpoints[checkpoints["measure"] == "silhouette"]["value"].max()
    more = pd.DataFrame([{"at": "best", "measure": "silhouette", "k": 0, "value": best}])
    found = pd.concat([scores, last.assign(at="last")[scores.columns], more], ignore_index=True)
    return {"variants": found.assign(variant=name, seconds=done.record["seconds"])}


def toy(task: Task, work: Work) -> Tables:
    """The faults of the published code on three shifted domains."""
    from cellbook.pages.tabak2020 import bugs

    return {"toy": bugs.toy(work.config.short(work.config.seed), work.config.seed, work.device)}


def bug_study(task: Task, work: Work) -> Tables:
    """The faults of the published code on profiles."""
    from cellbook.pages.tabak2020 import bugs

    profiles, budget = work.sources[task.source].profiles, work.config.short(work.config.seed)
    return {"bugs": bugs.study(profiles, budget, device=work.device)}


def carry_over(task: Task, work: Work) -> Tables:
    """What maps fitted on DMSO do to a treatment that they have not seen."""
    from cellbook.pages.tabak2020 import truth

    budget = work.config.short(work.config.seed + int(task.argument))
    table = work.sources[task.source].table
    return {"carry": truth.carry_over(table, budget, work.store, work.device).assign(repeat=task.argument)}


KINDS: dict[str, Callable[[Task, Work], Tables]] = {
    "alignment": alignment,
    "corrections": corrections,
    "variant": variant,
    "toy": toy,
    "bugs": bug_study,
    "carry over": carry_over,
}
