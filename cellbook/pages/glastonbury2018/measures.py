"""What the page measures, all of it from the stored products of its run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook import metrics
from cellbook.configure import restore
from cellbook.methods import fair_cae
from cellbook.metrics.neighbours import candidates
from cellbook.metrics.protocols import SAME_COMPOUND_OR_BATCH
from cellbook.metrics.units import natural
from cellbook.pages.glastonbury2018.config import (
    BEFORE,
    CONDITIONAL,
    DEEP,
    FIFTY,
    ONE,
    PROTOCOL,
    Config,
    games,
    judged,
    name_of,
    trainings,
    views,
)
from cellbook.pages.glastonbury2018.corrected import CORRECTIONS, PLAIN, TARGETS, WHITENED
from cellbook.pages.glastonbury2018.making import KNOWN
from cellbook.pages.glastonbury2018.probes import NEW, OWN
from cellbook.runs import Run
from cellbook.study import course, measured, premises
from cellbook.study.encoding import CLASSICAL, IMAGENET, UNTRAINED
from cellbook.study.rows import Draws, Votes, average, by_repeat, counts, difference, numbers, pick, row, spread
from cellbook.study.truth import agreeing

OURS = metrics.PROTOCOLS[PROTOCOL]
MOA, WEEK = OURS.measures[:2]
# The same treatments and distances under the benchmark's own question.
NEAREST = replace(
    OURS,
    name=f"{PROTOCOL}, nearest neighbour",
    measures=(metrics.Measure("NSC"), metrics.Measure("NSCB", exclude=SAME_COMPOUND_OR_BATCH)),
)
TIES, VOTING, LEFT, PROBE, IMAGES = "ties", "voting", "week left", "probe", "images"
AGREEMENT, REACHED = "agreement of distances", "end of training"
NEAREST_WELL, NAMED = "nearest well", "week named"
RESTORED, TRUE = "without weeks", "in truth"  # what distances are held against
BASELINES = ((CLASSICAL, PLAIN), (IMAGENET, WHITENED))  # as the book compares with them
# What is compared: a variant and a summary, of the one less the other.
PAIRS = (
    ((ONE, PLAIN), (BEFORE, PLAIN)),
    ((FIFTY, PLAIN), (BEFORE, PLAIN)),
    ((FIFTY, PLAIN), (ONE, PLAIN)),
    ((CONDITIONAL, PLAIN), (FIFTY, PLAIN)),
    ((name_of(0.0, DEEP), PLAIN), (BEFORE, PLAIN)),
    ((name_of(50.0, DEEP), PLAIN), (name_of(0.0, DEEP), PLAIN)),
    *(((BEFORE, correction), (FIFTY, PLAIN)) for correction in CORRECTIONS),
    *(((name, PLAIN), baseline) for name in (BEFORE, FIFTY) for baseline in BASELINES),
)
# What section 7 of the protocol is about: a treatment gets the commonest label of others that share something.
VOTINGS = (("compound", WEEK), ("moa", WEEK), ("batch", MOA), ("batch", OURS.measures[2]))


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of its run."""
    (run,) = runs
    config = restore(Config, run.record["config"])
    draws = Draws(config.resamples, config.seed)
    protocols = (OURS, NEAREST)
    found = {protocol.name: measured.matches(run, protocol) for protocol in protocols}
    both = found[OURS.name] | found[NEAREST.name]
    left = left_votes(run)
    lines = chain(
        accuracies(run, found, draws),
        week_left(run, left, draws),
        compare(both, left, draws),
        ties(run, draws),
        votings(run.table("treatments")),
        probing(run, draws),
        errors(run, draws),
        premise(run, config, both, draws),
        measured.truth(run),
        agreements(run, draws),
        reached(run, config),
        course.lines(run, OURS, config.batch, draws, of_the_game(run.table("history"), config)),
    )
    table = numbers(lines, without=("se", "draws"))
    own = [*measured.PARTS, "cells", "reader", *course.COLUMNS]  # the same columns on every screen
    table = table.reindex(columns=list(dict.fromkeys([*table, *own])))
    names = {protocol.name: protocol.name for protocol in protocols}
    single = [measured.per_training(found[name], {"euclidean": name}) for name in names]
    return {
        "numbers": table.join(pd.DataFrame.from_dict(games(config), orient="index"), on="variant"),
        "accuracies": pd.concat(single, ignore_index=True),
    }


