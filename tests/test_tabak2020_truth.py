"""Page of WDN: faults of the published code on three clouds, restoration of a truth, what holds beyond controls."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from cellbook.errors import CellbookError
from cellbook.figures import tabak2020 as plots
from cellbook.methods import wdn
from cellbook.methods.wdn.evaluation import control_moments
from cellbook.pages.tabak2020 import bugs, carry, truth
from cellbook.profiles.centre import Centre

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = wdn.Config(pretraining=250, iterations=100, critic_steps=8, checkpoint_every=20)


def described(x, **columns):
    """Profile table of rows x (rows, n) with Metadata_ columns."""
    table = pd.DataFrame(np.asarray(x, dtype=float), columns=[f"x{i}" for i in range(np.shape(x)[1])])
    return table.assign(**{f"Metadata_{name}": value for name, value in columns.items()})


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy():
    torch.set_num_threads(1)
    return bugs.toy(SHORT, seed=1).set_index(["variant", "step"])


def test_the_clouds_are_as_far_apart_as_said_and_have_equal_spread():
    table = bugs.clouds(3, rows=4000)
    means = table.groupby("Metadata_batch").mean(numeric_only=True).drop(columns="Metadata_concentration")
    gaps = [np.linalg.norm(means.iloc[i] - means.iloc[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(gaps, bugs.APART, atol=0.15)
    spread = table.groupby("Metadata_batch")[["x0", "x9"]].var()
    np.testing.assert_allclose(spread, 1.0, atol=0.1)


def test_many_critic_steps_bring_the_clouds_together_and_the_printed_order_drives_them_apart(toy):
    start, last = toy.xs(0, level="step"), toy.xs(100, level="step")
    np.testing.assert_allclose(start["gap"], bugs.APART, atol=0.25)
    np.testing.assert_allclose(start["variance"], 1.0)
    assert last.loc[bugs.RIGHT, "gap"] < 0.15 * bugs.APART
    printed = toy.loc[bugs.ORDER, "gap"]
    assert printed.iloc[-1] > bugs.APART
    assert printed.min() < 0.5 * bugs.APART  # it comes near, and runs past


def test_the_misplaced_bias_leaves_a_gap_when_applied_as_a_bias(toy):
    last = toy.xs(100, level="step")
    assert last.loc[bugs.BIAS, "gap"] > 3 * last.loc[bugs.RIGHT, "gap"]
    assert last.loc[bugs.BIAS, "gap_in_training"] < 0.5 * last.loc[bugs.BIAS, "gap"]
    others = last.drop(bugs.BIAS)
    pd.testing.assert_series_equal(others["gap"], others["gap_in_training"], check_names=False)


def test_the_norm_of_the_minibatch_makes_distances_about_ten_times_too_small(toy):
    start = toy.xs(0, level="step")["estimate"]
    assert start[bugs.RIGHT] == pytest.approx(bugs.APART * (1 + bugs.APART / 20), rel=0.1)
    assert 8 < start[bugs.RIGHT] / start[bugs.NORM] < 14


def test_maps_as_trained_are_what_training_applied():
    profiles = bugs.clouds(0, rows=40)
    alignment = wdn.fit(
        profiles, replace(SHORT, pretraining=20, iterations=20, bug_bias=True, map_rate=1e-2), device="cpu"
    )
    level = alignment.levels[0]
    x = profiles[alignment.features].to_numpy()
    codes = alignment.codes(profiles)
    found = bugs.as_trained(alignment).map_rows(x, codes, 1)
    slow = [r @ level.maps["M"][1, d] + r.sum() * level.maps["b"][1, d] for r, d in zip(x, codes[:, 0], strict=True)]
    np.testing.assert_allclose(found, slow, atol=1e-5)
    assert np.abs(level.maps["b"][1]).max() > 0


def test_rows_whose_coordinates_sum_to_zero_are_not_moved_by_the_misplaced_bias():
    x = np.array([[1.0, -3.0, 2.0], [0.5, 0.5, -1.0]])
    profiles = described(x, batch=["Week1", "Week2"], compound="DMSO")
    alignment = wdn.unmoved(profiles)
    level = alignment.levels[0]
    biased = replace(level, maps={**level.maps, "b": level.maps["b"] + 5})
    trained = bugs.as_trained(replace(alignment, levels=(biased,)))
    np.testing.assert_allclose(trained.map_rows(x, trained.codes(profiles), 0), x, atol=1e-6)


def test_the_estimate_is_of_the_critics_before_the_map_step():
    history = pd.DataFrame({"map_steps": [0, 0, 0, 1, 2, 3], "distance": [9.0, 8, 7, 6, 5, 4]})
    profiles = described(np.eye(2), batch=["Week1", "Week2"], compound="DMSO")
    still = wdn.unmoved(profiles)
    maps = {name: np.repeat(value, 3, axis=0) for name, value in still.levels[0].maps.items()}
    level = replace(still.levels[0], steps=np.array([0, 2, 4]), maps=maps)
    # the line of 0 map steps that is last was written after the critics were taught again for the first map step
    assert bugs.seen(replace(still, levels=(level,), history=history)).tolist() == [7, 6, 4]


def test_the_study_has_the_measures_of_every_variant_and_equal_steps(planted):
    weeks = planted[planted["Metadata_batch"].isin(["Week1", "Week2", "Week3"])]
    wells = weeks.drop(columns=[c for c in weeks if c.startswith("planted_") and int(c[8:]) >= 8])
    names = [c for c in wells if c.startswith("planted_")]
    wells[names] = (wells[names] - wells[names].mean()) / wells[names].std()
    tiny = wdn.Config(pretraining=20, iterations=4, critic_steps=3, checkpoint_every=2)
    found = bugs.study(wells, tiny, device="cpu")
    assert list(found) == ["variant", "step", "measure", "k", "value"]
    assert not found.duplicated(["variant", "step", "measure", "k"]).any()
    first = found[found["step"] == 0].pivot_table(index=["measure", "k"], columns="variant", values="value")
    common = first.drop(index=["estimate", "gap in training"], level="measure")
    np.testing.assert_array_equal(common.min(axis=1), common.max(axis=1))  # no map: all the same
    assert set(common.index.get_level_values("measure")) >= {"NSC", "NSCB", "silhouette", "variance", "gap", "change"}
    inside = found[found["measure"] == "gap in training"]
    assert inside["variant"].unique().tolist() == [bugs.BIAS]
    assert inside["value"].iloc[0] == first.loc[("gap", 0), bugs.BIAS]
    assert found[found["variant"] == bugs.RIGHT]["step"].unique().tolist() == [0, 2, 4]


# --- restoration ----------------------------------------------------------------------------------------------------


def screen(rng, n=12, compounds=14, weeks=4, cells=6):
    """Cells of a screen: compounds of two doses in one week each, DMSO and a positive control in all weeks."""
    rows = []
    for c in range(compounds):
        for dose in (1.0, 2.0):
            effect = rng.normal(size=n) * 3
            rows += [(f"C{c}", dose, f"Week{c % weeks + 1}", "treatment", effect)] * cells
    for w in range(weeks):
        rows += [("DMSO", 0.0, f"Week{w + 1}", "negative control", np.zeros(n))] * 20
        rows += [("taxol", 0.3, f"Week{w + 1}", "positive control", np.full(n, 50.0))] * cells
    names = ("compound", "concentration", "batch", "role")
    x = np.stack([row[-1] for row in rows]) + rng.normal(size=(len(rows), n))
    return described(x, **{name: [row[i] for row in rows] for i, name in enumerate(names)})


def feature_values(table):
    return table[[c for c in table if c.startswith("x")]].to_numpy()


def with_features(table, x):
    return described(x, **{c[9:]: table[c].to_numpy() for c in table if c.startswith("Metadata_")})


def test_a_screen_that_is_restored_up_to_rotation_scale_and_origin_is_restored_completely():
    rng = np.random.default_rng(0)
    clean = screen(rng)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    found = truth.restored(with_features(clean, 7 * feature_values(clean) @ rotation + 1e3), clean, n=50)
    found = found.set_index("measure")
    np.testing.assert_allclose(found.loc[truth.CORRELATION, ["value", "low", "high"]].astype(float), 1.0, atol=1e-9)
    assert found.loc[truth.KEPT, ["value", "low", "high"]].tolist() == [1, 1, 1]
    assert found.loc[truth.ERROR, "value"] < 1e-5


def test_random_profiles_restore_nothing():
    rng = np.random.default_rng(1)
    clean = screen(rng, n=30, compounds=40)
    found = truth.restored(with_features(clean, rng.normal(size=(len(clean), 30))), clean, n=200).set_index("measure")
    assert abs(found.loc[truth.CORRELATION, "value"]) < 0.1
    assert found.loc[truth.CORRELATION, "low"] < 0 < found.loc[truth.CORRELATION, "high"]
    assert found.loc[truth.KEPT, "value"] == pytest.approx(found.loc[truth.KEPT, "chance"], abs=0.06)
    assert found.loc[truth.ERROR, "value"] > found.loc[truth.ERROR, "chance"] - 0.01


def test_shifts_of_weeks_cost_restoration_and_taking_them_away_brings_it_back():
    rng = np.random.default_rng(2)
    clean = screen(rng)
    week = pd.factorize(clean["Metadata_batch"])[0]
    shifted = with_features(clean, feature_values(clean) + 6 * rng.normal(size=(4, 12))[week])
    centred = Centre().fit(shifted).transform(shifted)
    before, after = (truth.restored(t, clean, n=100).set_index("measure") for t in (shifted, centred))
    assert before.loc[truth.CORRELATION, "value"] < 0.6
    assert after.loc[truth.CORRELATION, "low"] > before.loc[truth.CORRELATION, "high"]
    assert after.loc[truth.KEPT, "value"] > before.loc[truth.KEPT, "value"]
    assert after.loc[truth.ERROR, "value"] < before.loc[truth.ERROR, "value"]


def test_measures_equal_a_slow_loop_over_treatments():
    rng = np.random.default_rng(3)
    clean = screen(rng, compounds=7)
    noisy = with_features(clean, feature_values(clean) + 1e3 + rng.normal(size=(len(clean), 12)) * 4)
    means = []
    for table in (noisy, clean):
        origin = feature_values(table[table["Metadata_compound"] == "DMSO"]).mean(axis=0)
        kept = table[table["Metadata_role"] == "treatment"]
        units = [
            (key[0], feature_values(rows).mean(axis=0) - origin)
            for key, rows in kept.groupby(["Metadata_compound", "Metadata_concentration"])
        ]
        means.append(units)
    count = len(means[0])
    d = np.full((2, count, count), np.nan)
    for s in range(2):
        for i in range(count):
            for j in range(count):
                if means[s][i][0] != means[s][j][0]:
                    a, b = means[s][i][1], means[s][j][1]
                    d[s, i, j] = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    upper = [(d[0, i, j], d[1, i, j]) for i in range(count) for j in range(i) if np.isfinite(d[0, i, j])]
    x, y = np.array(upper).T
    shared = [len(set(np.argsort(d[0, i])[:5]) & set(np.argsort(d[1, i])[:5])) for i in range(count)]
    scale = (x @ y) / (x @ x)
    found = truth.restored(noisy, clean, n=20).set_index("measure")["value"]
    assert found[truth.CORRELATION] == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)
    assert found[truth.KEPT] == pytest.approx(np.mean(shared) / 5)
    assert found[truth.ERROR] == pytest.approx(np.linalg.norm(scale * x - y) / np.linalg.norm(y), abs=1e-9)


def test_weighted_pairs_count_as_repeated_ones():
    rng = np.random.default_rng(4)
    values, weight = rng.integers(0, 9, 60).astype(float), rng.integers(0, 4, 60)
    ranks = truth.weighted_ranks(np.unique(values, return_inverse=True)[1], weight)
    np.testing.assert_allclose(np.repeat(ranks, weight), rankdata(np.repeat(values, weight)))
    compound = np.repeat(np.arange(6), 2)
    d = rng.random((2, 12, 12))
    pairs = truth.compare(*(d + d.swapaxes(1, 2)), compound)
    weight = rng.integers(0, 3, len(pairs.compounds))
    own, clean = np.repeat(pairs.distances, weight, axis=1)
    found = truth.agreement(pairs, weight)
    assert found[truth.CORRELATION] == pytest.approx(spearmanr(own, clean).statistic)
    true, both = pairs.near[1], pairs.near.all(axis=0)
    assert found[truth.KEPT] == pytest.approx(
        np.repeat(both, weight, axis=0).sum() / np.repeat(true, weight, axis=0).sum()
    )


def test_tables_of_other_cells_are_refused():
    clean = screen(np.random.default_rng(5))
    with pytest.raises(CellbookError, match="of the same cells"):
        truth.restored(clean.iloc[1:], clean)
    with pytest.raises(CellbookError, match="Metadata_batch differs"):
        truth.restored(clean.assign(Metadata_batch="Week1"), clean)
    few = clean[clean["Metadata_compound"].isin(["DMSO", "C0", "C1"])]
    with pytest.raises(CellbookError, match="2 compounds"):
        truth.restored(few, few)


# --- beyond the controls --------------------------------------------------------------------------------------------

# No critics: less time, and no drift after weeks have met.
FAST = wdn.Config(distance="energy", iterations=80, checkpoint_every=20, map_rate=2e-2)


def both_kinds(shift_dmso, shift_taxol, seed=0, plates=4, rows=40, n=4):
    """DMSO and taxol 0.3 of weeks with planted shifts (weeks, n)."""
    rng = np.random.default_rng(seed)
    parts = []
    for w, shifts in enumerate(zip(shift_dmso, shift_taxol, strict=True)):
        for p in range(plates):
            for (compound, dose, role), shift in zip(
                (("DMSO", 0.0, "negative control"), ("taxol", 0.3, "positive control")), shifts, strict=True
            ):
                x = rng.normal(size=(rows, n)) + shift + (1.5 if compound == "taxol" else 0.0) * (np.arange(n) == 0)
                place = {"batch": f"Week{w + 1}", "plate": f"Week{w + 1}_{p}", "well": compound}
                parts.append(described(x, compound=compound, concentration=dose, role=role, **place))
    return pd.concat(parts, ignore_index=True)


SHIFT = np.array([[0, 1.5, 0, 0], [0, -1.5, 0, 0.0]])


def numbers(found):
    return found.set_index(["fit", "measured on", "measure", "step"])["value"]


def test_a_shift_that_all_treatments_share_is_taken_away_from_one_that_was_not_seen(tmp_path):
    cells = both_kinds(SHIFT, SHIFT)
    found = carry.carry_over(cells, FAST, tmp_path, "cpu", steps=(0, 80))
    value = numbers(found)
    for on in ("DMSO", "taxol 0.3"):
        assert value["nothing", on, carry.GAP, 0] == pytest.approx(3 / 2, abs=0.25)  # 3 apart, over the root of 4
        assert value["DMSO", on, carry.LEFT, 80] < 0.4
        assert value["DMSO and taxol 0.3", on, carry.LEFT, 80] < 0.4
        assert value["nothing", on, carry.NAMED, 0] > 0.85
        assert value["DMSO", on, carry.NAMED, 80] < 0.7
    left, gap = (found[found["measure"] == m].reset_index(drop=True) for m in (carry.LEFT, carry.GAP))
    np.testing.assert_allclose(left["chance"] / left["value"], gap["chance"] / gap["value"])
    lines = found.dropna(subset="low")
    assert (lines["low"] <= lines["value"]).all()
    assert (lines["value"] <= lines["high"]).all()
    assert {run.name.rsplit("-", 1)[0] for run in tmp_path.iterdir()} == {"wdn-controls"}
    again = carry.carry_over(cells, FAST, tmp_path, "cpu", steps=(0, 80))
    assert len(list(tmp_path.iterdir())) == 2  # found in the store
    pd.testing.assert_frame_equal(found, again)


def test_a_shift_of_the_unseen_treatment_alone_stays_unless_it_is_fitted(tmp_path):
    cells = both_kinds(SHIFT, -SHIFT)
    value = numbers(carry.carry_over(cells, FAST, tmp_path, "cpu", steps=(0, 80)))
    assert value["DMSO", "DMSO", carry.LEFT, 80] < 0.4
    assert value["DMSO", "taxol 0.3", carry.LEFT, 80] > 0.5
    assert value["DMSO and taxol 0.3", "taxol 0.3", carry.LEFT, 80] < 0.4
    assert value["DMSO", "taxol 0.3", carry.NAMED, 80] > 0.95
    assert value["DMSO and taxol 0.3", "taxol 0.3", carry.NAMED, 80] < 0.7


def test_no_row_of_a_plate_is_both_fitted_on_and_measured():
    cells, name = carry.both_controls(both_kinds(SHIFT, SHIFT, plates=5, rows=3))
    assert name == "taxol 0.3"
    fitted, kept = carry.split_plates(cells, seed=3)
    assert not set(fitted["Metadata_plate"]) & set(kept["Metadata_plate"])
    assert len(fitted) + len(kept) == len(cells)
    assert set(fitted["Metadata_batch"]) == set(kept["Metadata_batch"]) == {"Week1", "Week2"}


def test_the_gap_is_that_of_the_evaluation_and_its_chance_what_equal_weeks_give():
    rng = np.random.default_rng(0)
    cells = both_kinds(np.zeros((3, 20)) + 1e4, np.zeros((3, 20)), rows=15, n=20)
    dmso = cells[cells["Metadata_compound"] == "DMSO"].reset_index(drop=True)
    dmso[["x3", "x5"]] += 3 * rng.normal(size=(3, 2))[pd.factorize(dmso["Metadata_batch"])[0]]
    found = carry.week_gap(dmso)
    same = control_moments(wdn.unmoved(dmso), dmso, 0)["gap"]
    assert found.value == pytest.approx(same, rel=1e-9)
    one = dmso[dmso["Metadata_plate"] != "Week1_0"].reset_index(drop=True)
    assert found.without[0] == pytest.approx(carry.week_gap(one).value, rel=1e-9)
    alike = carry.week_gap(cells[cells["Metadata_compound"] == "taxol"].reset_index(drop=True))
    assert alike.value == pytest.approx(alike.chance, rel=0.15)


def test_the_interval_of_a_mean_is_students_for_one_stratum():
    from scipy.stats import t

    x = np.random.default_rng(0).normal(size=7) + 5
    without = (x.sum() - x) / 6
    low, high = t.interval(0.95, 6, x.mean(), x.std(ddof=1) / np.sqrt(7))
    np.testing.assert_allclose(carry.jackknife(x.mean(), without, np.zeros(7)), (x.mean(), low, high))
    value, low, high = carry.jackknife(2.0, without, np.arange(7))
    assert value == 2.0
    assert np.isnan([low, high]).all()


def test_screens_without_positive_control_or_with_one_plate_a_week_give_an_empty_table(tmp_path, planted):
    columns = ["fit", "measured on", "measure", "step", "value", "low", "high", "chance"]
    for cells in (planted, both_kinds(SHIFT, SHIFT, plates=1), both_kinds(SHIFT[:1], SHIFT[:1])):
        found = carry.carry_over(cells, FAST, tmp_path)
        assert found.empty
        assert list(found) == columns
    with pytest.raises(CellbookError, match="Metadata_plate"):
        carry.carry_over(planted, replace(FAST, domains=("Metadata_plate", "Metadata_batch")), tmp_path)


# --- figures --------------------------------------------------------------------------------------------------------


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def lines(figure):
    """Values along x and y of every line with more than two points."""
    return [line.get_xydata() for axes in figure.axes for line in axes.lines if len(line.get_xdata()) > 2]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def test_the_layout_has_a_numbered_circle_a_dose_and_names_every_compound(planted):
    names = ["batch", "compound", "concentration", "moa"]
    rows = planted[[f"Metadata_{n}" for n in names]].rename(columns=lambda n: n.removeprefix("Metadata_"))
    screen_panel, key = plots.layout(rows).axes
    circles = [text.get_text() for text in screen_panel.texts]
    assert circles.count("0") == 10  # DMSO in every week
    assert len(circles) == 103 + 10
    assert {int(text) for text in circles} == set(range(39))
    assert sum(text.get_text()[0].isdigit() for text in key.texts) == 38
    assert [label.get_text() for label in screen_panel.get_yticklabels()] == [f"week {i}" for i in range(1, 11)]


def test_the_course_draws_the_mean_over_alignments_from_step_0_on():
    steps, ks = [0, 5, 10], [1, 2, 3, 4]
    table = pd.DataFrame(
        [
            ("some cells, VAE+", repeat, step, measure, k, 0.9 - 0.1 * k - 0.01 * repeat, 0.02)
            for repeat in (0, 1)
            for step in steps
            for measure in ("NSC", "NSCB")
            for k in ks
        ],
        columns=["source", "repeat", "step", "measure", "k", "mean", "sd"],
    )
    figure = plots.course(table)
    assert legend_texts(figure) == [f"k = {k}" for k in ks]
    thick = [line for line in figure.axes[0].lines if line.get_linewidth() == 2]
    assert [line.get_ydata()[0] for line in thick] == pytest.approx([79.5, 69.5, 59.5, 49.5])
    assert all(line.get_xdata().tolist() == steps for line in thick)
    assert figure.axes[0].get_xlim()[0] < 0
    flat = pd.DataFrame({"source": "some cells, VAE+", "method": ["uncorrected"], "mean": [0.3], "sd": [np.nan]})
    shown = plots.silhouette(table[table["k"] == 1].assign(measure="silhouette"), flat)
    assert legend_texts(shown) == ["WDN", "uncorrected"]
    assert shown.axes[0].lines[0].get_ydata().tolist() == [0.3, 0.3]


def test_methods_with_and_without_steps_stand_beside_each_other():
    rows = [("a", "WDN", "logistic", step, 0.6 - step / 100, 0.01, 0.1) for step in (0.0, 5, 10)]
    rows.append(("a", "CORAL", "logistic", np.nan, 0.5, np.nan, 0.1))
    table = pd.DataFrame(rows, columns=["source", "method", "model", "step", "mean", "sd", "baseline"])
    figure = plots.batch_accuracy(table)
    assert legend_texts(figure) == ["WDN", "CORAL", "noise"]
    assert figure.axes[0].get_title() == "logistic regression"
    rng = np.random.default_rng(0)
    drawn = pd.DataFrame({"source": "a", "measure": ["NSC"] * 40 + ["NSCB"] * 40, "k": 1, "value": rng.random(80)})
    both = pd.concat([drawn.assign(method=m) for m in ("uncorrected", "WDN, max k-NN")])
    figure = plots.violins(both)
    assert legend_texts(figure) == ["uncorrected", "WDN, max k-NN"]
    assert len(figure.axes[0].lines) == 6  # three quartiles of each
    points = pd.DataFrame({"x": rng.random(6), "y": rng.random(6), "batch": ["Week2", "Week10", "Week1"] * 2})
    figure = plots.controls_pca(points.assign(source="a", method=["CORAL"] * 3 + ["WDN"] * 3))
    assert legend_texts(figure) == ["week 1", "week 2", "week 10"]
    damage = [("a", 0, step, m, 1.0) for step in (0, 5, 10) for m in ("variance", "gap", "change")]
    damage += [("b", 0, step, m, 1.0) for step in (0, 2000) for m in ("variance", "gap", "change")]
    figure = plots.damage(pd.DataFrame(damage, columns=["source", "repeat", "step", "measure", "value"]))
    assert len(figure.axes) == 3
    assert {line.get_xdata()[-1] for line in figure.axes[0].lines} == {100}  # each to the end of the axis


def test_figures_of_faults_and_of_truth_draw_what_is_in_their_tables(toy):
    figure = plots.bugs(toy.reset_index())
    assert legend_texts(figure) == [*bugs.VARIANTS, f"{bugs.BIAS}, in training"]
    found = lines(figure)
    assert any(np.array_equal(line[:, 1], toy.loc[bugs.BIAS, "gap_in_training"]) for line in found)
    study = toy.reset_index().melt(["variant", "step"], ["gap", "variance"], "measure").assign(k=0)
    others = [study[study["measure"] == "gap"].assign(measure=m, k=k) for m, k in (("NSCB", 1), ("silhouette", 0))]
    assert len(plots.bugs_on_profiles(pd.concat([study, *others])).axes) == 4
    measures = [truth.CORRELATION, truth.KEPT, truth.ERROR]
    rows = [("VAE+", e, m, name, 0.5, 0.4, 0.6, 0.1) for e in (0.0, 1.0) for m in ("CORAL", "WDN") for name in measures]
    names = ["embedding", "week_effect", "method", "measure", "value", "low", "high", "null"]
    figure = plots.truth(pd.DataFrame(rows, columns=names))
    assert legend_texts(figure) == ["week effect 0", "week effect 1", "by chance"]
    carried = [
        ("a, b", fit, on, carry.NAMED, step, 0.5, np.nan, np.nan, 0.1)
        for on in ("DMSO", "taxol 0.3")
        for fit, steps in (("nothing", [0]), ("DMSO", [0, 5, 9]))
        for step in steps
    ]
    names = ["source", "fit", "measured on", "measure", "step", "value", "low", "high", "chance"]
    figure = plots.carry_over(pd.DataFrame(carried, columns=names), carry.NAMED)
    assert legend_texts(figure) == ["fitted on DMSO", "no map", "by chance"]
    assert figure.axes[1].get_title() == "measured on taxol 0.3"
    assert [line[0, 1] for line in lines(figure)] == [50, 50, 50, 50]  # single and mean, twice
