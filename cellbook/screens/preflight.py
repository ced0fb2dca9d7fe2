"""What a reader's own screen lacks, said before anything runs, with what each lack rules out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.profiles import labels
from cellbook.profiles.aggregate import WELL
from cellbook.profiles.names import simplify
from cellbook.screens.crops import Settings
from cellbook.screens.listed import check_files

# What cannot be computed without a column.
DISABLES = {
    "plate": "scaling and illumination correction by plate, and grouped folds in the batch classification",
    "well": "well profiles (features --level well), and with them every protocol that starts from wells",
    "batch": "NSCB, the week accuracy, CORAL, WDN, the adversary and batch leakage",
    "compound": "treatment profiles, NSC and NSCB, activity, and every correction fitted on controls",
    "concentration": "doses: a compound's wells all become one treatment",
    "moa": "NSC, NSCB and the retrieval of mechanisms; activity and batch leakage remain",
}
SCORE_NEEDS = ("batch", "compound", "moa")
NUMBERS = ("concentration", "replicate", "cell_count")
SMALLEST = 16  # pixels; features are not measured in smaller crops
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
    settings: Settings | None = None,
    joined: Sequence[str] = (),
) -> list[Finding]:
    """Check a screen's table, and its images if given, and say what each lack rules out.

    What has no error can be imported and measured; what also has no warning can be scored.

    Parameters
    ----------
    table : one row a cell or field, with the standard names (see `names.standard_names`).
    images : (N, C, H, W) crops, one for each row.
    files, folder : columns that name image files, and the folder they lie in.
    channels : names of the channels, DNA first.
    plates : plates that exist; others in the table are errors.
    controls : compound name of the negative control.
    settings : how fields will be cut: their files are then opened too, see `listed.check_files`.
    joined : what was joined when the table was read: each becomes a warning.

    Returns
    -------
    list of Finding
        Errors first, then warnings, then what is in order.
    """
    found = [*_images(table, images, channels), *_labels(table), *_numbers(table)]
    if folder is not None:
        found += [Finding(*said) for said in check_files(table, files, folder, settings)]
    found += [Finding("warning", "labels", note) for note in joined]
    found += [*_names(table), *_design(table, plates), *_controls(table, controls), *_mechanisms(table, controls)]
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
    elif min(images.shape[2:]) < SMALLEST:
        text = f"crops of {images.shape[2]} x {images.shape[3]} pixels: rules out features, which need {SMALLEST}"
        yield Finding("error" if min(images.shape[2:]) < 1 else "warning", "images", text)
    elif images.shape[1] == 1:
        yield Finding("warning", "channels", "one channel only: rules out cell bodies and correlations of channels")


def _labels(table: pd.DataFrame) -> Iterable[Finding]:
    for label, consequence in DISABLES.items():
        column = f"Metadata_{label}"
        if column not in table:
            alike = [str(name) for name in table if re.sub(r"\d+$", "", simplify(name)) == label]
            hint = f"; if {alike[0]} is meant, say --column {alike[0]}={label}" if alike else ""
            more = ", and every score" if label in SCORE_NEEDS else ""
            yield Finding("warning", column, f"missing: rules out {consequence}{more}{hint}")
        elif empty := int(table[column].isna().sum()):
            text = f"empty in {empty} of {len(table)} rows"
            if label == "concentration":
                yield Finding("warning", column, f"{text}; they count as one dose, 0")
            elif label != "moa":
                yield Finding("error", column, f"{text}: fill it in, or leave these rows out")


def _numbers(table: pd.DataFrame) -> Iterable[Finding]:
    for column in (f"Metadata_{label}" for label in NUMBERS):
        if column not in table:
            continue
        mend = "write plain numbers" + (" in micromolar, 0 for controls" if "concentration" in column else "")
        numbers = pd.to_numeric(table[column], errors="coerce")
        text = table.loc[numbers.isna() & table[column].notna(), column]
        if len(text):
            shown = ", ".join(repr(str(value)) for value in text.unique()[:3])
            yield Finding("error", column, f"{len(text)} of {len(table)} rows hold text ({shown}): {mend}")
        elif (numbers < 0).any():
            yield Finding("error", column, f"{int((numbers < 0).sum())} rows are negative: mend them")
        elif np.isinf(numbers).any():
            yield Finding("error", column, f"{int(np.isinf(numbers).sum())} of {len(table)} rows are infinite: {mend}")


def _names(table: pd.DataFrame) -> Iterable[Finding]:
    """Names that contradict each other, or that would be taken for several."""
    try:
        labels.check(table)
    except CellbookError as error:
        yield Finding("error", "labels", str(error))
    if "Metadata_batch" in table and table["Metadata_batch"].dropna().astype(str).str.contains("|", regex=False).any():
        yield Finding("error", "Metadata_batch", "a name holds '|', which joins several batches: rename it")


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
    for what, columns in (("mechanisms", ["Metadata_moa"]), ("batches", ["Metadata_batch"])):
        if not set(columns) <= set(table):
            continue
        per_well = table[WELL + columns].drop_duplicates().dropna(subset=WELL).groupby(WELL).size()
        if (per_well > 1).any():
            plate, well = per_well.index[per_well > 1][0]
            text = f"{int((per_well > 1).sum())} wells hold two {what}, first {plate} {well}: a well has one"
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
    for column in ("Metadata_compound", "Metadata_moa"):
        text = table[column].dropna().astype(str) if column in table else pd.Series(dtype=str)
        alike = text[labels.like_controls(text, controls)]
        if len(alike):
            said = f"{alike.iloc[0]!r} in {len(alike)} of {len(table)} rows looks like the controls {controls!r}"
            yield Finding("error", column, f"{said}: rename it, or say --controls")
    control = table["Metadata_compound"] == controls
    if control.all():
        yield Finding("warning", "controls", f"all {len(table)} rows are {controls}: rules out every score")
    elif not control.any():
        hint = "; say --controls if it has another name"
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
        mend = "every score is ruled out" if unlabelled.all() else "score leaves them out with --drop-unlabelled"
        none = f"{int(unlabelled.sum())} of {len(treated)} treated rows have none"
        text = f"{none} (an empty cell, or a word such as nan); {mend}"
        yield Finding("warning", "Metadata_moa", text)
    doses = treated.get("Metadata_concentration", pd.Series(0.0, index=treated.index)).fillna(0.0)
    several = treated.groupby(["Metadata_compound", doses])["Metadata_moa"].nunique().gt(1)
    if several.any():
        compound, dose = several.index[several][0]
        text = f"{int(several.sum())} treatments have two mechanisms, first {compound} {dose}: give each one"
        yield Finding("error", "Metadata_moa", text)
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
    if set(WELL) <= set(table):
        yield Finding("ok", "Metadata_well", f"{len(table[WELL].drop_duplicates())} wells")


def usable_rows(table: pd.DataFrame, controls: str = "DMSO", *, batches: int = 1) -> np.ndarray:
    """Rows of cells that a page can train on and score, (rows,) bool: all but treated ones without a mechanism.

    Parameters
    ----------
    table : one row a cell
    controls : compound of the control rows
    batches : how many batches the page needs

    Raises
    ------
    CellbookError : if nothing could be scored, or no correction fitted: known from the table, before anything is
        trained.
    """
    needed = ("plate", "well", "batch", "compound", "concentration", "moa")
    if missing := [f"Metadata_{name}" for name in needed if f"Metadata_{name}" not in table]:
        raise CellbookError(f"the {len(table)} cells have no column {', '.join(missing)}, so nothing can be scored")
    control = (table["Metadata_compound"] == controls).to_numpy()
    wells = len(table.loc[control, WELL].drop_duplicates())
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
