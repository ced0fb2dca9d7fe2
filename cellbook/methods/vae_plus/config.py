"""What is trained: the paper's three models, their variants, and the paper's numbers as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cellbook.errors import CellbookError
from cellbook.runs import ADDED


@dataclass(frozen=True)
class Terms:
    """Which terms a model's objective has, beside the pixel term's own gradient."""

    beta: float  # weight of the KL term in the encoder's objective
    pixels: bool = True  # L_pix, the distance between the images themselves
    noise: bool = True  # z is drawn around mu; without, z = mu
    layers: tuple[int, ...] = ()  # hidden layers of the discriminator whose features are compared, 1 to 4
    progressive: bool = True  # layers come in one after another
    fooling: float = 0.0  # weight of the decoder's reward for images taken for real; the paper has none


MODELS = {
    # The published code's AE: beta = 0, but z is still drawn with a learned variance.
    "ae": Terms(beta=0.0),
    "ae_deterministic": Terms(beta=0.0, noise=False),
    "vae": Terms(beta=1.0),
    "vae_plus": Terms(beta=2.0, layers=(1, 2, 3, 4)),
    # Beyond the paper: all layers from the first step on, and the VAE/GAN of Larsen et al. (2016), whose feature term
    # replaces the pixel term and whose decoder also fools the discriminator, with images decoded from the prior too.
    "vae_plus_at_once": Terms(beta=2.0, layers=(1, 2, 3, 4), progressive=False),
    # Open: the weight of fooling. A feature term counts like a whole image (thousands), a cross-entropy like one
    # number, so 1 would be nothing; 100 keeps it a few per cent of the feature term at the start. Not tuned.
    "vae_gan": Terms(beta=1.0, pixels=False, layers=(3,), progressive=False, fooling=100.0),
}


@dataclass(frozen=True)
class Config:
    """Configuration of one training; the defaults are the paper's (learning rates: those of its text).

    Raises
    ------
    CellbookError
        If a value cannot be meant.
    """

    model: str = "vae_plus"  # one of MODELS
    seed: int = 0  # of weights, batches and noise
    iterations: int = 40_000  # updates of all networks
    batch: int | None = None  # cells a batch; None: one of every treatment and of DMSO, 104 in BBBC021
    beta: float | None = None  # weight of the KL term; None: the model's own (AE 0, VAE 1, VAE+ 2)
    ramp: int = 2500  # T, iterations in which one layer of the feature terms comes in
    latent: int = 256  # dimensions of the code
    width: int = 32  # channels of a hidden layer
    adam_rate: float = 1e-3  # learning rate of encoder and decoder
    sgd_rate: float = 1e-2  # learning rate of the discriminator
    momentum: float = 0.9  # of the discriminator
    # Every kernel is multiplied by 1 - decay after each step whatever the learning rate, as the published code does;
    # the same number as coupled L2 would be far weaker.
    decay: float = 1e-4
    # Decoder and discriminator in bf16 also on a CPU, if it has that: a step takes 0.75 of the time, see
    # `benchmarks/train_loops.py`. On a GPU they are so anyway.
    cpu_bf16: bool = field(default=False, metadata=ADDED)

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise CellbookError(f"model={self.model!r} is none of {', '.join(MODELS)}")
        for name, least in {"iterations": 1, "batch": 2, "ramp": 1, "latent": 1, "width": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise CellbookError(f"{name}={value} must be at least {least}")
        for name in ("beta", "adam_rate", "sgd_rate", "momentum", "decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise CellbookError(f"{name}={value} must be a finite number, not negative")
        if self.beta and not self.terms.noise:
            raise CellbookError(f"beta={self.beta}: model {self.model!r} draws no code, so that it has no KL term")

    @property
    def terms(self) -> Terms:
        """Terms of the model's objective."""
        return MODELS[self.model]

    @property
    def kl_weight(self) -> float:
        """Weight of the KL term: given, or the model's own."""
        return self.terms.beta if self.beta is None else self.beta


def resize(config: Config, iterations: int) -> Config:
    """The configuration with another number of iterations, of which the ramp keeps its share."""
    if iterations < 1:
        raise CellbookError(f"iterations={iterations} must be at least 1")
    return replace(config, iterations=iterations, ramp=max(1, round(config.ramp * iterations / config.iterations)))


PRESETS = {
    "smoke": Config(iterations=4, batch=8, ramp=1, latent=16, width=4),
    # Narrow networks and a short schedule, so that two CPU cores train one model in less than a minute.
    "quick": Config(iterations=200, batch=32, ramp=30, latent=64, width=8),
    "paper": Config(),
}
