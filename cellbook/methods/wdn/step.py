"""WDN as a step of a chain of corrections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import pandas as pd

from cellbook.methods.wdn.alignment import Alignment
from cellbook.methods.wdn.config import PRESETS, Config
from cellbook.methods.wdn.fitting import fit


@dataclass(eq=False)
class Wdn:
    """The maps of Tabak et al. 2020 as a step: the last checkpoint, or that of map step `step`."""

    config: Config = PRESETS["quick"]
    device: str = "auto"
    step: int | None = None
    alignment_: Alignment = field(init=False, repr=False)  # the maps of all checkpoints

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Train critics and maps."""
        self.alignment_ = fit(profiles, self.config, controls, self.device)
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Map all rows, controls and treatments."""
        return self.alignment_.transform(profiles, self.step)
