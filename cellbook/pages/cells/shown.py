"""What the page of cells shows: tables, the data of its figures, and its key takeaways."""

from __future__ import annotations

import pandas as pd

from cellbook.pages.cells.config import BY_PLATE, ENCODERS, PERMUTED, POOLED
from cellbook.pages.cells.enough import BENCHMARK, MATCHED, NOT_INSTALLED, WHITENED, WHOLE
from cellbook.pages.cells.measures import CELLPROFILER, DROP, SAMPLE, SIMULATED, has_real, over_seeds, strengths
from cellbook.screens.bbbc021 import MOAS, treatments
from cellbook.screens.named import SAMPLE as REAL
from cellbook.study import words
from cellbook.study.encoding import IMAGENET
from cellbook.study.rows import one, pick, row, spread
from cellbook.study.show import percent
from cellbook.study.tables import wide
from cellbook.study.words import accuracy, points, share

IMAGENET_NSC = {"profile": IMAGENET, "scaling": WHITENED, "measure": "NSC", "beside": "classical"}

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


ORDER = (*ENCODERS, IMAGENET, CELLPROFILER, "labels permuted", "cell count alone", "week alone")
SHORT = {BY_PLATE: "by plate", POOLED: "all plates", "": "–"}


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table for the page in the order of the profiles, scalings in short words."""
    table = table.assign(scaling=table["scaling"].map(SHORT)).rename(columns={"scaling": "scaled"})
    return table.sort_values("profile", key=lambda names: names.map(ORDER.index), kind="stable", ignore_index=True)


def simulated_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracies on the simulated screens: the first seed with its interval, and the spread over seeds."""
    rows = pick(numbers, screen=SIMULATED, week_effect=strengths(numbers)[0], protocol=["ljosa2013", "baseline"])
    lines = []
    for (profile, scaling, measure), seeds in rows.groupby(["profile", "scaling", "measure"], sort=False):
        lines.append(seeds.iloc[0].to_dict())
        if len(seeds) > 1:
            more = spread(seeds["value"]) | {"profile": profile, "scaling": scaling}
            lines.append(row("all seeds", "", f"{measure}, seeds", seeds["value"].mean(), **more))
    return in_order(wide(pd.DataFrame(lines), ["profile", "scaling"], accuracy))


def real_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracies on the real sample of crops, and those of the published well profiles."""
    rows = pick(numbers, screen=[SAMPLE, CELLPROFILER], protocol=["ljosa2013", "baseline"])
    measured = rows["screen"].map({SAMPLE: "crops", CELLPROFILER: "published wells"})
    table = wide(rows.assign(**{"measured on": measured}), ["measured on", "profile", "scaling"], accuracy)
    return in_order(table).sort_values("measured on", kind="stable", ignore_index=True)


def drop_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """The drop from NSC to NSCB of every screen, for a figure: group (scaling), label, measure, value, low, high."""
    rows = pick(numbers, protocol="drop", measure=["NSC", "NSCB", "at random", "alike at random"])
    kept = []
    for scaling in (BY_PLATE, POOLED):
        of_scaling = pick(rows, scaling=scaling)
        real = of_scaling[of_scaling["screen"] != SIMULATED]
        kept.append(real.assign(group=scaling, label=real["screen"]))
        for effect in strengths(numbers):
            seeds = pick(of_scaling, screen=SIMULATED, week_effect=effect)
            mean = seeds.groupby("measure", sort=False)[["value", "low", "high"]].mean().reset_index()
            kept.append(mean.assign(group=scaling, label=f"simulated, weeks × {effect:g}"))
    table = pd.concat(kept, ignore_index=True)
    groups = {BY_PLATE: "standardised by plate", POOLED: "standardised over all plates"}
    return table.assign(group=table["group"].map(groups))[["group", "label", "measure", "value", "low", "high"]]


def drop_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """NSC, NSCB and what random removal leaves, one row a screen and scaling; all on the queries of NSCB."""
    rows = pick(numbers, protocol="drop")
    names = [
        f"simulated, seed {line.seed:.0f}, weeks × {line.week_effect:g}" if line.screen == SIMULATED else line.screen
        for line in rows.itertuples()
    ]
    rows = rows.assign(screen=names, scaled=rows["scaling"].map(SHORT))

    def text(line: pd.Series) -> str:
        return points(line) if line["measure"] == DROP else percent(line["value"])

    shown = {"NSC": "NSC", "NSCB": "NSCB", "at random": "as many at random"}
    shown |= {"alike at random": "as many right and wrong", DROP: "drop"}
    return wide(rows, ["screen", "scaled"], text)[["screen", "scaled", *shown]].rename(columns=shown)


def week_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How often the week of a taxol control cell is named, first seed: screens in columns, profiles in rows."""
    rows = pick(numbers, protocol="week")
    rows = rows[rows["seed"].isna() | (rows["seed"] == rows["seed"].min())]
    names = [
        f"simulated, weeks × {line.week_effect:g}" if line.screen == SIMULATED else line.screen
        for line in rows.itertuples()
    ]
    rows = rows.assign(screen=names, scaled=rows["scaling"].map(SHORT))
    largest = {"profile": "always the largest week", "scaled": "–"}
    largest |= {line.screen: percent(line.null) for line in rows.itertuples()}
    table = wide(rows, ["profile", "scaled"], accuracy, columns="screen")
    return pd.concat([table, pd.DataFrame([largest])], ignore_index=True)


