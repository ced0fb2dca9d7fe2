"""The page of WDN: table cells against slow loops, step zero, weeks of controls, verdicts, screens of one's own."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from cellbook import claims, profiles
from cellbook.book import build, notebooks, results
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods import wdn
from cellbook.pages import tabak2020 as tabak
from cellbook.pages.tabak2020 import config as configuration
from cellbook.pages.tabak2020 import corrected, drawn, making, measures, shown, sources
from cellbook.pages.tabak2020.measures import CARRIED, COURSE, FALL, NOISE, PAIRED, POOLED, RISE, week_protocol
from cellbook.runs import Run
from cellbook.study import judging, premises
from cellbook.study.encoding import IMAGENET, encode
from cellbook.study.rows import pick
from cellbook.study.show import percent
from cellbook.study.tables import evidence_table
from cellbook.study.trainings import Place

CLAIMS = notebooks.root() / "book" / "claims" / "tabak2020.yml"
PLANTED = "planted wells"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def config():
    """Two short alignments whose maps move far enough to change neighbours."""
    changes = {
        "repeats": 2,
        "well_rate": 3e-2,
        "well_iterations": 20,
        "well_every": 5,
        "unseen_repeats": 1,
        "bootstraps": 4,
    }
    return replace(tabak.PRESETS["smoke"], screen="planted", variants=("energy distance",), **changes)


@pytest.fixture(scope="module")
def run(config, store):
    return tabak.run(config, store, device="cpu", workers=1)


@pytest.fixture(scope="module")
def tables(run):
    return results.measure("tabak2020", [run])


def alignments(run, store):
    return [wdn.load(Run(store / key)) for key in run.table("trainings").sort_values("repeat")["key"]]


# --- tables against slow loops --------------------------------------------------------------------------------------


def slow_pooled(wells, most, same_week):
    """Right and counted neighbours of treatment means by plain loops, k cut to the right candidates."""
    treated = wells[wells["Metadata_compound"] != "DMSO"]
    who = ["Metadata_compound", "Metadata_concentration", "Metadata_batch"]
    names = [name for name in wells if not name.startswith("Metadata_")]
    weight = treated["Metadata_cell_count"] if "Metadata_cell_count" in treated else pd.Series(1.0, treated.index)
    units = []
    for key, rows in treated.groupby(who):
        x = np.average(rows[names].to_numpy(), axis=0, weights=weight[rows.index])
        units.append((*key, rows["Metadata_moa"].iloc[0], x / np.linalg.norm(x)))
    correct = counted = 0
    for compound, _, week, moa, x in units:
        others = [o for o in units if o[0] != compound and not (same_week and o[2] == week)]
        others.sort(key=lambda o: round(1 - o[4] @ x, 12))
        k = min(most, sum(o[3] == moa for o in others))
        correct, counted = correct + sum(o[3] == moa for o in others[:k]), counted + k
    return correct, counted


@pytest.mark.parametrize(("measure", "same_week"), [("NSC", False), ("NSCB", True)])
@pytest.mark.parametrize("method", ["uncorrected", "CORAL", "WDN, last step"])
def test_accuracies_are_those_of_a_slow_loop(config, run, store, tables, method, measure, same_week):
    table = sources.well_source(config, "planted").profiles
    if method == "CORAL":
        made = [profiles.Coral(eta=1.0).fit_transform(table)]
    else:
        made = [a.transform(table) for a in alignments(run, store)] if method.startswith("WDN") else [table]
    numbers = tables["numbers"]
    found = pick(numbers, source=PLANTED, method=method, protocol=POOLED, measure=measure)
    assert found["k"].tolist() == [1, 2, 3, 4]
    for k, line in found.set_index("k").iterrows():
        slow = [slow_pooled(one, k, same_week) for one in made]
        assert line["scored"] == slow[0][1]
        assert line["value"] == pytest.approx(np.mean([right / total for right, total in slow]))
        assert line["trainings"] == len(made)


def test_step_zero_is_no_correction_exactly(run):
    queries = run.table("queries").query("method == 'uncorrected'")
    sums = queries.groupby(["vote", "measure", "k"])[["correct", "counted"]].sum()
    start = run.table("steps").query("step == 0")
    for _, line in start[start["vote"] != ""].iterrows():
        assert tuple(sums.loc[(line["vote"], line["measure"], line["k"])]) == (line["correct"], line["scored"])
    shape = run.table("silhouettes").query("method == 'uncorrected'")["value"].astype(float).mean()
    assert start.query("measure == 'silhouette'")["value"].to_numpy() == pytest.approx([shape] * 2, abs=1e-6)


def test_maps_changed_something_so_that_the_other_tests_mean_something(run, tables):
    steps = run.table("steps")
    last = steps[steps["step"] == steps["step"].max()]
    assert (last.query("measure == 'change'")["value"] > 0.01).all()
    numbers = tables["numbers"]
    moved = pick(numbers, protocol=PAIRED, left="WDN, max k-NN", right="WDN, last step")
    assert moved["value"].abs().max() > 0


@pytest.mark.data
def test_denominators_of_the_published_wells_are_the_papers(config):
    source = sources.well_source(replace(config, factors=5), "bbbc021-features")
    found = corrected.outcomes(wdn.unmoved(source.profiles), source.profiles)["queries"]
    counted = found[found["vote"] == "pooled"].groupby(["measure", "k"])["counted"].sum()
    assert counted["NSC"].tolist() == [103, 206, 309, 398]
    assert counted["NSCB"].tolist() == [92, 180, 268, 330]
    assert (len(source.profiles), profiles.controls_mask(source.profiles).sum()) == (632, 330)


def test_a_paired_difference_is_that_of_the_mean_accuracies(tables):
    numbers = tables["numbers"]
    mean = numbers[numbers["protocol"] == POOLED].groupby(["method", "measure"])["value"].mean()
    paired = numbers[numbers["protocol"] == PAIRED].query("measure != 'silhouette'")
    assert len(paired) == 2 * 10
    for _, line in paired.iterrows():
        gap = mean[line["left"], line["measure"]] - mean[line["right"], line["measure"]]
        assert line["value"] == pytest.approx(gap)


def test_trainings_behind_a_difference_are_those_that_were_compared(tables, config):
    numbers = tables["numbers"]
    assert (config.repeats, config.unseen_repeats) == (2, 1)
    unseen = pick(numbers, protocol=f"{week_protocol(corrected.UNSEEN)}, paired", left="WDN, last step")
    assert unseen["trainings"].tolist() == [1]
    paired = pick(numbers, protocol=PAIRED, measure="NSC").set_index(["left", "right"])["trainings"]
    assert paired["WDN, max k-NN", "WDN, last step"] == 2
    assert paired["CORAL", "uncorrected"] == 2  # without chance, so that it needs no repeats


def test_numbers_have_one_meaning_each_and_lie_in_their_intervals(tables):
    numbers = tables["numbers"]
    assert not numbers.duplicated(claims.KEYS).any()
    bounded = numbers.dropna(subset=["low", "high"])
    assert len(bounded) > 200
    assert (bounded["low"] <= bounded["value"] + 1e-9).all()
    assert (bounded["value"] <= bounded["high"] + 1e-9).all()


def test_tables_are_those_of_a_second_evaluation_and_of_the_products_alone(run, tables, tmp_path):
    shutil.copytree(run.folder, tmp_path / run.key)
    for name, table in tabak.evaluate([Run(tmp_path / run.key)]).items():
        pd.testing.assert_frame_equal(table, tables[name])
    assert sum(path.stat().st_size for path in run.folder.iterdir()) < 1e6


def test_alignments_are_runs_of_their_own_and_never_trained_twice(config, run, store):
    made = {path: path.stat().st_mtime_ns for path in store.glob("wdn-*/run.json")}
    other = tabak.run(replace(config, bootstraps=2, repeats=1), store, device="cpu", workers=1)
    assert other.key != run.key
    assert {path: path.stat().st_mtime_ns for path in store.glob("wdn-*/run.json")} == made


def test_a_page_that_was_stopped_goes_on_and_is_the_same(config, run, store, tmp_path, monkeypatch):
    """Every task is a run of its own: what a killed page has done is taken from the store, without an alignment."""
    shutil.copytree(store, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / run.key)
    monkeypatch.setattr(wdn, "run", lambda *_, **__: pytest.fail("aligned anew"))
    again = tabak.run(config, tmp_path, device="cpu", workers=1)
    digests = [{name: of["sha256"] for name, of in one.record["products"].items()} for one in (run, again)]
    assert digests[0] == digests[1]


def test_a_task_depends_on_its_own_budget_alone(config):
    table = sources.well_source(config, "planted")
    found = {}
    for name, changed in {
        "as it is": config,
        "cells": replace(config, cell_iterations=7, cell_bootstraps=9, vae="quick", carry_repeats=2),
        "wells": replace(config, well_iterations=25),
        "resamples": replace(config, bootstraps=5),
        "short": replace(config, short_iterations=5),
    }.items():
        work = making.Work({table.name: table}, changed, Place("nowhere"))
        found[name] = [
            making.decisive(making.Task(make, table.name), work) for make in (making.alignment, making.variant)
        ]
    long, short = zip(*found.values(), strict=True)
    assert [about == long[0] for about in long] == [True, True, False, False, True]
    assert [about == short[0] for about in short] == [True, True, True, True, False]


def test_what_the_rules_choose_without_a_compound_is_what_stopping_says(run, store, config):
    table = sources.well_source(config, "planted").profiles
    chosen, votes = run.table("choices").query("compound != 'all'"), run.table("queries").query("vote == 'pooled'")
    for repeat, alignment in enumerate(alignments(run, store)):
        scores, choices = wdn.stopping(alignment, table)
        mine = chosen[chosen["repeat"] == repeat]
        theirs = choices.query("vote == 'pooled' and rule != 'none'")
        assert mine["step"].tolist() == theirs["step"].tolist()
        queries = votes[(votes["repeat"] == repeat) & (votes["method"] == "WDN, max k-NN")]
        sums = queries.groupby(["measure", "k"])["correct"].sum()
        expected = scores.query("vote == 'pooled' and rule == 'knn'").set_index(["measure", "k"])["correct"]
        assert sums.to_dict() == expected.to_dict()


# --- the week of controls -------------------------------------------------------------------------------------------


def control_cells(shift, seed=0):
    """Three weeks of four plates of ten control cells, weeks apart by a shift."""
    rng = np.random.default_rng(seed)
    week = np.repeat(np.arange(3), 40)
    table = pd.DataFrame(rng.normal(size=(120, 6)) + shift * week[:, None], columns=[f"f{i}" for i in range(6)])
    table.insert(0, "Metadata_batch", [f"Week{w + 1}" for w in week])
    table.insert(0, "Metadata_plate", [f"Week{w + 1}_{p}" for w, p in zip(week, np.arange(120) // 10 % 4, strict=True)])
    table.insert(0, "Metadata_well", np.arange(120) // 5 % 2)
    return table.assign(Metadata_compound="DMSO", Metadata_original=np.arange(120))


@pytest.mark.parametrize("how", [corrected.ROWS, corrected.PLATES, corrected.UNSEEN])
def test_the_week_is_named_where_weeks_are_apart_and_not_where_they_are_not(config, how):
    models = ("logistic", "forest") if how == corrected.ROWS else ("logistic",)
    for shift, low, high in ((3.0, 0.97, 1.0), (0.0, 0.1, 0.5)):
        found = pd.DataFrame(list(corrected.week_named(control_cells(shift), how, config, models=models)))
        for _, part in found.groupby("model"):
            assert part["total"].sum() == 120
            assert low <= part["right"].sum() / 120 <= high


def test_copies_of_a_control_do_not_tell_its_week_to_each_other(config):
    """Copies in training and test at once would let the forest name the week of pure noise."""
    forest = replace(config, models=("forest",))
    shares = {True: [], False: []}
    for number in (1, 2):
        rows = corrected.draw(control_cells(0.0), number, True, 0)
        for grouped in shares:
            numbered = number if grouped else 0
            named = corrected.week_named(rows.reset_index(drop=True), corrected.ROWS, forest, number=numbered)
            line = pd.DataFrame(list(named))
            shares[grouped].append(line["right"].sum() / line["total"].sum())
    assert np.mean(shares[True]) < 0.48
    assert np.mean(shares[False]) > 0.6


def test_resamples_keep_wells_and_too_small_weeks_are_not_asked_for(config):
    rows = control_cells(0.0)
    again = corrected.draw(rows, 1, True, 0)
    place = ["Metadata_plate", "Metadata_well"]
    pd.testing.assert_series_equal(again.groupby(place).size(), rows.groupby(place).size())
    assert again["Metadata_original"].duplicated().any()
    few = rows[(rows["Metadata_batch"] != "Week3") | (rows["Metadata_original"] < 82)]
    assert list(corrected.week_named(few, corrected.ROWS, config)) == []


# --- screens --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A cell set of one's own: three weeks of two plates, nine compounds, controls and positive controls; a folder."""
    rng = np.random.default_rng(5)
    rows = []
    for place in range(9):
        week, moa = f"Week{place % 3 + 1}", f"moa{place // 3}"
        for plate in (1, 2):
            rows += [(f"{week}_{plate}", f"B{place:02d}", week, f"c{place}", 1.0, moa, "treatment")] * 2
    for week in ("Week1", "Week2", "Week3"):
        for plate in (1, 2):
            for k in range(4):
                rows += [(f"{week}_{plate}", f"A{k:02d}", week, "DMSO", 0.0, "DMSO", "negative control")] * 2
            rows += [(f"{week}_{plate}", "C01", week, "taxol", 0.3, "tubulin", "positive control")] * 4
    names = ["plate", "well", "batch", "compound", "concentration", "moa", "role"]
    table = pd.DataFrame(rows, columns=[f"Metadata_{name}" for name in names])
    smooth = gaussian_filter(rng.random((len(table), 3, 68, 68)), (0, 0, 4, 4))
    folder = tmp_path_factory.mktemp("own") / "cells"
    CellSet((smooth / smooth.max() * 50_000).astype(np.uint16), table, ("DNA", "Tubulin", "Actin"), 0.65).save(folder)
    return folder


