"""What cannot be scored is known from a screen's table, before anything is trained."""

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.screens.preflight import usable_rows

ROWS = [
    ("P1", "A1", "W1", "DMSO", 0.0, None, "negative control"),
    ("P2", "A1", "W2", "DMSO", 0.0, "DMSO", "negative control"),
    ("P1", "B1", "W1", "a", 1.0, "M", "treatment"),
    ("P2", "B2", "W2", "b", 1.0, "M", "treatment"),
    ("P1", "C1", "W1", "c", 1.0, "N", "treatment"),
    ("P2", "D1", "W2", "taxol", 0.3, "M", "positive control"),
    ("P2", "E1", "W2", "d", 2.0, None, "treatment"),
]
NAMES = ["plate", "well", "batch", "compound", "concentration", "moa", "role"]


@pytest.fixture
def table():
    return pd.DataFrame(ROWS, columns=[f"Metadata_{name}" for name in NAMES])


def test_treated_cells_without_a_mechanism_are_no_part_of_a_page(table):
    assert usable_rows(table).tolist() == [True] * 6 + [False]
    assert usable_rows(table, batches=2).tolist() == [True] * 6 + [False]


@pytest.mark.parametrize(
    ("change", "batches", "words"),
    [
        (lambda t: t.drop(columns="Metadata_moa"), 1, "have no column Metadata_moa"),
        (lambda t: t.drop(columns="Metadata_batch"), 1, "have no column Metadata_batch"),
        (lambda t: t[t["Metadata_compound"] != "DMSO"], 1, "0 wells hold DMSO"),
        (lambda t: t.iloc[1:], 1, "1 wells hold DMSO"),
        (lambda t: t.assign(Metadata_batch="W"), 2, "has 1 values, and 2 at least"),
        (lambda t: t.assign(Metadata_moa=None), 1, "0 mechanisms are in Metadata_moa.* 5 of 7 cells"),
        # taxol shares the mechanism of a, but it is the positive control, which is not scored
        (
            lambda t: t[t["Metadata_compound"] != "b"],
            1,
            "2 mechanisms are in Metadata_moa, 0 of them with two compounds",
        ),
        (lambda t: t.iloc[:2], 1, "0 mechanisms are"),
        (lambda t: t[t["Metadata_moa"] != "N"], 1, "1 mechanisms are in Metadata_moa, 1 of them"),
    ],
)
def test_a_screen_of_which_nothing_can_be_scored_is_refused(table, change, batches, words):
    with pytest.raises(CellbookError, match=words):
        usable_rows(change(table), batches=batches)


def test_doses_of_one_compound_are_no_match_for_each_other(table):
    doses = table.iloc[[0, 1, 2, 2]].assign(Metadata_concentration=np.arange(4.0))
    with pytest.raises(CellbookError, match="1 mechanisms are in Metadata_moa, 0 of them"):
        usable_rows(doses)


def test_one_batch_and_no_roles_are_enough_to_be_scored(table):
    assert usable_rows(table.drop(columns="Metadata_role").assign(Metadata_batch="W")).sum() == 6
