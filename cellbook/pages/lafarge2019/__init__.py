"""The page of VAE+ (Lafarge et al. 2019): its trainings, what is measured of them, and what it shows.

The models themselves are `cellbook.methods.vae_plus`. Here each of them is trained several times, every cell is
encoded, and profiles, images, walks and codes are measured; the page's run keeps numbers and a few small pictures.
"""

from cellbook.pages.lafarge2019.config import (
    PAPER_MODELS,
    PRESETS,
    VERSION,
    Config,
    config_of,
    preset,
    resize,
    trainings,
)
from cellbook.pages.lafarge2019.making import load, run
from cellbook.pages.lafarge2019.measures import evaluate
from cellbook.pages.lafarge2019.predicates import PREDICATES
from cellbook.pages.lafarge2019.tables import (
    OVERALL,
    RATE,
    beta_table,
    budget_table,
    by_plate_table,
    channel_table,
    euclidean_table,
    further_table,
    image_table,
    pick,
    plain_table,
    sweep_rows,
    table_1,
    truth_rows,
    verdict_table,
    walk_table,
    week_table,
    whitening_table,
)
from cellbook.pages.lafarge2019.words import disagreement_words, swept_words, takeaways, warning
from cellbook.study.pictures import with_originals

__all__ = [
    "OVERALL",
    "PAPER_MODELS",
    "PREDICATES",
    "PRESETS",
    "RATE",
    "VERSION",
    "Config",
    "beta_table",
    "budget_table",
    "by_plate_table",
    "channel_table",
    "config_of",
    "disagreement_words",
    "euclidean_table",
    "evaluate",
    "further_table",
    "image_table",
    "load",
    "pick",
    "plain_table",
    "preset",
    "resize",
    "run",
    "sweep_rows",
    "swept_words",
    "table_1",
    "takeaways",
    "trainings",
    "truth_rows",
    "verdict_table",
    "walk_table",
    "warning",
    "week_table",
    "whitening_table",
    "with_originals",
]
