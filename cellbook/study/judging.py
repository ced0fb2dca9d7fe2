"""What the predicates of all pages share: when no verdict is given, and how several findings make one.

No verdict without its premise: what a network does that has hardly learned says nothing about a paper. A claim about
a trained model is judged if the model was trained on as many cell views as the paper's. With fewer it is judged if two
things hold in every training: the objective has flattened (`FLAT`), and the network beats its own untrained self on
every measure that the claim is about, with an interval above 0. Else the claim is undecided. A network that had its
whole budget and is no better than before its first step is a finding, and is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps

import numpy as np
import pandas as pd

from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED, UNDECIDED, Predicate, Verdict
from cellbook.study.rows import one, pick

LEAST = 3  # trainings behind a verdict
PREMISE = "premise"  # protocol of the lines that say how far a model was trained, see `premises`
VIEWS, PAPERS_VIEWS, CHANGE = "cell views", "cell views in the paper", "change of the objective"
FLAT = 0.01  # change from the mean of the tenth of the steps before the last tenth to that of the last, relative


def refused(
    lines: Sequence[pd.Series | None] | pd.DataFrame, needed: int = 1, why: str = "", *, bounded: bool = True
) -> Verdict | None:
    """Why no verdict is given: fewer lines than needed, a value or bound that is no number, too few trainings; or None.

    Parameters
    ----------
    lines : the lines of numbers that decide; None where one is not there
    needed : how many of them must be there
    why : what is missing where they are not, in words
    bounded : whether they must have an interval
    """
    found = [line for _, line in lines.iterrows()] if isinstance(lines, pd.DataFrame) else lines
    there = [line for line in found if line is not None]
    if len(there) < needed:
        return Verdict(INCOMPARABLE, f"not judged: {why or 'what it compares was not trained'}")
    columns = ["value", "low", "high"] if bounded else ["value"]
    unknown = [str(line["measure"]) for line in there if not np.isfinite(line[columns].astype(float)).all()]
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        return Verdict(INCOMPARABLE, f"not judged: {names} cannot be measured on this screen")
    trainings = int(min(line["trainings"] for line in there))
    if trainings < LEAST:
        return Verdict(INCOMPARABLE, f"not judged: {trainings} training(s), {LEAST} are needed")
    return None


def judged(held: Iterable[bool], evidence: Iterable[str]) -> Verdict:
    """Reproduced if everything holds, partly if something does."""
    held = list(held)
    return Verdict(REPRODUCED if all(held) else PARTLY if any(held) else NOT, "; ".join(evidence))


def not_worse(intervals: Iterable[tuple[float, float]], margin: float, evidence: str) -> Verdict:
    """Verdict on differences none of which may lie below 0 by more than the margin.

    Not reproduced if an interval lies wholly below 0; else reproduced if all lie above -margin; else partly.
    """
    intervals = list(intervals)
    if any(high < 0 for _, high in intervals):
        return Verdict(NOT, evidence)
    return Verdict(REPRODUCED if all(low > -margin for low, _ in intervals) else PARTLY, evidence)


def together(found: dict[str, tuple[str, str]]) -> Verdict:
    """One verdict from that of each source: what all that were judged say, else partly; undecided where none was.

    The evidence names every source. What a source has instead of a verdict is not counted.
    """
    verdicts = {verdict for verdict, _ in found.values()} & {REPRODUCED, PARTLY, NOT} or {UNDECIDED}
    parts = tuple((source, own, text) for source, (own, text) in found.items())
    evidence = "; ".join(f"{source} ({own}): {text}" for source, own, text in parts)
    return Verdict(verdicts.pop() if len(verdicts) == 1 else PARTLY, evidence, parts)


# --- the premise of a verdict ---------------------------------------------------------------------------------------


def gain(measure: str) -> str:
    """Name of a line: how much better than its own untrained self a network is by a measure, above 0 if better."""
    return f"gain over untrained, {measure}"


def lacking(lines: pd.DataFrame, measures: Iterable[str]) -> str:
    """What of its premise a verdict on a trained model lacks, in words with all its numbers; empty if nothing.

    Parameters
    ----------
    lines : those of the model under the protocol `PREMISE`: `VIEWS` and `PAPERS_VIEWS` once, and of every training
        `CHANGE` and the gain in each measure
    measures : that the claim is about
    """
    views, papers = (one(lines, measure=name) for name in (VIEWS, PAPERS_VIEWS))
    if views is None or papers is None:
        return "it is not known on how many cell views it was trained"
    if views["value"] >= papers["value"]:
        return ""
    changes = pick(lines, measure=CHANGE)["value"].dropna()  # missing of a history that is too short
    gains = {name: pick(lines, measure=gain(name)) for name in measures}
    asked = len(changes) and all(len(found) == len(changes) for found in gains.values())
    surely = all((found["low"] > 0).all() for found in gains.values())
    if asked and surely and (changes.abs() < FLAT).all():
        return ""
    text = f"change of the objective up to {100 * changes.abs().max():.1f} %" if len(changes) else "objective not kept"
    texts = [f"{views['value']:,.0f} of {papers['value']:,.0f} cell views", text]
    for name, found in gains.items():
        least = found.loc[found["low"].idxmin()] if len(found) else {}
        number = "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**least) if len(found) else "not measured"
        texts.append(f"least {gain(name)}, {number}")
    return ", ".join(texts)


def needs(variants: Sequence[str], measures: Sequence[str]) -> Callable[[Predicate], Predicate]:
    """Let a predicate decide only where these models have the premise of a verdict on these measures."""

    def premised(predicate: Predicate) -> Predicate:
        @wraps(predicate)
        def gated(numbers: pd.DataFrame) -> Verdict:
            found = predicate(numbers)
            if found.verdict == INCOMPARABLE:
                return found
            of = {variant: pick(numbers, protocol=PREMISE, variant=variant) for variant in variants}
            without = [f"{variant}: {why}" for variant in variants if (why := lacking(of[variant], measures))]
            return Verdict(UNDECIDED, "; ".join([*without, f"measured: {found.evidence}"])) if without else found

        return with_premise(gated, ", ".join(variants), measures)

    return premised


def with_premise(predicate: Predicate, of: str, measures: Sequence[str]) -> Predicate:
    """A predicate that says for which models and measures it needs a premise, for `claims.rules`."""
    asked = f" and a gain over the untrained network, of {of}; {', '.join(measures)}" if measures else f", of {of}"
    predicate.premise = (  # type: ignore[attr-defined]
        f"the paper's cell views; or with fewer, in every training, an objective that has flattened{asked}"
    )
    return predicate
