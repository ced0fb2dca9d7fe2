"""Whole fields: three single-channel TIFFs found through the image table, read with one clear error each."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError, nearest
from cellbook.profiles.aggregate import WELL
from cellbook.screens.bbbc021 import IMAGE_COLUMNS, field_labels
from cellbook.screens.tiff import check_planes, read_planes

CHANNELS = ("DNA", "Tubulin", "Actin")
STAINS = ("DAPI", "Tubulin", "Actin")  # the official table's names, in the same order
FIELD_SIZE = (1024, 1280)
# Micrometres. The microscope's own tag says 0.496, those who worked with the images quote 0.656.
PIXEL_UM = 0.656
SATURATED_ABOVE = 65_520 - 1  # the largest value of a 12-bit camera times 16
SATURATED_SHARE = 0.01

log = logging.getLogger(__name__)


def read_field(
    paths: Sequence[str | Path], names: Sequence[str] = CHANNELS, **wanted: Any
) -> tuple[np.ndarray, list[str]]:
    """The channels of one field as a (C, H, W) array, in the order of `paths`, and notes on what was chosen in a file.

    One path for all channels means one file that holds them all, see `tiff.read_planes`, also for `wanted`.

    Raises
    ------
    CellbookError : as `tiff.read_planes`; and if a channel has no path, or the channels differ in size.
    """
    for path, name in zip(paths, names, strict=True):
        if path is None or pd.isna(path) or str(path) == "":
            raise CellbookError(f"the {name} image of this field was not found; the field cannot be cut without it")
    if _one_file(paths):
        return read_planes(paths[0], len(names), **wanted)
    parts = [read_planes(path, 1, **wanted) for path in paths]
    _same_size([planes.shape[1:] for planes, _ in parts], names, paths[0])
    notes = dict.fromkeys(note for _, notes in parts for note in notes)
    return np.concatenate([planes for planes, _ in parts]), list(notes)


def check_field(paths: Sequence[str | Path], names: Sequence[str] = CHANNELS, **wanted: Any) -> tuple[int, int]:
    """Height and width of the field that `read_field` would read, without reading pixels; errors likewise."""
    if _one_file(paths):
        return check_planes(paths[0], len(names), **wanted)
    sizes = [check_planes(path, 1, **wanted) for path in paths]
    _same_size(sizes, names, paths[0])
    return sizes[0]


def _one_file(paths: Sequence[str | Path]) -> bool:
    return len(paths) > 1 and len(set(map(str, paths))) == 1


def _same_size(sizes: Sequence[tuple[int, int]], names: Sequence[str], path: str | Path) -> None:
    if len(set(sizes)) > 1:
        shown = ", ".join(f"{name} {size[0]} x {size[1]}" for name, size in zip(names, sizes, strict=True))
        raise CellbookError(f"the channels of one field differ in size, {shown} ({path}); replace the odd one")


def field_warnings(field: np.ndarray, names: Sequence[str] = CHANNELS) -> list[str]:
    """Suspicious channels of a readable field: zero, constant, or saturated in more than 1 % of their pixels."""
    found = []
    for name, channel in zip(names, field, strict=True):
        low, high = int(channel.min()), int(channel.max())
        if low == high:
            found.append(f"{name} is {'all zero' if high == 0 else f'constant at {high}'}")
        elif (share := float((channel > SATURATED_ABOVE).mean())) > SATURATED_SHARE:
            found.append(f"{name} is saturated in {share:.0%} of its pixels")
    return found


def index_fields(table: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """One row a field from the official image table, with the files found below a folder.

    Archives unpack to ``Week4/Week4_27481/...`` or to ``Week4_27481/...``; a file is accepted wherever the end of its
    path agrees best with the table, so both work, and so does a single flat folder.

    Parameters
    ----------
    table : the official image table (``Image_FileName_DAPI``, ``Image_PathName_DAPI``, ...).
    folder : folder that holds the images at any depth.

    Returns
    -------
    DataFrame with ``Metadata_plate``, ``_well``, ``_batch``, ``_site``, ``_field`` (name of the DNA file without its
    ending), ``_replicate``, ``_compound``, ``_concentration`` and ``path_DNA``, ``path_Tubulin``, ``path_Actin``
    (missing where no file was found).

    Raises
    ------
    CellbookError : if columns are missing, the folder does not exist, a field occurs twice, or a well holds two
        treatments.
    """
    needed = [*IMAGE_COLUMNS, *(f"Image_{part}_{stain}" for stain in STAINS for part in ("FileName", "PathName"))]
    if missing := [column for column in needed if column not in table]:
        raise CellbookError(
            f"the image table ({len(table)} rows) lacks {', '.join(missing)}; use BBBC021_v1_image.csv as published"
        )
    folder = Path(folder)
    if not folder.is_dir():
        raise CellbookError(f"the images folder {folder} does not exist; give the folder the archives were unpacked to")
    fields = field_labels(table)
    names = table["Image_FileName_DAPI"].astype(str).reset_index(drop=True)
    fields["Metadata_batch"] = fields["Metadata_plate"].astype(str).str.split("_").str[0]
    fields["Metadata_field"] = names.str.replace(r"\.tiff?$", "", case=False, regex=True)
    sites = names.str.extract(r"_s(\d+)_w", flags=re.IGNORECASE)[0]
    order = fields.groupby(WELL).cumcount() + 1
    fields["Metadata_site"] = pd.to_numeric(sites).fillna(order).astype(int)
    doubled = fields.duplicated(["Metadata_plate", "Metadata_field"])
    if doubled.any():
        raise CellbookError(
            f"{int(doubled.sum())} fields of {len(fields)} occur twice in the image table, first "
            f"{fields['Metadata_field'][doubled].iloc[0]}; remove the doubled rows"
        )
    named = table["Image_PathName_DAPI"].astype(str).str.extract(r"(Week\d+_\d+)[\\/]?$")[0].reset_index(drop=True)
    other = named.notna() & (named != fields["Metadata_plate"])
    if other.any():
        raise CellbookError(
            f"{int(other.sum())} of {len(fields)} rows of the image table name another plate than their folder, first "
            f"{fields['Metadata_plate'][other].iloc[0]} in {named[other].iloc[0]}; correct the plate"
        )
    places = _files_below(folder)
    for channel, stain in zip(CHANNELS, STAINS, strict=True):
        folders, files = (table[f"Image_{part}_{stain}"].fillna("").astype(str) for part in ("PathName", "FileName"))
        alone = ~files.str.lower().duplicated(keep=False)
        found = [_place(places, *wanted) for wanted in zip(folders, files, alone, strict=True)]
        fields[f"path_{channel}"] = pd.Series(found, dtype=object)
    return fields


def choose_plates(fields: pd.DataFrame, plates: Sequence[str] | None = None) -> pd.DataFrame:
    """Rows of an index of fields on the named plates; without names, on every plate that has at least one image.

    A part of the official archives is so cut with the whole official table; plates left out are logged. A field
    without images on a plate that has some stays, and fails with a message of its own.

    Raises
    ------
    CellbookError : if a plate is not in the table, or none of its images (without names: no image at all) is there.
    """
    there = fields.filter(like="path_").notna().any(axis=1).groupby(fields["Metadata_plate"], sort=False).any()
    wanted = known_plates(plates, list(there.index))
    absent = [plate for plate in wanted if not there[plate]]
    if absent and (plates is not None or len(absent) == len(wanted)):
        raise CellbookError(
            f"no image of {len(absent)} of {len(wanted)} plates was found, first {absent[0]!r}; give the folder the "
            "archives were unpacked to"
        )
    if absent:
        log.warning(
            "%d of %d plates have no image here and are left out, first %s", len(absent), len(wanted), absent[0]
        )
    return fields[fields["Metadata_plate"].isin(set(wanted) - set(absent))].reset_index(drop=True)


def known_plates(plates: Iterable[str] | None, known: Sequence[str]) -> list[str]:
    """The plates that are asked for, each once; all without names. One that is not known is an error."""
    wanted = list(known if plates is None else dict.fromkeys(plates))
    if unknown := [plate for plate in wanted if plate not in known]:
        hint = nearest(unknown[0], known, f"there are {len(known)}, named like {known[0]!r}")
        raise CellbookError(f"{len(unknown)} of {len(wanted)} plates are unknown, first {unknown[0]!r}; {hint}")
    return wanted


def _files_below(folder: Path) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for parent, _, files in os.walk(folder):
        for file in files:
            if file.lower().endswith((".tif", ".tiff")):
                places.setdefault(file.lower(), []).append(os.path.join(parent, file))
    return places


def _place(places: dict[str, list[str]], folder: str, name: str, alone: bool) -> str | None:
    """Of the files of that name, the one whose folders agree best with the table's; None if there is none.

    A name that several rows share (`alone` is False) must at least lie in the folder of its plate.
    """
    wanted = [*re.split(r"[\\/]", folder), name]

    def agreement(found: str) -> int:
        parts = Path(found).parts
        same = (a.lower() == b.lower() for a, b in zip(reversed(wanted), reversed(parts), strict=False))
        return next((i for i, equal in enumerate(same) if not equal), len(wanted))

    best = max(sorted(places.get(name.lower(), [])), key=agreement, default=None)
    return best if best is not None and (alone or agreement(best) > 1) else None
