"""Pictures of a run as small integers, without a micrograph among them.

Of an original only its row in the table of cells is kept, and `with_originals` puts the crop there when a figure is
drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cellbook.cells import CellSet
from cellbook.files import write_atomically
from cellbook.pixels import channel_max
from cellbook.profiles.aggregate import TREATMENT
from cellbook.runs import Run

FILE = "pictures.webp"
ACROSS = 8  # pictures in a row of the file
MADE = -1  # instead of a row in the table of cells: a picture that a model drew


def normalised(cells: CellSet) -> np.ndarray:
    """Crops as the networks see them, (N, C, H, W) float32: each channel divided by its own maximum."""
    return channel_max(torch.from_numpy(np.array(cells.images))).numpy()


def colours(images: np.ndarray) -> np.ndarray:
    """First three channels as red, green and blue, (N, C, H, W) in [0, 1] -> (N, H, W, 3) uint8; clipped."""
    shown = images[:, :3]
    padded = np.pad(shown, [(0, 0), (0, 3 - shown.shape[1]), (0, 0), (0, 0)])
    return np.round(255 * padded.clip(0, 1)).astype(np.uint8).transpose(0, 2, 3, 1)


def treatment(table: pd.DataFrame, row: int) -> str:
    """Short name of a cell's treatment."""
    compound, concentration = table.loc[row, TREATMENT]
    return "DMSO" if compound == "DMSO" else f"{compound} {concentration:g}"


@dataclass
class Album:
    """Pictures with their places: figure, row and column, labels, and what is printed under each."""

    size: tuple[int, int]  # pixels of a crop
    images: list[np.ndarray] = field(default_factory=list)
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, figure: str, row: str, column: str, image: np.ndarray, text: str = "") -> None:
        """Put one image (C, H, W) into a figure."""
        self.images.append(colours(image[None])[0])
        self.rows.append({"figure": figure, "row": row, "column": column, "text": text, "cell": MADE})

    def keep_place(self, figure: str, row: str, column: str, cell: int) -> None:
        """Leave room for an original, by its row in the table of cells."""
        self.images.append(np.zeros((*self.size, 3), np.uint8))
        self.rows.append({"figure": figure, "row": row, "column": column, "text": "", "cell": int(cell)})

    @property
    def table(self) -> pd.DataFrame:
        """One row a picture, in the order of the images."""
        return pd.DataFrame(self.rows)

    def save(self, folder: Path) -> None:
        """Write the images beside the table, which is the study's to write."""
        save(np.stack(self.images), folder / FILE)


def save(images: np.ndarray, path: Path) -> None:
    """Write images, (n, H, W, 3) uint8, as one, without loss: in rows of `ACROSS`, the last filled up with black."""
    filled = np.pad(images, [(0, -len(images) % ACROSS), (0, 0), (0, 0), (0, 0)])
    _, height, width, _ = images.shape
    rows = filled.reshape(-1, ACROSS, height, width, 3).swapaxes(1, 2).reshape(-1, ACROSS * width, 3)
    write_atomically(path, lambda temporary: Image.fromarray(rows).save(temporary, lossless=True, method=6))


def load(path: Path, n: int) -> np.ndarray:
    """The first `n` images of a file that `save` wrote, (n, H, W, 3) uint8."""
    with Image.open(path) as kept:
        rows = np.array(kept.convert("RGB"))
    down = -(-n // ACROSS)
    images = rows.reshape(down, len(rows) // down, ACROSS, -1, 3).swapaxes(1, 2)
    return images.reshape(down * ACROSS, *images.shape[2:])[:n]


def with_originals(run: Run, cells: CellSet) -> tuple[pd.DataFrame, np.ndarray]:
    """The pictures of a run with the originals in their places: table, and (n, H, W, 3) uint8 in its order."""
    table = run.table("pictures")
    stack = load(run.path(FILE), len(table))
    places = np.flatnonzero(table["cell"] != MADE)
    rows, position = np.unique(table["cell"].to_numpy()[places], return_inverse=True)
    if len(rows):
        stack[places] = colours(normalised(cells.select(rows)))[position]
    return table, stack
