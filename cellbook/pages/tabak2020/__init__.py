"""The page of WDN (Tabak et al. 2020): the profiles it aligns, what is measured of them, and what it shows.

The method itself is `cellbook.methods.wdn`. Here wells and cells are aligned several times, every other correction
stands beside it, and the simulated screen says what was restored; the page's run keeps numbers alone.
"""

from cellbook.pages.tabak2020.config import PRESETS, Config
from cellbook.pages.tabak2020.making import run
from cellbook.pages.tabak2020.measures import evaluate
from cellbook.pages.tabak2020.predicates import PREDICATES

__all__ = ["PREDICATES", "PRESETS", "Config", "evaluate", "run"]
