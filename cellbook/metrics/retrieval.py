"""Retrieval: how high the right profiles stand in each profile's ranking, and how many treatments repeat themselves.

Mean average precision comes from copairs (Kalinin et al. 2025, Nature Communications 16:5181), which also gives the
p-values: the share of random rankings, with the same numbers of right and wrong candidates, that do better. It ranks by
similarity in float32, right candidates first among equals: profiles that coincide look better than they are.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from scipy.special import digamma

from cellbook.errors import CellbookError
from cellbook.metrics.neighbours import SEVERAL, Floats, complete
from cellbook.metrics.units import natural
from cellbook.profiles.aggregate import TREATMENT
from cellbook.profiles.table import check_finite, controls_mask, require

LARGEST_SET = 10  # wells in a set of the null of `percent_replicating`: larger sets only narrow the null


def activity(wells: pd.DataFrame, controls: str = "DMSO", *, null_size: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Compute, per treatment, how well its wells find each other among the controls of their plates.

    Parameters
    ----------
    wells : DataFrame
        Treated and control wells; needs Metadata_compound, _concentration and _plate. Right candidates are wells of the
        same treatment on any plate, wrong ones the control wells of the query's plate; similarity is the cosine.
    controls : str
        Compound name of the controls. Controls are never queries, nor right candidates of each other.
    null_size : int
        Random rankings; the smallest p-value is 1 / (null_size + 1).
    seed : int

    Returns
    -------
    DataFrame
        One row a treatment, in order of first appearance: Metadata_compound, Metadata_concentration, rows, scored (rows
        with both right and wrong candidates), positives and pairs (summed over scored rows), mean_average_precision (0
        to 1, higher is better; chance depends on positives / pairs, so read it with q_value), p_value, q_value
        (Benjamini-Hochberg), excluded (why not scored, or "").
    """
    require(wells, [*TREATMENT, "Metadata_plate"])
    control = controls_mask(wells, controls)
    table = wells[[*TREATMENT, "Metadata_plate"]].reset_index(drop=True)
    # A number of its own for each control and the same for all others: controls then never match one another.
    table["reference"] = np.where(control, np.arange(len(wells)), -1)
    table.loc[control, "Metadata_concentration"] = 0.0
    complete(table, [*TREATMENT, "Metadata_plate"])
    scored = _average_precision(
        table,
        check_finite(wells),
        pos_sameby=[*TREATMENT, "reference"],
        pos_diffby=[],
        neg_sameby=["Metadata_plate"],
        neg_diffby=["reference"],
    )
    return _summary(scored[~control], TREATMENT, null_size, seed, "no second well", "no control well on its plates")


