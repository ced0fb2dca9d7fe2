"""Classical features of single cells, and the plain encoders every learned one must beat."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features import frozen
from cellbook.features.families import (
    Features,
    bands_and_grain,
    cooccurrence,
    correlation,
    granularity,
    intensity,
    neighbours,
    radial,
    shape,
)
from cellbook.features.masks import find_masks
from cellbook.pixels import channel_max, in_threads

_BATCH, _ON_A_GPU = 32, 1024  # cells
_WIDTHS = (32, 64, 128, 64)  # channels of the random network; of the last the mean and the deviation are features


def classical(cells: CellSet, progress: bool = False, device: str = "cpu") -> pd.DataFrame:
    """Classical features of every cell: 252 for three channels, one row a cell.

    Parameters
    ----------
    cells
        The first channel shows DNA. Grey values are taken relative to the largest of their type.
    progress
        Show a progress bar.
    device
        Where they are measured.

    Returns
    -------
    DataFrame
        The table's ``Metadata_`` columns, then float32 features named ``<Compartment>_<Family>_<What>_<Channel>``.
        Lengths are in pixels. Never NaN or infinite; ``Nucleus_Found`` is 0 where a central disc of 10 pixels radius
        stands in for a nucleus that was not there.

    Raises
    ------
    CellbookError
        If there is no cell, or crops are smaller than 16 pixels.
    """
    if not len(cells):
        raise CellbookError("the cell set holds 0 cells, so there is nothing to measure; select some")
    if min(cells.images.shape[-2:]) < 16:
        raise CellbookError(f"crops of {cells.images.shape[-2:]} pixels are too small for features; cut 16 or more")
    scale = float(np.iinfo(cells.images.dtype).max)

    at_once = _at_once(device)

    def batch(start: int) -> tuple[list[str], Tensor]:
        features = _batch(cells.grey(slice(start, start + at_once), device) / scale, cells.channels)
        return list(features), torch.stack(list(features.values()), dim=1).cpu()

    starts = range(0, len(cells), at_once)
    results = in_threads(batch, starts) if torch.device(device).type == "cpu" else map(batch, starts)
    batches = list(tqdm(results, total=len(starts), disable=not progress, unit="batch"))
    values = torch.cat([features for _, features in batches]).numpy()
    return cells.feature_table(values, batches[0][0])


def _at_once(device: str) -> int:
    """Cells of a batch: few share a core's cache, many keep a GPU busy."""
    return _BATCH if torch.device(device).type == "cpu" else _ON_A_GPU


@torch.inference_mode()
def _batch(images: Tensor, channels: tuple[str, ...]) -> Features:
    masks = find_masks(images)
    cytoplasm = masks.cell & ~masks.nucleus
    regions = {"Nucleus": masks.nucleus, "Cytoplasm": cytoplasm, "Cell": masks.cell}
    features: Features = {"Nucleus_Found": masks.found.float()}
    features |= shape(masks.nucleus, "Nucleus") | shape(masks.cell, "Cell") | neighbours(masks)
    features |= intensity(images, regions, channels) | correlation(images, regions, channels)
    features |= cooccurrence(images, masks.cell, channels, "Cell")
    features |= cooccurrence(images[:, :1], masks.nucleus, channels[:1], "Nucleus")
    features |= granularity(images, masks.cell, channels) | radial(images, masks.nucleus, channels)
    features |= bands_and_grain(images, regions, channels)
    return features


def _named(cells: CellSet, values: np.ndarray, prefix: str) -> pd.DataFrame:
    """Metadata of the cells beside numbered features."""
    return cells.feature_table(values.astype(np.float32), [f"{prefix}_{i}" for i in range(values.shape[1])])


def _normalised(cells: CellSet, rows: slice | np.ndarray, device: str) -> Tensor:
    """Crops of some rows, each channel divided by its own maximum, as the papers feed their networks."""
    return channel_max(cells.grey(rows, device))


