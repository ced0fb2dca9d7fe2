"""Encoders of cells by the name that the command line gives them: those of the library, or a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cellbook import features
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features.transferred import Range
from cellbook.runs import choose_device
from cellbook.study import models

NAMES = ("classical", "imagenet", "pixel-pca", "random-network", "cell-count")


@dataclass(frozen=True)
class Encoder:
    """Which encoder, and where it computes.

    Parameters
    ----------
    name : one of `NAMES`; or a trained model as PAGE/MODEL, such as "lafarge2019/VAE+"
    seed : of imagenet, pixel-pca and random-network
    components : of pixel-pca
    controls : compound whose cells give imagenet its range of grey values
    weights, repeat, results : of a trained model: archive or store of runs, which training, and `book/results`
    device : "auto", "cpu", "cuda" or "cuda:1"

    Raises
    ------
    CellbookError : if the name is unknown.
    """

    name: str = "classical"
    seed: int = 0
    components: int = 50
    controls: str = "DMSO"
    weights: Path = Path("runs")
    repeat: int = 0
    results: Path = Path("book/results")
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.trained and self.name not in NAMES:
            known = f"{', '.join(NAMES)}, or a trained model as PAGE/MODEL, such as lafarge2019/VAE+"
            raise CellbookError(f"--encoder is {self.name!r}; use one of {known}")

    @property
    def trained(self) -> bool:
        """Whether it is a trained model."""
        return "/" in self.name

    def model(self) -> tuple[models.Model, bytes]:
        """The trained model and its weights."""
        return models.find(self.name, self.repeat, self.weights, self.results)

    def known_by(self) -> dict[str, Any]:
        """What decides the features."""
        found = {"name": self.name, "seed": self.seed, "components": self.components, "controls": self.controls}
        return found | ({"weights": self.model()[0].sha256} if self.trained else {})


def measure(cells: CellSet, encoder: Encoder, *, grey: Range | None = None, progress: bool = False) -> pd.DataFrame:
    """Features of cells as a profile table, one row a cell; of the cell count one row a well.

    Parameters
    ----------
    cells : CellSet
    encoder : Encoder
    grey : range of grey values of imagenet, where the cells are some of many, see `features.transferred.grey_range`
    progress : show a progress bar

    Raises
    ------
    CellbookError : as the encoder; if the device is not there; if the weights of a trained model are not found.
    """
    name, seed, device = encoder.name, encoder.seed, choose_device(encoder.device)
    if encoder.trained:
        return models.encode(*encoder.model(), cells, device)
    if name == "cell-count":
        return features.cell_count(cells)
    if name == "classical":
        return features.classical(cells, progress=progress, device=device)
    if name == "imagenet":
        how = {"controls": encoder.controls, "seed": seed, "progress": progress}
        return features.imagenet(cells, device=device, grey=grey, **how)
    if name == "pixel-pca":
        return features.pixel_pca(cells, n=encoder.components, seed=seed, device=device)
    return features.random_network(cells, seed=seed, device=device)
