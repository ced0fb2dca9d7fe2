"""Reading a CSV table that somebody else wrote, with one clear sentence for each thing that can be wrong with it."""

import difflib
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import pandas as pd

from cellbook.errors import CellbookError


def read_csv(file: Path) -> pd.DataFrame:
    """Read a CSV file (also gzipped); only an empty cell is missing, as "NA" and "None" could be names of compounds."""
    try:
        table = pd.read_csv(file, keep_default_na=False, na_values=[""], low_memory=False)
    # bad text, bad CSV and an empty file are ValueErrors; a cut gzip stream raises the other two
    except (OSError, ValueError, EOFError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CellbookError(f"{file} cannot be read as CSV ({reason}): truncated or damaged; fetch it again") from error
    if table.empty:
        raise CellbookError(f"{file} has no rows; fetch it again")
    return table


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
    """Refuse a table that lacks one of `columns` or has empty cells there; make names of plates and compounds text."""
    for column in columns:
        if column not in table.columns:
            near = difflib.get_close_matches(column.lower(), [str(c).lower() for c in table.columns], n=1)
            found = [c for c in table.columns if near and str(c).lower() == near[0] and c not in columns]
            mend = f"rename {found[0]!r} to {column!r}" if found else f"its columns are {some(table.columns, 8)}"
            raise CellbookError(f"{where} ({len(table)} rows) has no column {column!r}; {mend}")
        empty = table[column].isna().sum()
        if empty:
            raise CellbookError(f"column {column!r} of {where} is empty in {empty} of {len(table)} rows; fill them in")
        if "plate" in column.lower() or "well" in column.lower() or column.lower().endswith("compound"):
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