def test_a_screen_of_ones_own_works_wherever_it_lies(own, tmp_path):
    small = replace(tabak.PRESETS["smoke"], screen=str(own), factors=5, bootstraps=2, variants=("energy distance",))
    run = tabak.run(small, tmp_path / "store", device="cpu", workers=1)
    assert run.table("sources")["source"].tolist() == ["own cells, classical features", "own cells, VAE+"]
    numbers = tabak.evaluate([run])["numbers"]
    assert set(numbers["family"]) == {"engineered", "learned"}
    assert set(numbers["main"]) == {1}
    assert set(pick(numbers, protocol=CARRIED)["on"]) == {"DMSO", "taxol 0.3"}
    premise = pick(numbers, protocol=judging.PREMISE)
    assert set(premise["source"]) == {"own cells, VAE+"}
    assert premise["measure"].tolist() == [
        judging.VIEWS, judging.PAPERS_VIEWS, judging.CHANGE, judging.gain("NSC"), judging.gain("NSCB")
    ]  # fmt: skip
    assert premise["value"].iloc[0] == 6 * 8  # steps and batch
    means = {
        method: pick(numbers, source="own cells, VAE+", method=method, protocol=POOLED, measure="NSC")["value"].mean()
        for method in (corrected.UNCORRECTED, "untrained encoder")
    }
    assert premise["value"].iloc[3] == pytest.approx(means["uncorrected"] - means["untrained encoder"])
    assert str(own) not in (run.folder / "run.json").read_text()
    shutil.copytree(own, tmp_path / "cells")
    moved = tabak.run(replace(small, screen=str(tmp_path / "cells")), tmp_path / "store", device="cpu", workers=1)
    assert moved.key == run.key
    assert shown.carried_table(numbers).shape[0] == 6
    judged = {claim: judge(numbers.assign(trainings=3)) for claim, judge in tabak.PREDICATES.items()}
    assert {claim for claim, found in judged.items() if found.verdict == claims.INCOMPARABLE} == set()
    assert all("own cells" in found.evidence and "nan" not in found.evidence for found in judged.values())


