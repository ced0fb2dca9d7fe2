"""What a trained model is used for: codes of cells and images of codes."""

from __future__ import annotations

import numpy as np
import torch

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.training import State
from cellbook.training import codes as trained


def encode(state: State, cells: CellSet) -> np.ndarray:
    """Codes z of cells, (N, 2048) float32, as they leave the encoder; cells need not fit the device."""
    return trained.encode(state, cells, state.networks["encoder"], state.config.latent)


def decode(state: State, codes: np.ndarray) -> np.ndarray:
    """Images of codes, (N, 2048) -> (N, c, H, W) float32, between 0 and 1."""
    z = torch.as_tensor(np.asarray(codes, dtype=np.float32))
    if z.ndim != 2 or z.shape[1] != state.config.latent or len(z) == 0:
        raise CellbookError(
            f"codes have shape {tuple(z.shape)}: give one row or more of {state.config.latent} numbers each"
        )
    return trained.decode(state, z, state.networks["decoder"])


def reconstruct(state: State, cells: CellSet) -> np.ndarray:
    """Reconstructions of cells, (N, c, H, W) float32, between 0 and 1."""
    return decode(state, encode(state, cells))
