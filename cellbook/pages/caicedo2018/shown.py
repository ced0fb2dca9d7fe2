"""What the page shows: tables, sentences and the data of figures, from the measured numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cellbook.pages.caicedo2018 import genes
from cellbook.pages.caicedo2018.closer import SPEED
from cellbook.pages.caicedo2018.config import LAYER, LAYERS, PAPERS_VIEWS, PLAIN, PRESETS, PROTOCOL, Config, views
from cellbook.pages.caicedo2018.measures import AUXILIARY, DROP, NSC, NSCB, TRAINING, VALIDATION, WHITENED
from cellbook.pages.caicedo2018.models import (
    BASELINE,
    LABELS,
    MODELS,
    PRETRAINED,
    SIGNS,
    STRENGTHS,
    SWEPT,
    of_genes,
    strength,
    without,
)
from cellbook.runs import Run
from cellbook.screens.named import SAMPLE, SIMULATED
from cellbook.study import course, tables, words
from cellbook.study.course import MEANS
from cellbook.study.encoding import IMAGENET, UNTRAINED
from cellbook.study.measured import optional
from cellbook.study.rows import one, pick
from cellbook.study.show import percent

MEASURES = (NSC, NSCB)
VARIANTS = (*LABELS.values(), *PLAIN, IMAGENET, UNTRAINED)
FURTHER = tuple(name for name in MODELS if name not in LABELS.values())
CELLS = {
    SIMULATED: "simulated cells with the plate map of BBBC021",
    SAMPLE: "real crops of BBBC021, of most treatments a dozen cells",
}
DRUGS, GENES = "drugs", "genes"  # screens of figure 5


# --- accuracy -------------------------------------------------------------------------------------------------------


def table_2(numbers: pd.DataFrame, verdicts: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Table 2 of the paper: a row a profile, whitened and plain; printed values in a row of their own under each."""
    rows = [
        ({"profile": name, "summary": summary}, {"variant": name, "summary": summary, "protocol": PROTOCOL})
        for name in VARIANTS
        for summary in reversed(MEANS)
    ]
    columns: dict[str, dict[str, object]] = {name: {"measure": name} for name in (*MEASURES, DROP)}
    table = tables.beside_paper(numbers, verdicts, rows, columns)
    widths = run.table("dimensions").set_index("variant")["dimension"]
    table["dimension"] = table["profile"].map(widths).map("{:,.0f}".format)
    speeds = pick(numbers, protocol=SPEED).set_index("variant")["value"]
    encoders = table["profile"].replace(dict.fromkeys(LABELS.values(), UNTRAINED))  # one network up to this layer
    table["cells/s"] = encoders.map(speeds).astype(float).map("{:,.0f}".format).replace("nan", "–")
    table.loc[table["from"] == "paper", "cells/s"] = "–"
    missing = [name for name in LABELS.values() if name not in set(table["profile"])]
    lost = pd.DataFrame({"profile": missing, "summary": "not trained"})
    return pd.concat([table, lost], ignore_index=True).fillna("–")


