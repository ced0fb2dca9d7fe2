"""What the page measures, all of it from the stored products of its run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook import metrics
from cellbook.configure import restore
from cellbook.methods.weakly_supervised.config import RATES
from cellbook.pages.caicedo2018 import alleles, candidates, closer, genes
from cellbook.pages.caicedo2018.config import (
    LAYERS,
    PAPERS_VIEWS,
    PLAIN,
    PROTOCOL,
    Config,
    judged,
    layer_parts,
    views,
)
from cellbook.pages.caicedo2018.models import AGAINST, BASELINE, MIXUP, PRETRAINED, RECURRENT, of_genes, without
from cellbook.runs import Run
from cellbook.study import course, measured, premises
from cellbook.study.course import MEANS
from cellbook.study.encoding import CLASSICAL, IMAGENET, UNTRAINED, of_layer
from cellbook.study.rows import Draws, Votes, average, by_repeat, counts, difference, numbers, pick, row, spread

OURS = metrics.PROTOCOLS[PROTOCOL]
NSC, NSCB = (measure.name for measure in OURS.measures)
WHITENED = MEANS[1]
DROP = "drop"
AUXILIARY, VALIDATION, TRAINING = "auxiliary", "validation cells", "training batches"
FIRST, LAST = LAYERS[0], "5b"  # the layer nearest to the pixels, and what the classifier is given
FIRST_FALL = min(RATES["adam"][1])  # of the learning rate, as a share of the training
MIDDLE = tuple(layer for layer in LAYERS if layer[0] in "34")
TRAINED = (BASELINE, RECURRENT, MIXUP)


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of its run, and of further ones where they are.

    These are the transferred baselines of both screens, what is looked at closer, and the outcomes of `alleles`.
    """
    run, *more = runs
    of = {
        method: [one for one in more if one.record["method"] == method]
        for method in ("alleles", "baseline-genes", closer.METHOD)
    }
    config = restore(Config, run.record["config"])
    draws = Draws(config.resamples, config.seed)
    found = measured.matches(run, OURS)
    beside = [one for one in more if one.record["method"] == "baseline"]
    for one in (*beside, *of[closer.METHOD]):
        found |= measured.matches(one, OURS)
    wells = genes_of(run, of["baseline-genes"])
    lines = chain(
        measured.accuracies(found, {"cosine": PROTOCOL}, draws),
        drops(found, draws),
        compare(found, draws),
        weeks_left_out(run, config, found, draws),
        candidates.lines([run, *beside], (*TRAINED, *PLAIN, IMAGENET, UNTRAINED), draws),
        layers(found, draws),
        *(closer.lines(one, draws) for one in of[closer.METHOD]),
        closer.compare(found, (*TRAINED, CLASSICAL, UNTRAINED), draws),
        auxiliary(run, draws),
        premise(run, config, found | genes.as_matched(wells), draws),
        without_profile(run, config, draws),
        course.lines(run, OURS, config.batch, draws),
        genes.lines(wells, draws),
        *(alleles.lines(one, draws) for one in of["alleles"]),
    )
    table = numbers(lines, without=("se", "draws"))
    table = table.reindex(
        columns=list(dict.fromkeys([*table, "variant", "summary", "distance", "kind", *course.COLUMNS]))
    )
    parts = pd.DataFrame.from_dict(layer_parts(config), orient="index")
    return {
        "numbers": table.join(parts, on="variant"),
        "accuracies": measured.per_training(found, {"cosine": PROTOCOL}),
    }


def votes(found: measured.Matched, variant: str, summary: str, measure: str) -> list[Votes]:
    """Votes of every training of a variant; none where there is none."""
    return found.get(((variant, summary, "cosine"), measure), [])


def drops(found: measured.Matched, draws: Draws) -> Iterator[dict[str, Any]]:
    """Lines of NSCB - NSC, each over its own treatments."""
    for variant, summary in dict.fromkeys((variant, summary) for (variant, summary, _), _ in found):
        both = [votes(found, variant, summary, measure) for measure in (NSCB, NSC)]
        each = [apart(across, within) for across, within in zip(*both, strict=True)]
        setting, parts = f"{variant}, {summary}", {"variant": variant, "summary": summary, "distance": "cosine"}
        yield average(setting, PROTOCOL, DROP, each, draws, **parts)


