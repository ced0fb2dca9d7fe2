"""Models that were trained for a page, on other cells: their codes are those of the training, wherever they lie."""

import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cellbook import profiles
from cellbook.book.trained import TRAINED, address, keep
from cellbook.cells import CellSet
from cellbook.cli.measure import place_of
from cellbook.errors import CellbookError
from cellbook.files import read_json, sha256, write_json
from cellbook.methods import find_method
from cellbook.study import models
from cellbook.training import train_run
from cellbook.training.loop import load_run

pytestmark = pytest.mark.usefixtures("one_thread")
SIDES = {"vae_plus": 68, "fair_cae": 32, "weakly_supervised": 32, "cytogan": 32, "vicreg": 32}


def blobs(side, n=96, channels=3):
    """Blobs of random widths, labelled as a small screen of two weeks."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side] - side / 2
    width = rng.uniform(3, 12, (n, channels, 1, 1))
    images = (40_000 * np.exp(-(y**2 + x**2) / width**2) + rng.integers(0, 3000, (n, channels, side, side))).astype(
        "u2"
    )
    well = np.arange(n) // 4
    table = pd.DataFrame(
        {
            "Metadata_compound": np.array(["DMSO", "taxol", "emetine", "alln"])[well % 4],
            "Metadata_concentration": 1.0,
            "Metadata_moa": "x",
            "Metadata_batch": np.array(["Week1", "Week2"])[well // 4 % 2],
            "Metadata_plate": np.array(["Week1_1", "Week2_1"])[well // 4 % 2],
            "Metadata_replicate": well // 8 % 3 + 1,
            "Metadata_well": [f"B{i:02d}" for i in well],
        }
    )
    return CellSet(images, table, ("DNA", "Tubulin", "Actin")[:channels], 0.5)


def trained(method, store):
    """A short training on blobs: what was trained on, configuration and run."""
    module, cells = find_method(method), blobs(SIDES[method])
    config = module.PRESETS["smoke"]
    config = module.resize(config, 6) if hasattr(module, "resize") else replace(config, iterations=6)
    if method == "cytogan":
        config = replace(config, side=SIDES[method])
    return cells, config, train_run(module, config, cells, store, "cpu")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A published page of one training that is in a store."""
    root = tmp_path_factory.mktemp("page")
    cells, config, run = trained("vae_plus", root / "store")
    folder = root / "results" / "mine" / "runs" / "mine-1"
    folder.mkdir(parents=True)
    keys = [run.key, "vae_plus-gone"]
    pd.DataFrame({"key": keys, "variant": "VAE/GAN", "repeat": [0, 1]}).to_parquet(folder / "trainings.parquet")
    return root, cells, config, run


@pytest.mark.parametrize("method", SIDES)
def test_codes_of_a_stored_model_are_those_of_its_training_whatever_labels_cells_have(method, tmp_path):
    cells, config, run = trained(method, tmp_path)
    module = find_method(method)
    pd.DataFrame({"key": [run.key], "variant": "model", "repeat": 0}).to_parquet(tmp_path / "trainings.parquet")
    (tmp_path / "results/p/runs/r").mkdir(parents=True)
    shutil.move(tmp_path / "trainings.parquet", tmp_path / "results/p/runs/r")
    model, weights = models.find("p/model", 0, tmp_path, tmp_path / "results")
    few = cells.select(np.arange(7))
    unlabelled = CellSet(few.images, pd.DataFrame({"Metadata_well": list("abcdefg")}), few.channels, few.pixel_um)
    before = torch.random.get_rng_state()
    found = profiles.matrix(models.encode(model, weights, unlabelled))
    assert torch.equal(before, torch.random.get_rng_state())
    expected = module.encode(load_run(module, config, cells, run, "cpu"), few)
    np.testing.assert_array_equal(found, expected.astype(found.dtype))
    untrained = module.encode(module.begin(config, cells, torch.device("cpu")), few)
    assert not np.allclose(found, untrained, atol=1e-4)


