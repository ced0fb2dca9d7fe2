"""The page of CytoGAN: accuracies against slow loops, what is measured of images on planted ones, sums, verdicts."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from executing import execute
from PIL import Image
from scipy.spatial.distance import cdist, squareform
from scipy.stats import spearmanr

from cellbook import claims, metrics, profiles
from cellbook.book import notebooks
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features.transferred import installed
from cellbook.methods import cytogan
from cellbook.methods.cytogan.config import paper
from cellbook.pages import goldsborough2017 as gans
from cellbook.pages.goldsborough2017 import (
    drawn,
    equations,
    features,
    making,
    measures,
    progress,
    quality,
    realism,
    shown,
)
from cellbook.pages.goldsborough2017.config import judged, papers_views, resize, trainings
from cellbook.runs import Run
from cellbook.study import judging, premises, profile, rows
from cellbook.study.encoding import RANDOM
from cellbook.study.pictures import load, normalised
from cellbook.study.rows import Votes
from cellbook.study.trainings import Place

TWICE = replace(gans.PRESETS["smoke"], repeats=2)
CLAIMS = notebooks.root() / "book" / "claims" / "goldsborough2017.yml"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(store):
    return gans.run(TWICE, store, device="cpu")


@pytest.fixture(scope="module")
def tables(run):
    return gans.evaluate([run])


@pytest.fixture(scope="module")
def numbers(tables):
    return tables["numbers"]


# --- what is trained ------------------------------------------------------------------------------------------------


def test_the_paper_preset_trains_the_papers_networks_on_its_cell_views():
    config = gans.PRESETS["paper"]
    for one in trainings(config):
        own, theirs = one.config, paper(one.config.model, one.config.condition)
        assert own.settings.width == theirs.settings.width
        steps = theirs.iterations
        if own.model == "wgan_gp":  # one step of the critic, as the published code
            assert own.critic_steps == 1
            own, steps = replace(own, critic_steps=None), 5 * steps
        assert abs(own.iterations - steps) <= 5
        assert replace(own, seed=0, width=None, iterations=1) == replace(theirs, iterations=1)
    assert papers_views("lsgan") == papers_views("wgan_gp") == 65_000_000
    assert papers_views("began") == 39_000_000
    assert papers_views("vae") == 13_000_000


@pytest.mark.parametrize(("preset", "repeats"), [("quick", 1), ("long", 3), ("lease", 3)])
def test_judged_models_are_trained_three_times_on_as_many_views(preset, repeats):
    config = gans.PRESETS[preset]
    assert {name: len(of) for name, of in judged(config).items()} == dict.fromkeys(
        ("LSGAN", "DCGAN", "WGAN-GP", "VAE"), repeats
    )
    views = {one.config.iterations * one.config.settings.batch * one.config.settings.critic_steps
             for name in ("LSGAN", "DCGAN", "WGAN-GP") for one in judged(config)[name]}  # fmt: skip
    assert max(views) - min(views) <= 256
    assert all(one.course for one in trainings(config))
    assert resize(config, 77).iterations == 77


def test_a_part_made_elsewhere_is_not_made_again(run, store):
    before = {path: path.stat().st_mtime_ns for path in store.glob("*/run.json")}
    names = making.parts(TWICE)
    assert len(names) == len(trainings(TWICE)) + 2
    made = [making.make_part(TWICE, name, Place(store)) for name in ("LSGAN, 1", "plain encoders")]
    assert [one.record["method"] for (one,) in made] == ["measured-cytogan", "plain"]
    assert {path: path.stat().st_mtime_ns for path in store.glob("*/run.json")} == before


def test_the_page_is_made_of_what_was_measured_without_the_networks(run, store, tmp_path):
    shutil.copytree(store, tmp_path / "store", ignore=shutil.ignore_patterns("cytogan-*", "goldsborough2017-*"))
    again = gans.run(TWICE, tmp_path / "store", device="cpu")
    assert not list((tmp_path / "store").glob("cytogan-*"))
    for name in ("distances.npz", "pictures.parquet", "pictures.webp", "quality.parquet"):
        assert again.path(name).read_bytes() == run.path(name).read_bytes()


def test_images_at_a_checkpoint_are_those_of_the_network_as_it_was_then(run, store):
    cells, first = making.load(TWICE, store), trainings(TWICE)[0]
    with np.load(making.make_part(TWICE, "LSGAN, 0", Place(store))[0].path("arrays.npz")) as kept:
        begin, end = (kept[f"on the way, {place:02d}"] for place in (0, len(course_of(run, "LSGAN")) - 1))
        samples = kept["samples"]
    untrained = replace(first, config=replace(first.config, iterations=1))
    state = making.begun(untrained, cells, first.config.seed)
    noise = cytogan.noise(state, TWICE.drawn, TWICE.seed)[: TWICE.shown]
    images = drawn.scaled(cytogan.decode(state, noise).clip(0, 1))
    np.testing.assert_array_equal(begin, np.round(255 * images).astype(np.uint8))
    np.testing.assert_array_equal(end, samples[: TWICE.shown])
    assert (begin != end).any()


def course_of(run, variant):
    """Steps at which a training was looked at."""
    steps = rows.pick(run.table("quality"), variant=variant, repeat=0)["step"]
    return sorted(set(steps) - {making.END})


# --- accuracy -------------------------------------------------------------------------------------------------------


def slow_accuracy(wells, names):
    """The paper's average by plain loops: nearest treatment of another compound, cosine, means within compounds."""
    treated = wells[(wells["Metadata_compound"] != "DMSO") & (wells["Metadata_role"] != "positive control")]
    profiles_ = {}
    for key, part in treated.groupby(["Metadata_compound", "Metadata_concentration"]):
        weight = part["Metadata_cell_count"].to_numpy(float)
        profiles_[key] = weight @ part[names].to_numpy(float) / weight.sum(), part["Metadata_moa"].iloc[0]
    right: dict[str, list[bool]] = {}
    for (compound, _), (x, moa) in profiles_.items():
        others = [(y, m) for (other, _), (y, m) in profiles_.items() if other != compound]
        apart = cdist([x], [y for y, _ in others], "cosine")[0]
        right.setdefault(compound, []).append(others[int(apart.argmin())][1] == moa)
    return float(np.mean([np.mean(votes) for votes in right.values()]))


