"""Well profiles of nested random subsets of cells, from one pass over the features of all cells, block by block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from cellbook.profiles.aggregate import WELL
from cellbook.profiles.groups import hardly_varies
from cellbook.profiles.table import FloatArray, replace_features


def nested_order(wells: np.ndarray, seed: int | list[int], first: np.ndarray | None = None) -> np.ndarray:
    """Random order of cells (n,), whose beginnings are the subsets: a cell of every well before a second of any.

    Parameters
    ----------
    wells : (n,) number of each cell's well
    seed : of numpy's generator; several for several draws
    first : (n,) bool; these cells come before all others, so that their own subsets are subsets of them
    """
    order = np.random.default_rng(seed).permutation(len(wells))
    late = np.zeros(len(wells), bool) if first is None else ~np.asarray(first, bool)
    order = order[np.argsort(late[order], kind="stable")]
    turn = pd.Series(wells[order]).groupby(wells[order]).cumcount().to_numpy()
    return order[np.lexsort((np.arange(len(order)), turn > 0, late[order]))]


class Sums(NamedTuple):
    """What a block of cells adds to each subset: sums of its wells, moments of its controls."""

    wells: np.ndarray  # (k,) numbers of the wells in the block
    total: FloatArray  # (subsets, k, features)
    controls: np.ndarray  # (subsets,) number of control cells
    mean: FloatArray  # (subsets, features) of the control cells
    squares: FloatArray  # (subsets, features) sum of squares about that mean
    largest: FloatArray  # (subsets, features) largest magnitude


def block_sums(x: FloatArray, member: np.ndarray, wells: np.ndarray, control: np.ndarray) -> Sums:
    """Sums of a block: features (n, d), member (n, subsets) bool, number of the well (n,), control (n,) bool."""
    there, place = np.unique(wells, return_inverse=True)
    of, count = member.shape[1], len(there)
    cell, subset = np.nonzero(member)
    pick = sparse.csr_array((np.ones(len(cell)), (subset * count + place[cell], cell)), (of * count, len(x)))
    n, mean, squares, largest = np.zeros(of, int), *np.zeros((3, of, x.shape[1]))
    for k in range(of):
        some = x[member[:, k] & control]
        if n_some := len(some):
            n[k], mean[k], largest[k] = n_some, some.mean(axis=0), np.abs(some).max(axis=0)
            squares[k] = ((some - mean[k]) ** 2).sum(axis=0)
    return Sums(there, (pick @ x).reshape(of, count, -1), n, mean, squares, largest)


class Subsets:
    """Well means, and mean and spread of the control cells, of each subset; blocks are added one after another.

    Parameters
    ----------
    table : metadata of all cells; those that are constant in a well come from its first cell
    member : (cells, subsets) bool
    """

    def __init__(self, table: pd.DataFrame, member: np.ndarray) -> None:
        self.wells = table.groupby(WELL, sort=False).ngroup().to_numpy()
        self.control = table["Metadata_compound"].eq("DMSO").to_numpy()
        self.member = member
        self._metadata = table[~pd.Series(self.wells).duplicated().to_numpy()].reset_index(drop=True)
        self._held: Sums | None = None

    def rows(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of some cells what `block_sums` wants beside their features."""
        return self.member[block], self.wells[block], self.control[block]

    def add(self, block: Sums) -> None:
        """Add a block; moments are merged as by Chan et al. 1983, which loses no digits."""
        if self._held is None:
            of, width = block.mean.shape
            empty = np.zeros((of, len(self._metadata), width))
            self._held = Sums(self.wells, empty, np.zeros(of, int), *np.zeros((3, of, width)))
        held = self._held
        held.total[:, block.wells] += block.total
        n = held.controls + block.controls
        share = np.divide(block.controls, n, out=np.zeros(len(n)), where=n > 0)[:, None]
        gap = block.mean - held.mean
        squares = held.squares + block.squares + gap**2 * share * held.controls[:, None]
        largest = np.maximum(held.largest, block.largest)
        self._held = held._replace(controls=n, mean=held.mean + share * gap, squares=squares, largest=largest)

    def profiles(self, subset: int, standardised: bool = True) -> pd.DataFrame:
        """Mean profiles of the wells of a subset, one row a well, with the number of its cells.

        Standardised: as if every cell had been shifted and scaled by the control cells of the subset first; features
        without spread among these are left out.
        """
        assert self._held is not None, "no block was added"
        held, n = self._held, np.bincount(self.wells, weights=self.member[:, subset], minlength=len(self._metadata))
        there = n > 0
        x, keep = held.total[subset, there] / n[there, None], np.ones(held.total.shape[2], bool)
        if standardised:
            spread = np.sqrt(held.squares[subset] / max(held.controls[subset] - 1, 1))
            keep = ~hardly_varies(spread, held.largest[subset])
            x = (x[:, keep] - held.mean[subset, keep]) / spread[keep]
        wells = self._metadata[there].reset_index(drop=True)
        wells = wells.drop(columns="Metadata_cell_count", errors="ignore").assign(Metadata_n=n[there].astype(int))
        return replace_features(wells, x, [f"feature_{i}" for i in np.flatnonzero(keep)])
