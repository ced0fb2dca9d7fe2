"""Subtracting the controls' mean of each domain, and doing nothing: what others are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pandas as pd

from cellbook.profiles.groups import Correction, control_groups, group_rows
from cellbook.profiles.table import features, replace_features


@dataclass(eq=False)
class Nothing:
    """Leave the table as it is: what every correction is compared with."""

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Look at nothing."""
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Return all rows as they are."""
        return profiles.copy()


@dataclass(eq=False)
class Centre(Correction):
    """Subtract the mean of the controls of each domain, and nothing else.

    Attributes
    ----------
    mean_ : (domains, features) float64
    """

    by: str = "Metadata_batch"
    groups_: list[str] = field(init=False, repr=False)
    features_: list[str] = field(init=False, repr=False)
    mean_: np.ndarray = field(init=False, repr=False)

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Average the controls of each domain."""
        self.groups_, rows = control_groups(profiles, self.by, controls, least=1)
        self.features_, self.mean_ = features(profiles), np.stack([x.mean(axis=0) for x in rows])
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Centre all rows, controls and treatments."""
        x = self._fitted(profiles)
        codes = group_rows(profiles, self.by, self.groups_)[1]
        return replace_features(profiles, x - self.mean_[codes], self.features_)
