"""The realism test of the book: half original and half reconstructed cells, for a reader to judge.

`write_page` draws them with the first VAE+ of a configuration, as one picture and a script with the answers, where the
interactive page finds them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.files import write_atomically, write_text
from cellbook.methods import vae_plus
from cellbook.pages.lafarge2019.config import Config, trainings
from cellbook.pages.lafarge2019.making import load
from cellbook.profiles.aggregate import TREATMENT
from cellbook.runs import Run
from cellbook.study.pictures import colours, normalised
from cellbook.study.trainings import Place
from cellbook.training import State

HALF = 50  # cells of each kind, as in the paper
ACROSS = 10  # cells in a row of the picture
PUBLISHED = 0.407  # share of VAE+ reconstructions that three biologists took for real


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


def sheet(cells: CellSet, state: State, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Shuffled cells in rows of ten, (H, W, 3) uint8, and a table with the column made and the treatment of each."""
    real, made = choose(cells.table, seed)
    drawn = vae_plus.reconstruct(state, cells.select(made)).clip(0, 1)
    # As bright as the originals, channel by channel, so that brightness gives nothing away.
    drawn = drawn / np.maximum(drawn.max(axis=(2, 3), keepdims=True), 1e-6)
    images = np.concatenate([colours(normalised(cells.select(real))), colours(drawn)])
    order = np.random.default_rng(seed).permutation(len(images))
    table = cells.table.loc[np.concatenate([real, made])[order], TREATMENT].reset_index(drop=True)
    table.insert(0, "made", order >= len(real))
    shown = images[order]
    missing = -len(shown) % ACROSS
    shown = np.concatenate([shown, np.zeros((missing, *shown.shape[1:]), np.uint8)])
    side = shown.shape[1]
    return shown.reshape(-1, ACROSS, side, side, 3).swapaxes(1, 2).reshape(-1, ACROSS * side, 3), table


def script(table: pd.DataFrame, run: Run, screen: str, side: int) -> str:
    """The answers and where they come from, as a script: a page opened from a file may load no JSON."""
    content = {
        "run": run.key,
        "screen": screen,
        "iterations": run.record["config"]["iterations"],
        "width": run.record["config"]["width"],
        "side": side,
        "across": ACROSS,
        "published": PUBLISHED,
        "made": table["made"].astype(int).tolist(),
        "treatment": [
            name if name == "DMSO" else f"{name} {dose:g} µM"
            for name, dose in table[TREATMENT].itertuples(index=False, name=None)
        ],
    }
    return f"window.REALISM = {json.dumps(content, ensure_ascii=False, indent=1)};\n"


def write_page(config: Config, store: str | Path, folder: str | Path) -> None:
    """Put cells where the interactive page looks for them (``book/_static/realism``).

    Parameters
    ----------
    config : Config of the page; its first VAE+ draws, and is trained if the store has it not
    store : folder of the runs
    folder : where ``cells.png`` and ``cells.js`` go
    """
    from PIL import Image

    cells = load(config, store)
    first = next(one for one in trainings(config) if one.variant == "VAE+")
    place = Place(store, "auto")
    run = place.of(first, cells)
    picture, table = sheet(cells, place.state(first, cells), config.seed)
    folder = Path(folder)
    write_atomically(
        folder / "cells.png", lambda path: Image.fromarray(picture).save(path, format="PNG", optimize=True)
    )
    answers = script(table, run, Path(config.screen).name, picture.shape[1] // ACROSS)
    write_text(folder / "cells.js", answers)
