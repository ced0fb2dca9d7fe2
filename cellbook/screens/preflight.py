"""What a reader's own screen lacks, said before anything runs, with what each lack rules out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.profiles import labels

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


def preflight(
    table: pd.DataFrame,
    *,
    images: np.ndarray | None = None,
    files: Sequence[str] = (),
    folder: str | Path | None = None,
    channels: Sequence[str] = (),
    plates: Iterable[str] | None = None,
    controls: str = "DMSO",
    joined: Sequence[str] = (),
) -> list[Finding]:
    """Check a screen's table, and its images if given, and say what each lack rules out.

    Parameters
    ----------
    table
        One row a cell or field, with the standard names (see `names.standard_names`).
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
    joined
        What was joined when the table was read: each becomes a warning.

    Returns
    -------
    list of Finding
        Errors first, then warnings, then what is in order.
    """
    found = [*_images(table, images, channels), *_files(table, files, folder), *_labels(table)]
    found += [Finding("warning", "labels", note) for note in joined]
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
    try:
        labels.check(table)
    except CellbookError as error:
        yield Finding("error", "labels", str(error))


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
