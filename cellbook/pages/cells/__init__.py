"""The cells: a simulated screen beside the real one, from pixels to accuracies.

Simulated screens of several seeds, with and without the effect of weeks, go through classical features, principal
components of the pixels and a network that was never trained, all scaled on DMSO cells alone. The real sample, five
real fields and the published profiles stand beside them where they are on the machine.
"""

from cellbook.pages.cells.config import PRESETS, Config
from cellbook.pages.cells.making import run
from cellbook.pages.cells.measures import evaluate
from cellbook.pages.cells.predicates import PREDICATES

__all__ = ["PREDICATES", "PRESETS", "Config", "evaluate", "run"]
