"""What all distances of a treatment are asked: its silhouette, the truth, and the same cells without weeks.

Every other question is about the nearest candidate alone, so that of the distances no more than those are kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform

from cellbook import metrics
from cellbook.metrics.neighbours import candidates
from cellbook.pages.comparison.config import RESTORED, SILHOUETTE, TARGETS, TRUTH
from cellbook.study.truth import rank_agreement

DIGITS = 4


def judged(distances: Mapping[str, np.ndarray], treatments: pd.DataFrame, true: np.ndarray | None) -> pd.DataFrame:
    """Silhouette and agreements of every treatment, by correction.

    Parameters
    ----------
    distances : condensed, between treatments, by correction; also those in the screen without weeks
    treatments : (n rows)
    true : (n, n) distances between the known changes of cells, where they are known

    Returns
    -------
    DataFrame : summary, measure, compound, value, a row a treatment, NaN where it cannot be asked
    """
    others, compounds = candidates(treatments), treatments["Metadata_compound"].to_numpy()
    squares = {summary: squareform(line) for summary, line in distances.items()}
    found = []
    for summary, square in squares.items():
        values = {SILHOUETTE: metrics.silhouettes(treatments, distances=square)}
        if true is not None:
            values[TRUTH] = rank_agreement(square, true, others)
        if (target := squares.get(TARGETS.get(summary, ""))) is not None:
            values[RESTORED] = rank_agreement(square, target, others)
        for measure, value in values.items():
            about = {"summary": summary, "measure": measure, "compound": compounds}
            found.append(pd.DataFrame(about | {"value": np.round(value, DIGITS)}))
    return pd.concat(found, ignore_index=True)