def consistency(treatments: pd.DataFrame, *, null_size: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Compute, per MOA, how well its treatments find those of other compounds: the graded sibling of NSC.

    Parameters
    ----------
    treatments : DataFrame
        One row a treatment, without controls; needs Metadata_moa and _compound. Right candidates have the same MOA and
        another compound, wrong ones another MOA and another compound.
    null_size, seed
        As in `activity`.

    Returns
    -------
    DataFrame
        One row an MOA (Metadata_moa, then as in `activity`).
    """
    return _consistency(treatments, [], null_size, seed)


def consistency_across_batches(treatments: pd.DataFrame, *, null_size: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Compute `consistency` among treatments that share no batch, right or wrong: the graded sibling of NSCB.

    Needs Metadata_batch; "Week1|Week3" shares a batch with both weeks.
    """
    complete(treatments, ["Metadata_batch"])
    sets = treatments["Metadata_batch"].astype(str).reset_index(drop=True).str.get_dummies(SEVERAL)
    # Per batch, -1 for its members and a number of their own for the rest: equal values mean a shared batch.
    codes = {
        f"batch_{i}": np.where(sets[name] == 1, -1, np.arange(len(sets)))
        for i, name in enumerate(sorted(sets.columns, key=natural))
    }
    return _consistency(treatments.assign(**codes), list(codes), null_size, seed)


def precision_of_treatments(treatments: pd.DataFrame) -> pd.DataFrame:
    """Compute the average precision of each treatment in `consistency`, whose means over an MOA are those.

    Returns
    -------
    DataFrame
        One row a treatment, in their order: Metadata_moa, Metadata_compound, positives, pairs (right candidates, and
        all), average_precision (0 to 1, higher is better, NaN if not scored; chance is that of `random_precision`).
    """
    scored = _scored(treatments, []).rename(columns={"n_pos_pairs": "positives", "n_total_pairs": "pairs"})
    return scored[["Metadata_moa", "Metadata_compound", "positives", "pairs", "average_precision"]]


def random_precision(positives: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Compute the average precision expected of a random ranking of `pairs` candidates, `positives` of them right.

    Rank k holds a right one with probability p / n, and then each of the k - 1 before it with (p - 1) / (n - 1): the
    mean over k is H / n + (p - 1) / (n - 1) (1 - H / n), where H is 1 + 1/2 + ... + 1/n.
    """
    p, n = (np.asarray(values, dtype=np.float64) for values in (positives, pairs))
    first = (digamma(n + 1) + np.euler_gamma) / n
    return np.asarray(first + (p - 1) / np.maximum(n - 1, 1) * (1 - first))


def _consistency(treatments: pd.DataFrame, differ: list[str], null_size: int, seed: int) -> pd.DataFrame:
    scored = _scored(treatments, differ)
    other = "compound and batch" if differ else "compound"
    return _summary(
        scored,
        ["Metadata_moa"],
        null_size,
        seed,
        f"no treatment of the same MOA with another {other}",
        f"no treatment of another MOA with another {other}",
    )


def _scored(treatments: pd.DataFrame, differ: list[str]) -> pd.DataFrame:
    """Let copairs score every treatment among those of other compounds."""
    needed = ["Metadata_moa", "Metadata_compound"]
    complete(treatments, needed)
    return _average_precision(
        treatments[[*needed, *differ]].reset_index(drop=True),
        check_finite(treatments.drop(columns=differ)),
        pos_sameby=["Metadata_moa"],
        pos_diffby=["Metadata_compound", *differ],
        neg_sameby=[],
        neg_diffby=needed + differ,
    )


def _average_precision(table: pd.DataFrame, x: Floats, **pairs: list[str]) -> pd.DataFrame:
    """Let copairs score every row; rows without right or without wrong candidates get NaN."""
    from copairs.map import average_precision
    from copairs.matching import UnpairedException

    if zero := int((~x.any(axis=1)).sum()):
        raise CellbookError(f"{zero} of {len(x)} rows are all zeros and have no direction to compare; drop them.")
    try:
        scored = pd.DataFrame(average_precision(table, x, **pairs, progress_bar=False))
    except UnpairedException as error:
        # copairs refuses when no row at all has a candidate; for us that is one more thing to report per group.
        right = int("negative" in str(error))
        return table.assign(n_pos_pairs=right, n_total_pairs=right, average_precision=np.nan)
    lonely = (scored["n_pos_pairs"] == 0) | (scored["n_total_pairs"] == scored["n_pos_pairs"])
    scored.loc[lonely, "average_precision"] = np.nan
    return scored


def _summary(
    scored: pd.DataFrame, by: list[str], null_size: int, seed: int, no_right: str, no_wrong: str
) -> pd.DataFrame:
    """Average over the groups and add p-values; groups without a scored row keep their line, with the reason."""
    if null_size < 1:
        raise CellbookError(f"null_size={null_size}: at least one random ranking is needed.")
    usable = scored[scored["average_precision"].notna()]
    groups = scored.groupby(by, sort=False).agg(rows=("n_pos_pairs", "size"), positives_of_all=("n_pos_pairs", "sum"))
    sums = usable.groupby(by, sort=False).agg(
        scored=("n_pos_pairs", "size"), positives=("n_pos_pairs", "sum"), pairs=("n_total_pairs", "sum")
    )
    groups = groups.join(sums)
    groups[["scored", "positives", "pairs"]] = groups[["scored", "positives", "pairs"]].fillna(0).astype(int)
    columns = ["mean_average_precision", "p_value", "q_value"]
    if len(usable):
        from copairs.map import mean_average_precision

        # copairs keeps its null in the home folder: not always writable, and drawn for whoever came first.
        with TemporaryDirectory() as null:
            means = mean_average_precision(
                usable,
                by,
                null_size=null_size,
                threshold=0.05,
                seed=seed,
                progress_bar=False,
                max_workers=2,
                cache_dir=null,
            )
        means = means.rename(columns={"corrected_p_value": "q_value"})
        groups = groups.join(means.set_index(by)[columns])
    else:
        groups[columns] = np.nan
    reasons = np.where(groups["positives_of_all"] > 0, no_wrong, no_right)
    groups["excluded"] = np.where(groups["scored"] > 0, "", reasons)
    return groups.drop(columns="positives_of_all").reset_index()


def percent_replicating(
    wells: pd.DataFrame, controls: str = "DMSO", *, null_size: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Compute which treatments have wells that correlate more than wells of different treatments do.

    A treatment replicates if the median Pearson correlation of its pairs of wells exceeds the 95th percentile of the
    same median over sets of as many wells (at most 10), each of another treatment, drawn at random.

    Parameters
    ----------
    wells : DataFrame
        Needs Metadata_compound and _concentration; controls are left out if present.
    controls : str
    null_size : int
        Sets drawn for each number of wells.
    seed : int

    Returns
    -------
    DataFrame
        One row a treatment: Metadata_compound, Metadata_concentration, wells, correlation (median over pairs of wells),
        threshold, replicates (missing for a single well; 5 % of the others by chance).
    """
    require(wells, TREATMENT)
    treated = wells[wells["Metadata_compound"].ne(controls)].reset_index(drop=True)
    complete(treated, TREATMENT)
    groups = treated.groupby(TREATMENT, sort=False)
    unit = groups.ngroup().to_numpy()
    if len(treated) == 0 or unit.max() < 1:
        raise CellbookError(
            f"{unit.max(initial=-1) + 1} treatments in {len(wells)} rows once {controls!r} is left out; a null of "
            "wells of different treatments needs at least two."
        )
    x = check_finite(treated)
    x = x - x.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.square(x).sum(axis=1, keepdims=True))
    if flat := int((norm == 0).sum()):
        raise CellbookError(f"{flat} of {len(x)} rows have one value in all features and no correlation; drop them.")
    correlation = (x / norm) @ (x / norm).T
    same = np.triu(unit[:, None] == unit[None, :], 1)
    first, second = np.nonzero(same)
    median = pd.Series(correlation[first, second]).groupby(unit[first]).median()
    table = groups.size().rename("wells").reset_index()
    table["correlation"] = median.reindex(range(len(table))).to_numpy()
    sizes = table["wells"].clip(upper=min(LARGEST_SET, len(table)))
    limits = {m: _null_limit(correlation, unit, m, null_size, seed) for m in sorted(set(sizes)) if m > 1}
    table["threshold"] = sizes.map(limits)
    above = (table["correlation"] > table["threshold"]).astype("boolean")
    table["replicates"] = above.where(table["wells"] > 1)
    return table


def _null_limit(correlation: Floats, unit: np.ndarray, m: int, null_size: int, seed: int) -> float:
    """Find the 95th percentile of the median correlation in sets of m wells of m different treatments."""
    rng = np.random.default_rng([seed, m])
    size = np.bincount(unit)
    order = np.argsort(unit, kind="stable")
    start = np.cumsum(size) - size
    chosen = rng.random((null_size, len(size))).argpartition(m - 1, axis=1)[:, :m]  # m different treatments
    well = order[start[chosen] + np.floor(rng.random(chosen.shape) * size[chosen]).astype(int)]
    a, b = np.triu_indices(m, 1)
    return float(np.quantile(np.median(correlation[well[:, a], well[:, b]], axis=1), 0.95))
