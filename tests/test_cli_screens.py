"""Cells from the command line as a user meets it: what is made, what is refused; a bad file costs its field alone."""

import json
import resource
import shutil
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest

from cellbook.cells import CellSet
from cellbook.screens import simulated
from cellbook.screens.nuclei import match_centres
from cellbook.screens.simulator import preset, simulate

tifffile = pytest.importorskip("tifffile")

PLATES = ("--plates", "Week1_4,Week6_1")
SIZE = ("--field-size", "384x480")
PLACE = ["Metadata_y", "Metadata_x"]
EXTRACT = (*SIZE, "--no-illumination", "--workers", "1")
IMAGES, MOAS = "BBBC021_v1_image.csv", "BBBC021_v1_moa.csv"


@pytest.fixture
def cellbook(run_main, caplog):
    """Run the command line in this process: exit code, standard output, standard error with what is logged there."""

    def run(*words):
        caplog.clear()
        code, out, err = run_main(*words)
        return code, out, err + "".join(f"{message}\n" for message in caplog.messages)

    return run


def refused(answer, *words):
    """Check that a command ended in one line with these words and exit code 2."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Whole fields of two small plates, with the official tables and the truth."""
    folder = tmp_path_factory.mktemp("screen") / "fields"
    config = preset("smoke", field=(384, 480), seed=3)
    simulated.write_fields(config, folder, ["Week1_4", "Week6_1"])
    return folder


def test_simulate_gives_the_same_cells_for_the_same_arguments_however_they_are_divided(cellbook, tmp_path, monkeypatch):
    words = ("simulate", tmp_path / "cells", "--preset", "smoke", *PLATES)
    code, out, err = cellbook(*words)
    made = CellSet.open(tmp_path / "cells")
    made.verify()
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == [f"cells: {len(made)}", f"fingerprint: {made.fingerprint}"]
    assert made.fingerprint == simulate(preset("smoke"), plates=["Week1_4", "Week6_1"]).fingerprint
    monkeypatch.setattr(simulated, "CELLS_AT_ONCE", 1)
    assert cellbook(*words)[1] == out  # and a simulated screen is replaced without force
    assert cellbook(*words, "--week-effect", 0)[1] != out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells"]


