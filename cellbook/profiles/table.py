"""The profile table: columns named `Metadata_*` describe a row, every other column is a feature."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellbook.errors import CellbookError, some
from cellbook.profiles.labels import check_controls
from cellbook.profiles.names import simplify

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def metadata(df: pd.DataFrame) -> list[str]:
    """List the columns that describe a row: `Metadata_*`, and the simulator's `truth_*`.

    The truth behind a simulated cell counts as metadata so that it can never slip into a profile as a feature.
    """
    return [c for c in _names(df) if c.startswith(("Metadata_", "truth_"))]


def features(df: pd.DataFrame) -> list[str]:
    """List the feature columns: all that are not metadata, in table order.

    Raises
    ------
    CellbookError : if a column name is not text or occurs twice, or if there is no feature at all.
    """
    names = _names(df)
    described = set(metadata(df))
    found = [c for c in names if c not in described]
    if not found:
        raise CellbookError(
            f"the table has no feature: all of its {len(names)} columns are metadata; add at least one numeric column "
            "whose name does not start with 'Metadata_'"
        )
    return found


def matrix(df: pd.DataFrame, columns: Sequence[str] | None = None) -> FloatArray:
    """Return a copy of the features as a float64 matrix, (rows, features).

    Parameters
    ----------
    df : a profile table.
    columns : the features expected, in the order wanted; by default the table's own. The table must have exactly these.

    Raises
    ------
    CellbookError : if a feature is not numeric, or if the features differ from `columns`.
    """
    found = features(df)
    if columns is not None:
        _check_same(found, columns)
        found = list(columns)
    bad = {c: _not_numbers(df[c]) for c in found if not pd.api.types.is_numeric_dtype(df[c].dtype)}
    if bad:
        shown = some(
            f"{c!r} ({len(n)} of {len(df)} cells are not numbers, first {str(n.iloc[0])!r})" for c, n in bad.items()
        )
        raise CellbookError(
            f"{len(bad)} of {len(found)} feature columns are not numeric: {shown}; "
            "drop or convert them, or start their names with 'Metadata_' if they describe the row"
        )
    # A copy, as pandas hands out its own memory read-only, and only sometimes.
    return df[found].to_numpy(dtype=np.float64, na_value=np.nan, copy=True)


def replace_features(df: pd.DataFrame, values: npt.ArrayLike, names: Sequence[str]) -> pd.DataFrame:
    """Return the metadata of `df`, untouched, followed by `values` (rows, features) under new `names`."""
    block = pd.DataFrame(np.asarray(values, dtype=np.float64), index=df.index, columns=pd.Index(list(names)))
    return pd.concat([df[metadata(df)], block], axis=1)


def require(df: pd.DataFrame, columns: str | Iterable[str]) -> None:
    """Raise CellbookError if `df` lacks one of `columns`, proposing a rename where a column looks misnamed."""
    wanted = [columns] if isinstance(columns, str) else list(columns)
    missing = [c for c in wanted if c not in df.columns]
    if not missing:
        return
    parts = []
    for name in missing:
        near = near_miss(name, [c for c in df.columns if c not in wanted])
        parts.append(f"{name!r} (rename {near!r} to {name!r})" if near else repr(name))
    have = [str(c) for c in df.columns if str(c).startswith("Metadata_")]
    raise CellbookError(
        f"the table of {len(df)} rows lacks {len(missing)} column{'s' * (len(missing) > 1)}: {', '.join(parts)}; "
        f"its metadata columns are: {', '.join(have) if have else 'none'}"
    )


def check_finite(df: pd.DataFrame, columns: Sequence[str] | None = None) -> FloatArray:
    """Return `matrix(df, columns)`, or raise CellbookError if it holds NaN or infinity."""
    x = matrix(df, columns)
    bad = ~_usable(x, 1e300)  # a cosine is the same at any scale
    if bad.any():
        raise CellbookError(_unusable_message(list(columns or features(df)), bad, np.zeros(x.shape[1], bool)))
    return x


def check_features(df: pd.DataFrame) -> None:
    """Raise CellbookError if a feature holds NaN or infinity, or has the same value in every row.

    A table of one row has no constant feature.
    """
    x = matrix(df)
    bad, constant = ~_usable(x), _constant(x)
    if bad.any() or constant.any():
        raise CellbookError(_unusable_message(features(df), bad, constant))


@dataclass(frozen=True)
class Dropped:
    """What `drop_unusable` removed.

    Attributes
    ----------
    rows : index labels of rows without a single finite feature.
    not_finite : features with NaN or infinity in another row.
    constant : features with one value in all rows kept.
    """

    rows: tuple[object, ...]
    not_finite: tuple[str, ...]
    constant: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"dropped {len(self.rows)} rows without a finite feature, {len(self.not_finite)} features with NaN or "
            f"infinity, {len(self.constant)} constant features"
        )


def drop_unusable(df: pd.DataFrame) -> tuple[pd.DataFrame, Dropped]:
    """Drop rows without any finite feature, then features that are not finite everywhere or are constant.

    Returns
    -------
    profiles : DataFrame
        The rest, in the same order.
    report : Dropped
        What was removed.

    Raises
    ------
    CellbookError : if nothing would be left.
    """
    x, names = matrix(df), np.array(features(df), dtype=object)
    rows: BoolArray = np.asarray(_usable(x).any(axis=1))
    not_finite = ~_usable(x[rows]).all(axis=0)
    constant = _constant(x[rows]) & ~not_finite
    if not rows.any() or (not_finite | constant).all():
        raise CellbookError(
            _unusable_message([str(c) for c in names], ~_usable(x), constant) + ": nothing would be left of it"
        )
    report = Dropped(
        rows=tuple(df.index[~rows]),
        not_finite=tuple(str(c) for c in names[not_finite]),
        constant=tuple(str(c) for c in names[constant]),
    )
    kept = df.loc[rows, [c for c in df.columns if c not in {*report.not_finite, *report.constant}]]
    return kept, report


def controls_mask(df: pd.DataFrame, controls: str = "DMSO") -> BoolArray:
    """Mark the control rows: those with `Metadata_compound` equal to `controls`, (rows,) bool.

    Raises
    ------
    CellbookError : if there is none.
    """
    require(df, "Metadata_compound")
    mask = df["Metadata_compound"].eq(controls).to_numpy(dtype=bool, na_value=False)
    if not mask.any():
        names = sorted({str(c) for c in df["Metadata_compound"].dropna()})
        same = [c for c in names if c.strip().lower() == controls.strip().lower()]
        hint = f"; did you mean controls={same[0]!r}?" if same else ""
        shown = some(names, 8) or "none"
        raise CellbookError(f"no row of {len(df)} has Metadata_compound {controls!r}; the compounds are: {shown}{hint}")
    check_controls(df["Metadata_compound"], controls)
    return mask


def as_numbers(column: pd.Series, where: str = "") -> pd.Series:
    """The column as numbers; text in it is refused, empty cells stay missing."""
    values = pd.to_numeric(column, errors="coerce")
    bad = column[values.isna() & column.notna()]
    if len(bad):
        raise CellbookError(
            f"{where}{column.name} is not a number in {len(bad)} of {len(column)} rows ({some(bad)}); write plain "
            "numbers, concentrations in micromolar"
        )
    return values


def check_choice(argument: str, value: object, known: Sequence[str]) -> None:
    """Raise CellbookError if `value` is not among the `known` values of `argument`."""
    if value not in known:
        raise CellbookError(f"{argument} is {value!r}; use one of {', '.join(known)}")


def _names(df: pd.DataFrame) -> list[str]:
    odd = [c for c in df.columns if not isinstance(c, str)]
    if odd:
        raise CellbookError(
            f"{len(odd)} of {df.shape[1]} column names are not text (first: {odd[0]}); give every column one name"
        )
    if not df.columns.is_unique:
        twice = sorted(set(df.columns[df.columns.duplicated()]))
        raise CellbookError(
            f"{len(twice)} column names occur more than once (first: {twice[0]!r}); rename or drop the copies"
        )
    return list(df.columns)


def near_miss(name: str, columns: Iterable[object]) -> str | None:
    """The column that is named almost like `name`, punctuation and capitals aside; None if there is none."""
    simple = {simplify(c): str(c) for c in reversed(list(columns))}
    close = difflib.get_close_matches(simplify(name), list(simple), n=1, cutoff=0.8)
    return simple[close[0]] if close else None


def _not_numbers(column: pd.Series) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or pd.api.types.is_timedelta64_dtype(column.dtype):
        return column.dropna()
    return column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]


def _check_same(found: list[str], expected: Sequence[str]) -> None:
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    if missing or extra:
        parts = [
            f"{len(names)} {what} ({some(map(repr, names))})"
            for what, names in (("missing", missing), ("not seen in fit", extra))
            if names
        ]
        raise CellbookError(
            f"the features differ from the {len(expected)} features of fit: {', '.join(parts)}; "
            "transform a table with the same feature columns"
        )


def _usable(x: FloatArray, below: float = 1e150) -> BoolArray:
    """Numbers, and none so large that they stand for a missing one (1.8e308) or that their square is infinite."""
    return np.asarray(np.abs(x) < below)


def _constant(x: FloatArray) -> BoolArray:
    if len(x) < 2:
        return np.zeros(x.shape[1], dtype=bool)
    return np.asarray((x == x[0]).all(axis=0))


def _unusable_message(names: list[str], bad: BoolArray, constant: BoolArray) -> str:
    rows = int(bad.any(axis=1).sum())
    parts = []
    for columns, fault in (
        (bad.any(axis=0), f"hold NaN or infinity in {rows} of {len(bad)} rows"),
        (constant, f"have the same value in all {len(bad)} rows"),
    ):
        if columns.any():
            named = some(repr(names[i]) for i in np.flatnonzero(columns))
            parts.append(f"{int(columns.sum())} of {len(names)} features {fault} ({named})")
    return " and ".join(parts) + "; drop them with drop_unusable(df)"
