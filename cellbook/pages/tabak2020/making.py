"""The run of the page: all alignments, each a run of its own in the store, and what the page keeps of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cellbook.files import digest
from cellbook.methods import wdn
from cellbook.pages.tabak2020 import bugs, carry, truth
from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.config import VERSION, Config
from cellbook.pages.tabak2020.sources import Source, load, source_digest
from cellbook.profiles import controls_mask, features
from cellbook.profiles.aggregate import TREATMENT
from cellbook.runs import Run, obtain, obtain_page, save_table, table_fingerprint, to_float32
from cellbook.study.encoding import UNTRAINED
from cellbook.study.processes import side_by_side
from cellbook.study.trainings import Place, Tables, told, under_one_another

# Fields of the configuration on which what is measured of an alignment may depend.
MEASURED = ("seed", "eta", "leak_checkpoints", "models", "leak_rows", "leak_bootstraps", "unseen_repeats", "pca_rows")
MEASURED += ("factors", "factor_tolerance")
LARGE = 1_000  # critic steps; below, starting another process takes longer than an alignment


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
    workers : processes that align and measure; as many as cores and memory bear, if alignments are long and on a CPU
    """

    def make(folder: Path, on: str) -> dict[str, float]:
        return make_products(config, Place(store, on, force), folder, workers)

    return obtain_page(store, "tabak2020", VERSION, config, source_digest(config), make, device=device, force=force)


def make_products(config: Config, place: Place, folder: Path, workers: int | None) -> dict[str, float]:
    """Load the profiles, do every task, and write what they found; the seconds of all tasks, whenever done."""
    worth = max(config.well_pretraining, config.cell_pretraining) >= LARGE and place.device == "cpu"
    sources, note = load(config, place, workers, worth)
    work = Work({source.name: source for source in sources}, config, place)
    todo = [(task, work) for task in tasks(work)]
    done = side_by_side(do, todo, workers=workers, worth=worth)
    found = under_one_another({Path(name).stem: run.table(Path(name).stem) for name in run.products()} for run in done)
    found["sources"] = describe(sources, config).assign(left_out=note)
    found["layout"] = layout(sources[0])
    for name, table in found.items():
        save_table(to_float32(table), folder / f"{name}.parquet")
    return {"seconds": round(sum(run.record["seconds"] for run in done), 1)}


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
                "screen": source.screen,
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
                "change": source.change,
                "views": source.views,
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
    place: Place

    def align(self, table: pd.DataFrame, budget: wdn.Config) -> Run:
        """An alignment, from the store if it is there."""
        return wdn.run(table, budget, self.place.store, device=self.place.device, force=self.place.force)


class Task(NamedTuple):
    """One piece of work that can be done in a process of its own: a function of a source, or of none, and a detail."""

    make: Callable[[Work, Any, Any], Tables]
    source: str = ""
    detail: Any = None


def tasks(work: Work) -> list[Task]:
    """Everything to be done, the longest first."""
    config, sources = work.config, list(work.sources.values())
    main = [source for source in sources if source.main]
    todo = [Task(alignment, source.name, repeat) for source in main for repeat in range(config.repeats)]
    todo += [Task(strength, source.name) for source in sources if not source.main and source.clean]
    todo += [Task(corrections, source.name) for source in main]
    todo += [Task(variant, main[-1].name, name) for name in config.variants]
    todo += [Task(toy), Task(bug_study, main[0].name)]
    for source in sources:
        if len(source.positives) and source.week_effect != 0:  # there is nothing to bring together
            todo += [Task(carry_over, source.name, k) for k in range(config.carry_repeats if source.main else 1)]
    return todo


