"""Batch leakage on controls, and the silhouette."""

import time

import numpy as np
import pandas as pd
import pytest
from metrics_oracles import random_units
from scipy.spatial.distance import cosine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cellbook.errors import CellbookError
from cellbook.metrics import classify_batch, distance_matrix, silhouettes


def control_wells(week: float = 0.0, plate: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Make 4 weeks of 4 plates of 6 controls each, with effects of week and plate on 5 features."""
    rng = np.random.default_rng(seed)
    weeks, plates = np.repeat(np.arange(4), 24), np.repeat(np.arange(16), 6)
    x = week * rng.normal(size=(4, 5))[weeks] + plate * rng.normal(size=(16, 5))[plates] + rng.normal(size=(96, 5))
    table = pd.DataFrame({"Metadata_batch": weeks, "Metadata_plate": [f"p{p}" for p in plates]})
    return pd.concat([table, pd.DataFrame(x * 10.0 ** np.arange(-2, 3) + 7).add_prefix("f")], axis=1)


@pytest.mark.parametrize("model", ["logistic", "forest"])
@pytest.mark.parametrize("group", ["Metadata_plate", None])
def test_equals_scikit_learn_on_the_same_folds(model, group):
    wells = control_wells(week=1.0)
    x, y = wells.filter(regex="^f").to_numpy(), wells["Metadata_batch"].astype(str).to_numpy(dtype=str)
    folds = (StratifiedGroupKFold if group else StratifiedKFold)(3, shuffle=True, random_state=4)
    if model == "logistic":
        classifier = make_pipeline(StandardScaler(), LogisticRegression())
    else:
        classifier = RandomForestClassifier(random_state=4)
    groups = wells[group] if group else None
    expected = cross_val_score(classifier, x, y, cv=folds, groups=groups)
    found = classify_batch(wells, group=group, model=model, seed=4, standardise=model == "logistic")
    assert found.accuracy == pytest.approx(expected.mean())


def test_plain_weeks_are_found_and_absent_ones_are_not():
    strong = classify_batch(control_wells(week=30.0), standardise=True)
    none = classify_batch(control_wells(), standardise=True)
    assert strong.accuracy > 0.95
    assert none.accuracy < 0.45
    assert strong.majority == none.majority == 0.25
    assert 0.05 < none.noise_baseline < 0.45
    assert (strong.n, strong.n_batches) == (96, 4)


def test_grouping_by_plate_does_not_reward_knowing_the_plate():
    wells = control_wells(plate=30.0)
    together = classify_batch(wells, model="forest")
    apart = classify_batch(wells, model="forest", group=None)
    assert apart.accuracy > 0.9
    assert together.accuracy < 0.6


def test_a_fit_that_did_not_converge_says_so():
    assert not classify_batch(control_wells(week=1.0)).converged
    assert classify_batch(control_wells(week=1.0), standardise=True).converged


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"Metadata_batch": "Week1"}, {}, "all 96 rows have Metadata_batch 'Week1'"),
        ({}, {"folds": 5}, "4 of 4 values of Metadata_batch have fewer than 5 plates (first: "),
        ({}, {"folds": 5}, "use folds=4"),
        ({}, {"folds": 1}, "folds=1"),
        ({}, {"model": "svm"}, "model='svm'"),
        ({"Metadata_plate": None}, {}, "Metadata_plate is missing in 96"),
        ({"f1": np.nan}, {}, "f1"),
    ],
)
def test_bad_controls_are_named(change, options, words):
    with pytest.raises(CellbookError) as error:
        classify_batch(control_wells().assign(**change), **options)
    assert words in str(error.value)
    with pytest.raises(CellbookError, match="no rows"):
        classify_batch(control_wells().head(0))


@pytest.mark.data
def test_real_controls_take_seconds_and_know_their_week(ljosa):
    controls = ljosa[ljosa["Metadata_compound"] == "DMSO"]
    start = time.perf_counter()
    found = classify_batch(controls, standardise=True)
    assert time.perf_counter() - start < 10
    assert found.majority == pytest.approx(36 / 330)
    assert found.noise_baseline < 0.2
    assert found.accuracy > 0.7


@pytest.mark.parametrize("seed", range(3))
def test_silhouette_equals_a_slow_loop(seed):
    table = random_units(seed, 25)
    table.loc[3, "Metadata_moa"] = "alone"
    x, y = table.filter(regex="^f").to_numpy(), list(table["Metadata_moa"])
    values = []
    for i in range(len(x)):
        means = {}
        for label in set(y):
            members = [j for j in range(len(x)) if y[j] == label and j != i]
            if members:
                means[label] = np.mean([cosine(x[i], x[j]) for j in members])
        if y[i] not in means:
            values.append(0.0)
            continue
        a = means.pop(y[i])
        b = min(means.values())
        values.append((b - a) / max(a, b))
    assert silhouettes(table).mean() == pytest.approx(np.mean(values), abs=1e-9)


def test_silhouette_of_distances_and_of_features_agree():
    table = random_units(1)
    d = distance_matrix(table.filter(regex="^f"), "euclidean")
    before = d.copy()
    given = silhouettes(table.filter(like="Metadata"), distances=d)
    assert np.array_equal(given, silhouettes(table, distance="euclidean"))
    assert np.array_equal(d, before)
    zero = table.assign(**{c: table[c].where(table.index > 0, 0.0) for c in table.filter(regex="^f")})
    assert np.isfinite(silhouettes(zero)).all()


def test_silhouette_refuses_what_has_no_meaning():
    table = random_units(1)
    with pytest.raises(CellbookError, match="1 different values"):
        silhouettes(table.assign(Metadata_moa="m"))
    with pytest.raises(CellbookError, match="40 different values"):
        silhouettes(table, "Metadata_concentration")
    with pytest.raises(CellbookError, match="missing in 40"):
        silhouettes(table.assign(Metadata_moa=None))


def test_rows_that_were_right_are_told_apart(planted):
    controls = planted[planted["Metadata_compound"] == "DMSO"].reset_index(drop=True)
    found = classify_batch(controls, model="forest")
    assert found.correct.shape == (len(controls),)
    # Folds hold almost equal numbers of wells, so the mean over folds is close to the mean over wells.
    assert abs(found.correct.mean() - found.accuracy) < 0.01
