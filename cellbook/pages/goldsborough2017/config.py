"""How much of the paper is repeated: which models, on how many cells, and how large."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cellbook.errors import CellbookError
from cellbook.methods import cytogan
from cellbook.methods.cytogan import CONDITIONS, MODELS
from cellbook.methods.cytogan.config import AUTOENCODERS, CELLS
from cellbook.runs import seeds
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.encoding import CLASSICAL, PIXELS, UNTRAINED
from cellbook.study.trainings import Training

VERSION = 1
METHOD = "cytogan"
PROTOCOL = "goldsborough2017"
BASELINES = (UNTRAINED, PIXELS, CLASSICAL)
LABELS = {
    "lsgan": "LSGAN",
    "dcgan": "DCGAN",
    "wgan_gp": "WGAN-GP",
    "vae": "VAE",
    "bigan": "BiGAN",
    "began": "BEGAN",
    "ae": "AE",
    "wgan": "WGAN, clipped",
}
LSGAN, DCGAN, WGAN, VAE = (LABELS[model] for model in ("lsgan", "dcgan", "wgan_gp", "vae"))
GANS = (LSGAN, DCGAN, WGAN)
EPOCHS = 50  # of most models in the paper; the others have as large a share of `Config.views`


@dataclass(frozen=True)
class Config:
    """What the page trains and measures; presets start from these values, the paper's are in comments."""

    screen: str = "simulated"  # or bbbc021-sample, or the folder of a cell set; the paper: all of BBBC021
    # The simulated screen.
    wells: int = 3  # of a treatment
    controls: int = 3  # DMSO wells a plate; BBBC021 has 6
    positive_controls: int = 1  # taxol 0.3 wells a plate; BBBC021 has 6
    cells: int = 22  # expected in an untreated well; BBBC021 has hundreds
    sites: int = 1
    crop: int = 68  # pixels of the crops that classical and ImageNet features are taken of, with their neighbours
    # Crops of the networks: each cell alone and in the middle. The paper's 96 x 96 pixels hold every simulated cell and
    # half of that side would cut most of them, so that small networks see the same at half the resolution.
    side: int = 48  # pixels: 96
    shrink: int = 2  # each the mean of so many a side: 1
    per_well: int = 8  # cells of a well that are used at most, drawn once; 0: all. The paper: all
    # Training
    models: tuple[str, ...] = ("lsgan", "dcgan", "wgan_gp", "vae")  # trained `repeats` times, judged
    once: tuple[str, ...] = ("bigan", "began", "ae")  # trained once: shown, not judged
    conditions: tuple[str, ...] = ()  # of further LSGANs, which are told something of the treatment; trained once
    views: int = 1_200  # cells that a GAN is shown that has 50 epochs in the paper, others in proportion: 65,000,000
    views_autoencoder: int = 1_200  # cells that VAE and AE are shown: 13,000,000, 10 epochs
    batch: int | None = 16  # None: the paper's of each model, 16 to 128. Small, for more steps of as many views
    # How many times narrower than the paper's the networks are.
    narrower: int = 4  # 1
    latent: int | None = None  # 100; 256 of the VAE and 32 of the AE
    # Learning rate of both players of a GAN, that of Radford et al. (2015); None: the paper's of each model, 1e-5 to
    # 2e-4, with which a generator hardly moves in a thousandth of the steps.
    rate: float | None = 2e-4
    critic_steps: int | None = 1  # of WGAN-GP a step, as in the published code; None: 5, as Gulrajani et al. (2017) say
    course: bool = True  # whether trainings are looked at on their way
    repeats: int = 3  # the paper has one
    seed: int = 0
    # Measurement
    drawn: int = 128  # images of a model that are measured, and as many real cells
    watched: int = 64  # the same at every checkpoint
    blocks: int = 8  # parts that distances of samples are taken in, so that they have a spread
    triples: int = 50  # sums a - b + c, and as many paths
    frames: int = 10  # images of a path
    shown: int = 8  # images of a model in a figure
    components: int = 100  # of the pixels
    resamples: int = 10_000  # of compounds, images or blocks, behind every interval

    @property
    def simulated(self) -> SimulatedScreen:
        """The simulated screen of this configuration, at the strengths that agree with real cells."""
        names = ("seed", "wells", "controls", "positive_controls", "cells", "sites", "crop")
        return SimulatedScreen(**{name: getattr(self, name) for name in names})

    @property
    def iterations(self) -> int:
        """Steps of the first model."""
        return trainings(self)[0].config.iterations


