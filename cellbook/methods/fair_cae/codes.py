"""What a trained model is used for: codes of cells and images of codes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods.fair_cae.objective import chance, readings
from cellbook.training import State
from cellbook.training import codes as trained

LOOKED_AT = 2048  # cells by which an adversary is judged in the end


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


def finish(state: State, cells: CellSet, folder: Path) -> None:
    """Warn of an adversary that answers far worse than at random; there are no products beyond codes.

    The game has no lower bound: codes that run away from an adversary raise its loss and may be read by another.
    """
    if "adversary" not in state.networks:
        return
    chosen = np.linspace(0, len(cells) - 1, min(len(cells), LOOKED_AT)).astype(np.int64)
    rows = torch.from_numpy(chosen).to(state.device)
    with torch.no_grad():
        z = torch.from_numpy(encode(state, cells.select(chosen))).to(state.device)
        loss = readings(state, z, rows)["adversary"].item()
        floor = chance(state.labels["expected"][rows], state.labels["confounder"][rows]).item()
    if loss > floor + 1:
        warnings.warn(
            f"with lam={state.config.lam} the adversary's loss is {loss:.4g}, {floor:.4g} being chance: the codes ran "
            f"away from it, and {state.config.confounder} may still be in them; lower lam or give it more updates",
            stacklevel=2,
        )
