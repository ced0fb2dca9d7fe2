"""Retrieval: average precision by scikit-learn, rules for pairs by a slow loop."""

import itertools

import numpy as np
import pandas as pd
import pytest
from metrics_oracles import random_units, shares
from scipy.stats import false_discovery_control
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from cellbook.errors import CellbookError
from cellbook.metrics import (
    activity,
    consistency,
    consistency_across_batches,
    percent_replicating,
    precision_of_treatments,
    random_precision,
)

SMALL = {"null_size": 200}


def random_wells(seed: int = 0, effect: float = 1.0) -> pd.DataFrame:
    """Make 12 treatments of one to four wells and 3 controls on each of 4 plates; uncentred, on unlike scales."""
    rng = np.random.default_rng(seed)
    treatment = np.repeat(np.arange(12), [1, 2, 3, 4] * 3)
    n = len(treatment)
    x = effect * rng.normal(size=(12, 8))[treatment] + rng.normal(size=(n, 8))
    treated = pd.DataFrame(
        {
            "Metadata_compound": [f"c{t // 2}" for t in treatment],
            "Metadata_concentration": (treatment % 2).astype(float),
            "Metadata_plate": [f"p{i}" for i in rng.integers(0, 4, n)],
        }
    )
    controls = pd.DataFrame(
        {"Metadata_compound": "DMSO", "Metadata_concentration": np.nan, "Metadata_plate": np.repeat(list("abcd"), 3)}
    )
    controls["Metadata_plate"] = [f"p{i // 3}" for i in range(12)]
    table = pd.concat([treated, controls], ignore_index=True)
    features = np.concatenate([x, rng.normal(size=(12, 8))]) * 10.0 ** rng.integers(-2, 3, 8) + 0.5
    table = pd.concat([table, pd.DataFrame(features).add_prefix("f")], axis=1)
    return table.sample(frac=1, random_state=seed, ignore_index=True)


def slow_precision(table, right, wrong):
    """Average precision of every row by scikit-learn; NaN without right or without wrong candidates."""
    similarity = cosine_similarity(table.filter(regex="^f").to_numpy())
    values, positives, pairs = [], [], []
    for i in range(len(table)):
        candidates = [j for j in range(len(table)) if j != i and (right(i, j) or wrong(i, j))]
        truth = [right(i, j) for j in candidates]
        usable = 0 < sum(truth) < len(truth)
        values.append(average_precision_score(truth, similarity[i, candidates]) if usable else np.nan)
        positives.append(sum(truth) if usable else 0)
        pairs.append(len(truth) if usable else 0)
    return pd.DataFrame({"value": values, "positives": positives, "pairs": pairs})


