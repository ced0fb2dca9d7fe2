"""What of the drop from NSC to NSCB is no batch effect: mechanisms of one week, and fewer candidates.

NSCB cannot score a mechanism whose treatments all lie in one week. The published notebook takes such treatments from
queries and candidates alike; others leave them among the candidates, where they can only mislead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cellbook import metrics
from cellbook.pages.caicedo2018.config import PROTOCOL
from cellbook.runs import Run
from cellbook.study import tables
from cellbook.study.course import MEANS
from cellbook.study.measured import fall, matched, stored_distances
from cellbook.study.rows import Draws, average, counts, pick
from cellbook.study.words import accuracy

NSC, NSCB = metrics.PROTOCOLS[PROTOCOL].measures
LONE = "one week, still candidates"
WHITENED = MEANS[1]
THINNINGS = 100  # random removals of candidates


def lines(runs: Iterable[Run], variants: Iterable[str], draws: Draws) -> Iterator[dict[str, Any]]:
    """Lines of NSC and NSCB where mechanisms of one week stay among the candidates, and of what fewer candidates cost.

    Of whitened means. The latter, see `measured.fall`, is without these mechanisms altogether.
    """
    wanted = set(variants)
    for run in runs:
        treatments = run.table("treatments")
        squares: dict[str, list[np.ndarray]] = {}
        for (variant, summary, _), square in stored_distances(run):
            if variant in wanted and summary == WHITENED:
                squares.setdefault(variant, []).append(square)
        asked = across_weeks(treatments)
        some = treatments[asked].reset_index(drop=True)
        for variant, each in squares.items() if asked.any() else ():
            setting, about = f"{variant}, {WHITENED}", {"variant": variant, "summary": WHITENED}
            within = [matched(treatments, square, NSC).where(asked) for square in each]
            across = [matched(treatments, square, replace(NSCB, drop_unmatchable=False)) for square in each]
            for measure, votes in ((NSC, within), (NSCB, across)):
                yield average(setting, LONE, measure.name, votes, draws, **counts(votes), **about)
            few = [square[np.ix_(asked, asked)] for square in each]
            both = {measure.name: [matched(some, square, measure) for square in few] for measure in (NSC, NSCB)}
            yield from fall(setting, some, few, both, Draws(THINNINGS, draws.seed), draws, **about)


def across_weeks(treatments: pd.DataFrame) -> np.ndarray:
    """Which treatments NSCB can score, (n,) bool: those of a mechanism with another compound in another week."""
    return metrics.measure_design(treatments, NSCB).scored


def one_week_words(treatments: pd.DataFrame) -> str:
    """Which mechanisms lie in one week, as a sentence; empty if none does."""
    asked = across_weeks(treatments)
    names = sorted(set(treatments.loc[~asked, "Metadata_moa"]))
    if not names:
        return ""
    return (
        f"NSCB cannot score {(~asked).sum()} of {len(asked)} treatments, those of {' and '.join(names)}, whose "
        f"compounds lie in one week: it has {asked.sum()} queries, NSC has {len(asked)}."
    )


def one_week_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """NSC and NSCB with mechanisms of one week as queries and candidates, as candidates alone, and left out."""
    of_all = {"protocol": PROTOCOL, "summary": WHITENED, "measure": NSC.name}
    parts = (("among both", of_all), ("candidates alone", {"protocol": LONE}), ("left out", {"protocol": "drop"}))
    named = [pick(numbers, **where).assign(how=how) for how, where in parts]
    there = pd.concat(named, ignore_index=True)
    there = there[
        there["measure"].isin([NSC.name, NSCB.name])
        & there["variant"].isin(there.loc[there["how"] == "left out", "variant"])
    ]
    names = [f"{m}, {how} ({n:.0f})" for m, how, n in there[["measure", "how", "scored"]].itertuples(index=False)]
    return tables.wide(there.assign(column=names), "variant", accuracy, "column").rename(columns={"variant": "profile"})


def fall_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """NSC, NSCB, and NSC with as many candidates removed at random in two ways, on the same queries."""
    lines_ = pick(numbers, protocol="drop")
    return tables.wide(lines_, "variant", accuracy).rename(columns={"variant": "profile"})
