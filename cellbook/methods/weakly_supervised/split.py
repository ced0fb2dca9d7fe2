"""Which cells train, which validate and what class each is of; what cannot take part is named."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.errors import CellbookError, some
from cellbook.methods.weakly_supervised.config import Config
from cellbook.training import treatment_codes


@dataclass(frozen=True)
class Split:
    """The classes of a training and the part of each cell, N of them."""

    classes: tuple[str, ...]  # K treatments: compound and concentration
    label: np.ndarray  # (N,) number of the class, -1: none
    training: np.ndarray  # (N,) bool
    validation: np.ndarray  # (N,) bool; no well is in both
    left_out: tuple[str, ...]  # treatments that are no class, for they have fewer than two training cells
    unvalidated: tuple[str, ...]  # classes without a validation cell
    empty: int  # cells that take no part, for all their pixels are 0


def split(config: Config, cells: CellSet) -> Split:
    """Classes and parts of cells, by the columns compound, concentration, replicate and, where used, batch.

    Raises
    ------
    CellbookError
        If a column is missing or lacks values, nothing or a single class is left to train on, or a well holds cells of
        training and validation replicates.
    """
    table = cells.table
    treatment = treatment_codes(table)
    part = np.ones(len(table), dtype=bool)
    if not config.control_class:
        part = ~_is(table, "compound", {config.controls})
        if part.all():
            raise CellbookError(
                f"controls={config.controls!r} is in none of {len(table)} cells: name the untreated cells, or "
                "set control_class if all cells are to be classified"
            )
    if config.classes:
        unknown = set(config.classes) - set(table["Metadata_compound"])
        if unknown:
            raise CellbookError(
                f"classes={some(sorted(unknown))} is in none of {len(table)} cells: name their compounds"
            )
        part &= _is(table, "compound", set(config.classes))
    if config.left_out_week is not None:
        away = _is(table, "batch", {config.left_out_week})
        if not away.any():
            raise CellbookError(f"left_out_week={config.left_out_week!r} has none of {len(table)} cells: name a batch")
        part &= ~away
    dark = part & ~_lit(cells)
    part &= ~dark
    validation = np.zeros_like(part)
    if config.validation:
        validation = part & _is(table, "replicate", set(config.validation))
        if part.any() and not validation.any():
            known = some(sorted(map(str, table.loc[part, "Metadata_replicate"].unique())))
            raise CellbookError(
                f"validation={config.validation} is no replicate of {int(part.sum())} cells, which have {known}: name "
                "one of these, or none to train on all cells"
            )
    training = part & ~validation
    _check_wells(table, training, validation)

    counts = np.bincount(treatment[training], minlength=treatment.max(initial=-1) + 1)
    known = np.flatnonzero(counts >= 2)
    names = _names(table, treatment)
    if len(known) < 2:
        raise CellbookError(
            f"{len(known)} of {len(np.unique(treatment[part]))} treatments in {int(part.sum())} cells have two or more "
            f"training cells: a classifier needs two; give more treatments, or change validation={config.validation}"
        )
    label = np.full(len(counts), -1)
    label[known] = np.arange(len(known))
    label = np.where(part, label[treatment], -1)
    training, validation = training & (label >= 0), validation & (label >= 0)
    if config.labels == "shuffled":
        label = _shuffled(label, table, (training, validation), config.seed)
    seen = np.unique(treatment[validation])
    return Split(
        tuple(names[code] for code in known),
        label,
        training,
        validation,
        tuple(names[code] for code in np.setdiff1d(treatment[part], known)),
        tuple(names[code] for code in np.setdiff1d(known, seen)),
        int(dark.sum()),
    )


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """Column Metadata_`name`, which must be there and have no gaps."""
    full = f"Metadata_{name}"
    if full not in table:
        mend = "add it" + (", or train on all cells with validation=()" if name == "replicate" else "")
        raise CellbookError(f"the cells' table has no column {full!r}: it has {', '.join(table.columns)}; {mend}")
    missing = int(table[full].isna().sum())
    if missing:
        raise CellbookError(f"{full} is missing in {missing} of {len(table)} cells: fill it in or drop them")
    return table[full]


def _is(table: pd.DataFrame, name: str, wanted: set) -> np.ndarray:
    return column(table, name).isin(wanted).to_numpy()


def _lit(cells: CellSet) -> np.ndarray:
    """Cells of which a pixel is not 0, (N,); of most of them some pixels in a grid tell."""
    lit = cells.images[:, :, ::8, ::8].any(axis=(1, 2, 3))
    for row in np.flatnonzero(~lit):
        lit[row] = cells.images[row].any()
    return lit


def _names(table: pd.DataFrame, treatment: np.ndarray) -> dict[int, str]:
    first = table.groupby(treatment)[["Metadata_compound", "Metadata_concentration"]].first()
    return {
        code: f"{compound} {dose:g}" if isinstance(dose, Real) else f"{compound} {dose}"
        for code, compound, dose in first.itertuples(name=None)
    }


def _check_wells(table: pd.DataFrame, training: np.ndarray, validation: np.ndarray) -> None:
    """Refuse wells of which cells both train and validate: neighbours in a field are no independent cells."""
    places = [f"Metadata_{name}" for name in ("batch", "plate", "well") if f"Metadata_{name}" in table]
    if "Metadata_well" not in places or not validation.any():
        return
    wells = table.groupby(places, dropna=False).ngroup().to_numpy()
    both = np.intersect1d(wells[training], wells[validation])
    if len(both):
        first = " ".join(table.loc[wells == both[0], places].iloc[0].astype(str))
        raise CellbookError(
            f"{len(both)} wells hold cells of training and of validation replicates, first {first}: a well has one "
            "Metadata_replicate"
        )


def _shuffled(label: np.ndarray, table: pd.DataFrame, parts: tuple[np.ndarray, ...], seed: int) -> np.ndarray:
    """Labels of cells in another order within each part and week: as many of each class as before, and no more."""
    rng, label = np.random.default_rng(seed), label.copy()
    week = pd.factorize(column(table, "batch"), sort=True)[0]
    for part in parts:
        for one in np.unique(week[part]):
            rows = np.flatnonzero(part & (week == one))
            label[rows] = label[rng.permutation(rows)]
    return label
