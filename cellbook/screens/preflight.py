"""What a reader's own screen lacks, said before anything runs, with what each lack rules out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError

LABELS = ("plate", "well", "batch", "compound", "concentration", "moa", "replicate", "site", "field")
# What cannot be computed without a column.
DISABLES = {
    "plate": "scaling and illumination correction by plate, and grouped folds in the batch classification",
    "well": "well profiles, and with them every protocol that starts from wells",
    "batch": "NSCB, the week accuracy, CORAL, WDN, the adversary and batch leakage",
    "compound": "treatment profiles, NSC and NSCB, activity, and every correction fitted on controls",
    "concentration": "doses: a compound's wells all become one treatment",
    "moa": "NSC, NSCB and the retrieval of mechanisms; activity and batch leakage remain",
}
NEEDS_CONTROLS = "whitening, TVN, CORAL, WDN, scaling by plate, activity and batch leakage"


@dataclass(frozen=True)
class Finding:
    """One line of a preflight: "ok", "warning" (something is ruled out) or "error" (nothing can run)."""

    level: str
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.subject}: {self.message}"


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV (also compressed) or Parquet table; names such as plates and wells stay text.

    Raises
    ------
    CellbookError
        If the file is missing, of another kind, damaged or empty.
    """
    path = Path(path)
    if not path.is_file():
        raise CellbookError(f"table={path} does not exist; give a CSV or Parquet file with one row a cell or field")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        elif ".csv" in path.suffixes:
            header = pd.read_csv(path, nrows=0).columns
            text = ("plate", "well", "batch", "compound", "moa", "field")
            kinds = {c: str for c in header if _plain(c) in text}
            # Only an empty cell is missing: "NA" and "None" could be names.
            table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""], low_memory=False)
        else:
            raise CellbookError(f"table={path} has suffix {path.suffix!r}; use .csv, .csv.gz or .parquet")
    except CellbookError:
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds for a damaged file
        raise CellbookError(f"table={path} cannot be read: {error}; export it again") from error
    if table.empty:
        raise CellbookError(f"table={path} has no rows; give one row a cell or field")
    return table


def _plain(name: object) -> str:
    return re.sub(r"[^a-z]", "", str(name).lower().removeprefix("metadata_"))


