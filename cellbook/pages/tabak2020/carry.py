"""Whether a correction fitted on controls holds for a treatment, and on plates, that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from cellbook.errors import CellbookError
from cellbook.methods import wdn
from cellbook.metrics import classify_batch
from cellbook.profiles import controls_mask, matrix
from cellbook.profiles.aggregate import TREATMENT
from cellbook.runs import choose_device, obtain, table_fingerprint
from cellbook.screens.named import is_positive

GAP, LEFT, NAMED = "gap", "gap left", "week named"
NOTHING = "nothing"
BATCH, PLATE = "Metadata_batch", "Metadata_plate"


def carry_over(
    cells: pd.DataFrame,
    budget: wdn.Config,
    store: str | Path,
    device: str = "auto",
    *,
    controls: str = "DMSO",
    steps: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Measure whether maps fitted on controls also bring together a treatment that they have not seen.

    The treatment is the positive control, taxol 0.3 in BBBC021: the only other one that lies in all weeks. Half of the
    plates of every week are kept out of all fits, and everything is measured on these: maps fitted on DMSO, maps
    fitted on DMSO and the positive control (each weighing the same), and no map at all. No other treatment is used;
    monastrol, in two weeks of BBBC021, is left out of the fits as it would tie two weeks to each other only.

    Parameters
    ----------
    cells : DataFrame
        Cells or wells with `Metadata_role`; positive controls are rows with the role "positive control", and if there
        are several treatments among these, the one with most rows.
    budget : wdn.Config
        With one level of domains. Its seed also chooses the plates.
    store : folder of runs, where each fit is kept
    device : str
    controls : str
    steps : sequence of int, optional
        Map steps with a checkpoint; by default five at equal distances, from 0 to the last.

    Returns
    -------
    DataFrame
        fit ("nothing", "DMSO", "DMSO and taxol 0.3"), measured on ("DMSO", "taxol 0.3"), measure, step (0 for no map),
        value, low, high, chance. "gap": mean distance between the means of the weeks over the root of the variance
        within weeks (lower is better; chance: what as many independent rows of equal weeks give). "gap left": the gap
        over that of no map, on the same plates (below 1: the map brings weeks together; chance: what would be left of
        it if weeks were equal). "week named": share of rows whose week a logistic regression names, in folds of plates
        (lower; chance: the same on noise); of weeks with two plates or more that were kept out. Intervals are 95 %, by
        leaving out one plate at a time; a week of one plate adds nothing to them.

        Weeks of one plate, or with fewer than two rows of either kind on either side, are left out. The table has no
        rows where there is no positive control or fewer than two weeks remain.

    Raises
    ------
    CellbookError
        If `budget` has another level of domains than weeks, or steps have no checkpoint.
    """
    if budget.domains != (BATCH,):
        raise CellbookError(f"domains={budget.domains}: plates that are kept out have no map; use ({BATCH!r},)")
    columns = ["fit", "measured on", "measure", "step", "value", "low", "high", "chance"]
    rows, positive = both_controls(cells, controls)
    fitted, kept = split_plates(rows, budget.seed)
    if fitted.empty:
        return pd.DataFrame(columns=columns)
    alone = fitted[controls_mask(fitted, controls)].reset_index(drop=True)
    fits = {
        controls: (alone, replace(budget, treatments="controls")),
        f"{controls} and {positive}": (fitted, replace(budget, treatments="replicated")),
    }
    control = controls_mask(kept, controls)
    parts = {controls: kept[control].reset_index(drop=True), positive: kept[~control].reset_index(drop=True)}
    before = {name: week_gap(part) for name, part in parts.items()}
    found = [(NOTHING, name, *line) for name, part in parts.items() for line in _measure(part, 0, before[name])]
    for fit, (table, config) in fits.items():
        alignment = _fit(table, config, store, controls, device)
        for step in _steps(alignment, steps):
            for name, part in parts.items():
                if step == 0:
                    found += [(fit, *line[1:]) for line in found if line[:2] == (NOTHING, name)]
                    continue
                found += [(fit, name, *line) for line in _measure(alignment.transform(part, step), step, before[name])]
    return pd.DataFrame(found, columns=columns)


def both_controls(cells: pd.DataFrame, controls: str = "DMSO") -> tuple[pd.DataFrame, str]:
    """Controls and positive controls, and the name of the positive one; neither where there is no positive control."""
    positive = is_positive(cells) & ~controls_mask(cells, controls)
    if not positive.any():
        return cells.iloc[:0], ""
    most = cells[positive].groupby(TREATMENT, dropna=False).size().idxmax()
    same = (cells[TREATMENT[0]] == most[0]) & ((cells[TREATMENT[1]] == most[1]) | pd.isna(most[1]))
    name = str(most[0]) if pd.isna(most[1]) else f"{most[0]} {most[1]:g}"
    return cells[controls_mask(cells, controls) | (positive & same.to_numpy())].reset_index(drop=True), name