def test_other_features_stand_beside_classical_ones_of_the_same_cells(own, tmp_path, monkeypatch):
    """ImageNet features are replaced by noise: they are whitened components, and lose as much as the accuracies say."""

    def noise(name, cells, seed=0, **how):
        if name != IMAGENET:
            return encode(name, cells, seed, **how)
        values = np.random.default_rng(0).normal(size=(len(cells), 40)) @ np.diag(np.arange(1.0, 41))
        return cells.feature_table(values, [f"imagenet_DNA_{i}" for i in range(40)])

    monkeypatch.setattr(sources, "encode", noise)
    monkeypatch.setattr(sources.transferred, "installed", lambda: True)
    small = replace(
        tabak.PRESETS["smoke"], screen=str(own), factors=5, bootstraps=2, imagenet=True, variants=("energy distance",)
    )
    found, _ = sources.load(small, Place(tmp_path))
    assert [source.family for source in found] == ["engineered", "transferred", "learned"]
    control = profiles.matrix(found[1].table)[profiles.controls_mask(found[1].table)]
    covariance = np.cov(control.T)
    assert control.shape[1] == 5
    assert np.allclose(covariance, np.diag(np.diag(covariance)), atol=1e-8)
    numbers = tabak.evaluate([tabak.run(small, tmp_path, device="cpu", workers=1)])["numbers"]
    lines = pick(numbers, protocol=measures.EMBEDDED)
    assert len(lines) == 2 * 4 * 2  # embeddings, methods, measures
    for _, row in lines.iterrows():
        means = [
            pick(numbers, source=source, method=row["method"], protocol=POOLED, measure=row["measure"])["value"].mean()
            for source in (row["source"], row["right"])
        ]
        assert row["value"] == pytest.approx(means[0] - means[1])
    assert shown.embedding_table(numbers).shape[0] == 2 * 4
    monkeypatch.setattr(sources.transferred, "installed", lambda: False)
    assert sources.families(small) == ["engineered", "learned"]
    assert "not installed" in sources.load(small, Place(tmp_path))[1]


