"""What decides each claim of the page; no verdict from fewer than three trainings of every source that it looks at."""

from __future__ import annotations

import pandas as pd

from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.leaking import week_protocol
from cellbook.pages.tabak2020.measures import CARRIED, COURSE, MEAN, PAIRED, STOPPING
from cellbook.pages.tabak2020.sources import ENGINEERED, LEARNED
from cellbook.study.rows import pick
from cellbook.study.show import percent

LEAST = 3  # trainings behind a verdict
MARGIN = 0.02  # differences of accuracy below two points, two of the paper's 103 treatments, count as none
ONE_POINT = 0.01  # what choosing the step without the compound may cost
HALF = 0.5  # of what the week is named above noise, has to go
MEASURES = ("NSC", "NSCB")


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


def share(row: pd.Series) -> str:
    """A share with its interval, where weeks of several plates allow one."""
    bounds = (
        f" [{row['low']:.2f}, {row['high']:.2f}]" if pd.notna(row["low"]) else ", no interval from one plate a week"
    )
    return f"{row['value']:.2f}{bounds}"


def batch_falls(numbers: pd.DataFrame) -> Verdict:
    """How often the week of controls is named, in the paper's folds of rows, at the last step against no correction.

    Reproduced for a source if, for both classifiers, the week is named less often in every training, the interval over
    plates lies below 0, and at least half of what was above noise is gone. At most partly if the week is then named
    less often than from noise, interval and all, as folds of rows can do by themselves; or if on plates that no map has
    seen, where that was asked, the interval of the change does not lie below 0. Partly also if one classifier falls;
    not otherwise.
    """
    protocol = week_protocol(c.ROWS)
    changes = pick(numbers, protocol=f"{protocol}, paired", method=f"{c.LAST} - {c.UNCORRECTED}")
    if refused := refusal(changes, "the week was not asked for"):
        return refused
    found = {}
    for source, rows in changes.groupby("source", sort=False):
        down, enough, texts = [], [], []
        for _, row in rows.iterrows():
            where = {"source": source, "protocol": protocol, "measure": row["measure"]}
            before, after, noise = (line(numbers, method=m, **where) for m in (c.UNCORRECTED, c.LAST, "noise"))
            down.append((row["high"] < 0) and (row["agree"] == 1))
            if before is None or after is None or noise is None:
                enough.append(False)
                continue
            excess = before["value"] - noise["value"]
            half_gone = excess > 0 and before["value"] - after["value"] >= HALF * excess
            enough.append(half_gone and not after["high"] < noise["value"])
            texts.append(
                f"{row['measure']} {percent(before['value'])} to "
                f"{percent(after['value'], after['low'], after['high'])} % (noise {percent(noise['value'])})"
            )
        unseen = {"protocol": f"{week_protocol(c.UNSEEN)}, paired", "measure": "logistic"}
        new = line(numbers, source=source, method=f"{c.LAST} - {c.UNCORRECTED}", **unseen)
        if new is not None:
            enough.append(new["high"] < 0)
        texts.append(points(new, "on unseen plates, logistic,") if new is not None else "not asked on unseen plates")
        found[str(source)] = (REPRODUCED if all(down + enough) else PARTLY if any(down) else NOT, ", ".join(texts))
    return together(found)


