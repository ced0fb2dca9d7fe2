"""How good images of a model are as a population: distances in frozen features, precision, recall, duplicates, states.

Everything is measured in parts of equal size (`blocks`) that share no image, so that it has an interval, and at equal
numbers for all models. Beside them stand real cells against other real cells: no model can be better.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellbook import features, profiles
from cellbook.cells import CellSet
from cellbook.metrics import samples
from cellbook.metrics.images import top_octave
from cellbook.study.encoding import IMAGENET, RANDOM

KID, FID = "kernel distance", "Fréchet distance"
PRECISION, RECALL, DUPLICATES = "precision", "recall", "near duplicates"
DETAIL = "fine detail"  # power of the top octave of made images over that of real ones
NUMBER, COVERED = "number of states", "states covered"
GREY = np.iinfo(np.uint16).max
FULL_RANGE = np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), GREY, np.float32)
WHOLE = -1  # block of what is measured of all images together
NEIGHBOURS = 5  # of a cell, to which the ball around it reaches
FEWEST = 20  # cells in a state, so that it can be learned


def as_cells(images: np.ndarray, channels: tuple[str, ...]) -> CellSet:
    """Images (N, C, H, W) in [0, 1] as a cell set without labels."""
    crops = np.round(images.clip(0, 1) * GREY).astype(np.uint16)
    return CellSet(crops, pd.DataFrame(index=range(len(crops))), channels, 1.0)


def seen(images: np.ndarray, by: str, device: str = "cpu") -> np.ndarray:
    """Frozen features of images (N, C, H, W) in [0, 1], (N, d): of the random network or of the ImageNet one."""
    cells = as_cells(images, tuple(f"channel {i}" for i in range(images.shape[1])))
    if by == IMAGENET:
        return profiles.matrix(features.imagenet(cells, grey=FULL_RANGE, device=device))
    assert by == RANDOM
    return profiles.matrix(features.random_network(cells, device=device))


def compare(real: np.ndarray, made: np.ndarray, blocks: int) -> pd.DataFrame:
    """Measures of made against real cells by their features, (n, d) each: measure, block, value.

    The Fréchet distance, which is biased by the number of cells, is of all together.
    """
    found = [(FID, WHOLE, samples.frechet_distance(real, made))]
    for block, (x, y) in enumerate(zip(np.array_split(real, blocks), np.array_split(made, blocks), strict=True)):
        precision, recall = samples.precision_recall(x, y, min(NEIGHBOURS, len(x) - 1, len(y) - 1))
        values = {
            KID: samples.kernel_distance(x, y, 2)[0],
            PRECISION: precision,
            RECALL: recall,
            DUPLICATES: samples.near_duplicates(x, y),
        }
        found += [(name, block, value) for name, value in values.items()]
    return pd.DataFrame(found, columns=["measure", "block", "value"])


def by_random(real: np.ndarray, made: np.ndarray, blocks: int) -> pd.DataFrame:
    """Measures of images (n, C, H, W) by features of a random network, in deviations of real cells, and fine detail."""
    x, y = (seen(images, RANDOM) for images in (real, made))
    centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-6  # so that no feature counts more than another
    found = compare((x - centre) / scale, (y - centre) / scale, blocks).assign(features=RANDOM)
    return pd.concat([found, detail(real, made, blocks)], ignore_index=True)


def detail(real: np.ndarray, made: np.ndarray, blocks: int) -> pd.DataFrame:
    """Octaves between the power of fine detail in made images and in real ones, mean over channels: 0 is as sharp."""
    parts = zip(*(np.array_split(top_octave(x), blocks) for x in (real, made)), strict=True)
    found = [float(np.log2((y.mean(axis=0) + 1e-20) / (x.mean(axis=0) + 1e-20)).mean()) for x, y in parts]
    return pd.DataFrame({"measure": DETAIL, "block": range(blocks), "value": found})


def states(known: np.ndarray, truth: np.ndarray, real: np.ndarray, made: np.ndarray) -> tuple[pd.DataFrame, dict]:
    """Shares of the states that a classifier names: of real cells that it has not seen, and of made ones.

    Parameters
    ----------
    known, truth : features of the cells that it learns from, (n, d), and their states, (n,)
    real, made : features of others, whose states are named alike

    Returns
    -------
    DataFrame, dict
        state, real, made (shares); and how many states there are, weighed by their entropy, and the share covered.
    """
    names, counts = np.unique(truth, return_counts=True)
    kept = np.isin(truth, names[counts >= FEWEST])
    if len(np.unique(truth[kept])) < 2:
        return pd.DataFrame(), {}
    told = samples.told_states(known[kept], truth[kept], np.concatenate([real, made]))[1]
    found = samples.coverage(told[: len(real)], told[len(real) :])
    table = pd.DataFrame({"state": found.states, "real": found.real, "made": found.made})
    return table, {NUMBER: found.number, COVERED: found.covered}
