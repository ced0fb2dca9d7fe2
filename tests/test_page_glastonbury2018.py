"""The page of the fair autoencoder: votes against slow loops and print, corrections, probes, premises, verdicts."""

import shutil
from collections import Counter
from dataclasses import asdict, replace
from itertools import combinations
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from executing import execute
from matplotlib.text import Text
from scipy.spatial.distance import cdist, pdist
from scipy.stats import spearmanr
from sklearn.neighbors import KNeighborsClassifier

from cellbook import claims, profiles
from cellbook.book import notebooks
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.figures import glastonbury2018 as plots
from cellbook.methods import fair_cae
from cellbook.pages import glastonbury2018 as fair
from cellbook.pages.glastonbury2018 import corrected, making, measures, probes, shown
from cellbook.pages.glastonbury2018.config import GAMES, base, games, judged, resize, trainings, views
from cellbook.profiles import Coral, PlateScaler
from cellbook.runs import Run
from cellbook.study import judging, measured, premises, profile, rows
from cellbook.study.pictures import load, normalised
from cellbook.study.trainings import Place, key_of

TWICE = replace(fair.PRESETS["smoke"], repeats=2)
CLAIMS = notebooks.root() / "book" / "claims" / "glastonbury2018.yml"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(store):
    return fair.run(TWICE, store, device="cpu")


@pytest.fixture(scope="module")
def tables(run):
    return fair.evaluate([run])


@pytest.fixture(scope="module")
def numbers(tables):
    return tables["numbers"]


# --- what is trained ------------------------------------------------------------------------------------------------


def test_the_paper_preset_trains_the_papers_networks_and_every_preset_seven_weights_but_smoke():
    config = fair.PRESETS["paper"]
    for one in trainings(config):
        own = {name: getattr(one.config, name) for name in ("lam", "seed", "rounds")}
        game = GAMES[games(config)[one.variant]["game"]]
        assert one.config == replace(fair_cae.Config(), **own, **game)
        assert one.config.rounds == (200 if one.config.lam else 0)
    assert (config.crop, views(fair_cae.Config())) == (128, 1024 * 131_400)
    further = [name for name in games(config) if name not in games(replace(config, further=()))]
    assert further == ["lambda 0, deep", "lambda 50, deep", "lambda 1, reversal", "lambda 1, confusion",
                       "lambda 100, kernel", "lambda 50, adversary at rest"]  # fmt: skip
    assert all(len(fair.PRESETS[name].lams) >= 7 for name in ("long", "lease", "paper"))
    assert {name: len(of) for name, of in judged(config).items()} == dict.fromkeys(
        ("lambda 0", "lambda 1", "lambda 50", "lambda 50, conditional"), 3
    )
    assert [(one.variant, one.repeat) for one in trainings(config) if one.course] == [("lambda 0", 0), ("lambda 50", 0)]


def test_games_beyond_the_paper_are_in_no_key_of_the_others_and_begin_with_the_same_autoencoder():
    config, cells = fair.PRESETS["long"], SimpleNamespace(fingerprint="cells")
    keys = {(one.variant, one.repeat): key_of(one, cells) for one in trainings(config)}
    assert keys["lambda 50", 2] == "fair_cae-57424038cc2b"  # as it was before there were any
    first = next(one.config for one in trainings(config) if one.variant == "lambda 0")
    for one in trainings(config):
        if one.variant in ("lambda 1, reversal", "lambda 1, confusion", "lambda 100, kernel"):
            assert fair_cae.begins_with(one.config)[0] == first
    (deep,) = (one.config for one in trainings(config) if one.variant == "lambda 0, deep")
    assert deep == replace(first, model="deep")


def test_an_unknown_game_is_refused():
    with pytest.raises(CellbookError, match="further=hsic is no game: there are adversary, conditional, reversal"):
        replace(TWICE, further=(("hsic", 1.0),))


def test_games_of_one_seed_are_the_same_until_they_begin(run):
    history = run.table("history")
    a, b, _ = base(TWICE).lengths
    of = {name: rows.pick(history, variant=name, repeat=1).set_index(["step", "term"])["value"]
          for name in ("lambda 0", "lambda 1", "lambda 50")}  # fmt: skip
    before = of["lambda 0"].sort_index()
    assert before.index.get_level_values("step").max() == a + b
    for name in ("lambda 1", "lambda 50"):
        pd.testing.assert_series_equal(of[name][of[name].index.isin(before.index)].sort_index(), before)
    last = max(of["lambda 1"].index.get_level_values("step"))
    assert of["lambda 1"][last, "reconstruction"] != of["lambda 50"][last, "reconstruction"]


