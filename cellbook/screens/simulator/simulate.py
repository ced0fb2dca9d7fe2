"""Simulate a screen: draw its cells, compose them into fields, photograph the fields, cut out the crops.

Crops are always cut from (virtual) fields, so that neighbours are in them and so that `simulate` and `simulate_fields`
show the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.pixels import in_threads
from cellbook.screens.fields import PIXEL_UM
from cellbook.screens.simulator import anatomy, layout, nuisance, phenotypes, render
from cellbook.screens.simulator.design import SimulatedScreen, plate_map, stream

AREA_PER_CELL = 4850.0  # pixels; 270 cells in a field of 1024 x 1280
_BATCH_CELLS, _BATCH_PIXELS = 64, 1 << 20


def simulate(
    config: SimulatedScreen,
    device: str | torch.device = "cpu",
    progress: bool = False,
    plates: Sequence[str] | None = None,
) -> CellSet:
    """Simulated cells with their labels and their truth.

    Parameters
    ----------
    config : SimulatedScreen
        What to simulate.
    device : str or torch.device
        Where to draw. Random numbers are drawn with numpy whatever the device, so that two devices agree to within a
        grey level.
    progress : bool
        Show a progress bar.
    plates : sequence of str, optional
        Only these plates; their cells are the same as in the whole screen.

    Returns
    -------
    CellSet
        uint16, 12-bit values times 16, one crop a cell. ``Metadata_*`` as every screen has them; ``truth_*``: the
        parameters of the cell, the effect of its treatment on it, and the nuisances of its well.
    """
    cells, wells = screen_tables(config, plates)
    side = config.crop
    images = np.empty((len(cells), len(render.STAINS[config.design]), side, side), dtype=np.uint16)
    for rows, fields in photograph(config, cells, wells, device, progress):
        places = [torch.from_numpy(v.copy()).to(fields.device) for v in _places(cells.iloc[rows])]
        # Indexing of uint16 is not there on every device: its bits are moved as int16.
        crops = render.cut(fields.view(torch.int16), *places, side)
        images[rows] = crops.cpu().numpy().view(np.uint16)
    return CellSet(images, cell_table(cells, wells), render.STAINS[config.design], PIXEL_UM)


def field_shape(config: SimulatedScreen) -> tuple[int, int]:
    """Height and width of a field: as configured, or 4 : 5 and as large as the expected cells need."""
    if config.field is not None:
        return config.field
    height = np.sqrt(config.cells / config.sites * AREA_PER_CELL * 0.8)
    smallest = max(render.PATCH, config.crop) + 8
    return max(smallest, round(height)), max(smallest, round(1.25 * height))


def screen_tables(config: SimulatedScreen, plates: Sequence[str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells of a screen before any pixel is drawn, sorted by field, and its wells with their nuisances.

    Returns
    -------
    cells : pandas.DataFrame
        As `phenotypes.draw_cells`, with ``field`` (number), ``y`` and ``x`` (centre of the nucleus in its field).
    wells : pandas.DataFrame
        The plate map with ``truth_*`` of `nuisance.nuisances` and ``Metadata_cell_count``.
    """
    wells = plate_map(config)
    if plates is not None:
        unknown = sorted(set(plates) - set(wells.Metadata_plate))
        if unknown or not len(plates):
            known = ", ".join(wells.Metadata_plate.unique())
            raise CellbookError(f"plates: {unknown or 'an empty list'} names no plate of this design; it has {known}.")
        wells = wells[wells.Metadata_plate.isin(list(plates))].reset_index(drop=True)
    wells = pd.concat([wells, nuisance.nuisances(config, wells, render.STAINS[config.design])], axis=1)
    shape = field_shape(config)
    # Fields that had to be made larger than the cells need keep the number of cells, not the density.
    area_per_cell = AREA_PER_CELL
    if config.field is None:
        area_per_cell = shape[0] * shape[1] * config.sites / config.cells
    cells = phenotypes.draw_cells(config, wells, shape[0] * shape[1], area_per_cell)
    cells["field"] = cells.row * config.sites + cells.site - 1
    clumping = nuisance.clumping(wells)
    names = wells[["Metadata_plate", "Metadata_well"]].to_numpy()
    counts = cells.groupby("field").size()
    centres = [
        layout.place(
            stream(config.seed, "layout", *names[field // config.sites], field % config.sites + 1),
            count,
            shape,
            clumping[field // config.sites],
        )
        for field, count in counts.items()
    ]
    cells[["y", "x"]] = np.concatenate(centres)
    wells["Metadata_cell_count"] = cells.groupby("row").size().reindex(range(len(wells))).to_numpy()
    return cells, wells


def photograph(
    config: SimulatedScreen,
    cells: pd.DataFrame,
    wells: pd.DataFrame,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Batches of whole fields as the camera stores them.

    Yields
    ------
    rows : slice
        Rows of `cells` that lie in the batch.
    fields : torch.Tensor
        (F, C, H, W) uint16; the field numbers of those rows count on from the first row's.
    """
    shape = field_shape(config)
    canvas = render.canvas(config.seed, device)
    bounds = np.concatenate([[0], np.cumsum(cells.groupby("field").size().to_numpy())])
    step = max(1, _BATCH_PIXELS // (shape[0] * shape[1]))

    def batch(first: int) -> tuple[slice, torch.Tensor]:
        inside = bounds[first : first + step + 1]
        part = cells.iloc[inside[0] : inside[-1]]
        return slice(inside[0], inside[-1]), _photograph(config, canvas, part, inside - inside[0], first, wells, shape)

    firsts = range(0, len(bounds) - 1, step)
    with tqdm(total=len(cells), unit="cell", disable=not progress) as bar:
        results = map(batch, firsts) if torch.device(device).type != "cpu" else in_threads(batch, firsts)
        for rows, fields in results:
            yield rows, fields
            bar.update(rows.stop - rows.start)


def _photograph(
    config: SimulatedScreen,
    canvas: render.Canvas,
    part: pd.DataFrame,
    bounds: np.ndarray,
    first: int,
    wells: pd.DataFrame,
    shape: tuple[int, int],
) -> torch.Tensor:
    """Fields (F, C, H, W) of one batch: its cells, where each field starts among them, and the first field's number."""
    stains, device = render.STAINS[config.design], canvas.r.device
    row, site = np.divmod(np.arange(first, first + len(bounds) - 1), config.sites)
    names = wells[["Metadata_plate", "Metadata_well"]].to_numpy()[row]
    keys = [(plate, well, number + 1) for (plate, well), number in zip(names, site, strict=True)]
    light = torch.zeros((len(keys), len(stains), *shape), device=device)
    shapes = _anatomies(config, part, keys, bounds, shape)
    places = _places(part)
    for start in range(0, len(part), _BATCH_CELLS):
        few = slice(start, start + _BATCH_CELLS)
        cell = {name: torch.from_numpy(value[few]).to(device) for name, value in shapes.items()}
        where = [torch.from_numpy(value[few].copy()).to(device) for value in places]
        render.scatter(canvas, light, render.draw(canvas, cell, config.design), *where)
    noise = None
    if config.noise > 0:
        size = (len(stains), *shape)
        draws = [stream(config.seed, "camera", *key).standard_normal(size, dtype=np.float32) for key in keys]
        noise = torch.from_numpy(np.stack(draws)).to(device)
    return nuisance.develop(light, wells.iloc[row], config, stains, noise)


def cell_table(cells: pd.DataFrame, wells: pd.DataFrame) -> pd.DataFrame:
    """Table of a cell set: metadata of the wells, place of the cell, its truth and its well's nuisances."""
    of_well = wells.iloc[cells.row.to_numpy()].reset_index(drop=True)
    metadata = of_well.filter(like="Metadata_")
    site = cells.site.reset_index(drop=True)
    metadata = metadata.assign(
        Metadata_site=site,
        Metadata_field=of_well.Metadata_plate + "_" + of_well.Metadata_well + "_s" + site.astype(str),
        Metadata_y=cells.y.to_numpy(),
        Metadata_x=cells.x.to_numpy(),
    )
    truth = cells.filter(like="truth_").reset_index(drop=True)
    truth["truth_state"] = np.array(phenotypes.LABELS)[truth.truth_state]
    truth["truth_spindle"] = np.where(
        truth.truth_state == "mitotic", np.array(phenotypes.KINDS)[truth.truth_spindle], "none"
    )
    nuisances = of_well.filter(like="truth_")
    numbers = {name: np.float32 for name in [*truth, *nuisances] if name not in ("truth_state", "truth_spindle")}
    return pd.concat([metadata, truth, nuisances], axis=1).astype(numbers)


def _places(part: pd.DataFrame) -> list[np.ndarray]:
    """Field within the batch, y and x of each cell."""
    return [(part.field - part.field.iloc[0]).to_numpy(), part.y.to_numpy(), part.x.to_numpy()]


def _anatomies(
    config: SimulatedScreen, part: pd.DataFrame, keys: list[tuple], bounds: np.ndarray, shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Shapes of all cells of a batch of fields; neighbours are sought field by field."""
    points = part[["y", "x"]].to_numpy()
    vectors, others, geometry = [], [], []
    for key, low, high in zip(keys, bounds[:-1], bounds[1:], strict=True):
        vector, other = layout.neighbours(points[low:high], shape)
        vectors.append(vector)
        others.append(other + low)
        geometry.append(stream(config.seed, "geometry", *key).random((high - low, anatomy.GEOMETRY)))
    return anatomy.shape_cells(part, *map(np.concatenate, (geometry, vectors, others)))
