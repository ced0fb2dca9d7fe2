"""Tables as people have them: what is a feature, what is missing, what is one thing, what is refused."""

import gzip
import json
import random
import re
from contextlib import nullcontext
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellbook.corrections import Settings, correct
from cellbook.errors import CellbookError
from cellbook.metrics import score
from cellbook.profiles import Coral, FactorAnalysis, PlateScaler, Whitening, features, matrix, read_profiles
from cellbook.profiles.files import MISSING, read_table
from cellbook.profiles.labels import check, like_controls
from cellbook.profiles.names import is_bookkeeping, standard_names
from cellbook.screens import bbbc021
from cellbook.screens.own import check_screen, import_screen

MOAS = ("Actin", "Aurora", "DNA", "Eg5")


def wells(seed=0):
    """64 wells of 8 compounds of 4 mechanisms in 3 batches on 6 plates, 4 controls a plate, 6 features."""
    rng = np.random.default_rng(seed)
    way, rows = rng.normal(size=(4, 6)), []
    for plate in range(6):
        batch, place = f"Week{plate // 2 + 1}", f"Week{plate // 2 + 1}_{100 + plate}"
        rows += [(place, f"B{k + 2:02d}", batch, "DMSO", 0.0, None, *rng.normal(size=6)) for k in range(4)]
        for i in (i for i in range(8) if i < 6 or i % 3 == plate // 2):
            x = 3 * way[i % 4] + rng.normal(size=6)
            rows.append((place, f"C{i + 2:02d}", batch, f"cmp{i}", 0.3, MOAS[i % 4], *x))
    names = [f"Metadata_{n}" for n in ("plate", "well", "batch", "compound", "concentration", "moa")]
    return pd.DataFrame(rows, columns=[*names, *(f"Cells_F{i}" for i in range(6))])


def counts(table):
    return [(s.measure, s.correct, s.scored) for s in score(table, "ljosa2013", resamples=10)]


RIGHT = counts(wells())


def store(table, path, **options):
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, **options)
    return path


# ---------------------------------------------------------------- what is a feature

JUNK = {
    "counter": {"Unnamed: 0": range(64)},
    "saved index": {"__index_level_0__": np.random.default_rng(1).permutation(64), "index": range(64)},
    "any name": {"Lfd Nummer": range(100, 164)},
    "CellProfiler": {
        name: np.random.default_rng(2).normal(1e3, 300, 64)
        for name in (
            *("ImageNumber", "ObjectNumber", "Image_ImageNumber", "TableNumber", "Group_Index"),
            *("Nuclei_Parent_Cells", "Parent_Nuclei", "Cells_Children_Cytoplasm_Count", "Cells_Number_Object_Number"),
            *("Location_Center_X", "Nuclei_Location_CenterMassIntensity_Y_DNA", "AreaShape_Center_Y"),
            *("Cells_AreaShape_BoundingBoxMinimum_X", "Image_Height_DNA", "ExecutionTime_01Images"),
        )
    },
    "other programs": {
        name: np.random.default_rng(3).normal(1e3, 300, 64)
        for name in (
            *("Row", "Column", "FOV", "Object ID", "Object No", "Position X [µm]", "Position Y [µm]", "X", "BX", "Z"),
            *("centroid-0", "bbox-3", "Nuclei_centroid_y", "Timepoint", "Plane", "cell_id", "Label", "Track_ID"),
        )
    },
    "names, doses and times": {
        name: np.random.default_rng(4).normal(1e3, 300, 64)
        for name in (
            *(
                "Nuclei - Object No in Cells",
                "MEASUREMENT SET ID",
                "ScreenID",
                "compound_id",
                "moa_code",
                "Dose_uM",
                "Week",
            ),
            *(
                "Date",
                "Time [s]",
                "Lfd. Nr.",
                "#",
                "TrackObjects_Label_20",
                "Frame_DNA",
                "ImageNumber.1",
                "nuc_y",
                "Order",
            ),
        )
    },
    "with gaps, falling": {"Zahl": 3 * np.arange(64.0) ** 2, "Left": 99 - np.arange(64)},
    "text": {"FileName_DNA": "a.tif", "Image_PathName_DNA": "/x", "Barcode": "P1", "Well Label": "B - 2"},
}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
@pytest.mark.parametrize("junk", JUNK)
def test_counters_and_bookkeeping_leave_the_score_as_it_is_and_are_named(tmp_path, junk, suffix):
    table = pd.concat([pd.DataFrame(JUNK[junk], index=range(64)), wells()], axis=1)
    path = store(table, tmp_path / f"t{suffix}", **({"sep": "\t"} if suffix == ".tsv" else {}))
    notes = []
    read = read_profiles(path, notes=notes)
    assert features(read) == [f"Cells_F{i}" for i in range(6)]
    assert counts(read) == RIGHT
    left = sum(map(int, re.findall(r"(\d+) (?:that|without)", notes[0])))
    assert left == len(JUNK[junk]) or junk == "saved index"
    assert all(name in notes[0] for name in list(JUNK[junk])[:2])
    one = list(JUNK[junk])[-1]
    if junk != "text":
        assert one in features(read_profiles(path, feature=[one]))


