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
from cellbook.pages.goldsborough2017 import progress
from cellbook.pages.goldsborough2017.config import (
    DCGAN,
    GANS,
    LABELS,
    LSGAN,
    PROTOCOL,
    VAE,
    WGAN,
    Config,
    judged,
    papers_views,
    trainings,
)
from cellbook.pages.goldsborough2017.drawn import ANY, has_halo
from cellbook.pages.goldsborough2017.features import BY_CELLS, OURS, PLAIN, TREATMENTS, WHITENED
from cellbook.pages.goldsborough2017.making import END, REAL
from cellbook.pages.goldsborough2017.progress import by_compound
from cellbook.pages.goldsborough2017.quality import (
    DETAIL,
    KID,
    PRECISION,
    RECALL,
    WHOLE,
)
from cellbook.runs import Run
from cellbook.study import measured, premises
from cellbook.study.encoding import CLASSICAL, IMAGENET, UNTRAINED
from cellbook.study.rows import Draws, Votes, average, by_repeat, counts, difference, numbers, pick, row, spread

NSC = OURS.measures[0].name
SAMPLES, PATHS, SUMS, HALO, EQUATIONS, STATES = "samples", "paths", "sums", "halo", "equations", "states"
BETWEEN, RISES, HAS_HALO, RIGHT = "middle between the ends", "property rises", "images with a halo", "sums right"
# Pairs of variant and summary whose accuracies are compared, the one less the other.
PAIRS = (
    *(((gan, PLAIN), (VAE, PLAIN)) for gan in GANS),
    *(((other, PLAIN), (gan, PLAIN)) for other in (CLASSICAL, IMAGENET) for gan in GANS),
    *(((gan, PLAIN), (UNTRAINED, PLAIN)) for gan in GANS),
    *(((LSGAN, PLAIN), (gan, PLAIN)) for gan in (DCGAN, WGAN)),
    *(((name, BY_CELLS), (name, PLAIN)) for name in (*GANS, LABELS["bigan"])),
    *(((name, WHITENED), (name, PLAIN)) for name in (*GANS, LABELS["bigan"])),
)
RIVALS = ((LSGAN, DCGAN), (LSGAN, WGAN), (LSGAN, VAE))  # whose images are compared
OFF = "misfit of fine detail"  # octaves from the power of real cells, up or down


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of its run, and of runs of ImageNet features where there are any."""
    run = runs[0]
    config = restore(Config, run.record["config"])
    draws = Draws(config.resamples, config.seed)
    found: dict[str, measured.Matched] = {}
    for protocol in (OURS, TREATMENTS):
        found[protocol.name] = {}
        for one in runs:
            if "distances.npz" in one.products():
                found[protocol.name] |= measured.matches(one, protocol)
    found[PROTOCOL] = {key: list(map(by_compound, votes)) for key, votes in found[PROTOCOL].items()}
    parts = {one.variant: one.config for one in trainings(config)}
    course = progress.lines(run, parts, draws)
    lines = chain(
        accuracies(run, found, draws),
        compare(found, draws),
        samples(runs, draws),
        rivals(runs, draws),
        course,
        progress.together(run, draws),
        of_noise(run, draws),
        halos(run, draws),
        equations(run, draws),
        premise(run, config, draws),
    )
    table = numbers(lines, without=("se", "draws"))
    own = [*measured.PARTS, "features", "property", "way", "step", "views"]  # the same columns on every screen
    single = [measured.per_training(of, {"cosine": name}) for name, of in found.items()]
    return {
        "numbers": table.reindex(columns=list(dict.fromkeys([*table, *own]))),
        "accuracies": pd.concat(single, ignore_index=True),
        "confusion": confusion(run),
    }


def accuracies(run: Run, found: dict[str, measured.Matched], draws: Draws) -> Iterator[dict[str, Any]]:
    """Accuracies of all variants and summaries as the paper averages them, and over treatments."""
    yield row("largest class", TREATMENTS.name, NSC, metrics.majority(run.table("treatments")))
    for name, of in found.items():
        for ((variant, summary, distance), measure), repeats in of.items():
            about = {"variant": variant, "summary": summary, "distance": distance, **counts(repeats)}
            yield average(f"{variant}, {summary}", name, measure, repeats, draws, **about)


def compare(found: dict[str, measured.Matched], draws: Draws) -> Iterator[dict[str, Any]]:
    """Paired differences of `PAIRS`, as the paper averages and over treatments."""
    for (a, b), (name, of) in product(PAIRS, found.items()):
        for measure in dict.fromkeys(key[1] for key in of):
            sides = [of.get(((*one, "cosine"), measure), []) for one in (a, b)]
            if all(sides):
                setting = f"{', '.join(a)} - {', '.join(b)}"
                label = measure if name == PROTOCOL else f"{measure}, over treatments"
                yield difference(setting, "paired", label, *sides, draws)


def confusion(run: Run) -> pd.DataFrame:
    """Mechanism of the nearest neighbour of another compound: variant, summary, actual, named, treatments.

    Counts of all trainings of a variant together, of the representation and its whitened form.
    """
    treatments, found = run.table("treatments"), []
    for (variant, summary, _), square in measured.stored_distances(run):
        if summary in (PLAIN, BY_CELLS):
            votes = metrics.match(treatments, distances=square, **OURS.measures[0].arguments()).per_query
            found.append(votes[["label", "predicted"]].assign(variant=variant, summary=summary))
    table = pd.concat(found, ignore_index=True).rename(columns={"label": "actual", "predicted": "named"})
    columns = ["variant", "summary", "actual", "named"]
    return table.groupby(columns, sort=False).size().rename("treatments").reset_index()


# --- images ---------------------------------------------------------------------------------------------------------


def quality_of(runs: list[Run]) -> pd.DataFrame:
    """Measures of samples at the ends of trainings: variant, repeat, features, measure, block, value."""
    tables = (one.table("quality") for one in runs if "quality.parquet" in one.products())
    return pick(pd.concat(tables, ignore_index=True), step=END)


def by_measure(table: pd.DataFrame) -> dict[tuple[str, ...], list[Votes]]:
    """Votes of blocks by variant, features and measure, one set a training; how far fine detail is off is added."""
    parts = table[table["block"] != WHOLE]
    off = pick(parts, measure=DETAIL)
    parts = pd.concat([parts, off.assign(measure=OFF, value=off["value"].abs())], ignore_index=True)
    found = by_repeat(parts.fillna({"features": ""}), "variant", "features", "measure")
    return {key: [Votes.of(part["value"], part["block"]) for part in of] for key, of in found.items()}


def samples(runs: list[Run], draws: Draws) -> Iterator[dict[str, Any]]:
    """How good images are by every measure; intervals over blocks, but for what is of all images together."""
    table = quality_of(runs)
    for (variant, features, measure), votes in by_measure(table).items():
        about = {"variant": variant, "features": features}
        yield average(variant, protocol_of(features), measure, votes, draws, **about)
    whole = pick(table, block=WHOLE).fillna({"features": ""})
    for (variant, features, measure), part in whole.groupby(["variant", "features", "measure"], sort=False)["value"]:
        about = {"variant": variant, "features": features, **spread(part)}
        yield row(variant, protocol_of(features), measure, part.mean(), **about)


def protocol_of(features: str) -> str:
    """Protocol of measures of samples by some frozen features, or by none."""
    return f"{SAMPLES}, {features}" if features else SAMPLES


def rivals(runs: list[Run], draws: Draws) -> Iterator[dict[str, Any]]:
    """Differences between models in what is measured of their images, block by block beside the same real cells."""
    found = by_measure(quality_of(runs))
    kinds = dict.fromkeys(key[1:] for key in found)
    for (a, b), (features, measure) in product((*RIVALS, *((gan, REAL) for gan in GANS)), kinds):
        sides = [found.get((name, features, measure), []) for name in (a, b)]
        if all(sides):
            protocol = f"paired, {protocol_of(features)}"
            yield difference(f"{a} - {b}", protocol, measure, *sides, draws, features=features)


def of_noise(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """How often paths and sums in the noise do what they should; intervals over paths and sums."""
    for (variant, way, name), parts in by_repeat(run.table("paths"), "variant", "way", "property").items():
        votes = [Votes.of(part["between"], part["pair"]) for part in parts]
        about = {"variant": variant, "way": way, "property": name, "null": 1 / 3}
        yield average(f"{variant}, {name}, {way}", PATHS, BETWEEN, votes, draws, **about)
    found = {
        key: [Votes.of(part["rise"], part["sum"]) for part in parts]
        for key, parts in by_repeat(run.table("sums"), "variant", "property", "kind").items()
    }
    for (variant, name, kind), votes in found.items():
        chance = found[variant, name, ANY]
        about = {"variant": variant, "property": name, "way": kind}
        null = float(np.mean([one.share for one in chance]))
        yield average(f"{variant}, {name}, {kind}", SUMS, RISES, votes, draws, null=null, **about)
        if kind != ANY:
            yield difference(f"{variant}, {name}: {kind} - {ANY}", "paired", RISES, votes, chance, draws, **about)


def halos(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """In how many images tubulin is brighter next to the nucleus than inside and away; intervals over images."""
    found = {
        variant: [Votes.of(has_halo(part), np.arange(len(part))) for part in parts]
        for (variant,), parts in by_repeat(run.table("properties"), "variant").items()
    }
    for variant, votes in found.items():
        yield average(variant, HALO, HAS_HALO, votes, draws, variant=variant)


def equations(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """How often sums of codes of real cells lie where they should, and than without anything added and taken away."""
    for (variant, name), parts in by_repeat(run.table("equations"), "variant", "equation").items():
        right, without = (
            [Votes.of(part[side].astype(float), part["compound"]) for part in parts] for side in ("right", "without")
        )
        about = {"variant": variant, "way": name}
        null = float(parts[0]["chance"].mean())
        yield average(f"{variant}, {name}", EQUATIONS, RIGHT, right, draws, null=null, **counts(right), **about)
        yield difference(f"{variant}, {name}: with - without", "paired", RIGHT, right, without, draws, **about)


# --- premises -------------------------------------------------------------------------------------------------------


def objective(model: str) -> dict[str, float]:
    """Terms of a model's history that tell whether it still moves: the judge's of a GAN, the loss of an autoencoder."""
    return {"pixel": 1.0, "kl": 1.0} if model == "vae" else {"discriminator": 1.0}


def premise(run: Run, config: Config, draws: Draws) -> Iterator[dict[str, Any]]:
    """How far the judged trainings went: cell views, how flat their losses are, what they gain over their first step.

    Gains are in accuracy and in what claims about images are about, each over the same network untrained.
    """
    history, own = run.table("history"), progress.ends(run)
    images = progress.quality_ends(run)
    for variant, mine in judged(config).items():
        model, about = mine[0].config.model, {"variant": variant}
        views = mine[0].config.iterations * mine[0].config.settings.batch * mine[0].config.settings.critic_steps
        yield from premises.budget(variant, views, papers_views(model), **about)
        steps = [pick(history, variant=variant, repeat=one.repeat) for one in mine]
        yield from premises.changes(variant, [premises.change(part, objective(model)) for part in steps], **about)
        if variant in own:
            untrained, trained = ([*map(by_compound, side)] for side in own[variant])
            yield from premises.gained(variant, NSC, trained, untrained, draws, **about)
        for measure, lower in ((KID, True), (PRECISION, False), (RECALL, False)):
            if (variant, measure) in images:
                before, after = images[variant, measure]
                yield from premises.gained(variant, measure, after, before, draws, lower=lower, **about)
