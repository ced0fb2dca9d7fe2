"""Cells alone, as CytoGAN and others see them: black outside of a cell's own outline, which is in the middle.

The outline is the simulator's, where it drew the cell, and else that of the segmentation behind the classical features.
A cell that is larger than the canvas is cut, as much at both sides, and a column of the table says so. None of the
simulator's is larger than 96 pixels, and most are larger than 48: for that size they are shrunk to half.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features.masks import find_masks
from cellbook.files import digest
from cellbook.pixels import centre, unit

VERSION = 1  # of the pixels that come out
BLOCK = 512  # cells at a time
BOX = ("Metadata_box_height", "Metadata_box_width")  # of the outline, in pixels, before it is shrunk
LARGER = "Metadata_larger"  # whether that is more than the canvas has
OPEN = (
    "Metadata_open"  # whether the outline ends at the border of the crop that it was found in, so that some is missing
)
FOUND = "Metadata_nucleus_found"  # if not, a disc in the middle stands in for the nucleus
COLUMNS = (*BOX, LARGER, OPEN, FOUND)


def outlined(cells: CellSet, side: int, times: int = 1, device: str = "cpu") -> CellSet:
    """Cells alone in the middle of crops of `side` pixels, by segmentation; see `outlined_parts`."""
    parts = list(outlined_parts(cells, side, times, device))
    images, table = np.concatenate([part.images for part in parts]), pd.concat([part.table for part in parts])
    return replace(parts[0], images=images, table=table, known_as=known_as(cells.fingerprint, side, times))


def outlined_parts(cells: CellSet, side: int, times: int = 1, device: str = "cpu") -> Iterator[CellSet]:
    """The cells of `outlined`, some at a time.

    Parameters
    ----------
    cells : CellSet
    side : int
        Of the crops that come out, pixels.
    times : int
        Pixels of the given crops that become one, a side; see `shrunk`.
    device : str
        Where outlines are found.

    Returns
    -------
    CellSet
        The table has the `COLUMNS`.

    Raises
    ------
    CellbookError
        If there is no cell, the crops or the canvas are smaller than 16 pixels, or `times` is not 1 or more.
    """
    if not len(cells):
        raise CellbookError("the cell set holds 0 cells, so there is nothing to outline; select some")
    for name, least in (("crops", min(cells.images.shape[-2:])), ("the canvas", side)):
        if least < 16:
            raise CellbookError(f"{name} of {least} pixels: give 16 or more, as cells are hardly to be seen in less")
    check_times(times)
    for start in range(0, len(cells), BLOCK):
        rows = slice(start, start + BLOCK)
        stored = torch.from_numpy(np.array(cells.images[rows])).to(device)
        masks = find_masks(unit(stored))
        images, boxes = centre(stored, masks.cell, side * times)
        edge = torch.ones_like(masks.cell[0])
        edge[1:-1, 1:-1] = False
        table = with_boxes(cells.table.iloc[rows].reset_index(drop=True), boxes.cpu().numpy(), side * times)
        table[OPEN] = (masks.cell & edge).flatten(1).any(dim=1).cpu().numpy()
        table[FOUND] = masks.found.cpu().numpy()
        yield shrunk(replace(cells, images=images.cpu().numpy(), table=table, known_as=None), times)


def shrunk(cells: CellSet, times: int) -> CellSet:
    """Cells in coarser pixels, each the mean over a square of `times` a side; what is left over at the end is cut."""
    check_times(times)
    if times == 1:
        return cells
    n, c, *size = cells.images.shape
    height, width = (side // times for side in size)
    squares = cells.images[:, :, : height * times, : width * times].reshape(n, c, height, times, width, times)
    images = np.round(squares.mean(axis=(3, 5), dtype=np.float32)).astype(cells.images.dtype)
    return replace(cells, images=images, pixel_um=cells.pixel_um * times, known_as=None)


def check_times(times: int) -> None:
    """Refuse a number of pixels that cannot become one."""
    if times < 1:
        raise CellbookError(f"{times} pixels a side cannot become one: give 1 or more")


def with_boxes(table: pd.DataFrame, boxes: np.ndarray, side: int) -> pd.DataFrame:
    """A table of cells with height and width of their outlines, (N, 2), and whether they are more than `side`."""
    return table.assign(**dict(zip(BOX, boxes.T, strict=True)), **{LARGER: boxes.max(axis=1) > side})


def whole(table: pd.DataFrame) -> list[str]:
    """Say of a table of outlined cells how many are not whole, a line a reason, with the column that names them."""
    wrong = {LARGER: ("larger than the new crop, and cut", True), OPEN: ("cut by the crop they come from", True)}
    wrong[FOUND] = "without a nucleus in the middle", False
    counts = {name: int((table[name] == value).sum()) for name, (_, value) in wrong.items() if name in table}
    return [f"{wrong[name][0]}: {count} ({name})" for name, count in counts.items()]


def known_as(fingerprint: str, side: int, times: int) -> str:
    """Digest of what outlined cells are made from, as of two devices one may see an outline a pixel wider."""
    return digest([fingerprint, "outlined", VERSION, side, times])[:32]
