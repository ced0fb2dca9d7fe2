"""The page of VAE+: trainings kept and reused, profiles against slow loops, verdicts, no pixels in products."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist, squareform
from sklearn.covariance import LedoitWolf

from cellbook import claims
from cellbook.book import build, notebooks, results
from cellbook.cells import CellSet
from cellbook.configure import choose_preset
from cellbook.errors import CellbookError
from cellbook.features.transferred import installed
from cellbook.figures import lafarge2019 as plots
from cellbook.pages import lafarge2019 as lafarge
from cellbook.pages.lafarge2019 import realism, shown, walks
from cellbook.pages.lafarge2019.config import LABELS, PAPER_MODELS, PAPERS_VIEWS, trainings
from cellbook.pages.lafarge2019.measures import FALLING
from cellbook.study import course, judging, premises, profile, rows
from cellbook.study.pictures import load, normalised
from cellbook.study.realism import HALF, choose
from cellbook.study.reconstructions import MISFIT
from cellbook.study.tables import premise_table

MOAS = {"actin": ("a1", "a2", "a3"), "dna": ("d1", "d2", "d3"), "tubulin": ("t1", "t2", "t3")}
STATIC = notebooks.root() / "book" / "_static" / "realism"


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """A cell set of one's own: three weeks of a plate each, nine compounds in two doses, controls; a folder."""
    rng = np.random.default_rng(5)
    rows = []
    for place, compound in enumerate(name for names in MOAS.values() for name in names):
        moa = next(moa for moa, names in MOAS.items() if compound in names)
        week = f"Week{place % 3 + 1}"
        for dose in (0.1, 3.0):
            for replicate in (1, 2):
                well = f"{'BCDEFG'[place % 6]}{2 * replicate + (dose > 1):02d}"
                rows += [(f"{week}_1", f"{well}{place}", week, compound, dose, moa, "treatment")] * 3
    for week in ("Week1", "Week2", "Week3"):
        rows += [(f"{week}_1", f"A{k}", week, "DMSO", 0.0, "DMSO", "negative control") for k in range(4) for _ in "123"]
    names = ["plate", "well", "batch", "compound", "concentration", "moa", "role"]
    table = pd.DataFrame(rows, columns=[f"Metadata_{name}" for name in names])
    smooth = gaussian_filter(rng.random((len(table), 3, 68, 68)), (0, 0, 4, 4))
    images = (smooth / smooth.max() * 50_000).astype(np.uint16)
    folder = tmp_path_factory.mktemp("own") / "cells"
    CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.65).save(folder)
    return folder


