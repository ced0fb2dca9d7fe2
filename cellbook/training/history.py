"""What is kept of the losses: a line every so many steps, and those since the last line, which wait on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellbook.errors import CellbookError
from cellbook.runs import save_table
from cellbook.training import replicas
from cellbook.training.state import CHECKPOINT


class History:
    """Losses of a training, empty at first; `folder` is where the training keeps its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []  # of the losses
        self.lines: list[list[float]] = []  # step and mean losses since the line before
        self.recent: list[Tensor] = []  # (terms,), losses of each step since the last line
        self.before: pd.DataFrame | None = None  # of the training that this one goes on from
        self.start = 0  # updates that were done in that one

    @property
    def step(self) -> int:
        """Updates done."""
        return int(self.lines[-1][0] if self.lines else self.start) + len(self.recent)

    def add(self, losses: dict[str, Tensor]) -> None:
        """Take the losses of one more step, without waiting for the device."""
        self.names = list(losses)
        self.recent.append(torch.stack([loss.detach().float() for loss in losses.values()]))

    def check(self) -> Tensor:
        """Losses since the last line, (steps, terms) float64 on the CPU; one that is no number is refused."""
        values = replicas.mean(torch.stack(self.recent)).cpu().double()
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            step, term = bad[0].tolist()
            kept = self.folder / CHECKPOINT
            raise CellbookError(
                f"{self.names[term]} is {values[step, term].item()} at step {self.step - len(values) + step + 1}"
                f"{f'; {kept} is the last good state' if kept.exists() else ''}: lower the learning rate, or look for "
                "broken images in the cells"
            )
        return values

    def close(self) -> dict[str, str]:
        """Make a line of the losses since the last; returns its means, to be shown."""
        means = self.check().mean(dim=0).tolist()
        self.lines.append([float(self.step), *means])
        self.recent = []
        return {name: f"{value:.4g}" for name, value in zip(self.names, means, strict=True)}

    def save(self) -> None:
        """Write the lines as ``history.parquet``: step and losses."""
        table = pd.DataFrame(self.lines, columns=["step", *self.names]).astype({"step": np.int64})
        save_table(pd.concat([self.before, table], ignore_index=True), self.folder / "history.parquet")