def test_codes_are_those_of_the_network_that_was_trained_on_the_larger_screen():
    small = replace(tabak.PRESETS["lease"], week_effect=0.5)
    simulated = sources.vae_config(small, "simulated")
    assert (simulated.iterations, simulated.cells) == (7_500, 270)
    assert sources.vae_config(small, "bbbc021-sample").iterations == 2_200
    for effect in (0.0, 1.0):
        aligned = sources.cells_config(small, "simulated", effect)
        assert aligned.simulated == replace(simulated.simulated, cells=22, week_effect=effect)
    assert sources.cells_config(tabak.PRESETS["quick"], "simulated", 0.5).cells == 22


def test_the_positive_control_is_in_no_profile(own, tmp_path):
    small = replace(tabak.PRESETS["smoke"], screen=str(own), factors=5)
    found, left_out = sources.load(small, Place(tmp_path))
    assert left_out == ""
    for source in found:
        assert "taxol" not in set(source.profiles["Metadata_compound"])
        assert len(source.positives) == 24
        control = profiles.controls_mask(source.table)
        assert np.allclose(profiles.matrix(source.table)[control].mean(axis=0), 0, atol=1e-6)


def test_without_the_real_data_it_is_left_out_in_words(monkeypatch):
    monkeypatch.setattr(sources.named, "missing_files", lambda: ["a file"])
    names, left_out = sources.screens(tabak.PRESETS["smoke"])
    assert names == ["simulated"]
    assert "not on this machine" in left_out


