"""CORAL: give the controls of every batch the same covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.profiles.groups import FLOOR, Correction, apply_maps, control_groups, group_rows, steady
from cellbook.profiles.table import FloatArray, check_choice, features, replace_features


@dataclass(eq=False)
class Coral(Correction):
    """Map the rows of batch d by R_d^(-1/2) R^(1/2), where R_d = C_d + eta I and R = C + eta I.

    C_d is the covariance of the batch's controls and C the reference. The defaults are those of Tabak et al. 2020,
    where means are not aligned: a shift between batches stays, and with it what tells them apart.

    Parameters
    ----------
    by : the column of batches.
    eta : the ridge. It is absolute, so features should have been whitened or scaled before. As it goes to 0 the
        controls of every batch get the covariance C.
    reference : {"identity", "pooled"}
        C: the identity (Tabak et al. 2020; changes the scale of the factors against each other) or the covariance of
        all controls (Ando et al. 2017).
    align_means : also move the mean of each batch's controls to the mean of all controls.
    centre : True takes covariances (n - 1), False second moments about zero (X'X / n), as the code published with
        Caicedo et al. 2018 does.

    Attributes
    ----------
    groups_ : the batches.
    features_ : the features mapped.
    centre_, offset_ : (batches, features) float64
        What is subtracted before the map and added after it; zero without `align_means`.
    maps_ : the maps, (batches, features, features) float64
    """

    by: str = "Metadata_batch"
    eta: float = 1.0
    reference: Literal["identity", "pooled"] = "identity"
    align_means: bool = False
    centre: bool = True
    groups_: list[str] = field(init=False, repr=False)
    features_: list[str] = field(init=False, repr=False)
    centre_: FloatArray = field(init=False, repr=False)
    offset_: FloatArray = field(init=False, repr=False)
    maps_: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("reference", self.reference, ("identity", "pooled"))
        if not (math.isfinite(self.eta) and self.eta >= 0):
            raise CellbookError(f"eta is {self.eta}; it must be zero or more")

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Fit one map a batch on its controls.

        Raises
        ------
        CellbookError : if there is one batch only, a batch has fewer than two controls, a feature is not finite, or a
            batch's covariance with its ridge cannot be inverted.
        """
        groups, rows = control_groups(profiles, self.by, controls)
        if len(groups) < 2:
            raise CellbookError(
                f"all {len(profiles)} rows have {self.by} {groups[0]!r}, so there is nothing to align; leave CORAL out "
                "or name the column of batches with by="
            )
        flat = np.any([steady(x) for x in rows], axis=0)
        if self.eta == 0 and flat.any():
            named = [name for name, one in zip(features(profiles), flat, strict=True) if one]
            raise CellbookError(
                f"{len(named)} of {len(flat)} features vary by less than {FLOOR:g} of their size among the controls of "
                f"some {self.by} ({', '.join(named[:3])}), and their covariance cannot be inverted; drop them, or give "
                "a ridge (eta, or --ridge)"
            )
        everything = np.concatenate(rows)
        d = everything.shape[1]
        target = np.eye(d) if self.reference == "identity" else self._moment(everything)
        root = _power(target + self.eta * np.eye(d), 0.5, "the reference", len(everything))
        self.groups_, self.features_ = groups, features(profiles)
        self.maps_ = np.stack(
            [
                _power(self._moment(x) + self.eta * np.eye(d), -0.5, f"{self.by} {g}", len(x)) @ root
                for x, g in zip(rows, groups, strict=True)
            ]
        )
        aligned = float(self.align_means)
        self.centre_ = aligned * np.stack([x.mean(axis=0) for x in rows])
        self.offset_ = aligned * np.tile(everything.mean(axis=0), (len(groups), 1))
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Map all rows, controls and treatments, by the map of their batch."""
        x = self._fitted(profiles)
        codes = group_rows(profiles, self.by, self.groups_)[1]
        return replace_features(profiles, apply_maps(x, codes, self.centre_, self.maps_, self.offset_), self.features_)

    def _moment(self, x: FloatArray) -> FloatArray:
        if self.centre:
            x = x - x.mean(axis=0)
        return x.T @ x / (len(x) - self.centre)


def _power(matrix: FloatArray, exponent: float, what: str, controls: int) -> FloatArray:
    """Return the symmetric power of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    rank = int((values > values[-1] * len(values) * np.finfo(np.float64).eps).sum())
    if exponent < 0 and rank < len(values):
        raise CellbookError(
            f"the covariance of the {controls} controls of {what} has rank {rank} in {len(values)} dimensions and "
            "cannot be inverted; give it a ridge (raise eta, or --ridge), or whiten or scale the features first"
        )
    return np.asarray((vectors * np.clip(values, 0, None) ** exponent) @ vectors.T)
