"""Read any table that somebody else wrote, and read and write profile tables, as Parquet or CSV."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cellbook.errors import CellbookError, some
from cellbook.files import write_atomically
from cellbook.profiles import labels
from cellbook.profiles.names import BOOKKEEPING, NUMBER_COLUMNS, TEXT_COLUMNS, left_out, simplify, standard_names
from cellbook.profiles.table import as_numbers, features, matrix, metadata

SUFFIXES = (".parquet", ".csv", ".csv.gz")
READABLE = (*SUFFIXES, ".tsv", ".tsv.gz")
# Text that means an empty cell, in any case and in every column.
_NO_VALUE = """na n/a n.a. n.a n/d #n/a #na <na> nan -nan none null nat 1.#ind -1.#ind 1.#qnan missing undefined (blank)
#ref! #name? #value! #div/0! #num! #null! - -- \u2013 \u2014 ? ."""
MISSING = frozenset(("", "not available", *_NO_VALUE.split()))
_TEXT = frozenset(map(simplify, TEXT_COLUMNS))
_BOM = (b"\xff\xfe", b"\xfe\xff")

log = logging.getLogger(__name__)


def read_table(path: str | os.PathLike[str], text: Collection[str] = ()) -> pd.DataFrame:
    """Read a table with named columns: Parquet, or CSV with commas or tabs, gzipped or not.

    Every command reads its tables by this function, so that they all understand a file alike. Text that means missing
    ("", "NA", "nan", "None", "null" ... in any case) is missing in every column, and empty rows are left out. Plates,
    wells, batches, compounds and MOAs come back as text without change (a plate 27481 beside a missing one is not
    27481.0); columns of nothing but numbers as numbers.

    Parameters
    ----------
    text : more columns that are text whatever they look like.

    Raises
    ------
    CellbookError : if the file is missing, unreadable or cut short, of another kind, has no rows, a column name twice,
        rows of other lengths than the header, or labels in a saved index.
    """
    path = Path(path)
    if path.is_dir():
        raise CellbookError(f"{path} is a folder; give one file (a folder of Parquet files: read and save it as one)")
    if not path.name.lower().endswith(READABLE):
        raise CellbookError(f"{path} has an unknown suffix; a profile table ends with one of {', '.join(READABLE)}")
    if not path.is_file():
        raise CellbookError(f"there is no file {path}; give the path of a table ({', '.join(READABLE)})")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        if data[:4] == b"PAR1" or path.name.lower().endswith(".parquet"):
            df = _without_index(pd.read_parquet(io.BytesIO(data)))
        else:
            df = _parse(_decode(data), "\t" if ".tsv" in path.name.lower() else ",", text)
    except CellbookError as error:
        raise CellbookError(f"{path} {error}") from error
    except Exception as error:  # pandas and pyarrow raise a dozen kinds for a damaged file
        reason = _first_line(error).removeprefix("Error tokenizing data. C error: ")
        raise CellbookError(
            f"cannot read {path}: not a complete {_suffix(path)} file ({reason}); write or copy it again"
        ) from error
    changed = {c: _clean(df[c], simplify(c) in _TEXT or c in text, path) for c in df}
    df = pd.DataFrame(changed, index=df.index).dropna(how="all").reset_index(drop=True)
    if df.empty:
        raise CellbookError(f"{path}: the table has {df.shape[1]} columns but no rows; give one row an object")
    return df


def read_profiles(
    path: str | os.PathLike[str], feature: Sequence[str] = (), notes: list[str] | None = None
) -> pd.DataFrame:
    """Read a profile table; see `read_table`.

    Labels under another name (`Metadata_Plate`, `compound`) get their standard name. Columns that count rows or that
    name or place an object are no features; the latter are kept as metadata. Doses and forms of wells that mean the
    same are joined (`labels.join`).

    Parameters
    ----------
    feature : names or patterns of columns that are features although they look like bookkeeping.
    notes : gets what was taken for features and why what was left out, then what was renamed and joined; logged without
        it.

    Raises
    ------
    CellbookError : as `read_table`; if there is no feature, one is not numeric, a label is not what it must be, or
        labels contradict each other (`labels.check`).
    """
    df = read_table(path)
    try:
        renamed = standard_names(df.columns)
        df, said = _features_alone(df.rename(columns=renamed), feature)
        df, joined = labels.join(_typed(df))
        labels.check(df)
    except CellbookError as error:
        raise CellbookError(f"{path}: {error}") from error
    pairs = [f"{old} read as {new}" for old, new in renamed.items()]
    said += [*([", ".join(pairs)] if pairs else []), *joined]
    if notes is None:
        for note in said[0 if "left out" in said[0] else 1 :]:
            log.warning("%s: %s", path, note)
    else:
        notes += said
    return df


