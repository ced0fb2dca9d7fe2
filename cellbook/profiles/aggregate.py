"""From cells to wells to treatments: one row a group, metadata carried along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellbook.errors import CellbookError, some
from cellbook.profiles.table import FloatArray, check_choice, check_finite, features, metadata, require

Statistic = Literal["mean", "median", "mean_sd"]
Single = Literal["error", "nan", "zero"]
Codes = npt.NDArray[np.integer]

WELL = ["Metadata_plate", "Metadata_well"]
TREATMENT = ["Metadata_compound", "Metadata_concentration"]


def aggregate(
    df: pd.DataFrame,
    by: str | Sequence[str],
    statistic: Statistic = "mean",
    weights: str | None = None,
    *,
    single: Single = "error",
    constant: Sequence[str] = (),
) -> pd.DataFrame:
    """Summarise the rows of each group by their mean, median, or mean and standard deviation, feature by feature.

    Parameters
    ----------
    df : a profile table; features are finite.
    by : columns whose values define a group; none may be missing.
    statistic : {"mean", "median", "mean_sd"}
        "mean_sd" gives two columns a feature, `<feature>_mean` for all features and then `<feature>_sd` (sample
        standard deviation, n - 1), the "Mean+S.D." profile of Lafarge et al. 2019.
    weights : column of weights of the rows, zero or more, for "mean" alone.
    single : {"error", "nan", "zero"}
        What to do about the standard deviation of a group of one row, which is undefined.
    constant : metadata that must not vary within a group, on pain of an error.

    Returns
    -------
    One row a group, in order of first appearance. Metadata that is constant in every group is kept.
    `Metadata_batch` that varies becomes the sorted names joined by "|", and `Metadata_cell_count` that varies is
    summarised like a feature; other metadata that varies is dropped. `Metadata_n` is the number of rows aggregated.

    Raises
    ------
    CellbookError : if a group's name is missing, a feature is not finite, a weight is negative or missing, a group
        weighs nothing, a standard deviation is undefined, or metadata named in `constant` varies.
    """
    keys = [by] if isinstance(by, str) else list(by)
    _check_arguments(df, keys, statistic, weights, single)
    require(df, constant)
    group = df.groupby(keys, sort=False).ngroup().to_numpy()  # numbered in order of first appearance
    first = np.unique(group, return_index=True)[1]
    size = np.bincount(group)

    carried = df.iloc[first][metadata(df)].reset_index(drop=True)
    for name in metadata(df):
        if _varies(df[name], group, first).any():
            if name in constant:
                _complain_of_variation(df, keys, name, group, first)
            if name == "Metadata_batch":
                carried[name] = _join_batches(df[name], group)
            elif name == "Metadata_cell_count":
                counts = df[name].groupby(group)
                carried[name] = (counts.median() if statistic == "median" else counts.mean()).to_numpy()
            else:
                carried = carried.drop(columns=name)
    carried["Metadata_n"] = size

    names, x = features(df), check_finite(df)
    if statistic == "mean_sd":
        if single == "error" and (size == 1).any():
            _complain_of_singles(df.iloc[first[size == 1]], keys)
        names = [f"{c}_mean" for c in names] + [f"{c}_sd" for c in names]
    values = _summarise(x, group, statistic, None if weights is None else df[weights].to_numpy(dtype=np.float64))
    if statistic == "mean_sd" and single == "zero":
        values[size == 1, x.shape[1] :] = 0.0
    return pd.concat([carried, pd.DataFrame(values, columns=pd.Index(names))], axis=1)


def to_wells(cells: pd.DataFrame, statistic: Statistic = "mean", *, single: Single = "error") -> pd.DataFrame:
    """Average the cells of each well: one row a (plate, well).

    Compound, concentration, MOA and batch must be the same for all cells of a well. `Metadata_cell_count` is added
    where absent: the number of cells in the table. A well without cells has no row.
    See `aggregate` for `statistic`, `single` and errors.
    """
    once = ("Metadata_batch", *TREATMENT, "Metadata_moa")
    wells = aggregate(cells, WELL, statistic, single=single, constant=[c for c in once if c in cells])
    if "Metadata_cell_count" not in wells:
        wells.insert(wells.columns.get_loc("Metadata_n"), "Metadata_cell_count", wells["Metadata_n"])  # type: ignore[arg-type]
    return wells


def _check_arguments(df: pd.DataFrame, keys: list[str], statistic: str, weights: str | None, single: str) -> None:
    check_choice("statistic", statistic, ("mean", "median", "mean_sd"))
    check_choice("single", single, ("error", "nan", "zero"))
    require(df, keys)
    if df.empty:
        raise CellbookError("cannot aggregate a table without rows")
    for name in keys:
        missing = int(df[name].isna().sum())
        if missing:
            raise CellbookError(
                f"{name} is missing in {missing} of {len(df)} rows, so they belong to no group; fill it in (for "
                "controls a concentration of 0) or drop these rows"
            )
    if weights is None:
        return
    require(df, weights)
    if statistic != "mean":
        raise CellbookError(f"weights={weights!r} needs statistic='mean', not {statistic!r}")
    values = pd.to_numeric(df[weights], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise CellbookError(
            f"weights={weights!r} is negative, infinite or missing in {int(bad.sum())} of {len(df)} rows "
            f"(first: {df[weights].iloc[int(bad.argmax())]}); give every row a weight of zero or more"
        )
    empty = pd.Series(values).groupby([df[k].to_numpy() for k in keys]).sum().eq(0)
    if empty.any():
        raise CellbookError(
            f"weights={weights!r} sums to 0 in {int(empty.sum())} of {len(empty)} groups "
            f"(first: {' '.join(map(str, np.atleast_1d(empty[empty].index[0])))}); drop these rows or weigh them"
        )


def _summarise(x: FloatArray, group: Codes, statistic: str, weights: FloatArray | None) -> FloatArray:
    groups = pd.DataFrame(x).groupby(group)
    if weights is not None:
        total = np.bincount(group, weights=weights)
        return pd.DataFrame(x * (weights / total[group])[:, None]).groupby(group).sum().to_numpy()
    if statistic == "median":
        return groups.median().to_numpy()
    if statistic == "mean":
        return groups.mean().to_numpy()
    mean = groups.mean().to_numpy()
    # In two passes: the running variance of pandas loses five digits where a feature's mean is 1e12 times its spread.
    squares = pd.DataFrame((x - mean[group]) ** 2).groupby(group).sum().to_numpy()
    freedom = (np.bincount(group) - 1.0)[:, None]
    variance = np.divide(squares, freedom, out=np.full_like(squares, np.nan), where=freedom > 0)
    return np.hstack([mean, np.sqrt(variance)])


def _varies(column: pd.Series, group: Codes, first: Codes) -> npt.NDArray[np.bool_]:
    codes = pd.factorize(column)[0]  # a missing value is -1, and equal to another missing one
    return np.asarray(codes != codes[first][group])


def _join_batches(column: pd.Series, group: Codes) -> npt.NDArray[np.object_]:
    """Join the batches of each group; "Week1|Week3" counts as both of its parts."""
    pairs = pd.DataFrame({"group": group, "batch": column.to_numpy(dtype=object)}).drop_duplicates()
    parts = pairs.dropna().assign(batch=lambda p: p["batch"].str.split("|")).explode("batch").drop_duplicates()
    joined = parts.sort_values(["group", "batch"]).groupby("group")["batch"].agg("|".join)
    return joined.reindex(range(int(group.max()) + 1)).to_numpy(dtype=object)


def _complain_of_variation(df: pd.DataFrame, keys: list[str], name: str, group: Codes, first: Codes) -> None:
    wrong = np.unique(group[_varies(df[name], group, first)])
    values = sorted({str(v) for v in df.loc[group == wrong[0], name]})
    raise CellbookError(
        f"{name} has more than one value in {len(wrong)} of {len(first)} groups, first in "
        f"{_describe(df.iloc[[first[wrong[0]]]], keys)}: {some(map(repr, values))}; "
        "correct the table so that all rows of a group agree"
    )


def _complain_of_singles(rows: pd.DataFrame, keys: list[str]) -> None:
    raise CellbookError(
        f"the standard deviation is undefined in {len(rows)} groups of one row ({_describe(rows, keys)}); drop these "
        "rows, use statistic='mean', or pass single='zero' or single='nan'"
    )


def _describe(rows: pd.DataFrame, keys: list[str]) -> str:
    return some(" ".join(map(str, row)) for row in rows[keys].itertuples(index=False))