@pytest.mark.parametrize("word", ["-", "n.a.", "#REF!", "unknown", "Not annotated", "TBD", "?"])
def test_a_mechanism_that_says_there_is_none_is_none(tmp_path, word):
    table = wells()
    without = counts(table[~table["Metadata_compound"].isin(["cmp6", "cmp7"])])
    table.loc[table["Metadata_compound"].isin(["cmp6", "cmp7"]), "Metadata_moa"] = word
    found = score(read_profiles(store(table, tmp_path / "b.csv")), "ljosa2013", drop_unlabelled=True)
    assert [(r.correct, r.scored) for r in found] == [c[1:] for c in without]


@pytest.mark.parametrize("name", ["dmso", "DMSO 0.1%", "Dmso_0.1", "0.5 % DMSO", "Vehicle (DMSO)", "DMSO control"])
def test_what_looks_like_the_controls_is_not_scored_as_a_treatment(tmp_path, name):
    table = wells()
    table.loc[table.index[table["Metadata_compound"] == "DMSO"][:2], "Metadata_compound"] = name
    with pytest.raises(CellbookError, match=r"looks like the controls|\(DMSO and dmso\)"):
        counts(read_profiles(store(table, tmp_path / "t.csv")))
    with pytest.raises(CellbookError, match="looks like the controls"):
        correct(table, "centre", Settings("Metadata_batch"))
    other = like_controls(pd.Series(["DMSO", "DMSO2", "dimethyl", "DMSOX 3", None]), "DMSO")
    assert not other.any()


@pytest.mark.parametrize(
    ("column", "one", "other", "same"),
    [
        *(
            ("Metadata_batch", "Week1", other, True)
            for other in ("Week 1", "week_1", "Week01", "Week-1", "Week1\u200b")
        ),
        ("Metadata_moa", "Eg5-inhibitor", "Eg5\u2013inhibitor", True),
        *(
            ("Metadata_plate", one, other, False)
            for one, other in (("P1_11", "P11_1"), ("P1.05", "P1.5"), ("P10", "P1"))
        ),
        ("Metadata_compound", "(+)-JQ1", "(-)-JQ1", False),
    ],
)
def test_names_are_one_or_two_whatever_spaces_hyphens_and_zeros(column, one, other, same):
    table = pd.DataFrame({column: [one, other]})
    with pytest.raises(CellbookError, match="written in two ways") if same else nullcontext():
        check(table)


def test_a_number_written_for_a_missing_one_is_refused(tmp_path):
    table = wells()
    table.loc[30, "Cells_F0"] = 1.7e308
    with pytest.raises(CellbookError, match=r"1 of 6 features hold .* in 1 of "):
        counts(read_profiles(store(table, tmp_path / "t.csv")))


@pytest.mark.parametrize(("separator", "named"), [(";", "';'"), ("\t", "tabs"), ("|", r"'\|'")])
def test_another_separator_is_named_though_a_name_holds_a_comma(tmp_path, separator, named):
    path = store(wells().rename(columns={"Cells_F0": "Area, mean"}), tmp_path / "t.csv", sep=separator)
    with pytest.raises(CellbookError, match=f"has {named} between its columns"):
        read_profiles(path)