def standard_names(table: pd.DataFrame, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Rename a reader's columns to the project's.

    Parameters
    ----------
    table
        Any table.
    columns
        Own name -> standard name (``{"Drug": "compound"}``). Columns named like a label in any case, with or without
        ``Metadata_``, need no entry.

    Raises
    ------
    CellbookError
        If a named column is missing, a standard name is unknown, or two columns claim one name.
    """
    columns = dict(columns or {})
    if missing := [name for name in columns if name not in table]:
        raise CellbookError(
            f"columns names {', '.join(missing)}, which the table lacks; it has {', '.join(map(str, table.columns))}"
        )
    rename = {}
    for own, standard in columns.items():
        if _plain(standard) not in LABELS:
            raise CellbookError(f"columns maps {own!r} to {standard!r}; use one of {', '.join(LABELS)}")
        rename[own] = f"Metadata_{_plain(standard)}"
    for column in table:
        target = f"Metadata_{_plain(column)}"
        if column not in rename and _plain(column) in LABELS and target not in rename.values():
            rename[column] = target
    renamed = table.rename(columns=rename)
    doubled = renamed.columns[renamed.columns.duplicated()]
    if len(doubled):
        raise CellbookError(f"two columns of the table mean {doubled[0]}; drop one, or say which by columns")
    return renamed


def preflight(
    table: pd.DataFrame,
    *,
    images: np.ndarray | None = None,
    files: Sequence[str] = (),
    folder: str | Path | None = None,
    channels: Sequence[str] = (),
    plates: Iterable[str] | None = None,
    controls: str = "DMSO",
) -> list[Finding]:
    """Check a screen's table, and its images if given, and say what each lack rules out.

    Parameters
    ----------
    table
        One row a cell or field, with the standard names (see `standard_names`).
    images
        (N, C, H, W) crops, one for each row.
    files, folder
        Columns that name image files, and the folder they lie in.
    channels
        Names of the channels, DNA first.
    plates
        Plates that exist; others in the table are errors.
    controls
        Compound name of the negative control.

    Returns
    -------
    list of Finding
        Errors first, then warnings, then what is in order.
    """
    found = [*_images(table, images, channels), *_files(table, files, folder), *_labels(table)]
    found += [*_design(table, plates), *_controls(table, controls), *_mechanisms(table, controls)]
    found += _counts(table, fields=bool(files))
    return sorted(found, key=lambda finding: ("error", "warning", "ok").index(finding.level))


def _images(table: pd.DataFrame, images: np.ndarray | None, channels: Sequence[str]) -> Iterable[Finding]:
    if images is None:
        return
    if images.ndim != 4:
        yield Finding("error", "images", f"shape {images.shape}; (N, C, H, W) is needed, one crop a row")
        return
    if len(images) != len(table):
        yield Finding("error", "images", f"{len(images)} crops for {len(table)} rows of the table; they must agree")
    if images.dtype.name not in ("uint8", "uint16"):
        mend = "scale to 0..65535 and convert to uint16" if images.dtype.kind == "f" else "convert to uint16"
        yield Finding("error", "images", f"type {images.dtype}; uint8 or uint16 is needed: {mend}")
    if channels and images.shape[1] != len(channels):
        last = images.shape[3] == len(channels)
        mend = "channels come last here, transpose to (N, C, H, W)" if last else "name each of them once"
        yield Finding("error", "channels", f"{len(channels)} names for {images.shape[1]} channels: {mend}")
    elif images.shape[1] == 1:
        yield Finding("warning", "channels", "one channel only: rules out cell bodies and correlations of channels")


def _files(table: pd.DataFrame, files: Sequence[str], folder: str | Path | None) -> Iterable[Finding]:
    for column in files:
        if column not in table:
            yield Finding("error", column, "no such column; it must name the image file of each field")
            continue
        absent = table[column].isna()
        if absent.any():
            yield Finding("warning", column, f"{int(absent.sum())} of {len(table)} fields name no file and will fail")
        if folder is not None:
            names = table.loc[~absent, column].astype(str)
            missing = [name for name in names.unique() if not (Path(folder) / name).is_file()]
            if missing:
                level = "error" if len(missing) == names.nunique() else "warning"
                text = f"{len(missing)} of {names.nunique()} files are not in {folder}, first {missing[0]}"
                yield Finding(level, column, text)


def _labels(table: pd.DataFrame) -> Iterable[Finding]:
    for label, consequence in DISABLES.items():
        column = f"Metadata_{label}"
        if column not in table:
            yield Finding("warning", column, f"missing: rules out {consequence}")
        elif label != "moa" and (empty := int(table[column].isna().sum())):
            yield Finding("warning", column, f"empty in {empty} of {len(table)} rows; those rows drop out of profiles")
    if "Metadata_concentration" in table:
        column = table["Metadata_concentration"]
        numbers = pd.to_numeric(column, errors="coerce")
        text = column[numbers.isna() & column.notna()]
        if len(text):
            shown = ", ".join(repr(str(value)) for value in text.unique()[:3])
            mend = "write plain numbers in micromolar, 0 for controls"
            yield Finding(
                "error", "Metadata_concentration", f"{len(text)} of {len(table)} rows hold text ({shown}): {mend}"
            )
        elif (numbers < 0).any():
            yield Finding("error", "Metadata_concentration", f"{int((numbers < 0).sum())} rows are negative: mend them")
    if "Metadata_well" in table:
        wells = table["Metadata_well"].dropna().astype(str)
        single = wells.str.fullmatch(r"[A-Za-z]{1,2}[1-9]")
        if single.any() and wells.str.fullmatch(r"[A-Za-z]{1,2}0[1-9]").any():
            yield Finding("error", "Metadata_well", "both forms of a name, like B2 and B02, occur: use one")


def _design(table: pd.DataFrame, plates: Iterable[str] | None) -> Iterable[Finding]:
    if "Metadata_plate" not in table:
        return
    if plates is not None:
        unknown = table.loc[~table["Metadata_plate"].astype(str).isin(set(map(str, plates))), "Metadata_plate"]
        if len(unknown):
            names = ", ".join(map(str, unknown.unique()[:3]))
            yield Finding(
                "error", "Metadata_plate", f"{len(unknown)} rows are on unknown plates ({names}): mend the names"
            )
    if "Metadata_well" not in table:
        return
    keys = ["Metadata_plate", "Metadata_well"]
    treatment = [c for c in ("Metadata_compound", "Metadata_concentration") if c in table]
    if treatment:
        per_well = table[keys + treatment].drop_duplicates().dropna(subset=keys).groupby(keys).size()
        if (per_well > 1).any():
            plate, well = per_well.index[per_well > 1][0]
            text = f"{int((per_well > 1).sum())} wells hold two treatments, first {plate} {well}: a well has one"
            yield Finding("error", "Metadata_well", text)
    if "Metadata_batch" in table:
        per_plate = table.groupby("Metadata_plate")["Metadata_batch"].nunique()
        if (per_plate > 1).any():
            name = per_plate.index[per_plate > 1][0]
            yield Finding("error", "Metadata_batch", f"plate {name} lies in {per_plate[name]} batches: a plate has one")
        if len(table["Metadata_batch"].dropna().unique()) == 1:
            yield Finding("warning", "Metadata_batch", f"one batch only: rules out {DISABLES['batch']}")


def _controls(table: pd.DataFrame, controls: str) -> Iterable[Finding]:
    if "Metadata_compound" not in table:
        return
    control = table["Metadata_compound"] == controls
    if not control.any():
        near = table["Metadata_compound"].dropna().astype(str)
        alike = near[near.str.lower().str.strip() == controls.lower()].unique()
        hint = f"; is {alike[0]!r} meant? Rename it" if len(alike) else "; pass controls= if it has another name"
        yield Finding("warning", "controls", f"no row has compound {controls!r}: rules out {NEEDS_CONTROLS}{hint}")
    elif "Metadata_plate" in table:
        without = sorted(set(table["Metadata_plate"].dropna()) - set(table.loc[control, "Metadata_plate"].dropna()))
        if without:
            text = (
                f"{len(without)} of {table['Metadata_plate'].nunique()} plates hold no {controls}, first {without[0]}"
            )
            yield Finding("warning", "controls", f"{text}: rules out scaling by plate")


def _mechanisms(table: pd.DataFrame, controls: str) -> Iterable[Finding]:
    if not {"Metadata_moa", "Metadata_compound"} <= set(table):
        return
    treated = table[table["Metadata_compound"] != controls]
    unlabelled = treated["Metadata_moa"].isna()
    if unlabelled.any():
        yield Finding("warning", "Metadata_moa", f"{int(unlabelled.sum())} treated rows have none; they are not scored")
    if treated.dropna(subset=["Metadata_moa"]).groupby("Metadata_compound")["Metadata_moa"].nunique().gt(1).any():
        yield Finding("warning", "Metadata_moa", "a compound carries different mechanisms at different doses")
    compounds = treated.groupby("Metadata_moa")["Metadata_compound"].nunique()
    alone = compounds.index[compounds == 1]
    if len(alone):
        text = f"{len(alone)} of {len(compounds)} have one compound only, first {alone[0]}: NSC cannot score those"
        yield Finding("warning", "Metadata_moa", text)


def _counts(table: pd.DataFrame, fields: bool) -> Iterable[Finding]:
    yield Finding("ok", "table", f"{len(table)} {'fields' if fields else 'cells'}")
    for label in ("batch", "plate", "compound", "moa"):
        if (column := f"Metadata_{label}") in table:
            yield Finding("ok", column, f"{table[column].nunique()} different")
    if {"Metadata_plate", "Metadata_well"} <= set(table):
        yield Finding(
            "ok", "Metadata_well", f"{len(table[['Metadata_plate', 'Metadata_well']].drop_duplicates())} wells"
        )


def usable_rows(table: pd.DataFrame, controls: str = "DMSO", *, batches: int = 1) -> np.ndarray:
    """Rows of cells that a page can train on and score, (rows,) bool: all but treated ones without a mechanism.

    Parameters
    ----------
    table : one row a cell
    controls : compound of the control rows
    batches : how many batches the page needs

    Raises
    ------
    CellbookError
        If nothing could be scored, or no correction fitted: known from the table, before anything is trained.
    """
    needed = ("plate", "well", "batch", "compound", "concentration", "moa")
    if missing := [f"Metadata_{name}" for name in needed if f"Metadata_{name}" not in table]:
        raise CellbookError(f"the {len(table)} cells have no column {', '.join(missing)}, so nothing can be scored")
    control = (table["Metadata_compound"] == controls).to_numpy()
    wells = len(table.loc[control, ["Metadata_plate", "Metadata_well"]].drop_duplicates())
    if wells < 2:
        raise CellbookError(
            f"{wells} wells hold {controls}, the control, and two at least are needed: name your control {controls}"
        )
    if (found := table["Metadata_batch"].nunique()) < batches:
        raise CellbookError(
            f"Metadata_batch has {found} values, and {batches} at least are needed here: it names the week, run or site"
        )
    usable = control | table["Metadata_moa"].notna().to_numpy()
    compounds = table[usable & ~control]
    if "Metadata_role" in table:
        compounds = compounds[compounds["Metadata_role"] != "positive control"]
    per_mechanism = compounds.groupby("Metadata_moa")["Metadata_compound"].nunique()
    if len(per_mechanism) < 2 or not (per_mechanism > 1).any():
        raise CellbookError(
            f"{len(per_mechanism)} mechanisms are in Metadata_moa, {int((per_mechanism > 1).sum())} of them with two "
            "compounds; two are needed, one of them with two compounds, so that treatments can be matched rightly and "
            f"wrongly: {int((~usable).sum())} of {len(table)} cells have none"
        )
    return usable
