"""Profiles of wells: as they are, by every correction that controls can fit, and as they are without any week."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from cellbook import profiles
from cellbook.methods import wdn
from cellbook.methods.wdn.step import Wdn
from cellbook.pages.glastonbury2018 import probes
from cellbook.pages.glastonbury2018.config import PROTOCOL, Config
from cellbook.profiles import Coral, Whitening
from cellbook.profiles.centre import Centre
from cellbook.screens import named
from cellbook.study import course, profile
from cellbook.study.course import MEANS
from cellbook.study.trainings import Arrays

PLAIN, WHITENED, CENTRED, TVN, CORAL = (*MEANS, "mean, centred by week", "mean, TVN", "mean, CORAL")
ON_CELLS = CORAL_CELLS, WDN = "mean, CORAL by cells", "mean, WDN by cells"  # fitted on DMSO cells, of which are more
# The screen without weeks as a training encodes it: as it is, and whitened by its DMSO wells or its DMSO cells. Each
# correction is held against that which scales features as it does.
CLEAN, CLEAN_WHITENED, CLEAN_CELLS = (
    f"mean, {name}" for name in ("without weeks", "without weeks, whitened", "without weeks, whitened by cells")
)
TARGETS = dict.fromkeys((PLAIN, CENTRED), CLEAN) | dict.fromkeys((WHITENED, TVN, CORAL), CLEAN_WHITENED)
TARGETS |= dict.fromkeys(ON_CELLS, CLEAN_CELLS)
CORRECTIONS = (CENTRED, WHITENED, TVN, CORAL, *ON_CELLS)
RIDGE = 1.0  # of CORAL, in variances of a feature among controls, as published


def apart(of_wells: dict[str, pd.DataFrame]) -> tuple[Arrays, pd.DataFrame]:
    """Distances between treatments by "summary|distance", and what is left of the week in wells of controls.

    Of every control well: summary, cells (its kind), plate, correct and chance, see `course.week_of_wells`.
    """
    left = [
        course.week_of_wells(table[mask].reset_index(drop=True)).assign(summary=summary, cells=kind)
        for summary, table in of_wells.items()
        for kind, mask in probes.kinds(table).items()
        if kind != probes.ALL
    ]
    return distances(of_wells), pd.concat(left, ignore_index=True)


def distances(of_wells: dict[str, pd.DataFrame]) -> Arrays:
    """Distances between treatments by "summary|distance"."""
    treated = {name: table[~named.is_positive(table)].reset_index(drop=True) for name, table in of_wells.items()}
    return profile.distances(treated, PROTOCOL, ("euclidean",))


def corrected(wells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Profiles of wells by summary: as they are, and by every correction, each fitted on DMSO wells.

    Corrections week by week are left out where a week has fewer than two DMSO wells.
    """
    usable = profiles.drop_unusable(wells)[0]
    white = profile.whiten_shrunk(usable)
    found = {PLAIN: usable, WHITENED: white}
    if enough(usable):
        found[CENTRED] = Centre().fit_transform(usable)
        found[TVN] = Coral(eta=RIDGE, reference="pooled").fit_transform(white)
        start = profile.base(usable, len(usable), one_unit=False)  # of all directions that wells span
        found[CORAL] = Coral(eta=RIDGE, align_means=True).fit_transform(start(usable))
    return found


def enough(table: pd.DataFrame) -> bool:
    """Whether there are weeks, and each has two DMSO rows or more."""
    per_week = pd.Series(profiles.controls_mask(table)).groupby(table["Metadata_batch"].to_numpy()).sum()
    return len(per_week) > 1 and bool(per_week.min() > 1)


def corrected_by_cells(
    wells: pd.DataFrame, codes: pd.DataFrame, config: Config
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Profiles of wells by summary, by corrections that are fitted on single DMSO cells; and how far WDN went.

    Cells and wells are turned into the axes in which wells vary most. Each week is mapped by an affine map, so that the
    mean of mapped cells is the mapped mean. WDN starts with CORAL, and where held-out controls show no gain takes no
    step. Both are left out where a week has fewer than two DMSO cells.

    Returns
    -------
    dict, DataFrame
        The second with steps and stopped (why), and between held-out controls of two weeks the distance before, at the
        start and after the steps; without rows where both are left out.
    """
    if not enough(codes):
        return {}, pd.DataFrame()
    start = profile.base(wells, config.components, one_unit=True)
    table, cells = start(wells), start(codes)
    coral = Coral(eta=RIDGE, align_means=True)
    maps = Wdn(replace(wdn.PRESETS["relative"], iterations=config.wdn_iterations, seed=config.seed), "cpu")
    found = {CORAL_CELLS: coral.fit(cells).transform(table), WDN: maps.fit(cells).transform(table)}
    return found, pd.DataFrame([{"steps": maps.steps_, "stopped": maps.stopped_, **maps.distances_}])


def encoded_clean(codes: pd.DataFrame, config: Config, by_cells: bool) -> dict[str, pd.DataFrame]:
    """Profiles of wells of the screen without weeks, by summary."""
    wells = profiles.drop_unusable(profiles.to_wells(codes))[0]
    found = {CLEAN: wells, CLEAN_WHITENED: profile.whiten_shrunk(wells)}
    if by_cells:
        start = profile.base(wells, config.components, one_unit=True)
        found[CLEAN_CELLS] = Whitening(RIDGE).fit(start(codes)).transform(start(wells))
    return found
