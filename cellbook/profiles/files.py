"""Read and write profile tables as Parquet or CSV."""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from pathlib import Path

import pandas as pd

from cellbook.errors import CellbookError
from cellbook.files import write_atomically
from cellbook.profiles.table import NUMBER_COLUMNS, TEXT_COLUMNS, features, matrix, metadata, misnamed

SUFFIXES = (".parquet", ".csv", ".csv.gz")
# What pandas takes for a missing number; in text columns only the empty cell is missing, as "NA" may be a compound.
MISSING_NUMBERS = ["", "NA", "N/A", "NaN", "nan", "-nan", "-NaN", "NULL", "null", "None", "<NA>", "n/a", "#N/A"]


def read_profiles(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a profile table from Parquet, CSV or gzipped CSV, chosen by suffix.

    Plates, wells, batches, compounds and MOAs come back as text, concentrations as float, features as numbers.

    Raises
    ------
    CellbookError
        If the file is missing, unreadable or cut short, has an unknown suffix, no rows, no features, a feature that is
        not numeric, or a column that looks like misnamed metadata.
    """
    path = Path(path)
    suffix = _suffix(path)
    if not path.is_file():
        raise CellbookError(f"there is no file {path}; give the path of a profile table ({', '.join(SUFFIXES)})")
    try:
        df = pd.read_parquet(path) if suffix == ".parquet" else _read_csv(path, suffix)
    except CellbookError:
        raise
    # pyarrow's and pandas' errors for broken files are ValueErrors or OSErrors; a cut gzip stream raises the other two.
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise CellbookError(
            f"cannot read {path}: not a complete {suffix} file ({_first_line(error)}); write or copy it again"
        ) from error
    try:
        return _typed(df)
    except CellbookError as error:
        raise CellbookError(f"{path}: {error}") from error


def write_profiles(df: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a profile table to Parquet, CSV or gzipped CSV, chosen by suffix: metadata first, no index.

    The file appears complete or not at all. Floats are written with all their digits.

    Raises
    ------
    CellbookError
        If a feature is not numeric, or if the file cannot be written.
    """
    path = Path(path)
    suffix = _suffix(path)
    matrix(df)
    df = df[metadata(df) + features(df)]
    if not path.parent.is_dir():
        raise CellbookError(f"cannot write {path}: there is no folder {path.parent}; make it or choose another one")

    def write(part: Path) -> None:
        if suffix == ".parquet":
            df.to_parquet(part, index=False)
        elif suffix == ".csv":
            df.to_csv(part, index=False, lineterminator="\n")
        else:  # neither time nor name in the header: equal tables give equal files
            part.write_bytes(gzip.compress(df.to_csv(index=False, lineterminator="\n").encode(), mtime=0))

    write_atomically(path, write)


def _suffix(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    raise CellbookError(f"{path} has an unknown suffix; a profile table ends with one of {', '.join(SUFFIXES)}")


def _read_csv(path: Path, suffix: str) -> pd.DataFrame:
    data = path.read_bytes()
    if suffix == ".csv.gz":
        data = gzip.decompress(data)
    try:
        first = data.split(b"\n", 1)[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CellbookError(f"{path} is not text in UTF-8; save it as CSV with UTF-8 encoding") from error
    header = next(csv.reader([first]), [])
    separator = next((c for c in (";", "\t") if len(header) == 1 and c in first), None)
    if separator:
        raise CellbookError(
            f"{path} has {separator!r} between its columns; save it with commas between columns and a point in numbers"
        )
    _check_header(header, path)
    # pandas fills a row that was cut short with NaN, so a truncated file has to be noticed here.
    last = data[data.rstrip(b"\n").rfind(b"\n") + 1 :]
    if not last.endswith(b"\n") and len(next(csv.reader([last.decode()]), [])) < len(header):
        raise ValueError("its last line is cut short")
    text = {c for c in header if c.lower() in {t.lower() for t in TEXT_COLUMNS}}
    return pd.read_csv(
        io.BytesIO(data),
        index_col=False,
        dtype=dict.fromkeys(text, str),
        keep_default_na=False,
        na_values={c: [""] if c in text else MISSING_NUMBERS for c in header},
        encoding="utf-8-sig",
        low_memory=False,
    )


def _check_header(header: list[str], path: Path) -> None:
    nameless = [i for i, name in enumerate(header, 1) if not name.strip() or name.startswith("Unnamed:")]
    if nameless:
        raise CellbookError(
            f"{path}: column {nameless[0]} of {len(header)} has no name, as when a table is saved with its row index; "
            "save it without one (index=False) or name the column"
        )
    twice = sorted({c for c in header if header.count(c) > 1}) if len(set(header)) < len(header) else []
    if twice:
        raise CellbookError(f"{path}: column {twice[0]!r} occurs {header.count(twice[0])} times; rename or drop a copy")


def _typed(df: pd.DataFrame) -> pd.DataFrame:
    hidden = [str(name) for name in df.index.names if str(name).startswith("Metadata_")]
    if hidden:
        raise CellbookError(
            f"{', '.join(hidden)} is in the table's index and not a column; call reset_index() and save"
        )
    names = features(df)
    # A plate number under another name would be taken for a feature.
    wrong = misnamed(names)
    if wrong:
        pairs = ", ".join(f"{old!r} to {new!r}" for old, new in wrong.items())
        raise CellbookError(f"{len(wrong)} columns look like metadata under another name; rename {pairs}")
    if df.empty:
        raise CellbookError(f"the table has {df.shape[1]} columns but no rows")
    matrix(df)
    text = {c: _as_text(df[c]) for c in TEXT_COLUMNS if c in df}
    numbers = {c: pd.to_numeric(df[c], errors="coerce") for c in NUMBER_COLUMNS if c in df}
    for name, column in numbers.items():
        bad = df.loc[column.isna() & df[name].notna(), name]
        if len(bad):
            raise CellbookError(
                f"{name} is not a number in {len(bad)} of {len(df)} rows (first: {str(bad.iloc[0])!r}); "
                f"write the bare number{', in micromolar' if name == 'Metadata_concentration' else ''}"
            )
    if "Metadata_concentration" in numbers:
        numbers["Metadata_concentration"] = numbers["Metadata_concentration"].astype("float64")
    return df.assign(**text, **numbers)


def _as_text(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.StringDtype):
        return column
    # convert_dtypes turns 27481.0, a plate number beside a missing one, back into 27481.
    return column.convert_dtypes().map(str, na_action="ignore").astype("str" if column.notna().all() else object)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
