"""A screen plate by plate: whoever makes the plates, and whatever breaks in between, the products are the same."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from cellbook import profiles
from cellbook.errors import CellbookError
from cellbook.features import classical
from cellbook.screens import bbbc021, extraction
from cellbook.screens.crops import make_settings
from cellbook.screens.simulator import preset, simulate_fields
from cellbook.study import plates
from cellbook.study.cluster import crew
from cellbook.study.encoders import Encoder
from cellbook.study.plates import PROFILES, RECORD, REPORT, folder_of, make_plates

pytest.importorskip("tifffile")

FIELD = (240, 320)
SETTINGS = make_settings(field_size=FIELD, size=40)
NAMES = ["Week1_1", "Week1_2", "Week2_1", "Week2_2"]
CLASSICAL = Encoder(device="cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screen") / "images"
    simulate_fields(preset("smoke"), folder, FIELD, sites=2, plates=NAMES)
    return folder


@pytest.fixture(scope="module")
def fields(images):
    return extraction.labelled_fields(bbbc021.image_table(images), images, bbbc021.moa_table(images))


@pytest.fixture(scope="module")
def serial(fields, tmp_path_factory):
    out = tmp_path_factory.mktemp("serial") / "out"
    make_plates(fields, out, SETTINGS, CLASSICAL)
    return out


def contents(out):
    """Every file below a folder with its bytes; locks and work of the moment left out."""
    found = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def test_plates_give_the_profiles_that_the_whole_screen_gives(fields, serial, tmp_path):
    cells = extraction.extract_fields(fields, tmp_path / "cells", workers=1, progress=False, **asdict(SETTINGS)).open()
    expected = profiles.to_wells(classical(cells))
    found = profiles.read_profiles(serial / PROFILES)
    assert list(found["Metadata_plate"].unique()) == NAMES
    for name in ("plate", "well", "compound", "concentration", "moa", "batch", "cell_count"):
        assert found[f"Metadata_{name}"].fillna("none").tolist() == expected[f"Metadata_{name}"].fillna("none").tolist()
    assert profiles.features(found) == profiles.features(expected)
    np.testing.assert_allclose(profiles.matrix(found), profiles.matrix(expected), rtol=2e-4, atol=1e-5)


def test_a_killed_worker_costs_no_plate_and_no_byte(fields, serial, tmp_path):
    distributed = pytest.importorskip("distributed")
    out, killed = tmp_path / "out", []

    def kill():  # whoever holds the lock of a plate is in the middle of it
        while not killed:
            for lock in (out / "plates").glob(".*.lock"):
                try:
                    word = lock.read_text().split()
                    if len(word) == 4 and any(
                        (out / "plates").glob(f"{lock.name.removesuffix('.lock')}-*/cells.parts")
                    ):
                        os.kill(int(word[1]), signal.SIGKILL)
                        killed.append((int(word[1]), lock.name.removeprefix(".").removesuffix(".lock")))
                        return
                except OSError:  # gone between two looks
                    continue
            time.sleep(0.002)

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        with distributed.Client(cluster) as client:
            before = set(client.run(os.getpid).values())
        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        report = make_plates(fields, out, SETTINGS, CLASSICAL, scheduler=cluster.scheduler_address)
        thread.join(10)
    (pid, plate) = killed[0]
    assert pid in before
    assert plate in NAMES
    assert report["status"].tolist() == ["done"] * len(NAMES)
    assert not pd.read_parquet(out / PROFILES).duplicated(["Metadata_plate", "Metadata_well"]).any()
    assert contents(out) == contents(serial)


def test_only_plates_that_are_not_whole_are_made_again(fields, serial, tmp_path, monkeypatch):
    out = shutil.copytree(serial, tmp_path / "out")
    shutil.rmtree(out / "plates" / "Week1_2")
    damaged = out / "plates" / "Week2_1" / PROFILES
    damaged.write_bytes(damaged.read_bytes()[:-1])
    cut, extract_fields = [], extraction.extract_fields

    def noted(some, *rest, **how):
        cut.append(some["Metadata_plate"].iloc[0])
        return extract_fields(some, *rest, **how)

    monkeypatch.setattr(extraction, "extract_fields", noted)
    make_plates(fields, out, SETTINGS, CLASSICAL)
    assert cut == ["Week1_2", "Week2_1"]
    assert contents(out) == contents(serial)
    relabelled = fields.assign(Metadata_moa=fields["Metadata_moa"].where(fields["Metadata_plate"] != "Week2_2", "new"))
    make_plates(relabelled, out, SETTINGS, CLASSICAL)
    assert cut[2:] == ["Week2_2"]
    assert set(pd.read_parquet(out / PROFILES).query("Metadata_plate == 'Week2_2'")["Metadata_moa"]) == {"new"}


def test_a_plate_that_was_stopped_goes_on_with_its_fields(fields, serial, tmp_path, monkeypatch):
    rows = fields[fields["Metadata_plate"] == "Week1_1"]

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(plates, "well_profiles", stopped)
        with pytest.raises(KeyboardInterrupt):
            make_plates(rows, tmp_path / "out", SETTINGS, CLASSICAL, scratch=tmp_path / "scratch")
    assert not folder_of(tmp_path / "out", "Week1_1").exists()
    with monkeypatch.context() as patched:  # what was cut is not cut again
        patched.setattr(extraction, "_cut", stopped)
        make_plates(rows, tmp_path / "out", SETTINGS, CLASSICAL, scratch=tmp_path / "scratch")
    assert not list((tmp_path / "scratch").iterdir())
    mine, whole = (contents(folder_of(out, "Week1_1")) for out in (tmp_path / "out", serial))
    assert mine == whole


def test_damaged_plates_are_named_at_the_end_and_made_once_they_are_mended(images, serial, tmp_path, run_main):
    broken = shutil.copytree(images, tmp_path / "images")
    plate = sorted(broken.rglob("Week1_2/*.tif"))
    for path in [*plate, sorted(broken.rglob("Week2_1/*.tif"))[0]]:
        path.write_bytes(path.read_bytes()[:100])
    words = ("plates", broken, tmp_path / "out", "--field-size", "240x320", "--size", 40, "--device", "cpu")
    code, out, err = run_main(*words)
    assert code == 1
    assert "plates: 3 done, 1 failed" in out
    assert "failed: plate Week1_2: no cell in" in err
    assert "fields of plate Week2_1: " in err
    table = pd.read_parquet(tmp_path / "out" / PROFILES)
    assert set(table["Metadata_plate"]) == set(NAMES) - {"Week1_2"}
    report = pd.read_csv(tmp_path / "out" / REPORT)
    assert report["status"].tolist() == ["done", "failed", "done", "done"]
    assert report["failed_fields"].tolist() == [0, 0, 1, 0]
    for path in plate:
        shutil.copy(images / path.relative_to(broken), path)
    code, out, _ = run_main(*words)
    assert code == 1
    assert "plates: 4 done, 0 failed" in out
    assert contents(tmp_path / "out" / "plates" / "Week1_2") == contents(serial / "plates" / "Week1_2")


def test_a_plate_that_its_workers_do_not_survive_is_named_and_the_others_are_made(
    fields, serial, tmp_path, monkeypatch
):
    def lost(work, names):
        yield from (
            (name, MemoryError("all workers died") if name == "Week1_2" else work(name)) for name in names[::-1]
        )

    monkeypatch.setattr(plates, "crew", lambda *_: nullcontext(lost))
    report = make_plates(fields, tmp_path / "out", SETTINGS, CLASSICAL).set_index("Metadata_plate")
    assert list(report.index) == NAMES
    assert report.loc["Week1_2", ["status", "note"]].tolist() == ["failed", "MemoryError: all workers died"]
    joined, whole = (pd.read_parquet(out / PROFILES) for out in (tmp_path / "out", serial))
    expected = whole[whole["Metadata_plate"] != "Week1_2"].reset_index(drop=True)
    pd.testing.assert_frame_equal(joined, expected)


def test_own_screens_are_named_by_plate(images, fields, tmp_path, run_main):
    own = fields[["Metadata_plate", "Metadata_well", "Metadata_compound"]].rename(columns=lambda name: name[9:])
    for channel in ("DNA", "Actin"):
        own[channel] = [os.path.relpath(path, images) for path in fields[f"path_{channel}"]]
    own.to_csv(tmp_path / "own.csv", index=False)
    words = ("plates", images, tmp_path / "out", "--table", tmp_path / "own.csv", "--channels", "DNA,Actin")
    words += ("--files", "DNA,Actin", "--plates", "Week1_2,Week2_2", "--encoder", "cell-count", "--size", 40)
    code, out, err = run_main(*words, "--pixel-um", 0.656)
    assert (code, err) == (0, "")
    found = pd.read_parquet(tmp_path / "out" / PROFILES)
    assert list(found["Metadata_plate"].unique()) == ["Week1_2", "Week2_2"]
    assert f"cells: {int(found['Cells_Count'].sum())}" in out


def test_features_of_wells_do_not_depend_on_which_wells_are_measured_together(fields, serial, tmp_path, monkeypatch):
    rows = fields[fields["Metadata_plate"] == "Week1_1"]
    monkeypatch.setattr(plates, "AT_ONCE", 1)
    make_plates(rows, tmp_path / "out", SETTINGS, CLASSICAL)
    one, many = (pd.read_parquet(folder_of(out, "Week1_1") / PROFILES) for out in (tmp_path / "out", serial))
    assert len(one) > 1
    np.testing.assert_allclose(profiles.matrix(one), profiles.matrix(many), rtol=2e-4, atol=1e-5)


def test_wells_are_measured_together_up_to_a_number_of_cells(monkeypatch):
    monkeypatch.setattr(plates, "AT_ONCE", 5)
    table = pd.DataFrame({"Metadata_plate": "p", "Metadata_well": list("abbacccccccd")})
    found = [rows.tolist() for rows in plates._wells_at_once(table)]
    assert found == [[0, 3, 1, 2], [4, 5, 6, 7, 8, 9, 10], [11]]


def test_plates_with_other_labels_are_joined_by_what_all_have(tmp_path):
    one = pd.DataFrame({"Metadata_plate": ["a"], "Metadata_moa": [None], "Metadata_own": [1], "f": [1.0]})
    two = pd.DataFrame({"Metadata_plate": ["b"], "Metadata_moa": ["x"], "f": [2.0]})
    one.to_parquet(tmp_path / "one.parquet", index=False)
    two.to_parquet(tmp_path / "two.parquet", index=False)
    plates.join([tmp_path / "one.parquet", tmp_path / "two.parquet"], tmp_path / "all.parquet")
    found = pd.read_parquet(tmp_path / "all.parquet")
    assert list(found) == ["Metadata_plate", "Metadata_moa", "f"]
    assert found["Metadata_moa"].isna().tolist() == [True, False]
    assert found["f"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["../up", ".", "..", ".hidden", "a/b", "Plate 1"])
def test_no_name_of_a_plate_leaves_its_folder(name, tmp_path):
    folder = folder_of(tmp_path, name)
    assert folder.resolve().parent == (tmp_path / "plates").resolve()
    assert not folder.name.startswith(".")


def test_what_would_mix_or_cannot_be_is_refused(fields, serial, tmp_path, monkeypatch):
    with pytest.raises(CellbookError, match="made with other settings, see"):
        make_plates(fields, serial, make_settings(field_size=FIELD, size=42), CLASSICAL)
    with pytest.raises(CellbookError, match="made with other encoder"):
        make_plates(fields, serial, SETTINGS, Encoder("random-network"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    with pytest.raises(CellbookError, match="something else than plates"):
        make_plates(fields, tmp_path / "taken", SETTINGS, CLASSICAL)
    with pytest.raises(CellbookError, match=r"letter\.txt holds something else than plates"):
        make_plates(fields, tmp_path / "taken" / "letter.txt", SETTINGS, CLASSICAL)
    with pytest.raises(CellbookError, match="fitted on all cells"):
        make_plates(fields, tmp_path / "out", SETTINGS, Encoder("pixel-pca"))
    with pytest.raises(CellbookError, match="lack Metadata_well"):
        make_plates(fields.drop(columns="Metadata_well"), tmp_path / "out", SETTINGS, CLASSICAL)
    with pytest.raises(CellbookError, match="give one"):
        make_plates(fields, tmp_path / "out", SETTINGS, CLASSICAL, workers=2, scheduler="tcp://127.0.0.1:1")
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(CellbookError, match="pip install distributed"):
        make_plates(fields, tmp_path / "out", SETTINGS, CLASSICAL, workers=2)
    assert (serial / "plates" / "Week1_1" / RECORD).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_device_that_is_not_there_is_refused_before_a_cell_is_cut(fields, tmp_path):
    with pytest.raises(CellbookError, match="device 'tpu' is not available"):
        make_plates(fields, tmp_path / "out", SETTINGS, Encoder(device="tpu"))
    assert list(tmp_path.iterdir()) == []


def test_workers_with_several_threads_are_refused(fields, tmp_path):
    distributed = pytest.importorskip("distributed")
    how = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None, "silence_logs": 50}
    with (
        distributed.LocalCluster(protocol="tcp", **how) as cluster,
        pytest.raises(CellbookError, match="--nthreads 1"),
    ):
        make_plates(fields, tmp_path / "out", SETTINGS, CLASSICAL, scheduler=cluster.scheduler_address)


SCHEDULER = """
import sys, distributed
how = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None, "silence_logs": 60}
print(distributed.LocalCluster(protocol="tcp", **how).scheduler_address, flush=True)
sys.stdin.read()
"""


def test_a_scheduler_that_goes_away_is_one_sentence():
    pytest.importorskip("distributed")
    command = [sys.executable, "-c", SCHEDULER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        with (
            pytest.raises(CellbookError, match="scheduler is gone"),  # its worker, and the task, are in its process
            crew(scheduler=address) as answers,
        ):
            list(answers(os._exit, [1]))
