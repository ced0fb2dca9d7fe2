"""The page of VAE+ (Lafarge et al. 2019): its trainings, what is measured of them, and what it shows.

The models themselves are `cellbook.methods.vae_plus`. Here each of them is trained several times, every cell is
encoded, and profiles, images, walks and codes are measured; the page's run keeps numbers and a few small pictures.
"""

from cellbook.pages.lafarge2019.config import PRESETS, Config
from cellbook.pages.lafarge2019.making import baseline, run
from cellbook.pages.lafarge2019.measures import evaluate
from cellbook.pages.lafarge2019.predicates import PREDICATES

__all__ = ["PREDICATES", "PRESETS", "Config", "baseline", "evaluate", "run"]