def test_accuracies_are_the_papers_average_of_a_slow_loop(run, store, numbers):
    found = rows.one(numbers, setting="LSGAN, mean", protocol="goldsborough2017", measure="NSC")
    each = []
    for key in rows.pick(run.table("trainings"), variant="LSGAN")["key"]:
        wells = Run(store / key).table("wells")
        each.append(slow_accuracy(wells, [name for name in wells if name.endswith("_mean")]))
    assert found["value"] == pytest.approx(np.mean(each), abs=2 / 38)  # stored distances have 16 bits
    assert (found["scored"], found["trainings"]) == (38, 2)


def test_votes_of_compounds_have_the_mean_over_compounds():
    votes = Votes.of([1, 0, 1, 1, 0], ["a", "a", "a", "b", "c"], [1, 1, 1, 1, 0])
    found = progress.by_compound(votes)
    assert found.share == pytest.approx((2 / 3 + 1) / 2)
    assert found.counted.tolist() == [1, 1, 0]


def test_whitening_by_cells_is_that_of_the_published_code():
    rng = np.random.default_rng(0)
    names = [f"z{i}" for i in range(4)]
    cells = pd.DataFrame(rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4)) + 3, columns=names)
    table = pd.DataFrame(
        {"Metadata_plate": [f"p{i % 2}" for i in range(60)], "Metadata_well": [f"w{i // 6}" for i in range(60)]}
    )
    cells = pd.concat([table.assign(Metadata_compound=np.where(np.arange(60) < 30, "DMSO", "a")), cells], axis=1)
    wells = profiles.to_wells(cells)
    found = profiles.matrix(features.summaries(cells, wells)[features.BY_CELLS])
    x = cells.loc[cells["Metadata_compound"] == "DMSO", names].to_numpy()
    size, axes = np.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
    white = (cells[names].to_numpy() - x.mean(0)) @ (axes @ np.diag(1 / np.sqrt(size + 1e-6)))
    expected = pd.DataFrame(white).groupby([cells["Metadata_plate"], cells["Metadata_well"]], sort=False).mean()
    np.testing.assert_allclose(found, expected.to_numpy(), rtol=1e-9, atol=1e-9)


