"""How much of the paper is repeated: which trainings, on how many cells, and how large."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cellbook.errors import CellbookError, some
from cellbook.methods import weakly_supervised
from cellbook.pages.caicedo2018.models import (
    AS_DESCRIBED,
    ATTENDED,
    BASELINE,
    GENETIC,
    LABELS,
    MODELS,
    POOLED,
    PRETRAINED,
    SHUFFLED,
    SWEPT,
    TRAINED,
    of_genes,
    without,
)
from cellbook.runs import ADDED, seeds
from cellbook.screens.named import SAMPLE, SIMULATED
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.encoding import CLASSICAL, PIXELS, UNTRAINED, of_layer
from cellbook.study.trainings import Training

VERSION = 1
OWN = {"page": "caicedo2018", "version": 2}  # rises when what is measured of trainings or plain encoders changes
METHOD = "weakly_supervised"
PROTOCOL = "caicedo2018"
PLAIN = (CLASSICAL, PIXELS)
LAYER = weakly_supervised.Config.layer  # that the paper profiles
LAYERS = weakly_supervised.LAYERS
# The paper prints no budget; 300 epochs of 5,000 steps of 128 cells are its code's, of 2019.
PAPERS_VIEWS = weakly_supervised.Config.iterations * weakly_supervised.Config.batch
GENES_VALIDATE = (2, 5)  # plates of the genetic screen, of different batches


@dataclass(frozen=True)
class Config:
    """What the page trains and measures; presets start from these values, the paper's are in comments."""

    screen: str = "simulated"  # or bbbc021-sample, or the folder of a cell set; the paper: all of BBBC021
    # The simulated screen.
    wells: int = 3  # of a treatment; the second replicate validates
    controls: int = 3  # DMSO wells a plate; BBBC021 has 6
    positive_controls: int = 1  # taxol 0.3 wells a plate
    cells: int = 22  # expected in an untreated well; BBBC021 has hundreds
    sites: int = 1
    crop: int = 68  # pixels; 96 in the code of 2019
    # Training
    models: tuple[str, ...] = ("baseline", "mixup")  # and "recurrent"; trained `repeats` times, judged
    iterations: int = 500  # 1,500,000 in the code of 2019
    batch: int = 32  # 128
    width: int = 8  # 64
    # Keras' and the code's are a rate of 0.001 and 0.01, which short trainings cannot wait for.
    rate: float | None = 4e-3
    norm_momentum: float = 0.1
    course: bool = True  # whether the first training of the baseline is looked at on its way
    repeats: int = 3  # the paper has one
    untrained: int = 1  # networks before their first step, of as many seeds; one stands beside all trainings
    seed: int = 0
    # Measurement
    components: int = 50  # of the pixels
    photographs: int = 0  # cells of a well that ImageNet features are taken of at most, drawn once; 0: all
    resamples: int = 10_000  # of compounds, behind every interval
    permutations: int = 1_000  # of labels, behind chance
    # Further trainings, one each: names of `models.MODELS`, and weeks of BBBC021 that the baseline never sees.
    once: tuple[str, ...] = field(default=(), metadata=ADDED)
    weeks_left_out: tuple[str, ...] = field(default=(), metadata=ADDED)
    validation: int = field(default=2, metadata=ADDED)  # replicate that validates; 0: none, and no auxiliary accuracy
    # The genetic screen, beside the simulated chemical one: as many cells of a well, as large.
    genetic: tuple[str, ...] = field(default=(), metadata=ADDED)  # as `models`
    genetic_once: tuple[str, ...] = field(default=(), metadata=ADDED)  # as `once`
    genetic_wells: int = field(default=8, metadata=ADDED)  # of each of the 26 variants, one a plate

    def __post_init__(self) -> None:
        for name, known in {"models": LABELS, "once": MODELS, "genetic": LABELS, "genetic_once": MODELS}.items():
            if unknown := [one for one in getattr(self, name) if one not in known]:
                raise CellbookError(f"{name}={some(unknown)} is no model: there are {'; '.join(known)}")
        for name, models in {"once": self.models, "genetic_once": self.genetic}.items():
            if twice := {LABELS[model] for model in models} & set(getattr(self, name)):
                raise CellbookError(f"{name}={some(sorted(twice))} is trained anyway: drop it")
        if self.validation < 0:
            raise CellbookError(f"validation={self.validation} must be a replicate, or 0 for none")

    @property
    def simulated(self) -> SimulatedScreen:
        """The simulated screen of this configuration, at the strengths that agree with real cells."""
        return SimulatedScreen(
            seed=self.seed,
            wells=self.wells,
            controls=self.controls,
            positive_controls=self.positive_controls,
            cells=self.cells,
            sites=self.sites,
            crop=self.crop,
        )

    @property
    def simulated_genes(self) -> SimulatedScreen:
        """The genetic screen of this configuration."""
        return replace(self.simulated, design=GENETIC, wells=self.genetic_wells)


