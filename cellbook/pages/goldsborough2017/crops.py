"""The crops that the networks see: each cell alone on black, its box in the middle, as in the paper.

The paper has outlines of CellProfiler; here they are those of `cellbook.features.masks`, on simulated and on real crops
alike. A cell that is larger than the crop loses as much on every side; the published code keeps its upper left corner.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from cellbook.cells import CellSet
from cellbook.features.masks import find_masks
from cellbook.files import digest
from cellbook.pages.goldsborough2017.config import Config
from cellbook.pixels import unit
from cellbook.screens import named

VERSION = 1  # rises when other pixels come out
CUT = "Metadata_cut"  # column: whether a cell is larger than its crop, or reaches the edge of what there is
BLOCK = 512  # crops at a time
IN_PLANE = np.stack([np.zeros((3, 3), bool), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3), bool)])


def load(config: Config, store: str | Path, device: str = "cpu") -> CellSet:
    """The cells of the page in the crops of its networks."""
    return cut(whole(config, store, device), config.side, config.shrink, alone=config.alone)


def whole(config: Config, store: str | Path, device: str = "cpu") -> CellSet:
    """The same cells as their screen has them, with neighbours, for features that find their own outlines."""
    return named.load(config.screen, config.simulated, store, device, config.per_well)


def cut(cells: CellSet, side: int, shrink: int = 1, *, alone: bool = True) -> CellSet:
    """Crops of `side` pixels, each the mean of `shrink` x `shrink`.

    The table gets the column `CUT`. What lies outside of the images that there are is black.

    Parameters
    ----------
    cells : CellSet
    side, shrink : pixels
    alone : black outside of the cell's outline, and its box in the middle; else the middle of the crop as it is
    """
    side, small = side * shrink, side
    images = np.empty((len(cells), len(cells.channels), small, small), cells.images.dtype)
    beyond = np.zeros(len(cells), bool)
    for start in range(0, len(cells), BLOCK):
        block = np.array(cells.images[start : start + BLOCK])
        if alone:
            mask = _own(*find_masks(unit(torch.from_numpy(block)))[:2])
            block *= mask[:, None]
        else:
            mask = np.ones((len(block), *block.shape[2:]), bool)
        edges = [_ends(mask.any(axis=axis)) for axis in (2, 1)]  # of rows, of columns
        rows, columns = (_window(*ends, side) for ends in edges)
        if alone:
            ends = zip(edges, mask.shape[1:], strict=True)
            over = [(high - low >= side) | (low == 0) | (high == last - 1) for (low, high), last in ends]
            beyond[start : start + BLOCK] = np.any(over, axis=0)
        padded = np.pad(block, [(0, 0), (0, 0), (side, side), (side, side)])
        n, c = (np.arange(size)[:, None, None] for size in block.shape[:2])
        picked = padded[n[:, None], c, rows[:, None, :, None] + side, columns[:, None, None, :] + side]
        parts = picked.reshape(*picked.shape[:2], small, shrink, small, shrink)
        images[start : start + BLOCK] = np.round(parts.mean(axis=(3, 5), dtype=np.float32))
    # Another device may draw a grey level differently.
    known = digest([cells.fingerprint, small, shrink, alone, VERSION])[:32]
    table, pixel_um = cells.table.assign(**{CUT: beyond}), cells.pixel_um * shrink
    return replace(cells, images=images, table=table, pixel_um=pixel_um, known_as=known)


def _own(nucleus: torch.Tensor, cell: torch.Tensor) -> np.ndarray:
    """The connected parts of a cell's mask that hold its nucleus, (N, H, W)."""
    labels, n = ndimage.label(cell.numpy(), structure=IN_PLANE)
    kept = np.zeros(n + 1, bool)
    kept[labels[nucleus.numpy()]] = True  # the nucleus lies within its cell, so that 0, the background, is never kept
    return kept[labels]


def _ends(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last place that is there, (N,) each, of (N, places)."""
    return there.argmax(axis=1), there.shape[1] - 1 - there[:, ::-1].argmax(axis=1)


def _window(low: np.ndarray, high: np.ndarray, side: int) -> np.ndarray:
    """Places of a window with the middle of a box in its own, (N, side)."""
    return ((low + high + 1 - side) // 2)[:, None] + np.arange(side)
