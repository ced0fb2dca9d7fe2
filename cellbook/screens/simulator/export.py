"""Write a simulated screen as BBBC021 comes: 16-bit TIFFs of whole fields and the three tables beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cellbook.errors import CellbookError
from cellbook.files import write_atomically, write_text
from cellbook.runs import save_table
from cellbook.screens.bbbc021 import CONTROL, treatments
from cellbook.screens.simulator.design import SimulatedScreen, stream
from cellbook.screens.simulator.simulate import cell_table, photograph, screen_tables

# Stain: name in the tables, wavelength in file names.
FILES = {"DNA": ("DAPI", "w1"), "Tubulin": ("Tubulin", "w2"), "Actin": ("Actin", "w4")}
IMAGE_TABLE, MOA_TABLE, COMPOUND_TABLE = (f"BBBC021_v1_{name}.csv" for name in ("image", "moa", "compound"))
TRUTH = "truth.parquet"


def with_fields(config: SimulatedScreen, field: tuple[int, int] = (1024, 1280), sites: int = 4) -> SimulatedScreen:
    """The same screen photographed in whole fields of that height and width; their area decides how many cells."""
    return replace(config, field=field, sites=sites)


def simulate_fields(
    config: SimulatedScreen,
    out: str | os.PathLike[str],
    field: tuple[int, int] = (1024, 1280),
    sites: int = 4,
    plates: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> pd.DataFrame:
    """Write fields of view and tables in the layout of BBBC021; a plate takes about 0.2 to 2 GB at full size.

    ``simulate(with_fields(config, field, sites), plates=plates)`` gives the cells of the same fields: a crop cut from a
    TIFF at the centre given in ``truth.parquet`` is the crop given there, grey value for grey value, unless it reaches
    over the edge of the field (fields wrap around).

    Parameters
    ----------
    config : SimulatedScreen
        The chemical design.
    out : path
        A new or empty folder; gets ``Week1/Week1_1/*.tif``, ``BBBC021_v1_image.csv``, ``BBBC021_v1_moa.csv``,
        ``BBBC021_v1_compound.csv`` (no structures) and ``truth.parquet`` (one row a cell). The tables are written
        last.
    field, sites : (int, int), int
        Height and width of a field in pixels, and fields a well.
    plates : sequence of str, optional
        Only these plates.
    device : str or torch.device
    progress : bool

    Returns
    -------
    pandas.DataFrame
        The image table, one row a field.
    """
    import tifffile

    if config.design != "chemical":
        raise CellbookError(f"design={config.design!r}: only the chemical design has the layout of BBBC021.")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CellbookError(f"out={out} is there already and not an empty folder: give a new one.")
    config = with_fields(config, field, sites)
    cells, wells = screen_tables(config, plates)
    index = _image_table(config, wells)
    for rows, batch in photograph(config, cells, wells, device, progress):
        first = cells.field.iloc[rows.start]
        for offset, pixels in enumerate(batch.cpu().numpy()):
            row = index.iloc[first + offset]
            for channel, (name, _) in enumerate(FILES.values()):
                path = out / row[f"Image_PathName_{name}"] / row[f"Image_FileName_{name}"]
                write_atomically(path, partial(tifffile.imwrite, data=pixels[channel]))
    save_table(cell_table(cells, wells), out / TRUTH)
    known = treatments()[["compound", "concentration", "moa"]]
    control = pd.DataFrame({"compound": [CONTROL], "concentration": [0.0], "moa": [CONTROL]})
    compounds = pd.DataFrame({"compound": sorted(set(known.compound) | {CONTROL}), "smiles": ""})
    tables = {MOA_TABLE: pd.concat([known, control], ignore_index=True), COMPOUND_TABLE: compounds, IMAGE_TABLE: index}
    for name, table in tables.items():
        write_text(out / name, table.to_csv(index=False, lineterminator="\n"))
    return index


def _image_table(config: SimulatedScreen, wells: pd.DataFrame) -> pd.DataFrame:
    """One row a field in the columns and order of the official image table."""
    fields = wells.loc[np.repeat(wells.index, config.sites)].reset_index(drop=True)
    site = np.tile(np.arange(1, config.sites + 1), len(wells))
    table = pd.DataFrame(
        {"TableNumber": pd.factorize(fields.Metadata_batch)[0] + 1, "ImageNumber": range(1, len(site) + 1)}
    )
    folder = fields.Metadata_batch + "/" + fields.Metadata_plate
    stem = fields.Metadata_plate + "_" + fields.Metadata_well + "_s" + pd.Series(site).astype(str)
    for name, wave in FILES.values():
        # A code after the wavelength makes each name unique, as the microscope's own software does.
        codes = [stream(config.seed, "name", one, wave).bytes(6).hex().upper() for one in stem]
        table[f"Image_FileName_{name}"] = stem + f"_{wave}" + pd.Series(codes) + ".tif"
        table[f"Image_PathName_{name}"] = folder
    table["Image_Metadata_Plate_DAPI"] = fields.Metadata_plate
    table["Image_Metadata_Well_DAPI"] = fields.Metadata_well
    table["Replicate"] = fields.Metadata_replicate
    table["Image_Metadata_Compound"] = fields.Metadata_compound
    table["Image_Metadata_Concentration"] = fields.Metadata_concentration
    return table
