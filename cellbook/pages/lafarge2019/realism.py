"""The realism test of the book: half original and half reconstructed cells, for a reader to judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.methods import vae_plus
from cellbook.pages.lafarge2019.config import Config, trainings
from cellbook.pages.lafarge2019.making import load
from cellbook.profiles.aggregate import TREATMENT
from cellbook.study import realism
from cellbook.study.pictures import normalised
from cellbook.study.trainings import Place
from cellbook.training import State

PUBLISHED = 0.407  # share of VAE+ reconstructions that three biologists took for real


def sheet(cells: CellSet, state: State, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Originals and reconstructions of other cells, of the same mechanisms; see `realism.sheet`."""
    real, made = realism.choose(cells.table, seed)
    drawn = vae_plus.reconstruct(state, cells.select(made)).clip(0, 1)
    treatments = cells.table.loc[np.concatenate([real, made]), TREATMENT]
    return realism.sheet(normalised(cells.select(real)), drawn, treatments, seed)


def write_page(config: Config, store: str | Path, folder: str | Path) -> None:
    """Put cells where the interactive page looks for them (``book/_static/realism``).

    Parameters
    ----------
    config : Config of the page; its first VAE+ draws, and is trained if the store has it not
    store : folder of the runs
    folder : where ``cells.png`` and ``cells.js`` go
    """
    cells = load(config, store)
    first = next(one for one in trainings(config) if one.variant == "VAE+")
    place = Place(store, "auto")
    run = place.of(first, cells)
    trained = run.record["config"]
    told = realism.Told(
        run.key,
        Path(config.screen).name,
        "drawn by VAE+ from a code",
        f"The model: {trained['iterations']:,} iterations, {trained['width']} channels a layer; "
        "the paper's: 40,000 and 32.",
        PUBLISHED,
        "three biologists in the paper",
    )
    realism.write(folder, *sheet(cells, place.state(first, cells), config.seed), told)