# --- accuracy -------------------------------------------------------------------------------------------------------


def largest(treatments: pd.DataFrame, label: str) -> float:
    """Share of the largest class, which the paper calls null accuracy."""
    return float(treatments[label].value_counts(normalize=True).max())


def accuracies(run: Run, found: dict[str, measured.Matched], draws: Draws) -> Iterator[dict[str, Any]]:
    """Accuracies of all variants and summaries, beside the largest class where the protocol has it."""
    treatments = run.table("treatments")
    for one in (MOA, WEEK):
        yield row("largest class", PROTOCOL, one.name, largest(treatments, one.label), one.k, scored=len(treatments))
    for protocol in (OURS, NEAREST):
        of = {one.name: one for one in protocol.measures}
        for ((variant, summary, distance), name), repeats in found[protocol.name].items():
            about = {"variant": variant, "summary": summary, "distance": distance}
            about |= {"null": largest(treatments, of[name].label)} if of[name].null else {}
            setting = f"{variant}, {summary}"
            yield average(setting, protocol.name, name, repeats, draws, of[name].k, **counts(repeats), **about)


def left_votes(run: Run) -> dict[tuple[str, str, str], list[Votes]]:
    """Whether the nearest control well on another plate is of the same week: votes by variant, summary and kind.

    There are none where each week has one plate.
    """
    table = measured.optional(run, "left")
    found = by_repeat(table, "variant", "summary", "cells") if len(table) else {}
    return {key: [Votes.of(part["correct"], part["plate"]) for part in parts] for key, parts in found.items()}


def week_left(run: Run, left: dict[tuple[str, str, str], list[Votes]], draws: Draws) -> Iterator[dict[str, Any]]:
    """What is left of the week in wells of controls, which are the same in all weeks; intervals over plates."""
    chance = run.table("left").groupby("cells")["chance"].mean() if left else {}
    for (variant, summary, cells), votes in left.items():
        about = {"variant": variant, "summary": summary, "cells": cells, "null": float(chance[cells])}
        yield average(f"{variant}, {summary}, {cells}", LEFT, NEAREST_WELL, votes, draws, **about)


def compare(
    found: measured.Matched, left: dict[tuple[str, str, str], list[Votes]], draws: Draws
) -> Iterator[dict[str, Any]]:
    """Paired differences of `PAIRS` in accuracies, and in what is left of the week in controls."""
    names = [one.name for one in (*OURS.measures, *NEAREST.measures)]
    for (a, b), name in product(PAIRS, names):
        sides = [found.get(((*one, "euclidean"), name), []) for one in (a, b)]
        if all(sides):
            yield difference(f"{', '.join(a)} - {', '.join(b)}", "paired", name, *sides, draws)
    for (a, b), cells in product(PAIRS, dict.fromkeys(cells for *_, cells in left)):
        sides = [left.get((*one, cells), []) for one in (a, b)]
        if all(sides):
            setting = f"{', '.join(a)} - {', '.join(b)}"
            yield difference(setting, "paired", f"{NEAREST_WELL}, {cells}", *sides, draws, cells=cells)


