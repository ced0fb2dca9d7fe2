"""What is aligned and how: the paper's numbers as defaults, the variants of the study as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cellbook.errors import CellbookError

Distance = Literal["critic", "energy", "sinkhorn", "relative"]
Loss = Literal["pairs", "barycentre"]
Start = Literal["identity", "random"]
Treatments = Literal["controls", "replicated"]


@dataclass(frozen=True)
class Config:
    """Configuration of one alignment; the defaults are the paper's, and the published code's where the paper is silent.

    Raises
    ------
    CellbookError
        If a value cannot be meant.
    """

    seed: int = 0  # of minibatches, interpolates and, where it is drawn, the start of the critics
    # Columns of domains, finest first. ("Metadata_plate", "Metadata_batch") aligns the plates of each week and then
    # the weeks; the paper has weeks only.
    domains: tuple[str, ...] = ("Metadata_batch",)
    # What is made alike: the controls, or every treatment that lies in several domains.
    treatments: Treatments = "controls"
    # Critics (the paper), or without any critic the energy distance (Cramer's, in one dimension), as it is or
    # "relative" to the mean distance across, or Sinkhorn's.
    distance: Distance = "critic"
    # "pairs" compares mapped with mapped; "barycentre" mapped with unmapped, all pairs of domains (eq. 13).
    loss: Loss = "pairs"
    sphere: bool = False  # compare directions alone: mapped rows are divided by their length before they are compared
    residual: int = 0  # hidden units of a map's non-linear branch; 0: affine maps

    depth: int = 1  # hidden layers of a critic: 1 in the paper, 2 in the published code
    width: int = 2  # units of a hidden layer
    start: Start = "identity"  # of critics; the paper does not say, the code takes the corner of an identity matrix
    gamma: float = 10.0  # weight of the penalty on slopes above 1

    batch: int = 100  # rows a minibatch, of every treatment in every domain
    pretraining: int = 100_000  # critic steps before the first map step
    iterations: int = 5_100  # map steps
    # The paper prints one critic step and 50 map steps, which diverges; its code takes 49 critic steps and one.
    critic_steps: int = 50
    map_steps: int = 1
    checkpoint_every: int = 40  # map steps

    # RMSProp as in TensorFlow 1: epsilon inside the root, running mean square starting at 1.
    critic_rate: float = 1e-4
    map_rate: float = 1e-4
    decay: float = 0.9
    epsilon: float = 1e-10
    accumulator: float = 1.0

    # R = mean over domains of lambda_mean |b|^2 + lambda_cov |M - I|^2 / n; the paper reports no run with it.
    lambda_mean: float = 0.0
    lambda_cov: float = 0.0
    blur: float = 0.05  # entropic regularisation of "sinkhorn", in units of the mean cost

    # Faults of the published code, for the study of what they do. Never use them for anything else.
    bug_bias: bool = False  # training applies x (M + 1 b'), evaluation x M + b
    bug_norm: bool = False  # one slope a minibatch, the norm of all its gradients together

    def __post_init__(self) -> None:
        for name, kinds in {"treatments": Treatments, "distance": Distance, "loss": Loss, "start": Start}.items():
            if getattr(self, name) not in get_args(kinds):
                raise CellbookError(f"{name}={getattr(self, name)!r} is none of {', '.join(get_args(kinds))}")
        if isinstance(self.domains, str) or not self.domains:
            raise CellbookError(f"domains={self.domains!r} must be a tuple of one column name or more")
        least = {"depth": 1, "width": 1, "batch": 2, "pretraining": 0, "residual": 0, "iterations": 1}
        least |= {"critic_steps": 1, "map_steps": 1, "checkpoint_every": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise CellbookError(f"{name}={getattr(self, name)} must be at least {bound}")
        for name in ("gamma", "critic_rate", "map_rate", "lambda_mean", "lambda_cov", "accumulator"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise CellbookError(f"{name}={getattr(self, name)} must be a finite number, not negative")
        for name in ("epsilon", "blur"):
            if not 0 < getattr(self, name) < float("inf"):
                raise CellbookError(f"{name}={getattr(self, name)} must be a finite number above 0")
        if not 0 <= self.decay < 1:
            raise CellbookError(f"decay={self.decay} must lie between 0 and 1")


PRESETS = {
    "smoke": Config(pretraining=50, iterations=6, critic_steps=5, checkpoint_every=2, critic_rate=1e-3, map_rate=1e-3),
    # A tenth of the paper's steps at ten times its rates, and so about the same way.
    "quick": Config(pretraining=10_000, iterations=510, checkpoint_every=4, critic_rate=1e-3, map_rate=1e-3),
    "paper": Config(),
    # No critics, a distance that shrinking does not lower, and RMSProp that takes full steps from the first on.
    "relative": Config(
        distance="relative", batch=200, iterations=1_000, checkpoint_every=20, map_rate=0.01, accumulator=0.0
    ),
}
