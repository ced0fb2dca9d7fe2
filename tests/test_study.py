"""What all studies share: lines of numbers against slow sums, words, tables beside the paper's, verdicts."""

import numpy as np
import pandas as pd
import pytest

from cellbook import metrics
from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED, UNDECIDED, Verdict, rules
from cellbook.study import judging, measured, pictures, premises, rows, tables, words

DRAWS = rows.Draws(500, 3)


def votes(correct, counted=None, group="aabbcc"):
    return rows.Votes.of(correct, list(group), counted)


def test_average_is_the_mean_of_trainings_with_the_interval_of_the_mean_vote():
    repeats = [votes([1, 0, 1, 1, 0, 0]), votes([1, 1, 1, 1, 0, 1])]
    line = rows.average("s", "p", "NSC", repeats, DRAWS, variant="VAE", **rows.counts(repeats))
    both = np.array([[1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 1]])
    assert line["value"] == pytest.approx(both.mean())
    assert line["sd"] == pytest.approx(both.mean(axis=1).std(ddof=1))
    assert (line["trainings"], line["scored"], line["excluded"], line["variant"]) == (2, 6, 0, "VAE")
    assert line["correct"] == pytest.approx(both.mean(axis=0).sum())
    generator, ends = np.random.default_rng(3), []
    sums = both.mean(axis=0).reshape(3, 2).sum(axis=1)  # by compound
    for draw in generator.multinomial(3, [1 / 3] * 3, size=500):
        ends.append((draw * sums).sum() / (2 * draw.sum()))
    assert (line["low"], line["high"]) == pytest.approx(tuple(np.quantile(ends, [0.025, 0.975])))


def test_one_training_has_no_spread_and_nothing_counted_no_share():
    assert np.isnan(rows.spread([0.5])["sd"])
    assert np.isnan(votes([0] * 6, [0] * 6).share)


def test_difference_looks_at_queries_that_both_count_and_agrees_by_sign():
    left = [votes([1, 1, 0, 0, 1, 1]), votes([0, 1, 0, 0, 0, 0])]
    right = [votes([0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0])] * 2
    line = rows.difference("a - b", "paired", "NSC", left, right, DRAWS, counted=True)
    each = [(1 + 0 - 1 + 0 + 1) / 5, (0 + 0 - 1 + 0 + 0) / 5]
    assert line["value"] == pytest.approx(np.mean(each))
    assert (line["agree"], line["scored"], line["excluded"]) == (0.0 if np.mean(each) == 0 else 0.5, 5, 1)
    alone = rows.gaps(left, right[:1])  # one without chance stands beside each training
    assert [gap.share for gap in alone] == pytest.approx(each)


def test_numbers_have_the_same_columns_first_and_can_leave_some_out():
    table = rows.numbers([rows.row("s", "p", "m", 1, own=2), rows.row("t", "p", "m", 2)], without=("se", "draws"))
    assert table.columns.tolist() == [
        *rows.KEYS, "value", *(name for name in rows.KNOWN if name not in ("se", "draws")), "own"
    ]  # fmt: skip
    assert rows.pick(table, setting=["s", "x"], k=1)["value"].tolist() == [1]
    assert rows.one(table, setting="none") is None
    assert rows.one(table, setting="t")["value"] == 2


def test_repeats_of_a_product_are_told_apart_by_columns():
    table = pd.DataFrame({"variant": list("bbaab"), "repeat": [0, 0, 0, 1, 1], "x": range(5)})
    found = rows.by_repeat(table, "variant")
    assert {key: [part["x"].tolist() for part in parts] for key, parts in found.items()} == {
        ("b",): [[0, 1], [4]], ("a",): [[2], [3]],
    }  # fmt: skip


def test_numbers_in_words():
    line = pd.Series({"value": 0.4567, "low": 0.4, "high": 0.5, "sd": 0.012, "se": 0.02, "draws": np.nan})
    assert words.accuracy(line) == "45.7 ± 1.2 [40, 50]".replace(" ", words.SPACE)
    assert words.accuracy(line.replace({0.012: np.nan})) == "45.7 [40, 50]".replace(" ", words.SPACE)
    drawn = pd.Series({**line, "draws": 100})
    assert words.accuracy(drawn) == "45.7 ± 1.2 (2.0)".replace(" ", words.SPACE)
    assert words.accuracy(pd.Series({**line, "draws": 2})) == "45.7 ± 1.2".replace(" ", words.SPACE)
    assert words.number(line, 2) == "0.46 ± 0.01".replace(" ", words.SPACE)
    assert words.points(line, "gain") == "gain +45.7 points [+40.0, +50.0]"
    verdict = pd.Series({"published": 0.92, "published_sd": np.nan, "published_se": 0.008})
    assert words.printed(verdict) == "92.0 (0.8)".replace(" ", words.SPACE)
    assert words.printed(verdict, 3) == "0.920 (0.008)".replace(" ", words.SPACE)


