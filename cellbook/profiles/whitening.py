"""Whitening: give the controls mean zero and the same variance in every direction."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.profiles.groups import FLOOR, POOLED, Correction, apply_maps, control_groups, group_rows, steady
from cellbook.profiles.table import FloatArray, check_choice, features, replace_features


@dataclass(eq=False)
class Whitening(Correction):
    """Map x to (x - mean) V (L + ridge)^(-1/2), where V L V' is the covariance of the controls.

    With a ridge of 0 the controls get mean 0 and covariance I (n - 1 in the covariance). Tabak et al. 2020 call this
    step alone TVN; for the TVN of Ando et al. 2017 and Caicedo et al. 2018 see `tvn`.

    Parameters
    ----------
    ridge : added to every eigenvalue of the covariance; 1.0 in the code published with Caicedo et al. 2018. With fewer
        controls than features it must be positive, and with few controls it decides the result.
    relative : take `ridge` in units of the mean eigenvalue, so that it means the same for features of any scale.
    kind : {"pca", "zca"}
        "pca" leaves the result in the principal axes, `whitened_0` having the largest variance before; "zca" turns it
        back by V' and keeps the feature names. Distances and cosines are the same.
    by : None pools all controls. A column, such as "Metadata_plate" (one reading of Lafarge et al. 2019), whitens each
        plate by its own; this needs "zca", as principal axes of two plates are not comparable.
    scale_first : divide each feature by its controls' standard deviation first ("zca" is then known as ZCA-cor).
    components : int, "rank" or None
        Keep this many principal axes, or as many as the controls span; None keeps all.

    Attributes
    ----------
    groups_ : the plates, or "all".
    features_ : the features whitened.
    rank_ : dimensions spanned by the controls, (groups,) int
    eigenvalues_ : of the covariance, without the ridge, largest first, (groups, features) float64
    mean_ : the controls' mean, (groups, features) float64
    maps_ : the whitening matrices, (groups, features, outputs) float64
    """

    ridge: float = 1.0
    relative: bool = False
    kind: Literal["pca", "zca"] = "pca"
    by: str | None = None
    scale_first: bool = False
    components: int | Literal["rank"] | None = None
    groups_: list[str] = field(init=False, repr=False)
    features_: list[str] = field(init=False, repr=False)
    rank_: list[int] = field(init=False, repr=False)
    eigenvalues_: FloatArray = field(init=False, repr=False)
    mean_: FloatArray = field(init=False, repr=False)
    maps_: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("pca", "zca"))
        if not (math.isfinite(self.ridge) and self.ridge >= 0):
            raise CellbookError(f"ridge is {self.ridge}; it must be zero or more")
        if self.components is not None and self.components != "rank" and not _positive(self.components):
            raise CellbookError(f"components is {self.components!r}; it must be a positive number, 'rank' or None")
        if self.by is not None and self.kind == "pca":
            raise CellbookError(
                f"kind='pca' with by={self.by!r} would leave each group in axes of its own; pass kind='zca'"
            )

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Fit the mean and the whitening matrix of the controls, of each group apart.

        Raises
        ------
        CellbookError : if a group has fewer than two controls, their covariance is singular and there is no ridge, or a
            feature is not finite.
        """
        names = features(profiles)
        if isinstance(self.components, int) and self.components > len(names):
            raise CellbookError(f"components is {self.components}, but there are {len(names)} features; ask for fewer")
        groups, rows = control_groups(profiles, self.by, controls)
        fitted = [self._fit_group(x, g, names) for x, g in zip(rows, groups, strict=True)]
        self.groups_, self.features_ = groups, names
        self.mean_ = np.stack([x.mean(axis=0) for x in rows])
        self.maps_ = np.stack([f[0] for f in fitted])
        self.eigenvalues_ = np.stack([f[1] for f in fitted])
        self.rank_ = [f[2] for f in fitted]
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Whiten all rows, controls and treatments."""
        x = self._fitted(profiles)
        codes = group_rows(profiles, self.by, self.groups_)[1]
        outputs = self.maps_.shape[2]
        white = apply_maps(x, codes, self.mean_, self.maps_, np.zeros((len(self.groups_), outputs)))
        names = self.features_ if self.kind == "zca" else [f"whitened_{i}" for i in range(outputs)]
        return replace_features(profiles, white, names)

    def _fit_group(self, x: FloatArray, group: str, names: list[str]) -> tuple[FloatArray, FloatArray, int]:
        """Return the whitening matrix (d, k), the eigenvalues (d,) and the rank for controls x (n, d)."""
        n, d = x.shape
        flat = steady(x)
        x = np.where(flat, 0.0, x - x.mean(axis=0))  # what is left of them is rounding
        scale = x.std(axis=0, ddof=1) if self.scale_first else np.ones(d)
        steadily = f"{int(flat.sum())} of {d} features are constant among the {n} controls{_of(group)} or vary by less "
        steadily += f"than {FLOOR:g} of their size ({', '.join(names[i] for i in np.flatnonzero(flat)[:3])})"
        if not scale.all():
            raise CellbookError(f"{steadily} and cannot be divided by their spread; drop them, or do not scale first")
        x = x / scale
        # Singular values of the controls, not eigenvalues of their covariance: squaring would halve the digits.
        triangle = np.linalg.qr(x, mode="r") if n > d else x
        _, singular, axes = np.linalg.svd(triangle, full_matrices=True)  # axes (d, d), one a row
        rank = int((singular > singular[0] * max(n, d) * np.finfo(np.float64).eps).sum())
        eigenvalues = np.zeros(d)
        eigenvalues[: len(singular)] = singular**2 / (n - 1)
        ridge = self.ridge * float(eigenvalues.mean()) if self.relative else self.ridge
        keep = rank if self.components == "rank" else self.components or d
        if rank == 0:
            raise CellbookError(f"the {n} controls{_of(group)} are all equal, so they define no whitening; give others")
        if ridge == 0 and keep > rank:
            scales = ", or scale_first=True if the features' scales differ widely" if n > d else ""
            raise CellbookError(
                f"the {n} controls{_of(group)} span {rank} of {d} dimensions, so {keep} cannot be whitened without a "
                f"ridge; give a ridge above 0 (1.0 in published code), or components='rank' to keep {rank}{scales}"
                + (f"; {steadily}" if flat.any() else "")
            )
        # The sign of an axis is free; fixed here so that every machine gives the same profile.
        top = axes[np.arange(d), np.abs(axes).argmax(axis=1)]
        axes = (axes * np.where(top < 0, -1.0, 1.0)[:, None])[:keep]
        map_ = axes.T / np.sqrt(eigenvalues[:keep] + ridge)
        if ridge == 0:
            # Features of very different scale cost digits in the small axes; a second, well-scaled round restores them.
            values, vectors = np.linalg.eigh(np.cov(x @ map_, rowvar=False).reshape(keep, keep))
            map_ = map_ @ (vectors / np.sqrt(values)) @ vectors.T
        if self.kind == "zca":
            map_ = map_ @ axes
        return map_ / scale[:, None], eigenvalues, rank


def _of(group: str) -> str:
    return "" if group == POOLED else f" of {group}"


def _positive(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1
