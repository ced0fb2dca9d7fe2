"""A reader's own screen: the preflight names what is missing and what that rules out; both ways in give a cell set."""

import numpy as np
import pandas as pd
import pytest

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.profiles.names import standard_names
from cellbook.screens.own import check_screen, import_screen
from cellbook.screens.preflight import preflight

N = 36


@pytest.fixture
def table():
    """Two batches of two plates, three wells each, three cells a well."""
    cell = np.arange(N)
    plate = np.array(["B1_a", "B1_b", "B2_a", "B2_b"])[cell // 9]
    return pd.DataFrame(
        {
            "Plate": plate,
            "well": np.array(["B02", "B03", "B04"])[cell // 3 % 3],
            "compound": np.array(["DMSO", "one", "two"])[cell // 3 % 3],
            "concentration": np.array([0, 1.5, 3])[cell // 3 % 3],
            "moa": np.array(["DMSO", "up", "down"])[cell // 3 % 3],
            "remark": "x",
        }
    )


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 65_536, (N, 3, 20, 20), dtype=np.uint16)


def write(tmp_path, images, table):
    np.save(tmp_path / "crops.npy", images)
    table.to_csv(tmp_path / "cells.csv", index=False)
    return tmp_path / "crops.npy", tmp_path / "cells.csv"


@pytest.mark.parametrize("kind", ["npy", "npz", "parquet"])
def test_an_array_and_a_table_become_a_cell_set(tmp_path, images, table, kind):
    crops, rows = write(tmp_path, images, table)
    if kind == "npz":
        crops = tmp_path / "crops.npz"
        np.savez_compressed(crops, images=images)
    if kind == "parquet":
        rows = tmp_path / "cells.parquet"
        table.to_parquet(rows)
    cells = import_screen(crops, rows, tmp_path / "out", pixel_um=0.5)
    assert np.array_equal(cells.images, images)
    assert cells.table["Metadata_plate"].tolist() == table["Plate"].tolist()
    assert cells.table["Metadata_batch"].tolist() == ["B1"] * 18 + ["B2"] * 18
    assert cells.table["Metadata_concentration"].dtype == float
    assert "remark" not in cells.table
    assert cells.pixel_um == 0.5
    CellSet.open(tmp_path / "out").verify()


def test_wells_and_compounds_stay_text_whatever_they_look_like(tmp_path, images, table):
    table["well"] = np.array(["E01", "E02", "1E3"])[np.arange(N) // 3 % 3]
    table["compound"] = np.array(["DMSO", "1e5", "007"])[np.arange(N) // 3 % 3]
    crops, rows = write(tmp_path, images, table)
    cells = import_screen(crops, rows, tmp_path / "out", pixel_um=1)
    assert set(cells.table["Metadata_well"]) == {"E01", "E02", "1E3"}
    assert set(cells.table["Metadata_compound"]) == {"DMSO", "1e5", "007"}


def findings(table, **arguments):
    return preflight(table.rename(columns=standard_names(table)), **arguments)


def of(level, found):
    return " | ".join(str(finding) for finding in found if finding.level == level)


def test_a_whole_screen_has_no_errors_and_is_counted(table, images):
    found = findings(table.assign(batch="x" + table["Plate"].str[:2]), images=images, channels=("DNA", "A", "B"))
    assert of("error", found) == ""
    assert "have one compound only" in of("warning", found)
    assert "36 cells" in of("ok", found)
    assert "Metadata_plate: 4 different" in of("ok", found)
    assert "12 wells" in of("ok", found)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("moa", "NSC, NSCB and the retrieval"),
        ("compound", "treatment profiles"),
        ("Plate", "scaling and illumination correction by plate"),
        ("concentration", "doses"),
        ("well", "well profiles"),
    ],
)
def test_each_missing_column_says_what_it_rules_out(table, column, words):
    assert words in of("warning", findings(table.drop(columns=column)))


def test_missing_controls_and_batches_say_what_they_rule_out(table):
    renamed = findings(table.replace({"compound": {"DMSO": "dmso"}}))
    assert "no row has compound 'DMSO': rules out whitening, TVN, CORAL, WDN" in of("warning", renamed)
    assert "'dmso' in 12 of 36 rows looks like the controls 'DMSO'" in of("error", renamed)
    assert "rules out NSCB" in of("warning", findings(table))
    assert "one batch only: rules out NSCB" in of("warning", findings(table.assign(batch="B1")))
    lacking = table[(table["Plate"] != "B2_b") | (table["compound"] != "DMSO")]
    assert "1 of 4 plates hold no DMSO, first B2_b" in of("warning", findings(lacking))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"concentration": ["5 uM"] * 2 + [1.0] * (N - 2)}, "2 of 36 rows hold text ('5 uM')"),
        ({"concentration": [-1.0] * N}, "36 rows are negative"),
        ({"compound": ["one", "two"] * (N // 2)}, "12 wells hold two treatments, first B1_a B02"),
        ({"batch": ["a", "b"] * (N // 2)}, "plate B1_a lies in 2 batches"),
        ({"moa": ["up", "Up"] * (N // 2)}, "1 of 1 names in Metadata_moa are written in two ways (Up and up)"),
    ],
)
def test_contradictions_are_errors_with_counts(table, change, words):
    assert words in of("error", findings(table.assign(**change)))


def test_unknown_plates_are_errors(table):
    found = of("error", findings(table, plates=["B1_a", "B1_b", "B2_a"]))
    assert "9 rows are on unknown plates (B2_b)" in found


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: x[:-1], "35 crops for 36 rows"),
        (lambda x: x / 65_535, "scale to 0..65535"),
        (lambda x: x.transpose(0, 2, 3, 1), "transpose to"),
        (lambda x: x[0], "is needed, one crop a row"),
    ],
)
def test_images_that_do_not_fit_are_refused(tmp_path, images, table, make, words):
    crops, rows = write(tmp_path, make(images), table)
    with pytest.raises(CellbookError, match=words):
        import_screen(crops, rows, tmp_path / "out", pixel_um=1)
    assert not (tmp_path / "out").exists()


def test_columns_are_mapped_and_wrong_mappings_refused(table):
    renamed = standard_names(table.rename(columns={"compound": "Drug"}), {"Drug": "compound"})
    assert renamed["Drug"] == "Metadata_compound"
    with pytest.raises(CellbookError, match="columns names Drug, which the table lacks"):
        standard_names(table, {"Drug": "compound"})
    with pytest.raises(CellbookError, match="maps 'well' to 'position'"):
        standard_names(table, {"well": "position"})
    with pytest.raises(CellbookError, match="two columns of the table mean Metadata_well"):
        standard_names(table.assign(Metadata_well="B02"))


@pytest.mark.parametrize("kind", ["missing", "truncated", "suffix", "rows", "damaged array", "no array"])
def test_unreadable_input_is_one_sentence(tmp_path, images, table, kind):
    crops, rows = write(tmp_path, images, table)
    if kind == "missing":
        rows.unlink()
    elif kind == "truncated":
        rows = tmp_path / "cells.parquet"
        table.to_parquet(rows)
        rows.write_bytes(rows.read_bytes()[:300])
    elif kind == "suffix":
        rows = rows.rename(tmp_path / "cells.xlsx")
    elif kind == "rows":
        rows.write_text("plate,well\n")
    elif kind == "damaged array":
        crops.write_bytes(crops.read_bytes()[:500])
    else:
        crops = tmp_path / "crops.tif"
    words = {
        "missing": "there is no file",
        "truncated": "not a complete .parquet file",
        "suffix": "unknown suffix",
        "rows": "but no rows",
        "damaged array": "is damaged",
        "no array": "neither a folder nor an existing",
    }[kind]
    with pytest.raises(CellbookError, match=words) as error:
        check_screen(crops, rows)
    assert "\n" not in str(error.value)


def fields(tmp_path, stacked):
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :150]
    rows = []
    (tmp_path / "images").mkdir()
    for number, plate in enumerate(["B1_a", "B2_a"]):
        nuclei = sum(((y - cy) ** 2 + (x - cx) ** 2 < 100) * 3000 for cy in (30, 80) for cx in (30, 75, 120))
        image = np.stack([nuclei + 800, nuclei // 2 + 500, 900 + 0 * nuclei]) + rng.integers(0, 60, (3, 120, 150))
        image = image.astype(np.uint16)
        row = {"plate": plate, "well": "B02", "compound": "DMSO", "concentration": 0, "moa": "DMSO"}
        if stacked:
            row["File"] = f"{number}.tif"
            tifffile.imwrite(tmp_path / "images" / row["File"], image, photometric="minisblack")
        else:
            for channel, plane in zip(("DNA", "Tubulin", "Actin"), image, strict=True):
                row[f"File_{channel}"] = f"{number}_{channel}.tif"
                tifffile.imwrite(tmp_path / "images" / row[f"File_{channel}"], plane)
        rows.append(row)
    pd.DataFrame(rows).to_csv(tmp_path / "fields.csv", index=False)
    return tmp_path / "images", tmp_path / "fields.csv"


def test_fields_become_the_same_cells_as_single_files_or_stacks(tmp_path):
    sets = []
    for stacked in (True, False):
        (tmp_path / str(stacked)).mkdir()
        folder, table = fields(tmp_path / str(stacked), stacked)
        out = tmp_path / f"out-{stacked}"
        arguments = {"size": 20, "illumination": False, "progress": False, "workers": 1}
        sets.append(import_screen(folder, table, out, pixel_um=0.5, **arguments))
    assert len(sets[0]) == 12
    assert np.array_equal(sets[0].images, sets[1].images)
    assert sets[0].table["Metadata_batch"].tolist() == ["B1"] * 6 + ["B2"] * 6
    assert {"Metadata_y", "Metadata_x"} <= set(sets[0].table)


def test_missing_field_files_are_found_before_anything_runs(tmp_path):
    folder, table = fields(tmp_path, stacked=False)
    (folder / "1_Actin.tif").unlink()
    found = of("warning", check_screen(folder, table))
    assert "File_Actin: 1 of 2 files are not in" in found
    with pytest.raises(CellbookError, match="File_RNA: no such column"):
        import_screen(folder, table, tmp_path / "out", pixel_um=1, channels=("DNA", "RNA"))
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(CellbookError, match=r"File_DNA: 2 of 2 files are not in .*and 2 more"):
        import_screen(folder, table, tmp_path / "out", pixel_um=1)


def test_a_stack_with_another_number_of_channels_is_named(tmp_path):
    folder, table = fields(tmp_path, stacked=True)
    with pytest.raises(CellbookError, match=r"2 failed, first: .*4 channels"):
        import_screen(
            folder,
            table,
            tmp_path / "out",
            pixel_um=1,
            channels=("DNA", "A", "B", "C"),
            size=20,
            progress=False,
            workers=1,
        )
