"""The official BBBC021 archives: resumable, checked, unpacked safely.

A plate is about 750 MB zipped, the whole set 55 of them. What has arrived is kept in ``<name>.part`` and continued; a
plate that is unpacked is remembered by a small receipt and never fetched again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath

import pandas as pd
from tqdm import tqdm

from cellbook import files
from cellbook.errors import CellbookError
from cellbook.screens.fields import known_plates

BASE_URL = "https://data.broadinstitute.org/bbbc/BBBC021/"
IMAGE_TABLE = "BBBC021_v1_image.csv"
TABLES = (IMAGE_TABLE, "BBBC021_v1_moa.csv", "BBBC021_v1_compound.csv")
RECEIPTS = ".receipts"
_TIMEOUT = 30  # seconds without a byte
_RETRIES = 3
_BLOCK = 1 << 18
_LARGEST_RATIO = 100  # of an archive's content to its size; images of a camera reach 5


@dataclass(frozen=True)
class Download:
    """Where the images are, which plates are there, and which of them were there already."""

    folder: Path
    plates: tuple[str, ...]
    skipped: tuple[str, ...]


def download_bbbc021(
    out: str | Path,
    plates: Iterable[str] | None = None,
    *,
    base_url: str = BASE_URL,
    parallel: int = 2,
    checksums: str | Path | None = None,
    keep_archives: bool = False,
    progress: bool = True,
) -> Download:
    """Download and unpack BBBC021: its three tables and the images of some or all plates.

    Parameters
    ----------
    out : folder for the tables, and for the images in ``<plate>/``.
    plates : plate names such as "Week1_22123"; None takes all 55 (41 GB zipped).
    base_url : where the files lie; a mirror with the same names will do.
    parallel : archives fetched at once.
    checksums : a file of lines ``<hash> <file name>`` (MD5, SHA-1 or SHA-256, told by length); archives it lists are
        checked.
    keep_archives : keep the zips after unpacking.
    progress : show a progress bar in bytes.

    Raises
    ------
    CellbookError : if a plate is unknown, or anything failed: with the reason of the first, after the others were
        finished. The same call then goes on where it stopped, also after Ctrl-C or a full disk.
    """
    if parallel < 1:
        raise CellbookError(f"parallel is {parallel}; give 1 or more")
    out, base_url = Path(out), base_url.rstrip("/") + "/"
    hashes = _read_checksums(Path(checksums)) if checksums is not None else {}
    with files.writing(out):
        (out / RECEIPTS).mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    with tqdm(unit="B", unit_scale=True, disable=not progress) as bar:
        for name in TABLES:
            if not (out / name).is_file():
                fetch(base_url + name, out / name, hashes.get(name), stop=stop, report=bar.update)
        wanted = _check_plates(out / IMAGE_TABLE, plates)
        skipped = tuple(plate for plate in wanted if (out / RECEIPTS / plate).is_file())
        todo = [plate for plate in wanted if plate not in skipped]

        def one(plate: str) -> CellbookError | None:
            name = f"BBBC021_v1_images_{plate}.zip"
            try:
                archive = fetch(base_url + name, out / name, hashes.get(name), stop=stop, report=bar.update)
                if stop.is_set():
                    return None
                safe_extract(archive, out)
                files.write_json(out / RECEIPTS / plate, {"archive": name, "bytes": archive.stat().st_size})
                if not keep_archives:
                    archive.unlink()
            except CellbookError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSPC:
                    stop.set()  # the other archives would only fill the rest
                return error
            return None

        with ThreadPoolExecutor(parallel) as pool:
            try:
                failures = [error for error in pool.map(one, todo) if error is not None]
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    if failures:
        raise CellbookError(
            f"{len(failures)} of {len(todo)} archives failed; the first: {failures[0]}. What arrived is kept: the same "
            "call goes on from there"
        ) from failures[0]
    return Download(out, tuple(wanted), skipped)


def _check_plates(table: Path, plates: Iterable[str] | None) -> list[str]:
    try:
        known = list(pd.read_csv(table)["Image_Metadata_Plate_DAPI"].astype(str).unique())
    except (KeyError, ValueError) as error:
        raise CellbookError(f"{table} is not the official image table ({error}); delete it and call again") from error
    return known_plates(plates, known)


def _read_checksums(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CellbookError(f"checksums={path} cannot be read: {error.strerror}; give a file of hashes") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64})\s+\*?(\S+)", line.strip())
        if match is None:
            raise CellbookError(f"{path}, line {number}: {line[:60]!r} is not '<hash> <file name>'; mend the line")
        found[PurePosixPath(match[2]).name] = match[1].lower()
    return found


def fetch(
    url: str,
    target: str | Path,
    checksum: str | None = None,
    *,
    stop: threading.Event | None = None,
    report: Callable[[int], object] | None = None,
) -> Path:
    """Download one file, going on from what an earlier call left in ``<target>.part``.

    Parameters
    ----------
    url, target : from where to where; an existing target is kept if it agrees with the checksum (or none is given).
    checksum : expected MD5, SHA-1 or SHA-256 in hexadecimal.
    stop : leaves what has arrived and returns early when set.
    report : called with the number of bytes of each block.

    Raises
    ------
    CellbookError : if the server has no such file or cannot be reached, the connection breaks three times, the disk is
        full, or the checksum differs (the file is then deleted).
    """
    target, stop = Path(target), stop or threading.Event()
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    if not target.exists():
        for attempt in range(_RETRIES):
            try:
                complete = _transfer(url, part, note, stop, report or (lambda _: None))
            except urllib.error.HTTPError as error:
                raise CellbookError(f"{url}: the server answers {error.code} {error.reason}; check the name") from error
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                reason = getattr(error, "reason", None) or error
                if attempt + 1 == _RETRIES:
                    have = part.stat().st_size if part.exists() else 0
                    raise CellbookError(
                        f"{url}: the connection failed ({reason}); {have} bytes are kept, call again to go on"
                    ) from error
                continue
            except OSError as error:
                raise CellbookError(
                    f"cannot write {part}: {error.strerror}; what arrived is kept, make room and call again"
                ) from error
            if stop.is_set():
                return target
            if complete:
                break
        else:
            raise CellbookError(
                f"{url}: the connection broke {_RETRIES} times after {part.stat().st_size} bytes; call again to go on"
            )
        note.unlink(missing_ok=True)
        _check(part, checksum)
        os.replace(part, target)
    else:
        _check(target, checksum)
    return target


def _transfer(url: str, part: Path, note: Path, stop: threading.Event, report: Callable[[int], object]) -> bool:
    """One connection; True if the file is complete afterwards."""
    have = part.stat().st_size if part.exists() else 0
    known = json.loads(note.read_text()) if have and note.exists() else {}
    headers = {"User-Agent": "cellbook"}
    if have and known.get("version"):
        # The server sends the rest only if the file is still the one that was begun, else all of it.
        headers |= {"Range": f"bytes={have}-", "If-Range": known["version"]}
    else:
        have = 0
    if have and have == known.get("size"):
        return True
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT) as answer:
        start = have if answer.status == 206 else 0
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if answer.status == 206 and (span is None or int(span[1]) != have):
            raise HTTPException(f"the server sent {answer.headers.get('Content-Range')} for bytes from {have}")
        length = answer.headers.get("Content-Length")
        size = int(span[2]) if span and start else int(length) if length else None
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if size is not None and shutil.disk_usage(part.parent).free < size - start:
            raise OSError(errno.ENOSPC, f"{size - start} bytes are needed and the disk has fewer")
        files.write_json(note, {"version": None if (version or "").startswith("W/") else version, "size": size})
        with part.open("r+b" if start else "wb") as stream:
            stream.seek(start)
            while not stop.is_set() and (block := answer.read(_BLOCK)):
                stream.write(block)
                report(len(block))
    return size is None or part.stat().st_size == size


def _check(path: Path, checksum: str | None) -> None:
    if checksum is None:
        return
    kind = {32: "md5", 40: "sha1", 64: "sha256"}[len(checksum)]
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, kind).hexdigest()
    if found != checksum.lower():
        path.unlink()
        raise CellbookError(
            f"{path.name}: {kind} is {found}, expected {checksum}; the file was deleted, call again to fetch it anew"
        )


def safe_extract(archive: str | Path, out: str | Path) -> list[Path]:
    """Unpack a zip into a folder, or refuse it as a whole; files appear under their names only when complete.

    Raises
    ------
    CellbookError : if an entry would land outside the folder (absolute, ``..``), is a link or a device, is there twice
        or holds another, or all are more than 100 times as large as the archive (then nothing is written); if the
        archive is damaged (it is deleted); or if the disk is too small.
    """
    archive, out = Path(archive), Path(out)
    scratch = out / f".unpacking-{archive.stem}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as source, files.writing(out):
            entries = [entry for entry in source.infolist() if not entry.is_dir()]
            for entry in source.infolist():
                _refuse_escape(entry, archive)
            _refuse_clashes([entry.filename for entry in entries], archive)
            need = sum(entry.file_size for entry in entries)
            if need > _LARGEST_RATIO * archive.stat().st_size:
                raise CellbookError(
                    f"{archive.name} is refused: it would unpack to {need:,} bytes from {archive.stat().st_size:,}; "
                    "delete it and get the official archive"
                )
            out.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(out).free < need:
                raise OSError(errno.ENOSPC, f"unpacking needs {need} bytes and the disk has fewer")
            for entry in entries:
                source.extract(entry, scratch)
            for entry in entries:
                (out / entry.filename).parent.mkdir(parents=True, exist_ok=True)
                os.replace(scratch / entry.filename, out / entry.filename)
    except CellbookError:
        raise
    # an encrypted member is a RuntimeError, bad names and times are ValueErrors
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        archive.unlink(missing_ok=True)
        raise CellbookError(
            f"{archive.name} is damaged ({error}); it was deleted, call again to fetch it anew"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [out / entry.filename for entry in entries]


def _refuse_clashes(names: list[str], archive: Path) -> None:
    paths = [PurePosixPath(name) for name in names]
    often, inside = Counter(paths), {parent for path in paths for parent in path.parents}
    clash = next((str(path) for path in paths if often[path] > 1 or path in inside), None)
    if clash is not None:
        raise CellbookError(
            f"{archive.name} is refused: its entry {clash!r} is there twice or holds another; delete it and get the "
            "official archive"
        )


def _refuse_escape(entry: zipfile.ZipInfo, archive: Path) -> None:
    # zipfile itself would quietly strip such names; an archive that contains one is not the official file.
    name = entry.orig_filename.replace("\\", "/")
    mode = entry.external_attr >> 16
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/") or "\0" in name:
        what = "would be written outside its folder"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "is a link or a device"
    else:
        return
    raise CellbookError(
        f"{archive.name} is refused: its entry {entry.orig_filename!r} {what}; delete it and get the official archive"
    )
