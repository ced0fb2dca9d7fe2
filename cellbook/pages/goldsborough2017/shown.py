"""What the page shows: tables, sentences and the data of figures, from the measured numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.pages.goldsborough2017 import progress
from cellbook.pages.goldsborough2017.config import (
    BASELINES,
    GANS,
    LABELS,
    PRESETS,
    PROTOCOL,
    VAE,
    Config,
    name_of,
    papers_views,
    trainings,
)
from cellbook.pages.goldsborough2017.drawn import ANY
from cellbook.pages.goldsborough2017.features import BY_CELLS, PLAIN, WHITENED
from cellbook.pages.goldsborough2017.making import REAL, load
from cellbook.pages.goldsborough2017.measures import (
    DETAIL,
    EQUATIONS,
    HALO,
    NSC,
    OFF,
    PAIRS,
    PATHS,
    SAMPLES,
    SUMS,
    TREATMENTS,
    protocol_of,
)
from cellbook.pages.goldsborough2017.progress import FALLBACK, QUALITY
from cellbook.pages.goldsborough2017.quality import DUPLICATES, FID, KID, PRECISION, RECALL
from cellbook.runs import Run
from cellbook.screens.outlines import LARGER, OPEN
from cellbook.study import course, tables, words
from cellbook.study.encoding import IMAGENET, RANDOM
from cellbook.study.pictures import with_originals
from cellbook.study.rows import for_a_figure, one, pick
from cellbook.study.show import percent

MODELS = (*LABELS.values(), *(name_of("lsgan", told) for told in ("dose", "compound", "both")))
VARIANTS = (*MODELS, *BASELINES, IMAGENET)
JUDGED = (*GANS, VAE)
SUMMARIES = (PLAIN, WHITENED, BY_CELLS)
SHARES = (PRECISION, RECALL, DUPLICATES, "states covered")  # measures of samples that are proportions
SCREENS = {"simulated": "simulated cells with the plate map of BBBC021", "bbbc021-sample": "real crops of BBBC021"}
ORIGINS = {
    "simulated": "All cells of this page are simulated; their plate map is that of image set BBBC021v1.",
    "bbbc021-sample": "All cells that this page learns from or measures are real crops of image set BBBC021v1.",
}


# --- features -------------------------------------------------------------------------------------------------------


def result_table(numbers: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Accuracy as the paper averages it, a row a model and a column a summary; what is printed under each."""
    rows = [({"features": name}, {"variant": name, "protocol": PROTOCOL, "measure": NSC}) for name in VARIANTS]
    return tables.beside_paper(numbers, verdicts, rows, {name: {"summary": name} for name in SUMMARIES})


