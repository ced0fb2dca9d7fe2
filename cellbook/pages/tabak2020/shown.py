"""What the page shows of its numbers: tables, and sentences that depend on them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.carry import LEFT, NAMED
from cellbook.pages.tabak2020.config import PRESETS, Config
from cellbook.pages.tabak2020.measures import (
    BEST,
    BOOTSTRAP,
    CARRIED,
    DAMAGE,
    EMBEDDED,
    NOISE,
    PAIRED,
    POOLED,
    SAME_STEP,
    SILHOUETTE,
    STEP,
    STOPPING,
    week_protocol,
)
from cellbook.pages.tabak2020.sources import ENGINEERED
from cellbook.screens.named import SIMULATED
from cellbook.study import words
from cellbook.study.rows import one, pick
from cellbook.study.show import SPACE, percent, plain
from cellbook.study.tables import beside_paper, wide

WDN = tuple(c.CROSS_VALIDATED.values())
METHODS = (c.UNCORRECTED, c.CORAL, *WDN)  # the methods of the paper
BEYOND = (c.TVN, c.CORAL_MEANS, c.CENTRED, c.ROBUST, c.HARMONY, c.LAST, *c.HINDSIGHT.values())
MEASURES = ["NSC", "NSCB"]
RULES = {c.HINDSIGHT["knn"]: "k-NN", c.HINDSIGHT["silhouette"]: "silhouette"}
SHAPE = {"protocol": SILHOUETTE, "measure": "MOA"}


def mains(sources: pd.DataFrame) -> list[str]:
    """Names of the sources that are shown, without further strengths of the week effect."""
    return sources[sources["main"] == 1]["source"].tolist()


def about(sources: pd.DataFrame, source: str) -> pd.Series:
    """The row of a source."""
    return sources.set_index("source").loc[source]


def base(sources: pd.DataFrame, source: str) -> str:
    """What the paper calls the uncorrected features of such a source."""
    return "Preprocessed" if about(sources, source)["family"] == ENGINEERED else "TVN"


def is_silhouette(line: pd.Series) -> bool:
    """Whether a number or verdict is a silhouette and no share."""
    return SILHOUETTE in (line["protocol"], line["measure"])


def bounded(line: pd.Series) -> str:
    """A number that is no share: mean ± deviation over trainings [interval]."""
    return f"{words.number(line)} [{line['low']:.3f}, {line['high']:.3f}]".replace(" ", SPACE)


def score(line: pd.Series) -> str:
    """A silhouette as it is, an accuracy in per cent; with what is known of its uncertainty."""
    if not is_silhouette(line):
        return words.accuracy(line)
    return words.number(line) if line["draws"] > 0 else bounded(line)


def printed(verdict: pd.Series) -> str:
    """A printed silhouette or accuracy with its standard error."""
    return words.printed(verdict, 3 if is_silhouette(verdict) else None)


# --- beside the paper -----------------------------------------------------------------------------------------------


def accuracy_table(
    numbers: pd.DataFrame, sources: pd.DataFrame, source: str, measure: str, verdicts: pd.DataFrame
) -> pd.DataFrame:
    """Tables 1, 2, 4 and 5: k = 1 to 4 in columns; the paper's row under ours, for all rows and for resamples."""
    kinds = {POOLED: f"all {about(sources, source)['unit']}", BOOTSTRAP: "resampled"}
    names = {c.UNCORRECTED: base(sources, source)}
    rows = [
        ({"method": names.get(method, method), "type": kind}, {"method": method, "protocol": protocol})
        for method in METHODS
        for protocol, kind in kinds.items()
    ]
    own = pick(numbers, source=source, measure=measure)
    return beside_paper(own, verdicts, rows, {f"{k}-NN": {"k": k} for k in (1, 2, 3, 4)}, score, printed)


