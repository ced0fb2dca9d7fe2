"""What a corrected table, or an alignment at all its checkpoints, scores: neighbours, silhouettes, resamples, weeks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from cellbook import metrics
from cellbook.methods import wdn
from cellbook.methods.wdn.evaluation import VOTES, Neighbours, nearest, silhouettes, sum_distances, votes
from cellbook.methods.wdn.instances import Screen, control_rows, make_screen, unit_means
from cellbook.methods.wdn.stopping import RULES, stop
from cellbook.metrics.batch import BatchAccuracy, Model
from cellbook.pages.tabak2020.config import Config
from cellbook.pages.tabak2020.sources import ENGINEERED, WELL_SCREENS, Source, well_source
from cellbook.profiles import Coral, FactorAnalysis, PlateScaler, Step, controls_mask
from cellbook.profiles.centre import Centre
from cellbook.profiles.harmony import Harmony
from cellbook.study.profile import whiten

UNCORRECTED, TVN, HARMONY, ROBUST = "uncorrected", "TVN", "Harmony", "robust by plate"
CORAL, CORAL_MEANS, CENTRED = "CORAL", "CORAL, means aligned", "centred by week"
CROSS_VALIDATED = {"knn": "WDN, max k-NN", "silhouette": "WDN, max silhouette"}
HINDSIGHT = {"knn": "WDN, k-NN in hindsight", "silhouette": "WDN, silhouette in hindsight"}
LAST = "WDN, last step"
ROWS, PLATES, UNSEEN = "folds of rows", "folds of plates", "unseen plates"
BATCH, PLATE, ORIGINAL = "Metadata_batch", "Metadata_plate", "Metadata_original"
FOLDS = 3
LEAST_ON_PLATE = 5  # controls for a median and a median deviation of a plate's own


# --- corrections ----------------------------------------------------------------------------------------------------


def aligning(config: Config) -> dict[str, Step]:
    """Corrections that map each week by its own controls and so apply to rows that they were not fitted on."""
    return {
        CORAL: Coral(eta=config.eta),
        CORAL_MEANS: Coral(eta=config.eta, align_means=True),
        CENTRED: Centre(),
    }


def corrections(source: Source, config: Config) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the uncorrected profiles and all corrections but WDN that can be made here."""
    table = source.profiles
    yield UNCORRECTED, table
    steps = aligning(config)
    if source.family == ENGINEERED:  # learned features are whitened already
        yield TVN, whiten(table, kind="pca")[0]
    on_plates = table[controls_mask(table)].groupby(PLATE).size().reindex(table[PLATE].unique(), fill_value=0)
    if on_plates.min() >= LEAST_ON_PLATE:
        steps[ROBUST] = PlateScaler("robust", on_constant="drop")
    if has_harmony():
        steps[HARMONY] = Harmony(seed=config.seed)
    for name, step in steps.items():
        yield name, step.fit(table).transform(table)


def has_harmony() -> bool:
    """Whether the version of harmonypy that `Harmony` needs is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("harmonypy") == "2.1.0"
    except PackageNotFoundError:
        return False


# --- neighbours and silhouettes -------------------------------------------------------------------------------------


def outcomes(alignment: wdn.Alignment, profiles: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Score an alignment at the steps that the rules choose, or a corrected table as it is.

    Returns
    -------
    dict
        ``queries`` (method, vote, measure, k, query, compound, correct, counted), ``silhouettes`` (method, query,
        compound, value) and ``choices`` (rule, compound, step; the compound "all" is hindsight). Of an alignment
        without steps the method is "uncorrected" and there are no choices.
    """
    screen = make_screen(alignment, profiles)
    d = metrics.distance_matrix(unit_means(screen, range(len(alignment.steps))))  # (1, C, u, u)
    near, sums = nearest(screen, d), sum_distances(screen, d)
    u = len(screen.table)
    if len(alignment.steps) == 1:
        at, choices = {UNCORRECTED: np.zeros(u, dtype=int)}, pd.DataFrame()
    else:
        at, choices = chosen(screen, near, silhouettes(screen, sums)[0], sums, alignment)
    who = {"query": np.arange(u), "compound": screen.table["Metadata_compound"].to_numpy()}
    queries = []
    for vote in VOTES:
        for measure, found in near.items():
            correct, counted = votes(screen, found, vote)  # (1, C, 4, u), (4, u)
            for method, places in at.items():
                each = correct[0][places, :, np.arange(u)]  # (u, 4)
                for j in range(each.shape[1]):
                    names = {"method": method, "vote": vote, "measure": measure, "k": j + 1}
                    queries.append(pd.DataFrame({**names, **who, "correct": each[:, j], "counted": counted[j]}))
    shapes = [
        pd.DataFrame({"method": method, **who, "value": of_units(screen, d[0, places[0]])})
        for method, places in at.items()
        if method not in CROSS_VALIDATED.values()
    ]
    whole = pd.concat(queries, ignore_index=True).astype({"correct": np.int8, "counted": np.int8})
    return {"queries": whole, "silhouettes": pd.concat(shapes, ignore_index=True), "choices": choices}


