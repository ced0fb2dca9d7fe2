"""Simulate a screen: draw its cells, compose them into fields, photograph the fields, cut out the crops.

Crops are always cut from (virtual) fields, so that neighbours are in them and so that `simulate` and `simulate_fields`
show the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from joblib import cpu_count
from torch import Tensor
from tqdm import tqdm

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.pixels import centre, in_threads
from cellbook.screens.fields import PIXEL_UM
from cellbook.screens.outlines import with_boxes
from cellbook.screens.simulator import anatomy, layout, nuisance, phenotypes, render
from cellbook.screens.simulator.design import SimulatedScreen, plate_map, stream

AREA_PER_CELL = 4850.0  # pixels; 270 cells in a field of 1024 x 1280
# Of a batch: pixels of its fields, and cells drawn at once. What stays in a core's cache, and what fills a GPU.
_SMALL, _LARGE = (1 << 20, 64), (1 << 22, 1024)
_TURN = 256  # fields laid out in one go


@dataclass(frozen=True)
class _Batch:
    """What is made with numpy for some whole fields; pinned in memory where the device is not the CPU."""

    rows: slice  # of the table of cells
    wells: pd.DataFrame  # one row a field
    light: tuple[int, ...]  # shape of the fields, (F, C, H, W)
    cells: list[dict[str, Tensor]]  # of `anatomy.shape_cells`, some cells each
    places: list[list[Tensor]]  # field, y and x of the same cells
    noise: Tensor | None  # standard normal numbers of that shape


def simulate(
    config: SimulatedScreen,
    device: str | torch.device = "cpu",
    progress: bool = False,
    plates: Sequence[str] | None = None,
    outlined: bool = False,
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
    outlined : bool
        Every cell alone: black outside of its own outline, which is in the middle of its crop; see `pixels.centre`.
        ``Metadata_larger`` says of which cells some is cut off, as they are larger than their crop.

    Returns
    -------
    CellSet
        uint16, 12-bit values times 16, one crop a cell. ``Metadata_*`` as every screen has them; ``truth_*``: the
        parameters of the cell, the effect of its treatment on it, and the nuisances of its well.
    """
    cells, wells = screen_tables(config, plates)
    boxes = torch.empty(len(cells), 2, dtype=torch.int64, device=device) if outlined else None
    images = crops(config, cells, wells, device, progress, boxes).cpu().numpy()
    table = cell_table(cells, wells)
    if boxes is not None:
        table = with_boxes(table, boxes.cpu().numpy(), config.crop)
    return CellSet(images, table, render.STAINS[config.design], PIXEL_UM)


def crops(
    config: SimulatedScreen,
    cells: pd.DataFrame,
    wells: pd.DataFrame,
    device: str | torch.device = "cpu",
    progress: bool = False,
    boxes: Tensor | None = None,
) -> Tensor:
    """Crops of all cells of `screen_tables`, (N, C, side, side) uint16, left on the device.

    With `boxes`, (N, 2) int64, cells are outlined, and height and width of their outlines are put there.
    """
    side = config.crop
    seen = side if boxes is None else max(side, render.PATCH)  # a patch holds every cell
    # The device moves the bits of uint16 as int16.
    images = torch.empty((len(cells), len(render.STAINS[config.design]), side, side), dtype=torch.int16, device=device)
    for batch, fields in _photographs(config, cells, wells, device, progress):
        bits = fields.view(torch.int16)
        start = batch.rows.start
        for cell, places in zip(batch.cells, batch.places, strict=True):
            few = render.cut(bits, *(place.to(bits.device, non_blocking=True) for place in places), seen)
            rows = slice(start, start + len(few))
            if boxes is not None:
                outline = cell["border"].to(bits.device, non_blocking=True)
                inside = render.inside(render.canvas(config.seed, bits.device), outline, seen)
                few, boxes[rows] = centre(few, inside, side)
            images[rows] = few
            start += len(few)
    return images.view(torch.uint16)


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
    fields, counts = counts.index.to_numpy(), counts.to_numpy()

    def centres(start: int) -> np.ndarray:
        placed = []
        for field, count in zip(fields[start : start + _TURN], counts[start : start + _TURN], strict=True):
            well, site = divmod(field, config.sites)
            draw = stream(config.seed, "layout", *names[well], site + 1)
            placed.append(layout.place(draw, count, shape, clumping[well]))
        return np.concatenate(placed)

    cells[["y", "x"]] = np.concatenate(list(in_threads(centres, range(0, len(fields), _TURN), cpu_count())))
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
    return ((batch.rows, fields) for batch, fields in _photographs(config, cells, wells, device, progress))