def test_every_convolution_of_every_model_is_read(numbers):
    of = numbers[numbers["protocol"] == "goldsborough2017"].groupby("variant")["summary"].agg(set)
    layers = {"LSGAN": 4, "DCGAN": 4, "WGAN-GP": 4, "BiGAN": 4, "BEGAN": 4, "VAE": 3, "AE": 2, "untrained encoder": 4}
    for name, n in layers.items():
        assert {f"layer {k}, mean" for k in range(1, n + 1)} <= of[name]
        assert f"layer {n + 1}, mean" not in of[name]
    assert of["LSGAN"] >= {"mean", "mean, whitened", "mean, whitened by cells"}


def test_distances_that_are_kept_give_the_same_neighbours(run):
    treatments, rng = run.table("treatments"), np.random.default_rng(0)
    x = rng.normal(size=(len(treatments), 3))
    square = cdist(x, x)
    kept = squareform(profile.nearest_alone({"a": squareform(square)}, treatments, features.ASKED)["a"])
    assert np.mean(kept == square) < 0.5
    for one in features.ASKED:
        votes = [metrics.match(treatments, distances=each, **one.arguments()).per_query for each in (square, kept)]
        pd.testing.assert_frame_equal(*votes)


def test_a_confusion_matrix_counts_every_treatment_of_every_training_once(tables, numbers):
    table = shown.confusion_table(tables["confusion"], "LSGAN")
    assert table.to_numpy().sum() == 2 * 103
    over = rows.one(numbers, setting="LSGAN, mean", protocol=measures.TREATMENTS.name, measure="NSC")
    assert np.trace(table) / 206 == pytest.approx(over["value"])


# --- what is measured of images -------------------------------------------------------------------------------------


