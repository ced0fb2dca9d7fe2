"""Which planes of a microscope's TIFF are meant: by the file's own description, and by what the caller names."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cellbook.errors import CellbookError

PAGES = "page"  # the axis of planes of which the file does not say what they are
_NAMES = {"Z": "depth", "T": "time", "C": "channel", "S": "sample", "P": "position"}
_UNDESCRIBED = frozenset("IQ")  # tifffile's letters for such planes
_PLAIN = ("generic", "uniform", "shaped")  # series that tifffile made of pages that no description orders
_DESCRIBED = ("ome", "imagej", "stk", "lsm", "fluoview", "mmstack")
# Of what tifffile logs and then passes over, this means that pixels are missing; the rest are odd but harmless tags.
_BROKEN = re.compile(r"tag list|page offset|offset to page|circular|missing data|ImageJ series metadata invalid")
_HUGE = 1 << 28  # bytes of a plane above which its size must be plausible for the size of the file
_RATIO = 2000  # what deflate and LZW can reach
_MANY = 1 << 20  # planes that no file of a field has


class OpenFile(NamedTuple):
    """A file that tifffile has opened."""

    path: Path
    tif: Any
    said: list[str]  # what tifffile logged about it


class Planes(NamedTuple):
    """The planes of a file that were asked for: what they are, and how to read them."""

    size: tuple[int, int]  # height, width
    dtype: str
    notes: list[str]  # what was chosen among several planes, and why
    handles: list[Any]  # one a plane: a page, or its number among the planes of the series
    series: Any

    def pixels(self) -> np.ndarray:
        """(planes, H, W), in the machine's byte order."""
        whole = None
        planes = []
        for handle in self.handles:
            if not isinstance(handle, int):
                if handle.parent.filehandle.closed:  # another file of the set; it is closed with the first
                    handle.parent.filehandle.open()
                check_segments(handle)
                plane = handle.asarray()
            elif self.series.dataoffset is not None and self.series.get_axes(True).endswith("YX"):
                kind = np.dtype(self.series.keyframe.parent.byteorder + self.series.dtype.char)
                start = self.series.dataoffset + handle * math.prod(self.size) * kind.itemsize
                plane = self.series.parent.filehandle.read_array(kind, math.prod(self.size), start)
            else:
                whole = _planes_first(self.series) if whole is None else whole
                plane = whole[handle]
            planes.append(plane.reshape(self.size))
        stack = np.stack(planes)
        return stack.astype(stack.dtype.newbyteorder("="), copy=False)


def parse_plane(text: str) -> dict[str, int]:
    """Axis -> number counted from 1, of a text like "Z=2,T=1"."""
    chosen = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([A-Za-z]|page)\s*=\s*([1-9]\d{0,8})", word, flags=re.IGNORECASE)
        if match is None:
            raise CellbookError(f"plane is {text!r}; write an axis and a number counted from 1, such as Z=2 or page=1")
        chosen[PAGES if len(match[1]) > 1 else match[1].upper()] = int(match[2])
    return chosen


def find_planes(file: OpenFile, channels: int, plane: str, number: int) -> Planes:
    """The planes that are asked for, without reading pixels; see `tiff.read_planes`."""
    path, chosen = file.path, parse_plane(plane)
    series, grid, letters, notes = _grid(file, number)
    if broken := next((text for text in file.said if _BROKEN.search(text)), None):
        raise CellbookError(f"{path} is truncated or damaged: its list of pages is broken; copy it again ({broken})")
    size = tuple(side for side, letter in zip(_shape(series), series.get_axes(True), strict=True) if letter in "YX")
    nbytes, held = math.prod(size) * series.dtype.itemsize, path.stat().st_size
    if nbytes == 0 or (nbytes > _HUGE and nbytes > _RATIO * held):
        raise CellbookError(f"{path} is damaged: it claims {size[0]} x {size[1]} pixels in {held} bytes")
    if series.keyframe.photometric == 0:
        raise CellbookError(f"{path} says that 0 is white, as inverted pictures do; save it with 0 as black")
    grid, letters = _taken(path, grid, letters, chosen, notes)
    whole, own = grid, _own(grid, file.tif)
    axis = _channel_axis(own, letters, channels)
    grid = own
    if axis is None and channels > 1:
        axis, grid = _channel_axis(whole, letters, channels), whole
    _check_axes(path, grid, letters, axis, channels)
    handles = grid.ravel().tolist()
    if absent := sum(handle is None for handle in handles):
        named = re.findall(r"failed to read '([^']+)'", " ".join(file.said))
        raise CellbookError(
            f"{path} describes {grid.size} planes, {absent} of which are missing"
            f"{f', such as the file {named[0]}' if named else ''}; put the whole set into one folder"
        )
    if axis is not None and letters[axis] == PAGES:
        notes.append(f"its {channels} pages, of which it does not say what they are, are taken for the channels")
    return Planes(size, str(series.dtype), notes, handles, series)  # type: ignore[arg-type]


