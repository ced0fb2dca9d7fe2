"""What the page shows: tables and sentences from the measured numbers, and the pictures with their originals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.pages.lafarge2019.config import (
    BASELINES,
    LABELS,
    PAPER_MODELS,
    PRESETS,
    PROTOCOL,
    SWEPT,
    Config,
    beta_name,
    followed_name,
    trainings,
)
from cellbook.pages.lafarge2019.making import load
from cellbook.pages.lafarge2019.measures import EUCLIDEAN, FALLING
from cellbook.runs import Run
from cellbook.study import course, tables, words
from cellbook.study.encoding import CLASSICAL, IMAGENET, UNTRAINED
from cellbook.study.measured import BY_CHANNEL
from cellbook.study.pictures import with_originals
from cellbook.study.profile import BY_PLATE, SUMMARIES
from cellbook.study.reconstructions import MISFIT
from cellbook.study.rows import one, pick
from cellbook.study.show import percent

MEASURES = ("NSC", "NSCB")
MODELS = list(LABELS.values())
OVERALL = (
    "MSE",
    "SSIM",
    "sharpness",
    "misfit of sharpness",
    "feature distance",
    "told apart",
    "made, taken for real",
    "real, taken for made",
)
RATE = ("KL (nats)", "active units")
DIGITS = {
    "KL (nats)": 1,
    "active units": 0,
    "MSE": 4,
    FALLING: 4,
    "largest fall": 4,
}  # of measures that are no accuracies
NOISE = "noise in place of codes"
HOLE = 20  # pixels that are black in all channels of a decoded cell, and not in its original, which are told of
FEWEST = 3  # values of what is swept that make a figure
KINDS = {"cell": "R2, cell", "treatment": "R2, treatment", "nuisance": "R2, nuisances"}  # of known parameters
SCREENS = {
    "simulated": "simulated cells with the plate map of BBBC021",
    "bbbc021-sample": "{:,} real crops of BBBC021 instead of a million",
}


def pictures(run: Run, config: Config, store: str | Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The pictures of the page with the originals in their places: table, and (n, H, W, 3) uint8 in its order."""
    return with_originals(run, load(config, store))


def hole_words(table: pd.DataFrame, stack: np.ndarray) -> str:
    """In which decoded cells of figure 2 a patch is black that is not black in the original; empty if in none."""
    chosen = pick(table, figure="cells")
    black = pd.Series([(stack[place] == 0).all(axis=-1) for place in chosen.index], index=chosen.index, dtype=object)
    originals = black[chosen["column"] == "original"].set_axis(chosen.loc[chosen["column"] == "original", "row"])
    drawn = chosen[chosen["column"] != "original"]
    holes = [(black[place] & ~originals[row]).sum() >= HOLE for place, row in drawn["row"].items()]
    found = drawn[holes].groupby("column", sort=False)["row"].agg(", ".join)
    if found.empty:
        return ""
    each = "; ".join(f"{model} ({rows})" for model, rows in found.items())
    return (
        f"Black spots in cells drawn by {each} are in no original: all channels of the stored pictures are 0 there, as "
        "is all that a decoder gives as 0 or less."
    )


# --- accuracy -------------------------------------------------------------------------------------------------------


def accuracy_table(
    numbers: pd.DataFrame,
    verdicts: pd.DataFrame | None = None,
    variants: tuple[str, ...] = PAPER_MODELS,
    protocol: str = PROTOCOL,
) -> pd.DataFrame:
    """One row a measure and model, one column a summary; published values in a row of their own under each."""
    rows = [
        ({"measure": measure, "profile": name}, {"measure": measure, "variant": name, "protocol": protocol})
        for measure in MEASURES
        for name in variants
    ]
    return tables.beside_paper(numbers, verdicts, rows, {summary: {"summary": summary} for summary in SUMMARIES})