def test_a_part_made_elsewhere_is_not_made_again(run, store):
    before = {path: path.stat().st_mtime_ns for path in store.glob("*/run.json")}
    names = making.parts(TWICE)
    assert len(names) == len(trainings(TWICE)) + 1
    place = Place(store)
    made = [making.make_part(TWICE, name, place) for name in ("lambda 50, 0", "plain encoders")]
    assert [one.record["method"] for (one,) in made] == ["measured-fair_cae", "plain"]
    assert "course_weeks.parquet" in made[0][0].products()
    assert {path: path.stat().st_mtime_ns for path in store.glob("*/run.json")} == before


def test_the_page_is_made_of_what_was_measured_without_the_networks(run, store, tmp_path):
    shutil.copytree(store, tmp_path / "store", ignore=shutil.ignore_patterns("fair_cae-*", "glastonbury2018-*"))
    again = fair.run(TWICE, tmp_path / "store", device="cpu")
    assert not list((tmp_path / "store").glob("fair_cae-*"))
    for name in ("distances.npz", "pictures.parquet", "pictures.webp", "probes.parquet"):
        assert again.path(name).read_bytes() == run.path(name).read_bytes()


def test_crops_are_cut_to_their_middle_only_where_the_networks_need_it():
    images = np.arange(2 * 3 * 68 * 70, dtype=np.uint16).reshape(2, 3, 68, 70)
    cells = CellSet(images, pd.DataFrame({"Metadata_compound": ["a", "b"]}), ("r", "g", "b"), 0.5, "known")
    small = making.cut(cells)
    np.testing.assert_array_equal(small.images, images[..., 2:66, 3:67])
    assert small.fingerprint != "known"
    assert making.cut(small) is small


# --- votes ----------------------------------------------------------------------------------------------------------


def slow_accuracy(wells, names, label, others):
    """Three nearest of all others by plain loops; the commonest label, of tied ones that of the closest."""
    treated = wells[(wells["Metadata_compound"] != "DMSO") & (wells["Metadata_role"] != "positive control")]
    weeks = treated.groupby("Metadata_moa")["Metadata_batch"].nunique()
    treated = treated[treated["Metadata_moa"].isin(weeks.index[weeks > 1])]
    units = treated.groupby(["Metadata_compound", "Metadata_concentration"])
    who = units[["Metadata_moa", "Metadata_batch"]].first().reset_index()
    distance = cdist(*[units[names].mean().to_numpy(np.float64)] * 2)
    right = asked = 0
    for i in range(len(who)):
        same = who["Metadata_compound"] == who["Metadata_compound"][i]
        near = [j for j in np.argsort(distance[i], kind="stable") if j != i and not (others and same[j])]
        if others and who[label][i] not in set(who[label][near]):
            continue
        votes = [who[label][j] for j in near[:3]]
        counts = Counter(votes)
        elected = next(vote for vote in votes if counts[vote] == max(counts.values()))
        right, asked = right + (elected == who[label][i]), asked + 1
    return right, asked


@pytest.mark.parametrize(
    ("measure", "label", "others", "scored"),
    [
        ("MOA", "Metadata_moa", False, 92),
        ("week", "Metadata_batch", False, 92),
        ("MOA-NSC", "Metadata_moa", True, 92),
        ("week-NSC", "Metadata_batch", True, 88),
    ],
)
def test_accuracies_are_those_of_a_slow_loop(run, store, numbers, measure, label, others, scored):
    found = rows.one(numbers, setting="lambda 1, mean", protocol="glastonbury2018", measure=measure)
    each = []
    for key in rows.pick(run.table("trainings"), variant="lambda 1")["key"]:
        wells = Run(store / key).table("wells")
        right, asked = slow_accuracy(wells, [name for name in wells if name.endswith("_mean")], label, others)
        assert asked == scored
        each.append(right / asked)
    assert found["value"] == pytest.approx(np.mean(each))
    assert (found["scored"], found["k"], found["trainings"]) == (scored, 3, 2)


def test_the_largest_classes_and_the_arithmetic_of_the_protocol_are_those_in_print(numbers):
    null = rows.pick(numbers, setting="largest class").set_index("measure")["value"] * 92
    assert null.round(9).to_dict() == {"MOA": 14, "week": 29}
    table = shown.voting_table(numbers).set_index(["all that is known", "asked"])["right"].to_dict()
    assert table == {
        ("compound", "week"): "86",
        ("mechanism", "week"): "43 to 52",
        ("week", "MOA"): "27 to 38",
        ("week", "MOA-NSC"): "8 to 12",
    }