def test_mistakes_are_refused_in_words(tmp_path):
    with pytest.raises(CellbookError, match="no variant 'x'"):
        tabak.Config(variants=("x",))
    with pytest.raises(CellbookError, match="neither simulated nor"):
        tabak.run(replace(tabak.PRESETS["smoke"], screen="nowhere"), tmp_path)
    with pytest.raises(CellbookError, match="preset 'x'"):
        tabak.run(replace(tabak.PRESETS["smoke"], screen="simulated", vae="x"), tmp_path)


def test_the_papers_preset_is_the_papers_alignment():
    paper = tabak.PRESETS["paper"]
    for unit in ("wells", "cells"):
        assert asdict(paper.alignment(unit, 7)) == asdict(replace(wdn.PRESETS["paper"], seed=7))
    assert paper.bootstraps == 100
    assert set(paper.variants) == set(configuration.VARIANTS)


# --- claims ---------------------------------------------------------------------------------------------------------


NAMES = dict.fromkeys(measures.OWN)


def line(protocol, measure, value, low, high, agree=1, **names):
    """One number of three trainings: of source "s", of learned features, unless its names say otherwise."""
    about = {"source": "s", "family": "learned", "main": 1, "week_effect": np.nan, "trainings": 3, "sd": 0.01, "k": 0}
    ends = {"value": value, "low": low, "high": high, "agree": agree}
    return {**NAMES, **about, "protocol": protocol, "measure": measure, **ends, **names}


def gains(family, value, low, high, *pairs, agree=1):
    return [
        line(PAIRED, measure, value, low, high, agree, family=family, left=left, right=right)
        for left, right in pairs
        for measure in ("NSC", "NSCB")
    ]


LEARNED = (("WDN, max k-NN", "CORAL"), ("WDN, max k-NN", "uncorrected"), ("CORAL", "uncorrected"))
HAND = (("WDN, max k-NN", "uncorrected"), ("WDN, max silhouette", "uncorrected"), ("CORAL", "uncorrected"))
STOP = (("WDN, max k-NN", "WDN, k-NN in hindsight"), ("WDN, max silhouette", "WDN, silhouette in hindsight"))


def week(value, low, high, agree=1, source="s", before=0.5, noise=0.1, after=None, unseen=None):
    """A change of how often the week is named, with what it is a change of; `unseen` on plates that no map has seen."""
    found, after = [], (before + value, before + low, before + high) if after is None else after
    change = {"source": source, "left": "WDN, last step", "right": "uncorrected"}
    asked, strict = week_protocol(corrected.ROWS), week_protocol(corrected.UNSEEN)
    for model in ("logistic", "forest"):
        found.append(line(f"{asked}, paired", model, value, low, high, agree, **change))
        levels = {"uncorrected": (before, before, before), "WDN, last step": after, NOISE: (noise, noise, noise)}
        found += [line(asked, model, *ends, source=source, method=method) for method, ends in levels.items()]
    if unseen is not None:
        found.append(line(f"{strict}, paired", "logistic", *unseen, **change))
    return found


def turn(rise, fall):
    return [
        line(COURSE, measure, *ends, turn=what)
        for what, ends in ((RISE, rise), (FALL, fall))
        for measure in ("accuracy", "silhouette")
    ]


def left(value, low, high, agree=1.0):
    return [line(CARRIED, "gap left", value, low, high, agree, fit="DMSO", step=40, on="taxol 0.3")]


def trained(source, views=9):
    """Lines on the encoder of a source's learned features, with nine cell views in the paper."""
    return [{**line(judging.PREMISE, "", 0, 0, 0), **of, "source": source} for of in premises.budget(source, views, 9)]


