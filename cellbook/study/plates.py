"""A screen plate by plate: each plate is a pure function of its fields, done here or by workers anywhere.

A plate goes from its fields to the profiles of its wells and needs nothing of another plate, so that plates may be made
in any order, on any machine that sees the same folders, and after an interruption only those that are not there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from cellbook import files
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features.transferred import grey_range
from cellbook.profiles.aggregate import WELL, to_wells
from cellbook.runs import choose_device, save_table, to_float32
from cellbook.screens import extraction
from cellbook.screens.crops import Settings
from cellbook.screens.named import without_place
from cellbook.study.cluster import crew
from cellbook.study.encoders import Encoder, measure
from cellbook.study.processes import one_thread

VERSION = 1  # rises when the same fields give other profiles
PROFILES, RECORD, INDEX, SETTINGS, REPORT = (
    "profiles.parquet",
    "plate.json",
    "fields.parquet",
    "plates.json",
    "plates.csv",
)
AT_ONCE = 2048  # cells whose features are held at once, or those of one well if it has more
COUNTS = ("wells", "cells", "fields", "failed_fields")
ROWS = 10_000  # of a group of the stored index: who reads one plate of many reads few others


# --- one plate ------------------------------------------------------------------------------------------------------


def make_plate(
    fields: pd.DataFrame, folder: str | Path, settings: Settings, encoder: Encoder, scratch: str | Path | None = None
) -> dict[str, Any]:
    """Make the profiles of one plate from its fields: a pure function, whose product is one folder.

    The folder appears when it is whole: ``profiles.parquet`` with one row a well, ``fields.csv`` with one row a field
    and why it failed, if it did, and ``plate.json``, the record. One that is there, undamaged and made from the same
    labels in the same way, is not made again; of two calls at once the second waits, and takes what the first made.

    Parameters
    ----------
    fields : rows of the plate as `screens.extraction.extract_fields` takes them, with ``Metadata_well``
    folder : of the product
    settings : how cells are cut
    encoder : what is measured of them; imagenet takes its range of grey values from the controls of the plate, or from
        all its cells if it has none
    scratch : where the plate's cells lie for a while, twice; beside `folder` if left out

    Returns
    -------
    The record: digests, and numbers of wells, cells and fields that failed.

    Raises
    ------
    CellbookError : if no field of the plate holds a cell, or as `extract_fields` and `encoders.measure`.
    """
    folder = Path(folder)
    state = files.digest([VERSION, asdict(settings), encoder.known_by(), _labels(fields)])
    work = Path(scratch or folder.parent) / f".{folder.name}-{state[:12]}"
    with files.alone(folder):
        if (record := whole(folder, state)) is not None:
            return record
        choose_device(encoder.device)  # refused here and not when all cells are cut
        cut = extraction.extract_fields(fields, work / "cells", workers=1, progress=False, **asdict(settings))
        with one_thread():
            wells = well_profiles(cut.open(), encoder)
        product = folder.with_name(f".{folder.name}-new")
        shutil.rmtree(product, ignore_errors=True)
        product.mkdir(parents=True)
        save_table(wells, product / PROFILES)
        cut.report.to_csv(product / extraction.REPORT, index=False, lineterminator="\n")
        digests = {name: files.sha256(product / name) for name in (PROFILES, extraction.REPORT)}
        record = {"state": state, "files": digests, "wells": len(wells), "cells": cut.cells}
        record |= {"fields": len(fields), "failed_fields": cut.failed}
        files.write_json(product / RECORD, record)
        files.put_folder(product, folder)
    shutil.rmtree(work, ignore_errors=True)
    return record


def _labels(fields: pd.DataFrame) -> list[Any]:
    table = fields.filter(like="Metadata_")
    return [list(table), table.astype(str).to_numpy().tolist()]


def whole(folder: Path, state: str) -> dict[str, Any] | None:
    """The record of a plate, if its files are those that were written, from what `state` is a digest of; else None."""
    try:
        record = files.read_json(folder / RECORD)
        undamaged = all(files.sha256(folder / name) == found for name, found in record["files"].items())
    except (CellbookError, OSError, KeyError):
        return None
    return record if undamaged and record["state"] == state else None


def well_profiles(cells: CellSet, encoder: Encoder) -> pd.DataFrame:
    """Mean features of the cells of each well in single precision, measured some wells at a time."""
    grey = grey_range(cells, encoder.controls, encoder.seed) if encoder.name == "imagenet" else None
    found = []
    for rows in _wells_at_once(cells.table):
        table = without_place(measure(cells.select(rows), encoder, grey=grey))
        found.append(table if encoder.name == "cell-count" else to_wells(table))
    return to_float32(pd.concat(found, ignore_index=True, join="inner"))  # a label that varies in any well goes


def _wells_at_once(table: pd.DataFrame) -> Iterator[np.ndarray]:
    """Rows of some wells together, no more than `AT_ONCE` unless one has more."""
    block: list[np.ndarray] = []
    for rows in table.groupby(WELL, sort=False).indices.values():
        if block and sum(map(len, block)) + len(rows) > AT_ONCE:
            yield np.concatenate(block)
            block = []
        block.append(rows)
    yield np.concatenate(block)


# --- all plates -----------------------------------------------------------------------------------------------------


def make_plates(
    fields: pd.DataFrame,
    out: str | Path,
    settings: Settings,
    encoder: Encoder,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    scratch: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Make the plates of a screen that are not there yet, and join the profiles of all.

    Below `out` are ``plates/<name>``, see `make_plate`, ``profiles.parquet`` with the wells of all plates in the order
    of `fields`, and ``plates.csv``, the report. Whatever makes them, and however often it was interrupted, the bytes
    are the same. A plate that cannot be made never stops the others; the next call tries it again.

    Parameters
    ----------
    fields : one row a field, see `make_plate`; workers have to find the files under the same paths
    out : folder, on a disk that all workers see; may hold plates that were made in the same way
    settings, encoder, scratch : see `make_plate`; a scratch folder may be a disk of each worker's own
    workers : processes on this machine; without, or with 1, plates are made in this one
    scheduler : address of a Dask scheduler, whose workers make the plates
    progress : show a progress bar

    Returns
    -------
    The report, one row a plate: ``Metadata_plate``, ``status`` ("done" or "failed"), ``wells``, ``cells``, ``fields``,
    ``failed_fields`` and a ``note``.

    Raises
    ------
    CellbookError : if fields lack what is needed, the encoder is fitted on all cells, `out` holds plates that were made
        in another way, no worker can be had, or no plate could be made.
    """
    _check(fields, settings, encoder)
    out, scratch = Path(out).resolve(), Path(scratch).resolve() if scratch else None
    how = {"version": VERSION, "settings": asdict(settings), "encoder": encoder.known_by()}
    if scheduler is None:
        choose_device(encoder.device)
    with files.alone(out, wait=False), crew(workers, scheduler) as answers:  # found before anything is written
        _settle(fields, out, how)
        names = list(fields["Metadata_plate"].unique())
        task = partial(plate_of, out=out, settings=settings, encoder=encoder, scratch=scratch)
        found: dict[str, dict[str, Any]] = {}
        with tqdm(total=len(names), disable=not progress, unit="plate") as bar:
            for name, answer in answers(task, names):
                found[name] = failed(answer) if isinstance(answer, BaseException) else answer
                bar.update()
        report = pd.DataFrame([{"Metadata_plate": name} | found[name] for name in names])
        files.write_text(out / REPORT, report.to_csv(index=False, lineterminator="\n"))
        done = report.loc[report["status"] == "done", "Metadata_plate"]
        if not len(done):
            raise CellbookError(f"none of {len(names)} plates could be made, first {names[0]}: {report['note'][0]}")
        join([folder_of(out, name) / PROFILES for name in done], out / PROFILES)
    return report


