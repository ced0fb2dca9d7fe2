"""Factor analysis of the controls, the reduction behind the classical BBBC021 result (Ljosa et al. 2013)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pandas as pd
from sklearn import decomposition
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from cellbook.errors import CellbookError
from cellbook.profiles.groups import FLOOR, Correction, control_groups, steady
from cellbook.profiles.table import FloatArray, features, replace_features


@dataclass(eq=False)
class FactorAnalysis(Correction):
    """Replace the features by the posterior means of factors that explain how the controls vary together.

    Maximum likelihood, by scikit-learn, with a full singular value decomposition at every step, hence without chance.
    The controls are standardised before the fit, and the same standardisation is applied to every row projected; the
    published code of Ljosa et al. 2013 leaves the second out, so its factors are not ours.

    Parameters
    ----------
    n_factors : number of factors: 50 in Tabak et al. 2020, 20 in the table of Caicedo et al. 2018.
    tol : stop when the log-likelihood of the controls rises by less.
    max_iter : give up after so many steps.

    Attributes
    ----------
    features_ : the features analysed.
    iterations_ : steps taken.
    log_likelihood_ : of the controls, at the last step.
    """

    n_factors: int = 50
    tol: float = 1e-2
    max_iter: int = 1000
    features_: list[str] = field(init=False, repr=False)
    iterations_: int = field(init=False, repr=False)
    log_likelihood_: float = field(init=False, repr=False)

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Fit the factors on all controls.

        Raises
        ------
        CellbookError : if there are not more controls and at least as many features as factors, a feature is constant
            among the controls or not finite, or the likelihood still rises after `max_iter` steps.
        """
        names = features(profiles)
        x = control_groups(profiles, None, controls)[1][0]
        most = min(len(x) - 1, len(names))
        if not 1 <= self.n_factors <= most:
            raise CellbookError(
                f"n_factors is {self.n_factors}, but {len(x)} controls with {len(names)} features allow 1 to {most}; "
                "ask for fewer factors or give more controls"
            )
        flat = np.flatnonzero(steady(x))
        if len(flat):
            raise CellbookError(
                f"{len(flat)} of {len(names)} features have the same value in all {len(x)} controls, to within "
                f"{FLOOR:g} of their size ({', '.join(names[i] for i in flat[:3])}); drop them"
            )
        self._scaler = StandardScaler().fit(x)
        z, share = _compress(self._scaler.transform(x))
        self._model = decomposition.FactorAnalysis(
            self.n_factors, svd_method="lapack", tol=self.tol * share, max_iter=self.max_iter
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                self._model.fit(z)
            except ConvergenceWarning as warning:
                raise CellbookError(
                    f"factor analysis has not converged after max_iter={self.max_iter} steps at tol={self.tol}; "
                    "allow more steps, a larger tol, or fewer factors"
                ) from warning
        self.features_ = names
        self.iterations_ = int(self._model.n_iter_)
        self.log_likelihood_ = float(self._model.loglike_[-1]) / share
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Project all rows: `factor_0`, `factor_1`, ... in place of the features."""
        x = self._fitted(profiles)
        z = self._scaler.transform(x)
        return replace_features(profiles, self._model.transform(z), [f"factor_{i}" for i in range(self.n_factors)])


def _compress(z: FloatArray) -> tuple[FloatArray, float]:
    """Return fewer rows with the mean, zero, and covariance of z (n, d), and their number divided by n.

    The likelihood knows the rows by their covariance alone. Thousands of cells thus cost no more than 2 d rows: the
    triangular factor of z and its negative. The log-likelihood shrinks in proportion to the rows.
    """
    n, d = z.shape
    if n <= 2 * d:
        return z, 1.0
    triangle = np.linalg.qr(z, mode="r") * np.sqrt(d / n)
    return np.concatenate([triangle, -triangle]), 2 * d / n
