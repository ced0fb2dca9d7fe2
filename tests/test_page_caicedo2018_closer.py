"""Weak supervision looked at closer: whitenings by formulas, candidates by slow loops, layers that know or do not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import sqrtm
from sklearn.covariance import ledoit_wolf

from cellbook import figures, profiles
from cellbook.book import results
from cellbook.figures import caicedo2018 as plots
from cellbook.pages import caicedo2018
from cellbook.pages.caicedo2018 import candidates, closer, shown
from cellbook.pages.caicedo2018.config import LAYERS
from cellbook.pages.caicedo2018.models import BASELINE
from cellbook.runs import Run
from cellbook.study import known, measured, rows
from cellbook.study.encoding import CLASSICAL, UNTRAINED, of_layer

SMALL = replace(caicedo2018.PRESETS["smoke"], iterations=2, untrained=2, repeats=2)


# --- whitenings -----------------------------------------------------------------------------------------------------


def wells_and_cells(weeks=3, wells=8, per_well=10, width=4):
    """DMSO and taxol wells on several weeks that differ, and the cells of which they are means."""
    rng = np.random.default_rng(1)
    turn = rng.normal(size=(width, width))
    lines, values = [], []
    for week in range(weeks):
        for well in range(wells):
            compound = "DMSO" if well % 2 else "taxol"
            centre = rng.normal(size=width) * (1 + week) + (compound == "taxol")
            for _ in range(per_well):
                lines.append((f"Week{week}", f"Week{week}_1", f"B{well:02d}", compound))
                values.append(centre + turn @ rng.normal(size=width))
    table = pd.DataFrame(lines, columns=[f"Metadata_{name}" for name in ("batch", "plate", "well", "compound")])
    cells = pd.concat([table, pd.DataFrame(values, columns=[f"z{i}" for i in range(width)])], axis=1)
    return profiles.to_wells(cells), cells


def cosines(x):
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


def test_tvn_is_whitening_with_one_added_and_uncentred_coral_by_week():
    wells, _ = wells_and_cells()
    found = closer.whitenings(wells, pd.DataFrame())
    assert list(found) == [closer.TVN]
    control, week = (wells["Metadata_compound"] == "DMSO").to_numpy(), wells["Metadata_batch"].to_numpy()
    x = profiles.matrix(wells) - profiles.matrix(wells)[control].mean(axis=0)
    white = x @ np.linalg.inv(sqrtm(np.cov(x[control], rowvar=False) + np.eye(4)))
    moment = {name: white[control & (week == name)] for name in np.unique(week)} | {"all": white[control]}
    moment = {name: y.T @ y / len(y) + np.eye(4) for name, y in moment.items()}
    for name in np.unique(week):
        white[week == name] = white[week == name] @ np.linalg.inv(sqrtm(moment[name])) @ sqrtm(moment["all"])
    # Principal axes turn nothing that a cosine sees.
    np.testing.assert_allclose(cosines(profiles.matrix(found[closer.TVN])), cosines(white), atol=1e-8)


def test_whitening_by_cells_takes_mean_and_covariance_of_single_controls():
    wells, cells = wells_and_cells()
    found = profiles.matrix(closer.whitenings(wells, cells)[closer.BY_CELLS])
    control = profiles.matrix(cells[cells["Metadata_compound"] == "DMSO"])
    covariance, (_, share) = np.cov(control, rowvar=False), ledoit_wolf(control)
    ridge = max(share / (1 - share), 1e-3) * np.trace(covariance) / 4
    white = (profiles.matrix(wells) - control.mean(axis=0)) @ np.linalg.inv(sqrtm(covariance + ridge * np.eye(4)))
    np.testing.assert_allclose(cosines(found), cosines(white), atol=1e-8)


@pytest.mark.parametrize("change", ["one week", "a week with one control", "a week without controls"])
def test_tvn_is_left_out_where_a_week_has_too_few_controls(change):
    wells, cells = wells_and_cells(weeks=1 if change == "one week" else 2)
    mine = (wells["Metadata_batch"] == "Week1") & (wells["Metadata_compound"] == "DMSO")
    if change != "one week":
        wells = wells.drop(wells.index[mine][("without" not in change) :]).reset_index(drop=True)
    assert list(closer.whitenings(wells, cells)) == [closer.BY_CELLS]


# --- layers ---------------------------------------------------------------------------------------------------------


def test_a_layer_is_not_said_to_know_what_only_names_the_compound():
    rng = np.random.default_rng(3)
    compound = np.repeat([f"drug {i}" for i in range(20)], 4)
    size = np.repeat(rng.normal(size=20), 4)  # the same for all wells of a compound, which nothing else tells
    spread = rng.normal(size=80)
    wells = pd.DataFrame({"Metadata_plate": "Week1_1", "Metadata_well": [f"{i:03d}" for i in range(80)]})
    wells["Metadata_compound"], wells["Metadata_role"] = compound, "treatment"
    named = pd.get_dummies(compound, dtype=float).add_prefix("f")
    cells = wells.loc[np.repeat(np.arange(80), 2)].reset_index(drop=True)
    cells["truth_size"], cells["truth_spread"] = np.repeat(size, 2), np.repeat(spread, 2) + np.tile([-1, 1], 80)
    cells["truth_phase"], cells["truth_state"] = 0.0, "interphase"
    table = pd.concat([wells, named.assign(seen=10 * spread)], axis=1)
    found = known.probe_wells(table, cells, folds=5).set_index("parameter")
    assert found.loc["spread", "r2"] > 0.9
    assert found.loc["size", "r2"] < 0.1
    assert found["kind"].to_dict() == {"size": "nuisance", "spread": "cell"}
    # Controls take no part, whatever they are like.
    more = pd.concat([table, table.head(8).assign(Metadata_compound="DMSO", Metadata_well="x", seen=1e6)])
    pd.testing.assert_frame_equal(known.probe_wells(more, cells, folds=5).set_index("parameter"), found)


# --- candidates -----------------------------------------------------------------------------------------------------


def test_where_every_treatment_has_a_week_of_its_own_nothing_falls():
    rng = np.random.default_rng(4)
    treatments = pd.DataFrame(
        {
            "Metadata_compound": [f"c{i}" for i in range(12)],
            "Metadata_concentration": 1.0,
            "Metadata_moa": np.tile(["a", "b", "c"], 4),
            "Metadata_batch": [f"Week{i}" for i in range(12)],
        }
    )
    x = rng.normal(size=(12, 3))
    square = np.linalg.norm(x[:, None] - x[None], axis=2)
    votes = {m.name: [measured.matched(treatments, square, m)] for m in (candidates.NSC, candidates.NSCB)}
    found = measured.fall("s", treatments, [square], votes, rows.Draws(5, 0), rows.Draws(50, 0))
    assert len({round(line["value"], 9) for line in found}) == 1
    together = treatments.assign(Metadata_batch="Week1")
    assert not candidates.across_weeks(together).any()


# --- the run beside the page's --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(store):
    return caicedo2018.run(SMALL, store, device="cpu")


@pytest.fixture(scope="module")
def beside(run, store):
    return caicedo2018.look_closer(run, SMALL, store, "cpu")


@pytest.fixture(scope="module")
def tables(run, beside):
    return results.measure("caicedo2018", [run, beside])


@pytest.fixture(scope="module")
def numbers(tables):
    return tables["numbers"]


def test_it_is_made_of_the_stored_trainings_and_once(run, beside, store):
    before = {path: path.stat().st_mtime_ns for path in store.glob("*/run.json")}
    assert caicedo2018.look_closer(run, SMALL, store, "cpu").key == beside.key
    assert {path: path.stat().st_mtime_ns for path in store.glob("*/run.json")} == before
    trained = run.table("trainings")["key"]
    assert {path.name for path in store.glob("weakly_supervised-*")} == set(trained)


def test_a_speed_is_cells_by_seconds_after_a_few_to_begin_with(numbers, beside, monkeypatch):
    asked, clock = [], iter([3.0, 7.0])
    monkeypatch.setattr(closer.time, "process_time", lambda: next(clock))

    class Cells:
        def select(self, rows):
            return range(1000)[rows]

    found = closer.timed(lambda some: asked.append(len(some)), Cells(), "cpu").iloc[0]
    assert (asked, found["cells"], found["seconds"]) == ([8, closer.TIMED], closer.TIMED, 4.0)
    stored = beside.table("speed").set_index("variant")
    assert set(stored.index) == {CLASSICAL, UNTRAINED}
    for name, line in stored.iterrows():
        shown_ = rows.one(numbers, setting=name, protocol="speed")["value"]
        assert shown_ == pytest.approx(float(line["cells"]) / float(line["seconds"]))


def test_the_table_has_a_speed_for_each_profile_and_the_models_that_of_the_network(run, tables, numbers, beside):
    table = shown.table_2(numbers, tables["verdicts"], run)
    mine = table[table["from"] != "paper"].drop_duplicates("profile").set_index("profile")["cells/s"]
    assert mine[BASELINE] == mine["mixup"] == mine[UNTRAINED] != "–"
    assert mine["pixel PCA"] == "–"
    count = beside.table("speed")["cells"].iloc[0]
    assert f"one core of a CPU, measured once on {count:.0f} crops" in closer.speed_words(numbers, beside)


def slow_share(treatments, square, queries, allowed, across):
    """1-NN accuracy of some queries among some candidates by plain loops."""
    compound, week, moa = (treatments[f"Metadata_{name}"].to_numpy() for name in ("compound", "batch", "moa"))
    right = []
    for i in queries:
        others = [j for j in allowed if compound[j] != compound[i] and not (across and week[j] == week[i])]
        right.append(moa[min(others, key=lambda j: square[i, j])] == moa[i])
    return np.mean(right)


def test_mechanisms_of_one_week_are_among_the_candidates_or_not_as_by_a_slow_loop(run, numbers):
    treatments = run.table("treatments")
    lone = treatments["Metadata_moa"].isin(["Cholesterol-lowering", "Kinase inhibitors"]).to_numpy()
    every, few = np.arange(len(lone)), np.flatnonzero(~lone)
    assert (len(every), len(few)) == (103, 92)
    squares = [d for name, d in measured.stored_distances(run) if name[:2] == (BASELINE, candidates.WHITENED)]
    of = {"setting": f"{BASELINE}, mean, whitened"}
    for protocol, allowed in ((candidates.LONE, every), ("drop", few)):
        for measure, across in (("NSC", False), ("NSCB", True)):
            line = rows.one(numbers, protocol=protocol, measure=measure, **of)
            slow = np.mean([slow_share(treatments, square, few, allowed, across) for square in squares])
            assert line["value"] == pytest.approx(slow)
            assert line["scored"] == 92
    table = candidates.one_week_table(numbers)
    assert table.columns.tolist() == [
        "profile",
        "NSC, among both (103)",
        *(f"{m}, {how} (92)" for how in ("candidates alone", "left out") for m in ("NSC", "NSCB")),
    ]
    words = candidates.one_week_words(treatments)
    assert words.startswith("NSCB cannot score 11 of 103 treatments, those of Cholesterol-lowering and Kinase")
    assert "it has 92 queries, NSC has 103" in words
    assert len(candidates.fall_table(numbers)) == len(table) == 5


def test_every_way_of_whitening_stands_beside_the_others_and_a_lost_code_is_said(numbers):
    table = closer.whitening_table(numbers)
    ways = ["mean", "mean, whitened", closer.TVN, closer.BY_CELLS]
    assert table["profile"].drop_duplicates().tolist() == [BASELINE, "mixup", CLASSICAL, UNTRAINED]
    assert table["summary"].tolist() == 4 * ways
    one = rows.one(numbers, setting=f"{BASELINE}: {closer.TVN} - mean, whitened", measure="NSC")
    two = [rows.one(numbers, setting=f"{BASELINE}, {way}", protocol="caicedo2018", measure="NSC") for way in ways]
    assert one["value"] == pytest.approx(two[2]["value"] - two[1]["value"])
    assert closer.no_cells(numbers) == ""
    lost = numbers[~((numbers["variant"] == "mixup") & (numbers["summary"] == closer.BY_CELLS))]
    assert closer.no_cells(lost) == "Codes of single cells were not kept of: mixup; no whitening is fitted on them."


def test_whitened_distances_are_those_of_the_stored_profiles(run, beside, store):
    key = run.table("trainings").query("variant == @BASELINE")["key"].iloc[0]
    wells = Run(store / key).table("wells")
    wells = wells[wells["Metadata_role"] != "positive control"].reset_index(drop=True)
    means = wells[[name for name in wells if not str(name).endswith("_sd")]]
    coral = profiles.Coral(eta=1.0, reference="pooled", centre=False)
    table = profiles.Chain([profiles.Whitening(1.0), coral]).fit_transform(profiles.drop_unusable(means)[0])
    names = profiles.features(table)
    treated = table[table["Metadata_compound"] != "DMSO"]
    x = treated.groupby(["Metadata_compound", "Metadata_concentration"])[names].median().to_numpy()
    stored = next(d for name, d in measured.stored_distances(beside) if name[:2] == (BASELINE, closer.TVN))
    near = stored < stored.max() - 1e-4  # only those to nearest candidates are kept
    apart = 1 - cosines(x)
    assert near.sum() > 100
    np.testing.assert_allclose(stored[near], apart[near], atol=1e-4)


def test_layers_are_shown_with_every_parameter_and_the_week_of_positive_controls(numbers, beside, run, store):
    truth, weeks = beside.table("truth"), beside.table("weeks")
    names = {of_layer(network, layer) for network in (BASELINE, UNTRAINED) for layer in LAYERS}
    assert set(truth["variant"]) == set(weeks["variant"]) == names
    assert set(weeks["repeat"]) == {0, 1}
    line = rows.pick(weeks, variant=of_layer(BASELINE, "3a"), summary="mean", repeat=0)
    key = run.table("trainings").query("variant == @BASELINE")["key"].iloc[0]
    wells = Run(store / key).table("layers")
    wells = wells[wells["Metadata_role"] == "positive control"].reset_index(drop=True)
    x = wells[[name for name in wells if str(name).startswith("3a_")]].to_numpy(np.float64)
    x = x[:, x.std(axis=0) > 0]
    near, right = 1 - cosines(x), []
    week, plate = wells["Metadata_batch"], wells["Metadata_plate"]
    for i in range(len(wells)):
        others = [j for j in range(len(wells)) if plate[j] != plate[i]]
        right.append(week[min(others, key=lambda j: near[i, j])] == week[i])
    assert line["correct"].mean() == pytest.approx(np.mean(right), abs=1e-6)
    shown_ = closer.known_rows(numbers)
    assert set(shown_["panel"]) == {closer.READ, closer.WEEK}
    assert shown_["layer"].drop_duplicates().tolist() == list(LAYERS)
    figures.style()
    assert [len(axes.get_lines()) for axes in plots.known(shown_).axes] == [2 * 3 + 1, 2 * 2 + 1]
    assert len(closer.week_table(numbers)) == 4
    assert len(closer.truth_table(numbers)) == 2 * truth["parameter"].nunique()
    assert closer.layer_words(numbers).endswith("baseline CNN 2, untrained encoder 2.")
    assert closer.layer_words(numbers.head(0)).startswith("No training")


def test_numbers_of_both_runs_have_one_meaning_each_and_are_those_of_a_second_evaluation(run, beside, tables, numbers):
    assert not numbers.duplicated(["setting", "protocol", "measure", "k"]).any()
    again = results.measure("caicedo2018", [run, beside])
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, again[name])