def test_a_pattern_takes_features_back_and_one_that_fits_nothing_is_refused(tmp_path):
    path = store(wells().assign(Cells_Number_A=1.5, Nuclei_Number_B=2.5), tmp_path / "t.csv")
    assert len(features(read_profiles(path, feature=["*_Number_*"]))) == 8
    with pytest.raises(CellbookError, match="feature='Zellen' fits none of the 8 columns"):
        read_profiles(path, feature=["Zellen"])
    only = store(wells().filter(like="Metadata").assign(ObjectNumber=1.0), tmp_path / "only.csv")
    with pytest.raises(CellbookError, match=r"no feature.*left out 1 that name or place.*ObjectNumber"):
        read_profiles(only)


def test_what_places_an_object_stays_as_metadata(tmp_path):
    read = read_profiles(store(wells().assign(ObjectNumber=range(5, 69)), tmp_path / "t.parquet"))
    assert "Metadata_ObjectNumber" not in read  # it counts rows as well
    read = read_profiles(store(wells().assign(ObjectNumber=7), tmp_path / "u.parquet"))
    assert read["Metadata_ObjectNumber"].tolist() == [7] * 64


@pytest.mark.parametrize(
    "name",
    [
        *("Cells_AreaShape_Area", "Nuclei_Texture_Contrast_DNA_3_00", "Cells_Neighbors_NumberOfNeighbors_10"),
        *("Cells_Count", "Cytoplasm_Correlation_Correlation_DNA_RNA", "Cells_RadialDistribution_FracAtD_RNA_1of4"),
        *("pca_0", "random_12", "planted_3", "whitened_0", "factor_1", "mu_3", "Nuclei_AreaShape_Zernike_0_0"),
        *("Cells_AreaShape_Orientation", "Granularity_1_DNA", "cell area", "Nuclear intensity", "efficientnet_17"),
        *("Texture_Sigmoid", "Area_x", "mitotic_index", "Cell Width [µm]", "Image_Count_Nuclei", "orderliness"),
    ],
)
def test_measurements_are_no_bookkeeping(name):
    assert not is_bookkeeping(name)


@pytest.mark.data
def test_published_features_are_left_as_they_are_by_the_reader(ljosa, tmp_path):
    read = read_profiles(store(bbbc021.ljosa2013("all"), tmp_path / "t.parquet"))
    assert features(read) == features(ljosa)


def test_every_command_says_what_it_took_for_features(run_main, tmp_path):
    path = store(wells().assign(ImageNumber=5.0), tmp_path / "t.csv")
    said = "features: 6 of 13 columns (Cells_F0, Cells_F1, Cells_F2 and 3 more); left out 1 that name or place"
    code, out, err = run_main("score", path, "--protocol", "ljosa2013", "--json")
    assert code == 0
    assert err.startswith(said)
    assert "--feature NAME" in json.loads(out)[0]["notes"][0]
    code, out, err = run_main("correct", path, "--method", "centre", "--output", tmp_path / "o.csv", "--json")
    assert code == 0
    assert err.startswith(said)
    assert json.loads(out)["notes"][0].startswith(said)
    code, _, err = run_main("score", path, "--protocol", "ljosa2013", "--feature", "Image*", "--drop-unusable")
    assert code == 0
    assert err.startswith("features: 7 of 13")


# ---------------------------------------------------------------- what is missing


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("word", sorted({*MISSING, "NaN", "NA", "None", "<NA>", "NULL", "N/A", " nan ", "nUlL"}))
def test_text_that_means_missing_is_missing_in_every_column(tmp_path, word, suffix):
    table, gone = wells(), wells()["Metadata_compound"].isin(["cmp0", "cmp1"])
    table["Metadata_moa"] = table["Metadata_moa"].astype(object).where(~gone, word)
    for name in ("Metadata_plate", "Cells_F0", "Metadata_concentration"):
        table[name] = table[name].astype(str).where(table.index != 5, word)
    read = read_profiles(store(table, tmp_path / f"t{suffix}"))
    assert read["Metadata_moa"].isna().equals(gone | table["Metadata_compound"].eq("DMSO"))
    assert read[["Metadata_plate", "Cells_F0", "Metadata_concentration"]].isna().sum().tolist() == [1, 1, 1]
    assert read["Cells_F0"].dtype == np.float64


