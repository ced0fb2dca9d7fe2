"""Intervals and resampling: closed forms, enumeration, and slow loops."""

import itertools

import numpy as np
import pytest
from metrics_oracles import random_units
from scipy.stats import binomtest

from cellbook.errors import CellbookError
from cellbook.metrics import accuracy, bootstrap_compounds, match


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
    assert apart == pytest.approx(tuple(binomtest(correct.sum(), 80).proportion_ci(method="wilson")), abs=0.03)


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
        assert m.bootstrap() == bootstrap_compounds(q["correct"], q["counted"], q["compound"], average=average)
        assert m.bootstrap()[0] <= m.accuracy <= m.bootstrap()[1]
