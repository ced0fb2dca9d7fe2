"""The corrections of profiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from cellbook.errors import CellbookError
from cellbook.methods import wdn
from cellbook.methods.wdn.step import Wdn
from cellbook.pages.comparison.config import (
    CENTRED,
    CORAL,
    CORAL_CELLS,
    HARMONY,
    NONE,
    ON_CELLS,
    TVN,
    WDN,
    WHITENED,
    Config,
)
from cellbook.profiles import Chain, Coral, Step, Whitening
from cellbook.profiles.centre import Centre, Nothing
from cellbook.profiles.harmony import Harmony

RIDGE = 1.0  # of all covariances, in variances of a feature among controls, as published


def steps(config: Config, device: str) -> dict[str, Step]:
    """Corrections by name, all of them by week and but for Harmony fitted on DMSO wells or cells (`ON_CELLS`)."""
    maps = replace(wdn.PRESETS["relative"], iterations=config.wdn_iterations, seed=config.seed)
    made: dict[str, Step] = {
        NONE: Nothing(),
        CENTRED: Centre(),
        WHITENED: Whitening(RIDGE),
        TVN: Chain([Whitening(RIDGE), Coral(eta=RIDGE, reference="pooled")]),
        CORAL: Coral(eta=RIDGE, align_means=True),
        CORAL_CELLS: Coral(eta=RIDGE, align_means=True),
        WDN: Wdn(maps, device),
        HARMONY: Harmony(seed=config.seed),
    }
    return {name: made[name] for name in config.corrections}


def corrected(
    wells: pd.DataFrame, controls: pd.DataFrame | None, config: Config, device: str
) -> Iterator[tuple[str, Step, pd.DataFrame | str]]:
    """Yield every correction with the wells that it gives, or why it cannot be made here.

    What is fitted on cells maps every week by an affine map, so that the mean of mapped cells is the mapped mean.
    """
    for name, step in steps(config, device).items():
        rows = controls if name in ON_CELLS else wells
        if rows is None:
            yield name, step, "of this network no codes of single cells were kept"
            continue
        try:
            yield name, step, step.fit(rows).transform(wells)
        except CellbookError as error:
            yield name, step, str(error)
