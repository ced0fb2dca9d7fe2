"""What the page of cells shows: selections of the measured numbers, and the predicates of its claims."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.methods.cells.config import BY_PLATE, ENCODERS, PERMUTED, POOLED
from cellbook.methods.cells.measures import CELLPROFILER, SAMPLE, SIMULATED
from cellbook.screens.bbbc021 import MOAS, treatments
from cellbook.tables import percent, percents

ABSENT = "The real cells are not on this machine, so this part of the page is left out."
NEAR = 0.10  # proportions: what "about as hard as the real screen" means
CHANCE = 0.02  # proportions: how near to chance permuted labels must come


def pick(numbers: pd.DataFrame, **where: object) -> pd.DataFrame:
    """Rows of the numbers in which every named column has the given value."""
    keep = np.ones(len(numbers), dtype=bool)
    for name, value in where.items():
        keep &= (numbers[name] == value).to_numpy()
    return numbers[keep]


def strengths(numbers: pd.DataFrame) -> list[float]:
    """The week effects that were simulated, the strongest first."""
    return sorted(numbers["week_effect"].dropna().unique(), reverse=True)


def has_real(numbers: pd.DataFrame) -> bool:
    """Whether the real cells were looked at."""
    return bool((numbers["screen"] == SAMPLE).any())


# --- design ---------------------------------------------------------------------------------------------------------


def design() -> pd.DataFrame:
    """The 103 treatments with a number for each of the 38 compounds, in the order of mechanisms."""
    table = treatments().sort_values(["moa", "compound", "concentration"], ignore_index=True)
    return table.assign(number=pd.factorize(table["compound"])[0] + 1)


def compound_key(table: pd.DataFrame) -> pd.DataFrame:
    """Mechanisms with their numbered compounds and the weeks they were made in."""
    rows = []
    for moa in MOAS:
        group = table[table["moa"] == moa]
        named = group.drop_duplicates("compound")
        weeks = sorted(group["week"].unique(), key=lambda week: int(week.removeprefix("Week")))
        compounds = ", ".join(f"{row.number} {row.compound}" for row in named.itertuples())
        rows.append({"mechanism": moa, "compounds": compounds, "treatments": len(group), "weeks": ", ".join(weeks)})
    return pd.DataFrame(rows)


# --- accuracies -----------------------------------------------------------------------------------------------------


def over_seeds(rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Mean, smallest and largest value over seeds, grouped by `names`."""
    groups = rows.groupby(list(names), sort=False)["value"]
    return groups.agg(value="mean", low="min", high="max", sd="std", seeds="size").reset_index()


def accuracy_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of all encoders: the first simulated screen with intervals, all seeds, the sample, CellProfiler."""
    full = numbers[(numbers["week_effect"] != 0) & numbers["protocol"].isin(["ljosa2013", "baseline"])]
    rows = []
    for (profile, scaling), group in full.groupby(["profile", "scaling"], sort=False):
        line = {"profile": profile, "scaled on DMSO": scaling or "–"}
        for measure in ("NSC", "NSCB"):
            here = pick(group, measure=measure)
            seeds = pick(here, screen=SIMULATED)
            first, real = seeds.head(1), here[here["screen"] != SIMULATED]
            line[f"{measure}, simulated"] = percents(first)[0] if len(first) else "–"
            if len(seeds) > 1:
                line[f"{measure}, seeds"] = f"{100 * seeds['value'].mean():.1f} ± {100 * seeds['value'].std():.1f}"
            line[f"{measure}, real"] = percents(real.tail(1))[0] if len(real) else "–"
        rows.append(line)
    order = [*ENCODERS, CELLPROFILER, "labels permuted", "cell count alone", "week alone"]
    table = pd.DataFrame(rows).fillna("–")
    return table.sort_values("profile", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def drop_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """The drop from NSC to NSCB of every screen, for a figure: group (scaling), label, measure, value, low, high."""
    rows = pick(numbers, protocol="drop")
    rows = rows[rows["measure"].isin(["NSC", "NSCB", "at random", "alike at random"])]
    kept = []
    for scaling in (BY_PLATE, POOLED):
        of_scaling = pick(rows, scaling=scaling)
        real = of_scaling[of_scaling["screen"] != SIMULATED]
        kept.append(real.assign(group=scaling, label=real["screen"]))
        for effect in strengths(numbers):
            wide = pick(of_scaling, screen=SIMULATED, week_effect=effect)
            mean = wide.groupby("measure", sort=False)[["value", "low", "high"]].mean().reset_index()
            kept.append(mean.assign(group=scaling, label=f"simulated, weeks × {effect:g}"))
    table = pd.concat(kept, ignore_index=True)
    words = {BY_PLATE: "standardised by plate", POOLED: "standardised over all plates"}
    return table.assign(group=table["group"].map(words))[["group", "label", "measure", "value", "low", "high"]]


def drop_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """NSC, NSCB and what random removal leaves, one row a screen and scaling; all on the queries of NSCB."""
    rows = pick(numbers, protocol="drop")
    found = []
    for (screen, seed, effect, scaling), group in rows.groupby(
        ["screen", "seed", "week_effect", "scaling"], sort=False, dropna=False
    ):
        of = group.set_index("measure")
        name = screen if screen != SIMULATED else f"simulated, seed {seed:.0f}, weeks × {effect:g}"
        found.append(
            {
                "screen": name,
                "scaled on DMSO": scaling,
                "NSC": percent(*of.loc["NSC", ["value", "low", "high"]]),
                "NSCB": percent(*of.loc["NSCB", ["value", "low", "high"]]),
                "as many at random": percent(of.loc["at random", "value"]),
                "as many right and wrong": percent(of.loc["alike at random", "value"]),
                "drop": points(of.loc["NSC - NSCB"]),
            }
        )
    return pd.DataFrame(found)


def points(line: pd.Series) -> str:
    """A difference of proportions in points, with its interval."""
    return f"{100 * line['value']:+.1f} [{100 * line['low']:+.1f}, {100 * line['high']:+.1f}]"


def week_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How often the week of a taxol control cell is named: screens in columns, profiles in rows."""
    rows = pick(numbers, protocol="week")
    found: dict[tuple[str, str], dict[str, str]] = {}
    for line in rows.itertuples():
        if line.screen == SIMULATED and line.seed != rows["seed"].min():
            continue
        screen = line.screen if line.screen != SIMULATED else f"simulated, weeks × {line.week_effect:g}"
        entry = found.setdefault(
            (line.profile, line.scaling), {"profile": line.profile, "scaled on DMSO": line.scaling}
        )
        entry[screen] = percent(line.value, line.low, line.high)
        entry[f"largest week, {line.screen}"] = percent(line.null)
    table = pd.DataFrame(found.values()).fillna("–")
    return table[[*[c for c in table if not c.startswith("largest")], *[c for c in table if c.startswith("largest")]]]


