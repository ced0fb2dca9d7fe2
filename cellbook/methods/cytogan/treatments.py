"""What a conditional model is told of a treatment: the logarithm of its dose, its compound, or both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cellbook.errors import CellbookError, some
from cellbook.methods.cytogan.networks import glorot
from cellbook.training import treatment_codes


def known(table: pd.DataFrame) -> pd.DataFrame:
    """Compound and dose of each treatment in a table of cells, numbered as by `treatment_codes`; of controls 0."""
    first = pd.Series(treatment_codes(table)).drop_duplicates().sort_values().index
    columns = {"Metadata_compound": "compound", "Metadata_concentration": "concentration"}
    found = table.loc[first, list(columns)].rename(columns=columns).reset_index(drop=True)
    dose = pd.to_numeric(found["concentration"], errors="coerce")  # what is no number is refused where doses are told
    found["concentration"] = dose.mask(found["compound"] == "DMSO", 0.0).astype(float)
    return found


class Conditions(nn.Module):
    """What the players are told of each of the `known` treatments; its buffer `table` has a row for each, (T, d).

    With units a row goes through a dense layer, which both players train.
    """

    def __init__(self, treatments: pd.DataFrame, condition: str, units: int = 0) -> None:
        super().__init__()
        self.treatments, self.condition = treatments, condition
        self.register_buffer("table", torch.from_numpy(describe(treatments, condition)))
        d = self.table.shape[1]
        self.embed = nn.Sequential(glorot(nn.Linear(d, units)), nn.ReLU()) if units else nn.Identity()
        self.width = units or d

    def forward(self, numbers: Tensor) -> Tensor:
        """Numbers of treatments, (N,) -> (N, k)."""
        return self.embed(self.table[numbers])

    def find(self, compound: str | None, concentration: float | None) -> int:
        """Number of a treatment that has the compound and the dose asked for, whichever of them the players are told.

        Raises
        ------
        CellbookError
            If one is missing or too much, or there was no such treatment in training.
        """
        asked = {"compound": compound, "concentration": concentration}
        needed = {"dose": ("concentration",), "compound": ("compound",), "both": tuple(asked)}[self.condition]
        for name, value in asked.items():
            if (value is None) == (name in needed):
                raise CellbookError(f"{name}={value}: condition={self.condition!r} takes {' and '.join(needed)}")
        fits = np.logical_and.reduce([self.treatments[name] == asked[name] for name in needed])
        if not fits.any():
            wanted = ", ".join(f"{name}={asked[name]!r}" for name in needed)
            there = some(map(" ".join, self.treatments[list(needed)].astype(str).to_numpy()), 8)
            raise CellbookError(f"{wanted} never occurred in training: there is {there}")
        return int(fits.argmax())


def describe(treatments: pd.DataFrame, condition: str) -> np.ndarray:
    """Condition of each treatment, (T, k) float32: the dose, then one column a compound, as asked for.

    Doses are logarithms, centred and scaled over treatments; raw ones, as the published code takes them, span eight
    orders of magnitude. Controls (dose 0) stand a factor of ten below the least dose.
    """
    parts = []
    if condition in ("dose", "both"):
        parts.append(_log_doses(treatments)[:, None])
    if condition in ("compound", "both"):
        parts.append(pd.get_dummies(treatments["compound"]).to_numpy())
    return np.concatenate(parts, axis=1).astype(np.float32)


def _log_doses(treatments: pd.DataFrame) -> np.ndarray:
    dose = treatments["concentration"].to_numpy()
    bad = treatments[~(np.isfinite(dose) & (dose >= 0))]
    if len(bad):
        raise CellbookError(
            f"Metadata_concentration is no dose in {len(bad)} of {len(dose)} treatments ({some(bad['compound'])}): "
            "give numbers from 0 on, or take another condition"
        )
    if len(np.unique(dose)) < 2:
        raise CellbookError(f"Metadata_concentration is {dose[0]:g} in all treatments: condition='compound' is left")
    logs = np.log10(np.where(dose > 0, dose, dose[dose > 0].min() / 10))
    return (logs - logs.mean()) / logs.std()