def test_simulate_never_replaces_what_it_did_not_make(cellbook, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    words = ("simulate", tmp_path / "mine", "--preset", "smoke", "--plates", "Week6_1")
    refused(cellbook(*words), "not empty", "--force")
    refused(cellbook("simulate", tmp_path / "mine" / "notes.txt"), "is a file")
    monkeypatch.chdir(tmp_path / "mine")
    refused(cellbook(*words, "--force"), "working or home folder")
    monkeypatch.chdir(tmp_path)
    own = CellSet(np.ones((2, 1, 20, 20), np.uint8), pd.DataFrame({"Metadata_plate": ["a", "a"]}), ("DNA",), 1.0)
    own.save(tmp_path / "own")
    refused(cellbook("simulate", tmp_path / "own", "--preset", "smoke"), "no simulated screen")
    assert CellSet.open(tmp_path / "own").fingerprint == own.fingerprint
    monkeypatch.setattr(simulated.os.path, "expanduser", lambda path: path)  # a user of a container without a home
    assert cellbook(*words, "--force")[0] == 0
    assert not (tmp_path / "mine" / "notes.txt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "tiny"], "tiny"),
        (["--design", "gene"], "genetic"),
        (["--week-effect", "11"], "week_effect=11"),
        (["--plates", "Week1_1,Week99_2"], "Week99_2"),
        (["--field-size", "big"], "1024x1280"),
        (["--design", "genetic", "--fields", "--cells", "3"], "genetic"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_simulate_names_what_is_wrong(cellbook, tmp_path, words, message):
    refused(cellbook("simulate", tmp_path / "out", *words), message)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing_and_says_so(cellbook, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulated, "simulate", stopped)
    code, out, err = cellbook("simulate", tmp_path / "cells", "--preset", "smoke")
    assert (code, out) == (130, "")
    assert err.startswith("interrupted")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_for_every_command(cellbook, fields, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 255, (400, 1, 32, 32), dtype=np.uint8)
    CellSet(noise, pd.DataFrame({"Metadata_plate": ["a"] * 400}), ("DNA",), 1.0).save(tmp_path / "cells")
    features = ("features", tmp_path / "cells", tmp_path / "x.csv", "--encoder", "random-network", "--level", "cell")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        words = ("--preset", "smoke", "--plates", "Week6_1")
        refused(cellbook("simulate", tmp_path / "a", *words), "cannot write")
        refused(cellbook("simulate", tmp_path / "b", *words, "--fields", *SIZE), "cannot write")
        refused(cellbook("extract", fields, tmp_path / "c", *EXTRACT), "cannot write")
        refused(cellbook(*features), "cannot write")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.parts", "cells"]
    assert cellbook("extract", fields, tmp_path / "c", *EXTRACT)[0] == 0  # goes on once there is room


def test_the_same_cells_come_out_of_fields_as_out_of_direct_crops(cellbook, fields, tmp_path):
    code, out, err = cellbook("extract", fields, tmp_path / "cells", *EXTRACT)
    assert (code, err) == (0, "")
    found = CellSet.open(tmp_path / "cells")
    assert f"cells: {len(found)}" in out
    assert "fields: 9 done, 0 failed" in out
    config = preset("smoke", field=(384, 480), seed=3)
    direct = simulate(config, plates=["Week1_4", "Week6_1"])
    keys = ["Metadata_plate", "Metadata_well", "Metadata_site"]
    inner = direct.table.Metadata_y.between(36, 384 - 36) & direct.table.Metadata_x.between(36, 480 - 36)
    pairs = []
    for key, rows in direct.table[inner].groupby(keys).groups.items():
        mine = np.flatnonzero((found.table[keys] == list(key)).all(axis=1))
        near = match_centres(found.table[PLACE].to_numpy()[mine], direct.table.loc[rows, PLACE].to_numpy(), radius=2)
        pairs.append(np.stack([mine[near.pairs[:, 0]], rows.to_numpy()[near.pairs[:, 1]]], axis=1))
    ours, truth = np.concatenate(pairs).T
    assert len(ours) > 0.9 * inner.sum()
    same = (found.table[PLACE].to_numpy()[ours] == direct.table[PLACE].to_numpy()[truth]).all(axis=1)
    assert same.sum() > 20
    assert np.array_equal(found.images[ours[same]], direct.images[truth[same]])
    for name in ("compound", "concentration", "moa", "batch", "replicate"):
        column = f"Metadata_{name}"
        assert (found.table[column].to_numpy()[ours] == direct.table[column].to_numpy()[truth]).all()
    # again: answered from the folder, and nothing of it replaces another screen
    assert cellbook("extract", fields, tmp_path / "cells", *EXTRACT)[1] == out
    refused(cellbook("extract", fields, tmp_path / "cells", *EXTRACT, "--size", 40), "holds something else")


def test_each_bad_field_is_one_line_and_the_rest_goes_on(cellbook, fields, tmp_path):
    shutil.copytree(fields, tmp_path / "bad")
    table = pd.read_csv(tmp_path / "bad" / IMAGES)

    def path(row, stain):
        return tmp_path / "bad" / table[f"Image_PathName_{stain}"][row] / table[f"Image_FileName_{stain}"][row]

    pixels = tifffile.imread(path(0, "DAPI"))
    path(0, "DAPI").write_bytes(path(0, "DAPI").read_bytes()[:3000])
    path(1, "Tubulin").write_bytes(b"")
    tifffile.imwrite(path(2, "Actin"), (pixels >> 8).astype(np.uint8))
    tifffile.imwrite(path(3, "DAPI"), np.stack([pixels] * 3, axis=-1), photometric="rgb")
    tifffile.imwrite(path(4, "DAPI"), np.stack([pixels] * 2), photometric="minisblack")
    tifffile.imwrite(path(5, "Tubulin"), pixels[:100])
    path(6, "Actin").unlink()
    tifffile.imwrite(path(7, "DAPI"), np.full_like(pixels, 65_520))
    tifffile.imwrite(path(8, "Actin"), np.zeros_like(pixels))
    code, out, err = cellbook("extract", tmp_path / "bad", tmp_path / "cells", *EXTRACT)
    lines = err.splitlines()
    assert code == 1
    assert "fields: 2 done, 7 failed" in out
    words = ("truncated", "empty (0 bytes)", "uint8", "colour", "2 pages", "100 x 480", "Actin image of this field")
    assert len(lines) == 7 + 3
    for line, word in zip(lines, words, strict=False):
        assert line.startswith("failed: Week")
        assert word in line
    noted = "\n".join(lines[7:])
    assert "DNA is constant at 65520" in noted
    assert "no nuclei found" in noted
    assert "Actin is all zero" in noted
    report = pd.read_csv(tmp_path / "cells" / "fields.csv")
    assert (report["status"] == "failed").tolist() == [True] * 7 + [False] * 2
    code, out, _ = cellbook("features", tmp_path / "cells", tmp_path / "cells.parquet", "--level", "cell")
    assert code == 0
    numbers = pd.read_parquet(tmp_path / "cells.parquet").select_dtypes("number")
    assert len(numbers) == len(CellSet.open(tmp_path / "cells"))
    assert np.isfinite(numbers).all(axis=None)


def spoil_number(table):
    table["Image_Metadata_Concentration"] = table["Image_Metadata_Concentration"].astype(object)
    table.loc[2, "Image_Metadata_Concentration"] = "low"


def spoil_twice(table):
    table.loc[len(table)] = table.iloc[0]


def spoil_well(table):
    table.loc[1, "Image_Metadata_Well_DAPI"] = table.loc[0, "Image_Metadata_Well_DAPI"]
    table.loc[1, "Image_Metadata_Compound"] = "another"


def spoil_plate(table):
    table.loc[1:2, "Image_Metadata_Plate_DAPI"] = "Week1_9"


def spoil_column(table):
    del table["Image_FileName_Actin"]


def spoil_empty(table):
    table.loc[1, "Image_Metadata_Well_DAPI"] = None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_number, ["1 of 9", "low"]),
        (spoil_twice, ["1 of 10", "twice"]),
        (spoil_well, ["1 of 8 wells", "more than one compound"]),
        (spoil_plate, ["2 of 9", "Week1_9"]),
        (spoil_column, ["Image_FileName_Actin"]),
        (spoil_empty, ["Image_Metadata_Well_DAPI", "empty in 1"]),
    ],
)
def test_bad_image_tables_end_in_one_line(cellbook, fields, tmp_path, spoil, words):
    table = pd.read_csv(fields / IMAGES)
    spoil(table)
    table.to_csv(tmp_path / IMAGES, index=False)
    shutil.copy(fields / MOAS, tmp_path)
    refused(cellbook("extract", fields, tmp_path / "cells", "--table", tmp_path, *EXTRACT), *words)
    assert not (tmp_path / "cells").exists()


