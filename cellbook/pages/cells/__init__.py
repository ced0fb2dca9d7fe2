"""The cells: a simulated screen beside the real one, from pixels to accuracies.

Simulated screens of several seeds, with and without the effect of weeks, go through classical features, principal
components of the pixels and a network that was never trained, all scaled on DMSO cells alone. The real sample, five
real fields and the published profiles stand beside them where they are on the machine.
"""

from cellbook.pages.cells import grids, real
from cellbook.pages.cells.config import PRESETS, VERSION, Config, preset
from cellbook.pages.cells.making import run
from cellbook.pages.cells.measures import evaluate
from cellbook.pages.cells.predicates import PREDICATES
from cellbook.pages.cells.tables import (
    ABSENT,
    apart_sentence,
    compound_key,
    design,
    drop_rows,
    drop_table,
    furthest,
    has_real,
    known_rows,
    nuclei_table,
    real_table,
    simulated_table,
    takeaways,
    week_table,
)

__all__ = [
    "ABSENT",
    "PREDICATES",
    "PRESETS",
    "VERSION",
    "Config",
    "apart_sentence",
    "compound_key",
    "design",
    "drop_rows",
    "drop_table",
    "evaluate",
    "furthest",
    "grids",
    "has_real",
    "known_rows",
    "nuclei_table",
    "preset",
    "real",
    "real_table",
    "run",
    "simulated_table",
    "takeaways",
    "week_table",
]
