"""Profiles of wells from every layer of a network: distances between treatments, and what each layer knows.

What is known of the cells of a simulated screen is read from the profiles of treated wells, and the week from those of
the positive control, which is the same in all weeks.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook import profiles
from cellbook.cells import CellSet
from cellbook.pages.caicedo2018.config import PROTOCOL
from cellbook.screens import named
from cellbook.study import course, profile
from cellbook.study.encoding import of_layer
from cellbook.study.known import probe_wells
from cellbook.study.trainings import Arrays, Tables

DISTANCE = profile.DISTANCES[:1]
FOLDS = 5  # of compounds


def distances(wells: pd.DataFrame) -> Arrays:
    """Distances between treatments by "summary|distance": of mean profiles, as they are and whitened by DMSO wells.

    Wells of the positive control are part of no profile.
    """
    used = wells[~named.is_positive(wells)].reset_index(drop=True)
    varying = profiles.drop_unusable(used)[0]
    found = dict(zip(course.MEANS, (varying, profile.whiten(varying)[0]), strict=True))
    return profile.distances(found, PROTOCOL, DISTANCE)


def by_layer(wells: pd.DataFrame) -> Arrays:
    """The same of every layer, by "layer|summary|distance"; wells as a training keeps them of all its layers."""
    found: Arrays = {}
    for layer, names in features_of(wells).items():
        found |= prefixed(distances(wells[[*profiles.metadata(wells), *names]]), layer)
    return found


def features_of(wells: pd.DataFrame) -> dict[str, list[str]]:
    """Columns of each layer, in the order of the network."""
    names: dict[str, list[str]] = {}
    for column in wells.columns.difference(profiles.metadata(wells), sort=False):
        names.setdefault(str(column).rpartition("_")[0], []).append(str(column))
    return names


def prefixed(found: Arrays, head: str) -> Arrays:
    """Arrays with another word in front of their names."""
    return {f"{head}|{name}": values for name, values in found.items()}


def named_by_layer(found: Arrays) -> Arrays:
    """Arrays by "variant|repeat|summary|distance": the name of a layer goes into that of the variant."""
    named_: Arrays = {}
    for name, values in found.items():
        variant, repeat, *layer, summary, distance = name.split("|")
        named_["|".join([of_layer(variant, *layer) if layer else variant, repeat, summary, distance])] = values
    return named_


def table_of(cells: CellSet, layers: dict[str, np.ndarray]) -> pd.DataFrame:
    """Features of cells from several layers as a table, in columns 4a_0, 4a_1 and so on."""
    columns = [f"{layer}_{i}" for layer, x in layers.items() for i in range(x.shape[1])]
    return named.without_place(cells.feature_table(np.concatenate(list(layers.values()), axis=1), columns))


@threadpool_limits.wrap(1, user_api="blas")
def known(wells: pd.DataFrame, cells: CellSet) -> Tables:
    """What every layer knows; wells as a training keeps them of all its layers.

    Returns
    -------
    dict
        `truth`, of simulated cells: the table of `probe_wells` with a column layer. `weeks`: that of `week_of_wells`
        with layer and summary.
    """
    truth, weeks = [], []
    for layer, names in features_of(wells).items():
        mine = wells[[*profiles.metadata(wells), *names]]
        if "truth_state" in cells.table:
            truth.append(probe_wells(mine, cells.table, FOLDS).assign(layer=layer))
        varying = profiles.drop_unusable(mine)[0]
        for summary, table in zip(course.MEANS, (varying, profile.whiten(varying)[0]), strict=True):
            told = course.week_of_wells(table[named.is_positive(table)])
            weeks.append(told.assign(layer=layer, summary=summary))
    return {"truth": pd.concat(truth) if truth else pd.DataFrame(), "weeks": pd.concat(weeks)}
