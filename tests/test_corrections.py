"""Corrections by name, and `cellbook correct` as its users meet it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import expm
from scipy.stats import energy_distance

from cellbook import corrections
from cellbook.corrections import METHODS, Settings, correct
from cellbook.errors import CellbookError
from cellbook.methods.wdn import PRESETS
from cellbook.methods.wdn.step import between
from cellbook.profiles import features, matrix, read_profiles, write_profiles
from cellbook.profiles.centre import Centre
from cellbook.profiles.harmony import Harmony
from cellbook.screens.planted import planted_wells

FAST = Settings(wdn=PRESETS["smoke"], device="cpu")
ON_CPU = Settings(wdn=replace(PRESETS["relative"], iterations=160), device="cpu")


@pytest.fixture(scope="module")
def wells():
    return planted_wells(n_features=15, constant=1)


@pytest.fixture(scope="module")
def wells_file(wells, tmp_path_factory):
    path = tmp_path_factory.mktemp("profiles") / "wells.parquet"
    write_profiles(wells, path)
    return path


@pytest.mark.parametrize("method", [m for m in METHODS if m != "harmony"])
def test_every_method_keeps_rows_and_metadata_and_gives_finite_features(wells, method):
    found = correct(wells, method, FAST)
    described = [c for c in wells if c.startswith("Metadata_")]
    pd.testing.assert_frame_equal(found.profiles[described], wells[described])
    assert np.isfinite(matrix(found.profiles)).all()
    assert found.before.n == 330
    assert found.held_out == "plates"
    assert (method == "none") == found.profiles.equals(wells)


@pytest.mark.parametrize(("method", "at_most"), [("centre", 0.2), ("standardise", 0.2), ("coral-means", 0.2)])
def test_methods_that_align_means_hide_the_week_of_controls(wells, method, at_most):
    found = correct(wells, method, FAST)
    assert found.before.accuracy > 0.8
    assert found.after.accuracy < at_most


def test_coral_alone_leaves_means_apart_and_so_the_week_visible(wells):
    assert correct(wells, "coral", FAST).after.accuracy > 0.8


def test_no_treated_well_decides_how_controls_are_corrected(wells):
    treated = (wells["Metadata_compound"] != "DMSO").to_numpy()
    other = wells.copy()
    names = features(wells)
    other.loc[treated, names] = other.loc[treated, names] * 3 + 1
    for method in METHODS:
        if method == "harmony":
            continue
        first, second = (correct(t, method, FAST).profiles[~treated] for t in (wells, other))
        np.testing.assert_allclose(matrix(first), matrix(second), rtol=1e-9, atol=1e-9, err_msg=method)


def test_centre_subtracts_the_mean_of_each_domains_controls(wells):
    found = Centre().fit(wells).transform(wells)
    controls = found[found["Metadata_compound"] == "DMSO"].groupby("Metadata_batch")[features(wells)].mean()
    scale = wells[features(wells)].abs().max()
    np.testing.assert_allclose(controls / scale, 0, atol=1e-12)


def test_harmony_mixes_batches_and_says_that_it_is_not_fitted_on_controls():
    pytest.importorskip("harmonypy")
    wells = planted_wells(n_features=10, plate_effect=0)
    found = correct(wells, "harmony", FAST)
    assert any("not fitted on controls" in note for note in found.notes)
    assert matrix(found.profiles).shape == matrix(wells).shape
    rng = np.random.default_rng(0)
    shift = np.repeat([[0, 0, 0], [6, 0, 0]], 60, axis=0)
    toy = pd.DataFrame(rng.normal(size=(120, 3)) + shift, columns=["a", "b", "c"])
    toy = toy.assign(Metadata_batch=np.repeat(["w1", "w2"], 60), Metadata_compound=np.tile(["DMSO", "A", "B"], 40))
    mixed = Harmony().transform(toy)
    means = mixed.groupby("Metadata_batch")["a"].mean()
    assert abs(means.iloc[0] - means.iloc[1]) < 3


def test_leakage_falls_back_to_rows_and_then_to_nothing(wells):
    found, held = corrections.leakage(wells.drop(columns="Metadata_plate"), "Metadata_batch")
    assert held == "rows"
    assert found.accuracy > 0.8
    few = wells.groupby(["Metadata_batch", "Metadata_compound"]).head(2)
    assert corrections.leakage(few.drop(columns="Metadata_plate"), "Metadata_batch") == (None, "")


def test_the_ridge_decides_where_controls_are_fewer_than_dimensions():
    wells = planted_wells(n_features=30)
    with pytest.raises(CellbookError, match="18 controls of Metadata_batch Week10 span at most 17 of 30"):
        correct(wells, "coral", Settings(ridge=0.0))
    for method in ("coral", "coral-means", "tvn"):
        with pytest.raises(CellbookError, match="give --ridge above 0"):
            correct(wells, method)
        noted = correct(wells, method, Settings(ridge=1.0)).notes
        assert any("ridge of 1 decides" in note for note in noted)
    few = wells.groupby(["Metadata_batch", "Metadata_compound"]).head(3)
    for ridge in (0.0, None):
        with pytest.raises(CellbookError, match="30 controls span at most 29 of 30"):
            correct(few, "whiten", Settings(ridge=ridge))


def test_wdn_is_refused_on_a_handful_of_controls_unless_asked_for(wells):
    few = wells.groupby(["Metadata_batch", "Metadata_compound"]).head(5)
    with pytest.raises(CellbookError, match=r"10 of 10 values of Metadata_batch have fewer than 10.*with 5"):
        correct(few, "wdn", FAST)
    with pytest.raises(CellbookError, match="5 controls of Metadata_batch"):  # one covariance a domain
        correct(few, "wdn", replace(FAST, fewest_controls=5))
    found = correct(few, "wdn", replace(FAST, fewest_controls=5, ridge=1.0))
    assert np.isfinite(matrix(found.profiles)).all()


def turned(kind, controls, seed=0, n=4, turn=0.5, shift=1.5):
    """Two batches of controls and treatments: in the second, rows are turned and shifted, and one drug a direction."""
    rng = np.random.default_rng(seed)
    draw = {
        "gaussian": lambda k: rng.normal(size=(k, n)),
        "skewed": lambda k: rng.exponential(size=(k, n)) - 1,
        "two peaks": lambda k: rng.choice([-0.9, 0.9], (k, n)) + np.sqrt(0.19) * rng.normal(size=(k, n)),
    }[kind]
    skew = np.triu(np.ones((n, n)), 1) * turn / np.sqrt(n)
    parts = []
    for batch, (matrix_, move) in enumerate([(np.eye(n), 0.0), (expm(skew - skew.T), shift)]):
        names = np.repeat(["DMSO", *(f"drug{i}" for i in range(n))], [controls] + [200] * n)
        effect = np.vstack([np.zeros((controls, n)), np.repeat(3 * np.eye(n), 200, axis=0)])
        x = (draw(len(names)) + effect) @ matrix_ + move
        parts.append(pd.DataFrame(x, columns=list("abcd")).assign(Metadata_batch=f"b{batch}", Metadata_compound=names))
    return pd.concat(parts, ignore_index=True)


def apart(profiles):
    """Mean distance between the batches' means of a drug, over the spread of the drugs' means."""
    drugs = profiles[profiles["Metadata_compound"] != "DMSO"]
    means = drugs.groupby(["Metadata_batch", "Metadata_compound"])[features(profiles)].mean().to_numpy()
    first, second = means.reshape(2, -1, len(features(profiles)))
    return np.linalg.norm(first - second, axis=1).mean() / np.sqrt(np.square(first - first.mean(axis=0)).sum())


@pytest.mark.parametrize("kind", ["skewed", "two peaks"])
def test_wdn_sees_a_rotation_that_covariances_cannot(kind):
    wells = turned(kind, 300)
    found = correct(wells, "wdn", ON_CPU)
    left = {m: apart(correct(wells, m).profiles) for m in ("centre", "coral-means")}
    assert left["coral-means"] > 0.9 * left["centre"]
    assert apart(found.profiles) < 0.7 * left["coral-means"]
    assert found.training["after"] < found.training["start"] < 0.1 * found.training["before"]


@pytest.mark.parametrize(("kind", "controls"), [("gaussian", 300), ("gaussian", 20), ("two peaks", 20)])
def test_wdn_leaves_no_more_than_means_and_covariances_do(kind, controls):
    for seed in range(2):
        wells = turned(kind, controls, seed)
        found = correct(wells, "wdn", ON_CPU)
        other = correct(wells, "coral-means").profiles
        assert apart(found.profiles) <= apart(other) + 1e-9
        assert found.training["after"] <= found.training["start"]
        if found.training["steps"] == 0:
            np.testing.assert_allclose(matrix(found.profiles), matrix(other), rtol=1e-12)


def test_the_units_of_features_play_no_part_in_wdn():
    wells = turned("skewed", 100)
    units = np.array([1e-3, 1.0, 1e3, 1e3])
    scaled = wells.assign(**{name: unit * wells[name] for name, unit in zip("abcd", units, strict=True)})
    first, second = (correct(t, "wdn", ON_CPU) for t in (wells, scaled))
    assert first.training["steps"] == second.training["steps"] > 0
    np.testing.assert_allclose(matrix(first.profiles), matrix(second.profiles), atol=1e-3)


def test_wdn_takes_the_step_that_is_asked_for_or_says_which_controls_are_missing(wells):
    fast = replace(PRESETS["relative"], iterations=30, checkpoint_every=10)
    start, last = (correct(wells, "wdn", Settings(wdn=fast, device="cpu", step=step)) for step in (0, 30))
    assert (start.training["steps"], last.training["steps"]) == (0, 30)
    assert start.training["stopped"] == last.training["stopped"] == "asked for"
    again = correct(wells, "wdn", Settings(wdn=fast, device="cpu", step=30))
    pd.testing.assert_frame_equal(last.profiles, again.profiles)
    np.testing.assert_allclose(matrix(start.profiles), matrix(correct(wells, "coral-means").profiles), rtol=1e-12)
    assert np.abs(matrix(last.profiles) - matrix(start.profiles)).max() > 0.01
    few = turned("gaussian", 3)
    found = correct(few, "wdn", replace(ON_CPU, fewest_controls=3, ridge=1.0))
    assert found.training == {
        "steps": 0,
        "stopped": "fewer than four controls in a domain, so that none can be held out",
    }


def test_the_distance_between_domains_is_szekelys_and_knows_no_scale():
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(1000, 1)), np.repeat([0, 1, 2], [500, 300, 200])
    x[codes == 1] = 1 + 2 * x[codes == 1]
    expected = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        u, v = x[codes == a, 0], x[codes == b, 0]
        expected.append(energy_distance(u, v) ** 2 / (2 * np.abs(u[:, None] - v).mean()))
    assert between(x, codes) == pytest.approx(np.mean(expected), abs=5e-3)
    assert between(1e3 * x + 5, codes) == pytest.approx(between(x, codes))
    assert between(np.repeat([[0.0], [1.0], [2.0]], 2, axis=0), np.repeat([0, 1, 2], 2)) == 1


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_the_command_writes_the_table_and_reports_leakage(run_main, wells_file, tmp_path, suffix):
    output = tmp_path / f"corrected{suffix}"
    code, out, err = run_main("correct", wells_file, "--method", "standardise", "--domain", "batch", "--output", output)
    assert (code, err.startswith("features: 16 of 26 columns (planted_0, ")) == (0, True)
    assert "330 DMSO rows" in out
    assert "before" in out
    assert "after" in out
    assert str(output) in out
    written = read_profiles(output)
    expected = correct(read_profiles(wells_file), "standardise", FAST).profiles
    np.testing.assert_allclose(matrix(written), matrix(expected), rtol=1e-12)
    assert [p.name for p in tmp_path.iterdir()] == [output.name]


def test_the_command_takes_the_configuration_of_wdn_and_prints_json(run_main, wells_file, tmp_path):
    words = ["correct", wells_file, "--method", "wdn", "--preset", "smoke", "--device", "cpu", "--json"]
    words += ["-p", "distance=energy", "-p", "iterations=10", "-p", "map_rate=1e-3"]
    code, out, err = run_main(*words, "--output", tmp_path / "a.parquet")
    assert (code, err.startswith("features: 16 of 26 columns (planted_0, ")) == (0, True)
    report = json.loads(out)
    assert report["method"] == "wdn"
    assert report["domain"] == "Metadata_batch"
    assert report["features"] == 15
    assert 0 <= report["accuracy_after"] <= 1 >= report["accuracy_before"] > 0.8
    assert any("1 feature without spread" in note for note in report["notes"])
    assert report["training"]["stopped"] == "none of 10 steps brought held-out controls closer"
    assert report["training"]["after"] <= report["training"]["start"] < report["training"]["before"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "combat"], "no method 'combat': there are none, centre"),
        (["--method", "tvn", "--domain", "bach"], "domain 'bach' is no metadata column of the table; did you mean"),
        (["--method", "tvn", "--controls", "dmso"], "did you mean --controls 'DMSO'"),
        (["--method", "tvn", "--ridge", "-1"], "ridge is -1.0"),
        (["--method", "tvn", "--step", "4"], "only method 'wdn' has steps"),
        (["--method", "wdn", "--preset", "smoke", "--step", "9"], "every 2 steps from 0 to 6"),
        (["--method", "wdn", "--preset", "smoke", "--step", "3"], "step=3 has no checkpoint"),
        (["--method", "wdn", "--fewest-controls", "19"], "fewer than 19 controls"),
        (["--method", "wdn", "--preset", "long"], "preset 'long'"),
        (["--method", "wdn", "-p", "rate=1"], "no parameter rate"),
        (["--method", "wdn", "-p", "distance=l2"], "distance='l2' is none of critic, energy, sinkhorn, relative"),
        (["--method", "wdn", "-p", "depth=deep"], "takes int"),
    ],
)
def test_bad_words_end_in_one_sentence_and_exit_code_2(run_main, wells_file, tmp_path, words, message):
    output = tmp_path / "out.parquet"
    code, out, err = run_main("correct", wells_file, *words, "--output", output)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())


def spoil_nan(wells):
    wells.loc[3:5, "planted_2"] = np.nan


def spoil_controls(wells):
    week = (wells["Metadata_batch"] == "Week3") & (wells["Metadata_compound"] == "DMSO")
    wells.loc[week, "Metadata_compound"] = "water"


def spoil_batch(wells):
    wells["Metadata_batch"] = "Week1"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_nan, "1 of 16 features hold NaN or infinity in 3 of 639 rows ('planted_2'); leave them out with --drop"),
        (spoil_controls, "Week3"),
        (spoil_batch, "nothing to correct"),
    ],
)
def test_bad_tables_are_refused_and_nothing_is_written(run_main, wells, tmp_path, spoil, message):
    table = wells.copy()
    spoil(table)
    file = tmp_path / "in.parquet"
    write_profiles(table, file)
    output = tmp_path / "out.parquet"
    code, _, err = run_main("correct", file, "--method", "coral", "--output", output)
    assert code == 2
    assert message in err
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


def test_unusable_features_are_dropped_on_demand_and_named(run_main, wells, tmp_path):
    table = wells.copy()
    spoil_nan(table)
    file = tmp_path / "in.parquet"
    write_profiles(table, file)
    words = ["correct", file, "--method", "tvn", "--drop-unusable", "--output", tmp_path / "out.parquet"]
    code, out, _ = run_main(*words)
    assert code == 0
    assert "1 features with NaN or infinity, 1 constant features" in out
    assert len(features(read_profiles(tmp_path / "out.parquet"))) == 14


@pytest.mark.parametrize(
    ("name", "message"), [("missing/out.parquet", "there is no folder"), ("out.xlsx", "unknown suffix")]
)
def test_a_place_that_cannot_be_written_is_refused_first(run_main, tmp_path, name, message):
    words = ["correct", tmp_path / "absent.parquet", "--method", "tvn", "--output", tmp_path / name]
    code, _, err = run_main(*words)
    assert code == 2
    assert message in err


def test_a_folder_in_place_of_the_output_is_refused(run_main, wells_file, tmp_path):
    (tmp_path / "out.parquet").mkdir()
    words = ["correct", wells_file, "--method", "centre", "--output", tmp_path / "out.parquet"]
    code, _, err = run_main(*words)
    assert code == 2
    assert "cannot write" in err
