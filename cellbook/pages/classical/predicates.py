"""The claims of the page as tests of the measured numbers."""

from __future__ import annotations

import pandas as pd

from cellbook.claims import NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.pages.classical.measures import AS_SCALED
from cellbook.study.judging import judged
from cellbook.study.rows import one, pick
from cellbook.study.show import percent
from cellbook.study.words import points

NEUTRAL = 0.05  # proportions: what "changes accuracy by less than five points" means


def rising(rows: pd.DataFrame, words: str, names: list[str]) -> Verdict:
    """Verdict on differences that should be positive: surely in all, or above zero in more than half of them."""
    surely, above = int((rows["low"] > 0).sum()), int((rows["value"] > 0).sum())
    verdict = REPRODUCED if surely == len(rows) else PARTLY if above > len(rows) / 2 else NOT
    texts = [points(line, f"{name}:") for name, (_, line) in zip(names, rows.iterrows(), strict=True)]
    return Verdict(verdict, f"{words.format(above=above, n=len(rows))}, surely in {surely}. {'; '.join(texts)}")


def factors_help(numbers: pd.DataFrame) -> Verdict:
    """NSC of 20 factors less that without factors, percentile scaling. Ljosa et al.: 94 % and 83 %.

    Reproduced if the whole interval of the paired difference is above zero, partly if the difference is, else not.
    """
    pair = {"scaling": "percentile", "left": "20 factors", "right": AS_SCALED}
    line = one(numbers, protocol="paired", measure="NSC", **pair)
    verdict = REPRODUCED if line["low"] > 0 else PARTLY if line["value"] > 0 else NOT
    return Verdict(verdict, points(line, "20 factors against none, percentile scaling, NSC:"))


def batch_drop(numbers: pd.DataFrame) -> Verdict:
    """NSC less NSCB, paired on the treatments that both score, in each setting that follows the drop.

    Reproduced if the whole interval is above zero in all settings, partly if the difference is in more than half of
    them, else not.
    """
    rows = pick(numbers, protocol="paired", left="NSC", right="NSCB")
    names = pick(numbers, protocol="drop", measure="NSC")[["scaling", "transform", "setting"]]
    of = rows[["scaling", "transform"]].merge(names, validate="one_to_one")["setting"].tolist()
    return rising(rows, "it falls in {above} of {n} settings", of)


def drop_beyond_thinning(numbers: pd.DataFrame) -> Verdict:
    """NSCB below what NSC leaves when as many right and wrong candidates are removed at random, in each setting.

    Below is: under the low end of the middle 95 % of the draws. Reproduced if so in all settings, partly if in some,
    else not.
    """
    held, texts = [], []
    for nscb in pick(numbers, protocol="drop", measure="NSCB").itertuples():
        left = one(numbers, protocol="drop", setting=nscb.setting, measure="as many right and wrong")
        held.append(bool(nscb.value < left["low"]))
        texts.append(f"{nscb.setting}: {percent(nscb.value)} and {percent(left['low'])}")
    head = f"below in {sum(held)} of {len(held)} settings; NSCB and the low end of the draws"
    return judged(held, [f"{head}: {'; '.join(texts)}"])


def coral_neutral(numbers: pd.DataFrame) -> Verdict:
    """50 factors with CORAL less 50 factors without, percentile scaling, paired, NSC and NSCB.

    Reproduced if both differences lie within five points of zero, intervals and all; partly if not, but both intervals
    hold zero; else not.
    """
    rows = pick(numbers, protocol="paired", scaling="percentile", left="50 factors, CORAL", right="50 factors")
    within = ((rows["low"] >= -NEUTRAL) & (rows["high"] <= NEUTRAL)).all()
    around = ((rows["low"] <= 0) & (rows["high"] >= 0)).all()
    verdict = REPRODUCED if within else PARTLY if around else NOT
    return Verdict(verdict, "; ".join(points(line, f"{line['measure']}:") for _, line in rows.iterrows()))


def controls_carry_week(numbers: pd.DataFrame) -> Verdict:
    """Logistic regression and a random forest name the week of DMSO wells on plates held out; 50 factors, percentile.

    Reproduced if both are above what they reach on Gaussian noise, with the whole interval over plates, partly if one
    is, else not.
    """
    held, texts = [], []
    leaked = pick(numbers, protocol="leakage")
    for line in pick(leaked, scaling="percentile", transform="50 factors").itertuples():
        noise = one(leaked, setting="noise", measure=line.measure)["value"]
        held.append(line.low > noise)
        texts.append(f"{line.measure}: {percent(line.value, line.low, line.high)}, noise {percent(noise)}")
    return judged(held, texts)


def whitening_needs_ridge(numbers: pd.DataFrame) -> Verdict:
    """Accuracy with a ridge of 1 less that with the smallest of the path, paired, each scaling, NSC and NSCB.

    Reproduced if the whole interval is above zero in all of them, partly if the difference is in more than half, else
    not.
    """
    rows = pick(numbers, protocol="paired", left="whitened 1")
    names = [f"{line.scaling}, {line.measure}" for line in rows.itertuples()]
    return rising(rows, "better in {above} of {n}", names)


PREDICATES: dict[str, Predicate] = {
    "factors-help": factors_help,
    "batch-drop": batch_drop,
    "drop-beyond-thinning": drop_beyond_thinning,
    "coral-neutral": coral_neutral,
    "controls-carry-week": controls_carry_week,
    "whitening-needs-ridge": whitening_needs_ridge,
}
