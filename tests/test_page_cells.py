"""The page of cells: probes, pictures and claims on what is known, and the page itself without the real cells."""

from dataclasses import replace
from itertools import pairwise

import nbformat
import numpy as np
import pandas as pd
import pytest

from cellbook import claims, metrics, profiles
from cellbook.book import build, notebooks, results
from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED
from cellbook.configure import choose_preset
from cellbook.errors import CellbookError
from cellbook.pages import cells
from cellbook.pages.cells import config as settings
from cellbook.pages.cells import enough, grids, making, measures, shown
from cellbook.screens.bbbc021 import MOAS
from cellbook.screens.named import simulated_cells
from cellbook.screens.simulator import plate_map, preset
from cellbook.screens.simulator.nuisance import nuisances
from cellbook.study import rows
from cellbook.study.encoding import encode, standardise
from cellbook.study.show import SPACE

PUBLISHED_LIMIT = 4_000_000  # bytes of a page's published runs


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The page at the smoke preset without the real cells."""
    store = tmp_path_factory.mktemp("store")
    folder, now = build.run_page("cells", {"preset": "smoke", "real": False, "results": str(store)})
    assert now
    return folder


def test_every_number_is_named_once_and_lies_in_its_interval(executed):
    numbers = pd.read_csv(executed / "numbers.csv")
    assert {*claims.KEYS, "value", "low", "high", "correct", "scored", "excluded"} <= set(numbers)
    assert not numbers.duplicated(claims.KEYS).any()
    scored = numbers[numbers["protocol"].isin(["ljosa2013", "drop", "week"])]
    assert scored[["low", "high"]].notna().all(axis=None)
    assert (scored["low"] <= scored["value"] + 1e-9).all()
    assert (scored["value"] <= scored["high"] + 1e-9).all()
    assert set(numbers.loc[(numbers["protocol"] == "ljosa2013") & (numbers["measure"] == "NSC"), "scored"]) == {103}


def test_claims_about_real_cells_are_not_judged_without_them(executed):
    claims = pd.read_csv(executed / "claims.csv").set_index("id")["verdict"]
    assert (claims[["as-hard-as-real", "nuclei-found", "classical-wins"]] == INCOMPARABLE).all()
    assert INCOMPARABLE not in set(claims[["week-zero", "permuted-labels"]])
    page = nbformat.read(executed / "cells.ipynb", as_version=4)
    assert measures.ABSENT in str(page)
    assert notebooks.page_faults(page) == []


def test_figures_come_with_their_data(executed):
    page = nbformat.read(executed / "cells.ipynb", as_version=4)
    drawn = [
        cell.metadata["mystnb"]["figure"]["name"].removeprefix("cells-")
        for cell in page.cells
        if "mystnb" in cell.metadata
    ]
    of_real = {"nuclei", "calibration"}
    assert of_real < set(drawn)
    assert sorted({*drawn} - of_real) == sorted(path.stem for path in (executed / "figures").glob("*.csv"))


def test_published_page_is_small_and_can_be_verified(executed, tmp_path):
    build.publish("cells", executed, tmp_path, smoke=True)
    folder = tmp_path / "results" / "cells"
    assert results.verify_page(folder) == []
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < PUBLISHED_LIMIT


def test_other_screens_and_unknown_presets_are_refused():
    with pytest.raises(CellbookError, match="takes only 'simulated'"):
        settings.screen_runs(replace(choose_preset(cells.PRESETS, "smoke"), screen="bbbc021-sample"))
    with pytest.raises(CellbookError, match="preset 'large'"):
        choose_preset(cells.PRESETS, "large")
    with pytest.raises(CellbookError, match="week_effects"):
        settings.screen_runs(replace(choose_preset(cells.PRESETS, "smoke"), week_effects=(0.0, 1.0)))


def test_runs_are_one_a_seed_and_week_effect_and_only_the_first_keeps_pictures():
    runs = settings.screen_runs(choose_preset(cells.PRESETS, "long"))
    assert [(each.simulated.seed, each.simulated.week_effect) for each in runs] == [
        (seed, effect) for seed in (0, 1, 2) for effect in (0.5, 0.0)
    ]
    assert [each.grid > 0 for each in runs] == [True] + 5 * [False]
    assert {len(each.encoders) for each in runs[1::2]} == {1}


def test_picked_cells_are_of_different_compounds_while_there_are_any():
    rng = np.random.default_rng(1)
    moa = rng.choice([*MOAS, "DMSO"], 800)
    table = pd.DataFrame({"Metadata_moa": moa, "Metadata_compound": [f"{m} {rng.integers(3)}" for m in moa]})
    table["Metadata_role"] = np.where(moa == "DMSO", "negative control", "treatment")
    table.loc[:100, "Metadata_role"] = "positive control"
    found = grids.pick(table, 3)
    assert found["row"].min() > 100
    assert (found.groupby("moa").size() == 3).all()
    compounds = table["Metadata_compound"].to_numpy()[found["row"]]
    assert (pd.Series(compounds).groupby(found["moa"]).nunique() == 3).all()


def test_colours_are_channels_in_order_clipped_at_the_range():
    images = np.zeros((1, 3, 2, 2), np.uint16)
    images[0, 0], images[0, 1], images[0, 2, 0, 0] = 1000, 300, 60_000
    shown = grids.composite(images, np.array([0, 200, 0]), np.array([2000, 400, 100]))
    assert shown.shape == (1, 2, 2, 3)
    assert shown[0, 0, 0].tolist() == [128, 128, 255]
    assert shown[0, 1, 1].tolist() == [128, 128, 0]


def test_the_same_cell_differs_between_weeks_only_as_far_as_weeks_do():
    names, images = grids.one_cell(preset("smoke", cells=6, week_effect=1.0))
    assert names == [f"Week{i}" for i in range(1, 11)]
    spread = images.astype(float).std(axis=1).mean(axis=(1, 2, 3))
    assert spread[0] > 2 * spread[1] > 0
    silent = preset("smoke", cells=6, plate_effect=0, position_effect=0, delay_effect=0)
    assert (np.ptp(grids.one_cell(silent)[1][1].astype(int), axis=0) <= 1).all()


def test_without_weeks_the_gradient_over_plates_is_what_is_left_of_the_week():
    config = preset("smoke", controls=3, positive_controls=1, week_effect=0, plate_effect=0)

    def across(**how):
        """What the taxol wells of each plate have more than its DMSO wells: plates in rows, week as index."""
        wells = plate_map(config)
        table = nuisances(replace(config, **how), wells, ("DNA", "Tubulin", "Actin")).drop(columns="truth_delay")
        by = [wells["Metadata_batch"], wells["Metadata_plate"]]
        sides = [table[wells["Metadata_role"] == role] for role in ("positive control", "negative control")]
        return (sides[0].groupby(by).mean() - sides[1].groupby(by).mean()).droplevel(1)

    gradient = across().filter(like="gain")
    assert gradient.groupby(level=0).std().max().max() < 1e-9  # the same on all plates of a week
    assert (gradient.groupby(level=0).mean().std() > 0.01).all()  # and another in each
    assert (across(position_effect=0).abs() < 1e-9).all(axis=None)


def number(screen, measure, value, protocol="ljosa2013", seed=np.nan, effect=np.nan, **more):
    profile = "CellProfiler" if screen == "CellProfiler" else "classical features"
    where = {"screen": screen, "seed": seed, "week_effect": effect, "profile": profile, "scaling": "by plate"}
    bounds = {"low": value - 0.05, "high": value + 0.05, "scored": 92}
    return {"protocol": protocol, "measure": measure, "value": value} | bounds | where | more


@pytest.mark.parametrize(("nsc", "verdict"), [(0.75, REPRODUCED), (0.95, PARTLY)])
def test_as_hard_as_real_compares_the_mean_over_seeds(nsc, verdict):
    lines = [number("sample", "NSC", 0.5)]
    for measure, value, real in (("NSC", nsc, 0.8), ("NSCB", 0.7, 0.7), ("NSC - NSCB", 0.1, 0.1)):
        protocol = "drop" if "-" in measure else "ljosa2013"
        lines += [number("simulated", measure, value + off, protocol, s, 1.0) for s, off in ((0, -0.15), (1, 0.15))]
        lines.append(number("CellProfiler", measure, real, protocol))
    found = cells.PREDICATES["as-hard-as-real"](pd.DataFrame(lines))
    assert found.verdict == verdict
    assert "NSC - NSCB, on the 92 treatments that NSCB can score: 10.0 (seeds -5.0 to 25.0)" in found.evidence


@pytest.mark.parametrize(("without", "verdict"), [(0.79, REPRODUCED), (0.60, NOT)])
def test_week_zero_wants_a_smaller_drop_and_one_that_thinning_explains(without, verdict):
    lines = []
    for effect, nscb in ((1.0, 0.6), (0.0, without)):
        for scaling in ("by plate", "all plates alike"):
            for measure, value in (("NSC", 0.8), ("NSCB", nscb), ("NSC - NSCB", 0.8 - nscb), ("alike at random", 0.78)):
                lines.append(number("simulated", measure, value, "drop", 0, effect, scaling=scaling))
    assert cells.PREDICATES["week-zero"](pd.DataFrame(lines)).verdict == verdict


def shares(screen, protocol, profile, scaling, seeds=(np.nan,), effect=np.nan):
    """Lines of NSC and NSCB, a tenth apart from one seed to the next."""
    names = {"screen": screen, "week_effect": effect, "profile": profile, "scaling": scaling}
    return [
        rows.row(f"{screen} {seed} {profile} {scaling}", protocol, measure, value + place / 10, low=0.4, high=0.9,
                 seed=seed, **names)
        for place, seed in enumerate(seeds)
        for measure, value in (("NSC", 0.6), ("NSCB", 0.5))
    ]  # fmt: skip


def test_simulated_screens_are_shown_by_the_first_seed_and_the_spread_over_seeds():
    lines = shares("simulated", "baseline", "week alone", "", (0,), 1.0)
    lines += shares("simulated", "ljosa2013", "classical features", "by plate", (0, 1, 2), 1.0)
    lines += shares("simulated", "ljosa2013", "classical features", "by plate", (0, 1, 2), 0.0)  # other weeks
    first, second = shown.simulated_table(rows.numbers(lines)).replace(SPACE, " ", regex=True).to_dict("records")
    assert (first["profile"], first["scaled"]) == ("classical features", "by plate")
    assert (first["NSC"], first["NSC, seeds"]) == ("60.0 [40, 90]", "70.0 ± 10.0")
    assert (second["profile"], second["scaled"], second["NSCB, seeds"]) == ("week alone", "–", "–")


def test_real_cells_are_shown_beside_the_published_wells():
    lines = shares("CellProfiler", "ljosa2013", "CellProfiler", "by plate")
    lines += shares("sample", "baseline", "labels permuted", "all plates alike")
    lines += shares("sample", "ljosa2013", "classical features", "all plates alike")
    table = shown.real_table(rows.numbers(lines))
    assert table["measured on"].tolist() == ["crops", "crops", "published wells"]
    assert table["profile"].tolist() == ["classical features", "labels permuted", "CellProfiler"]
    assert table["scaled"].tolist() == ["all plates", "all plates", "by plate"]


def test_every_line_of_nuclei_says_method_and_field():
    table = pd.DataFrame({"plate": ["Week4_1"] * 2, "field": ["B02_s1_w1", "B02_s2_w1"], "method": ["dog"] * 2})
    table = table.assign(found=[10, 0], found_matched=[8, 0], published=[9, 20], published_matched=[9, 19])
    lines = pd.DataFrame(measures.nuclei(table)).set_index(["method", "field", "measure"])["value"]
    assert lines["dog", "Week4_1 B02_s1", "precision"] == 0.8
    assert np.isnan(lines["dog", "Week4_1 B02_s2", "precision"])
    assert lines["dog", "all fields", "recall"] == 28 / 29


@pytest.mark.parametrize(("low", "verdict"), [(0.92, REPRODUCED), (0.85, PARTLY)])
def test_nuclei_are_found_if_the_whole_interval_says_so(low, verdict):
    more = {"screen": "fields", "method": "dog"}
    lines = [
        rows.row("a", "nuclei", "recall", 0.95, low=low, high=0.99, field=field, **more)
        for field in ("all fields", "x")
    ]
    lines += shares("sample", "ljosa2013", "classical features", "all plates alike")
    found = cells.PREDICATES["nuclei-found"](rows.numbers(lines))
    assert found.verdict == verdict
    assert "dog: 95.0" in found.evidence


@pytest.mark.parametrize(("lows", "verdict"), [((0.1, 0.1), REPRODUCED), ((0.1, -0.1), PARTLY), ((-0.1, -0.1), NOT)])
def test_classical_features_win_if_each_difference_surely_is_above_zero(lows, verdict):
    lines = [
        rows.row(
            "a - b", "paired", measure, 0.2, low=low, high=0.3, screen="sample", left="classical features", right="b"
        )
        for measure, low in zip(("NSC", "NSCB"), lows, strict=True)
    ]
    found = cells.PREDICATES["classical-wins"](rows.numbers(lines))
    assert found.verdict == verdict
    assert "classical features - b, NSC: +20.0 points" in found.evidence


def planted(wells=3, controls=6, seed=0):
    """Metadata of a screen: four treatments, controls and a positive control, 3 to 19 cells a well."""
    names = [("DMSO", 0.0)] * controls + [(drug, 1.0) for drug in "abcd" for _ in range(wells)] + [("taxol", 0.3)]
    lines = [
        {"Metadata_plate": "p", "Metadata_well": f"W{n}", "Metadata_compound": drug, "Metadata_concentration": dose}
        for n, (drug, dose) in enumerate(names)
        for _ in range(np.random.default_rng((seed, n)).integers(3, 20))
    ]
    table = pd.DataFrame(lines).assign(Metadata_batch="Week1")
    role = np.where(table["Metadata_compound"] == "DMSO", "negative control", "treatment")
    return table.assign(Metadata_role=np.where(table["Metadata_compound"] == "taxol", "positive control", role))


def curve(**how):
    """A run of the curve at the smoke preset, with other numbers."""
    return replace(enough.enough_runs(choose_preset(cells.PRESETS, "smoke"), False)[0], **how)


def test_subsets_are_nested_in_each_draw_and_the_slow_encoder_sees_all_of_the_smaller_ones():
    table = planted()
    config = curve(shares=(0.0, 0.3, 0.5, 1.0), draws=3, transferred=0.5)
    subsets, member, pool = enough.choose(table, config)
    usable = (table["Metadata_role"] != "positive control").to_numpy()
    assert subsets.groupby("share")["draw"].nunique().tolist() == [3, 3, 1, 1]
    assert not member[~usable].any()
    assert (member.sum(axis=0) == subsets["cells"]).all()
    whole = member[:, subsets["share"] == 1][:, 0]
    assert np.array_equal(whole, usable)
    wells = table["Metadata_well"].to_numpy()
    for _, of_draw in subsets.groupby("draw"):
        sets = [member[:, place] for place in of_draw.index]
        assert all((small <= large).all() for small, large in pairwise(sets))
        assert all(len(set(wells[each])) == len(set(wells[usable])) for each in sets)
        assert all(
            not np.delete(each, pool).any() for each, share in zip(sets, of_draw["share"], strict=True) if share < 1
        )
    assert np.isclose(
        subsets.set_index("share").loc[1.0, "a_treatment"], (usable & (table["Metadata_compound"] != "DMSO")).sum() / 4
    )


def test_simulated_cells_are_matched_to_the_numbers_of_the_real_ones_well_by_well():
    table, real = planted(), planted(wells=2, controls=3, seed=1)
    subsets, member, pool = enough.choose(table, curve(draws=2, transferred=0.4), real)
    used = real[real["Metadata_role"] != "positive control"]
    wanted = {
        name: sorted(part.value_counts(), reverse=True)
        for name, part in used.groupby("Metadata_compound")["Metadata_well"]
    }
    there = {
        name: sorted(part.value_counts(), reverse=True)
        for name, part in table.groupby("Metadata_compound")["Metadata_well"]
    }
    for place in np.flatnonzero(subsets["subset"] == enough.MATCHED):
        for name, part in table[member[:, place]].groupby("Metadata_compound")["Metadata_well"]:
            assert sorted(part.value_counts(), reverse=True) == sorted(
                (min(pair) for pair in zip(wanted[name], there[name], strict=False)), reverse=True
            )
        assert set(np.flatnonzero(member[:, place])) <= set(pool)
    assert len(pool) < member[:, subsets["share"] == 1].sum()
    first, second = np.flatnonzero(subsets["subset"] == enough.MATCHED)
    assert not np.array_equal(member[:, first], member[:, second])


def test_without_the_imagenet_package_the_curve_is_that_of_the_other_profiles_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(enough.transferred, "installed", lambda: False)
    (config,) = enough.enough_runs(choose_preset(cells.PRESETS, "smoke"), False)
    made = enough.make(replace(config, resamples=50), tmp_path)
    table = enough.measure([made])
    assert set(table["profile"]) == set(settings.ENCODERS)
    assert not table.duplicated(["setting", "protocol", "measure"]).any()
    assert shown.imagenet_words(table) == enough.NOT_INSTALLED
    assert set(shown.curve_table(table)["profile"]) == set(settings.ENCODERS)
    assert shown.beside_real(table).empty
    of = rows.one(
        table, protocol="ljosa2013", measure="NSC", profile="pixel PCA", subset="share 1", scaling="standardised"
    )
    screen = simulated_cells(config.simulated, tmp_path)
    scaled = standardise(encode("pixel PCA", screen).loc[screen.table["Metadata_role"] != "positive control"])
    (slow, _) = metrics.score(profiles.to_wells(scaled), "ljosa2013", drop_unusable=True, resamples=10)
    assert of["correct"] == pytest.approx(slow.correct, abs=1)


@pytest.mark.data
def test_real_cells_are_measured_and_none_of_their_pixels_is_kept(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLBOOK_DATA", str(data_dir))
    config = settings.real_run(choose_preset(cells.PRESETS, "smoke"))
    config = replace(config, simulated=preset("smoke"), encoders=("classical features", "pixel PCA"))
    made = making.make_real_run(config, tmp_path)
    assert {name.rsplit(".")[-1] for name in made.products()} == {"parquet"}
    assert max(entry["bytes"] for entry in made.record["products"].values()) < 100_000
    found = pd.DataFrame(measures.nuclei(made.table("nuclei")))
    assert len(found) == 6 * 2 * 2  # five fields and all together, methods, precision and recall
    assert not found.duplicated(["method", "field", "measure"]).any()
    assert found["value"].min() > 0.9
    sample, published = measures.sources(made)
    assert len(sample.treatments) == len(published.treatments) == 103
    assert all(line["value"] > 0 for line in measures.paired(sample))
    assert 0.5 < measures.told_apart(sample, made.table("calibration"))["value"] <= 1
    assert [line["scored"] for line in measures.week(sample)] == [652, 652]
