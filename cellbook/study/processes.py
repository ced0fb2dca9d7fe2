"""Work side by side: processes of one thread each, so that the bits do not depend on how many there are."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Thread
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from cellbook.machine import WORKER, give_back, worker_count


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch and of linear algebra for a while: several add in another order and end in other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def side_by_side(
    work: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    workers: int | None = None,
    worth: bool = False,
    gib: float = WORKER,
) -> list[Any]:
    """Call `work` with the arguments of each task, one thread each; results in the order of the tasks.

    Parameters
    ----------
    work : a function of a module, by which other processes find it
    tasks : arguments of each call; large arrays reach other processes as memory maps
    workers : processes, 1 for none but this one; as many as cores and memory bear, if that is worth it
    worth : whether a task takes longer than starting a process
    gib : memory that a task needs
    """
    workers = workers or (worker_count(gib) if worth else 1)
    if min(workers, len(tasks)) <= 1 or _end_with.cache_info().currsize:  # or this is one of such processes itself
        return [_alone(work, *task) for task in tasks]
    with parallel_config("loky", n_jobs=min(workers, len(tasks)), inner_max_num_threads=1):
        # Copied where it is written to, as an array in this process would be.
        calls = (delayed(_in_worker)(os.getpid(), work, *task) for task in tasks)
        with warnings.catch_warnings():
            # One whose memory has grown is replaced, and its tasks are done by others.
            warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
            return list(Parallel(batch_size=1, mmap_mode="c")(calls))


def _in_worker(parent: int, work: Callable[..., Any], *arguments: Any) -> Any:
    _end_with(parent)
    return _alone(work, *arguments)


@cache
def _end_with(parent: int) -> None:
    """As `runs.end_with_parent`, which cannot serve here: loky's processes do not know the one that started them."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _alone(work: Callable[..., Any], *arguments: Any) -> Any:
    try:
        with one_thread():
            return work(*arguments)
    finally:
        give_back()
