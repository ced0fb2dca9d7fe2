"""Quality of reconstructions against slow loops, scikit-image, closed forms and properties."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cellbook.errors import CellbookError
from cellbook.metrics import images


@pytest.fixture(scope="module")
def pair():
    """Originals with fine structure and a disturbed version, 24 cells, three channels of different brightness."""
    rng = np.random.default_rng(3)
    x = gaussian_filter(rng.random((24, 3, 44, 40)), (0, 0, 1, 1)) + 0.1 * rng.random((24, 3, 44, 40))
    x = x / x.max(axis=(2, 3), keepdims=True) * np.array([1.0, 0.3, 0.05])[:, None, None]
    return x, np.clip(x + 0.05 * rng.standard_normal(x.shape), -0.1, 1.1)


def blurred(x, sigma):
    return gaussian_filter(x, (0, 0, sigma, sigma))


def test_mse_is_that_of_a_slow_loop(pair):
    x, y = pair
    slow = [[np.mean((a - b) ** 2) for a, b in zip(*cell, strict=True)] for cell in zip(x, y, strict=True)]
    np.testing.assert_allclose(images.mse(x, y), slow, rtol=1e-5)


@pytest.mark.parametrize("data_range", [1.0, 2.5])
def test_ssim_is_that_of_its_definition_place_by_place(pair, data_range):
    a, b = (image[0, 1].astype(np.float32).astype(float) for image in pair)
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    places = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            both = (window * (p - mean_p) * (q - mean_q)).sum()
            top = (2 * mean_p * mean_q + c1) * (2 * both + c2)
            places.append(top / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2)))
    assert images.ssim(*pair, data_range)[0, 1] == pytest.approx(np.mean(places), abs=1e-9)


def test_data_range_of_ssim_is_not_guessed_from_the_images(pair):
    x, y = pair
    assert np.abs(images.ssim(x, y, 1.0) - images.ssim(x, y, 0.1)).max() > 0.05


def test_equal_images_are_perfect(pair):
    x, _ = pair
    np.testing.assert_allclose(images.ssim(x, x), 1, atol=1e-6)
    np.testing.assert_allclose(images.spectral_sharpness(x, x), 1)
    assert images.mse(x, x).max() == 0
    assert images.feature_distance(x, x).max() < 1e-10


def test_top_octave_is_that_of_the_full_transform(pair):
    x, _ = pair
    image = x[0, 0]
    window = np.outer(np.hanning(44), np.hanning(40))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(44), np.fft.fftfreq(40), indexing="ij"))
    chosen = (radius >= 0.25) & (radius <= 0.5)
    assert images.top_octave(x)[0, 0] == pytest.approx(power[chosen].mean(), rel=1e-4)


@pytest.mark.parametrize(("wavelength", "inside"), [(3, True), (16, False)])
def test_top_octave_sees_waves_of_two_to_four_pixels_only(wavelength, inside):
    y, x = np.mgrid[:68, :68]
    wave = np.sin(2 * np.pi * (0.6 * y + 0.8 * x) / wavelength)
    noise = np.random.default_rng(0).standard_normal((68, 68))
    power = images.top_octave(np.stack([wave, noise * wave.std()])[None])[0]
    assert (power[0] > power[1]) == inside


def test_blur_takes_sharpness_away_and_noise_adds_it(pair):
    x, y = pair
    little, much = (images.spectral_sharpness(x, blurred(x, sigma)).mean() for sigma in (0.7, 2))
    assert 1 > little > much > 0
    assert much < 0.1
    assert images.spectral_sharpness(x, y)[:, 1:].min() > 1


def test_brightness_scales_sharpness_by_its_square(pair):
    x, _ = pair
    np.testing.assert_allclose(images.spectral_sharpness(x, 0.5 * x + 0.2), 0.25, rtol=1e-4)


def test_flat_originals_have_no_sharpness():
    flat = np.full((2, 1, 20, 20), 0.25)
    assert np.isnan(images.spectral_sharpness(flat, flat)).all()


def test_feature_distance_grows_with_damage_and_stays_in_its_bounds(pair):
    x, _ = pair
    steps = [images.feature_distance(x, blurred(x, sigma)).mean() for sigma in (0.5, 1, 2)]
    assert 0 < steps[0] < steps[1] < steps[2]
    assert images.feature_distance(x, 1 - x).max() <= 4 * len(images.WIDTHS)


def test_feature_distance_is_that_of_the_maps(pair):
    x, y = pair
    slow = np.zeros(len(x))
    for a, b in zip(images.frozen_features(x), images.frozen_features(y), strict=True):
        a, b = (layer / np.linalg.norm(layer, axis=1, keepdims=True) for layer in (a, b))
        slow += ((a - b) ** 2).sum(axis=1).mean(axis=(1, 2))
    np.testing.assert_allclose(images.feature_distance(x, y), slow, rtol=1e-4)


def test_frozen_network_is_the_same_every_time_and_sees_each_image_alone(pair):
    x, _ = pair
    whole, alone = images.frozen_features(x), images.frozen_features(x[:1])
    for a, b, c in zip(whole, alone, images.frozen_features(x[:1], seed=1), strict=True):
        np.testing.assert_allclose(a[:1], b, atol=2e-5)
        assert np.abs(b - c).max() > 0.1


def test_two_samples_of_one_distribution_are_not_told_apart():
    rng = np.random.default_rng(1)
    x, y = (gaussian_filter(rng.random((120, 1, 24, 24)), (0, 0, 1, 1)) for _ in range(2))
    original, made = images.two_sample(x, y)
    assert abs(np.mean([original, made]) - 0.5) < 0.15
    assert abs(made.mean() - 0.5) < 0.2


def test_blurred_cells_are_told_apart(pair):
    x, _ = pair
    assert images.two_sample(x, blurred(x, 2), folds=4).mean() > 0.95


def test_a_copy_is_told_apart_by_nobody(pair):
    x, _ = pair
    assert images.two_sample(x, x, folds=4).mean() == 0.5


def test_rate_and_active_units_follow_their_definitions():
    rng = np.random.default_rng(0)
    mu = rng.standard_normal((500, 4)) * [1, 0.2, 0.05, 0]
    logvar = np.log([0.1, 0.5, 0.9, 1.0]) + np.zeros((500, 4))
    # Integral of log q / p over a sample of q, cell by cell.
    z = mu[:50, None] + np.exp(0.5 * logvar[:50, None]) * rng.standard_normal((50, 20_000, 4))
    log_q = -0.5 * (logvar[:50, None] + (z - mu[:50, None]) ** 2 / np.exp(logvar[:50, None]))
    np.testing.assert_allclose(images.kl_nats(mu, logvar)[:50], (log_q + 0.5 * z**2).sum(2).mean(1), atol=0.12)
    assert images.kl_nats(np.zeros((3, 4)), np.zeros((3, 4))).max() == 0
    assert images.active_units(mu) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: images.mse(x, x[:2]), "shapes"),
        (lambda x: images.ssim(x, x, 0), "data_range=0"),
        (lambda x: images.top_octave(x[0]), "cells, channels"),
        (lambda x: images.feature_distance(np.where(x > 0.9, np.nan, x), x), "of 24 images"),
        (lambda x: images.two_sample(x[:3], x[:3]), "folds=5 for 3"),
        (lambda x: images.kl_nats(np.zeros((2, 3)), np.zeros((2, 4))), "mu and logvar"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(pair, call, words):
    with pytest.raises(CellbookError, match=words):
        call(pair[0])
