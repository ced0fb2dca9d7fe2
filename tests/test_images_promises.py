"""What the check of a screen promises: faults are said before anything runs, what it lets through can be scored."""

import numpy as np
import pandas as pd
import pytest

from cellbook import features
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.metrics import score
from cellbook.profiles import drop_unusable, read_profiles, to_wells, write_profiles
from cellbook.screens.bbbc021 import CONTROL
from cellbook.screens.extraction import extract
from cellbook.screens.own import check_screen, import_screen

tifffile = pytest.importorskip("tifffile")

CHANNELS = ("DNA", "Tubulin", "Actin")


def wells(rng):
    """Twelve wells in two batches: controls, and four compounds of two mechanisms at a dose each."""
    names = ["DMSO", "DMSO", "a", "b", "c", "d"]
    table = pd.DataFrame({"plate": np.repeat(["B1_p", "B2_p"], 6), "well": [f"B{2 + i % 6:02d}" for i in range(12)]})
    table["compound"], table["moa"] = names * 2, ["", "", "up", "up", "down", "down"] * 2
    table["concentration"] = [0.0, 0.0, 1.0, 0.3, 3.0, 1.0] * 2
    return table.sample(frac=1, random_state=int(rng.integers(1 << 31))).reset_index(drop=True)


def field(seed, shape=(80, 90)):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    discs = sum(((y - cy) ** 2 + (x - cx) ** 2 < 100) * 3000.0 for cy in (25, 55) for cx in (25, 60))
    image = np.stack([discs + 800, discs / 2 + 500, discs / 3 + 900]) + rng.integers(0, 200, (3, *shape))
    return image.astype(np.uint16)


def field_screen(folder, rng):
    (folder / "img").mkdir()
    table = wells(rng)
    for channel in CHANNELS:
        table[f"File_{channel}"] = [f"f{row}_{channel}.tif" for row in range(len(table))]
    for row in range(len(table)):
        for channel, plane in zip(CHANNELS, field(row), strict=True):
            tifffile.imwrite(folder / "img" / f"f{row}_{channel}.tif", plane)
    return folder / "img", table


def put(table, rows, column, value):
    table = table.astype({column: object}) if column in table else table
    table.loc[table.index[rows], column] = value
    return table


# name of a fault: the table with it
FAULTS = {
    "nothing": lambda t, _: t,
    "no doses": lambda t, _: t.drop(columns="concentration"),
    "some doses": lambda t, r: put(t, r.integers(12, size=3), "concentration", None),
    "infinite": lambda t, r: put(t, r.integers(12), "concentration", np.inf),
    "negative": lambda t, r: put(t, r.integers(12), "concentration", -1),
    "words": lambda t, r: put(t, r.integers(12), "concentration", "3 uM"),
    "spaces": lambda t, r: t.assign(compound=t["compound"] + np.where(r.random(12) < 0.5, " ", "")),
    "case of compounds": lambda t, r: put(t, r.integers(12), "compound", "A"),
    "case of controls": lambda t, r: put(t, r.integers(12), "compound", "dmso"),
    "case of mechanisms": lambda t, r: put(t, r.integers(12), "moa", "Up"),
    "another mechanism": lambda t, r: put(t, r.integers(12), "moa", "down"),
    "moa of controls": lambda t, _: t.assign(moa=t["moa"].where(t["compound"] != "DMSO", "DMSO")),
    "no mechanism": lambda t, r: put(t, r.integers(12), "moa", None),
    "nan as text": lambda t, r: put(t, r.integers(12), "moa", "nan"),
    "numbered compounds": lambda t, _: t.rename(columns={"compound": "compound1"}).assign(compound2="x"),
    "two columns": lambda t, _: t.assign(Compound=t["compound"]),
    "empty well": lambda t, r: put(t, r.integers(12), "well", None),
    "empty plate": lambda t, r: put(t, r.integers(12), "plate", None),
    "empty compound": lambda t, r: put(t, r.integers(12), "compound", None),
    "no plate": lambda t, _: t.drop(columns="plate"),
    "no well": lambda t, _: t.drop(columns="well"),
    "no compound": lambda t, _: t.drop(columns="compound"),
    "no mechanisms": lambda t, _: t.drop(columns="moa"),
    "no batch": lambda t, _: t.assign(plate=t["plate"].str[:2]),
    "empty batch": lambda t, r: t.assign(batch=np.where(np.arange(12) == r.integers(12), None, t["plate"].str[:2])),
    "joined batch": lambda t, _: t.assign(batch=t["plate"].str[:2] + "|x"),
    "two batches": lambda t, r: t.assign(batch=r.permutation(["x", "y"] * 6)),
    "replicates": lambda t, r: t.assign(replicate=np.where(r.random(12) < 0.5, "r1", "r2")),
    "numbered replicates": lambda t, _: t.assign(replicate=1),
    "counts": lambda t, _: t.assign(Metadata_cell_count="many"),
    "two forms": lambda t, r: put(t, r.integers(12), "well", "B2"),
    "only controls": lambda t, _: t.assign(compound="DMSO", concentration=0.0),
    "a well twice": lambda t, r: put(t, r.integers(12), "well", "B04"),
}
WITHOUT_SCORE = ("every score", "no row has compound", "score leaves them out")