def batch_table(numbers: pd.DataFrame, sources: pd.DataFrame, source: str, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Tables 3 and 6: silhouette and week named, methods in columns, the paper's row under ours."""
    drawn = week_protocol(BOOTSTRAP)
    wanted = {
        "silhouette": SHAPE,
        "silhouette, resampled": {"protocol": BOOTSTRAP, "measure": "silhouette"},
        "week, logistic regression": {"protocol": week_protocol(c.ROWS), "measure": "logistic"},
        "week, logistic regression, resampled": {"protocol": drawn, "measure": "logistic"},
        "week, random forest": {"protocol": week_protocol(c.ROWS), "measure": "forest"},
        "week, random forest, resampled": {"protocol": drawn, "measure": "forest"},
    }
    # The silhouette of resamples is the best of all steps, whatever the rule.
    wdn = [BEST, c.CROSS_VALIDATED["silhouette"]]
    methods = {"WDN": wdn, c.CORAL: c.CORAL, base(sources, source): c.UNCORRECTED}
    rows = [({"": label}, where) for label, where in wanted.items()]
    columns = {column: {"method": method} for column, method in methods.items()}
    return beside_paper(pick(numbers, source=source), verdicts, rows, columns, score, printed)


def beyond_table(numbers: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """Corrections that the paper does not have, and steps that nobody could have chosen: 1-NN and the week."""
    rows = [
        ({"profiles": source, "method": method}, {"source": source, "method": method})
        for source in mains(sources)
        for method in (*METHODS, *BEYOND)
    ]
    columns = {
        **{measure: {"protocol": POOLED, "measure": measure, "k": 1} for measure in MEASURES},
        "silhouette": {**SHAPE},
        "week": {"protocol": week_protocol(c.ROWS), "measure": "logistic"},
        "week, unseen plates": {"protocol": week_protocol(c.UNSEEN), "measure": "logistic"},
    }
    return beside_paper(numbers, None, rows, columns, score)


def week_table(numbers: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """How often the week is named, by four ways of asking, before and after WDN."""
    asked = {c.ROWS: "as in the paper", c.PLATES: "plates held out", c.UNSEEN: "plates that no map has seen"}
    asked["positive control"] = "positive control, plates held out"
    rows = [
        ({"profiles": source, "asked": text}, {"source": source, "protocol": week_protocol(how)})
        for source in mains(sources)
        for how, text in asked.items()
    ]
    methods = (c.UNCORRECTED, c.CORAL, c.CENTRED, BEST, c.LAST, NOISE)
    return beside_paper(pick(numbers, measure="logistic"), None, rows, {name: {"method": name} for name in methods})


# --- further tables -------------------------------------------------------------------------------------------------


def source_table(sources: pd.DataFrame) -> pd.DataFrame:
    """What each kind of profile is made of."""
    shown = sources[sources["main"] == 1]
    return pd.DataFrame(
        {
            "profiles": shown["source"],
            "rows": [f"{n:,} {unit}" for n, unit in zip(shown["rows"], shown["unit"], strict=True)],
            "of DMSO": [f"{n:,}" for n in shown["controls"]],
            "fewest in a week": shown["fewest_controls_of_a_week"],
            "features": shown["features"],
            "plates": shown["plates"],
            "treatments": shown["treatments"],
            "map steps": [f"{n:,}" for n in shown["map_steps"]],
        }
    )


def converged_table(converged: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """Uncorrected wells whose factor analysis stops earlier or later: accuracy for k = 1 to 4, and silhouette."""
    lines = converged.merge(sources[["source", "features"]], on="source")
    scores = [f"{r.measure}, {r.k}-NN" if r.k else r.measure for r in lines.itertuples()]
    rises = [f"{tolerance:g}" for tolerance in lines["tolerance"]]
    lines = lines.rename(columns={"source": "profiles", "features": "factors"})
    lines = lines.assign(score=scores, **{"stops at a rise of": rises})
    index = ["profiles", "factors", "stops at a rise of"]
    return wide(lines, index, lambda line: (percent if line["k"] else plain)(line["value"]), "score")


def paired_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Differences between methods, mean over k, in points with intervals over compounds."""
    lines = pick(numbers, protocol=PAIRED, measure=MEASURES).drop(columns="method")
    lines = lines.rename(columns={"source": "profiles", "left": "method", "right": "less"})
    return wide(lines, ["profiles", "method", "less"], words.points)


def embedding_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Differences of other features from classical ones of the same cells, in points with intervals over compounds."""
    lines = pick(numbers, protocol=EMBEDDED).rename(columns={"source": "profiles"})
    return wide(lines.assign(head=lines["measure"] + ", less classical"), ["profiles", "method"], words.points, "head")


def damage_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """What is left of the controls, and how far the maps went, at the best silhouette and at the last step."""
    few = {"variance": "variance left", "gap": "gap between weeks", "change": "mean change of a map"}
    lines = pick(numbers, protocol=DAMAGE, measure=list(few)).rename(columns={"source": "profiles"})
    order = {name: place for place, name in enumerate(lines["profiles"].unique())}
    lines = lines.sort_values("profiles", key=lambda names: names.map(order), kind="stable")
    lines = lines.assign(measure=lines["measure"].map(few))
    before = pick(lines, method=c.UNCORRECTED, measure=few["gap"]).set_index("profiles")["value"]  # else 1 and 0
    table = wide(lines[lines["method"] != c.UNCORRECTED], ["profiles", "method"], words.number)
    table = table.assign(**{"gap before": table["profiles"].map(before.map("{:.3f}".format))})
    return table[["profiles", "method", few["variance"], "gap before", few["gap"], few["change"]]]


def stopping_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Steps chosen with all compounds, and how often the same is chosen without the compound."""
    lines = pick(numbers, protocol=STOPPING).rename(columns={"source": "profiles"})
    heads = ["map step, all compounds", "the same without the compound (%)"]
    lines = lines.assign(rule=lines["method"].map(RULES), head=np.where(lines["measure"] == STEP, *heads))
    return wide(
        lines,
        ["profiles", "rule"],
        lambda line: words.number(line, 0) if line["measure"] == STEP else words.accuracy(line),
        "head",
    )


def variant_table(variants: pd.DataFrame) -> pd.DataFrame:
    """Departures from the paper's method: chosen without the compound, and what is left at the last step."""
    rows = []
    for variant, part in variants.groupby("variant", sort=False):
        scores = part[part["at"] == "knn"].groupby("measure")["value"].mean()
        last = part[part["at"] == "last"].set_index("measure")["value"]
        best = pick(part, at="best", measure="silhouette")["value"].iloc[0]
        rows.append(
            {
                "variant": variant,
                **{measure: percent(scores[measure]) for measure in MEASURES},
                "best silhouette": plain(best),
                **{f"{measure} at the end": plain(last[measure]) for measure in ("silhouette", "gap", "variance")},
                "seconds": f"{part['seconds'].iloc[0]:.0f}",
            }
        )
    return pd.DataFrame(rows)


def bug_table(bugs: pd.DataFrame) -> pd.DataFrame:
    """What every fault of the published code does to profiles, at step 0 and at the last step."""
    few = {"gap": "gap", "gap in training": "gap under the trained maps", "estimate": "critics' distance"}
    few |= {"variance": "variance", "change": "change of a map"}
    start = pick(bugs, step=0, variant=bugs["variant"].iloc[0], measure=["gap", "variance", "change", *MEASURES])
    last = bugs[bugs["step"] == bugs.groupby("variant")["step"].transform("max")]
    rows = []
    for variant, part in {"no correction": start, **dict(list(last.groupby("variant", sort=False)))}.items():
        means = part.groupby("measure")["value"].mean().reindex([*few, *MEASURES])
        cells = {label: plain(means[measure]) if pd.notna(means[measure]) else "–" for measure, label in few.items()}
        rows.append({"variant": variant, **cells, **{f"{m}, mean over k": percent(means[m]) for m in MEASURES}})
    return pd.DataFrame(rows)


def truth_table(truth: pd.DataFrame) -> pd.DataFrame:
    """Restoration as a table, one row a source and method, in the order of the figure."""
    order = {name: place for place, name in enumerate(truth["method"].unique())}
    keys = ["embedding", "week_effect", "method"]
    kinds = {name: place for place, name in enumerate(truth["embedding"].unique())}
    truth = truth.sort_values(
        keys, key=lambda of: of.map({"embedding": kinds, "method": order}.get(of.name, lambda x: x)), kind="stable"
    )
    return wide(truth.rename(columns={"week_effect": "week effect"}), ["embedding", "week effect", "method"], bounded)


def carried_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Gap left and week named on unseen plates, DMSO and the positive control, at the last step of each fit.

    Beside a gap left stands what would be left if weeks were equal.
    """
    lines = pick(numbers, protocol=CARRIED, measure=[LEFT, NAMED])
    lines = lines[lines["week_effect"] != 0]
    last = lines[lines["step"] == lines.groupby(["source", "fit"])["step"].transform("max")]
    texts = [words.accuracy(line) if line["measure"] == NAMED else bounded(line) for _, line in last.iterrows()]
    last = last.assign(text=texts, head=last["on"] + ": " + last["measure"])
    gaps = pick(last, measure=LEFT)
    floors = gaps.assign(text=gaps["null"].map(plain), head=gaps["head"] + ", if weeks were equal")
    both = pd.concat([last, floors]).sort_values("head", kind="stable")
    both = both.rename(columns={"source": "profiles", "fit": "maps fitted on"})
    return wide(both, ["profiles", "maps fitted on"], lambda line: line["text"], "head")


# --- sentences ------------------------------------------------------------------------------------------------------


def warning(config: Config, sources: pd.DataFrame) -> str:
    """The box at the top: what this run is and is not, as Markdown."""
    paper, left_out = PRESETS["paper"], str(sources["left_out"].iloc[0])
    lines = [
        "The paper aligns all cells of BBBC021; here are means of all its wells, and some thousands of cells.",
        "Its deep embedding was never released; features of a network that was trained on photographs and codes of "
        "VAE+ stand in for it, so that tables 4 to 6 are *not comparable* in their numbers, and its claims are judged "
        "on what is here.",
        f"Wells are aligned in {config.well_iterations:,} map steps after {config.well_pretraining:,} steps of the "
        f"critics at a rate of {config.well_rate:g}, cells in {config.cell_iterations:,} after "
        f"{config.cell_pretraining:,} at {config.cell_rate:g}; the published code has "
        f"{paper.well_iterations:,} after {paper.well_pretraining:,} at {paper.well_rate:g}.",
        f"Variants, the faults of the published code, and the maps whose generalisation is judged have a short "
        f"budget of {config.short_iterations:,} map steps after {config.short_pretraining:,} at {config.short_rate:g}.",
    ]
    title = "Not the paper's data, and not its scale"
    return words.box(title, [*lines, *([left_out] if left_out else [])], "warning")


def about_cells(config: Config, sources: pd.DataFrame) -> str:
    """What the cells are, and what the encoder of their codes was trained on: sentences."""
    texts = []
    if SIMULATED in set(sources["screen"]):
        others = " and ".join(f"{effect:g}" for effect in config.week_effects if effect != config.week_effect)
        texts.append(
            f"Simulated weeks have a strength of {config.week_effect:g}; the same cells are drawn with {others}."
        )
        if config.cells:
            texts.append(
                "For simulated cells VAE+ was trained on a larger screen with weeks of the same strength; it has not "
                "seen those that are aligned, and codes them as it would cells of new plates."
            )
    coded = sources[sources["views"].notna()]
    views = [f"{n:,.0f} cell views ({source})" for n, source in zip(coded["views"], coded["source"], strict=True)]
    return " ".join([*texts, *([f"The trainings of VAE+ had {' and '.join(views)}."] if views else [])])


def takeaways(tables: dict[str, pd.DataFrame]) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""
    lines = []
    for source in mains(tables["sources"]):
        own = pick(tables["numbers"], source=source)
        before, stopped, last = (accuracies_of(own, method) for method in (c.UNCORRECTED, WDN[0], c.LAST))
        lines.append(
            f"{source[0].upper() + source[1:]}: NSC / NSCB {before} % without a correction"
            f"{week_of(own, c.UNCORRECTED)}; {stopped} % with WDN stopped by k-NN; {last} % at its last step"
            f"{week_of(own, c.LAST)}."
        )
    return words.takeaways(lines, tables["claims"])


def accuracies_of(own: pd.DataFrame, method: str) -> str:
    """NSC and NSCB of the nearest neighbour by a method, with intervals, in per cent."""
    return " / ".join(words.share(one(own, method=method, protocol=POOLED, measure=name, k=1)) for name in MEASURES)


def week_of(own: pd.DataFrame, method: str) -> str:
    """How often the week of a control is named under a method, beside noise, where it was asked; behind accuracies."""
    asked = {how: pick(own, protocol=week_protocol(how), measure="logistic") for how in (c.ROWS, c.UNSEEN)}
    told = {how: (one(lines, method=method), one(lines, method=NOISE)) for how, lines in asked.items()}
    texts = [
        f"{words.share(line)} %{places} (from noise {percent(noise['value'])} %)"
        for places, (line, noise) in zip(("", " on plates that no map has seen"), told.values(), strict=True)
        if line is not None and noise is not None
    ]
    return f", where the week of a control is named in {', '.join(texts)}" if texts else ""


def silhouette_at_start(numbers: pd.DataFrame, sources: Collection[str]) -> str:
    """Of which of these sources the rule of the silhouette stays at step 0, for a table: a sentence, or nothing.

    The rule is asked with all compounds and without each, in every alignment.
    """
    lines = pick(numbers, protocol=STOPPING, method=BEST, source=list(sources))
    steps, same = (lines[lines["measure"] == name].set_index("source")["value"] for name in (STEP, SAME_STEP))
    still = [source for source in sources if steps.get(source) == 0 and same.get(source) == 1]
    if not still:
        return ""
    return (
        f"The silhouette is best at step 0 for {' and '.join(still)}, so that *{WDN[1]}* is no correction there "
        "(in resamples the step is chosen anew)."
    )


def resampling(config: Config, sources: pd.DataFrame, source: str) -> str:
    """How often a source is resampled, and the controls whose week is named: a sentence of a caption."""
    controls, unit = (about(sources, source)[name] for name in ("controls", "unit"))
    few = "" if config.leak_bootstraps >= words.FEWEST_DRAWS else ", too few for a standard error"
    asked = "once" if config.leak_bootstraps == 1 else f"{config.leak_bootstraps} times"
    return (
        f"{config.resampled(unit)} resamples; the week is asked of {min(config.leak_rows, controls):,} of {controls:,} "
        f"controls, and {asked} of resampled ones{few}."
    )


def absent(numbers: pd.DataFrame, sources: pd.DataFrame) -> str:
    """Which corrections stand not in the table of other corrections, and why: a sentence."""
    made = pick(numbers, protocol=POOLED)
    reasons = ["ComBat is not in this book"]
    if pick(made, method=c.HARMONY).empty:
        reasons.append("Harmony was not run, as its package, an extra, was not installed")
    if without := [source for source in mains(sources) if pick(made, source=source, method=c.ROBUST).empty]:
        reasons.append(f"{c.ROBUST} needs {c.LEAST_ON_PLATE} controls on every plate: not on {' and '.join(without)}")
    return "Left out: " + "; ".join(reasons) + "."