def rises_and_falls(numbers: pd.DataFrame) -> Verdict:
    """Course over map steps on learned features: both measures rise and then fall.

    Accuracy is the mean of NSC and NSCB over k. The top of the mean course is looked for in one half of the resamples
    and measured in the other, and the other way round, so that it is not high by the luck of resampling. The central
    95 % of resamples must lie above 0 for the rise and below 0 for the fall. Reproduced for a source if so for accuracy
    and silhouette; partly if one of the four holds. Intervals are over cells alone: how far a course of these cells,
    compounds and alignments wanders by chance is not in them. Engineered features stand in the evidence only.
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
            texts.append(f"{points(rise, f'{measure}: rise')}, {points(fall, 'fall')}")
        verdict = REPRODUCED if all(held) else PARTLY if any(held) else NOT
        if group["family"].iloc[0] == LEARNED:
            found[str(source)] = (verdict, ", ".join(texts))
        else:
            others.append(f"{source} (engineered, not judged): {', '.join(texts)}")
    judged = together(found)
    return Verdict(judged.verdict, "; ".join([judged.evidence, *others]))


def learned_gain(numbers: pd.DataFrame) -> Verdict:
    """Mean over k of pooled NSC and NSCB on learned features, step by k-NN without the compound.

    Reproduced for a source if the gains of WDN and of CORAL over TVN lie above 0 and that of WDN over CORAL above -2
    points, intervals over compounds and all, and every training has the gains. Not reproduced if an interval says the
    contrary, or if most of the differences themselves do not point the paper's way. Partly otherwise: point estimates
    alone cannot tell.
    """
    wdn = c.CROSS_VALIDATED["knn"]
    # Of each difference: what its interval must lie above, and what the difference itself must not lie below.
    wanted = {f"{wdn} - {c.CORAL}": -MARGIN, f"{wdn} - {c.UNCORRECTED}": 0.0, f"{c.CORAL} - {c.UNCORRECTED}": 0.0}
    rows = pick(numbers, protocol=PAIRED, k=MEAN, family=LEARNED)
    rows = rows[rows["method"].isin(list(wanted)) & rows["measure"].isin(MEASURES)]
    if refused := refusal(rows, "there are no learned features"):
        return refused
    found = {}
    for source, group in rows.groupby("source", sort=False):
        bound = group["method"].map(wanted)
        certain = (group["low"] > bound) & ((group["agree"] == 1) | (bound < 0))
        pointing = (group["value"] > 0) | ((bound < 0) & (group["value"] >= 0))
        contrary = (group["high"] < 0) & ~certain
        against = contrary.any() or 2 * pointing.sum() < len(group)
        verdict = REPRODUCED if certain.all() else NOT if against else PARTLY
        names = group["method"].str.replace(c.UNCORRECTED, "TVN") + ", " + group["measure"]
        texts = [points(row, label) for label, (_, row) in zip(names, group.iterrows(), strict=True)]
        found[str(source)] = (verdict, ", ".join(texts))
    return together(found)


def nothing_to_gain(numbers: pd.DataFrame) -> Verdict:
    """Mean over k of pooled NSC and NSCB on engineered features, WDN by both rules and CORAL against no correction.

    Reproduced for a source if all gains lie below 2 points, intervals over compounds and all; not reproduced if all lie
    above 0; partly otherwise, as it cannot be told then.
    """
    methods = [f"{method} - {c.UNCORRECTED}" for method in (*c.CROSS_VALIDATED.values(), c.CORAL)]
    rows = pick(numbers, protocol=PAIRED, k=MEAN, family=ENGINEERED)
    rows = rows[rows["method"].isin(methods) & rows["measure"].isin(MEASURES)]
    if refused := refusal(rows, "there are no engineered features"):
        return refused
    found = {}
    for source, group in rows.groupby("source", sort=False):
        nothing, gains = (group["high"] < MARGIN).all(), (group["low"] > 0).all()
        verdict = REPRODUCED if nothing else NOT if gains else PARTLY
        texts = [points(row, f"{row['method']}, {row['measure']}") for _, row in group.iterrows()]
        found[str(source)] = (verdict, ", ".join(texts))
    return together(found)


def stopping_holds(numbers: pd.DataFrame) -> Verdict:
    """The step chosen without the compound that is scored, against the one chosen with all compounds.

    Mean over k of pooled NSC and NSCB. Reproduced for a source if both rules lose less than a point in both measures
    and no interval over compounds reaches down to a loss of 2 points; not reproduced if one lies wholly beyond a loss
    of a point; partly otherwise.
    """
    pairs = [f"{c.CROSS_VALIDATED[rule]} - {c.HINDSIGHT[rule]}" for rule in c.CROSS_VALIDATED]
    rows = pick(numbers, protocol=PAIRED, k=MEAN)
    rows = rows[rows["method"].isin(pairs) & rows["measure"].isin(MEASURES)]
    if refused := refusal(rows, "nothing was aligned"):
        return refused
    found = {}
    for source, group in rows.groupby("source", sort=False):
        cheap = ((group["value"] > -ONE_POINT) & (group["low"] > -MARGIN)).all()
        dear = (group["high"] < -ONE_POINT).any()
        verdict = REPRODUCED if cheap else NOT if dear else PARTLY
        same = pick(numbers, protocol=STOPPING, source=source, measure="compounds with the same step")["value"]
        worst = group.loc[group["value"].idxmin()]
        texts = [
            f"largest loss {points(worst, str(worst['measure']))}",
            f"lowest end of an interval {100 * group['low'].min():+.1f}",
            f"same step for {' and '.join(percent(value) for value in same)} % of compounds (k-NN, silhouette)",
        ]
        found[str(source)] = (verdict, ", ".join(texts))
    return together(found)


def generalises(numbers: pd.DataFrame) -> Verdict:
    """Gap between weeks of the positive control on unseen plates, under maps fitted on DMSO, at the last step.

    In units of the gap without a map. Reproduced for a source if it is below 1 in every training, each with its
    interval over plates; partly if below 1 on average; not otherwise. Of a simulated screen the page's own week effect
    is judged, not the further strengths, and none without an effect: there is nothing to bring together.
    """
    rows = pick(numbers, protocol=CARRIED, main=1)
    if len(rows):
        rows = rows[rows["week_effect"] != 0]
    rows = rows[rows["measure"].str.endswith("gap left") & rows["method"].str.startswith("DMSO, step")]
    steps = rows["method"].str.extract(r"step (\d+)$")[0].astype(float)
    last = rows[steps == steps.groupby(rows["source"]).transform("max")]
    treated = last[~last["measure"].str.startswith("DMSO:")]
    if refused := refusal(treated, "there is no positive control in several weeks"):
        return refused
    found = {}
    for _, row in treated.iterrows():
        verdict = REPRODUCED if row["agree"] == 1 else PARTLY if row["value"] < 1 else NOT
        own = line(last, source=row["source"], measure="DMSO: gap left")
        beside = f", DMSO itself {share(own)}" if own is not None else ""
        text = f"{row['measure'].split(':')[0]} {share(row)}"
        surely = f" (surely below 1 in {row['agree'] * row['trainings']:.0f} of {row['trainings']:.0f} trainings)"
        found[str(row["source"])] = (verdict, f"gap left {text}{surely}{beside}")
    return together(found)


PREDICATES: dict[str, Predicate] = {
    "batch-falls": batch_falls,
    "rises-and-falls": rises_and_falls,
    "learned-gain": learned_gain,
    "nothing-to-gain": nothing_to_gain,
    "stopping-holds": stopping_holds,
    "generalises": generalises,
}
