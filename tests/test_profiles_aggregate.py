"""Aggregation against slow loops, and what happens to metadata, single cells and empty wells."""

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.profiles import aggregate, features, matrix, to_wells


def make_cells(seed=0, n=400):
    """Cells of 24 wells on 4 plates in 2 weeks, in random order, uncentred and badly scaled."""
    rng = np.random.default_rng(seed)
    well = np.sort(rng.choice(6, n))
    plate = rng.choice(4, n)
    df = pd.DataFrame(
        {
            "Metadata_plate": [f"Week{1 + p // 2}_{p}" for p in plate],
            "Metadata_well": [f"B{w:02d}" for w in well],
            "Metadata_batch": [f"Week{1 + p // 2}" for p in plate],
            "Metadata_compound": [("DMSO", "DMSO", "taxol", "taxol", "PP-2", "PP-2")[w] for w in well],
            "Metadata_concentration": [(0.0, 0.0, 0.3, 1.0, 3.0, 3.0)[w] for w in well],
            "Metadata_moa": [("DMSO", "DMSO", "Stab", "Stab", "Epi", "Epi")[w] for w in well],
            "Metadata_site": rng.integers(1, 5, n),
        }
    )
    x = rng.lognormal(size=(n, 5)) * np.logspace(-6, 6, 5) + np.array([1e6, -3, 0, 5, 1e7])
    return pd.concat([df, pd.DataFrame(x, columns=list("abcde"))], axis=1).sample(frac=1, random_state=seed)


def treatments_of(wells, statistic="median"):
    constant = [name for name in ["Metadata_moa"] if name in wells]
    return aggregate(wells, ["Metadata_compound", "Metadata_concentration"], statistic, constant=constant)


def slow(df, by, summarise):
    """Return the groups in order of first appearance and their summaries, by a plain loop."""
    keys = list(dict.fromkeys(df[by].itertuples(index=False, name=None)))
    rows = [matrix(df)[[tuple(k) == key for k in df[by].itertuples(index=False, name=None)]] for key in keys]
    return keys, np.array([summarise(r) for r in rows]), [len(r) for r in rows]


SUMMARIES = {
    "mean": lambda r: r.mean(axis=0),
    "median": lambda r: np.median(r, axis=0),
    "mean_sd": lambda r: np.concatenate([r.mean(axis=0), r.std(axis=0, ddof=1)]),
}


@pytest.mark.parametrize("statistic", ["mean", "median", "mean_sd"])
def test_every_statistic_equals_a_loop_over_groups(statistic):
    cells = make_cells()
    by = ["Metadata_plate", "Metadata_well"]
    got = aggregate(cells, by, statistic)
    keys, want, counts = slow(cells, by, SUMMARIES[statistic])
    assert list(got[by].itertuples(index=False, name=None)) == keys
    # A mean of 1e6 is known to 1e-10, which is 1e-8 of the squared spread of 1e-6.
    np.testing.assert_allclose(matrix(got), want, rtol=1e-7)
    assert got["Metadata_n"].tolist() == counts


def test_mean_and_sd_are_named_after_their_feature():
    got = to_wells(make_cells(), "mean_sd")
    assert features(got) == [f"{c}_mean" for c in "abcde"] + [f"{c}_sd" for c in "abcde"]


def test_float32_embeddings_are_summed_in_float64():
    rng = np.random.default_rng(0)
    cells = pd.DataFrame({"Metadata_well": "B02", "z": (rng.normal(size=20_000) + 1e4).astype(np.float32)})
    got = aggregate(cells, "Metadata_well")
    assert got["z"].dtype == np.float64
    np.testing.assert_allclose(got["z"], cells["z"].to_numpy().astype(np.float64).mean(), rtol=1e-13)


def test_weights_make_the_mean_of_means_the_mean_of_cells():
    cells = make_cells()
    weighted = aggregate(to_wells(cells), "Metadata_compound", weights="Metadata_n").set_index("Metadata_compound")
    direct = aggregate(cells, "Metadata_compound").set_index("Metadata_compound").loc[weighted.index]
    np.testing.assert_allclose(weighted[list("abcde")], direct[list("abcde")], rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [({0: -1.0}, "negative"), ({0: np.nan}, "missing in 1 of 4 rows"), ({0: 0.0, 1: 0.0}, "sums to 0 in 1 of 2")],
)
def test_impossible_weights_are_refused(change, message):
    df = pd.DataFrame({"Metadata_well": list("AABB"), "Metadata_n": [1.0, 1, 1, 1], "x": np.arange(4.0)})
    df.loc[list(change), "Metadata_n"] = list(change.values())
    with pytest.raises(CellbookError, match=message):
        aggregate(df, "Metadata_well", weights="Metadata_n")
    with pytest.raises(CellbookError, match="needs statistic='mean'"):
        aggregate(df, "Metadata_well", "median", weights="Metadata_n")


