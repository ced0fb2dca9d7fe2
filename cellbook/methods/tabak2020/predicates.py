"""What decides each claim of the page; no verdict from fewer than three trainings of every source that it looks at."""

from __future__ import annotations

import pandas as pd

from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.methods.tabak2020 import corrected as c
from cellbook.methods.tabak2020.leaking import week_protocol
from cellbook.methods.tabak2020.measures import CARRIED, COURSE, MEAN, PAIRED, STOPPING
from cellbook.methods.tabak2020.sources import ENGINEERED, LEARNED
from cellbook.tables import percent

LEAST = 3  # trainings behind a verdict
ONE_POINT = 0.01  # what choosing the step without the compound may cost
MEASURES = ("NSC", "NSCB")


def pick(numbers: pd.DataFrame, **where: str | float) -> pd.DataFrame:
    """Rows of the numbers in which every named column has the given value; of an empty table none."""
    if numbers.empty:
        return numbers
    for column, value in where.items():
        numbers = numbers[numbers[column] == value]
    return numbers


def line(numbers: pd.DataFrame, **where: str | float) -> pd.Series | None:
    """The one row with these values, or None."""
    found = pick(numbers, **where)
    return found.iloc[0] if len(found) else None


def refusal(lines: pd.DataFrame, what: str) -> Verdict | None:
    """Why no verdict is given, if none is."""
    if lines.empty:
        return Verdict(INCOMPARABLE, f"not judged: {what}")
    trainings = int(lines["trainings"].min())
    if trainings < LEAST:
        return Verdict(INCOMPARABLE, f"not judged: {trainings} training(s), {LEAST} are needed")
    return None


def together(found: dict[str, tuple[str, str]]) -> Verdict:
    """One verdict from that of each source: what all of them say, else partly; the evidence names every source."""
    verdicts = {verdict for verdict, _ in found.values()}
    verdict = verdicts.pop() if len(verdicts) == 1 else PARTLY
    return Verdict(verdict, "; ".join(f"{source} ({own}): {evidence}" for source, (own, evidence) in found.items()))


def points(row: pd.Series, label: str) -> str:
    """A difference of proportions in points, with its interval."""
    return f"{label} {100 * row['value']:+.1f} points [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


def batch_falls(numbers: pd.DataFrame) -> Verdict:
    """Paper's folds of rows, at the last step, against no correction, by both classifiers.

    Reproduced for a source if the week is named less often in every training and the interval over plates lies below
    0, for both; partly if for one. What holds on plates that no map has seen stands in the evidence.
    """
    protocol = week_protocol(c.ROWS)
    changes = pick(numbers, protocol=f"{protocol}, paired", method=f"{c.LAST} - {c.UNCORRECTED}")
    if refused := refusal(changes, "the week was not asked for"):
        return refused
    found = {}
    for source, rows in changes.groupby("source", sort=False):
        down = [(row["high"] < 0) and (row["agree"] == 1) for _, row in rows.iterrows()]
        texts = []
        for _, row in rows.iterrows():
            where = {"source": source, "protocol": protocol, "measure": row["measure"]}
            before, after, noise = (line(numbers, method=m, **where) for m in (c.UNCORRECTED, c.LAST, "noise"))
            values = " to ".join(percent(part["value"]) for part in (before, after) if part is not None)
            texts.append(f"{row['measure']} {values} % (noise {percent(noise['value']) if noise is not None else '–'})")
        new = line(
            numbers,
            source=source,
            protocol=f"{week_protocol(c.UNSEEN)}, paired",
            measure="logistic",
            method=f"{c.LAST} - {c.UNCORRECTED}",
        )
        texts += [points(new, "on unseen plates, logistic,")] if new is not None else []
        found[str(source)] = (REPRODUCED if all(down) else PARTLY if any(down) else NOT, ", ".join(texts))
    return together(found)


def rises_and_falls(numbers: pd.DataFrame) -> Verdict:
    """Course over map steps on learned features: both measures rise and then fall.

    Accuracy is the mean of NSC and NSCB over k. Of resampled cells, the central 95 % of the rise to the top of the mean
    course must lie above 0 and those of the fall from there to the last step below 0. Reproduced for a source if so for
    accuracy and silhouette; partly if one of the four holds. Engineered features stand in the evidence only.
    """
    rows = pick(numbers, protocol=COURSE)
    if refused := refusal(pick(rows, family=LEARNED), "there are no learned features"):
        return refused
    found, others = {}, []
    for source, group in rows.groupby("source", sort=False):
        held, texts = [], []
        for measure, part in group.groupby("measure", sort=False):
            rise, fall = (part[part["method"] == what].iloc[0] for what in ("rise", "fall"))
            held += [rise["low"] > 0, fall["high"] < 0]
            texts.append(f"{measure} rises {100 * rise['value']:.1f} and falls {-100 * fall['value']:.1f} points")
        verdict = REPRODUCED if all(held) else PARTLY if any(held) else NOT
        if group["family"].iloc[0] == LEARNED:
            found[str(source)] = (verdict, ", ".join(texts))
        else:
            others.append(f"{source} (engineered, not judged): {', '.join(texts)}")
    judged = together(found)
    return Verdict(judged.verdict, "; ".join([judged.evidence, *others]))


