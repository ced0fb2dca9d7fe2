"""How good a reconstruction looks: error, structure, sharpness, distance in a frozen network, and being told apart.

Images are float arrays (N, C, H, W) in [0, 1], an original and its reconstruction in the same place. Everything is
measured cell by cell, so that an interval can resample compounds. No network here was ever trained: the usual ones need
a download and were trained on photographs, and the method's own discriminator would judge itself.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skimage.metrics import structural_similarity
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch.nn import functional as F

from cellbook.errors import CellbookError
from cellbook.features import frozen

Floats = NDArray[np.float64]
BLOCK = 256  # cells at a time
WIDTHS = (16, 32, 64)  # channels of the frozen network, whose layers halve the image each
ACTIVE = 0.01  # variance of a code's feature above which it carries anything (Burda et al. 2016)


def mse(x: ArrayLike, x_hat: ArrayLike) -> Floats:
    """Compute the mean squared error of each channel of each cell, (N, C); lower is better, 0 for equal images."""
    a, b = _pair(x, x_hat)
    return np.asarray(((a - b).astype(np.float64) ** 2).mean(axis=(2, 3)))


def ssim(x: ArrayLike, x_hat: ArrayLike, data_range: float = 1.0) -> Floats:
    """Compute the structural similarity of each channel of each cell, (N, C); higher is better, 1 for equal images.

    Gaussian window with a standard deviation of 1.5 pixels (Wang et al. 2004), the average over places where the whole
    window fits. `data_range` is the span that the grey values could have, not the one that they have; black background
    counts and raises the value.

    Raises
    ------
    CellbookError
        If the shapes differ, values are not finite, or `data_range` is not positive.
    """
    if not 0 < data_range < float("inf"):
        raise CellbookError(f"data_range={data_range} must be a positive number: 1 for images in [0, 1]")
    a, b = (image.astype(np.float64) for image in _pair(x, x_hat))
    found = np.empty(a.shape[:2])
    for place in np.ndindex(found.shape):
        found[place] = structural_similarity(  # type: ignore[no-untyped-call]
            a[place], b[place], gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=data_range
        )
    return found


def top_octave(x: ArrayLike) -> Floats:
    """Compute the power of each channel of each cell in the top octave, (N, C): structures of two to four pixels.

    Between half the highest frequency of an axis and that frequency, whatever the direction. The mean is taken off and
    a Hann window laid on first, so that borders of the crop do not count as detail.
    """
    a = _images("x", x)
    height, width = a.shape[2:]
    window = np.hanning(height)[:, None] * np.hanning(width)
    centred = a - a.mean(axis=(2, 3), keepdims=True)
    power = np.abs(np.fft.rfft2(centred * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    # A real transform keeps half of the plane: columns strictly between 0 and the highest frequency stand for two.
    count = np.where((np.fft.rfftfreq(width) == 0) | (np.fft.rfftfreq(width) == 0.5), 1.0, 2.0)
    band = ((frequency >= 0.25) & (frequency <= 0.5)) * count
    return np.asarray((power * band).sum(axis=(2, 3)) / band.sum())


def spectral_sharpness(x: ArrayLike, x_hat: ArrayLike) -> Floats:
    """Compute how much of an original's fine detail its reconstruction has, (N, C).

    Power of the reconstruction over power of the original in the top octave. 1 is as sharp as the original, 0 has
    nothing fine, above 1 is sharper or noisier. Camera noise lies in the same octave, so that a perfect reconstruction
    of what is under the noise stays below 1. NaN where the original is flat.
    """
    a, b = _pair(x, x_hat)
    below = top_octave(a)
    return np.asarray(np.divide(top_octave(b), below, out=np.full_like(below, np.nan), where=below > 0))


def frozen_features(x: ArrayLike, seed: int = 0) -> list[NDArray[np.float32]]:
    """Maps of a small convolutional network with random weights, layer by layer: (N, 16, H/2, W/2) to (N, 64, ...)."""
    a = torch.from_numpy(_images("x", x))
    weights = frozen.kernels((a.shape[1], *WIDTHS), seed)
    blocks = [[layer.numpy() for layer in frozen.layers(block, weights)] for block in torch.split(a, BLOCK)]
    return [np.concatenate(layer) for layer in zip(*blocks, strict=True)]


def feature_distance(x: ArrayLike, x_hat: ArrayLike, seed: int = 0) -> Floats:
    """Compute the distance of each cell to its reconstruction in a frozen random network, (N,); lower is better.

    At every place of every layer the features are scaled to unit length; squared differences are summed over features,
    averaged over places and summed over layers: between 0 and 4 a layer. The form is that of LPIPS (Zhang et al. 2018),
    the weights are not, so it is not comparable with LPIPS.
    """
    a, b = (torch.from_numpy(image) for image in _pair(x, x_hat))
    weights = frozen.kernels((a.shape[1], *WIDTHS), seed)
    found = []
    for one, two in zip(torch.split(a, BLOCK), torch.split(b, BLOCK), strict=True):
        total = torch.zeros(len(one), dtype=torch.float64)
        for p, q in zip(frozen.layers(one, weights), frozen.layers(two, weights), strict=True):
            total += (F.normalize(p, dim=1) - F.normalize(q, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
        found.append(total)
    return np.asarray(torch.cat(found).numpy())


def two_sample(x: ArrayLike, x_hat: ArrayLike, folds: int = 5, seed: int = 0) -> NDArray[np.bool_]:
    """Measure whether logistic regression on frozen random features tells originals from reconstructions.

    A cell and its reconstruction are always in the same fold. Features are the mean and the standard deviation over
    places of every map, and the logarithm of the power in the top octave.

    Returns
    -------
    bool (2, N)
        Whether each original (row 0) and each reconstruction (row 1) is told right. 0.5 is chance, lower is better for
        the model; reconstructions taken for originals are what the paper asked biologists for.

    Raises
    ------
    CellbookError
        With fewer cells than folds, shapes that differ, or values that are not finite.
    """
    a, b = _pair(x, x_hat)
    n = len(a)
    if not 2 <= folds <= n:
        raise CellbookError(f"folds={folds} for {n} cells: use from 2 to as many as there are cells")
    features = np.concatenate([_pooled(a, seed), _pooled(b, seed)])
    made = np.repeat([0, 1], n)
    cell = np.random.default_rng(seed).permutation(n)
    guess = np.empty(2 * n, dtype=int)
    with threadpool_limits(1, user_api="blas"):
        for train, test in GroupKFold(folds).split(features, groups=np.tile(cell, 2)):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
            guess[test] = model.fit(features[train], made[train]).predict(features[test])
    return np.asarray((guess == made).reshape(2, n))


def kl_nats(mu: ArrayLike, logvar: ArrayLike) -> Floats:
    """Compute the rate of each code, (N,): divergence of N(mu, exp(logvar)) from N(0, I) in nats, (N, d) each."""
    m, v = np.asarray(mu, dtype=np.float64), np.asarray(logvar, dtype=np.float64)
    if m.shape != v.shape or m.ndim != 2:
        raise CellbookError(f"mu and logvar have shapes {m.shape} and {v.shape}: give two alike, one row a cell")
    return np.asarray(0.5 * (np.exp(v) + m**2 - 1 - v).sum(axis=1))


def active_units(mu: ArrayLike) -> int:
    """Count the features of a code, (N, d), whose mean varies over cells by more than 0.01 (variance)."""
    return int((np.asarray(mu, dtype=np.float64).var(axis=0) > ACTIVE).sum())


def _pooled(x: NDArray[np.float32], seed: int) -> Floats:
    """Features of each image for the classifier, (N, d)."""
    maps = frozen_features(x, seed)
    parts = [part for layer in maps for part in (layer.mean(axis=(2, 3)), layer.std(axis=(2, 3)))]
    return np.concatenate([*parts, np.log(top_octave(x) + 1e-12)], axis=1).astype(np.float64)


def _images(name: str, x: ArrayLike) -> NDArray[np.float32]:
    a = np.ascontiguousarray(x, dtype=np.float32)
    if a.ndim != 4 or not a.size:
        raise CellbookError(
            f"{name} has shape {a.shape}: give images as (cells, channels, height, width), at least one"
        )
    bad = ~np.isfinite(a).all(axis=(1, 2, 3))
    if bad.any():
        raise CellbookError(f"{name} holds NaN or infinity in {int(bad.sum())} of {len(a)} images: leave them out")
    return a


def _pair(x: ArrayLike, x_hat: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    a, b = _images("x", x), _images("x_hat", x_hat)
    if a.shape != b.shape:
        raise CellbookError(f"x and x_hat have shapes {a.shape} and {b.shape}: give each cell and its reconstruction")
    return a, b