def check(found, table, by, oracle):
    expected = oracle.groupby([table[c] for c in by], sort=False).agg(
        value=("value", "mean"), scored=("value", "count"), positives=("positives", "sum"), pairs=("pairs", "sum")
    )
    found = found.set_index(by)
    np.testing.assert_allclose(found["mean_average_precision"], expected.loc[found.index, "value"], atol=1e-5)
    for column in ("scored", "positives", "pairs"):
        assert found[column].tolist() == expected.loc[found.index, column].tolist()
    assert ((found["excluded"] == "") == (found["scored"] > 0)).all()
    tested = found.dropna(subset="p_value")
    assert len(tested) == (expected["scored"] > 0).sum()
    np.testing.assert_allclose(tested["q_value"], false_discovery_control(tested["p_value"]))
    assert tested["p_value"].between(1 / 201, 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_activity_equals_scikit_learn(seed):
    wells = random_wells(seed)
    treated = wells[wells["Metadata_compound"] != "DMSO"]
    compound, plate = wells["Metadata_compound"], wells["Metadata_plate"]
    key = list(zip(compound, wells["Metadata_concentration"], strict=True))
    oracle = slow_precision(
        wells,
        lambda i, j: compound[i] != "DMSO" and key[i] == key[j],
        lambda i, j: (compound[i] == "DMSO") != (compound[j] == "DMSO") and plate[i] == plate[j],
    )
    by = ["Metadata_compound", "Metadata_concentration"]
    found = activity(wells, **SMALL)
    assert len(found) == 12
    check(found, treated, by, oracle.loc[treated.index])
    single = found[found["rows"] == 1]
    assert len(single) == 3
    assert set(single["excluded"]) == {"no second well"}


def test_activity_without_a_control_on_the_plate_is_reported():
    wells = random_wells()
    wells.loc[wells["Metadata_compound"] == "c1", "Metadata_plate"] = "p9"
    found = activity(wells, **SMALL).set_index("Metadata_compound")
    assert set(found.loc["c1", "excluded"]) == {"no control well on its plates"}
    assert found.loc["c1", "mean_average_precision"].isna().all()
    wells.loc[wells["Metadata_compound"] != "DMSO", "Metadata_plate"] = "p9"
    nothing = activity(wells, **SMALL)
    assert (nothing["scored"] == 0).all()
    assert set(nothing["excluded"]) == {"no second well", "no control well on its plates"}


def test_strong_treatments_are_active_and_absent_ones_are_not():
    strong = activity(random_wells(effect=20.0).assign(f7=0.1), **SMALL)
    absent = activity(random_wells(effect=0.0).assign(f7=0.1), **SMALL)
    assert (strong["q_value"].dropna() < 0.05).mean() > 0.8
    assert (absent["q_value"].dropna() < 0.05).mean() < 0.3


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_consistency_equals_scikit_learn(seed, across):
    table = random_units(seed, 24)
    moa, compound, batch = (table[f"Metadata_{name}"] for name in ("moa", "compound", "batch"))

    def apart(i, j):
        return compound[i] != compound[j] and not (across and shares(batch[i], batch[j], "Metadata_batch"))

    oracle = slow_precision(
        table, lambda i, j: moa[i] == moa[j] and apart(i, j), lambda i, j: moa[i] != moa[j] and apart(i, j)
    )
    found = (consistency_across_batches if across else consistency)(table, **SMALL)
    check(found, table, ["Metadata_moa"], oracle)
    assert found["rows"].tolist() == table["Metadata_moa"].value_counts(sort=False).tolist()


def test_precision_of_treatments_is_what_consistency_averages():
    table = random_units(seed=3)
    each, whole = precision_of_treatments(table), consistency(table, **SMALL).set_index("Metadata_moa")
    assert each["Metadata_compound"].tolist() == table["Metadata_compound"].tolist()
    means = each.groupby("Metadata_moa")["average_precision"].mean()
    pd.testing.assert_series_equal(
        means, whole["mean_average_precision"].reindex(means.index), check_names=False, rtol=1e-9
    )


@pytest.mark.parametrize(("positives", "pairs"), [(1, 2), (1, 7), (3, 7), (6, 7), (7, 7)])
def test_random_precision_is_the_mean_over_all_rankings(positives, pairs):
    found = [
        np.mean([(place + 1) / (rank + 1) for place, rank in enumerate(ranks)])
        for ranks in itertools.combinations(range(pairs), positives)
    ]
    assert random_precision(np.array([positives]), np.array([pairs]))[0] == pytest.approx(np.mean(found))


def test_moas_of_one_batch_are_reported_not_dropped():
    table = random_units(1, 24)
    first = table["Metadata_moa"].iloc[0]
    table["Metadata_batch"] = np.where(table["Metadata_moa"] == first, "Week1", table["Metadata_batch"])
    found = consistency_across_batches(table, **SMALL).set_index("Metadata_moa")
    assert found.loc[first, "scored"] == 0
    assert found.loc[first, "excluded"] == "no treatment of the same MOA with another compound and batch"
    nothing = consistency_across_batches(table.assign(Metadata_batch="Week1"), **SMALL)
    assert (nothing["scored"] == 0).all()


def test_equal_similarities_favour_the_right_candidate():
    """A property of copairs that the module's text warns of: profiles that are all the same look perfect."""
    table = random_units(1, 24)
    features = table.filter(regex="^f").columns
    table[features] = 1.0
    assert (consistency(table, **SMALL)["mean_average_precision"].dropna() == 1).all()


def test_same_seed_same_p_values():
    table = random_units(1, 24)
    pd.testing.assert_frame_equal(consistency(table, seed=3, **SMALL), consistency(table, seed=3, **SMALL))


def test_percent_replicating_has_the_median_correlation_of_pairs():
    wells = random_wells(2)
    found = percent_replicating(wells, null_size=500)
    for _, row in found.iterrows():
        mine = (wells["Metadata_compound"] == row["Metadata_compound"]) & (
            wells["Metadata_concentration"] == row["Metadata_concentration"]
        )
        x = wells[mine].filter(regex="^f").to_numpy()
        pairs = [np.corrcoef(x[i], x[j])[0, 1] for i, j in itertools.combinations(range(len(x)), 2)]
        assert row["wells"] == len(x)
        if pairs:
            assert row["correlation"] == pytest.approx(np.median(pairs))
            assert row["replicates"] == (row["correlation"] > row["threshold"])
        else:
            assert pd.isna(row["correlation"])
            assert pd.isna(row["replicates"])


def test_percent_replicating_null_equals_drawing_non_replicates_slowly():
    wells = random_wells(3)
    treated = wells[wells["Metadata_compound"] != "DMSO"].reset_index(drop=True)
    key = list(zip(treated["Metadata_compound"], treated["Metadata_concentration"], strict=True))
    kinds = sorted(set(key))
    correlation = np.corrcoef(treated.filter(regex="^f"))
    rng = np.random.default_rng(0)
    medians = []
    for _ in range(4000):
        chosen = [kinds[i] for i in rng.choice(len(kinds), 3, replace=False)]
        rows = [rng.choice([i for i, other in enumerate(key) if other == c]) for c in chosen]
        medians.append(np.median([correlation[i, j] for i, j in itertools.combinations(rows, 2)]))
    table = percent_replicating(wells, null_size=20_000)
    limit = table.loc[table["wells"] == 3, "threshold"].iloc[0]
    assert limit == pytest.approx(np.quantile(medians, 0.95), abs=0.03)


def test_percent_replicating_is_five_percent_by_chance_and_all_for_perfect_replicates():
    rng = np.random.default_rng(0)
    treatment = np.repeat(np.arange(400), 3)
    table = pd.DataFrame({"Metadata_compound": [f"c{t}" for t in treatment], "Metadata_concentration": 1.0})
    noise = pd.DataFrame(rng.normal(size=(1200, 20))).add_prefix("f")
    assert percent_replicating(pd.concat([table, noise], axis=1))["replicates"].mean() == pytest.approx(0.05, abs=0.03)
    exact = pd.DataFrame(rng.normal(size=(400, 20))[treatment]).add_prefix("f")
    found = percent_replicating(pd.concat([table, exact], axis=1))
    assert len(found) == 400
    assert found["replicates"].all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: activity(random_wells(), controls="water"), "water"),
        (lambda: activity(random_wells().drop(columns="Metadata_plate")), "Metadata_plate"),
        (lambda: activity(random_wells().assign(Metadata_plate=None)), "Metadata_plate is missing in 42 of 42"),
        (lambda: activity(random_wells(), null_size=0), "null_size=0"),
        (
            lambda: consistency(random_units(0).assign(**{f"f{i}": 0.0 for i in range(6)})),
            "40 of 40 rows are all zeros",
        ),
        (lambda: consistency(random_units(0).assign(Metadata_moa=None)), "Metadata_moa is missing in 40"),
        (lambda: percent_replicating(random_wells().query("Metadata_compound == 'DMSO'")), "0 treatments"),
        (lambda: percent_replicating(random_wells().assign(**{f"f{i}": 1.0 for i in range(8)})), "no correlation"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(CellbookError) as error:
        call()
    assert words in str(error.value)