def printed_table(published: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Table 2 as it is printed, all of it that has a number, from the entries of the claims file."""
    lines = pd.DataFrame([entry for entry in published if entry["protocol"] == PROTOCOL])
    return tables.wide(lines, "setting", lambda line: f"{100 * line['value']:.0f}").rename(
        columns={"setting": "profile"}
    )


def differences(numbers: pd.DataFrame) -> pd.DataFrame:
    """Paired differences in accuracy, one row a difference."""
    lines = pick(numbers, protocol="paired")
    lines = lines[~lines["setting"].str.contains("layer") & (lines["measure"] != VALIDATION)]
    return tables.wide(lines, "setting", words.points).rename(columns={"setting": "difference"})


def further_table(numbers: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Accuracies of the models that are not in the paper's table, of one training each."""
    names = [*FURTHER, *map(without, config.weeks_left_out)]
    lines = pick(numbers, protocol=PROTOCOL, variant=names, measure=list(MEASURES))
    rows = lines.assign(column=lines["measure"] + ", " + lines["summary"])
    return tables.wide(rows, "variant", words.accuracy, "column").rename(columns={"variant": "model"})


def missing(numbers: pd.DataFrame, names: Sequence[str], what: str) -> str:
    """Which profiles are not there, as a sentence; empty if all are, short where the whole genetic screen is."""
    there = set(numbers["variant"].dropna())
    lost = [name for name in names if name not in there]
    if lost == list(names) and all(map(genes.is_genetic, names)):
        return f"For {what} the genetic screen is missing, which parameter `genes` adds to simulated cells."
    return f"For {what} these are missing: {'; '.join(lost)}." if lost else ""


def exclusions(run: Run, config: Config) -> str:
    """Which treatments and cells take no part, and which treatments have no validation cell, by name."""
    units = run.table("treatments")[["Metadata_compound", "Metadata_concentration"]]
    names = [f"{compound} {dose:g}" for compound, dose in units.itertuples(index=False)]
    lines = []
    if len(told := pick(optional(run, "validation"), variant=BASELINE, repeat=0)):
        lost = {
            "are no class, as fewer than two of their cells train": set(names) - set(told["treatment"]),
            "have no validation cell": set(told.loc[told["validation"] == 0, "treatment"]),
        }
        for what, of in lost.items():
            lines += [f"Treatments that {what} ({len(of)}): {', '.join(sorted(of))}."] * bool(of)
    elif not config.validation:
        lines.append("No replicate validates: all cells train, and there is no auxiliary accuracy.")
    empty = run.table("trainings").get("empty", pd.Series([0.0])).max()
    lines += [f"Cells that take no part, as all their pixels are 0: {empty:.0f}."] * bool(empty)
    return " ".join(lines)


def plain_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Chance, the largest class, and the cell count alone."""
    lines = pick(numbers, protocol="baseline")
    return tables.wide(lines, "setting", words.accuracy).rename(columns={"setting": "profile"})


# --- layers, auxiliary task, course ---------------------------------------------------------------------------------


def layer_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by layer: network, layer, summary, measure, value, low, high, trainings; in the order of the network.

    The layer of Table 2 has its line there if all trainings kept their layers; else it is, like the other layers, that
    of those which did.
    """
    own = pick(numbers, protocol=PROTOCOL, measure=list(MEASURES), summary=MEANS)
    lines = pick(own, layer=list(LAYERS))
    others = lines[lines["layer"] != LAYER].groupby("network")["trainings"].max()
    same = pick(own, variant=list(others.index))
    same = same[same["trainings"] == same["variant"].map(others)]
    replaced = (lines["layer"] == LAYER) & lines["network"].isin(same["variant"])
    lines = pd.concat([lines[~replaced], same.assign(network=same["variant"], layer=LAYER)])
    order = {layer: place for place, layer in enumerate(LAYERS)}
    lines = lines.assign(place=lines["layer"].map(order)).sort_values("place", kind="stable")
    return lines[["network", "layer", "summary", "measure", "value", "low", "high", "trainings"]]


def layer_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by layer, a row a network and layer, a column a summary and measure."""
    rows = layer_rows(numbers).sort_values("network", kind="stable", key=lambda name: name.map(list(VARIANTS).index))
    rows = rows.assign(column=rows["measure"] + ", " + rows["summary"])
    return tables.wide(
        rows, ["network", "layer"], lambda line: percent(line["value"], line["low"], line["high"]), "column"
    )


def auxiliary_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How often the treatment of a cell is told, one row a model, beside chance."""
    lines = pick(numbers, protocol=AUXILIARY)
    table = tables.wide(lines, "variant", words.accuracy).rename(columns={"variant": "model"})
    null = pick(lines, measure=VALIDATION).set_index("variant")["null"]
    there = [name for name in (VALIDATION, TRAINING) if name in table]  # where nothing validates, batches alone
    return table.assign(chance=table["model"].map(null).map(percent))[["model", *there, "chance"]]


def regularised_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """Both goals of figure 5 by the strength of regularisation, from none on, as far as it was trained.

    Columns screen, model, sign, place, strength, goal, value, low, high, sd; the main goal is whitened.
    """
    main = {
        DRUGS: ("mechanism, NSCB", {"protocol": PROTOCOL, "measure": NSCB, "summary": WHITENED}),
        GENES: ("gene", {"protocol": genes.PROTOCOL, "measure": genes.GENE, "summary": WHITENED}),
    }
    auxiliary = ("treatment of a validation cell", {"protocol": AUXILIARY, "measure": VALIDATION})
    found = []
    for screen, goal in main.items():
        named = of_genes if screen == GENES else str
        for model, values in STRENGTHS.items():
            steps = [("none", BASELINE), *((f"{value:g}", strength(model, value)) for value in values)]
            of = {"screen": screen, "model": LABELS[model], "sign": SIGNS[model]}
            for place, (text, name) in enumerate(steps):
                for label, where in (goal, auxiliary):
                    if (line := one(numbers, variant=named(name), **where)) is not None:
                        own = {"place": place, "strength": text, "goal": label}
                        found.append(of | own | line[["value", "low", "high", "sd"]].to_dict())
    rows = pd.DataFrame(found)
    trained = rows.groupby(["screen", "model"])["place"].transform("max") > 0
    return rows[trained].reset_index(drop=True)


def regularised_table(goals: pd.DataFrame) -> pd.DataFrame:
    """The same as a table, one row a screen, model and strength, one column a goal."""
    names = {"sign": "strength of"}
    return tables.wide(
        goals.rename(columns=names),
        ["screen", "model", *names.values(), "strength"],
        lambda line: percent(line["value"], line["low"], line["high"]),
        "goal",
    )


def not_swept(numbers: pd.DataFrame, screen: str) -> str:
    """What figure 5 lacks on a screen, as a sentence."""
    names = [BASELINE, *SWEPT]
    return missing(numbers, [of_genes(name) for name in names] if screen == GENES else names, f"figure 5, {screen},")


def table_1(numbers: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Table 1 on the simulated genetic screen, a row a profile and summary; printed values under each."""
    rows = [
        ({"profile": name, "summary": summary}, {"variant": name, "summary": summary, "protocol": genes.PROTOCOL})
        for name in genes.VARIANTS
        for summary in reversed(MEANS)
    ]
    rows.append(({"profile": "candidates at random"}, {"setting": "candidates at random", "protocol": genes.PROTOCOL}))
    columns: dict[str, dict[str, object]] = {one.name: {"measure": one.name} for one in genes.MEASURES}
    return tables.beside_paper(numbers, verdicts, rows, columns).fillna("–")


def gene_differences(numbers: pd.DataFrame) -> pd.DataFrame:
    """Paired differences on the genetic screen."""
    lines = pick(numbers, protocol=genes.PAIRED)
    return tables.wide(lines, "setting", words.points).rename(columns={"setting": "difference"})


def cell_maps(runs: Sequence[Run], seed: int) -> pd.DataFrame:
    """Held-out cells in the plane, see `genes.cell_maps`; of the page's run and that of ImageNet features."""
    found = [optional(run, "cells") for run in runs]
    own = {"variant": of_genes(IMAGENET), "repeat": 0}
    found = [part if "variant" in part else part.assign(**own) for part in found if len(part)]
    return genes.cell_maps(pd.concat(found, ignore_index=True) if found else pd.DataFrame(), seed)


def course_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, week and objective at the checkpoints of the baseline's first training."""
    return course.panels(numbers, MEASURES, {"cross_entropy": "cross-entropy (nats)"})


def course_references(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of what is not trained on these cells, for the same panels."""
    return course.references(numbers, PROTOCOL, (UNTRAINED, PLAIN[0], IMAGENET), MEASURES)


# --- sentences ------------------------------------------------------------------------------------------------------


def budget_table(config: Config, run: Run) -> pd.DataFrame:
    """How large this run is beside the paper's."""
    paper, size = PRESETS["paper"], run.table("size").iloc[0]
    minutes = run.table("trainings")["seconds"].sum() / 60
    votes = optional(run, "genes")
    genetic = [votes.groupby(["variant", "repeat", "summary", "measure"]).size().max()] if len(votes) else []
    rate = "0.001" if config.rate is None else f"{config.rate:g}"
    return tables.budget_table(
        [
            ("cells", f"{size['cells']:,}", "not said"),
            *(("treated wells of the genetic screen", f"{wells:,}", "not said") for wells in genetic),
            ("steps of a training", f"{config.iterations:,}", f"{paper.iterations:,} (code of 2019)"),
            ("cells, pairs or sets in a batch", f"{config.batch}", f"{paper.batch} (code of 2019)"),
            ("cell views of a training", f"{views(config):,}", f"{PAPERS_VIEWS:,}"),
            ("channels of the first stage", f"{config.width}", f"{paper.width}"),
            ("optimiser, first learning rate", f"Adam, {rate}", "Adam, not printed; SGD, 0.01 (code of 2019)"),
            ("pixels of a crop", f"{config.crop} x {config.crop}", "96 x 96 (code of 2019)"),
            ("trainings of each model of the paper's tables", f"{config.repeats}", "1"),
            ("minutes of training, all together", f"{minutes:.0f}", "not said"),
        ]
    )


def warning(config: Config, run: Run, page: str) -> str:
    """The box at the top: what this run is and is not, as Markdown."""
    trained = run.table("trainings")
    share = views(config) / PAPERS_VIEWS
    own = "the paper's network" if config.width == PRESETS["paper"].width else "a narrower network than the paper's"
    untrained = [label for label in LABELS.values() if label not in set(trained["variant"])]
    cells = CELLS.get(config.screen, Path(config.screen).name)
    devices = ", ".join(sorted(trained["device"].unique()))
    genetic = trained["variant"].map(genes.is_genetic)
    also = f" and, {genetic.sum()} of them, on a simulated genetic screen" if genetic.any() else ""
    other = trained["variant"].isin([PRETRAINED, of_genes(PRETRAINED)]).sum()
    but = f" but for {other} of EfficientNet-Lite0" if other else ""
    lines = [
        f"Trained on {cells}{also}, on {devices}: {len(trained)} trainings, of {own}{but}, each on {views(config):,} "
        "cell views, where a pair or a set of cells counts as one. "
        f"The code behind the paper asks for {PAPERS_VIEWS:,}: this is {100 * share:.2g} % of them.",
        *(f"The {name} model was not trained." for name in untrained),
        "Numbers from other data than the paper's are *not comparable*, and claims about networks that still learn are "
        "*undecided*: what stands here says how far so short a training gets, and no more.",
        "The preset `paper` has the code's numbers and needs a GPU for days; it has not been run: "
        f"`cellbook run {page} -p preset=paper`.",
    ]
    return words.box("Not the paper's cells, and not its scale", lines, "warning")


def takeaways(numbers: pd.DataFrame, claims: pd.DataFrame) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""

    def reach(names: Sequence[str], summary: str) -> str:
        lines = [(name, pick(numbers, variant=name, summary=summary, protocol=PROTOCOL)) for name in names]
        return ", ".join(
            f"{name} " + " / ".join(words.share(one(part, measure=measure)) for measure in MEASURES)  # type: ignore[arg-type]
            for name, part in lines
            if len(part)
        )

    def gap(summary: str) -> str:
        setting = f"{BASELINE} - {UNTRAINED}, {summary}"
        found = ((name, one(numbers, setting=setting, measure=name)) for name in MEASURES)
        return ", ".join(words.points(line, name) for name, line in found if line is not None)

    trained = tuple(LABELS.values())
    lines = [
        f"Layer {LAYER}, whitened ({{term}}`NSC` / {{term}}`NSCB`, per cent): {reach(trained, WHITENED)}; "
        f"without any training on these cells {reach((*PLAIN, IMAGENET, UNTRAINED), WHITENED)}.",
        f"Not whitened: {reach(trained, MEANS[0])}; {reach((*PLAIN, IMAGENET, UNTRAINED), MEANS[0])}.",
        f"The baseline less the same network before its first step: whitened {gap(WHITENED)}; not whitened "
        f"{gap(MEANS[0])}.",
    ]
    matched = pick(numbers, protocol=genes.PROTOCOL, measure=genes.GENE, summary=WHITENED, variant=list(genes.VARIANTS))
    if len(matched):
        each = ", ".join(
            f"{line['variant'].removesuffix(of_genes(''))} {words.share(line)}" for _, line in matched.iterrows()
        )
        lines.append(f"Gene of a well told on the simulated genetic screen (per cent, whitened): {each}.")
    cells = pick(numbers, protocol=AUXILIARY, measure=VALIDATION, variant=list(LABELS.values()))
    if len(cells):
        told = ", ".join(f"{line['variant']} {words.share(line)}" for _, line in cells.iterrows())
        lines.append(
            f"Treatment of a validation cell told (per cent, chance {percent(cells['null'].iloc[0])}): {told}."
        )
    week = pick(numbers, protocol=course.WEEK, summary=WHITENED).sort_values("step")
    if len(week):
        first, last, chance = *map(words.share, (week.iloc[0], week.iloc[-1])), percent(week["null"].iloc[-1])
        lines.append(
            "The week of a positive control well is told, from whitened profiles of few cells of the baseline's first "
            "training, in "
            f"{first} per cent before the first step and in {last} after the last (chance {chance})."
        )
    return words.takeaways(lines, claims)
