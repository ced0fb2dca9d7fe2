"""What is trained: the models of the paper and its table of settings as defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cellbook.errors import CellbookError

CELLS = 1_300_000  # crops in the paper: an epoch is so many, divided by the batch, steps
ADVERSARIAL = ("dcgan", "lsgan", "wgan_gp", "wgan")  # one body, four losses
AUTOENCODERS = ("vae", "ae")
CONDITIONS = ("none", "dose", "compound", "both")


@dataclass(frozen=True)
class Settings:
    """How a model is trained."""

    critic_rate: float  # of the discriminator's optimiser
    generator_rate: float  # of the generator's, of the encoder's (BiGAN) and of an autoencoder's
    decay: float = 0.9999  # rates are multiplied by it ...
    every: int = 100  # ... each time so many steps are done
    batch: int = 64  # cells
    epochs: int = 50
    width: int = 32  # filters of the narrowest layer
    latent: int = 100  # dimensions of the representation, and of the noise
    critic_steps: int = 1  # updates of the discriminator a step
    beta1: float = 0.5  # of Adam
    beta2: float = 0.999


MODELS = {
    "dcgan": Settings(5e-5, 1e-5),
    "lsgan": Settings(7e-5, 2e-4),
    # Five critic steps and no first momentum as Gulrajani et al. (2017); the published code takes one, with 0.5.
    "wgan_gp": Settings(7e-5, 2e-4, critic_steps=5, beta1=0.0, beta2=0.9),
    "wgan": Settings(5e-5, 5e-5, decay=1.0, critic_steps=5),  # Arjovsky et al. (2017): RMSProp, clipped weights
    "began": Settings(1e-5, 1e-5, every=1000, batch=16, epochs=30, width=64),
    "bigan": Settings(7e-5, 7e-5, batch=32, width=16),
    "vae": Settings(0.0, 1e-3, decay=0.996, batch=128, epochs=10, latent=256),
    "ae": Settings(0.0, 1e-3, decay=1.0, batch=128, epochs=10, width=8, latent=32),
}
# What differs where a condition is given.
CONDITIONAL = {
    "lsgan": {"decay": 0.9995, "every": 200},
    "wgan_gp": {"decay": 0.9995, "every": 200, "generator_rate": 7e-5},
    "began": {"decay": 0.9995, "epochs": 50},
}


@dataclass(frozen=True)
class Config:
    """Configuration of one training; the defaults are the paper's, and None is the model's own value in `MODELS`.

    Raises
    ------
    CellbookError
        If a value cannot be meant.
    """

    model: str = "lsgan"  # one of MODELS
    condition: str = "none"  # what generator and discriminator are told of a cell: one of CONDITIONS
    embedding: int = 0  # units of a dense layer the condition goes through, 16 in the paper; 0: none
    seed: int = 0  # of weights, batches and noise
    iterations: int = 1_015_625  # steps: all critic steps and one of each other player; 50 epochs of batches of 64
    side: int = 96  # pixels of a crop
    batch: int | None = None
    width: int | None = None
    latent: int | None = None
    critic_steps: int | None = None
    critic_rate: float | None = None
    generator_rate: float | None = None
    decay: float | None = None
    every: int | None = None
    prior: str = "normal"  # of the noise: N(0, I), or uniform in [-1, 1]
    input_noise: float = 0.1  # standard deviation of what is added to a discriminator's input in training
    smoothing: float = 0.8  # targets of real cells are drawn between it and 1
    # Slope below 0 of what follows the representation. In the paper nothing does (1): two linear layers in a row, so
    # that the output sees the representation through one direction. With 0.2, as elsewhere, it sees all of it.
    code_slope: float = 1.0
    penalty: float = 10.0  # lambda of WGAN-GP
    clip: float = 0.01  # largest weight of the critic of the first WGAN
    gamma: float = 0.75  # of BEGAN: loss of made images over loss of real ones
    gain: float = 1e-3  # lambda_k of BEGAN
    dropout: float = 0.5  # of BiGAN's discriminator

    def __post_init__(self) -> None:
        for name, known in (("model", MODELS), ("condition", CONDITIONS), ("prior", ("normal", "uniform"))):
            if getattr(self, name) not in known:
                raise CellbookError(f"{name}={getattr(self, name)!r} is none of {', '.join(known)}")
        if self.prior != "normal" and self.model == "vae":
            raise CellbookError(f"prior={self.prior!r}: the VAE's codes are held against N(0, I), leave it out")
        if self.side % 16 or self.side < 16:
            raise CellbookError(f"side={self.side} must be a multiple of 16 pixels: it is halved up to four times")
        if self.condition != "none" and self.model not in (*ADVERSARIAL, "began"):
            raise CellbookError(f"condition={self.condition!r}: model {self.model!r} takes none, leave it out")
        if self.embedding and self.condition == "none":
            raise CellbookError(f"embedding={self.embedding}: there is no condition to embed, choose one or leave it 0")
        for name in ("iterations", "batch", "width", "latent", "critic_steps", "every"):
            value, least = getattr(self, name), 2 if name == "batch" else 1
            if value is not None and value < least:
                raise CellbookError(f"{name}={value} must be at least {least}")
        if self.critic_steps not in (None, 1) and self.model not in ADVERSARIAL:
            raise CellbookError(f"critic_steps={self.critic_steps}: only {', '.join(ADVERSARIAL)} take more than 1")
        for name in ("critic_rate", "generator_rate", "input_noise", "penalty", "clip", "gamma", "gain", "embedding"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise CellbookError(f"{name}={value} must be a finite number, not negative")
        for name in ("decay", "smoothing", "code_slope", "dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise CellbookError(f"{name}={value} must lie from 0 to 1")

    @property
    def settings(self) -> Settings:
        """How the model is trained: the paper's values where none is given."""
        own = MODELS[self.model]
        if self.condition != "none":
            own = replace(own, **CONDITIONAL.get(self.model, {}))
        names = ("batch", "width", "latent", "critic_steps", "critic_rate", "generator_rate", "decay", "every")
        return replace(own, **{name: value for name in names if (value := getattr(self, name)) is not None})


def paper(model: str, condition: str = "none", **others: object) -> Config:
    """The paper's training of a model: so many steps that it sees 1.3 million cells as often as its epochs say."""
    config = Config(model, condition, **others)  # type: ignore[arg-type]
    settings = config.settings
    return replace(config, iterations=CELLS * settings.epochs // (settings.batch * settings.critic_steps))


PRESETS = {
    "smoke": Config(iterations=3, side=48, batch=4, width=2, latent=8),
    # Crops of half the side, narrow networks and faster rates, so that two CPU cores train one model in minutes.
    "quick": Config(iterations=600, side=48, batch=32, width=8, critic_rate=2e-4, generator_rate=2e-4),
    "paper": Config(),
}
