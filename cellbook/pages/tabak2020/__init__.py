"""The page of WDN (Tabak et al. 2020): the profiles it aligns, what is measured of them, and what it shows.

The method itself is `cellbook.methods.wdn`. Here wells and cells are aligned several times, every other correction
stands beside it, and the simulated screen says what was restored; the page's run keeps numbers alone.
"""

from cellbook.pages.tabak2020.config import PRESETS, VARIANTS, VERSION, Config, config_of, preset
from cellbook.pages.tabak2020.drawn import (
    bands,
    batch_rows,
    carried_rows,
    carried_table,
    converged_rows,
    damage_rows,
    pca_rows,
    truth_rows,
    truth_table,
    violin_columns,
    violin_rows,
)
from cellbook.pages.tabak2020.making import run
from cellbook.pages.tabak2020.measures import evaluate
from cellbook.pages.tabak2020.predicates import PREDICATES
from cellbook.pages.tabak2020.tables import (
    accuracy_table,
    batch_table,
    beyond_table,
    bug_table,
    converged_table,
    damage_table,
    evidence_table,
    mains,
    paired_table,
    source_table,
    stopping_table,
    variant_table,
    verdict_table,
    week_table,
)
from cellbook.pages.tabak2020.words import absent, resampling, takeaways, warning

__all__ = [
    "PREDICATES",
    "PRESETS",
    "VARIANTS",
    "VERSION",
    "Config",
    "absent",
    "accuracy_table",
    "bands",
    "batch_rows",
    "batch_table",
    "beyond_table",
    "bug_table",
    "carried_rows",
    "carried_table",
    "config_of",
    "converged_rows",
    "converged_table",
    "damage_rows",
    "damage_table",
    "evaluate",
    "evidence_table",
    "mains",
    "paired_table",
    "pca_rows",
    "preset",
    "resampling",
    "run",
    "source_table",
    "stopping_table",
    "takeaways",
    "truth_rows",
    "truth_table",
    "variant_table",
    "verdict_table",
    "violin_columns",
    "violin_rows",
    "warning",
    "week_table",
]