def line_of(value, low, high, trainings=3):
    return pd.Series({"measure": "NSC", "value": value, "low": low, "high": high, "trainings": trainings})


def test_no_verdict_without_numbers_intervals_or_trainings():
    good = line_of(0.1, 0.0, 0.2)
    assert judging.refused([good, good], 2) is None
    for lines, text in (
        ([good, None], "was not trained"),
        ([good, line_of(0.1, np.nan, 0.2)], "NSC cannot be measured"),
        ([good, line_of(0.1, 0.0, 0.2, trainings=2)], "2 training"),
    ):
        verdict = judging.refused(lines, 2)
        assert verdict.verdict == INCOMPARABLE
        assert text in verdict.evidence
    assert judging.refused([line_of(0.1, np.nan, np.nan)], bounded=False) is None


def test_several_findings_make_one_verdict():
    assert judging.judged([True, True], ["a", "b"]).verdict == REPRODUCED
    assert judging.judged([True, False], ["a"]).verdict == PARTLY
    assert judging.judged([False], ["a"]).verdict == NOT
    assert judging.not_worse([(-0.04, 0.1), (0.0, 0.1)], 0.05, "").verdict == REPRODUCED
    assert judging.not_worse([(-0.06, 0.1)], 0.05, "").verdict == PARTLY
    assert judging.not_worse([(-0.06, 0.1), (-0.2, -0.01)], 0.05, "").verdict == NOT
    found = judging.together({"wells": (REPRODUCED, "x"), "cells": (NOT, "y")})
    assert (found.verdict, found.parts) == (PARTLY, (("wells", REPRODUCED, "x"), ("cells", NOT, "y")))
    assert judging.together({"wells": (NOT, "x")}).verdict == NOT
    assert judging.together({"wells": (NOT, "x"), "cells": (UNDECIDED, "y"), "more": ("shown", "z")}).verdict == NOT
    assert judging.together({"wells": (UNDECIDED, "x"), "more": ("shown", "z")}).verdict == UNDECIDED


def trained(views, changes, gains):
    """Lines on a model, a change of its objective and a lower end of its gain in NSC for each training."""
    gap = [{**line_of(low + 0.1, low, low + 0.2), "measure": judging.gain("NSC")} for low in gains]
    lines = [*premises.budget("VAE", views, 1000), *premises.changes("VAE", changes), *gap]
    return pd.DataFrame(lines).assign(variant="VAE", protocol=judging.PREMISE)


@pytest.mark.parametrize(
    ("views", "changes", "gains", "verdict"),
    [
        (1000, [0.3] * 3, [-0.2] * 3, NOT),  # its whole budget and no better than before the first step: a finding
        (999, [-0.02] * 3, [0.1] * 3, UNDECIDED),  # still falls
        (999, [0.02] * 3, [0.1] * 3, UNDECIDED),  # and so it is if it rises
        (999, [0.001, -0.009, 0.0], [0.1, 0.01, 0.2], NOT),
        (999, [0.001, -0.011, 0.0], [0.1, 0.01, 0.2], UNDECIDED),
        (999, [0.001] * 3, [0.1, -0.01, 0.2], UNDECIDED),  # one training gains nothing
        (999, [0.001] * 3, [0.1] * 2, UNDECIDED),  # nobody knows of one
        (999, [0.001, np.nan, 0.001], [0.1] * 3, UNDECIDED),  # nor of this one
        (999, [], [], UNDECIDED),
    ],
)
def test_no_verdict_without_its_premise(views, changes, gains, verdict):
    claim = judging.needs(["VAE"], ["NSC"])(lambda _: Verdict(NOT, "it does not"))
    found = claim(trained(views, changes, gains))
    assert found.verdict == verdict
    assert found.evidence == "it does not" or found.evidence.startswith(f"VAE: {views} of 1,000 cell views, ")
    assert found.evidence.endswith("it does not")
    assert claim(pd.DataFrame(columns=["protocol", "variant"])).verdict == UNDECIDED  # nobody knows how it was trained


