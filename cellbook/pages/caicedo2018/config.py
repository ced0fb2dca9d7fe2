"""How much of the paper is repeated: which trainings, on how many cells, and how large."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cellbook.errors import CellbookError
from cellbook.methods import weakly_supervised
from cellbook.runs import seeds
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.encoding import CLASSICAL, PIXELS, UNTRAINED
from cellbook.study.trainings import Training

VERSION = 1
METHOD = "weakly_supervised"
PROTOCOL = "caicedo2018"
LABELS = {"baseline": "baseline CNN", "recurrent": "recurrent", "mixup": "mixup"}  # as in the paper's table
BASELINE, MIXUP = LABELS["baseline"], LABELS["mixup"]
PLAIN = (CLASSICAL, PIXELS)
LAYER = weakly_supervised.Config.layer  # that the paper profiles
LAYERS = weakly_supervised.LAYERS
# The paper prints no budget; 300 epochs of 5,000 steps of 128 cells are its code's, of 2019.
PAPERS_VIEWS = weakly_supervised.Config.iterations * weakly_supervised.Config.batch


@dataclass(frozen=True)
class Config:
    """What the page trains and measures; the values are those of the preset `quick`, the paper's are in comments."""

    screen: str = "simulated"  # or the folder of a cell set; the paper: BBBC021
    # The simulated screen.
    wells: int = 3  # of a treatment; the second replicate validates
    controls: int = 3  # DMSO wells a plate; BBBC021 has 6
    positive_controls: int = 1  # taxol 0.3 wells a plate
    cells: int = 22  # expected in an untreated well; BBBC021 has hundreds
    sites: int = 1
    crop: int = 68  # pixels; 96 in the code of 2019
    # Training
    models: tuple[str, ...] = ("baseline", "mixup")  # and "recurrent"
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


FULL = Config(cells=100, crop=96, batch=128, width=64, rate=None, norm_momentum=0.01)
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
    ),
    "quick": Config(),
    # The paper's networks on as many cells as a GPU looks at in a minute.
    "lease": replace(FULL, iterations=1_600, photographs=30),
    "paper": replace(
        FULL,
        controls=6,
        positive_controls=6,
        cells=480,
        sites=4,
        models=tuple(LABELS),
        iterations=1_500_000,
        untrained=3,
    ),
}


def trainings(config: Config) -> list[Training]:
    """All trainings of the page; the first of the baseline is looked at on its way."""
    base = weakly_supervised.Config(
        iterations=config.iterations,
        batch=config.batch,
        width=config.width,
        norm_momentum=config.norm_momentum,
        rate=config.rate,
    )
    return [
        Training(
            LABELS[model],
            repeat,
            METHOD,
            replace(base, model=model, seed=seed),
            course=config.course and repeat == 0 and model == "baseline",
        )
        for model in config.models
        for repeat, seed in enumerate(seeds(config.seed, config.repeats))
    ]


def judged(config: Config) -> dict[str, list[Training]]:
    """Trainings by the name of their model."""
    names = [LABELS[model] for model in config.models]
    return {name: [one for one in trainings(config) if one.variant == name] for name in names}


def views(config: Config) -> int:
    """Cell views of a training: cells, pairs or sets that a step was taken on."""
    return config.iterations * config.batch


def of_layer(variant: str, layer: str) -> str:
    """Name of the features of one layer of a network."""
    return f"{variant}, layer {layer}"


def layer_parts(config: Config) -> dict[str, dict[str, str]]:
    """Network and layer of every name of `of_layer`."""
    networks = (*judged(config), UNTRAINED)
    return {of_layer(name, layer): {"network": name, "layer": layer} for name in networks for layer in LAYERS}


def resize(config: Config, iterations: int) -> Config:
    """The configuration with another number of iterations."""
    if iterations < 1:
        raise CellbookError(f"iterations={iterations} must be at least 1")
    return replace(config, iterations=iterations)
