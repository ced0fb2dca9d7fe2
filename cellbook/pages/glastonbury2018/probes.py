"""Whether the week can be read from codes of single cells: by new readers on plates held out, and by the game's own."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cellbook import profiles
from cellbook.pages.glastonbury2018.config import Config
from cellbook.screens.named import is_positive

LINEAR, NEW, OWN = "linear", "new network", "the game's adversary"
ALL, NEGATIVE, POSITIVE = "all cells", "DMSO", "positive control"


def kinds(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Which rows are of which kind of cells or wells; controls are the same in all weeks."""
    return {
        ALL: np.ones(len(table), dtype=bool),
        NEGATIVE: (table["Metadata_compound"] == "DMSO").to_numpy(),
        POSITIVE: is_positive(table),
    }


@threadpool_limits.wrap(1, user_api="blas")
def read_weeks(codes: pd.DataFrame, own: np.ndarray | None, config: Config, seed: int) -> pd.DataFrame:
    """How often the week of a cell is named, one row a kind of cells, reader and plate; all weeks are equally likely.

    They are to the adversary, which would else lose to whoever names the largest week.

    Parameters
    ----------
    codes : (cells), of which as many are drawn of each week, for each kind of cells
    own : (cells,), the week that the game's adversary, if there is one, names; it has learned from all of these cells
    config, seed : sizes, and what is random

    Returns
    -------
    DataFrame
        cells, reader, plate, correct, counted (cells), null (one in as many as there are weeks). Weeks with fewer
        plates than folds are left out, and kinds of cells with less than two weeks.
    """
    found = []
    for kind, mask in kinds(codes).items():
        part = codes[mask] if own is None else codes[mask].assign(own=own[mask])
        plates = part.groupby("Metadata_batch")["Metadata_plate"].nunique()
        part = part[part["Metadata_batch"].isin(plates.index[plates >= config.probe_folds])]
        counts = part["Metadata_batch"].value_counts()
        if len(counts) < 2:
            continue
        part = part.groupby("Metadata_batch").sample(min(counts.min(), config.probed // len(counts)), random_state=seed)
        week, plate = (part[f"Metadata_{name}"].to_numpy(dtype=str) for name in ("batch", "plate"))
        named = ({} if own is None else {OWN: part.pop("own").to_numpy()}) | _held_out(
            profiles.matrix(part).astype(np.float32), week, plate, config, seed
        )
        for reader, answers in named.items():
            right = pd.DataFrame({"plate": plate, "correct": answers == week, "counted": 1}).groupby("plate").sum()
            found.append(right.reset_index().assign(cells=kind, reader=reader, null=1 / len(counts)))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _held_out(x: np.ndarray, week: np.ndarray, plate: np.ndarray, config: Config, seed: int) -> dict[str, np.ndarray]:
    """Weeks that new readers name on plates that they have not seen; the network is of the adversary's size."""
    readers = {
        LINEAR: LogisticRegression(),
        NEW: MLPClassifier(config.hidden, max_iter=config.probe_epochs, random_state=seed),
    }
    folds = StratifiedGroupKFold(config.probe_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {
            name: cross_val_predict(make_pipeline(StandardScaler(), reader), x, week, groups=plate, cv=folds)
            for name, reader in readers.items()
        }
