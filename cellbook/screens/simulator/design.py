"""Which well holds what: the plate map of BBBC021 and of a small genetic screen, scalable in wells and cells."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.screens.bbbc021 import CONTROL, CONTROL_WELLS, POSITIVE_CONTROL, POSITIVE_CONTROL_WELLS, treatments

GENETIC_CONTROL = "EMPTY"

# A week screens its compounds in two sets of plates; a compound's doses fall from left to right along a row.
# compound: set, wells. The wells are those of BBBC021.
LIBRARY = {
    "AZ-A": (0, "G03 G04 G05 G06 G07 G08"),
    "cytochalasin B": (0, "B03 B04"),
    "nocodazole": (0, "E03 E04"),
    "taxol": (0, "D03 D04 D05"),
    "colchicine": (1, "E07"),
    "epothilone B": (1, "D04 D05 D06"),
    "latrunculin B": (1, "B05 B06"),
    "ALLN": (0, "D03 D06"),
    "cytochalasin D": (0, "B06"),
    "methotrexate": (0, "G03"),
    "MG-132": (1, "C06 C09"),
    "AZ-C": (0, "D03 D04 D05 D06 D07 D08 D09"),
    "AZ841": (0, "E06 E07 E08"),
    "etoposide": (0, "F04 F05 F06"),
    "vincristine": (0, "B04 B05 B06 B07 B08 B09 B10"),
    "chlorambucil": (1, "F03"),
    "cisplatin": (1, "E04"),
    "demecolcine": (1, "B03 B04 B05 B06"),
    "emetine": (1, "C06 C07 C08"),
    "anisomycin": (0, "B05 B06"),
    "AZ258": (1, "C06 C07 C08"),
    "cyclohexamide": (1, "B03 B04 B05"),
    "mitomycin C": (1, "G04 G05 G06 G07"),
    "AZ-J": (0, "B03 B04 B05"),
    "lactacystin": (0, "B03"),
    "docetaxel": (0, "C04 C05 C06"),
    "proteasome inhibitor I": (0, "D04 D07"),
    "PD-169316": (1, "F04 F05"),
    "alsterpaullone": (1, "G05 G06"),
    "bryostatin": (1, "E06"),
    "camptothecin": (0, "C08 C09 C10"),
    "PP-2": (1, "E04 E05"),
    "mevinolin/lovastatin": (0, "E04 E05 E06"),
    "floxuridine": (1, "B04 B05"),
    "mitoxantrone": (1, "F09 F10"),
    "simvastatin": (1, "D03 D04 D05"),
    "AZ-U": (0, "D04 D05 D06"),
    "AZ138": (0, "C05 C06 C07 C08 C09"),
}

# week: replicate labels of the plates of the first and of the second set; 55 plates in all.
PLATES = {f"Week{week}": ((1, 2, 3), (1, 2, 3)) for week in range(1, 10)} | {
    "Week7": ((1, 3, 1), (2, 3)),
    "Week8": ((1, 2, 3), (1, 2)),
    "Week10": ((1, 2, 3), ()),
}

# gene: variants; the first TRAINED are those a weakly supervised network is trained on, one of each gene.
GENES = {
    "KRAS": ("G12V", "WT", "Q61H"),
    "EGFR": ("L858R", "WT", "G719A"),
    "TP53": ("R273H", "WT", "R175H"),
    "BRAF": ("V600E", "WT"),
    "PIK3CA": ("H1047R", "E545K", "WT"),
    "CTNNB1": ("S37F", "WT"),
    "STK11": ("WT", "D194Y"),
    "KEAP1": ("WT", "G333C", "R320Q"),
    "NFE2L2": ("G31V", "WT"),
    "RIT1": ("M90I", "A77S", "WT"),
}


@dataclass(frozen=True)
class SimulatedScreen:
    """What to simulate; every strength is a factor, and zero removes the thing exactly.

    By default treatments and weeks are as strong as in the real sample of BBBC021 at equal layout and numbers of cells,
    judged by classical features and by a network that learned from photographs (`benchmarks/calibrate_screen.py`).
    `FIRST_STRENGTHS` are those that were set by eye before.
    """

    seed: int = 0  # everything random is keyed by it
    # "chemical": BBBC021, three stains, 103 treatments, ten weeks; "genetic": Cell Painting, five stains, 26 variants
    # of ten genes.
    design: str = "chemical"
    wells: int = 3  # of a treatment: at most 3 (seven treatments have 2) if chemical, any number if genetic
    controls: int = 3  # untreated wells a plate, at most 6
    positive_controls: int = 1  # wells of taxol 0.3 a plate, at most 6
    cells: int = 28  # expected in an untreated well, all sites together; toxic treatments leave fewer
    sites: int = 1  # fields of view a well
    # Height and width of a field in pixels; None makes it as large as the cells need. When given, its area decides how
    # many cells there are, and `cells` is not used.
    field: tuple[int, int] | None = None
    crop: int = 68  # side of the image of one cell in pixels, 16 to 128; real crops of BBBC021 in the sample have 68
    effect: float = 1.15  # strength of the treatments
    compound_effect: float = 1.0  # how much compounds of one mechanism differ
    # Strength of what has nothing to do with biology: weeks, plates, the place of a well; at last of the camera.
    week_effect: float = 0.5
    plate_effect: float = 1.0
    position_effect: float = 1.0
    delay_effect: float = 1.0  # how much a late staining shows; the delay itself is always in the table
    noise: float = 1.0

    def __post_init__(self) -> None:
        if self.design not in ("chemical", "genetic"):
            raise CellbookError(f"design={self.design!r} is unknown: choose 'chemical' or 'genetic'.")
        most_wells = 3 if self.design == "chemical" else 96
        for name, low, high in (
            ("wells", 1, most_wells),
            ("controls", 1, 6),
            ("positive_controls", 0, 6),
            ("cells", 1, 100_000),
            ("sites", 1, 100),
            ("crop", 16, 128),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise CellbookError(f"{name}={value} must lie from {low} to {high} for the {self.design} design.")
        for name in ("effect", *(name for name in vars(self) if name.endswith("_effect")), "noise"):
            if not 0 <= getattr(self, name) <= 10:
                raise CellbookError(f"{name}={getattr(self, name)} must lie from 0 (none) to 10.")
        if self.field is not None and (len(self.field) != 2 or min(self.field) < 128 or max(self.field) > 4096):
            raise CellbookError(f"field={self.field} must be (height, width), each from 128 to 4096 pixels.")


FIRST_STRENGTHS = {"effect": 1.0, "week_effect": 1.0}
# What the book uses: tests, the default of every page, and the size of the papers.
PRESETS = {
    "smoke": SimulatedScreen(wells=1, controls=1, positive_controls=0, cells=3),
    "quick": SimulatedScreen(),
    "paper": SimulatedScreen(controls=6, positive_controls=6, cells=480, sites=4),
}


def preset(name: str, **changes) -> SimulatedScreen:
    """Configuration of a named size (smoke, quick, paper) with any field changed."""
    if name not in PRESETS:
        raise CellbookError(f"name={name!r} is no preset: choose one of {', '.join(PRESETS)}.")
    return replace(PRESETS[name], **changes)


def stream(seed: int, *keys: object) -> np.random.Generator:
    """Random numbers that depend on the seed and the keys alone, so that no part of a screen shifts another."""
    digest = hashlib.blake2b("\x1f".join(map(str, (seed, *keys))).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64)))


def variants() -> pd.DataFrame:
    """Name, gene and split of the 26 variants: ten ("train") a network is trained on, 16 ("profile") it never sees."""
    rows = [
        (f"{gene}_{allele}", gene, "train" if i == 0 else "profile")
        for gene, alleles in GENES.items()
        for i, allele in enumerate(alleles)
    ]
    return pd.DataFrame(rows, columns=["variant", "gene", "split"])


def plate_map(config: SimulatedScreen) -> pd.DataFrame:
    """One row a well, in plate order: plate, well, batch, compound, concentration, MOA, replicate and role.

    Plates are called Week1_1 to Week10_3 (their numbers are not those of the real plates), so that a simulated table
    is never mistaken for a real one. The genetic design has Batch1_1 and so on, every variant on every plate.
    """
    wells = _chemical(config) if config.design == "chemical" else _genetic(config)
    columns = ["plate", "well", "batch", "compound", "concentration", "moa", "replicate", "role"]
    wells.columns = [f"Metadata_{name}" for name in columns + list(wells.columns[len(columns) :])]
    return wells


def _chemical(config: SimulatedScreen) -> pd.DataFrame:
    table = treatments()
    missing = sorted(set(table.compound) - set(LIBRARY))
    if missing:
        raise CellbookError(f"{len(missing)} compounds of the treatment table have no library well: {missing}.")
    moa = table.set_index(["compound", "concentration"]).moa
    rows: list[tuple] = []
    for week, sets in PLATES.items():
        placed = [
            (which, well, compound, dose)
            for compound, doses in table[table.week == week].groupby("compound").concentration
            for which, places in [LIBRARY[compound]]
            for well, dose in zip(places.split(), sorted(doses, reverse=True), strict=True)
        ]
        number = 0
        for which, replicates in enumerate(sets):
            for copy, replicate in enumerate(replicates):
                number += 1
                plate = f"{week}_{number}"
                controls = [(well, CONTROL, 0.0, CONTROL, "negative control") for well in CONTROL_WELLS]
                positive = [
                    (well, *POSITIVE_CONTROL, moa[POSITIVE_CONTROL], "positive control")
                    for well in POSITIVE_CONTROL_WELLS
                ]
                library = [(w, c, d, moa[(c, d)], "treatment") for s, w, c, d in placed if s == which]
                kept = controls[: config.controls] + positive[: config.positive_controls]
                kept += library if copy < config.wells else []
                rows += [(plate, w, week, c, d, m, replicate, role) for w, c, d, m, role in sorted(kept)]
    return pd.DataFrame(rows)


def _genetic(config: SimulatedScreen) -> pd.DataFrame:
    inner = [f"{row}{column:02d}" for row in "BCDEFG" for column in range(3, 11)]
    rows: list[tuple] = []
    table = variants()
    for copy in range(config.wells):
        batch, plate = f"Batch{copy % 4 + 1}", f"Batch{copy % 4 + 1}_{copy // 4 + 1}"
        # Variants change places between plates, so that the place of a well does not tell the variant.
        places = stream(config.seed, "places", plate).permutation(inner)[: len(table)]
        controls = [
            (plate, well, batch, GENETIC_CONTROL, 0.0, GENETIC_CONTROL, copy + 1, "negative control", "control")
            for well in CONTROL_WELLS[: config.controls]
        ]
        treated = [
            (plate, well, batch, variant, 0.0, gene, copy + 1, "treatment", split)
            for well, (variant, gene, split) in zip(places, table.itertuples(index=False, name=None), strict=True)
        ]
        rows += sorted(controls + treated)
    wells = pd.DataFrame(rows)
    return wells.rename(columns={8: "split"}).sort_values([2, 0, 1], ignore_index=True)