def write_profiles(df: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a profile table to Parquet, CSV or gzipped CSV, chosen by suffix: metadata first, no index.

    The file appears complete or not at all. Floats are written with all their digits.

    Raises
    ------
    CellbookError : if a feature is not numeric, or if the file cannot be written.
    """
    path = Path(path)
    suffix = _suffix(path)
    matrix(df)
    df = df[metadata(df) + features(df)]
    check_place(path)

    def write(part: Path) -> None:
        if suffix == ".parquet":
            df.to_parquet(part, index=False)
        elif suffix == ".csv":
            df.to_csv(part, index=False, lineterminator="\n")
        else:  # neither time nor name in the header: equal tables give equal files
            part.write_bytes(gzip.compress(df.to_csv(index=False, lineterminator="\n").encode(), mtime=0))

    write_atomically(path, write)


def check_place(path: Path) -> None:
    """Refuse a place where no profile table can be written, which is known before anything is computed."""
    if _suffix(path) not in SUFFIXES:
        raise CellbookError(f"{path} has an unknown suffix; a profile table ends with one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise CellbookError(f"cannot write {path}: there is no folder {path.parent}; make it or choose another one")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise CellbookError(f"cannot write {path}: it is a folder, or its folder is read-only; choose another place")


def _suffix(path: Path) -> str:
    return next((s for s in READABLE if path.name.lower().endswith(s)), path.suffix)


def _decode(data: bytes) -> str:
    if data[:2] == b"PK":
        raise CellbookError("is an Excel workbook or a zip archive; save the sheet as CSV (UTF-8)")
    try:
        text = data.decode("utf-16" if data[:2] in _BOM else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CellbookError(
            f"is not text in UTF-8 (first in line {line}); save it as CSV with UTF-8 encoding"
        ) from error
    if "\0" in text:
        raise CellbookError("holds bytes of zero, so it is no text; save it as CSV with UTF-8 encoding")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse(text: str, separator: str, names: Collection[str]) -> pd.DataFrame:
    told = re.match(r'"?sep=(.)"?\n', text)  # as Excel writes in a first line
    if told:
        separator, text = told[1], text[told.end() :]
    if not text.strip():
        raise CellbookError("is empty: it has not even names of columns; write or copy it again")
    options: dict[str, Any] = {"sep": separator, "keep_default_na": False, "low_memory": False}
    first = pd.read_csv(io.StringIO(text), header=None, nrows=1, dtype=str, **options)
    header = [str(name).strip() for name in first.iloc[0]]
    line = text.lstrip().partition("\n")[0]  # a name of a column may hold a comma as well
    other = next((c for c in (";", "\t", ",", "|") if line.count(c) > line.count(separator)), None)
    if other or separator == ";":
        shown = "tabs" if other == "\t" else repr(other or separator)
        raise CellbookError(f"has {shown} between its columns; save it with commas there and a point in numbers")
    _check_unique(header)
    header = [name or f"(column {i})" for i, name in enumerate(header, 1)]
    kinds = {c: str for c in header if simplify(c) in _TEXT or c in names}
    usual = sorted({way for word in MISSING for way in (word, word.upper(), word.title(), "NaN")})
    missing = {c: [""] if c in kinds else usual for c in header}
    options |= {"names": header, "header": 0, "dtype": kinds, "na_values": missing, "index_col": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header would lose cells
        try:
            df: pd.DataFrame = pd.read_csv(io.StringIO(text), **options)
        except pd.errors.ParserWarning as warning:
            raise CellbookError(
                f"has {len(header)} columns in its first line ({', '.join(header)[:60]!r}), but more cells in its "
                "rows; give each column a name there, row names too, and take out a comment"
            ) from warning
    if len(df) and df.iloc[:, -1].isna().any():
        _check_lengths(text, separator, len(header))
    return df


def _check_lengths(text: str, separator: str, width: int) -> None:
    """Find rows with fewer cells than the header: pandas fills them with missing values without a word."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    short = [(rows.line_num, len(row)) for row in rows if row and len(row) < width]
    if short:
        raise ValueError(
            f"{len(short)} rows are cut short, first line {short[0][0]} with {short[0][1]} cells where the first line "
            f"has {width}"
        )


def _check_unique(header: list[str]) -> None:
    if twice := [c for c, n in Counter(header).items() if c and n > 1]:
        raise CellbookError(
            f"has {len(twice)} names of columns more than once: {twice[0]!r} occurs {header.count(twice[0])} times; "
            "rename or drop a copy, and of two header rows make one (Cells_Area)"
        )


def _without_index(df: pd.DataFrame) -> pd.DataFrame:
    if df.columns.nlevels > 1:
        raise CellbookError("has two header rows; join them into one name a column (Cells_Area) and save it again")
    df.columns = [str(c) for c in df.columns]
    _check_unique(list(df.columns))
    standard = {simplify(c) for c in (*TEXT_COLUMNS, *NUMBER_COLUMNS)}
    if hidden := [str(name) for name in df.index.names if name is not None and simplify(name) in standard]:
        raise CellbookError(f"has {', '.join(hidden)} in its index and not as columns; call reset_index() and save it")
    return df.reset_index(drop=True)


def _clean(column: pd.Series, text: bool, path: Path) -> pd.Series:
    """Make text that means missing missing, labels text, and columns of nothing but numbers numbers."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype if column.notna().all() else object)
    if not (column.dtype == object or isinstance(column.dtype, pd.StringDtype)):
        return _as_text(column) if text else column
    if column.map(pd.api.types.is_list_like).any():
        raise CellbookError(f"{path} holds lists in column {column.name!r}; write one value a cell")
    if column.dtype == object:
        column = column.map(lambda v: v.decode("utf-8", "replace") if isinstance(v, bytes) else v)
    words = column.map(lambda v: isinstance(v, str) and v.strip().lower() in MISSING, na_action="ignore")
    column = column.mask(words.eq(True).to_numpy(bool, na_value=False))
    if text:
        return _as_text(column)
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().equals(column.notna()) else column


def _as_text(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.StringDtype):
        return column
    # convert_dtypes turns 27481.0, a plate number beside a missing one, back into 27481.
    return column.convert_dtypes().map(str, na_action="ignore").astype("str" if column.notna().all() else object)


def _features_alone(df: pd.DataFrame, feature: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table with what is no feature as metadata, or gone; and a sentence on what is a feature."""
    described = set(metadata(df))
    names = [c for c in df.columns if c not in described]
    out = left_out(df, names, feature)
    place = {c: f"Metadata_{c}" for c, why in out.items() if why == BOOKKEEPING and f"Metadata_{c}" not in df}
    kept = [c for c in names if c not in out]
    said = f"features: {len(kept)} of {df.shape[1]} columns ({some(kept)})"
    for why in dict.fromkeys(out.values()):
        columns = [c for c in out if out[c] == why]
        said += f"; left out {len(columns)} {why} ({some(columns)})"
    said += "; feature=NAME takes one back" if out else ""
    if names and not kept:
        raise CellbookError(f"the table has no feature. {said}")
    return df.drop(columns=[c for c in out if c not in place]).rename(columns=place), [said]


def _typed(df: pd.DataFrame) -> pd.DataFrame:
    matrix(df)  # refuses features that are not numbers
    numbers = {c: as_numbers(df[c]) for c in NUMBER_COLUMNS if c in df}
    if "Metadata_concentration" in numbers:
        numbers["Metadata_concentration"] = numbers["Metadata_concentration"].astype("float64")
    return df.assign(**numbers)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].strip() if lines else type(error).__name__
