"""What the page asks of real pixels: nuclei in whole fields, and how near simulated cells come to real ones.

Products hold measurements only: no pixel of the real images is ever stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from cellbook.cells import CellSet
from cellbook.screens import locate
from cellbook.screens.named import real_files
from cellbook.screens.nuclei import METHODS, detect, match_centres
from cellbook.screens.simulator.calibration import calibrate, measure

RADIUS = 10.0  # pixels within which a centre counts as found
MARGIN = 17  # pixels, a nuclear radius: nearer to unknown area a nucleus may be cut and have no published centre
COMPARED = 1_000  # simulated control cells that are set beside the real ones
AREAS = tuple(range(2, 100, 4))  # percentiles of nuclear areas that are kept


@dataclass(frozen=True)
class Field:
    """One reassembled field: DNA, tubulin and actin (3, H, W), what of it is known (H, W), published centres (n, 2)."""

    name: str
    plate: str
    image: np.ndarray
    known: np.ndarray
    centres: np.ndarray


def fields() -> Iterator[Field]:
    """The five fields put back together from crops, in the order of their table."""
    listed = pd.read_csv(locate.find("fields.csv"))
    names = sorted(name for name in real_files() if name.startswith("B02") and name.endswith(".npz"))
    plates = {str(row["field"]): str(row["plate"]) for _, row in listed.iterrows()}
    for name in names:
        stem = name.removesuffix(".npz")
        with np.load(locate.find(name)) as stored:
            # stored as DAPI, actin, tubulin, with the number of the crop before y and x
            yield Field(
                stem, plates[stem], stored["image"][[0, 2, 1]], stored["known"], stored["centres"][:, 1:].astype(int)
            )


def inside(known: np.ndarray) -> np.ndarray:
    """Where a nucleus can be judged: known area, `MARGIN` pixels from its edge."""
    return ndimage.distance_transform_edt(np.pad(known, 1))[1:-1, 1:-1] > MARGIN


@dataclass(frozen=True)
class Detection:
    """Centres found and published inside the judged area, (n, 2), and which of them belong together."""

    found: np.ndarray
    truth: np.ndarray
    found_matched: np.ndarray
    truth_matched: np.ndarray


def detection(field: Field, method: str) -> Detection:
    """Look for the nuclei of one field and compare them with the published centres."""
    found = detect(field.image[0], method, known=field.known)
    pairs = match_centres(found, field.centres, RADIUS).pairs
    judged = inside(field.known)
    hit = np.isin(np.arange(len(found)), pairs[:, 0]), np.isin(np.arange(len(field.centres)), pairs[:, 1])
    keep = judged[tuple(found.T)], judged[tuple(field.centres.T)]
    return Detection(found[keep[0]], field.centres[keep[1]], hit[0][keep[0]], hit[1][keep[1]])


def nuclei() -> pd.DataFrame:
    """Centres found and published in every field by every method: field, plate, method, and four counts."""
    rows = []
    for field in fields():
        for method in METHODS:
            d = detection(field, method)
            counts = {
                "found": len(d.found),
                "found_matched": int(d.found_matched.sum()),
                "published": len(d.truth),
                "published_matched": int(d.truth_matched.sum()),
            }
            rows.append({"field": field.name, "plate": field.plate, "method": method, **counts})
    return pd.DataFrame(rows)


def some_fields(cells: CellSet, seed: int) -> CellSet:
    """All cells of random fields, about `COMPARED` in all: neighbours stay together, and memory stays bounded."""
    names = cells.table["Metadata_field"]
    order = np.random.default_rng(seed).permutation(names.unique())
    total = names.value_counts()[order].cumsum()
    return cells.select(names.isin(total.index[: max(1, int((total <= COMPARED).sum()))]).to_numpy())


def beside(real: CellSet, simulated: CellSet, seed: int) -> dict[str, pd.DataFrame]:
    """Real and simulated control cells beside each other: ``calibration``, see `calibrate`, and nuclear ``areas``."""
    centres = {field.name: field.centres for field in fields()}
    table = calibrate(real, simulated, centres=centres, seed=seed)
    both = {"real": real, "simulated": simulated}
    areas = {kind: np.percentile(measure(cells)["nucleus_area"], AREAS) for kind, cells in both.items()}
    return {
        "calibration": table.rename_axis("measurement").reset_index(),
        "areas": pd.DataFrame({"percentile": AREAS, **areas}),
    }
