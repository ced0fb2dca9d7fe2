"""What the page measures, all of it from the stored products of its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook.configure import restore
from cellbook.metrics.scores import measure_design
from cellbook.pages.comparison import decisions
from cellbook.pages.comparison.config import (
    CHANGES,
    CHOICE,
    CORRECTIONS,
    EVERYTHING,
    GAINS,
    KNOWN,
    MEASURED,
    MEASURES,
    NONE,
    NSC,
    NSCB,
    PLAINLY,
    PRECISION,
    PREDICTS,
    RESTORED,
    SILHOUETTE,
    TRAINED,
    TRUTH,
    UNTRAINED_ONLY,
    WEEK,
    WHITENED,
    Config,
)
from cellbook.pages.comparison.ranking import (
    chosen_without,
    correlations,
    drawn,
    rank_probabilities,
    scored_by_choice,
)
from cellbook.runs import Run
from cellbook.study import measured
from cellbook.study.rows import Draws, Votes, average, by_repeat, counts, difference, mean, numbers, row

WITHOUT_TRUTH = (NSC, NSCB, *PRECISION.values(), SILHOUETTE)  # what a screen without a truth can be ranked by
RANKED = (NSC, NSCB, TRUTH)
Point = tuple[str, str]  # representation and correction
Scores = dict[Point, list[Votes]]  # one set of votes a training


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of its run."""
    (run,) = runs
    config = restore(Config, run.record["config"])
    draws = Draws(config.resamples, config.seed)
    compared = run.table("compared").drop_duplicates("variant").set_index("variant")
    distances = stored(run)
    scores = all_scores(run, distances)
    values = {name: drawn(means(of), draws) for name, of in scores.items() if name != WEEK}
    choices, chosen = choosing(run, distances, scores, compared, draws)
    lines = chain(
        measured_lines(run, scores, draws),
        changes(run, scores, draws),
        gains(scores, compared, draws),
        chosen,
        predicting(scores, values),
        measured.truth(run),
    )
    table = numbers(lines, without=("se", "draws"))
    table = table.reindex(columns=list(dict.fromkeys([*table, "variant", "summary", "kind"])))
    ranks = ranking(scores, draws)
    return {
        "numbers": table,
        "ranks": ranks,
        "choices": choices,
        "decisions": decisions.sentences(table, ranks, choices, compared),
    }


# --- one value a treatment ------------------------------------------------------------------------------------------


def stored(run: Run) -> dict[Point, list[np.ndarray]]:
    """Distances between treatments, (n, n), by representation and correction, one a training."""
    found: dict[Point, list[np.ndarray]] = {}
    same = copies(run)
    for (variant, summary, _), square in measured.stored_distances(run):
        if (variant, summary) not in same:
            found.setdefault((variant, summary), []).append(square)
    return found


def copies(run: Run) -> set[Point]:
    """Points of WDN whose maps took no step in any training: they are those of its start, and would count twice."""
    maps = measured.optional(run, "maps")
    if maps.empty:
        return set()
    most = maps.groupby(["variant", "summary"])["steps"].max()
    return set(most.index[most == 0])


def is_point(point: Point) -> bool:
    """Whether somebody could have it: neither the screen without weeks nor the known truth."""
    return point[0] != KNOWN and point[1] in CORRECTIONS


def all_scores(run: Run, distances: Mapping[Point, list[np.ndarray]]) -> dict[str, Scores]:
    """Votes of all points by measure, those of the known truth and of the screen without weeks among them.

    Points that are copies of others are not there (see `copies`).
    Those of a treatment are grouped by compound, those of a control well (`WEEK`) by plate.
    """
    treatments, same = run.table("treatments"), copies(run)
    found: dict[str, Scores] = {}

    def add(name: str, point: Point, votes: Votes) -> None:
        if point not in same:
            found.setdefault(name, {}).setdefault(point, []).append(votes)

    for point, squares in distances.items():
        for square, measure in product(squares, MEASURES):
            add(measure.name, point, measured.matched(treatments, square, measure))
    for (variant, summary, name), repeats in by_repeat(run.table("judged"), "variant", "summary", "measure").items():
        for part in repeats:
            known = part["value"].notna()
            add(name, (variant, summary), Votes.of(part["value"].fillna(0), part["compound"], known))
    for (variant, summary, kind), repeats in by_repeat(run.table("precision"), "variant", "summary", "kind").items():
        for part in repeats:
            add(PRECISION[kind], (variant, summary), Votes.of(part["value"], part["compound"]))
    weeks = measured.optional(run, "weeks")
    for point, repeats in (by_repeat(weeks, "variant", "summary") if len(weeks) else {}).items():
        for part in repeats:
            add(WEEK, point, Votes.of(part["correct"], part["plate"]))  # type: ignore[arg-type]
    return found


