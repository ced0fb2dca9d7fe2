"""A realism test that a reader takes in the browser: half real and half made cells, to be judged one by one.

A page chooses the cells and lets its model make the others; `write` puts them, as one picture and a script with the
answers, where the interactive page finds them (``book/_static/realism``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cellbook.files import write_atomically, write_text
from cellbook.profiles.aggregate import TREATMENT
from cellbook.study.pictures import colours

HALF = 50  # cells of each kind, as in the papers
ACROSS = 10  # cells in a row of the picture


class Told(NamedTuple):
    """What the reader is told of a test."""

    run: str  # key of the training
    screen: str
    how: str  # what made the cells
    size: str  # of the model beside the paper's, a sentence
    published: float  # share of made cells that the judges of the paper took for real
    judges: str  # who they were


def choose(table: pd.DataFrame, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of original and of reconstructed cells: as many of each, of the same mechanisms, no cell twice.

    Cells are dealt in pairs of one mechanism (DMSO is one of them), one of each pair to either side.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(table))
    shuffled = table.iloc[order].reset_index(drop=True)
    # Another treatment before a second cell of one, then one pair of every mechanism before a second of any.
    turn = shuffled.groupby(TREATMENT, dropna=False).cumcount()
    shuffled = shuffled.assign(row=order, turn=turn).sort_values("turn", kind="stable")
    shuffled["pair"] = shuffled.groupby("Metadata_moa").cumcount() // 2
    groups = shuffled.groupby(["pair", "Metadata_moa"])["row"].agg(list)
    pairs = np.array([generator.permutation(rows) for rows in groups if len(rows) == 2][:HALF])
    return pairs[:, 0], pairs[:, 1]


def sheet(
    real: np.ndarray, made: np.ndarray, treatments: pd.DataFrame, seed: int = 0
) -> tuple[np.ndarray, pd.DataFrame]:
    """Shuffled cells in rows of ten, and what each of them is.

    Parameters
    ----------
    real, made : float (n, C, H, W)
        In [0, 1]; every channel of a made cell is made as bright as it can be, which real ones are already, so that
        brightness gives nothing away.
    treatments : DataFrame (2 n)
        Of the real, then of the made cells; without a dose, the name of what made a cell.
    seed : int
        Of the order.

    Returns
    -------
    uint8 (H', W', 3)
    DataFrame (2 n)
        The treatments in the order of the picture, and the column made.
    """
    made = made / np.maximum(made.max(axis=(2, 3), keepdims=True), 1e-6)
    images = np.concatenate([colours(real), colours(made)])
    order = np.random.default_rng(seed).permutation(len(images))
    table = treatments.iloc[order].reset_index(drop=True)
    table.insert(0, "made", order >= len(real))
    shown = images[order]
    missing = -len(shown) % ACROSS
    shown = np.concatenate([shown, np.zeros((missing, *shown.shape[1:]), np.uint8)])
    side = shown.shape[1]
    return shown.reshape(-1, ACROSS, side, side, 3).swapaxes(1, 2).reshape(-1, ACROSS * side, 3), table


def script(table: pd.DataFrame, told: Told, side: int) -> str:
    """The answers and where they come from, as a script: a page opened from a file may load no JSON."""
    names = table[TREATMENT].itertuples(index=False, name=None)
    content = {
        **told._asdict(),
        "side": side,
        "across": ACROSS,
        "made": table["made"].astype(int).tolist(),
        "treatment": [f"{name} {dose:g} µM" if dose > 0 else name for name, dose in names],
    }
    return f"window.REALISM = {json.dumps(content, ensure_ascii=False, indent=1)};\n"


def write(folder: str | Path, picture: np.ndarray, table: pd.DataFrame, told: Told) -> None:
    """Write ``cells.png`` and ``cells.js`` of a test into a folder, which is made if it is not there."""
    from PIL import Image

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(
        folder / "cells.png", lambda path: Image.fromarray(picture).save(path, format="PNG", optimize=True)
    )
    write_text(folder / "cells.js", script(table, told, picture.shape[1] // ACROSS))