def test_rules_for_ties_are_those_of_a_library_and_bound_each_other(numbers):
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(60, 3)), rng.integers(0, 12, 60)
    table = pd.DataFrame({"Metadata_moa": [f"m{i}" for i in labels], "Metadata_compound": range(60)})
    votes = measures.tie_votes(table, cdist(x, x), measures.MOA)
    first = [
        KNeighborsClassifier(3).fit(np.delete(x, i, 0), np.delete(labels, i)).predict(x[i : i + 1])[0] == labels[i]
        for i in range(60)
    ]  # m10 comes after m2, as 10 after 2
    np.testing.assert_array_equal(votes["to the first label"].correct, first)
    assert 0 < votes["share of ties"].correct.mean() < 1
    lines = rows.pick(numbers, protocol="ties", variant="lambda 0").set_index(["measure", "rule"])["value"]
    for name in ("MOA", "week"):
        ours = rows.one(numbers, setting="lambda 0, mean", protocol="glastonbury2018", measure=name)["value"]
        assert lines[name, "to the closest"] == pytest.approx(ours)
        least, most = lines[name, "never right"], lines[name, "right where one is"]
        assert least <= min(ours, lines[name, "to the first label"]) <= max(ours, most) == most
        assert most - least <= lines[name, "share of ties"] + 1e-12


# --- corrections, probes --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide():
    """Wells with more features than there are wells, of three weeks that lie apart."""
    rng = np.random.default_rng(4)
    week = np.arange(36) % 3
    x = rng.normal(size=(36, 50)) * rng.uniform(0.5, 2, 50) + 3 * np.eye(50)[week]
    table = pd.DataFrame(
        {
            "Metadata_plate": [f"p{i % 9}" for i in range(36)],
            "Metadata_batch": [f"Week{w + 1}" for w in week],
            "Metadata_compound": np.where(np.arange(36) < 18, "DMSO", "a"),
        }
    )
    return pd.concat([table, pd.DataFrame(x).add_prefix("z")], axis=1)


def test_corrections_of_wide_codes_are_those_without_turning_them(wide):
    found = corrected.corrected(wide)
    scaled = PlateScaler("standardise", by=None, on_constant="drop").fit_transform(wide)
    coral = Coral(eta=1.0, align_means=True).fit_transform(scaled)
    np.testing.assert_allclose(pdist(profiles.matrix(found[corrected.CORAL])), pdist(profiles.matrix(coral)))
    white = profile.whiten(wide)[0]
    np.testing.assert_allclose(pdist(profiles.matrix(found[corrected.WHITENED])), pdist(profiles.matrix(white)))
    tvn = Coral(eta=1.0, reference="pooled").fit_transform(white)
    np.testing.assert_allclose(pdist(profiles.matrix(found[corrected.TVN])), pdist(profiles.matrix(tvn)))
    centred = found[corrected.CENTRED]
    means = centred[centred["Metadata_compound"] == "DMSO"].groupby("Metadata_batch")[profiles.features(centred)].mean()
    np.testing.assert_allclose(means, 0, atol=1e-9)


def test_a_week_without_controls_is_corrected_by_none_that_needs_them(wide):
    few = wide[(wide["Metadata_compound"] != "DMSO") | (wide["Metadata_batch"] != "Week3")]
    assert list(corrected.corrected(few)) == [corrected.PLAIN, corrected.WHITENED]


