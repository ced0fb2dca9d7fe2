"""WDN's evaluation: against metrics.score and match, slow leave-one-compound-out, cells against their means."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.methods import wdn
from cellbook.methods.wdn.alignment import Alignment, Level
from cellbook.methods.wdn.evaluation import nearest, silhouettes, sum_distances
from cellbook.methods.wdn.instances import draw_wells, resample
from cellbook.methods.wdn.stopping import stop
from cellbook.metrics import distance_matrix, match, prepare, protocol, score
from cellbook.metrics import silhouettes as library
from cellbook.profiles import PlateScaler, Whitening

STEPS = [0, 40, 80]


@pytest.fixture(scope="module")
def wells(planted):
    scaled = PlateScaler("standardise", by="Metadata_batch").fit_transform(planted)
    return Whitening(ridge=0.1, relative=True, components=12).fit_transform(scaled)


def random_alignment(names, groups, by="Metadata_batch", seed=0, size=0.3, steps=STEPS, residual=0):
    """Maps that grow from the identity at random."""
    rng = np.random.default_rng(seed)
    n, d = len(names), len(groups)
    grow = np.arange(len(steps))[:, None, None, None] * size
    maps = {
        "M": (np.eye(n) + grow * rng.normal(size=(d, n, n)) / np.sqrt(n)).astype(np.float32),
        "b": (grow[..., 0] * rng.normal(size=(d, n))).astype(np.float32),
    }
    if residual:
        maps["U"] = np.repeat(rng.normal(size=(1, d, n, residual)), len(steps), axis=0).astype(np.float32)
        maps["a"] = np.zeros((len(steps), d, residual), np.float32)
        maps["V"] = (grow * rng.normal(size=(d, residual, n))).astype(np.float32)
    return Alignment(names, (Level(by, groups, np.array(steps), maps),), pd.DataFrame())


@pytest.fixture(scope="module")
def alignment(wells):
    return random_alignment([c for c in wells if c[0] == "w"], sorted(set(wells["Metadata_batch"])))


@pytest.fixture(scope="module")
def cells(wells):
    """Two to six cells a well around its profile, in shuffled order."""
    rng = np.random.default_rng(1)
    rows = wells.loc[np.repeat(wells.index, rng.integers(2, 7, len(wells)))].drop(columns="Metadata_cell_count")
    names = [c for c in rows if c[0] == "w"]
    rows[names] += 0.5 * rng.normal(size=(len(rows), len(names)))
    return rows.sample(frac=1, random_state=0).reset_index(drop=True)


def test_every_checkpoint_has_the_counts_of_the_papers_protocols(wells, alignment):
    found = wdn.evaluate(alignment, wells)
    for name, vote in (("tabak2020", "pooled"), ("tabak2020-plain", "plain")):
        for step in STEPS:
            for one in score(alignment.transform(wells, step), name, resamples=2):
                line = found[
                    (found["step"] == step)
                    & (found["measure"] == one.measure)
                    & (found["k"] == one.k)
                    & (found["vote"] == vote)
                ]
                assert (int(line["correct"].iloc[0]), int(line["scored"].iloc[0])) == (one.correct, one.scored)


def test_step_0_is_exactly_the_uncorrected_table(wells, alignment):
    found = wdn.evaluate(alignment, wells)
    before = found[(found["step"] == 0) & (found["vote"] == "pooled")]
    for one in score(wells, "tabak2020", resamples=2):
        line = before[(before["measure"] == one.measure) & (before["k"] == one.k)]
        assert line["value"].tolist() == [one.accuracy]
    at0 = found[found["step"] == 0].set_index("measure")["value"]
    assert at0["silhouette"] == pytest.approx(library(prepare(wells, "tabak2020").profiles).mean(), abs=1e-12)
    assert at0["change"] == 0
    assert at0["variance"] == 1


def test_denominators_are_those_of_the_papers_tables(wells, alignment):
    found = wdn.evaluate(alignment, wells).query("step == 0 and vote == 'pooled'")
    assert found[found["measure"] == "NSC"]["scored"].tolist() == [103, 206, 309, 398]
    assert found[found["measure"] == "NSCB"]["scored"].tolist() == [92, 180, 268, 330]


@pytest.mark.parametrize("residual", [0, 3])
def test_means_of_mapped_cells_equal_mapped_means(cells, residual):
    names = [c for c in cells if c[0] == "w"]
    moved = random_alignment(names, sorted(set(cells["Metadata_plate"])), "Metadata_plate", residual=residual)
    screen = wdn.make_screen(moved, cells)
    assert screen.cells
    keys = ["Metadata_compound", "Metadata_concentration", "Metadata_batch"]
    fast = wdn.unit_means(screen, range(3))[0]
    for checkpoint, step in enumerate(STEPS):
        slow = moved.transform(cells, step).groupby(keys)[names].mean()
        expected = slow.loc[pd.MultiIndex.from_frame(screen.table[keys])].to_numpy()
        np.testing.assert_allclose(fast[checkpoint], expected, atol=1e-9)


def test_plates_of_one_name_in_two_batches_are_two_plates(wells):
    names = [c for c in wells if c[0] == "w"]
    alike = wells.assign(Metadata_plate="p", Metadata_well=wells.groupby("Metadata_batch").cumcount().astype(str))
    moved = random_alignment(names, sorted(set(wells["Metadata_batch"])))
    assert not wdn.make_screen(moved, alike).cells
    fast, slow = (wdn.unit_means(wdn.make_screen(moved, table), range(3)) for table in (alike, wells))
    np.testing.assert_allclose(fast, slow)


def test_where_nothing_can_be_scored_a_bootstrap_has_no_number(wells):
    alone = wells[wells["Metadata_compound"].eq("DMSO") | ~wells.duplicated(["Metadata_compound"])]
    alone = alone[alone["Metadata_compound"].eq("DMSO") | ~alone.duplicated("Metadata_moa")].reset_index(drop=True)
    scores, course = wdn.bootstrap(wdn.unmoved(alone), alone, n=2, seed=0)
    assert scores.query("measure == 'NSCB'")["value"].isna().all()
    assert course.query("measure == 'NSCB'")["value"].isna().all()


def test_resampled_means_are_means_of_the_rows_drawn_within_wells(cells):
    names = [c for c in cells if c[0] == "w"]
    still = wdn.unmoved(cells)
    screen = wdn.make_screen(still, cells)
    (count,) = resample(screen, 1, seed=3)
    well = pd.Series(count).groupby(screen.stratum)
    np.testing.assert_array_equal(well.sum(), well.size())  # as many cells as each well has
    assert count.max() > 1
    fast = wdn.unit_means(screen, [0], [count])[0, 0]
    rows = np.repeat(np.arange(len(count)), count.astype(int))
    slow = pd.DataFrame(screen.x[rows], columns=names).groupby(screen.unit[rows]).mean().to_numpy()
    np.testing.assert_allclose(fast, slow, atol=1e-10)


def test_silhouettes_without_a_compound_equal_the_library_on_the_rest(wells, alignment):
    screen = wdn.make_screen(alignment, wells)
    means = wdn.unit_means(screen, [0, 2])[0]
    sums = sum_distances(screen, distance_matrix(means))
    names = [c for c in wells if c[0] == "w"]
    for c in (None, 0, 20):
        keep = screen.compounds != c if c is not None else np.ones(103, dtype=bool)
        rest = screen.table[keep].reset_index(drop=True)
        expected = [library(rest.join(pd.DataFrame(m[keep], columns=names))).mean() for m in means]
        np.testing.assert_allclose(silhouettes(screen, sums, c), expected, atol=1e-12)


@pytest.mark.parametrize("rule", ["knn", "silhouette"])
def test_the_choice_without_a_compound_equals_a_slow_loop(wells, alignment, rule):
    screen = wdn.make_screen(alignment, wells)
    means = wdn.unit_means(screen, range(3))
    d = distance_matrix(means)
    found = stop(screen, nearest(screen, d), sum_distances(screen, d), rule)
    names = [c for c in wells if c[0] == "w"]
    tables = [pd.concat([screen.table, pd.DataFrame(m, columns=names)], axis=1) for m in means[0]]
    measures = protocol("tabak2020").measures
    correct = dict.fromkeys([(m.name, m.k) for m in measures], 0)
    compounds = screen.compound_names[::6]
    for compound in compounds:
        criterion = []
        for table in tables:
            rest = table[table["Metadata_compound"] != compound].reset_index(drop=True)
            if rule == "silhouette":
                criterion.append(library(rest).mean())
                continue
            each = {(m.name, m.k): match(rest, **m.arguments()).accuracy for m in measures}
            criterion.append(np.mean(list(each.values())) * 2)
        best = int(np.argmax(criterion))
        place = screen.compound_names.index(compound)
        assert found.chosen[0, place] == best
        for m in measures:
            queries = match(tables[best], **m.arguments()).per_query
            correct[m.name, m.k] += int(queries.loc[queries["compound"] == compound, "correct"].sum())
    if rule == "knn":  # all compounds at the checkpoints chosen, counted query by query
        whole = {(m.name, m.k): [match(t, **m.arguments()).per_query["correct"] for t in tables] for m in measures}
        at = found.chosen[0][screen.compounds]
        for (name, k), per_checkpoint in whole.items():
            expected = sum(int(per_checkpoint[c].iloc[q]) for q, c in enumerate(at))
            assert int(found.correct[name][0, k - 1]) == expected


def test_equal_checkpoints_are_resolved_to_the_first(wells):
    names = [c for c in wells if c[0] == "w"]
    same = random_alignment(names, sorted(set(wells["Metadata_batch"])), size=0.0)
    _, choices = wdn.stopping(same, wells)
    assert (choices["step"] == 0).all()
    assert len(choices) == 3 * 2 * 38


def test_bootstrap_is_paired_by_seed_and_chooses_in_every_resample(wells, alignment):
    scores, course = wdn.bootstrap(alignment, wells, n=6, seed=4)
    alone, _ = wdn.bootstrap(wdn.unmoved(wells), wells, n=6, seed=4)
    keys = ["replicate", "measure", "k"]

    def of(table, rule):
        return table[table["rule"] == rule].set_index(keys)["value"].sort_index()

    pd.testing.assert_series_equal(of(scores, "none"), of(alone, "none"))
    assert (of(scores, "knn") >= 0).all()
    assert scores.groupby(["measure", "k"])["value"].std().min() > 0
    first = course[course["step"] == 0].set_index(keys)["value"].sort_index()
    pd.testing.assert_series_equal(first, of(scores, "none"), check_exact=False)
    assert len(course) == 6 * len(STEPS) * 9


def test_shuffled_mechanisms_fall_to_chance(wells, alignment):
    kinds = wells[["Metadata_compound", "Metadata_moa"]].drop_duplicates()
    kinds = kinds[kinds["Metadata_compound"] != "DMSO"]
    values = []
    for seed in range(5):
        dealt = dict(
            zip(kinds["Metadata_compound"], kinds["Metadata_moa"].sample(frac=1, random_state=seed), strict=True)
        )
        shuffled = wells.assign(Metadata_moa=wells["Metadata_compound"].map(dealt).fillna("DMSO"))
        found = wdn.evaluate(alignment, shuffled).query("measure == 'NSC' and k == 1 and vote == 'pooled'")
        values.append(found["value"].iloc[0])
    assert np.mean(values) < 0.3


def test_shrinking_maps_show_as_lost_variance(wells):
    names = [c for c in wells if c[0] == "w"]
    still = wdn.unmoved(wells)
    level = still.levels[0]
    halved = {"M": np.concatenate([level.maps["M"], level.maps["M"] / 2]), "b": np.zeros((2, 10, 12), np.float32)}
    shrunk = Alignment(names, (Level(level.by, level.names, np.array([0, 40]), halved),), pd.DataFrame())
    found = wdn.evaluate(shrunk, wells).query("step == 40").set_index("measure")["value"]
    assert found["variance"] == pytest.approx(0.25)
    assert found["change"] == pytest.approx(np.sqrt(12) / 2)
    assert found["gap"] == pytest.approx(wdn.evaluate(still, wells).set_index("measure")["value"]["gap"])


def test_held_out_plates_are_some_of_every_week_and_never_all(wells):
    out = wdn.hold_out_plates(wells, share=0.5, seed=1)
    plates = wells.assign(out=out).groupby(["Metadata_batch", "Metadata_plate"])["out"].agg(["min", "max"])
    assert (plates["min"] == plates["max"]).all()
    share = plates["max"].groupby("Metadata_batch").mean()
    assert share.between(0.3, 0.7).all()
    one = wells[wells["Metadata_plate"].isin(wells.groupby("Metadata_batch")["Metadata_plate"].first())]
    with pytest.raises(CellbookError, match="one plate only"):
        wdn.hold_out_plates(one)


def test_plates_of_one_name_in_two_weeks_are_held_out_one_by_one(wells):
    number = wells.groupby("Metadata_batch")["Metadata_plate"].transform(lambda plates: pd.factorize(plates)[0])
    renamed = wells.assign(Metadata_plate="P" + number.astype(str))
    assert (wdn.hold_out_plates(renamed, seed=1) == wdn.hold_out_plates(wells, seed=1)).all()


def test_a_run_is_made_once_and_evaluated_from_its_maps(wells, tmp_path):
    config = replace(wdn.PRESETS["smoke"], pretraining=5)
    first = wdn.run(wells, config, tmp_path, device="cpu")
    again = wdn.run(wells, config, tmp_path, device="cpu")
    assert first.folder == again.folder
    assert first.key != wdn.run(wells, replace(config, seed=1), tmp_path, device="cpu").key
    pd.testing.assert_frame_equal(first.table("checkpoints"), wdn.evaluate(wdn.load(first), wells))


@pytest.mark.data
def test_the_real_screen_has_the_papers_eligible_queries(ljosa):
    scaled = PlateScaler("percentile", on_constant="drop").fit_transform(ljosa)
    found = wdn.evaluate(wdn.unmoved(scaled), scaled).query("vote == 'pooled' and k == 1")
    assert found.set_index("measure")["scored"].to_dict() == {"NSC": 103, "NSCB": 92}


def test_wells_are_drawn_within_their_unit_and_equally_often():
    unit = np.array([2, 0, 1, 0, 2, 2, 3, 0, 2])
    draws = draw_wells(unit, 20_000, seed=1)
    assert np.array_equal(unit[draws], np.tile(unit, (20_000, 1)))
    assert (draws[:, 6] == 6).all()
    often = np.bincount(draws[:, 4], minlength=9) / 20_000
    np.testing.assert_allclose(often[[0, 4, 5, 8]], 0.25, atol=0.015)
    assert abs(np.corrcoef(draws[:, 1], draws[:, 3])[0, 1]) < 0.03
