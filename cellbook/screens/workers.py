"""A few worker processes with a short queue, which end cleanly on Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from cellbook.errors import CellbookError
from cellbook.runs import end_with_parent

log = logging.getLogger(__name__)

Run = Callable[[Any], Iterator[tuple[Any, Any]]]


class Pool:
    """Runs (function, arguments, key) tasks in this process or in several, yielding (key, result) as they finish."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        # Started afresh rather than forked: a forked child of a process with running threads can hang.
        context = get_context("spawn")
        self.executor = ProcessPoolExecutor(workers, context, _quiet_worker) if workers > 1 else None

    def __enter__(self) -> Run:
        return self._run

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            log.warning("interrupted: finished fields are kept, and the same call goes on with them")
        if self.executor is not None:
            with _no_interrupt():
                self.executor.shutdown(wait=True, cancel_futures=True)

    def _run(self, tasks: Any) -> Iterator[tuple[Any, Any]]:
        if self.executor is None:
            for function, arguments, key in tasks:
                yield key, function(*arguments)
            return
        running: dict[Future[Any], Any] = {}
        tasks = iter(tasks)
        try:
            while True:
                # A short queue: with all tasks submitted at once, an interrupt would have to take them all back.
                for function, arguments, key in tasks:
                    with _interrupt_later():
                        running[self.executor.submit(function, *arguments)] = key
                    if len(running) >= 3 * self.workers:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise CellbookError(
                "a worker process ended abruptly, most likely for want of memory; finished fields are kept, so run "
                f"again with fewer workers than {self.workers}"
            ) from error


@contextmanager
def _interrupt_later() -> Iterator[None]:
    """Hold Ctrl-C back while workers start: they inherit that, and one that is still importing is not torn down."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ignore a further Ctrl-C: one that meets the end of the workers leaves these waiting, and their semaphores."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGINT, before)


def _quiet_worker() -> None:
    # Ctrl-C reaches every process of the terminal; only the parent answers it, and workers finish their field.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
