"""The course of learning: what the codes of a training give at its checkpoints, from the first step to the last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from threadpoolctl import threadpool_limits

from cellbook import metrics, profiles
from cellbook.files import write_atomically
from cellbook.profiles.aggregate import WELL
from cellbook.runs import Run
from cellbook.screens.named import is_positive
from cellbook.study import measured
from cellbook.study.encoding import UNTRAINED
from cellbook.study.profile import SUMMARIES, condensed, quantised, treatments, whiten
from cellbook.study.rows import Draws, Votes, average, by_repeat, counts, pick, row, spread
from cellbook.study.show import percent
from cellbook.study.tables import wide
from cellbook.training.codes import course_steps

COLUMNS = ("step", "views")  # of numbers, beside those of every study
COURSE, OBJECTIVE, WEEK = "course", "course, objective", "course, week"
SAME_WEEK = "same week, positive control"  # panels of the week, which is not that of a protocol's treatments
MEANS = SUMMARIES[:2]  # mean, and mean, whitened
FILE = "course.npz"


class Point(NamedTuple):
    """A summary of one training at one of its checkpoints, in the order in which names are stored."""

    variant: str
    repeat: int
    step: int
    summary: str


# --- making the products --------------------------------------------------------------------------------------------


@threadpool_limits.wrap(1, user_api="blas")
def measure(
    wells: pd.DataFrame, variant: str, repeat: int, protocol: str
) -> tuple[dict[Point, np.ndarray], pd.DataFrame]:
    """Distances between treatments, and the week of positive controls, at every checkpoint of a training.

    Parameters
    ----------
    wells : mean codes of every well at every checkpoint: step, metadata, features; with the positive controls
    variant, repeat : of the training
    protocol : that makes treatments of wells

    Returns
    -------
    dict, DataFrame
        Condensed cosine distances between treatments, means and whitened means; and of every positive control well
        variant, repeat, step, summary, plate, correct, chance, see `week_of_wells`.
    """
    distances, weeks = {}, []
    for step, at in wells.groupby("step", sort=True):
        usable = profiles.drop_unusable(at.drop(columns="step").reset_index(drop=True))[0]
        for summary, table in zip(MEANS, (usable, whiten(usable)[0]), strict=True):
            point = Point(variant, repeat, int(str(step)), summary)
            distances[point] = condensed(treatments(table[~is_positive(table)], protocol), "cosine")
            weeks.append(week_of_wells(table[is_positive(table)]).assign(**point._asdict()))
    return distances, pd.concat(weeks, ignore_index=True)


def week_of_wells(wells: pd.DataFrame) -> pd.DataFrame:
    """Whether the nearest positive control well on another plate is of the same week, one row a well.

    Columns plate, correct, and chance: the share of the same week among the wells on other plates. The positive control
    is the same in all weeks, so that what is above chance is batch effect. Nearest is by cosine; wells without another
    plate in their week are left out, and without wells or with one week the table is empty.
    """
    week, plate = (wells[f"Metadata_{name}"].to_numpy() for name in ("batch", "plate"))
    other = plate[:, None] != plate[None, :]
    same = (week[:, None] == week[None, :]) & other
    asked = same.any(axis=1)
    if not asked.any() or len(set(week)) < 2:
        return pd.DataFrame({"plate": [], "correct": [], "chance": []})
    apart = np.where(other, metrics.distance_matrix(profiles.matrix(wells)), np.inf)
    nearest = apart == apart.min(axis=1, keepdims=True)  # ties share
    correct = (same & nearest).sum(axis=1) / nearest.sum(axis=1)
    chance = same.sum(axis=1) / np.maximum(other.sum(axis=1), 1)
    return pd.DataFrame({"plate": plate, "correct": correct, "chance": chance})[asked]


def save(found: dict[Point, np.ndarray], folder: Path) -> None:
    """Write the distances of all points with 16 bits each, and what each is of."""
    scale, kept = quantised(list(found.values()))
    names = {name: np.array(values) for name, values in zip(Point._fields, zip(*found, strict=True), strict=True)}

    def write(path: Path) -> None:
        np.savez_compressed(path, scale=scale, values=kept, **names)

    write_atomically(folder / FILE, write)


def parts(
    run: Run, training: tuple[str, int], protocol: str, *, since: int = 0, until: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, pd.DataFrame]]:
    """What a study keeps of the course of a training, if it has one: distances by "course|step|summary", and weeks.

    Steps are counted from the one after `since` others; codes do not change after `until`.
    """
    if not len(wells := measured.optional(run, "course")):
        return {}, {}
    wells = wells.assign(step=wells["step"].clip(upper=until) - since).drop_duplicates(["step", *WELL])
    wells = wells[wells["step"] >= 0]
    distances, weeks = measure(wells, *training, protocol)
    arrays = {f"{COURSE}|{point.step}|{point.summary}": values for point, values in distances.items()}
    return arrays, {"course_weeks": weeks.drop(columns=["variant", "repeat"])}


def collected(found: dict[str, np.ndarray], lengths: Mapping[tuple[str, int], int]) -> dict[Point, np.ndarray]:
    """Take the points of all courses out of the distances of a page, which are named "variant|repeat|...".

    A training whose course was not kept has two points, its ends: the untrained network of its seed, as it stands
    beside the trained ones, and what the training ended with.

    Parameters
    ----------
    found : all distances of a page; those of courses are taken out
    lengths : steps of every judged training, by variant and repeat
    """
    points = {}
    for name in [name for name in found if name.split("|")[2] == COURSE]:
        variant, repeat, _, step, summary = name.split("|")
        points[Point(variant, int(repeat), int(step), summary)] = found.pop(name)
    followed = {(point.variant, point.repeat) for point in points}
    for variant, repeat in lengths.keys() - followed:
        for summary in MEANS:
            start, end = (f"{of}|{repeat}|{summary}|cosine" for of in (UNTRAINED, variant))
            if start in found and end in found:
                points[Point(variant, repeat, 0, summary)] = found[start]
                points[Point(variant, repeat, lengths[variant, repeat], summary)] = found[end]
    return dict(sorted(points.items()))


# --- reading them ---------------------------------------------------------------------------------------------------


def stored(run: Run) -> Iterator[tuple[Point, np.ndarray]]:
    """Distances between treatments, (n, n), of every point; nothing of a run that kept no course."""
    if FILE in run.products():
        with np.load(run.path(FILE)) as kept:
            names = [kept[name].tolist() for name in Point._fields]
            for *point, line, scale in zip(*names, kept["values"], kept["scale"], strict=True):
                yield Point(*point), squareform(line * scale)


def lines(
    run: Run, protocol: metrics.Protocol, per_step: int, draws: Draws, history: pd.DataFrame | None = None
) -> Iterator[dict[str, Any]]:
    """Lines of accuracy, objective and week at every checkpoint; `per_step` cell views has a step.

    `history`: the losses, where they are not counted as in the run.
    """
    treatments = run.table("treatments")
    votes: dict[tuple[str, int, str, str], list[Votes]] = {}
    for point, square in stored(run):
        for one in protocol.measures:
            key = (point.variant, point.step, point.summary, one.name)
            votes.setdefault(key, []).append(measured.matched(treatments, square, one))
    for (variant, step, summary, name), repeats in votes.items():
        about = _about(variant, step, per_step) | {"summary": summary, "distance": "cosine"}
        yield average(f"{variant}, {summary}, step {step}", COURSE, name, repeats, draws, **counts(repeats), **about)
    yield from _weeks(measured.optional(run, "course_weeks"), per_step, draws)
    steps: dict[str, set[int]] = {}
    for variant, step, *_ in votes:
        steps.setdefault(variant, set()).add(step)
    yield from _objective(run.table("history") if history is None else history, steps, per_step)


def _about(variant: str, step: int, per_step: int) -> dict[str, Any]:
    return {"variant": variant, "step": step, "views": step * per_step}


def _weeks(table: pd.DataFrame, per_step: int, draws: Draws) -> Iterator[dict[str, Any]]:
    """Lines of the week of positive control wells, intervals over plates."""
    if table.empty:
        return
    for (variant, step, summary), repeats in by_repeat(table, "variant", "step", "summary").items():
        found = [Votes.of(part["correct"], part["plate"]) for part in repeats]
        about = _about(variant, int(step), per_step) | {"summary": summary, "null": repeats[0]["chance"].mean()}
        yield average(f"{variant}, {summary}, step {step}", WEEK, "nearest well", found, draws, **about)


def _objective(history: pd.DataFrame, steps: dict[str, set[int]], per_step: int) -> Iterator[dict[str, Any]]:
    """Lines of every term at every checkpoint but the first: the mean since the history's line before.

    A line of the history is told of one checkpoint, the last that is not behind it.
    """
    for variant, own in steps.items():
        wanted = own | set(course_steps(max(own)))  # of a course of which the ends were kept
        for term, part in history[history["variant"] == variant].groupby("term", sort=False):
            wide = part.pivot_table(index="step", columns="repeat", values="value")
            steps_ = sorted(wanted - {0})
            for step, following in zip(steps_, [*steps_[1:], np.inf], strict=True):
                if len(after := wide[(wide.index >= step) & (wide.index < following)]):
                    values = after.iloc[0].astype(np.float64).dropna()
                    about = _about(variant, step, per_step) | spread(values)
                    yield row(f"{variant}, step {step}", OBJECTIVE, str(term), values.mean(), **about)


# --- showing them ---------------------------------------------------------------------------------------------------


def panels(numbers: pd.DataFrame, measures: Iterable[str], terms: Mapping[str, str]) -> pd.DataFrame:
    """Every line of a course with the panel in which it is drawn, in the order of the panels.

    Parameters
    ----------
    numbers : of the page
    measures : accuracies that are shown; the week stands behind them, where there is one
    terms : panel of every term of the objective that is shown; terms of the same panel are added

    Returns
    -------
    DataFrame
        variant, panel, views, value, low, high, null, share (whether it is a proportion); without rows where no course
        was kept.
    """
    found = []
    for summary in MEANS:
        for measure in measures:
            part = pick(numbers, protocol=COURSE, measure=measure, summary=summary)
            found.append(part.assign(panel=f"{measure}, {summary}", share=True))
        part = pick(numbers, protocol=WEEK, summary=summary)
        found.append(part.assign(panel=f"{SAME_WEEK}, {summary}", share=True))
    objective = pick(numbers, protocol=OBJECTIVE, measure=list(terms))
    objective = objective.assign(panel=objective["measure"].map(dict(terms)))
    for panel in dict.fromkeys(terms.values()):
        part = objective[objective["panel"] == panel]
        found.append(part.groupby(["variant", "panel", "views"], sort=False)["value"].sum().reset_index())
    columns = ["variant", "panel", "views", "value", "low", "high", "null", "share"]
    table = pd.concat([part for part in found if len(part)] or [pd.DataFrame(columns=columns)], ignore_index=True)
    return table.reindex(columns=columns).assign(share=table["share"].eq(True))


def references(numbers: pd.DataFrame, protocol: str, variants: Iterable[str], measures: Iterable[str]) -> pd.DataFrame:
    """Accuracy of what is not trained, for the panels of `panels`: variant, panel, value."""
    where = {"protocol": protocol, "variant": list(variants), "measure": list(measures), "summary": list(MEANS)}
    lines = pick(numbers, **where)
    return lines.assign(panel=lines["measure"] + ", " + lines["summary"])[["variant", "panel", "value"]]


def course_table(shown: pd.DataFrame) -> pd.DataFrame:
    """`panels` as a table, one row a model and checkpoint at which it was measured."""
    shown = shown[shown["views"].isin(shown.loc[shown["share"], "views"])]
    order = {name: place for place, name in enumerate(dict.fromkeys(shown["variant"]))}
    lines = shown.sort_values(["variant", "views"], key=lambda of: of.map(order) if of.name == "variant" else of)
    lines["views"] = [f"{views:,.0f}" for views in lines["views"]]
    lines = lines.rename(columns={"variant": "model", "views": "cell views"})

    def text(line: pd.Series) -> str:
        return percent(line["value"], line["low"], line["high"]) if line["share"] else f"{line['value']:.4g}"

    return wide(lines, ["model", "cell views"], text, "panel")