def apart(across: Votes, within: Votes) -> Votes:
    """Votes whose mean is the difference of two shares over other queries, and whose spread is that of the shares.

    A share is a ratio of sums; each query has what it moves the ratio by, to first order.
    """
    moved = [
        one.share + (one.correct - one.share * one.counted) / max(one.counted.mean(), 1e-12) for one in (across, within)
    ]
    return Votes.of(moved[0] - moved[1], within.group)


def compare(found: measured.Matched, draws: Draws) -> Iterator[dict[str, Any]]:
    """Paired differences of the networks from what is not trained, from each other, and of whitening."""
    trained = [name for name in TRAINED if votes(found, name, WHITENED, NSC)]
    pairs = [*product(trained, (*PLAIN, IMAGENET, UNTRAINED)), *((name, BASELINE) for name in trained[1:])]
    pairs += [*AGAINST.items(), (PRETRAINED, IMAGENET), (PRETRAINED, BASELINE)]
    for (left, right), summary, measure in product(pairs, MEANS, (NSC, NSCB)):
        sides = [votes(found, name, summary, measure) for name in (left, right)]
        if all(sides):
            yield difference(f"{left} - {right}, {summary}", "paired", measure, *sides, draws, summary=summary)
    for name, measure in product((*trained, UNTRAINED, *PLAIN, IMAGENET), (NSC, NSCB)):
        sides = [votes(found, name, summary, measure) for summary in (WHITENED, MEANS[0])]
        if all(sides):
            yield difference(f"{name}: whitened - mean", "paired", measure, *sides, draws, variant=name)


def weeks_left_out(run: Run, config: Config, found: measured.Matched, draws: Draws) -> Iterator[dict[str, Any]]:
    """What treatments of a week lose if the network never saw that week; all such weeks together.

    All treatments are candidates, in the features of the same network.
    """
    week = run.table("treatments")["Metadata_batch"].to_numpy()
    there = [one for one in config.weeks_left_out if votes(found, without(one), WHITENED, NSC)]
    for summary, measure in product(MEANS, (NSC, NSCB)) if there else ():
        sides: list[list[Votes]] = [[], []]
        for side, names in zip(sides, ([without(one) for one in there], [BASELINE] * len(there)), strict=True):
            parts = [
                [one.where(week == which) for one in votes(found, name, summary, measure)]
                for name, which in zip(names, there, strict=True)
            ]
            side += [Votes(*map(np.concatenate, zip(*several, strict=True))) for several in zip(*parts, strict=True)]
        setting = f"without their week - {BASELINE}, treatments of {', '.join(there)}, {summary}"
        yield difference(setting, "paired", measure, *sides, draws, counted=True, summary=summary)