def means(scores: Scores) -> dict[Point, Votes]:
    """Votes of the points that somebody could have, averaged over trainings."""
    return {point: mean(votes) for point, votes in scores.items() if is_point(point)}


# --- lines ----------------------------------------------------------------------------------------------------------


def about(point: Point) -> dict[str, str]:
    """Columns that name a point."""
    return {"variant": point[0], "summary": point[1]}


def measured_lines(run: Run, scores: dict[str, Scores], draws: Draws) -> Iterator[dict[str, Any]]:
    """Every measure of every point, beside what chance gives."""
    null = chances(run)
    significant = run.table("precision").groupby(["variant", "summary", "kind"], sort=False)["significant"].mean()
    weeks, same = measured.optional(run, "weeks"), copies(run)
    for name, of in scores.items():
        for point, votes in of.items():
            setting, more = ", ".join(point), about(point) | {"null": null.get(name, np.nan)}
            more |= {"kind": weeks["cells"].iloc[0]} if name == WEEK else {}
            yield average(setting, MEASURED, name, votes, draws, **counts(votes), **more)
    for (variant, summary, kind), share in significant.items():
        if (variant, summary) in same:
            continue
        name = f"significant, {kind}"
        yield row(f"{variant}, {summary}", MEASURED, name, share, **about((variant, summary)), null=0.05)


def chances(run: Run) -> dict[str, float]:
    """What each measure is of a random order of neighbours or candidates; of agreements 0."""
    treatments = run.table("treatments")
    found = {TRUTH: 0.0, RESTORED: 0.0}
    for measure in MEASURES:
        plan = measure_design(treatments, measure)
        found[measure.name] = float((plan.positives / np.maximum(plan.eligible.sum(axis=1), 1))[plan.scored].mean())
    found |= run.table("precision").groupby("kind")["chance"].mean().rename(PRECISION).astype(np.float64).to_dict()
    weeks = measured.optional(run, "weeks")
    return found | ({WEEK: float(weeks["chance"].mean())} if len(weeks) else {})


def changes(run: Run, scores: dict[str, Scores], draws: Draws) -> Iterator[dict[str, Any]]:
    """What every correction changes, averaged over the representations that have it; of weeks over plates."""
    weeks = measured.optional(run, "weeks")
    for name, correction in product(scores, CORRECTIONS[1:]):
        of = means(scores[name])
        both = [variant for variant, summary in of if summary == NONE and (variant, correction) in of]
        if both:
            sides = ([mean([of[variant, which] for variant in both])] for which in (correction, NONE))
            more = {"summary": correction, "representations": len(both)}
            more |= {"kind": weeks["cells"].iloc[0]} if name == WEEK else {}
            yield difference(f"{correction} - {NONE}", CHANGES, name, *sides, draws, **more)


def gains(scores: dict[str, Scores], compared: pd.DataFrame, draws: Draws) -> Iterator[dict[str, Any]]:
    """What training has gained over the first network of the same paper before its first step."""
    names = compared[compared["kind"] == TRAINED]["untrained"].items()
    for (variant, before), summary, name in product(list(names), (NONE, WHITENED), RANKED):
        sides = [scores.get(name, {}).get((one, summary), []) for one in (variant, before)]
        if all(sides):
            setting = f"{variant}, {summary} - {before}, {summary}"
            yield difference(setting, GAINS, name, *sides, draws, variant=variant, summary=summary)


# --- rankings -------------------------------------------------------------------------------------------------------


