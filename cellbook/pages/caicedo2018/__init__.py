"""The page of weak supervision (Caicedo et al. 2018): its trainings, what is measured of them, and what it shows.

The networks themselves are `cellbook.methods.weakly_supervised`. Here each of them is trained several times, and the
profiles of wells that a training keeps, of the paper's layer and of all others, stand beside those of plain encoders.
"""

from cellbook.pages.caicedo2018.config import PRESETS, Config
from cellbook.pages.caicedo2018.making import baseline, look_closer, run
from cellbook.pages.caicedo2018.measures import evaluate
from cellbook.pages.caicedo2018.predicates import PREDICATES

__all__ = ["PREDICATES", "PRESETS", "Config", "baseline", "evaluate", "look_closer", "run"]
