"""What the page of classical profiles measures, all of it from the stored products of one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from threadpoolctl import threadpool_limits

from cellbook import metrics
from cellbook.configure import restore
from cellbook.pages.classical.config import Config, kind, setting_name
from cellbook.pages.classical.making import transforms
from cellbook.pages.classical.retrieving import retrieval
from cellbook.runs import Run
from cellbook.study import rows
from cellbook.study.measured import fall, matched, without_profile
from cellbook.study.rows import Draws, Votes

BENCHMARK = metrics.PROTOCOLS["ljosa2013"]
AS_SCALED = "as scaled"  # the transform that changes nothing
HINDSIGHT, NESTED = "best in hindsight", "chosen without the compound"
Line = dict[str, Any]
Matched = dict[tuple[str, str], Votes]  # (setting, measure) -> votes of the benchmark


@threadpool_limits.wrap(1, user_api="blas")
def evaluate(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """Every table of the page from the products of one run: accuracies, nested choice, leakage, retrieval."""
    (run,) = runs
    config = restore(Config, run.record["config"])
    draws = Draws(config.resamples, config.seed)
    treatments, squares = run.table("treatments"), distances_of(run, BENCHMARK)
    whole = {
        (setting, measure.name): matched(treatments, square, measure)
        for setting, square in squares.items()
        for measure in BENCHMARK.measures
    }
    choices = choose(treatments, squares, whole)
    per_moa, retrieved = retrieval(run, config)
    alone = single_properties(run.table("wells"), treatments)
    permutations = Draws(config.permutations, config.seed)
    lines = [
        *scores(run, draws),
        *nested(choices, whole, draws),
        *paired(config, whole, draws),
        *drop(treatments, squares, whole, config),
        *without_profile(treatments, BENCHMARK.measures, squares["percentile"], alone, permutations, draws),
        *leakage(run, draws),
        *silhouettes(run, draws),
        *retrieved,
    ]
    of = parts(config)
    numbers = rows.numbers(
        [of.get(line["setting"], {}) | line for line in lines], without=("sd", "trainings", "agree", "se", "draws")
    )
    return {"numbers": numbers, "choices": choices, "retrieval": per_moa}


def parts(config: Config) -> dict[str, dict[str, str]]:
    """Scaling and transform of every setting of the grid, by its name."""
    found = {"unscaled": {"scaling": "unscaled", "transform": AS_SCALED}}
    for scaling in config.scalings:
        for transform in ("", *transforms(config)):
            name = setting_name(scaling, transform)
            found[name] = {"scaling": scaling, "transform": transform or AS_SCALED}
    return found


def distances_of(run: Run, protocol: metrics.Protocol) -> dict[str, np.ndarray]:
    """Distances between treatments as a protocol sees them, (n, n), by setting."""
    stored = run.table(f"distances-{kind(protocol)}")
    return {str(setting): squareform(stored[setting].to_numpy(np.float64)) for setting in stored}


def scores(run: Run, draws: Draws) -> Iterator[Line]:
    """Every setting under every protocol."""
    treatments = run.table("treatments")
    for protocol in metrics.PROTOCOLS.values():
        for setting, square in distances_of(run, protocol).items():
            for one in metrics.score(treatments, protocol, distances=square, resamples=draws.n, seed=draws.seed):
                found = dict(zip(("low", "high"), one.interval, strict=True)) | {
                    "correct": one.correct,
                    "scored": one.scored,
                    "excluded": one.excluded,
                    "null": np.nan if one.null is None else one.null,
                }
                yield rows.row(setting, one.protocol, one.measure, one.accuracy, one.k, **found)


def choose(treatments: pd.DataFrame, squares: dict[str, np.ndarray], whole: Matched) -> pd.DataFrame:
    """Choose a setting without each compound in turn: one row a compound, beside the setting that is best on all.

    The criterion is the mean of NSC and NSCB under the benchmark's protocol on the other compounds, computed without
    the compound as a candidate; on ties the setting that comes first in the grid.
    """
    chosen = []
    for compound in treatments["Metadata_compound"].unique():
        keep = (treatments["Metadata_compound"] != compound).to_numpy()
        others = treatments[keep].reset_index(drop=True)
        stack = np.stack([square[np.ix_(keep, keep)] for square in squares.values()])
        votes = [matched(others, stack, measure) for measure in BENCHMARK.measures]
        shares = [one.correct.sum(axis=-1) / one.counted.sum() for one in votes]
        criterion = dict(zip(squares, np.mean(shares, axis=0).tolist(), strict=True))
        best = max(criterion, key=criterion.__getitem__)
        chosen.append({"compound": compound, "setting": best, "criterion": criterion[best]})
    hindsight = max(squares, key=lambda setting: sum(whole[setting, m.name].share for m in BENCHMARK.measures))
    return pd.DataFrame(chosen).assign(best_in_hindsight=hindsight)


def nested(choices: pd.DataFrame, whole: Matched, draws: Draws) -> Iterator[Line]:
    """Each compound scored with the setting that was chosen without it, and all with the one that is best on all."""
    for measure in (m.name for m in BENCHMARK.measures):
        found = []
        for choice in choices.itertuples():
            votes = whole[choice.setting, measure]
            found.append(votes.where(votes.group == choice.compound))
        together = Votes(*(np.concatenate(each) for each in zip(*found, strict=True)))
        for name, votes in ((NESTED, together), (HINDSIGHT, whole[choices["best_in_hindsight"].iloc[0], measure])):
            yield rows.average(name, "nested", measure, [votes], draws, **rows.counts([votes]))


def paired(config: Config, whole: Matched, draws: Draws) -> Iterator[Line]:
    """Differences between two transforms of a scaling, or two measures of a setting, on the same queries."""
    small = f"whitened {min(config.ridges):g}"
    compared = {
        "percentile, 20 factors - percentile": ("percentile", "20 factors", ""),
        "percentile, 50 factors, CORAL - percentile, 50 factors": ("percentile", "50 factors, CORAL", "50 factors"),
        "percentile, CORAL - percentile": ("percentile", "CORAL", ""),
        **{f"{scaling}: whitened 1 - {small}": (scaling, "whitened 1", small) for scaling in config.scalings},
    }
    for name, (scaling, left, right) in compared.items():
        for measure in ("NSC", "NSCB"):
            two = [whole.get((setting_name(scaling, one), measure)) for one in (left, right)]
            if two[0] is not None and two[1] is not None:
                line = rows.difference(name, "paired", measure, two[:1], two[1:], draws, counted=True)
                yield line | {"scaling": scaling, "left": left, "right": right or AS_SCALED}
    for setting in config.closer:
        if (setting, "NSC") in whole:
            nsc, nscb = ([whole[setting, name]] for name in ("NSC", "NSCB"))
            name = f"{setting}: NSC - NSCB"
            line = rows.difference(name, "paired", "same queries", nsc, nscb, draws, counted=True)
            yield line | parts(config)[setting] | {"left": "NSC", "right": "NSCB"}


def drop(treatments: pd.DataFrame, squares: dict[str, np.ndarray], whole: Matched, config: Config) -> Iterator[Line]:
    """What of the fall from NSC to NSCB fewer candidates explain, of the settings looked at closer."""
    for setting in [name for name in config.closer if name in squares]:
        votes = {name: [whole[setting, name]] for name in ("NSC", "NSCB")}
        how = Draws(config.thinnings, config.seed), Draws(config.resamples, config.seed)
        yield from fall(setting, treatments, [squares[setting]], votes, *how)


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


def leakage(run: Run, draws: Draws) -> Iterator[Line]:
    """How well the week of DMSO wells can be named on plates held out, for the settings looked at closer."""
    weeks = run.table("weeks")
    for place, (setting, closer) in enumerate(weeks.groupby("setting", sort=False)):
        for model, named in closer.groupby("model", sort=False):
            each = [one for _, one in named.groupby("seed")]
            first = [one.iloc[0] for one in each]
            votes = Votes.of(np.mean([one["correct"] for one in each], axis=0), each[0]["plate"])
            more = rows.interval(votes, draws) | {"null": first[0]["majority"]}
            yield rows.row(str(setting), "leakage", str(model), np.mean([one["accuracy"] for one in first]), **more)
            if place == 0:
                noise = np.mean([one["noise"] for one in first])
                yield rows.row("noise", "leakage", str(model), noise, null=first[0]["majority"])


def silhouettes(run: Run, draws: Draws) -> Iterator[Line]:
    """Silhouette of mechanisms for every setting, from the means of treatments as in Tabak et al."""
    treatments = run.table("treatments")
    for setting, square in distances_of(run, metrics.PROTOCOLS["tabak2020"]).items():
        values = metrics.silhouettes(treatments, distances=square)
        yield rows.average(setting, "silhouette", "MOA", [Votes.of(values, treatments["Metadata_compound"])], draws)
