"""What is trained: the weights of VICReg's loss, and how large and how long."""

from __future__ import annotations

from dataclasses import dataclass

from cellbook.errors import CellbookError


@dataclass(frozen=True)
class Config:
    """Configuration of one training; the defaults are those of the preset `long`.

    Raises
    ------
    CellbookError
        If a value cannot be meant.
    """

    seed: int = 0  # of weights, pairs and augmentation
    iterations: int = 4_000
    batch: int = 128  # pairs a step; 2,048 in the paper
    width: int = 16  # channels of the first stage; a code has eight times as many numbers
    expanded: int = 512  # numbers of an embedding, of which the loss is taken; 8,192 in the paper
    # Weights of the three terms of the loss, the paper's.
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    shift: float = 0.1  # largest translation of a crop, in its sides; flips and quarter turns come on top
    rate: float = 1e-3  # first learning rate, from which it falls in a line to 0

    def __post_init__(self) -> None:
        for name, least in {"iterations": 1, "batch": 2, "width": 1, "expanded": 2}.items():
            if getattr(self, name) < least:
                raise CellbookError(f"{name}={getattr(self, name)} must be at least {least}")
        most = {"invariance": 1e6, "variance": 1e6, "covariance": 1e6, "shift": 0.9, "rate": 1e3}
        for name, high in most.items():
            if not 0 <= getattr(self, name) <= high:
                raise CellbookError(f"{name}={getattr(self, name)} must lie from 0 to {high:g}")


PRESETS = {
    "smoke": Config(iterations=4, batch=8, width=2, expanded=16),
    "quick": Config(iterations=1_000, batch=64),  # two minutes of a core
    "long": Config(),  # a quarter of an hour of a core, however many cells there are
}