@pytest.mark.parametrize("word", ["nan", "None", "NA", "<NA>"])
def test_a_mechanism_called_nan_is_not_scored(tmp_path, word):
    table = wells()
    gone = table["Metadata_compound"].isin(["cmp0", "cmp1"])
    want = score(table.assign(Metadata_moa=table["Metadata_moa"].mask(gone)), "ljosa2013", drop_unlabelled=True)
    path = store(table.assign(Metadata_moa=table["Metadata_moa"].mask(gone, word)), tmp_path / "t.csv")
    got = score(read_profiles(path), "ljosa2013", drop_unlabelled=True)
    assert [(s.correct, s.scored) for s in got] == [(s.correct, s.scored) for s in want]
    with pytest.raises(CellbookError, match="Metadata_moa is missing in 12 of 40 rows"):
        score(read_profiles(path), "ljosa2013")


# ---------------------------------------------------------------- one thing written two ways


def test_doses_that_differ_in_the_last_digits_are_one_and_said(tmp_path):
    table = wells()
    for other in (0.30000000000000004, float(np.float32(0.3)), 0.1 + 0.2):
        odd = table["Metadata_concentration"].mask(
            (table.index % 2 == 0) & table["Metadata_concentration"].gt(0), other
        )
        notes = []
        read = read_profiles(store(table.assign(Metadata_concentration=odd), tmp_path / "t.parquet"), notes=notes)
        assert counts(read) == RIGHT
        assert set(read["Metadata_concentration"]) == {0.0, 0.3}
        assert f"{other!r} read as 0.3 in {(odd == other).sum()} of 64 rows" in notes[1]
        assert counts(table.assign(Metadata_concentration=odd)) == RIGHT


def test_doses_of_a_series_stay_apart(tmp_path):
    doses = [0.0, 0.001, 0.003, 0.01, 0.0101, 0.1, 1.0, 1.001, 3.0, 3.3, 10.0]
    table = wells().assign(Metadata_concentration=(doses * 6)[:64], Metadata_well=[f"D{i}" for i in range(64)])
    read = read_profiles(store(table, tmp_path / "t.csv"))
    assert read["Metadata_concentration"].tolist() == table["Metadata_concentration"].tolist()


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [
        ("Metadata_moa", str.lower, "12 of 64 rows"),
        ("Metadata_batch", str.upper, "(WEEK1 and Week1)"),
        ("Metadata_plate", str.lower, "names in Metadata_plate"),
        ("Metadata_compound", lambda s: s.replace("cmp", "CMP"), "names in Metadata_compound"),
    ],
)
def test_names_in_two_cases_are_refused_with_counts(tmp_path, run_main, column, change, words):
    table = wells()
    rows = table.index % 2 == 0 if column != "Metadata_moa" else table["Metadata_compound"].eq("cmp4")
    table[column] = table[column].where(~rows, table[column].map(change, na_action="ignore"))
    path = store(table, tmp_path / "t.csv")
    for words_ in (["score", path, "--protocol", "ljosa2013"], ["correct", path, "--method", "centre", "--output"]):
        code, _, err = run_main(*words_, *([tmp_path / "o.csv"] if words_[0] == "correct" else []))
        assert code == 2
        assert words in err
        assert "written in two ways" in err
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("pair", ["27481 27481.0", "PP-2|PP 2", "Week 1|Week_1", "5 µM|5 μM"])
def test_names_that_differ_in_hyphens_zeros_or_the_kind_of_a_letter_are_one(tmp_path, pair):
    one, other = pair.split("|" if "|" in pair else " ")
    table = wells().assign(Metadata_batch=[one, other] * 32)
    with pytest.raises(CellbookError, match="1 of 1 names in Metadata_batch are written in two ways"):
        read_profiles(store(table, tmp_path / "t.csv"))


def test_stereoisomers_and_numbers_of_compounds_stay_apart(tmp_path):
    names = ["(+)-JQ1", "(-)-JQ1", "cmp1", "cmp10", "cmp01x", "AZ-C", "AZ-A", "PP-2"]
    table = wells().replace({"Metadata_compound": {f"cmp{i}": name for i, name in enumerate(names)}})
    assert counts(read_profiles(store(table, tmp_path / "t.csv"))) == RIGHT


