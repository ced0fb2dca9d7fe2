"""Which pixels of a crop belong to its central nucleus and cell, for thousands of crops at once.

Everything is a batched tensor operation; the one exception, labelling connected parts, is a single call on the stack.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

SEED_SIGMA = 5.0  # pixels; smoothing after which a nucleus has one maximum
SEED_WINDOW = 17  # pixels; side of the window in which a seed is the only maximum
SEED_REACH = 14.0  # pixels; the central nucleus may lie this far from the middle of the crop
FALLBACK_RADIUS = 10.0  # pixels; the disc that stands in for a nucleus that was not found
CONTRAST_OVER_NOISE = 5.0  # as in the detection of nuclei in whole fields
_BINS = 64


class Masks(NamedTuple):
    """Masks of a batch, each (B, H, W) bool, and what was found on the way, each (B,)."""

    nucleus: Tensor
    cell: Tensor  # contains the nucleus
    dna: Tensor  # every nucleus of the crop, neighbours too
    found: Tensor  # whether there is a nucleus in the middle; if not, a disc stands in for it
    neighbours: Tensor  # other seeds in the crop
    distance: Tensor  # pixels to the nearest other seed; the side of the crop if there is none


@lru_cache(maxsize=64)
def _blur_matrix(size: int, sigma: float, device: torch.device) -> Tensor:
    matrix = ndimage.gaussian_filter1d(np.eye(size), sigma, axis=1, mode="reflect")
    return torch.from_numpy(matrix).float().to(device)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of (..., H, W) with reflecting borders, as two matrix products: fast for small images."""
    height, width = images.shape[-2:]
    rows, columns = (_blur_matrix(side, sigma, images.device) for side in (height, width))
    return ((images @ columns).transpose(-1, -2) @ rows).transpose(-1, -2)


def dilate(images: Tensor, side: int) -> Tensor:
    """Maximum over a square window of odd `side` around each pixel of (..., H, W); outside there is nothing.

    Windows are doubled, so that a width of 13 takes four passes; torch's pooling is ten times slower at this.
    """
    lowest = False if images.dtype == torch.bool else -torch.inf
    for dim in (-2, -1):
        length, reach = images.shape[dim], side // 2
        shape = list(images.shape)
        shape[dim] = reach
        edge = images.new_full(shape, lowest)
        running, width = torch.cat([edge, images, edge], dim=dim), 1
        while width < side:
            step = min(width, side - width)
            size = running.shape[dim] - step
            a, b = running.narrow(dim, 0, size), running.narrow(dim, step, size)
            running = torch.maximum(a, b)
            width += step
        images = running.narrow(dim, 0, length)
    return images


