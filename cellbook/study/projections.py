"""Treatments in the plane."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellbook import profiles


def project(units: pd.DataFrame, seed: int, perplexity: float = 10, **about: object) -> pd.DataFrame:
    """PCA and t-SNE coordinates of treatments: method, what `about` says, x, y, and which treatment it is."""
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    x = profiles.matrix(units)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)  # so that Euclidean neighbours are cosine neighbours
    tsne = TSNE(perplexity=perplexity, initialization="pca", random_state=seed, n_jobs=1).fit(x)
    points = {"PCA": PCA(2, svd_solver="full").fit_transform(x), "t-SNE": np.asarray(tsne)}
    which = {name: units[f"Metadata_{name}"] for name in ("moa", "batch", "compound", "concentration")}
    found = [
        pd.DataFrame({"method": method, **about, "x": xy[:, 0], "y": xy[:, 1], **which})
        for method, xy in points.items()
    ]
    return pd.concat(found, ignore_index=True)