CASES = [
    ("batch-falls", week(-0.3, -0.35, -0.25), "reproduced"),
    ("batch-falls", week(-0.3, -0.35, -0.25, unseen=(-0.2, -0.3, -0.1)), "reproduced"),
    ("batch-falls", week(-0.3, -0.35, -0.25, unseen=(-0.1, -0.3, 0.1)), "partly"),
    ("batch-falls", week(-0.1, -0.15, -0.05), "partly"),  # a quarter of what is above noise
    ("batch-falls", week(-0.45, -0.47, -0.43), "partly"),  # below noise
    ("batch-falls", week(-0.45, -0.55, -0.35), "reproduced"),  # at noise, as well as can be told
    ("batch-falls", week(-0.3, -0.35, -0.25)[:4] + week(-0.1, -0.3, 0.1)[4:], "partly"),
    ("batch-falls", week(-0.3, -0.35, -0.25) + week(0.1, 0.0, 0.2, source="t"), "partly"),
    ("batch-falls", week(-0.3, -0.35, -0.25, agree=2 / 3), "not reproduced"),
    ("rises-and-falls", turn((0.1, 0.05, 0.2), (-0.1, -0.2, -0.05)), "reproduced"),
    ("rises-and-falls", turn((0.1, 0.05, 0.2), (0.0, -0.2, 0.05)), "partly"),
    ("rises-and-falls", turn((0.0, -0.1, 0.1), (0.0, -0.1, 0.1)), "not reproduced"),
    ("learned-gain", gains("learned", 0.02, 0.01, 0.1, *LEARNED), "reproduced"),
    ("learned-gain", gains("learned", 0.02, 0.01, 0.1, *LEARNED, agree=2 / 3), "partly"),
    ("learned-gain", gains("learned", 0.02, -0.1, 0.1, *LEARNED), "partly"),
    (
        "learned-gain",
        gains("learned", -0.001, -0.01, 0.01, LEARNED[0], agree=2 / 3)
        + gains("learned", 0.02, 0.01, 0.1, *LEARNED[1:]),
        "reproduced",
    ),
    (
        "learned-gain",
        gains("learned", 0.02, -0.1, 0.1, *LEARNED[:2]) + gains("learned", -0.01, -0.1, 0.1, LEARNED[2]),
        "partly",
    ),
    (
        "learned-gain",
        gains("learned", 0.02, 0.01, 0.1, *LEARNED[:2]) + gains("learned", -0.1, -0.2, -0.01, LEARNED[2]),
        "not reproduced",
    ),
    ("learned-gain", gains("learned", -0.01, -0.1, 0.1, *LEARNED), "not reproduced"),
    ("nothing-to-gain", gains("engineered", 0.005, -0.01, 0.019, *HAND), "reproduced"),
    ("nothing-to-gain", gains("engineered", 0.02, -0.1, 0.1, *HAND), "partly"),  # it cannot be told
    ("nothing-to-gain", gains("engineered", 0.1, 0.05, 0.2, *HAND), "not reproduced"),
    (
        "nothing-to-gain",
        gains("engineered", 0.1, 0.05, 0.2, HAND[0]) + gains("engineered", 0.0, -0.1, 0.01, *HAND[1:]),
        "not reproduced",  # one gain is enough
    ),
    (
        "nothing-to-gain",
        gains("engineered", 0.1, 0.015, 0.2, HAND[0]) + gains("engineered", 0.0, -0.1, 0.01, *HAND[1:]),
        "partly",  # surely above 0, not surely above 2 points
    ),
    ("stopping-holds", gains("learned", -0.005, -0.015, 0.0, *STOP), "reproduced"),
    ("stopping-holds", gains("learned", -0.005, -0.05, 0.02, *STOP), "partly"),  # it cannot be told
    ("stopping-holds", gains("learned", -0.02, -0.05, 0.0, *STOP), "partly"),
    ("stopping-holds", gains("learned", -0.03, -0.05, -0.011, *STOP), "not reproduced"),
    ("generalises", left(0.7, 0.6, 0.8), "reproduced"),
    ("generalises", left(0.7, 0.6, 0.8, agree=2 / 3), "partly"),  # the mean of the intervals says nothing
    ("generalises", left(0.9, 0.7, 1.1, agree=0.0), "partly"),
    ("generalises", left(1.1, 0.9, 1.2, agree=0.0), "not reproduced"),
]


@pytest.mark.parametrize(("claim", "lines", "verdict"), CASES)
def test_verdicts_follow_their_rule_and_need_three_trainings(claim, lines, verdict):
    numbers = pd.DataFrame([*lines, *trained("s"), *trained("t")])
    assert tabak.PREDICATES[claim](numbers).verdict == verdict
    few = tabak.PREDICATES[claim](numbers.assign(trainings=2))
    assert few.verdict == claims.INCOMPARABLE
    assert "3 are needed" in few.evidence
    assert tabak.PREDICATES[claim](numbers.iloc[:0]).verdict == claims.INCOMPARABLE
    without = tabak.PREDICATES[claim](pd.DataFrame(lines))
    assert without.verdict == (verdict if claim == "nothing-to-gain" else claims.UNDECIDED)


def test_sources_whose_encoder_has_hardly_learned_have_no_vote():
    lines = week(-0.3, -0.35, -0.25) + [of | {"family": "engineered"} for of in week(0.1, 0.0, 0.2, source="t")]
    found = tabak.PREDICATES["batch-falls"](pd.DataFrame([*lines, *trained("s", 8)]))
    assert found.verdict == claims.NOT
    assert [part[:2] for part in found.parts] == [("s", claims.UNDECIDED), ("t", claims.NOT)]
    assert "8 of 9 cell views" in found.parts[0][2]


def test_features_of_photographs_have_a_vote_on_what_is_said_of_deep_ones():
    codes = gains("learned", -0.1, -0.2, -0.01, *LEARNED)
    photographs = [of | {"source": "t"} for of in gains("transferred", 0.02, 0.01, 0.1, *LEARNED)]
    found = tabak.PREDICATES["learned-gain"](pd.DataFrame([*codes, *photographs, *trained("s", 8)]))
    assert found.verdict == claims.REPRODUCED
    assert [part[:2] for part in found.parts] == [("s", claims.UNDECIDED), ("t", claims.REPRODUCED)]
    assert "t" not in tabak.PREDICATES["nothing-to-gain"](pd.DataFrame(photographs)).evidence.split()


