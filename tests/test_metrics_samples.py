"""Distances of populations against closed forms of Gaussians, matrix roots of scipy, slow loops and properties."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from cellbook.errors import CellbookError
from cellbook.metrics.samples import (
    coverage,
    frechet_distance,
    kernel_distance,
    near_duplicates,
    precision_recall,
    told_states,
)


def clouds(n=60, m=80, d=4, seed=0):
    """Two clouds that differ in mean and covariance."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (n, d)) @ rng.normal(size=(d, d)), 0.7 + rng.normal(0, 1, (m, d)) @ rng.normal(size=(d, d))


def frechet_by_roots(a, b):
    both = sqrtm(np.cov(a.T) @ np.cov(b.T))
    spread = np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * np.trace(both).real
    return np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + spread


def test_the_frechet_distance_is_that_of_scipys_root_and_of_known_gaussians():
    a, b = clouds()
    assert frechet_distance(a, b) == pytest.approx(frechet_by_roots(a, b), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    # Samples with exactly these moments: axes alone, deviations s and t, so that the distance is a sum over axes.
    rng = np.random.default_rng(1)
    white = np.linalg.qr(rng.normal(size=(50, 6)) - rng.normal(size=(50, 6)).mean(axis=0))[0]
    white -= white.mean(axis=0)
    white = np.linalg.qr(white)[0] * np.sqrt(49)
    mean, s, t = rng.normal(size=6), rng.random(6), 2 * rng.random(6)
    known = (mean**2).sum() + ((s - t) ** 2).sum()
    assert frechet_distance(white * s, white * t + mean) == pytest.approx(known, rel=1e-9)


def test_the_frechet_distance_is_real_and_right_with_fewer_cells_than_features():
    a, b = clouds(12, 15, 40)
    # A tiny ridge makes the root of scipy possible; it moves the value by about its square root.
    c, e = (np.cov(cloud.T) + 1e-12 * np.eye(40) for cloud in (a, b))
    values = np.linalg.eigvals(c @ e).real.clip(0)
    known = np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.trace(c) + np.trace(e) - 2 * np.sqrt(values).sum()
    assert frechet_distance(a, b) == pytest.approx(known, rel=1e-4)
    assert 0 <= frechet_distance(a, a) < 1e-9
    turned = np.linalg.qr(np.random.default_rng(2).normal(size=(40, 40)))[0]
    assert frechet_distance(a @ turned, b @ turned) == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * frechet_distance(a, b), rel=1e-9)


def test_the_kernel_distance_is_that_of_a_loop_over_pairs_without_a_cell_and_itself():
    a, b = clouds(8, 6, 3)

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    def unbiased(x, y):
        within = [np.mean([kernel(p[i], p[j]) for i in range(len(p)) for j in range(len(p)) if i != j]) for p in (x, y)]
        return sum(within) - 2 * np.mean([kernel(p, q) for p in x for q in y])

    rng = np.random.default_rng(5)
    order = [np.array_split(rng.permutation(n), 2) for n in (8, 6)]
    parts = [unbiased(a[i], b[j]) for i, j in zip(*order, strict=True)]
    value, error = kernel_distance(a, b, subsets=2, seed=5)
    assert value == pytest.approx(np.mean(parts), rel=1e-9)
    assert error == pytest.approx(abs(parts[0] - parts[1]) / 2, rel=1e-9)


def test_the_kernel_distance_of_one_population_is_0_within_its_error_and_grows_with_a_shift():
    rng = np.random.default_rng(3)
    scores = []
    for _ in range(60):
        value, error = kernel_distance(*rng.normal(size=(2, 100, 5)))
        scores.append(value / error)
    assert abs(np.mean(scores)) < 0.5
    assert 0.6 < np.std(scores) < 1.8  # t with 9 degrees of freedom has 1.13
    a, b = rng.normal(size=(2, 400, 5))
    values = [kernel_distance(a, b + shift)[0] for shift in (0.5, 1.0, 2.0)]
    assert values == sorted(values)
    # In one dimension, by the moments of N(0, 1) and N(1, 1): 1, 0, 1, 0 and 1, 1, 2, 4.
    x, y = rng.normal(size=(2, 4000, 1))
    value, error = kernel_distance(x, y + 1)
    assert value == pytest.approx((1 + 3) + (1 + 3 + 3 * 2**2 + 4**2) - 2 * (1 + 3 * 2), abs=4 * error)


