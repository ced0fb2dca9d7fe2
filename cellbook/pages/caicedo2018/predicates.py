"""What decides each claim of the page.

A claim needs at least three trainings of every model that it compares, and the premise of `judging`.
"""

from __future__ import annotations

import pandas as pd

from cellbook.claims import NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.pages.caicedo2018 import genes
from cellbook.pages.caicedo2018.config import LAYERS
from cellbook.pages.caicedo2018.measures import FIRST, LAST, NSC, NSCB, VALIDATION, WHITENED
from cellbook.pages.caicedo2018.models import BASELINE, MIXUP, RECURRENT
from cellbook.study.encoding import CLASSICAL
from cellbook.study.judging import judged, needs, refused
from cellbook.study.rows import one
from cellbook.study.words import points

BOTH = (NSC, NSCB)


def paired(numbers: pd.DataFrame, setting: str, measure: str, protocol: str = "paired") -> pd.Series | None:
    """The line of a paired difference."""
    return one(numbers, setting=setting, protocol=protocol, measure=measure)


def surely(line: pd.Series) -> bool:
    """Whether a difference lies above 0 in every training and with its interval."""
    return bool(line["low"] > 0 and line["agree"] == 1)


def surely_less(line: pd.Series) -> bool:
    """Whether a difference lies below 0 in every training and with its interval."""
    return bool(line["high"] < 0 and line["agree"] == 1)


def words(lines: list[pd.Series]) -> list[str]:
    """Differences with their intervals, as evidence."""
    return [points(line, f"{line['setting']}, {line['measure']}:") for line in lines]


@needs([BASELINE], BOTH)
def better_than_classical(numbers: pd.DataFrame) -> Verdict:
    """The baseline against classical features, both whitened, for NSC and NSCB.

    Better is: in every training, with an interval above 0. Reproduced if it is better by both, partly by one, else not.
    """
    lines = [paired(numbers, f"{BASELINE} - {CLASSICAL}, {WHITENED}", measure) for measure in BOTH]
    return refused(lines, 2) or judged(map(surely, lines), words(lines))  # type: ignore[arg-type]


@needs([BASELINE], [NSC])
def middle_is_best(numbers: pd.DataFrame) -> Verdict:
    """The best of the layers 3a to 4b of the baseline against the first, 2a, and the last, 5b; whitened, NSC.

    Better is: in every training, with an interval above 0. Reproduced if it is better than both, partly than one, else
    not.
    """
    settings = [f"{BASELINE}, best of the middle - {end}, {WHITENED}" for end in (FIRST, LAST)]
    lines = [paired(numbers, setting, NSC) for setting in settings]
    return refused(lines, 2) or judged(map(surely, lines), words(lines))  # type: ignore[arg-type]


@needs([BASELINE], [NSC])
def whitening_helps_everywhere(numbers: pd.DataFrame) -> Verdict:
    """Whitened against plain means at every layer of the baseline, NSC, as in the paper's figure.

    Reproduced if every layer gains and none loses in any training; partly if more than half of them gain; else not.
    """
    settings = [f"{BASELINE}, layer {layer}: whitened - mean" for layer in LAYERS]
    lines = [line for setting in settings if (line := paired(numbers, setting, NSC)) is not None]
    if verdict := refused(lines, len(LAYERS)):
        return verdict
    gain = [line["value"] > 0 and line["agree"] == 1 for line in lines]
    found = REPRODUCED if all(gain) else PARTLY if sum(gain) > len(gain) / 2 else NOT
    return Verdict(found, "; ".join(words(lines)))


@needs([BASELINE, MIXUP], BOTH)
def mixup_across_weeks(numbers: pd.DataFrame) -> Verdict:
    """Mixup against the baseline, whitened: NSCB above, NSC not above.

    Reproduced if mixup gains NSCB in every training, with an interval above 0, and loses NSC on average; partly if it
    gains on average in NSCB; else not.
    """
    lines = [paired(numbers, f"{MIXUP} - {BASELINE}, {WHITENED}", measure) for measure in (NSCB, NSC)]
    if verdict := refused(lines, 2):
        return verdict
    across, within = (line for line in lines if line is not None)
    held = surely(across) and within["value"] < 0
    found = REPRODUCED if held else PARTLY if across["value"] > 0 else NOT
    return Verdict(found, "; ".join(words([across, within])))


@needs([BASELINE, RECURRENT], BOTH)
def sets_cost_both(numbers: pd.DataFrame) -> Verdict:
    """The recurrent model against the baseline, whitened: NSC and NSCB below.

    Below is: in every training, with an interval below 0. Reproduced if both are, partly if one is, else not.
    """
    lines = [paired(numbers, f"{RECURRENT} - {BASELINE}, {WHITENED}", measure) for measure in BOTH]
    return refused(lines, 2) or judged(map(surely_less, lines), words(lines))  # type: ignore[arg-type]


@needs([BASELINE, MIXUP], [NSCB])
def tells_less_matches_more(numbers: pd.DataFrame) -> Verdict:
    """Mixup against the baseline: treatments of validation cells are told less often, NSCB (whitened) is higher.

    Each is: in every training, with an interval on that side of 0. Reproduced if both hold, partly if one does, else
    not.
    """
    told = paired(numbers, f"{MIXUP} - {BASELINE}", VALIDATION)
    main = paired(numbers, f"{MIXUP} - {BASELINE}, {WHITENED}", NSCB)
    return refused([told, main], 2) or judged([surely_less(told), surely(main)], words([told, main]))  # type: ignore[arg-type,list-item]


@needs(genes.NETWORKS, [genes.GENE])
def genes_gain(numbers: pd.DataFrame) -> Verdict:
    """On the genetic screen, whitened, gene accuracy: both regularised models above the baseline, mixup above sets.

    Above is: in every training, with an interval above 0. Reproduced if all three are, partly if one is, else not.
    """
    plain, sets, mixed = genes.NETWORKS
    pairs = ((sets, plain), (mixed, plain), (mixed, sets))
    lines = [paired(numbers, f"{a} - {b}, {WHITENED}", genes.GENE, genes.PAIRED) for a, b in pairs]
    return refused(lines, 3) or judged(map(surely, lines), words(lines))  # type: ignore[arg-type]


PREDICATES: dict[str, Predicate] = {
    "better-than-classical": better_than_classical,
    "middle-is-best": middle_is_best,
    "whitening-helps-everywhere": whitening_helps_everywhere,
    "mixup-across-weeks": mixup_across_weeks,
    "sets-cost-both": sets_cost_both,
    "tells-less-matches-more": tells_less_matches_more,
    "genes-gain": genes_gain,
}
