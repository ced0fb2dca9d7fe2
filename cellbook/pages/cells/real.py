"""What the page asks of the real cells: profiles, weeks, nuclei in whole fields, and how near the simulated ones come.

Products hold measurements only: no pixel of the real images is ever stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from cellbook.cells import CellSet
from cellbook.files import digest
from cellbook.pages.cells.config import BY_PLATE, POOLED, RealRun
from cellbook.pages.cells.encoding import encode, scale, treatments, week_of_controls, wells_of
from cellbook.runs import save_table
from cellbook.screens import bbbc021, locate
from cellbook.screens.nuclei import METHODS, detect, match_centres
from cellbook.screens.sample import bbbc021_sample
from cellbook.screens.simulator.calibration import calibrate, measure

RADIUS = 10.0  # pixels within which a centre counts as found
MARGIN = 17  # pixels, a nuclear radius: nearer to unknown area a nucleus may be cut and have no published centre
COMPARED = 1_000  # simulated control cells that are set beside the real ones
AREAS = tuple(range(2, 100, 4))  # percentiles of nuclear areas that are kept


def files() -> list[str]:
    """Names of the files that the page reads."""
    fields = [name for name, file in locate.KNOWN_FILES.items() if "/fields_reassembled/" in file.path]
    crops = ["crops_all_treatments.npz", "crops_all_treatments.csv"]
    return [*crops, *fields, bbbc021.IMAGE_TABLE, bbbc021.MOA_TABLE, bbbc021.LJOSA_TABLE]


def missing() -> list[str]:
    """Files of the real cells that are not on this machine; empty if all are there."""
    return [name for name in files() if not locate.is_local(name)]


def fingerprint() -> str:
    """Digest of the real files: their published checksums, which every file is compared with before it is read."""
    return digest([locate.KNOWN_FILES[name].sha256 for name in files()])


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
    names = sorted(name for name in files() if name.startswith("B02") and name.endswith(".npz"))
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


def make_products(config: RealRun, simulated: CellSet, folder: Path, device: str) -> None:
    """Distances between treatments of the sample and of the published profiles, weeks, nuclei, calibration."""
    sample = bbbc021_sample()
    wells, weeks = {}, []
    for encoder in config.encoders:
        scaled = scale(encode(sample, encoder, device, config.seed), POOLED)
        wells[f"{encoder}, {POOLED}"] = wells_of(scaled)
        weeks.append(week_of_controls(scaled, config.seed).assign(encoder=encoder, scaling=POOLED))
    found = treatments(wells)
    save_table(found.table, folder / "sample-treatments.parquet")
    save_table(found.distances, folder / "sample-distances.parquet")
    save_table(pd.concat(weeks, ignore_index=True), folder / "sample-weeks.parquet")

    published = bbbc021.ljosa2013()
    scaled = {f"CellProfiler, {scaling}": scale(published, scaling) for scaling in (BY_PLATE, POOLED)}
    found = treatments(scaled)
    save_table(found.table, folder / "cellprofiler-treatments.parquet")
    save_table(found.distances, folder / "cellprofiler-distances.parquet")

    save_table(nuclei(), folder / "nuclei.parquet")
    control = "Metadata_compound == 'DMSO'"
    pair = sample.select(control), some_fields(simulated.select(control), config.seed)
    centres = {field.name: field.centres for field in fields()}
    table = calibrate(*pair, centres=centres, seed=config.seed)
    save_table(table.rename_axis("measurement").reset_index(), folder / "calibration.parquet")
    areas = {
        kind: np.percentile(measure(cells)["nucleus_area"], AREAS)
        for kind, cells in zip(("real", "simulated"), pair, strict=True)
    }
    save_table(pd.DataFrame({"percentile": AREAS, **areas}), folder / "areas.parquet")
    size = {"cells": len(sample), "control_cells": len(pair[0]), "simulated_control_cells": len(pair[1])}
    size["treatments"] = len(found.table)
    size["wells"] = len(sample.table[["Metadata_plate", "Metadata_well"]].drop_duplicates())
    save_table(pd.DataFrame([size]), folder / "size.parquet")
