"""What is trained: two encoders, the paper's game and its relatives, and the paper's numbers as defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cellbook.errors import CellbookError

# "affine" is the published code: no activation between convolutions, so that the whole encoder is one affine map.
# "deep" is what the paper describes: ReLU behind every convolution but the last of the decoder.
MODELS = ("affine", "deep")


@dataclass(frozen=True)
class Penalty:
    """What the autoencoder's objective has beside the reconstruction: lambda times `sign` times one term."""

    term: str  # name of the loss: "adversary", "confusion" or "kernel"
    sign: float
    updates: int  # of the adversary before each of the autoencoder
    together: bool = False  # the adversary also takes a step on what the autoencoder is judged by
    adversary: bool = True  # whether there is one


PENALTIES = {
    # E = L_CAE - lambda L_adv. One pass over the 671,715 training cells, 1024 at a time, is 656 updates.
    "adversary": Penalty("adversary", -1.0, updates=656),
    # Beyond the paper. The same two gradients from one forward pass, both followed at once (Ganin et al. 2016).
    "reversal": Penalty("adversary", -1.0, updates=0, together=True),
    # The adversary shall answer what is known without the code: bounded below by 0 (Tzeng et al. 2015).
    "confusion": Penalty("confusion", 1.0, updates=656),
    # No adversary: how alike the codes are of cells whose confounders are (HSIC, Gretton et al. 2005); bounded.
    "kernel": Penalty("kernel", 1.0, updates=0, adversary=False),
}


@dataclass(frozen=True)
class Config:
    """Configuration of one training; the defaults are those of the published code.

    Raises
    ------
    CellbookError
        If a value cannot be meant.
    """

    model: str = "affine"  # one of MODELS
    penalty: str = "adversary"  # one of PENALTIES
    lam: float = 50.0  # lambda, weight of the penalty; the paper has 1 and 50, and by 0 means no phase C, rounds=0
    confounder: str = "Metadata_batch"  # column whose trace shall leave the codes: classes, or floats, to be regressed
    conditional: bool = False  # the adversary also sees the treatment: only what is left within one is punished
    seed: int = 0  # of weights, batches and noise

    pretraining: int = 131_200  # steps of phase A: 200 epochs of 656
    teaching: int = 134_400  # steps of phase B: 200 epochs of 672; none without an adversary
    rounds: int = 200  # steps of phase C: each some updates of the adversary and one of the autoencoder
    batch: int = 1024  # cells of an update in phases A and C
    teaching_batch: int = 1000  # in phase B
    updates: int | None = None  # of the adversary in a round; None: the penalty's own
    # Batches of cells that are encoded once a round and gone through by the adversary again and again, in their order,
    # until its updates are done. As many as updates is a pass as published, for which images of 33 GB would be needed.
    pool: int = 64

    latent: int = 2048  # dimensions of the code
    width: int = 16  # channels of the first convolution; the widest has 16 times as many
    hidden: tuple[int, ...] = (1024, 512, 256, 128, 64, 32)  # layers of the adversary
    dropout: float = 0.1  # of the adversary, while it learns

    pretraining_rate: float = 1e-4  # Adam with AMSGrad
    pretraining_decay: float = 1e-6  # L2, added to the gradient; in phase B too, and none in C
    teaching_rate: float = 0.1  # gradient descent without momentum
    teaching_decay: float = 1e-3
    game_rate: float = 1e-3  # Adam with AMSGrad, of the autoencoder and of the adversary
    brightness: float = 0.03  # largest change in phase A, as a share
    contrast: float = 0.05

    def __post_init__(self) -> None:
        for name, known in (("model", MODELS), ("penalty", PENALTIES)):
            if getattr(self, name) not in known:
                raise CellbookError(f"{name}={getattr(self, name)!r} is none of {', '.join(known)}")
        least = {"pretraining": 0, "teaching": 0, "rounds": 0, "updates": 0, "batch": 2, "teaching_batch": 1, "pool": 1}
        for name, bound in (least | {"latent": 1, "width": 1}).items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise CellbookError(f"{name}={value} must be at least {bound}")
        if not self.hidden or min(self.hidden) < 1:
            raise CellbookError(f"hidden={self.hidden} must name the size of one layer or more, each at least 1")
        for name in ("pretraining_rate", "pretraining_decay", "teaching_rate", "teaching_decay", "game_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise CellbookError(f"{name}={getattr(self, name)} must be a finite number, not negative")
        for name in ("dropout", "brightness", "contrast"):
            if not 0 <= getattr(self, name) < 1:
                raise CellbookError(f"{name}={getattr(self, name)} must be from 0 to below 1")
        if not math.isfinite(self.lam):
            raise CellbookError(f"lam={self.lam} must be a finite number")
        if self.updates and not self.terms.adversary:
            raise CellbookError(f"updates={self.updates}: penalty {self.penalty!r} has no adversary to update")

    @property
    def terms(self) -> Penalty:
        """What is added to the autoencoder's objective."""
        return PENALTIES[self.penalty]

    @property
    def adversary_updates(self) -> int:
        """Updates of the adversary in a round: given, or the penalty's own."""
        return self.terms.updates if self.updates is None else self.updates

    @property
    def draws(self) -> int:
        """Batches whose codes the adversary learns from in a round."""
        return min(self.pool, self.adversary_updates)

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Steps of the phases A, B and C."""
        return self.pretraining, self.teaching if self.terms.adversary else 0, self.rounds

    @property
    def iterations(self) -> int:
        """Steps of all phases."""
        return sum(self.lengths)


def phase(config: Config, t: int) -> str:
    """Phase of the step after t others: A the autoencoder alone, B the adversary alone, C both."""
    a, b, _ = config.lengths
    return "A" if t < a else "B" if t < a + b else "C"


def before(config: Config) -> Config:
    """The training before its game: phases A and B, the same whatever is played behind them; the paper's lambda 0."""
    published = Config()
    game = {name: getattr(published, name) for name in ("penalty", "conditional", "updates", "pool", "game_rate")}
    return replace(config, lam=0.0, rounds=0, **game)


def begins_with(config: Config) -> tuple[Config, int] | None:
    """The training that another begins with and how many of its steps, so that games of one seed share their start.

    An adversary that sees the treatment, or none, begins behind phase A. None for a training without a game.
    """
    a, b, c = config.lengths
    return (before(config), a if config.conditional else a + b) if c and a + b else None


def resize(config: Config, iterations: int) -> Config:
    """The configuration with about so many steps, of which every phase keeps its share, and one at least."""
    if iterations < 1:
        raise CellbookError(f"iterations={iterations} must be at least 1")
    lengths = {name: getattr(config, name) for name in ("pretraining", "teaching", "rounds")}
    whole = max(1, config.iterations)
    return replace(config, **{name: -(-length * iterations // whole) for name, length in lengths.items()})


PRESETS = {
    "smoke": Config(
        lam=1.0,
        pretraining=2,
        teaching=2,
        rounds=2,
        batch=8,
        teaching_batch=8,
        updates=3,
        pool=2,
        latent=16,
        width=1,
        hidden=(8, 4),
    ),
    # Narrow networks and a short schedule, so that two CPU cores train one model in minutes.
    "quick": Config(
        lam=1.0,
        pretraining=300,
        teaching=300,
        rounds=100,
        batch=32,
        teaching_batch=64,
        updates=8,
        pool=4,
        latent=64,
        width=2,
        hidden=(64, 32),
        pretraining_rate=1e-3,
    ),
    "paper": Config(),
}
