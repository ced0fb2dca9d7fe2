"""A realism test for cells drawn of noise: half real cells, half samples of LSGAN, for a reader to judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.methods import cytogan
from cellbook.pages.goldsborough2017.config import LSGAN, Config, papers_views, trainings, views
from cellbook.pages.goldsborough2017.drawn import scaled
from cellbook.pages.goldsborough2017.making import load
from cellbook.profiles.aggregate import TREATMENT
from cellbook.study import realism
from cellbook.study.pictures import normalised
from cellbook.study.trainings import Place
from cellbook.training import State

PUBLISHED = 0.30  # share of samples of LSGAN that three biologists took for real


def sheet(cells: CellSet, state: State, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Real cells, as many of every mechanism as there are, and as many samples, none chosen; see `realism.sheet`."""
    real = realism.choose(cells.table, seed)[0]
    noise = cytogan.noise(state, len(real), seed)
    made = scaled(cytogan.decode(state, noise).clip(0, 1))
    nobody = pd.DataFrame({TREATMENT[0]: [LSGAN] * len(made), TREATMENT[1]: np.nan})
    treatments = pd.concat([cells.table.loc[real, TREATMENT], nobody], ignore_index=True)
    return realism.sheet(normalised(cells.select(real)), made, treatments, seed)


def write_page(config: Config, store: str | Path, folder: str | Path) -> None:
    """Put cells where the interactive page looks for them (``book/_static/realism/samples``).

    Parameters
    ----------
    config : Config of the page; its first LSGAN draws, and is trained if the store has it not
    store : folder of the runs
    folder : where ``cells.png`` and ``cells.js`` go
    """
    cells = load(config, store)
    first = next(one for one in trainings(config) if one.variant == LSGAN)
    place = Place(store, "auto")
    run = place.of(first, cells)
    told = realism.Told(
        run.key,
        Path(config.screen).name,
        "drawn by LSGAN of noise",
        f"The model: shown {views(config, 'lsgan'):,} cells; the paper's: {papers_views('lsgan'):,}.",
        PUBLISHED,
        "three biologists in the paper",
    )
    realism.write(folder, *sheet(cells, place.state(first, cells), config.seed), told)
