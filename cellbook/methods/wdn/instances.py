"""Means of treatment instances at every checkpoint, without mapping a single cell where maps are affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from cellbook.errors import CellbookError
from cellbook.methods.wdn.alignment import Alignment
from cellbook.metrics import PROTOCOLS, prepare
from cellbook.metrics.moa import factorize
from cellbook.metrics.neighbours import candidates
from cellbook.metrics.protocols import SAME_COMPOUND, SAME_COMPOUND_OR_BATCH
from cellbook.profiles.aggregate import to_wells
from cellbook.profiles.table import check_finite, metadata

PROTOCOL = PROTOCOLS["tabak2020"]
EXCLUDED = {"NSC": SAME_COMPOUND, "NSCB": SAME_COMPOUND_OR_BATCH}


@dataclass(frozen=True)
class Screen:
    """A screen under an alignment: its treatment instances (treatment and batch), and the rows that make them."""

    alignment: Alignment
    table: pd.DataFrame  # (u), metadata of the instances
    labels: np.ndarray  # int (u,), MOA of each
    compounds: np.ndarray  # int (u,)
    compound_names: list[str]
    eligible: dict[str, np.ndarray]  # "NSC" and "NSCB" -> bool (u, u), candidates of each instance
    x: np.ndarray  # float64 (rows, n), features of the rows that count
    codes: np.ndarray  # int (rows, levels), their domains
    unit: np.ndarray  # int (rows,), their instance
    stratum: np.ndarray  # int (rows,), within which rows are resampled: the well of a cell; the instance of a well
    weight: np.ndarray  # float64 (rows,), cells that a row stands for
    cells: bool  # whether rows are cells


def make_screen(alignment: Alignment, profiles: pd.DataFrame, controls: str = "DMSO") -> Screen:
    """Find the treatment instances of a table of cells or wells (protocol ``tabak2020``); unlabelled rows are left out.

    Rows are taken for cells if a plate's well occurs twice among those that are not controls. Plates of one name in two
    batches are two plates.
    """
    check_finite(profiles, alignment.features)
    place = [c for c in ("Metadata_batch", "Metadata_plate", "Metadata_well") if c in profiles]
    treated = profiles[profiles["Metadata_compound"] != controls].reset_index(drop=True)
    cells = {"Metadata_plate", "Metadata_well"} <= set(place) and bool(treated.duplicated(place).any())
    well = treated.groupby(place, sort=False).ngroup().to_numpy() if cells else np.arange(len(treated))
    treated = treated.assign(Metadata_source=well)
    wells = to_wells(treated.drop(columns="Metadata_cell_count", errors="ignore")) if cells else treated
    found = prepare(wells, PROTOCOL, controls=controls, drop_unlabelled=True)
    unit_of = np.full(well.max(initial=0) + 1, -1)
    unit_of[found.rows["Metadata_source"].to_numpy()] = found.unit
    kept = unit_of[well] >= 0
    rows = treated[kept].drop(columns="Metadata_source")
    unit = unit_of[well[kept]]
    weighted = not cells and found.weight is not None
    table = found.profiles[metadata(found.profiles)].drop(columns="Metadata_source", errors="ignore")
    compounds, names = factorize(table["Metadata_compound"])
    return Screen(
        alignment=alignment,
        table=table.reset_index(drop=True),
        labels=factorize(table["Metadata_moa"])[0],
        compounds=compounds,
        compound_names=names,
        eligible={name: candidates(table, exclude) for name, exclude in EXCLUDED.items()},
        x=check_finite(rows, alignment.features),
        codes=alignment.codes(rows),
        unit=unit,
        stratum=pd.factorize(well[kept])[0] if cells else unit,
        weight=rows[found.weight].to_numpy(np.float64) if weighted else np.ones(len(rows)),
        cells=cells,
    )


def draw_wells(unit: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Draw wells with replacement within each unit, int (n, w): which well stands in the place of each well.

    `unit` (w,) names the unit of each well; the place of a well is always taken by one of the same unit.
    """
    order = np.argsort(unit, kind="stable")  # wells of a unit side by side
    size = np.bincount(unit)
    start = np.cumsum(size) - size
    pick = np.floor(np.random.default_rng(seed).random((n, len(unit))) * size[unit]).astype(np.int64)
    return order[start[unit] + pick]