def test_a_part_of_the_archives_is_cut_with_the_whole_table(cellbook, fields, tmp_path):
    shutil.copytree(fields / "Week6", tmp_path / "images" / "Week6")
    words = ("extract", tmp_path / "images", tmp_path / "cells", "--table", fields, *EXTRACT)
    refused(cellbook(*words, "--plates", "Week6_2"), "Week6_2", "Week6_1")
    refused(cellbook(*words, "--plates", "Week1_4"), "Week1_4", "no image")
    table = pd.read_csv(fields / IMAGES)
    table.loc[table.index[-1], "Image_FileName_Actin"] = None  # an empty cell costs its field alone
    (tmp_path / "tables").mkdir()
    table.to_csv(tmp_path / "tables" / IMAGES, index=False)
    words = (*words[:3], "--table", tmp_path / "tables" / IMAGES, *EXTRACT)
    code, out, err = cellbook(*words)
    assert code == 1
    assert "fields: 1 done, 1 failed" in out
    assert "1 of 2 plates have no image here and are left out, first Week1_4" in err
    assert "the cells get no mechanisms" in err
    assert set(CellSet.open(tmp_path / "cells").table["Metadata_plate"]) == {"Week6_1"}


def test_nuclei_are_printed_as_csv(cellbook, fields, tmp_path):
    image = sorted(fields.rglob("*_w1*.tif"))[0]
    for method in ("otsu", "dog"):
        code, out, _ = cellbook("nuclei", image, "--method", method)
        lines = out.splitlines()
        assert code == 0
        assert lines[0] == "y,x"
        assert len(lines) > 20
        assert all(0 <= int(y) < 384 and 0 <= int(x) < 480 for y, x in (line.split(",") for line in lines[1:]))
    refused(cellbook("nuclei", image, "--method", "log"), "log")
    refused(cellbook("nuclei", tmp_path / "no.tif"), "does not exist")
    refused(cellbook("nuclei", tmp_path), "is a folder")


