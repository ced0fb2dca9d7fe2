"""What the predicates of all pages share: when no verdict is given, and how several findings make one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED, Verdict

LEAST = 3  # trainings behind a verdict


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

    Reproduced if all intervals lie above -margin; not reproduced if one lies below 0; else partly: undecided.
    """
    intervals = list(intervals)
    if any(high < 0 for _, high in intervals):
        return Verdict(NOT, evidence)
    return Verdict(REPRODUCED if all(low > -margin for low, _ in intervals) else PARTLY, evidence)


def together(found: dict[str, tuple[str, str]]) -> Verdict:
    """One verdict from that of each source: what all of them say, else partly; the evidence names every source."""
    verdicts = {verdict for verdict, _ in found.values()}
    parts = tuple((source, own, text) for source, (own, text) in found.items())
    evidence = "; ".join(f"{source} ({own}): {text}" for source, own, text in parts)
    return Verdict(verdicts.pop() if len(verdicts) == 1 else PARTLY, evidence, parts)
