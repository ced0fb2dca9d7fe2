"""Trainings side by side: the same bits whatever the number of processes, names, errors, one thread each."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_info

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.files import write_json
from cellbook.methods import vae_plus
from cellbook.profiles import matrix
from cellbook.runs import Run
from cellbook.study.processes import side_by_side
from cellbook.study.trainings import Place, Training, told, train_all, under_one_another


@pytest.fixture
def _two_threads():
    """As on a machine with two cores, whatever the environment says."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def double(values):
    return 2 * values


def threads(_):
    return torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def write_to(values):
    values += 1
    return values.sum()


def refuse(number):
    raise CellbookError(f"number={number} is refused")


def some_cells():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2**16, (40, 3, 68, 68), dtype=np.uint16)
    table = pd.DataFrame({"Metadata_compound": [f"c{k % 5}" for k in range(40)], "Metadata_concentration": 1.0})
    return CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.65)


def read(training, run, cells, config):
    """What a study would keep: the history, and codes of all cells."""
    about = pd.DataFrame([{"key": run.key, "cells": len(cells), "config": config}])
    return {"history": run.table("history"), "about": about}, {"codes": matrix(run.table("codes"))}


TODO = [
    Training(model, repeat, "vae_plus", vae_plus.Config(model, repeat, iterations=3, batch=8, latent=8, width=8))
    for repeat in (0, 1)
    for model in ("vae", "ae")
]


@pytest.mark.usefixtures("_two_threads")
def test_a_training_is_the_same_bytes_in_one_process_and_in_two(tmp_path):
    cells = some_cells()
    found = {}
    for workers in (1, 2):
        place = Place(tmp_path / str(workers))
        tables, codes = train_all(TODO, {None: cells}, place, read, "as given", {}, workers=workers)
        assert list(codes) == ["vae|0|codes", "ae|0|codes", "vae|1|codes", "ae|1|codes"]
        assert tables["about"][["variant", "repeat", "cells", "config"]].to_numpy().tolist() == [
            [one.variant, one.repeat, 40, "as given"] for one in TODO
        ]
        found[workers] = place, tables, codes
    for one in TODO:
        first, second = (place.stored(one, cells) for place, *_ in found.values())
        for product in ("history.parquet", "codes.parquet", "weights.safetensors"):
            assert first.path(product).read_bytes() == second.path(product).read_bytes()
    pd.testing.assert_frame_equal(found[1][1]["history"], found[2][1]["history"], check_exact=True)
    assert torch.get_num_threads() == 2


def test_a_training_is_made_once_and_its_networks_give_its_codes(tmp_path):
    cells, place, one = some_cells(), Place(tmp_path), TODO[0]
    run = place.of(one, cells)
    made = (run.folder / "run.json").stat().st_mtime_ns
    assert place.of(one, cells) == run == place.stored(one, cells)
    assert (run.folder / "run.json").stat().st_mtime_ns == made
    np.testing.assert_array_equal(vae_plus.encode(place.state(one, cells), cells), matrix(run.table("codes")))
    Place(tmp_path, force=True).of(one, cells)
    assert (run.folder / "run.json").stat().st_mtime_ns > made


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("_two_threads")
def test_every_task_has_one_thread_and_results_keep_the_order_of_tasks(workers):
    assert side_by_side(double, [(k,) for k in range(7)], workers=workers) == list(range(0, 14, 2))
    assert side_by_side(threads, [(k,) for k in range(3)], workers=workers) == [(1, {1})] * 3
    assert torch.get_num_threads() == 2


def test_a_large_array_can_be_written_to_in_another_process_and_stays_as_it_was_here():
    values = np.zeros(400_000)
    assert side_by_side(write_to, [(values,), (values,)], workers=2) == [400_000, 400_000]
    assert not values.any()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_is_the_error_of_all(workers):
    with pytest.raises(CellbookError, match="number=1 is refused"):
        side_by_side(refuse, [(1,), (1,)], workers=workers)


def test_no_process_is_started_for_little_work_and_none_at_all_for_nothing(monkeypatch):
    monkeypatch.setattr("cellbook.study.processes.Parallel", None)
    assert side_by_side(double, [(1,), (2,)]) == [2, 4]
    assert side_by_side(double, [(1,)], workers=8, worth=True) == [2]
    assert side_by_side(double, [], worth=True) == []


def test_tables_without_rows_are_left_out():
    one, none = pd.DataFrame({"a": [1]}), pd.DataFrame()
    found = under_one_another([{"x": one, "y": none}, {"x": one, "z": none}, {"y": none}])
    assert list(found) == ["x"]
    assert found["x"]["a"].tolist() == [1, 1]


def test_what_an_older_record_does_not_tell_of_a_training_is_missing_and_no_error(tmp_path):
    write_json(tmp_path / "run.json", {"key": "a-1", "seconds": 2.5, "peak_memory_mib": 7, "products": {}})
    found = told(Run(tmp_path))
    assert (found["key"], found["seconds"], found["peak_memory_mib"]) == ("a-1", 2.5, 7)
    assert np.isnan([found["processes"], found["device"]]).all()


def test_workers_end_with_a_killed_parent(tmp_path):
    (tmp_path / "sleeping.py").write_text(
        "import os, pathlib, time\n"
        "def work(path):\n"
        "    pathlib.Path(path + '.new').write_text(str(os.getpid()))\n"
        "    os.replace(path + '.new', path)\n"
        "    time.sleep(600)\n"
    )
    code = (
        "from sleeping import work\nfrom cellbook.study.processes import side_by_side\n"
        f"side_by_side(work, [(r'{tmp_path}/{{}}'.format(i),) for i in 'ab'], workers=2)"
    )
    folders = os.pathsep.join([str(tmp_path), *sys.path])
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": folders})
    files, deadline = [tmp_path / name for name in "ab"], time.monotonic() + 120
    while not all(file.exists() for file in files) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [int(file.read_text()) for file in files]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()

    def alive(pid):
        stat = Path(f"/proc/{pid}/stat")  # nobody here may reap an orphan, which then stays as a zombie
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"

    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))