def test_a_well_in_two_forms_is_one_and_a_well_with_two_compounds_none(tmp_path):
    table = wells()
    one = table[table["Metadata_compound"] == "cmp0"]
    short = one.assign(Metadata_well=one["Metadata_well"].str.replace("0", ""))
    mixed = pd.concat([table.drop(one.index[:3]), short[:3]])
    notes = []
    read = read_profiles(store(mixed, tmp_path / "t.csv"), notes=notes)
    assert counts(read) == RIGHT
    assert "Metadata_well: 'C2' read as 'C02' in 3 of 64 rows" in notes[1]
    twice = read_profiles(store(pd.concat([table, short]), tmp_path / "t.csv"))
    with pytest.raises(CellbookError, match=r"12 of 46 rows are duplicate wells .*C02"):
        score(twice, "ljosa2013")
    for other in ({"Metadata_compound": "cmp5", "Metadata_moa": "Aurora"}, {"Metadata_concentration": 3.0}):
        path = store(pd.concat([table, one.assign(**other)]), tmp_path / "t.parquet")
        with pytest.raises(CellbookError, match="6 wells hold two treatments, first Week1_100 C02"):
            read_profiles(path)


def test_labels_in_capital_letters_and_without_prefix_are_labels(tmp_path):
    table = wells().rename(
        columns=lambda c: c.replace("Metadata_", "Metadata_P").title().replace("_P", "_") if 0 else c
    )
    names = {"Metadata_plate": "Metadata_Plate", "Metadata_well": "Image_Metadata_Well", "Metadata_moa": "MOA"}
    path = store(table.rename(columns=names), tmp_path / "t.csv")
    notes = []
    read = read_profiles(path, notes=notes)
    assert counts(read) == RIGHT
    assert set(names) <= set(read)
    assert "Metadata_Plate read as Metadata_plate" in notes[1]
    assert "MOA read as Metadata_moa" in notes[1]
    with pytest.raises(CellbookError, match="two columns of the table mean Metadata_plate"):
        standard_names([*read.columns, "Plate"])
    doubled = pd.concat([table, table[table["Metadata_compound"] == "cmp0"]]).rename(columns=names)
    with pytest.raises(CellbookError, match="12 of 46 rows are duplicate wells"):
        score(read_profiles(store(doubled, tmp_path / "u.csv")), "ljosa2013")


# ---------------------------------------------------------------- one reader


FORMS = {
    "plain.csv": lambda t: t.to_csv(index=False).encode(),
    "UPPER.CSV": lambda t: t.to_csv(index=False).encode(),
    "tabs.tsv": lambda t: t.to_csv(index=False, sep="\t").encode(),
    "packed.csv.gz": lambda t: gzip.compress(t.to_csv(index=False).encode()),
    "unpacked.csv.gz": lambda t: t.to_csv(index=False).encode(),
    "mark.csv": lambda t: b"\xef\xbb\xbf" + t.to_csv(index=False).encode(),
    "utf16.csv": lambda t: t.to_csv(index=False).encode("utf-16"),
    "mac.csv": lambda t: t.to_csv(index=False).replace("\n", "\r").encode(),
    "windows.csv": lambda t: t.to_csv(index=False).replace("\n", "\r\n").encode(),
    "sep.csv": lambda t: b"sep=,\n" + t.to_csv(index=False).encode(),
    "quoted.csv": lambda t: t.to_csv(index=False, quoting=1).encode(),
    "open end.csv": lambda t: t.to_csv(index=False).rstrip("\n").encode(),
    "empty rows.csv": lambda t: t.to_csv(index=False).encode() + b"," * (t.shape[1] - 1) + b"\n",
    "long cell.csv": lambda t: t.assign(Metadata_thumb="A" * 200_000).to_csv(index=False).rstrip("\n").encode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_all_commands_read_the_same_file_the_same_way(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name](wells()))
    assert counts(read_profiles(tmp_path / name)) == RIGHT
    np.save(tmp_path / "crops.npy", np.zeros((64, 3, 8, 8), np.uint8))
    cells = import_screen(tmp_path / "crops.npy", tmp_path / name, tmp_path / "cells", pixel_um=1)
    assert cells.table["Metadata_compound"].tolist() == wells()["Metadata_compound"].tolist()
    moa = bbbc021.treatments()[["compound", "concentration", "moa"]]
    (tmp_path / name).write_bytes(FORMS[name](moa))
    assert bbbc021.moa_table(tmp_path / name)["moa"].tolist() == moa["moa"].tolist()


def two_rows(t):
    return ",".join(["Image"] * 6 + ["Cells"] * 6) + "\n" + t.to_csv(index=False)