def go_on(cells, findings, folder):
    """Features of cells, their table, and a score, where no finding rules it out."""
    said = " ".join(str(finding) for finding in findings if finding.level == "warning")
    table = features.classical(cells, progress=False)
    if "well profiles" in said:
        return
    table, _ = drop_unusable(to_wells(table))
    write_profiles(table, folder / "wells.csv")
    table = read_profiles(folder / "wells.csv")
    if not any(words in said for words in (*WITHOUT_SCORE, "rules out NSC,", "rules out treatment profiles")):
        assert [result.measure for result in score(table, "ljosa2013", drop_unusable=True, resamples=10)]


@pytest.mark.parametrize("seed", range(70))
def test_what_the_check_lets_through_is_imported_measured_and_scored(tmp_path, seed):
    rng = np.random.default_rng(seed)
    names = list(FAULTS)
    chosen = [names[seed % len(names)], names[rng.integers(len(names))]] if seed >= len(names) else [names[seed]]
    table = wells(rng)
    for name in chosen:
        try:
            table = FAULTS[name](table, rng)
        except KeyError:  # the fault before took its column away
            continue
    table.to_csv(tmp_path / "t.csv", index=False)
    kind = [np.uint16, np.uint8, ">u2"][seed % 3]
    images = rng.integers(1, 250, (12, 3, 20, 20)).astype(kind)
    np.save(tmp_path / "c.npy", images)
    try:
        findings = check_screen(tmp_path / "c.npy", tmp_path / "t.csv")
    except CellbookError:
        findings = None
    if findings is None or any(finding.level == "error" for finding in findings):
        with pytest.raises(CellbookError):
            import_screen(tmp_path / "c.npy", tmp_path / "t.csv", tmp_path / "set", pixel_um=1)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npy", "t.csv"]
        return
    cells = import_screen(tmp_path / "c.npy", tmp_path / "t.csv", tmp_path / "set", pixel_um=1)
    assert np.array_equal(cells.images, images)
    go_on(cells, findings, tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("infinite", "1 of 12 rows are infinite"),
        ("case of compounds", "1 of 5 names in Metadata_compound are written in two ways (A and a)"),
        ("case of controls", "'dmso' in 1 of 12 rows looks like the controls 'DMSO'"),
        ("replicates", "Metadata_replicate: 12 of 12 rows hold text ('r"),
        ("empty well", "Metadata_well: empty in 1 of 12 rows"),
        ("joined batch", "'|', which joins several batches"),
        ("numbered compounds", "if compound1 is meant, say --column compound1=compound"),
        ("some doses", "they count as one dose, 0"),
        ("nan as text", "1 of 8 treated rows have none"),
        ("spaces", "spaces at their ends taken off"),
    ],
)
def test_each_fault_of_a_table_is_said(tmp_path, name, words):
    rng = np.random.default_rng(1)
    FAULTS[name](wells(rng), rng).to_csv(tmp_path / "t.csv", index=False)
    np.save(tmp_path / "c.npy", rng.integers(1, 250, (12, 3, 20, 20), dtype=np.uint16))
    said = [str(finding) for finding in check_screen(tmp_path / "c.npy", tmp_path / "t.csv")]
    assert any(words in line and not line.startswith("ok") for line in said), said


