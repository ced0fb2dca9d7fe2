"""Put the plates of a screen on one scale, feature by feature, with the help of their controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellbook.errors import CellbookError, some
from cellbook.profiles.groups import FLOOR, Correction, control_groups, group_rows, hardly_varies
from cellbook.profiles.table import FloatArray, check_choice, features, replace_features


@dataclass(eq=False)
class PlateScaler(Correction):
    """Shift and scale each feature of each plate so that the plate's controls have a set place and spread.

    Parameters
    ----------
    method : {"percentile", "standardise", "robust"}
        "percentile" sends the controls' 1st percentile to 0 and their 99th to 1, without clipping (Ljosa et al. 2013);
        percentiles between two controls are interpolated. "standardise" gives the controls mean 0 and standard
        deviation 1, with n - 1 in the variance as in every covariance here. "robust" is (x - median) / (1.4826 MAD).
    by : the column to scale by; None scales all rows alike.
    on_constant : {"error", "drop"}
        What to do about a feature whose controls have no spread on some plate (less than `groups.FLOOR` of their
        magnitude, or of the spread of all controls): refuse it, or drop it from all plates (the rule of Ljosa et al.
        2013).

    Attributes
    ----------
    groups_ : the plates.
    features_, dropped_ : features scaled, and features dropped.
    centre_, spread_ : what is subtracted, and what is divided by, (plates, features) float64
    """

    method: Literal["percentile", "standardise", "robust"] = "percentile"
    by: str | None = "Metadata_plate"
    on_constant: Literal["error", "drop"] = "error"
    groups_: list[str] = field(init=False, repr=False)
    features_: list[str] = field(init=False, repr=False)
    dropped_: list[str] = field(init=False, repr=False)
    centre_: FloatArray = field(init=False, repr=False)
    spread_: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("method", self.method, ("percentile", "standardise", "robust"))
        check_choice("on_constant", self.on_constant, ("error", "drop"))

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Measure place and spread of the controls of each plate, of which it needs two.

        Raises
        ------
        CellbookError : if a plate has fewer than two controls, a feature is not finite, or its controls have no spread.
        """
        groups, rows = control_groups(profiles, self.by, controls)
        measured = [self._measure(x) for x in rows]
        centre, spread = np.stack([m[0] for m in measured]), np.stack([m[1] for m in measured])
        magnitude = np.stack([np.abs(x).max(axis=0) for x in rows])
        flat = hardly_varies(spread, np.maximum(magnitude, np.concatenate(rows).std(axis=0)))
        names = np.array(features(profiles), dtype=object)
        keep = ~flat.any(axis=0)
        if not keep.all() and (self.on_constant == "error" or not keep.any()):
            self._complain(names, groups, flat)
        self.groups_ = groups
        self.features_, self.dropped_ = names[keep].tolist(), names[~keep].tolist()
        self.centre_, self.spread_ = centre[:, keep], spread[:, keep]
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Scale all rows, controls and treatments; features named in `dropped_` are left out."""
        x = self._fitted(profiles.drop(columns=getattr(self, "dropped_", []), errors="ignore"))
        codes = group_rows(profiles, self.by, self.groups_)[1]
        return replace_features(profiles, (x - self.centre_[codes]) / self.spread_[codes], self.features_)

    def _measure(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self.method == "percentile":
            low, high = np.percentile(x, [1, 99], axis=0)
            return low, high - low
        if self.method == "standardise":
            return x.mean(axis=0), x.std(axis=0, ddof=1)
        median = np.median(x, axis=0)
        return median, 1.4826 * np.median(np.abs(x - median), axis=0)

    def _complain(self, names: npt.NDArray[np.object_], groups: list[str], flat: npt.NDArray[np.bool_]) -> None:
        columns = names[flat.any(axis=0)].tolist()
        where = [groups[i] for i in np.flatnonzero(flat.any(axis=1))]
        mend = "drop them or pass on_constant='drop'"
        if len(columns) == len(names):
            mend = "give each plate more controls, use another method, or pool the plates"
        raise CellbookError(
            f"{len(columns)} of {len(names)} features have no spread (method {self.method!r}), or less than {FLOOR:g} "
            f"of their size or of what all controls vary by, among the controls of {len(where)} of {len(groups)} "
            f"groups by {self.by}: features {some(columns)}; groups {some(where)}; {mend}"
        )