def test_weeks_that_differ_by_an_affine_map_are_made_alike_by_cells_and_wells_follow():
    rng = np.random.default_rng(3)
    week, well = np.repeat([0, 1], 400), np.arange(800) // 20
    compound = np.where(well % 2 == 0, "DMSO", "a")
    x = rng.normal(size=(800, 6)) + (compound == "a")[:, None]
    stretched = np.where(week[:, None] == 1, 2 * x + 3, x)
    named = {"plate": week, "well": well, "batch": week, "compound": compound}
    table = pd.DataFrame({f"Metadata_{name}": pd.Series(of).astype(str) for name, of in named.items()})
    cells = pd.concat([table, pd.DataFrame(stretched).add_prefix("z")], axis=1)
    wells = profiles.to_wells(cells)
    found, steps = corrected.corrected_by_cells(wells, cells, replace(TWICE, wdn_iterations=20))
    assert list(found) == [corrected.CORAL_CELLS, corrected.WDN]

    def gap(of, name):
        means = of[of["Metadata_compound"] == name].groupby("Metadata_batch")[profiles.features(of)].mean()
        return np.linalg.norm(means.loc["0"] - means.loc["1"])

    before = profile.base(wells, TWICE.components, one_unit=True)(wells)
    for after in found.values():
        assert gap(after, "DMSO") < 0.05 * gap(before, "DMSO")
        assert gap(after, "a") < 0.3 * gap(before, "a")
    line = steps.iloc[0]
    assert line["before"] > 0.2
    assert abs(line["start"]) < 0.02
    assert line["after"] <= line["start"]
    one_week, none = corrected.corrected_by_cells(wells, cells.assign(Metadata_batch="0"), TWICE)
    assert one_week == {}
    assert none.empty


def test_distances_agree_wholly_with_themselves_and_without_weeks_with_their_own_kind(run, numbers):
    agree = rows.pick(numbers, protocol="agreement of distances").set_index(["variant", "summary", "measure"])["value"]
    stored = {}
    for (variant, summary, _), square in measured.stored_distances(run):
        stored.setdefault((variant, summary), []).append(square)
    compound = run.table("treatments")["Metadata_compound"].to_numpy()
    (true,) = stored["known truth", "mean"]
    for variant, summary, target in (
        ("lambda 1", "mean", "mean, without weeks"),
        ("lambda 0", "mean, TVN", "mean, without weeks, whitened"),
        ("lambda 0", "mean, WDN by cells", "mean, without weeks, whitened by cells"),
    ):
        for name, others in (("without weeks", stored[variant, target]), ("in truth", [true, true])):
            slow = [
                spearmanr(a[i, compound != compound[i]], b[i, compound != compound[i]])[0]
                for a, b in zip(stored[variant, summary], others, strict=True)
                for i in range(len(compound))
            ]
            assert agree[variant, summary, name] == pytest.approx(np.mean(slow))
    assert ("lambda 0", "mean, without weeks", "without weeks") not in agree.index


def test_the_objective_at_the_end_is_that_of_the_game(run, numbers):
    ends = rows.pick(numbers, protocol="end of training").set_index(["variant", "measure"])["value"]
    for variant, weight, term in (
        ("lambda 0", 0.0, "adversary"),
        ("lambda 50", -50.0, "adversary"),
        ("lambda 1, confusion", 1.0, "confusion"),
        ("lambda 100, kernel", 100.0, "kernel"),
    ):
        expected = ends[variant, "reconstruction"] + weight * ends[variant, term]
        assert ends[variant, "objective"] == pytest.approx(expected)
    assert ("lambda 100, kernel", "adversary") not in ends.index  # which it begins with and has no more
    last = rows.pick(run.table("history"), variant="lambda 50", term="reconstruction").groupby("repeat")["value"].last()
    assert ends["lambda 50", "reconstruction"] == pytest.approx(last.mean())
    chance = rows.one(numbers, setting="lambda 50", protocol="end of training", measure="adversary")["null"]
    assert chance == pytest.approx(np.log(10))


def test_readers_find_a_planted_week_in_new_plates_and_nothing_in_noise():
    rng = np.random.default_rng(5)
    week = np.repeat(["Week1", "Week2", "Week10"], [90, 60, 20])
    plate = [f"{name}_{i % (3 if name != 'Week10' else 1)}" for i, name in enumerate(week)]
    table = pd.DataFrame({"Metadata_batch": week, "Metadata_plate": plate, "Metadata_compound": "DMSO"})
    own = np.full(170, "Week1")
    config = replace(TWICE, probe_epochs=200, hidden=(16,), probed=1000)
    noise = pd.DataFrame(rng.normal(size=(170, 3))).add_prefix("z")
    planted = noise.assign(z0=noise["z0"] + 9 * (week == "Week1"))
    shares = {}
    for name, codes in {"planted": planted, "noise": noise}.items():
        found = probes.read_weeks(pd.concat([table, codes], axis=1), own, config, 0)
        assert set(found["cells"]) == {probes.ALL, probes.NEGATIVE}  # no positive control here
        assert set(found["plate"]) == {f"Week{w}_{i}" for w in (1, 2) for i in range(3)}  # of Week10 too few
        sums = rows.pick(found, cells=probes.ALL).groupby("reader")[["correct", "counted"]].sum()
        assert (sums["counted"] == 120).all()  # as many of each week
        shares[name] = (sums["correct"] / sums["counted"]).to_dict()
        assert found["null"].eq(0.5).all()
    assert shares["planted"][probes.LINEAR] > 0.95
    assert shares["planted"][probes.NEW] > 0.95
    assert shares["noise"][probes.LINEAR] < 0.7
    assert shares["noise"][probes.NEW] < 0.7
    assert shares["noise"][probes.OWN] == shares["planted"][probes.OWN] == 0.5


