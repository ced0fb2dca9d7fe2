"""How fast trainings are here: a few steps of one of each kind, beside as many others as later."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellbook.errors import CellbookError
from cellbook.lease.plan import Job, of_each_kind
from cellbook.lease.processes import CONTEXT, outcome, start
from cellbook.study.trainings import Place
from cellbook.training import Method, State, steps
from cellbook.training.recorded import WARM

TRIED = 6.0  # seconds for which speeds are measured
READY = 120.0  # seconds in which a training has to begin
LOOK = 0.05  # seconds between two looks at processes


def try_all(
    jobs: Sequence[Job], place: Place, work: Path, side_by_side: int, stop: Callable[[], bool]
) -> tuple[dict[str, float], dict[str, str]]:
    """Steps a second of one job of each kind that trains, by kind, and how others failed.

    Parameters
    ----------
    jobs, place, side_by_side : what is tried, where, and how many at a time
    work : folder of what the processes write
    stop : whether to give up: what was not tried is in neither
    """
    kinds, speeds, failed = of_each_kind(jobs), {}, {}
    for first in range(0, len(kinds), side_by_side):
        some = kinds[first : first + side_by_side]
        # Others fill the device as later; of their speeds none is needed.
        others = [job for job in jobs if job.kind and job not in some][: side_by_side - len(some)]
        told = _side_by_side([*some, *others], place, work, first, stop)
        for job, ended in zip(some, told, strict=False):
            if "done" in ended:
                speeds[job.kind] = ended["done"]
            elif not stop():
                failed[job.kind] = ended["failed"]
    return speeds, failed


def _side_by_side(
    jobs: Sequence[Job], place: Place, work: Path, first: int, stop: Callable[[], bool]
) -> list[dict[str, Any]]:
    """Try some jobs at the same time; how each has ended."""
    go, ready = CONTEXT.Event(), [CONTEXT.Event() for _ in jobs]
    results = [work / f"try-{number}.json" for number in range(first, first + len(jobs))]
    processes = [
        start(speed, result, job, place, mine, go) for result, job, mine in zip(results, jobs, ready, strict=True)
    ]
    try:
        end = time.time() + READY
        while not stop() and time.time() < end:
            if all(mine.is_set() or not process.is_alive() for mine, process in zip(ready, processes, strict=True)):
                break
            time.sleep(LOOK)
        go.set()
        end = time.time() + 4 * TRIED
        while not stop() and time.time() < end and any(process.is_alive() for process in processes):
            time.sleep(LOOK)
        slow = [process.is_alive() for process in processes]
    finally:
        for process in processes:
            process.kill()  # one that has ended does not mind
    told = [outcome(result, process) for result, process in zip(results, processes, strict=True)]
    why = {"failed": f"its first steps took more than {READY:g} s, or those of {TRIED:g} s more than {4 * TRIED:g} s"}
    return [why if late else ended for late, ended in zip(slow, told, strict=True)]


def speed(job: Job, place: Place, ready: Any, go: Any) -> float:
    """Steps a second of a job's training, beside others that begin at the same time.

    Parameters
    ----------
    job, place : what is trained and where; nothing of it is kept
    ready, go : events; the first is set when steps can be timed, which begins with the second
    """
    one = job.training
    assert one is not None
    device = torch.device(place.device)
    cells = job.cells(place)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    state, images = one.module.begin(one.config, cells, device), cells.to(device)
    phases = phases_of(one.module, one.config)
    needed = 0.0
    for number, (t, share) in enumerate(phases.items()):
        played = steps(one.module, state, images, t)
        needed += share * _seconds_a_step(played, state, TRIED / len(phases), None if number else (ready, go))
    return 1 / max(needed, 1e-6)


def phases_of(method: Method, config: Any) -> dict[int, float]:
    """First step of each phase of a training and its share of all steps."""
    if not hasattr(method, "phase"):
        return {0: 1.0}
    of_steps = [method.phase(config, t) for t in range(config.iterations)]
    return {of_steps.index(phase): count / len(of_steps) for phase, count in Counter(of_steps).items()}


def _seconds_a_step(
    played: Iterator[dict[str, Tensor]], state: State, seconds: float, events: tuple[Any, Any] | None
) -> float:
    """Seconds that a step takes, once the first ones are done; a training may be shorter than the time to look."""
    cuda = state.device.type == "cuda"
    warm, every = (WARM + 3, 20) if cuda else (1, 1)  # steps between two looks at the clock, which wait for the device
    start, before, done, losses = time.perf_counter(), 0, 0, {}
    for done, losses in enumerate(played, 1):
        if done == warm:
            check(losses, state, done)
            if events is not None:
                events[0].set()
                events[1].wait()
            start, before = time.perf_counter(), done
        elif done > warm and done % every == 0:
            check(losses, state, done)
            if time.perf_counter() > start + seconds:
                break
    check(losses, state, done)
    return (time.perf_counter() - start) / max(1, done - before)


def check(losses: dict[str, Tensor], state: State, done: int) -> None:
    """Refuse losses or weights that are no numbers; waits for the device."""
    bad = ", ".join(name for name, value in losses.items() if not bool(value.isfinite())) or state.finite()
    if bad:
        raise CellbookError(f"{bad} is no number after {done} steps")