def test_precision_and_recall_are_those_of_loops():
    a, b = clouds(30, 25, 3, seed=4)

    def inside(points, cloud, k):
        radii = [sorted(np.linalg.norm(cloud - c, axis=1))[k] for c in cloud]
        return np.mean([any(np.linalg.norm(p - c) <= r for c, r in zip(cloud, radii, strict=True)) for p in points])

    for k in (1, 5):
        found = precision_recall(a, b, k)
        assert found == pytest.approx((inside(b, a, k), inside(a, b, k)))
        assert 0 < found[0] < 1


def test_a_collapsed_generator_is_precise_and_recalls_nothing_and_a_wild_one_the_reverse():
    rng = np.random.default_rng(6)
    real = rng.normal(size=(300, 3))
    assert precision_recall(real, real[:1] + 1e-6 * rng.normal(size=(300, 3))) == (1.0, 1 / 300)
    precision, recall = precision_recall(real, 8 * rng.normal(size=(300, 3)))
    assert precision < 0.2
    assert recall > 0.9
    assert min(precision_recall(real[:150], real[150:])) > 0.8


def test_near_duplicates_are_as_many_as_said_among_real_cells_and_all_of_a_collapsed_generator():
    rng = np.random.default_rng(7)
    real, made = rng.normal(size=(2, 2000, 6))
    assert near_duplicates(real, made, 0.05) == pytest.approx(0.05, abs=0.02)
    assert near_duplicates(real, np.repeat(made[:1], 500, axis=0)) == 1
    pairs = np.concatenate([np.repeat(made[:250], 2, axis=0), made[1000:1500]])
    assert near_duplicates(real[:1000], pairs, 0.05) == pytest.approx(0.5 + 0.05 / 2, abs=0.03)
    # The number of real cells decides nothing: they are thinned to as many.
    assert near_duplicates(real, made[:200], 0.2) == pytest.approx(0.2, abs=0.1)


def test_states_are_told_by_a_classifier_that_has_not_seen_the_cell_and_coverage_counts_them():
    rng = np.random.default_rng(8)
    centres = {"flat": (0, 0), "round": (6, 0), "mitotic": (0, 6)}
    states = np.repeat(list(centres), [60, 30, 10])
    real = np.array([centres[s] for s in states]) + rng.normal(size=(100, 2))
    made = np.array([centres[s] for s in ["flat"] * 30 + ["round"] * 10]) + rng.normal(size=(40, 2))
    told, told_made = told_states(real, states, made)
    assert (told == states).mean() > 0.95
    found = coverage(told, told_made)
    assert found.states.tolist() == ["flat", "mitotic", "round"]
    np.testing.assert_allclose(found.real, [(told == s).mean() for s in found.states])
    assert found.covered == pytest.approx(2 / 3)
    labels, noise = np.repeat(["a", "b"], 100), rng.normal(size=(200, 120))
    assert (told_states(noise, labels, noise)[0] == labels).mean() < 0.65
    assert (told_states(noise, labels, noise)[1] == labels).mean() > 0.8  # by one that has seen them


def test_coverage_is_that_of_counts_done_by_hand():
    found = coverage(["a"] * 8 + ["b"] * 4 + ["c"] * 4, ["a"] * 3 + ["b"] * 3 + ["d"] * 2)
    assert found.states.tolist() == ["a", "b", "c", "d"]
    assert found.covered == pytest.approx(2 / 3)
    assert found.distance == pytest.approx((1 / 8 + 1 / 8 + 1 / 4 + 1 / 4) / 2)
    assert found.number_real == pytest.approx(2**1.5)
    assert found.number == pytest.approx(np.exp(-(0.75 * np.log(3 / 8) + 0.25 * np.log(1 / 4))))
    assert coverage(["a", "b"], ["a", "a"]).number == 1


def test_what_cannot_be_compared_is_refused_in_one_sentence():
    a, b = clouds(20, 20)
    broken = a.copy()
    broken[[3, 5], 1] = np.nan
    for call, message in (
        (lambda: frechet_distance(a, b[:, :3]), r"shapes \(20, 4\) and \(20, 3\)"),
        (lambda: frechet_distance(a[:1], b), "2 cells or more"),
        (lambda: precision_recall(broken, b), "2 of 20 cells hold NaN"),
        (lambda: precision_recall(a, b[:5]), "k=5 for 20 real and 5 made"),
        (lambda: kernel_distance(a, b, 11), "subsets=11 for 20 and 20 cells"),
        (lambda: near_duplicates(a, b, 0.0), "quantile=0.0"),
        (lambda: told_states(a, ["x"] * 18 + ["y"] * 2, b), "18 x, 2 y for 20 cells"),
        (lambda: coverage([], ["a"]), "0 real and 1 made"),
    ):
        with pytest.raises(CellbookError, match=message):
            call()