def test_an_archive_holds_the_same_model_and_the_same_bytes_twice(page, tmp_path):
    root, cells, _, run = page
    known = models.published(root / "results")
    assert known.to_numpy().tolist() == [["mine/VAE/GAN", 0, run.key], ["mine/VAE/GAN", 1, "vae_plus-gone"]]
    found = models.stored(known, root / "store")
    assert [model.key for model in found] == [run.key]
    sums = [models.pack(found, root / "store", tmp_path / name) for name in ("a.zip", "b.zip")]
    assert sums == [sha256(tmp_path / "a.zip")] * 2
    codes = [
        models.encode(*models.find("mine/VAE/GAN", 0, place, root / "results"), cells)
        for place in (root / "store", tmp_path / "a.zip")
    ]
    pd.testing.assert_frame_equal(*codes)


def test_a_name_that_no_page_has_and_a_place_that_is_not_there_are_told_apart(page, tmp_path):
    root, *_ = page
    with pytest.raises(CellbookError, match="mine/VAE is no model of a page: did you mean 'mine/VAE/GAN'"):
        models.find("mine/VAE", 0, root / "store", root / "results")
    with pytest.raises(CellbookError, match=r"there is no .*gone\.zip; give by --weights"):
        models.find("mine/VAE/GAN", 0, tmp_path / "gone.zip", root / "results")


def test_of_a_model_without_such_a_repeat_the_repeats_are_named(tmp_path):
    there = [models.Model(name, r, "k", "vae_plus", 1, {}, "c", "s", 1) for name in ("p/A", "p/B") for r in (0, 1)]
    with pytest.raises(CellbookError, match=r"has p/B \(repeat 0\), p/B \(repeat 1\); give"):
        models.choose("p/B", 9, there, tmp_path)


