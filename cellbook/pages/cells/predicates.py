"""The claims of the page as tests of the measured numbers."""

from __future__ import annotations

import pandas as pd

from cellbook.claims import INCOMPARABLE, Predicate, Verdict
from cellbook.pages.cells.config import BY_PLATE, PERMUTED, POOLED
from cellbook.pages.cells.measures import ABSENT, CELLPROFILER, DROP, SIMULATED, has_real, strengths
from cellbook.study.judging import judged
from cellbook.study.rows import pick
from cellbook.study.show import percent
from cellbook.study.words import points

NEAR = 0.10  # proportions: what "about as hard as the real screen" means
CHANCE = 0.02  # proportions: how near to chance permuted labels must come


def week_zero(numbers: pd.DataFrame) -> Verdict:
    """Without weeks the drop is smaller, and NSCB inside what as many right and wrong candidates less leave."""
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
    """Permuted labels are near the chance that two labels agree, and every true accuracy is above them."""
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
    """Mean over seeds within ten points of the CellProfiler profiles: NSC, NSCB and the drop."""
    if not has_real(numbers):
        return Verdict(INCOMPARABLE, ABSENT)
    effect = strengths(numbers)[0]
    rows = pick(numbers, scaling=BY_PLATE)
    simulated = pick(rows, screen=SIMULATED, week_effect=effect, profile=PERMUTED)
    real = pick(rows, screen=CELLPROFILER, profile=CELLPROFILER)
    held, evidence = [], []
    for protocol, measure in (("ljosa2013", "NSC"), ("ljosa2013", "NSCB"), ("drop", DROP)):
        found = pick(simulated, protocol=protocol, measure=measure)["value"]
        wanted = pick(real, protocol=protocol, measure=measure)["value"].iloc[0]
        held.append(bool(abs(found.mean() - wanted) <= NEAR))
        spread = f" (seeds {percent(found.min())} to {percent(found.max())})" if len(found) > 1 else ""
        evidence.append(f"{measure}: {percent(found.mean())}{spread}, CellProfiler {percent(wanted)}")
    return judged(held, evidence)


def nuclei_found(numbers: pd.DataFrame) -> Verdict:
    """Recall above 90 % in all fields together and in each, for both methods."""
    if not has_real(numbers):
        return Verdict(INCOMPARABLE, ABSENT)
    rows = pick(numbers, protocol="nuclei", measure="recall")
    together = pick(rows, field="all fields")
    text = [f"{line.method}: {percent(line.value, line.low, line.high)}" for line in together.itertuples()]
    worst = rows["value"].min()
    held = [bool((together["low"] > 0.9).all()), bool(worst > 0.9)]
    return judged(held, [*text, f"worst field {percent(worst)}"])


def classical_wins(numbers: pd.DataFrame) -> Verdict:
    """The whole interval of each paired difference is above zero."""
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
