"""What to do, in sentences: every one is made from the tables and holds the numbers that it rests on."""

from __future__ import annotations

import pandas as pd

from cellbook.pages.comparison.config import (
    CENTRED,
    CHANGES,
    CHOICE,
    CONSISTENCY,
    CORRECTIONS,
    EVERYTHING,
    GAINS,
    MEASURED,
    NONE,
    NSC,
    NSCB,
    PLAINLY,
    PRECISION,
    PREDICTS,
    RESTORED,
    SILHOUETTE,
    TRUTH,
    UNTRAINED_ONLY,
    WEEK,
    WHITENED,
)
from cellbook.study.rows import one, pick
from cellbook.study.show import percent
from cellbook.study.words import points

WITHOUT_GPU, WITH_GPU, CONFOUNDED = "Controls and no GPU", "Controls and a GPU", "Weeks confounded"
LEARNED, RANKS, PREDICTED = "What training gains", "How far to trust a ranking", "What ranks as the truth does"
SURE = 0.95  # probability of a rank
NOUNS = {WHITENED: "whitening", CENTRED: "centring by week"}
BIOLOGY = {  # what a correction may cost, in words
    NSC: NSC,
    NSCB: NSCB,
    PRECISION[CONSISTENCY]: "mAP of consistency",
    SILHOUETTE: SILHOUETTE,
    TRUTH: "agreement with the truth",
    RESTORED: "distances as without weeks",
}
FIRST = (WITHOUT_GPU, CONFOUNDED, RANKS)  # those of the first page


def sentences(
    numbers: pd.DataFrame, ranks: pd.DataFrame, choices: pd.DataFrame, compared: pd.DataFrame
) -> pd.DataFrame:
    """Sentences by situation: situation, first (whether it stands on the first page), sentence."""
    found = {
        WITHOUT_GPU: without_gpu(numbers, choices) + by_truth(numbers, choices, compared),
        WITH_GPU: with_gpu(numbers, choices),
        CONFOUNDED: confounded(numbers),
        LEARNED: learned(numbers),
        RANKS: not_to_trust(ranks),
        PREDICTED: predicted(numbers),
    }
    rows = [(name, name in FIRST, text) for name, text in found.items() if text]
    return pd.DataFrame(rows, columns=["situation", "first", "sentence"])


def share(line: pd.Series | None) -> str:
    """A proportion with its interval, in per cent."""
    return "–" if line is None else percent(line["value"], line["low"], line["high"])


def plainly(line: pd.Series) -> str:
    """A correlation with its interval."""
    return f"{line['value']:.2f} [{line['low']:.2f}, {line['high']:.2f}]"


def surely(line: pd.Series) -> bool:
    """Whether an interval leaves out 0."""
    return bool(line["low"] > 0 or line["high"] < 0)


def certainty(line: pd.Series) -> str:
    """Which way a difference goes, and whether surely, in words."""
    if line["value"] == 0:
        return "no change"
    return ("up" if line["value"] > 0 else "down") + (", surely" if surely(line) else ", which may be chance")


def top(choices: pd.DataFrame, among: str) -> pd.Series | None:
    """The point that most compounds chose."""
    own = choices[choices["among"] == among]
    return own.iloc[own["compounds"].argmax()] if len(own) else None


def without_gpu(numbers: pd.DataFrame, choices: pd.DataFrame) -> str:
    """What to take where nothing can be trained."""
    best = top(choices, UNTRAINED_ONLY)
    if best is None:
        return ""
    nsc, nscb = (one(numbers, protocol=CHOICE, setting=UNTRAINED_ONLY, measure=name) for name in (NSC, NSCB))
    return (
        f"With control wells on every plate and no GPU, take {best['variant']}, {in_words(best['summary'])}. "
        f"Chosen anew for each of {best['of']} compounds by all others, it is this one {best['compounds']} times, and "
        f"choices made so score NSC {share(nsc)} and NSCB {share(nscb)} per cent on the compounds that had no say."
        f"{week_of(numbers, best)}"
    )