def test_metadata_is_kept_only_where_every_group_agrees():
    wells = to_wells(make_cells())
    assert "Metadata_site" not in wells
    assert {"Metadata_batch", "Metadata_compound", "Metadata_concentration", "Metadata_moa"} <= set(wells.columns)
    assert (wells["Metadata_cell_count"] == wells["Metadata_n"]).all()
    treatments = treatments_of(wells)
    assert "Metadata_plate" not in treatments
    assert dict(zip(treatments["Metadata_compound"], treatments["Metadata_moa"], strict=True)) == {
        "DMSO": "DMSO",
        "taxol": "Stab",
        "PP-2": "Epi",
    }
    assert len(treatments) == 4
    np.testing.assert_array_equal(
        treatments["Metadata_n"], [4 * (1 + (c != "taxol")) for c in treatments["Metadata_compound"]]
    )


def test_batches_of_a_treatment_are_joined_sorted_and_joined_again():
    df = pd.DataFrame(
        {
            "Metadata_compound": ["a", "b", "a", "b", "c"],
            "Metadata_batch": ["Week3", "Week2", "Week1", "Week2", None],
            "x": np.arange(5.0),
        }
    )
    once = aggregate(df, "Metadata_compound")
    assert once["Metadata_batch"].tolist()[:2] == ["Week1|Week3", "Week2"]
    assert once["Metadata_batch"].isna().tolist() == [False, False, True]
    both = pd.concat([once, pd.DataFrame({"Metadata_compound": ["a"], "Metadata_batch": ["Week10|Week3"], "x": [0.0]})])
    assert aggregate(both, "Metadata_compound")["Metadata_batch"].iloc[0] == "Week1|Week10|Week3"


def test_cell_counts_are_summarised_with_the_features():
    wells = pd.DataFrame(
        {
            "Metadata_compound": ["a"] * 3,
            "Metadata_concentration": 1.0,
            "Metadata_cell_count": [10, 100, 40],
            "x": [1.0, 2.0, 9.0],
        }
    )
    assert treatments_of(wells)["Metadata_cell_count"].tolist() == [40]
    assert treatments_of(wells, "mean")["Metadata_cell_count"].tolist() == [50]


def test_contradicting_labels_are_refused_not_dropped():
    cells = make_cells().reset_index(drop=True)
    wells = to_wells(cells)
    wells.loc[wells["Metadata_compound"].eq("taxol").idxmax(), "Metadata_moa"] = "Epi"
    with pytest.raises(CellbookError, match=r"Metadata_moa has more than one value in 1 of 4 groups, first in taxol"):
        treatments_of(wells)
    cells.loc[0, "Metadata_compound"] = "elsewhere"
    with pytest.raises(CellbookError, match="Metadata_compound has more than one value in 1 of 24 groups"):
        to_wells(cells)


def test_a_well_of_one_cell_has_no_standard_deviation():
    df = pd.DataFrame({"Metadata_plate": "P", "Metadata_well": ["B02", "B02", "C03"], "x": [1.0, 3.0, 5.0]})
    with pytest.raises(CellbookError, match=r"undefined in 1 groups of one row \(P C03\).*single='zero'"):
        to_wells(df, "mean_sd")
    nan = to_wells(df, "mean_sd", single="nan")
    zero = to_wells(df, "mean_sd", single="zero")
    np.testing.assert_allclose(zero["x_sd"], [np.sqrt(2), 0])
    assert nan["x_sd"].isna().tolist() == [False, True]
    np.testing.assert_allclose(nan["x_mean"], [2, 5])


def test_rows_that_belong_nowhere_or_hold_nan_are_refused():
    cells = make_cells().reset_index(drop=True)
    lost = cells.copy()
    lost.loc[[1, 2], "Metadata_concentration"] = np.nan
    with pytest.raises(CellbookError, match="Metadata_concentration is missing in 2 of 400 rows"):
        treatments_of(lost)
    cells.loc[3, "c"] = np.nan
    with pytest.raises(CellbookError, match=r"1 of 5 features hold NaN or infinity in 1 of 400 rows \('c'\)"):
        to_wells(cells)
    with pytest.raises(CellbookError, match="without rows"):
        aggregate(cells[:0], "Metadata_well")
    with pytest.raises(CellbookError, match="statistic is 'mode'"):
        aggregate(cells, "Metadata_well", "mode")


def test_the_order_of_cells_within_a_well_does_not_matter():
    cells = make_cells()
    a = to_wells(cells).sort_values(["Metadata_plate", "Metadata_well"])
    b = to_wells(cells[::-1]).sort_values(["Metadata_plate", "Metadata_well"])
    np.testing.assert_allclose(matrix(a), matrix(b), rtol=1e-12)


def test_the_caller_keeps_his_table():
    cells = make_cells()
    before = cells.copy(deep=True)
    treatments_of(to_wells(cells))
    pd.testing.assert_frame_equal(cells, before)
