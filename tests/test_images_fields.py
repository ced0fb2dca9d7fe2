"""Reading fields: each kind of bad TIFF has its own message, and files are found in every layout of the archives."""

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.screens.fields import CHANNELS, field_warnings, index_fields, read_field
from cellbook.screens.tiff import read_tiff

tifffile = pytest.importorskip("tifffile")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 4096, (60, 80), dtype=np.uint16) * 16


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_good_file_comes_back_bit_for_bit(tmp_path, pixels, compression):
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression)
    assert np.array_equal(read_tiff(tmp_path / "a.tif", size=(60, 80)), pixels)


def write_bad(kind, path, pixels):
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "no tiff":
        path.write_bytes(b"not an image at all" * 20)
    elif kind.startswith("truncated"):
        tifffile.imwrite(path, pixels)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(kind.split()[1])] if kind != "truncated tail" else whole[:-10])
    elif kind == "8-bit":
        tifffile.imwrite(path, (pixels >> 8).astype(np.uint8))
    elif kind == "rgb":
        tifffile.imwrite(path, np.stack([pixels] * 3, axis=-1), photometric="rgb")
    elif kind == "pages":
        tifffile.imwrite(path, np.stack([pixels] * 3), photometric="minisblack")
    elif kind == "size":
        tifffile.imwrite(path, pixels[:50])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "does not exist"),
        ("empty", "empty"),
        ("no tiff", "is no TIFF"),
        ("truncated 6", "truncated"),
        ("truncated 400", "truncated"),
        ("truncated tail", "truncated"),
        ("8-bit", "uint8"),
        ("rgb", "colour"),
        ("pages", "3 pages"),
        ("size", "50 x 80 pixels, expected 60 x 80"),
    ],
)
def test_each_bad_file_is_named_with_its_own_fault(tmp_path, pixels, kind, words):
    path = tmp_path / "bad.tif"
    write_bad(kind, path, pixels)
    with pytest.raises(CellbookError, match=words) as error:
        read_tiff(path, size=(60, 80))
    assert "bad.tif" in str(error.value)
    assert "\n" not in str(error.value)


def test_channels_of_unequal_size_and_absent_channels_are_refused(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    tifffile.imwrite(tmp_path / "b.tif", pixels[:40])
    with pytest.raises(CellbookError, match="differ in size"):
        read_field([tmp_path / "a.tif", tmp_path / "a.tif", tmp_path / "b.tif"])
    with pytest.raises(CellbookError, match="Actin image of this field was not found"):
        read_field([tmp_path / "a.tif", tmp_path / "a.tif", None])


def test_zero_constant_and_saturated_channels_are_reported(pixels):
    saturated = pixels.copy()
    saturated[:10] = 65_520
    assert field_warnings(np.stack([pixels, np.zeros_like(pixels), np.full_like(pixels, 7)])) == [
        "Tubulin is all zero",
        "Actin is constant at 7",
    ]
    assert field_warnings(np.stack([pixels, saturated, pixels])) == ["Tubulin is saturated in 17% of its pixels"]


@pytest.fixture
def table():
    names = {stain: f"G10_s1_w{wave}ABC.tif" for stain, wave in (("DAPI", 1), ("Tubulin", 2), ("Actin", 4))}
    row = {"Image_Metadata_Plate_DAPI": "Week4_1", "Image_Metadata_Well_DAPI": "G10", "Replicate": 1}
    row |= {"Image_Metadata_Compound": "DMSO", "Image_Metadata_Concentration": 0.0}
    row |= {f"Image_FileName_{stain}": name for stain, name in names.items()}
    row |= {f"Image_PathName_{stain}": "Week4/Week4_1" for stain in names}
    return pd.DataFrame(
        [
            row,
            row
            | {"Image_Metadata_Plate_DAPI": "Week4_2"}
            | {f"Image_PathName_{stain}": "Week4/Week4_2" for stain in names},
        ]
    )


@pytest.mark.parametrize("layout", ["Week4/{}", "{}", "somewhere/deeper/week4/{}"])
def test_files_are_found_whether_or_not_the_first_folder_exists(tmp_path, table, layout):
    for plate in ("Week4_1", "Week4_2"):
        folder = tmp_path / layout.format(plate)
        folder.mkdir(parents=True)
        for wave in (1, 2, 4):
            (folder / f"G10_s1_w{wave}ABC.TIF").write_bytes(b"x")
    fields = index_fields(table, tmp_path)
    for plate, row in zip(("Week4_1", "Week4_2"), fields.itertuples(), strict=True):
        assert row.Metadata_site == 1
        assert row.Metadata_batch == "Week4"
        for wave, channel in zip((1, 2, 4), CHANNELS, strict=True):
            assert f"{plate}/G10_s1_w{wave}ABC" in getattr(row, f"path_{channel}")


def test_a_name_shared_by_plates_is_never_taken_from_the_wrong_plate(tmp_path, table):
    (tmp_path / "Week4_1").mkdir()
    (tmp_path / "Week4_1" / "G10_s1_w1ABC.tif").write_bytes(b"x")
    assert index_fields(table, tmp_path)["path_DNA"].notna().tolist() == [True, False]
    (tmp_path / "Week4_1" / "G10_s1_w1ABC.tif").rename(tmp_path / "G10_s1_w1ABC.tif")
    assert index_fields(table.iloc[:1], tmp_path)["path_DNA"].notna().all()


def test_an_absent_file_is_missing_and_bad_tables_are_refused(tmp_path, table):
    assert index_fields(table, tmp_path)["path_DNA"].isna().all()
    with pytest.raises(CellbookError, match="lacks Image_FileName_Actin"):
        index_fields(table.drop(columns="Image_FileName_Actin"), tmp_path)
    with pytest.raises(CellbookError, match="does not exist"):
        index_fields(table, tmp_path / "nowhere")
    with pytest.raises(CellbookError, match="occur twice"):
        index_fields(pd.concat([table, table]), tmp_path)


@pytest.mark.data
def test_the_untouched_field_reads_and_the_official_table_indexes(data_dir):
    path = next((data_dir / "bbbc021" / "images").glob("*.tif"))
    image = read_tiff(path, size=(1024, 1280))
    assert (image.min(), image.max()) == (208, 7680)
    table = pd.read_csv(data_dir / "bbbc021" / "metadata" / "BBBC021_v1_image.csv.gz")
    fields = index_fields(table, path.parent)
    assert len(fields) == 13_200
    assert fields["path_DNA"].notna().sum() == 1
    assert fields.groupby(["Metadata_plate", "Metadata_well"])["Metadata_site"].nunique().eq(4).all()