def ties(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """What the vote gives by other rules where all three neighbours differ, and how often they do; plain means."""
    treatments, found = run.table("treatments"), {}
    for (variant, summary, _), square in measured.stored_distances(run):
        for one in (MOA, WEEK) if summary == PLAIN else ():
            for rule, votes in tie_votes(treatments, square, one).items():
                found.setdefault((variant, one.name, rule), []).append(votes)
    for (variant, name, rule), repeats in found.items():
        about = {"variant": variant, "rule": rule, **counts(repeats)}
        yield average(f"{variant}, {rule}", TIES, name, repeats, draws, 3, **about)


def tie_votes(treatments: pd.DataFrame, square: np.ndarray, measure: metrics.Measure) -> dict[str, Votes]:
    """Votes of the three nearest others by every rule for three different labels; the published one is not known."""
    labels = treatments[measure.label].astype(str).to_numpy()
    names = sorted(set(labels), key=natural)
    codes = np.array([names.index(label) for label in labels])
    apart = square + np.where(np.eye(len(square), dtype=bool), np.inf, 0.0)
    three = codes[np.argsort(apart, axis=1, kind="stable")[:, :3]]
    first, second, third = three.T
    tied = (first != second) & (second != third) & (first != third)
    elected = np.where(second == third, second, first)
    right = {
        "to the closest": elected == codes,
        "to the first label": np.where(tied, three.min(axis=1), elected) == codes,
        "never right": ~tied & (elected == codes),
        "right where one is": np.where(tied, (three == codes[:, None]).any(axis=1), elected == codes),
        "share of ties": tied,
    }
    return {rule: Votes.of(values, treatments["Metadata_compound"]) for rule, values in right.items()}


def votings(treatments: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What is right if all that is known of a treatment is its compound, mechanism or week; the range is that of ties.

    The count is of the middle of the range.
    """
    for known, measure in VOTINGS:
        least, most = voting(treatments, f"Metadata_{known}", measure)
        n = len(treatments)
        bounds = {"low": least / n, "high": most / n, "correct": (least + most) / 2, "scored": n}
        yield row(f"{known} alone", VOTING, measure.name, (least + most) / 2 / n, **bounds, known=known)


def voting(treatments: pd.DataFrame, known: str, measure: metrics.Measure) -> tuple[int, int]:
    """Fewest and most treatments that get their label by the commonest one among others that share `known`."""
    shared, label, compound = (treatments[name].to_numpy() for name in (known, measure.label, "Metadata_compound"))
    least = most = 0
    for i in range(len(treatments)):
        near = shared == shared[i]
        near &= compound != compound[i] if measure.exclude else np.arange(len(near)) != i
        names, votes = np.unique(label[near].astype(str), return_counts=True)
        elected = names[votes == votes.max()] if len(votes) else []
        most += str(label[i]) in elected
        least += str(label[i]) in elected and len(elected) == 1
    return least, most


# --- distances that are known ---------------------------------------------------------------------------------------


def agreements(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """How nearly distances between treatments are in the order that they have without weeks, or in truth.

    Of every treatment the rank correlation of its distances to those of other compounds; mean over treatments. Without
    weeks are distances by the same training of the same cells, which were drawn without any effect of weeks. Nothing of
    real cells.
    """
    treatments = run.table("treatments")
    others, compounds = candidates(treatments), treatments["Metadata_compound"].to_numpy()
    squares: dict[tuple[str, str], list[np.ndarray]] = {}
    for (variant, summary, _), square in measured.stored_distances(run):
        squares.setdefault((variant, summary), []).append(square)
    true = squares.pop((KNOWN, PLAIN), [])
    for (variant, summary), mine in squares.items():
        about = {"variant": variant, "summary": summary, "null": 0.0}
        against = {RESTORED: squares.get((variant, TARGETS.get(summary, "")), []), TRUE: true * len(mine)}
        for name, targets in against.items():
            if targets:
                votes = [agreeing(a, b, others, compounds) for a, b in zip(mine, targets, strict=True)]
                yield average(f"{variant}, {summary}", AGREEMENT, name, votes, draws, **about)


# --- probes, images, premises ---------------------------------------------------------------------------------------


def probing(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """How often the week of single cells is named by each reader, and the new network against the game's adversary."""
    table = measured.optional(run, "probes")
    found = by_repeat(table, "variant", "cells", "reader") if len(table) else {}
    votes = {
        key: [Votes.of(part["correct"], part["plate"], part["counted"]) for part in parts]
        for key, parts in found.items()
    }
    for (variant, cells, reader), repeats in votes.items():
        null = float(found[variant, cells, reader][0]["null"].iloc[0])
        about = {"variant": variant, "cells": cells, "reader": reader, "null": null}
        yield average(f"{variant}, {cells}, {reader}", PROBE, NAMED, repeats, draws, **about)
    for variant, cells in dict.fromkeys((variant, cells) for variant, cells, reader in votes if reader == OWN):
        sides = zip(votes[variant, cells, NEW], votes[variant, cells, OWN], strict=True)
        each = [new._replace(correct=new.correct - own.correct) for new, own in sides]  # of the same cells
        setting = f"{variant}, {cells}: {NEW} - {OWN}"
        yield average(setting, "paired", NAMED, each, draws, signs=True, variant=variant, cells=cells)


def errors(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """Mean squared error of reconstructions, intervals over compounds."""
    for (variant,), repeats in by_repeat(run.table("images"), "variant").items():
        each = [Votes.of(part["MSE"], part["compound"]) for part in repeats]
        yield average(variant, IMAGES, "MSE", each, draws, variant=variant)


def reached(run: Run, config: Config) -> Iterator[dict[str, Any]]:
    """The losses with which trainings ended, and the objective of the autoencoder made of them; means over trainings.

    `null`: the loss of an adversary that answers without looking, where it is not told the treatment.
    """
    of = {(one.variant, one.repeat): one.config for one in trainings(config)}
    chance = float(np.log(run.table("size")["weeks"].iloc[0]))
    for (variant,), repeats in by_repeat(run.table("history"), "variant").items():
        lasts = [part[part["step"] == part["step"].max()] for part in repeats]  # of terms that are there in the end
        ends = [last.set_index("term")["value"].astype(np.float64) for last in lasts]
        for end, part in zip(ends, repeats, strict=True):
            own = of[variant, int(part["repeat"].iloc[0])]
            weight = own.lam * own.terms.sign if own.rounds else 0.0
            end["objective"] = end["reconstruction"] + weight * end[own.terms.term]
        about = {"variant": variant}
        for term in ends[0].index:
            values = [end[term] for end in ends]
            null = {"null": chance} if term == "adversary" and not own.conditional else {}
            yield row(variant, REACHED, str(term), float(np.mean(values)), **spread(values), **about, **null)


def premise(run: Run, config: Config, found: measured.Matched, draws: Draws) -> Iterator[dict[str, Any]]:
    """How far the judged trainings went: cell views, how flat their losses are, what they begin the game with.

    The change is the larger of that of the reconstruction in phase A and that of the adversary's loss in the game. The
    gain is that of the autoencoder before the game, which the game is meant to lessen.
    """
    history, paper = run.table("history"), fair_cae.Config()
    sides = [found.get(((name, PLAIN, "euclidean"), MOA.name), []) for name in (BEFORE, UNTRAINED)]
    for variant, mine in judged(config).items():
        own, about = mine[0].config, {"variant": variant}
        papers = views(replace(paper, rounds=paper.rounds if own.rounds else 0))
        yield from premises.budget(variant, views(own), papers, **about)
        steps = [pick(history, variant=variant, repeat=one.repeat) for one in mine]
        changes = [change(part, own.lengths) for part in steps]
        yield from premises.changes(variant, changes, **about)
        if all(sides):
            yield from premises.gained(variant, MOA.name, *sides, draws, **about)


def of_the_game(history: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The losses with the steps of games counted from their beginning, those before left out."""
    before = history["variant"] == BEFORE
    steps = history["step"] - np.where(before, 0, config.pretraining + config.teaching)
    return history.assign(step=steps)[(steps > 0) & ~(before & (steps > config.pretraining))]


def change(history: pd.DataFrame, lengths: tuple[int, int, int]) -> float:
    """The larger one of `phase_changes`; NaN if one is not known."""
    found = phase_changes(history, lengths)
    return float("nan") if np.isnan(found).any() else max(found, key=abs)


def phase_changes(history: pd.DataFrame, lengths: tuple[int, int, int]) -> list[float]:
    """The change of the reconstruction in phase A, and where there is a game that of the adversary's loss in C."""
    a, b, c = lengths
    found = [premises.change(history[history["step"] <= a], {"reconstruction": 1.0})]
    if c:
        game = history[history["step"] > a + b]
        found.append(premises.change(game.assign(step=game["step"] - a - b), {"adversary": 1.0}))
    return found
