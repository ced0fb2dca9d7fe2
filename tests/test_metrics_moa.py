"""Matching: against a slow loop, scikit-learn, and what must not change the result."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_oracles import random_units, slow_match
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import KNeighborsClassifier

from cellbook.errors import CellbookError
from cellbook.metrics import distance_matrix, match

NSC = ("Metadata_compound",)
NSCB = ("Metadata_compound", "Metadata_batch")
FEATURES = [f"f{i}" for i in range(6)]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(6, 40),
    tied=st.booleans(),
    label=st.sampled_from(["Metadata_moa", "Metadata_batch"]),
    exclude=st.sampled_from([(), NSC, NSCB]),
    k=st.integers(1, 6),
    vote=st.sampled_from(["share", "majority", "pooled"]),
    average=st.sampled_from(["queries", "compounds"]),
    unmatchable=st.sampled_from([(False, False), (True, False), (False, True)]),
)
def test_equals_a_slow_loop(seed, n, tied, label, exclude, k, vote, average, unmatchable):
    table = random_units(seed, n, tied=tied)
    drop, count = unmatchable
    m = match(
        table,
        label=label,
        exclude=exclude,
        k=k,
        vote=vote,
        average=average,
        drop_unmatchable=drop,
        count_unmatchable=count,
    )
    x = table.filter(regex="^f").to_numpy()
    d = np.round(cosine_distances(x), 12)
    accuracy, correct, scored, excluded, predictions = slow_match(
        table, d, label, exclude, k, vote, average, drop, count
    )
    assert (m.correct, m.scored, m.excluded) == (correct, scored, excluded)
    assert m.accuracy == pytest.approx(accuracy, abs=1e-12, nan_ok=True)
    q = m.per_query
    assert [p or None for p in q["predicted"].where(q["excluded"] == "", "")] == predictions
    assert m.n_queries + m.excluded == n
    assert sum(m.excluded_why.values()) == m.excluded
    assert m.confusion.to_numpy().sum() == sum(p is not None for p in predictions)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_leave_one_out_1nn_equals_scikit_learn(distance):
    table = random_units(3, 50)
    x, y = table[FEATURES].to_numpy(), table["Metadata_moa"].to_numpy(dtype=str)
    expected = []
    for i in range(len(x)):
        knn = KNeighborsClassifier(1, metric=distance, algorithm="brute")
        rest = np.arange(len(x)) != i
        expected.append(knn.fit(x[rest], y[rest]).predict(x[i : i + 1])[0])
    m = match(table, exclude=(), distance=distance, vote="majority")
    assert list(m.per_query["predicted"]) == expected


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_rescaling_all_features_changes_nothing(distance, factor):
    table = random_units(4)
    scaled = table.copy()
    scaled[FEATURES] *= factor
    a, b = (match(t, distance=distance, k=3).per_query for t in (table, scaled))
    pd.testing.assert_frame_equal(a.drop(columns="distance"), b.drop(columns="distance"))


def test_cosine_survives_extreme_scales():
    table = random_units(4)
    scaled = table.copy()
    scaled[FEATURES] = scaled[FEATURES].mul(np.where(np.arange(len(table)) % 2, 1e-180, 1e180), axis=0)
    a, b = match(table).per_query, match(scaled).per_query
    assert list(a["neighbour"]) == list(b["neighbour"])


@pytest.mark.parametrize("vote", ["share", "majority", "pooled"])
def test_order_of_rows_changes_nothing_without_ties(vote):
    table = random_units(5)
    shuffled = table.sample(frac=1, random_state=0)
    a = match(table, k=3, vote=vote).per_query.set_index("concentration")
    b = match(shuffled, k=3, vote=vote).per_query.set_index("concentration")
    columns = ["predicted", "neighbour_compound", "neighbour_concentration", "correct", "counted", "excluded"]
    pd.testing.assert_frame_equal(a[columns], b.loc[a.index, columns])


def test_equal_distances_keep_the_order_of_rows():
    table = random_units(0, 8).assign(**{f: 1.0 for f in FEATURES})
    table["Metadata_compound"] = list("aabbccdd")
    assert list(match(table).per_query["neighbour"]) == [2, 2, 0, 0, 0, 0, 0, 0]


def test_zero_rows_are_as_far_from_everything_as_from_orthogonal_ones():
    d = distance_matrix([[0.0, 0.0], [1.0, 2.0], [-2.0, -4.0]])
    np.testing.assert_array_equal(d, [[1, 1, 1], [1, 0, 2], [1, 2, 0]])


def test_equal_rows_are_at_distance_zero_however_large():
    x = np.random.default_rng(0).normal(size=(5, 30)) * 1e8 + 1e9
    d = distance_matrix(np.concatenate([x, x]), "euclidean")
    assert np.all(np.diag(d[:5, 5:]) == 0)
    assert np.all(d[:5, :5][~np.eye(5, dtype=bool)] > 0)


def test_a_stack_of_screens_gives_the_same_distances_as_each_alone():
    x = np.random.default_rng(0).normal(size=(3, 2, 7, 4)) + 5
    for distance in ("cosine", "euclidean"):
        stack = distance_matrix(x, distance)
        assert stack.shape == (3, 2, 7, 7)
        np.testing.assert_array_equal(stack[2, 1], distance_matrix(x[2, 1], distance))


def test_batches_are_sets_and_names_are_whole():
    table = random_units(0, 4)
    table["Metadata_compound"] = list("abcd")
    table["Metadata_moa"] = "m"
    table["Metadata_batch"] = ["Week1|Week3", "Week3", "Week10", "Week1"]
    # Row 0 shares a batch with 1 and 3; Week10 is not Week1.
    assert list(match(table, exclude=NSCB).per_query.loc[[0], "neighbour"]) == [2]
    table["Metadata_batch"] = ["Week1|Week3", "Week3", "Week1|Week2", "Week1"]
    m = match(table, exclude=NSCB)
    assert m.per_query.loc[0, "excluded"] == "no candidate at all"
    assert m.excluded_why == {"no candidate at all": 1}


def test_unmatchable_queries_are_counted_with_the_reason():
    table = random_units(0, 6)
    table["Metadata_compound"] = list("abcdef")
    table["Metadata_moa"] = ["x", "x", "y", "y", "z", "z"]
    table["Metadata_batch"] = ["W1", "W2", "W1", "W2", "W1", "W1"]
    m = match(table, exclude=NSCB)
    assert (m.n_queries, m.excluded) == (4, 2)
    assert m.excluded_why == {"no candidate of the same MOA after excluding same compound and batch": 2}
    table.loc[table.index[1], FEATURES] = table.loc[4, FEATURES].to_numpy()  # the wrong MOA is right at hand
    assert match(table, exclude=NSCB).per_query.loc[1, "predicted"] == "z"
    dropped = match(table, exclude=NSCB, drop_unmatchable=True)
    assert dropped.per_query.loc[1, "predicted"] != "z"
    assert match(table, exclude=NSCB, count_unmatchable=True).scored == 6


def test_perfect_features_score_one():
    table = random_units(1, 40)
    moa = pd.get_dummies(table["Metadata_moa"]).to_numpy(float)
    profiles = pd.concat([table.filter(like="Metadata"), pd.DataFrame(moa * 1e4 + 1).add_prefix("f")], axis=1)
    for vote, k in (("share", 1), ("majority", 1), ("pooled", 4)):
        m = match(profiles, k=k, vote=vote)
        assert m.accuracy == 1.0
        assert m.bootstrap() == (1.0, 1.0)
        assert np.array_equal(m.confusion, np.diag(np.diag(m.confusion)))


def test_precomputed_distances_replace_the_features():
    table = random_units(2)
    d = distance_matrix(table[FEATURES], "euclidean")
    a = match(table, distance="euclidean", k=3, vote="majority")
    b = match(table.filter(like="Metadata"), distances=d, k=3, vote="majority")
    pd.testing.assert_frame_equal(a.per_query, b.per_query)


def test_input_is_not_changed():
    table = random_units(2)
    before = table.copy()
    match(table)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, {"k": 0}, "k=0"),
        ({}, {"k": 1.5}, "k=1.5"),
        ({}, {"vote": "best"}, "vote='best'"),
        ({}, {"average": "mean"}, "average='mean'"),
        ({}, {"distance": "l2"}, "distance='l2'"),
        ({}, {"label": "Metadata_MOA"}, "Metadata_MOA"),
        ({}, {"exclude": ("Metadata_plate",)}, "Metadata_plate"),
        ({}, {"drop_unmatchable": True, "count_unmatchable": True}, "contradict"),
        ({}, {"distances": np.zeros((3, 3))}, "(3, 3)"),
        ({}, {"distances": np.full((40, 40), np.nan)}, "40 of 40 rows"),
        ({"f1": np.nan}, {}, "f1"),
        ({"Metadata_moa": None}, {}, "Metadata_moa is missing in 40 of 40"),
    ],
)
def test_bad_input_is_named(change, options, words):
    with pytest.raises(CellbookError) as error:
        match(random_units(0).assign(**change), **options)
    assert words in str(error.value)


def test_one_row_cannot_be_matched():
    with pytest.raises(CellbookError, match="1 rows"):
        match(random_units(0).head(1))
