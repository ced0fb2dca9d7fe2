"""How much of the paper is repeated: on which profiles, with how many alignments of which length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cellbook.errors import CellbookError
from cellbook.methods import wdn
from cellbook.runs import seeds
from cellbook.screens.simulator import SimulatedScreen

VERSION = 2
# Departures from the paper's method, trained once at a short budget: shown, not judged. The weight of the regulariser
# is ours; the paper reports no run with it.
VARIANTS: dict[str, dict[str, Any]] = {
    "as in the paper": {},
    "barycentre loss": {"loss": "barycentre"},
    "energy distance": {"distance": "energy"},
    "Sinkhorn divergence": {"distance": "sinkhorn"},
    "identity regulariser": {"lambda_mean": 0.1, "lambda_cov": 0.1},
    "plates, then weeks": {"domains": ("Metadata_plate", "Metadata_batch")},
    "directions only": {"sphere": True},
    "non-linear branch": {"residual": 16},
    "two hidden layers": {"depth": 2},
    "critics from a random start": {"start": "random"},
}


@dataclass(frozen=True)
class Config:
    """What the page aligns and measures; presets start from these values, the paper's are in comments."""

    # all, bbbc021-features, bbbc021-sample, simulated, planted, or the folder of a cell set; the paper: all of BBBC021
    screen: str = "all"
    vae: str = "quick"  # preset of the page of VAE+ whose screens and first training are used
    vae_iterations: tuple[tuple[str, int], ...] = ()  # by screen, where they are others than the preset's
    cells: int = 0  # expected in an untreated well of the simulated screens that are aligned; 0: as VAE+ was trained on
    imagenet: bool = False  # whether features of a network that was trained on photographs are aligned, too
    week_effect: float = SimulatedScreen.week_effect  # of the simulated screen
    week_effects: tuple[float, ...] = (0.0, 1.0)  # further strengths, the same cells; 0 is the truth of the others
    # Embeddings
    factors: int = 50  # 50, of engineered features
    factor_tolerance: float = 10.0  # rise of the log-likelihood a step at which factor analysis stops
    # Alignments: a tenth of the paper's steps at ten times its rates on wells, fewer on cells.
    well_rate: float = 1e-3  # of maps and critics: 1e-4 in the published code
    cell_rate: float = 1e-3
    well_pretraining: int = 10_000  # critic steps before the first map step: 100,000
    well_iterations: int = 510  # map steps: 5,100
    well_every: int = 10  # map steps between checkpoints: 40
    cell_pretraining: int = 5_000  # 100,000
    cell_iterations: int = 200  # 5,100
    cell_every: int = 5  # 40
    short_rate: float = 1e-3  # of variants, the study of the bugs, and generalisation
    short_pretraining: int = 3_000
    short_iterations: int = 100
    short_every: int = 10
    repeats: int = 3  # alignments of each source; the paper does not say
    seed: int = 0
    eta: float = 1.0  # ridge of CORAL: 1
    variants: tuple[str, ...] = ("as in the paper", "barycentre loss", "energy distance", "identity regulariser")
    # Measurement
    bootstraps: int = 30  # resamples of cells within wells, and of wells: 100
    cell_bootstraps: int = 0  # of cells, where they are others than of wells; 0: as many
    leak_checkpoints: int = 5  # at which the week is asked for
    models: tuple[str, ...] = ("logistic", "forest")  # that name the week: both
    leak_rows: int = 1_000  # controls that are looked at: 10,000
    leak_bootstraps: int = 1  # resamples of them: 100
    unseen_repeats: int = 1  # alignments without some plates, whose controls are then classified
    carry_repeats: int = 3  # alignments of the test of generalisation
    pca_rows: int = 400  # controls in a panel of figure 8
    resamples: int = 10_000  # of compounds and of plates, behind intervals

    def __post_init__(self) -> None:
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise CellbookError(f"no variant {', '.join(map(repr, unknown))}: there are {', '.join(VARIANTS)}")
        least = {"repeats": 1, "bootstraps": 2, "leak_checkpoints": 2, "factors": 1, "seed": 0, "leak_bootstraps": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise CellbookError(f"{name}={getattr(self, name)} must be at least {bound}")

    def alignment(self, unit: str, seed: int) -> wdn.Config:
        """What is trained on wells or on cells."""
        wells = unit == "wells"
        rate = self.well_rate if wells else self.cell_rate
        return wdn.Config(
            seed=seed,
            pretraining=self.well_pretraining if wells else self.cell_pretraining,
            iterations=self.well_iterations if wells else self.cell_iterations,
            checkpoint_every=self.well_every if wells else self.cell_every,
            critic_rate=rate,
            map_rate=rate,
        )

    def resampled(self, unit: str) -> int:
        """Resamples of wells or of cells."""
        return self.cell_bootstraps or self.bootstraps if unit == "cells" else self.bootstraps

    def short(self, seed: int, variant: str = "as in the paper") -> wdn.Config:
        """What is trained for a variant, the study of the bugs, and generalisation."""
        plain = wdn.Config(
            seed=seed,
            pretraining=self.short_pretraining,
            iterations=self.short_iterations,
            checkpoint_every=self.short_every,
            critic_rate=self.short_rate,
            map_rate=self.short_rate,
        )
        return replace(plain, **VARIANTS[variant])

    @property
    def seeds(self) -> list[int]:
        """Seeds of the alignments."""
        return seeds(self.seed, self.repeats)


PRESETS = {
    "smoke": Config(
        vae="smoke",
        week_effects=(0.0,),
        factors=10,
        well_pretraining=40,
        well_iterations=6,
        well_every=2,
        cell_pretraining=40,
        cell_iterations=6,
        cell_every=2,
        short_pretraining=20,
        short_iterations=4,
        short_every=2,
        variants=("as in the paper", "energy distance"),
        repeats=1,
        bootstraps=3,
        leak_checkpoints=2,
        models=("logistic",),
        leak_rows=200,
        leak_bootstraps=1,
        unseen_repeats=1,
        carry_repeats=1,
        pca_rows=60,
        resamples=200,
    ),
    # A look at the page: one alignment of each source, with fewer steps on cells at twice the rate and more.
    "quick": Config(
        week_effects=(0.0,),
        cell_rate=2e-3,
        well_pretraining=5_000,
        well_iterations=255,
        cell_pretraining=2_000,
        cell_iterations=100,
        short_rate=3e-3,
        short_pretraining=1_500,
        short_iterations=60,
        variants=("as in the paper", "energy distance"),
        repeats=1,
        bootstraps=10,
        leak_checkpoints=3,
        leak_rows=500,
        carry_repeats=1,
        resamples=2_000,
    ),
    # What two CPU cores finish in about an hour: the paper's budget on wells; on cells, where four sources are aligned
    # and twice over, a tenth of its steps at ten times its rates.
    "long": Config(
        vae="long",
        well_rate=1e-4,
        well_pretraining=100_000,
        well_iterations=5_100,
        well_every=40,
        cell_pretraining=10_000,
        cell_iterations=510,
        cell_every=6,
        variants=tuple(VARIANTS),
        bootstraps=100,
        leak_checkpoints=7,
        leak_bootstraps=2,
    ),
    # On networks that a GPU trained on all cells of large screens; two busy CPU cores align some of their cells in an
    # hour. Wells and variants as in `long`, budgets of cells as in `quick`, with fewer checkpoints.
    "lease": Config(
        vae="lease",
        vae_iterations=(("simulated", 7_500), ("bbbc021-sample", 2_200)),
        cells=22,
        imagenet=True,
        well_rate=1e-4,
        well_pretraining=100_000,
        well_iterations=5_100,
        well_every=40,
        cell_rate=2e-3,
        cell_pretraining=3_000,
        cell_iterations=150,
        cell_every=10,
        short_rate=3e-3,
        short_pretraining=1_500,
        short_iterations=60,
        variants=tuple(VARIANTS),
        bootstraps=100,
        cell_bootstraps=30,
        leak_checkpoints=7,
        leak_rows=500,
        leak_bootstraps=2,
    ),
    "paper": Config(
        vae="paper",
        well_rate=1e-4,
        cell_rate=1e-4,
        well_pretraining=100_000,
        well_iterations=5_100,
        well_every=40,
        cell_pretraining=100_000,
        cell_iterations=5_100,
        cell_every=40,
        short_rate=1e-4,
        short_pretraining=100_000,
        short_iterations=5_100,
        short_every=100,
        variants=tuple(VARIANTS),
        bootstraps=100,
        leak_checkpoints=17,
        leak_rows=10_000,
        leak_bootstraps=100,
        unseen_repeats=3,
    ),
}