def _shape(series: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in series.get_shape(True))


def _grid(file: OpenFile, number: int) -> tuple[Any, np.ndarray, list[str], list[str]]:
    """The chosen series, its planes as an array of handles, the letter of each of its axes, and notes."""
    text = file.tif.ome_metadata or ""
    sides = [max(map(int, re.findall(rf'Size{axis}="(\d{{1,18}})', text)), default=1) for axis in "ZCT"]
    _check_number(file.path, math.prod(sides))  # before tifffile makes a list of them
    every = [series for series in file.tif.series if math.prod(_shape(series))]
    full = [series for series in every if not (series.keyframe.is_reduced or series.keyframe.is_mask)] or every
    if not full:
        raise CellbookError(f"{file.path} is truncated or damaged: it holds no image; copy it again")
    kinds = {series.kind for series in full}
    described = next((name for name in _DESCRIBED if getattr(file.tif, f"is_{name}")), None)
    if described and kinds <= set(_PLAIN) and (len(full) > 1 or math.prod(_shape(full[0])[:-2]) > 1):
        raise CellbookError(
            f"{file.path} has a description of its planes ({described}) that does not agree with its {len(full)} "
            "images, or lies in another file; export it again as one file"
        )
    same = {(series.get_axes(True)[-2:], _shape(series)[-2:], str(series.dtype)) for series in full}
    plain = all(set(series.get_axes(True)[:-2]) <= _UNDESCRIBED for series in full)
    if number == 0 and len(full) > 1 and len(same) == 1 and plain and kinds <= set(_PLAIN):
        pages = [page for series in full for page in _handles(series)]
        if all(not isinstance(page, int) for page in pages):  # pages written one by one
            pages.sort(key=lambda page: np.atleast_1d(page.index).tolist())
            return full[0], _as_array(pages, (len(pages),)), [PAGES], []
    if number > len(full) or (number == 0 and len(full) > 1):
        sizes = ", ".join(" x ".join(map(str, _shape(series))) for series in full[:4])
        raise CellbookError(
            f"{file.path} holds {len(full)} images ({sizes}{' ...' if len(full) > 4 else ''}); say which by --series, "
            "counted from 1, or export one a file"
        )
    series = full[max(number - 1, 0)]
    notes = [f"image {number} of {len(full)} taken"] if len(full) > 1 else []
    axes, shape = series.get_axes(True), _shape(series)
    if "Y" not in axes or "X" not in axes:
        raise CellbookError(f"{file.path} holds no plane of pixels: its axes are {axes}; export images")
    letters = [letter for letter in axes if letter not in "YX"]
    sides = tuple(side for letter, side in zip(axes, shape, strict=True) if letter not in "YX")
    if letters and set(letters) <= _UNDESCRIBED:
        letters, sides = [PAGES], (math.prod(sides),)
    lengths = (file.tif.stk_metadata or {}).get("Wavelengths", ()) if series.kind == "stk" else ()
    if len(sides) == 1 and len(set(map(str, lengths))) == sides[0]:  # MetaMorph's planes, each of its own colour
        letters = ["C"]
    return series, _as_array(_handles(series), sides), letters, notes


def _as_array(handles: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(handles), dtype=object)
    array[:] = handles
    return array.reshape(shape)


def _handles(series: Any) -> list[Any]:
    """Pages, where each is one plane of the series; else the numbers of its planes."""
    axes, shape = series.get_axes(True), _shape(series)
    planes = math.prod(side for letter, side in zip(axes, shape, strict=True) if letter not in "YX")
    _check_number(series.keyframe.parent.filehandle.name, planes)
    one_each = axes.endswith("YX") and len(series) == planes and series.keyframe.shape == shape[-2:]
    return list(series) if one_each else list(range(planes))


