"""What fewer candidates cost: no removal changes nothing, removal keeps its counts, chance has a closed form."""

import numpy as np
import pandas as pd
import pytest

from cellbook import metrics
from cellbook.errors import CellbookError
from cellbook.metrics.neighbours import candidates
from cellbook.metrics.thinning import thinned
from cellbook.screens.bbbc021 import treatments


@pytest.fixture(scope="module")
def design():
    table = treatments().rename(columns=lambda name: f"Metadata_{name}")
    return table.rename(columns={"Metadata_week": "Metadata_batch"})


def random_distances(n, seed):
    d = np.random.default_rng(seed).random((n, n))
    return d + d.T


def test_nothing_removed_is_the_plain_accuracy(design):
    d = random_distances(len(design), 0)
    expected = metrics.match(design, distances=d).accuracy
    for alike in (False, True):
        found = thinned(design.assign(Metadata_batch=[f"b{i}" for i in range(len(design))]), d, alike=alike, n=3)
        assert found == pytest.approx([expected] * 3)


def test_a_perfect_profile_survives_as_long_as_right_candidates_are_left(design):
    labels = design["Metadata_moa"].to_numpy()
    d = (labels[:, None] != labels[None, :]).astype(float)
    assert (thinned(design, d, alike=True, n=50) == 1).all()
    assert (thinned(design, d, alike=False, n=50) <= 1).all()


@pytest.mark.parametrize("alike", [False, True])
def test_random_distances_give_the_share_of_right_candidates_that_is_left(design, alike):
    labels = design["Metadata_moa"].to_numpy()
    right = labels[:, None] == labels[None, :]
    before = candidates(design, ("Metadata_compound",))
    after = candidates(design, ("Metadata_compound", "Metadata_batch"))
    scored = (after & right).any(axis=1)
    table = after if alike else before  # removal of any candidates does not change the share of right ones
    expected = ((table & right).sum(axis=1) / table.sum(axis=1))[scored].mean()
    draws = [thinned(design, random_distances(len(design), k), alike=alike, n=20, seed=k).mean() for k in range(60)]
    assert np.mean(draws) == pytest.approx(expected, abs=4 * np.std(draws) / np.sqrt(len(draws)))


def test_doses_of_a_compound_leave_together():
    """Two right compounds of two doses each, one of them in the query's week: one whole compound is taken."""
    table = pd.DataFrame(
        {
            "Metadata_compound": ["q", "a", "a", "b", "b"],
            "Metadata_moa": ["x"] * 5,
            "Metadata_batch": ["1", "1", "1", "2", "2"],
        }
    )
    table = pd.concat([table, table.assign(Metadata_compound="w", Metadata_moa="y").head(1)], ignore_index=True)
    d = np.ones((6, 6))
    d[0] = [0, 1, 4, 2, 5, 3]  # with one dose of each taken, a or b would always be nearer than the wrong w
    found = thinned(table.assign(Metadata_batch=["1", "1", "1", "2", "2", "2"]), d, alike=True, n=40)
    assert found.mean() == 1
    d[0, 5] = 1.5  # nearer than b: right only if it is b that is taken
    first = thinned(table.assign(Metadata_batch=["1", "1", "1", "2", "2", "2"]), d, alike=True, n=400)
    rows = first * 5  # of five scored queries
    assert set(np.round(rows - rows.min()).astype(int)) == {0, 1}
    assert 0.3 < (rows > rows.min()).mean() < 0.7


def test_refuses_no_draw_and_a_matrix_of_another_shape(design):
    with pytest.raises(CellbookError, match="n=0"):
        thinned(design, random_distances(len(design), 0), n=0)
    with pytest.raises(CellbookError, match="shape"):
        thinned(design, np.zeros((3, 3)))
