"""The machine: how many processes it bears side by side, and how much memory processes take together."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from joblib import cpu_count

GIB = 2**30
# GiB of a process that trains or encodes on a CPU. Measured were 0.5 for a block of cells and its classical features,
# 0.6 for VAE+ as it is trained in minutes, 0.7 for features of ImageNet and 1.9 for VAE+ at the paper's size.
WORKER = 2.0
PAUSE = 0.5  # seconds between two looks at the memory of processes, at least
SHARE = 0.01  # of one core's time that is spent on looking, at most


# --- how many processes ---------------------------------------------------------------------------------------------


def worker_count(gib: float = WORKER) -> int:
    """Processes that cores and memory bear side by side, at least 1.

    Parameters
    ----------
    gib : memory that one of them needs

    Cores are those that this process may use. Idle processes that it has started make room for the next ones.
    """
    free = free_memory()
    if free is None:
        return max(1, int(cpu_count()))
    held = sum(resident - shared for resident, shared in _memory_of_processes()[1:])
    return max(1, min(int(cpu_count()), int((free + held) / (gib * GIB))))


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that further processes can take, on the machine and in every control group (a container's limit).

    What the kernel keeps of files counts as free. None where the system does not say.
    """
    return min((*_free_on_machine(root), *_free_in_groups(root)), default=None)


def _free_on_machine(root: Path) -> Iterator[int]:
    with suppress(OSError, ValueError, KeyError):
        yield 1024 * _numbers(root / "proc/meminfo")["MemAvailable:"]
        return
    with suppress(OSError, ValueError, AttributeError):  # all there is, where what is free is not told
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_in_groups(root: Path) -> Iterator[int]:
    """Limit less use of the groups of this process and of those that hold these, by version 1 or 2."""
    groups = []
    with suppress(OSError):
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, limit, used, total = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        elif not controllers:
            top, limit, used, total = "sys/fs/cgroup", "memory.max", "memory.current", ""
        else:
            continue
        inner = root / top / path.lstrip("/")  # not there in a container, which sees its own group at the top
        for group in (inner, *inner.parents[: len(Path(path.lstrip("/")).parts)]):
            with suppress(OSError, ValueError, KeyError):  # no limit: "max"
                room = int((group / limit).read_text()) - int((group / used).read_text())
                stored = _numbers(group / "memory.stat")
                yield max(0, room + stored[f"{total}active_file"] + stored[f"{total}inactive_file"])


def _numbers(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    return {name: int(number) for name, number, *_ in map(str.split, path.read_text().splitlines())}


# --- memory that is used again ---------------------------------------------------------------------------------------

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of glibc's mallopt
_keeping = [0]  # blocks of `kept_memory` that this process is in


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep the memory of arrays that are gone for those that follow; at the end of the block it is given back.

    By itself glibc gives that of a large array back at once, and the system clears every page of the next one: a third
    of a step of VAE+. Results do not change. Elsewhere than on Linux with glibc this does nothing.
    """
    _keeping[0] += 1
    if _keeping[0] == 1:
        _set_malloc({MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1})
    try:
        yield
    finally:
        _keeping[0] -= 1
        if not _keeping[0]:  # the values that glibc comes to by itself once it has freed large arrays
            _set_malloc({MMAP_MAX: 65_536, MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26})


def give_back() -> None:
    """Give what memory nobody uses back to the system, outside of `kept_memory`; of small arrays glibc keeps it."""
    if not _keeping[0]:
        _set_malloc({})


def _set_malloc(options: dict[int, int]) -> None:
    """Set options of glibc's malloc and give back to the system what nobody uses."""
    with suppress(AttributeError, TypeError, OSError):  # another library of C
        library = ctypes.CDLL(None)
        for name, value in options.items():
            library.mallopt(name, value)
        library.malloc_trim(0)


# --- how much memory ------------------------------------------------------------------------------------------------


class PeakMemory:
    """Peak memory of this process and of all that it starts, together, while the block lasts.

    A thread looks at them twice a second, less often where looking takes long. Memory that processes share is counted
    once; that of a GPU is not counted. Where processes cannot be seen (only Linux shows them as files), it is the peak
    of this process since its start and of the largest that it has started.

    Attributes
    ----------
    mib : peak so far (MiB)
    processes : the most processes that were there at a time; 0 where they cannot be seen
    """

    def __init__(self) -> None:
        self.mib, self.processes = 0, 0

    def __enter__(self) -> PeakMemory:
        self._before, self._over = _own_peaks()[0], Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        own, largest_child = _own_peaks()
        if not self.processes:
            self.mib = own + largest_child
        elif own > self._before:  # one between two looks; what is not new was before, or is of who started this process
            self.mib = max(self.mib, own)

    @property
    def record(self) -> dict[str, int]:
        """What records and stamps say of it."""
        return {"peak_memory_mib": self.mib, "processes": self.processes}

    def _watch(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            began = time.thread_time()
            if found := _memory_of_processes():
                together = sum(resident - shared for resident, shared in found) + max(shared for _, shared in found)
                self.mib, self.processes = max(self.mib, together >> 20), max(self.processes, len(found))
            pause = max(PAUSE, (time.thread_time() - began) / SHARE)


def _memory_of_processes(proc: Path = Path("/proc")) -> list[tuple[int, int]]:
    """Bytes in memory and those of them that can be shared, of this process and of all below it; empty if not known.

    Without those that are just being started: until they are another program they have the memory of who starts them.
    """
    started: dict[int, list[int]] = {}
    names: list[str] = []
    with suppress(OSError):
        names = [name for name in os.listdir(proc) if name.isdigit()]
    for name in names:
        with suppress(OSError, ValueError, IndexError):  # ended meanwhile
            parent = (proc / name / "stat").read_bytes().rpartition(b")")[2].split()[1]
            started.setdefault(int(parent), []).append(int(name))
    found, page = [], os.sysconf("SC_PAGE_SIZE") if names else 0
    family = [(os.getpid(), "")]
    for process, of_parent in family:
        with suppress(OSError, ValueError, IndexError):
            text = (proc / str(process) / "statm").read_text()
            family += [(child, text) for child in started.get(process, [])]
            if text != of_parent:
                _, resident, shared, *_ = map(int, text.split())
                found.append((resident * page, shared * page))
    return found


def _own_peaks() -> tuple[int, int]:
    """Peak memory (MiB) of this process since its start, and of the largest that it has started and that has ended."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    own, child = (resource.getrusage(who).ru_maxrss // unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own, child
