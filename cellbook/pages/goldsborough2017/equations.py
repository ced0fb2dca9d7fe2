"""The paper's sums of real cells: whether a code less one, plus another, lies where biology says that it should.

The paper asks three of them of one model, without a success rate. Here each is asked of every treatment that it fits.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from cellbook import metrics, profiles
from cellbook.pages.goldsborough2017.config import PROTOCOL
from cellbook.profiles.aggregate import TREATMENT
from cellbook.study import profile

CONTROLS, DOSE, OPPOSITE = "other controls", "dose of another compound", "opposite mechanisms"
PAPERS = ("Protein synthesis", "Protein degradation")  # that the paper calls opposite


def equations(wells: pd.DataFrame) -> pd.DataFrame:
    """Whether each sum of mean codes lies nearest, by cosine, to what it should be; one row a sum.

    Parameters
    ----------
    wells : mean codes, with wells of DMSO

    Returns
    -------
    DataFrame
        equation, compound (over which an interval is drawn), right, without (the same, had nothing been added and taken
        away), chance (share of what could be named that would be right).
        `CONTROLS`: a treatment - DMSO of half of the plates + that of the others; right if its mechanism is that of
        the nearest treatment of another compound. `DOSE`: high - low dose of a compound + low dose of another; right
        if that is nearest to a higher dose of the other, its low one aside. `OPPOSITE`: a mechanism - DMSO + another;
        right if that is nearer to DMSO than to any mechanism.
    """
    units = profile.treatments(wells, PROTOCOL)
    control = wells[profiles.controls_mask(wells)]
    plates = np.unique(control["Metadata_plate"].astype(str))
    first = control["Metadata_plate"].astype(str).isin(plates[::2]).to_numpy()
    x, here = profiles.matrix(units), profiles.matrix(control)
    one, other = here[first].mean(axis=0), here[~first].mean(axis=0) if not first.all() else here.mean(axis=0)
    return pd.concat(
        [_controls(units, x, other - one), _doses(units, x), _opposites(units, x, here.mean(axis=0))], ignore_index=True
    )


def _controls(units: pd.DataFrame, x: np.ndarray, shift: np.ndarray) -> pd.DataFrame:
    compound, moa = units["Metadata_compound"].to_numpy(), units["Metadata_moa"].to_numpy()
    asked = compound[:, None] != compound[None, :]
    same = (moa[:, None] == moa[None, :]) & asked
    right = [same[np.arange(len(x)), nearest(start, x, asked)] for start in (x + shift, x)]
    found = {"right": right[0], "without": right[1], "chance": same.sum(1) / asked.sum(1)}
    return pd.DataFrame({"equation": CONTROLS, "compound": compound, **found})[same.any(axis=1)]


def _doses(units: pd.DataFrame, x: np.ndarray) -> pd.DataFrame:
    ordered = units.assign(row=np.arange(len(units))).sort_values(TREATMENT)
    rows = [part["row"].to_numpy() for _, part in ordered.groupby("Metadata_compound") if len(part) > 1]
    pairs = [(a[-1], a[0], b) for a, b in product(rows, rows) if a is not b]
    if not pairs:
        return pd.DataFrame()
    high, low, start = (np.array(part) for part in zip(*[(a, b, of[0]) for a, b, of in pairs], strict=True))
    allowed = np.ones((len(pairs), len(x)), bool)
    for taken in (start, high, low):  # a sum lies near its own terms
        allowed[np.arange(len(pairs)), taken] = False
    wanted = np.zeros_like(allowed)
    for i, (_, _, of) in enumerate(pairs):
        wanted[i, of[1:]] = True
    which = [nearest(codes, x, allowed) for codes in (x[high] - x[low] + x[start], x[start])]
    right = [wanted[np.arange(len(pairs)), of] for of in which]
    compound = units["Metadata_compound"].to_numpy()[start]
    found = {"right": right[0], "without": right[1], "chance": wanted.sum(1) / allowed.sum(1)}
    return pd.DataFrame({"equation": DOSE, "compound": compound, **found})


def _opposites(units: pd.DataFrame, x: np.ndarray, control: np.ndarray) -> pd.DataFrame:
    groups = units.groupby("Metadata_moa", sort=True).indices
    if not set(PAPERS) <= set(groups):
        return pd.DataFrame()
    means = {name: x[rows].mean(axis=0) for name, rows in groups.items()}
    known = np.stack([control, *means.values()])
    a, b = (means[name] for name in PAPERS)
    allowed = np.ones((1, len(known)), bool)
    right = [nearest(start[None], known, allowed) == 0 for start in (a - control + b, a)]
    found = {"right": right[0], "without": right[1], "chance": 1 / len(known)}
    return pd.DataFrame({"equation": OPPOSITE, "compound": PAPERS[0], **found})


def nearest(codes: np.ndarray, known: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Of each code (n, d) the nearest of `known` (m, d) by cosine among those that are allowed (n, m)."""
    square = metrics.distance_matrix(np.concatenate([codes, known]))[: len(codes), len(codes) :]
    return np.where(allowed, square, np.inf).argmin(axis=1)