@pytest.fixture(scope="module")
def config(screen):
    """Two trainings of each judged model, two steps each."""
    changes = {"iterations": 2, "repeats": 2, "latent": 6, "frames": 3, "looked_at": 20}
    return replace(lafarge.PRESETS["smoke"], screen=str(screen), **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(config, store):
    return lafarge.run(config, store, device="cpu")


@pytest.fixture(scope="module")
def tables(run):
    return results.measure("lafarge2019", [run])


def test_training_is_never_done_twice(run, config, store):
    made = {path: path.stat().st_mtime_ns for path in store.glob("vae_plus-*/run.json")}
    assert len(made) == 8
    assert lafarge.run(config, store, device="cpu").key == run.key
    other = lafarge.run(replace(config, repeats=1, looked_at=12), store, device="cpu")
    assert other.key != run.key
    assert {path: path.stat().st_mtime_ns for path in store.glob("vae_plus-*/run.json")} == made


def test_where_a_folder_lies_decides_nothing(run, config, store, screen, tmp_path):
    shutil.copytree(screen, tmp_path / "cells")
    moved = lafarge.run(replace(config, screen=str(tmp_path / "cells")), store, device="cpu")
    assert moved.key == run.key
    assert str(screen) not in (run.folder / "run.json").read_text()


def test_products_hold_no_original_and_figures_do(run, config, store, screen):
    kept = load(run.path("pictures.webp"), len(run.table("pictures")))
    cells = CellSet.open(screen)
    table, stack = shown.pictures(run, config, store)
    originals = (table["cell"] >= 0).to_numpy()
    assert set(table["column"][~originals]).isdisjoint({"original", "target cell"})
    assert originals.any()
    assert not kept[originals].any()
    assert (kept[~originals] == stack[~originals]).all()
    for place in np.flatnonzero(originals):
        crop = normalised(cells.select([int(table["cell"][place])]))[0]
        np.testing.assert_array_equal(stack[place], np.round(255 * crop.transpose(1, 2, 0)).astype(np.uint8))


def test_every_picture_has_its_place(run):
    n = len(run.table("pictures"))
    assert load(run.path("pictures.webp"), n).shape == (n, 68, 68, 3)
    assert {"cells", "walks", "targets", "prior", "direction"} <= set(run.table("pictures")["figure"])


def test_tables_are_those_of_a_second_evaluation(run, tables):
    again = lafarge.evaluate([run])
    for name, table in again.items():
        pd.testing.assert_frame_equal(table, tables[name])


@pytest.mark.skipif(not installed(), reason="the package with the weights is an extra")
def test_the_transferred_baseline_adds_its_lines_and_changes_no_other(run, config, store, tables):
    assert lafarge.baseline(config, store, "cpu") == []  # of a run that is too small
    (more,) = lafarge.baseline(replace(config, iterations=100), store, "cpu")
    numbers = lafarge.evaluate([run, more])["numbers"]
    added = numbers["variant"].eq("ImageNet features") | numbers["setting"].str.startswith("ImageNet features - ")
    assert set(numbers.loc[added, "setting"]) == {
        "ImageNet features, mean",
        "ImageNet features, mean, whitened",
        "ImageNet features - classical features, whitened",
    }
    pd.testing.assert_frame_equal(numbers[~added].reset_index(drop=True), tables["numbers"])
    of = {name: rows.one(numbers, setting=f"{name}, mean, whitened", protocol="lafarge2019", measure="NSC")["value"]
          for name in ("ImageNet features", "classical features")}  # fmt: skip
    gap = rows.one(numbers, setting="ImageNet features - classical features, whitened", measure="NSC")["value"]
    assert gap == pytest.approx(of["ImageNet features"] - of["classical features"])
    assert "ImageNet features" in set(shown.further_table(numbers, config)["profile"])


def test_numbers_have_one_meaning_each_and_lie_in_their_intervals(tables):
    numbers = tables["numbers"]
    assert not numbers.duplicated(claims.KEYS).any()
    bounded = numbers.dropna(subset=["low", "high"])
    assert (bounded["low"] <= bounded["value"] + 1e-9).all()
    assert (bounded["value"] <= bounded["high"] + 1e-9).all()
    judged = rows.pick(numbers, variant=PAPER_MODELS, protocol="lafarge2019")
    assert (judged["trainings"] == 2).all()
    scored = numbers[numbers["step"].isna()].dropna(subset=["summary"])
    assert (scored["setting"] == scored["variant"] + ", " + scored["summary"]).all()
    on_the_way = numbers.dropna(subset=["step", "summary"])
    steps = on_the_way["step"].astype(int).astype(str)
    assert (on_the_way["setting"] == on_the_way["variant"] + ", " + on_the_way["summary"] + ", step " + steps).all()
    assert set(scored["distance"]) == {"cosine", "euclidean"}


def test_the_table_by_channel_shows_channels_alone(tables):
    table = shown.channel_table(tables["numbers"])
    assert list(table) == ["measure", "model", "DNA", "Tubulin", "Actin"]
    models = tables["quality"]["variant"].unique()
    assert table[["measure", "model"]].to_numpy().tolist() == [
        [measure, model] for measure in ("MSE", "SSIM", "sharpness") for model in models
    ]
    line = tables["quality"].query("variant == 'VAE' and repeat == 0").iloc[0]
    other = tables["quality"].query("variant == 'VAE' and repeat == 1").iloc[0]
    written = table.query("measure == 'MSE' and model == 'VAE'")["Actin"].item().split("\N{NO-BREAK SPACE}")[0]
    assert float(written) == pytest.approx((line["MSE, Actin"] + other["MSE, Actin"]) / 2, abs=6e-5)


@pytest.mark.parametrize("page", ["lafarge2019", "lafarge2019-sample"])
def test_what_is_published_of_a_property_alone_has_an_interval(page):
    numbers = pd.read_csv(notebooks.root() / "book" / "results" / page / "numbers.csv")
    alone = rows.pick(numbers, protocol="baseline", setting=["cell count alone", "labels permuted"])
    assert len(alone) == 4
    assert ((alone["low"] < alone["value"]) & (alone["value"] < alone["high"])).all()


def test_a_sweep_takes_what_differs_in_its_own_column_alone():
    lines = [
        ("AE", "AE", 0.0, 1.0), ("VAE", "VAE", 1.0, 1.0), ("VAE+", "VAE+", 2.0, 1.0), ("VAE, beta 4", "VAE", 4.0, 1.0),
        ("VAE, beta 0.5", "VAE", 0.5, 1.0), ("VAE, week effect 0", "VAE", 1.0, 0.0),
    ]  # fmt: skip
    numbers = pd.DataFrame(lines * 2, columns=["variant", "model", "beta", "week_effect"])
    found = shown.swept(numbers, "beta", "AE", "VAE")
    assert found["variant"].tolist() == ["AE", "VAE, beta 0.5", "VAE", "VAE, beta 4"]
    assert shown.swept(numbers, "week_effect", "VAE")[["variant", "x"]].to_numpy().tolist() == [
        ["VAE, week effect 0", 0.0], ["VAE", 1.0]
    ]  # fmt: skip
    assert shown.swept(numbers.assign(week_effect=np.nan), "week_effect", "VAE").empty  # real cells


def slow_accuracy(embedded, same_week):
    """NSC or NSCB of mean profiles by plain loops."""
    names = [name for name in embedded if name.startswith("z")]
    treated = embedded[embedded["Metadata_compound"] != "DMSO"]
    wells = treated.groupby(["Metadata_plate", "Metadata_well"])[names].mean()
    who = treated.groupby(["Metadata_plate", "Metadata_well"])[
        ["Metadata_compound", "Metadata_concentration", "Metadata_moa", "Metadata_batch"]
    ].first()
    units = wells.join(who).groupby(["Metadata_compound", "Metadata_concentration"])
    x, who = units[names].median().to_numpy(), units[["Metadata_moa", "Metadata_batch"]].first().reset_index()
    distance, right = cdist(x, x, "cosine"), 0
    for i in range(len(x)):
        allowed = who["Metadata_compound"] != who["Metadata_compound"][i]
        if same_week:
            allowed &= who["Metadata_batch"] != who["Metadata_batch"][i]
        nearest = min(np.flatnonzero(allowed), key=lambda j: distance[i, j])
        right += who["Metadata_moa"][nearest] == who["Metadata_moa"][i]
    return right / len(x)


@pytest.mark.parametrize(("measure", "same_week"), [("NSC", False), ("NSCB", True)])
def test_accuracy_of_each_training_is_that_of_a_slow_loop(run, tables, store, measure, same_week):
    single = tables["accuracies"].query("summary == 'mean' and protocol == 'lafarge2019' and measure == @measure")
    trained = run.table("trainings")
    for _, line in trained[trained["variant"].isin(PAPER_MODELS)].iterrows():
        embedded = pd.read_parquet(store / line["key"] / "codes.parquet")  # of all cells: wells have few here
        mine = single[(single["variant"] == line["variant"]) & (single["repeat"] == line["repeat"])]
        found = mine["accuracy"].item()
        assert found == pytest.approx(slow_accuracy(embedded, same_week))


def test_distances_lose_little_by_being_stored_in_16_bits(run, store):
    first = run.table("trainings").iloc[0]
    summaries, _ = profile.summaries(pd.read_parquet(store / first["key"] / "wells.parquet"))
    exact = profile.distances({"mean": summaries["mean"]}, "lafarge2019", ("cosine",))["mean|cosine"]
    with np.load(run.path("distances.npz")) as stored:
        place = list(stored["names"]).index(f"{first['variant']}|0|mean|cosine")
        kept = stored["values"][place] * stored["scale"][place]
    np.testing.assert_allclose(kept, exact, atol=exact.max() / 65535)


def test_whitened_distances_are_those_of_the_shrunk_covariance():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((60, 8)) @ rng.standard_normal((8, 8)) * 10.0 ** np.arange(-2, 2).repeat(2) + 7
    wells = pd.DataFrame(x, columns=[f"z{i}" for i in range(8)])
    wells.insert(0, "Metadata_compound", np.where(np.arange(60) < 25, "DMSO", "x"))
    white, used = profile.whiten(wells)
    estimate = LedoitWolf().fit(x[:25])
    oracle = cdist(x, x, "mahalanobis", VI=np.linalg.inv(estimate.covariance_))
    ratio = cdist(*[white.filter(like="z").to_numpy()] * 2)[oracle > 0] / oracle[oracle > 0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    assert used == {"controls": 25, "features": 8, "rank": 8, "ridge": pytest.approx(used["ridge"])}
    assert used["ridge"] == pytest.approx(estimate.shrinkage_ / (1 - estimate.shrinkage_))


def test_a_well_of_one_cell_has_a_deviation_only_if_its_treatment_has_no_other():
    wells = ["A1"] * 3 + ["A2"] + ["B1"]
    cells = pd.DataFrame({"Metadata_plate": "Week1_1", "Metadata_well": wells, "Metadata_batch": "Week1"})
    cells["Metadata_compound"], cells["Metadata_concentration"] = ["x"] * 4 + ["y"], 1.0
    cells["Metadata_moa"], cells["z0"] = "m", [1.0, 2.0, 6.0, 9.0, 4.0]
    mean, both = profile.without_positives(profile.to_wells(cells))
    assert mean["z0_mean"].tolist() == [3, 9, 4]
    assert both["Metadata_well"].tolist() == ["A1", "B1"]
    np.testing.assert_allclose(both["z0_sd"], [np.std([1, 2, 6], ddof=1), 0])


def test_the_positive_control_is_no_part_of_a_profile():
    cells = pd.DataFrame({"Metadata_plate": "Week1_1", "Metadata_well": ["A1", "A1", "A2"], "Metadata_batch": "Week1"})
    cells["Metadata_role"] = ["treatment", "treatment", "positive control"]
    cells["Metadata_compound"], cells["Metadata_concentration"], cells["z0"] = "taxol", 0.3, 1.0
    assert profile.without_positives(profile.to_wells(cells))[0]["Metadata_well"].tolist() == ["A1"]


def test_path_of_a_walk_is_that_of_changing_one_feature_after_another():
    rng = np.random.default_rng(1)
    for _ in range(20):
        z, goal = rng.standard_normal((2, 12)) * rng.uniform(0.1, 100)
        slow, moving = [], z.copy()
        for feature in [None, *sorted(range(12), key=lambda i: -abs(goal[i] - z[i]))]:
            if feature is not None:
                moving[feature] = goal[feature]
            slow.append(moving @ goal / np.linalg.norm(moving) / np.linalg.norm(goal))
        np.testing.assert_allclose(walks.path_similarity(z, goal), slow, rtol=1e-9)


def test_clusters_have_a_target_of_their_own():
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.normal(centre, 0.1, (n, 4)) for centre, n in ((0, 10), (5, 6), (-5, 3))])
    found = walks.cluster_targets(codes, np.arange(19))
    assert [size for _, size in found] == [10, 6, 3]
    assert [target // 10 + (target >= 16) for target, _ in found] == [0, 1, 2]


def numbers_of(*lines):
    """Measured differences as (setting, measure, value, low, high, agree), of three trainings."""
    table = pd.DataFrame(lines, columns=["setting", "measure", "value", "low", "high", "agree"])
    table["protocol"] = ["walk" if setting == "VAE+" else "paired" for setting in table["setting"]]
    whole = [
        line for name in LABELS.values() for line in premises.budget(name, PAPERS_VIEWS, PAPERS_VIEWS, variant=name)
    ]
    return pd.concat([table.assign(trainings=3, sd=0.01), pd.DataFrame(whole)], ignore_index=True)


SHARP = "sharpness"


def sharp(more, misfit):
    """Lines on sharpness with the same numbers against VAE and AE."""
    return [
        (f"VAE+ - {m}", name, *v) for m in ("VAE", "AE") for name, v in ((SHARP, more), (f"misfit of {SHARP}", misfit))
    ]


WHITE = [(f"{name}: whitened - mean", "NSCB") for name in (*PAPER_MODELS, "all models")]
RISING = ("walks that only rise", "largest fall", "features that lower the similarity")


def at_once(misfit, accuracy):
    """VAE+ against VAE+ at once: misfit of sharpness, and both accuracies, as (value, low, high, agree)."""
    name = "VAE+ - VAE+ at once"
    return [(name, "misfit of sharpness", *misfit), *((name, measure, *accuracy) for measure in ("NSC", "NSCB"))]


CASES = [
    ("sharper", sharp((0.2, 0.1, 0.3, 1), (-0.2, -0.3, -0.1, 1)), "reproduced"),
    ("sharper", sharp((0.2, 0.1, 0.3, 1), (0.2, 0.1, 0.3, 1)), "partly"),  # a grid of artefacts
    ("sharper", sharp((0.2, 0.1, 0.3, 2 / 3), (-0.2, -0.3, -0.1, 1)), "not reproduced"),
    ("sharper", sharp((-0.2, -0.3, -0.1, 1), (0, -0.1, 0.1, 1)), "not reproduced"),
    ("at-least-as-accurate", [("VAE+ - VAE", m, 0.01, -0.04, 0.1, 1) for m in ("NSC", "NSCB")], "reproduced"),
    ("at-least-as-accurate", [("VAE+ - VAE", m, 0.01, -0.1, 0.1, 1) for m in ("NSC", "NSCB")], "partly"),
    ("at-least-as-accurate", [("VAE+ - VAE", m, -0.1, -0.2, -0.01, 1) for m in ("NSC", "NSCB")], "not reproduced"),
    ("ae-matches", [("VAE+ - AE", m, 0.01, -0.1, 0.04, 1) for m in ("NSC", "NSCB")], "reproduced"),
    ("ae-matches", [("VAE+ - AE", m, -0.1, -0.2, -0.01, 1) for m in ("NSC", "NSCB")], "reproduced"),
    ("ae-matches", [("VAE+ - AE", m, 0.09, -0.01, 0.19, 1) for m in ("NSC", "NSCB")], "partly"),
    ("ae-matches", [("VAE+ - AE", m, 0.1, 0.05, 0.2, 1) for m in ("NSC", "NSCB")], "not reproduced"),
    ("whitening-helps", [(*w, 0.1, 0.05, 0.2, 1) for w in WHITE], "reproduced"),
    (
        "whitening-helps",
        [(*w, v, v - 0.1, v + 0.1, 1) for w, v in zip(WHITE, (0.1, -0.1, 0.1, 0.03), strict=True)],
        "partly",
    ),
    ("whitening-helps", [(*w, -0.1, -0.2, -0.05, 1) for w in WHITE], "not reproduced"),
    ("walk-rises", [("VAE+", m, v, v, v, 1) for m, v in zip(RISING, (0.96, 0.001, 0.0), strict=True)], "reproduced"),
    ("walk-rises", [("VAE+", m, v, v, v, 1) for m, v in zip(RISING, (0.5, 0.001, 0.01), strict=True)], "partly"),
    ("walk-rises", [("VAE+", m, v, v, v, 1) for m, v in zip(RISING, (0.5, 0.1, 0.3), strict=True)], "not reproduced"),
    ("progression-matters", at_once((-0.1, -0.2, -0.05, 1), (0.0, -0.1, 0.1, 1)), "reproduced"),
    ("progression-matters", at_once((0.1, 0.05, 0.2, 1), (0.1, 0.05, 0.2, 1)), "partly"),  # more power than there was
    ("progression-matters", at_once((-0.1, -0.2, -0.05, 2 / 3), (0.0, -0.1, 0.1, 1)), "not reproduced"),
    ("progression-matters", at_once((0.0, -0.1, 0.1, 1), (0.0, -0.1, 0.1, 1)), "not reproduced"),
]


@pytest.mark.parametrize(("claim", "lines", "verdict"), CASES)
def test_verdicts_follow_their_rule_and_need_three_trainings(claim, lines, verdict):
    numbers = numbers_of(*lines)
    assert lafarge.PREDICATES[claim](numbers).verdict == verdict
    few = lafarge.PREDICATES[claim](numbers.assign(trainings=2))
    assert few.verdict == claims.INCOMPARABLE
    assert "3 are needed" in few.evidence
    assert lafarge.PREDICATES[claim](numbers.iloc[:0]).verdict == claims.INCOMPARABLE
    short = numbers.replace({"value": {PAPERS_VIEWS: PAPERS_VIEWS - 1}})
    assert lafarge.PREDICATES[claim](short).verdict == verdict  # of both: as many as in the paper
    short.loc[short["measure"] == judging.VIEWS, "value"] -= 1
    undecided = lafarge.PREDICATES[claim](short)
    assert undecided.verdict == claims.UNDECIDED
    assert "4,159,998 of 4,159,999 cell views, objective not kept" in undecided.evidence
    assert undecided.evidence.endswith(f"measured: {lafarge.PREDICATES[claim](numbers).evidence}")
    unknown = lafarge.PREDICATES[claim](numbers.assign(value=np.nan, low=np.nan, high=np.nan))
    assert unknown.verdict == claims.INCOMPARABLE
    assert "cannot be measured" in unknown.evidence


def test_the_course_of_a_training_ends_where_its_codes_are(tables):
    numbers = tables["numbers"]
    last = rows.pick(numbers, protocol=course.COURSE, step=2)
    assert set(last["variant"]) == {"VAE+", "VAE", "AE", "VAE+ at once"}
    assert (last["views"] == 2 * 8).all()  # steps and batch
    names = ["variant", "summary", "distance", "measure"]
    final = rows.pick(numbers, protocol="lafarge2019").set_index(names)["value"]
    found = last.set_index(names)["value"]
    pd.testing.assert_series_equal(found, final[found.index])
    table = shown.course_rows(numbers)
    assert {"NSC, mean", "NSCB, mean, whitened", "pixel term", "KL (nats)"} <= set(table["panel"])
    assert set(table["views"]) == {0, 8, 16}
    assert set(shown.course_references(numbers)["variant"]) == {"untrained encoder", "classical features"}
    assert shown.course_rows(numbers[numbers["views"].isna()]).empty  # of trainings that kept no checkpoints


def test_a_training_that_is_only_followed_has_a_course_and_no_other_number(run, config, store, tables):
    more = replace(config, course=False, followed=3)
    found = results.measure("lafarge2019", [lafarge.run(more, store, device="cpu")])["numbers"]
    names = {"VAE+, width 3", "VAE, width 3", "AE, width 3", "VAE+ at once, width 3"}
    protocols = {course.COURSE, course.OBJECTIVE}  # this screen has no positive control
    mine = rows.pick(found, variant=list(names))
    assert set(mine["variant"]) == names
    assert set(mine["protocol"]) == protocols
    assert set(rows.pick(mine, protocol=course.COURSE)["step"]) == {0, 1, 2}
    own, others = (part[~part["variant"].isin(names)] for part in (found, tables["numbers"]))
    apart = [table[~table["protocol"].isin(protocols)].reset_index(drop=True) for table in (own, others)]
    pd.testing.assert_frame_equal(*apart)
    assert set(shown.followed(more).values()) == {LABELS[model] for model in more.models}
    assert "with 3 channels a hidden layer in place of 2" in shown.followed_words(more, lafarge.run(more, store))
    assert not shown.followed_words(config, run)
    with pytest.raises(CellbookError, match="followed=2 is the width of the judged models"):
        replace(more, followed=config.width)


def test_premises_are_of_every_training_beside_the_network_of_its_own_seed(run, tables):
    lines = rows.pick(tables["numbers"], protocol=judging.PREMISE)
    asked = [judging.CHANGE, *(judging.gain(name) for name in ("NSC", "NSCB", MISFIT, FALLING))]
    models = ["VAE+", "VAE", "AE", "VAE+ at once"]
    for measure in asked:
        found = rows.pick(lines, measure=measure)
        assert found["setting"].tolist() == [f"{name}, training {n}" for name in models for n in (1, 2)]
    assert set(rows.pick(lines, measure=judging.VIEWS)["value"]) == {2 * 8}  # steps and batch
    single = tables["accuracies"].query("protocol == 'lafarge2019' and measure == 'NSC' and repeat == 1")
    means = single[single["summary"].isin(profile.SUMMARIES)].groupby("variant")["accuracy"].mean()
    found = rows.one(lines, setting="AE, training 2", measure=judging.gain("NSC"))
    assert found["value"] == pytest.approx(means["AE"] - means["untrained encoder"])
    images = run.table("images").query("repeat == 1").groupby("variant")[MISFIT].mean()
    found = rows.one(lines, setting="AE, training 2", measure=judging.gain(MISFIT))
    assert found["value"] == pytest.approx(images["untrained encoder"] - images["AE"], rel=1e-5)
    table = premise_table(tables["numbers"], "variant")
    assert table[""].tolist() == models
    assert table[judging.PAPERS_VIEWS].tolist() == ["4,160,000"] * 4
    shown_gain = table.set_index("").loc["AE", judging.gain("NSC")].split("; ")[1]
    assert float(shown_gain.split("\N{NO-BREAK SPACE}")[0]) == pytest.approx(
        means["AE"] - means["untrained encoder"], abs=6e-4
    )


def test_all_of_table_1_is_written_down_and_nothing_of_it_is_comparable_here(tables):
    published = claims.load(notebooks.root() / "book" / "claims" / "lafarge2019.yml")
    printed = [entry for entry in published["numbers"] if entry["protocol"] == "lafarge2019"]
    assert len(printed) == 28
    spreads = [entry["sd"] for entry in printed if entry["source"] == "Lafarge et al. 2019"]
    assert sum(spreads) == pytest.approx(0.364)  # the printed deviations of Table 1
    assert sum(entry["value"] for entry in printed if entry["setting"].startswith("VAE+, mean")) == pytest.approx(6.678)
    assert {claim["id"] for claim in published["claims"]} == set(lafarge.PREDICATES)
    assert set(tables["verdicts"]["verdict"]) == {claims.INCOMPARABLE}
    assert len(shown.accuracy_table(tables["numbers"], tables["verdicts"])) == 12


def test_an_unknown_screen_or_preset_is_refused_in_words(tmp_path):
    with pytest.raises(CellbookError, match="neither simulated nor"):
        lafarge.run(replace(lafarge.PRESETS["smoke"], screen="nowhere"), tmp_path)
    with pytest.raises(CellbookError, match="smoke, quick, long, lease, whole, paper"):
        choose_preset(lafarge.PRESETS, "fast")


def test_the_papers_preset_has_the_papers_numbers():
    (first, *_) = trainings(lafarge.PRESETS["paper"])
    expected = {"iterations": 40_000, "batch": None, "ramp": 2500, "latent": 256, "width": 32, "model": "vae_plus"}
    assert expected.items() <= asdict(first.config).items()


@pytest.mark.skipif("lafarge2019" not in notebooks.pages(), reason="the page is not in the book")
def test_page_runs_on_a_screen_of_ones_own(screen, tmp_path):
    given = {"preset": "smoke", "screen": str(screen), "iterations": 1, "results": str(tmp_path)}
    folder, _ = build.run_page("lafarge2019", given)
    assert {"numbers.csv", "accuracies.csv", "quality.csv", "claims.csv"} <= {path.name for path in folder.iterdir()}
    assert len(list((folder / "figures").glob("*.csv"))) >= 9


# --- the realism test -----------------------------------------------------------------------------------------------


def test_both_halves_of_the_realism_test_have_the_same_mechanisms_and_no_cell_twice(screen):
    table = CellSet.open(screen).table
    real, made = choose(table)
    assert len(real) == len(made) == HALF
    assert len({*real, *made}) == 2 * HALF
    counts = [table.loc[rows, "Metadata_moa"].value_counts().sort_index() for rows in (real, made)]
    pd.testing.assert_series_equal(*counts)


@pytest.fixture(scope="module")
def test_page(config, store, tmp_path_factory):
    """The interactive page in a folder of its own, with cells of the tiny screen."""
    folder = tmp_path_factory.mktemp("realism")
    for name in ("index.html", "realism.js", "realism.css"):
        shutil.copyfile(STATIC / name, folder / name)
    realism.write_page(config, store, folder)
    return folder


def answers_of(folder):
    return json.loads((folder / "cells.js").read_text().removeprefix("window.REALISM = ").rstrip(";\n"))


def test_cells_of_the_realism_test_are_what_its_answers_say(test_page, screen):
    from PIL import Image

    content, cells = answers_of(test_page), CellSet.open(screen)
    sheet = np.asarray(Image.open(test_page / "cells.png"))
    side = content["side"]
    shades = np.round(255 * normalised(cells)).astype(np.uint8).transpose(0, 2, 3, 1)
    for place, made in enumerate(content["made"]):
        y, x = divmod(place, content["across"])
        crop = sheet[y * side : (y + 1) * side, x * side : (x + 1) * side]
        assert (shades == crop).all(axis=(1, 2, 3)).any() != bool(made)
    assert sum(content["made"]) == len(content["made"]) - sum(content["made"]) == HALF


@pytest.mark.parametrize("folder", [STATIC, STATIC / "samples"], ids=["reconstructions", "samples"])
def test_the_books_own_realism_tests_are_complete(folder):
    from PIL import Image

    content = answers_of(folder)
    assert (len(content["made"]), sum(content["made"]), len(content["treatment"])) == (100, 50, 100)
    with Image.open(folder / "cells.png") as picture:
        assert picture.size == (content["side"] * content["across"], content["side"] * 100 // content["across"])


@pytest.fixture
def tab(test_page):
    """The interactive page in a real browser, opened as a file."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, accept_downloads=True)
        page = context.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("requestfailed", lambda request: page.faults.append(request.url))
        page.goto((test_page / "index.html").as_uri())
        yield page
        browser.close()


@pytest.mark.browser
def test_realism_test_by_keyboard_gives_the_right_score_and_saves_it(tab, test_page, tmp_path):
    made = answers_of(test_page)["made"]
    tab.get_by_role("button", name="Start").click()
    shown = []
    for place in range(len(made)):
        assert f"Cell {place + 1} of 100" in tab.inner_text("#realism")
        shown.append(tab.eval_on_selector(".realism-cell", "e => e.style.backgroundPosition"))
        if place == 7:  # think again
            tab.keyboard.press("d")
            tab.keyboard.press("u")
            assert "Cell 8 of 100" in tab.inner_text("#realism")
        tab.keyboard.press("r" if place % 4 else "d")
    assert len(set(shown)) == 100
    with tab.expect_download() as waiting:
        tab.get_by_role("button", name="Save").click()
    waiting.value.save_as(tmp_path / "answers.json")
    saved = json.loads((tmp_path / "answers.json").read_text())
    assert [cell["called_real"] for cell in saved["cells"]] == [place % 4 > 0 for place in range(100)]
    drawn = [cell["called_real"] for cell in saved["cells"] if made[cell["cell"]]]
    real = [cell["called_real"] for cell in saved["cells"] if not made[cell["cell"]]]
    assert (saved["drawn_called_real"], saved["drawn"]) == (sum(drawn), 50)
    assert (saved["real_called_drawn"], saved["real"]) == (50 - sum(real), 50)
    assert f"{sum(drawn)} of 50" in tab.inner_text("#realism")
    assert "40.7 %" in tab.inner_text("#realism")
    assert tab.faults == []


@pytest.mark.browser
def test_realism_test_by_touch_fits_a_telephone_and_starts_in_another_order(tab):
    orders = []
    for start in ("Start", "Again"):
        tab.get_by_role("button", name=start).tap()
        order = []
        for _ in range(100):
            order.append(tab.eval_on_selector(".realism-cell", "e => e.style.backgroundPosition"))
            tab.locator(".realism-answer").first.tap()
        overflow = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0
        orders.append(order)
        assert "You took 50 of 50" in tab.inner_text("#realism")
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    size = tab.locator(".realism-answer").first.bounding_box()
    assert min(size["width"], size["height"]) >= 44
    assert tab.faults == []


@pytest.mark.browser
def test_intervals_of_the_realism_test_are_wilsons(tab):
    from scipy.stats import binomtest

    for k, n in ((0, 50), (20, 50), (50, 50), (3, 7)):
        expected = binomtest(k, n).proportion_ci(method="wilson")
        np.testing.assert_allclose(tab.evaluate(f"realism.wilson({k}, {n})"), expected, atol=1e-12)
    assert tab.evaluate("realism.wilson(0, 0)") == [0, 1]


def test_square_of_distances_fits_the_treatments(run):
    with np.load(run.path("distances.npz")) as stored:
        assert squareform(stored["values"][0].astype(float)).shape == (18, 18)
    assert len(run.table("treatments")) == 18


def test_a_sweep_is_drawn_from_three_values_on_and_the_noise_of_the_week_stands_last():
    lines = [
        ("AE", "AE", 0.0, 0.5), ("VAE", "VAE", 1.0, 0.5), ("VAE+", "VAE+", 2.0, 0.5), ("VAE, beta 4", "VAE", 4.0, 0.5),
    ]  # fmt: skip
    known = pd.DataFrame(lines, columns=["variant", "model", "beta", "week_effect"])
    about = {"protocol": "lafarge2019", "summary": "mean", "measure": "NSC", "trainings": 1, "kind": None}
    table = shown.sweep_rows(known.assign(value=0.5, **about))
    assert set(table["sweep"]) == {"beta"}
    assert table["x"].tolist() == [0.0, 1.0, 4.0]
    assert shown.sweep_rows(known.iloc[:3].assign(value=0.5, **about)).empty
    drawn = plots.sweeps(table)
    assert [text.get_text() for text in drawn.axes[0].get_xticklabels()] == ["0 (AE)", "1", "4"]
    names = ["VAE+", "noise", "AE"]
    weeks = pd.DataFrame({"setting": names, "protocol": "week", "value": 0.2, "null": 0.1, "low": np.nan, "sd": np.nan})
    assert shown.week_table(weeks)["model"].tolist() == ["VAE+", "AE", shown.NOISE]


def test_every_column_of_panels_has_its_axis_named_under_the_lowest():
    history = pd.DataFrame({"step": [1, 2], "value": 1.0, "variant": "VAE+", "repeat": 0})
    terms = ("pixel", "kl", *(f"feature_{i}" for i in range(1, 5)), "discriminator")
    drawn = plots.training_curves(pd.concat([history.assign(term=term) for term in terms]), 1)
    named = [axes.get_xlabel() == "iteration" for axes in drawn.axes]
    assert named == [False] * 4 + [True] * 3 + [False] * 2
    assert all(axes.xaxis.get_tick_params()["labelbottom"] for axes in drawn.axes[4:7])


def test_long_names_beside_pictures_are_broken_behind_a_slash_and_at_spaces():
    assert plots._wrapped("mevinolin/lovastatin 5").split("\n") == ["mevinolin/", "lovastatin 5"]


def test_a_black_patch_is_told_of_where_the_original_has_none():
    columns, stack = ["original", "VAE", "AE"], np.full((3, 8, 8, 3), 9, np.uint8)
    table = pd.DataFrame({"figure": "cells", "row": "DMSO", "column": columns})
    assert shown.hole_words(table, stack) == ""
    stack[2, :5, :5] = 0
    assert "drawn by AE (DMSO) are in no original" in shown.hole_words(table, stack)
    stack[0, :5, :5] = 0
    assert shown.hole_words(table, stack) == ""
