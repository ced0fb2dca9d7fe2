"""The page of the fair autoencoder (Glastonbury et al. 2018): its trainings, what is measured of them, what it shows.

The networks and their game are `cellbook.methods.fair_cae`. Here they are trained for several weights of the adversary,
and what their codes keep of mechanisms and weeks stands beside what corrections fitted on controls make of the same
codes.
"""

from cellbook.pages.glastonbury2018.config import PRESETS, Config
from cellbook.pages.glastonbury2018.making import run
from cellbook.pages.glastonbury2018.measures import evaluate
from cellbook.pages.glastonbury2018.predicates import PREDICATES

__all__ = ["PREDICATES", "PRESETS", "Config", "evaluate", "run"]
