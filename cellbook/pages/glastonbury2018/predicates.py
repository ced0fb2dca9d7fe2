"""What decides each claim of the page.

A claim needs at least three trainings of every model that it compares, and the premise of `judging`. The gain that it
asks for is that of the autoencoder before the game: what the adversary is meant to remove, it need not gain.
"""

from __future__ import annotations

import pandas as pd

from cellbook.claims import NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.pages.glastonbury2018.config import BEFORE, CONDITIONAL, FIFTY, ONE, PROTOCOL
from cellbook.pages.glastonbury2018.corrected import CORRECTIONS, ON_CELLS, PLAIN
from cellbook.pages.glastonbury2018.measures import LEFT, MOA, NAMED, NEAREST_WELL, WEEK
from cellbook.pages.glastonbury2018.probes import ALL, NEW, OWN, POSITIVE
from cellbook.study.judging import judged, needs, refused
from cellbook.study.rows import one
from cellbook.study.show import percent
from cellbook.study.words import points

TIMES = 3  # the null accuracy
MARGIN = 0.05  # of accuracy, about five treatments: less than this is "as good"; ours, as the paper has no test
LEFT_OF_WEEK = f"{NEAREST_WELL}, {POSITIVE}"


def paired(numbers: pd.DataFrame, a: str, b: str, measure: str, summary: str = PLAIN) -> pd.Series | None:
    """The line of a variant less another."""
    return one(numbers, setting=f"{a}, {summary} - {b}, {PLAIN}", protocol="paired", measure=measure)


def above(line: pd.Series) -> bool:
    """Whether a difference lies above 0 in every training and with its interval."""
    return bool(line["low"] > 0 and line["agree"] == 1)


def below(line: pd.Series) -> bool:
    """Whether it lies below 0 in every training and with its interval."""
    return bool(line["high"] < 0 and line["agree"] == 1)


def differences(lines: list[pd.Series]) -> list[str]:
    """Differences with their intervals, as evidence."""
    return [points(line, f"{line['setting']}, {line['measure']}:") for line in lines]


def levels(lines: list[pd.Series]) -> list[str]:
    """Proportions with their intervals and what stands for chance, as evidence."""
    return [
        f"{line['setting']}, {line['measure']}: {percent(line['value'], line['low'], line['high'])} (chance "
        f"{percent(line['null'])})"
        for line in lines
    ]


@needs([BEFORE, ONE, FIFTY], [MOA.name])
def lowers_week(numbers: pd.DataFrame) -> Verdict:
    """Week accuracy of the paper's protocol for lambda 1 and 50 against lambda 0.

    Lower is: in every training, with an interval below 0. Reproduced if both are lower, partly if one is, else not.
    """
    lines = [paired(numbers, name, BEFORE, WEEK.name) for name in (ONE, FIFTY)]
    return refused(lines, 2) or judged(map(below, lines), differences(lines))  # type: ignore[arg-type]


@needs([BEFORE, ONE, FIFTY], [MOA.name])
def costs_mechanisms(numbers: pd.DataFrame) -> Verdict:
    """MOA accuracy for lambda 1 and 50: certainly lower than for lambda 0, and certainly above three times the null.

    Lower is: in every training, with an interval below 0; above is: with its whole interval. Reproduced if all four
    hold, partly if some do, else not.
    """
    falls = [paired(numbers, name, BEFORE, MOA.name) for name in (ONE, FIFTY)]
    own = [one(numbers, setting=f"{name}, {PLAIN}", protocol=PROTOCOL, measure=MOA.name) for name in (ONE, FIFTY)]
    if verdict := refused([*falls, *own], 4):
        return verdict
    held = [*map(below, falls), *(line["low"] > TIMES * line["null"] for line in own)]  # type: ignore[arg-type]
    return judged(held, [*differences(falls), *levels(own)])  # type: ignore[arg-type]