def _check_number(path: str | Path, planes: int) -> None:
    if planes > _MANY:
        raise CellbookError(f"{path} is described as {planes:,} planes; is it damaged? Export it again")


def _planes_first(series: Any) -> np.ndarray:
    axes = series.get_axes(True)
    whole = np.moveaxis(series.asarray().reshape(_shape(series)), (axes.index("Y"), axes.index("X")), (-2, -1))
    return whole.reshape(-1, *whole.shape[-2:])


def _taken(
    path: Path, grid: np.ndarray, letters: list[str], chosen: dict[str, int], notes: list[str]
) -> tuple[np.ndarray, list[str]]:
    """The grid at the chosen places of its axes."""
    for axis, place in chosen.items():
        if axis not in letters and place == 1:
            continue
        number = grid.shape[letters.index(axis)] if axis in letters else 1
        if place > number:
            raise CellbookError(f"{path} has {number} planes along {axis}; there is no {axis}={place}")
        grid = grid.take(place - 1, axis=letters.index(axis))
        grid, letters = np.asarray(grid, dtype=object), [letter for letter in letters if letter != axis]
        notes.append(f"{axis} {place} of {number} taken")
    return grid, letters


def _own(grid: np.ndarray, tif: Any) -> np.ndarray:
    """Of a set of several files, the planes that lie in this one, if they are a block of the whole."""
    mine = np.array([handle is not None and (isinstance(handle, int) or handle.parent is tif) for handle in grid.flat])
    if mine.all() or not mine.any():
        return grid
    places = [np.unique(place) for place in np.nonzero(mine.reshape(grid.shape))]
    block = grid[np.ix_(*places)]
    return block if block.size == mine.sum() else grid


def _channel_axis(grid: np.ndarray, letters: list[str], channels: int) -> int | None:
    """Which axis holds the channels; None if there is none of that many."""
    if channels == 1:
        return None
    wanted = next((letter for letter in "CS" if letter in letters and grid.shape[letters.index(letter)] > 1), PAGES)
    if wanted in letters and grid.shape[letters.index(wanted)] == channels:
        return letters.index(wanted)
    return None


def _check_axes(path: Path, grid: np.ndarray, letters: list[str], axis: int | None, channels: int) -> None:
    """Refuse planes of which nobody said which is meant."""
    sides = {
        letter: side for place, (letter, side) in enumerate(zip(letters, grid.shape, strict=True)) if place != axis
    }
    rest = {letter: side for letter, side in sides.items() if side > 1}
    if not rest and (channels == 1 or axis is not None):
        return
    first, count = next(iter(rest.items()), ("", 1))
    shown = " and ".join(f"{side} along {_NAMES.get(letter, letter)} ({letter})" for letter, side in rest.items())
    if not rest:
        what = f"holds one plane, {channels} channels are named: name a file for each"
    elif channels > 1 and axis is None:
        what = (
            f"holds planes that are not {channels} channels: {shown}; name the channels there are, or a file for each"
        )
    elif list(rest) == ["S"]:
        what = (
            f"is a colour image of {count} samples a pixel; split it, or export the raw camera image, one grey channel"
        )
    elif list(rest) == [PAGES]:
        what = f"has {count} pages and does not say what they are; split them, or say which to take by --plane page=1"
    else:
        what = f"is a stack of planes, {shown}; say which to take by --plane {first}=1 (from 1), or export a projection"
    raise CellbookError(f"{path} {what}")


def check_segments(page: Any) -> None:
    """Refuse a page of which a strip or tile is absent or reaches over the end: it would be read as zeros."""
    first, held = page.keyframe, page.parent.filehandle.size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    wanted = 1 if first.is_contiguous else math.prod(first.chunked)
    if first.is_contiguous:
        segments = [(start, first.nbytes) for start in page.dataoffsets[:1]]
    good = sum(start > 0 and 0 < count <= held - start for start, count in segments)
    if good < wanted:
        raise ValueError(f"{wanted - good} of {wanted} strips or tiles are cut short or missing")
