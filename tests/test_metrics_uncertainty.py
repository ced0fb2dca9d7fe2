"""Intervals and resampling: closed forms, enumeration, and the plain loop that does the same."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from metrics_oracles import random_units
from scipy.stats import binomtest

from cellbook.errors import CellbookError
from cellbook.metrics import PROTOCOLS, accuracy, bootstrap_compounds, bootstrap_wells, match, score, wilson
from cellbook.metrics.wells import draw_wells

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "bootstrap_protocols.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("bootstrap_protocols", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("correct", "n"), [(0, 5), (5, 5), (70, 103), (80, 92), (1, 1)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_equals_scipy(correct, n, level):
    expected = binomtest(correct, n).proportion_ci(level, method="wilson")
    assert wilson(correct, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_everything():
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(CellbookError, match="correct=3, n=2"):
        wilson(3, 2)


@pytest.mark.parametrize("average", ["queries", "compounds"])
def test_compound_bootstrap_has_the_quantiles_of_all_resamples(average):
    correct, counted = [3, 0, 1, 1, 0], [3, 1, 2, 7, 0]
    compounds = ["a", "a", "b", "c", "d"]  # d has nothing counted and must not be drawn
    sums = {"a": (3, 4), "b": (1, 2), "c": (1, 7)}
    values = []
    for draw in itertools.product("abc", repeat=3):
        right, total = np.array([sums[c] for c in draw], dtype=float).T
        values.append((right / total).mean() if average == "compounds" else right.sum() / total.sum())
    low, high = bootstrap_compounds(correct, counted, compounds, n=40_000, level=0.7, average=average)
    assert low == pytest.approx(np.quantile(values, 0.15, method="inverted_cdf"))
    assert high == pytest.approx(np.quantile(values, 0.85, method="inverted_cdf"))


def test_compound_bootstrap_equals_a_slow_loop():
    rng = np.random.default_rng(1)
    compounds = rng.integers(0, 9, 60)
    counted = rng.integers(0, 4, 60)
    correct = rng.integers(0, counted + 1)
    draws = np.random.default_rng(5).multinomial(9, np.full(9, 1 / 9), size=300)
    values = []
    for times in draws:
        rows = np.concatenate([np.flatnonzero(compounds == c) for c in np.repeat(np.arange(9), times)])
        values.append(correct[rows].sum() / counted[rows].sum())
    expected = np.quantile(values, [0.025, 0.975])
    assert bootstrap_compounds(correct, counted, compounds, n=300, seed=5) == pytest.approx(tuple(expected))


def test_doses_that_rise_and_fall_together_widen_the_interval():
    correct = np.repeat([1, 0, 1, 1, 0, 1, 0, 1, 1, 1], 8)
    together = bootstrap_compounds(correct, np.ones(80), np.repeat(np.arange(10), 8))
    apart = bootstrap_compounds(correct, np.ones(80), np.arange(80))
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
    assert apart == pytest.approx(wilson(correct.sum(), 80), abs=0.03)


def test_one_compound_has_no_interval():
    assert np.isnan(bootstrap_compounds([1, 0], [1, 1], ["a", "a"])).all()
    with pytest.raises(CellbookError, match="n=0"):
        bootstrap_compounds([1], [1], ["a"], n=0)
    with pytest.raises(CellbookError, match="2, 2 and 1"):
        bootstrap_compounds([1, 0], [1, 1], ["a"])


def test_accuracy_of_a_stack_equals_that_of_each_to_the_last_bit():
    rng = np.random.default_rng(0)
    compounds = rng.integers(0, 25, 90)
    counted = rng.integers(0, 3, (7, 90))
    correct = rng.integers(0, counted + 1)
    for average in ("queries", "compounds"):
        stack = accuracy(correct, counted, compounds, average)
        assert stack.tolist() == [
            float(accuracy(a, b, compounds, average)) for a, b in zip(correct, counted, strict=True)
        ]
    assert np.isnan(accuracy([0], [0], ["a"]))


def test_the_interval_of_a_match_is_that_of_its_compounds():
    table = random_units(3)
    for average in ("queries", "compounds"):
        m = match(table, average=average, exclude=())
        q = m.per_query
        assert m.interval == bootstrap_compounds(q["correct"], q["counted"], q["compound"], average=average)
        assert m.interval[0] <= m.accuracy <= m.interval[1]


def test_wells_are_drawn_within_their_unit_and_equally_often():
    unit = np.array([2, 0, 1, 0, 2, 2, 3, 0, 2])
    draws = draw_wells(unit, 20_000, seed=1)
    assert np.array_equal(unit[draws], np.tile(unit, (20_000, 1)))
    assert (draws[:, 6] == 6).all()
    often = np.bincount(draws[:, 4], minlength=9) / 20_000
    np.testing.assert_allclose(often[[0, 4, 5, 8]], 0.25, atol=0.015)
    assert abs(np.corrcoef(draws[:, 1], draws[:, 3])[0, 1]) < 0.03


def uneven_wells(n: int = 30) -> pd.DataFrame:
    """Make wells of treatments with one to five wells, some in two batches, on unlike scales."""
    rng = np.random.default_rng(0)
    units = random_units(5, n)
    wells = units.loc[units.index.repeat(rng.integers(1, 6, n))].reset_index(drop=True)
    features = wells.filter(regex="^f").columns
    wells[features] += rng.normal(size=(len(wells), len(features))) * units[features].std().to_numpy()
    wells["Metadata_cell_count"] = rng.integers(5, 300, len(wells))
    return wells.sample(frac=1, random_state=0, ignore_index=True)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_well_bootstrap_equals_the_plain_pandas_loop(benchmark, name, monkeypatch):
    monkeypatch.setattr("cellbook.metrics.wells.CHUNK_BYTES", 20_000)  # several chunks, the last one shorter
    wells = uneven_wells()
    fast = bootstrap_wells(wells, name, n=5, seed=3)
    pd.testing.assert_frame_equal(fast, benchmark.loop(wells, PROTOCOLS[name], 5, seed=3), check_exact=True)
    assert fast.to_numpy().std(axis=0).max() > 0


def test_one_well_each_leaves_nothing_to_resample():
    table = random_units(2, 30)
    spread = bootstrap_wells(table, "ljosa2013", n=4)
    expected = [s.accuracy for s in score(table, "ljosa2013", resamples=10)]
    assert (spread.to_numpy() == expected).all()
    assert list(spread.columns) == ["NSC, 1-NN", "NSCB, 1-NN"]
    with pytest.raises(CellbookError, match="n=0"):
        bootstrap_wells(table, "ljosa2013", n=0)