def test_the_adversarys_answers_have_the_names_of_its_classes():
    table = pd.DataFrame({"Metadata_batch": ["Week2", "Week10", "Week1", "Week10"] * 2, "Metadata_compound": "DMSO"})
    classes, _ = fair_cae.confounder.read_column(table, "Metadata_batch")
    kept = np.array([0, 1, 3])
    answers = torch.from_numpy(classes[kept])
    state = SimpleNamespace(labels={"treatment": torch.zeros(8, 0)}, networks={"adversary": lambda z, seen: answers})
    named = making.adversarys_weeks(state, np.zeros((3, 2)), kept, table)
    assert named.tolist() == ["Week2", "Week10", "Week10"]


def test_a_new_network_is_held_against_the_adversary_on_the_same_cells(numbers):
    for variant in ("lambda 0", "lambda 50, conditional"):
        of = {reader: rows.one(numbers, setting=f"{variant}, all cells, {reader}", protocol="probe")["value"]
              for reader in (probes.NEW, probes.OWN)}  # fmt: skip
        setting = f"{variant}, all cells: {probes.NEW} - {probes.OWN}"
        line = rows.one(numbers, setting=setting, protocol="paired", measure="week named")
        assert line["value"] == pytest.approx(of[probes.NEW] - of[probes.OWN])


# --- premises, tables -----------------------------------------------------------------------------------------------


def test_losses_are_flat_only_if_both_the_autoencoder_and_the_game_are():
    steps = np.arange(1, 301)
    history = pd.DataFrame(
        {"step": steps, "term": "reconstruction", "value": np.where(steps <= 100, 2 - steps / 200, 9)}
    )
    flat = pd.DataFrame({"step": steps, "term": "adversary", "value": 2.0})
    falling = flat.assign(value=np.where(steps > 200, 2 - (steps - 200) / 60, 0.0))
    lengths = (100, 100, 100)
    alone = premises.change(history[history["step"] <= 100], {"reconstruction": 1.0})
    assert -0.1 < alone < -0.01
    assert measures.change(pd.concat([history, flat]), lengths) == alone
    assert measures.change(pd.concat([history, falling]), lengths) < 2 * alone
    assert measures.change(history[history["step"] <= 200], (100, 100, 0)) == alone
    assert np.isnan(measures.change(pd.concat([history, flat])[lambda of: of["step"] <= 200], lengths))


def test_the_gain_of_every_game_is_that_of_the_autoencoder_before_it(tables, numbers):
    single = rows.pick(tables["accuracies"], summary="mean", measure="MOA", repeat=1).set_index("variant")["accuracy"]
    for variant in judged(TWICE):
        line = rows.one(numbers, setting=f"{variant}, training 2", measure=judging.gain("MOA"))
        assert line["value"] == pytest.approx(single["lambda 0"] - single["untrained encoder"])


def test_numbers_have_one_meaning_each_and_are_those_of_a_second_evaluation(run, tables, numbers):
    assert not numbers.duplicated(claims.KEYS).any()
    for name, table in fair.evaluate([run]).items():
        pd.testing.assert_frame_equal(table, tables[name])
    bounded = numbers.dropna(subset=["low", "high"])
    assert ((bounded["low"] <= bounded["value"] + 1e-9) & (bounded["value"] <= bounded["high"] + 1e-9)).all()


def test_what_is_printed_is_written_down_with_its_null_and_nothing_of_it_is_comparable_here(numbers):
    published = claims.load(CLAIMS)
    printed = {entry["id"]: round(92 * entry["value"], 2) for entry in published["numbers"] if entry["k"] == 3}
    assert list(printed.values()) == [78, 55, 51, 14, 59, 39, 33, 29]
    verdicts = claims.judge_numbers(published["numbers"], numbers, "other data")
    assert len(verdicts) == 9
    assert set(verdicts["verdict"]) == {claims.INCOMPARABLE}
    assert {claim["id"] for claim in published["claims"]} == set(fair.PREDICATES)
    table = shown.result_table(numbers, verdicts)
    theirs = table[table["from"] == "paper"].set_index("codes")
    assert theirs.loc["lambda 50", ["MOA", "week"]].tolist() == ["55.4 (3.6x)", "35.9 (1.1x)"]