EVERY = ("bigan", "began", "ae", "wgan")  # models that are trained once
FULL = Config(side=96, shrink=1, per_well=0, batch=None, narrower=1, rate=None, drawn=2_048, watched=1_024, triples=500)
PRESETS = {
    "smoke": Config(
        wells=1,
        controls=2,
        cells=4,
        crop=40,
        side=16,
        per_well=0,
        conditions=("dose",),
        views=120,
        views_autoencoder=120,
        batch=8,
        narrower=16,
        latent=8,
        repeats=1,
        drawn=24,
        watched=16,
        blocks=2,
        triples=4,
        frames=3,
        shown=2,
        components=5,
        resamples=200,
    ),
    # A look at the page: one training of each model.
    "quick": Config(
        per_well=4,
        views=600,
        views_autoencoder=600,
        repeats=1,
        drawn=64,
        watched=32,
        blocks=4,
        triples=20,
        resamples=2_000,
    ),
    # 2,500 steps, less than a thousandth of the paper's views. Measured at a few steps each on one core of a busy
    # machine: 3.8 ms a view of LSGAN and DCGAN, 4.5 of WGAN-GP, 1 of VAE, 11 of BiGAN, 16 of BEGAN, so that all
    # nineteen trainings take about 50 minutes of one core, and what is measured of them about 25 more.
    "long": Config(
        per_well=0,
        once=EVERY,
        conditions=CONDITIONS[1:],
        views=40_000,
        views_autoencoder=40_000,
        drawn=512,
        watched=256,
        triples=200,
    ),
    # The paper's networks on about 25,000 cells; how many of the views a GPU does in its time is measured there.
    "lease": replace(
        FULL,
        cells=60,
        drawn=1_024,
        watched=256,
        triples=200,
        views=1_500_000,
        views_autoencoder=1_500_000,
        batch=256,
        rate=2e-4,
    ),
    "paper": replace(
        FULL,
        controls=6,
        positive_controls=6,
        cells=480,
        sites=4,
        once=EVERY,
        conditions=CONDITIONS[1:],
        views=EPOCHS * CELLS,
        views_autoencoder=10 * CELLS,
    ),
}


def views(config: Config, model: str, condition: str = "none") -> int:
    """Cell views of a training: cells that a step of the discriminator, or of an autoencoder, is taken on."""
    if model in AUTOENCODERS:
        return config.views_autoencoder
    return config.views * cytogan.Config(model, condition).settings.epochs // EPOCHS


def papers_views(model: str) -> int:
    """Cell views of a training in the paper."""
    return views(PRESETS["paper"], model)


def training_of(config: Config, model: str, condition: str = "none", seed: int = 0) -> cytogan.Config:
    """What is trained: a model on its share of cell views."""
    rate = None if model in AUTOENCODERS else config.rate
    width = max(1, MODELS[model].width // config.narrower)
    one = cytogan.Config(
        model,
        condition,
        seed=seed,
        side=config.side,
        batch=config.batch,
        width=width,
        latent=config.latent,
        critic_rate=rate,
        generator_rate=rate,
        critic_steps=config.critic_steps if model == "wgan_gp" else None,
    )
    settings = one.settings
    return replace(one, iterations=max(1, views(config, model, condition) // (settings.batch * settings.critic_steps)))


def trainings(config: Config) -> list[Training]:
    """All trainings of the page: repeat by repeat what is judged, then what is trained once."""
    numbers = seeds(config.seed, config.repeats)
    each = [(model, "none", repeat) for repeat in range(config.repeats) for model in config.models]
    each += [(model, "none", 0) for model in config.once] + [("lsgan", told, 0) for told in config.conditions]
    found = []
    for model, told, repeat in each:
        own = training_of(config, model, told, numbers[repeat])
        found.append(Training(name_of(model, told), repeat, METHOD, own, course=config.course))
    return found


def name_of(model: str, condition: str = "none") -> str:
    """Name of the trainings of a model, which may be told something of the treatment."""
    return LABELS[model] + {"none": "", "both": ", told dose and compound"}.get(condition, f", told the {condition}")


def judged(config: Config) -> dict[str, list[Training]]:
    """Trainings of the models that claims are about, by name."""
    names = [LABELS[model] for model in config.models]
    return {name: [one for one in trainings(config) if one.variant == name] for name in names}


def resize(config: Config, iterations: int) -> Config:
    """The configuration with another number of steps of the first model, and of the others in proportion."""
    if iterations < 1:
        raise CellbookError(f"iterations={iterations} must be at least 1")
    settings: Any = trainings(config)[0].config.settings
    factor = iterations * settings.batch * settings.critic_steps / config.views
    return replace(
        config,
        views=round(config.views * factor),
        views_autoencoder=max(1, round(config.views_autoencoder * factor)),
    )
