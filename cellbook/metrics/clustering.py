"""Whether profiles of one mechanism lie together, compared with the next mechanism."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import silhouette_samples

from cellbook.errors import CellbookError
from cellbook.metrics.moa import check_distances
from cellbook.metrics.neighbours import Distance, Floats, complete, distance_matrix
from cellbook.profiles.table import check_finite


def silhouettes(
    profiles: pd.DataFrame,
    label: str = "Metadata_moa",
    *,
    distance: Distance = "cosine",
    distances: ArrayLike | None = None,
) -> Floats:
    """Compute the silhouette of the label of each row (Tabak et al. 2020 report the mean, with cosine distance).

    s = (b - a) / max(a, b), a the mean distance to the other rows with the same label, b the smallest mean distance to
    another label. Rows that share compound or batch are not excluded, so that doses of one compound raise it.

    Parameters
    ----------
    profiles : DataFrame (n rows)
        Treatments without controls: metadata and features.
    label : str
    distance : {"cosine", "euclidean"}
    distances : float (n, n), optional
        Replaces the features.

    Returns
    -------
    float64 (n,)
        -1 to 1, higher is better, about 0 or below by chance. A row alone with its label counts as 0.

    Raises
    ------
    CellbookError
        On missing labels, a single label, or as many labels as rows.
    """
    complete(profiles, [label])
    n = len(profiles)
    labels = profiles[label].astype(str).to_numpy(dtype=str)
    kinds = len(np.unique(labels))
    if not 2 <= kinds < n:
        raise CellbookError(
            f"{label} has {kinds} different values in {n} rows; a silhouette needs at least two, and fewer than rows."
        )
    given = distances if distances is not None else distance_matrix(check_finite(profiles), distance)
    d = check_distances(given, n).copy()
    np.fill_diagonal(d, 0.0)  # a row of zeros has cosine distance 1 to itself as well
    return np.asarray(silhouette_samples(d, labels, metric="precomputed"), dtype=np.float64)
