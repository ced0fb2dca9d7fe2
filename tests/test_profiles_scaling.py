"""Plate scaling and factor analysis against loops, pycytominer and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from pycytominer import normalize
from sklearn import decomposition

from cellbook.errors import CellbookError
from cellbook.profiles import FactorAnalysis, PlateScaler, controls_mask, features, matrix, metadata

METHODS = ["percentile", "standardise", "robust"]


def make_wells(seed=0, plates=3, controls=12, treated=8, d=6):
    """Wells of several plates in random order, correlated, uncentred and badly scaled."""
    rng = np.random.default_rng(seed)
    n = plates * (controls + treated)
    plate = np.repeat(np.arange(plates), controls + treated)
    df = pd.DataFrame(
        {
            "Metadata_plate": [f"Week{p // 2 + 1}_{p}" for p in plate],
            "Metadata_well": [f"B{i:02d}" for i in range(n)],
            "Metadata_compound": np.where(np.tile(np.arange(controls + treated), plates) < controls, "DMSO", "taxol"),
        }
    )
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=(plates, d))[plate]
    x = x * np.logspace(-4, 4, d) + rng.normal(size=d) * np.logspace(-3, 6, d)
    df = pd.concat([df, pd.DataFrame(x, columns=[f"f{i}" for i in range(d)])], axis=1)
    return df.sample(frac=1, random_state=seed)


def each_plate_controls(df):
    for plate in df["Metadata_plate"].unique():
        yield plate, matrix(df[(df["Metadata_plate"] == plate) & (df["Metadata_compound"] == "DMSO")])


def test_percentile_scaling_equals_a_loop_over_plates_and_features():
    df = make_wells()
    got = PlateScaler().fit_transform(df)
    for plate, controls in each_plate_controls(df):
        rows = (df["Metadata_plate"] == plate).to_numpy()
        for feature, column in enumerate(features(df)):
            low, high = np.percentile(controls[:, feature], 1), np.percentile(controls[:, feature], 99)
            want = (df.loc[rows, column] - low) / (high - low)
            np.testing.assert_allclose(got.loc[rows, column], want, rtol=1e-7, atol=1e-9)


def test_percentile_scaling_does_not_clip():
    df = make_wells()
    df.loc[df["Metadata_compound"] == "taxol", "f0"] = df["f0"].max() + 50 * np.ptp(df["f0"])
    assert matrix(PlateScaler().fit_transform(df)).max() > 10


def test_controls_of_every_plate_end_at_their_place_and_spread():
    df = make_wells(seed=1)
    for _, controls in each_plate_controls(PlateScaler("percentile").fit_transform(df)):
        np.testing.assert_allclose(np.percentile(controls, [1, 99], axis=0), [[0] * 6, [1] * 6], atol=1e-8)
    for _, controls in each_plate_controls(PlateScaler("standardise").fit_transform(df)):
        np.testing.assert_allclose(controls.mean(axis=0), 0, atol=1e-8)
        np.testing.assert_allclose(controls.std(axis=0, ddof=1), 1, atol=1e-8)
    for _, controls in each_plate_controls(PlateScaler("robust").fit_transform(df)):
        np.testing.assert_allclose(np.median(controls, axis=0), 0, atol=1e-8)
        np.testing.assert_allclose(np.median(np.abs(controls), axis=0), 1 / 1.4826, atol=1e-8)


@pytest.mark.parametrize(
    ("method", "peer", "factor"),
    [("standardise", "standardize", np.sqrt(11 / 12)), ("robust", "mad_robustize", 1.0)],
)
def test_scaling_equals_pycytominer_plate_by_plate(method, peer, factor):
    # pycytominer divides the variance by n, we by n - 1: with 12 controls a common factor.
    df = make_wells(seed=2).reset_index(drop=True)
    got = PlateScaler(method).fit_transform(df)
    for plate in df["Metadata_plate"].unique():
        rows = df["Metadata_plate"] == plate
        want = normalize(
            df[rows],
            features=features(df),
            meta_features=metadata(df),
            samples="Metadata_compound == 'DMSO'",
            method=peer,
        )
        np.testing.assert_allclose(matrix(got[rows]), want[features(df)] * factor, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_a_plates_own_shift_and_scale_vanish(method):
    df = make_wells(seed=3)
    moved = df.copy()
    rows = (df["Metadata_plate"] == "Week1_1").to_numpy()
    x = matrix(df)
    x[rows] = x[rows] * 7.5 + x[rows].mean(axis=0) * 3
    moved[features(df)] = x
    np.testing.assert_allclose(
        matrix(PlateScaler(method).fit_transform(moved)), matrix(PlateScaler(method).fit_transform(df)), atol=1e-6
    )


@pytest.mark.parametrize("method", METHODS)
def test_treated_wells_have_no_say_in_the_fit(method):
    df = make_wells(seed=4)
    other = df.copy()
    treated = ~controls_mask(df)
    other.loc[treated, features(df)] = 1e9
    a, b = PlateScaler(method).fit_transform(df), PlateScaler(method).fit_transform(other)
    np.testing.assert_array_equal(matrix(a[~treated]), matrix(b[~treated]))


@pytest.mark.parametrize("method", METHODS)
def test_the_unit_of_a_feature_does_not_make_it_flat(method):
    df = make_wells(seed=7)
    tiny = df.copy()
    tiny[features(df)] *= 1e-30
    np.testing.assert_allclose(
        matrix(PlateScaler(method).fit_transform(tiny)), matrix(PlateScaler(method).fit_transform(df)), atol=1e-6
    )


def test_pooling_is_one_plate():
    df = make_wells(seed=5)
    pooled = PlateScaler("standardise", by=None).fit_transform(df)
    one = PlateScaler("standardise").fit_transform(df.assign(Metadata_plate="P"))
    np.testing.assert_array_equal(matrix(pooled), matrix(one))


def test_metadata_index_and_names_pass_untouched():
    df = make_wells()
    got = PlateScaler().fit_transform(df)
    pd.testing.assert_frame_equal(got[metadata(got)], df[metadata(df)])
    assert features(got) == features(df)


@pytest.mark.parametrize("method", METHODS)
def test_a_flat_feature_is_named_with_its_plates_or_dropped_from_all(method):
    df = make_wells(seed=6)
    # Equal but for rounding, as means over equal cells are.
    rows = (df["Metadata_plate"] == "Week2_2").to_numpy()
    df.loc[rows, "f3"] = 0.1 * (1 + np.finfo(float).eps * np.arange(rows.sum()) / rows.sum())
    with pytest.raises(CellbookError, match=r"1 of 6 features.*1 of 3 groups.*features f3; groups Week2_2"):
        PlateScaler(method).fit(df)
    scaler = PlateScaler(method, on_constant="drop")
    got = scaler.fit_transform(df)
    assert scaler.dropped_ == ["f3"]
    assert features(got) == ["f0", "f1", "f2", "f4", "f5"]
    others = PlateScaler(method).fit_transform(df.drop(columns="f3"))
    np.testing.assert_array_equal(matrix(got), matrix(others))


def test_dropping_every_feature_is_an_error():
    df = make_wells()
    df[features(df)] = 1.0
    with pytest.raises(CellbookError, match=r"6 of 6 features have no spread.*pool the plates"):
        PlateScaler(on_constant="drop").fit(df)


def test_plates_without_enough_controls_are_named_once():
    df = make_wells()
    without = df[~((df["Metadata_plate"] == "Week1_0") & controls_mask(df))]
    with pytest.raises(CellbookError, match=r"1 of 3 groups by Metadata_plate have no rows.*Week1_0, with 8 of 48"):
        PlateScaler().fit(without)
    one = pd.concat([without, df[(df["Metadata_plate"] == "Week1_0") & controls_mask(df)][:1]])
    with pytest.raises(CellbookError, match="fewer than 2 rows"):
        PlateScaler().fit(one)


def test_transform_refuses_other_features_other_plates_and_an_unfitted_scaler():
    df = make_wells()
    scaler = PlateScaler().fit(df)
    with pytest.raises(CellbookError, match=r"1 missing \('f0'\)"):
        scaler.transform(df.drop(columns="f0"))
    with pytest.raises(CellbookError, match=r"1 not seen in fit \('extra'\)"):
        scaler.transform(df.assign(extra=1.0))
    with pytest.raises(CellbookError, match=r"60 of 60 rows belong to 1 values of Metadata_plate not seen.*Week9_9"):
        scaler.transform(df.assign(Metadata_plate="Week9_9"))
    with pytest.raises(CellbookError, match="call fit first"):
        PlateScaler().transform(df)
    with pytest.raises(CellbookError, match="method is 'zscore'"):
        PlateScaler("zscore")


def test_reordered_columns_give_the_same_values():
    df = make_wells()
    scaler = PlateScaler().fit(df)
    pd.testing.assert_frame_equal(
        scaler.transform(df[df.columns[::-1]])[features(df)], scaler.transform(df)[features(df)]
    )


def factor_table(seed=0, n=150, d=12, k=3):
    """Rows made from k factors: 150 controls and 30 treated rows that lie far off."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(k, d))
    scores = np.concatenate([rng.normal(size=(n, k)), rng.normal(4, 1, size=(30, k))])
    x = (scores @ loadings + 0.3 * rng.normal(size=(n + 30, d)) + 20 * rng.normal(size=d)) * np.logspace(-5, 5, d)
    df = pd.DataFrame(x, columns=[f"f{i}" for i in range(d)])
    return df.assign(Metadata_compound=["DMSO"] * n + ["taxol"] * 30), scores


