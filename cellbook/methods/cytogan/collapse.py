"""Whether a model draws one cell again and again, on the way of its training or at its end."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods.cytogan.codes import noise
from cellbook.methods.cytogan.config import AUTOENCODERS
from cellbook.methods.cytogan.objective import told
from cellbook.metrics.images import frozen_features
from cellbook.metrics.samples import near_duplicates
from cellbook.pixels import channel_max
from cellbook.training import State
from cellbook.training.checkpoints import steps_done
from cellbook.training.codes import inference
from cellbook.training.history import History
from cellbook.training.state import CHECKPOINT

SAMPLES = 256
QUANTILE = 0.05  # of the distances between real neighbours: the share that real cells have
COLLAPSED = 0.5  # share from which it is said of a trained model
# Share from which a training may be ended: healthy ones come as far as 0.8 in passing, and turn back.
ENDING = 0.9
UNVARIED = 2_000  # steps in which a generator may fail to leave its first image: BEGAN takes more than 1,500

log = logging.getLogger(__name__)


def finish(state: State, cells: CellSet, folder: Path) -> None:
    """Warn of a generator that has collapsed; nothing is written."""
    if state.config.model == "ae" or len(cells) < 2:
        return
    share = duplicates(state, cells)
    if share >= COLLAPSED:
        log.warning("%s has collapsed: %s", state.config.model, _seen(share, cells))


class Watch:
    """Looks at a training on its way, and ends it when its samples have become one cell.

    A generator begins with one image and needs steps to vary it. So a model has collapsed only if its samples were
    seen to vary before, by a share of near-duplicates below `COLLAPSED`, or if they never were in half of its steps,
    `UNVARIED` at least.
    """

    def __init__(self) -> None:
        self.varied = False

    def check(self, state: State, cells: CellSet, history: History) -> None:
        """Look where the training is now; a collapse is an error that says what is seen, what is kept, what helps."""
        config, done, kept = state.config, history.step, history.folder / CHECKPOINT
        if config.model == "ae" or len(cells) < 2 or state.finite():  # what is not finite, no checkpoint takes
            return
        share = duplicates(state, cells)
        self.varied |= share < COLLAPSED
        if share < ENDING or not (self.varied or done >= max(UNVARIED, config.iterations / 2)):
            return
        left = "nothing was kept before"
        if kept.exists():
            left = (
                f"the state of step {steps_done(kept)} is kept: `cellbook sample {kept.parent} --cells CELLS` draws "
                "with it, and the same training goes on from it with end_at_collapse=False"
            )
        rates = "generator_rate" if config.model in AUTOENCODERS else "critic_rate, generator_rate"
        raise CellbookError(
            f"{config.model} has collapsed at step {done}: {_seen(share, cells)}; {left}. What helps is a lower "
            f"learning rate ({rates}), another model, or more cells"
        )


def _seen(share: float, cells: CellSet) -> str:
    """The share of near-duplicates in words."""
    return (
        f"of {min(SAMPLES, len(cells))} samples {100 * share:.0f} % are nearer to another than all but "
        f"{100 * QUANTILE:.0f} % of real cells are"
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
