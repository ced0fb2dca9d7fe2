"""What the page measures, all of it from the stored products of its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from threadpoolctl import threadpool_limits

from cellbook import metrics
from cellbook.pages.lafarge2019.config import BASELINES, PAPER_MODELS, PROTOCOL, Config, config_of
from cellbook.runs import Run
from cellbook.study.profile import BY_PLATE, SUMMARIES

OURS = metrics.PROTOCOLS[PROTOCOL]
EUCLIDEAN = f"{PROTOCOL}, Euclidean"
PAIRS = (("VAE+", "VAE"), ("VAE+", "AE"), ("VAE+", "VAE+ at once"))
IMAGES = ("sharpness", "misfit of sharpness", "MSE", "SSIM", "feature distance")


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of its run."""
    (run,) = runs
    config = config_of(run.record["config"])
    votes = matches(run)
    per_training, accuracies = score(votes, config)
    parts = [
        accuracies,
        compare(votes, config),
        plain_baselines(run, config),
        image_quality(run, config),
        compare_images(run, config),
        walk_numbers(run, config),
        weeks(run, config),
        truth(run),
    ]
    numbers = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return {"numbers": numbers, "accuracies": per_training, "quality": image_table(run)}


def row(setting: str, protocol: str, measure: str, value: float, **more: Any) -> dict[str, Any]:
    """One line of the table of numbers; what does not apply is missing. `sd` is over trainings."""
    names = ("low", "high", "sd", "trainings", "agree", "correct", "scored", "excluded", "null")
    line = {"setting": setting, "protocol": protocol, "measure": measure, "k": 1, "value": float(value)}
    return {**line, **dict.fromkeys(names, np.nan), **more}


def interval(values: np.ndarray, groups: pd.Series, config: Config) -> dict[str, float]:
    """95 % interval of a mean over cells or treatments, resampling what they are grouped by."""
    low, high = metrics.bootstrap_compounds(values, np.ones(len(values)), groups, config.resamples, config.seed)
    return {"low": low, "high": high}


def over_trainings(values: list[float]) -> dict[str, float]:
    """Sample standard deviation over trainings (missing for one), and their number."""
    return {"sd": float(np.std(values, ddof=1)) if len(values) > 1 else np.nan, "trainings": len(values)}


# --- accuracy -------------------------------------------------------------------------------------------------------

Votes = dict[tuple[str, str, str, str], list[pd.DataFrame]]  # variant, summary, protocol, measure -> one a training


def distances_of(run: Run) -> dict[str, np.ndarray]:
    """Distances between treatments, (n, n), by "variant|repeat|summary|distance"."""
    with np.load(run.path("distances.npz")) as stored:
        values = stored["values"] * stored["scale"][:, None]
        return {str(name): squareform(line) for name, line in zip(stored["names"], values, strict=True)}


def matches(run: Run) -> Votes:
    """Outcome of every query under every setting, distance and measure."""
    treatments, votes = run.table("treatments"), Votes()
    for name, square in distances_of(run).items():
        variant, _, summary, distance = name.split("|")
        protocol = PROTOCOL if distance == "cosine" else EUCLIDEAN
        for measure in OURS.measures:
            found = metrics.match(treatments, distances=square, **measure.arguments())
            votes.setdefault((variant, summary, protocol, measure.name), []).append(found.per_query)
    return votes


