"""How large the grid of settings is, scaling x transform, and what is drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cellbook import metrics
from cellbook.errors import CellbookError
from cellbook.screens.named import FEATURES, PLANTED

VERSION = 3
SCREENS = (FEATURES, PLANTED)


@dataclass(frozen=True)
class Config:
    """The grid and the numbers of draws; the values are those of the preset `quick`.

    Percentile scaling and factor analysis on DMSO are Ljosa et al. 2013; 50 factors are Tabak et al. 2020; the table of
    Caicedo et al. 2018 prints 20 factors for Ljosa. Ridges are relative to the mean eigenvalue of the DMSO covariance.
    """

    screen: str = FEATURES
    scalings: tuple[str, ...] = ("percentile", "standardised", "robust", "standardised by week")
    factors: tuple[int, ...] = (20, 50)
    ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
    # Rise of the log-likelihood a step at which factor analysis stops. With more features than controls the likelihood
    # has no maximum, so that a stricter rule only takes longer.
    factor_tolerance: float = 10.0
    ridge: float = 1.0  # of TVN and of CORAL, absolute, as in Ando et al. 2017 and Tabak et al. 2020
    closer: tuple[str, ...] = (  # settings that are looked at closer: batch leakage, and the fall to NSCB
        "unscaled",
        "percentile",
        "percentile, CORAL",
        "percentile, 50 factors",
        "percentile, 50 factors, CORAL",
        "standardised by week",
        "standardised, TVN 1",
    )
    drawn: str = "percentile"  # the setting of maps, matrices and retrieval: the benchmark's scaling and nothing else
    resamples: int = 10_000  # of compounds, behind every interval
    permutations: int = 1_000  # of labels, behind chance
    thinnings: int = 200  # random removals of candidates, beside the fall from NSC to NSCB
    null_size: int = 10_000  # of retrieval; the smallest p value is one over it
    repeats: int = 3  # seeds of what is random: forests, noise baselines
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise CellbookError(f"repeats must be at least 1, got {self.repeats}")
        if self.seed < 0:
            raise CellbookError(f"seed must be zero or more, got {self.seed}")
        if self.screen not in SCREENS:
            raise CellbookError(f"screen {self.screen!r} holds no profiles: use one of {', '.join(SCREENS)}")


PRESETS = {
    "smoke": Config(
        scalings=("percentile", "standardised"),
        ridges=(1e-1, 1.0),
        closer=("percentile", "percentile, 50 factors"),
        resamples=500,
        permutations=100,
        thinnings=20,
        null_size=200,
        repeats=1,
    ),
    "quick": Config(),
    "paper": Config(
        factors=(5, 10, 20, 50, 100),
        ridges=tuple(10.0**power for power in np.arange(-4, 3.5, 0.5).round(1)),
        permutations=10_000,
        repeats=10,
    ),
}


def setting_name(scaling: str, transform: str) -> str:
    """Name of a setting: scaling and transform."""
    return f"{scaling}, {transform}" if transform else scaling


def kind(protocol: metrics.Protocol) -> str:
    """Name of what a protocol compares: aggregation of wells and distance."""
    return "-".join([protocol.statistic, *(["weighted"] if protocol.weight else []), protocol.distance])


def kinds() -> dict[str, metrics.Protocol]:
    """One protocol a kind of aggregation and distance, on all treatments."""
    return {kind(p): replace(p, drop_one_batch_moas=False) for p in metrics.PROTOCOLS.values()}