def test_no_premise_is_asked_where_nothing_is_judged_and_every_claim_names_its_own():
    def claim(_):
        """It holds."""
        return Verdict(INCOMPARABLE, "not trained")

    asked = judging.needs(["AE", "VAE"], ["NSC"])(claim)
    assert asked(trained(1, [], [])) == Verdict(INCOMPARABLE, "not trained")
    plain = judging.needs(["AE", "VAE"], [])(claim)
    table = rules({"a": asked, "b": claim, "c": plain}).set_index("id")
    assert table["rule"].tolist() == ["It holds."] * 3
    assert table.loc["a", "premise"].endswith("of AE, VAE; NSC")
    assert table.loc["b", "premise"].startswith("none")
    assert table.loc["c", "premise"].endswith("an objective that has flattened, of AE, VAE")


def test_change_of_an_objective_is_that_of_its_weighted_terms_in_the_last_two_tenths():
    steps = np.arange(1, 101)
    terms = {"pixel": 50.0 + (steps > 90), "kl": np.where(steps > 90, 3.0, 2.0), "discriminator": 1.0 * steps}
    history = pd.DataFrame({"step": steps, **terms}).melt("step", var_name="term")
    assert premises.change(history, {"pixel": 1.0, "kl": 0.0, "feature_1": 1.0}) == pytest.approx(1 / 50)
    assert premises.change(history, {"pixel": 1.0, "kl": 2.0}) == pytest.approx(3 / 54)
    assert np.isnan(premises.change(history[:1], {"pixel": 1.0}))
    assert np.isnan(premises.change(history, {"other": 1.0}))


def test_gain_of_each_training_is_over_the_network_of_its_own_seed():
    after, before = [votes([1, 1, 1, 1, 0, 0]), votes([1] * 6)], [votes([0] * 6), votes([1] * 6)]
    lines = list(premises.gained("VAE", "NSC", after, before, DRAWS, variant="VAE"))
    assert [line["value"] for line in lines] == pytest.approx([4 / 6, 0])
    assert [line["setting"] for line in lines] == ["VAE, training 1", "VAE, training 2"]
    assert {line["measure"] for line in lines} == {judging.gain("NSC")}
    (worse, _) = premises.gained("VAE", "misfit", after, before, DRAWS, lower=True)
    assert worse["value"] == pytest.approx(-4 / 6)
    assert worse["high"] == pytest.approx(-lines[0]["low"])


def test_printed_values_stand_under_the_numbers_of_the_same_name():
    lines = [rows.row("VAE, mean", "p", m, v, low=v, high=v, variant="VAE") for m, v in (("NSC", 0.5), ("NSCB", 0.25))]
    lines.append(rows.row("AE, mean", "p", "NSC", 0.75, low=0.75, high=0.75, variant="AE"))
    numbers = rows.numbers(lines)
    verdicts = pd.DataFrame([{"setting": "VAE, mean", "protocol": "p", "measure": "NSC", "k": 1, "published": 0.9,
                              "published_sd": 0.01, "published_se": np.nan}])  # fmt: skip
    wanted = [({"profile": name}, {"variant": name}) for name in ("VAE", "AE", "GAN")]
    table = tables.beside_paper(numbers, verdicts, wanted, {m: {"measure": m} for m in ("NSC", "NSCB")})
    assert table["profile"].tolist() == ["VAE", "VAE", "AE"]
    assert table["from"].tolist() == ["here", "paper", "here"]
    assert table["NSC"].str.replace(words.SPACE, " ").tolist() == [
        "50.0 [50.0, 50.0]",
        "90.0 ± 1.0",
        "75.0 [75.0, 75.0]",
    ]
    assert table["NSCB"].tolist()[1:] == ["–", "–"]
    assert "from" not in tables.beside_paper(numbers, None, wanted, {"NSC": {"measure": "NSC"}})


