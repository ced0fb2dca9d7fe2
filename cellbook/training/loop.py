"""The training loop that all methods share: `steps` is the loop itself, `train` keeps what it yields.

Read `cellbook.training.state.Method` for what a method brings. What differs between methods (how many networks, whose
gradient goes where) stays in its `step`.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cellbook.cells import CellSet
from cellbook.configure import restore
from cellbook.errors import CellbookError, Stopped
from cellbook.files import digest
from cellbook.machine import kept_memory
from cellbook.pixels import gather
from cellbook.runs import Run, choose_device, known_by, obtain, run_key, show_progress
from cellbook.training import replicas
from cellbook.training.checkpoints import (
    WEIGHTS,
    go_on,
    load_weights,
    read_checkpoint,
    resume,
    save_checkpoint,
    save_weights,
    steps_in,
)
from cellbook.training.codes import check_wells, course_steps, follow, join_course, write_codes
from cellbook.training.history import History
from cellbook.training.recorded import Recorded
from cellbook.training.state import CHECKPOINT, Batch, Method, State

LINES = 200  # about so many rows has the history of a run, whatever its length
SECONDS = 60.0  # least time between two checkpoints


def steps(method: Method, state: State, images: Tensor, done: int = 0) -> Iterator[dict[str, Tensor]]:
    """Update after update, from the one after `done` others to the last: the losses of each, scalars on the device.

    `images` are those of all cells, (cells, C, H, W) on the device. Nothing here waits for it.
    """

    def update(t: int | Tensor) -> dict[str, Tensor]:
        rows = replicas.own_part(method.draw(state, t))  # (N,) or (draws, N)
        batch = Batch(gather(images, rows), rows)  # (N, C, H, W) or (draws, N, C, H, W)
        return method.step(state, batch, t)

    phase, play = getattr(method, "phase", lambda *_: 0), update
    if images.is_cuda and replicas.world() == 1:
        play = Recorded(update, lambda t: phase(state.config, t), state.sampler.generator, done)
    for t in range(done, state.config.iterations):
        state.phase = phase(state.config, t)  # which a method cannot tell from a t on the device
        yield play(t)


def train(
    method: Method,
    config: Any,
    cells: CellSet,
    folder: str | Path,
    device: str = "auto",
    *,
    checkpoint_seconds: float = SECONDS,
    compiled: bool = False,
    course: bool = False,
    begun: tuple[Run, int] | None = None,
    end_at_collapse: bool = False,
) -> State:
    """Train a method to its last iteration and write `history.parquet` and `weights.safetensors` into `folder`.

    A checkpoint in `folder` is gone on from; on a CPU the end is then bit for bit that of an undisturbed run. It
    stays there for the caller to remove. Started by ``torchrun``, the processes share each batch and average their
    gradients; only the first of them writes.

    Parameters
    ----------
    method : module or object
    config : dataclass
        An instance of ``method.Config``.
    cells : CellSet
        The whole set is copied to a GPU, as it is stored; a CPU reads it where it lies.
    folder : path
        Of products and of the checkpoint.
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    checkpoint_seconds : float
        Least time between two checkpoints.
    compiled : bool
        Compile each network with ``torch.compile``.
    course : bool
        Also write ``course.parquet``: profiles of wells by the codes at about ten steps from the first to the last,
        see `codes.follow`.
    begun : Run and int
        Of another training and how many of its steps are taken as done, see `Method`; the first step is then the next.
    end_at_collapse : bool
        Look at what is drawn before each checkpoint is written, and end once it has collapsed: `Watch` of the `Method`.

    Returns
    -------
    State
        Trained, on the device.

    Raises
    ------
    CellbookError
        A loss or a weight that is not finite, or a collapse (the last good checkpoint is kept), a checkpoint of another
        run, or a batch that cannot be split over the processes.
    Stopped
        Ctrl-C or SIGTERM, after a checkpoint.
    """
    name = method.__name__.rpartition(".")[2]
    if config.iterations < 1:
        raise CellbookError(f"iterations={config.iterations}: train for at least one step")
    rank, world = replicas.join()
    if world > 1 and not getattr(method, "PARALLEL", False):
        raise CellbookError(f"method {name!r} needs its batch as a whole: start one process instead of {world}")
    on = replicas.own_device(torch.device(choose_device(device)))
    identity = _identity(method, known_by(config), cells)
    interval, history = max(1, config.iterations // LINES), History(Path(folder))
    with kept_memory(), _seeded(config.seed, on), stop_signals() as asked:
        state = method.begin(config, cells, on)
        replicas.share(state.networks, state.optimisers)
        if rank:  # the same weights everywhere, other noise
            torch.manual_seed(config.seed + 1_000_003 * rank)
        if begun is not None:
            go_on(state, history, *begun)
        resume(state, history, identity)
        if compiled:
            for network in state.networks.values():
                network.compile()
        watched = set()
        if course and rank == 0:
            watched = {history.start + step for step in course_steps(config.iterations - history.start)}
        if history.step == history.start and watched:
            follow(method, state, cells, history)
        watch = method.Watch() if end_at_collapse and hasattr(method, "Watch") else None
        if watch and history.step:  # what it goes on from has been looked at before, by another
            watch.check(state, cells, history)
        written = time.monotonic()
        with _bar(name, history.step, config.iterations) as bar:
            for losses in steps(method, state, cells.to(on), history.step):
                history.add(losses)
                bar.update()
                if history.step in watched:
                    follow(method, state, cells, history)
                last = history.step == config.iterations
                if last or history.step % interval == 0:
                    bar.set_postfix(history.close())  # here the loop waits for the device
                elif world > 1:  # several processes agree only then
                    continue
                stop = replicas.first_says(bool(asked), on)
                if replicas.first_says(stop or last or time.monotonic() - written >= checkpoint_seconds, on):
                    if watch:
                        watch.check(state, cells, history)
                    save_checkpoint(state, history, identity)
                    written = time.monotonic()
                if stop:
                    raise Stopped(
                        128 + (asked or [signal.SIGTERM])[0],
                        f"{name} was stopped at step {history.step} of {config.iterations} and is kept in "
                        f"{history.folder}: start the same training again to go on",
                    )
    if rank == 0:
        history.save()
        save_weights(state, history.folder / WEIGHTS)
        if course:
            join_course(history)
    return state


def train_run(
    method: Method,
    config: Any,
    cells: CellSet,
    store: str | Path,
    device: str = "auto",
    *,
    force: bool = False,
    checkpoint_seconds: float = SECONDS,
    compiled: bool = False,
    course: bool = False,
    end_at_collapse: bool = False,
) -> Run:
    """The run of this method, configuration and cells from `store`, trained only if it is not there; see `train`."""
    name, device = method.__name__.rpartition(".")[2], choose_device(device)
    how: dict[str, Any] = {"checkpoint_seconds": checkpoint_seconds, "compiled": compiled, "course": course}
    how["end_at_collapse"] = end_at_collapse

    def train_in(folder: Path) -> State:
        return train(method, config, cells, folder, device, begun=first_part(), **how)

    def first_part() -> tuple[Run, int] | None:
        before = getattr(method, "begins_with", lambda _: None)(config)
        if before is None:
            return None
        watched = Run(Path(store) / run_key(name, method.VERSION, keyed(before[0], True), cells.fingerprint))
        run = train_run(method, before[0], cells, store, device, **how | {"course": course or watched.fault() is None})
        return run, before[1]

    def make(folder: Path) -> dict[str, Any]:
        check_wells(cells)
        replicas.first_says(True, on)  # to the other processes, which cannot know what the store holds by then
        state = train_in(folder)
        write_codes(method, state, cells, folder)
        if hasattr(method, "finish"):
            method.finish(state, cells, folder)
        (folder / CHECKPOINT).unlink()
        # What whoever has the weights alone needs to draw cells that can be opened.
        return {"precision": state.precision, "channels": list(cells.channels), "pixel_um": cells.pixel_um}

    rank, _ = replicas.join()
    on = replicas.own_device(torch.device(device))
    about = keyed(config, course)
    key = run_key(name, method.VERSION, about, cells.fingerprint)
    if rank == 0:
        obtain(store, name, method.VERSION, about, cells.fingerprint, make, device=device, force=force)
        replicas.first_says(False, on)  # the products are written
    else:
        while replicas.first_says(False, on):
            train_in(Path(store) / f"{key}.partial")
    return Run(Path(store) / key)


def keyed(config: Any, course: bool = False) -> dict[str, Any]:
    """What a run of a training is known by, beside its method and its cells; its course is a product more."""
    return known_by(config) | ({"course": True} if course else {})


def load_run(method: Method, config: Any, cells: CellSet, run: Run, device: str = "auto") -> State:
    """The trained state of a finished run, for more pictures or codes; `cells` as it was trained on."""
    on = torch.device(choose_device(device))
    with _seeded(config.seed, on):
        state = method.begin(config, cells, on)
    return load_weights(state, run.path(WEIGHTS))


def load_kept(method: Method, cells: CellSet, folder: str | Path, device: str = "auto") -> tuple[State, int]:
    """The state that an unfinished training has kept in `folder`, for pictures or codes, and its step.

    `cells` as it is trained on. A training of another method, of another version of it or on other cells is refused.
    """
    path, on = Path(folder) / CHECKPOINT, torch.device(choose_device(device))
    content = read_checkpoint(path)
    told = content.get("config", {})
    if content.get("identity") != _identity(method, told, cells):
        name = method.__name__.rpartition(".")[2]
        raise CellbookError(f"{path} is of no training of {name} on these cells: give those that it is trained on")
    config = restore(method.Config, told)
    with _seeded(config.seed, on):
        state = method.begin(config, cells, on)
    for name, network in state.networks.items():
        network.load_state_dict(content["networks"][name])
    return state, steps_in(content)


def _identity(method: Method, told: dict[str, Any], cells: CellSet) -> str:
    """What a checkpoint is known by: its method, what `known_by` tells of its configuration, its cells."""
    return digest([method.__name__.rpartition(".")[2], method.VERSION, told, cells.fingerprint])


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators for a while and leave them as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all batches have one shape
        yield


def _bar(name: str, done: int, total: int) -> tqdm:
    """Progress in a terminal, drawn by the first process."""
    return tqdm(total=total, initial=done, disable=replicas.rank() > 0 or not show_progress(), desc=name)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM, so that the loop can keep its state first; a second Ctrl-C is obeyed at once.

    What is ignored stays ignored, and outside of the main thread signals are left alone.
    """
    asked: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)} if here else {}
    before = {n: handler for n, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def ask(number: int, _frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before.get(signal.SIGINT, signal.SIG_IGN))

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
