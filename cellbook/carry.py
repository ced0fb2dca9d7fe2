"""Runs as a few files that can be carried from one machine to another, and back into a store.

A run that is carried may leave products behind, such as codes; its record then names those that came. Weights travel
in bf16, half their size. Of a training that was stopped its checkpoints travel as they are.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cellbook.errors import CellbookError
from cellbook.files import alone, put_folder, read_json, sha256, write_json, writing
from cellbook.runs import Run, run_key
from cellbook.training.checkpoints import steps_done
from cellbook.training.state import CHECKPOINT

MANIFEST, ARCHIVE = "carried.json", "carried-{:02d}.zip"
ARCHIVES, BYTES = 4, 15 << 20  # archives at most, and the size of each
PARTIAL = ".partial"  # of the folder of a run that is not finished


def pack(
    runs: Iterable[tuple[Run, Sequence[str] | None]],
    folder: Path,
    begun: Iterable[Path] = (),
    *,
    archives: int = ARCHIVES,
    archive_bytes: int = BYTES,
) -> dict[str, Any]:
    """Write runs as archives into a folder, in order, as long as there is room.

    Parameters
    ----------
    runs : each with the names of the products that travel, without their endings; None: all
    folder : gets the archives and a manifest with their checksums, in place of those that are there
    begun : folders of trainings that were stopped; those without a checkpoint are left out
    archives, archive_bytes : how many archives there may be, and the size of each

    Returns
    -------
    dict
        ``carried``, keys of runs; ``begun``, keys of trainings that were stopped; ``not carried``, reasons by key.

    Raises
    ------
    CellbookError : if the disk is full; nothing is then in the folder that could be taken for whole.
    """
    told: dict[str, Any] = {"carried": [], "begun": [], "not carried": {}}
    used: list[int] = []  # bytes of each archive
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in [*folder.glob(ARCHIVE.format(0).replace("00", "*")), folder / MANIFEST]:
            path.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".packing-") as temporary:
            for kind, copy in _copies(runs, begun, Path(temporary)):
                key = copy.name.removesuffix(PARTIAL)
                size = _add(copy, Path(temporary) / "one.zip")
                number = next((k for k, taken in enumerate(used) if taken + size <= archive_bytes), len(used))
                if size > archive_bytes:
                    told["not carried"][key] = f"{size} bytes are more than the {archive_bytes} of an archive"
                elif number == archives:
                    told["not carried"][key] = f"{size} bytes find no room in {archives} archives"
                else:
                    used += [0] * (number == len(used))
                    used[number] += _add(copy, Path(temporary) / ARCHIVE.format(number))
                    told[kind].append(key)
                shutil.rmtree(copy)
                (Path(temporary) / "one.zip").unlink()
            names = [ARCHIVE.format(number) for number in range(len(used))]
            for name in names:
                (Path(temporary) / name).replace(folder / name)
        checksums = {name: sha256(folder / name) for name in names}
        write_json(folder / MANIFEST, {"runs": told["carried"], "begun": told["begun"], "archives": checksums})
    return told


def _copies(
    runs: Iterable[tuple[Run, Sequence[str] | None]], begun: Iterable[Path], temporary: Path
) -> Iterable[tuple[str, Path]]:
    """Copies of what travels of each run and training, one at a time."""
    for run, names in runs:
        yield "carried", _thin(run, names, temporary / run.key)
    for partial in begun:
        if (partial / CHECKPOINT).is_file():
            copy = temporary / partial.name
            copy.mkdir()
            for path in partial.glob("checkpoint*"):
                shutil.copyfile(path, copy / path.name)
            yield "begun", copy


def _thin(run: Run, names: Sequence[str] | None, copy: Path) -> Path:
    """A copy of a run with the products that travel."""
    copy.mkdir(parents=True)
    record = run.record
    record["products"] = {}
    for name in run.products():
        if names is not None and Path(name).stem not in names:
            continue
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            weights = load_file(run.path(name))
            save_file({k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in weights.items()}, path)
        else:
            shutil.copyfile(run.path(name), path)
        record["products"][name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    write_json(copy / "run.json", record)
    return copy


def _add(folder: Path, path: Path) -> int:
    """Add a folder to an archive; by how many bytes that has grown."""
    before = path.stat().st_size if path.exists() else 0
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent).as_posix())
    return path.stat().st_size - before


# --- at home --------------------------------------------------------------------------------------------------------


def unpack(folder: Path, store: Path) -> dict[str, list[str]]:
    """Put carried runs and trainings that were stopped into a store, where pages and trainings find them.

    A finished run is never replaced, nor a training by one of fewer steps.

    Returns
    -------
    dict
        Keys: ``new`` and ``there`` of runs, ``begun`` and ``further`` (where the one in the store is) of trainings.

    Raises
    ------
    CellbookError : if an archive is missing or has another checksum, or holds what is no run, where nothing is put
        into the store; or if a process is at work on one of the runs.
    """
    manifest = _manifest(folder)
    told: dict[str, list[str]] = {"new": [], "there": [], "begun": [], "further": []}
    with writing(store):
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".carried-") as temporary:
            came = Path(temporary)
            _open(folder, manifest, came)
            for key in manifest["runs"]:
                if fault := _fault(Run(came / key)):
                    raise CellbookError(f"run {key} in {folder} is damaged ({fault}): bring it anew")
            done = {key: steps_done(came / f"{key}{PARTIAL}" / CHECKPOINT) for key in manifest["begun"]}
            for key in manifest["runs"]:
                with alone(store / key, wait=False):
                    there = Run(store / key).fault() is None
                    if not there:
                        put_folder(came / key, store / key)
                told["there" if there else "new"].append(key)
            for key, steps in done.items():
                own = store / f"{key}{PARTIAL}"
                with alone(store / key, wait=False):
                    further = Run(store / key).fault() is None or _steps(own / CHECKPOINT) >= steps
                    if not further:
                        put_folder(came / own.name, own)
                told["further" if further else "begun"].append(key)
    return told


def _manifest(folder: Path) -> dict[str, Any]:
    """What a folder of archives says that it holds."""
    path = folder / MANIFEST
    if not path.is_file():
        raise CellbookError(f"{folder} holds no {MANIFEST}: give the folder that `cellbook lease` wrote")
    try:
        found = {"begun": []} | read_json(path)
        names = [*found["runs"], *found["begun"], *found["archives"]]
        if any(name != Path(name).name or not name.strip(".") for name in names) or not isinstance(
            found["archives"], dict
        ):
            raise TypeError
    except (KeyError, TypeError) as error:
        raise CellbookError(f"{path} is no list of runs and archives: bring it anew") from error
    return found


def _open(folder: Path, manifest: dict[str, Any], into: Path) -> None:
    """Extract all archives, none of which is opened before all are there and whole."""
    for name, checksum in manifest["archives"].items():
        path = folder / name
        if not path.is_file():
            raise CellbookError(f"{path} is missing: bring all files that {MANIFEST} names")
        if sha256(path) != checksum:
            raise CellbookError(f"{path} has another checksum than {MANIFEST} says: bring it anew")
    for name in manifest["archives"]:
        try:
            with zipfile.ZipFile(folder / name) as archive:
                for member in archive.namelist():
                    _check(member, manifest, folder / name)
                archive.extractall(into)
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise CellbookError(f"{folder / name} is no archive of runs ({error}): bring it anew") from error


def _check(member: str, manifest: dict[str, Any], archive: Path) -> None:
    """Refuse a file that lies outside of the folders of the runs, or beside the checkpoints of a training."""
    top, _, rest = member.partition("/")
    parts = rest.split("/")
    of_run = top in manifest["runs"]
    key = top.removesuffix(PARTIAL)
    of_training = key != top and key in manifest["begun"] and len(parts) == 1 and rest.startswith("checkpoint")
    if not (of_run or of_training) or "\\" in member or {"..", ".", ""} & set(parts):
        raise CellbookError(f"{archive} holds {json.dumps(member)}, which belongs to none of its runs: not opened")


def _fault(run: Run) -> str | None:
    """What keeps a folder from being the run that its name says, if anything does."""
    if fault := run.fault():
        return fault
    record = run.record
    files = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    if foreign := sorted(files ^ {*record["products"], "run.json"}):
        return f"its record and its files differ in {foreign[0]}"
    if damage := run.damage():
        return damage[0]
    parts = [record.get(name) for name in ("method", "method_version", "config", "fingerprint")]
    return None if run_key(*parts) == run.key else "its record is that of another run"


def _steps(checkpoint: Path) -> int:
    """Steps of a checkpoint; of one that is not there or of no use, -1."""
    try:
        return steps_done(checkpoint)
    except CellbookError:
        return -1
