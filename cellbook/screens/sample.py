"""The real sample of BBBC021: 2,981 raw crops of single cells as a `CellSet`.

The pixels are those of the camera: neither corrected for illumination nor rescaled, neighbours left in. They were
gathered from public repositories, so they sample the screen unevenly (a third of them are taxol at 0.3 uM); good for
a rough benchmark on real pixels, not for the papers' numbers.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.profiles.table import check_choice
from cellbook.screens.fields import CHANNELS, PIXEL_UM
from cellbook.screens.locate import find

NOISE_BELOW = 0.5  # autocorrelation at one pixel: cells have 0.9 and more, pure camera noise about 0

_STORED_ORDER = (0, 2, 1)  # the files hold DAPI, actin, tubulin
_COLUMNS = ["plate", "well", "batch", "compound", "concentration", "moa", "replicate", "site", "field", "cell"]
_COLUMNS += ["dapi_centre_ratio"]
PARTS = ("all_treatments", "dense_wells")

log = logging.getLogger(__name__)


def bbbc021_sample(which: str = "all_treatments") -> CellSet:
    """Real 68 x 68 crops of BBBC021 in the project's channel order.

    Crops that hold no cell (autocorrelation at one pixel below 0.5 in any channel) are left out; their number is logged
    and kept in ``table.attrs["noise_crops"]``.

    Parameters
    ----------
    which : "all_treatments": 1,996 cells of all 103 treatments and DMSO; "dense_wells": 985 cells of few wells (DMSO,
        cycloheximide, taxol), none of them in the first.

    Returns
    -------
    CellSet
        (N, 3, 68, 68) uint16, a 12-bit camera's values times 16. Besides the usual columns the table holds
        ``Metadata_role`` ("treatment", "positive control" for taxol 0.3 uM outside the three wells of week 1 that the
        published profiles use, "negative control"), ``Metadata_dapi_centre_ratio`` (below about 1.2: no nucleus in the
        middle) and ``Metadata_sample`` (the part it comes from). The position in the field is not known.

    Raises
    ------
    CellbookError : if `which` is unknown, or a file is missing or damaged.
    """
    check_choice("which", which, PARTS)
    images, table, noise = _part(which)
    log.info("%d of %d crops hold only noise and were dropped", noise.sum(), len(noise))
    table = table[~noise].reset_index(drop=True)
    table.attrs["noise_crops"] = int(noise.sum())
    return CellSet(images[~noise], table, CHANNELS, PIXEL_UM)


def _part(part: str) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """The crops, their table, and which of them hold no cell."""
    with np.load(find(f"crops_{part}.npz")) as stored:
        images = stored["images"][:, _STORED_ORDER]
    source = pd.read_csv(find(f"crops_{part}.csv"), dtype={"plate": str, "well": str, "compound": str})
    if len(source) != len(images):
        raise CellbookError(
            f"crops_{part}.csv has {len(source)} rows for {len(images)} crops; use the two files as they were published"
        )
    table = source[_COLUMNS].add_prefix("Metadata_")
    table["Metadata_concentration"] = table["Metadata_concentration"].astype(float)
    control = table["Metadata_compound"] == "DMSO"
    role = np.where(source["in_ljosa_wells"], "treatment", "positive control")
    table["Metadata_role"] = np.where(control, "negative control", role)
    table["Metadata_sample"] = part
    lag = source[[f"lag1_{channel}" for channel in ("dapi", "actin", "tubulin")]]
    return images, table, (lag < NOISE_BELOW).any(axis=1).to_numpy()
