"""From fields to cells: illumination, nuclei and crops of a whole screen, in parallel and resumable.

Every finished field is one file, written atomically; a run that was killed or interrupted goes on where it stopped.
Memory does not grow with the number of fields.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from cellbook import files
from cellbook.errors import CellbookError
from cellbook.machine import worker_count
from cellbook.screens import illumination, nuclei
from cellbook.screens.bbbc021 import CONTROL
from cellbook.screens.crops import Settings, crop, make_settings
from cellbook.screens.fields import choose_plates, field_warnings, index_fields, read_field
from cellbook.screens.workers import Pool, Run

if TYPE_CHECKING:
    from cellbook.cells import CellSet

MIN_FIELDS = 20  # a plate with fewer fields is not corrected: its mean image would still show the cells
SETTINGS, REPORT = "extraction.json", "fields.csv"
KEYS = ("Metadata_plate", "Metadata_well", "Metadata_site", "Metadata_field")
PROCESS = 0.75  # GiB of a process; at three channels of 1024 x 1280 pixels 0.3 were measured, other fields are larger
_ILLUMINATION_STEP = 40  # fields a task adds to the running mean of its plate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extraction:
    """What came of an extraction: its folder, the numbers of fields and cells, and one report row a field."""

    folder: Path
    done: int
    failed: int
    cells: int
    report: pd.DataFrame  # plate, well, field, status ("done", "failed"), cells, note

    def open(self) -> CellSet:
        """The extracted cells, memory-mapped."""
        from cellbook.cells import CellSet

        return CellSet.open(self.folder)


def extract(
    image_table: pd.DataFrame,
    images_folder: str | Path,
    out: str | Path,
    *,
    moa: pd.DataFrame | None = None,
    plates: Sequence[str] | None = None,
    **how: Any,
) -> Extraction:
    """Cut all cells of BBBC021 (or of a screen in its layout) out of its fields and write them as a `CellSet`.

    Parameters
    ----------
    image_table, images_folder, moa, plates : see `labelled_fields`.
    out : folder of the cell set to be written.
    how : see `extract_fields`.

    Raises
    ------
    CellbookError : as `labelled_fields` and `extract_fields`.
    """
    return extract_fields(labelled_fields(image_table, images_folder, moa, plates), out, **how)


def labelled_fields(
    image_table: pd.DataFrame,
    images_folder: str | Path,
    moa: pd.DataFrame | None = None,
    plates: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One row a field of BBBC021 (or of a screen in its layout), as `extract_fields` takes them.

    Parameters
    ----------
    image_table : the official image table, or rows of it.
    images_folder : folder of the unpacked images, see `fields.index_fields`.
    moa : table ``compound``, ``concentration``, ``moa``; adds ``Metadata_moa`` (missing for unlabelled treatments).
    plates : only these; None takes every plate of which an image is there, see `fields.choose_plates`.

    Raises
    ------
    CellbookError : if `moa` labels none of the treated wells of the table; as `index_fields` and `choose_plates`.
    """
    fields = index_fields(image_table, images_folder)
    if moa is not None:
        labels = moa.rename(columns={name: f"Metadata_{name}" for name in ("compound", "concentration", "moa")})
        fields = fields.merge(labels, how="left", on=["Metadata_compound", "Metadata_concentration"])
        treated = fields[fields["Metadata_compound"] != CONTROL]
        if len(treated) and treated["Metadata_moa"].isna().all():
            one, other = treated.iloc[0], moa.iloc[-1]
            raise CellbookError(
                f"the MOA table labels none of the {len(treated)} treated fields of the image table: it has "
                f"{other['compound']} {other['concentration']:g}, the wells {one['Metadata_compound']} "
                f"{one['Metadata_concentration']:g}; write compounds alike and all doses in micromolar, or leave it out"
            )
    return choose_plates(fields, plates)


