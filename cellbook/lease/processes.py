"""The processes of a lease: each does one thing, and leaves a file with what came out and another with what it said."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from cellbook.errors import Stopped
from cellbook.files import read_json, write_json
from cellbook.runs import end_with_parent
from cellbook.screens import named

# A process that was forked from one which uses CUDA cannot use it. So all are forked from a server that does not, and
# that has imported what takes seconds; where there is none, each imports it anew.
CONTEXT = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)


def import_once(modules: Iterable[str]) -> None:
    """Name modules that all processes need, before the first is started."""
    if hasattr(CONTEXT, "set_forkserver_preload"):
        CONTEXT.set_forkserver_preload(sorted(modules))


def start(work: Callable[..., Any], result: Path, *arguments: Any) -> BaseProcess:
    """Call `work` in a process of its own; what it returns, or how it failed, is written to `result`."""
    process = CONTEXT.Process(target=_guarded, args=(work, result, named.drawn_before, *arguments))
    process.start()
    return process


def outcome(result: Path, process: BaseProcess) -> dict[str, Any]:
    """How a process has ended: `done` with what it returned, `stopped` or `failed` with the reason."""
    process.join()
    if result.is_file():
        return dict(read_json(result))
    return {"failed": f"ended with code {process.exitcode} without a word, see {result.with_suffix('.log').name}"}


def _guarded(work: Callable[..., Any], result: Path, known: dict[str, str], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the first decides about the others
    end_with_parent()
    with open(result.with_suffix(".log"), "w", encoding="utf-8", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        try:
            torch.set_num_threads(1)
            named.drawn_before.update(known)
            write_json(result, {"done": work(*arguments)})
        except Stopped as stopped:
            write_json(result, {"stopped": str(stopped)})
        except BaseException as error:
            traceback.print_exc()
            write_json(result, {"failed": f"{type(error).__name__}: {error}"[:2000]})
            sys.exit(1)