def test_rows_of_a_wide_table_stand_in_the_order_of_their_lines():
    order = [("sample", "pooled"), ("screen", "by plate"), ("screen", "pooled"), ("sample", "none")]
    lines = [rows.row("s", "p", m, 0.5, of=of, scaling=to) for of, to in order for m in ("NSC", "NSCB")][:-1]
    table = tables.wide(pd.DataFrame(lines), ["of", "scaling"], words.accuracy)
    assert list(zip(table["of"], table["scaling"], strict=True)) == order
    assert table["NSCB"].tolist() == ["50.0", "50.0", "50.0", "–"]


def test_a_verdict_shows_the_spread_in_print_and_writes_no_silhouette_and_no_error_in_per_cent():
    line = {"where": "Table 1", "protocol": "bootstrap", "published": 0.913, "published_sd": np.nan,
            "published_se": 0.008, "measured": 0.656, "low": 0.563, "high": 0.743,
            "verdict": NOT, "why": ""}  # fmt: skip
    verdicts = pd.DataFrame([{**line, "measure": name} for name in ("NSC", "silhouette", "MSE")])
    table = tables.verdict_table(verdicts).map(lambda text: text.replace(words.SPACE, " "))
    assert table["published"].tolist() == ["91.3 (0.8)", "0.913 (0.008)", "0.91300 (0.00800)"]
    assert table["measured"].tolist() == ["65.6 [56.3, 74.3]", "0.656 [0.563, 0.743]", "0.65600 [0.56300, 0.74300]"]


def test_evidence_stands_by_part_with_its_own_verdict():
    claims = pd.DataFrame(
        [{"id": "a", "sentence": "A.", "verdict": PARTLY, "evidence": "all; of (it): x"},
         {"id": "b", "sentence": "B.", "verdict": NOT, "evidence": "nothing; at all"}]
    )  # fmt: skip
    evidence = pd.DataFrame([("a", "wells; (odd): name", REPRODUCED, "x"), ("a", "cells", NOT, "y")],
                            columns=["id", "part", "verdict", "text"])  # fmt: skip
    table = tables.evidence_table(claims, evidence)
    assert table["profiles"].tolist() == ["wells; (odd): name", "cells", "–"]
    assert table["verdict"].tolist() == [REPRODUCED, NOT, NOT]
    assert table["claim"].tolist() == ["A.", "", "B."]
    assert tables.evidence_table(claims, None)["evidence"].tolist() == claims["evidence"].tolist()


def test_a_property_alone_has_an_interval_over_compounds_where_it_leaves_no_ties():
    generator = np.random.default_rng(0)
    n = 24
    treatments = pd.DataFrame(
        {
            "Metadata_compound": [f"c{i // 2}" for i in range(n)],
            "Metadata_concentration": [float(i % 2) for i in range(n)],
            "Metadata_moa": [f"m{i // 6}" for i in range(n)],
            "Metadata_batch": [f"w{i % 3}" for i in range(n)],
        }
    )
    square = metrics.distance_matrix(generator.normal(size=(n, 4)), "cosine")
    alone = {"cell count alone": generator.normal(size=(n, 1)), "week alone": np.arange(n)[:, None] % 3.0}
    measures = metrics.PROTOCOLS["ljosa2013"].measures
    lines = list(measured.without_profile(treatments, measures, square, alone, rows.Draws(50, 0), DRAWS))
    count = [line for line in lines if line["setting"] == "cell count alone"]
    assert all(line["low"] < line["value"] < line["high"] for line in count)
    week = [line for line in lines if line["setting"] == "week alone"]
    assert all(np.isnan(line["correct"]) for line in week)  # random, as many candidates are equally near


class Products:
    """A run of two trainings of two variants, by its products."""

    def __init__(self, **tables):
        self.tables = tables

    def products(self):
        return [f"{name}.parquet" for name in self.tables]

    def table(self, name):
        return self.tables[name]


def images_of_two():
    generator = np.random.default_rng(1)
    names = [f"{name}, {channel}" for name in measured.BY_CHANNEL for channel in ("DNA", "Actin, red")]
    table = pd.DataFrame(generator.normal(size=(24, 8)), columns=[*names, "made, taken for real", "KL (nats)"])
    table.insert(0, "compound", list("aabbcc") * 4)
    return table.astype(dict.fromkeys(table.columns[1:], np.float32)).assign(
        variant=np.repeat(["new", "old"], 12), repeat=np.tile(np.repeat([0, 1], 6), 2)
    )


