"""Trainings whose generator comes to draw one cell again and again: where they end, and what is left of them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods import cytogan
from cellbook.methods.cytogan import Config
from cellbook.training import load_kept, load_run, train, train_run
from cellbook.training.checkpoints import steps_done
from cellbook.training.state import CHECKPOINT

GIVEN = {"side": 16, "width": 2, "latent": 5, "batch": 4, "iterations": 9}
WORDS = [word for name, value in GIVEN.items() for word in ("-p", f"{name}={value}")]
STEP = cytogan.step
pytestmark = pytest.mark.usefixtures("one_thread")


def squares(dose=1.0, n=24):
    """Bright squares of four widths on noise, the last of two compounds; and which they are."""
    rng, kind = np.random.default_rng(0), np.arange(n) % 4
    images = rng.integers(0, 4000, (n, 3, 16, 16))
    for i, half in enumerate(2 + kind):
        images[i, :, 8 - half : 8 + half, 8 - half : 8 + half] += 30_000
    compound = np.where(kind == 3, "taxol", "DMSO")
    table = pd.DataFrame({"Metadata_compound": compound, "Metadata_concentration": np.where(kind == 3, dose, 0)})
    return CellSet(images.astype(np.uint16), table, ("DNA", "Tubulin", "Actin"), 0.5)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "cells"
    squares().save(folder)
    return folder


def rigged(monkeypatch, when, player="generator"):
    """Let the player's images vary from the first step on, and be one image after step `when` + 1."""

    def step(state, batch, t):
        entered = next(state.networks[player].parameters())
        with torch.no_grad():
            entered *= 100 if t == 0 else 1
        found = STEP(state, batch, t)
        with torch.no_grad():
            entered *= t < when
        return found

    monkeypatch.setattr(cytogan, "step", step)


@pytest.mark.parametrize(("model", "condition"), [("lsgan", "none"), ("dcgan", "both"), ("began", "none")])
def test_a_collapse_ends_a_training_at_its_step_and_what_is_kept_draws_cells(
    run_main, own, tmp_path, monkeypatch, model, condition
):
    rigged(monkeypatch, 3)
    words = ["train", "cytogan", "--cells", own, "--store", tmp_path, "--checkpoint-seconds", 0, *WORDS]
    code, out, err = run_main(*words, "-p", f"model={model}", "-p", f"condition={condition}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{model} has collapsed at step 4: of 24 samples 100 % are nearer to another" in err
    assert "the state of step 3 is kept" in err
    assert "goes on from it with --no-end-at-collapse. What helps is a lower learning rate (critic_rate, gen" in err
    folder = Path(re.search(r"`cellbook sample (\S+) --cells", err)[1])
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]
    assert steps_done(folder / CHECKPOINT) == 3
    told = ["--compound", "taxol", "--concentration", "1"] if condition == "both" else []
    code, _, err = run_main("sample", folder, "--cells", own, "--n", 20, "--out", tmp_path / "made", *told)
    assert (code, err) == (0, "")
    made = CellSet.open(tmp_path / "made")
    state, step = load_kept(cytogan, squares(), folder, "cpu")
    wanted = cytogan.sample(state, 20, 0, *(("taxol", 1.0) if told else ()))
    np.testing.assert_allclose(made.images, 65_535 * wanted, atol=1.5)
    assert wanted.std(axis=0).max() > 0.1  # one cell would have 0
    assert (step, set(made.table["Metadata_step"])) == (3, {3})
    assert cytogan.duplicates(state, squares()) < 0.5


def test_the_same_training_goes_on_from_what_is_kept_to_its_end_if_that_is_asked_for(
    run_main, own, tmp_path, monkeypatch, caplog
):
    rigged(monkeypatch, 3)
    words = ["train", "cytogan", "--cells", own, "--store", tmp_path / "cut", "--checkpoint-seconds", 0, *WORDS]
    assert run_main(*words)[0] == 2
    code, out, _ = run_main(*words, "--no-end-at-collapse")
    assert code == 0
    assert "lsgan has collapsed: of 24 samples 100 % are" in caplog.text
    whole = train_run(cytogan, Config(**GIVEN), squares(), tmp_path / "whole", "cpu")
    assert Path(out.strip()).name == whole.key
    for product in whole.products():
        assert (Path(out.strip()) / product).read_bytes() == whole.path(product).read_bytes()