def test_further_strengths_of_the_week_effect_have_no_vote_on_what_generalises():
    one = pd.DataFrame(left(0.7, 0.6, 0.8))
    others = [one.assign(source=name, main=0, week_effect=effect, trainings=1) for name, effect in (("t", 0), ("u", 2))]
    lines = pd.concat([one.assign(week_effect=1.0), *others, pd.DataFrame(trained("s"))], ignore_index=True)
    found = tabak.PREDICATES["generalises"](lines)
    assert found.verdict == "reproduced"
    assert "3 of 3 trainings" in found.evidence
    alone = tabak.PREDICATES["generalises"](one.assign(week_effect=0.0))
    assert alone.verdict == claims.INCOMPARABLE


def test_a_gap_counts_as_closed_only_in_trainings_whose_interval_is_below_one(run, config, monkeypatch):
    line = {"source": PLANTED, "fit": "DMSO", "measured on": "taxol 0.3", "measure": "gap left", "step": 4}
    rows = [
        {**line, "value": 0.6, "low": 0.5, "high": high, "chance": 0.2, "repeat": r}
        for r, high in enumerate((0.7, 1.2))
    ]
    monkeypatch.setattr(measures, "optional", lambda *_: pd.DataFrame(rows))
    (found,) = measures.carried(run, config)
    assert (found["agree"], found["trainings"]) == (0.5, 2)
    assert found["high"] < 1  # on average it would pass


def test_all_tables_of_the_paper_are_written_down():
    published = claims.load(CLAIMS)
    entries = pd.DataFrame(published["numbers"])
    table = entries["where"].str.extract(r"^Table (\d)")[0].astype(int)
    assert table.value_counts().sort_index().tolist() == [32, 32, 12, 32, 32, 12]
    assert not entries["id"].duplicated().any()
    assert not entries[claims.KEYS].duplicated().any()
    # Every uncorrected one is a fraction with the paper's denominators.
    names = [measures.name(source, corrected.UNCORRECTED) for source in (sources.WELLS, "real cells, VAE+")]
    plain = pick(entries, protocol="tabak2020", setting=names)
    assert len(plain) == 2 * 2 * 4
    scored = {"NSC": (103, 206, 309, 398), "NSCB": (92, 180, 268, 330)}
    for _, entry in plain.iterrows():
        n = scored[entry["measure"]][entry["k"] - 1]
        assert abs(round(entry["value"] * n) / n - entry["value"]) <= 0.0005 + 1e-12
    assert entries[table > 3]["not_comparable"].notna().all()
    # A standard error, in the unit of the value, stands beside every resampled number and no other.
    drawn_again = entries["protocol"].isin(["bootstrap", week_protocol("bootstrap")])
    assert entries["se"].notna().equals(drawn_again)
    assert entries["se"].groupby(table).agg(["count", "min", "max"]).loc[2].tolist() == [16, 0.008, 0.017]
    assert entries.loc[entries["measure"] == "silhouette", "se"].groupby(table).max().tolist() == [0.003, 0.002]
    assert "sd" not in entries
    assert {claim["id"] for claim in published["claims"]} == set(tabak.PREDICATES)


# --- the page -------------------------------------------------------------------------------------------------------


def test_every_table_of_the_page_can_be_made(run, tables):
    numbers, about, verdicts = (tables[name] for name in ("numbers", "sources", "verdicts"))
    made = [
        shown.accuracy_table(numbers, about, PLANTED, "NSCB", verdicts),
        shown.batch_table(numbers, about, PLANTED, verdicts),
        shown.beyond_table(numbers, about),
        shown.paired_table(numbers),
        shown.source_table(about),
        shown.damage_table(numbers),
        shown.stopping_table(numbers),
        shown.variant_table(tables["variants"]),
        shown.week_table(numbers, about),
        shown.bug_table(run.table("bugs")),
        shown.converged_table(drawn.optional(run, "converged"), about),
        evidence_table(tables["claims"], tables.get("evidence")),
    ]
    for table in made:
        assert len(table)
        assert not table.astype(str).apply(lambda column: column.str.contains("nan")).any().any()
    assert "1 training" not in shown.takeaways(tables)
    noise = numbers.query("method == 'noise' and protocol == 'week, folds of rows' and measure == 'logistic'")["value"]
    assert f"(from noise {percent(noise.iloc[0])} %" in shown.takeaways(tables)
    assert "ComBat" in shown.absent(numbers, about)
    assert made[0]["type"].isin(["all wells", "resampled"]).all()
    assert drawn.truth_rows(numbers).empty


def test_accuracy_and_week_of_one_step_stand_beside_each_other(tables):
    (line,) = [one for one in shown.takeaways(tables).splitlines() if "NSC / NSCB" in one]
    parts = line.split("; ")
    assert len(parts) == 3
    for part, method in zip(parts, ("uncorrected", "WDN, max k-NN", "WDN, last step"), strict=True):
        own = pick(tables["numbers"], protocol="tabak2020", measure="NSCB", k=1, method=method)
        assert f"/ {percent(own['value'].iloc[0])}" in part.replace("\N{NO-BREAK SPACE}", " ")
    week = tables["numbers"].query("protocol == 'week, folds of rows' and measure == 'logistic'").set_index("method")
    for part, method in ((parts[0], "uncorrected"), (parts[2], "WDN, last step")):
        assert f"is named in {percent(week.loc[method, 'value'])}" in part.replace("\N{NO-BREAK SPACE}", " ")
    assert "is named" not in parts[1]


