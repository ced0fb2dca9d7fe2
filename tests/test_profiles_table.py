"""Profile tables: what is a feature, what is refused and in which words, and what survives a file."""

import gzip
import os

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.profiles import (
    check_features,
    controls_mask,
    drop_unusable,
    features,
    matrix,
    metadata,
    read_profiles,
    replace_features,
    require,
    write_profiles,
)


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "Metadata_plate": ["27481", "27481", "27482", "27482"],
            "Metadata_well": ["E02", "1E02", "G10", "B03"],
            "area": rng.normal(1e5, 1e3, 4),
            "Metadata_compound": ["DMSO", "1e5", "taxol", "PP-2"],
            "Metadata_concentration": [0.0, 0.1, 0.3, 30.0],
            "Metadata_moa": ["DMSO", None, "Microtubule stabilizers", "Epithelial"],
            "texture": rng.normal(1e-7, 1e-9, 4),
        }
    )


def test_columns_are_split_by_their_prefix_and_truth_is_never_a_feature(table):
    table["truth_moa_direction"] = 1.0
    assert features(table) == ["area", "texture"]
    assert set(metadata(table)) | set(features(table)) == set(table.columns)
    assert "truth_moa_direction" in metadata(table)


def test_matrix_is_float64_whatever_the_columns_hold(table):
    table["count"] = pd.array([1, None, 3, 4], dtype="Int64")
    table["small"] = np.arange(4, dtype=np.float32)
    x = matrix(table)
    assert x.dtype == np.float64
    assert x.shape == (4, 4)
    assert np.isnan(x[1, 2])
    np.testing.assert_array_equal(x[:, 3], np.arange(4))


def test_changing_the_matrix_leaves_the_table_alone(table):
    before = table.copy(deep=True)
    matrix(table)[:] = 0
    matrix(table[["area"]])[:] = 0
    pd.testing.assert_frame_equal(table, before)


def test_matrix_follows_the_order_asked_for_and_names_what_differs(table):
    np.testing.assert_array_equal(matrix(table, ["texture", "area"]), matrix(table)[:, ::-1])
    with pytest.raises(CellbookError, match=r"1 missing \('volume'\), 1 not seen in fit \('texture'\)"):
        matrix(table, ["area", "volume"])


def test_text_among_the_features_is_counted(table):
    table["stain"] = ["1.5", "high", "low", None]
    with pytest.raises(CellbookError, match=r"'stain' \(2 of 4 cells are not numbers, first 'high'\)"):
        matrix(table)


def test_a_table_needs_features_with_unique_names_of_text(table):
    with pytest.raises(CellbookError, match="no feature"):
        features(table[metadata(table)])
    with pytest.raises(CellbookError, match="occur more than once"):
        features(table.rename(columns={"texture": "area"}))
    with pytest.raises(CellbookError, match="not text"):
        features(table.rename(columns={"texture": 0}))


def test_replacing_features_leaves_metadata_and_index_alone(table):
    shuffled = table.sample(frac=1, random_state=1)
    out = replace_features(shuffled, np.ones((4, 3)), ["a", "b", "c"])
    pd.testing.assert_frame_equal(out[metadata(out)], shuffled[metadata(shuffled)])
    assert features(out) == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_a_table_survives_a_file_bit_for_bit(table, tmp_path, suffix):
    path = tmp_path / f"profiles{suffix}"
    write_profiles(table, path)
    back = read_profiles(path)
    assert list(back.columns) == metadata(table) + features(table)
    np.testing.assert_array_equal(matrix(back), matrix(table))
    assert back["Metadata_concentration"].dtype == np.float64
    for name in ("Metadata_plate", "Metadata_well", "Metadata_compound"):
        assert back[name].tolist() == table[name].tolist()
    assert back["Metadata_moa"].isna().tolist() == [False, True, False, False]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_plate_numbers_in_parquet_become_text(table, tmp_path):
    table["Metadata_plate"] = [27481, 27481, None, 27482]
    table["Metadata_concentration"] = [0, 1, 3, 30]
    table.to_parquet(tmp_path / "t.parquet")
    back = read_profiles(tmp_path / "t.parquet")
    assert back["Metadata_plate"].dropna().tolist() == ["27481", "27481", "27482"]
    assert back["Metadata_plate"].isna().sum() == 1
    assert back["Metadata_concentration"].dtype == np.float64


def test_gzip_files_hold_neither_time_nor_name_so_that_equal_tables_give_equal_files(table, tmp_path):
    write_profiles(table, tmp_path / "a.csv.gz")
    header = (tmp_path / "a.csv.gz").read_bytes()[:10]
    assert header[3] == 0  # no optional field, such as a file name
    assert header[4:8] == bytes(4)  # no time


def test_names_that_look_like_numbers_keep_every_character(table, tmp_path):
    table["Metadata_plate"] = ["0042", "0042", "1E02", "43.0"]
    table["Metadata_well"] = ["1E02", "1E03", "1E02", "1E02"]
    write_profiles(table, tmp_path / "t.csv")
    back = read_profiles(tmp_path / "t.csv")
    assert back["Metadata_plate"].tolist() == ["0042", "0042", "1E02", "43.0"]
    assert set(back["Metadata_well"]) == {"1E02", "1E03"}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_a_truncated_file_is_refused(table, tmp_path, suffix):
    path = tmp_path / f"profiles{suffix}"
    write_profiles(table, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 30])
    with pytest.raises(CellbookError, match="not a complete"):
        read_profiles(path)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe garbage", gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_an_unreadable_file_is_one_error_naming_it(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(CellbookError, match="broken"):
        read_profiles(path)