def test_simulated_cells_become_features_and_scores(cellbook, tmp_path):
    assert cellbook("simulate", tmp_path / "cells", "--preset", "smoke", "--cells", 2)[0] == 0
    made = CellSet.open(tmp_path / "cells")
    wells = made.table.groupby(["Metadata_plate", "Metadata_well"]).ngroups
    for encoder in ("classical", "random-network", "pixel-pca", "cell-count"):
        table = tmp_path / f"{encoder}.csv"
        code, out, err = cellbook("features", tmp_path / "cells", table, "--encoder", encoder)
        assert (code, err) == (0, "")
        assert f"rows: {wells}" in out
        code, out, _ = cellbook("score", table, "--protocol", "ljosa2013", "--json")
        assert code == 0
        assert {row["measure"]: row["scored"] for row in json.loads(out)} == {"NSC": 103, "NSCB": 92}
    refused(cellbook("features", tmp_path / "cells", tmp_path / "x.txt"), "suffix")
    refused(cellbook("features", tmp_path / "cells", tmp_path / "no" / "x.csv"), "folder")
    refused(cellbook("features", tmp_path / "cells", tmp_path / "x.csv", "--encoder", "resnet"), "resnet", "classical")
    refused(cellbook("features", tmp_path / "nothing", tmp_path / "x.csv"), "no cell set")
    count = ("features", tmp_path / "cells", tmp_path / "x.csv", "--encoder", "cell-count", "--level", "cell")
    refused(cellbook(*count), "belongs to a well")