@pytest.mark.parametrize(("step", "same", "told"), [(0, 1, True), (0, 0.9, False), (5, 1, False)])
def test_a_rule_that_stays_at_the_start_is_no_correction(step, same, told):
    about = {"method": measures.BEST, "source": "s"}
    values = ((measures.STEP, step), (measures.SAME_STEP, same))
    numbers = pd.DataFrame([line(measures.STOPPING, name, value, np.nan, np.nan, **about) for name, value in values])
    assert ("step 0 for s," in shown.silhouette_at_start(numbers, ["s"])) == told
    assert not shown.silhouette_at_start(numbers, ["t"])


def test_no_standard_error_is_shown_of_fewer_than_twenty_resamples(run, tables, config):
    numbers, about, verdicts = (tables[name] for name in ("numbers", "sources", "verdicts"))
    assert numbers.query("protocol == 'bootstrap'")["draws"].unique() == [4]
    made = [
        shown.accuracy_table(numbers, about, PLANTED, "NSC", verdicts),
        shown.batch_table(numbers, about, PLANTED, verdicts),
    ]
    for table in made:
        assert not table.apply(lambda column: column.str.contains("(", regex=False)).any().any()
    many = numbers.assign(draws=numbers["draws"].where(numbers["draws"].isna(), 20))
    assert shown.accuracy_table(many, about, PLANTED, "NSC", verdicts)["1-NN"].str.contains("(", regex=False).any()
    assert "too few for a standard error" in shown.resampling(config, about, PLANTED)
    assert "4 resamples" in shown.resampling(config, about, PLANTED)


def test_screens_without_a_week_effect_are_not_shown_where_weeks_are_brought_together(run, monkeypatch):
    carry = pd.DataFrame({"source": ["a", "b", "c", "d"], "value": [0.5, 0.7, 0.9, 0.8]})
    effects = pd.DataFrame({"source": ["a", "b", "c", "d"], "week_effect": [np.nan, 0.0, 0.5, 2.0]})
    effects["main"] = [True, True, True, False]
    monkeypatch.setattr(drawn, "optional", lambda *_: carry)
    monkeypatch.setattr(Run, "table", lambda *_: effects)
    assert drawn.carried_rows(run)["source"].tolist() == ["a", "c"]


def test_what_is_restored_stands_by_embedding_and_strength_of_the_week_effect():
    parts = [("classical", "engineered", 0.0, 0.9), ("codes", "learned", 2.0, 0.4)]
    lines = [
        line(measures.RESTORED, "rank correlation", value, value - 0.1, value + 0.1, source=source, family=family,
             method="CORAL", week_effect=effect, null=0.0)
        for source, family, effect, value in parts
    ]  # fmt: skip
    truth = drawn.truth_rows(pd.DataFrame(lines))
    assert truth["embedding"].tolist() == ["classical features", "VAE+"]
    table = shown.truth_table(truth).map(lambda cell: str(cell).replace("\N{NO-BREAK SPACE}", " "))
    assert table.iloc[1].tolist() == ["VAE+", "2.0", "CORAL", "0.400 ± 0.010 [0.300, 0.500]"]


def test_a_gap_left_stands_beside_what_equal_weeks_would_leave():
    numbers = pd.DataFrame(left(0.7, 0.6, 0.8)).assign(null=0.25)
    table = shown.carried_table(pd.concat([numbers, numbers.assign(source="t", week_effect=0.0)], ignore_index=True))
    assert table.iloc[0].str.replace("\N{NO-BREAK SPACE}", " ").tolist() == [
        "s", "DMSO", "0.700 ± 0.010 [0.600, 0.800]", "0.250"
    ]  # fmt: skip
    assert len(table) == 1


@pytest.mark.skipif("tabak2020" not in notebooks.pages(), reason="the page is not in the book")
def test_page_runs_without_data_and_an_edited_number_is_found(tmp_path):
    given = {"preset": "smoke", "screen": "planted", "results": str(tmp_path / "runs")}
    folder, _ = build.run_page("tabak2020", given)
    assert len(list((folder / "figures").glob("*.csv"))) >= 9
    (tmp_path / "book").mkdir()
    build.publish("tabak2020", folder, tmp_path / "book", smoke=True)
    published = tmp_path / "book" / "results" / "tabak2020"
    assert results.verify_page(published) == []
    numbers = pd.read_csv(published / "numbers.csv")
    numbers.loc[0, "value"] += 0.01
    numbers.to_csv(published / "numbers.csv", index=False)
    record = json.loads((published / "page.json").read_text())
    faults = results.verify_page(published)
    assert any("other bytes" in fault for fault in faults)
    assert any("numbers.csv, row 1, value" in fault for fault in faults)
    assert record["page"] == "tabak2020"
