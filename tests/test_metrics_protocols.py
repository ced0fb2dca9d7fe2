"""The papers' protocols: their denominators, ceilings and aggregation, and tables that must be refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from metrics_oracles import random_units, slow_match

from cellbook.errors import CellbookError
from cellbook.metrics import PROTOCOLS, as_json, describe, distance_matrix, match, protocol, score
from cellbook.metrics.units import natural, prepare
from cellbook.screens.bbbc021 import treatments

LJOSA = PROTOCOLS["ljosa2013"]
POOLED = {"NSC": [103, 206, 309, 398], "NSCB": [92, 180, 268, 330]}
PLAIN = {"NSC": [103, 206, 309, 412], "NSCB": [92, 184, 276, 368]}


def design_table() -> pd.DataFrame:
    """Give the 103 treatments random features."""
    table = treatments().add_prefix("Metadata_").rename(columns={"Metadata_week": "Metadata_batch"})
    x = np.random.default_rng(0).normal(size=(len(table), 8)) * 10.0 ** np.arange(-4, 4) + 3
    return pd.concat([table, pd.DataFrame(x).add_prefix("f")], axis=1)


def perfect_table() -> pd.DataFrame:
    """Give each treatment its MOA as features, so that distances within an MOA are zero."""
    table = design_table().filter(like="Metadata")
    return pd.concat([table, pd.get_dummies(table["Metadata_moa"]).astype(float).add_prefix("f")], axis=1)


def by_measure(scores, value):
    found: dict[str, list] = {}
    for s in scores:
        found.setdefault(s.measure, []).append(getattr(s, value))
    return found


@pytest.mark.parametrize(
    ("name", "scored", "excluded"),
    [
        ("ljosa2013", {"NSC": [103], "NSCB": [92]}, {"NSC": [0], "NSCB": [11]}),
        ("goldsborough2017", {"NSC": [103]}, {"NSC": [0]}),
        ("caicedo2018", {"NSC": [103], "NSCB": [92]}, {"NSC": [0], "NSCB": [11]}),
        (
            "glastonbury2018",
            {"MOA": [92], "week": [92], "MOA-NSC": [92], "week-NSC": [88]},
            {"MOA": [0], "week": [0], "MOA-NSC": [0], "week-NSC": [4]},
        ),
        ("lafarge2019", {"NSC": [103], "NSCB": [92]}, {"NSC": [0], "NSCB": [11]}),
        ("tabak2020", POOLED, {"NSC": [0] * 4, "NSCB": [11] * 4}),
        ("tabak2020-plain", PLAIN, {"NSC": [0] * 4, "NSCB": [11] * 4}),
    ],
)
def test_denominators_follow_from_the_design(name, scored, excluded):
    scores = score(design_table(), name, resamples=10)
    assert by_measure(scores, "scored") == scored
    assert by_measure(scores, "excluded") == excluded


@pytest.mark.data
def test_denominators_and_chance_hold_on_the_real_wells(ljosa):
    scores = score(ljosa, "tabak2020", resamples=10)
    assert by_measure(scores, "scored") == POOLED
    nsc = score(ljosa, "ljosa2013", resamples=10)
    assert [s.match.n_queries for s in nsc] == [103, 92]
    # Unscaled features know the mechanism better than chance (0.08) and worse than scaled ones.
    assert 0.2 < nsc[0].accuracy < 0.8


def test_best_attainable_accuracies_are_those_of_the_metadata():
    """With perfect features a fixed k stays below 1 where an MOA has few candidates; pooling with a cut k does not."""
    pooled = by_measure(score(perfect_table(), "tabak2020", resamples=10), "accuracy")
    plain = by_measure(score(perfect_table(), "tabak2020-plain", resamples=10), "accuracy")
    assert pooled == {"NSC": [1.0] * 4, "NSCB": [1.0] * 4}
    assert np.round(plain["NSC"], 3).tolist() == [1, 1, 1, 0.966]
    assert np.round(plain["NSCB"], 3).tolist() == [1, 0.978, 0.971, 0.897]


def test_unmatchable_treatments_stay_candidates_except_in_caicedo2018():
    """11 of 103 treatments cannot be scored by NSCB; one of them placed next to a query changes ljosa2013 alone."""
    table = perfect_table()
    query = table.index[(table["Metadata_compound"] == "taxol") & (table["Metadata_concentration"] == 1.0)][0]
    distractor = table.index[table["Metadata_moa"] == "Kinase inhibitors"][0]
    features = table.filter(regex="^f").columns
    table.loc[[query, distractor], features] = np.ones((2, len(features)))
    ljosa, caicedo = (score(table, name, resamples=10)[1].match.per_query for name in ("ljosa2013", "caicedo2018"))
    assert ljosa.loc[query, "predicted"] == "Kinase inhibitors"
    assert caicedo.loc[query, "predicted"] != "Kinase inhibitors"
    assert (ljosa["neighbour"] == distractor).any()
    scored = caicedo["excluded"] == ""
    assert not caicedo.loc[scored, "neighbour_label"].isin(["Kinase inhibitors", "Cholesterol-lowering"]).any()


def test_glastonbury_null_accuracies_are_those_of_the_paper():
    scores = score(design_table(), "glastonbury2018", resamples=10)
    assert by_measure(scores, "null") == {
        "MOA": [14 / 92],
        "week": [29 / 92],
        "MOA-NSC": [14 / 92],
        "week-NSC": [29 / 88],
    }
    assert "11 treatments" in scores[0].notes[0]
    assert "Cholesterol-lowering" in scores[0].notes[0]


def test_knowing_the_compound_alone_gives_the_week_of_86_of_92_treatments():
    """Six compounds have one dose: nothing of the same compound is left to tell their week."""
    table = prepare(design_table(), replace(LJOSA, drop_one_batch_moas=True)).profiles
    week5 = table["Metadata_batch"] == "Week5"  # three doses of one compound: ties go to a week none of the six is from
    table = pd.concat([table[week5], table[~week5]], ignore_index=True)
    compound = table["Metadata_compound"].to_numpy()
    m = match(table, label="Metadata_batch", exclude=(), distances=compound[:, None] != compound[None, :])
    assert (m.correct, m.scored, m.excluded) == (86, 91, 1)


def wells_of(units: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Make 1 to 4 noisy wells of every unit, with cell counts, in random order."""
    rng = np.random.default_rng(seed)
    repeats = rng.integers(1, 5, len(units))
    wells = units.loc[units.index.repeat(repeats)].reset_index(drop=True)
    features = wells.filter(regex="^f").columns
    wells[features] += rng.normal(size=(len(wells), len(features))) * wells[features].std().to_numpy()
    wells["Metadata_cell_count"] = rng.integers(1, 400, len(wells))
    wells["Metadata_plate"] = [f"p{i % 7}" for i in range(len(wells))]
    wells["Metadata_well"] = [f"A{i:03d}" for i in range(len(wells))]
    return wells.sample(frac=1, random_state=seed, ignore_index=True)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_score_equals_aggregating_by_hand_and_matching_slowly(name):
    p = PROTOCOLS[name]
    wells = wells_of(random_units(7, 45))
    wells["Metadata_batch"] = wells["Metadata_batch"].str.split("|").str[0]
    features = list(wells.filter(regex="^f").columns)
    groups: dict[tuple, list[int]] = {}
    for i, row in wells.iterrows():
        groups.setdefault(tuple(row[c] for c in p.unit), []).append(i)
    rows = []
    for members in groups.values():
        part = wells.loc[members]
        x = part[features].to_numpy()
        if p.statistic == "median":
            values = np.median(x, axis=0)
        else:
            w = part["Metadata_cell_count"].to_numpy() if p.weight else np.ones(len(part))
            values = (x * w[:, None]).sum(axis=0) / w.sum()
        first = part.iloc[0].filter(like="Metadata")
        first["Metadata_batch"] = "|".join(sorted(set(part["Metadata_batch"])))
        rows.append(pd.concat([first, pd.Series(values, features)]))
    table = pd.DataFrame(rows).reset_index(drop=True)
    if p.drop_one_batch_moas:
        assert table.groupby("Metadata_moa")["Metadata_batch"].nunique().min() > 1
    d = distance_matrix(table[features].to_numpy(float), p.distance)
    for s, m in zip(score(wells, p, resamples=10), p.measures, strict=True):
        expected = slow_match(
            table, d, m.label, m.exclude, m.k, m.vote, m.average, m.drop_unmatchable, m.count_unmatchable
        )
        assert (s.correct, s.scored, s.excluded) == expected[1:4]
        assert s.accuracy == pytest.approx(expected[0], abs=1e-12, nan_ok=True)


