"""Carried runs: what is packed comes back, what was tampered with is refused in a sentence, what is there stays."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from cellbook import carry
from cellbook.errors import CellbookError
from cellbook.files import sha256, write_json
from cellbook.runs import Run, obtain, save_table
from cellbook.training.checkpoints import steps_done


def made(store, seed=0, size=10):
    """A run with random weights, codes and wells."""
    rng = np.random.default_rng(seed)

    def make(folder):
        save_table(pd.DataFrame({"z": rng.standard_normal(size)}), folder / "codes.parquet")
        save_table(pd.DataFrame({"z": rng.standard_normal(3)}), folder / "wells.parquet")
        weights = {"w": torch.from_numpy(rng.standard_normal(8)).float(), "steps": torch.tensor(7)}
        save_file(weights, folder / "weights.safetensors")

    return obtain(store, "toy", 1, {"seed": seed}, "cells", make)


def stopped(store, key, steps, text="checkpoint"):
    """A training that was stopped after some steps."""
    folder = store / f"{key}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"history": torch.tensor([[steps - 2.0, 0.5]]), "recent": [torch.zeros(1)] * 2, "noise": torch.rand(9)}
    torch.save(content, folder / "checkpoint.pt")
    (folder / "checkpoint-course-000000000.parquet").write_text(text)
    (folder / "history.parquet").write_text("half written")
    return folder


@pytest.fixture
def out(tmp_path):
    """Two runs and a stopped training, packed."""
    store = tmp_path / "there"
    runs = [(made(store, 0), None), (made(store, 1), ["weights", "wells"])]
    carry.pack(runs, tmp_path / "out", [stopped(store, "toy-b", 5)])
    return tmp_path / "out"


def test_what_is_packed_comes_back_and_codes_that_stay_are_not_asked_for(out, tmp_path):
    there, store = tmp_path / "there", tmp_path / "here"
    told = carry.unpack(out, store)
    whole, thin = (Run(store / key) for key in told["new"])
    assert told == {"new": [made(there, 0).key, made(there, 1).key], "there": [], "begun": ["toy-b"], "further": []}
    assert whole.products() == ["codes.parquet", "weights.safetensors", "wells.parquet"]
    assert thin.products() == ["weights.safetensors", "wells.parquet"]
    for run in (whole, thin):
        assert run.fault() is None
        assert run.damage() == []
        origin = Run(there / run.key)
        pd.testing.assert_frame_equal(run.table("wells"), origin.table("wells"))
        before, after = (load_file(each.path("weights.safetensors")) for each in (origin, run))
        assert torch.equal(after["w"], before["w"].bfloat16())
        assert torch.equal(after["steps"], before["steps"])
    assert made(store, 1).record == thin.record  # asked for again, it is not made again
    assert {path.name for path in store.iterdir()} == {*told["new"], "toy-b.partial"}


def test_what_is_there_is_left_alone(out, tmp_path):
    store = tmp_path / "here"
    own = made(store, 0)
    before = own.record
    told = carry.unpack(out, store)
    assert (told["there"], len(told["new"])) == ([own.key], 1)
    assert own.record == before
    assert carry.unpack(out, store)["new"] == []


@pytest.mark.parametrize(("own", "kept"), [(None, False), (3, False), (5, True), (8, True)])
def test_a_stopped_training_never_replaces_one_of_more_steps(out, tmp_path, own, kept):
    store = tmp_path / "here"
    if own is not None:
        stopped(store, "toy-b", own, "own")
    told = carry.unpack(out, store)
    folder = store / "toy-b.partial"
    assert told["further" if kept else "begun"] == ["toy-b"]
    assert steps_done(folder / "checkpoint.pt") == (own if kept else 5)
    assert (folder / "checkpoint-course-000000000.parquet").read_text() == ("own" if kept else "checkpoint")
    assert (folder / "history.parquet").exists() == kept


def test_a_stopped_training_never_replaces_a_finished_one(tmp_path):
    run = made(tmp_path / "here")
    carry.pack([], tmp_path / "out", [stopped(tmp_path / "there", run.key, 5)])
    assert carry.unpack(tmp_path / "out", tmp_path / "here")["further"] == [run.key]
    assert not (tmp_path / "here" / f"{run.key}.partial").exists()


def test_a_checkpoint_that_cannot_be_read_gives_way(out, tmp_path):
    folder = stopped(tmp_path / "here", "toy-b", 8)
    (folder / "checkpoint.pt").write_text("broken")
    assert carry.unpack(out, tmp_path / "here")["begun"] == ["toy-b"]


def test_what_finds_no_room_is_named_and_smaller_ones_behind_it_come_in(tmp_path):
    store, out = tmp_path / "there", tmp_path / "out"
    small, large, huge, other, last = (made(store, seed, n) for seed, n in enumerate((10, 3000, 40_000, 3000, 10)))
    carry.pack([(large, None)], out)
    limit = (out / "carried-00.zip").stat().st_size + 1000  # of the small ones each takes more than that
    told = carry.pack([(run, None) for run in (small, large, huge, other, last)], out, archives=2, archive_bytes=limit)
    assert told["carried"] == [small.key, large.key, last.key]
    assert told["not carried"].keys() == {huge.key, other.key}
    assert f"more than the {limit} of an archive" in told["not carried"][huge.key]
    assert "no room in 2 archives" in told["not carried"][other.key]
    sizes = [path.stat().st_size for path in out.glob("carried-*.zip")]
    assert len(sizes) == 2
    assert max(sizes) <= limit
    assert carry.unpack(out, tmp_path / "here")["new"] == told["carried"]


def test_a_folder_is_packed_anew_and_none_of_its_old_archives_is_left(out, tmp_path):
    (out / "carried-07.zip").write_text("of an earlier lease")
    (out / "notes.txt").write_text("mine")
    assert carry.pack([], out) == {"carried": [], "begun": [], "not carried": {}}
    assert {path.name for path in out.iterdir()} == {"carried.json", "notes.txt"}
    assert carry.unpack(out, tmp_path / "here") == {"new": [], "there": [], "begun": [], "further": []}


def test_a_full_disk_leaves_nothing_that_could_be_taken_for_whole(out, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(CellbookError, match=r"cannot write .*out: No space left on device; free some space"):
        carry.pack([(made(tmp_path / "there"), None)], out)
    assert list(out.iterdir()) == []


# --- what was damaged or made up ------------------------------------------------------------------------------------


def rewrite(out, change):
    """Change the files of the only archive, by their names, and let the manifest have its checksum."""
    path = out / "carried-00.zip"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    manifest(out, lambda told: told["archives"].update({path.name: sha256(path)}))


def manifest(out, change):
    told = json.loads((out / "carried.json").read_text())
    write_json(out / "carried.json", change(told) or told)


def first(files):
    return next(name for name in files if name.endswith("wells.parquet"))


def another_seed(files):
    name = next(name for name in files if name.endswith("run.json"))
    files[name] = files[name].replace(b'"seed": 0', b'"seed": 5')


def outside_product(files):
    name = next(name for name in files if name.endswith("run.json"))
    files[name] = files[name].replace(b'"wells.parquet"', b'"../run.json"')


DAMAGE = {
    "no manifest": (lambda out: (out / "carried.json").unlink(), "holds no carried.json"),
    "no JSON": (lambda out: (out / "carried.json").write_text("{"), "is not valid JSON"),
    "a list": (lambda out: (out / "carried.json").write_text("[1]"), "is no list of runs and archives"),
    "no archives": (lambda out: manifest(out, lambda told: {"runs": told["runs"]}), "is no list of runs and archives"),
    "number as run": (lambda out: manifest(out, lambda told: told["runs"].append(3)), "is no list of runs"),
    "run above": (lambda out: manifest(out, lambda told: told["runs"].append("..")), "is no list of runs"),
    "run elsewhere": (lambda out: manifest(out, lambda told: told["runs"].append("../x")), "is no list of runs"),
    "archive elsewhere": (lambda out: manifest(out, lambda told: told["archives"].update({"/x": ""})), "is no list of"),
    "run that is not in": (lambda out: manifest(out, lambda told: told["runs"].append("toy-c")), "toy-c .* is damaged"),
    "training that is not in": (
        lambda out: manifest(out, lambda told: told["begun"].append("toy-c")),
        "cannot be read",
    ),
    "missing archive": (lambda out: (out / "carried-00.zip").unlink(), "is missing: bring all files"),
    "cut archive": (lambda out: (out / "carried-00.zip").write_bytes(b"PK"), "has another checksum"),
    "path upwards": (
        lambda out: rewrite(out, lambda files: files.update({"../x": b""})),
        "belongs to none of its runs",
    ),
    "path upwards within": (
        lambda out: rewrite(out, lambda files: files.update({f"{first(files).split('/')[0]}/../../x": b""})),
        "belongs to none of its runs",
    ),
    "absolute path": (lambda out: rewrite(out, lambda files: files.update({"/tmp/x": b""})), "belongs to none of its"),
    "path of Windows": (
        lambda out: rewrite(out, lambda files: files.update({f"{first(files).split('/')[0]}/..\\x": b""})),
        "belongs to none of its runs",
    ),
    "foreign run": (
        lambda out: rewrite(out, lambda files: files.update({"toy-x/run.json": b""})),
        "belongs to none of",
    ),
    "product of a stopped training": (
        lambda out: rewrite(out, lambda files: files.update({"toy-b.partial/wells.parquet": b""})),
        "belongs to none of its runs",
    ),
    "checkpoint below": (
        lambda out: rewrite(out, lambda files: files.update({"toy-b.partial/checkpoint/x": b""})),
        "belongs to none of its runs",
    ),
    "changed product": (
        lambda out: rewrite(out, lambda files: files.update({first(files): files[first(files)][::-1]})),
        "other bytes than the run wrote",
    ),
    "lost product": (
        lambda out: rewrite(out, lambda files: files.pop(first(files))),
        "product wells.parquet is missing",
    ),
    "foreign product": (
        lambda out: rewrite(out, lambda files: files.update({f"{first(files).split('/')[0]}/x": b""})),
        "its record and its files differ in x",
    ),
    "product outside": (lambda out: rewrite(out, outside_product), "is damaged"),
    "another run under its name": (lambda out: rewrite(out, another_seed), "its record is that of another run"),
    "broken checkpoint": (
        lambda out: rewrite(out, lambda files: files.update({"toy-b.partial/checkpoint.pt": b"x"})),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_was_damaged_or_made_up_is_refused_in_one_sentence_and_nothing_is_put_into_the_store(what, out, tmp_path):
    damage, message = DAMAGE[what]
    damage(out)
    store = tmp_path / "here"
    with pytest.raises(CellbookError, match=message) as caught:
        carry.unpack(out, store)
    assert "\n" not in str(caught.value)
    assert not store.exists() or list(store.iterdir()) == []
    assert not (tmp_path / "x").exists()


def test_an_archive_that_is_none_is_refused(out, tmp_path):
    path = out / "carried-00.zip"
    path.write_text("no archive")
    manifest(out, lambda told: told["archives"].update({path.name: sha256(path)}))
    with pytest.raises(CellbookError, match=r"carried-00\.zip is no archive of runs"):
        carry.unpack(out, tmp_path / "here")


def test_the_command_says_what_is_new(out, tmp_path, run_main):
    code, said, _ = run_main("runs", "import", out, "--store", tmp_path / "here")
    assert code == 0
    assert "2 runs are new, 0 were there\n1 trainings go on from where they were stopped, 0 are further" in said
    code, _, error = run_main("runs", "import", tmp_path / "there")
    assert code == 2
    assert error.startswith("error: ")
    assert "holds no carried.json: give the folder that `cellbook lease` wrote" in error
