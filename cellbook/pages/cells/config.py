"""How much of the screens the page looks at, and what a run of one simulated screen or of the real cells depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellbook.errors import CellbookError
from cellbook.runs import seeds
from cellbook.screens.named import SAMPLE, SIMULATED
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.encoding import CLASSICAL, PIXELS, RANDOM

VERSION = 1  # raise it, too, when the simulator or the features give other values
PROTOCOL = "ljosa2013"
ENCODERS = (CLASSICAL, PIXELS, RANDOM)
BY_PLATE, POOLED = "by plate", "all plates alike"  # which DMSO cells a cell is standardised by
PERMUTED = CLASSICAL  # whose labels are permuted, and whose drop is taken apart


@dataclass(frozen=True)
class Config:
    """The simulated screens and the numbers of draws; presets start from these values."""

    screen: str = SIMULATED
    wells: int = 3  # of a treatment
    controls: int = 3  # DMSO wells a plate
    positive_controls: int = 1  # taxol 0.3 wells a plate, for naming the week
    cells: int = 22  # expected in an untreated well
    sites: int = 1  # fields of view a well
    week_effects: tuple[float, ...] = (0.5, 0.0)  # the first with all encoders, the others with classical features
    folds: int = 5  # of the linear probe, plates held out
    resamples: int = 10_000  # of compounds, behind every interval
    permutations: int = 1_000  # of labels, behind chance
    thinnings: int = 200  # random removals of candidates
    grid: int = 3  # cells of each mechanism that are shown
    repeats: int = 3  # simulated screens, each with another seed
    seed: int = 0
    # Accuracy against cells a treatment: on the first screen, drawn with more cells where that is asked for
    shares: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the cells, but at least one a well
    draws: int = 3  # of each share
    transferred: float = 0.5  # share of the simulated cells that the ImageNet network looks at, some 70 a second
    curve_cells: int = 0  # expected in an untreated well; 0: as many as in the other screens


PRESETS = {
    "smoke": Config(
        wells=1,
        controls=2,
        cells=4,
        resamples=200,
        permutations=50,
        thinnings=20,
        grid=2,
        repeats=1,
        shares=(0.25, 0.5, 1.0),
        draws=2,
        transferred=0.0,
    ),
    "quick": Config(repeats=1, transferred=0.25, resamples=2_000),
    # About 400 cells a treatment for the curve, 86,000 in all with the controls. One CPU core draws about 200 cells a
    # second, and takes classical features of 650 and ImageNet features of 70: half an hour of one core in all.
    "long": Config(shares=(1 / 160, 1 / 80, 1 / 40, 1 / 20, 1 / 10, 1 / 4, 1 / 2, 1.0), curve_cells=220),
    "paper": Config(
        controls=6, positive_controls=6, cells=480, sites=4, permutations=10_000, repeats=5, transferred=1.0
    ),
}


@dataclass(frozen=True)
class ScreenRun:
    """What the products of one simulated screen depend on."""

    simulated: SimulatedScreen
    encoders: tuple[str, ...]
    folds: int
    resamples: int
    permutations: int
    thinnings: int
    grid: int  # 0: no crops are kept for figures
    screen: str = SIMULATED


@dataclass(frozen=True)
class RealRun:
    """What the products of the real cells depend on."""

    simulated: SimulatedScreen  # whose control cells are set beside the real ones
    resamples: int
    permutations: int
    thinnings: int
    seed: int = 0
    encoders: tuple[str, ...] = field(default=ENCODERS)
    screen: str = SAMPLE


@dataclass(frozen=True)
class EnoughRun:
    """What the curve of one screen depends on: accuracy against cells a treatment."""

    simulated: SimulatedScreen | None  # None: the sample
    encoders: tuple[str, ...]
    shares: tuple[float, ...]
    draws: int
    transferred: float  # share of the cells that the ImageNet network looks at
    matched: bool  # also as many cells a well as the real sample has
    resamples: int
    seed: int = 0
    screen: str = SIMULATED


def check(config: Config) -> None:
    """Refuse what the page cannot do."""
    if config.screen != SIMULATED:
        raise CellbookError(f"screen {config.screen!r}: this page simulates its cells, so it takes only 'simulated'")
    if not config.week_effects or config.week_effects[0] == 0:
        raise CellbookError(f"week_effects {config.week_effects} must begin with a week effect above 0")


def screen_runs(config: Config) -> list[ScreenRun]:
    """One run a seed and week effect, in this order; the first keeps crops for the figures."""
    check(config)
    found = []
    for seed in seeds(config.seed, config.repeats):
        for week_effect in config.week_effects:
            main = week_effect == config.week_effects[0]
            found.append(
                ScreenRun(
                    simulated=SimulatedScreen(
                        seed=seed,
                        wells=config.wells,
                        controls=config.controls,
                        positive_controls=config.positive_controls,
                        cells=config.cells,
                        sites=config.sites,
                        week_effect=week_effect,
                    ),
                    encoders=ENCODERS if main else ENCODERS[:1],
                    folds=config.folds,
                    resamples=config.resamples,
                    permutations=config.permutations,
                    thinnings=config.thinnings,
                    grid=config.grid if not found else 0,
                )
            )
    return found


def real_run(config: Config) -> RealRun:
    """The run of the real cells, set beside the first simulated screen."""
    first = screen_runs(config)[0]
    return RealRun(first.simulated, config.resamples, config.permutations, config.thinnings, config.seed)
