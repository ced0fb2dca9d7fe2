import json
import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from cellbook.configure import restore
from cellbook.errors import CellbookError
from cellbook.files import alone, sha256, write_atomically, write_json
from cellbook.runs import (
    ADDED,
    Run,
    choose_device,
    known_by,
    ledger,
    obtain,
    run_key,
    save_table,
    seeds,
    table_fingerprint,
    to_float32,
)


@dataclass(frozen=True)
class Config:
    size: int = 3
    names: tuple[str, ...] = ("a", "b")


def writer(calls):
    def make(folder):
        calls.append(folder)
        save_table(pd.DataFrame({"x": np.arange(3.0)}), folder / "numbers.parquet")

    return make


def test_a_run_is_computed_once_and_found_again(tmp_path):
    calls = []
    first = obtain(tmp_path, "toy", 1, Config(), "data", writer(calls))
    second = obtain(tmp_path, "toy", 1, Config(), "data", writer(calls))
    assert len(calls) == 1
    assert first == second
    assert first.products() == ["numbers.parquet"]
    assert second.table("numbers")["x"].tolist() == [0.0, 1.0, 2.0]


def test_a_table_comes_back_as_it_was_in_fewer_bytes_than_its_numbers(tmp_path):
    generator = np.random.default_rng(0)
    various = {f"feature_{i}": generator.normal(5, 1, 500).astype(np.float32) for i in range(200)}
    repeated = {f"vote_{i}": generator.integers(0, 3, 500) / 2 for i in range(200)}
    names = {"plate": [f"P{i % 7}" for i in range(500)], "well": np.arange(500), "kept": np.arange(500) % 2 == 0}
    empty = {"nothing": np.full(500, np.nan)}
    for parts, limit in ((various, 0.85 * 4), (repeated, 0.5 * 8)):
        table = pd.DataFrame(names | parts | empty)
        save_table(table, tmp_path / "table.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table, check_exact=True)
        assert (tmp_path / "table.parquet").stat().st_size < limit * 200 * 500
    save_table(table.iloc[:0], tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table.iloc[:0])


def test_whatever_decides_the_products_changes_the_key():
    key = run_key("toy", 1, {"size": 3}, "data")
    others = [("other", 1, {"size": 3}, "data"), ("toy", 2, {"size": 3}, "data"), ("toy", 1, {"size": 4}, "data")]
    others.append(("toy", 1, {"size": 3}, "other"))
    assert len({key, *(run_key(*other) for other in others)}) == 5


@dataclass(frozen=True)
class Later(Config):
    """The same configuration with a field that came when runs of it were there."""

    depth: int = field(default=2, metadata=ADDED)


def test_a_field_that_came_later_is_in_no_key_while_it_has_its_default(tmp_path):
    run = obtain(tmp_path, "toy", 1, Config(), "data", writer([]))
    calls = []
    assert obtain(tmp_path, "toy", 1, Later(), "data", writer(calls)) == run
    deep = obtain(tmp_path, "toy", 1, Later(depth=3), "data", writer(calls))
    assert (deep.record["config"], len(calls)) == ({"size": 3, "names": ["a", "b"], "depth": 3}, 1)
    assert restore(Later, run.record["config"]) == Later()
    assert known_by(Later(size=4, depth=2)) == {"size": 4, "names": ("a", "b")}


def test_device_is_recorded_but_not_in_the_key(tmp_path):
    run = obtain(tmp_path, "toy", 1, Config(), "data", writer([]), device="cpu")
    assert run.record["device"] == "CPU"
    assert run.key == run_key("toy", 1, {"size": 3, "names": ["a", "b"]}, "data")


def test_an_interrupted_run_leaves_no_finished_one_and_keeps_its_files(tmp_path):
    def killed(folder):
        (folder / "checkpoint-10.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, "toy", 1, Config(), "data", killed)
    assert not list(tmp_path.glob("*/run.json"))
    found = []

    def resumed(folder):
        found.extend(path.name for path in folder.iterdir())
        writer([])(folder)

    run = obtain(tmp_path, "toy", 1, Config(), "data", resumed)
    assert found == ["checkpoint-10.bin"]
    assert run.products() == ["numbers.parquet"]  # a checkpoint is no product


def test_what_is_refused_before_it_writes_anything_leaves_nothing(tmp_path):
    def refused(_):
        raise CellbookError("no such column")

    with pytest.raises(CellbookError, match="no such column"):
        obtain(tmp_path, "toy", 1, Config(), "data", refused)
    assert not list(tmp_path.iterdir())


def test_force_makes_it_anew(tmp_path):
    calls = []
    obtain(tmp_path, "toy", 1, Config(), "data", writer(calls))
    obtain(tmp_path, "toy", 1, Config(), "data", writer(calls), force=True)
    assert len(calls) == 2


def test_damage_names_missing_and_edited_products(tmp_path):
    run = obtain(tmp_path, "toy", 1, Config(), "data", writer([]))
    assert run.damage() == []
    path = run.path("numbers.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "other bytes" in run.damage()[0]
    path.unlink()
    assert "missing" in run.damage()[0]


def test_missing_product_is_named(tmp_path):
    run = obtain(tmp_path, "toy", 1, Config(), "data", writer([]))
    with pytest.raises(CellbookError, match=r"no product 'other\.parquet'.*numbers\.parquet"):
        run.table("other")


@pytest.mark.parametrize("hurt", ["record", "product", "half", "unreadable", "odd"])
def test_a_damaged_run_is_made_anew_when_it_is_asked_for(tmp_path, caplog, hurt):
    run = obtain(tmp_path, "toy", 1, Config(), "data", writer([]))
    if hurt == "record":
        (run.folder / "run.json").unlink()
    elif hurt == "product":
        (run.folder / "numbers.parquet").unlink()
    elif hurt == "half":
        (run.folder / "numbers.parquet").write_bytes(run.path("numbers.parquet").read_bytes()[:100])
    else:
        (run.folder / "run.json").write_text("{" if hurt == "unreadable" else "[1]")
    assert run.fault() is not None
    calls = []
    again = obtain(tmp_path, "toy", 1, Config(), "data", writer(calls))
    assert (len(calls), again.fault(), again.damage()) == (1, None, [])
    assert again.table("numbers")["x"].tolist() == [0.0, 1.0, 2.0]
    assert [record.getMessage().count("is damaged (") for record in caplog.records] == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [run.key]


def test_a_run_whose_maker_was_killed_before_it_was_moved_is_taken_as_it_is(tmp_path):
    run = obtain(tmp_path, "toy", 1, Config(), "data", writer([]))
    run.folder.rename(tmp_path / f"{run.key}.partial")
    calls = []
    assert obtain(tmp_path, "toy", 1, Config(), "data", writer(calls)).fault() is None
    assert calls == []


def test_leftovers_of_a_killed_process_are_no_products(tmp_path):
    key = run_key("toy", 1, {"size": 3, "names": ["a", "b"]}, "data")
    left = tmp_path / f"{key}.partial"
    (left / "folder").mkdir(parents=True)
    for name in (".numbers-x7.parquet", "old.parquet", "folder/a.npy"):
        (left / name).write_bytes(b"half")
    assert obtain(tmp_path, "toy", 1, Config(), "data", writer([])).products() == ["numbers.parquet"]


MAKER = """
import logging, sys, time
from pathlib import Path
from cellbook.runs import obtain
logging.basicConfig(level=logging.WARNING)
def make(folder):
    print("making", flush=True)
    for name in "abcdef":
        (folder / name).write_text(name * 1000)
        time.sleep(0.05)
run = obtain(sys.argv[1], "toy", 1, {"size": 1}, "data", make, force=sys.argv[2:] == ["force"])
assert run.fault() is None and len(run.products()) == 6, run.fault()
"""


def start(store, *words):
    command = [sys.executable, "-c", MAKER, str(store), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("words", [(), ("force",)])
def test_of_processes_that_want_one_run_at_once_one_makes_it_and_the_others_take_it(tmp_path, words):
    started = [start(tmp_path, *words) for _ in range(4)]
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 4, ended
    makers = [process.pid for process, (out, _) in zip(started, ended, strict=True) if "making" in out]
    said = [err for out, err in ended if "making" not in out]
    if not words:
        assert len(makers) == 1
    assert len(list(tmp_path.glob("*/run.json"))) == 1
    assert all(f"waiting for process {makers[0]} on {socket.gethostname()}" in err for err in said if err)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("toy-")] == []


def test_processes_killed_at_any_moment_leave_a_run_that_is_whole_or_made_anew(tmp_path):
    drawn = random.Random(0)
    for attempt in range(8):
        started = [start(tmp_path, *(("force",) if attempt % 2 else ())) for _ in range(2)]
        time.sleep(drawn.uniform(0.1, 2.0))
        for process in started:
            process.kill()
            process.communicate()
        # What is there is a finished run or is not taken for one.
        for record in tmp_path.glob("toy-*/run.json"):
            assert Run(record.parent).fault() is None
    last = start(tmp_path, "force")
    _, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    assert "waiting" not in err  # the locks of dead processes hold nobody up
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert Run(folder).damage() == []


def test_a_lock_names_its_process_and_is_refused_or_waited_for(tmp_path, caplog):
    place = tmp_path / "place"
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with alone(place) as waited:
        assert not waited
        assert (tmp_path / ".place.lock").read_text() == holder
        with pytest.raises(CellbookError, match=holder), alone(place, wait=False):
            pass
        waiter = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys\nfrom pathlib import Path\nfrom cellbook.files import alone\n"
                "with alone(Path(sys.argv[1])) as waited: print(waited)",
                str(place),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert holder in waiter.stderr.readline()
    assert waiter.communicate(timeout=60)[0] == "True\n"
    assert not (tmp_path / ".place.lock").exists()


def test_damaged_record_is_named(tmp_path):
    run = obtain(tmp_path, "toy", 1, Config(), "data", writer([]))
    (run.folder / "run.json").write_text("{")
    with pytest.raises(CellbookError, match=r"run\.json is not valid JSON"):
        _ = Run(run.folder).record


def test_unwritable_store_is_one_error(tmp_path):
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(CellbookError, match="cannot write"):
        obtain(tmp_path / "store", "toy", 1, Config(), "data", writer([]))


def test_failed_write_leaves_nothing_behind(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CellbookError, match="No space left on device"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_fingerprint_sees_values_names_and_order():
    table = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    same = table_fingerprint(table.copy())
    assert same == table_fingerprint(table)
    changed = [table.assign(a=[1.0, 2.5]), table.rename(columns={"a": "c"}), table.iloc[::-1]]
    assert len({same, *(table_fingerprint(other) for other in changed)}) == 4


def test_ledger_lists_finished_runs_once(tmp_path):
    run = obtain(tmp_path / "one", "toy", 1, Config(), "data", writer([]))
    obtain(tmp_path / "two", "toy", 1, Config(), "data", writer([]))
    table = ledger(tmp_path / "one", tmp_path / "two")
    assert table["key"].tolist() == [run.key]
    assert ledger(tmp_path / "nothing").empty


@pytest.mark.parametrize("device", ["meta", "mps:9", "gpu", "cuda:99", ""])
def test_a_device_that_cannot_train_is_refused(device):
    with pytest.raises(CellbookError, match=f"device '{device}' is not available here"):
        choose_device(device)


def test_seeds_count_up_and_refuse_none():
    assert seeds(5, 3) == [5, 6, 7]
    with pytest.raises(CellbookError, match="at least 1"):
        seeds(0, 0)


def test_json_is_written_whole_and_readable_by_others(tmp_path):
    write_json(tmp_path / "a.json", {"name": "µ"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "µ"}
    assert len(sha256(tmp_path / "a.json")) == 64


def test_storage_in_single_precision_leaves_doses_findable():
    table = pd.DataFrame({"Metadata_concentration": [0.1, 3.0], "z0": [0.1, 3.0], "n": [1, 2]})
    kept = to_float32(table)
    assert (kept["Metadata_concentration"] == [0.1, 3.0]).all()
    assert kept.dtypes.astype(str).tolist() == ["float64", "float32", "int64"]
