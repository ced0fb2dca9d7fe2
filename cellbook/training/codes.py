"""What is done with the trained networks of any method: codes of cells, a few at a time, and the products they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellbook.cells import CellSet
from cellbook.files import write_atomically
from cellbook.pixels import channel_max
from cellbook.runs import save_table
from cellbook.training.state import State, treatment_codes

BLOCK = 256  # cells at a time


@contextmanager
def inference(state: State) -> Iterator[None]:
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


def encode(state: State, cells: CellSet, code: Callable[[Tensor], Tensor], width: int) -> np.ndarray:
    """Codes of cells, (N, width) float32, by a function of a batch of images; cells need not fit the device."""
    codes = [np.empty((0, width), np.float32)]
    with inference(state):
        for start in range(0, len(cells), BLOCK):
            images = torch.from_numpy(np.array(cells.images[start : start + BLOCK])).to(state.device)
            codes.append(code(channel_max(images)).cpu().numpy())
    return np.concatenate(codes)


def decode(state: State, codes: Tensor, image: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Images of codes, (N, width) -> (N, c, H, W) float32, by a function of a batch of codes."""
    with inference(state):
        return np.concatenate([image(part.to(state.device)).cpu().numpy() for part in codes.split(BLOCK)])


def code_table(cells: CellSet, codes: np.ndarray) -> pd.DataFrame:
    """Codes as a profile table: metadata of the cells, then the features z0, z1, and so on."""
    return cells.feature_table(codes, [f"z{i}" for i in range(codes.shape[1])])


def finish(
    cells: CellSet, codes: np.ndarray, reconstruct: Callable[[CellSet], np.ndarray], folder: Path, seed: int
) -> None:
    """Write the products of a training: codes of all cells, and one cell of every treatment with its reconstruction.

    ``embeddings.parquet`` is the table of `code_table`; ``examples.npz`` holds row numbers and images, original and
    reconstructed, as uint8.
    """
    save_table(code_table(cells, codes), folder / "embeddings.parquet")
    order = np.random.default_rng(seed).permutation(len(cells))
    rows = np.sort(order[np.unique(treatment_codes(cells.table)[order], return_index=True)[1]])
    chosen = cells.select(rows)
    original = channel_max(torch.from_numpy(np.array(chosen.images))).numpy()
    shown = {"original": original, "reconstruction": reconstruct(chosen)}
    grey = {name: (values.clip(0, 1) * 255).round().astype(np.uint8) for name, values in shown.items()}

    def write(path: Path) -> None:
        np.savez_compressed(path, rows=rows, **grey)

    write_atomically(folder / "examples.npz", write)
