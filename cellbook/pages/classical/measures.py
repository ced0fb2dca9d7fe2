"""What the page of classical profiles measures, all of it from the stored products of one run."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from threadpoolctl import threadpool_limits

from cellbook import metrics
from cellbook.pages.classical.config import Config, config_of, kind
from cellbook.pages.classical.lines import draws_row, query_row, row, score_row
from cellbook.pages.classical.retrieving import retrieval
from cellbook.runs import Run, seeds

BENCHMARK = metrics.PROTOCOLS["ljosa2013"]


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of one run: accuracies, nested choice, leakage, retrieval."""
    (run,) = runs
    config = config_of(run)
    whole = matches(run)
    nested, choices = choose(run, config, whole)
    per_moa, found = retrieval(run, config)
    parts = [
        score_settings(run, config),
        nested,
        paired(config, whole),
        drop(run, config, whole),
        baselines(run, config),
        leakage(run, config),
        silhouettes(run, config),
        found,
    ]
    numbers = pd.concat(parts, ignore_index=True)
    return {"numbers": numbers, "choices": choices, "retrieval": per_moa}


def distances_of(run: Run, protocol: metrics.Protocol) -> dict[str, np.ndarray]:
    """Distances between treatments as a protocol sees them, (n, n), by setting."""
    stored = run.table(f"distances-{kind(protocol)}")
    return {str(setting): squareform(stored[setting].to_numpy(np.float64)) for setting in stored}


def score_settings(run: Run, config: Config) -> pd.DataFrame:
    """Score every setting under every protocol."""
    treatments = run.table("treatments")
    rows = []
    for protocol in metrics.PROTOCOLS.values():
        for setting, distances in distances_of(run, protocol).items():
            scores = metrics.score(
                treatments, protocol, distances=distances, resamples=config.resamples, seed=config.seed
            )
            rows += [score_row(setting, score) for score in scores]
    return pd.DataFrame(rows)


def matches(run: Run) -> dict[tuple[str, str], metrics.Match]:
    """The benchmark's matches of every setting: (setting, measure) -> match."""
    treatments = run.table("treatments")
    return {
        (setting, measure.name): metrics.match(treatments, distances=distances, **measure.arguments())
        for (setting, distances), measure in product(distances_of(run, BENCHMARK).items(), BENCHMARK.measures)
    }


