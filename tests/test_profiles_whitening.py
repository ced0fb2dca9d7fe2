"""Whitening, CORAL and TVN on uncentred, badly scaled data against closed forms and pycytominer."""

import numpy as np
import pandas as pd
import pytest
from pycytominer.operations import Spherize
from scipy.linalg import sqrtm
from scipy.spatial.distance import pdist

from cellbook.errors import CellbookError
from cellbook.profiles import Chain, Coral, PlateScaler, Whitening, controls_mask, features, matrix, metadata, tvn


def make_wells(seed=0, batches=3, controls=40, treated=15, d=8, spread=3.0):
    """Rows of batches with covariances and means of their own; scales differ by 10^(2 spread)."""
    rng = np.random.default_rng(seed)
    blocks = [
        rng.normal(size=(controls + treated, d)) @ rng.normal(size=(d, d)) + 5 * rng.normal(size=d)
        for _ in range(batches)
    ]
    x = (
        np.concatenate(blocks) * np.logspace(-spread, spread, d)
        + rng.normal(size=d) * np.logspace(-spread, spread, d) * 50
    )
    batch = np.repeat([f"Week{b + 1}" for b in range(batches)], controls + treated)
    df = pd.DataFrame(
        {
            "Metadata_batch": batch,
            "Metadata_plate": [f"{b}_1" for b in batch],
            "Metadata_compound": np.tile(["DMSO"] * controls + ["taxol"] * treated, batches),
        }
    )
    df = pd.concat([df, pd.DataFrame(x, columns=[f"f{i}" for i in range(d)])], axis=1)
    return df.sample(frac=1, random_state=seed)


def covariance(df):
    return np.cov(matrix(df[controls_mask(df)]), rowvar=False)


def of_batch(df, batch):
    return df[df["Metadata_batch"] == batch]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale_first", [False, True])
@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_controls_come_out_white(kind, scale_first, seed):
    # Scales from 1e-5 to 1e5: squared, as in a covariance, they would leave the range of a float64's digits.
    white = Whitening(ridge=0, kind=kind, scale_first=scale_first).fit_transform(make_wells(seed, spread=5))
    controls = matrix(white[controls_mask(white)])
    assert np.abs(np.cov(controls, rowvar=False) - np.eye(8)).max() < 1e-12
    assert np.abs(controls.mean(axis=0)).max() < 1e-6


@pytest.mark.parametrize(
    ("kind", "scale_first", "peer"),
    [("pca", False, "PCA"), ("zca", False, "ZCA"), ("pca", True, "PCA-cor"), ("zca", True, "ZCA-cor")],
)
def test_whitening_equals_pycytominer(kind, scale_first, peer):
    df = make_wells(seed=1, spread=1)
    x = df[features(df)]
    want = Spherize(epsilon=0, method=peer).fit(x[controls_mask(df)]).transform(x).to_numpy()
    got = matrix(Whitening(ridge=0, kind=kind, scale_first=scale_first).fit_transform(df))
    if kind == "pca":  # the sign of a principal axis is free
        want = want * np.sign((want * got).sum(axis=0))
    np.testing.assert_allclose(got, want, atol=1e-7)


@pytest.mark.parametrize("n", [6, 40])
@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_a_ridge_is_added_to_the_eigenvalues(n, kind):
    # Also with fewer controls (6) than features (8), where the ridge alone scales the directions left over.
    df = make_wells(seed=2, batches=1, controls=n, spread=0.5)
    got = matrix(Whitening(ridge=0.7, kind=kind).fit_transform(df))
    controls = matrix(df[controls_mask(df)])
    root = np.linalg.inv(sqrtm(np.cov(controls, rowvar=False) + 0.7 * np.eye(8)).real)
    want = (matrix(df) - controls.mean(axis=0)) @ root
    if kind == "zca":
        np.testing.assert_allclose(got, want, atol=1e-8)
    np.testing.assert_allclose(pdist(got), pdist(want), rtol=1e-8)
    np.testing.assert_allclose(pdist(got, "cosine"), pdist(want, "cosine"), atol=1e-8)


def test_a_relative_ridge_makes_units_irrelevant_and_an_absolute_one_does_not():
    df = make_wells(seed=3, spread=1)
    larger = df.copy()
    larger[features(df)] *= 1e3
    relative = [matrix(Whitening(0.1, relative=True).fit_transform(t)) for t in (df, larger)]
    absolute = [matrix(Whitening(0.1).fit_transform(t)) for t in (df, larger)]
    np.testing.assert_allclose(relative[0], relative[1], rtol=1e-6, atol=1e-8)
    assert np.abs(absolute[0] - absolute[1]).max() > 0.1


def test_whitening_forgets_any_invertible_mixing_of_the_features():
    df = make_wells(seed=4, spread=0)
    mixed = df.copy()
    mixed[features(df)] = matrix(df) @ np.random.default_rng(0).normal(size=(8, 8)) + 3
    a, b = (matrix(Whitening(ridge=0).fit_transform(t)) for t in (df, mixed))
    np.testing.assert_allclose(pdist(a), pdist(b), rtol=1e-6)


