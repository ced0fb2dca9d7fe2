"""Illumination correction per plate and channel after Singh et al. 2014, in the recipe of Caicedo et al. 2018."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.morphology import disk
from skimage.transform import resize

from cellbook.errors import CellbookError

SHRINK = 4  # the average is taken at a quarter of the linear size
RADIUS = 12  # pixels of the reduced image
ROBUST_MINIMUM = 2.0  # percentile


@dataclass
class MeanImage:
    """Running mean of fields at a quarter of their linear size; its memory does not grow with their number.

    Add fields with `add`, join the parts of several workers with `merge`, and read `mean`.
    """

    total: np.ndarray | None = None  # (C, H/4, W/4) float64
    count: int = 0
    size: tuple[int, int] = (0, 0)

    def add(self, image: np.ndarray) -> None:
        """Add one (C, H, W) field."""
        self.merge(MeanImage(_shrink(np.asarray(image)), 1, image.shape[-2:]))

    def merge(self, other: MeanImage) -> None:
        """Add all fields of another running mean."""
        if other.total is None:
            return
        if self.total is None:
            self.total, self.size = np.zeros_like(other.total), other.size
        elif other.size != self.size:
            raise CellbookError(f"fields of {self.size} and of {other.size} pixels lie on one plate; use one size")
        self.total += other.total
        self.count += other.count

    @property
    def mean(self) -> np.ndarray:
        """(C, H/4, W/4) mean of what was added."""
        if self.total is None:
            raise CellbookError("no field was added, so there is no mean image; add the fields of the plate first")
        return self.total / self.count


def _shrink(image: np.ndarray) -> np.ndarray:
    """Mean over blocks of 4 x 4 pixels; a rest at the lower and right edge is left out."""
    height, width = (side - side % SHRINK for side in image.shape[-2:])
    if not height or not width:
        raise CellbookError(f"a field of {image.shape[-2:]} pixels is too small for the illumination function")
    blocks = image[..., :height, :width].reshape(*image.shape[:-2], height // SHRINK, SHRINK, width // SHRINK, SHRINK)
    return blocks.mean(axis=(-3, -1), dtype=np.float64)


def illumination_function(mean: MeanImage) -> np.ndarray:
    """Illumination function of one plate: how much brighter than its darkest part each place of the field is.

    Steps: mean of the plate's fields at a quarter of the size, median filter with a disk, back to full size, clip
    below the robust minimum (a percentile), divide by it.

    Returns
    -------
    (C, H, W) float32, at least 1 everywhere; 1 throughout for a channel that is zero on the whole plate.
    """
    functions = np.ones((len(mean.mean), *mean.size), np.float32)
    footprint = disk(RADIUS)
    for channel, small in enumerate(mean.mean):
        smooth = ndimage.median_filter(small, footprint=footprint, mode="reflect")
        full = resize(smooth, mean.size, order=1, mode="edge", anti_aliasing=False, preserve_range=True)
        minimum = np.percentile(full, ROBUST_MINIMUM)
        if minimum > 0:
            functions[channel] = np.maximum(full, minimum) / minimum
    return functions


def correct(image: np.ndarray, function: np.ndarray) -> np.ndarray:
    """Field divided by its illumination function, rounded back to its own type: (C, H, W).

    The function is at least 1, so nothing can overflow.
    """
    if image.shape != function.shape:
        raise CellbookError(
            f"the field has shape {image.shape}, its plate's illumination function {function.shape}; they must agree"
        )
    return np.rint(image.astype(np.float32) / function).astype(image.dtype)
