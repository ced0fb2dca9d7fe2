"""Subsets of cells: nested, and one pass over blocks gives what a loop over whole tables gives."""

import numpy as np
import pandas as pd
import pytest

from cellbook import profiles
from cellbook.profiles.subsets import Subsets, block_sums, nested_order


@pytest.fixture
def cells():
    """Cells of eight wells in random order, a constant feature among five."""
    rng = np.random.default_rng(0)
    well = rng.permutation(np.repeat(np.arange(8), [9, 1, 5, 7, 12, 3, 8, 2]))
    table = pd.DataFrame({"Metadata_plate": [f"p{w % 2}" for w in well], "Metadata_well": [f"B{w}" for w in well]})
    table["Metadata_compound"] = np.where(well < 3, "DMSO", [f"drug {w}" for w in well])
    table["Metadata_concentration"] = 0.0
    x = rng.normal(1e4, [1, 2, 3, 0, 1], (len(well), 5))
    return table, x, well


def gathered(table, x, member, size):
    """Subsets from blocks of so many cells."""
    found = Subsets(table, member)
    for start in range(0, len(x), size):
        block = np.arange(start, min(start + size, len(x)))
        found.add(block_sums(x[block], *found.rows(block)))
    return found


def test_a_smaller_subset_lies_in_a_larger_one_and_every_well_keeps_a_cell(cells):
    _, _, well = cells
    pool = nested_order(well, 0)[:20]
    first = np.isin(np.arange(len(well)), pool)
    orders = [nested_order(well, [0, draw], first) for draw in range(3)]
    for order in orders:
        assert sorted(order) == list(range(len(well)))
        assert set(order[:20]) == set(pool)
        assert len(set(well[order[:8]])) == 8
    assert not np.array_equal(orders[0][:8], orders[1][:8])
    assert np.array_equal(orders[0], nested_order(well, [0, 0], first))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_profiles_of_subsets_are_those_of_standardising_and_averaging_each_subset_alone(cells, size):
    table, x, well = cells
    order = nested_order(well, 3)
    member = np.zeros((len(x), 3), bool)
    for place, n in enumerate((12, 25, len(x))):
        member[order[:n], place] = True
    found = gathered(table, x, member, size)
    for place in range(3):
        some = profiles.replace_features(table[member[:, place]], x[member[:, place]], list("abcde"))
        expected = profiles.to_wells(
            profiles.PlateScaler("standardise", by=None, on_constant="drop").fit_transform(some)
        )
        mine = found.profiles(place).set_index("Metadata_well")
        assert len(mine) == 8
        assert mine.columns[-4:].tolist() == ["feature_0", "feature_1", "feature_2", "feature_4"]
        assert mine.loc[expected["Metadata_well"], "Metadata_n"].tolist() == expected["Metadata_n"].tolist()
        rows = mine.loc[expected["Metadata_well"]].reset_index(drop=True)
        np.testing.assert_allclose(profiles.matrix(rows), profiles.matrix(expected), rtol=1e-6, atol=1e-7)
        plain = found.profiles(place, standardised=False).set_index("Metadata_well")
        slow = [x[member[:, place] & (table["Metadata_well"] == name).to_numpy()].mean(axis=0) for name in plain.index]
        np.testing.assert_allclose(profiles.matrix(plain.reset_index()), slow, rtol=1e-12)


def test_a_well_without_cells_in_a_subset_has_no_profile(cells):
    table, x, well = cells
    found = gathered(table, x, np.column_stack([well != 4, well == well]), 10)
    assert "B4" not in set(found.profiles(0)["Metadata_well"])
    assert "B4" in set(found.profiles(1)["Metadata_well"])