def test_principal_axes_come_largest_first_with_a_fixed_sign():
    df = make_wells(seed=5, spread=1)
    whitening = Whitening(ridge=0).fit(df)
    values = whitening.eigenvalues_[0]
    np.testing.assert_allclose(values, np.sort(np.linalg.eigvalsh(covariance(df)))[::-1], rtol=1e-6)
    assert features(whitening.transform(df)) == [f"whitened_{i}" for i in range(8)]
    # The largest entry of each axis is positive.
    columns = whitening.maps_[0] * np.sqrt(values)
    assert (columns[np.abs(columns).argmax(axis=0), np.arange(8)] > 0).all()
    assert features(Whitening(kind="zca").fit_transform(df)) == features(df)


def test_components_keep_the_leading_axes():
    df = make_wells(seed=6, spread=1)
    few = Whitening(ridge=0, components=3).fit_transform(df)
    every = Whitening(ridge=0).fit_transform(df)
    np.testing.assert_allclose(matrix(few), matrix(every)[:, :3], atol=1e-6)
    back = Whitening(ridge=0, components=3, kind="zca").fit_transform(df)
    assert features(back) == features(df)
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(covariance(back))), [0] * 5 + [1] * 3, atol=1e-6)


def test_too_few_controls_without_a_ridge_is_an_error_with_three_ways_out():
    df = make_wells(seed=7, batches=1, controls=6)
    with pytest.raises(CellbookError) as caught:
        Whitening(ridge=0).fit(df)
    assert "the 6 controls span 5 of 8 dimensions" in str(caught.value)
    assert "components='rank' to keep 5" in str(caught.value)
    assert np.isfinite(matrix(Whitening(ridge=1).fit_transform(df))).all()
    kept = Whitening(ridge=0, components="rank").fit(df)
    white = kept.transform(df)
    assert kept.rank_ == [5]
    assert np.abs(covariance(white) - np.eye(5)).max() < 1e-8


def test_scales_beyond_the_digits_of_a_float_need_scaling_first():
    df = make_wells(seed=7, spread=9)
    with pytest.raises(CellbookError, match=r"span . of 8 dimensions.*scale_first=True"):
        Whitening(ridge=0).fit(df)
    white = Whitening(ridge=0, scale_first=True).fit_transform(df)
    assert np.abs(covariance(white) - np.eye(8)).max() < 1e-12


def test_a_repeated_feature_is_noticed_as_lost_rank():
    df = make_wells(seed=8, spread=0)
    df["copy"] = 2 * df["f1"] - 3 * df["f2"]
    with pytest.raises(CellbookError, match="span 8 of 9 dimensions"):
        Whitening(ridge=0).fit(df)


def test_whitening_by_plate_whitens_each_by_its_own_controls():
    df = make_wells(seed=9)
    white = Whitening(ridge=0, kind="zca", by="Metadata_plate").fit_transform(df)
    for plate in df["Metadata_plate"].unique():
        alone = Whitening(ridge=0, kind="zca").fit_transform(df[df["Metadata_plate"] == plate])
        np.testing.assert_allclose(matrix(white[white["Metadata_plate"] == plate]), matrix(alone), atol=1e-8)
    with pytest.raises(CellbookError, match="pass kind='zca'"):
        Whitening(kind="pca", by="Metadata_plate")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ridge": -1}, "ridge is -1"),
        ({"ridge": float("nan")}, "ridge is nan"),
        ({"kind": "cholesky"}, "kind is 'cholesky'"),
        ({"components": 0}, "components is 0"),
        ({"components": "all"}, "components is 'all'"),
    ],
)
def test_senseless_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(CellbookError, match=message):
        Whitening(**arguments)


def test_senseless_tables_are_refused():
    df = make_wells()
    with pytest.raises(CellbookError, match="components is 9, but there are 8 features"):
        Whitening(components=9).fit(df)
    with pytest.raises(CellbookError, match="1 of 8 features are constant among the 120 controls"):
        Whitening(scale_first=True).fit(df.assign(f0=1.0))
    with pytest.raises(CellbookError, match="are all equal"):
        Whitening().fit(df.assign(**dict.fromkeys(features(df), 0.0)))
    with pytest.raises(CellbookError, match="call fit first"):
        Whitening().transform(df)
    with pytest.raises(CellbookError, match="NaN or infinity in 1 of 165 rows"):
        Whitening().fit(df.reset_index(drop=True).assign(f0=lambda t: t["f0"].where(t.index > 0)))


