"""From a table of wells to the units a protocol matches: checked, without controls, aggregated."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellbook.errors import CellbookError
from cellbook.metrics.moa import check_distances
from cellbook.metrics.neighbours import SEVERAL, Bools, Floats
from cellbook.metrics.protocols import Protocol
from cellbook.metrics.protocols import protocol as find
from cellbook.profiles import labels
from cellbook.profiles.aggregate import TREATMENT, aggregate
from cellbook.profiles.table import check_features, metadata, require
from cellbook.profiles.table import drop_unusable as without_unusable

REQUIRED = (*TREATMENT, "Metadata_moa", "Metadata_batch")


@dataclass(frozen=True)
class Units:
    """What is to be matched, and the rows it is made of."""

    profiles: pd.DataFrame  # (u), in order of first appearance; `Metadata_batch` joins several with "|"
    rows: pd.DataFrame  # (w), the rows used, without controls
    unit: NDArray[np.integer]  # (w,), the unit of each row
    weight: str | None  # the column that weights the rows in a mean
    notes: list[str]  # what was dropped, weighted or decided on the way
    distances: Floats | None  # (u, u), the precomputed distances of the units


def prepare(
    profiles: pd.DataFrame,
    protocol: str | Protocol,
    *,
    controls: str = "DMSO",
    drop_unlabelled: bool = False,
    drop_unusable: bool = False,
    distances: ArrayLike | None = None,
) -> Units:
    """Check a profile table, leave out the controls, and aggregate its rows to the units of a protocol.

    Arguments are those of `cellbook.metrics.score`. Without the protocol's column of weights all rows weigh the same,
    and a note says so. Where it gives a unit of several batches the one with most of its rows, ties go in natural order
    (Week2 before Week10).

    Raises
    ------
    CellbookError
        On anything that would make the score mean something else than it says.
    """
    p = find(protocol)
    by, weight = list(p.unit), p.weight
    without_dose: list[str] = []
    if "Metadata_concentration" not in profiles and not any("conc" in str(c).lower() for c in metadata(profiles)):
        profiles = profiles.assign(Metadata_concentration=0.0)
        without_dose.append("no column Metadata_concentration: all wells of a compound are one treatment")
    require(profiles, REQUIRED)
    profiles, joined = labels.join(profiles)
    notes = without_dose + joined
    keep = ~_controls(profiles, controls)
    unlabelled = keep & profiles["Metadata_moa"].isna().to_numpy(bool)
    if drop_unlabelled and unlabelled.any():
        keep &= ~unlabelled
        notes.append(f"{unlabelled.sum()} rows without MOA left out")
    if not keep.any():
        gone = int(unlabelled.sum()) if drop_unlabelled else 0
        without = f"controls ({controls!r})" + (f" and the {gone} rows without MOA" if gone else "")
        raise CellbookError(
            f"none of {len(profiles)} rows is left without the {without}; add treated rows with a Metadata_moa."
        )
    rows = profiles[keep]
    _check_missing(rows)
    _check_doses(rows)
    labels.check(rows)
    _check_duplicates(rows)
    _check_labels(rows)
    rows = rows.assign(Metadata_batch=rows["Metadata_batch"].astype("str"))
    if distances is None and drop_unusable:
        rows, dropped = without_unusable(rows)
        if dropped.rows or dropped.not_finite or dropped.constant:
            notes.append(str(dropped))
    elif distances is None:
        _check_usable(rows)
    if p.drop_one_batch_moas:
        several = _in_several_batches(rows, notes)
        keep[keep] = several
        rows = rows[several]
    rows = rows.reset_index(drop=True)
    if weight is not None and weight not in rows:
        notes.append(f"no column {weight}: a mean over rows, all alike, not over cells")
        weight = None
    unit = rows.groupby(by, sort=False).ngroup().to_numpy()
    n_units = int(unit.max()) + 1
    d = None
    if distances is not None:
        d = check_distances(distances, len(profiles))[np.ix_(keep, keep)]
        if len(rows) != n_units:
            raise CellbookError(
                f"distances are between {len(rows)} rows, but these are {n_units} units ({', '.join(by)}); give the "
                "distances between units, one row each."
            )
    whole = rows if len(rows) == n_units else aggregate(rows, by, p.statistic, weight)
    if spread := _spread(rows):
        rule = "each shares a batch with whatever lies in one of them"
        if "Metadata_batch" in by:
            rule = "each batch is a unit of its own"
        elif p.one_batch_each:
            rule = "each counts for the one with most of its rows"
        notes.append(spread + rule)
    if p.one_batch_each:
        whole = whole.assign(Metadata_batch=_main_batch(rows, unit))
    return Units(whole, rows, unit, weight, notes, d)


def natural(name: str) -> list[tuple[int, str]]:
    """Make a sort key in which numbers count as numbers: Week2 before Week10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _controls(profiles: pd.DataFrame, controls: str) -> Bools:
    """Mark the rows named like the controls, and refuse a name that only looks like theirs."""
    named = np.zeros(len(profiles), dtype=bool)
    for column in ("Metadata_compound", "Metadata_moa"):
        text = profiles[column].astype("str")
        same = text.eq(controls).to_numpy(dtype=bool, na_value=False)
        labels.check_controls(text, controls)
        named |= same
    return named