FAULTS = {
    "semicolons.csv": (lambda t: t.to_csv(index=False, sep=";"), "has ';' between its columns"),
    "tabs.csv": (lambda t: t.to_csv(index=False, sep="\t"), "between its columns"),
    "latin1.csv": (lambda t: t.to_csv(index=False).replace("cmp1", "cmpµ").encode("latin-1"), "not text in UTF-8"),
    "comment.csv": (lambda t: "# made by X\n" + t.to_csv(index=False), "first line"),
    "two headers.csv": (two_rows, "two header rows"),
    "row names.csv": (lambda t: t.to_csv(index=False).replace("\nWeek", "\n1,Week"), "more cells in its rows"),
    "one long row.csv": (lambda t: t.to_csv(index=False) + "x," * 12 + "x\n", "not a complete"),
    "one short row.csv": (
        lambda t: t.to_csv(index=False).replace("\nWeek2", "\nWeek2_9,B02\nWeek2", 1),
        "1 rows are cut",
    ),
    "open quote.csv": (lambda t: t.to_csv(index=False) + '"Week1', "not a complete"),
    "zeros.csv": (lambda t: t.to_csv(index=False).replace("cmp1", "cmp\0"), "bytes of zero"),
    "workbook.csv": (lambda t: b"PK\x03\x04" + bytes(100), "Excel workbook"),
    "nothing.csv": (lambda t: "", "is empty"),
    "header.csv": (lambda t: t.head(0).to_csv(index=False), "no rows"),
    "twice.csv": (lambda t: t.to_csv(index=False).replace("Cells_F1", "Cells_F0", 1), "'Cells_F0' occurs 2 times"),
    "damaged.parquet": (lambda t: b"PAR1" + bytes(200) + b"PAR1", "not a complete .parquet file"),
    "text.parquet": (lambda t: t.to_csv(index=False), "not a complete .parquet file"),
    "cut.csv.gz": (lambda t: gzip.compress(t.to_csv(index=False).encode())[:900], "not a complete .csv.gz file"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_a_file_is_the_same_sentence_for_all_commands(tmp_path, name):
    make, words = FAULTS[name]
    data = make(wells())
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    np.save(tmp_path / "crops.npy", np.zeros((64, 3, 8, 8), np.uint8))
    for read in (read_profiles, bbbc021.moa_table, lambda path: check_screen(tmp_path / "crops.npy", path)):
        with pytest.raises(CellbookError) as error:
            read(tmp_path / name)
        assert words in str(error.value)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_a_folder_and_labels_in_an_index_are_refused_and_other_indices_are_no_features(tmp_path):
    whole = wells()
    pq.write_to_dataset(pa.Table.from_pandas(whole), tmp_path / "f.parquet", partition_cols=["Metadata_batch"])
    with pytest.raises(CellbookError, match="is a folder; give one file"):
        read_table(tmp_path / "f.parquet")
    whole.set_index(["Metadata_plate", "Metadata_well"]).to_parquet(tmp_path / "i.parquet")
    with pytest.raises(CellbookError, match="Metadata_plate, Metadata_well in its index"):
        read_table(tmp_path / "i.parquet")
    whole.sample(frac=1, random_state=0).rename_axis("id").to_parquet(tmp_path / "n.parquet")
    assert counts(read_profiles(tmp_path / "n.parquet")) == RIGHT


def test_a_plate_number_beside_a_missing_one_keeps_its_form_in_every_command(tmp_path):
    table = wells().assign(Metadata_plate=[27481.0, np.nan] * 32, Metadata_batch="a")
    path = store(table.assign(Metadata_well=[f"B{i}" for i in range(64)]), tmp_path / "t.parquet")
    plates = read_profiles(path)["Metadata_plate"]
    assert plates.dropna().unique().tolist() == ["27481"]
    assert plates.isna().sum() == 32
    np.save(tmp_path / "crops.npy", np.zeros((64, 3, 8, 8), np.uint8))
    with pytest.raises(CellbookError, match="Metadata_plate: empty in 32 of 64 rows"):
        import_screen(tmp_path / "crops.npy", path, tmp_path / "cells", pixel_um=1)
    path = store(
        table.assign(Metadata_plate=27481.0, Metadata_well=[f"B{i}" for i in range(64)]), tmp_path / "t.parquet"
    )
    cells = import_screen(tmp_path / "crops.npy", path, tmp_path / "cells", pixel_um=1)
    assert set(cells.table["Metadata_plate"]) == {"27481"}


def test_own_columns_named_for_import_stay_text(tmp_path):
    table = wells().rename(columns={"Metadata_compound": "Drug"}).assign(Drug=["007", "1E5"] * 32)
    table["Metadata_moa"] = table["Drug"].map({"007": "spying", "1E5": "numbers"})
    np.save(tmp_path / "crops.npy", np.zeros((64, 3, 8, 8), np.uint8))
    path = store(table.drop(columns="Metadata_well"), tmp_path / "t.csv")
    columns = {"Drug": "compound"}
    cells = import_screen(tmp_path / "crops.npy", path, tmp_path / "cells", pixel_um=1, columns=columns)
    assert set(cells.table["Metadata_compound"]) == {"007", "1E5"}


# ---------------------------------------------------------------- scaling by almost nothing


def nearly_constant(table, kind):
    """Add a feature that varies among all rows but hardly among the controls of one batch, or of any."""
    rng = np.random.default_rng(1)
    x, control = rng.poisson(3, len(table)).astype(float), table["Metadata_compound"].eq("DMSO").to_numpy()
    rows = control & table["Metadata_batch"].eq("Week1").to_numpy() if kind != "everywhere" else control
    x[rows] = {"one batch": 1.0, "near zero": 0.0, "everywhere": 0.0}[kind] + 1e-9 * rng.normal(size=rows.sum())
    return table.assign(Cells_Count=x)


@pytest.mark.parametrize("kind", ["one batch", "near zero", "everywhere"])
@pytest.mark.parametrize("method", ["robust", "standardise", "percentile", "whiten", "coral", "tvn"])
def test_a_feature_nearly_constant_in_the_controls_is_left_out_and_named(method, kind):
    table = wells()
    settings = Settings(ridge=1.0)
    got, want = correct(nearly_constant(table, kind), method, settings), correct(table, method, settings)
    note = " ".join(got.notes)
    if "Cells_Count" in note:
        assert "1 feature without spread" in note
        np.testing.assert_array_equal(matrix(got.profiles), matrix(want.profiles))
        assert counts(got.profiles) == counts(want.profiles)
    else:  # all controls together have a spread in it
        assert method in ("whiten", "coral", "tvn")
        assert np.abs(matrix(got.profiles)).max() < 100


@pytest.mark.parametrize("method", ["percentile", "standardise", "robust"])
def test_the_floor_is_far_below_a_small_but_true_spread(method):
    rng = np.random.default_rng(0)
    table = wells().assign(Cells_Offset=1e4 + rng.normal(size=64))
    scaler = PlateScaler(method, by="Metadata_batch", on_constant="drop").fit(table)
    assert scaler.dropped_ == []
    scaler.fit(nearly_constant(table, "one batch"))
    assert scaler.dropped_ == ["Cells_Count"]


def test_whitening_coral_and_factors_refuse_to_divide_by_rounding():
    table = wells().assign(Cells_Same=0.1 + 1e-9 * np.arange(64) / 64)
    for step in (Whitening(ridge=0), Whitening(scale_first=True), Coral(eta=0), FactorAnalysis(2)):
        with pytest.raises(CellbookError, match=r"1e-06 of their size.*Cells_Same"):
            step.fit(table)
    kept = Whitening(ridge=0, components="rank").fit(table)
    assert kept.rank_ == [6]
    assert np.abs(matrix(kept.transform(table))).max() < 100


# ---------------------------------------------------------------- several hundred damaged tables


ODD = ["", "nan", "None", "x", "1,5", "-1", "inf", "1e999", "0.30000000000000004", " DMSO ", "dmso", "µ", "Week1|Week2"]
ODD += ['a"b', "line\nend", "=1+1", "\t", "A" * 300, "True", "2024-01-01", "0x1F", "1_000", "NaN ", "|", "🧫", "\ufeff"]


def damage(rng: random.Random, table: pd.DataFrame) -> pd.DataFrame:
    """Spoil the cells, names or rows of a table in one of many ways."""
    column, row = rng.choice(list(table.columns)), rng.randrange(max(1, len(table)))
    odd = rng.choice(ODD)
    kind = rng.randrange(12)
    if kind <= 3:
        values = table[column].astype(object).copy()
        values.iloc[row if kind else slice(None)] = odd
        return table.assign(**{column: values})
    if kind == 4:
        return table.drop(columns=column)
    if kind == 5:
        return table.rename(columns={column: rng.choice([odd, column.upper(), "index", "Unnamed: 0", "plate", "moa "])})
    if kind == 6:
        return pd.concat([table, table.iloc[[row]]])
    if kind == 7:
        return table.iloc[: rng.randrange(3)]
    if kind == 8:
        return table.assign(**{column: rng.choice([np.nan, 0, np.inf, None, "same", 1e308, True])})
    if kind == 9:
        return table.assign(**{column: pd.Categorical(table[column])})
    if kind == 10:
        other = rng.choice(list(table.columns))
        return table.assign(**{column: table[other].to_numpy(object)})
    return table.assign(**{rng.choice(["ImageNumber", "X", "Plate", "", "odd"]): rng.choice([1.0, "text", None])})


def spoil(rng: random.Random, data: bytes) -> bytes:
    """Spoil the bytes of a file: cut, doubled, overwritten, re-encoded, or with other separators and line ends."""
    at = rng.randrange(max(1, len(data)))
    kind = rng.randrange(9)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9))) + data[at:]
    if kind == 2:
        return data[:at] + data[at + rng.randrange(1, 40) :]
    if kind == 3:
        return data.replace(b",", rng.choice([b";", b"\t", b" ", b"|", b",,"]))
    if kind == 4:
        return data.replace(b"\n", rng.choice([b"\r", b"\r\n", b"\n\n", b"\n\r", b""]))
    if kind == 5:
        return (
            rng.choice([b"# note\n", b"sep=;\n", b"\n\n", b",,,\n", b'"', b"\xff\xfe", b"\x1f\x8b", b"PK\x03\x04"])
            + data
        )
    if kind == 6:
        return data + rng.choice([b"\n", b'"', b",", b"\0", b"a,b\n", b"\x1a", data])
    if kind == 7:
        return data[at:]
    return gzip.compress(data)[: rng.choice([10, 200, None])]


