"""Lines of numbers from the products that every page of trainings leaves, and per training the tables behind them.

Products are read, never made: a number can be computed again wherever they are. Every training has a `variant`, the
name of its model, and a `repeat`. A line carries what its names are made of in the columns `PARTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform

from cellbook import metrics
from cellbook.runs import Run
from cellbook.study.rows import Draws, Votes, average, by_repeat, counts, difference, random, row, spread

# `channel` is that of a measure of images where it is of one alone, `kind` that of a known parameter.
PARTS = ("variant", "summary", "distance", "channel", "kind")
Setting = tuple[str, str, str]  # variant, summary, distance
Matched = dict[tuple[Setting, str], list[Votes]]  # by setting and measure, one set of votes a training
REMOVED = {"as many removed at random": False, "as many right and wrong": True}  # candidates, see `fall`
BY_CHANNEL = ("MSE", "SSIM", "sharpness")  # measures of images that are also stored channel by channel


def optional(run: Run, name: str) -> pd.DataFrame:
    """A product that not every screen gives, or a table without rows."""
    return run.table(name) if f"{name}.parquet" in run.products() else pd.DataFrame()


# --- accuracy -------------------------------------------------------------------------------------------------------


def stored_distances(run: Run) -> Iterator[tuple[Setting, np.ndarray]]:
    """Distances between treatments, (n, n), one training after another, with their variant, summary and distance."""
    with np.load(run.path("distances.npz")) as stored:
        for name, line, scale in zip(stored["names"], stored["values"], stored["scale"], strict=True):
            variant, _, summary, distance = str(name).split("|")  # as they are written, see `save_distances`
            yield (variant, summary, distance), squareform(line * scale)


def matches(run: Run, protocol: metrics.Protocol) -> Matched:
    """Votes under every setting and measure of a protocol, one set a training."""
    treatments, found = run.table("treatments"), Matched()
    for setting, square in stored_distances(run):
        for measure in protocol.measures:
            found.setdefault((setting, measure.name), []).append(matched(treatments, square, measure))
    return found


def matched(treatments: pd.DataFrame, distances: np.ndarray, measure: metrics.Measure) -> Votes:
    """Votes of all treatments under one measure, grouped by compound, as `metrics.match` counts them.

    Distances are (n, n), or (..., n, n) with votes that are right for each, (..., n).
    """
    votes = metrics.tally(distances, metrics.measure_design(treatments, measure), measure.k, measure.vote)
    return Votes.of(votes.correct, treatments["Metadata_compound"], votes.counted)


def accuracies(found: Matched, protocols: Mapping[str, str], draws: Draws) -> Iterator[dict[str, Any]]:
    """Lines of all accuracies; `protocols` names the protocol by the distance."""
    for ((variant, summary, distance), measure), repeats in found.items():
        parts = {"variant": variant, "summary": summary, "distance": distance}
        setting = f"{variant}, {summary}"
        yield average(setting, protocols[distance], measure, repeats, draws, **counts(repeats), **parts)


def per_training(found: Matched, protocols: Mapping[str, str]) -> pd.DataFrame:
    """Accuracy of every training: variant, summary, protocol, measure, repeat, accuracy."""
    rows = [
        (variant, summary, protocols[distance], measure, repeat, votes.share)
        for ((variant, summary, distance), measure), repeats in found.items()
        for repeat, votes in enumerate(repeats)
    ]
    return pd.DataFrame(rows, columns=["variant", "summary", "protocol", "measure", "repeat", "accuracy"])


def fall(
    setting: str,
    treatments: pd.DataFrame,
    squares: Sequence[np.ndarray],
    votes: Mapping[str, Sequence[Votes]],
    thinnings: Draws,
    draws: Draws,
    **more: Any,
) -> Iterator[dict[str, Any]]:
    """Lines of NSC and NSCB on the queries of NSCB, and of NSC with as many candidates removed as NSCB excludes.

    Parameters
    ----------
    setting, more : what the lines are called
    treatments : (n rows)
    squares : distances between them, (n, n), one a training
    votes : "NSC" and "NSCB", one set a training
    thinnings : random removals, see `metrics.thinned`
    draws : of compounds
    """
    for name, repeats in votes.items():
        kept = [one.where(asked.counted > 0) for one, asked in zip(repeats, votes["NSCB"], strict=True)]
        yield average(setting, "drop", name, kept, draws, **counts(kept), **more)
    for name, alike in REMOVED.items():
        left = [metrics.thinned(treatments, d, alike=alike, n=thinnings.n, seed=thinnings.seed) for d in squares]
        yield random(setting, "drop", name, np.mean(left, axis=0), **more)


def without_profile(
    treatments: pd.DataFrame,
    measures: Iterable[metrics.Measure],
    distances: np.ndarray,
    alone: dict[str, np.ndarray],
    permutations: Draws,
    draws: Draws,
) -> Iterator[dict[str, Any]]:
    """Lines of what needs no profile: the largest class, permuted labels, and one property alone.

    Parameters
    ----------
    treatments : (n rows)
    measures : of the benchmark
    distances : (n, n), between profiles whose labels are permuted
    alone : of each property its values, (n, m): the week, a position, the number of cells
    permutations : of labels, and of candidates that a property alone cannot tell apart
    draws : of compounds, where a property leaves no such ties and its accuracy is one like any other
    """
    yield row("largest class", "baseline", "NSC", metrics.majority(treatments))
    n, seed = permutations
    for measure in measures:
        chance = metrics.chance(treatments, measure, distances=distances, n=n, seed=seed)
        yield random("labels permuted", "baseline", measure.name, chance)
        for name, values in alone.items():
            apart = metrics.distance_matrix(values, "euclidean")
            expected = metrics.expected_under_ties(treatments, measure, distances=apart, n=n, seed=seed)
            if np.ptp(expected) > 0:
                yield random(name, "baseline", measure.name, expected)
            else:
                votes = [matched(treatments, apart, measure)]
                yield average(name, "baseline", measure.name, votes, draws, **counts(votes))


# --- images ---------------------------------------------------------------------------------------------------------


def channels(images: pd.DataFrame) -> dict[str, str]:
    """Channel of every column of the product `images` that is of one channel alone."""
    head = f"{BY_CHANNEL[0]}, "  # the product names its channels nowhere but in its columns
    names = [str(name).removeprefix(head) for name in images if str(name).startswith(head)]
    return {f"{measure}, {channel}": channel for measure, channel in product(BY_CHANNEL, names)}


def _cells(repeats: list[pd.DataFrame], measure: str) -> list[Votes]:
    """A measure of images of every cell, one set a training, grouped by compound."""
    return [Votes.of(part[measure], part["compound"]) for part in repeats]


def quality(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """Mean over cells of every measure of images, intervals over compounds; and the active units of codes."""
    images = run.table("images")
    single = channels(images)
    measures = [name for name in images if name not in ("compound", "variant", "repeat")]
    for (variant,), repeats in by_repeat(images, "variant").items():
        for measure in measures:
            votes = _cells(repeats, measure)
            if all(np.isfinite(one.correct).all() for one in votes):
                parts = {"variant": variant, "channel": single.get(measure)}
                yield average(variant, "images", measure, votes, draws, **parts)
    for variant, active in run.table("units").groupby("variant", sort=False)["active"]:
        yield row(str(variant), "images", "active units", active.mean(), **spread(active), variant=variant)


def compared(
    run: Run, pairs: Iterable[tuple[str, str]], measures: Iterable[str], draws: Draws
) -> Iterator[dict[str, Any]]:
    """Differences between variants in measures of images, cell by cell; pairs that were not trained are left out."""
    of = by_repeat(run.table("images"), "variant")
    there = [pair for pair in pairs if all((variant,) in of for variant in pair)]
    for (left, right), measure in product(there, measures):
        sides = (_cells(of[variant,], measure) for variant in (left, right))
        yield difference(f"{left} - {right}", "paired", measure, *sides, draws)


def image_means(run: Run) -> pd.DataFrame:
    """Mean over cells of every measure of images, and active units: one row a training."""
    images = run.table("images").drop(columns="compound")
    images = images.astype(dict.fromkeys(images.select_dtypes("float32"), np.float64))
    means = images.groupby(["variant", "repeat"], sort=False).mean().reset_index()
    return means.merge(run.table("units"), on=["variant", "repeat"])


# --- what is known of cells -----------------------------------------------------------------------------------------


def weeks(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """How often the week of a single control cell is named on plates held out, intervals over plates; once of noise."""
    table = optional(run, "weeks")
    for place, ((variant,), repeats) in enumerate(by_repeat(table, "variant").items() if len(table) else ()):
        votes = [Votes.of(part["correct"], part["plate"]) for part in repeats]
        null, noise = (float(repeats[0][name].iloc[0]) for name in ("majority", "noise"))
        yield average(variant, "week", "logistic", votes, draws, null=null, variant=variant)
        if place == 0:
            yield row("noise", "week", "logistic", noise, null=null)


def truth(run: Run) -> Iterator[dict[str, Any]]:
    """R2 with which a linear probe reads each known parameter from a code, means over trainings."""
    table = optional(run, "truth")
    for (variant, parameter, kind), part in (
        table.groupby(["variant", "parameter", "kind"], sort=False)["r2"] if len(table) else ()
    ):
        r2 = part.astype(np.float64)
        yield row(variant, "truth", parameter, r2.mean(), **spread(r2), variant=variant, kind=kind)
