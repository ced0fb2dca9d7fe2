"""Harmony (Korsunsky et al. 2019) as a step of a chain of corrections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.profiles.groups import group_rows
from cellbook.profiles.table import check_finite, features, replace_features


@dataclass(eq=False)
class Harmony:
    """Harmony (Korsunsky et al. 2019), by harmonypy 2.1.0: soft clusters in which the batches are made alike.

    Not fitted on controls: every table is corrected as a whole by what is in it, treatments too, and there is no map to
    apply to another. Where compounds are confounded with batches, as in BBBC021, it removes biology with the batch:
    keep plain centring beside it. As the version changes the results, another one is refused. Early stopping is off
    and the ridge is fixed at 1: with the library's defaults it stops before it has mixed anything; one cluster a
    treatment, in the manner of Arevalo et al. 2024.
    """

    by: str = "Metadata_batch"
    seed: int = 0
    max_iterations: int = 20

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Look at nothing."""
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Correct this table."""
        harmonypy = _harmonypy()
        group_rows(profiles, self.by)
        x = check_finite(profiles)
        keys = [c for c in ("Metadata_compound", "Metadata_concentration") if c in profiles]
        treatments = len(profiles[keys].drop_duplicates()) if keys else 30
        found = harmonypy.run_harmony(
            x,
            pd.DataFrame({"domain": profiles[self.by].astype(str).to_numpy(dtype=object)}),
            "domain",
            lamb=1.0,
            nclust=max(2, min(treatments, len(x) // 2)),
            max_iter_harmony=self.max_iterations,
            epsilon_harmony=-np.inf,
            verbose=False,
            random_state=self.seed,
            ncores=1,
        )
        corrected = np.asarray(found.Z_corr, dtype=np.float64)
        return replace_features(profiles, corrected.reshape(x.shape), features(profiles))


def _harmonypy() -> Any:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("harmonypy")
    except PackageNotFoundError:
        found = "none"
    if found != "2.1.0":
        raise CellbookError(f"method 'harmony' needs harmonypy 2.1.0, found {found}: pip install harmonypy==2.1.0")
    import harmonypy

    return harmonypy
