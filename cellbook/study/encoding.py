"""The plain encoders that every learned one must beat."""

from __future__ import annotations

import pandas as pd
import torch

from cellbook import features, profiles
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.screens.named import without_place
from cellbook.study.trainings import Training
from cellbook.training.codes import code_table

CLASSICAL, PIXELS, RANDOM, UNTRAINED = "classical features", "pixel PCA", "random network", "untrained encoder"
CHUNK = 2048  # cells


def encode(
    name: str, cells: CellSet, seed: int = 0, *, n: int = 50, device: str = "cpu", like: Training | None = None
) -> pd.DataFrame:
    """Features of every cell by the name of a plain encoder; metadata of its well, without its place.

    Parameters
    ----------
    name : "classical features", "pixel PCA", "random network" or "untrained encoder"
    cells : CellSet
    seed : of what is random
    n : principal components, at most
    device : where the random network runs
    like : the training whose encoder is taken before its first step: what the architecture alone gives
    """
    if name == CLASSICAL:
        # In parts, as the memory of many small tensors is handed back only between calls.
        parts = [features.classical(cells.select(slice(i, i + CHUNK))) for i in range(0, len(cells), CHUNK)]
        table = pd.concat(parts, ignore_index=True)
    elif name == PIXELS:
        table = features.pixel_pca(cells, n=min(n, len(cells)), seed=seed)
    elif name == RANDOM:
        table = features.random_network(cells, seed=seed, device=device)
    elif name == UNTRAINED and like is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = like.module.begin(like.config, cells, torch.device("cpu"))
        table = code_table(cells, like.module.encode(state, cells))
    else:
        raise CellbookError(f"no plain encoder {name!r}: use {CLASSICAL}, {PIXELS}, {RANDOM}, or {UNTRAINED} of one")
    return without_place(table)


def standardise(cells: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """Scale features of cells by all DMSO cells, or by those of each group; constant features are dropped."""
    return profiles.PlateScaler("standardise", by=by, on_constant="drop").fit_transform(cells)
