"""The image files that a reader's table lists: are they there, is each of one field and channel, can they be read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.screens import nuclei
from cellbook.screens.crops import Settings, crop
from cellbook.screens.fields import check_field, read_field

LOOKED_INTO = 1000  # fields of which a check opens the files; of larger screens as many, evenly spaced

Said = tuple[str, str, str]  # level, subject, message


def image_path(folder: str | Path, name: object) -> str | None:
    """Where a file named in a table lies, also if its folders are named as on Windows; None for an empty cell."""
    if name is None or pd.isna(name) or not str(name).strip():
        return None
    path = Path(folder) / str(name).strip()
    other = Path(folder) / str(name).strip().replace("\\", "/")
    return str(other if not path.is_file() and other.is_file() else path)


def check_files(
    table: pd.DataFrame, columns: Sequence[str], folder: str | Path, settings: Settings | None = None
) -> Iterable[Said]:
    """What is wrong with the files that a table lists; with `settings` also with what is in them."""
    absent = [column for column in columns if column not in table]
    for column in absent:
        yield "error", column, "no such column; it must name the image file of each field"
    for column in {column for column in columns if columns.count(column) > 1}:
        yield "error", column, "is named for two channels: name the file of each channel"
    if absent:
        return
    paths = pd.DataFrame({column: [image_path(folder, name) for name in table[column]] for column in columns})
    for column in columns:
        empty, named = int(paths[column].isna().sum()), paths[column].dropna()
        if empty:
            level = "error" if empty == len(table) else "warning"
            yield level, column, f"{empty} of {len(table)} fields name no file and will fail"
        missing = [path for path in named.unique() if not Path(path).is_file()]
        if missing:
            level = "error" if len(missing) == named.nunique() else "warning"
            shown = Path(missing[0]).relative_to(folder) if Path(missing[0]).is_relative_to(folder) else missing[0]
            yield level, column, f"{len(missing)} of {named.nunique()} files are not in {folder}, first {shown}"
    yield from _named_twice(paths.map(os.path.realpath, na_action="ignore"))
    if settings is not None:
        channels = [paths[column] for column in columns] * (len(settings.channels) if len(columns) == 1 else 1)
        yield from _look(pd.concat(channels, axis=1), table, settings)


def _named_twice(paths: pd.DataFrame) -> Iterable[Said]:
    for place, column in enumerate(paths):
        others = paths.columns[place + 1 :]
        kinds = paths.nunique(axis=1)  # one file for all channels holds them all
        for other in others:
            same = paths[column].notna() & (paths[column] == paths[other]) & (kinds > 1)
            if same.any():
                first = Path(paths.loc[same, column].iloc[0]).name
                text = f"{int(same.sum())} of {len(paths)} fields name the same file as in {column}, first {first}"
                yield "error", other, f"{text}: name the file of each channel"
        twice = paths[column].notna() & paths[column].duplicated(keep=False)
        if twice.any():
            first = Path(paths.loc[twice, column].iloc[0]).name
            text = f"{int(twice.sum())} of {len(paths)} fields share their file with another, first {first}"
            yield "error", column, f"{text}: give one row a field, or its cells count twice"
            return


def _look(paths: pd.DataFrame, table: pd.DataFrame, settings: Settings) -> Iterable[Said]:
    """Open the files of many fields, and cut the first that can be read."""
    there = [
        row
        for row, names in enumerate(paths.to_numpy(object))
        if all(isinstance(n, str) and Path(n).is_file() for n in names)
    ]
    if not there:
        return
    rows = [there[i] for i in np.linspace(0, len(there) - 1, min(len(there), LOOKED_INTO)).round().astype(int)]
    sizes: dict[int, tuple[int, int]] = {}
    faults: list[str] = []
    for row in rows:
        try:
            sizes[row] = check_field(paths.iloc[row].tolist(), settings.channels, **settings.wanted)
            if min(sizes[row]) < settings.size:
                del sizes[row]
                raise CellbookError(
                    f"{paths.iloc[row, 0]} is smaller than a crop of {settings.size} pixels; see --size"
                )
        except CellbookError as error:
            faults.append(str(error))
    read = False
    for row in list(sizes)[:3]:  # pixels may be refused where the description is not
        try:
            field, notes = read_field(paths.iloc[row].tolist(), settings.channels, **settings.wanted)
        except CellbookError as error:
            faults.append(str(error))
            del sizes[row]
            continue
        read = True
        yield from (("warning", "images", f"in the first field, {note}") for note in notes)
        centres = nuclei.detect(field[0], settings.method)
        if not len(crop(field, centres, settings.size, settings.border)[0]):
            text = f"no nucleus is found in the first field with --method {settings.method}, or none off its edge"
            yield "warning", "images", f"{text}; is {settings.channels[0]} the channel of nuclei?"
        break
    if faults:
        level = "warning" if read else "error"
        yield level, "images", f"{len(faults)} of {len(rows)} fields looked into will fail, first: {faults[0]}"
    if settings.illumination and len(sizes) > 1:
        plates = table["Metadata_plate"] if "Metadata_plate" in table else pd.Series("plate", index=table.index)
        counts = pd.Series({row: str(size) for row, size in sizes.items()}).groupby(plates.iloc[list(sizes)].to_numpy())
        odd = int((counts.size() - counts.agg(lambda sides: sides.value_counts().iloc[0])).sum())
        if odd:
            text = f"{odd} of {len(sizes)} fields have another size than most of their plate"
            yield "warning", "images", f"{text}: they fail where the plate is corrected; see --no-illumination"
    yield "ok", "images", f"{len(rows)} of {len(table)} fields looked into"