def further_table(numbers: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Baselines and variants that the paper does not have."""
    betas = (beta_name(beta) for beta in config.betas)
    return accuracy_table(numbers, None, (*BASELINES, IMAGENET, "AE without noise", *betas, "VAE+ at once", "VAE/GAN"))


def euclidean_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """The paper's models by Euclidean instead of cosine distance."""
    return accuracy_table(numbers, protocol=EUCLIDEAN)


def by_plate_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Whitening by the controls of each plate instead of all plates; empty where plates have too few."""
    lines = pick(numbers, protocol=PROTOCOL, summary=[f"{summary}{BY_PLATE}" for summary in SUMMARIES])
    return tables.wide(lines, "setting", words.accuracy).rename(columns={"setting": "profile"})


def plain_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Chance, the largest class, and the cell count alone."""
    lines = pick(numbers, protocol="baseline")
    return tables.wide(lines, "setting", words.accuracy).rename(columns={"setting": "profile"})


def whitening_table(run: Run) -> pd.DataFrame:
    """What each whitening was fitted on: controls, features, rank, and the ridge; means over trainings."""
    shown = pick(run.table("whitenings"), variant=[*PAPER_MODELS, *BASELINES]).drop(columns="repeat")
    means = shown.groupby(["variant", "summary"], sort=False).mean().reset_index()
    for name in ("controls", "features", "rank"):
        means[name] = means[name].round(1).map("{:g}".format)
    means["ridge"] = means["ridge"].map("{:.3f}".format)
    return means.rename(columns={"variant": "profile", "ridge": "ridge (of the mean eigenvalue)"})


# --- the course of learning -----------------------------------------------------------------------------------------


def course_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, week and objective at the checkpoints of the judged models; without rows where none was kept."""
    terms = {"pixel": "pixel term", "kl": "KL (nats)", **{f"feature_{i}": "feature terms, sum" for i in range(1, 5)}}
    return course.panels(numbers, MEASURES, terms)


def followed(config: Config) -> dict[str, str]:
    """The judged model of every training that was only followed on its way."""
    return {followed_name(LABELS[model], config): LABELS[model] for model in config.models} if config.followed else {}


def followed_words(config: Config, run: Run) -> str:
    """What the trainings are that were followed on their way, as a sentence; empty if there are none."""
    if not config.followed:
        return ""
    told = pick(run.table("trainings"), variant=list(followed(config)))
    return (
        f"Open marks are one more training of each model with {config.followed} channels a hidden layer in place of "
        f"{config.width}, on {', '.join(sorted(told['device'].unique()))} in {told['seconds'].sum() / 3600:.1f} hours "
        "together, measured on their way, and from few cells of a well, which costs most where profiles are whitened: "
        "shown, not judged."
    )


def course_references(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of what is not trained on these cells, for the same panels."""
    return course.references(numbers, PROTOCOL, (UNTRAINED, CLASSICAL, IMAGENET), MEASURES)


# --- images, walks, weeks, truth ------------------------------------------------------------------------------------


def plain_number(line: pd.Series, digits: int = 3) -> str:
    """A number that is no accuracy, with as many digits as its measure has."""
    return words.number(line, DIGITS.get(line["measure"], digits))


def image_table(numbers: pd.DataFrame, measures: tuple[str, ...]) -> pd.DataFrame:
    """Measures of images, one row a model."""
    lines = pick(numbers, protocol="images", measure=list(measures), variant=[*MODELS, UNTRAINED])
    wide = tables.wide(lines, "variant", plain_number).rename(columns={"variant": "model"})
    return wide[["model", *(name for name in measures if name in wide)]]


def channel_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Measures of single channels, one row a model and measure, one column a channel."""
    lines = pick(numbers, protocol="images", variant=[*MODELS, UNTRAINED]).dropna(subset=["channel"])
    names = {f"{measure}, {channel}": measure for measure in BY_CHANNEL for channel in lines["channel"].unique()}
    lines = lines.assign(measure=lines["measure"].map(names)).sort_values("measure", kind="stable")
    wide = tables.wide(lines, ["measure", "variant"], plain_number, columns="channel")
    return wide.rename(columns={"variant": "model"})


def walk_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How walks behave, one row a model."""
    lines = pick(numbers, protocol="walk", variant=[*MODELS, UNTRAINED])
    wide = tables.wide(lines, "variant", plain_number)
    return wide.rename(columns={"variant": "model"})


def week_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How often the week of a control cell is named, one row a model, noise last; empty where it was not asked."""
    asked = pick(numbers, protocol="week")
    lines = pd.concat([pick(asked, setting=MODELS), pick(asked, setting="noise").assign(setting=NOISE)])
    named = [words.accuracy(line) for _, line in lines.iterrows()]
    return pd.DataFrame({"model": lines["setting"], "week named": named, "largest week": lines["null"].map(percent)})


def truth_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """R2 of the linear probe with the kind of each parameter; empty where no truth is known."""
    lines = pick(numbers, protocol="truth", variant=MODELS).rename(columns={"measure": "parameter"})
    return lines[["setting", "parameter", "kind", "value", "sd"]]


# --- sweeps ---------------------------------------------------------------------------------------------------------


def swept(numbers: pd.DataFrame, column: str, *models: str) -> pd.DataFrame:
    """Variants that are one of the models, or differ from it in one column of `numbers` alone: variant, model, x."""
    known = numbers[["variant", "model", column]].dropna().drop_duplicates().rename(columns={column: "x"})
    known = pick(known, model=list(models))
    base = known[known["variant"] == known["model"]]
    own = known["model"].map(base.set_index("model")["x"])
    return known[(known["variant"] == known["model"]) | (known["x"] != own)].sort_values("x", kind="stable")


def findings(numbers: pd.DataFrame, variant: str) -> dict[str, float]:
    """What a sweep looks at: accuracies of mean profiles, measures of images, the week, and R2 by kind.

    R2 is the median over the known parameters of one kind, those below 0 counted as 0.
    """
    mine = pick(numbers, variant=variant)
    found = pick(mine, protocol=PROTOCOL, summary=SUMMARIES[0]).set_index("measure")["value"].to_dict()
    found |= pick(mine, protocol="images").set_index("measure")["value"].to_dict()
    if (week := one(mine, protocol="week")) is not None:
        found["week named"] = week["value"]
    for kind, name in KINDS.items():
        if len(r2 := pick(mine, protocol="truth", kind=kind)["value"]):
            found[name] = r2.clip(lower=0).median()
    return {"trainings": int(mine["trainings"].max()), **found}


def sweep_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """What changes with the weight of the KL term and with the strength of the batch effect, one row a number.

    Columns sweep, model, x, trainings, measure, value; the AE is a VAE with the weight 0. A sweep of fewer than
    `FEWEST` different x is left out, and without any the table has no rows.
    """
    by_beta = swept(numbers, "beta", "AE", "VAE").assign(sweep="beta", model="VAE")
    models = [LABELS[name] for name in SWEPT]
    by_week = [swept(numbers, "week_effect", model).assign(sweep="week effect") for model in models]
    rows = []
    for line in pd.concat([by_beta, *by_week]).itertuples():
        found = findings(numbers, line.variant)
        about = {"sweep": line.sweep, "model": line.model, "x": float(line.x), "trainings": found["trainings"]}
        names = [name for name in (*MEASURES, "week named", *KINDS.values()) if name in found]
        rows += [{**about, "measure": name, "value": float(found[name])} for name in names]
    table = pd.DataFrame(rows)
    return table[table.groupby("sweep")["x"].transform("nunique") >= FEWEST].reset_index(drop=True)


def beta_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """What the weight of the KL term changes: accuracy, sharpness, rate, week, and truth, one row a beta."""
    rows = []
    for line in swept(numbers, "beta", "AE", "VAE").itertuples():
        found = findings(numbers, line.variant)
        row = {"beta": f"{line.x:g}", "trainings": found["trainings"]}
        row |= {f"{name}, mean": percent(found.get(name, np.nan)) for name in MEASURES}
        row |= {name: f"{found.get(name, np.nan):.{DIGITS.get(name, 3)}f}" for name in (*RATE, "SSIM", "sharpness")}
        row["week named"] = percent(found.get("week named", np.nan))
        rows.append(row | {name: f"{found[name]:.2f}" for name in KINDS.values() if name in found})
    return pd.DataFrame(rows)


# --- sentences ------------------------------------------------------------------------------------------------------


def budget_table(config: Config, run: Run) -> pd.DataFrame:
    """How large this run is beside the paper's."""
    paper, size = PRESETS["paper"], run.table("size").iloc[0]
    hours = own_trainings(config, run)["seconds"].sum() / 3600
    batch = "one of each treatment" if config.batch is None else f"{config.batch}"
    return tables.budget_table(
        [
            ("cells", f"{size['cells']:,}", "about a million"),
            ("iterations of a training", f"{config.iterations:,}", f"{paper.iterations:,}"),
            ("cells in a batch", batch, "104, one of each treatment and DMSO"),
            ("learning rate of encoder and decoder", f"{config.adam_rate:g}", f"{paper.adam_rate:g}"),
            ("channels of a hidden layer", f"{config.width}", f"{paper.width}"),
            ("features of a code", f"{config.latent}", f"{paper.latent}"),
            ("iterations in which a feature term comes in (T)", f"{config.ramp:,}", f"{paper.ramp:,}"),
            ("pixels of a crop", "68 x 68", "68 x 68"),
            ("trainings of each judged model", f"{config.repeats}", "3"),
            ("hours of training, all models together", f"{hours:.1f}", "not said"),
        ]
    )


def own_trainings(config: Config, run: Run) -> pd.DataFrame:
    """What is told of the trainings of the page's own width."""
    names = {one.variant for one in trainings(config) if one.config.width == config.width}
    return pick(run.table("trainings"), variant=list(names))


def warning(config: Config, run: Run, page: str) -> str:
    """The box at the top: what this run is and is not, as Markdown."""
    trained = own_trainings(config, run)
    device = ", ".join(sorted(trained["device"].unique()))
    cells = run.table("size")["cells"].iloc[0]
    screen = SCREENS.get(config.screen, f"the cells of {config.screen}").format(cells)
    sizes = {"iterations": "iterations", "width": "channels a layer", "latent": "features of the code"}
    smaller = words.smaller(config, PRESETS["paper"], sizes)
    lines = [f"Trained on {screen}, on {device}: {len(trained)} trainings"]
    if smaller:
        lines[0] += f" with {', '.join(smaller)}"
        lines.append(
            "The preset `paper` has the paper's numbers and needs a GPU; it has not been run for this page: "
            f"`cellbook run {page} -p preset=paper`."
        )
    lines[0] += "."
    lines.append(
        "Numbers from other data than the paper's are *not comparable*; its claims are judged on these cells, but only "
        "where trainings meet the premise that stands with each: else they are *undecided*."
    )
    return words.box("Not the paper's cells" + (", and not its scale" if smaller else ""), lines, "warning")


def swept_words(config: Config) -> str:
    """What was trained beside the page's own strength of the batch effect, as a sentence; empty if nothing was."""
    if config.screen != "simulated" or not config.week_effects:
        return ""
    strengths = " and ".join(f"{effect:g}" for effect in config.week_effects)
    return (
        f"The same cells are also drawn with a batch effect of strength {strengths} (this screen has "
        f"{config.week_effect:g}), and models are trained anew."
    )


def premise_words(numbers: pd.DataFrame) -> str:
    """Why two premises are strict, as sentences: what networks give before their first step."""

    def told(protocol: str, measure: str, variant: str = UNTRAINED) -> str:
        line = one(numbers, variant=variant, protocol=protocol, measure=measure)
        return "–" if line is None else plain_number(line)

    start, plus = "similarity at the start", PAPER_MODELS[0]
    return (
        "Noise is sharp: networks before their first step draw images of a sharpness of "
        f"{told('images', 'sharpness')}, {told('images', MISFIT)} octaves from the original's. "
        "To be nearer to it than that is a strict premise for VAE and AE, which the claim itself calls blurred: with "
        "fewer cell views than the paper's they can hardly meet it. That of the walk can be strict, too: the codes of "
        f"untrained networks are so alike that their walks start at a similarity of {told('walk', start)} ({plus} "
        f"{told('walk', start, plus)}), and the share of features that lower it is {told('walk', FALLING)} there "
        f"({plus} {told('walk', FALLING, plus)}). No rule is changed once its result is seen."
    )


def disagreement_words(run: Run) -> str:
    """How often AE and VAE+ give a treatment different mechanisms, and which of them is right, as a sentence."""
    named = run.table("assigned")
    ae, plus = (named[variant] == named["Metadata_moa"] for variant in ("AE", "VAE+"))
    return (
        f"Of {len(named)} treatments, {(plus & ~ae).sum()} are given the right mechanism by VAE+ alone and "
        f"{(ae & ~plus).sum()} by AE alone (first training, mean profiles, NSC)."
    )


def takeaways(numbers: pd.DataFrame, claims: pd.DataFrame) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""

    def reach(names: tuple[str, ...], summary: str) -> str:
        found = []
        for name in names:
            lines = pick(numbers, variant=name, summary=summary, protocol=PROTOCOL)
            found.append(f"{name} " + " / ".join(words.share(one(lines, measure=m)) for m in MEASURES))
        return ", ".join(found)

    sharpness = pick(numbers, protocol="images", measure="sharpness")
    lines = [
        f"{label} ({{term}}`NSC` / {{term}}`NSCB`, per cent): {reach(PAPER_MODELS, summary)}; without any training "
        f"{reach(BASELINES, summary)}."
        for label, summary in (("Mean profiles", SUMMARIES[0]), ("The same, whitened", SUMMARIES[1]))
    ]
    sharp = ", ".join(f"{name} {words.number(one(sharpness, variant=name), 2)}" for name in PAPER_MODELS)
    lines.append(
        f"Sharpness of reconstructions (± deviation over trainings), where 1 is that of the originals: {sharp}."
    )
    return words.takeaways(lines, claims)