# --- enough cells ---------------------------------------------------------------------------------------------------


def curve_rows(table: pd.DataFrame) -> pd.DataFrame:
    """NSC of all shares for a figure: kind (simulated, real), profile, scaling, a_treatment, value, low, high."""
    rows = pick(table, protocol=BENCHMARK.name, measure="NSC").dropna(subset=["share"])
    rows = rows.assign(kind=rows["screen"].map({SIMULATED: "simulated"}).fillna("real"))
    return rows[["kind", "profile", "scaling", "a_treatment", "value", "low", "high"]].sort_values(
        ["scaling", "kind"], kind="stable", ascending=[True, False]
    )


def curve_table(table: pd.DataFrame, kind: str = SIMULATED) -> pd.DataFrame:
    """NSC by cells a treatment, one row a profile and scaling, one column a share of the cells."""
    rows = pick(table, protocol=BENCHMARK.name, measure="NSC").dropna(subset=["share"])
    rows = rows[(rows["screen"] == SIMULATED) == (kind == SIMULATED)].sort_values("a_treatment", kind="stable")
    rows = rows.assign(column=[f"{n:.0f} cells" for n in rows["a_treatment"]]).rename(columns={"scaling": "scaled"})
    found = wide(rows, ["profile", "scaled"], accuracy, columns="column")[["profile", "scaled", *distinct(rows)]]
    return found.sort_values("profile", key=lambda names: names.map(ORDER.index), kind="stable", ignore_index=True)


def distinct(rows: pd.DataFrame) -> list[str]:
    """Headings of the columns in the order of the rows."""
    return list(dict.fromkeys(rows["column"]))