def _check_missing(rows: pd.DataFrame) -> None:
    for column in REQUIRED:
        if missing := int(rows[column].isna().sum()):
            mend = "leave such rows out with drop_unlabelled=True" if column == "Metadata_moa" else "drop such rows"
            raise CellbookError(
                f"{column} is missing in {missing} of {len(rows)} rows that are not controls; fill it in, or {mend}."
            )


def _check_doses(rows: pd.DataFrame) -> None:
    concentration = pd.to_numeric(rows["Metadata_concentration"], errors="coerce").to_numpy(np.float64)
    if bad := int((~np.isfinite(concentration) | (concentration < 0)).sum()):
        raise CellbookError(
            f"Metadata_concentration is infinite, negative or no number in {bad} of {len(rows)} rows; write it in "
            "micromolar."
        )


def _check_duplicates(rows: pd.DataFrame) -> None:
    place = ["Metadata_batch", "Metadata_plate", "Metadata_well"]
    if not set(place) <= set(rows.columns):
        return
    twice = rows.duplicated([*TREATMENT, *place], keep=False) & rows[place].notna().all(axis=1)
    if twice.any():
        first = rows[twice].iloc[0]
        raise CellbookError(
            f"{twice.sum()} of {len(rows)} rows are duplicate wells (first: plate {first['Metadata_plate']}, well "
            f"{first['Metadata_well']}, {first['Metadata_compound']} {first['Metadata_concentration']}); give one row "
            "a well: drop the copies, or aggregate cells and fields to wells first."
        )


def _check_labels(rows: pd.DataFrame) -> None:
    kinds = rows[[*TREATMENT, "Metadata_moa"]].drop_duplicates()
    clash = kinds[kinds.duplicated(TREATMENT, keep=False)]
    if clash.empty:
        return
    treatments = clash.drop_duplicates(TREATMENT)
    compound, concentration = treatments[TREATMENT].iloc[0]
    same = (clash["Metadata_compound"] == compound) & (clash["Metadata_concentration"] == concentration)
    raise CellbookError(
        f"{len(treatments)} of {len(kinds) - len(clash) + len(treatments)} treatments have more than one Metadata_moa "
        f"(first: {compound} {concentration} is {' and '.join(map(str, clash.loc[same, 'Metadata_moa']))}); give each "
        "treatment one."
    )


def _check_usable(rows: pd.DataFrame) -> None:
    try:
        check_features(rows)
    except CellbookError as error:
        # The table's own advice is a function; here the same is one argument away.
        message = str(error).replace("drop them with drop_unusable(df)", "mend them, or pass drop_unusable=True")
        raise CellbookError(message) from None


def _exploded(rows: pd.DataFrame) -> pd.Series:
    """List the batches of each row, one entry a batch; the index repeats the position of the row."""
    return rows["Metadata_batch"].reset_index(drop=True).str.split(SEVERAL).explode()


def _spread(rows: pd.DataFrame) -> str:
    """Say which treatments lie in several batches, such as a positive control, or nothing if none does."""
    sets = _exploded(rows)
    treatment = rows.groupby(TREATMENT, sort=False).ngroup().to_numpy()
    count = sets.groupby(treatment[sets.index]).nunique()
    if count.max() < 2:
        return ""
    compound, concentration = rows.iloc[int((treatment == count.idxmax()).argmax())][TREATMENT]
    return (
        f"{(count > 1).sum()} of {len(count)} treatments lie in several batches (most: {compound} {concentration}, in "
        f"{count.max()}): "
    )


def _main_batch(rows: pd.DataFrame, unit: NDArray[np.integer]) -> NDArray[np.object_]:
    """Find the batch with most rows of each unit."""
    sets = _exploded(rows)
    counts = pd.crosstab(unit[sets.index], sets.to_numpy())
    names = sorted((str(name) for name in counts.columns), key=natural)
    counts = counts[names]
    main: NDArray[np.object_] = np.array(names, dtype=object)[counts.to_numpy().argmax(axis=1)]
    return main


def _in_several_batches(rows: pd.DataFrame, notes: list[str]) -> Bools:
    """Mark the rows whose MOA occurs in more than one batch."""
    sets = _exploded(rows)
    moa = rows["Metadata_moa"].reset_index(drop=True)
    count = sets.groupby(moa.loc[sets.index].to_numpy()).nunique()
    single = sorted(count.index[count == 1])
    out = moa.isin(single).to_numpy(bool)
    if out.all():
        raise CellbookError(
            f"each of the {count.size} MOAs occurs in one batch only, so none is left to score; this protocol needs "
            "MOAs seen in two batches or more."
        )
    if single:
        treatments = len(rows[out].drop_duplicates(TREATMENT))
        notes.append(f"{treatments} treatments of MOAs seen in one batch only left out: {', '.join(map(str, single))}")
    return ~out