def test_factors_are_the_posterior_means_of_the_fitted_model():
    df, _ = factor_table()
    mask = controls_mask(df)
    x = matrix(df)
    z = (x - x[mask].mean(axis=0)) / x[mask].std(axis=0)
    peer = decomposition.FactorAnalysis(3, svd_method="lapack").fit(z[mask])
    got = FactorAnalysis(3).fit_transform(df)
    # E[h | z] = (I + W S^-1 W')^-1 W S^-1 z, in closed form.
    weighted = peer.components_ / peer.noise_variance_
    want = z @ (np.linalg.inv(np.eye(3) + weighted @ peer.components_.T) @ weighted).T
    assert features(got) == ["factor_0", "factor_1", "factor_2"]
    np.testing.assert_allclose(np.abs(matrix(got)), np.abs(want), atol=1e-8)


@pytest.mark.parametrize("n", [20, 150])
def test_compressing_many_controls_changes_nothing(n):
    # 150 controls of 12 features are compressed to 24 rows, 20 are not.
    df, _ = factor_table(n=n)
    x = matrix(df)
    mask = controls_mask(df)
    z = (x - x[mask].mean(axis=0)) / x[mask].std(axis=0)
    peer = decomposition.FactorAnalysis(3, svd_method="lapack").fit(z[mask])
    ours = FactorAnalysis(3).fit(df)
    assert ours.iterations_ == peer.n_iter_
    np.testing.assert_allclose(ours.log_likelihood_, peer.loglike_[-1], rtol=1e-9)
    np.testing.assert_allclose(np.abs(matrix(ours.transform(df))), np.abs(peer.transform(z)), atol=1e-7)


