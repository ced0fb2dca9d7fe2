"""The plain encoders that every learned one must beat."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from cellbook import features, profiles
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features.transferred import Range, grey_range
from cellbook.profiles.subsets import Subsets, Sums, block_sums
from cellbook.screens.named import without_place
from cellbook.study.processes import side_by_side
from cellbook.study.trainings import Training
from cellbook.training import State
from cellbook.training.codes import code_table

CLASSICAL, PIXELS, RANDOM, UNTRAINED = "classical features", "pixel PCA", "random network", "untrained encoder"
IMAGENET = "ImageNet features"
CHUNK = 2048  # cells
BLOCK, ON_A_GPU = 512, 4096  # cells of a screen that are encoded at once, in each process or on a GPU


def of_layer(variant: str, layer: str) -> str:
    """Name of the features of one layer of a network."""
    return f"{variant}, layer {layer}"


def encode(
    name: str,
    cells: CellSet,
    seed: int = 0,
    *,
    n: int = 50,
    device: str = "cpu",
    like: Training | None = None,
    grey: Range | None = None,
) -> pd.DataFrame:
    """Features of every cell by the name of a plain encoder; metadata of its well, without its place.

    Parameters
    ----------
    name : "classical features", "pixel PCA", "random network", "ImageNet features" or "untrained encoder"
    cells : CellSet
    seed : of what is random
    n : principal components, at most
    device : where cells are encoded
    like : the training whose encoder is taken before its first step: what the architecture alone gives
    grey : range of grey values of the ImageNet features, where the cells are some of a screen
    """
    if name in (CLASSICAL, IMAGENET):
        # In parts, as the memory of many small tensors is handed back only between calls, and side by side.
        grey = grey or (grey_range(cells, seed=seed) if name == IMAGENET else None)
        size = _at_once(device)
        tasks = [(name, cells.select(slice(i, i + size)), device, grey) for i in range(0, len(cells), size)]
        parts = side_by_side(_part, tasks, worth=device == "cpu" and len(cells) > CHUNK // 2)
        table = pd.concat(parts, ignore_index=True)
    elif name == PIXELS:
        table = features.pixel_pca(cells, n=min(n, len(cells)), seed=seed, device=device)
    elif name == RANDOM:
        table = features.random_network(cells, seed=seed, device=device)
    elif name == UNTRAINED and like is not None:
        table = code_table(cells, like.module.encode(begun(like, cells, seed, device), cells))
    else:
        known = f"{CLASSICAL}, {PIXELS}, {RANDOM}, {IMAGENET}"
        raise CellbookError(f"no plain encoder {name!r}: use {known}, or {UNTRAINED} of one")
    return without_place(table)


def _part(name: str, cells: CellSet, device: str, grey: Range | None) -> pd.DataFrame:
    """Features of some cells, each by itself."""
    if name == CLASSICAL:
        return features.classical(cells, device=device)
    return features.imagenet(cells, device=device, grey=grey)


def begun(like: Training, cells: CellSet, seed: int, device: str = "cpu") -> State:
    """The networks of a training before its first step; those of the seed, as the training itself draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return like.module.begin(like.config, cells, torch.device(device))


def add_sums(
    to: Subsets, name: str, cells: CellSet, seed: int = 0, rows: np.ndarray | None = None, *, device: str = "cpu"
) -> None:
    """Encode cells block by block, side by side, and add what each block gives to the wells of every subset.

    Features of no more than `BLOCK` cells a process (or `ON_A_GPU`) are held at once, but for the components of the
    pixels, which are few. Blocks are added in their order, so that the bits do not depend on how many processes there
    are.

    Parameters
    ----------
    to : what is added to; no cell outside `rows` may be in one of its subsets
    name, cells, seed, device : as for `encode`; images in a memory map are read block by block
    rows : of the cells that are encoded; all if left out
    """
    rows = np.arange(len(cells)) if rows is None else rows
    if name == PIXELS:  # fitted on all cells together
        every = profiles.matrix(encode(name, cells, seed, device=device))
        for block in _blocks(rows, device):
            to.add(block_sums(every[block], *to.rows(block)))
        return
    grey = grey_range(cells, seed=seed) if name == IMAGENET else None
    slim = CellSet(cells.images, cells.table[["Metadata_compound"]], cells.channels, cells.pixel_um)
    tasks = [(name, slim, seed, block, to.rows(block), device, grey) for block in _blocks(rows, device)]
    for sums in side_by_side(_block, tasks, worth=device == "cpu" and len(rows) > CHUNK // 2):
        to.add(sums)


def _at_once(device: str) -> int:
    return BLOCK if torch.device(device).type == "cpu" else ON_A_GPU


def _blocks(rows: np.ndarray, device: str) -> list[np.ndarray]:
    size = _at_once(device)
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _block(
    name: str,
    cells: CellSet,
    seed: int,
    block: np.ndarray,
    where: tuple[np.ndarray, np.ndarray, np.ndarray],
    device: str,
    grey: Range | None,
) -> Sums:
    found = encode(name, cells.select(block), seed, device=device, grey=grey)
    return block_sums(profiles.matrix(found), *where)


def standardise(cells: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """Scale features of cells by all DMSO cells, or by those of each group; constant features are dropped."""
    return profiles.PlateScaler("standardise", by=by, on_constant="drop").fit_transform(cells)