def spoil(images, table, name):
    """A screen of fields with one fault of its files; the settings to import it with."""
    first = images / table["File_DNA"][0]
    if name == "one file for two channels":
        table["File_Actin"] = table["File_Tubulin"]
    elif name == "one field for all":
        table[["File_DNA", "File_Tubulin"]] = table.loc[0, ["File_DNA", "File_Tubulin"]].tolist()
    elif name == "listed twice":
        return pd.concat([table, table.iloc[:3]]), {}
    elif name == "stacks":
        for path in images.iterdir():
            tifffile.imwrite(path, np.stack([tifffile.imread(path)] * 2), imagej=True, metadata={"axes": "ZYX"})
    elif name == "bytes":
        for path in images.iterdir():
            tifffile.imwrite(path, (tifffile.imread(path) >> 8).astype(np.uint8))
    elif name == "one cut short":
        first.write_bytes(first.read_bytes()[:5000])
    elif name == "one larger":
        for channel, plane in zip(CHANNELS, field(0, (88, 90)), strict=True):
            tifffile.imwrite(images / table[f"File_{channel}"][0], plane)
    elif name == "large crops":
        return table, {"size": 81}
    elif name == "windows":
        (images / "sub").mkdir()
        for path in list(images.glob("*.tif")):
            path.rename(images / "sub" / path.name)
        for channel in CHANNELS:
            table[f"File_{channel}"] = "sub\\" + table[f"File_{channel}"]
    return table, {"plane": "Z=2"} if name == "stacks, one plane named" else {}


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        ("nothing", None, ""),
        ("windows", None, ""),
        ("one file for two channels", "error", "12 of 12 fields name the same file as in File_Tubulin"),
        ("one field for all", "error", "12 of 12 fields share their file with another, first f0_DNA.tif"),
        ("listed twice", "error", "6 of 15 fields share their file"),
        ("stacks", "error", "12 of 12 fields looked into will fail, first: .*2 along depth"),
        ("bytes", "error", "uint8"),
        ("large crops", "error", "smaller than a crop of 81 pixels"),
        ("one cut short", "warning", "1 of 12 fields looked into will fail, first: .*truncated"),
        ("one larger", "warning", "1 of 12 fields have another size"),
    ],
)
def test_the_files_of_fields_are_looked_into(tmp_path, name, level, words):
    images, table = field_screen(tmp_path, np.random.default_rng(0))
    table, how = spoil(images, table, name)
    table.to_csv(tmp_path / "t.csv", index=False)
    how = {"size": 24} | how
    findings = check_screen(images, tmp_path / "t.csv", **how)
    faults = [finding for finding in findings if finding.level in ("error", "warning")]
    if level is None:
        assert faults == []
    else:
        text = " | ".join(f"{finding.level}: {finding.message}" for finding in faults)
        assert pd.Series([text]).str.contains(f"{level}: .*{words}").all(), text
    given = {"pixel_um": 0.5, "workers": 1, "progress": False} | how
    if level == "error":
        with pytest.raises(CellbookError):
            import_screen(images, tmp_path / "t.csv", tmp_path / "set", **given)
        assert not (tmp_path / "set").exists()
        return
    cells = import_screen(images, tmp_path / "t.csv", tmp_path / "set", **given)
    cells.verify()
    row = cells.table.iloc[-1]  # its pixels are those of its field
    place = table.index[(table["plate"] == row["Metadata_plate"]) & (table["well"] == row["Metadata_well"])][0]
    y, x = int(row["Metadata_y"]) - 12, int(row["Metadata_x"]) - 12
    assert np.array_equal(cells.images[-1], field(place)[:, y : y + 24, x : x + 24])
    go_on(cells, findings, tmp_path)


