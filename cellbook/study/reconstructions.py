"""Reconstructions beside their originals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cellbook.metrics import images

MISFIT = "misfit of sharpness"  # octaves between the power of fine detail in reconstruction and original


def beside_originals(
    table: pd.DataFrame, channels: Sequence[str], x: np.ndarray, x_hat: np.ndarray, seed: int
) -> pd.DataFrame:
    """Quality of the reconstructions of some cells, one row a cell.

    Parameters
    ----------
    table : DataFrame (N), of the cells
    channels : names, (C,)
    x, x_hat : float (N, C, H, W) in [0, 1], originals and reconstructions
    seed : of the classifier that tells them apart

    Returns
    -------
    DataFrame
        compound; MSE, SSIM and sharpness by channel and their means, misfit of sharpness, feature distance (see
        `metrics.images`); told apart: how often a classifier is right of the pair (0.5 is chance, lower is better), and
        of either side.
    """
    rows = table[["Metadata_compound"]].rename(columns={"Metadata_compound": "compound"})
    sharpness = images.spectral_sharpness(x, x_hat)
    for name, values in {"MSE": images.mse(x, x_hat), "SSIM": images.ssim(x, x_hat), "sharpness": sharpness}.items():
        for channel, column in zip(channels, values.T, strict=True):
            rows[f"{name}, {channel}"] = column.astype(np.float32)
        rows[name] = np.nanmean(values, axis=1).astype(np.float32)
    # A grid of artefacts has power, too: how far from the original's, up or down, tells it from detail.
    octaves = np.abs(np.log2(np.maximum(sharpness, 2.0**-20)))
    rows[MISFIT] = np.nanmean(octaves, axis=1).astype(np.float32)
    rows["feature distance"] = images.feature_distance(x, x_hat).astype(np.float32)
    original, made = images.two_sample(x, x_hat, seed=seed)
    rows["told apart"] = np.mean([original, made], axis=0).astype(np.float32)
    rows["made, taken for real"] = (~made).astype(np.float32)
    rows["real, taken for made"] = (~original).astype(np.float32)
    return rows