def discs(radii, ring=0.0, size=48):
    """Nuclei of these radii on dim cells; `ring`: tubulin next to them."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    away = np.hypot(y, x)[None] - np.asarray(radii, float)[:, None, None]
    tubulin = 0.2 + ring * np.exp(-((away - 2) ** 2) / 4)
    return np.stack([np.where(away <= 0, 1.0, 0.1), tubulin, np.full_like(away, 0.3)], axis=1).astype(np.float32)


def test_nuclear_area_is_that_of_planted_discs_and_tubulin_their_mean():
    images = discs([5, 8, 11])
    table = drawn.properties(images)
    np.testing.assert_allclose(table["nuclear area"], np.pi * np.array([5, 8, 11]) ** 2, rtol=0.06)
    np.testing.assert_allclose(table["tubulin"], images[:, 1].mean(axis=(1, 2)), rtol=1e-6)
    dimmer = images * np.array([0.4, 1, 1], np.float32)[:, None, None]
    np.testing.assert_array_equal(drawn.properties(dimmer)["nuclear area"], table["nuclear area"])


def test_a_planted_halo_is_found_and_its_absence_as_well():
    assert drawn.has_halo(drawn.properties(discs([6, 9], ring=0.8))).all()
    assert not drawn.has_halo(drawn.properties(discs([6, 9]))).any()
    found = drawn.radial_profile(discs([6, 9], ring=0.8))
    assert found.loc[found["value"].idxmax(), "distance"] == pytest.approx(2, abs=1)
    assert found["n"].sum() <= 2 * 48 * 48


def test_measured_nuclear_area_follows_what_the_simulator_drew(store):
    cells = making.load(replace(TWICE, side=48), store)  # at half the resolution
    area = drawn.properties(making.normalised(cells))["nuclear area"]
    usual = (cells.table["truth_state"] == "interphase").to_numpy()
    assert usual.sum() > 100
    assert spearmanr(area[usual], cells.table["truth_nucleus_area"][usual]).statistic > 0.5
    assert np.median(area[usual]) == pytest.approx(cells.table["truth_nucleus_area"][usual].median() / 4, rel=0.25)


def linear(codes):
    """Images whose nucleus and tubulin are read off two numbers of the code."""
    images = discs(8 + np.clip(2 * codes[:, 0], -6, 10))
    images[:, 1] = np.clip(0.5 + 0.1 * codes[:, 1], 0, 1)[:, None, None]
    return images


def test_paths_and_sums_succeed_where_the_code_is_the_property_and_no_more_than_chance_on_noise():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(300, 6))

    def lottery(codes):
        return linear(rng.normal(size=codes.shape))

    values = drawn.measure(linear(noise))
    for draw, sure in ((linear, True), (lottery, False)):
        paths, lengths = drawn.paths(draw, noise, 150, 5, 0)
        between = paths.groupby(["way", "property"])["between"].mean()
        rise = drawn.sums(draw, noise, values, 150, 0).groupby(["property", "kind"])["rise"].mean()
        if sure:
            assert between["straight line"].min() > 0.8  # areas are whole pixels, of which two may be alike
            assert (
                min(rise[name, kind] for name in (drawn.AREA, drawn.TUBULIN) for kind in (drawn.ONE, drawn.MEAN)) > 0.95
            )
        else:
            assert abs(between[:, drawn.TUBULIN] - 1 / 3).max() < 0.12
        assert abs(rise[drawn.TUBULIN, drawn.ANY] - 0.5) < 0.12
    norm = lengths.set_index(["way", "frame"])["length"]
    assert norm[drawn.LINE, 2] < 0.85 * norm[drawn.ARC, 2]
    np.testing.assert_allclose(norm[drawn.ARC, 0], norm[drawn.LINE, 0])


def test_a_generator_that_draws_one_cell_has_no_success():
    noise = np.random.default_rng(4).normal(size=(50, 6))
    one = lambda codes: linear(np.zeros_like(codes))  # noqa: E731
    paths, _ = drawn.paths(one, noise, 20, 5, 0)
    assert not paths["between"].any()
    assert not drawn.sums(one, noise, drawn.measure(one(noise)), 20, 0)["rise"].any()


def test_real_cells_are_nearer_to_real_cells_than_copies_of_one_are(store):
    beside = making.references(making.load(TWICE, store), TWICE)
    copies = np.repeat(beside.real[:1], len(beside.real), axis=0)
    of = {name: quality.by_random(beside.real, x, 2).groupby("measure")["value"].mean()
          for name, x in (("real", beside.other), ("copies", copies))}  # fmt: skip
    for measure in (quality.KID, quality.FID, quality.DUPLICATES):
        assert of["real"][measure] < of["copies"][measure]
    assert of["real"][quality.RECALL] > of["copies"][quality.RECALL]
    assert abs(of["real"][quality.DETAIL]) < 1


@pytest.mark.skipif(not installed(), reason="the package with the ImageNet weights is not installed")
def test_samples_are_also_seen_by_a_network_that_learned_from_photographs(run, store, monkeypatch):
    seen = making.of_samples(TWICE, Place(store))
    monkeypatch.setattr(making, "measured", lambda *_: pytest.fail("what is published needs no training's run"))
    assert making.of_samples(TWICE, Place(store)).key == seen.key
    found = rows.pick(seen.table("quality"), measure=quality.FID).groupby("variant")["value"].mean()
    assert set(found.index) == {"real cells", "LSGAN", "DCGAN", "WGAN-GP", "VAE", "BiGAN", "BEGAN"}
    assert found.idxmin() == "real cells"
    lines = rows.pick(gans.evaluate([run, seen])["numbers"], protocol="samples, ImageNet features", measure=quality.FID)
    assert lines.set_index("variant")["value"].to_dict() == pytest.approx(found.to_dict())


def test_states_are_told_of_features_that_hold_them():
    rng = np.random.default_rng(5)
    truth = np.repeat(["mitotic", "interphase", "rare"], [40, 60, 3])
    x = rng.normal(size=(103, 4)) + 8 * np.array([truth == "mitotic", truth == "interphase"]).T @ np.eye(2, 4)
    table, counts = quality.states(x, truth, x[:100], x[:40])
    shares = table.set_index("state")
    assert shares["made"].to_dict() == {"interphase": 0.0, "mitotic": 1.0}
    assert shares["real"]["mitotic"] == pytest.approx(0.4)
    assert counts[quality.NUMBER] == 1
    assert counts[quality.COVERED] == 0.5
    assert quality.states(x, np.repeat("same", 103), x, x)[1] == {}


# --- sums of real cells ---------------------------------------------------------------------------------------------


def planted_wells():
    """Two compounds of each of three mechanisms at two doses, and DMSO; directions are mechanism and dose."""
    found = [("DMSO", 0.0, "DMSO", f"p{i % 4}", np.zeros(8)) for i in range(8)]
    mechanisms = ("Protein synthesis", "Protein degradation", "other")
    for i, moa in enumerate(mechanisms):
        for c in range(2):
            for dose in (1.0, 10.0):
                x = 3 * np.eye(8)[i] + 0.5 * np.eye(8)[3 + i] * c + np.eye(8)[7] * np.log10(dose)
                found.append((f"{moa} {c}", dose, moa, f"p{i}", x))
    table = pd.DataFrame(found, columns=["compound", "concentration", "moa", "plate", "x"])
    table = table.rename(columns={name: f"Metadata_{name}" for name in table if name != "x"})
    table["Metadata_well"] = [f"w{i}" for i in range(len(table))]
    table["Metadata_batch"] = "Week1"
    rng = np.random.default_rng(6)
    values = np.stack(table.pop("x")) + rng.normal(0, 0.02, (len(table), 8))
    return pd.concat([table, pd.DataFrame(values).add_prefix("z")], axis=1)


def test_sums_are_right_where_mechanism_and_dose_are_directions():
    found = equations.equations(planted_wells()).groupby("equation")
    assert found["right"].mean()[equations.CONTROLS] == 1
    assert found["right"].mean()[equations.DOSE] == 1
    assert found.size()[equations.DOSE] == 6 * 5
    assert found["chance"].mean()[equations.DOSE] == pytest.approx(1 / (12 - 3))
    assert found.size()[equations.OPPOSITE] == 1


def test_a_sum_never_finds_its_own_terms():
    codes, known = np.eye(3)[:1], np.eye(3)
    assert equations.nearest(codes, known, np.array([[True, True, True]])).tolist() == [0]
    assert equations.nearest(codes, known, np.array([[False, True, True]]))[0] != 0


# --- the course, numbers, tables ------------------------------------------------------------------------------------


def test_rank_correlation_is_spearmans_and_missing_where_nothing_varies():
    rng = np.random.default_rng(7)
    x, y = rng.integers(0, 9, 30), rng.integers(0, 9, 30)
    assert progress.rho(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(progress.rho(np.ones(5), np.arange(5)))


def test_the_fall_from_the_best_is_that_of_the_stored_distances(run, numbers):
    table = rows.pick(run.table("quality"), variant="DCGAN", measure=quality.FID)
    falls = []
    for _, part in table[table["step"] != making.END].groupby("repeat"):
        values = part.sort_values("step")["value"].to_numpy(float)
        falls.append(np.log2(values[-1] / values.min()))
    line = rows.one(numbers, setting="DCGAN", protocol=progress.QUALITY, measure=progress.FALLBACK)
    assert line["value"] == pytest.approx(np.mean(falls))


def test_gains_are_over_the_same_network_before_its_first_step(numbers):
    steps = rows.pick(numbers, variant="LSGAN", protocol="course", summary="mean").set_index("step")["value"]
    gained = rows.pick(numbers, variant="LSGAN", measure=judging.gain("NSC"))["value"]
    assert len(gained) == 2
    assert gained.mean() == pytest.approx(steps[steps.index.max()] - steps[0])
    near = rows.pick(numbers, variant="LSGAN", protocol=progress.QUALITY, measure=quality.KID).set_index("step")[
        "value"
    ]
    gained = rows.pick(numbers, variant="LSGAN", measure=judging.gain(quality.KID))["value"]
    assert gained.mean() == pytest.approx(near[0] - near[near.index.max()], rel=1e-5)


def test_numbers_have_one_meaning_each_and_are_those_of_a_second_evaluation(run, tables, numbers):
    assert not numbers.duplicated(claims.KEYS).any()
    for name, table in gans.evaluate([run]).items():
        pd.testing.assert_frame_equal(table, tables[name])
    bounded = numbers.dropna(subset=["low", "high"])
    assert ((bounded["low"] <= bounded["value"] + 1e-9) & (bounded["value"] <= bounded["high"] + 1e-9)).all()


def test_what_is_printed_is_written_down_and_nothing_of_it_is_comparable_here(numbers):
    published = claims.load(CLAIMS)
    verdicts = claims.judge_numbers(published["numbers"], numbers, "other data")
    assert len(verdicts) == 9  # without ImageNet features and LSGANs that are told more than a dose
    assert set(verdicts["verdict"]) == {claims.INCOMPARABLE}
    assert {claim["id"] for claim in published["claims"]} == set(gans.PREDICATES)
    table = shown.result_table(numbers, verdicts)
    theirs = table[table["from"] == "paper"].set_index("features")
    assert theirs.loc["LSGAN"].tolist() == ["paper", "68.0", "–", "76.0"]
    assert theirs.loc["WGAN-GP", "mean"] == "56.0"


def test_products_hold_no_original(run, store):
    kept = load(run.path("pictures.webp"), len(run.table("pictures")))
    table, stack = shown.pictures(run, TWICE, store)
    original = (table["cell"] >= 0).to_numpy()
    assert original.sum() == 2 * TWICE.shown
    assert not kept[original].any()
    assert stack[original].any(axis=(1, 2, 3)).all()
    assert set(table["figure"]) == {
        *("samples", "made of cells", "on the way", "paths", "doses", "sum, tubulin", "sum, nuclear area")
    }


# --- verdicts -------------------------------------------------------------------------------------------------------


def test_half_of_the_cells_of_the_realism_test_are_real_and_half_are_samples(run, store, tmp_path):
    realism.write_page(TWICE, store, tmp_path / "samples")
    text = (tmp_path / "samples" / "cells.js").read_text()
    content = json.loads(text.removeprefix("window.REALISM = ").rstrip(";\n"))
    cells, n, side = making.load(TWICE, store), len(content["made"]), content["side"]
    known = np.round(255 * normalised(cells)).astype(np.uint8).transpose(0, 2, 3, 1)
    assert sum(content["made"]) * 2 == n
    with Image.open(tmp_path / "samples" / "cells.png") as picture:
        sheet = np.asarray(picture)
    for place, (made, name) in enumerate(zip(content["made"], content["treatment"], strict=True)):
        y, x = divmod(place, content["across"])
        crop = sheet[y * side : (y + 1) * side, x * side : (x + 1) * side]
        assert (known == crop).all(axis=(1, 2, 3)).any() != bool(made)
        assert (name == "LSGAN") == bool(made)


def numbers_of(*lines):
    """Lines as (setting, protocol, measure, low, high) of three trainings with all cell views."""
    table = pd.DataFrame(lines, columns=["setting", "protocol", "measure", "low", "high"])
    table = table.assign(value=(table["low"] + table["high"]) / 2, null=1 / 3, trainings=3, agree=1)
    names = ("LSGAN", "DCGAN", "WGAN-GP", "VAE")
    whole = [line for name in names for line in premises.budget(name, 10, 10, variant=name)]
    return pd.concat([table, pd.DataFrame(whole)], ignore_index=True)


UP, NONE, DOWN = (0.1, 0.3), (-0.1, 0.2), (-0.3, -0.1)
BY = f"paired, samples, {RANDOM}"


def rival(other, measure, gap, protocol="paired, samples"):
    return (f"LSGAN - {other}", protocol, measure, *gap)


def best(sharp, stable):
    found = [rival(other, measures.OFF, gap) for other, gap in zip(("DCGAN", "WGAN-GP"), sharp, strict=True)]
    return found + [
        rival(other, progress.FALLBACK, gap, "paired") for other, gap in zip(("DCGAN", "WGAN-GP"), stable, strict=True)
    ]


def against(*gaps, other="VAE"):
    names = ("DCGAN", "LSGAN", "WGAN-GP")
    return [(f"{name}, mean - {other}, mean", "paired", "NSC", *gap) for name, gap in zip(names, gaps, strict=True)]


def above_gans(classical, imagenet):
    names = {"classical features": classical, "ImageNet features": imagenet}
    return [
        (f"{other}, mean - {gan}, mean", "paired", "NSC", *gap)
        for other, gap in names.items()
        for gan in ("LSGAN", "DCGAN", "WGAN-GP")
    ]


def both(protocol, measure, area, tubulin, ending):
    return [
        (f"LSGAN, {name}{ending}", protocol, measure, *gap)
        for name, gap in ((drawn.AREA, area), (drawn.TUBULIN, tubulin))
    ]


def halo(real, made):
    return [(name, "halo", measures.HAS_HALO, *gap) for name, gap in (("real cells", real), ("LSGAN", made))]


def together(along, among):
    return [(name, "together", progress.RHO, *gap)
            for name, gap in ((progress.ALONG, along), (progress.AMONG, among))]  # fmt: skip


COPIES = ("DCGAN - real cells", BY, quality.DUPLICATES)
FALL, SMALL = ("WGAN-GP", progress.QUALITY, progress.FALLBACK, 0.2, 0.4), (0.0, 0.1)
WHITE = ("LSGAN, mean, whitened by cells - LSGAN, mean", "paired", "NSC")
PATH, SUM = ("paths", measures.BETWEEN), ("paired", measures.RISES)
CASES = [
    ("lsgan-is-best", best((DOWN, DOWN), (DOWN, DOWN)), "reproduced"),
    ("lsgan-is-best", best((DOWN, NONE), (UP, UP)), "partly"),
    ("lsgan-is-best", best((UP, NONE), (UP, UP)), "not reproduced"),
    ("dcgan-collapses", [(*COPIES, *UP), rival("DCGAN", quality.DUPLICATES, DOWN, BY)], "reproduced"),
    ("dcgan-collapses", [(*COPIES, *UP), rival("DCGAN", quality.DUPLICATES, NONE, BY)], "partly"),
    ("dcgan-collapses", [(*COPIES, *NONE), rival("DCGAN", quality.DUPLICATES, UP, BY)], "not reproduced"),
    ("wgan-is-worse", [(*FALL[:3], *SMALL), rival("WGAN-GP", quality.KID, DOWN, BY)], "reproduced"),
    ("wgan-is-worse", [FALL, rival("WGAN-GP", quality.KID, DOWN, BY)], "partly"),
    ("wgan-is-worse", [FALL, rival("WGAN-GP", quality.KID, NONE, BY)], "not reproduced"),
    ("gans-beat-vae", against(UP, UP, UP), "reproduced"),
    ("gans-beat-vae", against(UP, NONE, DOWN), "partly"),
    ("gans-beat-vae", against(NONE, NONE, DOWN), "not reproduced"),
    ("below-classical", above_gans(UP, UP), "reproduced"),
    ("below-classical", above_gans(UP, NONE), "partly"),
    ("below-classical", above_gans(DOWN, NONE), "not reproduced"),
    ("whitening-helps", [(*WHITE, *UP)], "reproduced"),
    ("whitening-helps", [(*WHITE, *NONE)], "partly"),
    ("whitening-helps", [(*WHITE, *DOWN)], "not reproduced"),
    ("paths-mean-something", both(*PATH, (0.4, 0.5), (0.5, 0.6), f", {drawn.ARC}"), "reproduced"),
    ("paths-mean-something", both(*PATH, (0.3, 0.5), (0.5, 0.6), f", {drawn.ARC}"), "partly"),
    ("paths-mean-something", both(*PATH, (0.3, 0.5), (0.2, 0.3), f", {drawn.ARC}"), "not reproduced"),
    ("sums-mean-something", both(*SUM, UP, UP, f": {drawn.ONE} - {drawn.ANY}"), "reproduced"),
    ("sums-mean-something", both(*SUM, NONE, UP, f": {drawn.ONE} - {drawn.ANY}"), "partly"),
    ("sums-mean-something", both(*SUM, NONE, DOWN, f": {drawn.ONE} - {drawn.ANY}"), "not reproduced"),
    ("halo-is-there", halo((0.7, 0.8), (0.6, 0.7)), "reproduced"),
    ("halo-is-there", halo((0.7, 0.8), (0.3, 0.4)), "partly"),
    ("rise-together", together(UP, UP), "reproduced"),
    ("rise-together", together(UP, NONE), "partly"),
    ("rise-together", together(NONE, NONE), "not reproduced"),
]


@pytest.mark.parametrize(("claim", "lines", "verdict"), CASES)
def test_verdicts_follow_their_rule_and_need_three_trainings_and_a_premise(claim, lines, verdict):
    numbers, decide = numbers_of(*lines), gans.PREDICATES[claim]
    assert decide(numbers).verdict == verdict
    assert decide(numbers.assign(trainings=2)).verdict == claims.INCOMPARABLE
    assert decide(numbers.iloc[:0]).verdict == claims.INCOMPARABLE
    short = numbers.assign(value=numbers["value"].mask(numbers["measure"] == judging.VIEWS, 5))
    assert decide(short).verdict == claims.UNDECIDED


# --- the notebook ---------------------------------------------------------------------------------------------------


def test_the_notebook_shows_every_figure(run, store, monkeypatch):
    space = execute("goldsborough2017", {"repeats": 2, "results": str(store)}, monkeypatch)
    assert space["run"].key == run.key
    assert set(space["claims"]["verdict"]) == {claims.INCOMPARABLE}
    drawn_ = {path.stem for path in (store / "pages" / "goldsborough2017" / "figures").glob("*.csv")}
    assert drawn_ == {"losses", "confusion", "maps", "pictures", "course", "together", "lengths", "halo"}


def test_a_screen_of_ones_own_is_shown_as_far_as_it_goes(tmp_path, monkeypatch):
    rng = np.random.default_rng(6)
    names = ["compound", "moa", "batch", "plate", "well"]
    wells = [(f"{moa}{week}", moa, f"Week{week}", f"p{week}", f"{moa}1") for moa in "abc" for week in (1, 2, 3)]
    wells += [("DMSO", "DMSO", f"Week{week}", f"p{week}", f"d{i}") for week in (1, 2, 3) for i in range(3)]
    table = pd.DataFrame([well for well in wells for _ in range(4)], columns=[f"Metadata_{name}" for name in names])
    images = rng.integers(0, 60_000, (len(table), 3, 40, 44)).astype(np.uint16)
    CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.5).save(tmp_path / "own")
    given = {"screen": str(tmp_path / "own"), "repeats": 1, "results": str(tmp_path / "store")}
    monkeypatch.setitem(gans.PRESETS, "smoke", replace(gans.PRESETS["smoke"], conditions=()))  # it has no doses
    space = execute("goldsborough2017", given, monkeypatch)
    assert not len(shown.state_table(space["run"]))
    assert set(space["claims"]["verdict"]) == {claims.INCOMPARABLE}


def test_bad_sizes_and_screens_are_refused_in_words(tmp_path):
    with pytest.raises(CellbookError, match="iterations=0 must be at least 1"):
        resize(TWICE, 0)
    with pytest.raises(CellbookError, match="neither simulated nor"):
        gans.run(replace(TWICE, screen="nowhere"), tmp_path)
