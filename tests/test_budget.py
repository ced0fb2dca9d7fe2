"""The curves behind the preset `long`: what the benchmark counts, and what the page says of its rows."""

import importlib
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cellbook.book import notebooks
from cellbook.figures import lafarge2019 as plots
from cellbook.pages.lafarge2019 import PRESETS, budget
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.rows import Draws, Votes, pick

BOTH = budget.BOTH
COMPOUNDS = np.repeat(list("abcdefgh"), 2)


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module, beside the tables that all scripts write."""
    monkeypatch.syspath_prepend(notebooks.root() / "benchmarks")
    yield importlib.import_module("budget")
    for name in ("budget", "table"):
        sys.modules.pop(name, None)


def right(share):
    """Votes of which the first are right, the same share of every compound where it is half or all."""
    return Votes.of(np.resize([1.0, 0.0] if share == 0.5 else [share], len(COMPOUNDS)), COMPOUNDS)


def made_up(benchmark):
    """Rows of two spends: one forgets what it saw untrained and learns it again, the other learns all."""
    short, long = benchmark.Spend("vae", 16, 128, 104), benchmark.Spend("vae", 8, 64, 24)
    found = {
        short: {(step, BOTH): right(share) for step, share in ((0, 0.5), (1, 0.5), (10, 1.0))},
        long: {(step, BOTH): right(share) for step, share in ((0, 0.5), (4, 0.0), (40, 0.5))},
    }
    losses = {short: {1: 9.0, 10: 3.0}, long: {5: 8.0, 40: 2.0}}
    return benchmark.table(found, losses, {short: 12.0, long: 3.0})


def test_rows_are_what_a_training_gains_and_how_far_it_is_behind_at_the_same_time(benchmark):
    rows = made_up(benchmark).set_index(["width", "step"])
    assert (rows.loc[(16, 10), "seconds"], rows.loc[(8, 40), "seconds"]) == (120, 120)
    assert (rows.loc[(16, 10), "views"], rows.loc[(8, 4), "views"]) == (1040, 96)
    assert rows["gain"].tolist() == pytest.approx([np.nan, 0.0, 0.5, np.nan, -0.5, 0.0], nan_ok=True)
    assert rows.loc[(8, 40), ["behind", "behind_low", "behind_high"]].tolist() == pytest.approx([0.5] * 3)
    assert rows["behind"].notna().sum() == 1
    assert rows["objective"].tolist() == pytest.approx([np.nan, 9, 3, np.nan, 8, 2], nan_ok=True)


def test_the_page_says_which_is_best_by_how_much_and_which_forget(benchmark, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    made_up(benchmark).to_csv(tmp_path / budget.FILE, index=False)
    rows = budget.read(tmp_path)
    assert budget.sentences(rows) == (
        "- VAE, 2 minutes of one core: width 16, code 128, batch 104 ends with 100.0\N{NO-BREAK SPACE}"
        "[100.0,\N{NO-BREAK SPACE}100.0] % NSC (mean of both), +50.0 points [+50.0, +50.0] against the same network "
        "untrained; it is +50.0 points [+50.0, +50.0] before width 8, code 64, batch 24, surely better than "
        "1 of 1. 1 of 2 surely fall below their untrained networks on the way, 1 surely end above them."
    )
    shown = budget.table(rows)
    assert shown["steps"].tolist() == ["10", "40"]
    assert shown["cell views"].tolist() == ["1,040", "960"]
    assert shown[BOTH].str.startswith("50.0 → ").all()
    figure = plots.spends(rows)
    drawn = figure.axes[0].lines
    assert [line.get_ydata().tolist() for line in drawn] == [[50, 50, 100], [50, 0, 50]]
    assert drawn[1].get_xdata().tolist() == [0, 12, 120]
    plt.close(figure)


def test_a_small_training_is_made_once_and_its_rows_are_of_both_summaries(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "DRAWS", Draws(50, 0))
    spends = (benchmark.Spend("vae_plus", 2, 4, 8),)
    screen = SimulatedScreen(seed=101, wells=1, controls=2, positive_controls=0, cells=3)
    ((rows, _),) = benchmark.train(spends, screen, tmp_path, 0.01)
    shares = rows.pivot_table(index="step", columns="summary", values="value")
    np.testing.assert_allclose(shares[BOTH], shares[["mean", "mean, whitened"]].mean(axis=1))
    np.testing.assert_allclose(budget.last(rows)["seconds"], 0.6, rtol=0.5)  # whole steps at the speed of before
    ((again, _),) = benchmark.train(spends, screen, tmp_path, 99)  # the store has it
    pd.testing.assert_frame_equal(again, rows)


def test_the_published_rows_are_of_a_screen_that_no_page_scores():
    rows = budget.read(notebooks.root())
    given = [entry.get("parameters", {}) for entry in notebooks.pages().values()]
    assert set(rows["seed"]).isdisjoint({parameters.get("seed", 0) for parameters in given})
    assert rows["summary"].nunique() == 3
    assert (rows.groupby([*budget.SPEND, "summary"])["step"].count() >= 8).all()


def test_the_preset_long_is_spent_in_a_way_that_no_other_surely_beats():
    long = PRESETS["long"]
    ends = budget.last(pick(budget.read(notebooks.root()), model="VAE", summary=BOTH))
    (own,) = pick(ends, width=long.width, code=long.latent, batch=long.batch).to_dict("records")
    assert not own["behind_low"] > 0
    assert long.iterations >= own["step"]
    assert long.iterations / long.ramp == PRESETS["paper"].iterations / PRESETS["paper"].ramp
