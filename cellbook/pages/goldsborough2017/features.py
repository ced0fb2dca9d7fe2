"""From the representation of cells to distances between treatments: plain, whitened twice, and of other layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.methods import cytogan
from cellbook.metrics.protocols import SAME_COMPOUND_OR_BATCH
from cellbook.pages.goldsborough2017.config import PROTOCOL
from cellbook.screens.named import is_positive, without_place
from cellbook.study import profile
from cellbook.study.course import MEANS
from cellbook.study.trainings import Arrays
from cellbook.training import State
from cellbook.training.codes import code_table

PLAIN, WHITENED = MEANS
BY_CELLS = f"{PLAIN}, whitened by cells"  # as the paper does: the covariance is that of DMSO cells, not of wells
OURS = metrics.PROTOCOLS[PROTOCOL]
# The same profiles and distances under the benchmark's own average.
TREATMENTS = replace(
    OURS,
    name=f"{PROTOCOL}, over treatments",
    measures=(metrics.Measure("NSC"), metrics.Measure("NSCB", exclude=SAME_COMPOUND_OR_BATCH)),
)
ASKED = (*OURS.measures, *TREATMENTS.measures)  # every number of the page asks for the nearest neighbour alone
RIDGE = 1e-6  # of the paper, added to every eigenvalue


def distances(cells: pd.DataFrame, wells: pd.DataFrame) -> Arrays:
    """Cosine distances between treatments by "summary|cosine".

    Parameters
    ----------
    cells : features of some cells, of which those of DMSO decide the paper's whitening
    wells : features of all wells, means over their cells
    """
    return profile.distances(summaries(cells, wells), PROTOCOL, profile.DISTANCES[:1])


@threadpool_limits.wrap(1, user_api="blas")
def summaries(cells: pd.DataFrame, wells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Mean profiles of wells without those of the positive control: plain, and whitened by DMSO wells or cells.

    Whitening is linear, so that means of whitened cells are whitened means of cells.
    """
    used = profile.mean_codes(wells[~is_positive(wells)])
    usable = profiles.drop_unusable(used.reset_index(drop=True))[0]
    found = {PLAIN: usable, WHITENED: profile.whiten_shrunk(usable)}
    names = profiles.features(usable)
    control = cells.loc[profiles.controls_mask(cells), names].to_numpy(np.float64)
    mean, (size, axes) = control.mean(axis=0), np.linalg.eigh(np.atleast_2d(np.cov(control, rowvar=False, bias=True)))
    white = (profiles.matrix(usable) - mean) @ axes / np.sqrt(np.maximum(size, 0) + RIDGE)
    return found | {BY_CELLS: profiles.replace_features(usable, white, names)}


def of_layers(state: State, cells: CellSet) -> Arrays:
    """Distances by the means over pixels of what each convolution sees, "layer k, summary|cosine"."""
    found: Arrays = {}
    for k, seen in enumerate(cytogan.layers(state, cells), 1):
        table = without_place(code_table(cells, seen))
        each = distances(table, profiles.to_wells(table))
        found |= {f"layer {k}, {name}": values for name, values in each.items() if not name.startswith(BY_CELLS)}
    return found
