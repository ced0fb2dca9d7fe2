"""Small pictures for the page: cells of every mechanism, and one cell as ten weeks would have photographed it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from cellbook.cells import CellSet
from cellbook.runs import Run
from cellbook.screens.bbbc021 import CONTROL, MOAS
from cellbook.screens.simulator import SimulatedScreen, render
from cellbook.screens.simulator.simulate import field_shape, photograph, screen_tables

RANGE = (0.5, 99.0)  # percentiles of the grey values that are shown as black and as full colour
ROLES = ("treatment", "negative control")


def pick(table: pd.DataFrame, per_mechanism: int, seed: int = 0) -> pd.DataFrame:
    """Rows of random cells, `per_mechanism` of every mechanism and of DMSO, of as many compounds as there are.

    Returns
    -------
    DataFrame
        moa, place (0 to `per_mechanism` - 1), row; in the order DMSO, then mechanisms by name. A mechanism with too
        few cells has fewer rows.
    """
    generator = np.random.default_rng(seed)
    usable = table["Metadata_role"].isin(ROLES)
    if "Metadata_dapi_centre_ratio" in table:
        usable &= table["Metadata_dapi_centre_ratio"] > 1.2  # a nucleus in the middle
    rows = []
    for moa in (CONTROL, *MOAS):
        of_moa = np.flatnonzero(usable & (table["Metadata_moa"] == moa))
        order = pd.DataFrame({"row": generator.permutation(of_moa)})
        order["compound"] = table["Metadata_compound"].to_numpy()[order["row"]]
        order["turn"] = order.groupby("compound").cumcount()  # one cell of each compound before a second of any
        chosen = order.sort_values("turn", kind="stable")["row"].to_numpy()[:per_mechanism]
        rows += [{"moa": moa, "place": place, "row": int(row)} for place, row in enumerate(chosen)]
    return pd.DataFrame(rows)


def limits(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grey values shown as black and as full colour, (C,) each, from all crops given, (N, C, H, W)."""
    low, high = np.percentile(images, RANGE, axis=(0, 2, 3))
    return low, high


def composite(images: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Three channels as red, green and blue: (N, 3, H, W) -> (N, H, W, 3) uint8, clipped outside `low` to `high`.

    `low` and `high` are (C,), or (N, C) for a range of each crop's own.
    """
    low, high = (np.atleast_2d(value)[:, :, None, None] for value in (low, high))
    shown = np.clip((images.astype(np.float64) - low) / np.maximum(high - low, 1.0), 0, 1)
    return np.round(255 * shown).astype(np.uint8).transpose(0, 2, 3, 1)


def mechanisms(cells: CellSet, per_mechanism: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Picked cells, the table of `pick`, and their colours (n, H, W, 3), shown in the display range of their week."""
    chosen = pick(cells.table, per_mechanism, seed)
    weeks = cells.table["Metadata_batch"].to_numpy()
    rows = chosen["row"].to_numpy()
    low, high = np.empty((len(rows), 3)), np.empty((len(rows), 3))
    for week in np.unique(weeks[rows]):
        of_week = np.flatnonzero(weeks == week)[:500]  # the stack may be a memory map larger than memory
        low[weeks[rows] == week], high[weeks[rows] == week] = limits(cells.images[of_week])
    return chosen, composite(np.asarray(cells.images[rows]), low, high)


def one_cell(config: SimulatedScreen) -> tuple[list[str], np.ndarray]:
    """One control cell as each week would have photographed it: names of the weeks, (2, weeks, H, W, 3) uint8.

    Cell, neighbours and camera noise are the same everywhere; well B02 of the first plate of each week lends its
    nuisances. The second row is the same without the effect of weeks, so that plates are what is left. One display
    range for all.
    """
    field = tuple(max(128, side) for side in field_shape(config))
    one_site = replace(config, sites=1, field=field)
    (cells, wells), (_, without) = (screen_tables(each) for each in (one_site, replace(one_site, week_effect=0.0)))
    controls = wells[wells["Metadata_compound"] == CONTROL].groupby("Metadata_batch", sort=False).head(1)
    first = controls.index[0]
    part = cells[cells["row"] == first]
    usual = part["truth_state"] == 0  # interphase
    off = (part["truth_nucleus_area"] - part["truth_nucleus_area"].median()).abs()
    y, x = part.loc[off.where(usual, np.inf).idxmin(), ["y", "x"]].astype(int)

    count = 2 * len(controls)
    names = wells.loc[[first] * count].filter(like="Metadata_").reset_index(drop=True)
    lent = pd.concat([table.loc[controls.index].filter(like="truth_") for table in (wells, without)])
    copies = pd.concat([part.assign(row=k, field=k) for k in range(count)], ignore_index=True)
    crops = []
    for _, fields in photograph(one_site, copies, pd.concat([names, lent.reset_index(drop=True)], axis=1)):
        place = [torch.arange(len(fields)), torch.full((len(fields),), y), torch.full((len(fields),), x)]
        crops.append(render.cut(fields.view(torch.int16), *place, config.crop).numpy().view(np.uint16))
    images = np.concatenate(crops)
    colours = composite(images, *limits(images))
    return controls["Metadata_batch"].tolist(), colours.reshape(2, len(controls), *colours.shape[1:])


def rows(name: str, chosen: pd.DataFrame, images: np.ndarray, columns: list[str]) -> list[tuple[str, list]]:
    """Rows of a montage: one cell of each mechanism in `columns` a row, None where a mechanism has no more."""
    place = {(line.moa, line.place): images[number] for number, line in enumerate(chosen.itertuples())}
    count = int(chosen["place"].max()) + 1
    return [(name, [place.get((moa, k)) for moa in columns]) for k in range(count)]


def stored(run: Run) -> tuple[pd.DataFrame, np.ndarray, list[str], np.ndarray]:
    """The pictures that the first run kept: picked cells and their colours, weeks and the cell under each."""
    with np.load(run.path("grid.npz")) as kept:
        return run.table("grid"), kept["mechanisms"], kept["names"].tolist(), kept["weeks"]
