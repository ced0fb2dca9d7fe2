"""Whether a trained model draws one cell again and again."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from cellbook.cells import CellSet
from cellbook.methods.cytogan.codes import noise
from cellbook.methods.cytogan.config import AUTOENCODERS
from cellbook.methods.cytogan.objective import told
from cellbook.metrics.images import frozen_features
from cellbook.metrics.samples import near_duplicates
from cellbook.pixels import channel_max
from cellbook.training import State
from cellbook.training.codes import inference

SAMPLES = 256
QUANTILE = 0.05  # of the distances between real neighbours: the share that real cells have
COLLAPSED = 0.5  # share from which it is said

log = logging.getLogger(__name__)


def finish(state: State, cells: CellSet, folder: Path) -> None:
    """Warn of a generator that has collapsed; nothing is written."""
    if state.config.model == "ae" or len(cells) < 2:
        return
    share = duplicates(state, cells)
    if share >= COLLAPSED:
        log.warning(
            "%s has collapsed: of %d samples %.0f %% are nearer to another than all but %.0f %% of real cells are",
            state.config.model,
            min(SAMPLES, len(cells)),
            100 * share,
            100 * QUANTILE,
        )


def duplicates(state: State, cells: CellSet, seed: int = 0) -> float:
    """Share of near-duplicates among 256 samples, or as many as there are cells; see `metrics.near_duplicates`.

    Samples of a conditional model are told the treatments of the real cells that they are compared with. Features are
    means and deviations of the maps of a frozen random network, each scaled to deviation 1 over the real cells.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(cells))[:SAMPLES])
    z = torch.as_tensor(noise(state, len(rows), seed), dtype=torch.float32, device=state.device)
    with inference(state):
        if state.config.model in AUTOENCODERS:
            made = state.networks["decoder"](z)
        else:
            condition = told(state, torch.from_numpy(rows).to(state.device))
            made = (state.networks["generator"](z, condition) + 1) / 2
    features = [_pooled(images.cpu().numpy()) for images in (channel_max(cells.grey(rows)), made)]
    scale = features[0].std(axis=0) + 1e-6
    return near_duplicates(*(table / scale for table in features), QUANTILE)


def _pooled(images: np.ndarray) -> np.ndarray:
    """Features of images (N, C, H, W), (N, d)."""
    maps = frozen_features(images)
    return np.concatenate([part for m in maps for part in (m.mean(axis=(2, 3)), m.std(axis=(2, 3)))], axis=1)