def test_factors_recover_what_made_the_data():
    df, scores = factor_table()
    found = matrix(FactorAnalysis(3, tol=1e-4).fit_transform(df))
    design = np.column_stack([found, np.ones(len(found))])
    explained = design @ np.linalg.lstsq(design, scores, rcond=None)[0]
    assert np.corrcoef(explained.ravel(), scores.ravel())[0, 1] > 0.97


def test_factors_do_not_depend_on_the_units_of_a_feature():
    df, _ = factor_table()
    rescaled = df.assign(f0=df["f0"] * 1e6 + 3)
    np.testing.assert_allclose(
        matrix(FactorAnalysis(3).fit_transform(rescaled)), matrix(FactorAnalysis(3).fit_transform(df)), atol=1e-4
    )


def test_factor_analysis_reports_its_steps_and_refuses_to_stop_early():
    df, _ = factor_table()
    assert 2 <= FactorAnalysis(3).fit(df).iterations_ < 1000
    with pytest.raises(CellbookError, match="not converged after max_iter=2 steps"):
        FactorAnalysis(3, tol=1e-9, max_iter=2).fit(df)


def test_impossible_numbers_of_factors_and_flat_features_are_refused():
    df, _ = factor_table()
    with pytest.raises(CellbookError, match="n_factors is 13, but 150 controls with 12 features allow 1 to 12"):
        FactorAnalysis(13).fit(df)
    with pytest.raises(CellbookError, match="5 controls with 12 features allow 1 to 4"):
        FactorAnalysis(5).fit(df[145:])
    with pytest.raises(
        CellbookError, match=r"1 of 12 features have the same value in all 150 controls, to within 1e-06.*f2"
    ):
        FactorAnalysis(3).fit(df.assign(f2=1.0))
    with pytest.raises(CellbookError, match="call fit first"):
        FactorAnalysis(3).transform(df)


@pytest.mark.data
def test_the_published_profiles_pass_through_scaling_and_factors(ljosa):
    scaler = PlateScaler(on_constant="drop")
    scaled = scaler.fit_transform(ljosa)
    assert len(scaler.groups_) == 55
    assert len(scaler.features_) == 464
    assert scaler.dropped_ == []
    # With six controls on a plate, percentiles are their extremes drawn in by a twentieth of the nearest gap.
    within = matrix(scaled[controls_mask(scaled)])
    assert -1 < within.min() < 0
    assert 1 < within.max() < 2
    factors = FactorAnalysis(5).fit_transform(scaled[metadata(scaled) + features(scaled)[:100]])
    assert factors.shape == (632, 5 + len(metadata(ljosa)))
