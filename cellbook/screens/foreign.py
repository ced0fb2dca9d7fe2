"""What an official table must hold, with one clear sentence for each thing that can be wrong with a reader's own."""

import difflib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import pandas as pd

from cellbook.errors import CellbookError


def own_file(name: str, path: str | PathLike[str]) -> Path:
    """Find a table by its official name, gzipped or not, in a reader's folder; a path to a file is taken as it is."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    plain = name.removesuffix(".gz")
    candidates = [path / name, path / plain, path / f"{plain}.gz"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if not path.exists():
        raise CellbookError(f"path is {str(path)!r}, which does not exist; give a folder with {plain}, or that file")
    raise CellbookError(f"the folder {path} has neither {plain} nor {plain}.gz; put it there")


def require(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    """Refuse a table that lacks one of `columns` or has empty cells there."""
    for column in columns:
        if column not in table.columns:
            near = difflib.get_close_matches(column.lower(), [str(c).lower() for c in table.columns], n=1)
            found = [c for c in table.columns if near and str(c).lower() == near[0] and c not in columns]
            mend = f"rename {found[0]!r} to {column!r}" if found else f"its columns are {some(table.columns, 8)}"
            raise CellbookError(f"{where} ({len(table)} rows) has no column {column!r}; {mend}")
        empty = table[column].isna().sum()
        if empty:
            raise CellbookError(f"column {column!r} of {where} is empty in {empty} of {len(table)} rows; fill them in")
        if not pd.api.types.is_numeric_dtype(table[column].dtype):
            table[column] = table[column].astype("str").str.strip()


def numbers(column: pd.Series, where: str) -> pd.Series:
    """Column as float64; text in it is refused, empty cells stay missing."""
    values = pd.to_numeric(column, errors="coerce").astype("float64")
    bad = values.isna() & column.notna()
    if bad.any():
        raise CellbookError(
            f"column {column.name!r} of {where} has {bad.sum()} of {len(column)} values that are not numbers "
            f"({some(column[bad])}); write them as plain numbers, concentrations in micromolar"
        )
    return values


def some(values: pd.Series | pd.Index, n: int = 3) -> str:
    """Name up to `n` distinct values and count the rest."""
    distinct = list(dict.fromkeys(map(str, values)))
    more = f" and {len(distinct) - n} more" if len(distinct) > n else ""
    return ", ".join(distinct[:n]) + more
