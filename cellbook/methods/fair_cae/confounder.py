"""The confounder of every cell, as the adversary shall read it, and what is known of it without the code."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellbook.cells import CellSet
from cellbook.errors import CellbookError, nearest, some
from cellbook.methods.fair_cae.config import Config
from cellbook.training import treatment_codes


def read_column(table: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The confounder s of each cell, (cells, S), and groups from which cells are drawn equally often, (cells,).

    Numbers with a point are one column of mean 0 and variance 1, and all cells are one group. Anything else are
    classes: S columns, 1 for the own class, and each class is a group.

    Raises
    ------
    CellbookError
        If the column is not there, has gaps or numbers that are not finite, or one value, or nearly as many classes as
        there are cells.
    """
    if name not in table:
        known = f"there are {some(table, 20)}"
        raise CellbookError(f"confounder={name!r} is no column of the cells: {nearest(name, table, known)}")
    column = table[name]
    continuous = pd.api.types.is_float_dtype(column)
    gaps = int(column.isna().sum() + (np.isinf(column).sum() if continuous else 0))
    if gaps:
        raise CellbookError(f"confounder={name!r} is missing or infinite in {gaps} of {len(table)} cells: drop them")
    if column.nunique() < 2:
        raise CellbookError(
            f"confounder={name!r} is {some(column)} in all {len(table)} cells: there is nothing to be read from them"
        )
    if continuous:
        value = column.to_numpy(dtype=np.float64)
        return ((value - value.mean()) / value.std())[:, None], np.zeros(len(table), dtype=np.int64)
    codes, classes = pd.factorize(column, sort=True)
    if 2 * len(classes) > len(table):
        raise CellbookError(
            f"confounder={name!r} has {len(classes)} classes for {len(table)} cells: give one that many cells share"
        )
    return np.eye(len(classes))[codes], codes


def expected(s: np.ndarray, known: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """E[s | known] for each cell, (cells, S), when cells are drawn equally often from `groups`; `known` (cells,).

    With classes these are their shares. They are uniform where all that is known is the same for all cells.
    """
    weight = 1 / np.bincount(groups)[groups]
    total = np.bincount(known, weight)
    sums = np.stack([np.bincount(known, weight * column) for column in s.T], axis=1)
    return (sums / total[:, None])[known]


def labels(config: Config, cells: CellSet, device: torch.device) -> tuple[dict[str, Tensor], np.ndarray]:
    """Labels of the cells on the device, float32, and the groups they are drawn from.

    ``confounder`` (cells, S); ``treatment`` (cells, T), 1 for the own one, of no columns unless `conditional`; and
    ``expected`` (cells, S): the confounder as far as it is known without the code.
    """
    s, groups = read_column(cells.table, config.confounder)
    treatment = treatment_codes(cells.table)
    if np.allclose(s, expected(s, treatment, groups)):
        warnings.warn(
            f"{config.confounder} is constant within each of the {treatment.max() + 1} treatments: biology and "
            "confounder cannot be told apart in these cells, and what removes the one removes the other",
            stacklevel=2,
        )
    known = treatment if config.conditional else np.zeros_like(treatment)
    seen = np.eye(known.max() + 1)[known] if config.conditional else np.empty((len(s), 0))
    made = {"confounder": s, "expected": expected(s, known, groups), "treatment": seen}
    return {name: torch.from_numpy(value.astype(np.float32)).to(device) for name, value in made.items()}, groups