def treatment_table(numbers: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The same over treatments, another compound being right, and another compound of another week."""
    rows = [({"features": name}, {"variant": name, "protocol": TREATMENTS.name}) for name in VARIANTS]
    columns: dict[str, dict[str, object]] = {
        f"{measure.name}, {summary}": {"measure": measure.name, "summary": summary}
        for measure in TREATMENTS.measures
        for summary in (PLAIN, WHITENED)
    }
    return tables.beside_paper(numbers, verdicts, rows, columns)


def layer_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by what each convolution sees, and by the representation; a row a model and summary."""
    lines = pick(numbers, protocol=PROTOCOL, measure=NSC, variant=list(VARIANTS)).dropna(subset=["summary"])
    head = lines["summary"].str.extract(r"^(?:(layer \d), )?(.*)$")
    lines = lines.assign(layer=head[0].fillna("representation"), summary=head[1], model=lines["variant"])
    lines = pick(lines, summary=[PLAIN, WHITENED])
    of = lines.groupby("variant")["layer"].transform("nunique") > 1
    return tables.wide(lines[of].sort_values("layer", kind="stable"), ["model", "summary"], words.accuracy, "layer")


def difference_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Paired differences of accuracies in points, with the share of trainings on the side of their mean."""
    names = [f"{', '.join(a)} - {', '.join(b)}" for a, b in PAIRS]
    lines = pick(numbers, protocol="paired", setting=names)
    return tables.wide(lines, "setting", words.points).rename(columns={"setting": "difference"})


def directions_table(run: Run) -> pd.DataFrame:
    """How much of the representation the discriminator's output sees; means over trainings."""
    table = run.table("directions").groupby("variant", sort=False)[["seen", "varied", "rank"]].mean().reset_index()
    names = {
        "variant": "model",
        "seen": "share of the output's slope along one direction",
        "varied": "share of the variance of codes along it",
        "rank": "directions in which codes vary",
    }
    texts = {"seen": table["seen"].map("{:.3f}".format), "varied": table["varied"].map("{:.3f}".format)}
    return table.assign(**texts, rank=table["rank"].map("{:.1f}".format)).rename(columns=names)


# --- images ---------------------------------------------------------------------------------------------------------


def sample_table(numbers: pd.DataFrame, features: str = RANDOM) -> pd.DataFrame:
    """How good images are by some features, a row a model, real cells beside other real cells first."""
    lines = pick(numbers, protocol=[protocol_of(features), *([SAMPLES] if features == RANDOM else [])])
    lines = lines[~lines["measure"].isin([OFF])]
    order = {name: place for place, name in enumerate((REAL, *VARIANTS))}
    lines = lines.sort_values("variant", key=lambda names: names.map(order), kind="stable")
    return tables.wide(lines, "variant", quality).rename(columns={"variant": "images of"})


def quality(line: pd.Series) -> str:
    """A measure of samples: a share in per cent, else a number with its interval."""
    if line["measure"] in SHARES:
        return words.accuracy(line)
    digits = 2 if line["measure"] == DETAIL else 3
    return words.number(line, digits) if abs(line["value"]) < 100 else f"{line['value']:.0f}"


def state_table(run: Run) -> pd.DataFrame:
    """Shares of the states that a classifier names, of real cells and of images, means over trainings."""
    if "states.parquet" not in run.products():
        return pd.DataFrame()
    table = run.table("states")
    made = table.pivot_table(index="state", columns="variant", values="made", sort=False)
    real = table[table["variant"] == REAL].set_index("state")["real"]
    wide = made.assign(**{REAL: real}).sort_values(REAL, ascending=False)
    columns = [REAL, *(name for name in MODELS if name in wide)]
    return wide[columns].map(percent).rename_axis("state").reset_index().rename_axis(columns=None)


def noise_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How often paths and sums do what they should, a row a model and property."""
    lines = pick(numbers, protocol=[PATHS, SUMS], variant=list(MODELS))
    columns = {ANY: f"rises, {ANY}"} | {way: f"rises, {way}" for way in lines["way"].unique()}
    columns |= {way: f"between, {way}" for way in pick(lines, protocol=PATHS)["way"].unique()}
    lines = lines.assign(column=lines["way"].map(columns), model=lines["variant"])
    return tables.wide(lines, ["model", "property"], words.accuracy, "column")


def equation_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How often sums of codes of real cells are right, of more than one, beside chance and the same without the sum."""
    lines = pick(numbers, protocol=EQUATIONS, variant=list(MODELS))
    lines = lines[lines["scored"] > 1]
    gains = pick(numbers, protocol="paired", measure="sums right").set_index("setting")
    found = [
        {
            "equation": line["way"],
            "model": line["variant"],
            "right": words.accuracy(line),
            "sums": f"{line['scored']:.0f}",
            "chance": percent(line["null"]),
            "gain over no sum": words.points(gains.loc[f"{line['setting']}: with - without"]),
        }
        for _, line in lines.sort_values("way", kind="stable").iterrows()
    ]
    return pd.DataFrame(found)


def equation_words(numbers: pd.DataFrame) -> str:
    """A sentence on each kind of which there is a single sum, over which nothing can be drawn anew; else empty."""
    lines = pick(numbers, protocol=EQUATIONS, variant=list(MODELS), scored=1)
    return " ".join(
        f"Of {way} there is one sum on this screen, so that it is not in the table: it is right for "
        f"{int((of['value'] == 1).sum())} of {len(of)} models."
        for way, of in lines.groupby("way", sort=False)
    )


def halo_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """In how many images tubulin is brighter next to the nucleus than inside and away."""
    lines = pick(numbers, protocol=HALO)
    return pd.DataFrame(
        {"images": lines["variant"], "with a halo": [words.accuracy(line) for _, line in lines.iterrows()]}
    )


# --- data of figures ------------------------------------------------------------------------------------------------


def losses(run: Run) -> pd.DataFrame:
    """The losses of all trainings as a figure can show them, see `rows.for_a_figure`."""
    return for_a_figure(run.table("history"), ["variant", "repeat", "term"])


def course_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and quality of images at checkpoints, for `figures.course`."""
    found = [course.panels(numbers, (NSC,), {})]
    for measure in (FID, PRECISION, RECALL, DUPLICATES):
        part = pick(numbers, protocol=QUALITY, measure=measure)
        found.append(part.assign(panel=measure, share=measure in SHARES))
    columns = ["variant", "panel", "views", "value", "low", "high", "null", "share"]
    table = pd.concat([part for part in found if len(part)] or [pd.DataFrame(columns=columns)], ignore_index=True)
    return table.reindex(columns=columns)


def course_references(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of what is not trained, for the same panels."""
    return course.references(numbers, PROTOCOL, (*BASELINES[1:], IMAGENET), (NSC,))


def radial_rows(run: Run) -> pd.DataFrame:
    """Tubulin by the distance from the outline of the nucleus, means over trainings: variant, distance, value."""
    table = run.table("radial")
    return table.groupby(["variant", "distance"], sort=False)["value"].mean().reset_index()


def length_rows(run: Run) -> pd.DataFrame:
    """Mean length of codes on arcs and straight lines: variant, way, frame, length.

    Models whose noise has as many numbers are given the same noise: they are one variant, named together.
    """
    table = (
        run.table("lengths").groupby(["variant", "way", "frame"], sort=False)["length"].mean().round(4).reset_index()
    )
    alike = table.groupby("variant", sort=False)["length"].agg(tuple)
    together = alike.groupby(alike, sort=False).transform(lambda same: ", ".join(same.index))
    named = table["variant"].map(together)
    return table.assign(variant=named).drop_duplicates(["variant", "way", "frame"], ignore_index=True)


def map_rows(run: Run) -> pd.DataFrame:
    """Treatments in the plane with the rank of the dose within its compound, from 1: variant, x, y, moa, rank."""
    points = run.table("maps")
    rank = points.groupby(["variant", "compound"])["concentration"].rank(method="dense")
    return points.assign(rank=rank)[["variant", "x", "y", "moa", "compound", "concentration", "rank"]]


def confusion_table(confusion: pd.DataFrame, variant: str, summary: str = PLAIN) -> pd.DataFrame:
    """Counts of the named mechanisms (columns) of each actual one (rows), all trainings together; square."""
    mine = pick(confusion, variant=variant, summary=summary)
    names = sorted({*mine["actual"], *mine["named"]})
    wide = mine.pivot_table(index="actual", columns="named", values="treatments", fill_value=0)
    return wide.reindex(index=names, columns=names, fill_value=0).astype(int)


def together_rows(run: Run) -> pd.DataFrame:
    """Accuracy and closeness of images at every checkpoint of the GANs: variant, repeat, step, closeness, accuracy."""
    return progress.pairs(run)


def pictures(run: Run, config: Config, store: str | Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The pictures of the page with the originals in their places: table, and (n, H, W, 3) uint8 in its order."""
    return with_originals(run, load(config, store))


# --- sentences ------------------------------------------------------------------------------------------------------


CUT = {LARGER: "cells larger than the crop, which are cut", OPEN: "cells that the crop they come from has cut"}


def origin(config: Config) -> str:
    """Where the cells of the page come from, in a sentence."""
    return ORIGINS.get(config.screen, f"The cells of this page are those of {config.screen}.")


def budget_table(config: Config, run: Run) -> pd.DataFrame:
    """How large this run is beside the paper's."""
    own, paper = (trainings(of)[0].config for of in (config, PRESETS["paper"]))
    size, hours = run.table("size").iloc[0], run.table("trainings")["seconds"].sum() / 3600
    lines = [
        ("cells", f"{size['cells']:,.0f}", "1,300,000"),
        *((of, f"{100 * size[name]:.0f} %", "not said") for name, of in CUT.items() if name in size),
        ("pixels of a crop", f"{own.side} x {own.side}", f"{paper.side} x {paper.side}"),
        ("of the original pixels a side", f"{config.shrink}", "1"),
        ("cell views of a GAN", f"{config.views:,}", f"{papers_views('lsgan'):,}"),
        ("cell views of VAE and AE", f"{config.views_autoencoder:,}", f"{papers_views('vae'):,}"),
        ("steps of LSGAN", f"{own.iterations:,}", f"{paper.iterations:,}"),
        ("cells in a batch of LSGAN", f"{own.settings.batch:,}", f"{paper.settings.batch:,}"),
        ("filters of its narrowest layer", f"{own.settings.width:,}", f"{paper.settings.width:,}"),
        ("learning rates of its players", rates(own), rates(paper)),
        ("trainings of each judged model", f"{config.repeats}", "1"),
        ("hours of all trainings together", f"{hours:.1f}", "not said"),
    ]
    return tables.budget_table(lines)


def rates(config: object) -> str:
    """Learning rates of the discriminator and the generator."""
    settings = config.settings  # type: ignore[attr-defined]
    return f"{settings.critic_rate:g}, {settings.generator_rate:g}"


def warning(config: Config, run: Run, page: str) -> str:
    """The box at the top: what this run is and is not, as Markdown."""
    trained = run.table("trainings")
    device = ", ".join(sorted(trained["device"].unique()))
    screen = SCREENS.get(config.screen, f"the cells of {config.screen}")
    sizes = {"views": "cell views of a GAN", "side": "pixels a side"}
    smaller = words.smaller(config, PRESETS["paper"], sizes)
    narrower = f" and networks {config.narrower} times narrower" if config.narrower > 1 else ""
    lines = [f"Trained on {screen}, on {device}: {len(trained)} trainings."]
    if smaller or narrower:
        lines[0] = f"{lines[0][:-1]} with {', '.join(smaller)}{narrower}."
        lines.append(
            "The preset `paper` has the paper's numbers and needs a GPU; it has not been run for this page: "
            f"`cellbook run {page} -p preset=paper`."
        )
    lines.append(
        "Numbers from other data than the paper's are *not comparable*; its claims are judged on these cells, but only "
        "where trainings meet the premise that stands with each: else they are *undecided*."
    )
    return words.box("Not the paper's cells" + (", and not its scale" if smaller else ""), lines, "warning")


def takeaways(numbers: pd.DataFrame, claims: pd.DataFrame) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""

    def reach(names: Iterable[str], summary: str) -> str:
        found = pick(numbers, protocol=PROTOCOL, summary=summary, variant=list(names)).set_index("variant")
        return ", ".join(f"{name} {words.share(found.loc[name])}" for name in names if name in found.index)

    def each(names: Iterable[str], text: Callable[[pd.Series], str], **where: object) -> str:
        found = pick(numbers, **where).set_index("variant")
        return ", ".join(f"{name} {text(found.loc[name])}" for name in names if name in found.index)

    near = each((REAL, *LABELS.values()), bounded, protocol=protocol_of(RANDOM), measure=KID)
    fallen = each(LABELS.values(), lambda line: words.number(line, 2), protocol=QUALITY, measure=FALLBACK)
    lines = [
        f"Accuracy as the paper averages it (per cent, {label}): {reach(LABELS.values(), summary)}; without any "
        f"training {reach((*BASELINES, IMAGENET), summary)}{why_low(numbers) if summary == PLAIN else ''}."
        for label, summary in (
            ("mean profiles", PLAIN),
            ("whitened by control cells", BY_CELLS),
            ("whitened by control wells", WHITENED),
        )
    ]
    lines.append(
        f"Kernel distance of samples to cells of the screen (*real* below), random features, lower is better: {near}."
    )
    lines += (
        [f"Octaves that the Fréchet distance of samples rose from its least to its end: {fallen}."] if fallen else []
    )
    return words.takeaways(lines, claims)


def bounded(line: pd.Series) -> str:
    """A number that is no proportion, with its interval."""
    return f"{line['value']:.2f} [{line['low']:.2f}, {line['high']:.2f}]"


def why_low(numbers: pd.DataFrame) -> str:
    """Words behind the plain number of ImageNet features where their whitened one lies above it, interval and all."""
    of = {"protocol": PROTOCOL, "measure": NSC, "variant": IMAGENET}
    plain, white = (one(numbers, summary=summary, **of) for summary in (PLAIN, WHITENED))
    if plain is None or white is None or white["low"] <= plain["high"]:
        return ""
    return (
        f" (an artefact of standardising by few control cells, which blows up features that hardly vary among them; "
        f"whitened by control wells instead the same features reach {words.share(white)})"
    )


def course_words(numbers: pd.DataFrame) -> str:
    """Where the judged models come from and where they end, in a sentence; empty without checkpoints."""
    found = []
    for name in JUDGED:
        ways = [pick(course_rows(numbers), variant=name, panel=panel) for panel in (f"{NSC}, {PLAIN}", FID)]
        if all(len(of) > 1 for of in ways):
            (first, last), (far, near) = ([of.iloc[0]["value"], of.iloc[-1]["value"]] for of in ways)
            found.append(f"{name} {percent(first)} and {percent(last)} %, {far:.0f} and {near:.0f}")
    head = "Accuracy of mean profiles, then Fréchet distance, each before the first step and at the end"
    return f"{head}: {'; '.join(found)}." if found else ""
