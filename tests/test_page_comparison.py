"""The page that compares: ranks and choices against slow loops, truth against known shifts, trainings in a store."""

import json
import shutil
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from executing import execute
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr
from sklearn.metrics import silhouette_samples

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.figures import comparison as plots
from cellbook.methods import weakly_supervised
from cellbook.pages import comparison
from cellbook.pages.comparison import config as configs
from cellbook.pages.comparison import corrected, decisions, found, judged, making, ranking, shown
from cellbook.profiles.centre import Centre
from cellbook.runs import Run, known_by
from cellbook.screens import named
from cellbook.study import measured as study_measured
from cellbook.study import models, profile, rows
from cellbook.study.rows import Draws, Votes
from cellbook.study.trainings import Place
from cellbook.training import load_run

SMOKE = replace(
    comparison.PRESETS["smoke"],
    controls=1,
    cells=2,
    corrections=("none", "centred by week", "whitened", "CORAL, cells"),
)
VAE, PLUS, OWN = "VAE, Lafarge 2019", "VAE+, Lafarge 2019", "VICReg, this book"


# --- ranks, choices, agreement --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def votes():
    """Three points on 12 treatments of five compounds, one of which cannot be scored."""
    rng = np.random.default_rng(1)
    group = np.array(list("aaabbbccddde"))
    counted = np.ones(12)
    counted[4] = 0
    return {name: Votes.of(rng.integers(0, 2, 12) * counted, group, counted) for name in ("x", "y", "z")}


def test_draws_are_those_of_the_intervals_of_the_book(votes):
    values = ranking.drawn(votes, Draws(500, 3))
    for place, one in enumerate(votes.values()):
        assert values[0, place] == pytest.approx(one.share)
        assert np.quantile(values[1:, place], [0.025, 0.975]) == pytest.approx(
            metrics.bootstrap_compounds(one.correct, one.counted, one.group, 500, 3)
        )


def test_probabilities_of_ranks_are_those_of_ties_broken_in_every_way():
    values = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [5.0, 5.0, 5.0]])
    expected = np.zeros((3, 3))
    for line in values:
        orders = [order for order in permutations(range(3)) if (np.diff(line[list(order)]) <= 0).all()]
        for order in orders:
            for rank, point in enumerate(order):
                expected[point, rank] += 1 / len(orders) / len(values)
    np.testing.assert_allclose(ranking.rank_probabilities(values), expected)