@pytest.fixture
def own(tmp_path):
    """Crops of a reader's own, with a table in the reader's own words."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "crops.npy", rng.integers(0, 4000, (12, 3, 20, 20), dtype=np.uint16))
    table = pd.DataFrame({"Plate": ["p_1", "q_1"] * 6, "Well": [f"B{i:02d}" for i in range(2, 14)]})
    table["Drug"] = ["DMSO", "DMSO", "aspirin"] * 4
    table["Concentration"] = [0.0, 0.0, 1.0] * 4
    table.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


def test_import_says_what_each_missing_thing_rules_out_and_imports(cellbook, own):
    words = ("import", "--images", own / "crops.npy", "--table", own / "table.csv")
    code, out, _ = cellbook(*words, "--check")
    assert code == 0
    assert "warning: Metadata_compound: missing: rules out treatment profiles" in out
    assert "warning: Metadata_moa: missing: rules out NSC" in out
    named = (*words, "--column", "Drug=compound")
    assert "compound: missing" not in cellbook(*named, "--check")[1]
    code, out, _ = cellbook(*named, "--check", "--plates", "p_1")
    assert code == 2
    assert "error: Metadata_plate: 6 rows are on unknown plates (q_1)" in out
    refused(cellbook(*named, "--plates", "p_1", "--out", own / "set", "--pixel-um", 0.5), "unknown plates")
    refused(cellbook(*named, "--out", own / "set"), "--pixel-um")
    assert not (own / "set").exists()
    code, out, err = cellbook(*named, "--out", own / "set", "--pixel-um", 0.5)
    cells = CellSet.open(own / "set")
    assert code == 0
    assert f"fingerprint: {cells.fingerprint}" in out
    assert "Metadata_moa: missing" in err
    assert np.array_equal(cells.images, np.load(own / "crops.npy"))
    assert cells.table["Metadata_compound"].tolist() == ["DMSO", "DMSO", "aspirin"] * 4
    refused(cellbook(*words, "--column", "Drug", "--check"), "own=name")


def test_import_of_fields_counts_those_that_failed(cellbook, fields, tmp_path):
    table = pd.read_csv(fields / IMAGES)
    own = pd.DataFrame({"plate": table["Image_Metadata_Plate_DAPI"], "well": table["Image_Metadata_Well_DAPI"]})
    for name, stain in (("DNA", "DAPI"), ("Actin", "Actin")):
        own[f"File_{name}"] = table[f"Image_PathName_{stain}"] + "/" + table[f"Image_FileName_{stain}"]
    own.loc[0, "File_Actin"] = "gone.tif"
    own.to_csv(tmp_path / "own.csv", index=False)
    words = ("import", "--images", fields, "--table", tmp_path / "own.csv", "--channels", "DNA,Actin", "--workers", 1)
    code, out, err = cellbook(*words, "--out", tmp_path / "set", "--pixel-um", 0.656, "--no-illumination")
    assert code == 1
    assert "fields: 8 done, 1 failed" in out
    assert "gone.tif does not exist" in err
    assert CellSet.open(tmp_path / "set").channels == ("DNA", "Actin")


@pytest.fixture
def mirror(fields, tmp_path):
    """A local server with the tables and one archive of the simulated screen."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name in (IMAGES, MOAS, "BBBC021_v1_compound.csv"):
        shutil.copy(fields / name, folder)
    with zipfile.ZipFile(folder / "BBBC021_v1_images_Week6_1.zip", "w") as archive:
        for file in sorted((fields / "Week6").rglob("*.tif")):
            archive.write(file, file.relative_to(fields))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_downloaded_plates_become_cells(cellbook, mirror, tmp_path):
    _, url = mirror
    words = ("download", "bbbc021", tmp_path / "images", "--base-url", url)
    refused(cellbook(*words, "--plates", "Week6_9"), "Week6_9", "Week6_1")
    code, out, _ = cellbook(*words, "--plates", "Week6_1")
    assert code == 0
    assert out.startswith("plates: 1, 0 of them")
    # as typed by somebody who lists plates after one --plates: the second is no folder
    assert cellbook(*words, "--plates", "Week6_1", "Week6_1")[1].startswith("plates: 1, 1 of them")
    code, out, _ = cellbook("extract", tmp_path / "images", tmp_path / "cells", *EXTRACT)
    assert code == 0
    assert "fields: 2 done, 0 failed" in out
    refused(cellbook(*words), "1 of 1 archives failed", "404")
    refused(cellbook("download", "bbbc022"), "bbbc022")


def test_an_archive_that_escapes_is_refused_in_one_line(cellbook, mirror, tmp_path):
    folder, url = mirror
    with zipfile.ZipFile(folder / "BBBC021_v1_images_Week6_1.zip", "w") as archive:
        archive.writestr("../../evil.tif", "x")
    words = ("download", "bbbc021", tmp_path / "deep" / "images", "--base-url", url, "--plates", "Week6_1")
    refused(cellbook(*words), "evil.tif", "outside its folder")
    assert not list(tmp_path.rglob("evil.tif"))
