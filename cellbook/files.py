"""Writing files so that nothing half-written is ever left under a final name, one process at a time; hashing them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from cellbook.errors import CellbookError

log = logging.getLogger(__name__)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a failed write into one sentence that names `path`."""
    try:
        yield
    except PermissionError as error:
        raise CellbookError(f"no permission to write {path}: choose another folder or change its rights") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise CellbookError(f"cannot write {path}: {error.strerror} ({error.filename}): choose another name") from error
    except OSError as error:
        # numpy reports a short write without a number: "436749 requested and 153472 written"
        if error.errno is None and " requested and " not in str(error):
            raise
        why = error.strerror or f"the disk is full ({error})"
        raise CellbookError(f"cannot write {path}: {why}; free some space or choose another place") from error


@contextmanager
def alone(place: Path, *, wait: bool = True) -> Iterator[bool]:
    """Keep every other process off `place` for a while; gives whether one had to be waited for.

    The lock is the file `.<name>.lock` beside the place and names its process. The system frees it when that process
    ends, however it ends, so a file that a killed process has left behind holds nobody up.

    Raises
    ------
    CellbookError : if the lock cannot be written or, without `wait`, if another process is at work there.
    """
    stream, waited = _lock_file(place, wait)
    with stream:
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        try:
            yield waited
        finally:
            Path(stream.name).unlink(missing_ok=True)


def _lock_file(place: Path, wait: bool) -> tuple[IO[str], bool]:
    lock, waited = place.with_name(f".{place.name}.lock"), False
    while True:
        with writing(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            stream = lock.open("a+", encoding="utf-8")
        if not _lock(stream, wait=False):
            stream.seek(0)
            holder = stream.read() or "another process"
            if not wait:
                raise CellbookError(f"{holder} is at work on {place}: wait until it has ended, or give another place")
            if not waited:
                log.warning("waiting for %s, which is at work on %s", holder, place)
            waited = _lock(stream, wait=True)
        # Whoever held the lock has removed its file, and by now a third process may hold the next of that name.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
                return stream, waited
        stream.close()


def _lock(stream: IO[str], *, wait: bool) -> bool:
    """Lock an open file; False if another process holds it."""
    try:
        import fcntl
    except ImportError:  # on Windows
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("%s cannot be locked (%s): let no other process work there", stream.name, error.strerror)
    return True


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary sibling of `path`, then move that into place."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            temporary.chmod(0o644)  # mkstemp makes files that only their owner may read
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def put_folder(new: Path, target: Path) -> None:
    """Move a complete folder to its place, where an older one may be: that one is back if this fails, else gone."""
    old = target.with_name(f".{target.name}.old")
    with writing(target):
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(new, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or damaged one is an error that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CellbookError(f"no file {path}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CellbookError(f"{path} is not valid JSON ({error}): restore it from git or make it anew") from error


def write_array(path: Path, blocks: Iterable[np.ndarray]) -> None:
    """Write blocks of an array one after another, along the first axis, as one ``.npy`` file.

    As a stream: where the disk is full, a memory map ends the process with a bus error, a stream with a message.
    """
    count, kind = 0, None
    with path.open("wb") as stream:
        for block in blocks:
            if kind is None:
                kind = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(block))
                np.lib.format.write_array_header_1_0(stream, kind)
            stream.write(np.ascontiguousarray(block))
            count += len(block)
            del block  # before the next one is made
        if kind is None:
            raise CellbookError(f"nothing to write to {path}: give at least one block.")
        # The header keeps room for a longer first axis, so it can be written again in its place.
        stream.seek(0)
        np.lib.format.write_array_header_1_0(stream, kind | {"shape": (count, *kind["shape"][1:])})