def test_products_hold_no_original(run, store):
    kept = load(run.path("pictures.webp"), len(run.table("pictures")))
    table, stack = shown.pictures(run, TWICE, store)
    original = (table["column"] == "original").to_numpy()
    assert not kept[original].any()
    assert table["column"].unique().tolist() == ["original", "lambda 0", "lambda 1", "lambda 50"]
    crop = normalised(making.load(TWICE, store).select([int(table["cell"][0])]))[0]
    np.testing.assert_array_equal(stack[0], np.round(255 * crop.transpose(1, 2, 0)).astype(np.uint8))


def test_kept_against_left_has_every_way_once(numbers):
    table = rows.pick(shown.kept_rows(numbers), measure="MOA").set_index("label")["way"]
    ways = {f"lambda {lam:g}": "adversary" for lam in TWICE.lams}
    ways |= dict.fromkeys(
        ("centred by week", "whitened", "TVN", "CORAL", "CORAL by cells", "WDN by cells"), "correction"
    )
    ways |= {"lambda 50, WDN by cells": "correction", "lambda 50, adversary at rest": "adversary at rest"}
    ways |= dict.fromkeys(("lambda 1, reversal", "lambda 1, confusion", "lambda 100, kernel"), "bounded game")
    ways |= dict.fromkeys(("lambda 0, deep", "lambda 50, deep"), "deep encoder")
    plain = ("untrained encoder", "pixel PCA", "classical features", "ImageNet features", "ImageNet features, whitened")
    ways |= dict.fromkeys(plain, "no game")
    assert table.to_dict() == ways | {"lambda 50, conditional": "adversary that sees the treatment"}


def test_wells_that_were_fitted_say_nothing_of_the_week(numbers):
    table = shown.left_table(numbers).set_index(["variant", "summary"])
    for variant, summary in table.index:
        line = table.loc[variant, summary]
        assert (line["same week, DMSO"] == "–") == (summary in corrected.CORRECTIONS or "without" in summary)
        assert (line["same week, positive control"] == "–") == ("without" in summary)


def test_whitened_features_are_called_so_and_stand_beside_those_that_are_not(numbers):
    codes = shown.result_table(numbers, numbers.iloc[:0])["codes"].tolist()
    assert codes[-3:] == ["ImageNet features", "ImageNet features, whitened", "largest class"]
    text = shown.takeaways(numbers, pd.DataFrame(columns=["verdict", "sentence"]))
    assert text.count("ImageNet features ") == text.count("ImageNet features, whitened ") == 1


def test_points_have_a_number_each_that_no_other_covers_and_what_coincides_shares_one(numbers):
    rows_ = shown.kept_rows(numbers)
    same = rows_["label"].isin(["CORAL by cells", "WDN by cells"])
    for name in ("value", "week"):
        rows_.loc[same, name] = 0.5
    figure = plots.kept_and_left(rows_)
    named = [text.get_text().partition("  ")[2] for text in figure.legends[0].get_texts()]
    labels = [name for line in named if line for name in line.split(" = ")]
    assert sorted(labels) == sorted(set(rows_["label"]))
    assert "CORAL by cells = WDN by cells" in named
    figure.canvas.draw()
    for axes in figure.axes:
        numbers_ = [int(text.get_text()) for text in axes.texts]
        assert numbers_ == list(range(1, len([name for name in named if name]) + 1))
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # of the number without its line
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    plt.close(figure)


def test_no_line_is_drawn_across_a_phase_without_steps_and_a_loss_may_leave_the_frame(run):
    history = shown.loss_rows(run, TWICE)
    a, b, _ = base(TWICE).lengths
    gaps = history[history["value"].isna()]
    assert set(gaps["variant"]) == {"lambda 100, kernel"}
    line = rows.pick(history, variant="lambda 100, kernel", term="reconstruction")
    assert line["step"].is_monotonic_increasing
    between = line[(line["step"] > a) & (line["step"] <= a + b)]
    assert between["value"].isna().all()
    assert len(between) == 1
    drawn = history.assign(value=history["value"].mask(history["variant"] == "lambda 50, adversary at rest", 1e10))
    figure = plots.losses(drawn, base(TWICE).lengths, np.log(10))
    assert figure.axes[1].get_ylim()[1] == pytest.approx(4 * np.log(10))
    plt.close(figure)


