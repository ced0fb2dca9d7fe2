"""Classical profiles: how far scaling, factor analysis, whitening and batch alignment take well means of BBBC021.

The published well features (Ljosa et al. 2013) go through every setting of a grid, scaling x transform, each fitted on
DMSO wells alone; every setting is scored under every protocol. The choice of a setting is nested: it is made again
without each compound in turn, and the accuracy of the compound that was left out counts.
"""

from cellbook.pages.classical.config import PRESETS, VERSION, Config, config_of, preset
from cellbook.pages.classical.making import run
from cellbook.pages.classical.measures import evaluate
from cellbook.pages.classical.tables import (
    PREDICATES,
    baseline_table,
    choice_counts,
    confusion,
    drop_table,
    grid,
    labelled,
    leakage_table,
    nested_table,
    protocol_table,
    reasons,
    ridge_path,
    similarity,
    takeaways,
    verdict_table,
)

__all__ = [
    "PREDICATES",
    "PRESETS",
    "VERSION",
    "Config",
    "baseline_table",
    "choice_counts",
    "config_of",
    "confusion",
    "drop_table",
    "evaluate",
    "grid",
    "labelled",
    "leakage_table",
    "nested_table",
    "preset",
    "protocol_table",
    "reasons",
    "ridge_path",
    "run",
    "similarity",
    "takeaways",
    "verdict_table",
]
