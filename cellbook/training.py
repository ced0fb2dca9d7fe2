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
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cellbook import parallel
from cellbook.cells import CellSet, gather
from cellbook.checkpoints import CHECKPOINT, WEIGHTS, load_weights, resume, save_checkpoint, save_weights
from cellbook.errors import CellbookError
from cellbook.files import digest
from cellbook.runs import Run, choose_device, obtain, run_key, save_table, show_progress

LINES = 200  # about so many rows has the history of a run, whatever its length


class Batch(NamedTuple):
    """What a step is given: images as they are stored, on the device, and which cells they are."""

    images: Tensor  # (..., N, C, H, W) uint8 or uint16
    rows: Tensor  # (..., N) row numbers in the table of the cells


class Sampler:
    """Row numbers drawn at random, with replacement, on the device, by a generator that can be saved.

    Parameters
    ----------
    groups : numpy.ndarray
        (cells,) the group of each cell, 0 to G - 1, none empty; see `treatment_codes`.
    device : torch.device
        Where to draw.
    seed : int
        Of its own generator.
    """

    def __init__(self, groups: np.ndarray, device: torch.device, seed: int) -> None:
        counts = np.bincount(groups)
        self.rows = torch.from_numpy(np.argsort(groups, kind="stable")).to(device)  # (cells,) sorted by group
        self.counts = torch.from_numpy(counts).to(device)  # (G,)
        self.starts = torch.from_numpy(np.cumsum(counts) - counts).to(device)  # (G,)
        self.generator = torch.Generator(device).manual_seed(seed)

    def each(self, times: int = 1) -> Tensor:
        """`times` cells of every group: (G * times,)."""
        return self._within(torch.arange(len(self.counts), device=self.rows.device).repeat(times))

    def balanced(self, n: int) -> Tensor:
        """`n` cells, each of a group drawn uniformly: (n,)."""
        return self._within(self._integers(len(self.counts), n))

    def uniform(self, n: int) -> Tensor:
        """`n` cells, each equally likely: (n,)."""
        return self._integers(len(self.rows), n)

    def _integers(self, below: int, n: int) -> Tensor:
        return torch.randint(below, (n,), generator=self.generator, device=self.rows.device)

    def _within(self, groups: Tensor) -> Tensor:
        u = torch.rand(len(groups), generator=self.generator, device=self.rows.device, dtype=torch.float64)
        return self.rows[self.starts[groups] + (u * self.counts[groups]).long()]


@dataclass
class State:
    """All that changes in a training, under names, so that a checkpoint can hold it.

    A number that a method adapts (a balance, a temperature) is a buffer of one of its networks.
    """

    config: Any
    device: torch.device
    sampler: Sampler
    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]
    bf16: bool | None = None  # None: where the device is good at it

    def __post_init__(self) -> None:
        if self.bf16 is None:
            self.bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    def autocast(self) -> AbstractContextManager:
        """Context for the networks' forward passes; sums, losses and statistics belong outside of it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self.bf16))

    def finite(self) -> str | None:
        """Name of the first network that holds a NaN or an infinity, if any does."""
        for name, network in self.networks.items():
            values = [v for v in network.state_dict().values() if v.is_floating_point()]
            if not torch.stack([v.isfinite().all() for v in values]).all():
                return name
        return None


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to its device, for channels-last images: faster there and here, and the same numbers."""
    return network.to(device, memory_format=torch.channels_last)


def treatment_codes(table: pd.DataFrame) -> np.ndarray:
    """Number of the treatment (compound and concentration) of each cell, (N,), sorted by name; controls are one."""
    if "Metadata_compound" not in table:
        raise CellbookError(f"the cells' table has no column 'Metadata_compound': it has {', '.join(table.columns)}")
    key = table[["Metadata_compound"]].copy()
    missing = int(key["Metadata_compound"].isna().sum())
    if missing:
        raise CellbookError(f"Metadata_compound is missing in {missing} of {len(table)} cells: label or drop them")
    if "Metadata_concentration" in table:
        control = key["Metadata_compound"] == "DMSO"
        key["Metadata_concentration"] = table["Metadata_concentration"].mask(control, 0.0)
    return key.groupby(list(key.columns), dropna=False, sort=True).ngroup().to_numpy()


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
    rank, world = parallel.join()
    if world > 1 and not getattr(method, "PARALLEL", False):
        raise CellbookError(f"method {name!r} needs its batch as a whole: start one process instead of {world}")
    on = parallel.own_device(torch.device(choose_device(device)))
    identity = digest([name, method.VERSION, asdict(config), cells.fingerprint])
    interval = max(1, config.iterations // LINES)
    with _seeded(config.seed, on):
        state = method.begin(config, cells, on)
        parallel.share(state.networks, state.optimisers)
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
                rows = parallel.own_part(method.draw(state))
                losses = method.step(state, Batch(gather(images, rows), rows), t)
                names = list(losses)
                trace.append(torch.stack([loss.detach().float() for loss in losses.values()]))
                bar.update()
                if (t + 1) % interval and t + 1 < config.iterations:
                    continue
                values = parallel.mean(torch.stack(trace)).cpu().double()  # (steps, terms); here the loop waits
                _check_losses(values, names, t + 2 - len(trace), folder)
                trace = []
                history.append([float(t + 1), *values.mean(dim=0).tolist()])
                bar.set_postfix({term: f"{value:.4g}" for term, value in zip(names, history[-1][1:], strict=True)})
                due = t + 1 == config.iterations or time.monotonic() - written >= checkpoint_seconds
                if parallel.first_says(due, on):
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
        state = train(method, config, cells, folder, device, compiled=compiled)
        if hasattr(method, "finish"):
            method.finish(state, cells, folder)
        (folder / CHECKPOINT).unlink()

    rank, _ = parallel.join()
    key = run_key(name, method.VERSION, asdict(config), cells.fingerprint)
    if rank == 0:
        obtain(store, name, method.VERSION, config, cells.fingerprint, make, device=device, force=force)
    elif force or not (Path(store) / key / "run.json").exists():
        train(method, config, cells, Path(store) / f"{key}.partial", device, compiled=compiled)
    parallel.wait()  # until the first process has written the products
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