def test_the_heat_map_shows_main_variants_and_what_one_of_them_reads():
    lines = [("lambda 0", "a", 0.2), ("lambda 0", "b", 0.01), ("lambda 1", "b", 0.05), ("lambda 0.1", "b", 0.9)]
    known = pd.DataFrame(lines, columns=["setting", "parameter", "value"])
    assert shown.truth_drawn(known).to_numpy().tolist() == [["lambda 0", "a", 0.2]]


def test_it_is_said_which_change_stands_in_the_premise(run, monkeypatch):
    for game, words in ((0.01, "the first in all of them"), (-0.5, "the second in 6 of 6")):
        monkeypatch.setattr(measures, "phase_changes", lambda part, lengths, game=game: [-0.02, game])
        text = shown.premise_words(run, TWICE)
        assert words in text
        assert f"by {100 * abs(game):.1f} to {100 * abs(game):.1f} %" in text
    monkeypatch.setattr(measures, "phase_changes", lambda part, lengths: [np.nan, 0.1])
    assert "Here it is" not in shown.premise_words(run, TWICE)


def test_words_are_those_of_the_screen(numbers):
    assert shown.data_words(replace(TWICE, screen="bbbc021-sample")) == (
        "This page shows real crops of BBBC021, and no other cells."
    )
    assert "real" not in shown.data_words(TWICE) + shown.known_words(shown.truth_rows(numbers))
    assert "are real: nobody knows" in shown.known_words(pd.DataFrame())


def test_the_table_of_the_course_says_its_own_chance(numbers):
    steps = shown.course_rows(numbers)
    week = rows.pick(numbers, protocol="course, week")["null"].mean()
    assert f"(chance {100 * week:.1f})" in shown.course_caption(steps)


# --- verdicts -------------------------------------------------------------------------------------------------------


def numbers_of(*lines):
    """Lines as (setting, protocol, measure, low, high) with chance 0.2, of three trainings with all cell views."""
    table = pd.DataFrame(lines, columns=["setting", "protocol", "measure", "low", "high"])
    table = table.assign(value=(table["low"] + table["high"]) / 2, null=0.2, trainings=3, agree=1)
    names = ("lambda 0", "lambda 1", "lambda 50", "lambda 50, conditional")
    whole = [line for name in names for line in premises.budget(name, 10, 10, variant=name)]
    return pd.concat([table, pd.DataFrame(whole)], ignore_index=True)


UP, NONE, DOWN = (0.1, 0.3), (-0.1, 0.2), (-0.3, -0.1)
LEFT = "nearest well, positive control"
SEES = "50, conditional"


def pair(a, b, measure, gap, summary="mean"):
    return (f"lambda {a}, {summary} - lambda {b}, mean", "paired", measure, *gap)


def both_games(measure, one, fifty):
    return [pair(1, 0, measure, one), pair(50, 0, measure, fifty)]


def level(name, low, protocol="glastonbury2018", measure="MOA"):
    return (f"lambda {name}", protocol, measure, low, low + 0.1)


def probing(one, fifty):
    ends = {1: one, 50: fifty}.items()
    return [(f"lambda {k}, all cells: new network - the game's adversary", "paired", "week named", *g) for k, g in ends]


def corrections(moa, week, n=6):
    """The first n corrections with these differences, the others certainly worse."""
    found = []
    for i, summary in enumerate(corrected.CORRECTIONS):
        gaps = (moa, week) if i < n else (DOWN, UP)
        found += [pair(0, 50, name, gap, summary) for name, gap in zip(("MOA", LEFT), gaps, strict=True)]
    return found