def extract_fields(
    fields: pd.DataFrame,
    out: str | Path,
    *,
    workers: int | None = None,
    resume: bool = True,
    progress: bool = True,
    **given: Any,
) -> Extraction:
    """Cut the cells of indexed fields.

    Parameters
    ----------
    fields : one row a field: ``Metadata_plate``, any other ``Metadata_`` columns, and ``path_<channel>`` for each
        channel.
    out : folder of the cell set. Beside it, ``<out>.parts`` holds finished fields until all is done, so twice the space
        of the cells is needed for a while; it stays if fields failed, and the next call tries those again.
    workers : processes, as many as cores and memory bear if left out; 1 works in this one.
    resume : go on with finished fields of an earlier call with the same settings and fields; False starts anew.
    progress : show a progress bar.
    given : fields of `crops.Settings`: ``size``, ``method``, ``border``, ``illumination``, ``field_size`` ...

    Returns
    -------
    Extraction
        Its report names every field that failed and why; a failed field never stops the others.

    Raises
    ------
    CellbookError : if no field is given, all failed or hold no cell, the folder belongs to other settings, or the disk
        is full. Finished fields are kept; so they are on Ctrl-C.
    """
    settings = make_settings(**given)
    out = Path(out)
    parts = out.with_name(out.name + ".parts")
    fields = fields.reset_index(drop=True)
    missing = [c for c in ("Metadata_plate", *(f"path_{name}" for name in settings.channels)) if c not in fields]
    if missing or fields.empty:
        raise CellbookError(
            f"the index of fields has {len(fields)} rows and lacks {missing or 'all rows'}; nothing to cut"
        )
    workers = worker_count(PROCESS) if workers is None else workers
    if workers < 1:
        raise CellbookError(f"workers is {workers}; give 1 or more")
    state = _state(fields, settings)
    if out.exists():
        finished = _finished(out, state)
        if finished is None and (resume or not (out / SETTINGS).is_file()):
            raise CellbookError(f"{out} exists and holds something else; give another folder or remove it")
        if finished is not None and resume and not parts.exists():
            return finished
    with files.writing(parts):
        parts.mkdir(parents=True, exist_ok=True)
        with files.alone(parts, wait=False):
            other = (parts / SETTINGS).is_file() and files.read_json(parts / SETTINGS) != state
            if other and resume and any(parts.glob("*.npz")):
                raise CellbookError(
                    f"{parts} holds the work of other settings or other fields; give another out, or discard it by "
                    "resume=False (--force)"
                )
            if other or not resume:
                shutil.rmtree(parts)
                parts.mkdir()
            files.write_json(parts / SETTINGS, state)
            report = _work(fields, parts, settings, workers, progress)
            return _assemble(fields, report, parts, out, settings, state)