def score(votes: Votes, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy of every training, and the means over trainings with intervals over compounds."""
    single, rows = [], []
    for (variant, summary, protocol, measure), found in votes.items():
        values = [queries["correct"].sum() / queries["counted"].sum() for queries in found]
        names = {"variant": variant, "summary": summary, "protocol": protocol, "measure": measure}
        single += [{**names, "repeat": repeat, "accuracy": value} for repeat, value in enumerate(values)]
        queries = mean_votes(found)
        rows.append(
            row(
                f"{variant}, {summary}",
                protocol,
                measure,
                float(np.mean(values)),
                **vote_interval(queries, config),
                **over_trainings(values),
                correct=float(queries["correct"].sum()),
                scored=int(queries["counted"].sum()),
                excluded=int((queries["counted"] == 0).sum()),
            )
        )
    return pd.DataFrame(single), pd.DataFrame(rows)


def mean_votes(found: list[pd.DataFrame]) -> pd.DataFrame:
    """Queries with the mean of their votes over trainings."""
    return found[0][["compound", "counted"]].assign(correct=np.mean([one["correct"] for one in found], axis=0))


def vote_interval(queries: pd.DataFrame, config: Config) -> dict[str, float]:
    """95 % interval over compounds of the mean vote."""
    low, high = metrics.bootstrap_compounds(
        queries["correct"], queries["counted"], queries["compound"], config.resamples, config.seed
    )
    return {"low": low, "high": high}


def difference_row(
    setting: str, protocol: str, measure: str, left: list[pd.DataFrame], right: list[pd.DataFrame], config: Config
) -> dict[str, Any]:
    """Difference of accuracies on the same queries; the interval is over compounds, `agree` counts trainings."""
    parts = [a.assign(correct=a["correct"] - b["correct"]) for a, b in zip(left, right, strict=False)]
    single = [part["correct"].sum() / part["counted"].sum() for part in parts]
    queries = mean_votes(parts)
    agree = float(np.mean([np.sign(value) == np.sign(np.mean(single)) for value in single]))
    spread = over_trainings(single)
    return row(
        setting, protocol, measure, float(np.mean(single)), **vote_interval(queries, config), **spread, agree=agree
    )


def all_summaries(votes: Votes, variant: str, measure: str) -> list[pd.DataFrame]:
    """Votes of each training averaged over the paper's four summaries."""
    by_summary = [votes[variant, summary, PROTOCOL, measure] for summary in SUMMARIES]
    return [mean_votes(list(each)) for each in zip(*by_summary, strict=True)]


def compare(votes: Votes, config: Config) -> pd.DataFrame:
    """Paired differences between models (mean of the four summaries) and of whitening (mean profiles)."""
    variants = {variant for variant, *_ in votes}
    rows = []
    for measure in ("NSC", "NSCB"):
        for left, right in PAIRS:
            if {left, right} <= variants:
                sides = (all_summaries(votes, name, measure) for name in (left, right))
                rows.append(difference_row(f"{left} - {right}", "paired", measure, *sides, config))
        for variant in [name for name in PAPER_MODELS if name in variants]:
            white, mean = (votes[variant, summary, PROTOCOL, measure] for summary in ("mean, whitened", "mean"))
            rows.append(difference_row(f"{variant}: whitened - mean", "paired", measure, white, mean, config))
        both = [
            [
                frame
                for variant in PAPER_MODELS
                if variant in variants
                for frame in votes[variant, name, PROTOCOL, measure]
            ]
            for name in ("mean, whitened", "mean")
        ]
        rows.append(difference_row("all models: whitened - mean", "paired", measure, *both, config))
    return pd.DataFrame(rows)


def plain_baselines(run: Run, config: Config) -> pd.DataFrame:
    """Chance, the largest class, and the cell count alone."""
    treatments = run.table("treatments")
    square = distances_of(run)[f"VAE+|0|{SUMMARIES[0]}|cosine"]
    rows = [row("largest class", "baseline", "NSC", metrics.majority(treatments))]
    for measure in OURS.measures:
        draws = {"n": config.permutations, "seed": config.seed}
        values = metrics.chance(treatments, measure, distances=square, **draws).values
        low, high = np.quantile(values, [0.025, 0.975])
        rows.append(row("labels permuted", "baseline", measure.name, values.mean(), low=low, high=high))
        if "count" in treatments and treatments["count"].notna().all():
            distances = metrics.distance_matrix(treatments[["count"]].to_numpy(np.float64), "euclidean")
            found = metrics.expected_under_ties(treatments, measure, distances=distances, **draws)
            low, high = np.quantile(found.values, [0.025, 0.975])
            rows.append(row("cell count alone", "baseline", measure.name, found.accuracy, low=low, high=high))
    return pd.DataFrame(rows)


# --- images ---------------------------------------------------------------------------------------------------------


def per_cell(run: Run) -> pd.DataFrame:
    """Quality of every cell's reconstruction by every training."""
    return run.table("images")


def image_quality(run: Run, config: Config) -> pd.DataFrame:
    """Mean over cells and trainings of every measure of images, with intervals over compounds."""
    table, rows = per_cell(run), []
    measures = [name for name in table if name not in ("compound", "variant", "repeat")]
    for variant, group in table.groupby("variant", sort=False):
        repeats = [part for _, part in group.groupby("repeat")]
        for name in measures:
            values = np.mean([part[name].to_numpy(np.float64) for part in repeats], axis=0)
            if np.isfinite(values).all():
                each = over_trainings([float(part[name].mean()) for part in repeats])
                spread = interval(values, repeats[0]["compound"], config)
                rows.append(row(variant, "images", name, values.mean(), **spread, **each))
    units = run.table("units")
    for variant, group in units.groupby("variant", sort=False):
        values = group["active"].astype(float).tolist()
        rows.append(row(variant, "images", "active units", float(np.mean(values)), **over_trainings(values)))
    return pd.DataFrame(rows)


def compare_images(run: Run, config: Config) -> pd.DataFrame:
    """Paired differences between models in what their reconstructions look like, cell by cell."""
    table, rows = per_cell(run), []
    for left, right in PAIRS:
        sides = [[part for _, part in table[table["variant"] == name].groupby("repeat")] for name in (left, right)]
        if not all(sides):
            continue
        for name in IMAGES:
            gaps = [a[name].to_numpy(np.float64) - b[name].to_numpy(np.float64) for a, b in zip(*sides, strict=False)]
            single = [float(gap.mean()) for gap in gaps]
            agree = float(np.mean([np.sign(value) == np.sign(np.mean(single)) for value in single]))
            spread = interval(np.mean(gaps, axis=0), sides[0][0]["compound"], config)
            found = row(f"{left} - {right}", "paired", name, np.mean(single), **spread, **over_trainings(single))
            rows.append(found | {"agree": agree})
    return pd.DataFrame(rows)


def image_table(run: Run) -> pd.DataFrame:
    """Mean of every measure of images for every training, one row each."""
    table = per_cell(run).drop(columns="compound")
    means = table.astype({name: np.float64 for name in table.select_dtypes("float32")})
    means = means.groupby(["variant", "repeat"], sort=False).mean().reset_index()
    return means.merge(run.table("units"), on=["variant", "repeat"])


# --- walks, weeks, truth --------------------------------------------------------------------------------------------


def walk_numbers(run: Run, config: Config) -> pd.DataFrame:
    """How walks to all treatments behave, by model: mean over treatments and trainings, intervals over compounds."""
    kinds: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
        "walks that only rise": lambda t: (t["falls"] == 0).astype(float),
        "features that lower the similarity": lambda t: t["falls"],
        "largest fall": lambda t: t["largest_fall"],
        "similarity at the start": lambda t: t["start"],
        "features to half of the rise": lambda t: t["half"],
    }
    rows = []
    for variant, group in run.table("walks").groupby("variant", sort=False):
        repeats = [part for _, part in group.groupby("repeat")]
        for name, values_of in kinds.items():
            each = [values_of(part).to_numpy(np.float64) for part in repeats]
            spread = interval(np.mean(each, axis=0), repeats[0]["compound"], config)
            numbers = over_trainings([float(values.mean()) for values in each])
            rows.append(row(variant, "walk", name, np.mean(each), **spread, **numbers))
    return pd.DataFrame(rows)


