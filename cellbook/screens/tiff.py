"""Reading microscopes' TIFFs: what a plane is comes from the file's own description, and pixels come back unchanged."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cellbook.errors import CellbookError
from cellbook.screens.planes import OpenFile, Planes, check_segments, find_planes


def read_tiff(path: str | Path, **wanted: Any) -> np.ndarray:
    """One plane of a TIFF as an (H, W) array; arguments and errors as in `read_planes`."""
    return read_planes(path, 1, **wanted)[0][0]


def read_planes(
    path: str | Path,
    channels: int,
    size: tuple[int, int] | None = None,
    dtype: str = "uint16",
    plane: str = "",
    series: int = 0,
) -> tuple[np.ndarray, list[str]]:
    """The channels that one TIFF holds, as a (channels, H, W) array, and notes on what was chosen in it.

    Axes and series are those of the file's own description (OME, ImageJ, MetaMorph STK, Zeiss LSM and others that
    tifffile knows). Channels are its channel axis, else its samples, else pages of which it says nothing. Of any other
    axis `plane` must choose one. Smaller copies (thumbnails, pyramids) are passed over.

    Parameters
    ----------
    path : the file.
    channels : how many it must hold.
    size : (H, W) that it must have; None accepts any.
    dtype : type of the pixels. Other numbers are accepted where all are whole and fit.
    plane : what to take of other axes, such as "Z=2" or "Z=2,T=1", counted from 1; pages without description are
        "page".
    series : which image of a file that holds several, counted from 1; 0 where there is one.

    Raises
    ------
    CellbookError
        If the file is missing, empty, damaged or no TIFF; if planes are ambiguous or missing; of another type or size.
    """
    with _found(Path(path), channels, size, dtype, plane, series) as found:
        pixels = found.pixels()
    return _exact(Path(path), pixels, dtype), found.notes


def check_planes(path: str | Path, channels: int, **wanted: Any) -> tuple[int, int]:
    """Height and width of what `read_planes` would read, from the file's directories alone; errors likewise."""
    with _found(Path(path), channels, **wanted) as found:
        for page in found.handles:
            if not isinstance(page, int):
                check_segments(page)
    return found.size


@contextmanager
def _found(
    path: Path,
    channels: int,
    size: tuple[int, int] | None = None,
    dtype: str = "uint16",
    plane: str = "",
    series: int = 0,
) -> Iterator[Planes]:
    """The planes that are wanted of a file, of the right kind, while it is open."""
    with _opened(path) as file:
        found = find_planes(file, channels, plane, series)
        _check_kind(path, found, size, dtype)
        yield found


@contextmanager
def _opened(path: Path) -> Iterator[OpenFile]:
    """A TIFF with what tifffile says of it; whatever it raises becomes one sentence that names the file."""
    import tifffile

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CellbookError(f"{path} {what}; give an image, or check the images folder and the name in the table")
    if path.stat().st_size == 0:
        raise CellbookError(f"{path} is empty (0 bytes); copy it again from where it was made")
    heard = _Listener()
    logger = logging.getLogger("tifffile")
    before = logger.propagate, logger.level
    logger.propagate, level = False, logging.WARNING
    logger.setLevel(level)
    logger.addHandler(heard)
    try:
        with tifffile.TiffFile(path) as tif:
            yield OpenFile(path, tif, heard.said)
    except CellbookError:
        raise
    except PermissionError as error:
        raise CellbookError(f"{path} cannot be read: no permission; change its rights") from error
    except MemoryError as error:
        raise CellbookError(f"{path} needs more memory than there is ({_reason(error)}); is it damaged?") from error
    except Exception as error:  # tifffile raises a dozen types for a damaged file, down to struct.error and IndexError
        raise CellbookError(f"{path} {_fault(path, error)}") from error
    finally:
        logger.removeHandler(heard)
        logger.propagate = before[0]
        logger.setLevel(before[1])


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else "no reason given"


def _fault(path: Path, error: Exception) -> str:
    reason = _reason(error)
    if match := re.search(r"<?(\w+\.\w+)?.*requires the '(\w+)' package", reason):
        codec = (match[1] or "a codec").split(".")[-1]
        return f"is whole, but stored with {codec}, which needs the package {match[2]}: pip install {match[2]}"
    with path.open("rb") as stream:
        if stream.read(2) not in (b"II", b"MM", b"EP"):
            return "is no TIFF, whatever its name says; export the raw images as TIFF"
    return f"is truncated or damaged ({path.stat().st_size} bytes: {reason}); copy it again from where it was made"


def _check_kind(path: Path, found: Planes, size: tuple[int, int] | None, dtype: str) -> None:
    kind = np.dtype(found.dtype)
    if found.dtype != dtype and (kind.kind not in "iuf" or kind.itemsize < np.dtype(dtype).itemsize):
        raise CellbookError(_wrong_kind(path, found.dtype, dtype))
    if size is not None and found.size != tuple(size):
        raise CellbookError(
            f"{path} is {found.size[0]} x {found.size[1]} pixels, expected {size[0]} x {size[1]}; give the true field "
            "size, or replace the file"
        )


def _wrong_kind(path: Path, found: str, dtype: str, why: str = "") -> str:
    return (
        f"{path} holds {found} pixels{why}, {dtype} are needed; use the raw camera images, not a "
        f"rendering{', or --dtype uint8' if found == 'uint8' else ''}"
    )


def _exact(path: Path, pixels: np.ndarray, dtype: str) -> np.ndarray:
    """Pixels in the wanted type, if none changes by it."""
    if str(pixels.dtype) == dtype:
        return pixels
    limits = np.iinfo(dtype)
    if not (np.isfinite(pixels).all() and limits.min <= pixels.min() and pixels.max() <= limits.max):
        why = f" outside {limits.min} to {limits.max}"
    elif (pixels != np.floor(pixels)).any():
        why = " that are no whole numbers"
    else:
        return pixels.astype(dtype)
    raise CellbookError(_wrong_kind(path, str(pixels.dtype), dtype, why))
