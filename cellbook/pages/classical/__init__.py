"""Classical profiles: how far scaling, factor analysis, whitening and batch alignment take well means of BBBC021.

The published well features (Ljosa et al. 2013) go through every setting of a grid, scaling x transform, each fitted on
DMSO wells alone; every setting is scored under every protocol. The choice of a setting is nested: it is made again
without each compound in turn, and the accuracy of the compound that was left out counts.
"""

from cellbook.pages.classical.config import PRESETS, Config
from cellbook.pages.classical.making import run
from cellbook.pages.classical.measures import evaluate
from cellbook.pages.classical.predicates import PREDICATES

__all__ = ["PREDICATES", "PRESETS", "Config", "evaluate", "run"]