def pixel_pca(
    cells: CellSet, n: int = 50, shrink: int = 4, fit_on: int = 20_000, seed: int = 0, device: str = "cpu"
) -> pd.DataFrame:
    """Principal components of the pixels: the plainest linear encoder.

    Parameters
    ----------
    cells
        Crops; each channel of each crop is divided by its own maximum.
    n
        Number of components.
    shrink
        Crops are averaged over blocks of this many pixels a side first.
    fit_on, seed
        Components are fitted on at most so many cells, drawn with this seed; all cells are projected.
    device
        Where crops are averaged; components are found on the CPU.

    Returns
    -------
    DataFrame
        ``Metadata_`` columns and ``pca_0`` to ``pca_<n-1>``.

    Raises
    ------
    CellbookError
        If `n` exceeds the number of cells fitted on or of pixels.
    """
    pixels = cells.images.shape[1] * (cells.images.shape[2] // shrink) * (cells.images.shape[3] // shrink)
    if not 1 <= n <= min(len(cells), fit_on, pixels):
        raise CellbookError(
            f"n is {n}; {min(len(cells), fit_on)} cells of {pixels} pixels have 1 to {min(len(cells), fit_on, pixels)}"
        )

    def small(rows: np.ndarray) -> np.ndarray:
        return F.avg_pool2d(_normalised(cells, rows, device), shrink).flatten(1).cpu().double().numpy()

    rows = np.random.default_rng(seed).permutation(len(cells))[:fit_on]
    fitted = np.concatenate([small(rows[i : i + 1024]) for i in range(0, len(rows), 1024)])
    mean = fitted.mean(axis=0)
    # Eigenvectors of the covariance rather than an SVD of all cells: the number of pixels is small.
    _, vectors = np.linalg.eigh(np.cov(fitted, rowvar=False, bias=True).reshape(pixels, pixels))
    components = vectors[:, ::-1][:, :n]
    # A component's sign is arbitrary: its largest entry is made positive, so that every machine agrees.
    components = components * np.sign(components[np.abs(components).argmax(axis=0), np.arange(n)])
    every = np.arange(len(cells))
    blocks = [(small(every[i : i + 1024]) - mean) @ components for i in range(0, len(cells), 1024)]
    return _named(cells, np.concatenate(blocks), "pca")


def random_network(cells: CellSet, seed: int = 0, device: str = "cpu") -> pd.DataFrame:
    """Features of a small convolutional network that was never trained: what architecture alone gives.

    Four convolutions of stride 2, each followed by a normalisation within the crop (statistics of a batch would make a
    cell's features depend on its company); mean and standard deviation over places are the features.

    Parameters
    ----------
    cells
        Crops; each channel of each crop is divided by its own maximum.
    seed
        Decides the weights.
    device
        Where it runs.

    Returns
    -------
    DataFrame
        ``Metadata_`` columns and ``random_0`` to ``random_127``.
    """
    weights = [weight.to(device) for weight in frozen.kernels((cells.images.shape[1], *_WIDTHS), seed)]
    values, at_once = [], _at_once(device)
    for start in range(0, len(cells), at_once):
        x = frozen.layers(_normalised(cells, slice(start, start + at_once), device), weights)[-1].flatten(2)
        values.append(torch.cat([x.mean(dim=2), x.std(dim=2, correction=0)], dim=1).cpu())
    return _named(cells, torch.cat(values).numpy(), "random")


def cell_count(cells: CellSet) -> pd.DataFrame:
    """Number of cells of each well, one row a well: the phenotype that needs no image.

    Returns
    -------
    DataFrame
        Metadata that is constant in the well, ``Metadata_cell_count``, and the one feature ``Cells_Count``.

    Raises
    ------
    CellbookError
        If the table lacks ``Metadata_plate`` or ``Metadata_well``.
    """
    keys = ["Metadata_plate", "Metadata_well"]
    if missing := [key for key in keys if key not in cells.table]:
        raise CellbookError(f"the table of {len(cells)} cells lacks {', '.join(missing)}; wells cannot be told apart")
    groups = cells.table.filter(regex="^Metadata_").groupby(keys, sort=False)
    constant = groups.nunique(dropna=False).le(1).all()
    wells = groups.first()[list(constant.index[constant])]
    wells["Metadata_cell_count"] = groups.size()
    wells["Cells_Count"] = groups.size().astype(float)
    return wells.reset_index()