def do(task: Task, work: Work) -> Run:
    """Do one task: tables with what they are of, a run of its own, so that a page that was stopped goes on."""

    def make(folder: Path) -> None:
        found = task.make(work, work.sources.get(task.source), task.detail)
        labels = {"source": task.source} if task.source else {}
        for name, table in found.items():
            if len(table):
                save_table(label(table, **labels), folder / f"{name}.parquet")

    sources = work.sources.values() if task.source else []
    seen = [s for s in sources if s.name in (task.source, work.sources[task.source].clean)]
    data = digest([task.source, *(table_fingerprint(t) for s in seen for t in (s.table, s.untrained) if t is not None)])
    place, about = work.place, decisive(task, work)
    return obtain(place.store, "part-tabak2020", VERSION, about, data, make, device=place.device, force=place.force)


def decisive(task: Task, work: Work) -> dict[str, Any]:
    """What decides, beside its profiles, what a task finds: the budget that it uses, and how is measured."""
    about = {"task": task.make.__name__, "detail": task.detail}
    if task.make in (variant, toy, bug_study, carry_over):
        budget = "short_"
    else:
        unit = work.sources[task.source].unit
        budget = f"{unit[:-1]}_"
        about["resamples"] = work.config.resampled(unit)
    fields = asdict(work.config).items()
    return about | {name: value for name, value in fields if name in MEASURED or name.startswith(budget)}