def genes_of(run: Run, more: list[Run]) -> pd.DataFrame:
    """Votes of the wells of the genetic screen, of trainings and of what is not trained; without rows where none is."""
    further = [one.table("genes").assign(variant=of_genes(IMAGENET), repeat=0) for one in more]
    found = [table for table in (measured.optional(run, "genes"), *further) if len(table)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def layers(found: measured.Matched, draws: Draws) -> Iterator[dict[str, Any]]:
    """What whitening does to every layer of the baseline, and the best of the middle against both ends of the network.

    The best is best by the mean over trainings; choosing it favours the middle, which has the more layers.
    """
    of = {
        layer: of_layer(BASELINE, layer) for layer in LAYERS if votes(found, of_layer(BASELINE, layer), WHITENED, NSC)
    }
    for (layer, name), measure in product(of.items(), (NSC, NSCB)):
        sides = [votes(found, name, summary, measure) for summary in (WHITENED, MEANS[0])]
        about = {"variant": name}
        yield difference(f"{BASELINE}, layer {layer}: whitened - mean", "paired", measure, *sides, draws, **about)
    if not {FIRST, LAST, *MIDDLE} <= set(of):
        return
    for summary, measure in product(MEANS, (NSC, NSCB)):
        shares = {layer: np.mean([one.share for one in votes(found, of[layer], summary, measure)]) for layer in MIDDLE}
        best = max(shares, key=lambda layer: shares[layer])
        for end in (FIRST, LAST):
            sides = [votes(found, of[layer], summary, measure) for layer in (best, end)]
            setting = f"{BASELINE}, best of the middle - {end}, {summary}"
            yield difference(setting, "paired", measure, *sides, draws, summary=summary)


def auxiliary(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """Share of cells whose treatment is told: of validation wells, and in the last tenth of the training's batches.

    Chance is one in as many as there are classes. Training batches are augmented, pass the dropout, and of a mixed pair
    the heavier cell is asked for: no number to hold against the other.
    """
    history = pick(run.table("history"), term="accuracy")
    told = told_cells(run)
    classes = {variant: len(repeats[0].correct) for variant, repeats in told.items()}
    for variant, repeats in told.items():
        about = {"variant": variant, "null": 1 / classes[variant]}
        yield average(variant, AUXILIARY, VALIDATION, repeats, draws, **counts(repeats), **about)
    for left, right in ((RECURRENT, BASELINE), (MIXUP, BASELINE)):
        sides = [told.get(name, []) for name in (left, right)]
        if all(sides):
            yield difference(f"{left} - {right}", "paired", VALIDATION, *sides, draws)
    late = history[history["step"] > 0.9 * history["step"].max()].astype({"value": np.float64})
    for variant, part in late.groupby("variant", sort=False):
        each = part.groupby("repeat")["value"].mean()
        null = 1 / classes[str(variant)] if str(variant) in classes else np.nan
        yield row(str(variant), AUXILIARY, TRAINING, each.mean(), **spread(each) | {"null": null}, variant=variant)


def told_cells(run: Run) -> dict[str, list[Votes]]:
    """Validation cells whose treatment is told, by model, one set a training: a vote a class, grouped by compound."""
    table = measured.optional(run, "validation")
    found = by_repeat(table, "variant") if len(table) else {}
    return {
        variant: [Votes.of(part["right"], part["compound"], part["validation"]) for part in repeats]
        for (variant,), repeats in found.items()
    }


def premise(run: Run, config: Config, found: measured.Matched, draws: Draws) -> Iterator[dict[str, Any]]:
    """How far each model was trained: cell views, how flat its objective is, what it gains over the untrained network.

    A falling rate flattens any objective: its change is that before the rate first falls. The gains are in accuracy, of
    whitened means.
    """
    history = run.table("history")
    history = history[history["step"] <= FIRST_FALL * config.iterations]
    for variant, mine in judged(config).items():
        about = {"variant": variant}
        yield from premises.budget(variant, views(config), PAPERS_VIEWS, **about)
        steps = [pick(history, variant=variant, repeat=one.repeat) for one in mine]
        flat = [premises.change(part, {"cross_entropy": 1.0}) for part in steps]
        yield from premises.changes(variant, flat, **about)
        genetic = genes.is_genetic(variant)
        for measure in (genes.GENE,) if genetic else (NSC, NSCB):
            untrained = of_genes(UNTRAINED) if genetic else UNTRAINED
            sides = [votes(found, name, WHITENED, measure) for name in (variant, untrained)]
            yield from premises.gained(variant, measure, *sides, draws, **about)


def without_profile(run: Run, config: Config, draws: Draws) -> Iterator[dict[str, Any]]:
    """Chance, the largest class, and the cell count alone where it is known of all treatments."""
    treatments = run.table("treatments")
    counted = "count" in treatments and treatments["count"].notna().all()
    alone = {"cell count alone": treatments[["count"]].to_numpy(np.float64)} if counted else {}
    square = next(measured.stored_distances(run))[1]
    permutations = Draws(config.permutations, config.seed)
    yield from measured.without_profile(treatments, OURS.measures, square, alone, permutations, draws)