def _photographs(
    config: SimulatedScreen, cells: pd.DataFrame, wells: pd.DataFrame, device: str | torch.device, progress: bool
) -> Iterator[tuple[_Batch, Tensor]]:
    """Batches of fields. A CPU makes each in one thread; for a GPU threads make what numpy draws, ahead of it."""
    shape, device = field_shape(config), torch.device(device)
    canvas = render.canvas(config.seed, device)
    bounds = np.concatenate([[0], np.cumsum(cells.groupby("field").size().to_numpy())])
    alone = device.type == "cpu"
    pixels, at_once = _SMALL if alone else _LARGE
    step = max(1, pixels // (shape[0] * shape[1]))
    prepare = partial(_prepare, config, cells, wells, shape, bounds, step, at_once, pinned=device.type == "cuda")

    def whole(first: int) -> tuple[_Batch, Tensor]:
        batch = prepare(first)
        return batch, _expose(config, canvas, batch)

    firsts = range(0, len(bounds) - 1, step)
    with tqdm(total=len(cells), unit="cell", disable=not progress) as bar:
        if alone:
            results = in_threads(whole, firsts)
        else:
            results = ((batch, _expose(config, canvas, batch)) for batch in in_threads(prepare, firsts, cpu_count()))
        for batch, fields in results:
            yield batch, fields
            bar.update(batch.rows.stop - batch.rows.start)


def _prepare(
    config: SimulatedScreen,
    cells: pd.DataFrame,
    wells: pd.DataFrame,
    shape: tuple[int, int],
    bounds: np.ndarray,
    step: int,
    at_once: int,
    first: int,
    *,
    pinned: bool,
) -> _Batch:
    """Everything random of up to `step` fields from the `first` on; `bounds`: where each field starts among `cells`."""
    inside = bounds[first : first + step + 1]
    part = cells.iloc[inside[0] : inside[-1]]
    row, site = np.divmod(np.arange(first, first + len(inside) - 1), config.sites)
    names = wells[["Metadata_plate", "Metadata_well"]].to_numpy()[row]
    keys = [(plate, well, number + 1) for (plate, well), number in zip(names, site, strict=True)]
    shapes = _anatomies(config, part, keys, inside - inside[0], shape)

    def held(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory() if pinned else tensor

    chunks = [slice(start, start + at_once) for start in range(0, len(part), at_once)]
    few = [render.rare({name: value[chunk] for name, value in shapes.items()}) for chunk in chunks]
    places = [[held(value[chunk].copy()) for value in _places(part)] for chunk in chunks]
    light = (len(keys), len(render.STAINS[config.design]), *shape)
    noise = None
    if config.noise > 0:
        noise = torch.empty(light, pin_memory=pinned)
        for key, out in zip(keys, noise.numpy(), strict=True):
            stream(config.seed, "camera", *key).standard_normal(dtype=np.float32, out=out)
    drawn = [{name: held(value) for name, value in cell.items()} for cell in few]
    return _Batch(slice(inside[0], inside[-1]), wells.iloc[row], light, drawn, places, noise)


def _expose(config: SimulatedScreen, canvas: render.Canvas, batch: _Batch) -> Tensor:
    """Fields (F, C, H, W) uint16 of one batch. Nothing here waits for the device."""
    move = partial(Tensor.to, device=canvas.r.device, non_blocking=True)
    light = torch.zeros(batch.light, device=canvas.r.device)
    for cell, places in zip(batch.cells, batch.places, strict=True):
        drawn = render.draw(canvas, {name: move(value) for name, value in cell.items()}, config.design)
        render.scatter(canvas, light, drawn, *map(move, places))
    noise = None if batch.noise is None else move(batch.noise)
    return nuisance.develop(light, batch.wells, config, render.STAINS[config.design], noise)


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