def label(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Put columns in front that are not there yet."""
    new = {name: value for name, value in values.items() if name not in table}
    return pd.concat([pd.DataFrame(new, index=table.index), table], axis=1)


def corrections(work: Work, source: Source, _: None) -> Tables:
    """Measure every correction but WDN, none among them."""
    config, parts = work.config, []
    for method, table in c.corrections(source, config):
        still = wdn.unmoved(table)
        found = c.outcomes(still, table) | c.resampled(still, table, config.resampled(source.unit), config.seed)
        controls = c.some_controls(table[controls_mask(table)], config)
        found["leak"] = c.leak(controls, source, config, resample=True)
        if method in (c.UNCORRECTED, c.CORAL):
            found["pca"] = c.principal(controls, config)
        parts.append({name: label(t.assign(method=method), repeat=0) for name, t in found.items() if len(t)})
    parts += [{"truth": table.assign(repeat=0)} for table in restored(work, source, without_steps(source, config))]
    if source.untrained is not None:
        before = c.outcomes(wdn.unmoved(source.untrained), source.untrained)["queries"]
        parts.append({"queries": label(before.assign(method=UNTRAINED), repeat=0)})
    if source.unit == "wells":
        parts.append({"converged": c.converged(source, config)})
    if len(source.positives):
        parts.append({"leak": positives(source, source.positives, config).assign(method=c.UNCORRECTED, repeat=0)})
        for method, step in c.aligning(config).items():
            mapped = step.fit(source.profiles).transform(source.positives)
            parts.append({"leak": positives(source, mapped, config).assign(method=method, repeat=0)})
    return under_one_another(parts)


def without_steps(source: Source, config: Config) -> Iterator[tuple[str, pd.DataFrame]]:
    """All rows of a source as they are, and under the corrections that map a week by its controls."""
    yield c.UNCORRECTED, source.table
    for method, step in c.aligning(config).items():
        yield method, step.fit(source.profiles).transform(source.table)


def with_steps(source: Source, aligned: wdn.Alignment, best: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """All rows of a source under an alignment, at the step of the best silhouette and at the last."""
    for method, at in ((c.HINDSIGHT["silhouette"], best), (c.LAST, int(aligned.steps[-1]))):
        yield method, aligned.transform(source.table, at)


def restored(work: Work, source: Source, tables: Iterable[tuple[str, pd.DataFrame]]) -> Iterator[pd.DataFrame]:
    """How much of the distances of the screen without week effect each corrected screen has, if there is one."""
    if source.clean:
        for method, table in tables:
            yield truth.restored(table, work.sources[source.clean].table).assign(method=method)


def strength(work: Work, source: Source, _: None) -> Tables:
    """Align a screen of another strength of the week effect: only what is known of the truth is measured."""
    config, table = work.config, source.profiles
    aligned = wdn.load(work.align(table, config.alignment(source.unit, config.seed)))
    best = c.best_step(c.outcomes(aligned, table)["choices"])
    corrected = [*with_steps(source, aligned, best), *without_steps(source, config)]
    return {"truth": label(pd.concat(restored(work, source, corrected), ignore_index=True), repeat=0)}


def alignment(work: Work, source: Source, repeat: int) -> Tables:
    """Align, and measure the alignment at all its checkpoints."""
    config, table, seed = work.config, source.profiles, work.config.seeds[repeat]
    done = work.align(table, config.alignment(source.unit, seed))
    aligned = wdn.load(done)
    found = c.outcomes(aligned, table)
    step = c.best_step(found["choices"])
    tables = found | c.resampled(aligned, table, config.resampled(source.unit), config.seed)
    tables |= under_one_another({"truth": t} for t in restored(work, source, with_steps(source, aligned, step)))
    tables["steps"] = done.table("checkpoints")
    tables["trainings"] = pd.DataFrame([told(done) | {"seed": seed}])
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
        leaks.append(unseen(work, source, seed, step))
    tables |= under_one_another({"leak": label(part, method="WDN")} for part in leaks)
    return {name: label(t, repeat=repeat) for name, t in tables.items()}


def positives(source: Source, rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Name the week of positive controls, which no correction has seen; logistic regression in folds of plates."""
    if rows.empty:
        return pd.DataFrame()
    rows = c.some_controls(rows, config)
    found = pd.DataFrame(list(c.week_named(rows, c.PLATES, config, models=("logistic",))))
    return found.assign(how="positive control")


def unseen(work: Work, source: Source, seed: int, step: int) -> pd.DataFrame:
    """Name the week of controls on plates that no correction has seen; nothing where weeks have too few controls."""
    config = work.config
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
    done = wdn.load(work.align(fitted_on, config.alignment(source.unit, seed)))
    tables = [(c.UNCORRECTED, float("nan"), held)]
    tables += [(name, float("nan"), s.fit(seen).transform(held)) for name, s in c.aligning(config).items()]
    tables += [("WDN", float(at), done.transform(held, at)) for at in sorted({step, int(done.steps[-1])})]
    found = [pd.DataFrame(list(c.week_named(t, c.UNSEEN, config))).assign(method=m, step=at) for m, at, t in tables]
    return pd.concat(found, ignore_index=True)


def variant(work: Work, source: Source, name: str) -> Tables:
    """Align in another way than the paper, at a short budget, and score the steps that the rules choose."""
    table = source.profiles
    done = work.align(table, work.config.short(work.config.seed, name))
    scores, _ = wdn.stopping(wdn.load(done), table)
    scores = scores[scores["vote"] == "pooled"].rename(columns={"rule": "at"})[["at", "measure", "k", "value"]]
    checkpoints = done.table("checkpoints")
    last = checkpoints[(checkpoints["step"] == checkpoints["step"].max()) & (checkpoints["vote"] == "")]
    best = checkpoints[checkpoints["measure"] == "silhouette"]["value"].max()
    more = pd.DataFrame([{"at": "best", "measure": "silhouette", "k": 0, "value": best}])
    found = pd.concat([scores, last.assign(at="last")[scores.columns], more], ignore_index=True)
    return {"variants": found.assign(variant=name, seconds=done.record["seconds"])}


def toy(work: Work, *_: None) -> Tables:
    """The faults of the published code on three shifted domains."""
    return {"toy": bugs.toy(work.config.short(work.config.seed), work.config.seed, work.place.device)}


def bug_study(work: Work, source: Source, _: None) -> Tables:
    """The faults of the published code on profiles."""
    budget = work.config.short(work.config.seed)
    return {"bugs": bugs.study(source.profiles, budget, device=work.place.device)}


def carry_over(work: Work, source: Source, repeat: int) -> Tables:
    """What maps fitted on DMSO do to a treatment that they have not seen."""
    budget = work.config.short(work.config.seed + repeat)
    found = carry.carry_over(source.table, budget, work.place.store, work.place.device)
    return {"carry": found.assign(repeat=repeat)}