def learned_gain(numbers: pd.DataFrame) -> Verdict:
    """Mean over k of pooled NSC and NSCB on learned features, step by k-NN without the compound.

    Reproduced for a source if all differences point the paper's way: WDN not below CORAL, both above TVN. Not
    reproduced if one points against it with certainty, or if most do. The paper's own differences are two or three
    queries, which no interval over compounds can tell from 0.
    """
    wdn = c.CROSS_VALIDATED["knn"]
    wanted = {f"{wdn} - {c.CORAL}": 0.0, f"{wdn} - {c.UNCORRECTED}": 1e-12, f"{c.CORAL} - {c.UNCORRECTED}": 1e-12}
    rows = pick(numbers, protocol=PAIRED, k=MEAN, family=LEARNED)
    rows = rows[rows["method"].isin(list(wanted)) & rows["measure"].isin(MEASURES)]
    if refused := refusal(rows, "there are no learned features"):
        return refused
    found = {}
    for source, group in rows.groupby("source", sort=False):
        held = [row["value"] >= wanted[row["method"]] for _, row in group.iterrows()]
        against = (group["high"] < 0).any() or sum(held) * 2 < len(held)
        verdict = REPRODUCED if all(held) else NOT if against else PARTLY
        names = group["method"].str.replace(c.UNCORRECTED, "TVN") + ", " + group["measure"]
        texts = [points(row, label) for label, (_, row) in zip(names, group.iterrows(), strict=True)]
        found[str(source)] = (verdict, ", ".join(texts))
    return together(found)


def nothing_to_gain(numbers: pd.DataFrame) -> Verdict:
    """Mean over k of pooled NSC and NSCB on engineered features, WDN by both rules and CORAL against no correction.

    Reproduced for a source if no gain is above 0 with certainty; partly if some are; not if all are.
    """
    methods = [f"{method} - {c.UNCORRECTED}" for method in (*c.CROSS_VALIDATED.values(), c.CORAL)]
    rows = pick(numbers, protocol=PAIRED, k=MEAN, family=ENGINEERED)
    rows = rows[rows["method"].isin(methods) & rows["measure"].isin(MEASURES)]
    if refused := refusal(rows, "there are no engineered features"):
        return refused
    found = {}
    for source, group in rows.groupby("source", sort=False):
        gains = (group["low"] > 0).tolist()
        verdict = REPRODUCED if not any(gains) else NOT if all(gains) else PARTLY
        texts = [points(row, f"{row['method']}, {row['measure']}") for _, row in group.iterrows()]
        found[str(source)] = (verdict, ", ".join(texts))
    return together(found)


def stopping_holds(numbers: pd.DataFrame) -> Verdict:
    """The step chosen without the compound that is scored, against the one chosen with all compounds.

    Mean over k of pooled NSC and NSCB. Reproduced for a source if both rules lose less than a point in both measures;
    partly if the interval over compounds of every loss holds 0; not otherwise.
    """
    pairs = [f"{c.CROSS_VALIDATED[rule]} - {c.HINDSIGHT[rule]}" for rule in c.CROSS_VALIDATED]
    rows = pick(numbers, protocol=PAIRED, k=MEAN)
    rows = rows[rows["method"].isin(pairs) & rows["measure"].isin(MEASURES)]
    if refused := refusal(rows, "nothing was aligned"):
        return refused
    found = {}
    for source, group in rows.groupby("source", sort=False):
        cheap, certain = (group["value"] > -ONE_POINT).all(), (group["high"] < 0).any()
        verdict = REPRODUCED if cheap else NOT if certain else PARTLY
        same = pick(numbers, protocol=STOPPING, source=source, measure="compounds with the same step")["value"]
        worst = group.loc[group["value"].idxmin()]
        texts = [
            f"largest loss {points(worst, str(worst['measure']))}",
            f"same step for {' and '.join(percent(value) for value in same)} % of compounds (k-NN, silhouette)",
        ]
        found[str(source)] = (verdict, ", ".join(texts))
    return together(found)


def generalises(numbers: pd.DataFrame) -> Verdict:
    """Gap between weeks of the positive control on unseen plates, under maps fitted on DMSO, at the last step.

    In units of the gap without a map. Reproduced for a source if it is below 1 in every training, interval over plates
    and all; partly if below 1 on average; not otherwise.
    """
    rows = pick(numbers, protocol=CARRIED)
    rows = rows[rows["measure"].str.endswith("gap left") & rows["method"].str.startswith("DMSO, step")]
    steps = rows["method"].str.extract(r"step (\d+)$")[0].astype(float)
    last = rows[steps == steps.groupby(rows["source"]).transform("max")]
    treated = last[~last["measure"].str.startswith("DMSO:")]
    if refused := refusal(treated, "there is no positive control in several weeks"):
        return refused
    found = {}
    for _, row in treated.iterrows():
        below = row["value"] < 1
        verdict = REPRODUCED if below and row["high"] < 1 else PARTLY if below else NOT
        own = line(last, source=row["source"], measure="DMSO: gap left")
        beside = f", DMSO itself {own['value']:.2f} [{own['low']:.2f}, {own['high']:.2f}]" if own is not None else ""
        text = f"{row['measure'].split(':')[0]} {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]{beside}"
        found[str(row["source"])] = (verdict, f"gap left {text}")
    return together(found)


PREDICATES: dict[str, Predicate] = {
    "batch-falls": batch_falls,
    "rises-and-falls": rises_and_falls,
    "learned-gain": learned_gain,
    "nothing-to-gain": nothing_to_gain,
    "stopping-holds": stopping_holds,
    "generalises": generalises,
}