@pytest.mark.parametrize("correction", [Whitening(), Coral(), tvn(), PlateScaler()])
def test_treated_rows_have_no_say_and_row_order_does_not_matter(correction):
    df = make_wells(seed=10, spread=1).reset_index(drop=True)
    treated = ~controls_mask(df)
    before = df.copy(deep=True)
    a = correction.fit_transform(df)
    pd.testing.assert_frame_equal(df, before)
    pd.testing.assert_frame_equal(a[metadata(a)], df[metadata(df)])
    wild = df.copy()
    wild.loc[treated, features(df)] *= -17
    np.testing.assert_allclose(matrix(correction.fit_transform(wild)[~treated]), matrix(a[~treated]), rtol=1e-12)
    np.testing.assert_allclose(matrix(correction.fit_transform(df[::-1])), matrix(a)[::-1], atol=1e-6)


@pytest.mark.parametrize("reference", ["identity", "pooled"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_coral_equals_its_formula_batch_by_batch(reference, centre, eta):
    df = make_wells(seed=11, spread=0.5)
    got = Coral(eta=eta, reference=reference, centre=centre).fit_transform(df)

    def moment(t):
        x = matrix(t[controls_mask(t)])
        return np.cov(x, rowvar=False) if centre else x.T @ x / len(x)

    target = (np.eye(8) if reference == "identity" else moment(df)) + eta * np.eye(8)
    for batch in ("Week1", "Week2", "Week3"):
        rows = of_batch(df, batch)
        a = np.linalg.inv(sqrtm(moment(rows) + eta * np.eye(8)).real) @ sqrtm(target).real
        np.testing.assert_allclose(matrix(of_batch(got, batch)), matrix(rows) @ a, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("reference", ["identity", "pooled"])
def test_without_a_ridge_every_batch_gets_the_reference_covariance(reference):
    df = make_wells(seed=12, spread=1)
    got = Coral(eta=0, reference=reference).fit_transform(df)
    want = np.eye(8) if reference == "identity" else covariance(df)
    for batch in ("Week1", "Week2", "Week3"):
        np.testing.assert_allclose(covariance(of_batch(got, batch)), want, atol=1e-6 * np.abs(want).max())


def test_a_growing_ridge_leaves_the_data_alone():
    df = make_wells(seed=13, spread=0.5)
    np.testing.assert_allclose(matrix(Coral(eta=1e12).fit_transform(df)), matrix(df), rtol=1e-6, atol=1e-5)


def test_only_aligned_means_remove_a_shift_between_batches():
    df = make_wells(seed=14, spread=0.5)
    pooled = matrix(df[controls_mask(df)]).mean(axis=0)

    def means(table):
        return np.stack([matrix(t[controls_mask(t)]).mean(axis=0) for _, t in table.groupby("Metadata_batch")])

    np.testing.assert_allclose(means(Coral(align_means=True).fit_transform(df)), np.tile(pooled, (3, 1)), atol=1e-8)
    assert np.ptp(means(Coral().fit_transform(df)), axis=0).max() > 1


def test_coral_refuses_what_it_cannot_align():
    df = make_wells(seed=15)
    with pytest.raises(CellbookError, match="all 55 rows have Metadata_batch 'Week1'"):
        Coral().fit(of_batch(df, "Week1"))
    without = df[~((df["Metadata_batch"] == "Week2") & controls_mask(df))]
    with pytest.raises(CellbookError, match=r"1 of 3 groups by Metadata_batch have no rows.*Week2, with 15 of 125"):
        Coral().fit(without)
    with pytest.raises(CellbookError, match=r"5 controls of Metadata_batch Week1 has rank 4 in 8 .*raise eta"):
        Coral(eta=0).fit(make_wells(controls=5, spread=0).sort_values("Metadata_batch"))
    with pytest.raises(CellbookError, match="eta is -1"):
        Coral(eta=-1)
    with pytest.raises(CellbookError, match="not seen in fit"):
        Coral().fit(df).transform(df.assign(Metadata_batch="Week7"))


def test_tvn_is_whitening_on_all_controls_then_coral_per_batch():
    df = make_wells(seed=16, spread=1)
    white = Whitening(ridge=0.2).fit_transform(df)
    want = Coral(eta=0.3, reference="pooled").fit_transform(white)
    pd.testing.assert_frame_equal(tvn(ridge=0.2, eta=0.3).fit_transform(df), want)


def test_a_fitted_chain_maps_new_rows_as_the_old():
    df = make_wells(seed=17)
    steps = Chain([PlateScaler("standardise"), tvn()])
    whole = steps.fit_transform(df)
    pd.testing.assert_frame_equal(steps.transform(df[:7]), whole[:7])
    pd.testing.assert_frame_equal(Chain([PlateScaler("standardise"), tvn()]).fit(df).transform(df), whole)


@pytest.mark.data
def test_sphering_the_published_profiles_needs_a_ridge(ljosa):
    scaled = PlateScaler(on_constant="drop").fit_transform(ljosa)
    with pytest.raises(CellbookError, match="the 330 controls span"):
        Whitening(ridge=0).fit(scaled)
    white = Whitening(ridge=0, components="rank").fit_transform(scaled)
    assert np.abs(covariance(white) - np.eye(len(features(white)))).max() < 1e-8
    assert np.isfinite(matrix(tvn().fit_transform(scaled))).all()
