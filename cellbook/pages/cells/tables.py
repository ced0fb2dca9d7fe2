"""What the page of cells shows: selections of the measured numbers."""

from __future__ import annotations

import pandas as pd

from cellbook.claims import REPRODUCED
from cellbook.pages.cells.config import BY_PLATE, ENCODERS, PERMUTED, POOLED
from cellbook.pages.cells.measures import CELLPROFILER, SAMPLE, SIMULATED
from cellbook.screens.bbbc021 import MOAS, treatments
from cellbook.study.rows import pick
from cellbook.study.show import percent, percents

ABSENT = "The real cells are not on this machine, so this part of the page is left out."


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


ORDER = (*ENCODERS, CELLPROFILER, "labels permuted", "cell count alone", "week alone")
SHORT = {BY_PLATE: "by plate", POOLED: "all plates", "": "–"}


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table for the page in the order of the profiles, scalings in short words."""
    table = table.assign(scaled=table["scaled"].map(SHORT)).fillna("–")
    return table.sort_values("profile", key=lambda names: names.map(ORDER.index), kind="stable", ignore_index=True)


def simulated_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracies on the simulated screens: the first seed with its interval, and the spread over seeds."""
    rows = pick(numbers, screen=SIMULATED, week_effect=strengths(numbers)[0])
    rows = rows[rows["protocol"].isin(["ljosa2013", "baseline"])]
    found = []
    for (profile, scaling), group in rows.groupby(["profile", "scaling"], sort=False):
        line = {"profile": profile, "scaled": scaling}
        for measure in ("NSC", "NSCB"):
            seeds = pick(group, measure=measure)
            line[measure] = percents(seeds.head(1))[0]
            if len(seeds) > 1:
                line[f"{measure}, seeds"] = (
                    f"{100 * seeds['value'].mean():.1f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
                    + (f"{100 * seeds['value'].std():.1f}")
                )
        found.append(line)
    return in_order(pd.DataFrame(found))


def real_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracies on the real sample of crops, and those of the published well profiles."""
    rows = numbers[numbers["screen"].isin([SAMPLE, CELLPROFILER]) & numbers["protocol"].isin(["ljosa2013", "baseline"])]
    found = []
    for (screen, profile, scaling), group in rows.groupby(["screen", "profile", "scaling"], sort=False):
        of = group.assign(text=percents(group)).set_index("measure")["text"]
        words = {SAMPLE: "crops", CELLPROFILER: "published wells"}[screen]
        found.append(
            {"measured on": words, "profile": profile, "scaled": scaling, "NSC": of["NSC"], "NSCB": of["NSCB"]}
        )
    return in_order(pd.DataFrame(found)).sort_values("measured on", kind="stable", ignore_index=True)


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
                "scaled": SHORT[scaling],
                "NSC": percent(of.loc["NSC", "value"]),
                "NSCB": percent(of.loc["NSCB", "value"]),
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
    """How often the week of a taxol control cell is named, first seed: screens in columns, profiles in rows."""
    rows = pick(numbers, protocol="week")
    found: dict[tuple[str, str], dict[str, str]] = {}
    largest = {"profile": "always the largest week", "scaled": "–"}
    for line in rows.itertuples():
        if line.screen == SIMULATED and line.seed != rows["seed"].min():
            continue
        screen = line.screen if line.screen != SIMULATED else f"simulated, weeks × {line.week_effect:g}"
        entry = found.setdefault((line.profile, line.scaling), {"profile": line.profile, "scaled": SHORT[line.scaling]})
        entry[screen] = percent(line.value, line.low, line.high)
        largest[screen] = percent(line.null)
    return pd.DataFrame([*found.values(), largest]).fillna("–")


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
        "indistinguishable). Most measurements are close one by one; together they give the simulation away."
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
