"""Corrections one after another; TVN is two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import pandas as pd

from cellbook.profiles.coral import Coral
from cellbook.profiles.groups import Step
from cellbook.profiles.whitening import Whitening


@dataclass(eq=False)
class Chain:
    """Fit and apply steps in order, each on the result of the one before."""

    steps: Sequence[Step]

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Fit every step."""
        self.fit_transform(profiles, controls)
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Apply every step."""
        for step in self.steps:
            profiles = step.transform(profiles)
        return profiles

    def fit_transform(self, profiles: pd.DataFrame, controls: str = "DMSO") -> pd.DataFrame:
        """Fit every step and return the result of the last."""
        for step in self.steps:
            profiles = step.fit(profiles, controls).transform(profiles)
        return profiles


def tvn(ridge: float = 1.0, eta: float = 1.0, by: str = "Metadata_batch") -> Chain:
    """Typical variation normalisation of Ando et al. 2017: whitening on all controls, then CORAL per batch.

    CORAL's reference is the covariance of all whitened controls. Tabak et al. 2020 call the whitening alone TVN and
    compare CORAL with it; for theirs use `Whitening` and `Coral`. The defaults are those of the code published with
    Caicedo et al. 2018; fitted on means of fields or wells, whose variances are well below 1, they do little more than
    centre.
    """
    return Chain([Whitening(ridge=ridge), Coral(by=by, eta=eta, reference="pooled")])