def test_a_training_that_stays_varied_is_not_ended_and_ends_in_the_same_bits(tmp_path, monkeypatch):
    rigged(monkeypatch, 9)
    for name, looks in (("looked", True), ("alone", False)):
        folder, how = tmp_path / name, {"checkpoint_seconds": 0, "end_at_collapse": looks}
        train(cytogan, Config(**GIVEN, model="began"), squares(), folder, "cpu", **how)
    for product in ("history.parquet", "weights.safetensors"):
        assert (tmp_path / "looked" / product).read_bytes() == (tmp_path / "alone" / product).read_bytes()


@pytest.mark.parametrize(("model", "player"), [("lsgan", "generator"), ("vae", "decoder")])
def test_one_that_never_varied_is_given_half_of_its_steps_and_a_page_measures_it_to_its_end(
    tmp_path, monkeypatch, model, player
):
    rigged(monkeypatch, 0, player)
    how = {"checkpoint_seconds": 0, "end_at_collapse": True}
    begun, config = cytogan.begin, Config(**GIVEN, model=model)

    def one_image(*given):
        state = begun(*given)
        with torch.no_grad():
            next(state.networks[player].parameters()).zero_()
        return state

    monkeypatch.setattr(cytogan, "begin", one_image)
    train(cytogan, config, squares(), tmp_path / "too short to tell", "cpu", **how)
    monkeypatch.setattr("cellbook.methods.cytogan.collapse.UNVARIED", 2)
    with pytest.raises(CellbookError, match=f"{model} has collapsed at step 5: .*; the state of step 4 is kept"):
        train(cytogan, config, squares(), tmp_path / "ended", "cpu", **how)
    with pytest.raises(CellbookError, match=r"collapsed at step 9: .*; nothing was kept before\. What helps"):
        train(cytogan, config, squares(), tmp_path / "short", "cpu", end_at_collapse=True)
    run = train_run(cytogan, config, squares(), tmp_path / "runs", "cpu")
    assert cytogan.duplicates(load_run(cytogan, config, squares(), run, "cpu"), squares()) == 1


def test_weights_that_are_no_numbers_are_named_as_such_and_not_as_a_collapse(tmp_path, monkeypatch):
    def step(state, batch, t):
        found = STEP(state, batch, t)
        if t == 3:
            with torch.no_grad():
                next(state.networks["generator"].parameters()).fill_(float("nan"))
        return found

    monkeypatch.setattr(cytogan, "step", step)
    how = {"checkpoint_seconds": 0, "end_at_collapse": True}
    with pytest.raises(CellbookError, match="weights of generator are no longer finite at step 4: lower its rate"):
        train(cytogan, Config(**GIVEN), squares(), tmp_path, "cpu", **how)
    assert load_kept(cytogan, squares(), tmp_path, "cpu")[1] == 3


def test_a_checkpoint_of_other_cells_or_without_its_cells_is_refused(run_main, own, tmp_path, monkeypatch):
    rigged(monkeypatch, 3)
    words = ["train", "cytogan", "--cells", own, "--store", tmp_path / "runs", "--checkpoint-seconds", 0, *WORDS]
    run_main(*words)
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    squares(dose=2.0).save(tmp_path / "others")
    out = ["--out", tmp_path / "made"]
    for more, message in (
        (["--cells", tmp_path / "others"], "is of no training of cytogan on these cells: give those that it is"),
        ([], "is no finished run (its record"),
        ([], "samples of an unfinished one need its cells (--cells)"),
    ):
        code, _, err = run_main("sample", folder, *more, *out)
        assert (code, err.count("\n"), message in err) == (2, 1, True), err
    assert not (tmp_path / "made").exists()


def test_fewer_cells_than_a_batch_are_one_sentence_and_leave_nothing(run_main, own, tmp_path):
    given = ["-p", "preset=smoke", "-p", "side=16", "-p", "batch=25"]
    code, out, err = run_main("train", "cytogan", "--cells", own, "--store", tmp_path, *given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "batch=25 is more than the 24 cells: give a smaller batch" in err
    assert [path for path in tmp_path.rglob("*") if path.is_dir() or path.name == CHECKPOINT] == []
