"""What the page shows: selections of the measured numbers as tables, and the sentences at its top."""

from __future__ import annotations

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
    week_name,
)
from cellbook.pages.lafarge2019.measures import EUCLIDEAN
from cellbook.runs import Run
from cellbook.study.profile import BY_PLATE, SUMMARIES
from cellbook.study.rows import pick
from cellbook.study.show import percent

MEASURES = ("NSC", "NSCB")


def accuracy(line: pd.Series) -> str:
    """An accuracy in per cent: mean ± standard deviation over trainings [interval over compounds]."""
    text = percent(line["value"])
    if np.isfinite(line["sd"]):
        text += f" ± {100 * line['sd']:.1f}"
    return (text + f" [{100 * line['low']:.0f}, {100 * line['high']:.0f}]").replace(" ", "\N{NO-BREAK SPACE}")


def accuracy_table(
    numbers: pd.DataFrame, verdicts: pd.DataFrame | None, variants: tuple[str, ...], *, protocol: str = PROTOCOL
) -> pd.DataFrame:
    """One row a measure and model, one column a summary; published values in a row of their own under each."""
    rows = []
    for measure in ("NSC", "NSCB"):
        for variant in variants:
            line = {"measure": measure, "profile": variant, "from": "here"}
            paper = {"measure": measure, "profile": variant, "from": "paper"}
            for summary in SUMMARIES:
                where = {"setting": f"{variant}, {summary}", "measure": measure, "protocol": protocol}
                found = pick(numbers, **where)
                line[summary] = accuracy(found.iloc[0]) if len(found) else "–"
                printed = pick(verdicts, **where) if verdicts is not None and len(verdicts) else pd.DataFrame()
                paper[summary] = published(printed.iloc[0]) if len(printed) else "–"
            rows.append(line)
            if any(paper[summary] != "–" for summary in SUMMARIES):
                rows.append(paper)
    table = pd.DataFrame(rows)
    return table if (table["from"] == "paper").any() else table.drop(columns="from")


def published(verdict: pd.Series) -> str:
    """A printed accuracy with the spread that stands in its place of print."""
    _, _, spread = verdict["where"].partition(" (± ")
    text = percent(verdict["published"])
    return f"{text} ± {spread.rstrip(')')}".replace(" ", "\N{NO-BREAK SPACE}") if spread else text