def test_correlations_of_draws_are_spearmans():
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 5, (2, 6, 9)).astype(float)
    expected = [spearmanr(a, b)[0] for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(ranking.correlations(left, right), expected)
    assert np.isnan(ranking.correlations(left * 0, right)).all()


def test_the_front_is_what_a_slow_loop_leaves():
    rng = np.random.default_rng(2)
    left, kept = rng.integers(0, 6, (2, 30))
    expected = [
        not any((x <= a and y >= b) and (x < a or y > b) for x, y in zip(left, kept, strict=True))
        for a, b in zip(left, kept, strict=True)
    ]
    np.testing.assert_array_equal(ranking.not_dominated(left, kept), expected)
    assert 0 < sum(expected) < 30


def test_a_compound_has_no_say_in_the_choice_that_it_is_scored_by(treatments):
    rng = np.random.default_rng(5)
    squares = np.stack([metrics.distance_matrix(rng.normal(size=(len(treatments), 6))) for _ in range(4)])
    both = metrics.PROTOCOLS["ljosa2013"].measures
    choice = ranking.chosen_without(treatments, squares, both)
    for compound, chosen in choice.items():
        keep = (treatments["Metadata_compound"] != compound).to_numpy()
        shares = [
            np.mean([metrics.match(treatments[keep], distances=square[np.ix_(keep, keep)], **one.arguments()).accuracy
                     for one in both])
            for square in squares
        ]  # fmt: skip
        assert chosen == int(np.argmax(shares))
    points = [Votes.of(rng.integers(0, 2, len(treatments)), treatments["Metadata_compound"]) for _ in squares]
    scored = ranking.scored_by_choice(points, choice)
    for i, compound in enumerate(treatments["Metadata_compound"]):
        assert scored.correct[i] == points[choice[compound]].correct[i]


@pytest.fixture(scope="module")
def treatments():
    """Twenty treatments of ten compounds, four mechanisms and three weeks."""
    i = np.arange(20)
    columns = {"compound": i // 2, "moa": i // 2 % 4, "batch": i // 2 % 3}
    table = pd.DataFrame({f"Metadata_{name}": [f"{name}{n}" for n in of] for name, of in columns.items()})
    return table.assign(Metadata_concentration=1.0 + i % 2)


# --- profiles -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cells():
    """Features of cells: three weeks of two plates, DMSO and four treatments, a week apart from the others."""
    rng = np.random.default_rng(6)
    wells = [
        (f"p{p}", f"w{w}", f"Week{p // 2}", name)
        for p in range(6)
        for w, name in enumerate(["DMSO"] * 3 + list("abcd"))
    ]
    table = pd.DataFrame(
        [well for well in wells for _ in range(5)],
        columns=[f"Metadata_{name}" for name in ("plate", "well", "batch", "compound")],
    ).assign(Metadata_concentration=0.0, Metadata_moa="m")
    x = rng.normal(size=(len(table), 30)) + 2 * table["Metadata_batch"].str[-1].astype(int).to_numpy()[:, None]
    return profiles.replace_features(table, x, [f"z{i}" for i in range(30)])


@pytest.mark.parametrize("one_unit", [False, True])
def test_profiles_keep_the_distances_that_few_directions_can_hold(cells, one_unit):
    wells = profiles.to_wells(cells)
    wide, few = (profiles.matrix(profile.base(wells, n, one_unit)(wells)) for n in (30, 8))
    assert (wide.shape[1], few.shape[1]) == (30, 8)
    control = profiles.controls_mask(wells)
    np.testing.assert_allclose(wide[control].mean(axis=0), 0, atol=1e-9)
    axes = np.linalg.svd(wide, full_matrices=False)[2][:8]
    np.testing.assert_allclose(few @ few.T, wide @ axes.T @ axes @ wide.T, atol=1e-8)


def test_features_of_one_unit_are_divided_by_one_number_and_others_each_by_their_own(cells):
    wells = profiles.to_wells(cells)
    values, control = profiles.matrix(wells), profiles.controls_mask(wells)
    values[:, 0] *= 1e-3  # hardly varies
    wells = profiles.replace_features(wells, values, profiles.features(wells))
    shifts, spread = values - values[control].mean(axis=0), values[control].std(axis=0, ddof=1)
    for one_unit, by in ((False, spread), (True, np.sqrt((spread**2).mean()))):
        np.testing.assert_allclose(profiles.matrix(profile.base(wells, 30, one_unit)(wells)), shifts / by, atol=1e-9)


def test_what_is_fitted_on_cells_maps_means_as_it_maps_cells(cells):
    config = replace(SMOKE, components=10, corrections=configs.CORRECTIONS, wdn_iterations=20)
    wells = profiles.to_wells(cells)
    start = profile.base(wells, 10, False)
    controls = start(cells[profiles.controls_mask(cells)].reset_index(drop=True))
    given = {name: table for name, _, table in corrected.corrected(start(wells), controls, config, "cpu")}
    assert all(np.isfinite(profiles.matrix(table)).all() for table in given.values())
    step = corrected.steps(config, "cpu")["CORAL, cells"].fit(controls)
    mapped = profiles.to_wells(step.transform(start(cells)))
    np.testing.assert_allclose(profiles.matrix(given["CORAL, cells"]), profiles.matrix(mapped), atol=1e-9)
    by_week = given["centred by week"]
    assert set(given) == set(config.corrections)
    means = by_week[profiles.controls_mask(by_week)].groupby("Metadata_batch")[profiles.features(by_week)].mean()
    np.testing.assert_allclose(means, 0, atol=1e-9)
    pd.testing.assert_frame_equal(by_week, Centre().fit_transform(start(wells)))


def test_a_correction_that_cannot_be_made_says_why(cells):
    one_week = profiles.to_wells(cells).assign(Metadata_batch="Week1")
    start = profile.base(one_week, 10, False)(one_week)
    given = {name: table for name, _, table in corrected.corrected(start, None, SMOKE, "cpu")}
    assert given["CORAL, cells"] == "of this network no codes of single cells were kept"
    assert isinstance(given["none"], pd.DataFrame)


# --- the store ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store in which one page has trained two networks, and this page's own is there as well."""
    folder = tmp_path_factory.mktemp("store")
    own = configs.of_page("lafarge2019", SMOKE)
    cells = named.load(own.screen, own.simulated, folder)
    for one in configs.page("lafarge2019").trainings(own)[:2]:
        Place(folder).of(one, cells)
    for one in configs.trainings(SMOKE):
        Place(folder).of(one, named.load(SMOKE.screen, SMOKE.simulated, folder))
    return folder


@pytest.fixture(scope="module")
def run(store):
    return comparison.run(SMOKE, store, device="cpu")


@pytest.fixture(scope="module")
def tables(run):
    return comparison.evaluate([run])


def test_every_page_is_asked_and_what_is_not_there_has_a_command(store):
    every = tuple((paper, "smoke") for paper in configs.PAPERS)
    whole = found.sources(replace(SMOKE, pages=every), store)
    there = [source.name for source in whole if not source.why]
    assert there == [PLUS, VAE, OWN]
    lost = found.missing(whole, replace(SMOKE, pages=(*every, ("nowhere2020", "paper")))).set_index("representation")
    assert lost.loc["AE, Lafarge 2019", "command"] == "cellbook run lafarge2019 -p preset=smoke"
    assert lost.loc["mixup, Caicedo 2018", "why"] == found.NOT_THERE.format(1)
    assert lost.loc["nowhere2020", "why"] == "there is no such page with a preset paper yet"
    assert all(source.one.cells is None for source in whole)  # no network of another screen


def test_nothing_is_trained_and_no_training_is_touched(store, run):
    before = {path: path.stat().st_mtime_ns for path in store.glob("v*-*/*")}
    assert comparison.run(SMOKE, store, device="cpu").key == run.key
    assert {path: path.stat().st_mtime_ns for path in store.glob("v*-*/*")} == before
    assert {path.parent.name.partition("-")[0] for path in before} == {"vae_plus", "vicreg"}
    assert not list(store.glob("weakly_supervised-*"))


def test_a_network_sees_the_cells_of_the_page_in_crops_as_large_as_its_own(store):
    source = next(one for one in found.sources(SMOKE, store) if not one.why)
    larger = replace(SMOKE, crop=32)
    seen, plain = found.network_cells(source, larger, store), named.load(larger.screen, larger.simulated, store)
    assert (seen.images.shape[-1], plain.images.shape[-1]) == (68, 32)
    columns = ["Metadata_plate", "Metadata_well", "Metadata_y", "truth_cell_area"]
    pd.testing.assert_frame_equal(seen.table[columns], plain.table[columns])
    np.testing.assert_array_equal(seen.images[..., 18:50, 18:50], plain.images)


def test_wells_that_a_training_kept_stand_in_for_weights_only_of_the_same_cells(store, tmp_path):
    shutil.copytree(store, tmp_path / "store", ignore=shutil.ignore_patterns("weights.safetensors", "compar*"))
    papers = replace(SMOKE, own="")
    found_ = [one for one in found.sources(papers, tmp_path / "store") if one.run]
    assert {one.why for one in found_} == {found.WITHOUT_WEIGHTS}
    own = configs.of_page("lafarge2019", SMOKE)
    same = replace(papers, **{name: getattr(own, name) for name in ("wells", "controls", "cells")}, crop=40)
    assert same.simulated != own.simulated  # the crop is another, the cells are not
    assert {one.why for one in found.sources(same, tmp_path / "store") if one.run} == {""}


def test_where_its_trainings_are_not_there_what_was_made_of_them_is_taken(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / run.key)
    assert comparison.run(SMOKE, tmp_path, device="cpu").key == run.key
    assert sorted(path.name for path in tmp_path.iterdir()) == [run.key]
    for other, version in ((replace(SMOKE, seed=5), making.VERSION), (SMOKE, making.VERSION + 1)):
        assert found.made_elsewhere(other, version, tmp_path) is None


def test_a_new_training_makes_another_run(store, run, tmp_path):
    shutil.copytree(store, tmp_path / "store", ignore=shutil.ignore_patterns("comparison-*"))
    (gone,) = (one.run.folder for one in found.sources(SMOKE, tmp_path / "store") if one.name == VAE)
    shutil.rmtree(gone)
    there = found.sources(SMOKE, tmp_path / "store")
    assert [one.name for one in making.representations(SMOKE, there)][-2:] == [PLUS, OWN]
    keys = {
        tuple((one.name, str(one.about)) for one in making.representations(SMOKE, sources))
        for sources in (there, found.sources(SMOKE, store))
    }
    assert len(keys) == 2


def test_the_command_for_what_is_of_no_paper_puts_it_where_it_is_found(tmp_path, run_main):
    config, place = replace(SMOKE, pages=()), tmp_path / "runs"
    named.load(config.screen, config.simulated, place)  # as a run of the page does, however little is there
    lost = found.missing(found.sources(config, place), config).set_index("representation")
    assert lost.loc[OWN, "why"] == found.NOT_THERE.format(1)
    words = lost.loc[OWN, "command"].replace("runs/", f"{place}/").split()[1:]
    code, out, err = run_main(*words, "--store", place, "--device", "cpu")
    assert (code, err) == (0, "")
    (own,) = found.sources(config, place)
    assert (own.why, str(own.run.folder)) == ("", out.strip())
    seeded = replace(own, one=configs.trainings(replace(config, seed=3))[0])
    assert seeded.told(config)["command"] == f"{lost.loc[OWN, 'command']} -p seed=3"
    real = replace(config, screen=named.SAMPLE, iterations=((configs.OURS, named.SAMPLE, 7),))
    command = replace(own, one=configs.trainings(real)[0]).told(real)["command"]
    assert command == "cellbook train vicreg --cells bbbc021-sample -p preset=smoke -p iterations=7"


@pytest.mark.data
def test_a_training_on_the_real_cells_is_found_by_their_name(data_dir, tmp_path, run_main):
    config = replace(SMOKE, pages=(), screen=named.SAMPLE)
    words = ("train", "vicreg", "--cells", named.SAMPLE, "-p", "preset=smoke")
    code, out, _ = run_main(*words, "--store", tmp_path, "--device", "cpu")
    (own,) = found.sources(config, tmp_path)
    assert (code, own.why, str(own.run.folder)) == (0, "", out.strip())


def test_the_page_says_how_far_its_own_network_is_from_a_collapse(store, run):
    (own,) = (one for one in found.sources(SMOKE, store) if one.paper == configs.OURS)
    end = own.run.table("history")["deviation"].iloc[-1]
    assert run.table("trainings")["key"].tolist() == [own.run.key]
    assert f"deviation of {end:.2f}: 1 is asked" in shown.collapse(run)


def test_the_network_of_no_paper_encodes_by_its_name_as_a_published_page_has_it(store, run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "results" / "comparison" / "runs" / run.key)
    cells = named.load(SMOKE.screen, SMOKE.simulated, store)
    codes = models.encode(*models.find("comparison/VICReg", 0, store, tmp_path / "results"), cells)
    compared = run.table("compared").set_index("variant")
    wells = profiles.matrix(profiles.to_wells(named.without_place(codes)))
    np.testing.assert_allclose(wells, profiles.matrix(Run(store / compared.loc[OWN, "run"]).table("wells")), atol=1e-4)


def test_all_layers_of_the_first_weakly_supervised_network_are_compared_if_its_weights_are_there(tmp_path):
    config = replace(SMOKE, pages=(("caicedo2018", "smoke"),), own="")
    own = configs.of_page("caicedo2018", config)
    cells = named.load(own.screen, own.simulated, tmp_path)
    first, second = {one.variant: one for one in configs.page("caicedo2018").trainings(own)}.values()
    for one in (first, second):
        Place(tmp_path).of(one, cells)
    there = found.sources(config, tmp_path)
    networks = {each.name: each for each in making.representations(config, there) if each.source}
    names = {layer: f"baseline CNN, layer {layer}, Caicedo 2018" for layer in first.config.layers if layer != "4a"}
    ends = ["untrained encoder, Caicedo 2018", "baseline CNN, Caicedo 2018", "mixup, Caicedo 2018"]
    assert list(networks) == [*ends[:2], *names.values(), ends[2]]
    seen = found.network_cells(there[0], config, tmp_path)
    state = load_run(weakly_supervised, first.config, seen, there[0].run, "cpu")
    for layer, values in weakly_supervised.layers(state, seen).items():
        if layer in ("2a", "5b"):
            run = making.wells_of(networks[names[layer]], config, tmp_path, "cpu", False)
            codes = named.without_place(seen.feature_table(values, [f"z{i}" for i in range(values.shape[1])]))
            wells = profiles.matrix(profiles.to_wells(codes))
            np.testing.assert_allclose(profiles.matrix(run.table("wells")), wells, atol=1e-5)
            assert making.compared(networks[names[layer]], run)["untrained"] == ""
    (there[0].run.folder / "weights.safetensors").unlink()
    left = [each.name for each in making.representations(config, found.sources(config, tmp_path)) if each.source]
    assert not [name for name in left if name.startswith("baseline")]


def test_weak_supervision_is_compared_by_the_trainings_that_a_cpu_has_made():
    for screen, preset, steps in (("bbbc021-sample", "long", 250), ("simulated", "wide", 250)):
        config = replace(comparison.PRESETS["quick"], screen=screen)
        assert configs.preset_of("caicedo2018", config) == preset
        assert configs.of_page("caicedo2018", config).iterations == steps
        assert configs.preset_of("lafarge2019", config) == "lease"


def test_what_was_added_to_the_configuration_is_in_no_key_of_before():
    assert {"own", "presets"}.isdisjoint(known_by(replace(comparison.PRESETS["quick"], own="", presets=())))


def test_what_is_left_out_is_trained_by_its_page_and_compared_nowhere(tmp_path):
    config = comparison.PRESETS["quick"]
    compared = {(one.paper, one.one.variant) for one in found.sources(config, tmp_path)}
    for paper, names in configs.LEFT_OUT.items():
        page = configs.page(paper)
        trained = {one.variant for preset in page.PRESETS.values() for one in page.trainings(preset)}
        assert set(names) <= trained
        assert not {(paper, name) for name in names} & compared


# --- numbers --------------------------------------------------------------------------------------------------------


def test_accuracies_are_those_of_profiles_made_by_hand(store, run, tables):
    compared = run.table("compared").set_index("variant")
    wells = Run(store / compared.loc[PLUS, "run"]).table("wells")
    start = profile.base(wells, SMOKE.components, True)(wells)
    centred = Centre().fit_transform(start)
    for summary, table in (("none", start), ("centred by week", centred)):
        treated = table[~named.is_positive(table)]
        for score in metrics.score(treated, "ljosa2013", drop_unusable=True):
            line = rows.one(tables["numbers"], variant=PLUS, summary=summary, measure=score.measure)
            assert line["correct"] == pytest.approx(score.correct, abs=1)  # distances are stored with 16 bits
            assert line["scored"] == score.scored
    nsc = rows.pick(tables["numbers"], protocol="comparison", summary="none", measure="NSC").set_index("variant")[
        "value"
    ]
    assert nsc.idxmax() == "known truth"
    assert nsc["known truth"] > 0.5


def test_measures_have_their_chance_and_the_truth_agrees_with_itself(tables):
    lines = rows.pick(tables["numbers"], protocol="comparison")
    nulls = lines.dropna(subset="null").groupby("measure")["null"].first()
    assert {"NSC", "NSCB", "mAP, activity", "mAP, consistency", "same week", "truth", "without weeks"} <= set(
        nulls.index
    )
    assert (nulls[["truth", "without weeks"]] == 0).all()
    assert nulls["NSC"] == pytest.approx(0.06, abs=0.01)
    assert "truth" not in set(rows.pick(lines, variant="known truth")["measure"])
    clean = rows.pick(lines, measure="without weeks")
    assert set(clean["summary"]) == set(SMOKE.corrections)
    assert clean["value"].between(-1, 1).all()


def test_what_is_asked_of_all_distances_is_what_slow_loops_find(treatments):
    rng = np.random.default_rng(7)
    line, other, true = (metrics.distance_matrix(rng.normal(size=(len(treatments), 4))) for _ in range(3))
    given = {name: squareform(square, checks=False) for name, square in (("none", line), ("without weeks", other))}
    found_ = judged.judged(given | {"Harmony": given["without weeks"]}, treatments, true)
    values = {key: part["value"].to_numpy() for key, part in found_.groupby(["summary", "measure"])}
    np.testing.assert_allclose(values["Harmony", "without weeks"], 1)  # a screen without weeks is restored by itself
    expected = silhouette_samples(line, treatments["Metadata_moa"], metric="precomputed")
    np.testing.assert_allclose(values["none", "silhouette"], expected, atol=1e-4)
    compound = treatments["Metadata_compound"].to_numpy()
    for i, mine in enumerate(compound):
        away = compound != mine
        for measure, square in (("truth", true), ("without weeks", other)):
            agreed = spearmanr(line[i, away], square[i, away])[0]
            assert values["none", measure][i] == pytest.approx(agreed, abs=1e-4)
    assert set(judged.judged({"none": given["none"]}, treatments, None)["measure"]) == {"silhouette"}


def test_distances_to_the_nearest_alone_score_and_choose_as_all_of_them_do(treatments):
    rng = np.random.default_rng(8)
    squares = np.stack([metrics.distance_matrix(rng.normal(size=(len(treatments), 5))) for _ in range(6)])
    lines = {str(i): squareform(square, checks=False) for i, square in enumerate(squares)}
    kept = profile.nearest_alone(lines, treatments, configs.MEASURES, second=True)
    few = np.stack([squareform(line) for line in kept.values()])
    assert (few < few.max(axis=(1, 2), keepdims=True)).mean() < 0.5 < (squares < 2).mean()
    for measure in configs.MEASURES:
        given = [study_measured.matched(treatments, of, measure).correct for of in (squares, few)]
        np.testing.assert_array_equal(*given)
    choices = [ranking.chosen_without(treatments, of, configs.MEASURES) for of in (squares, few)]
    assert choices[0] == choices[1]
    once = [squareform(line) for line in profile.nearest_alone(lines, treatments, configs.MEASURES).values()]
    assert not np.array_equal(np.stack(once), few)


def test_ranks_add_up_and_choices_cover_all_compounds(tables):
    ranks, choices = tables["ranks"], tables["choices"]
    whole = ranks[ranks["of"] != "point"].groupby(["of", "measure", "name"])["probability"].sum()
    np.testing.assert_allclose(whole, 1)
    firsts = ranks[ranks["rank"] == 1].groupby(["of", "measure"])["probability"].sum()
    np.testing.assert_allclose(firsts, 1)
    assert (choices.groupby("among")["compounds"].sum() == 38).all()
    assert set(choices.loc[choices["among"] == "without any training", "variant"]) <= set(configs.PLAIN)


def test_gains_are_paired_with_the_network_before_its_first_step(tables):
    gains = rows.pick(tables["numbers"], protocol="training")
    assert set(gains["variant"]) == {PLUS, VAE, OWN}
    for line in gains[gains["measure"] == "NSC"].itertuples():
        sides = [
            rows.one(tables["numbers"], protocol="comparison", variant=name, summary=line.summary, measure="NSC")[
                "value"
            ]
            for name in (line.variant, f"untrained encoder, {line.variant.partition(', ')[2]}")
        ]
        assert line.value == pytest.approx(sides[0] - sides[1])


def test_numbers_are_those_of_a_second_evaluation_and_have_one_meaning_each(run, tables):
    again = comparison.evaluate([run])
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, again[name])
    assert not tables["numbers"].duplicated(["setting", "protocol", "measure", "k"]).any()


def with_maps(run, folder, steps):
    """The same run with WDN, which is CORAL on cells in every number, after so many steps on the first network."""
    shutil.copytree(run.folder, folder)
    for name in ("judged", "precision", "weeks"):
        table = run.table(name)
        copy = table[table["summary"] == configs.CORAL_CELLS].assign(summary=configs.WDN)
        pd.concat([table, copy], ignore_index=True).to_parquet(folder / f"{name}.parquet")
    with np.load(folder / "distances.npz") as stored:
        arrays = dict(stored)
    start = f"|{configs.CORAL_CELLS}|"
    of = [place for place, name in enumerate(arrays["names"]) if start in name]
    names = [str(arrays["names"][place]).replace(start, f"|{configs.WDN}|") for place in of]
    more = {"names": np.array(names), "values": arrays["values"][of], "scale": arrays["scale"][of]}
    np.savez(folder / "distances.npz", **{name: np.concatenate([arrays[name], more[name]]) for name in more})
    maps = run.table("compared")[["variant", "repeat"]].assign(summary=configs.WDN, steps=0, stopped="none helped")
    maps.loc[maps.index[0], "steps"] = steps
    maps.to_parquet(folder / "maps.parquet")
    products = run.record["products"] | {"maps.parquet": {}}
    (folder / "run.json").write_text(json.dumps(run.record | {"products": products}))
    return Run(folder)


def test_a_correction_that_is_its_start_counts_nowhere(run, tables, tmp_path):
    same = with_maps(run, tmp_path / "still", steps=0)
    for name, table in comparison.evaluate([same]).items():
        pd.testing.assert_frame_equal(table, tables[name])
    assert shown.map_table(same).empty
    assert "all" in shown.without_maps(same)
    assert "second time" in shown.copied(same)


def test_a_correction_that_differs_somewhere_is_compared_there_alone(run, tables, tmp_path):
    moved = with_maps(run, tmp_path / "moved", steps=7)
    first, again = run.table("compared")["variant"].iloc[0], comparison.evaluate([moved])
    numbers = rows.pick(again["numbers"], protocol="comparison", summary=configs.WDN)
    assert set(numbers["variant"]) == {first}
    assert configs.WDN not in set(rows.pick(again["ranks"], of="correction")["name"])
    changes = rows.pick(again["numbers"], protocol="corrections", summary=configs.WDN)
    assert (changes["representations"] == 1).all()
    assert shown.map_table(moved)[["representation", "steps"]].to_numpy().tolist() == [[first, 7]]
    of = run.table("compared")["variant"].nunique()
    assert f"on 1 of {of} representations" in shown.copied(moved)


def test_names_on_the_front_lie_within_the_axes_and_the_list_outside(tables):
    marks = pd.DataFrame({"measure": ["NSC"], "label": ["something published"], "value": [0.9]})
    figure = plots.kept_and_left(shown.kept_rows(tables["numbers"]), {}, marks)
    figure.canvas.draw()
    for axes in figure.axes:
        frame = axes.get_window_extent()
        for text in axes.texts:
            ends = text.get_window_extent()
            if text.get_gid():
                assert ends.x0 >= frame.x0
                assert ends.y1 <= frame.y1
            elif text.get_text():
                assert ends.x0 >= frame.x1


# --- sentences ------------------------------------------------------------------------------------------------------


def changed(summary, measure, value, low, high):
    return rows.row(f"{summary} - none", "corrections", measure, value, low=low, high=high, summary=summary,
                    representations=3, kind="positive control")  # fmt: skip


def test_what_costs_biology_is_not_recommended_however_much_of_the_week_it_takes():
    lines = [
        changed("Harmony", "same week", -0.2, -0.3, -0.1),
        changed("Harmony", "NSCB", -0.05, -0.08, -0.02),
        changed("whitened", "same week", -0.1, -0.2, -0.05),
        changed("whitened", "NSCB", 0.1, 0.05, 0.2),
    ]
    text = decisions.confounded(pd.DataFrame(lines))
    assert "take whitening" in text
    assert "Surely at a cost: Harmony (NSCB -5.0 points [-8.0, -2.0])" in text
    only = decisions.confounded(pd.DataFrame(lines[:2]))
    assert "no correction surely removes any of the week" in only
    # What is not sure is not taken; neither is one that costs by any other measure of biology.
    unsure = decisions.confounded(pd.DataFrame([changed("TVN", "same week", -0.1, -0.3, 0.1)]))
    assert "no correction surely removes any of the week" in unsure
    lines[1] = changed("Harmony", "silhouette", -0.05, -0.08, -0.02)
    assert "Surely at a cost: Harmony (silhouette -0.050 [-0.080, -0.020])" in decisions.confounded(pd.DataFrame(lines))
    # Of two that cost nothing it is the one that serves biology more, by the truth where that is known.
    lines[1] = changed("Harmony", "NSCB", 0.05, 0.01, 0.08)
    assert "take whitening" in decisions.confounded(pd.DataFrame(lines))
    truth = [changed("Harmony", "truth", 0.2, 0.1, 0.3), changed("whitened", "truth", 0.1, 0.05, 0.2)]
    assert "take Harmony" in decisions.confounded(pd.DataFrame(lines + truth))
    assert decisions.confounded(pd.DataFrame(lines)[lambda t: t["measure"] == "NSCB"]) == ""


def test_a_pair_is_named_by_its_representation_and_its_correction_in_words():
    names = {"ImageNet features, none": "ImageNet features, uncorrected", "VAE, Lafarge 2019, CORAL, cells":
             "VAE, Lafarge 2019, corrected by CORAL, cells", "a": "a"}  # fmt: skip
    assert {name: decisions.pair(name) for name in names} == names


@pytest.mark.parametrize(
    ("probability", "head"),
    [(0.97, "The first place is sure"), (0.6, "A first place is likely and not sure"), (0.45, "Do not trust")],
)
def test_a_first_place_is_trusted_as_far_as_it_is_sure(probability, head):
    names = ("point", "NSC")
    lines = [(*names, "a", 1, probability, 0.9), (*names, "b", 1, 1 - probability, 0.8)]
    ranks = pd.DataFrame(lines, columns=["of", "measure", "name", "rank", "probability", "value"])
    text = decisions.not_to_trust(ranks)
    assert text.startswith(head)
    assert f"{100 * probability:.1f}" in text


def test_every_sentence_holds_a_number_of_the_tables(tables):
    told = tables["decisions"]
    assert told["first"].sum() == 3
    assert set(told["situation"]) >= {decisions.WITHOUT_GPU, decisions.CONFOUNDED, decisions.PREDICTED}
    assert told["sentence"].str.contains(r"\d").all()
    predicted = rows.one(tables["numbers"], protocol=configs.PREDICTS, measure="NSC")
    assert f"{predicted['value']:.2f}" in told.set_index("situation").loc[decisions.PREDICTED, "sentence"]


# --- the notebook, the first page -----------------------------------------------------------------------------------


def test_the_notebook_shows_every_figure_and_names_what_is_missing(store, run, monkeypatch):
    monkeypatch.setitem(comparison.PRESETS, "smoke", SMOKE)
    space = execute("comparison", {"results": str(store)}, monkeypatch)
    assert space["run"].key == run.key
    drawn = {path.stem for path in (store / "pages" / "comparison" / "figures").glob("*.csv")}
    assert drawn == {"kept", "ranks", "truth", "predictors"}
    assert "AE, Lafarge 2019" in set(space["missing"]["representation"])
    table = shown.printed_table(space["printed"]).set_index("source")
    assert table.loc["Cross-Zamirski et al. 2022", ["NSC", "NSCB"]].tolist() == ["98", "96"]
    assert table.loc["DeepProfiler, 2019", ["NSC", "NSCB"]].tolist() == ["97.1", "87.0"]


def test_a_screen_of_ones_own_is_compared_as_far_as_it_goes(tmp_path):
    rng = np.random.default_rng(6)
    names = ["compound", "moa", "batch", "plate", "well"]
    wells = [
        (f"{moa}{week}", moa, f"Week{week}", f"p{week}{i}", f"{moa}1")
        for moa in "abc"
        for week in (1, 2)
        for i in (1, 2)
    ]
    wells += [
        ("DMSO", "DMSO", f"Week{week}", f"p{week}{i}", f"d{j}") for week in (1, 2) for i in (1, 2) for j in range(3)
    ]
    table = pd.DataFrame([well for well in wells for _ in range(3)], columns=[f"Metadata_{name}" for name in names])
    images = rng.integers(0, 60_000, (len(table), 3, 24, 24)).astype(np.uint16)
    CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.5).save(tmp_path / "own")
    own = replace(SMOKE, screen=str(tmp_path / "own"), corrections=("none", "whitened"))
    made = comparison.run(own, tmp_path / "store", device="cpu")
    numbers = comparison.evaluate([made])["numbers"]
    assert set(numbers["variant"].dropna()) == set(configs.PLAIN)
    assert set(rows.pick(numbers, measure="same week")["kind"]) == {"DMSO"}
    assert {"truth", "without weeks"}.isdisjoint(numbers["measure"])
    with pytest.raises(CellbookError, match="neither simulated nor"):
        comparison.run(replace(own, screen="nowhere"), tmp_path / "store")