def resample(screen: Screen, n: int, seed: int = 0) -> list[np.ndarray]:
    """Draw rows with replacement within their stratum, as many as it has; returns how often each was, n times (rows,).

    Cells are drawn within their well, as in the paper. Wells, where there are no cells, are drawn within their
    treatment instance: the next level up, and the wider one. The same seed draws the same rows for every alignment.
    """
    if n < 1:
        raise CellbookError(f"n={n}: at least one resample is needed")
    seeds = np.random.SeedSequence(seed).generate_state(n)
    size = len(screen.unit)
    return [np.bincount(draw_wells(screen.stratum, 1, int(s))[0], minlength=size).astype(np.float64) for s in seeds]


def unit_means(screen: Screen, checkpoints: Sequence[int], counts: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """Mean of the mapped rows of every instance: float64 (resamples, checkpoints, u, n); one resample without `counts`.

    A mean commutes with an affine map, so only the means of rows of one instance in one domain are mapped. With
    non-linear maps all rows are.
    """
    align, u = screen.alignment, len(screen.table)
    keys = np.column_stack([screen.unit, screen.codes])
    parts, part = np.unique(keys, axis=0, return_inverse=True)  # sorted by unit
    part = part.reshape(-1)
    begin = np.searchsorted(parts[:, 0], np.arange(u))
    operators = []
    for count in counts if counts is not None else [np.ones(len(part))]:
        weight = screen.weight * count
        share = weight / np.bincount(screen.unit, weights=weight, minlength=u)[screen.unit]
        operators.append(csr_array((share, (part, np.arange(len(part)))), shape=(len(parts), len(part))))
    out = np.empty((len(operators), len(checkpoints), u, screen.x.shape[1]))
    combos, combo = np.unique(parts[:, 1:], axis=0, return_inverse=True)
    combo = combo.reshape(-1)
    if align.affine:
        means = np.stack([s @ screen.x for s in operators])  # (r, parts, n), each already times its share
        mass = np.stack([np.asarray(s.sum(axis=1)).reshape(-1, 1) for s in operators])  # (r, parts, 1)
        for j, checkpoint in enumerate(checkpoints):
            m, b = align.affine_maps(combos, checkpoint)
            mapped = np.empty_like(means)
            for i in range(len(combos)):
                here = combo == i
                mapped[:, here] = means[:, here] @ m[i] + mass[:, here] * b[i]
            out[:, j] = np.add.reduceat(mapped, begin, axis=1)
        return out
    for j, checkpoint in enumerate(checkpoints):
        y = align.map_rows(screen.x, screen.codes, checkpoint)
        for i, s in enumerate(operators):
            out[i, j] = np.add.reduceat(s @ y, begin, axis=0)
    return out


def control_rows(profiles: pd.DataFrame, controls: str, limit: int, seed: int, by: str) -> pd.DataFrame:
    """The control rows; of more than `limit` as many as that, the same share of every domain."""
    rows = profiles[profiles["Metadata_compound"] == controls]
    if len(rows) <= limit:
        return rows.reset_index(drop=True)
    part = rows.groupby(by, group_keys=False).sample(frac=limit / len(rows), random_state=seed)
    return part.sort_index().reset_index(drop=True)


def hold_out_plates(
    profiles: pd.DataFrame, by: str = "Metadata_batch", share: float = 1 / 3, seed: int = 0
) -> np.ndarray:
    """Mark the rows of some plates of every domain, bool (rows,): to fit on the others and measure leakage on these.

    At least one plate of each domain is marked and at least one is not; a domain of one plate is an error. Plates of
    one name in two domains are two plates.
    """
    plates = profiles[[by, "Metadata_plate"]].drop_duplicates()
    count = plates.groupby(by)["Metadata_plate"].transform("size").to_numpy()
    if (count < 2).any():
        alone = plates[by][count < 2]
        raise CellbookError(
            f"{len(alone)} values of {by} have one plate only (first: {alone.iloc[0]!r}), which cannot be both fitted "
            "on and held out; leave their rows out"
        )
    order = pd.Series(np.random.default_rng(seed).random(len(plates))).groupby(plates[by].to_numpy()).rank().to_numpy()
    out = order <= np.clip(np.round(share * count), 1, count - 1)
    marked = pd.MultiIndex.from_frame(plates[out])
    return pd.MultiIndex.from_frame(profiles[[by, "Metadata_plate"]]).isin(marked)
