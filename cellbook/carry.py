"""Runs as a few files that can be carried from one machine to another, and back into a store.

A run that is carried may leave products behind, such as codes; its record then names those that came. Weights travel
in bf16, half their size.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cellbook.errors import CellbookError
from cellbook.files import put_folder, read_json, sha256, write_json, writing
from cellbook.runs import Run

MANIFEST, PART = "carried.json", "carried-{:02d}.zip"
FILES, BYTES = 4, 15 << 20  # archives at most, and the size of each


def pack(runs: Iterable[tuple[Run, Callable[[str], bool]]], folder: Path) -> list[str]:
    """Write runs as archives into a folder, in order, as long as there is room; keys of those that came in.

    Parameters
    ----------
    runs : each with what says of a product, by its name, whether it travels
    folder : gets up to `FILES` archives of `BYTES` and a manifest with their checksums
    """
    taken: list[str] = []
    names: list[str] = []
    archive, size = None, 0
    with tempfile.TemporaryDirectory() as temporary, writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for run, wanted in runs:
            work = Path(temporary) / run.key
            _thin(run, wanted, work)
            with zipfile.ZipFile(work.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as own:
                for path in sorted(work.rglob("*")):
                    if path.is_file():
                        own.write(path, path.relative_to(work.parent).as_posix())
            needs = work.with_suffix(".zip").stat().st_size
            if needs > BYTES:
                continue
            if archive is None or size + needs > BYTES:
                if len(names) == FILES:
                    continue
                if archive is not None:
                    archive.close()
                names.append(PART.format(len(names)))
                archive, size = zipfile.ZipFile(folder / names[-1], "w", zipfile.ZIP_DEFLATED), 0
            for path in sorted(work.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(work.parent).as_posix())
            size += needs
            taken.append(run.key)
        if archive is not None:
            archive.close()
        write_json(folder / MANIFEST, {"runs": taken, "archives": {name: sha256(folder / name) for name in names}})
    return taken


def _thin(run: Run, wanted: Callable[[str], bool], work: Path) -> None:
    """A copy of a run with the products that travel."""
    work.mkdir(parents=True)
    record = run.record
    for name in run.products():
        if not wanted(name):
            continue
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            weights = load_file(run.folder / name)
            half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in weights.items()}
            save_file(half, work / name)
        else:
            (work / name).write_bytes(run.path(name).read_bytes())
    kept = sorted(path for path in work.rglob("*") if path.is_file())
    record["products"] = {
        path.relative_to(work).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size} for path in kept
    }
    write_json(work / "run.json", record)


def unpack(folder: Path, store: Path) -> tuple[list[Run], list[str]]:
    """Put carried runs into a store: those that are new, and the keys of those that were there.

    Raises
    ------
    CellbookError : if an archive is missing or has another checksum, or holds what is no run.
    """
    manifest = _manifest(folder)
    for name, checksum in manifest["archives"].items():
        path = folder / name
        if not path.is_file():
            raise CellbookError(f"{path} is missing: bring all files that {MANIFEST} names")
        if sha256(path) != checksum:
            raise CellbookError(f"{path} has another checksum than {MANIFEST} says: bring it anew")
    new: list[Run] = []
    there: list[str] = []
    with writing(store):
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".carried-") as temporary:
            for name in manifest["archives"]:
                with zipfile.ZipFile(folder / name) as archive:
                    _check_names(archive, manifest["runs"], folder / name)
                    archive.extractall(temporary)
            for key in manifest["runs"]:
                came = Run(Path(temporary) / key)
                if fault := came.fault() or "; ".join(came.damage()):
                    raise CellbookError(f"run {key} in {folder} is damaged ({fault}): bring it anew")
                if Run(store / key).fault() is None:
                    there.append(key)
                    continue
                put_folder(came.folder, store / key)
                new.append(Run(store / key))
    return new, there


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise CellbookError(f"{folder} holds no {MANIFEST}: give the folder that `cellbook lease` wrote")
    found = read_json(path)
    if not (
        isinstance(found, dict)
        and isinstance(found.get("archives"), dict)
        and isinstance(found.get("runs"), list)
        and all(isinstance(key, str) and key == Path(key).name and key.strip(".") for key in found["runs"])
        and all(name == Path(name).name for name in found["archives"])
    ):
        raise CellbookError(f"{path} is no list of archives and runs: bring it anew")
    return found


def _check_names(archive: zipfile.ZipFile, keys: list[str], path: Path) -> None:
    """Refuse members that lie outside of the folders of the runs."""
    for name in archive.namelist():
        parts = Path(name).parts
        if name.startswith(("/", "\\")) or ".." in parts or "\\" in name or not parts or parts[0] not in keys:
            raise CellbookError(f"{path} holds {json.dumps(name)}, which belongs to none of its runs: it is not opened")


def products(*stems: str) -> Callable[[str], bool]:
    """Whether a product has one of the names, whatever its ending."""
    return lambda name: Path(name).stem in stems
