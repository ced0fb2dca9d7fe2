"""The course of learning: accuracy and quality of images at checkpoints, and whether the two rise together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cellbook import metrics
from cellbook.methods.cytogan import Config
from cellbook.pages.goldsborough2017.config import DCGAN, GANS, LSGAN, PROTOCOL, WGAN
from cellbook.pages.goldsborough2017.features import PLAIN
from cellbook.pages.goldsborough2017.making import END
from cellbook.pages.goldsborough2017.quality import FID, WHOLE
from cellbook.runs import Run
from cellbook.study import course, measured
from cellbook.study.rows import Draws, Votes, average, by_repeat, counts, pick, row, spread

NSC = metrics.PROTOCOLS[PROTOCOL].measures[0]
QUALITY, TOGETHER, FALLBACK = "course, samples", "together", "fall from the best"
ALONG, AMONG = "along each training", "over trainings at their ends"
RHO = "rank correlation"  # of accuracy with how small the Fréchet distance is
OTHERS = (*GANS, "BiGAN", "BEGAN")  # whose points are among those that are correlated


def by_compound(votes: Votes) -> Votes:
    """One vote a compound, the share of its treatments that are right: their mean is the paper's average."""
    names, group = np.unique(votes.group.astype(str), return_inverse=True)
    counted, correct = (np.bincount(group, weights=values) for values in (votes.counted, votes.correct))
    return Votes(np.divide(correct, np.maximum(counted, 1)), (counted > 0).astype(float), names)


def votes(run: Run) -> dict[course.Point, Votes]:
    """Votes of compounds at every checkpoint."""
    treatments = run.table("treatments")
    return {point: by_compound(measured.matched(treatments, x, NSC)) for point, x in course.stored(run)}


def on_the_way(run: Run) -> pd.DataFrame:
    """Measures of images at checkpoints: variant, repeat, step, measure, block, value."""
    table = measured.optional(run, "quality")
    return table[table["step"] != END] if len(table) else table


def lines(run: Run, configs: Mapping[str, Config], draws: Draws) -> Iterator[dict[str, Any]]:
    """Lines of accuracy and of the quality of images at every checkpoint; and how far images fell from their best."""

    def about(variant: str, step: int, **more: Any) -> dict[str, Any]:
        settings = configs[variant].settings
        return {"variant": variant, "step": step, "views": step * settings.batch * settings.critic_steps, **more}

    by_point: dict[tuple[str, int, str], list[Votes]] = {}
    for point, found in votes(run).items():
        by_point.setdefault((point.variant, point.step, point.summary), []).append(found)
    for (variant, step, summary), repeats in by_point.items():
        more = about(variant, step, summary=summary, distance="cosine", **counts(repeats))
        yield average(f"{variant}, {summary}, step {step}", course.COURSE, NSC.name, repeats, draws, **more)
    table = on_the_way(run)
    parts = by_repeat(table, "variant", "step", "measure") if len(table) else {}
    for (variant, step, measure), repeats in parts.items():
        if (repeats[0]["block"] == WHOLE).all():
            values = [float(part["value"].iloc[0]) for part in repeats]
            more = about(variant, step, **spread(values))
            yield row(f"{variant}, step {step}", QUALITY, measure, np.mean(values), **more)
        else:
            of = [Votes.of(part["value"], part["block"]) for part in repeats]
            yield average(f"{variant}, step {step}", QUALITY, measure, of, draws, **about(variant, step))
    falls = {
        variant: np.array([np.log2(part["value"].iloc[-1] / part["value"].min()) for part in repeats])
        for (variant,), repeats in (by_repeat(pick(table, measure=FID), "variant") if len(table) else {}).items()
    }
    for variant, each in falls.items():
        yield row(variant, QUALITY, FALLBACK, each.mean(), variant=variant, **spread(each))
    for other in (DCGAN, WGAN):
        if {LSGAN, other} <= set(falls):
            gap = falls[LSGAN] - falls[other]
            yield row(f"{LSGAN} - {other}", "paired", FALLBACK, gap.mean(), **spread(gap, signs=True))


def ends(run: Run) -> dict[str, tuple[list[Votes], list[Votes]]]:
    """Votes before the first step and after the last, one set a training each, by variant."""
    of: dict[str, dict[int, dict[int, Votes]]] = {}
    for point, found in votes(run).items():
        if point.summary == PLAIN:
            of.setdefault(point.variant, {}).setdefault(point.repeat, {})[point.step] = found
    return {
        variant: ([each[min(each)] for each in repeats.values()], [each[max(each)] for each in repeats.values()])
        for variant, repeats in of.items()
    }


def quality_ends(run: Run) -> dict[tuple[str, str], tuple[list[Votes], list[Votes]]]:
    """The same of measures of images, by variant and measure."""
    table = on_the_way(run)
    found = {}
    for key, parts in by_repeat(table[table["block"] != WHOLE], "variant", "measure").items() if len(table) else ():
        found[key] = tuple(
            [Votes.of(at["value"], at["block"]) for part in parts for at in [part[part["step"] == end(part["step"])]]]
            for end in (min, max)
        )
    return found


# --- accuracy and images --------------------------------------------------------------------------------------------


def pairs(run: Run) -> pd.DataFrame:
    """Both at every checkpoint of the GANs: variant, repeat, step, accuracy, closeness (- log2 Fréchet distance)."""
    table = on_the_way(run)
    if not len(table):
        return pd.DataFrame()
    images = pick(table, measure=FID, variant=list(OTHERS)).assign(closeness=lambda of: -np.log2(of["value"]))
    shares = [(*point[:3], found.share) for point, found in votes(run).items() if point.summary == PLAIN]
    accuracy = pd.DataFrame(shares, columns=["variant", "repeat", "step", "accuracy"])
    return images[["variant", "repeat", "step", "closeness"]].merge(accuracy)


def rho(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one side is constant."""
    a, b = (rankdata(values) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else float("nan")


def together(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """Rank correlations of accuracy and quality of images, intervals over trainings.

    Along each training: the mean over trainings of what its checkpoints give, the untrained network among them. Over
    trainings: what their ends give, all models together; trainings are drawn anew.
    """
    table = pairs(run)
    if not len(table):
        return
    least = pick(table, variant=list(GANS)).groupby("variant")["repeat"].nunique().min()  # trainings of a judged model
    trainings = [part for _, part in table.groupby(["variant", "repeat"], sort=False)]
    each = np.array([rho(part["closeness"].to_numpy(), part["accuracy"].to_numpy()) for part in trainings])
    votes_ = Votes.of(each[np.isfinite(each)], np.flatnonzero(np.isfinite(each)))
    if len(votes_.group):
        yield average(ALONG, TOGETHER, RHO, [votes_], draws) | {"trainings": least}
    last = pd.concat([part.loc[[part["step"].idxmax()]] for part in trainings])
    x, y = last["closeness"].to_numpy(), last["accuracy"].to_numpy()
    rng = np.random.default_rng(draws.seed)
    drawn = [rho(x[i], y[i]) for i in rng.integers(len(x), size=(draws.n, len(x)))]
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    yield row(AMONG, TOGETHER, RHO, rho(x, y), low=low, high=high, trainings=least)