HIGH, LOW = [level("1, mean", 0.7), level("50, mean", 0.7)], [level("1, mean", 0.5), level("50, mean", 0.5)]
THERE = level("0, mean", 0.3, measure="week")
CASES = [
    ("lowers-week", both_games("week", DOWN, DOWN), "reproduced"),
    ("lowers-week", both_games("week", NONE, DOWN), "partly"),
    ("lowers-week", both_games("week", NONE, UP), "not reproduced"),
    ("costs-mechanisms", both_games("MOA", DOWN, DOWN) + HIGH, "reproduced"),
    ("costs-mechanisms", both_games("MOA", DOWN, DOWN) + LOW, "partly"),
    ("costs-mechanisms", both_games("MOA", NONE, UP) + LOW, "not reproduced"),
    ("fifty-removes-more", [pair(50, 1, "week", DOWN)], "reproduced"),
    ("fifty-removes-more", [pair(50, 1, "week", (-0.2, 0.1))], "partly"),
    ("fifty-removes-more", [pair(50, 1, "week", UP)], "not reproduced"),
    ("week-is-there", [THERE, level("0, mean, positive control", 0.3, "week left", "nearest well")], "reproduced"),
    ("week-is-there", [THERE, level("0, mean, positive control", 0.15, "week left", "nearest well")], "partly"),
    ("fresh-probe-finds-more", probing(UP, UP), "reproduced"),
    ("fresh-probe-finds-more", probing(NONE, UP), "partly"),
    ("fresh-probe-finds-more", probing(DOWN, NONE), "not reproduced"),
    ("conditional-keeps-more", [pair(SEES, 50, "MOA", UP), pair(SEES, 50, LEFT, NONE)], "reproduced"),
    ("conditional-keeps-more", [pair(SEES, 50, "MOA", UP), pair(SEES, 50, LEFT, UP)], "partly"),
    ("conditional-keeps-more", [pair(SEES, 50, "MOA", NONE), pair(SEES, 50, LEFT, DOWN)], "not reproduced"),
    ("controls-do-as-well", corrections((-0.04, 0.1), (-0.1, 0.04)), "reproduced"),
    ("controls-do-as-well", corrections(UP, DOWN, 1), "partly"),
    ("controls-do-as-well", corrections(UP, UP), "not reproduced"),
    ("controls-do-as-well", corrections(NONE, DOWN), "not reproduced"),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "lines", "verdict"), CASES)
def test_verdicts_follow_their_rule_and_need_three_trainings_and_a_premise(claim, lines, verdict):
    numbers, decide = numbers_of(*lines), fair.PREDICATES[claim]
    assert decide(numbers).verdict == verdict
    assert decide(numbers.assign(trainings=2)).verdict == claims.INCOMPARABLE
    assert decide(numbers.iloc[:0]).verdict == claims.INCOMPARABLE
    short = numbers.assign(value=numbers["value"].mask(numbers["measure"] == judging.VIEWS, 5))
    assert decide(short).verdict == claims.UNDECIDED


# --- the notebook ---------------------------------------------------------------------------------------------------


def test_the_notebook_shows_every_figure(run, store, monkeypatch):
    space = execute("glastonbury2018", {"repeats": 2, "results": str(store)}, monkeypatch)
    assert space["run"].key == run.key
    drawn = {path.stem for path in (store / "pages" / "glastonbury2018" / "figures").glob("*.csv")}
    assert drawn == {"losses", "lambda", "kept", "truth", "cells", "maps", "course"}


def test_a_screen_of_ones_own_without_positive_controls_is_shown_as_far_as_it_goes(tmp_path, monkeypatch):
    rng = np.random.default_rng(6)
    names = ["compound", "moa", "batch", "plate", "well"]
    wells = [(f"{moa}{week}", moa, f"Week{week}", f"p{week}", f"{moa}1") for moa in "abc" for week in (1, 2, 3)]
    wells += [("DMSO", "DMSO", f"Week{week}", f"p{week}", f"d{i}") for week in (1, 2, 3) for i in range(3)]
    table = pd.DataFrame([well for well in wells for _ in range(3)], columns=[f"Metadata_{name}" for name in names])
    images = rng.integers(0, 60_000, (len(table), 3, 20, 33)).astype(np.uint16)
    CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.5).save(tmp_path / "own")
    given = {"screen": str(tmp_path / "own"), "repeats": 1, "results": str(tmp_path / "store")}
    space = execute("glastonbury2018", given, monkeypatch)
    assert space["run"].table("pictures")["cell"].max() < len(table)
    assert set(space["numbers"]["protocol"]).isdisjoint({"week left", "probe", "truth"})
    assert set(space["claims"]["verdict"]) == {claims.INCOMPARABLE}


def test_bad_sizes_and_screens_are_refused_in_words(tmp_path):
    with pytest.raises(CellbookError, match="iterations=0 must be at least 1"):
        resize(TWICE, 0)
    assert asdict(resize(TWICE, 2 * TWICE.iterations))["pretraining"] == 2 * TWICE.pretraining
    with pytest.raises(CellbookError, match="neither simulated nor"):
        fair.run(replace(TWICE, screen="nowhere"), tmp_path)
