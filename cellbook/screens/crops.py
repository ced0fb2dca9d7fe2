"""Square crops of single cells: integer slices around centres, with a stated rule at the border of the field."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cellbook.errors import CellbookError
from cellbook.profiles.table import check_choice
from cellbook.screens.fields import CHANNELS, FIELD_SIZE, PIXEL_UM
from cellbook.screens.nuclei import METHODS
from cellbook.screens.planes import parse_plane

BORDERS = ("drop", "reflect", "zero")


@dataclass(frozen=True)
class Settings:
    """How fields become cells; what decides the content of an extraction."""

    size: int = 68  # pixels
    method: str = "otsu"  # see `nuclei.detect`
    border: str = "drop"  # see `crop`
    illumination: bool = True  # per plate and channel
    channels: tuple[str, ...] = CHANNELS  # the first one shows the nuclei
    field_size: tuple[int, int] | None = FIELD_SIZE  # height, width; None accepts any
    dtype: str = "uint16"
    pixel_um: float = PIXEL_UM
    plane: str = ""  # what to take of files with more axes than channels, see `tiff.read_planes`
    series: int = 0

    @property
    def wanted(self) -> dict[str, Any]:
        """What an image file must be, and what is taken of it: keywords of `tiff.read_planes`."""
        return {"size": self.field_size, "dtype": self.dtype, "plane": self.plane, "series": self.series}


def make_settings(**values: Any) -> Settings:
    """`Settings` from keywords, checked."""
    unknown = sorted(set(values) - set(Settings.__dataclass_fields__))
    if unknown:
        raise CellbookError(f"unknown setting {', '.join(unknown)}; the settings are {', '.join(asdict(Settings()))}")
    settings = replace(Settings(), **values)
    check_choice("method", settings.method, METHODS)
    check_choice("border", settings.border, BORDERS)
    check_choice("dtype", settings.dtype, ("uint8", "uint16"))
    largest = min(settings.field_size) if settings.field_size else 1 << 15
    if not isinstance(settings.size, int) or not 2 <= settings.size <= largest:
        raise CellbookError(f"size is {settings.size!r}; give whole pixels from 2 to {largest}")
    if not 0 < settings.pixel_um < math.inf:
        raise CellbookError(f"pixel_um is {settings.pixel_um:g}; give the side of a pixel in micrometres")
    if len(set(settings.channels)) < len(settings.channels) or not all(settings.channels):
        raise CellbookError(f"channels are {', '.join(settings.channels)}; give each a name of its own")
    if settings.series < 0:
        raise CellbookError(f"series is {settings.series}; count from 1, or leave it out where a file holds one image")
    parse_plane(settings.plane)
    return settings


def crop(image: np.ndarray, centres: np.ndarray, size: int = 68, border: str = "drop") -> tuple[np.ndarray, np.ndarray]:
    """Square windows around centres, by integer slicing: pixels are copied, never resampled.

    Parameters
    ----------
    image : (C, H, W).
    centres : (n, 2) integers y, x.
    size : side of the window; rows ``y - size // 2`` to ``y - size // 2 + size - 1``, columns alike.
    border : what happens to a window that reaches over the edge: "drop" it, or fill by "reflect" or "zero".

    Returns
    -------
    crops
        (m, C, size, size), of the type of `image`.
    kept
        (m,) rows of `centres` they belong to.

    Raises
    ------
    CellbookError : if the border rule is unknown, the size is not positive or larger than the field, or a centre lies
        outside.
    """
    check_choice("border", border, BORDERS)
    height, width = image.shape[-2:]
    if not 0 < size <= min(height, width):
        raise CellbookError(
            f"size is {size}; crops of a {height} x {width} field have 1 to {min(height, width)} pixels"
        )
    centres = np.asarray(centres, np.int64).reshape(-1, 2)
    outside = ((centres < 0) | (centres >= (height, width))).any(axis=1)
    if outside.any():
        raise CellbookError(
            f"{int(outside.sum())} of {len(centres)} centres lie outside the {height} x {width} field, first "
            f"{centres[outside][0].tolist()}; give y before x"
        )
    first = centres - size // 2
    kept = np.arange(len(centres))
    if border == "drop":
        kept = np.flatnonzero(((first >= 0) & (first + size <= (height, width))).all(axis=1))
        first = first[kept]
    else:
        pad = size // 2 + 1
        mode: dict[str, Any] = {"mode": "reflect"} if border == "reflect" else {"mode": "constant"}
        image, first = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), **mode), first + pad
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(-2, -1))
    return np.ascontiguousarray(windows[:, first[:, 0], first[:, 1]].swapaxes(0, 1)), kept
