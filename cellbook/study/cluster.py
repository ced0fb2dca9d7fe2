"""Tasks done by workers of Dask, on this machine or on many; a task whose worker is lost is given to another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from cellbook.errors import CellbookError

Work = Callable[[str], Any]


@contextmanager
def crew(
    workers: int | None = None, scheduler: str | None = None
) -> Iterator[Callable[[Work, Sequence[str]], Iterator[tuple[str, Any]]]]:
    """Who works: a function of `work` and names, which gives each name with what `work` says of it, as they come.

    In this process without workers or a scheduler. Where a worker cannot do it, which is no answer of `work`, the
    answer is the exception.

    Raises
    ------
    CellbookError : if both are given, Dask is not installed, the scheduler does not answer or is gone, or a worker has
        threads.
    """
    if scheduler is None and (workers or 1) == 1:
        yield lambda work, names: ((name, work(name)) for name in names)
        return
    with _client(workers, scheduler) as client:
        yield partial(_answers, client)


def _answers(client: Any, work: Work, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    from distributed import as_completed

    futures = {client.submit(work, name, pure=False): name for name in names}
    for future in as_completed(list(futures)):
        if future.cancelled():
            raise CellbookError("the Dask scheduler is gone: start it and call again; what is done is kept")
        yield futures.pop(future), future.exception() or future.result()


@contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    if workers is not None and scheduler is not None:
        raise CellbookError(f"--workers {workers} are of this machine, --scheduler {scheduler} has its own: give one")
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise CellbookError("several workers need Dask: pip install distributed, or leave --workers out") from error
    if scheduler is None:
        how = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.ERROR}
        with LocalCluster(n_workers=workers, **how) as cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(scheduler, timeout="20s")
    except (OSError, ValueError) as error:
        raise CellbookError(f"no Dask scheduler answers at {scheduler} ({error}): start one, or mend it") from error
    with client:
        known = client.scheduler_info(n_workers=-1)["workers"]
        if many := [name for name, worker in known.items() if worker["nthreads"] > 1]:
            raise CellbookError(
                f"{len(many)} of {len(known)} workers have several threads, first {many[0]}, and would hold a plate in "
                "each: start them with --nthreads 1"
            )
        yield client
