"""Find the published BBBC021 files on this machine, or fetch the few that can be fetched, and check them.

A file is looked for in ``$CELLBOOK_DATA``, in ``../shared/data`` seen from the repository and from the current folder,
and in the user's cache. Its size and SHA-256 are compared with the published ones before anything reads it, so that a
truncated download stops with a name and not with a wrong number. ``CELLBOOK_OFFLINE=1`` forbids downloads.
"""

import difflib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from cellbook.errors import CellbookError, DataNotFound
from cellbook.files import sha256

_GALLERY = "https://github.com/cytomining/cytominergallery/raw/master/inst/extdata/"
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


_FILES = (
    KnownFile(
        "bbbc021/metadata/BBBC021_v1_image.csv.gz",
        1_115_198,
        "28df679a0979aa98b9369473d9c8248de2524d64f8ed5fabfd4a8540bcaef034",
        _GALLERY + "BBBC021_v1_image.csv.gz",
    ),
    KnownFile(
        "bbbc021/metadata/BBBC021_v1_moa.csv",
        4_404,
        "cddb6c6b72c043fd25f3a41d84624d4817927a1d76fe87dc829674181dd62719",
        _GALLERY + "BBBC021_v1_moa.csv",
    ),
    KnownFile(
        "bbbc021/features/ljosa_jbiomolscreen_2013_per_well_mean.csv.gz",
        2_863_850,
        "f723a6f78bf66ce7713226c890eb499a2687f22bc095968d5043f6a40e7847ee",
        _GALLERY + "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz",
    ),
    KnownFile(
        "bbbc021/metadata/idr0035-screenA-annotation.csv",
        713_912,
        "57735f8906a349c40d545f879aa990f9ae278f86d6c714565b4a8726ab928b6c",
    ),
    KnownFile(
        "bbbc021/crops/crops_all_treatments.npz",
        31_142_774,
        "42cd6225e20d03e05ae324b8a90f7554646b8d176e3eb67eea952aa2c0de648a",
    ),
    KnownFile(
        "bbbc021/crops/crops_all_treatments.csv",
        523_981,
        "17dded5751d97d0c725fb6a4352e8a552db2077342272a8bff13a66ab4a6343e",
    ),
    KnownFile(
        "bbbc021/crops/crops_dense_wells.npz",
        14_871_764,
        "27f1bb58966ca7ba189f0fab4ede10bd9ed0f4a0490364e5e2dd0aaf7eb8728e",
    ),
    KnownFile(
        "bbbc021/crops/crops_dense_wells.csv",
        265_002,
        "92339e56abeb3f7979606ae22d8c901393313a0dd0bee76c71b428d2d142ff1c",
    ),
    KnownFile(
        "bbbc021/fields_reassembled/fields.csv",
        637,
        "13257710daa83144f1b8787e75a771d8e9dec1bb10b0c4e84acbd7d8e300cc9b",
    ),
    KnownFile(
        "bbbc021/fields_reassembled/B02_s1_w1B1A7ADEA-8896-4C7D-8C63-663265374B72.npz",
        1_828_114,
        "04cf70a47c58cb1047bb8323cb95fa3e54f8421860479a7cc37a4687e89b7326",
    ),
    KnownFile(
        "bbbc021/fields_reassembled/B02_s2_w125CF833D-7519-4E5D-A1A5-2A12E42E41E7.npz",
        3_094_172,
        "c80b9a8d62a1f280a78f07c288ee7453e6fcee07c02b676ab9933e034f5174a5",
    ),
    KnownFile(
        "bbbc021/fields_reassembled/B02_s3_w115844D21-28B9-4615-8AE8-ADD4D19520E2.npz",
        1_889_670,
        "2146fdb3c3e7d75d62a01fc1768922b8553ba2969fecc4c0be22c218dd4d63c0",
    ),
    KnownFile(
        "bbbc021/fields_reassembled/B02_s3_w163EBC7C9-2C15-4D4A-AA4D-64D94CF89087.npz",
        1_120_280,
        "7d6ab895178ddf0c7f9fc569cf97d1a6e7a07cd84889465f60e8e7147d614459",
    ),
    KnownFile(
        "bbbc021/fields_reassembled/B02_s3_w1AE61D0E7-AF34-42E7-89FE-7D22560989F4.npz",
        2_087_156,
        "d873d4f38d8b2e7fbc3055f7f274d4de465c7afecb20db61ea26396f5e816cfb",
    ),
    KnownFile(
        "bbbc021/images/Week1_150607_C02_s3_w1E54F0108-F44A-4F6E-9637-6A9DE80F0823.tif",
        2_625_458,
        "575804311f0bd93b38cfdfc09bef53cb65b1d42557767d7d382934ac09a1f61b",
    ),
    KnownFile(
        "bbbc022/IXMtest_A02_s9.tif",
        1_650_195,
        "8cfade4710cb926b56828fdc13147338332713006dce0961e55ad50f4317fd2d",
    ),
)
KNOWN_FILES = {file.name: file for file in _FILES}


def find(name: str) -> Path:
    """Path of a known data file, checked against its published size and SHA-256; downloaded once where possible.

    Parameters
    ----------
    name : str
        File name without folder; ``KNOWN_FILES`` lists them.

    Returns
    -------
    Path

    Raises
    ------
    CellbookError
        Unknown name; ``$CELLBOOK_DATA`` is not a folder; the file is nowhere and cannot be fetched; the file is not the
        published one (truncated or changed).
    """
    file = _known(name)
    looked = []
    for folder in _folders():
        for candidate in (folder / file.path, folder / file.name):
            if candidate.is_file():
                return _checked(candidate, file)
        looked.append(str(folder))
    cached = cache_folder() / file.name
    if cached.is_file():
        return _checked(cached, file)
    looked.append(str(cache_folder()))
    return _download(file, looked)


def is_local(name: str) -> bool:
    """Whether a known file lies on this machine already; neither downloads nor checks it."""
    file = _known(name)
    places = [place for folder in _folders() for place in (folder / file.path, folder / file.name)]
    return any(place.is_file() for place in [*places, cache_folder() / file.name])


def cache_folder() -> Path:
    """Folder of downloaded files: ``cellbook`` in the user's cache."""
    return Path(_pooch().os_cache("cellbook"))


def _known(name: str) -> KnownFile:
    if name in KNOWN_FILES:
        return KNOWN_FILES[name]
    near = difflib.get_close_matches(name, KNOWN_FILES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"the known files are: {', '.join(sorted(KNOWN_FILES))}"
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


def _download(file: KnownFile, looked: list[str]) -> Path:
    where = ", ".join(looked)
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
