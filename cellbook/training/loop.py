"""The training loop that all methods share: sampling on the device, history, checkpoints, resuming, several devices.

A method is a module with

- ``VERSION``, ``Config`` (a frozen dataclass with at least `seed` and `iterations`) and ``PRESETS`` (name -> Config),
- ``begin(config, cells, device) -> State``: networks, optimisers and a `Sampler`,
- ``draw(state) -> rows``: the cells of one step, (N,) or (draws, N),
- ``step(state, batch, t) -> {name: scalar tensor}``: one update of everything, t = updates done before it,
- ``finish(state, cells, folder)``, if it likes: writes its own products when the last step is done,
- ``PARALLEL = True`` if the N cells of a batch may be split over several devices.

What differs between methods (how many networks, whose gradient goes where) stays in their `step`, in plain sight.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.files import digest
from cellbook.pixels import gather
from cellbook.runs import Run, choose_device, obtain, run_key, save_table, show_progress
from cellbook.training import replicas
from cellbook.training.checkpoints import CHECKPOINT, WEIGHTS, load_weights, resume, save_checkpoint, save_weights
from cellbook.training.state import Batch, State

LINES = 200  # about so many rows has the history of a run, whatever its length


def train(
    method: Any,
    config: Any,
    cells: CellSet,
    folder: str | Path,
    device: str = "auto",
    *,
    checkpoint_seconds: float = 60.0,
    compiled: bool = False,
) -> State:
    """Train a method to its last iteration and write `history.parquet` and `weights.safetensors` into `folder`.

    A checkpoint in `folder` is gone on from; on a CPU the end is then bit for bit that of an undisturbed run. It
    stays there for the caller to remove. Started by ``torchrun``, the processes share each batch and average their
    gradients; only the first of them writes.

    Parameters
    ----------
    method : module or object
        See the top of this module.
    config : dataclass
        An instance of ``method.Config``.
    cells : CellSet
        The whole set is copied to the device, as it is stored.
    folder : path
        Of products and of the checkpoint.
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    checkpoint_seconds : float
        Least time between two checkpoints.
    compiled : bool
        Compile each network with ``torch.compile``.

    Returns
    -------
    State
        Trained, on the device.

    Raises
    ------
    CellbookError
        A loss or a weight that is not finite (the last good checkpoint is kept), a checkpoint of another run, or a
        batch that cannot be split over the processes.
    """
    folder, name = Path(folder), method.__name__.rpartition(".")[2]
    if config.iterations < 1:
        raise CellbookError(f"iterations={config.iterations}: train for at least one step")
    rank, world = replicas.join()
    if world > 1 and not getattr(method, "PARALLEL", False):
        raise CellbookError(f"method {name!r} needs its batch as a whole: start one process instead of {world}")
    on = replicas.own_device(torch.device(choose_device(device)))
    identity = digest([name, method.VERSION, asdict(config), cells.fingerprint])
    interval = max(1, config.iterations // LINES)
    with _seeded(config.seed, on):
        state = method.begin(config, cells, on)
        replicas.share(state.networks, state.optimisers)
        if rank:  # the same weights everywhere, other noise
            torch.manual_seed(config.seed + 1_000_003 * rank)
        names, history, start = resume(state, folder, identity)
        images = cells.to(on)
        if compiled:
            for network in state.networks.values():
                network.compile()
        written = time.monotonic()
        trace: list[Tensor] = []  # stays on the device until the next line of the history
        with tqdm(total=config.iterations, initial=start, disable=rank > 0 or not show_progress(), desc=name) as bar:
            for t in range(start, config.iterations):
                rows = replicas.own_part(method.draw(state))
                losses = method.step(state, Batch(gather(images, rows), rows), t)
                names = list(losses)
                trace.append(torch.stack([loss.detach().float() for loss in losses.values()]))
                bar.update()
                if (t + 1) % interval and t + 1 < config.iterations:
                    continue
                values = replicas.mean(torch.stack(trace)).cpu().double()  # (steps, terms); here the loop waits
                _check_losses(values, names, t + 2 - len(trace), folder)
                trace = []
                history.append([float(t + 1), *values.mean(dim=0).tolist()])
                bar.set_postfix({term: f"{value:.4g}" for term, value in zip(names, history[-1][1:], strict=True)})
                due = t + 1 == config.iterations or time.monotonic() - written >= checkpoint_seconds
                if replicas.first_says(due, on):
                    save_checkpoint(state, folder, identity, names, history)
                    written = time.monotonic()
    if rank == 0:
        table = pd.DataFrame(history, columns=["step", *names]).astype({"step": np.int64})
        save_table(table, folder / "history.parquet")
        save_weights(state, folder / WEIGHTS)
    return state


def train_run(
    method: Any,
    config: Any,
    cells: CellSet,
    store: str | Path,
    device: str = "auto",
    *,
    force: bool = False,
    compiled: bool = False,
) -> Run:
    """The run of this method, configuration and cells from `store`, trained only if it is not there; see `train`."""
    name, device = method.__name__.rpartition(".")[2], choose_device(device)

    def make(folder: Path) -> None:
        replicas.first_says(True, on)  # to the other processes, which cannot know what the store holds by then
        state = train(method, config, cells, folder, device, compiled=compiled)
        if hasattr(method, "finish"):
            method.finish(state, cells, folder)
        (folder / CHECKPOINT).unlink()

    rank, _ = replicas.join()
    on = replicas.own_device(torch.device(device))
    key = run_key(name, method.VERSION, asdict(config), cells.fingerprint)
    if rank == 0:
        obtain(store, name, method.VERSION, config, cells.fingerprint, make, device=device, force=force)
        replicas.first_says(False, on)  # the products are written
    else:
        while replicas.first_says(False, on):
            train(method, config, cells, Path(store) / f"{key}.partial", device, compiled=compiled)
    return Run(Path(store) / key)


def load_run(method: Any, config: Any, cells: CellSet, run: Run, device: str = "auto") -> State:
    """The trained state of a finished run, for more pictures or codes; `cells` as it was trained on."""
    on = torch.device(choose_device(device))
    with _seeded(config.seed, on):
        state = method.begin(config, cells, on)
    return load_weights(state, run.path(WEIGHTS))


def same_seed_difference(method: Any, config: Any, cells: CellSet, device: str = "auto") -> dict[str, float]:
    """How far two trainings of one seed come apart: largest difference of their codes, and the codes' own spread.

    0 on a CPU. On CUDA some kernels add in no fixed order, and a difference grows with every step.
    """
    codes = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            codes.append(np.asarray(method.encode(train(method, config, cells, folder, device), cells), np.float64))
    return {
        "max_abs_difference": float(np.abs(codes[0] - codes[1]).max()),
        "spread": float(codes[0].std(axis=0).mean()),
    }


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators for a while and leave them as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all batches have one shape
        yield


def _check_losses(values: Tensor, names: list[str], first: int, folder: Path) -> None:
    """Refuse to go on from a loss that is no number; `first` is the number of the first step in `values`."""
    bad = (~values.isfinite()).nonzero()
    if len(bad) == 0:
        return
    step, term = bad[0].tolist()
    kept = f"; {folder / CHECKPOINT} is the last good state" if (folder / CHECKPOINT).exists() else ""
    raise CellbookError(
        f"{names[term]} is {values[step, term].item()} at step {first + step}{kept}: lower the learning rate, "
        "or look for broken images in the cells"
    )