def of_units(screen: Screen, distances: np.ndarray) -> np.ndarray:
    """Silhouette of every treatment instance, (u,), from distances (u, u)."""
    return metrics.silhouettes(screen.table, distances=distances)


def chosen(
    screen: Screen, near: dict[str, Neighbours], shapes: np.ndarray, sums, alignment: wdn.Alignment
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Checkpoints at which every query is scored, by method, (u,); and the choices behind them in map steps."""
    criterion = {"knn": np.zeros(len(alignment.steps)), "silhouette": shapes}
    for found in near.values():
        correct, counted = votes(screen, found)
        criterion["knn"] += (correct[0].sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)).mean(axis=-1)
    at, rows = {}, []
    for rule in RULES:
        without = stop(screen, near, sums, rule).chosen[0]  # (compounds,)
        best = int(criterion[rule].round(12).argmax())
        at[CROSS_VALIDATED[rule]] = without[screen.compounds]
        at[HINDSIGHT[rule]] = np.full(len(screen.table), best)
        rows += [(rule, name, alignment.steps[c]) for name, c in zip(screen.compound_names, without, strict=True)]
        rows.append((rule, "all", alignment.steps[best]))
    at[LAST] = np.full(len(screen.table), len(alignment.steps) - 1)
    return at, pd.DataFrame(rows, columns=["rule", "compound", "step"])


def resampled(alignment: wdn.Alignment, profiles: pd.DataFrame, draws: int, seed: int) -> dict[str, pd.DataFrame]:
    """Bootstrap of cells within wells: the scores, the course over checkpoints, and how it turns.

    Returns
    -------
    dict
        ``bootstraps`` (method, replicate, measure, k, value), ``course`` (step, measure, k, mean, sd) and ``turns``
        (measure, replicate, top_step, start, top, last): the measure "accuracy" is the mean of NSC and NSCB over k. The
        top of every second resample is chosen on the others, by their mean course, so that it is not high by the luck
        of the resamples it is measured on. All of them come from the same cells, compounds and alignment: what these
        owe to chance is left in the rise and the fall.
    """
    scores, course = wdn.bootstrap(alignment, profiles, draws, seed)
    scores = scores.assign(method=scores["rule"].map({"none": UNCORRECTED, **CROSS_VALIDATED})).drop(columns="rule")
    if len(alignment.steps) == 1:
        return {"bootstraps": scores[scores["method"] == UNCORRECTED]}
    by_step = course.groupby(["step", "measure", "k"], sort=False)["value"].agg(["mean", "std"]).reset_index()
    kinds = course["measure"].where(course["measure"] == "silhouette", "accuracy")
    turns = []
    for measure, part in course.groupby(kinds):
        wide = part.pivot_table(index="replicate", columns="step", values="value")
        halves = wide.iloc[::2], wide.iloc[1::2]
        for half, other in (halves, halves[::-1]):
            top = other.mean().idxmax()
            parts = {"start": half.iloc[:, 0], "top": half[top], "last": half.iloc[:, -1]}
            turns.append(pd.DataFrame({"measure": measure, "top_step": top, **parts}).reset_index())
    return {
        "bootstraps": scores[scores["method"] != UNCORRECTED],
        "course": by_step.rename(columns={"std": "sd"}),
        "turns": pd.concat(turns, ignore_index=True),
    }


def converged(source: Source, config: Config) -> pd.DataFrame:
    """Scores of uncorrected wells whose factor analysis stops where the page stops it, and where it does by default.

    Returns
    -------
    DataFrame
        tolerance (rise of the log-likelihood a step at which the analysis stops), measure (NSC, NSCB with pooled votes;
        silhouette), k (1 to 4; 0 of the silhouette), value.
    """
    (screen,) = (screen for screen, name in WELL_SCREENS.items() if name == source.name)
    parts = []
    for tolerance in dict.fromkeys((config.factor_tolerance, FactorAnalysis.tol)):
        table = well_source(replace(config, factor_tolerance=tolerance), screen).profiles
        found = outcomes(wdn.unmoved(table), table)
        pooled = found["queries"].query("vote == 'pooled'").astype({"correct": int, "counted": int})
        sums = pooled.groupby(["measure", "k"], sort=False)[["correct", "counted"]].sum()
        scores = (sums["correct"] / sums["counted"]).rename("value").reset_index()
        shape = pd.DataFrame([{"measure": "silhouette", "k": 0, "value": found["silhouettes"]["value"].mean()}])
        parts.append(pd.concat([scores, shape], ignore_index=True).assign(tolerance=tolerance))
    return pd.concat(parts, ignore_index=True)[["tolerance", "measure", "k", "value"]]


# --- the week of controls -------------------------------------------------------------------------------------------


def some_controls(rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Rows of one compound that are classified, at most as many as the configuration says; numbered."""
    if rows.empty:
        return rows
    compound = str(rows["Metadata_compound"].iloc[0])
    found = control_rows(rows, compound, config.leak_rows, config.seed, BATCH)
    return found.assign(**{ORIGINAL: np.arange(len(found))})


def draw(rows: pd.DataFrame, number: int, cells: bool, seed: int) -> pd.DataFrame:
    """Rows resampled within their well, or wells within their plate; number 0 is the rows as they are."""
    if number == 0:
        return rows
    place = [PLATE, "Metadata_well"] if cells else [PLATE]
    return rows.groupby(place, group_keys=False).sample(frac=1, replace=True, random_state=seed + number)


def week_named(
    rows: pd.DataFrame, how: str, config: Config, *, models: Sequence[str] | None = None, number: int = 0
) -> Iterator[dict[str, Any]]:
    """Classify the week of rows; one line a model and plate, or nothing where a week has too few for three folds.

    In a resample all copies of a row stay in one fold, so that no classifier is asked for what it has seen.
    """
    group = {ROWS: ORIGINAL if number else None, PLATES: PLATE, UNSEEN: None}[how]
    per_week = rows.groupby(BATCH)[group or ORIGINAL].nunique()
    if len(per_week) < 2 or per_week.min() < FOLDS:
        return
    for model in config.models if models is None else models:
        found = metrics.classify_batch(rows, BATCH, group, cast(Model, model), FOLDS, config.seed)
        yield from lines(found, rows, model, how, number)


def lines(found: BatchAccuracy, rows: pd.DataFrame, model: str, how: str, number: int) -> Iterator[dict[str, Any]]:
    """How many rows of every plate got their week; of a resample only all plates together."""
    about = {"model": model, "how": how, "draw": number, "noise": found.noise_baseline, "majority": found.majority}
    plates = rows[PLATE].to_numpy() if number == 0 else np.full(len(rows), "all")
    right = pd.Series(found.correct).groupby(plates, sort=False).agg(["sum", "size"])
    for plate, line in right.iterrows():
        yield {**about, "plate": plate, "right": int(line["sum"]), "total": int(line["size"])}


def leak(rows: pd.DataFrame, source: Source, config: Config, *, resample: bool) -> pd.DataFrame:
    """Name the week of controls in folds of rows, by the first model also in folds of plates; then of resamples."""
    if rows.empty:
        return pd.DataFrame()
    found = [*week_named(rows, ROWS, config), *week_named(rows, PLATES, config, models=config.models[:1])]
    for number in range(1, (config.leak_bootstraps if resample else 0) + 1):
        again = draw(rows, number, source.unit == "cells", config.seed)
        found += week_named(again, ROWS, config, number=number)
    return pd.DataFrame(found)


def leak_steps(alignment: wdn.Alignment, choices: pd.DataFrame, config: Config) -> list[int]:
    """Steps at which the week is asked for: some at equal distances, and the one of the best silhouette."""
    places = np.linspace(0, len(alignment.steps) - 1, config.leak_checkpoints).round().astype(int)
    return sorted({*alignment.steps[places].tolist(), best_step(choices)})


def best_step(choices: pd.DataFrame, rule: str = "silhouette") -> int:
    """The map step that a rule chooses with all compounds."""
    return int(choices[(choices["rule"] == rule) & (choices["compound"] == "all")]["step"].iloc[0])


def principal(rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """First two principal components of controls, with their weeks; some of them where there are many."""
    from sklearn.decomposition import PCA

    from cellbook.profiles import matrix

    if len(rows) > config.pca_rows:
        rows = rows.sample(config.pca_rows, random_state=config.seed).sort_index()
    names = [name for name in rows if not str(name).startswith("Metadata_")]
    xy = PCA(2, svd_solver="full").fit_transform(matrix(rows, names))
    return pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1], "batch": rows[BATCH].to_numpy()})