def test_a_missing_file_and_an_unknown_suffix_are_named(tmp_path):
    with pytest.raises(CellbookError, match=r"no file .*absent\.csv"):
        read_profiles(tmp_path / "absent.csv")
    with pytest.raises(CellbookError, match=r"unknown suffix.*\.parquet, \.csv, \.csv\.gz"):
        read_profiles(tmp_path / "table.xlsx")


def test_a_saved_row_index_and_misnamed_metadata_do_not_become_features(table, tmp_path):
    table.to_csv(tmp_path / "index.csv")
    table.rename(columns={"Metadata_plate": "Image_Metadata_Plate"}).to_csv(tmp_path / "t.csv", index=False)
    for name in ("index.csv", "t.csv"):
        assert features(read_profiles(tmp_path / name)) == ["area", "texture"]
    assert read_profiles(tmp_path / "t.csv")["Metadata_plate"].tolist() == table["Metadata_plate"].tolist()


def test_a_repeated_column_and_a_table_without_rows_are_refused(table, tmp_path):
    text = table.to_csv(index=False)
    (tmp_path / "t.csv").write_text(text.replace("texture", "area", 1))
    with pytest.raises(CellbookError, match="'area' occurs 2 times"):
        read_profiles(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(text.splitlines()[0] + "\n")
    with pytest.raises(CellbookError, match="no rows"):
        read_profiles(tmp_path / "t.csv")


def test_a_concentration_with_a_unit_is_refused(table, tmp_path):
    table["Metadata_concentration"] = ["0", "0.1", "0.3 micromolar", "30"]
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(CellbookError, match=r"Metadata_concentration is not a number in 1 of 4 rows"):
        read_profiles(tmp_path / "t.csv")


def test_a_failed_write_leaves_the_old_file_and_no_other(table, tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    write_profiles(table, path)
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CellbookError, match=r"t\.csv: No space left on device"):
        write_profiles(table.assign(area=0.0), path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(CellbookError, match=r"cannot write .*: there is no folder"):
        write_profiles(table, tmp_path / "absent" / "t.csv")


@pytest.mark.parametrize("wrong", ["compound", "Metadata_Compound", "metadata_compound", "Image_Metadata_Compound"])
def test_a_misnamed_column_is_met_with_a_rename(table, wrong):
    with pytest.raises(CellbookError, match=f"rename '{wrong}' to 'Metadata_compound'"):
        require(table.rename(columns={"Metadata_compound": wrong}), ["Metadata_plate", "Metadata_compound"])


def test_a_column_without_any_likeness_is_only_named(table):
    require(table, ["Metadata_plate", "area"])
    with pytest.raises(CellbookError, match=r"lacks 1 column: 'Metadata_batch'; its metadata"):
        require(table, "Metadata_batch")


def test_unusable_features_are_counted_named_and_dropped(table):
    check_features(table)
    rng = np.random.default_rng(1)
    broken = pd.concat([table, pd.DataFrame(rng.normal(size=(4, 4)), columns=list("abcd"))], axis=1)
    broken.loc[[0, 2], "a"] = np.nan
    broken.loc[2, ["b", "c", "d"]] = np.inf
    broken["flat"] = 0.1
    with pytest.raises(CellbookError) as caught:
        check_features(broken)
    message = str(caught.value)
    assert "4 of 7 features hold NaN or infinity in 2 of 4 rows ('a', 'b', 'c' and 1 more)" in message
    assert "1 of 7 features have the same value in all 4 rows ('flat')" in message
    assert "drop_unusable" in message
    kept, report = drop_unusable(broken)
    check_features(kept)
    assert features(kept) == ["area", "texture"]
    assert report.not_finite == ("a", "b", "c", "d")
    assert report.constant == ("flat",)
    assert report.rows == ()


def test_a_row_without_measurements_costs_the_row_not_the_features(table):
    table.loc[1, ["area", "texture"]] = np.nan
    kept, report = drop_unusable(table)
    assert report.rows == (1,)
    assert features(kept) == ["area", "texture"]
    assert len(kept) == 3


def test_dropping_everything_is_an_error(table):
    table[["area", "texture"]] = 1.0
    with pytest.raises(CellbookError, match="nothing would be left"):
        drop_unusable(table)


def test_controls_are_found_or_the_compounds_listed(table):
    np.testing.assert_array_equal(controls_mask(table), [True, False, False, False])
    np.testing.assert_array_equal(controls_mask(table, "taxol"), [False, False, True, False])
    with pytest.raises(CellbookError, match=r"'dmso'; the compounds are: 1e5, DMSO, .*did you mean controls='DMSO'"):
        controls_mask(table, "dmso")
    table["Metadata_compound"] = [None, "DMSO", None, None]
    assert controls_mask(table).sum() == 1


def test_a_feature_whose_squares_are_infinite_is_left_out_by_name():
    table = pd.DataFrame({"Metadata_well": list("ABC"), "x": [1.0, 2.0, 4.0], "huge": [1e200, 2e200, 5e200]})
    kept, dropped = drop_unusable(table)
    assert (list(kept), dropped.not_finite) == (["Metadata_well", "x"], ("huge",))