def ranking(scores: dict[str, Scores], draws: Draws) -> pd.DataFrame:
    """Probability of every rank when compounds are drawn anew.

    Columns of, measure, name, rank, probability, value. Ranked are representations, each averaged over the corrections
    that all of them have; corrections, each averaged over all representations; and points, of which only the first
    rank is told.
    """
    found = []
    for name in (name for name in RANKED if name in scores):
        of = means(scores[name])
        variants = dict.fromkeys(variant for variant, _ in of)
        summaries = [one for one in CORRECTIONS if all((variant, one) in of for variant in variants)]
        kinds: dict[str, dict[str, Votes]] = {
            "representation": {v: mean([of[v, s] for s in summaries]) for v in variants},
            "correction": {s: mean([of[v, s] for v in variants]) for s in summaries},
            "point": {", ".join(point): votes for point, votes in of.items()},
        }
        for kind, votes in kinds.items():
            if not votes:
                continue
            values = drawn(votes, draws)
            shares = rank_probabilities(values[1:], most=1 if kind == "point" else None)
            for i, ranked in enumerate(votes):
                for rank, probability in enumerate(shares[i], 1):
                    found.append((kind, name, ranked, rank, probability, values[0, i]))
    return pd.DataFrame(found, columns=["of", "measure", "name", "rank", "probability", "value"])


def predicting(scores: dict[str, Scores], values: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """How well every measure ranks points as the truth does: Spearman's correlation, and how surely it is the best.

    Compounds are drawn anew for both rankings at once. `best` is the share of draws in which a measure has the highest
    correlation.
    """
    if TRUTH not in scores:
        return
    points = list(means(scores[TRUTH]))
    each = {}
    for name in (name for name in WITHOUT_TRUTH if name in scores):
        own = list(means(scores[name]))
        places = [own.index(point) for point in points]
        each[name] = correlations(values[name][:, places], values[TRUTH])
    highest = np.argmax(np.nan_to_num(np.stack(list(each.values())), nan=-2)[:, 1:], axis=0)
    for place, (name, found) in enumerate(each.items()):
        low, high = np.nanquantile(found[1:], [0.025, 0.975])
        best = float((highest == place).mean())
        yield row(name, PREDICTS, name, found[0], low=low, high=high, points=len(points), best=best)


def choosing(
    run: Run,
    distances: Mapping[Point, list[np.ndarray]],
    scores: dict[str, Scores],
    compared: pd.DataFrame,
    draws: Draws,
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """What a choice of the best point by NSC and NSCB is worth, made without the compound that is scored.

    Returns
    -------
    choices : among (all points, or those without any training), variant, summary, compounds that chose it
    lines : NSC and NSCB of the compounds under the point chosen without each, and of the best in hindsight
    """
    treatments, rows, lines = run.table("treatments"), [], []
    of: dict[str, dict[str, Votes]] = {}
    for among in (UNTRAINED_ONLY, EVERYTHING):
        points = [point for point in distances if is_point(point)]
        points = [p for p in points if among == EVERYTHING or compared.loc[p[0], "kind"] == PLAINLY]
        if not points:
            continue
        squares = np.stack([distances[point][0] for point in points])
        choice = chosen_without(treatments, squares, MEASURES)
        for place, n in pd.Series(choice).value_counts().items():
            rows.append((among, *points[place], int(n), len(choice)))  # type: ignore[call-overload]
        for name in (NSC, NSCB):
            votes = [scores[name][point][0] for point in points]
            of.setdefault(name, {})[among] = scored_by_choice(votes, choice)
            hindsight = max(votes, key=lambda one: one.share)
            for setting, own in ((among, of[name][among]), (f"{among}, best in hindsight", hindsight)):
                lines.append(average(setting, CHOICE, name, [own], draws, **counts([own])))
    for name, both in of.items():
        if len(both) == 2:
            sides = ([both[among]] for among in (EVERYTHING, UNTRAINED_ONLY))
            lines.append(difference(f"{EVERYTHING} - {UNTRAINED_ONLY}", CHOICE, name, *sides, draws))
    return pd.DataFrame(rows, columns=["among", "variant", "summary", "compounds", "of"]), lines
