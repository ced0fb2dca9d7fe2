"""The page that compares: every representation of the book under every correction, on the same cells.

Nothing is trained here. Networks come from the store, where the pages of the papers and `cellbook train` have left
them, and encode the cells of this page.
"""

from cellbook.claims import Predicate
from cellbook.pages.comparison.config import PRESETS, Config
from cellbook.pages.comparison.making import run
from cellbook.pages.comparison.measures import evaluate

PREDICATES: dict[str, Predicate] = {}  # no paper claims anything about all of them

__all__ = ["PREDICATES", "PRESETS", "Config", "evaluate", "run"]