def test_controls_never_become_units_or_candidates():
    wells = wells_of(random_units(1, 30))
    dmso = wells.head(9).assign(
        Metadata_compound="DMSO", Metadata_concentration=np.nan, Metadata_moa="DMSO", Metadata_well="B02"
    )
    both = pd.concat([dmso, wells], ignore_index=True)
    for name in ("ljosa2013", "tabak2020"):
        assert as_json(score(both, name, resamples=10)) == as_json(score(wells, name, resamples=10))


def test_unit_rows_are_taken_as_they_are_and_distances_can_replace_features():
    table = design_table()
    dmso = table.head(1).assign(Metadata_compound="DMSO", Metadata_moa="DMSO")
    table = pd.concat([dmso, table], ignore_index=True)
    for name in ("caicedo2018", "glastonbury2018"):
        p = protocol(name)
        d = distance_matrix(table.filter(regex="^f"), p.distance)
        given = score(table.filter(like="Metadata"), p, distances=d, resamples=10)
        assert as_json(given) == as_json(score(table, p, resamples=10))


def test_weights_are_cells_where_counts_are_known():
    wells = wells_of(random_units(1, 30))
    weighted, plain = (score(w, "goldsborough2017")[0] for w in (wells, wells.drop(columns="Metadata_cell_count")))
    assert not any("no column" in note for note in weighted.notes)
    assert "no column Metadata_cell_count" in plain.notes[0]


