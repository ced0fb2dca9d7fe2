"""What treatments do to simulated cells in truth, and how nearly distances say so: what no benchmark can ask."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cellbook.profiles.aggregate import TREATMENT, WELL
from cellbook.study.known import NO_PARAMETER
from cellbook.study.rows import Votes

CONTROL = "DMSO"
STRENGTHS = ("truth_effect", "truth_dose_effect")  # what was done to a cell; the others are what it became


def true_profiles(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean shift of the known parameters of cells by treatment, in deviations between DMSO cells.

    Parameters
    ----------
    cells : DataFrame (cells)
        Table of a simulated screen without the positive control: the columns ``truth_*``. Parameters that are the same
        for all cells of a well are nuisances and left out; the state of a cell is one indicator a state.

    Returns
    -------
    DataFrame (treatments, parameters)
        Indexed by compound and concentration; without the controls.
    """
    states = pd.get_dummies(cells["truth_state"], dtype=np.float64).add_prefix("truth_state: ")
    numbers = cells.filter(like="truth_").select_dtypes("number")
    own = numbers.drop(columns=[name for name in (*NO_PARAMETER, *STRENGTHS) if name in numbers])
    wells = own.groupby([cells[name] for name in WELL])
    varies = (wells.max() - wells.min()).max() > 1e-6
    table = pd.concat([own.loc[:, varies], states], axis=1).astype(np.float64)
    table.columns = table.columns.str.removeprefix("truth_")  # by which they would be no features
    control = (cells["Metadata_compound"] == CONTROL).to_numpy()
    spread = table[control].std()
    known = spread > 0
    shifts = (table.loc[:, known] - table.loc[control, known].mean()) / spread[known]
    keys = [cells.loc[~control, name] for name in TREATMENT]
    return shifts[~control].groupby(keys).mean()


def rank_agreement(one: np.ndarray, other: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Spearman's correlation, of every row, between two matrices of distances, (n, n) each, over its eligible columns.

    Returns
    -------
    float64 (n,), NaN where fewer than three columns are eligible or all distances are equal.
    """
    ranks = [np.where(eligible, rankdata(np.where(eligible, square, np.inf), axis=1), 0.0) for square in (one, other)]
    count = eligible.sum(axis=1)
    a, b = (rank - eligible * (rank.sum(axis=1) / np.maximum(count, 1))[:, None] for rank in ranks)
    below = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), below, out=np.full(len(one), np.nan), where=(below > 0) & (count >= 3))


def agreeing(square: np.ndarray, other: np.ndarray, eligible: np.ndarray, compounds: np.ndarray) -> Votes:
    """Of every treatment the rank correlation of its distances to those of other compounds with other distances."""
    found = rank_agreement(square, other, eligible)
    known = np.isfinite(found)
    return Votes.of(np.where(known, found, 0.0), compounds, known)