def test_a_screen_without_doses_has_one_dose_wherever_it_comes_from(tmp_path):
    rng = np.random.default_rng(0)
    table = wells(rng).drop(columns="concentration").add_prefix("Metadata_")
    cells = CellSet(rng.integers(1, 250, (12, 3, 20, 20), dtype=np.uint16), table, CHANNELS, 1.0)
    assert (cells.table["Metadata_concentration"] == 0).all()
    assert "Metadata_concentration" not in table
    saved = cells.save(tmp_path / "set")
    saved.verify()
    assert saved.fingerprint == cells.fingerprint
    # three wells of a treatment, of which the dose is not told, are one treatment
    profiles = pd.concat([table.assign(Metadata_batch=table["Metadata_plate"])] * 2, ignore_index=True)
    profiles["Metadata_well"] = [f"C{i:02d}" for i in range(24)]
    profiles["x"], profiles["y"] = rng.normal(size=(2, 24))
    result = score(profiles[profiles["Metadata_moa"] != ""], "ljosa2013", resamples=10)[0]
    assert result.scored == 4
    assert "no column Metadata_concentration: all wells of a compound are one treatment" in result.notes
    with pytest.raises(CellbookError, match="rename 'Metadata_Concentration'"):
        score(profiles.assign(Metadata_Concentration=1.0), "ljosa2013")


def test_an_moa_table_that_labels_no_treated_well_is_refused(tmp_path):
    row = {"Image_Metadata_Plate_DAPI": "Week1_1", "Image_Metadata_Well_DAPI": "B02", "Replicate": 1}
    row |= {"Image_Metadata_Compound": "taxol", "Image_Metadata_Concentration": 0.3}
    row |= {f"Image_FileName_{stain}": f"{stain}.tif" for stain in ("DAPI", "Tubulin", "Actin")}
    row |= {f"Image_PathName_{stain}": "Week1_1" for stain in ("DAPI", "Tubulin", "Actin")}
    for name, plane in zip(("DAPI", "Tubulin", "Actin"), field(0), strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", plane)
    moa = pd.DataFrame({"compound": [CONTROL, "Taxol"], "concentration": [0.0, 0.3], "moa": [CONTROL, "up"]})
    how = {"workers": 1, "progress": False, "size": 24, "field_size": None}
    with pytest.raises(CellbookError, match=r"labels none of the 1 treated fields.*Taxol 0.3, the wells taxol 0.3"):
        extract(pd.DataFrame([row]), tmp_path, tmp_path / "out", moa=moa, **how)
    assert not (tmp_path / "out").exists()
    found = extract(pd.DataFrame([row]), tmp_path, tmp_path / "out", moa=moa.replace("Taxol", "taxol"), **how)
    assert set(found.open().table["Metadata_moa"]) == {"up"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder, t: put(t, 0, "File_Actin", None), "1 of 12 fields name no file"),
        (
            lambda folder, t: t.assign(File_Actin=t["File_Actin"].where(t.index != 1, "nowhere.tif")),
            "1 of 12 files are not",
        ),
    ],
)
def test_a_field_without_a_file_is_said_and_the_others_are_imported(tmp_path, change, words):
    folder, table = field_screen(tmp_path, np.random.default_rng(0))
    change(folder, table).to_csv(tmp_path / "t.csv", index=False)
    found = check_screen(folder, tmp_path / "t.csv", size=24)
    assert [f.level for f in found if words in f.message] == ["warning"]
    assert not [f for f in found if f.level == "error"]
    cells = import_screen(
        folder, tmp_path / "t.csv", tmp_path / "out", pixel_um=0.5, size=24, workers=1, progress=False
    )
    assert len(cells.table["Metadata_well"].value_counts()) <= 6
    assert len(cells) == 11 * 4


def test_one_file_for_two_channels_or_two_fields_is_an_error_under_any_name(tmp_path):
    folder, table = field_screen(tmp_path, np.random.default_rng(0))
    table.to_csv(tmp_path / "t.csv", index=False)
    found = check_screen(folder, tmp_path / "t.csv", size=24, files=("File_DNA", "File_DNA", "File_Actin"))
    assert ("error", "File_DNA") in [(f.level, f.subject) for f in found]
    (folder / "link.tif").symlink_to(table["File_DNA"][0])
    put(table, 1, "File_DNA", "link.tif").to_csv(tmp_path / "u.csv", index=False)
    found = check_screen(folder, tmp_path / "u.csv", size=24)
    assert any(f.level == "error" and "share their file" in f.message for f in found)