def _state(fields: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    # Names only: a missing file that appears later must not look like another screen.
    rows = fields[[column for column in KEYS if column in fields]].astype(str).to_numpy().tolist()
    told = {name: value for name, value in asdict(settings).items() if value or name not in ("plane", "series")}
    return json.loads(json.dumps({"settings": told, "fields": len(fields), "digest": files.digest(rows)}))


def _finished(out: Path, state: dict[str, Any]) -> Extraction | None:
    """The extraction that `out` already holds, if it was made with the same settings from the same fields."""
    if not (out / SETTINGS).is_file() or files.read_json(out / SETTINGS) != state:
        return None
    return _summary(out, read_report(out))


def read_report(out: str | Path) -> pd.DataFrame:
    """The report of a finished extraction, one row a field, see `Extraction`."""
    text = {"Metadata_plate": str, "Metadata_well": str}
    return pd.read_csv(Path(out) / REPORT, dtype=text, keep_default_na=False)


def _summary(out: Path, report: pd.DataFrame) -> Extraction:
    done = int((report["status"] == "done").sum())
    return Extraction(out, done, len(report) - done, int(report["cells"].sum()), report)


def _work(fields: pd.DataFrame, parts: Path, settings: Settings, workers: int, progress: bool) -> pd.DataFrame:
    """Correct, detect and crop every field that is not finished; one report row a field."""
    paths = fields[[f"path_{name}" for name in settings.channels]].to_numpy(object).tolist()
    plates = fields.groupby("Metadata_plate", sort=False).indices
    todo = [row for row in range(len(fields)) if not _part(parts, row).exists()]
    functions: dict[int, Path | None] = {}
    outcomes: dict[int, tuple[str, int, str]] = {}
    with Pool(workers) as run, tqdm(total=len(fields), initial=len(fields) - len(todo), disable=not progress) as bar:
        if settings.illumination:
            waiting = set(todo)
            for number, rows in enumerate(plates.values()):
                if waiting.isdisjoint(rows.tolist()):
                    continue
                bar.set_description(f"illumination {number + 1}/{len(plates)}")
                target = parts / f"illumination-{number:04d}.npy"
                ready = _illumination([paths[row] for row in rows], target, settings, run)
                functions.update(dict.fromkeys(rows.tolist(), target if ready else None))
        bar.set_description("fields")
        tasks = ((_cut, (paths[row], _part(parts, row), functions.get(row), settings), row) for row in todo)
        for row, outcome in run(tasks):
            outcomes[row] = outcome
            bar.update()
    for row in set(range(len(fields))) - set(outcomes):
        with np.load(_part(parts, row)) as stored:
            outcomes[row] = "done", len(stored["centres"]), str(stored["note"])
    keys = [column for column in KEYS if column in fields]
    result = pd.DataFrame([outcomes[row] for row in range(len(fields))], columns=["status", "cells", "note"])
    return pd.concat([fields[keys], result], axis=1)


def _part(parts: Path, row: int) -> Path:
    return parts / f"{row:06d}.npz"


def _illumination(paths: list[list[Any]], target: Path, settings: Settings, run: Run) -> bool:
    """Write the plate's illumination function; False if too few of its fields are readable and of one size for one.

    Of fields of several sizes those of the most frequent one make the function (of equally frequent ones the largest),
    so the order of the table decides nothing.
    """
    if target.exists():
        return True
    if len(paths) < MIN_FIELDS:
        return False
    steps = range(0, len(paths), _ILLUMINATION_STEP)
    tasks = ((_mean_images, (paths[start : start + _ILLUMINATION_STEP], settings), start) for start in steps)
    # Added in the order of the fields, not as they finish: sums of floats depend on it in the last digits.
    found = dict(run(tasks))
    means: dict[tuple[int, ...], illumination.MeanImage] = {}
    for start in steps:
        for shape, mean in found[start].items():
            means.setdefault(shape, illumination.MeanImage()).merge(mean)
    shape = max(means, key=lambda shape: (means[shape].count, shape), default=None)
    if shape is None or means[shape].count < MIN_FIELDS:
        return False
    function = illumination.illumination_function(means[shape])
    files.write_atomically(target, lambda temporary: np.save(temporary, function))
    return True


def _mean_images(paths: list[list[Any]], settings: Settings) -> dict[tuple[int, ...], illumination.MeanImage]:
    means: dict[tuple[int, ...], illumination.MeanImage] = {}
    for field in paths:
        try:
            image, _ = read_field(field, settings.channels, **settings.wanted)
            means.setdefault(image.shape, illumination.MeanImage()).add(image)
        except CellbookError:  # reported once, where the field is cut
            continue
    return {shape: mean for shape, mean in means.items() if mean.count}


@lru_cache(maxsize=1)
def _function(path: Path) -> np.ndarray:
    return np.load(path)


def _cut(paths: list[Any], target: Path, function: Path | None, settings: Settings) -> tuple[str, int, str]:
    """Read, correct, detect and crop one field; what is wrong with the field is an answer, not an exception."""
    try:
        field, notes = read_field(paths, settings.channels, **settings.wanted)
        notes += field_warnings(field, settings.channels)
        if function is not None:
            _check_size(paths[0], field.shape[-2:], _function(function).shape[-2:])
            field = illumination.correct(field, _function(function))
        elif settings.illumination:
            notes.append(f"not corrected: the plate has fewer than {MIN_FIELDS} readable fields of one size")
        centres = nuclei.detect(field[0], settings.method)
        crops, kept = crop(field, centres, settings.size, settings.border)
    except CellbookError as error:
        return "failed", 0, str(error)
    if not len(centres):
        notes.append("no nuclei found")
    note = "; ".join(notes)
    with target.with_suffix(".tmp").open("wb") as stream:
        np.savez(stream, images=crops, centres=centres[kept].astype(np.int32), note=np.array(note))
    os.replace(target.with_suffix(".tmp"), target)
    return "done", len(crops), note


def _check_size(path: Any, size: tuple[int, ...], usual: tuple[int, ...]) -> None:
    if size != usual:
        raise CellbookError(
            f"{path} is {size[0]} x {size[1]} pixels, most fields of its plate {usual[0]} x {usual[1]}, and a "
            "plate is corrected as one; replace the field, give it a plate of its own, or leave the correction out"
        )


def _assemble(
    fields: pd.DataFrame, report: pd.DataFrame, parts: Path, out: Path, settings: Settings, state: dict[str, Any]
) -> Extraction:
    """Join the finished fields into one cell set, written in pieces, and move it into place."""
    from cellbook import cells

    report.to_csv(parts / REPORT, index=False, lineterminator="\n")
    counts = report["cells"].to_numpy()
    total, failed = int(counts.sum()), report[report["status"] == "failed"]
    if len(failed):
        log.warning("%d of %d fields failed; first: %s", len(failed), len(report), failed["note"].iloc[0])
    if total == 0:
        why = f"{len(failed)} failed, first: {failed['note'].iloc[0]}" if len(failed) else "no nuclei were found"
        raise CellbookError(f"no cell in {len(fields)} fields ({why}); {parts / REPORT} lists every field")
    work = parts / "set"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    centres: list[np.ndarray] = []

    def blocks() -> Iterator[np.ndarray]:
        for row in np.flatnonzero(counts):
            with np.load(_part(parts, row)) as stored:
                centres.append(stored["centres"])
                yield stored["images"]

    files.write_array(work / cells.IMAGES, blocks())
    owner = np.repeat(np.arange(len(fields)), counts)
    metadata = fields[[c for c in fields if not str(c).startswith("path_")]]
    table = metadata.iloc[owner].reset_index(drop=True)
    table["Metadata_cell"] = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    table["Metadata_y"], table["Metadata_x"] = np.concatenate(centres).T
    report.to_csv(work / REPORT, index=False, lineterminator="\n")
    files.write_json(work / SETTINGS, state)
    cells.complete(work, table, settings.channels, settings.pixel_um)
    files.put_folder(work, out)
    if not len(failed):
        shutil.rmtree(parts, ignore_errors=True)
    return _summary(out, report)