def test_a_treatment_of_several_batches_counts_for_the_one_with_most_wells():
    wells = wells_of(random_units(1, 30))
    wells["Metadata_batch"] = np.where(wells["Metadata_compound"].str[-1].isin(list("123")), "Week1", "Week7")
    taxol = wells.head(5).assign(Metadata_compound="taxol", Metadata_concentration=0.3, Metadata_moa="m1")
    taxol["Metadata_batch"] = ["Week10", "Week2", "Week10", "Week2", "Week3"]
    taxol["Metadata_well"] = [f"T{i}" for i in range(5)]
    all_wells = pd.concat([wells, taxol], ignore_index=True)
    u = prepare(all_wells, replace(LJOSA, statistic="mean", one_batch_each=True))
    assert u.profiles.set_index("Metadata_compound").loc["taxol", "Metadata_batch"] == "Week2"
    assert "1 of 31 treatments lie in several batches (most: taxol 0.3, in 3)" in u.notes[0]
    joined = prepare(all_wells, LJOSA).profiles.set_index("Metadata_compound").loc["taxol", "Metadata_batch"]
    assert joined == "Week10|Week2|Week3"
    assert sorted(["Week10", "Week2", "W1"], key=natural) == ["W1", "Week2", "Week10"]


def test_nothing_to_score_is_said_not_raised():
    table = design_table().assign(Metadata_batch="Week1")
    nscb = score(table, "ljosa2013", resamples=10)[1]
    assert (nscb.scored, nscb.excluded) == (0, 103)
    assert "nothing can be scored" in nscb.notes[0]
    assert as_json([nscb])[0]["accuracy"] is None
    with pytest.raises(CellbookError, match="each of the 12 MOAs occurs in one batch only"):
        score(table, "glastonbury2018")


def test_as_json_survives_a_round_trip_and_keeps_the_counts():
    rows = as_json(score(design_table(), "glastonbury2018", resamples=50))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert {"measure", "k", "accuracy", "correct", "scored", "excluded", "interval"} <= set(rows[0])
    assert all(r["interval"][0] <= r["accuracy"] <= r["interval"][1] for r in rows)
    assert rows[0]["accuracy"] == rows[0]["correct"] / rows[0]["scored"]