FULL = Config(cells=100, crop=96, batch=128, width=64, rate=None, norm_momentum=0.01)
STRENGTHS = tuple(name for name in SWEPT if name not in LABELS.values())
EVERYTHING = replace(
    FULL,
    models=tuple(LABELS),
    untrained=3,
    once=(*STRENGTHS, *AS_DESCRIBED.values(), POOLED, ATTENDED, SHUFFLED, PRETRAINED),
    weeks_left_out=("Week1", "Week3", "Week4"),  # those with most treatments, 60 of 103
    genetic=tuple(LABELS),
    genetic_once=STRENGTHS,
)
PRESETS = {
    "smoke": Config(
        wells=2,
        controls=2,
        cells=3,
        crop=32,
        iterations=6,
        batch=8,
        width=2,
        repeats=1,
        components=5,
        resamples=200,
        permutations=50,
        genetic_wells=2,
    ),
    # A look at the page: one training of each model, and ImageNet features of few cells; few wells of the variants.
    "quick": Config(iterations=200, repeats=1, photographs=4, resamples=2_000, genetic_wells=4),
    # The paper's network on crops of 68 pixels, as a core of a CPU trains it on real crops, about 97 a second: half an
    # hour for what is judged, of which sets take most, and five minutes for the rest.
    "long": Config(
        models=tuple(LABELS),
        iterations=250,
        width=64,
        rate=None,
        untrained=3,
        once=(SHUFFLED, PRETRAINED),
    ),
    # All that the page shows, the genetic screen as well, with as many steps: three and a half hours of a core.
    "wide": replace(EVERYTHING, cells=22, crop=68, iterations=250, batch=32, norm_momentum=0.1),
    # The paper's networks on as many cells as a GPU looks at in a minute.
    "lease": replace(FULL, iterations=1_600, photographs=30),
    # What the claims on drugs are about: also sets, and every layer and the untrained network of every seed.
    "lease2": replace(FULL, models=tuple(LABELS), untrained=3, iterations=1_600, photographs=30),
    # All that the page shows, the genetic screen as well.
    "lease3": replace(EVERYTHING, iterations=1_600, photographs=30),
    "paper": replace(EVERYTHING, controls=6, positive_controls=6, cells=480, sites=4, iterations=1_500_000),
}


def trainings(config: Config) -> list[Training]:
    """All trainings of the page: what is judged, what is trained once, then those on the genetic screen.

    The first of the baseline is looked at on its way.
    """
    base = weakly_supervised.Config(
        iterations=config.iterations,
        batch=config.batch,
        width=config.width,
        norm_momentum=config.norm_momentum,
        rate=config.rate,
        validation=(config.validation,) if config.validation else (),
    )
    several = {LABELS[model]: config.repeats for model in config.models}
    named = [(name, MODELS[name], n) for name, n in (several | dict.fromkeys(config.once, 1)).items()]
    weeks = config.weeks_left_out if config.screen in (SIMULATED, SAMPLE) else ()  # other screens have other weeks
    named += [(without(week), {"left_out_week": week}, 1) for week in weeks]
    found = [
        Training(name, repeat, METHOD, replace(base, seed=seed, **changes))
        for name, changes, n in named
        for repeat, seed in enumerate(seeds(config.seed, n))
    ]
    followed = (BASELINE, 0) if config.course else None
    found = [replace(one, course=(one.variant, one.repeat) == followed) for one in found]
    if config.screen != SIMULATED:
        return found
    plates = tuple(plate for plate in GENES_VALIDATE if plate <= config.genetic_wells)
    base = replace(base, classes=TRAINED, validation=plates)
    several = {LABELS[model]: config.repeats for model in config.genetic}
    return found + [
        Training(of_genes(name), repeat, METHOD, replace(base, seed=seed, **MODELS[name]), GENETIC)
        for name, n in (several | dict.fromkeys(config.genetic_once, 1)).items()
        for repeat, seed in enumerate(seeds(config.seed, n))
    ]


def judged(config: Config) -> dict[str, list[Training]]:
    """Trainings by the name of their model, of those that claims are about."""
    names = [LABELS[model] for model in config.models] + [of_genes(LABELS[model]) for model in config.genetic]
    found = trainings(config)
    return {name: mine for name in names if (mine := [one for one in found if one.variant == name])}


def views(config: Config) -> int:
    """Cell views of a training: cells, pairs or sets that a step was taken on."""
    return config.iterations * config.batch


def layer_parts(config: Config) -> dict[str, dict[str, str]]:
    """Network and layer of every name of `of_layer`."""
    networks = (*judged(config), UNTRAINED)
    return {of_layer(name, layer): {"network": name, "layer": layer} for name in networks for layer in LAYERS}


def with_genes(config: Config) -> Config:
    """The configuration with the genetic screen beside it: of what is judged, unless it names models for genes."""
    if config.screen != SIMULATED:
        raise CellbookError(f"genes=True needs screen={SIMULATED}, not {config.screen}: drop it, as no genes are there")
    return config if config.genetic else replace(config, genetic=config.models)


def resize(config: Config, iterations: int) -> Config:
    """The configuration with another number of iterations."""
    if iterations < 1:
        raise CellbookError(f"iterations={iterations} must be at least 1")
    return replace(config, iterations=iterations)
