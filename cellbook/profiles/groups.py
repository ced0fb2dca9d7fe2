"""The control rows of each plate or batch: what every correction is fitted on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.profiles.table import FloatArray, check_finite, controls_mask, require

Codes = npt.NDArray[np.intp]
POOLED = "all"  # the name of the one group when rows are not grouped


def group_rows(df: pd.DataFrame, by: str | None, known: list[str] | None = None) -> tuple[list[str], Codes]:
    """Name the groups of `df` and number the rows by them.

    Parameters
    ----------
    df : DataFrame
        A profile table.
    by : str or None
        The grouping column; None puts all rows in one group.
    known : list of str, optional
        The groups seen in fit; rows of any other group are an error.

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
            f"({_some(new)}); fit on a table with controls of each of them"
        )
    return names, np.asarray(codes, dtype=np.intp)


def control_groups(
    df: pd.DataFrame, by: str | None, controls: str, least: int = 2
) -> tuple[list[str], list[FloatArray]]:
    """Return the groups of `df` and the features of each group's controls, [(controls, features), ...].

    Raises
    ------
    CellbookError
        If a group has no control at all, or fewer than `least`, or if a feature is not finite.
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
                f"{_some(where)}, with {int(rows[few].sum())} of {len(df)} rows in them; add their controls, drop "
                "these rows, or group more coarsely"
            )
    return names, [x[mask & (codes == i)] for i in range(len(names))]


def apply_maps(x: FloatArray, codes: Codes, centre: FloatArray, maps: FloatArray, offset: FloatArray) -> FloatArray:
    """Map each row by its group: (x - centre) @ map + offset.

    Shapes: x (n, d), codes (n,), centre (g, d), maps (g, d, k), offset (g, k); returns (n, k).
    """
    out = np.empty((len(x), maps.shape[2]))
    for i in range(len(maps)):
        rows = codes == i
        out[rows] = (x[rows] - centre[i]) @ maps[i] + offset[i]
    return out


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