def test_every_protocol_describes_itself():
    for name, p in PROTOCOLS.items():
        rows = dict(describe(name))
        assert p.name == name
        assert rows["measures"] == ", ".join(dict.fromkeys(m.name for m in p.measures))
        assert {"paper", "unit", "aggregation", "controls", "treatments", "distance", "k", "vote", "average"} <= set(
            rows
        )
        assert len({(m.name, m.k) for m in p.measures}) == len(p.measures)
        assert all(what and how for what, how in rows.items())
    assert dict(describe("tabak2020"))["k"] == "1 to 4"
    excluded = dict(describe("ljosa2013"))["excluded candidates"]
    assert excluded == "NSC: same compound; NSCB: same compound or same batch"
    assert (
        "NSCB: those with a right candidate (the others are no" in dict(describe("caicedo2018"))["queries that count"]
    )
    assert dict(describe("glastonbury2018"))["label"] == "MOA, MOA-NSC: MOA; week, week-NSC: batch"


def test_a_misspelt_protocol_gets_a_suggestion():
    with pytest.raises(CellbookError, match=r"did you mean 'caicedo2018'\? The protocols are ljosa2013"):
        score(design_table(), "caicedo")


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda t: t.rename(columns={"Metadata_compound": "Metadata_Compound"}), {}, "rename 'Metadata_Compound'"),
        (lambda t: t.rename(columns={"Metadata_moa": "moa"}), {}, "rename 'moa' to 'Metadata_moa'"),
        (lambda t: t.filter(like="Metadata"), {}, "no feature"),
        (lambda t: t.assign(f1=t["f1"].where(t.index > 4)), {}, "'f1'"),
        (lambda t: t.assign(f1=np.inf), {}, "drop_unusable=True"),
        (lambda t: t.assign(f1=2.0), {}, "same value in all 103 rows"),
        (lambda t: t.assign(Metadata_moa=t["Metadata_moa"].where(t.index > 2)), {}, "missing in 3 of 103"),
        (lambda t: t.assign(Metadata_moa=t["Metadata_moa"].where(t.index > 2)), {}, "drop_unlabelled=True"),
        (lambda t: t.assign(Metadata_concentration=np.nan), {}, "Metadata_concentration is missing in 103"),
        (lambda t: t.assign(Metadata_batch=None), {}, "Metadata_batch is missing in 103"),
        (lambda t: t.assign(Metadata_compound="DMSO"), {}, "none of 103 rows"),
        (lambda t: t.assign(Metadata_compound=t["Metadata_compound"].replace("taxol", "dmso")), {}, "'dmso' in 3"),
        (lambda t: pd.concat([t, t.head(2).assign(Metadata_moa="other")]), {}, "2 of 103 treatments"),
        (
            lambda t: pd.concat([t := t.assign(Metadata_plate="p", Metadata_well=list(map(str, t.index))), t.head(2)]),
            {},
            "4 of 105 rows are duplicate wells",
        ),
        (
            lambda t: t.assign(Metadata_plate="p", Metadata_well=["B02"] * 2 + list(map(str, t.index[2:]))),
            {},
            "1 wells hold two treatments, first p B02",
        ),
        (lambda t: pd.concat([t, t]), {"distances": np.zeros((206, 206))}, "206 rows, but these are 103 units"),
    ],
)
def test_tables_that_would_mislead_are_refused_with_the_mend(change, options, words):
    with pytest.raises(CellbookError) as error:
        score(change(design_table()), "ljosa2013", **options)
    assert words in str(error.value)


def test_dropping_on_request_is_noted():
    table = design_table()
    table["f1"] = np.nan
    table.loc[3, "Metadata_moa"] = None
    s = score(table, "ljosa2013", drop_unlabelled=True, drop_unusable=True, resamples=10)[0]
    assert s.scored == 102
    assert "1 rows without MOA" in s.notes[0]
    assert "1 features with NaN" in s.notes[1]