@needs([ONE, FIFTY], [MOA.name])
def fifty_removes_more(numbers: pd.DataFrame) -> Verdict:
    """Week accuracy of the paper's protocol for lambda 50 against lambda 1.

    Reproduced if it is lower in every training, with an interval below 0; partly if it is lower on average; else not.
    """
    line = paired(numbers, FIFTY, ONE, WEEK.name)
    if verdict := refused([line]):
        return verdict
    verdict = REPRODUCED if below(line) else PARTLY if line["value"] < 0 else NOT  # type: ignore[arg-type, index]
    return Verdict(verdict, differences([line])[0])  # type: ignore[list-item]


@needs([BEFORE], [MOA.name])
def week_is_there(numbers: pd.DataFrame) -> Verdict:
    """Lambda 0: week accuracy above the largest week, and in wells of the positive control above chance.

    The second cannot come from compounds, which share a week. Above is: with the whole interval. Reproduced if both
    hold, partly if one does, else not.
    """
    lines = [
        one(numbers, setting=f"{BEFORE}, {PLAIN}", protocol=PROTOCOL, measure=WEEK.name),
        one(numbers, setting=f"{BEFORE}, {PLAIN}, {POSITIVE}", protocol=LEFT, measure=NEAREST_WELL),
    ]
    if verdict := refused(lines, 2):
        return verdict
    return judged((line["low"] > line["null"] for line in lines), levels(lines))  # type: ignore[arg-type, index]


@needs([ONE, FIFTY], [MOA.name])
def fresh_probe_finds_more(numbers: pd.DataFrame) -> Verdict:
    """A new network of the adversary's size, on plates that it has not seen, against the adversary; single cells.

    The adversary has learned from these very cells, which favours it. More is: in every training, with an interval
    over plates above 0. Reproduced if the new network names the week of more cells for lambda 1 and for lambda 50,
    partly for one, else not.
    """
    settings = [f"{name}, {ALL}: {NEW} - {OWN}" for name in (ONE, FIFTY)]
    lines = [one(numbers, setting=setting, protocol="paired", measure=NAMED) for setting in settings]
    return refused(lines, 2) or judged(map(above, lines), differences(lines))  # type: ignore[arg-type]


@needs([FIFTY, CONDITIONAL], [MOA.name])
def conditional_keeps_more(numbers: pd.DataFrame) -> Verdict:
    """Lambda 50, an adversary that also sees the treatment against one that does not: MOA accuracy, and week left.

    Reproduced if MOA accuracy is higher in every training, with an interval above 0, and the nearest positive control
    well is not certainly more often of the same week; partly if only the first holds; else not.
    """
    lines = [paired(numbers, CONDITIONAL, FIFTY, measure) for measure in (MOA.name, LEFT_OF_WEEK)]
    if verdict := refused(lines, 2):
        return verdict
    more, week = lines
    verdict = NOT if not above(more) else PARTLY if week["low"] > 0 else REPRODUCED  # type: ignore[arg-type, index]
    return Verdict(verdict, "; ".join(differences(lines)))  # type: ignore[arg-type]


@needs([BEFORE, FIFTY], [MOA.name])
def controls_do_as_well(numbers: pd.DataFrame) -> Verdict:
    """Each correction of the codes of lambda 0, fitted on DMSO wells, against lambda 50 without any.

    As well is: MOA accuracy certainly no more than 5 points lower, and the nearest positive control well certainly no
    more than 5 points more often of the same week. Reproduced if all four corrections do as well, partly if some do,
    else not.
    """
    pairs = [
        [paired(numbers, BEFORE, FIFTY, measure, correction) for measure in (MOA.name, LEFT_OF_WEEK)]
        for correction in CORRECTIONS
        if correction not in ON_CELLS
    ]
    lines = [line for pair in pairs for line in pair]
    if verdict := refused(lines, len(lines)):
        return verdict
    held = [moa["low"] > -MARGIN and week["high"] < MARGIN for moa, week in pairs]  # type: ignore[index]
    return judged(held, differences(lines))  # type: ignore[arg-type]


PREDICATES: dict[str, Predicate] = {
    "lowers-week": lowers_week,
    "costs-mechanisms": costs_mechanisms,
    "fifty-removes-more": fifty_removes_more,
    "week-is-there": week_is_there,
    "fresh-probe-finds-more": fresh_probe_finds_more,
    "conditional-keeps-more": conditional_keeps_more,
    "controls-do-as-well": controls_do_as_well,
}
