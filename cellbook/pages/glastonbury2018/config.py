"""How much of the paper is repeated: which weights of the adversary, on how many cells, and how long."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from cellbook.errors import CellbookError, some
from cellbook.methods import fair_cae
from cellbook.runs import ADDED, seeds
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.encoding import CLASSICAL, IMAGENET, PIXELS, UNTRAINED
from cellbook.study.trainings import Training

VERSION = 2
METHOD = "fair_cae"
PROTOCOL = "glastonbury2018"
BASELINES = (UNTRAINED, PIXELS, CLASSICAL, IMAGENET)  # the last where its weights are installed
PAPERS = (0.0, 1.0, 50.0)  # lambdas of the paper's table; 0 is the autoencoder before the game
# Fields of a training that the page passes on as they are.
PASSED = (
    *("model", "pretraining", "teaching", "rounds", "batch", "teaching_batch", "updates", "pool", "latent", "width"),
    *("hidden", "pretraining_rate", "seed"),
)


# Games beside the paper's own, `ADVERSARY`, by what stands behind lambda in their names, and in what they differ.
ADVERSARY, SEES, DEEP, REST = "adversary", "conditional", "deep", "adversary at rest"
REVERSAL, CONFUSION, KERNEL = BOUNDED = ("reversal", "confusion", "kernel")
GAMES: dict[str, dict[str, Any]] = {
    ADVERSARY: {},
    SEES: {"conditional": True},
    REVERSAL: {"penalty": "reversal", "updates": None},
    CONFUSION: {"penalty": "confusion"},
    KERNEL: {"penalty": "kernel", "updates": None},
    REST: {"updates": 0},  # which no longer learns, so that nothing bounds the objective
    DEEP: {"model": "deep"},
}


def name_of(lam: float, game: str = ADVERSARY) -> str:
    """Name of the trainings of a game with a weight."""
    return f"lambda {lam:g}" + (f", {game}" if game != ADVERSARY else "")


BEFORE, ONE, FIFTY = map(name_of, PAPERS)
CONDITIONAL = name_of(50.0, SEES)
# Games that are trained once each, with weights that were fixed before. Reversal and confusion: 1, the paper's first.
# The kernel's term begins at a hundredth of what confusion begins at (0.001 and 0.1 on both screens): 100 makes them
# alike. The deep encoder and the adversary at rest: the paper's largest, the first also before the game.
FURTHER = ((DEEP, 0.0), (DEEP, 50.0), (REVERSAL, 1.0), (CONFUSION, 1.0), (KERNEL, 100.0), (REST, 50.0))


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
    further: tuple[tuple[str, float], ...] = field(default=(), metadata=ADDED)  # games and weights, trained once each
    course: bool = True  # whether the first autoencoder and its game with the largest weight are looked at on their way
    repeats: int = 3  # trainings of what is judged; the paper has one
    seed: int = 0
    # Measurement
    looked_at: int = 312  # cells whose reconstructions are measured, balanced over treatments
    shown: int = 6  # of them, in the figure
    probed: int = 4_000  # cells of each kind from which the week is read, at most
    probe_epochs: int = 30  # of the new network that reads it
    probe_folds: int = 3  # of all probes, plates held out
    components: int = 64  # of the pixels, and of the wells into whose axes cells are turned before they are corrected
    wdn_iterations: int = field(default=100, metadata=ADDED)  # steps of the maps of WDN, at most
    resamples: int = 10_000  # of compounds and plates, behind every interval

    def __post_init__(self) -> None:
        if unknown := [game for game, _ in self.further if game not in GAMES]:
            raise CellbookError(f"further={some(unknown)} is no game: there are {', '.join(GAMES)}")

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
        further=FURTHER,
        wdn_iterations=40,
        repeats=1,
        looked_at=40,
        shown=2,
        probed=300,
        probe_epochs=2,
        components=5,
        resamples=200,
    ),
    # A look at the page: one training of each model, and few weights of the adversary.
    "quick": Config(
        per_well=4,
        pretraining=200,
        teaching=200,
        rounds=40,
        lams=(0.0, 0.1, 1.0, 50.0),
        repeats=1,
        probed=2_000,
        resamples=2_000,
    ),
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
        further=FURTHER,
        wdn_iterations=1_000,
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
    "paper": replace(
        Config(**LARGE),
        controls=6,
        positive_controls=6,
        cells=480,
        sites=4,
        further=FURTHER,
        wdn_iterations=1_000,
        looked_at=1_040,
    ),
}


def base(config: Config) -> fair_cae.Config:
    """What all trainings have in common."""
    return fair_cae.Config(**{name: getattr(config, name) for name in PASSED})


def trainings(config: Config) -> list[Training]:
    """All trainings of the page: the autoencoders before the game, then the games that begin with them.

    Those are in the order of repeats; what is trained once comes last.
    """
    judged = [(ADVERSARY, lam) for lam in PAPERS[1:] if lam in config.lams]
    judged += [(SEES, 50.0)] if config.conditional else []
    once = [(ADVERSARY, lam) for lam in config.lams if lam not in PAPERS] + [tuple(one) for one in config.further]
    each = [(ADVERSARY, 0.0, r) for r in range(config.repeats)] if 0.0 in config.lams else []
    each += [(*one, r) for r in range(config.repeats) for one in judged] + [(*one, 0) for one in once]
    numbers = seeds(config.seed, config.repeats)

    def training(game: str, lam: float, repeat: int) -> Training:
        own = replace(base(config), lam=lam, seed=numbers[repeat], **GAMES[game])
        own = own if lam else fair_cae.before(own)
        followed = config.course and (game, repeat) == (ADVERSARY, 0) and lam in (0.0, max(config.lams))
        return Training(name_of(lam, game), repeat, METHOD, own, course=followed)

    return [training(*one) for one in each]


def games(config: Config) -> dict[str, dict[str, Any]]:
    """Weight and game of every variant that is trained."""
    named = {one.variant: one.config.lam for one in trainings(config)}
    return {name: {"lam": lam, "game": name.partition(", ")[2] or ADVERSARY} for name, lam in named.items()}


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
