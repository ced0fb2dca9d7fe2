"""How many processes are started on machines of all kinds, and the memory of processes that run together."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor

from cellbook import machine
from cellbook.machine import GIB, PeakMemory, free_memory, worker_count
from cellbook.runs import obtain
from cellbook.screens import extraction
from cellbook.study.processes import side_by_side

MIB = 2**20
V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(text))


def group(folder, limit, used, stored=(0, 0), version=2):
    """Files of a control group with a limit, what is used, and what of that are files, in bytes."""
    names = ("memory.max", "memory.current", "") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    total = "" if version == 2 else "total_"
    stat = f"anon 5\n{total}active_file {stored[0]}\n{total}inactive_file {stored[1]}\nworkingset 7\n"
    return {f"{folder}/{names[0]}": limit, f"{folder}/{names[1]}": used, f"{folder}/memory.stat": stat}


@pytest.fixture
def root(tmp_path):
    """A machine with 12 of 16 GiB free."""
    lines = f"MemTotal: {16 * MIB} kB\nMemFree: {MIB} kB\nMemAvailable: {12 * MIB} kB\nHugePages_Total: 0\n"
    write(tmp_path, {"proc/meminfo": lines})
    return tmp_path


def test_free_memory_is_that_of_the_machine_where_nothing_else_limits_it(root):
    assert free_memory(root) == 12 * GIB
    write(root, {"proc/self/cgroup": "3:cpu,cpuacct:/a\n0::/a/b\n", **group(f"{V2}/a/b", "max", 3 * GIB)})
    assert free_memory(root) == 12 * GIB
    write(root, {"proc/self/cgroup": "4:memory:/\n", **group(V1, 2**63 - 4096, 3 * GIB, version=1)})
    assert free_memory(root) == 12 * GIB


def test_the_tightest_group_counts_and_files_in_memory_are_free(root):
    write(root, {"proc/self/cgroup": "0::/a/b\n"})
    write(root, group(f"{V2}/a/b", "max", GIB) | group(f"{V2}/a", 8 * GIB, 6 * GIB, (GIB, GIB // 2)))
    assert free_memory(root) == 3.5 * GIB
    write(root, group(f"{V2}/a/b", 2 * GIB, 3 * GIB))  # for a moment more than the limit
    assert free_memory(root) == 0


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("path", ["/", "/host/its-name", "/../other"])
def test_a_container_sees_its_limit_at_the_top_whatever_the_host_calls_it(root, version, path):
    write(root, {"proc/self/cgroup": f"7:cpuset:/\n{'4:hugetlb,memory' if version == 1 else '0:'}:{path}\n"})
    write(root, group(V1 if version == 1 else V2, 4 * GIB, GIB, (0, GIB // 4), version))
    assert free_memory(root) == 3.25 * GIB


@pytest.mark.parametrize("text", ["", "MemTotal: 1 kB\n", "nonsense\n"])
def test_where_free_memory_is_not_told_it_is_all_there_is(tmp_path, text):
    write(tmp_path, {"proc/meminfo": text})
    assert free_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("cores", "free", "gib", "wanted"),
    [(16, 8, 1.5, 5), (16, 8, 2.0, 4), (16, 64, 1.5, 16), (2, 64, 1.5, 2), (16, 1, 1.5, 1), (16, 0, 1.5, 1)],
)
def test_as_many_workers_as_cores_and_memory_bear(monkeypatch, cores, free, gib, wanted):
    monkeypatch.setattr(machine, "cpu_count", lambda: cores)
    monkeypatch.setattr(machine, "free_memory", lambda: free * GIB)
    monkeypatch.setattr(machine, "_memory_of_processes", lambda: [(GIB, 0)])
    assert worker_count(gib) == wanted


def test_cores_decide_where_memory_is_not_known_and_idle_workers_make_room(monkeypatch):
    monkeypatch.setattr(machine, "cpu_count", lambda: 16)
    monkeypatch.setattr(machine, "free_memory", lambda: None)
    assert worker_count(2.0) == 16
    monkeypatch.setattr(machine, "free_memory", lambda: 4 * GIB)
    monkeypatch.setattr(machine, "_memory_of_processes", lambda: [(9 * GIB, 0), (2 * GIB, GIB), (4 * GIB, GIB)])
    assert worker_count(2.0) == 4


def test_whoever_starts_processes_asks_for_their_number(monkeypatch, tmp_path):
    asked = []

    def one(gib):
        asked.append(gib)
        return 1

    monkeypatch.setattr("cellbook.study.processes.worker_count", one)
    monkeypatch.setattr("cellbook.study.processes.Parallel", None)
    assert side_by_side(max, [(1, 2), (4, 3)], worth=True, gib=5) == [2, 4]
    monkeypatch.setattr(extraction, "worker_count", one)
    monkeypatch.setattr(extraction, "_work", lambda *arguments: asked.append(arguments[3]) or 1 / 0)
    fields = pd.DataFrame({"Metadata_plate": ["p"], **{f"path_{c}": ["x.tif"] for c in ("DNA", "Tubulin", "Actin")}})
    with pytest.raises(ZeroDivisionError):
        extraction.extract_fields(fields, tmp_path / "out", progress=False)
    assert asked == [5, extraction.PROCESS, 1]


# --- peak memory ----------------------------------------------------------------------------------------------------

HOLD = "import sys, time; held = bytearray(b'x') * (int(sys.argv[1]) << 20); print(flush=True); time.sleep(600)"


@pytest.fixture
def _nobody_else():
    """No idle workers of earlier tests below this process."""
    get_reusable_executor(max_workers=1).shutdown(wait=True)


def hold(*sizes):
    """Processes that hold so much memory (MiB) at the same time, for two looks at them."""
    started = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(size)], stdout=subprocess.PIPE, text=True) for size in sizes
    ]
    try:
        for process in started:
            process.stdout.readline()
        time.sleep(2.5 * machine.PAUSE)
    finally:
        for process in started:
            process.kill()
            process.communicate()


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are seen on Linux alone")


@linux
@pytest.mark.usefixtures("_nobody_else")
def test_memory_of_processes_that_run_together_is_added_up(monkeypatch):
    monkeypatch.setattr(machine, "PAUSE", 0.2)
    monkeypatch.setattr(machine, "SHARE", 1)
    with PeakMemory() as alone:
        time.sleep(0.1)
    with PeakMemory() as memory:
        hold(200, 150)
    assert 350 <= memory.mib - alone.mib <= 350 + 100
    assert memory.processes - alone.processes == 2


@linux
@pytest.mark.usefixtures("_nobody_else")
def test_memory_of_this_process_between_two_looks_counts_once_it_is_more_than_ever(monkeypatch):
    monkeypatch.setattr(machine, "PAUSE", 600)
    own = machine._own_peaks()[0]
    with PeakMemory() as memory:
        time.sleep(0.2)
        some = bytearray(b"x") * ((own + 100) << 20)
        del some
    assert own + 100 <= memory.mib <= 2 * own + 400
    with PeakMemory() as later:
        time.sleep(0.2)
    assert later.mib < own + 100


def test_the_whole_tree_is_counted_what_it_shares_once_and_others_not(tmp_path):
    me, page = os.getpid(), os.sysconf("SC_PAGE_SIZE")
    for pid, parent, name in ((me, 1, "py"), (71, me, "a) S 1 (b"), (72, 71, "c"), (73, 1, "other")):
        write(tmp_path, {f"{pid}/stat": f"{pid} ({name}) S {parent} 0 0", f"{pid}/statm": f"99 {pid % 50 + 9} 4 0"})
    write(tmp_path, {"74/stat": f"74 (gone) S {me}", "75/stat": "", "self": "", "76/stat": "76 (z) Z x"})
    # One that is being started still is its parent, which is counted already.
    write(tmp_path, {"77/stat": "77 (c) S 72 0 0", "77/statm": f"99 {72 % 50 + 9} 4 0"})
    pages = [(me % 50 + 9, 4), (71 % 50 + 9, 4), (72 % 50 + 9, 4)]
    assert machine._memory_of_processes(tmp_path) == [(page * a, page * b) for a, b in pages]
    assert machine._memory_of_processes(tmp_path / "none") == []


def test_without_processes_to_be_seen_it_is_the_own_peak_and_that_of_the_largest_child(monkeypatch):
    monkeypatch.setattr(machine, "_memory_of_processes", list)
    with PeakMemory() as memory:
        hold(200)
    assert memory.processes == 0
    assert memory.mib == sum(machine._own_peaks())
    assert machine._own_peaks()[1] >= 200


@linux
@pytest.mark.usefixtures("_nobody_else")
def test_the_record_of_a_run_tells_of_all_its_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PAUSE", 0.2)
    monkeypatch.setattr(machine, "SHARE", 1)
    run = obtain(tmp_path, "toy", 1, {}, "data", lambda folder: hold(300))
    assert run.record["processes"] >= 2
    assert run.record["peak_memory_mib"] >= 300 + 50


FAULTS = """
import resource
import numpy as np
from cellbook.machine import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(5_000_000)  # 40 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

faults()
print(faults())
with kept_memory():
    with kept_memory():
        faults()
    print(faults())
    held = resident()
print(held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told to keep memory")
def test_arrays_take_the_memory_of_those_before_them_and_it_is_given_back():
    # Without larger pages, of which a fault brings many.
    environment = os.environ | {"GLIBC_TUNABLES": "", "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=environment)
    anew, kept, given_back = map(float, done.stdout.split())
    assert kept < 0.1 * anew
    assert given_back > 30  # MiB
