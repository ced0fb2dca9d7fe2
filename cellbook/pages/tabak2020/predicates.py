"""What decides each claim of the page.

No verdict from fewer than three alignments of every source that it looks at. Codes of VAE+ are judged where their
encoder was trained as `judging` demands; undecided sources have no part in a verdict. What the paper says of its deep
embedding is asked of codes and of ImageNet features.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import wraps

import pandas as pd

from cellbook.claims import NOT, PARTLY, REPRODUCED, UNDECIDED, Predicate, Verdict
from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.carry import LEFT
from cellbook.pages.tabak2020.measures import (
    CARRIED,
    COURSE,
    FALL,
    MEAN,
    NOISE,
    PAIRED,
    RISE,
    SAME_STEP,
    STOPPING,
    week_protocol,
)
from cellbook.pages.tabak2020.sources import ENGINEERED, LEARNED, TRANSFERRED
from cellbook.study.judging import PREMISE, lacking, refused, together, with_premise
from cellbook.study.rows import one, pick
from cellbook.study.show import percent
from cellbook.study.words import points

MARGIN = 0.02  # differences of accuracy below two points, two of the paper's 103 treatments, count as none
ONE_POINT = 0.01  # what choosing the step without the compound may cost
HALF = 0.5  # of what the week is named above noise, has to go
CONTROL = "DMSO"
MEASURES = ["NSC", "NSCB"]
# The paper's deep embedding is of a network that was trained on photographs, so that ImageNet features are of its kind.
DEEP = [LEARNED, TRANSFERRED]


def verdict(reproduced: bool, partly: bool = True) -> str:
    """The verdict of one source."""
    return REPRODUCED if reproduced else PARTLY if partly else NOT


def needs_learning(predicate: Predicate) -> Predicate:
    """Let a predicate decide of learned features only where they are learned: where their encoder has the premise."""

    @wraps(predicate)
    def gated(numbers: pd.DataFrame) -> Verdict:
        found = predicate(numbers)
        learned = set(pick(numbers, family=LEARNED)["source"]) if len(numbers) else set()
        why = {s: lacking(pick(numbers, protocol=PREMISE, source=s), MEASURES) for s in learned}
        judged = {
            source: (UNDECIDED, f"{why[source]}, measured: {text}") if why.get(source) else (own, text)
            for source, own, text in found.parts
        }
        return together(judged) if judged else found

    return with_premise(gated, "codes of VAE+", MEASURES)


def gains(numbers: pd.DataFrame, pairs: Collection[tuple[str, str]], **where: str) -> pd.DataFrame:
    """Paired differences of accuracy, mean over k, between these methods."""
    lines = pick(numbers, protocol=PAIRED, k=MEAN, measure=MEASURES, **where)
    return lines[lines.set_index(["left", "right"]).index.isin(pairs)]


def share(line: pd.Series) -> str:
    """A share with its interval, where weeks of several plates allow one."""
    bounds = f" [{line['low']:.2f}, {line['high']:.2f}]"
    return f"{line['value']:.2f}" + (bounds if pd.notna(line["low"]) else ", no interval from one plate a week")


def plainly(line: pd.Series, label: str) -> str:
    """A difference of silhouettes as it is, with its interval, behind a label."""
    return f"{label} {line['value']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]"


@needs_learning
def batch_falls(numbers: pd.DataFrame) -> Verdict:
    """How often the week of controls is named, in the paper's folds of rows, at the last step against no correction.

    Reproduced for a source if, for both classifiers, the week is named less often in every training, the interval over
    plates lies below 0, and at least half of what was above noise is gone. At most partly if the week is then named
    less often than from noise, interval and all, as folds of rows can do by themselves; or if on plates that no map has
    seen, where that was asked, the interval of the change does not lie below 0. Partly also if one classifier falls;
    not otherwise.
    """
    protocol, change = week_protocol(c.ROWS), {"left": c.LAST, "right": c.UNCORRECTED}
    changes = pick(numbers, protocol=f"{protocol}, paired", **change)
    if without := refused(changes, why="the week was not asked for"):
        return without
    found = {}
    for source, lines in changes.groupby("source", sort=False):
        down, enough, texts = [], [], []
        for _, line in lines.iterrows():
            down.append((line["high"] < 0) and (line["agree"] == 1))
            asked = pick(numbers, source=source, protocol=protocol, measure=line["measure"])
            before, after, noise = (one(asked, method=m) for m in (c.UNCORRECTED, c.LAST, NOISE))
            if before is None or after is None or noise is None:
                enough.append(False)
                continue
            excess = before["value"] - noise["value"]
            half_gone = excess > 0 and before["value"] - after["value"] >= HALF * excess
            enough.append(half_gone and not after["high"] < noise["value"])
            texts.append(
                f"{line['measure']} {percent(before['value'])} to "
                f"{percent(after['value'], after['low'], after['high'])} % (noise {percent(noise['value'])})"
            )
        unseen = f"{week_protocol(c.UNSEEN)}, paired"
        new = one(numbers, source=source, protocol=unseen, measure="logistic", **change)
        if new is not None:
            enough.append(new["high"] < 0)
        texts.append("not asked on unseen plates" if new is None else points(new, "on unseen plates, logistic,"))
        found[str(source)] = (verdict(all(down + enough), any(down)), ", ".join(texts))
    return together(found)


@needs_learning
def rises_and_falls(numbers: pd.DataFrame) -> Verdict:
    """Course over map steps on codes of VAE+ and ImageNet features: both measures rise and then fall.

    Accuracy is the mean of NSC and NSCB over k. The top of the mean course is looked for in one half of the resamples
    and measured in the other, and the other way round, so that it is not high by the luck of resampling. The central
    95 % of resamples must lie above 0 for the rise and below 0 for the fall. Reproduced for a source if so for accuracy
    and silhouette; partly if one of the four holds. Intervals are over cells alone: how far a course of these cells,
    compounds and alignments wanders by chance is not in them. Engineered features stand in the evidence only.
    """
    courses = pick(numbers, protocol=COURSE)
    if without := refused(pick(courses, family=DEEP), why="there are no learned features"):
        return without
    found, others = {}, {}
    for (source, family), lines in courses.groupby(["source", "family"], sort=False):
        held, texts = [], []
        for measure, part in lines.groupby("measure", sort=False):
            rise, fall = (pick(part, turn=turn).iloc[0] for turn in (RISE, FALL))
            held += [rise["low"] > 0, fall["high"] < 0]
            told = plainly if measure == "silhouette" else points
            texts.append(f"{told(rise, f'{measure}: rise')}, {told(fall, 'fall')}")
        if family in DEEP:
            found[str(source)] = (verdict(all(held), any(held)), ", ".join(texts))
        else:
            others[str(source)] = ("engineered, not judged", ", ".join(texts))
    return together(found | others)


@needs_learning
def learned_gain(numbers: pd.DataFrame) -> Verdict:
    """Mean over k of pooled NSC and NSCB on codes of VAE+ and ImageNet features, step by k-NN without the compound.

    Reproduced for a source if the gains of WDN and of CORAL over TVN lie above 0 and that of WDN over CORAL above -2
    points, intervals over compounds and all, and every training has the gains. Not reproduced if an interval says the
    contrary, or if most of the differences themselves do not point the paper's way. Partly otherwise: point estimates
    alone cannot tell.
    """
    wdn, tvn = c.CROSS_VALIDATED["knn"], c.UNCORRECTED
    # Of each difference: what its interval must lie above, and what the difference itself must not lie below.
    wanted = {(wdn, c.CORAL): -MARGIN, (wdn, tvn): 0.0, (c.CORAL, tvn): 0.0}
    lines = gains(numbers, wanted, family=DEEP)
    if without := refused(lines, why="there are no learned features"):
        return without
    found = {}
    for source, group in lines.groupby("source", sort=False):
        bound = pd.Series([wanted[pair] for pair in zip(group["left"], group["right"], strict=True)], group.index)
        certain = (group["low"] > bound) & ((group["agree"] == 1) | (bound < 0))
        pointing = (group["value"] > 0) | ((bound < 0) & (group["value"] >= 0))
        contrary = (group["high"] < 0) & ~certain
        against = contrary.any() or 2 * pointing.sum() < len(group)
        words = {tvn: "TVN"}
        texts = [
            points(line, f"{line['left']} - {words.get(line['right'], line['right'])}, {line['measure']}")
            for _, line in group.iterrows()
        ]
        found[str(source)] = (verdict(certain.all(), not against), ", ".join(texts))
    return together(found)


def nothing_to_gain(numbers: pd.DataFrame) -> Verdict:
    """Mean over k of pooled NSC and NSCB on engineered features, WDN by both rules and CORAL against no correction.

    Reproduced for a source if all gains lie below 2 points, intervals over compounds and all; not reproduced if
    one surely lies above 2 points; partly otherwise, as it cannot be told then.
    """
    pairs = [(method, c.UNCORRECTED) for method in (*c.CROSS_VALIDATED.values(), c.CORAL)]
    lines = gains(numbers, pairs, family=ENGINEERED)
    if without := refused(lines, why="there are no engineered features"):
        return without
    found = {}
    for source, group in lines.groupby("source", sort=False):
        own = verdict((group["high"] < MARGIN).all(), not (group["low"] > MARGIN).any())
        texts = [points(r, f"{r['left']} - {r['right']}, {r['measure']}") for _, r in group.iterrows()]
        found[str(source)] = (own, ", ".join(texts))
    return together(found)


@needs_learning
def stopping_holds(numbers: pd.DataFrame) -> Verdict:
    """The step chosen without the compound that is scored, against the one chosen with all compounds.

    Mean over k of pooled NSC and NSCB. Reproduced for a source if both rules lose less than a point in both measures
    and no interval over compounds reaches down to a loss of 2 points; not reproduced if one lies wholly beyond a loss
    of a point; partly otherwise.
    """
    lines = gains(numbers, [(c.CROSS_VALIDATED[rule], c.HINDSIGHT[rule]) for rule in c.CROSS_VALIDATED])
    if without := refused(lines, why="nothing was aligned"):
        return without
    found = {}
    for source, group in lines.groupby("source", sort=False):
        cheap = ((group["value"] > -ONE_POINT) & (group["low"] > -MARGIN)).all()
        dear = (group["high"] < -ONE_POINT).any()
        same = pick(numbers, protocol=STOPPING, source=source, measure=SAME_STEP)["value"]
        worst = group.loc[group["value"].idxmin()]
        texts = [
            f"largest loss {points(worst, str(worst['measure']))}",
            f"lowest end of an interval {100 * group['low'].min():+.1f}",
            f"same step for {' and '.join(percent(value) for value in same)} % of compounds (k-NN, silhouette)",
        ]
        found[str(source)] = (verdict(cheap, not dear), ", ".join(texts))
    return together(found)


@needs_learning
def generalises(numbers: pd.DataFrame) -> Verdict:
    """Gap between weeks of the positive control on unseen plates, under maps fitted on DMSO, at the last step.

    In units of the gap without a map. Reproduced for a source if it is below 1 in every training, each with its
    interval over plates; partly if below 1 on average; not otherwise. Of a simulated screen the page's own week effect
    is judged, not the further strengths, and none without an effect: there is nothing to bring together.
    """
    lines = pick(numbers, protocol=CARRIED, main=1, measure=LEFT, fit=CONTROL)
    lines = lines[(lines["week_effect"] != 0) & (lines["step"] == lines.groupby("source")["step"].transform("max"))]
    treated = lines[lines["on"] != CONTROL]
    if without := refused(treated, why="there is no positive control in several weeks", bounded=False):
        return without
    found = {}
    for _, line in treated.iterrows():
        own = one(lines, source=line["source"], on=CONTROL)
        beside = f", {CONTROL} itself {share(own)}" if own is not None else ""
        surely = f" (surely below 1 in {line['agree'] * line['trainings']:.0f} of {line['trainings']:.0f} trainings)"
        text = f"gap left {line['on']} {share(line)}{surely}{beside}"
        found[str(line["source"])] = (verdict(line["agree"] == 1, line["value"] < 1), text)
    return together(found)


PREDICATES: dict[str, Predicate] = {
    "batch-falls": batch_falls,
    "rises-and-falls": rises_and_falls,
    "learned-gain": learned_gain,
    "nothing-to-gain": nothing_to_gain,
    "stopping-holds": stopping_holds,
    "generalises": generalises,
}
