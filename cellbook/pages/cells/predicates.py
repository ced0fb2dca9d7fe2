"""The claims of the page as tests of the measured numbers."""

from __future__ import annotations

import pandas as pd

from cellbook.claims import INCOMPARABLE, Predicate, Verdict
from cellbook.pages.cells.config import BY_PLATE, PERMUTED, POOLED
from cellbook.pages.cells.measures import ABSENT, CELLPROFILER, DROP, SIMULATED, has_real, over_seeds, strengths
from cellbook.study.judging import judged
from cellbook.study.rows import pick
from cellbook.study.show import percent
from cellbook.study.words import points

NEAR = 0.10  # proportions: what "about as hard as the real screen" means
CHANCE = 0.02  # proportions: how near to chance permuted labels must come


def week_zero(numbers: pd.DataFrame) -> Verdict:
    """Classical features, means over seeds: without weeks the fall is smaller, and fewer candidates explain it.

    They do if, without weeks, NSCB is not below the low end of what as many right and wrong candidates less leave (the
    middle 95 % of the draws). All of the treatments that NSCB can score. Reproduced if both hold under either scaling,
    by plate and all plates alike; partly if they do under one; else not.
    """
    held, evidence = [], []
    strong, weak = strengths(numbers)[0], strengths(numbers)[-1]
    for scaling in (BY_PLATE, POOLED):
        of = {}
        for effect in (strong, weak):
            rows = pick(numbers, protocol="drop", screen=SIMULATED, scaling=scaling, week_effect=effect)
            of[effect] = rows.groupby("measure")[["value", "low"]].mean()  # over seeds
        falls = {effect: table.loc[DROP, "value"] for effect, table in of.items()}
        costs = {effect: t.loc["NSC", "value"] - t.loc["alike at random", "value"] for effect, t in of.items()}
        smaller = falls[weak] < falls[strong]
        explained = of[weak].loc["NSCB", "value"] >= of[weak].loc["alike at random", "low"]
        held.append(bool(smaller and explained))
        evidence.append(
            f"{scaling}: the fall is {100 * falls[strong]:.1f} points with weeks and {100 * falls[weak]:.1f} without; "
            f"fewer candidates alone cost {100 * costs[strong]:.1f} and {100 * costs[weak]:.1f}"
        )
    return judged(held, evidence)


def permuted_labels(numbers: pd.DataFrame) -> Verdict:
    """Classical features and CellProfiler profiles, every screen and seed: labels permuted against chance and true.

    Chance is that two labels agree. Reproduced if all means with permuted labels lie within two points of it and all
    true accuracies above the middle 95 % of the permutations, partly if one of the two holds, else not.
    """
    keys = ["screen", "seed", "week_effect", "scaling", "measure"]
    rows = pick(numbers, protocol="baseline", profile="labels permuted")
    true = pick(numbers, protocol="ljosa2013", profile=[PERMUTED, CELLPROFILER])
    both = rows.merge(true[[*keys, "value"]], on=keys, suffixes=("", "_true"), validate="one_to_one")
    near = bool(((rows["value"] - rows["null"]).abs() < CHANCE).all())
    above = int((both["value_true"] > both["high"]).sum())
    lowest, highest, chance = (percent(v) for v in (rows["value"].min(), rows["value"].max(), rows["null"].iloc[0]))
    text = f"permuted {lowest} to {highest}, chance {chance}"
    return judged([near, above == len(rows)], [text, f"true labels above that in {above} of {len(rows)}"])


def as_hard(numbers: pd.DataFrame) -> Verdict:
    """Classical features, mean over seeds, against CellProfiler profiles, scaled by plate: NSC, NSCB, the fall.

    The fall is of the treatments that NSCB can score. Reproduced if all three lie within ten points, partly if some do,
    else not. No interval plays a part.
    """
    if not has_real(numbers):
        return Verdict(INCOMPARABLE, ABSENT)
    effect = strengths(numbers)[0]
    rows = pick(numbers, scaling=BY_PLATE)
    simulated = pick(rows, screen=SIMULATED, week_effect=effect, profile=PERMUTED)
    real = pick(rows, screen=CELLPROFILER, profile=CELLPROFILER)
    held, evidence = [], []
    for protocol, measure in (("ljosa2013", "NSC"), ("ljosa2013", "NSCB"), ("drop", DROP)):
        found = pick(simulated, protocol=protocol, measure=measure)["value"]
        wanted = pick(real, protocol=protocol, measure=measure).iloc[0]
        held.append(bool(abs(found.mean() - wanted["value"]) <= NEAR))
        of = f", on the {wanted['scored']:.0f} treatments that NSCB can score" if measure == DROP else ""
        values = f"{percent(found.mean())}{over_seeds(found)}, CellProfiler {percent(wanted['value'])}"
        evidence.append(f"{measure}{of}: {values}")
    return judged(held, evidence)


def nuclei_found(numbers: pd.DataFrame) -> Verdict:
    """Recall of the published nuclei, both methods: above 90 % in all fields together and in each.

    Together with the whole interval, in each field by its value. Reproduced if both hold, partly if one does, else not.
    """
    if not has_real(numbers):
        return Verdict(INCOMPARABLE, ABSENT)
    rows = pick(numbers, protocol="nuclei", measure="recall")
    together = pick(rows, field="all fields")
    text = [f"{line.method}: {percent(line.value, line.low, line.high)}" for line in together.itertuples()]
    worst = rows["value"].min()
    held = [bool((together["low"] > 0.9).all()), bool(worst > 0.9)]
    return judged(held, [*text, f"worst field {percent(worst)}"])


def classical_wins(numbers: pd.DataFrame) -> Verdict:
    """Classical features less pixel components and less the random network, paired on the real crops, NSC and NSCB.

    Reproduced if the whole interval of each difference is above zero, partly if that of some is, else not.
    """
    if not has_real(numbers):
        return Verdict(INCOMPARABLE, ABSENT)
    rows = pick(numbers, protocol="paired")
    text = [points(line, f"{line['left']} - {line['right']}, {line['measure']}:") for _, line in rows.iterrows()]
    return judged(rows["low"] > 0, text)


PREDICATES: dict[str, Predicate] = {
    "week-zero": week_zero,
    "permuted-labels": permuted_labels,
    "as-hard-as-real": as_hard,
    "nuclei-found": nuclei_found,
    "classical-wins": classical_wins,
}
