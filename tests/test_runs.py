import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.files import sha256, write_atomically, write_json
from cellbook.runs import Run, ledger, obtain, run_key, save_table, seeds, table_fingerprint


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


def test_whatever_decides_the_products_changes_the_key():
    key = run_key("toy", 1, {"size": 3}, "data")
    others = [("other", 1, {"size": 3}, "data"), ("toy", 2, {"size": 3}, "data"), ("toy", 1, {"size": 4}, "data")]
    others.append(("toy", 1, {"size": 3}, "other"))
    assert len({key, *(run_key(*other) for other in others)}) == 5


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


def test_seeds_count_up_and_refuse_none():
    assert seeds(5, 3) == [5, 6, 7]
    with pytest.raises(CellbookError, match="at least 1"):
        seeds(0, 0)


def test_json_is_written_whole_and_readable_by_others(tmp_path):
    write_json(tmp_path / "a.json", {"name": "µ"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "µ"}
    assert len(sha256(tmp_path / "a.json")) == 64