def by_truth(numbers: pd.DataFrame, choices: pd.DataFrame, compared: pd.DataFrame) -> str:
    """What the truth would have chosen there, as a sentence; empty where it is not known."""
    lines, best = pick(numbers, protocol=MEASURED, measure=TRUTH), top(choices, UNTRAINED_ONLY)
    plain = compared.index[compared["kind"] == PLAINLY]
    lines = lines[lines["variant"].isin(plain) & lines["summary"].isin(CORRECTIONS)]
    if lines.empty or best is None:
        return ""
    first = lines.iloc[lines["value"].argmax()]
    if (first["variant"], first["summary"]) == (best["variant"], best["summary"]):
        return f" The known truth chooses the same, with an agreement of {plainly(first)}."
    chosen = one(lines, variant=best["variant"], summary=best["summary"])
    here = "" if chosen is None else f", and {plainly(chosen)} here"
    return (
        f" The known truth, which no real screen has, agrees best with {first['variant']}, "
        f"{in_words(first['summary'])}: {plainly(first)}{here}."
    )


def in_words(summary: str) -> str:
    """A correction behind the name of a representation."""
    if summary == NONE:
        return "uncorrected"
    return f"corrected by {summary}" if summary[0].isupper() else summary


def week_of(numbers: pd.DataFrame, point: pd.Series) -> str:
    """What is left of the week under a choice, as a sentence; empty where that cannot be asked."""
    line = one(numbers, protocol=MEASURED, variant=point["variant"], summary=point["summary"], measure=WEEK)
    if line is None:
        return ""
    chance = f"; by chance it would be {percent(line['null'])}" if pd.notna(line["null"]) else ""
    return f" Of its {line['kind']} wells, {share(line)} per cent lie nearest to one of their own week{chance}."


def with_gpu(numbers: pd.DataFrame, choices: pd.DataFrame) -> str:
    """What trained networks add to that."""
    best = top(choices, EVERYTHING)
    lines = [
        one(numbers, protocol=CHOICE, setting=f"{EVERYTHING} - {UNTRAINED_ONLY}", measure=name) for name in (NSC, NSCB)
    ]
    if best is None or any(line is None for line in lines):
        return ""
    changed = ", ".join(f"{line['measure']} {points(line)} ({certainty(line)})" for line in lines)  # type: ignore[index, arg-type]
    return (
        f"If the networks of the book may be chosen as well, trained or not, it is {best['variant']}, "
        f"{in_words(best['summary'])}, {best['compounds']} of {best['of']} times. Beside the choice without any "
        f"training this changes {changed}."
    )


def confounded(numbers: pd.DataFrame) -> str:
    """Which correction surely removes some of the week without a sure cost to biology, and which ones cost."""
    weeks = pick(numbers, protocol=CHANGES, measure=WEEK)
    if weeks.empty:
        return ""
    # Averages over some of the representations are not of the same things as averages over all.
    weeks = weeks[weeks["representations"] == weeks["representations"].max()]
    costs = weeks["summary"].map(lambda name: cost(numbers, name))
    safe = weeks[(costs == "") & (weeks["high"] < 0)]
    where = "Where compounds are confounded with weeks"
    text = f"{where}, no correction surely removes any of the week without a sure cost to biology"
    if len(safe):
        goal = TRUTH if TRUTH in set(numbers["measure"]) else NSCB
        gains = pick(numbers, protocol=CHANGES, measure=goal).set_index("summary")["value"]
        best = safe.iloc[gains.reindex(safe["summary"], fill_value=0).argmax()]
        text = (
            f"{where}, take {NOUNS.get(best['summary'], best['summary'])}. Of the corrections that surely "
            f"remove some of the week without a sure cost to biology it does most for {BIOLOGY[goal]}: "
            f"averaged over {best['representations']:.0f} representations, the "
            f"share of {best['kind']} wells nearest to one of their own week changes by {points(best)}, "
            f"{NSCB} by {change(numbers, best['summary'], NSCB)}"
        )
        if goal == TRUTH:
            text += f", {BIOLOGY[TRUTH]} by {change(numbers, best['summary'], TRUTH)}"
    told = [f"{name} ({paid})" for name, paid in zip(weeks["summary"], costs, strict=True) if paid]
    return f"{text}." + (f" Surely at a cost: {'; '.join(told)}." if told else "")


