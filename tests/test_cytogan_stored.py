"""Cells that a stored model draws, through the command line: what they say of themselves, and what is refused."""

import shutil

import numpy as np
import pandas as pd
import pytest
from skimage.io import imread

from cellbook.cells import CellSet
from cellbook.files import read_json, write_json
from cellbook.methods import cytogan
from cellbook.methods.cytogan import Config
from cellbook.methods.cytogan.stored import load
from cellbook.pixels import channel_max
from cellbook.runs import Run
from cellbook.training import load_run, train_run

pytestmark = pytest.mark.usefixtures("one_thread")


def blobs(n=24, side=16, channels=("DNA", "Tubulin", "Actin")):
    """Bright squares on noise, of four treatments; two of these have one compound."""
    rng, kind = np.random.default_rng(0), np.arange(n) % 4
    images = rng.integers(0, 4000, (n, len(channels), side, side))
    for i, half in enumerate(2 + kind):
        images[i, :, side // 2 - half : side // 2 + half, side // 2 - half : side // 2 + half] += 30_000
    compound, dose = np.array(["DMSO", "emetine", "taxol", "taxol"])[kind], np.array([0.0, 1.0, 0.1, 10.0])[kind]
    table = pd.DataFrame({"Metadata_compound": compound, "Metadata_concentration": dose})
    return CellSet(images.astype(np.uint16), table, channels, 0.5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A store with a trained run of several models, by name."""
    store, made = tmp_path_factory.mktemp("runs"), {}
    told = {"condition": "both", "embedding": 3}
    kinds = {m: {"model": m} for m in ("lsgan", "bigan", "vae", "ae")} | {
        "began": {"model": "began", **told},
        "dose": {"condition": "dose"},
        "compound": {"condition": "compound"},
    }
    for name, changes in kinds.items():
        config = Config(**changes, side=16, width=2, latent=5, batch=4, iterations=2)
        made[name] = train_run(cytogan, config, blobs(), store, "cpu")
    return made


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "cells"
    blobs().save(folder)
    return folder


@pytest.mark.parametrize("name", ["lsgan", "began", "dose", "bigan"])
def test_a_model_loaded_without_its_cells_is_the_one_that_was_trained(runs, name):
    config = Config(**{k: v for k, v in runs[name].record["config"].items() if k != "course"})
    with_cells, (alone, like) = load_run(cytogan, config, blobs(), runs[name], "cpu"), load(runs[name], "cpu")
    np.testing.assert_array_equal(cytogan.encode(alone, blobs()), cytogan.encode(with_cells, blobs()))
    told = {"began": ("taxol", 0.1), "dose": (None, 10.0)}.get(name, ())
    np.testing.assert_array_equal(cytogan.sample(alone, 3, 1, *told), cytogan.sample(with_cells, 3, 1, *told))
    assert (like.channels, like.pixel_um) == (("DNA", "Tubulin", "Actin"), 0.5)
    if name != "lsgan" and "condition" in alone.networks:
        pd.testing.assert_frame_equal(
            alone.networks["condition"].treatments, with_cells.networks["condition"].treatments
        )


def test_samples_are_a_cell_set_that_says_where_each_comes_from(run_main, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("cellbook.methods.cytogan.stored.BLOCK", 4)
    code, out, err = run_main("sample", runs["lsgan"].folder, "--n", 10, "--seed", 3, "--out", tmp_path / "made")
    made = CellSet.open(tmp_path / "made")
    made.verify()
    assert (code, err) == (0, "")
    assert out.splitlines() == ["cells: 10", f"fingerprint: {made.fingerprint}", f"folder: {tmp_path / 'made'}"]
    assert (made.channels, made.pixel_um, made.images.dtype) == (("DNA", "Tubulin", "Actin"), 0.5, np.uint16)
    wanted = cytogan.sample(load(runs["lsgan"], "cpu")[0], 10, 3)
    np.testing.assert_allclose(made.images, 65_535 * wanted, atol=1.5)  # blocks round apart in the last bit
    assert made.table["Metadata_draw"].tolist() == list(range(10))
    said = made.table.drop(columns="Metadata_draw").drop_duplicates().to_dict("records")
    assert said == [{"Metadata_seed": 3, "Metadata_run": runs["lsgan"].key, "Metadata_model": "lsgan"}]


def test_a_run_is_found_by_its_key_and_the_same_words_draw_the_same_cells(run_main, runs, tmp_path):
    key, store = runs["lsgan"].key, runs["lsgan"].folder.parent
    words = ["sample", key, "--store", store, "--n", 3, "--out"]
    first, again = (run_main(*words, tmp_path / name)[1].splitlines()[1] for name in ("a", "b"))
    other = run_main(*words, tmp_path / "c", "--seed", 1)[1].splitlines()[1]
    assert first == again != other
    code, _, err = run_main(*words, tmp_path / "a")
    assert (code, "pass --force or another name" in err) == (2, True)
    assert run_main(*words, tmp_path / "a", "--seed", 1, "--force")[1].splitlines()[1] == other


@pytest.mark.parametrize(
    ("name", "told", "columns"),
    [
        ("began", ["--compound", "taxol", "--concentration", "0.1"], ["taxol", 0.1]),
        ("dose", ["--concentration", "10"], [None, 10.0]),
        ("compound", ["--compound", "taxol"], ["taxol", None]),
    ],
)
def test_a_conditional_model_is_told_a_treatment_which_stands_in_the_table(
    run_main, runs, tmp_path, name, told, columns
):
    code, _, err = run_main("sample", runs[name].folder, "--n", 2, "--out", tmp_path / "made", *told)
    assert (code, err) == (0, "")
    table = CellSet.open(tmp_path / "made").table
    for column, value in zip(("Metadata_compound", "Metadata_concentration"), columns, strict=True):
        assert column not in table or table[column].isna().all() if value is None else (table[column] == value).all()


@pytest.mark.parametrize("name", ["bigan", "vae", "ae", "began"])
def test_between_two_cells_of_ones_own_lie_the_images_of_the_codes_on_the_way(run_main, runs, own, tmp_path, name):
    told = ["--compound", "taxol", "--concentration", "0.1"] if name == "began" else []
    words = ["interpolate", runs[name].folder, "--cells", own, "--from", 2, "--to", 5, "--steps", 4]
    code, out, err = run_main(*words, "--out", tmp_path / "way", *told)
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["cells: 4", f"strip: {tmp_path / 'way' / 'strip.png'}, the two cells at its ends"]
    made, state = CellSet.open(tmp_path / "way"), load(runs[name], "cpu")[0]
    made.verify()
    codes = cytogan.encode(state, blobs().select([2, 5]))
    way = cytogan.slerp(*codes, 4)
    wanted = cytogan.redraw(state, way, *(("taxol", 0.1) if told else ()))
    np.testing.assert_allclose(made.images, 65_535 * wanted, atol=1.5)  # blocks round apart in the last bit
    again = cytogan.reconstruct(state, blobs().select([2, 5]), *(("taxol", 0.1) if told else ()))
    np.testing.assert_allclose(made.images[[0, -1]], 65_535 * again, atol=1.5)
    table = made.table
    np.testing.assert_allclose(table["Metadata_share"], [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(table["Metadata_length"], np.linalg.norm(way, axis=1))
    assert table[["Metadata_from", "Metadata_to", "Metadata_path"]].drop_duplicates().to_numpy().tolist() == [
        [2, 5, "slerp"]
    ]
    strip = imread(tmp_path / "way" / "strip.png")
    assert strip.shape == (16, 16 * 6, 3)
    end = channel_max(blobs().select([5]).to("cpu"))[0].numpy()
    np.testing.assert_array_equal(strip[:, -16:], np.round(255 * end).transpose(1, 2, 0))


def test_a_straight_way_is_not_an_arc(run_main, runs, own, tmp_path):
    words = ["interpolate", runs["bigan"].folder, "--cells", own, "--from", 2, "--to", 5]
    run_main(*words, "--out", tmp_path / "arc")
    code, _, _ = run_main(*words, "--out", tmp_path / "line", "--path", "straight")
    assert code == 0
    arc, line = (CellSet.open(tmp_path / name).table["Metadata_length"] for name in ("arc", "line"))
    np.testing.assert_allclose(arc.iloc[[0, -1]], line.iloc[[0, -1]])
    assert (line.iloc[1:-1] < arc.iloc[1:-1]).all()


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("ae", ["sample"], "model 'ae' has no distribution of codes"),
        ("lsgan", ["sample", "--compound", "taxol"], "the model takes no condition"),
        ("dose", ["sample"], "concentration=None: condition='dose' takes concentration"),
        ("dose", ["sample", "--concentration", "3"], "concentration=3.0 never occurred in training: there is"),
        ("began", ["sample", "--compound", "taxol", "--concentration", "1"], "never occurred in training"),
        ("lsgan", ["interpolate", "--from", "0", "--to", "1"], "model 'lsgan' makes no image of a cell"),
        ("bigan", ["interpolate", "--from", "0", "--to", "24"], "0 to 24 reach outside the set of 24 cells"),
        (
            "bigan",
            ["interpolate", "--from", "0", "--to", "1", "--path", "bent"],
            "path='bent' is none of slerp, straight",
        ),
    ],
)
def test_what_a_model_cannot_do_ends_in_one_sentence_and_nothing_is_written(
    run_main, runs, own, tmp_path, name, words, message
):
    command, *rest = words
    cells = ["--cells", own] if command == "interpolate" else []
    code, out, err = run_main(command, runs[name].folder, *rest, *cells, "--out", tmp_path / "made")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (blobs(side=24), "24 x 24 pixels of DNA/Tubulin/Actin, run"),
        (blobs(channels=("DNA", "Actin")), "16 x 16 pixels of DNA/Actin"),
        (blobs(channels=("DNA", "Actin", "Tubulin")), "trained on 16 x 16 pixels of DNA/Tubulin/Actin: crop them anew"),
    ],
)
def test_cells_of_another_size_or_with_other_channels_are_refused(run_main, runs, tmp_path, cells, message):
    cells.save(tmp_path / "own")
    words = ["--cells", tmp_path / "own", "--from", 0, "--to", 1, "--out", tmp_path / "made"]
    code, _, err = run_main("interpolate", runs["bigan"].folder, *words)
    assert (code, err.count("\n"), message in err) == (2, 1, True), err


def test_a_folder_that_is_no_such_run_is_named(run_main, runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs["lsgan"].folder, copy)
    out = ["--out", tmp_path / "made"]
    code, _, err = run_main("sample", "nothing", "--store", runs["lsgan"].folder.parent, *out)
    assert (code, "nothing is neither the folder of a run nor its key" in err, "cytogan-" in err) == (2, True, True)
    record = read_json(copy / "run.json")
    for change, message in (
        ({"method": "vae_plus"}, "is of vae_plus, version"),
        ({"method_version": 0}, "version 0: take one of cytogan, version"),
    ):
        write_json(copy / "run.json", record | change)
        code, _, err = run_main("sample", copy, *out)
        assert (code, message in err) == (2, True)
    older = {name: value for name, value in record.items() if name not in ("channels", "pixel_um")}
    write_json(copy / "run.json", older)
    assert load(Run(copy), "cpu")[1].channels == ("DNA", "Tubulin", "Actin")
    (copy / "weights.safetensors").unlink()
    code, _, err = run_main("sample", copy, *out)
    assert (code, "is no finished run (its product weights.safetensors is missing)" in err) == (2, True)
