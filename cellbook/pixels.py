"""Batches of pixels on a device: taking them out of a stack of integers, and scaling them to [0, 1]."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from cellbook.errors import CellbookError

T = TypeVar("T")


def gather(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Batch of images by row number, (B, C, H, W), of the type of `images`.

    Indexing of uint16 is not there on every device and version of torch; its bits are gathered as int16 instead.
    """
    if images.dtype == torch.uint16:
        return images.view(torch.int16)[rows].view(torch.uint16)
    return images[rows]


def channel_max(batch: torch.Tensor) -> torch.Tensor:
    """Each channel of each crop divided by its own maximum: float32 in [0, 1]; an empty channel stays 0."""
    x = batch.to(torch.float32)
    return x / x.amax(dim=(-2, -1), keepdim=True).clamp_min(1.0)


def unit(batch: torch.Tensor) -> torch.Tensor:
    """Grey values divided by the largest their type can hold (255 or 65,535): float32 in [0, 1]."""
    return batch.to(torch.float32) / torch.iinfo(batch.dtype).max


def centre(images: torch.Tensor, masks: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each crop's mask alone, its box in the middle of a black canvas; what is larger is cut, as much at both sides.

    Parameters
    ----------
    images : torch.Tensor
        (B, C, H, W), integers; of an odd rest one pixel more lies at the lower and the right side.
    masks : torch.Tensor
        (B, H, W) bool.
    side : int
        Of the canvas.

    Returns
    -------
    images, boxes : torch.Tensor
        (B, C, side, side) of the type of `images`, and (B, 2): height and width of each box, 0 of an empty mask.
    """
    bits = images.view(torch.int16) if images.dtype == torch.uint16 else images
    (row, high), (column, wide) = (_places(masks.any(dim), side) for dim in (2, 1))
    crop = torch.arange(len(images), device=images.device)[:, None, None]
    there = (row >= 0) & (row < masks.shape[1]), (column >= 0) & (column < masks.shape[2])
    row, column = row.clamp(0, masks.shape[1] - 1)[:, :, None], column.clamp(0, masks.shape[2] - 1)[:, None]
    shown = masks[crop, row, column] & there[0][:, :, None] & there[1][:, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    found = bits[crop[:, None], channel, row[:, None], column[:, None]] * shown[:, None]
    return found.view(images.dtype), torch.stack([high, wide], dim=1)


def _places(taken: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of lines that a mask takes, (B, n): which of them lie along the canvas, (B, side), and how far they reach."""
    n = taken.shape[1]
    first, last = taken.int().argmax(dim=1), n - 1 - taken.flip(1).int().argmax(dim=1)
    length = torch.where(taken.any(dim=1), last - first + 1, 0)
    return torch.arange(side, device=taken.device) + (first - (side - length) // 2)[:, None], length


def stretch(batch: torch.Tensor, low: torch.Tensor | np.ndarray, high: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Grey values mapped linearly so that `low` becomes 0 and `high` 1, clipped: float32 in [0, 1].

    Parameters
    ----------
    batch : torch.Tensor
        (B, C, H, W).
    low, high : tensor or array
        Grey values, (C,) for all crops alike or (B, C), as `stretch_limits` gives them. Where they are equal the
        channel becomes 0.
    """
    x = batch.to(torch.float32)
    low, high = (torch.as_tensor(v, dtype=torch.float32, device=x.device)[..., None, None] for v in (low, high))
    return ((x - low) / (high - low).clamp_min(1.0)).clamp(0.0, 1.0) * (high > low)


def stretch_limits(
    images: np.ndarray, groups: Iterable[object], percentiles: tuple[float, float] = (0.1, 99.9)
) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles of the grey values of all crops of a field, plate or any other group, for `stretch`.

    Parameters
    ----------
    images : numpy.ndarray
        (N, C, H, W).
    groups : N values
        The group of each crop, such as a column of the table of cells.
    percentiles : (float, float)
        Lower and upper percentile, in per cent.

    Returns
    -------
    low, high : numpy.ndarray
        (N, C) float32, one row a crop.
    """
    lower, upper = percentiles
    if not 0 <= lower < upper <= 100:
        raise CellbookError(f"percentiles={percentiles} must rise within 0 to 100.")
    limits = np.zeros((2, *images.shape[:2]), dtype=np.float32)
    codes = pd.factorize(np.asarray(groups, dtype=object), use_na_sentinel=False)[0]
    for code in range(codes.max(initial=-1) + 1):
        rows = np.flatnonzero(codes == code)
        limits[:, rows] = np.percentile(images[rows], percentiles, axis=(0, 2, 3))[:, None]
    return limits[0], limits[1]


def in_threads(work: Callable[[int], T], items: Sequence[int], threads: int | None = None) -> Iterator[T]:
    """Results in order, a few ahead; one thread a batch, because small tensors lose time when they are split.

    `threads` are as many as torch would use, if nothing else is said.
    """
    before = torch.get_num_threads()
    threads = threads or before
    try:
        torch.set_num_threads(1)
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting: deque[Future[T]] = deque()
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(before)