def table_1(numbers: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The paper's table: its three models here and in print."""
    return accuracy_table(numbers, verdicts, PAPER_MODELS)


def further_table(numbers: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Baselines and variants that the paper does not have."""
    variants = {setting.rsplit(", mean", 1)[0] for setting in pick(numbers, protocol=PROTOCOL)["setting"]}
    betas = [beta_name(beta) for beta in config.betas]
    order = [*BASELINES, "AE without noise", *betas, "VAE+ at once", "VAE/GAN"]
    return accuracy_table(numbers, None, tuple(name for name in order if name in variants))


def euclidean_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """The paper's models by Euclidean instead of cosine distance."""
    return accuracy_table(numbers, None, PAPER_MODELS, protocol=EUCLIDEAN)


def by_plate_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Whitening by the controls of each plate instead of all plates; empty where plates have too few."""
    rows = numbers[numbers["setting"].str.endswith(BY_PLATE) & (numbers["protocol"] == PROTOCOL)]
    if rows.empty:
        return pd.DataFrame()
    lines = [
        {"profile": line["setting"], "measure": line["measure"], "text": accuracy(line)} for _, line in rows.iterrows()
    ]
    wide = pd.DataFrame(lines).pivot_table(
        index="profile", columns="measure", values="text", aggfunc="first", sort=False
    )
    return wide.reset_index()


def plain_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Chance, the largest class, and the cell count alone."""
    rows = pick(numbers, protocol="baseline")
    texts = [percent(line["value"], line["low"], line["high"]) for _, line in rows.iterrows()]
    wide = rows.assign(text=texts).pivot_table(
        index="setting", columns="measure", values="text", aggfunc="first", sort=False
    )
    return wide.reset_index().rename(columns={"setting": "profile"})


def whitening_table(run: Run) -> pd.DataFrame:
    """What each whitening was fitted on: controls, features, rank, and the ridge; means over trainings."""
    table = run.table("whitenings")
    shown = table[table["variant"].isin([*PAPER_MODELS, *BASELINES])].drop(columns="repeat")
    means = shown.groupby(["variant", "summary"], sort=False).mean().reset_index()
    for name in ("controls", "features", "rank"):
        means[name] = means[name].round(1).map("{:g}".format)
    means["ridge"] = means["ridge"].map("{:.3f}".format)
    return means.rename(columns={"variant": "profile", "ridge": "ridge (of the mean eigenvalue)"})


def plain_number(line: pd.Series, digits: int = 3) -> str:
    """A number that is no accuracy: mean ± standard deviation over trainings."""
    text = f"{line['value']:.{digits}f}"
    spread = f" ± {line['sd']:.{digits}f}" if np.isfinite(line["sd"]) else ""
    return (text + spread).replace(" ", "\N{NO-BREAK SPACE}")


def image_table(numbers: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """Measures of images, one row a model."""
    rows = pick(numbers, protocol="images")
    wanted = rows[rows["measure"].isin(columns) & rows["setting"].isin(list(LABELS.values()))]
    few = {"KL (nats)": 1, "active units": 0, "MSE": 4}
    texts = [
        plain_number(line, next((n for k, n in few.items() if line["measure"].startswith(k)), 3))
        for _, line in wanted.iterrows()
    ]
    wide = wanted.assign(text=texts).pivot_table(
        index="setting", columns="measure", values="text", aggfunc="first", sort=False
    )
    return (
        wide[[name for name in columns if name in wide]].reset_index().rename(columns={"setting": "model"}).fillna("–")
    )


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


def channel_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Measures of single channels, one row a model and measure, one column a channel."""
    rows = pick(numbers, protocol="images")
    rows = rows[rows["measure"].str.contains(", ") & rows["setting"].isin(list(LABELS.values()))]
    kinds = rows["measure"].str.split(", ", expand=True)
    texts = [plain_number(line, 4 if line["measure"].startswith("MSE") else 3) for _, line in rows.iterrows()]
    wide = rows.assign(text=texts, model=rows["setting"], measure=kinds[0], channel=kinds[1])
    wide = wide.pivot_table(index=["measure", "model"], columns="channel", values="text", aggfunc="first", sort=False)
    return wide.reset_index()


def walk_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How walks behave, one row a model."""
    rows = pick(numbers, protocol="walk")
    rows = rows[rows["setting"].isin(list(LABELS.values()))]
    texts = [plain_number(line, 4 if "fall" in line["measure"] else 2) for _, line in rows.iterrows()]
    wide = rows.assign(text=texts).pivot_table(
        index="setting", columns="measure", values="text", aggfunc="first", sort=False
    )
    return wide.reset_index().rename(columns={"setting": "model"})


def truth_rows(numbers: pd.DataFrame, run: Run) -> pd.DataFrame:
    """R2 of the linear probe with the kind of each parameter; empty where no truth is known."""
    rows = pick(numbers, protocol="truth")
    rows = rows[rows["setting"].isin(list(LABELS.values()))]
    if rows.empty:
        return pd.DataFrame()
    kinds = run.table("truth").drop_duplicates("parameter").set_index("parameter")["kind"]
    return rows.assign(parameter=rows["measure"], kind=rows["measure"].map(kinds))[
        ["setting", "parameter", "kind", "value", "sd"]
    ]


def sweep_rows(numbers: pd.DataFrame, config: Config, run: Run) -> pd.DataFrame:
    """What changes with the weight of the KL term and with the strength of the batch effect, one row a number.

    Columns sweep, model, x, measure, value, trainings. R2 is the median over the known parameters of one kind, those
    below 0 counted as 0.
    """
    settings = [("beta", "VAE", beta, name) for beta, name in betas_of(config).items()]
    if config.screen == "simulated":
        for model in (LABELS[name] for name in SWEPT):
            named = {config.week_effect: model} | {x: week_name(model, x) for x in config.week_effects}
            settings += [("week effect", model, x, name) for x, name in sorted(named.items())]
    truth = pick(numbers, protocol="truth")
    rows, kinds = [], kinds_of(numbers, run)
    for sweep, model, x, setting in settings:
        parts = {name: pick(numbers, setting=f"{setting}, mean", protocol=PROTOCOL, measure=name) for name in MEASURES}
        parts["week named"] = pick(numbers, setting=setting, protocol="week")
        found = {name: part["value"].iloc[0] for name, part in parts.items() if len(part)}
        mine = pick(truth, setting=setting)
        for kind, words in (("cell", "cell"), ("treatment", "treatment"), ("nuisance", "nuisances")):
            if kinds is not None and len(values := mine["value"][mine["measure"].map(kinds) == kind]):
                found[f"R2, {words}"] = values.clip(lower=0).median()
        trainings = int(parts["NSC"]["trainings"].max())
        names = {"sweep": sweep, "model": model, "x": float(x), "trainings": trainings}
        rows += [{**names, "measure": measure, "value": float(value)} for measure, value in found.items()]
    return pd.DataFrame(rows)


def kinds_of(numbers: pd.DataFrame, run: Run) -> pd.Series | None:
    """Kind of every known parameter, by its name; None where no truth is known."""
    if pick(numbers, protocol="truth").empty:
        return None
    return run.table("truth").drop_duplicates("parameter").set_index("parameter")["kind"]


def betas_of(config: Config) -> dict[float, str]:
    """Models that differ in the weight of the KL term alone, in its order."""
    return dict(sorted({0.0: "AE", 1.0: "VAE", **{beta: beta_name(beta) for beta in config.betas}}.items()))


def week_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How often the week of a control cell is named, one row a model; empty where it was not asked."""
    rows = pick(numbers, protocol="week")
    rows = rows[rows["setting"].isin([*LABELS.values(), "noise"])]
    majority = [percent(value) for value in rows["null"]]
    texts = [percent(line["value"], line["low"], line["high"]) for _, line in rows.iterrows()]
    return pd.DataFrame({"model": rows["setting"], "week named": texts, "largest week": majority})


def verdict_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Published beside measured, with the verdict and its reason."""
    lines = verdicts[["measured", "low", "high"]].itertuples(index=False)
    return pd.DataFrame(
        {
            "printed in": verdicts["where"],
            "published": [percent(value) for value in verdicts["published"]],
            "measured": [percent(*line) for line in lines],
            "verdict": verdicts["verdict"],
            "why": verdicts["why"],
        }
    )


def beta_table(numbers: pd.DataFrame, config: Config, run: Run) -> pd.DataFrame:
    """What the weight of the KL term changes: accuracy, sharpness, rate, week, and truth, one row a beta."""
    rows, kinds = [], kinds_of(numbers, run)
    for beta, variant in betas_of(config).items():
        mine = numbers[(numbers["setting"] == variant) | (numbers["setting"] == f"{variant}, mean")]
        value = mine.set_index(["protocol", "measure"])["value"]
        probe = pick(mine, protocol="truth")
        line = {"beta": f"{beta:g}", "trainings": int(mine["trainings"].max())}
        for name in ("NSC", "NSCB"):
            line[f"{name}, mean"] = percent(value.get((PROTOCOL, name), np.nan))
        line |= {
            "KL (nats)": f"{value.get(('images', 'KL (nats)'), np.nan):.1f}",
            "active units": f"{value.get(('images', 'active units'), np.nan):.0f}",
            "SSIM": f"{value.get(('images', 'SSIM'), np.nan):.3f}",
            "sharpness": f"{value.get(('images', 'sharpness'), np.nan):.3f}",
            "week named": percent(value.get(("week", "logistic"), np.nan)),
        }
        for kind in ("cell", "treatment", "nuisance") if kinds is not None else ():
            line[f"R2, {kind}"] = f"{probe['value'][probe['measure'].map(kinds) == kind].clip(lower=0).median():.2f}"
        rows.append(line)
    return pd.DataFrame(rows)


def budget_table(config: Config, run: Run) -> pd.DataFrame:
    """How large this run is beside the paper's."""
    paper, size = PRESETS["paper"], run.table("size").iloc[0]
    batch = lambda value: "one of each treatment" if value is None else f"{value}"  # noqa: E731
    rows = [
        ("cells", f"{size['cells']:,}", "about a million"),
        ("iterations of a training", f"{config.iterations:,}", f"{paper.iterations:,}"),
        ("cells in a batch", batch(config.batch), "104, one of each treatment and DMSO"),
        ("learning rate of encoder and decoder", f"{config.adam_rate:g}", f"{paper.adam_rate:g}"),
        ("channels of a hidden layer", f"{config.width}", f"{paper.width}"),
        ("features of a code", f"{config.latent}", f"{paper.latent}"),
        ("iterations in which a feature term comes in (T)", f"{config.ramp:,}", f"{paper.ramp:,}"),
        ("pixels of a crop", "68 x 68", "68 x 68"),
        ("trainings of each judged model", f"{config.repeats}", "3"),
        ("hours of training, all models together", f"{run.table('trainings')['seconds'].sum() / 3600:.1f}", "not said"),
    ]
    return pd.DataFrame(rows, columns=["", "here", "in the paper, or in its code"])
