"""The control rows of each plate or batch: what every correction is fitted on."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellbook.errors import CellbookError, some
from cellbook.profiles.table import FloatArray, check_finite, controls_mask, require

Codes = npt.NDArray[np.intp]
POOLED = "all"  # the name of the one group when rows are not grouped
# Below this share of a feature's magnitude, or of its spread among all controls, the spread of controls is rounding or
# chance: divided by it, the feature would outweigh all others. Single precision rounds at 6e-8 of the magnitude; the
# least shares among the published profiles are 1e-4 of the magnitude and 3e-3 of the spread.
FLOOR = 1e-6


class Step(Protocol):
    """Anything that is fitted on the controls of a profile table and maps all of its rows."""

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Fit on the rows whose `Metadata_compound` is `controls`."""

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Map all rows."""


class Correction(Step):
    """A step that is fitted on the controls, feature by feature or on all features together."""

    features_: list[str]

    def fit_transform(self, profiles: pd.DataFrame, controls: str = "DMSO") -> pd.DataFrame:
        """Fit, then map the same table."""
        return self.fit(profiles, controls).transform(profiles)

    def _fitted(self, profiles: pd.DataFrame) -> FloatArray:
        """The features of fit, (rows, features), finite."""
        if not hasattr(self, "features_"):
            raise CellbookError(f"this {type(self).__name__} was not fitted; call fit first")
        return check_finite(profiles, self.features_)


def group_rows(df: pd.DataFrame, by: str | None, known: list[str] | None = None) -> tuple[list[str], Codes]:
    """Name the groups of `df` and number the rows by them.

    Parameters
    ----------
    df : a profile table.
    by : the grouping column; None puts all rows in one group.
    known : the groups seen in fit; rows of any other group are an error.

    Returns
    -------
    names : list of str
        `known`, or the groups in order of first appearance.
    codes : (rows,) int
        The position of each row's group in `names`.
    """
    if by is None:
        return [POOLED], np.zeros(len(df), dtype=np.intp)
    require(df, by)
    missing = int(df[by].isna().sum())
    if missing:
        raise CellbookError(f"{by} is missing in {missing} of {len(df)} rows; fill it in or drop these rows")
    labels = df[by].astype(str)
    names = list(dict.fromkeys(labels)) if known is None else known
    codes = pd.Index(names).get_indexer(pd.Index(labels))
    if (codes < 0).any():
        new = list(dict.fromkeys(labels[codes < 0]))
        raise CellbookError(
            f"{int((codes < 0).sum())} of {len(df)} rows belong to {len(new)} values of {by} not seen in fit "
            f"({some(new, 5)}); fit on a table with controls of each of them"
        )
    return names, np.asarray(codes, dtype=np.intp)


def control_groups(
    df: pd.DataFrame, by: str | None, controls: str, least: int = 2
) -> tuple[list[str], list[FloatArray]]:
    """Return the groups of `df` and the features of each group's controls, [(controls, features), ...].

    Raises
    ------
    CellbookError : if a group has no control at all, or fewer than `least`, or if a feature is not finite.
    """
    x, mask = check_finite(df), controls_mask(df, controls)
    names, codes = group_rows(df, by)
    counts = np.bincount(codes[mask], minlength=len(names))
    rows = np.bincount(codes, minlength=len(names))
    for few, what in ((counts == 0, "no"), (counts < least, f"fewer than {least}")):
        if few.any():
            if by is None:
                raise CellbookError(f"{what} rows of {len(df)} have Metadata_compound {controls!r}: {least} are needed")
            where = [names[i] for i in np.flatnonzero(few)]
            raise CellbookError(
                f"{len(where)} of {len(names)} groups by {by} have {what} rows with Metadata_compound {controls!r}: "
                f"{some(where, 5)}, with {int(rows[few].sum())} of {len(df)} rows in them; add their controls, drop "
                "these rows, or group more coarsely"
            )
    return names, [x[mask & (codes == i)] for i in range(len(names))]


def hardly_varies(spread: FloatArray, magnitude: FloatArray) -> npt.NDArray[np.bool_]:
    """Mark the features whose spread is nothing, or next to nothing beside `magnitude`; see `FLOOR`."""
    return np.asarray(spread <= FLOOR * magnitude)


def steady(x: FloatArray) -> npt.NDArray[np.bool_]:
    """Mark the features of controls x (n, d) that hardly vary beside their own magnitude."""
    return hardly_varies(x.std(axis=0), np.abs(x).max(axis=0))


def apply_maps(x: FloatArray, codes: Codes, centre: FloatArray, maps: FloatArray, offset: FloatArray) -> FloatArray:
    """Map each row by its group: (x - centre) @ map + offset.

    Shapes: x (n, d), codes (n,), centre (g, d), maps (g, d, k), offset (g, k); returns (n, k).
    """
    out = np.empty((len(x), maps.shape[2]))
    for i in range(len(maps)):
        rows = codes == i
        out[rows] = (x[rows] - centre[i]) @ maps[i] + offset[i]
    return out
