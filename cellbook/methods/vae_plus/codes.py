"""What a trained model is used for: codes of cells, images of codes, and walks from one cell to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.training import State
from cellbook.training import codes as trained


def encode(state: State, cells: CellSet) -> np.ndarray:
    """Codes mu of cells, (N, 256) float32, batch norm in inference mode; cells need not fit the device."""
    encoder = state.networks["encoder"]
    return trained.encode(state, cells, lambda x: encoder(x)[0], state.config.latent)


def decode(state: State, codes: np.ndarray) -> np.ndarray:
    """Images of codes, (N, 256) -> (N, c, 68, 68) float32; not clipped: clip to [0, 1] to show them."""
    z = torch.as_tensor(np.asarray(codes, dtype=np.float32))
    if z.ndim != 2 or z.shape[1] != state.config.latent:
        raise CellbookError(f"codes have shape {tuple(z.shape)}: give rows of {state.config.latent} numbers")
    if len(z) == 0:
        raise CellbookError("codes has no rows: give at least one")
    decoder = state.networks["decoder"]
    return trained.decode(state, z, lambda part: decoder(part)[0])


def reconstruct(state: State, cells: CellSet) -> np.ndarray:
    """Reconstructions of cells from their mu, without noise: (N, c, 68, 68) float32, not clipped."""
    return decode(state, encode(state, cells))


def sample_prior(state: State, n: int, seed: int = 0) -> np.ndarray:
    """Images decoded from `n` codes of N(0, I): (n, c, 68, 68) float32, not clipped."""
    return decode(state, np.random.default_rng(seed).standard_normal((n, state.config.latent)))


def nearest_to_mean(codes: np.ndarray) -> int:
    """Row of the cell whose code is closest to the mean code: the paper's target cell of a treatment.

    Open: the distance; here Euclidean.
    """
    codes = np.asarray(codes, dtype=np.float64)
    return int(np.square(codes - codes.mean(axis=0)).sum(axis=1).argmin())


@dataclass(frozen=True)
class Walk:
    """A path from one code to another: K codes on it, how many features each has taken over, and their images."""

    codes: np.ndarray  # (K, 256)
    changed: np.ndarray  # (K,) features that have the target's value
    similarity: np.ndarray  # (K,) cosine similarity to the target
    images: np.ndarray  # (K, c, 68, 68), not clipped


def walk(state: State, start: np.ndarray, target: np.ndarray, images: int = 9) -> Walk:
    """Path from the code `start` to the code `target`, (256,) each, that takes over features in the order of their gap.

    Figure 3 of the paper. Features are ranked by the size of their difference; the k-th image has the first n_k of the
    target's values. Open: how n_k grows; here so that cosine similarity to the target rises in equal parts.
    """
    z, goal = (np.asarray(code, dtype=np.float64).reshape(-1) for code in (start, target))
    d = state.config.latent
    if z.shape != (d,) or goal.shape != (d,) or images < 2:
        raise CellbookError(
            f"walk takes two codes of {d} numbers and at least 2 images, got {len(z)}, {len(goal)}, {images}"
        )
    place = np.argsort(np.argsort(-np.abs(goal - z), kind="stable"))  # rank of each feature
    path = np.where(place < np.arange(d + 1)[:, None], goal, z)  # (257, 256): row n has n features of the target
    length = np.linalg.norm(path, axis=1) * np.linalg.norm(goal)
    cosine = path @ goal / np.maximum(length, np.finfo(float).tiny)
    wanted = np.linspace(cosine[0], cosine[-1], images)
    chosen = np.searchsorted(np.maximum.accumulate(cosine), wanted - 1e-12).clip(max=d)
    chosen[0], chosen[-1] = 0, d
    return Walk(path[chosen], chosen, cosine[chosen], decode(state, path[chosen]))
