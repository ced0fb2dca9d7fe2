"""What the page measures, all of it from the stored products of its run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook import metrics
from cellbook.configure import restore
from cellbook.pages.lafarge2019.config import (
    LABELS,
    PAPER_MODELS,
    PAPERS_VIEWS,
    PROTOCOL,
    SWEPT,
    Config,
    judged,
    objective,
    trainings,
    views,
    week_name,
)
from cellbook.runs import Run
from cellbook.study import course, measured, premises
from cellbook.study.encoding import CLASSICAL, IMAGENET, UNTRAINED
from cellbook.study.profile import SUMMARIES
from cellbook.study.reconstructions import MISFIT
from cellbook.study.rows import Draws, Votes, average, by_repeat, difference, mean, numbers, pick

OURS = metrics.PROTOCOLS[PROTOCOL]
EUCLIDEAN = f"{PROTOCOL}, Euclidean"
PROTOCOLS = {"cosine": PROTOCOL, "euclidean": EUCLIDEAN}  # by distance
PAIRS = (("VAE+", "VAE"), ("VAE+", "AE"), ("VAE+", "VAE+ at once"))
IMAGES = ("sharpness", "misfit of sharpness", "MSE", "SSIM", "feature distance")
FALLING = "features that lower the similarity"
WALKS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "walks that only rise": lambda walks: walks["falls"] == 0,
    FALLING: lambda walks: walks["falls"],
    "largest fall": lambda walks: walks["largest_fall"],
    "similarity at the start": lambda walks: walks["start"],
    "features to half of the rise": lambda walks: walks["half"],
}


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of its run, and of the transferred baseline where there is one."""
    run, *more = runs
    config = restore(Config, run.record["config"])
    draws = Draws(config.resamples, config.seed)
    found = measured.matches(run, OURS)
    for one in more:
        found |= measured.matches(one, OURS)
    lines = chain(
        measured.accuracies(found, PROTOCOLS, draws),
        compare(found, draws),
        premise(run, config, found, draws),
        without_profile(run, config, draws),
        measured.quality(run, draws),
        measured.compared(run, PAIRS, IMAGES, draws),
        walks(run, draws),
        measured.weeks(run, draws),
        measured.truth(run),
        course.lines(run, OURS, views(config, len(run.table("treatments"))) // config.iterations, draws),
    )
    table = numbers(lines, without=("se", "draws"))
    # The same columns on every screen.
    table = table.reindex(columns=list(dict.fromkeys([*table, *measured.PARTS, *course.COLUMNS])))
    return {
        "numbers": table.join(trained(config), on="variant"),
        "accuracies": measured.per_training(found, PROTOCOLS),
        "quality": measured.image_means(run),
    }


def trained(config: Config) -> pd.DataFrame:
    """What every variant was trained on and with: model, weight of the KL term, strength of the simulated week effect.

    A variant with the name of its model has the model's own weight and the page's own week effect.
    """
    own = config.week_effect if config.screen == "simulated" else np.nan
    effects = {week_name(LABELS[model], effect): effect for model in SWEPT for effect in config.week_effects}
    parts = {
        one.variant: {
            "model": LABELS[one.config.model],
            "beta": one.config.kl_weight,
            "week_effect": effects.get(one.variant, own),
        }
        for one in trainings(config)
    }
    return pd.DataFrame.from_dict(parts, orient="index")


def premise(run: Run, config: Config, found: measured.Matched, draws: Draws) -> Iterator[dict[str, Any]]:
    """How far each judged model was trained: cell views, how flat its objective is, what it gains over untrained ones.

    The gains are in accuracy, mean of the four summaries, and in what claims are about beside it.
    """
    history, treatments = run.table("history"), len(run.table("treatments"))
    others = {MISFIT: (run.table("images"), lambda part: part[MISFIT]), FALLING: (run.table("walks"), WALKS[FALLING])}
    for variant, mine in judged(config).items():
        about = {"variant": variant}
        yield from premises.budget(variant, views(config, treatments), PAPERS_VIEWS, **about)
        steps = [pick(history, variant=variant, repeat=one.repeat) for one in mine]
        flat = [premises.change(part, objective(one)) for part, one in zip(steps, mine, strict=True)]
        yield from premises.changes(variant, flat, **about)
        for measure in OURS.measures:
            sides = [all_summaries(found, name, measure.name) for name in (variant, UNTRAINED)]
            yield from premises.gained(variant, measure.name, *sides, draws, **about)
        for name, (table, values) in others.items():
            of = by_repeat(table, "variant")
            if (UNTRAINED,) in of:
                pair = ([Votes.of(values(part), part["compound"]) for part in of[key,]] for key in (variant, UNTRAINED))
                yield from premises.gained(variant, name, *pair, draws, lower=True, **about)


def all_summaries(found: measured.Matched, variant: str, measure: str) -> list[Votes]:
    """Votes of each training, mean of the four summaries."""
    by_summary = (found[(variant, summary, "cosine"), measure] for summary in SUMMARIES)
    return [mean(each) for each in zip(*by_summary, strict=True)]


def compare(found: measured.Matched, draws: Draws) -> Iterator[dict[str, Any]]:
    """Paired differences between models (mean of the four summaries) and of whitening (mean profiles)."""
    variants = {variant for (variant, _, _), _ in found}
    models = [name for name in PAPER_MODELS if name in variants]

    def votes(variant: str, summary: str, measure: str) -> list[Votes]:
        return found[(variant, summary, "cosine"), measure]

    for measure in (measure.name for measure in OURS.measures):
        if {IMAGENET, CLASSICAL} <= variants:
            sides = (votes(name, "mean, whitened", measure) for name in (IMAGENET, CLASSICAL))
            yield difference(f"{IMAGENET} - {CLASSICAL}, whitened", "paired", measure, *sides, draws)
        for left, right in PAIRS:
            if {left, right} <= variants:
                sides = (all_summaries(found, name, measure) for name in (left, right))
                yield difference(f"{left} - {right}", "paired", measure, *sides, draws)
        for variant in models:
            sides = (votes(variant, summary, measure) for summary in ("mean, whitened", "mean"))
            yield difference(f"{variant}: whitened - mean", "paired", measure, *sides, draws, variant=variant)
        sides = (
            [one for variant in models for one in votes(variant, summary, measure)]
            for summary in ("mean, whitened", "mean")
        )
        yield difference("all models: whitened - mean", "paired", measure, *sides, draws)


def without_profile(run: Run, config: Config, draws: Draws) -> Iterator[dict[str, Any]]:
    """Chance, the largest class, and the cell count alone where it is known of all treatments."""
    treatments = run.table("treatments")
    counted = "count" in treatments and treatments["count"].notna().all()
    alone = {"cell count alone": treatments[["count"]].to_numpy(np.float64)} if counted else {}
    plain = PAPER_MODELS[0], SUMMARIES[0], "cosine"
    square = next(square for setting, square in measured.stored_distances(run) if setting == plain)
    permutations = Draws(config.permutations, config.seed)
    yield from measured.without_profile(treatments, OURS.measures, square, alone, permutations, draws)


def walks(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """How walks to all treatments behave, by model: mean over treatments and trainings, intervals over compounds."""
    for (variant,), repeats in by_repeat(run.table("walks"), "variant").items():
        for name, values in WALKS.items():
            votes = [Votes.of(values(part), part["compound"]) for part in repeats]
            yield average(variant, "walk", name, votes, draws, variant=variant)
