"""What a trained model is used for: codes of cells, images of codes, and walks from one cell to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.files import write_atomically
from cellbook.pixels import channel_max
from cellbook.runs import save_table
from cellbook.training import State, treatment_codes

BLOCK = 256  # cells at a time


@contextmanager
def _inference(state: State) -> Iterator[None]:
    """Batch norm by running moments, no gradients."""
    training = {network: network.training for network in state.networks.values()}
    try:
        with torch.no_grad():
            for network in training:
                network.eval()
            yield
    finally:
        for network, was in training.items():
            network.train(was)


def encode(state: State, cells: CellSet) -> np.ndarray:
    """Codes mu of cells, (N, 256) float32, batch norm in inference mode; cells need not fit the device."""
    codes = [np.empty((0, state.config.latent), np.float32)]
    with _inference(state):
        for start in range(0, len(cells), BLOCK):
            images = torch.from_numpy(np.array(cells.images[start : start + BLOCK])).to(state.device)
            codes.append(state.networks["encoder"](channel_max(images))[0].cpu().numpy())
    return np.concatenate(codes)


def decode(state: State, codes: np.ndarray) -> np.ndarray:
    """Images of codes, (N, 256) -> (N, c, 68, 68) float32; not clipped: clip to [0, 1] to show them."""
    z = torch.as_tensor(np.asarray(codes, dtype=np.float32))
    if z.ndim != 2 or z.shape[1] != state.config.latent:
        raise CellbookError(f"codes have shape {tuple(z.shape)}: give rows of {state.config.latent} numbers")
    if len(z) == 0:
        raise CellbookError("codes has no rows: give at least one")
    with _inference(state):
        images = [state.networks["decoder"](part.to(state.device)).cpu().numpy() for part in z.split(BLOCK)]
    return np.concatenate(images)


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


def finish(state: State, cells: CellSet, folder: Path) -> None:
    """Write the products of a training: codes of all cells, and one cell of every treatment with its reconstruction.

    ``embeddings.parquet`` is a profile table of cells (features z0 to z255); ``examples.npz`` holds row numbers and
    images, original and reconstructed, as uint8.
    """
    codes = pd.DataFrame(encode(state, cells), columns=[f"z{i}" for i in range(state.config.latent)])
    known = [name for name in cells.table.columns if name.startswith("Metadata_")]
    save_table(pd.concat([cells.table[known], codes], axis=1), folder / "embeddings.parquet")
    order = np.random.default_rng(state.config.seed).permutation(len(cells))
    rows = np.sort(order[np.unique(treatment_codes(cells.table)[order], return_index=True)[1]])
    chosen = cells.select(rows)
    original = channel_max(torch.from_numpy(np.array(chosen.images))).numpy()
    shown = {"original": original, "reconstruction": reconstruct(state, chosen)}
    grey = {name: (values.clip(0, 1) * 255).round().astype(np.uint8) for name, values in shown.items()}

    def write(path: Path) -> None:
        np.savez_compressed(path, rows=rows, **grey)

    write_atomically(folder / "examples.npz", write)
