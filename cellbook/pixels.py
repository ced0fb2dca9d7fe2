"""Batches of pixels on a device: taking them out of a stack of integers, and scaling them to [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from cellbook.errors import CellbookError

if TYPE_CHECKING:
    from cellbook.cells import CellSet


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
    cells: CellSet, percentiles: tuple[float, float] = (0.1, 99.9), by: str = "Metadata_plate"
) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles of the grey values of all crops of a field, plate or any other group, for `stretch`.

    Parameters
    ----------
    cells : CellSet
    percentiles : (float, float)
        Lower and upper percentile, in per cent.
    by : str
        Column of the table whose values form the groups.

    Returns
    -------
    low, high : numpy.ndarray
        (N, C) float32, one row a cell.
    """
    if by not in cells.table:
        raise CellbookError(f"by={by!r} is no column of the table; it has {', '.join(map(str, cells.table.columns))}.")
    lower, upper = percentiles
    if not 0 <= lower < upper <= 100:
        raise CellbookError(f"percentiles={percentiles} must rise within 0 to 100.")
    limits = np.zeros((2, len(cells), len(cells.channels)), dtype=np.float32)
    for rows in cells.table.groupby(by, sort=False, dropna=False).indices.values():
        pixels = cells.images[rows]
        limits[:, rows] = np.percentile(pixels, percentiles, axis=(0, 2, 3))[:, None]
    return limits[0], limits[1]
