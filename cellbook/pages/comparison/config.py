"""What is compared, on which cells: plain encoders, the trainings of the pages of papers, and the page's own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from cellbook import metrics
from cellbook.configure import choose_preset
from cellbook.methods import vicreg
from cellbook.runs import ADDED, seeds
from cellbook.screens.named import SAMPLE, SIMULATED
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.encoding import CLASSICAL, PIXELS, UNTRAINED
from cellbook.study.trainings import Training

VERSION = 3
PROTOCOL = "ljosa2013"  # the benchmark's own
MEASURES = metrics.PROTOCOLS[PROTOCOL].measures  # NSC and NSCB
NONE, CENTRED, WHITENED, TVN = "none", "centred by week", "whitened", "TVN"
CORAL, CORAL_CELLS, WDN, HARMONY = "CORAL", "CORAL, cells", "WDN, cells", "Harmony"
CORRECTIONS = (NONE, CENTRED, WHITENED, TVN, CORAL, CORAL_CELLS, WDN, HARMONY)
ON_CELLS = (CORAL_CELLS, WDN)  # fitted on single DMSO cells, of which a week has many more than wells
# The screen without weeks under no correction, whitened by its DMSO wells, and by its DMSO cells: which of them is what
# a correction should give, as distances of what whitens are in units of the controls' spread.
CLEAN, CLEAN_WHITENED, CLEAN_CELLS = "without weeks", "without weeks, whitened", "without weeks, whitened by cells"
TARGETS = dict.fromkeys((NONE, CENTRED, HARMONY), CLEAN) | dict.fromkeys((WHITENED, TVN, CORAL), CLEAN_WHITENED)
TARGETS |= dict.fromkeys(ON_CELLS, CLEAN_CELLS)
KNOWN = "known truth"  # a representation that nobody has
# What is measured, and under which names of protocols the lines stand.
NSC, NSCB, SILHOUETTE, TRUTH, RESTORED, WEEK = "NSC", "NSCB", "silhouette", "truth", "without weeks", "same week"
ACTIVITY, CONSISTENCY = "activity", "consistency"
PRECISION = {kind: f"mAP, {kind}" for kind in (ACTIVITY, CONSISTENCY)}
MEASURED, CHANGES, GAINS, CHOICE, PREDICTS = "comparison", "corrections", "training", "choice", "ranked as the truth"
EVERYTHING, UNTRAINED_ONLY = "all", "without any training"
PLAINLY, BEFORE, TRAINED = "plain encoder", "untrained network", "trained network"  # kinds of representations
PLAIN = (CLASSICAL, PIXELS)  # beside the ImageNet features, if they are asked for
PAPERS = {
    "goldsborough2017": "Goldsborough 2017",
    "caicedo2018": "Caicedo 2018",
    "glastonbury2018": "Glastonbury 2018",
    "lafarge2019": "Lafarge 2019",
}
# Trainings that answer a question of their page alone: networks that have to be told the treatment of a cell, variants
# of one game between its ends, other strengths of a model, other partners, weeks not seen, and controls.
LEFT_OUT = {
    "goldsborough2017": (
        *(f"LSGAN, told {what}" for what in ("the dose", "the compound", "dose and compound")),
        "WGAN, clipped",
        "AE",
    ),
    "caicedo2018": (
        "treatments shuffled within weeks",
        *(f"recurrent, T {t}" for t in (3, 8)),
        *(f"mixup, alpha {alpha}" for alpha in (0.05, 0.1, 0.5, 1)),
        "recurrent, sets as described",
        "mixup, pairs as described",
        *(f"without Week{week}" for week in (1, 3, 4)),
    ),
    "glastonbury2018": (*(f"lambda {lam}" for lam in (0.001, 0.01, 0.1, 10)), "lambda 50, adversary at rest"),
}
OURS = "comparison"  # the page whose trainings are of no paper
NAMES = PAPERS | {OURS: "this book"}


@dataclass(frozen=True)
class Config:
    """What the page compares and measures; presets start from these values."""

    screen: str = SIMULATED  # or bbbc021-sample, or the folder of a cell set
    # The simulated screen, which is drawn a second time without any effect of weeks.
    wells: int = 3  # of a treatment
    controls: int = 3  # DMSO wells a plate; BBBC021 has 6
    positive_controls: int = 1  # taxol 0.3 wells a plate
    cells: int = 22  # expected in an untreated well; BBBC021 has hundreds
    sites: int = 1
    crop: int = 68  # pixels, of the plain encoders; each network gets crops as large as those it was trained on
    # Trainings
    pages: tuple[tuple[str, str], ...] = (  # and the preset of each with which its trainings were made
        ("goldsborough2017", "long"),
        ("caicedo2018", "lease"),
        ("glastonbury2018", "long"),
        ("lafarge2019", "lease"),
    )
    iterations: tuple[tuple[str, str, int], ...] = (  # page, screen and steps, where they are others than the preset's
        ("goldsborough2017", SAMPLE, 1_250),
        ("lafarge2019", SIMULATED, 7_500),
        ("lafarge2019", SAMPLE, 2_200),
        (OURS, SAMPLE, 1_000),  # so that a real cell is seen as often as a simulated one
    )
    trainings: int = 1  # of each network, at most
    # Profiles
    photographs: int = 0  # cells of a well that ImageNet features are taken of, drawn once; 0: none
    components: int = 50  # of wells, into which wider profiles are turned
    corrections: tuple[str, ...] = CORRECTIONS
    wdn_iterations: int = 100  # steps of the maps of WDN, at most
    # Measurement
    probe_folds: int = 3  # of what is known of cells, plates held out
    null_size: int = 1_000  # random rankings behind p-values of retrieval
    resamples: int = 10_000  # of compounds and of plates, behind intervals and ranks
    seed: int = 0
    # Page, screen and preset, where its trainings on that screen were made with another.
    presets: tuple[tuple[str, str, str], ...] = field(default=(), metadata=ADDED)
    own: str = field(default="", metadata=ADDED)  # preset of the training that is of no paper; empty: there is none

    @property
    def simulated(self) -> SimulatedScreen:
        """The simulated screen of this configuration, at the strengths that agree with real cells."""
        names = ("seed", "wells", "controls", "positive_controls", "cells", "sites", "crop")
        return SimulatedScreen(**{name: getattr(self, name) for name in names})


# Networks whose weights were kept, as a CPU has trained them; of those of a GPU few products came home.
ON_CPU = (("caicedo2018", SAMPLE, "long"), ("caicedo2018", SIMULATED, "wide"))
PRESETS = {
    "smoke": Config(
        wells=2,
        controls=2,
        cells=3,
        pages=(("caicedo2018", "smoke"), ("lafarge2019", "smoke")),
        iterations=(),
        components=10,
        wdn_iterations=40,
        probe_folds=2,
        null_size=50,
        resamples=200,
        own="smoke",
    ),
    # A look at the page: plain encoders on few cells, and whatever networks the store has.
    "quick": Config(photographs=4, wdn_iterations=40, resamples=2_000, presets=ON_CPU, own="long"),
    # On networks that a GPU or days of a CPU trained.
    "lease": Config(trainings=3, photographs=20, wdn_iterations=300, presets=ON_CPU, own="long"),
    # As many cells as the networks of weak supervision were trained on, of which only profiles of wells were kept.
    "long": Config(
        cells=100, trainings=3, photographs=30, wdn_iterations=1_000, null_size=10_000, presets=ON_CPU, own="long"
    ),
}


def page(name: str) -> ModuleType | None:
    """The configuration of a page; None of one that is not there yet, for which it is asked by name."""
    there = find_spec(f"cellbook.pages.{name}") is not None
    return import_module(f"cellbook.pages.{name}.config") if there else None


def of_page(name: str, config: Config) -> Any:
    """With which configuration a page has trained what is compared; None if there is no such page or preset."""
    module, preset = page(name), preset_of(name, config)
    if module is None or preset not in module.PRESETS:
        return None
    steps, own = steps_of(name, config), replace(module.PRESETS[preset], screen=config.screen, seed=config.seed)
    return module.resize(own, steps) if steps else own


def steps_of(name: str, config: Config) -> int:
    """Steps of a page's trainings, where they are others than its preset's; else 0."""
    return {(where, screen): n for where, screen, n in config.iterations}.get((name, config.screen), 0)


def preset_of(name: str, config: Config) -> str:
    """The preset with which a page has trained what is compared."""
    others = {(where, screen): preset for where, screen, preset in config.presets}
    return others.get((name, config.screen), dict(config.pages)[name])


def trainings(config: Config) -> list[Training]:
    """The training that is of no paper, once for each seed; the page takes it from the store as it does all others."""
    if not config.own:
        return []
    base = choose_preset(vicreg.PRESETS, config.own)
    base = replace(base, iterations=steps_of(OURS, config) or base.iterations)
    own = [replace(base, seed=seed) for seed in seeds(config.seed, config.trainings)]
    return [Training("VICReg", repeat, "vicreg", one) for repeat, one in enumerate(own)]


def label(variant: str, paper: str) -> str:
    """Name of a representation."""
    return f"{variant}, {NAMES[paper]}"


def untrained(paper: str) -> str:
    """Name of the first network of a paper before its first step."""
    return label(UNTRAINED, paper)
