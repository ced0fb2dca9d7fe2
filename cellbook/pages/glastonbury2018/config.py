"""How much of the paper is repeated: which weights of the adversary, on how many cells, and how long."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cellbook.methods import fair_cae
from cellbook.runs import seeds
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.encoding import CLASSICAL, IMAGENET, PIXELS, UNTRAINED
from cellbook.study.trainings import Training

VERSION = 1
METHOD = "fair_cae"
PROTOCOL = "glastonbury2018"
BASELINES = (UNTRAINED, PIXELS, CLASSICAL, IMAGENET)  # the last where its weights are installed
PAPERS = (0.0, 1.0, 50.0)  # lambdas of the paper's table; 0 is the autoencoder before the game
# Fields of a training that the page passes on as they are.
PASSED = (
    *("model", "pretraining", "teaching", "rounds", "batch", "teaching_batch", "updates", "pool", "latent", "width"),
    *("hidden", "pretraining_rate", "seed"),
)


def name_of(lam: float, *, conditional: bool = False) -> str:
    """Name of the trainings with a weight of the adversary, which may also see the treatment."""
    return f"lambda {lam:g}" + (", conditional" if conditional else "")


BEFORE, ONE, FIFTY = map(name_of, PAPERS)
CONDITIONAL = name_of(50.0, conditional=True)


@dataclass(frozen=True)
class Config:
    """What the page trains and measures; the values are those of the preset `quick`, the paper's are in comments."""

    screen: str = "simulated"  # or bbbc021-sample, or the folder of a cell set; the paper: all of BBBC021
    # The simulated screen.
    wells: int = 3  # of a treatment
    controls: int = 3  # DMSO wells a plate; BBBC021 has 6
    positive_controls: int = 1  # taxol 0.3 wells a plate; BBBC021 has 6
    cells: int = 22  # expected in an untreated well; BBBC021 has hundreds
    sites: int = 1
    crop: int = 64  # pixels: 128
    per_well: int = 8  # cells of a well that are used at most, drawn once; 0: all. The paper: as many of every week
    # Training, as in `fair_cae.Config`, where the paper's values are.
    model: str = "affine"
    pretraining: int = 300
    teaching: int = 300
    rounds: int = 100
    batch: int = 32
    teaching_batch: int = 64
    updates: int | None = 8
    pool: int = 4
    latent: int = 64
    width: int = 2
    hidden: tuple[int, ...] = (64, 32)
    pretraining_rate: float = 1e-3
    lams: tuple[float, ...] = (0.0, 0.001, 0.01, 0.1, 1.0, 10.0, 50.0)  # 0, 1, 50; others are trained once
    conditional: bool = True  # whether an adversary that also sees the treatment is trained
    course: bool = True  # whether the first autoencoder and its game with the largest weight are looked at on their way
    repeats: int = 3  # trainings of what is judged; the paper has one
    seed: int = 0
    # Measurement
    looked_at: int = 312  # cells whose reconstructions are measured, balanced over treatments
    shown: int = 6  # of them, in the figure
    probed: int = 4_000  # cells of each kind from which the week is read, at most
    probe_epochs: int = 30  # of the new network that reads it
    probe_folds: int = 3  # of all probes, plates held out
    components: int = 64  # of the pixels
    resamples: int = 10_000  # of compounds and plates, behind every interval

    @property
    def simulated(self) -> SimulatedScreen:
        """The simulated screen of this configuration, at the strengths that agree with real cells."""
        names = ("seed", "wells", "controls", "positive_controls", "cells", "sites", "crop")
        return SimulatedScreen(**{name: getattr(self, name) for name in names})

    @property
    def iterations(self) -> int:
        """Steps of all three phases."""
        return base(self).iterations


FULL = fair_cae.PRESETS["paper"]
LARGE = {name: getattr(FULL, name) for name in PASSED if name != "seed"} | {"crop": 128, "per_well": 0}
PRESETS = {
    "smoke": Config(
        wells=1,
        controls=2,
        cells=4,
        per_well=0,
        crop=32,
        pretraining=4,
        teaching=2,
        rounds=2,
        batch=8,
        teaching_batch=8,
        updates=3,
        pool=2,
        latent=8,
        width=1,
        hidden=(8, 4),
        lams=(0.0, 0.1, 1.0, 50.0),
        repeats=1,
        looked_at=40,
        shown=2,
        probed=300,
        probe_epochs=2,
        components=5,
        resamples=200,
    ),
    "quick": Config(),
    # What a core does in about an hour: networks of a quarter of the width and the code, all of the published rounds.
    "long": replace(
        Config(**LARGE),
        cells=40,
        pretraining=3_000,
        teaching=1_000,
        batch=64,
        teaching_batch=256,
        updates=32,
        pool=8,
        latent=512,
        width=4,
        hidden=(256, 128, 64, 32),
        pretraining_rate=1e-3,
        probed=2_000,
        probe_epochs=15,
    ),
    # The paper's networks on about 30,000 cells and a fortieth of its steps: what a GPU can do in a quarter of an hour.
    "lease": replace(
        Config(**LARGE),
        cells=60,
        pretraining=3_000,
        teaching=1_000,
        rounds=300,
        batch=512,
        teaching_batch=512,
        updates=64,
        pool=16,
        probed=2_000,
        probe_epochs=15,
    ),
    "paper": replace(Config(**LARGE), controls=6, positive_controls=6, cells=480, sites=4, looked_at=1_040),
}


def base(config: Config) -> fair_cae.Config:
    """What all trainings have in common."""
    return fair_cae.Config(**{name: getattr(config, name) for name in PASSED})


def trainings(config: Config) -> list[Training]:
    """All trainings of the page: the autoencoders before the game, then the games that begin with them.

    Those are in the order of repeats; what is trained once comes last.
    """
    judged = [(lam, False) for lam in PAPERS[1:] if lam in config.lams]
    judged += [(50.0, True)] if config.conditional else []
    once = [(lam, False) for lam in config.lams if lam not in PAPERS]
    each = [(0.0, False, r) for r in range(config.repeats)] if 0.0 in config.lams else []
    each += [(*one, r) for r in range(config.repeats) for one in judged] + [(*one, 0) for one in once]
    numbers = seeds(config.seed, config.repeats)

    def training(lam: float, conditional: bool, repeat: int) -> Training:
        own = replace(base(config), lam=lam, conditional=conditional, seed=numbers[repeat])
        own = own if lam else fair_cae.before(own)
        followed = config.course and (conditional, repeat) == (False, 0) and lam in (0.0, max(config.lams))
        return Training(name_of(lam, conditional=conditional), repeat, METHOD, own, course=followed)

    return [training(*one) for one in each]


def judged(config: Config) -> dict[str, list[Training]]:
    """Trainings by variant, of those that claims are about."""
    found: dict[str, list[Training]] = {}
    for one in trainings(config):
        if one.variant in (BEFORE, ONE, FIFTY, CONDITIONAL):
            found.setdefault(one.variant, []).append(one)
    return found


def views(training: fair_cae.Config) -> int:
    """Cell views of a training's autoencoder: cells that a step of it was taken on, in the phases A and C."""
    return (training.pretraining + training.rounds) * training.batch


def resize(config: Config, iterations: int) -> Config:
    """The configuration with about so many steps of which every phase keeps its share."""
    shorter = fair_cae.resize(base(config), iterations)
    return replace(config, **{name: getattr(shorter, name) for name in ("pretraining", "teaching", "rounds")})