def _check(fields: pd.DataFrame, settings: Settings, encoder: Encoder) -> None:
    if missing := [name for name in (*WELL, *(f"path_{c}" for c in settings.channels)) if name not in fields]:
        raise CellbookError(f"the {len(fields)} fields lack {', '.join(missing)}: name plate and well of each")
    if fields.empty or fields[WELL].isna().any(axis=None):
        empty = int(fields[WELL].isna().any(axis=1).sum())
        raise CellbookError(f"{empty} of {len(fields)} fields have no plate or no well: fill it in, or leave them out")
    if encoder.name == "pixel-pca":
        raise CellbookError("--encoder pixel-pca is fitted on all cells of a screen: take one that is not")


def _settle(fields: pd.DataFrame, out: Path, how: dict[str, Any]) -> None:
    """Make the folder, or see that what it holds was made in the same way; store the fields where workers read them."""
    told, how = out / SETTINGS, json.loads(json.dumps(how))
    if not told.is_file() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CellbookError(f"{out} holds something else than plates; give another folder")
    if any((out / "plates").glob(f"*/{RECORD}")):
        differing = [part for part, value in how.items() if files.read_json(told).get(part) != value]
        if differing:
            raise CellbookError(
                f"the plates in {out} were made with other {' and '.join(differing)}, see {SETTINGS} there: give "
                "another folder, or remove it"
            )
    files.write_json(told, how)
    paths = [name for name in fields if str(name).startswith("path_")]
    there = fields.assign(**{name: fields[name].map(os.path.abspath, na_action="ignore") for name in paths})
    files.write_atomically(out / INDEX, lambda path: there.to_parquet(path, index=False, row_group_size=ROWS))


def folder_of(out: Path, plate: str) -> Path:
    """Folder of a plate, whatever its name is."""
    return out / "plates" / re.sub(r"^\.", "%2E", quote(str(plate), safe=" "))


def plate_of(name: str, *, out: Path, settings: Settings, encoder: Encoder, scratch: Path | None) -> dict[str, Any]:
    """One row of the report: a plate of the stored index is made; what is wrong with it is an answer, no exception."""
    try:
        fields = pd.read_parquet(out / INDEX, filters=[("Metadata_plate", "==", name)])
        record, note = make_plate(fields, folder_of(out, name), settings, encoder, scratch), ""
        if record["failed_fields"]:
            report = extraction.read_report(folder_of(out, name))
            note = report.loc[report["status"] == "failed", "note"].iloc[0]
        return {"status": "done", **{count: record[count] for count in COUNTS}, "note": note}
    except Exception as error:  # also one that nobody foresaw: days of work do not end because of one plate
        return failed(error)


def failed(error: BaseException) -> dict[str, Any]:
    """The row of a plate that could not be made."""
    note = str(error) if isinstance(error, CellbookError) else f"{type(error).__name__}: {error}"
    return {"status": "failed", **dict.fromkeys(COUNTS, 0), "note": note}


def join(paths: Sequence[Path], to: Path) -> None:
    """Write profiles of several plates as one table, with no more than one of them in memory; labels that all have."""
    schema = pq.read_schema(paths[0]).remove_metadata()
    for path in paths[1:]:
        other = pq.read_schema(path).remove_metadata()
        if not other.equals(schema):  # the labels of one plate may all be missing, which has no type of its own
            known = set(other.names)
            names = [name for name in schema.names if name in known]
            parts = [pa.schema([kind.field(name) for name in names]) for kind in (schema, other)]
            schema = pa.unify_schemas(parts, promote_options="permissive")

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for path in paths:
                writer.write_table(pq.read_table(path).select(schema.names).cast(schema))

    files.write_atomically(to, write)