def test_weights_that_were_changed_are_refused(page, tmp_path):
    root, *_ = page
    found = models.stored(models.published(root / "results"), root / "store")
    models.pack(found, root / "store", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as good, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        bad.writestr(models.MANIFEST, good.read(models.MANIFEST))
        content = bytearray(good.read(found[0].file))
        content[-1] ^= 1
        bad.writestr(found[0].file, bytes(content))
    with pytest.raises(CellbookError, match="not those that were trained"):
        models.find("mine/VAE/GAN", 0, tmp_path / "bad.zip", root / "results")


@pytest.fixture
def kept(page, tmp_path):
    """The results of the page with the records of its trainings, and an archive of its models."""
    root, *_ = page
    shutil.copytree(root / "results", tmp_path / "results")
    folder = tmp_path / "results" / "mine"
    keep(folder, [root / "store"])
    models.pack(models.stored(models.published(root / "results"), root / "store"), root / "store", tmp_path / "a.zip")
    return tmp_path / "results", folder / TRAINED, tmp_path / "a.zip"


def test_an_archive_is_compared_with_the_checksums_that_are_published(kept, page, monkeypatch, run_main):
    results, records, archive = kept
    assert models.checksums(results) == {page[3].key: page[3].record["products"]["weights.safetensors"]["sha256"]}
    monkeypatch.setattr("cellbook.book.notebooks.ROOT", results.parent)
    (results.parent / "_toc.yml").touch()
    (results.parent / "book").mkdir()
    results.rename(results.parent / "book" / "results")
    assert run_main("weights", archive, "--check")[:2] == (0, "models: 1, 0 of them are not as published\n")
    records = results.parent / "book" / "results" / "mine" / TRAINED
    content = read_json(records)
    content[page[3].key]["products"]["weights.safetensors"]["sha256"] = "0" * 64
    write_json(records, content)
    code, out, _ = run_main("weights", archive, "--check")
    assert code == 1
    assert "mine/VAE/GAN (repeat 0): other bytes than were published" in out
    with pytest.raises(CellbookError, match="others than those of its page"):
        models.find("mine/VAE/GAN", 0, archive, records.parents[1])


@pytest.mark.parametrize("damage", ["byte", "absent", "empty"])
def test_a_damaged_archive_is_named_and_no_traceback(kept, page, damage, tmp_path):
    results, _, archive = kept
    bad = tmp_path / "bad.zip"
    if damage == "byte":
        content = bytearray(archive.read_bytes())
        with zipfile.ZipFile(archive) as good:
            (entry,) = (one for one in good.infolist() if one.filename != models.MANIFEST)
        content[entry.header_offset + entry.compress_size // 2] ^= 1
        bad.write_bytes(content)
    else:
        with zipfile.ZipFile(archive) as good, zipfile.ZipFile(bad, "w") as out:
            out.writestr(models.MANIFEST, good.read(models.MANIFEST) if damage == "absent" else "[]")
    if damage == "empty":
        with pytest.raises(CellbookError, match="no archive of models"):
            models.compare(bad, results)
    else:
        fault = "mine/VAE/GAN (repeat 0): its bytes are damaged or not there: get bad.zip anew"
        assert models.compare(bad, results) == ([fault], 1)


def test_weights_come_from_the_configured_address_where_there_are_no_runs(kept, tmp_path, monkeypatch, capsys):
    archive, address = kept[2], "https://example.org/models.zip"
    asked = []

    def fetch(url, target):
        asked.append(url)
        shutil.copyfile(archive, target)

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("cellbook.screens.locate.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("cellbook.screens.download.fetch", fetch)
    monkeypatch.setenv("CELLBOOK_OFFLINE", "1")
    assert place_of("runs") == tmp_path / "here" / "runs"  # no address is configured
    monkeypatch.setattr("cellbook.book.trained.address", lambda: address)
    with pytest.raises(CellbookError, match=f"CELLBOOK_OFFLINE forbids to fetch {address}"):
        place_of("runs")
    monkeypatch.delenv("CELLBOOK_OFFLINE")
    first, again = place_of("runs"), place_of(address)
    assert first == again
    assert first.read_bytes() == archive.read_bytes()
    assert asked == [address]  # once
    assert place_of("mine.zip") == tmp_path / "here" / "mine.zip"
    (tmp_path / "here" / "runs").mkdir()
    assert place_of("runs") == tmp_path / "here" / "runs"


def test_the_address_of_the_weights_is_configured_in_one_place_and_off(tmp_path, monkeypatch):
    assert address() == ""
    monkeypatch.setattr("cellbook.book.notebooks.ROOT", tmp_path)
    (tmp_path / "_toc.yml").touch()
    assert address() == ""
    (tmp_path / "_config.yml").write_text("weights:\n  url: https://example.org/m.zip\n", encoding="utf-8")
    assert address() == "https://example.org/m.zip"


def test_the_command_measures_cells_by_a_trained_model(page, tmp_path, run_main):
    root, cells, _, run = page
    cells.save(tmp_path / "cells")
    found = models.stored(models.published(root / "results"), root / "store")
    models.pack(found, root / "store", tmp_path / "a.zip")
    words = ("features", tmp_path / "cells", tmp_path / "wells.parquet", "--encoder", "mine/VAE/GAN")
    code, _, err = run_main(*words, "--weights", tmp_path / "a.zip", "--device", "cpu")
    assert (code, err) == (0, "")
    wells = pd.read_parquet(tmp_path / "wells.parquet")
    kept = run.table("wells")  # means and deviations of the same wells, by the training itself
    np.testing.assert_allclose(
        profiles.matrix(wells), profiles.matrix(kept)[:, : profiles.matrix(wells).shape[1]], atol=1e-5
    )
    code, _, err = run_main(*words, "--weights", tmp_path / "a.zip", "--repeat", "1")
    assert code == 2
    assert "has mine/VAE/GAN (repeat 0)" in err
    blobs(68, 12, channels=2).save(tmp_path / "two")
    code, _, err = run_main("features", tmp_path / "two", *words[2:], "--weights", tmp_path / "a.zip")
    assert code == 2
    assert "2 channels and 68 x 68 pixels" in err
