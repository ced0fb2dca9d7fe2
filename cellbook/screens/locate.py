"""Find the published BBBC021 files on this machine, or fetch the few that can be fetched, and check them.

A file is looked for in ``$CELLBOOK_DATA``, in ``../shared/data`` seen from the repository and from the current folder,
and in the user's cache. Its size and SHA-256 are compared with the published ones before anything reads it, so that a
truncated download stops with a name and not with a wrong number. ``CELLBOOK_OFFLINE=1`` forbids downloads.
"""

import csv
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from cellbook.errors import CellbookError, DataNotFound, nearest
from cellbook.files import sha256

_TIMEOUT = (5, 20)  # seconds to connect and to wait for bytes: no network must be noticed quickly


@dataclass(frozen=True)
class KnownFile:
    """Where a published file lies inside a data folder, what it must be, and where it can be fetched (if anywhere)."""

    path: str
    size: int  # bytes
    sha256: str
    url: str | None = None

    @property
    def name(self) -> str:
        """File name without its folder."""
        return self.path.rsplit("/", 1)[-1]


def _known_files() -> Iterator[KnownFile]:
    with (files("cellbook.screens") / "known_files.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            yield KnownFile(row["path"], int(row["size"]), row["sha256"], row["url"] or None)


KNOWN_FILES = {file.name: file for file in _known_files()}


def find(name: str) -> Path:
    """Path of a known data file, checked against its published size and SHA-256; downloaded once where possible.

    Parameters
    ----------
    name : file name without folder; ``KNOWN_FILES`` lists them.

    Raises
    ------
    CellbookError : unknown name; ``$CELLBOOK_DATA`` is not a folder; the file is nowhere and cannot be fetched; the
        file is not the published one (truncated or changed).
    """
    file = _known(name)
    for place in _places(file):
        if place.is_file():
            return _checked(place, file)
    return _download(file)


def is_local(name: str) -> bool:
    """Whether a known file lies on this machine already; neither downloads nor checks it."""
    return any(place.is_file() for place in _places(_known(name)))


def _places(file: KnownFile) -> Iterator[Path]:
    """Where a file may lie, in the order in which it is looked for."""
    for folder in _folders():
        yield from (folder / file.path, folder / file.name)
    yield cache_folder() / file.name


def cache_folder() -> Path:
    """Folder of downloaded files: ``cellbook`` in the user's cache."""
    return Path(_pooch().os_cache("cellbook"))


def _known(name: str) -> KnownFile:
    if name in KNOWN_FILES:
        return KNOWN_FILES[name]
    hint = nearest(name, KNOWN_FILES, f"the known files are: {', '.join(sorted(KNOWN_FILES))}")
    raise CellbookError(f"{name!r} is not a known data file; {hint}")


def _folders() -> Iterator[Path]:
    """Yield the data folders in the order in which they are searched, the cache apart."""
    named = os.environ.get("CELLBOOK_DATA", "")
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise CellbookError(
                f"CELLBOOK_DATA is set to {named!r}, which {what}; "
                "set it to the folder that holds 'bbbc021', or unset it"
            )
        yield folder
    beside = [Path(__file__).resolve().parents[3] / "shared" / "data", Path.cwd().parent / "shared" / "data"]
    for folder in dict.fromkeys(beside):
        yield folder


def _checked(path: Path, file: KnownFile) -> Path:
    status = path.stat()
    if status.st_size != file.size:
        kind = "a truncated download?" if status.st_size < file.size else "not the published file"
        raise CellbookError(
            f"{path} has {status.st_size:,} bytes and should have {file.size:,}: {kind}; {_mend(path, file)}"
        )
    found = _sha256(path, status.st_size, status.st_mtime_ns)
    if found != file.sha256:
        raise CellbookError(
            f"{path} has SHA-256 {found} and should have {file.sha256}: damaged or changed; {_mend(path, file)}"
        )
    return path


def _mend(path: Path, file: KnownFile) -> str:
    if file.url is None:
        return "replace it by the original, or point CELLBOOK_DATA at a folder that holds it"
    return f"delete it and run again, or fetch it anew from {file.url}"


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    # Size and time are part of the key: a file that changes is hashed again, one that does not is hashed once.
    try:
        return sha256(path)
    except OSError as error:
        raise CellbookError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error


def _download(file: KnownFile) -> Path:
    where = ", ".join(map(str, [*_folders(), cache_folder()]))
    missing = f"{file.name} ({file.size:,} bytes) was not found, neither as such nor as {file.path}, in {where}"
    if file.url is None:
        raise DataNotFound(
            f"{missing}; it cannot be downloaded: set CELLBOOK_DATA to a folder that holds it, "
            "or use the simulated screen, which needs no data"
        )
    by_hand = f"fetch {file.url} yourself, put it into a folder and set CELLBOOK_DATA to that folder"
    if os.environ.get("CELLBOOK_OFFLINE", "").lower() not in {"", "0", "false", "no"}:
        raise DataNotFound(f"{missing}, and CELLBOOK_OFFLINE forbids the download; unset it, or {by_hand}")
    pooch = _pooch()
    # pooch announces a download on standard error with the cache's path: nothing that a page should carry
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        fetched = pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=file.name,
            path=cache_folder(),
            downloader=pooch.HTTPDownloader(timeout=_TIMEOUT),
        )
    except (OSError, ValueError) as error:  # what requests raises are OSErrors; ValueError: the bytes are not the file
        reason = _reason(error, file.url)
        raise DataNotFound(f"{missing}, and the download failed: {reason}; try again later, or {by_hand}") from error
    return Path(fetched)


def _reason(error: Exception, url: str) -> str:
    from requests import exceptions

    host = urlsplit(url).netloc
    if isinstance(error, exceptions.Timeout):
        return f"no answer from {host} in time"
    if isinstance(error, exceptions.ConnectionError):
        return f"no connection to {host}"
    if isinstance(error, ValueError):
        return "what arrived has another SHA-256 than the published file"
    return str(error).splitlines()[0][:200] or type(error).__name__


def _pooch() -> ModuleType:
    try:
        with warnings.catch_warnings():
            # The import asks for progress bars, which complain on a page where there are no widgets for them.
            warnings.filterwarnings("ignore", message="IProgress not found")
            import pooch
    except ImportError as error:
        raise CellbookError(
            "pooch is needed to look into the cache of downloaded files and is not installed; "
            "pip install 'cellbook[book]', or set CELLBOOK_DATA to a folder that holds the data"
        ) from error
    return pooch
