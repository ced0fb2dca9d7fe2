"""The page of CytoGAN (Goldsborough et al. 2017): its trainings, what is measured of them, what it shows.

The networks are `cellbook.methods.cytogan`. Here they are trained side by side; their codes of cells stand beside plain
encoders, their images beside real cells, and what sums and paths in the noise do is measured on the images themselves.
"""

from cellbook.pages.goldsborough2017.config import PRESETS, Config
from cellbook.pages.goldsborough2017.making import run
from cellbook.pages.goldsborough2017.measures import evaluate
from cellbook.pages.goldsborough2017.predicates import PREDICATES

__all__ = ["PREDICATES", "PRESETS", "Config", "evaluate", "run"]
