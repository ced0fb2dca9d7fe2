"""What is done with the trained networks of any method: codes of cells and images of codes, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellbook.cells import CellSet
from cellbook.pixels import channel_max
from cellbook.runs import save_table
from cellbook.training.state import State

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


def finish(cells: CellSet, codes: np.ndarray, folder: Path) -> None:
    """Write the codes of all cells, where a study looks for them: ``embeddings.parquet``, as of `code_table`."""
    save_table(code_table(cells, codes), folder / "embeddings.parquet")
