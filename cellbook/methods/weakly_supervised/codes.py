"""What a trained network is used for: features of cells from any layer, and which treatment it takes them for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellbook.cells import CellSet
from cellbook.errors import CellbookError, some
from cellbook.methods.weakly_supervised.augmentation import ranged
from cellbook.methods.weakly_supervised.config import SETS, STAGES
from cellbook.methods.weakly_supervised.networks import pooled
from cellbook.methods.weakly_supervised.split import Split, split
from cellbook.profiles import to_wells
from cellbook.profiles.aggregate import WELL
from cellbook.runs import save_table, to_float32
from cellbook.screens.named import without_place
from cellbook.training import State
from cellbook.training import codes as trained


def encode(state: State, cells: CellSet) -> np.ndarray:
    """Features of cells, (N, d) float32: the mean over the pixels of a layer, by default "4a", d = 256."""
    return _encode(state, cells, [state.config.layer])[state.config.layer]


def layers(state: State, cells: CellSet) -> dict[str, np.ndarray]:
    """Features of cells from every layer by its name, (N, d) float32 each, in one pass.

    Of a block they are the means over the pixels of its output; "5b" is what the classifier is given, pool5. The
    embedding is taken before its batch norm.
    """
    return _encode(state, cells, state.config.layers)


def probabilities(state: State, cells: CellSet) -> np.ndarray:
    """Probability of each class for each cell, (N, K) float32; a network of sets is given T times the same cell."""
    _check(state, cells)
    config = state.config
    trunk, head = state.networks["trunk"], state.networks["head"]

    def classify(x: Tensor) -> Tensor:
        pool = trunk(ranged(x, config.scale))
        return head(pool.expand(config.set_size, *pool.shape) if config.model in SETS else pool).softmax(dim=1)

    return trained.encode(state, cells, classify, len(state.sampler.counts))


def validate(state: State, cells: CellSet) -> pd.DataFrame:
    """How well the treatment of validation cells is told (the paper's auxiliary task), by the cells trained on.

    Returns
    -------
    DataFrame
        One row a class: ``treatment``, ``training`` cells, ``validation`` cells, and of these how many are ``right``.
        The paper's accuracy is ``right.sum() / validation.sum()``; chance is 1 / K for classes of equal size.

    Raises
    ------
    CellbookError
        If the cells give other classes than those of the training, or none of them validates.
    """
    return _validate(state, cells, split(state.config, cells))


def _validate(state: State, cells: CellSet, parts: Split) -> pd.DataFrame:
    k, own = len(state.sampler.counts), state.networks["head"].classes
    if parts.classes != own:
        other = sorted(set(parts.classes) ^ set(own))
        raise CellbookError(
            f"cells have {len(parts.classes)} classes, the network has {k}, and {some(other)} are not in both: give "
            "the cells of its training"
        )
    rows = np.flatnonzero(parts.validation)
    if len(rows) == 0:
        raise CellbookError(
            f"none of {len(cells)} cells validates: name replicates in validation={state.config.validation}"
        )
    truth = parts.label[rows]
    right = probabilities(state, cells.select(rows)).argmax(axis=1) == truth
    counted = {
        "training": np.bincount(parts.label[parts.training], minlength=k),
        "validation": np.bincount(truth, minlength=k),
        "right": np.bincount(truth[right], minlength=k),
    }
    return pd.DataFrame({"treatment": parts.classes, **counted})


def finish(state: State, cells: CellSet, folder: Path) -> None:
    """Write what is judged beside the codes, where there are wells and validation cells.

    ``layers.parquet`` has the mean features of wells from every layer, in columns 4a_0, 4a_1 and so on;
    ``validation.parquet`` is the table of `validate`.
    """
    if set(WELL) <= set(cells.table):
        wells = pd.DataFrame()
        for name, values in layers(state, cells).items():
            columns = [f"{name}_{i}" for i in range(values.shape[1])]
            found = to_wells(without_place(cells.feature_table(values, columns)))
            wells = found if wells.empty else pd.concat([wells, found[columns]], axis=1)
        save_table(to_float32(wells), folder / "layers.parquet")
    parts = split(state.config, cells)
    if parts.validation.any():
        save_table(_validate(state, cells, parts), folder / "validation.parquet")


def _encode(state: State, cells: CellSet, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Features of some layers, a column beside the other as long as they are on the device."""
    _check(state, cells)
    widths = _widths(state)
    ends = np.cumsum([widths[name] for name in names])
    table = trained.encode(state, cells, lambda x: torch.cat(_features(state, x, names), dim=1), int(ends[-1]))
    return dict(zip(names, np.split(table, ends[:-1], axis=1), strict=True))


def _features(state: State, x: Tensor, names: Sequence[str]) -> list[Tensor]:
    found: dict[str, Tensor] = {}
    for name, output in state.networks["trunk"].outputs(ranged(x, state.config.scale)):
        found[name] = pooled(output)
        if found.keys() >= set(names):
            return [found[name] for name in names]
    found["embedding"] = state.networks["head"].embed(found[name])  # of the last layer of the trunk
    return [found[name] for name in names]


def _widths(state: State) -> dict[str, int]:
    config, features = state.config, state.networks["trunk"].features
    of_blocks = {name: config.width << (int(name[0]) - 2) for name in STAGES}
    return of_blocks | {"pool": features, "embedding": 4 * config.width}


def _check(state: State, cells: CellSet) -> None:
    """Refuse cells that the network cannot look at."""
    channels = state.networks["trunk"].channels
    if len(cells.channels) != channels:
        raise CellbookError(f"the cells have {len(cells.channels)} channels, the network takes {channels}")
