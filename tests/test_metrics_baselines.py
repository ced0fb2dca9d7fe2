"""Baselines: against repeated matching, and closed forms."""

import numpy as np
import pandas as pd
import pytest
from metrics_oracles import random_units

from cellbook.errors import CellbookError
from cellbook.metrics import Measure, chance, distance_matrix, expected_under_ties, majority, match, one_feature
from cellbook.metrics.moa import factorize

NSCB = ("Metadata_compound", "Metadata_batch")
MEASURES = [
    Measure("a"),
    Measure("b", exclude=NSCB, drop_unmatchable=True),
    Measure("c", exclude=(), k=3, vote="majority", count_unmatchable=True),
    Measure("d", exclude=NSCB, k=4, vote="pooled", average="compounds"),
]


@pytest.mark.parametrize("measure", MEASURES)
def test_chance_equals_matching_permuted_labels(measure, monkeypatch):
    monkeypatch.setattr("cellbook.metrics.baselines.CHUNK", 7)
    table = random_units(3, 30)
    codes, names = factorize(table["Metadata_moa"])
    expected = []
    rng = np.random.default_rng(2)
    for labels in [rng.permutation(codes) for _ in range(10)]:
        relabelled = table.assign(Metadata_moa=np.array(names)[labels])
        expected.append(match(relabelled, **measure.arguments()).accuracy)
    found = chance(table, measure, n=10, seed=2)
    np.testing.assert_array_equal(found, expected)


def test_labels_at_random_bring_perfect_features_down_to_chance():
    table = random_units(1, 39)
    moa = pd.get_dummies(table["Metadata_moa"]).astype(float).add_prefix("f")
    profiles = pd.concat([table.filter(like="Metadata"), moa], axis=1)
    assert match(profiles).accuracy == 1.0
    found = chance(profiles, n=400)
    frequency = table["Metadata_moa"].value_counts(normalize=True).to_numpy()
    assert found.mean() == pytest.approx(np.square(frequency).sum(), abs=0.05)
    assert found.mean() < np.quantile(found, 0.95) < 0.6


def test_ties_broken_at_random_have_the_closed_form_of_equal_distances():
    table = random_units(4, 30)
    d = np.zeros((30, 30))
    same = table["Metadata_moa"].to_numpy()[:, None] == table["Metadata_moa"].to_numpy()[None, :]
    eligible = table["Metadata_compound"].to_numpy()[:, None] != table["Metadata_compound"].to_numpy()[None, :]
    scored = (same & eligible).any(axis=1)
    share = (same & eligible).sum(axis=1) / eligible.sum(axis=1)
    found = expected_under_ties(table, distances=d, n=4000)
    assert found.mean() == pytest.approx(share[scored].mean(), abs=0.01)


def test_ties_broken_at_random_equal_matching_shuffled_rows():
    table = random_units(6, 24)
    measure = Measure("x", k=3, vote="majority")
    distances = table["Metadata_batch"].to_numpy()[:, None] != table["Metadata_batch"].to_numpy()[None, :]
    values = []
    for seed in range(300):
        rows = np.random.default_rng(seed).permutation(24)
        values.append(match(table.iloc[rows], distances=distances[np.ix_(rows, rows)], **measure.arguments()).accuracy)
    found = expected_under_ties(table, measure, by="Metadata_batch", n=3000)
    assert found.mean() == pytest.approx(np.mean(values), abs=0.015)
    assert found.std() == pytest.approx(np.std(values), rel=0.2)


def test_without_ties_the_order_does_not_matter():
    table = random_units(6)
    d = distance_matrix(table.filter(regex="^f"))
    found = expected_under_ties(table, distances=d, n=20)
    assert found.std() == pytest.approx(0, abs=1e-12)
    assert found.mean() == pytest.approx(match(table).accuracy)


def test_one_feature_matches_by_absolute_difference():
    table = random_units(2).assign(Metadata_cell_count=np.random.default_rng(0).integers(0, 50, 40))
    count = table["Metadata_cell_count"].to_numpy()
    expected = match(table, distances=np.abs(count[:, None] - count[None, :]))
    assert one_feature(table).per_query["neighbour"].tolist() == expected.per_query["neighbour"].tolist()
    with pytest.raises(CellbookError, match="Metadata_cell_count is not a finite number in 3 of 40"):
        one_feature(table.assign(Metadata_cell_count=table["Metadata_cell_count"].where(table.index > 2)))


def test_majority_is_the_largest_share():
    table = pd.DataFrame({"Metadata_moa": ["a", "b", "b", None, "b"]})
    assert majority(table) == 0.75
    with pytest.raises(CellbookError, match="missing in all 5"):
        majority(table.assign(Metadata_moa=None))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: chance(t, n=0), "n=0"),
        (lambda t: expected_under_ties(t), "either by="),
        (lambda t: expected_under_ties(t, by="Metadata_position"), "Metadata_position"),
        (lambda t: chance(t.drop(columns="Metadata_moa")), "Metadata_moa"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(CellbookError) as error:
        call(random_units(0))
    assert words in str(error.value)