# --- pixels ---------------------------------------------------------------------------------------------------------


def nuclei_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of both detectors, one row a field."""
    rows = pick(numbers, protocol="nuclei")
    found = []
    for (method, place), group in rows.groupby(["profile", "scaling"], sort=False):
        of = group.set_index("measure")
        found.append(
            {
                "field": place,
                "method": method,
                "precision": percent(*of.loc["precision", ["value", "low", "high"]]),
                "recall": percent(*of.loc["recall", ["value", "low", "high"]]),
                "found": int(of.loc["precision", "scored"]),
                "published": int(of.loc["recall", "scored"]),
            }
        )
    table = pd.DataFrame(found)
    return table.sort_values(["field", "method"], kind="stable", ignore_index=True)


def furthest(table: pd.DataFrame, n: int = 8) -> pd.DataFrame:
    """The measurements in which simulated and real control cells differ most, in spreads of the real ones."""
    rows = table[table["difference"].notna()]
    rows = rows.loc[rows["difference"].abs().sort_values(ascending=False, kind="stable").index[:n]]
    return pd.DataFrame(
        {
            "measurement": rows["measurement"].str.replace("_", " "),
            "real": rows["real"].map("{:.2f}".format),
            "simulated": rows["simulated"].map("{:.2f}".format),
            "difference (spreads)": rows["difference"].map("{:+.2f}".format),
        }
    )


def apart_sentence(numbers: pd.DataFrame) -> str:
    """How well real and simulated control cells are told apart, in words."""
    line = pick(numbers, protocol="calibration").iloc[0]
    return (
        f"A random forest on all these measurements together tells a simulated cell from a real one in "
        f"**{percent(line['value'])} %** of cases (five-fold cross-validation on equal numbers; 50 % would be "
        "indistinguishable). Each measurement alone is close; together, and above all in the relations of channels "
        "and rings, they give the simulation away."
    )


def known_rows(truth: pd.DataFrame) -> pd.DataFrame:
    """R2 of every known parameter, mean and range over seeds, for a figure."""
    groups = truth[truth["kind"] != "treatment"].groupby(["kind", "parameter", "week_effect"], sort=False)["r2"]
    return groups.agg(r2="mean", low="min", high="max").reset_index()


# --- takeaways ------------------------------------------------------------------------------------------------------


def takeaways(tables: dict[str, pd.DataFrame]) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""
    numbers, truth, claims = tables["numbers"], tables["truth"], tables["claims"]
    strong, weak = strengths(numbers)[0], strengths(numbers)[-1]

    def mean(screen: str, measure: str, scaling: str = BY_PLATE, protocol: str = "ljosa2013", **where: object) -> str:
        profile = CELLPROFILER if screen == CELLPROFILER else PERMUTED
        rows = pick(
            numbers, screen=screen, measure=measure, scaling=scaling, protocol=protocol, profile=profile, **where
        )
        return percent(rows["value"].mean())

    lines = [
        f"- On the simulated screen classical features reach {mean(SIMULATED, 'NSC', week_effect=strong)} % NSC and "
        f"{mean(SIMULATED, 'NSCB', week_effect=strong)} % NSCB, mean over {int(numbers['seed'].nunique())} seeds."
    ]
    if has_real(numbers):
        detectors = pick(numbers, protocol="nuclei", measure="recall", scaling="all fields").set_index("profile")
        apart = pick(numbers, protocol="calibration")["value"].iloc[0]
        lines += [
            f"- The published CellProfiler profiles of the real screen, scaled alike, reach "
            f"{mean(CELLPROFILER, 'NSC')} % and {mean(CELLPROFILER, 'NSCB')} %; classical features of the real sample "
            f"{mean(SAMPLE, 'NSC', POOLED)} % and {mean(SAMPLE, 'NSCB', POOLED)} %.",
            f"- A random forest tells simulated from real control cells in {percent(apart)} % of cases, where 50 % "
            "would be indistinguishable: the simulated cells are a model, not a copy.",
            "- Nuclei of real fields are found: recall "
            + ", ".join(f"{percent(line['value'])} % ({name})" for name, line in detectors.iterrows())
            + ".",
        ]
    fall = {
        effect: pick(
            numbers, protocol="drop", measure="NSC - NSCB", screen=SIMULATED, scaling=POOLED, week_effect=effect
        )["value"].mean()
        for effect in (strong, weak)
    }
    best = truth[(truth["kind"] == "cell") & (truth["week_effect"] == strong)].groupby("parameter")["r2"].mean()
    lines += [
        f"- Without correction of plates the fall from NSC to NSCB is {100 * fall[strong]:.1f} points with simulated "
        f"weeks and {100 * fall[weak]:.1f} without.",
        f"- Of {len(best)} properties of a simulated cell, {int((best > 0.5).sum())} can be read linearly from the "
        f"features with an R² above 0.5; the best is *{best.idxmax().replace('_', ' ')}* ({best.max():.2f}).",
        f"- {int((claims['verdict'] == REPRODUCED).sum())} of {len(claims)} claims hold in full.",
    ]
    return "\n".join(["```{admonition} Key takeaways", ":class: important", *lines, "```"])


# --- claims ---------------------------------------------------------------------------------------------------------


def judged(held: list[bool], evidence: list[str]) -> Verdict:
    """Reproduced if everything holds, partly if something does."""
    return Verdict(REPRODUCED if all(held) else PARTLY if any(held) else NOT, "; ".join(evidence))


def week_zero(numbers: pd.DataFrame) -> Verdict:
    """Without weeks the drop is smaller, and NSCB inside what as many right and wrong candidates less leave."""
    held, evidence = [], []
    strong, weak = strengths(numbers)[0], strengths(numbers)[-1]
    for scaling in (BY_PLATE, POOLED):
        of = {}
        for effect in (strong, weak):
            rows = pick(numbers, protocol="drop", screen=SIMULATED, scaling=scaling, week_effect=effect)
            of[effect] = rows.groupby("measure")[["value", "low"]].mean()  # over seeds
        falls = {effect: table.loc["NSC - NSCB", "value"] for effect, table in of.items()}
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
    true = numbers[(numbers["protocol"] == "ljosa2013") & numbers["profile"].isin([PERMUTED, CELLPROFILER])]
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
    for protocol, measure in (("ljosa2013", "NSC"), ("ljosa2013", "NSCB"), ("drop", "NSC - NSCB")):
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
    together = pick(rows, scaling="all fields")
    text = [f"{line.profile}: {percent(line.value, line.low, line.high)}" for line in together.itertuples()]
    worst = rows["value"].min()
    held = [bool((together["low"] > 0.9).all()), bool(worst > 0.9)]
    return judged(held, [*text, f"worst field {percent(worst)}"])


def classical_wins(numbers: pd.DataFrame) -> Verdict:
    """The whole interval of each paired difference is above zero."""
    if not has_real(numbers):
        return Verdict(INCOMPARABLE, ABSENT)
    rows = pick(numbers, protocol="paired")
    text = [f"{line.profile}, {line.measure}: {points(pd.Series(line._asdict()))}" for line in rows.itertuples()]
    return judged((rows["low"] > 0).tolist(), text)


PREDICATES: dict[str, Predicate] = {
    "week-zero": week_zero,
    "permuted-labels": permuted_labels,
    "as-hard-as-real": as_hard,
    "nuclei-found": nuclei_found,
    "classical-wins": classical_wins,
}