def weeks(run: Run, config: Config) -> pd.DataFrame:
    """How often the week of single taxol control cells is named on plates held out, intervals over plates."""
    if "weeks.parquet" not in run.products():
        return pd.DataFrame()
    rows = []
    for variant, group in run.table("weeks").groupby("variant", sort=False):
        repeats = [part for _, part in group.groupby("repeat")]
        correct = np.mean([part["correct"].to_numpy(np.float64) for part in repeats], axis=0)
        spread = interval(correct, repeats[0]["plate"], config)
        numbers = over_trainings([float(part["correct"].mean()) for part in repeats])
        first = repeats[0].iloc[0]
        rows.append(row(variant, "week", "logistic", correct.mean(), **spread, **numbers, null=first["majority"]))
        if not any(line["setting"] == "noise" for line in rows):
            rows.append(row("noise", "week", "logistic", first["noise"], null=first["majority"]))
    return pd.DataFrame(rows)


def truth(run: Run) -> pd.DataFrame:
    """R2 with which a linear probe reads each known parameter from a code; mean over trainings."""
    if "truth.parquet" not in run.products():
        return pd.DataFrame()
    rows = []
    for (variant, parameter), group in run.table("truth").groupby(["variant", "parameter"], sort=False):
        values = group["r2"].astype(float).tolist()
        rows.append(row(str(variant), "truth", str(parameter), float(np.mean(values)), **over_trainings(values)))
    return pd.DataFrame(rows)


__all__ = ["BASELINES", "BY_PLATE", "EUCLIDEAN", "evaluate"]