def same_cells(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Lines of the subsets on which all profiles stand: the sample, as many simulated cells, most simulated cells."""
    found = []
    everyone = table["profile"].unique()
    shares = pick(table, screen=SIMULATED).dropna(subset=["share"]).groupby("share")["profile"].nunique()
    most = shares[shares == len(everyone)].index.max()
    for words_of, where in (
        ("real", {"screen": REAL, "subset": WHOLE}),
        ("simulated", {"screen": SIMULATED, "subset": MATCHED}),
        ("simulated", {"screen": SIMULATED, "share": most}),
    ):
        lines = pick(table, **where)
        if len(lines):
            found.append((f"{words_of}, {lines['a_treatment'].iloc[0]:.0f} cells a treatment", lines))
    return found


def beside_classical(table: pd.DataFrame) -> pd.DataFrame:
    """Every other profile beside classical features on the same cells: accuracies, and what is missing in points."""
    parts = [lines.assign(cells_of=name) for name, lines in same_cells(table)]
    lines = pd.concat(parts, ignore_index=True)
    lines = lines[(lines["protocol"] != "paired") | (lines["beside"] == "classical")].rename(
        columns={"scaling": "scaled"}
    )
    paired = lines["protocol"] == "paired"
    lines["column"] = lines["measure"] + paired.map({True: " - classical", False: ""})
    found = wide(lines, ["cells_of", "scaled", "profile"], _either, columns="column")
    columns = [f"{name}{ending}" for name in ("NSC", "NSCB") for ending in ("", " - classical")]
    return found[["cells_of", "scaled", "profile", *columns]].rename(columns={"cells_of": "cells"})


def _either(line: pd.Series) -> str:
    return points(line) if line["protocol"] == "paired" else accuracy(line)


def beside_real(table: pd.DataFrame) -> pd.DataFrame:
    """Real and simulated cells at equal numbers a well, one row a profile and scaling; empty without real cells."""
    lines = pd.concat([pick(table, screen=REAL, subset=WHOLE), pick(table, subset=MATCHED)])
    lines = lines[(lines["protocol"] != "paired") | (lines["beside"] == "sample")].rename(columns={"scaling": "scaled"})
    if REAL not in set(lines["screen"]) or SIMULATED not in set(lines["screen"]):
        return pd.DataFrame()
    kind = (
        lines["screen"].map({REAL: "real", SIMULATED: "simulated"}).where(lines["protocol"] != "paired", "difference")
    )
    found = wide(lines.assign(column=lines["measure"] + ", " + kind), ["profile", "scaled"], _either, columns="column")
    columns = [f"{name}, {what}" for name in ("NSC", "NSCB") for what in ("real", "simulated", "difference")]
    return found[["profile", "scaled", *columns]]


def enough_words(table: pd.DataFrame) -> str:
    """What the numbers of cells let a reader conclude, in two sentences."""
    rows = pick(table, protocol=BENCHMARK.name, measure="NSC", profile=PERMUTED, scaling=WHITENED)
    simulated = pick(rows, screen=SIMULATED).dropna(subset=["share"]).sort_values("a_treatment")
    few, many = simulated.iloc[0], simulated.iloc[-1]
    text = (
        f"On the simulated screen whitened classical features rise from {percent(few['value'])} % with "
        f"{few['a_treatment']:.0f} cells a treatment to {percent(many['value'])} % with {many['a_treatment']:.0f}, "
        "so a number of this page is that of its cells as much as of its profile."
    )
    for _, line in pick(rows, screen=REAL, subset=WHOLE).iterrows():
        width = (line["high"] - line["low"]) / 2
        text += (
            f" The real sample has {line['a_treatment']:.0f} cells a treatment, where classical features reach "
            f"{percent(line['value'])} % give or take {100 * width:.0f} points: it can show that one profile is far "
            "behind another on the same cells, and it cannot show what any of them reaches on the whole screen, nor "
            "rank two that are a few points apart."
        )
    return text


def imagenet_words(table: pd.DataFrame) -> str:
    """A sentence where the ImageNet features are missing, or were taken from some cells alone; else empty."""
    lines = pick(table, screen=SIMULATED, profile=IMAGENET).dropna(subset=["share"])
    if lines.empty:
        return "" if IMAGENET in set(table["profile"]) else NOT_INSTALLED
    if (share := lines["share"].max()) == 1:
        return ""
    return f"ImageNet features take the longest, so only {100 * share:.0f} % of the simulated cells are given them."


# --- pixels ---------------------------------------------------------------------------------------------------------


def nuclei_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of both detectors, one row a field."""
    rows = pick(numbers, protocol="nuclei")
    table = wide(rows, ["field", "method"], accuracy)
    for name, measure in (("found", "precision"), ("published", "recall")):
        table[name] = pick(rows, measure=measure)["scored"].astype(int).tolist()
    return table.sort_values(["field", "method"], kind="stable", ignore_index=True)


def furthest(table: pd.DataFrame, n: int = 8) -> pd.DataFrame:
    """The measurements of crops in which simulated and real control cells differ most, in spreads of the real ones.

    Distances to neighbours are no measurement of crops: those of the real fields are too short by construction.
    """
    rows = table[table["difference"].notna() & ~table["measurement"].str.startswith("neighbour_distance")]
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
    numbers, truth = tables["numbers"], tables["truth"]
    strong, weak = strengths(numbers)[0], strengths(numbers)[-1]

    def mean(measure: str, scaling: str, protocol: str, week_effect: float, unit: str) -> str:
        where = {"screen": SIMULATED, "profile": PERMUTED, "scaling": scaling, "week_effect": week_effect}
        values = pick(numbers, measure=measure, protocol=protocol, **where)["value"]
        return f"{percent(values.mean())} {unit}{over_seeds(values)}"

    def of(screen: str, measure: str, scaling: str) -> str:
        profile = CELLPROFILER if screen == CELLPROFILER else PERMUTED
        where = {"screen": screen, "profile": profile, "scaling": scaling}
        return share(one(numbers, protocol=BENCHMARK.name, measure=measure, **where))

    nsc, nscb = (mean(name, BY_PLATE, BENCHMARK.name, strong, f"% {name}") for name in ("NSC", "NSCB"))
    lines = [
        f"On the simulated screen classical features reach {nsc} and {nscb}, mean over "
        f"{int(numbers['seed'].nunique())} seeds."
    ]
    if has_real(numbers):
        detectors = pick(numbers, protocol="nuclei", measure="recall", field="all fields").set_index("method")
        apart = pick(numbers, protocol="calibration")["value"].iloc[0]
        lines += [
            f"The published CellProfiler profiles of the real screen, scaled alike, reach "
            f"{of(CELLPROFILER, 'NSC', BY_PLATE)} % and {of(CELLPROFILER, 'NSCB', BY_PLATE)} %; classical features of "
            f"the real sample {of(SAMPLE, 'NSC', POOLED)} % and {of(SAMPLE, 'NSCB', POOLED)} %.",
            f"A random forest tells simulated from real control cells in {percent(apart)} % of cases, where 50 % "
            "would be indistinguishable: the simulated cells are a model, not a copy.",
            "Nuclei of real fields are found: recall "
            + ", ".join(f"{share(line)} % ({name})" for name, line in detectors.iterrows())
            + ".",
        ]
    best = truth[(truth["kind"] == "cell") & (truth["week_effect"] == strong)].groupby("parameter")["r2"].mean()
    lines += [
        "Without correction of plates the fall from NSC to NSCB, over the treatments that NSCB can score, is "
        f"{mean(DROP, POOLED, 'drop', strong, 'points')} with simulated weeks and "
        f"{mean(DROP, POOLED, 'drop', weak, 'points')} without.",
        f"Of {len(best)} properties of a simulated cell, {int((best > 0.5).sum())} can be read linearly from the "
        f"features with an R² above 0.5; the best is *{best.idxmax().replace('_', ' ')}* ({best.max():.2f}).",
    ]
    if "enough" in tables:
        beside = [
            f"{points(one(found, **IMAGENET_NSC))} ({name})"
            for name, found in same_cells(tables["enough"])
            if one(found, **IMAGENET_NSC) is not None
        ]
        lines += [f"Whitened ImageNet features beside classical ones, NSC: {', '.join(beside)}."] if beside else []
    return words.takeaways(lines, tables["claims"])