@pytest.mark.parametrize("block", range(8))
def test_damaged_tables_end_in_one_sentence_or_a_right_result(tmp_path, block, capfd):
    rng, refused, good, left = random.Random(block), [], 0, 0
    crops = tmp_path / "crops.npy"
    np.save(crops, np.zeros((64, 1, 4, 4), np.uint8))
    for number in range(50):
        table = wells()
        for _ in range(rng.randrange(1, 3)):
            table = damage(rng, table) if len(table) else table
        name = rng.choice(["t.csv", "t.csv", "t.csv", "t.tsv", "t.csv.gz", "t.parquet", "T.CSV"])
        path = tmp_path / f"{number}{name}"
        if name == "t.parquet":
            try:
                table.to_parquet(path)
            except (pa.ArrowException, ValueError, TypeError):  # pandas cannot write it, so nobody has it
                continue
        else:
            path.write_bytes(table.to_csv(index=False, sep="\t" if name == "t.tsv" else ",").encode("utf-8", "ignore"))
        if rng.random() < 0.4:
            path.write_bytes(spoil(rng, path.read_bytes()))
        out = tmp_path / f"cells{number}"
        for command, words in (
            (lambda path: score(read_profiles(path), "ljosa2013", resamples=2), [path]),
            (lambda path: correct(read_profiles(path), "robust"), [path]),
            (partial(check_screen, channels=("DNA",)), [crops, path]),
            (partial(import_screen, channels=("DNA",), pixel_um=1), [crops, path, out]),
            (bbbc021.moa_table, [path]),
        ):
            try:
                result = command(*words)
            except CellbookError as error:
                refused.append(str(error))
                if out in words:
                    left += out.exists()
                continue
            good += 1
            if isinstance(result, list) and hasattr(result[0], "accuracy"):
                assert all(0 <= s.correct <= s.scored <= 28 for s in result)
                assert not any(is_bookkeeping(name) for name in features(read_profiles(path)))
    assert len(refused) > 50
    assert good > 50
    assert left == 0
    python = ("\n", "np.", "Timestamp(", "dtype", "object at 0x", "<class")
    assert [said for said in refused if any(word in said for word in python)] == []
    assert capfd.readouterr().err == ""