def choose(run: Run, config: Config, whole: dict[tuple[str, str], metrics.Match]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose a setting without each compound in turn; score that compound with the setting chosen.

    The criterion is the mean of NSC and NSCB under the benchmark's protocol on the other compounds, computed without
    the compound as a candidate; on ties the setting that comes first in the grid. Returns the numbers (nested, and best
    in hindsight) and one row a compound: the setting chosen for it.
    """
    treatments, squares = run.table("treatments"), distances_of(run, BENCHMARK)
    chosen = []
    for compound in treatments["Metadata_compound"].unique():
        keep = (treatments["Metadata_compound"] != compound).to_numpy()
        others = treatments[keep].reset_index(drop=True)
        criterion = {
            setting: np.mean(
                [
                    metrics.match(others, distances=distances[np.ix_(keep, keep)], **measure.arguments()).accuracy
                    for measure in BENCHMARK.measures
                ]
            )
            for setting, distances in squares.items()
        }
        best = max(criterion, key=criterion.__getitem__)
        chosen.append({"compound": compound, "setting": best, "criterion": criterion[best]})
    choices = pd.DataFrame(chosen)
    hindsight = max(squares, key=lambda setting: sum(whole[setting, m.name].accuracy for m in BENCHMARK.measures))
    choices["best_in_hindsight"] = hindsight
    setting_of = choices.set_index("compound")["setting"].to_dict()
    rows = []
    for measure in BENCHMARK.measures:
        parts = [
            whole[setting, measure.name].per_query.query("compound == @compound")
            for compound, setting in setting_of.items()
        ]
        rows.append(query_row("chosen without the compound", "nested", measure.name, pd.concat(parts), config))
        queries = whole[hindsight, measure.name].per_query
        rows.append(query_row("best in hindsight", "nested", measure.name, queries, config))
    return pd.DataFrame(rows), choices


def paired(config: Config, whole: dict[tuple[str, str], metrics.Match]) -> pd.DataFrame:
    """Differences between two settings, or two measures, on the same queries, with intervals over compounds."""

    def difference(name: str, measure: str, left: metrics.Match, right: metrics.Match) -> dict[str, object]:
        a, b = left.per_query, right.per_query
        both = ((a["counted"] > 0) & (b["counted"] > 0)).astype(int)
        queries = a.assign(correct=(a["correct"] - b["correct"]) * both, counted=both)
        return query_row(name, "paired", measure, queries, config)

    pairs = {
        "percentile, 20 factors - percentile": ("percentile, 20 factors", "percentile"),
        "percentile, 50 factors, CORAL - percentile, 50 factors": (
            "percentile, 50 factors, CORAL",
            "percentile, 50 factors",
        ),
        "percentile, CORAL - percentile": ("percentile, CORAL", "percentile"),
    }
    small = f"whitened {min(config.ridges):g}"
    pairs |= {
        f"{scaling}: whitened 1 - {small}": (f"{scaling}, whitened 1", f"{scaling}, {small}")
        for scaling in config.scalings
    }
    rows = []
    for (name, (left, right)), measure in product(pairs.items(), ("NSC", "NSCB")):
        if (left, measure) in whole and (right, measure) in whole:
            rows.append(difference(name, measure, whole[left, measure], whole[right, measure]))
    for setting in config.closer:
        if (setting, "NSC") in whole:
            both = (whole[setting, "NSC"], whole[setting, "NSCB"])
            rows.append(difference(f"{setting}: NSC - NSCB", "same queries", *both))
    return pd.DataFrame(rows)


def drop(run: Run, config: Config, whole: dict[tuple[str, str], metrics.Match]) -> pd.DataFrame:
    """NSC and NSCB on the queries of NSCB, and NSC with as many random candidates removed as NSCB excludes."""
    treatments, squares = run.table("treatments"), distances_of(run, BENCHMARK)
    rows = []
    for setting in [name for name in config.closer if name in squares]:
        queries = whole[setting, "NSCB"].per_query["counted"] > 0
        for name in ("NSC", "NSCB"):
            rows.append(query_row(setting, "drop", name, whole[setting, name].per_query[queries], config))
        for name, alike in (("as many removed at random", False), ("as many right and wrong", True)):
            draws = metrics.thinned(treatments, squares[setting], alike=alike, n=config.thinnings, seed=config.seed)
            rows.append(draws_row(setting, name, draws.values, "drop"))
    return pd.DataFrame(rows)


def baselines(run: Run, config: Config) -> pd.DataFrame:
    """What needs no profile: chance, the largest class, and what week, position or cell count alone would reach."""
    treatments = run.table("treatments")
    alone = single_properties(run.table("wells"), treatments)
    rows = [row("largest class", "baseline", "NSC", 1, metrics.majority(treatments))]
    for measure in BENCHMARK.measures:
        draws = {"n": config.permutations, "seed": config.seed}
        chance = metrics.chance(treatments, measure, distances=distances_of(run, BENCHMARK)["percentile"], **draws)
        rows.append(draws_row("labels permuted", measure.name, chance.values))
        for name, values in alone.items():
            distances = metrics.distance_matrix(values, "euclidean")
            expected = metrics.expected_under_ties(treatments, measure, distances=distances, **draws).values
            if np.ptp(expected) > 0:
                rows.append(draws_row(name, measure.name, expected))
            else:  # no ties to break: an accuracy like any other
                queries = metrics.match(treatments, distances=distances, **measure.arguments()).per_query
                rows.append(query_row(name, "baseline", measure.name, queries, config))
    return pd.DataFrame(rows)


def single_properties(wells: pd.DataFrame, treatments: pd.DataFrame) -> dict[str, np.ndarray]:
    """Profiles that hold one thing, (treatments, values): the week, the position on the plate, or the cell count."""
    keys = ["Metadata_compound", "Metadata_concentration"]
    well = wells["Metadata_well"].astype(str)
    position = wells.assign(row=well.str[0].map(ord) - ord("A"), column=well.str[1:].astype(int))
    per_treatment = position.groupby(keys)[["row", "column", "Metadata_cell_count"]].median()
    medians = per_treatment.loc[pd.MultiIndex.from_frame(treatments[keys])]
    return {
        "week alone": pd.get_dummies(treatments["Metadata_batch"]).to_numpy(np.float64),
        "position alone": medians[["row", "column"]].to_numpy(np.float64),
        "cell count alone": medians[["Metadata_cell_count"]].to_numpy(np.float64),
    }


def leakage(run: Run, config: Config) -> pd.DataFrame:
    """How well the week of DMSO wells can be named on plates held out, for the settings looked at closer."""
    rows = []
    for place, setting in enumerate(config.closer):
        if f"controls-{place}.parquet" not in run.products():
            continue  # a smaller grid does not hold it
        controls = run.table(f"controls-{place}")
        for model in ("logistic", "forest"):
            found = [
                metrics.classify_batch(controls, model=model, seed=seed, standardise=model == "logistic")
                for seed in seeds(config.seed, config.repeats)
            ]
            correct = np.mean([one.correct for one in found], axis=0)  # (n,), mean over seeds
            low, high = metrics.bootstrap_compounds(
                correct, np.ones(len(correct)), controls["Metadata_plate"], config.resamples, config.seed
            )
            accuracy = float(np.mean([one.accuracy for one in found]))
            rows.append(row(setting, "leakage", model, 1, accuracy, low=low, high=high, null=found[0].majority))
            if place == 0:
                noise = float(np.mean([one.noise_baseline for one in found]))
                rows.append(row("noise", "leakage", model, 1, noise, null=found[0].majority))
    return pd.DataFrame(rows)


def silhouettes(run: Run, config: Config) -> pd.DataFrame:
    """Silhouette of mechanisms for every setting, from the means of treatments as in Tabak et al."""
    treatments = run.table("treatments")
    rows = []
    for setting, distances in distances_of(run, metrics.PROTOCOLS["tabak2020"]).items():
        values = metrics.silhouettes(treatments, distances=distances)
        low, high = metrics.bootstrap_compounds(
            values, np.ones(len(values)), treatments["Metadata_compound"], config.resamples, config.seed
        )
        rows.append(row(setting, "silhouette", "MOA", 1, float(values.mean()), low=low, high=high))
    return pd.DataFrame(rows)