def split_plates(rows: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the plates that are fitted on and of those that are not; of weeks that have enough of both, or none."""
    rows = rows[rows.groupby([BATCH, PLATE])["Metadata_compound"].transform("nunique") == 2]
    rows = rows[rows.groupby(BATCH)[PLATE].transform("nunique") >= 2].reset_index(drop=True)
    if rows.empty:
        return rows, rows
    out = wdn.hold_out_plates(rows, share=0.5, seed=seed)
    size = rows.assign(out=out).groupby([BATCH, "out", "Metadata_compound"])[PLATE].transform("size")
    kept = ~rows[BATCH].isin(rows[BATCH][size < 2]).to_numpy()
    if rows[BATCH][kept].nunique() < 2:
        return rows.iloc[:0], rows.iloc[:0]
    return tuple(rows[kept & side].reset_index(drop=True) for side in (~out, out))


def _fit(table: pd.DataFrame, config: wdn.Config, store: str | Path, controls: str, device: str) -> wdn.Alignment:
    """The alignment of this table, from the store if it is there; not a run of `wdn`, which scores treatments too."""
    on = choose_device(device)

    def make(folder: Path) -> None:
        wdn.fit(table, config, controls, on).save(folder)

    run = obtain(store, "wdn-controls", wdn.VERSION, config, table_fingerprint(table), make, device=on)
    return wdn.load(run)


def _steps(alignment: wdn.Alignment, steps: Sequence[int] | None) -> list[int]:
    if steps is None:
        places = np.linspace(0, len(alignment.steps) - 1, 5).round().astype(int)
        return sorted(set(alignment.steps[places].tolist()))
    return [int(alignment.steps[alignment.find(int(step))]) for step in steps]


@dataclass(frozen=True)
class Gap:
    """Gap between weeks, without each plate too, (plates,), with the week of each, (plates,); and its chance."""

    value: float
    without: np.ndarray
    week: np.ndarray
    chance: float


def _measure(rows: pd.DataFrame, step: int, before: Gap) -> list[tuple[str, int, float, float, float, float]]:
    """Lines (measure, step, value, low, high, chance) of rows of one treatment; `before` is their gap without a map."""
    now = week_gap(rows)
    left = jackknife(now.value / before.value, now.without / before.without, now.week)
    lines = [
        (GAP, step, *jackknife(now.value, now.without, now.week), now.chance),
        (LEFT, step, *left, before.chance / before.value),
    ]
    several = rows[rows.groupby(BATCH)[PLATE].transform("nunique") >= 2]
    plates = several.groupby(BATCH)[PLATE].nunique()
    if len(plates) >= 2:
        found = classify_batch(several, folds=int(min(3, plates.min())))
        week, plate = _codes(several)
        right, total = np.bincount(plate, weights=found.correct), np.bincount(plate)
        without = (right.sum() - right) / (total.sum() - total)
        interval = jackknife(right.sum() / total.sum(), without, week, top=1.0)
        lines.append((NAMED, step, *interval, found.noise_baseline))
    return lines


def _codes(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Week of every plate (plates,), and plate of every row (rows,), numbered from 0 on."""
    plate = rows.groupby([BATCH, PLATE], sort=False).ngroup().to_numpy()  # two weeks may use one name
    return pd.factorize(rows[BATCH])[0][np.unique(plate, return_index=True)[1]], plate


def week_gap(rows: pd.DataFrame) -> Gap:
    """Gap between the weeks of some rows, see `carry_over`, from the sums over plates."""
    week, plate = _codes(rows)
    x = matrix(rows)
    x -= x.mean(axis=0)  # or the variance would be a small difference of large sums
    count = np.bincount(plate).astype(np.float64)
    sums = np.stack([np.bincount(plate, weights=column) for column in x.T], axis=1)  # (plates, n)
    squares = np.bincount(plate, weights=np.square(x).sum(axis=1))
    kept = ~np.eye(len(count), dtype=bool)  # (plate left out, plates)
    without = np.array([_gap(count * k, sums * k[:, None], squares * k, week) for k in kept])
    size = np.bincount(week[plate])
    i, j = np.triu_indices(len(size), 1)
    return Gap(_gap(count, sums, squares, week), without, week, float(np.sqrt(1 / size[i] + 1 / size[j]).mean()))


def _gap(count: np.ndarray, sums: np.ndarray, squares: np.ndarray, week: np.ndarray) -> float:
    """Gap from the sums of plates; plates without rows count for nothing."""
    member = np.eye(week.max() + 1)[:, week]  # (weeks, plates)
    rows, total = member @ count, member @ sums
    rows, total = rows[rows > 0], total[rows > 0]
    within = (squares.sum() - (np.square(total).sum(axis=1) / rows).sum()) / max(rows.sum() - len(rows), 1)
    means = total / rows[:, None]
    i, j = np.triu_indices(len(means), 1)
    if within <= 0 or not len(i):
        return float("nan")
    return float(np.linalg.norm(means[i] - means[j], axis=1).mean() / np.sqrt(within))


def jackknife(
    value: float, without: np.ndarray, strata: np.ndarray, level: float = 0.95, top: float = np.inf
) -> tuple[float, float, float]:
    """Value with an interval from its values without each unit (m,), units being drawn within their stratum (m,).

    The variance is the sum over strata of (k - 1) / k times the summed squares about their mean, k units being in a
    stratum; one of a single unit adds nothing. Degrees of freedom: units less strata.
    """
    variance, freedom = 0.0, 0
    for stratum in np.unique(strata):
        values = without[strata == stratum]
        k = len(values)
        if k > 1:
            variance += (k - 1) / k * np.square(values - values.mean()).sum()
            freedom += k - 1
    if freedom == 0:
        return value, float("nan"), float("nan")
    half = student.ppf((1 + level) / 2, freedom) * np.sqrt(variance)
    return value, float(max(0.0, value - half)), float(min(top, value + half))
