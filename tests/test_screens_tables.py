"""The tables of BBBC021: what the published ones say, and what a reader's own can have wrong."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.screens import bbbc021

TREATMENT = ["Metadata_compound", "Metadata_concentration"]


def message(raised) -> str:
    """What the reader sees: one sentence on one line."""
    text = str(raised.value)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- the built-in design


def test_design_has_the_published_counts():
    design = bbbc021.treatments()
    assert list(design.columns) == ["compound", "concentration", "moa", "week"]
    assert len(design) == 103
    assert not design.duplicated(["compound", "concentration"]).any()
    assert design["compound"].nunique() == 38
    assert sorted(design["moa"].unique()) == list(bbbc021.MOAS)
    per_week = design["week"].value_counts()
    assert [per_week[f"Week{i}"] for i in range(1, 11)] == [19, 6, 29, 12, 3, 1, 10, 5, 10, 8]
    one_week = design.groupby("moa")["week"].nunique()
    assert sorted(one_week[one_week == 1].index) == ["Cholesterol-lowering", "Kinase inhibitors"]
    assert sum(bbbc021.PLATES_PER_WEEK.values()) == 55


@pytest.mark.data
def test_design_equals_the_official_tables():
    labelled = bbbc021.wells().query("Metadata_moa.notna() and Metadata_role == 'treatment'")
    columns = [*TREATMENT, "Metadata_moa", "Metadata_batch"]
    official = set(labelled[columns].itertuples(index=False, name=None))
    assert set(bbbc021.treatments().itertuples(index=False, name=None)) == official
    moas = bbbc021.moa_table().query("moa != 'DMSO'")
    assert set(moas.itertuples(index=False, name=None)) == {row[:3] for row in official}


# ---------------------------------------------------------------- the official tables


@pytest.mark.data
def test_official_tables_have_the_published_counts():
    images, wells = bbbc021.image_table(), bbbc021.wells()
    assert images.shape == (13_200, 13)
    assert not images.isna().any(axis=None)
    assert len(wells) == 3_300
    assert wells["Metadata_plate"].nunique() == 55
    assert wells.groupby("Metadata_batch")["Metadata_plate"].nunique().to_dict() == bbbc021.PLATES_PER_WEEK
    assert wells["Metadata_compound"].nunique() == 113
    assert len(wells[TREATMENT].drop_duplicates()) == 906
    assert wells["Metadata_moa"].notna().sum() == 962
    assert wells["Metadata_moa"].nunique() == 13
    assert set(wells["Metadata_replicate"]) == {1, 2, 3}
    assert not wells.drop(columns="Metadata_moa").isna().any(axis=None)
    dmso = wells["Metadata_compound"] == "DMSO"
    assert dmso.equals(wells["Metadata_moa"] == "DMSO")
    assert set(wells.loc[dmso, "Metadata_well"]) == set(bbbc021.CONTROL_WELLS)


@pytest.mark.data
def test_taxol_is_a_treatment_in_three_wells_and_the_positive_control_in_330():
    wells = bbbc021.wells()
    taxol = wells.query("Metadata_compound == 'taxol' and Metadata_concentration == 0.3")
    treated = taxol.query("Metadata_role == 'treatment'")
    assert len(treated) == 3
    assert set(treated["Metadata_well"]) == {"D05"}
    assert set(treated["Metadata_batch"]) == {"Week1"}
    positive = wells.query("Metadata_role == 'positive control'")
    assert len(positive) == 330
    assert set(positive.index) == set(taxol.index) - set(treated.index)
    assert set(positive.groupby("Metadata_plate").size()) == {6}
    assert wells["Metadata_role"].eq("negative control").equals(wells["Metadata_compound"].eq("DMSO"))


@pytest.mark.data
def test_ljosa_profiles_have_the_published_counts(ljosa):
    values = ljosa.drop(columns=[c for c in ljosa if c.startswith("Metadata_")])
    assert values.shape == (632, 464)
    assert np.isfinite(values.to_numpy()).all()
    assert not ljosa.isna().any(axis=None)
    dmso = ljosa["Metadata_compound"] == "DMSO"
    assert (dmso.sum(), (~dmso).sum()) == (330, 302)
    treated = ljosa[~dmso]
    assert treated["Metadata_compound"].nunique() == 38
    assert treated["Metadata_moa"].nunique() == 12
    assert treated.groupby(TREATMENT).size().value_counts().to_dict() == {3: 96, 2: 7}
    assert treated.groupby(TREATMENT)["Metadata_batch"].nunique().max() == 1
    assert set(ljosa["Metadata_role"]) == {"negative control", "treatment"}


@pytest.mark.data
def test_phenotype_is_all_features_but_the_bookkeeping(ljosa):
    everything = bbbc021.ljosa2013(features="all")
    dropped = set(everything.columns) - set(ljosa.columns)
    assert len(dropped) == 516 - 464
    words = ("_Location_", "_Parent_", "_Children_", "_Number_", "_Center_", "_EulerNumber")
    assert all(any(word in name for word in words) for name in dropped)
    assert not any(word in name for word in words for name in ljosa.columns)
    pd.testing.assert_frame_equal(everything[ljosa.columns], ljosa)


@pytest.mark.data
def test_cell_count_proxy_is_near_the_counts_of_known_fields(ljosa):
    # one field each, counted by its published crops; the proxy averages the four fields of the well
    counted = {"Week4_27801": 330, "Week4_27521": 251, "Week4_27861": 252, "Week4_27481": 227}
    wells = ljosa.query("Metadata_well == 'B02'").set_index("Metadata_plate")["Metadata_cell_count"]
    ratio = wells[list(counted)] / pd.Series(counted)
    assert ratio.between(0.8, 1.2).all()


@pytest.mark.data
def test_ljosa_rows_carry_the_values_of_their_own_well(ljosa, data_dir):
    raw = pd.read_csv(data_dir / "bbbc021/features" / bbbc021.LJOSA_TABLE)
    annotation = pd.read_csv(data_dir / "bbbc021/metadata/idr0035-screenA-annotation.csv")
    # the image data resource annotated the same wells independently; it does not pad well names
    key = annotation["Well"].str[0] + annotation["Well"].str[1:].str.zfill(2)
    compound = dict(zip(annotation["Plate"] + " " + key, annotation["Compound Name"], strict=True))
    for row in (0, 100, 631):
        one = raw.iloc[row]
        mine = ljosa.query("Metadata_plate == @one.Image_Metadata_Plate and Metadata_well == @one.Image_Metadata_Well")
        assert mine["Cells_AreaShape_Area"].tolist() == [one["Cells_AreaShape_Area"]]
    names = ljosa["Metadata_plate"] + " " + ljosa["Metadata_well"]
    assert [compound[name].lower() for name in names] == ljosa["Metadata_compound"].str.lower().tolist()


# ---------------------------------------------------------------- a reader's own tables, and what can be wrong


@pytest.fixture
def own(tmp_path):
    """Write a small folder in the official layout: one plate a week, two fields a well; returns tables and writer."""
    rows = []
    for week in ("Week1", "Week3"):
        here = bbbc021.treatments().query("week == @week").head(4)
        plan = [("DMSO", 0.0)] * 2 + list(zip(here["compound"], here["concentration"], strict=True))
        positions = [*bbbc021.CONTROL_WELLS[:2], "B03", "B04", "B05", "B06"]
        rows += [(f"{week}_1", p, c, d) for p, (c, d) in zip(positions, plan, strict=True)]
    plate, well, compound, dose = map(list, zip(*rows, strict=True))
    image = pd.DataFrame({"Image_Metadata_Plate_DAPI": plate, "Image_Metadata_Well_DAPI": well, "Replicate": 1})
    image["Image_Metadata_Compound"], image["Image_Metadata_Concentration"] = compound, dose
    features = image.iloc[:, :2].set_axis(["Image_Metadata_Plate", "Image_Metadata_Well"], axis=1)
    features["Cells_AreaShape_Area"] = np.random.default_rng(0).normal(3e3, 100, len(features))
    features["Nuclei_Number_Object_Number"] = 50.5
    fields = pd.concat([image.assign(site=s) for s in (1, 2)], ignore_index=True)
    name = fields["Image_Metadata_Well_DAPI"] + "_s" + fields.pop("site").astype("str") + "_w1.tif"
    fields["Image_FileName_DAPI"], fields["Image_PathName_DAPI"] = name, fields["Image_Metadata_Plate_DAPI"]
    moa = bbbc021.treatments()[["compound", "concentration", "moa"]]
    moa.loc[len(moa)] = ["DMSO", 0.0, "DMSO"]

    def write(image=fields, moa=moa, features=features) -> Path:
        image.to_csv(tmp_path / "BBBC021_v1_image.csv", index=False)
        moa.to_csv(tmp_path / "BBBC021_v1_moa.csv", index=False)
        features.to_csv(tmp_path / bbbc021.LJOSA_TABLE, index=False)
        return tmp_path

    return fields, moa, features, write


def test_own_folder_is_read_like_the_official_tables(own):
    _, _, features, write = own
    folder = write()
    wells, profiles = bbbc021.wells(folder), bbbc021.ljosa2013("all", folder)
    assert len(wells) == len(profiles) == 12
    assert wells["Metadata_batch"].value_counts().to_dict() == {"Week1": 6, "Week3": 6}
    assert profiles["Metadata_cell_count"].tolist() == [100.0] * 12
    assert profiles["Cells_AreaShape_Area"].tolist() == features["Cells_AreaShape_Area"].tolist()
    assert len(bbbc021.image_table(folder / "BBBC021_v1_image.csv")) == 24


def test_wells_without_published_mechanism_stay_with_a_missing_one(own):
    image, _, _, write = own
    other = image.replace({"Image_Metadata_Compound": {"cytochalasin B": "007"}})
    wells = bbbc021.wells(write(image=other))
    assert wells.loc[wells["Metadata_compound"] == "007", "Metadata_moa"].isna().all()
    assert (wells["Metadata_compound"] == "007").sum() == 2


def test_missing_and_misnamed_columns_are_named_with_their_mend(own):
    image, moa, _, write = own
    renamed = image.rename(columns={"Image_Metadata_Compound": "image_metadata_compound"})
    with pytest.raises(CellbookError) as raised:
        bbbc021.wells(write(image=renamed))
    text = message(raised)
    assert "24 rows" in text
    assert "rename 'image_metadata_compound' to 'Image_Metadata_Compound'" in text
    with pytest.raises(CellbookError, match=r"no column 'moa'; its columns are compound, concentration"):
        bbbc021.moa_table(write(moa=moa.drop(columns="moa")))


def test_empty_cells_and_text_among_concentrations_are_counted(own):
    image, _, _, write = own
    holes = image.assign(Image_Metadata_Well_DAPI=image["Image_Metadata_Well_DAPI"].where(image.index >= 3))
    with pytest.raises(CellbookError, match=r"'Image_Metadata_Well_DAPI'.* is empty in 3 of 24 rows"):
        bbbc021.wells(write(image=holes))
    text = image.astype({"Image_Metadata_Concentration": object})
    text.loc[[0, 5], "Image_Metadata_Concentration"] = "30 micromolar"
    with pytest.raises(CellbookError, match=r"is not a number in 2 of 24 rows \(30 micromolar\)"):
        bbbc021.wells(write(image=text))


def test_unknown_mechanism_is_refused_with_the_nearest_known_one(own):
    _, moa, _, write = own
    wrong = moa.replace({"moa": {"Eg5 inhibitors": "Eg5 inhibitor"}})
    with pytest.raises(CellbookError) as raised:
        bbbc021.wells(write(moa=wrong))
    text = message(raised)
    assert "12 of 104 rows" in text
    assert "'Eg5 inhibitors'" in text


def test_treatments_labelled_twice_are_refused(own):
    _, moa, _, write = own
    with pytest.raises(CellbookError, match=r"2 of its treatments twice \(cytochalasin B 10, cytochalasin B 30\)"):
        bbbc021.moa_table(write(moa=pd.concat([moa, moa.head(2)])))


def test_wells_with_two_treatments_and_fields_listed_twice_are_refused(own):
    image, _, _, write = own
    two = image.copy()
    two.loc[len(two) - 1, "Image_Metadata_Compound"] = "taxol"
    with pytest.raises(CellbookError, match=r"1 of 12 wells more than one compound.*Week3_1 B06"):
        bbbc021.wells(write(image=two))
    with pytest.raises(CellbookError, match="lists 4 of 28 fields twice"):
        bbbc021.image_table(write(image=pd.concat([image, image.head(4)])))


def test_plates_without_a_week_in_their_name_are_refused(own):
    image, _, _, write = own
    with pytest.raises(CellbookError, match=r"1 plate names, 6 wells, have no batch before '_' \(27481\)"):
        bbbc021.wells(write(image=image.replace({"Image_Metadata_Plate_DAPI": {"Week1_1": "27481"}})))


def test_feature_rows_that_do_not_fit_the_plate_layout_are_refused(own):
    image, moa, features, write = own
    with pytest.raises(CellbookError, match=r"2 duplicate wells in 14 rows \(Week1_1 B02, Week1_1 C02\)"):
        bbbc021.ljosa2013(folder=write(features=pd.concat([features, features.head(2)])))
    plate = features.replace({"Image_Metadata_Plate": {"Week3_1": "Week3_2"}})
    with pytest.raises(CellbookError, match=r"1 plates, 6 of 12 rows, that the image table does not have \(Week3_2\)"):
        bbbc021.ljosa2013(folder=write(features=plate))
    well = features.replace({"Image_Metadata_Well": {"B03": "H12"}})
    with pytest.raises(CellbookError, match=r"2 of 12 wells whose compound is unknown.*Week1_1 H12"):
        bbbc021.ljosa2013(folder=write(features=well))
    with pytest.raises(
        CellbookError, match=r"2 of 12 wells whose treatment the MOA table does not have.*cytochalasin B"
    ):
        bbbc021.ljosa2013(folder=write(moa=moa[moa["compound"] != "cytochalasin B"]))
    with pytest.raises(CellbookError, match="none of the 1 treatments of the MOA table is in any of the 12 wells"):
        bbbc021.wells(write(image=image, moa=moa[moa["compound"] == "ALLN"].head(1)))


def test_wrong_arguments_and_absent_or_broken_files_are_named(own, tmp_path):
    _, _, _, write = own
    folder = write()
    with pytest.raises(CellbookError, match="features is 'some'; use one of phenotype, all"):
        bbbc021.ljosa2013("some", folder)
    with pytest.raises(CellbookError, match="a file; give the folder"):
        bbbc021.wells(folder / "BBBC021_v1_image.csv")
    with pytest.raises(CellbookError, match="does not exist"):
        bbbc021.image_table(tmp_path / "nowhere")
    packed = gzip.compress((folder / "BBBC021_v1_image.csv").read_bytes())
    (folder / "BBBC021_v1_image.csv").unlink()
    with pytest.raises(CellbookError, match=r"neither BBBC021_v1_image\.csv nor BBBC021_v1_image\.csv\.gz"):
        bbbc021.wells(folder)
    (folder / "BBBC021_v1_image.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(CellbookError, match=r"not a complete \.csv\.gz file"):
        bbbc021.wells(folder)
    (folder / "BBBC021_v1_image.csv.gz").write_bytes(packed)
    assert len(bbbc021.wells(folder)) == 12