def find_masks(images: Tensor) -> Masks:
    """Masks of the central nucleus and cell of each crop.

    The nucleus is Otsu's foreground of the first channel, cut halfway towards neighbouring nuclei; the cell is Otsu's
    foreground of the other channels together, cut in the same way, and includes the nucleus.

    Parameters
    ----------
    images
        (B, C, H, W) float32 in [0, 1], the first channel showing DNA.

    Returns
    -------
    Masks
        A crop without a nucleus in the middle (empty, saturated or noise) gets a central disc and ``found`` False.
    """
    size, device = images.shape[-2:], images.device
    dna = images[:, 0]
    foreground, visible = _foreground(blur(dna, 1.0))
    y, x = (torch.arange(side, dtype=torch.float32, device=device) for side in size)
    middle = torch.tensor([(side - 1) / 2 for side in size], device=device)
    smooth = blur(dna, SEED_SIGMA)
    peak = dilate(smooth, SEED_WINDOW)
    crop, row, column = torch.nonzero((smooth == peak) & foreground & visible[:, None, None], as_tuple=True)
    from_middle = torch.hypot(row - middle[0], column - middle[1])
    # The seed nearest to the middle is the cell's own, all others are neighbours.
    order = torch.argsort(from_middle, stable=True)
    first = torch.full((len(images),), len(crop), device=device)
    first.scatter_reduce_(0, crop[order], torch.arange(len(crop), device=device), "amin")
    has = first < len(crop)
    index = first.clamp_max(max(len(crop) - 1, 0))
    if len(crop):
        index = order[index]
        has &= from_middle[index] <= SEED_REACH
        seed = torch.where(has[:, None], torch.stack([row, column], dim=1).float()[index], middle)
    else:
        seed = middle.expand(len(images), 2).clone()
    other = torch.ones(len(crop), dtype=torch.bool, device=device)
    other[index[has]] = False
    basin, distance = _basin(seed, crop[other], torch.stack([row, column], dim=1).float()[other], y, x)
    neighbours = torch.bincount(crop[other], minlength=len(images))
    near = _squared(seed, y, x)
    disc = near <= FALLBACK_RADIUS**2
    nucleus = _part_at(foreground & basin, seed)
    has &= nucleus.flatten(1).sum(dim=1) > 20
    nucleus = torch.where(has[:, None, None], nucleus, disc)
    cell = basin & (near <= max(size) ** 2)
    if images.shape[1] > 1:
        rest = images[:, 1:]
        scale = rest.mean(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
        body, shown = _foreground(blur((rest / scale).mean(dim=1), 1.5))
        cell &= body | ~shown[:, None, None]
    else:
        cell &= dilate(nucleus, 9)
    cell |= nucleus
    return Masks(nucleus, cell, foreground & visible[:, None, None], has, neighbours, distance)


def _foreground(smooth: Tensor) -> tuple[Tensor, Tensor]:
    """Otsu's foreground of each (H, W) image on a logarithmic scale, and whether it stands out from the noise."""
    flat = smooth.flatten(1)
    floor = flat.median(dim=1, keepdim=True).values.clamp_min(1e-5)
    values = torch.log1p(flat / floor)
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    bins = ((values - low) / (high - low).clamp_min(1e-6) * (_BINS - 1e-3)).long()
    offset = torch.arange(len(flat), device=flat.device)[:, None] * _BINS
    histogram = torch.bincount((bins + offset).flatten(), minlength=len(flat) * _BINS).view(-1, _BINS).double()
    level = torch.arange(_BINS, dtype=torch.float64, device=flat.device) + 0.5
    below = histogram.cumsum(dim=1)
    total, mass = below[:, -1:], (histogram * level).cumsum(dim=1)
    above = total - below
    gap = mass / below.clamp_min(1) - (mass[:, -1:] - mass) / above.clamp_min(1)
    cut = (below * above * gap**2).argmax(dim=1, keepdim=True)
    foreground = bins > cut
    # The spread of the lower class, from its own histogram: mean absolute deviation, 1.2533 times it for a normal one.
    lower = histogram * (torch.arange(_BINS, device=flat.device) <= cut)
    count = lower.sum(dim=1).clamp_min(1)
    centre = (lower * level).sum(dim=1) / count
    spread = 1.2533 * (lower * (level - centre[:, None]).abs()).sum(dim=1) / count
    upper = histogram - lower
    top = (upper * level).sum(dim=1) / upper.sum(dim=1).clamp_min(1)
    visible = ((top - centre) > CONTRAST_OVER_NOISE * spread.clamp_min(0.5)) & ((high - low)[:, 0] > 1e-3)
    return foreground.view_as(smooth), visible


def _squared(seed: Tensor, y: Tensor, x: Tensor) -> Tensor:
    return (y[None, :, None] - seed[:, 0, None, None]) ** 2 + (x[None, None, :] - seed[:, 1, None, None]) ** 2


def _basin(seed: Tensor, crop: Tensor, others: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels nearer to the own seed than to any other, and the distance of the nearest other seed."""
    gap = others - seed[crop]
    middle = (others + seed[crop]) / 2
    side = gap[:, 0, None, None] * (y[None, :, None] - middle[:, 0, None, None])
    side = side + gap[:, 1, None, None] * (x[None, None, :] - middle[:, 1, None, None])
    basin = torch.ones(len(seed), len(y), len(x), dtype=torch.uint8, device=seed.device)
    target = crop[:, None, None].expand(-1, len(y), len(x))
    basin.scatter_reduce_(0, target, (side < 0).to(torch.uint8), "amin")
    distance = torch.full((len(seed),), float(max(len(y), len(x))), device=seed.device)
    distance.scatter_reduce_(0, crop, gap.norm(dim=1), "amin")
    return basin.bool(), distance


_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


def _part_at(masks: Tensor, seed: Tensor) -> Tensor:
    """The connected part of each mask that holds its seed."""
    labels, _ = ndimage.label(masks.cpu().numpy(), structure=_IN_PLANE)
    row, column = seed.round().long().T.cpu().numpy()
    own = labels[np.arange(len(labels)), row, column]
    return torch.from_numpy((labels == own[:, None, None]) & (own > 0)[:, None, None]).to(masks.device)
