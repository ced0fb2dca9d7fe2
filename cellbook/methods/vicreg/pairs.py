"""Pairs of cells of one treatment that lie as far apart as the screen has them: weeks, plates, at least wells."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellbook.errors import CellbookError, some
from cellbook.training import Sampler, treatment_codes

log = logging.getLogger(__name__)

PLACES = ("Metadata_batch", "Metadata_plate", "Metadata_well")  # from far to near; a screen need not have the first
NEEDED = PLACES[1:]


def places(table: pd.DataFrame) -> pd.DataFrame:
    """Treatment and home of every cell, (N rows), by numbers that sort cells of a home beside each other.

    Columns ``treatment``; ``home``, the cell's week if its treatment is in several, else its plate if it is on several,
    else its well, and -1 where the treatment is in one well only; and ``order``, by treatment, week, plate and well.

    Raises
    ------
    CellbookError
        If a column is missing or lacks values.
    """
    columns = [name for name in PLACES if name in table]
    if missing := [name for name in NEEDED if name not in table]:
        raise CellbookError(
            f"the cells' table has no column {some(missing)}, by which partners are found in other wells: it has "
            f"{', '.join(table.columns)}"
        )
    for name in columns:
        if count := int(table[name].isna().sum()):
            raise CellbookError(f"{name} is missing in {count} of {len(table)} cells: fill it in or drop them")
    found = pd.DataFrame({"treatment": treatment_codes(table), "home": -1})
    for end in range(len(columns), 0, -1):  # the farthest is tried last, and stays
        level = table[columns[:end]].groupby(columns[:end]).ngroup().to_numpy()
        several = pd.Series(level).groupby(found["treatment"]).transform("nunique") > 1
        found["home"] = found["home"].mask(several, level)
    return found.assign(order=table[columns].groupby(columns).ngroup().to_numpy())


class Pairs(Sampler):
    """Draws cells by treatment, each treatment equally likely, and to each a partner from elsewhere.

    Treatments in one well only take no part, and are named in a warning.

    Parameters
    ----------
    table : of the cells
    batch : pairs that are drawn at a time
    device, seed : where to draw, and of its own generator

    Raises
    ------
    CellbookError
        If no treatment has two wells, or those that have hold fewer cells than a batch has pairs.
    """

    def __init__(self, table: pd.DataFrame, batch: int, device: torch.device, seed: int) -> None:
        found = places(table)
        alone = (found["home"] < 0).to_numpy()
        left_out = table.loc[found.loc[alone].drop_duplicates("treatment").index]
        told = f"of {found['treatment'].nunique()} treatments, {len(left_out)} are in one well only"
        if alone.all():
            raise CellbookError(f"{told}, of {len(table)} cells: a pair takes two wells of a treatment")
        if (count := int((~alone).sum())) < batch:
            raise CellbookError(f"batch={batch} is more than the {count} cells that have partners: give a smaller one")
        if alone.any():
            told_of = left_out.reindex(columns=["Metadata_compound", "Metadata_concentration"])  # doses may be missing
            names = [
                name if pd.isna(dose) else f"{name} {dose}".removesuffix(".0")
                for name, dose in told_of.itertuples(index=False)
            ]
            log.warning("%s and take no part, as they give no pairs: %s", told, some(names))
        order = found[~alone].sort_values(["treatment", "order"], kind="stable")
        super().__init__(found["treatment"].to_numpy(), device, seed, order.index.to_numpy())
        place = pd.Series(np.arange(len(order)), order.index)
        groups = [place.groupby(order["treatment"]), place.groupby([order["treatment"], order["home"]])]
        runs = pd.concat([group.transform(how) for group in groups for how in ("min", "size")], axis=1)
        runs = runs.reindex(range(len(table)), fill_value=0)
        # (4, cells) where in `rows` the treatment and the home of each cell start, and how many cells they have
        self.runs = torch.from_numpy(runs.to_numpy(np.int64).T.copy()).to(device)

    def away(self, rows: Tensor) -> Tensor:
        """A cell for each of `rows`, (n,), of the same treatment and another home, each equally likely."""
        first, many, home_first, home_many = self.runs[:, rows]
        u = torch.rand(len(rows), generator=self.generator, device=rows.device, dtype=torch.float64)
        place = first + (u * (many - home_many)).long()
        return self.rows[place + home_many * (place >= home_first)]