def test_images_are_means_over_cells_and_trainings_with_their_channel():
    table = images_of_two()
    table.loc[table["variant"] == "old", "KL (nats)"] = np.nan
    units = pd.DataFrame({"active": [3, 5, 2, 2], "variant": ["new", "new", "old", "old"], "repeat": [0, 1, 0, 1]})
    run = Products(images=table, units=units)
    found = pd.DataFrame(measured.quality(run, DRAWS)).set_index(["variant", "measure"])
    of = found[found["channel"].notna()]["channel"]
    assert len(of) == 12
    assert of["new", "SSIM, Actin, red"] == "Actin, red"
    assert pd.isna(found.loc[("new", "made, taken for real"), "channel"])
    assert ("old", "KL (nats)") not in found.index  # a model without a divergence has no line of it
    single = [part["MSE, DNA"].astype(float).mean() for _, part in table[:12].groupby("repeat")]
    line = found.loc[("new", "MSE, DNA")]
    assert (line["value"], line["sd"]) == pytest.approx((np.mean(single), np.std(single, ddof=1)))
    assert line["low"] < line["value"] < line["high"]
    assert found.loc[("new", "active units"), "value"] == 4
    means = measured.image_means(run)
    assert means["MSE, DNA"].tolist()[:2] == pytest.approx(single)
    assert means["active"].tolist() == [3, 5, 2, 2]


def test_images_are_compared_cell_by_cell():
    table = images_of_two()
    (line,) = measured.compared(Products(images=table), [("new", "old"), ("new", "none")], ["MSE, DNA"], DRAWS)
    left, right = (table[table["variant"] == name]["MSE, DNA"].to_numpy(float).reshape(2, 6) for name in ("new", "old"))
    gaps = (left - right).mean(axis=1)
    assert line["setting"] == "new - old"
    assert (line["value"], line["sd"]) == pytest.approx((gaps.mean(), gaps.std(ddof=1)))
    assert line["agree"] == (np.sign(gaps) == np.sign(gaps.mean())).mean()


def test_weeks_and_truth_have_a_line_a_variant_and_none_where_nothing_is_known():
    weeks = pd.DataFrame({"plate": list("ppqq") * 4, "correct": [True, False, False, False] * 2 + [True] * 8,
                          "majority": 0.25, "noise": 0.2, "variant": ["a"] * 8 + ["b"] * 8,
                          "repeat": ([0] * 4 + [1] * 4) * 2})  # fmt: skip
    truth = pd.DataFrame({"parameter": ["x", "y"] * 2, "kind": ["cell", "nuisance"] * 2, "r2": [0.5, 0.1, 0.7, 0.3],
                          "variant": "a", "repeat": [0, 0, 1, 1]})  # fmt: skip
    run = Products(weeks=weeks, truth=truth)
    lines = pd.DataFrame(measured.weeks(run, DRAWS)).set_index("setting")
    assert lines["value"].to_dict() == {"a": 0.25, "noise": 0.2, "b": 1.0}
    assert (lines.loc["a", "low"], lines.loc["a", "high"]) == (0.0, 0.5)
    known = pd.DataFrame(measured.truth(run))
    assert known[["measure", "kind"]].to_numpy().tolist() == [["x", "cell"], ["y", "nuisance"]]
    assert known["value"].tolist() == pytest.approx([0.6, 0.2])
    assert not [*measured.weeks(Products(), DRAWS), *measured.truth(Products())]


@pytest.mark.parametrize("n", [1, 8, 11])
def test_pictures_come_back_bit_for_bit(tmp_path, n):
    drawn = np.random.default_rng(0).integers(0, 256, (n, 9, 7, 3), np.uint8)
    pictures.save(drawn, tmp_path / "pictures.webp")
    np.testing.assert_array_equal(pictures.load(tmp_path / "pictures.webp", n), drawn)


def test_a_history_for_a_figure_keeps_its_end_and_as_many_steps_of_every_line():
    line = pd.DataFrame({"term": np.repeat(["a", "b"], [1000, 50]), "step": [*range(1000), *range(50)]})
    kept = rows.for_a_figure(line.assign(value=1 / (1 + line["step"])), ["term"], most=100)
    assert kept.groupby("term")["step"].agg(["size", "max"]).to_numpy().tolist() == [[100, 999], [50, 49]]
    np.testing.assert_allclose(kept["value"], 1 / (1 + kept["step"]), rtol=1e-3)
    assert set(kept.loc[kept["term"] == "a", "step"].diff().dropna()) == {10}