def cost(numbers: pd.DataFrame, correction: str) -> str:
    """What a correction surely lowers of all that is measured of biology, in words; empty if nothing."""
    lines = pick(numbers, protocol=CHANGES, summary=correction, measure=[*BIOLOGY])
    lower = [line for _, line in lines.iterrows() if line["high"] < 0]
    return ", ".join(f"{BIOLOGY[line['measure']]} {difference(line)}" for line in lower)


def change(numbers: pd.DataFrame, correction: str, measure: str) -> str:
    """What a correction changes of a measure, with its certainty."""
    line = one(numbers, protocol=CHANGES, summary=correction, measure=measure)
    return "–" if line is None else f"{difference(line)} ({certainty(line)})"


def difference(line: pd.Series) -> str:
    """A difference of accuracies in points, or of other measures as it is, with its interval."""
    if line["measure"] in (NSC, NSCB, WEEK):
        return points(line)
    return f"{line['value']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]"


def learned(numbers: pd.DataFrame) -> str:
    """Whether networks beat themselves before their first step."""
    lines = pick(numbers, protocol=GAINS, measure=NSC, summary=WHITENED)
    if lines.empty:
        return ""
    best, sure = lines.iloc[lines["value"].argmax()], (lines["low"] > 0).sum()
    return (
        f"Of {len(lines)} trained networks, {sure} surely beat their own network before its first step in NSC "
        f"(whitened profiles). The most that training changes is {points(best)}, of {best['variant']}."
    )


def not_to_trust(ranks: pd.DataFrame) -> str:
    """How sure the first place is."""
    own = ranks[(ranks["of"] == "point") & (ranks["measure"] == NSC) & (ranks["rank"] == 1)]
    if own.empty:
        return ""
    best, likely = (own.iloc[own[name].argmax()] for name in ("value", "probability"))
    likely_one = "A first place is likely and not sure" if best["probability"] > 0.5 else "Do not trust a first place"
    head = "The first place is sure" if best["probability"] >= SURE else likely_one
    text = (
        f"{head}. Of {len(own)} pairs of a representation and a correction, that of {pair(best['name'])} has the "
        f"highest NSC, {percent(best['value'])} per cent, and with other compounds would be first in "
        f"{percent(best['probability'])} per cent of the cases"
    )
    if likely["name"] != best["name"]:
        text += f"; the likeliest first is {pair(likely['name'])}, {percent(likely['probability'])} per cent"
    return f"{text}."


def pair(name: str) -> str:
    """A representation and its correction, of which the name is made, in words."""
    summary = max((one for one in CORRECTIONS if name.endswith(f", {one}")), key=len, default="")
    return f"{name.removesuffix(f', {summary}')}, {in_words(summary)}" if summary else name


def predicted(numbers: pd.DataFrame) -> str:
    """Which measure ranks as the truth does; empty where no truth is known."""
    lines = pick(numbers, protocol=PREDICTS)
    nsc = one(lines, measure=NSC)
    if nsc is None:
        return ""
    best = lines.iloc[lines["best"].argmax()]
    return (
        f"The benchmark's NSC and the known truth rank {nsc['points']:.0f} pairs of a representation and a correction "
        f"with a correlation of {plainly(nsc)}. Of all measures {best['measure']} agrees best with the truth, "
        f"{plainly(best)}, and would do so with other compounds in {percent(best['best'])} per cent of the cases."
    )
