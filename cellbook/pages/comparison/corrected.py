"""Profiles from which every correction starts, and the corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from cellbook import profiles
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
from cellbook.profiles import Chain, Coral, PlateScaler, Step, Whitening
from cellbook.profiles.centre import Centre, Nothing
from cellbook.profiles.harmony import Harmony

RIDGE = 1.0  # of all covariances, in variances of a feature among controls, as published


def base(wells: pd.DataFrame, components: int, one_unit: bool) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """What every correction starts from, as a function of wells or cells with these features.

    Features are in deviations of the DMSO wells, each in its own or, where all have one unit, in the root of their mean
    variance: outputs of a network that hardly vary among a few dozen controls are noise that deviations of their own
    would blow up. More than `components` features are turned into the directions in which wells vary most around the
    mean of the controls. No label plays a part.
    """
    usable = profiles.drop_unusable(wells)[0]
    scaler = PlateScaler("standardise", by=None, on_constant="drop").fit(usable)
    names = scaler.features_
    weights = scaler.spread_[0] / np.sqrt((scaler.spread_**2).mean()) if one_unit else np.ones(len(names))
    x = profiles.matrix(scaler.transform(usable)) * weights
    axes = np.linalg.svd(x, full_matrices=False)[2][:components].T  # (features, n)

    def start(table: pd.DataFrame) -> pd.DataFrame:
        scaled = scaler.transform(table[[*profiles.metadata(table), *profiles.features(usable)]])
        y = profiles.matrix(scaled) * weights
        if len(axes) <= components:
            return profiles.replace_features(scaled, y, names)
        return profiles.replace_features(scaled, y @ axes, [f"axis_{i}" for i in range(axes.shape[1])])

    return start


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
