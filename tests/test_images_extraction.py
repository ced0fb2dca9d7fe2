"""Whole screens into cells: same result however it was reached, and a broken field never costs the others."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.screens import extraction
from cellbook.screens.extraction import extract
from cellbook.screens.illumination import MeanImage, correct, illumination_function
from cellbook.screens.nuclei import detect

tifffile = pytest.importorskip("tifffile")

SHAPE = (160, 200)
SMALL = {"size": 24, "field_size": SHAPE, "progress": False}


def make_screen(folder, plates=2, wells=1, sites=2, seed=0):
    """A screen in the official layout with discs on a grid; returns the image table."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rows = []
    for plate in range(plates):
        name = f"Week{plate + 1}_{plate}"
        (folder / name).mkdir(parents=True)
        for well in range(wells):
            for site in range(1, sites + 1):
                nuclei = sum(
                    ((y - cy - rng.integers(-4, 5)) ** 2 + (x - cx - rng.integers(-4, 5)) ** 2 < 120) * 3000
                    for cy in (30, 80, 130)
                    for cx in (30, 80, 130, 175)
                )
                row = {"Image_Metadata_Plate_DAPI": name, "Image_Metadata_Well_DAPI": f"B{well + 2:02d}"}
                row |= {"Replicate": 1, "Image_Metadata_Compound": "DMSO", "Image_Metadata_Concentration": 0.0}
                for stain, wave in (("DAPI", 1), ("Tubulin", 2), ("Actin", 4)):
                    file = f"B{well + 2:02d}_s{site}_w{wave}.tif"
                    image = ndimage.gaussian_filter(nuclei.astype(float), 1.5 * wave) + 800
                    image = (image + rng.normal(0, 30, SHAPE)).clip(0, 65_535).astype(np.uint16)
                    tifffile.imwrite(folder / name / file, image)
                    row |= {f"Image_FileName_{stain}": file, f"Image_PathName_{stain}": f"Week{plate + 1}/{name}"}
                rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture
def screen(tmp_path):
    return make_screen(tmp_path / "images"), tmp_path / "images", tmp_path / "cells"


def test_extracted_cells_are_pixels_of_their_fields(screen):
    table, images, out = screen
    moa = pd.DataFrame({"compound": ["DMSO"], "concentration": [0.0], "moa": ["DMSO"]})
    result = extract(table, images, out, moa=moa, workers=1, illumination=False, **SMALL)
    cells = result.open()
    cells.verify()
    assert (result.done, result.failed, result.cells) == (4, 0, len(cells))
    assert cells.images.shape[1:] == (3, 24, 24)
    assert set(cells.table["Metadata_moa"]) == {"DMSO"}
    first = images / "Week1_0"
    field = np.stack([tifffile.imread(first / f"B02_s1_w{wave}.tif") for wave in (1, 2, 4)])
    mine = cells.select("Metadata_plate == 'Week1_0' and Metadata_site == 1")
    assert len(mine) == len(detect(field[0])) == 12
    for image, y, x in zip(mine.images, mine.table["Metadata_y"], mine.table["Metadata_x"], strict=True):
        assert np.array_equal(image, field[:, y - 12 : y + 12, x - 12 : x + 12])
    assert not out.with_name("cells.parts").exists()


def test_workers_and_resuming_change_nothing(screen, monkeypatch):
    table, images, out = screen
    monkeypatch.setattr(extraction, "MIN_FIELDS", 2)
    whole = extract(table, images, out, workers=1, **SMALL).open()
    # a first run that dies after two fields
    real, calls = extraction._cut, []

    def dies(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(extraction, "_cut", dies)
    again = out.with_name("again")
    with pytest.raises(KeyboardInterrupt):
        extract(table, images, again, workers=1, **SMALL)
    assert not again.exists()
    assert len(list(again.with_name("again.parts").glob("*.npz"))) == 2

    def counts(*arguments):
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(extraction, "_cut", counts)
    resumed = extract(table, images, again, workers=1, **SMALL)
    assert len(calls) == 2 + 2
    assert resumed.open().fingerprint == whole.fingerprint
    assert resumed.done == 4
    # a finished extraction is answered from its folder
    assert extract(table, images, again, workers=1, **SMALL).cells == resumed.cells
    assert len(calls) == 4


def test_two_processes_give_the_same_cells(screen):
    table, images, out = screen
    one = extract(table, images, out, workers=1, illumination=False, **SMALL).open()
    two = extract(table, images, out.with_name("two"), workers=2, illumination=False, **SMALL).open()
    assert one.fingerprint == two.fingerprint


def test_broken_fields_are_reported_and_mended_by_the_next_call(screen):
    table, images, out = screen
    bad = images / "Week1_0" / "B02_s2_w2.tif"
    good = bad.read_bytes()
    bad.write_bytes(good[:500])
    (images / "Week2_1" / "B02_s1_w4.tif").unlink()
    dark = images / "Week2_1" / "B02_s2_w4.tif"
    tifffile.imwrite(dark, np.zeros(SHAPE, np.uint16))
    result = extract(table, images, out, workers=1, illumination=False, **SMALL)
    assert (result.done, result.failed) == (2, 2)
    notes = result.report.set_index(["Metadata_plate", "Metadata_site"])["note"]
    assert "truncated" in notes["Week1_0", 2]
    assert "Actin image of this field was not found" in notes["Week2_1", 1]
    assert notes["Week2_1", 2] == "Actin is all zero"
    assert notes["Week1_0", 1] == ""
    bad.write_bytes(good)
    mended = extract(table, images, out, workers=1, illumination=False, **SMALL)
    assert (mended.done, mended.failed) == (3, 1)
    assert mended.cells > result.cells
    mended.open().verify()


def test_a_killed_run_leaves_finished_fields_and_the_next_goes_on(tmp_path):
    table = make_screen(tmp_path / "images", plates=1, wells=3, sites=4)
    table.to_pickle(tmp_path / "table.pkl")
    script = f"""
        import time, pandas as pd
        from cellbook.screens import extraction
        real = extraction._cut
        def slow(*arguments):
            time.sleep(0.05)
            return real(*arguments)
        extraction._cut = slow
        extraction.extract(pd.read_pickle({str(tmp_path / "table.pkl")!r}), {str(tmp_path / "images")!r},
                           {str(tmp_path / "cells")!r}, workers=1, illumination=False, size=24, field_size={SHAPE},
                           progress=False)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=os.environ | {"PYTHONPATH": "."})
    parts, start = tmp_path / "cells.parts", time.monotonic()
    while len(list(parts.glob("*.npz"))) < 3 and time.monotonic() - start < 30:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in parts.glob("*.npz")}
    assert 3 <= len(finished) < 12
    result = extract(table, tmp_path / "images", tmp_path / "cells", workers=1, illumination=False, **SMALL)
    assert (result.done, result.failed) == (12, 0)
    result.open().verify()
    fresh = extract(table, tmp_path / "images", tmp_path / "fresh", workers=1, illumination=False, **SMALL)
    assert fresh.open().fingerprint == result.open().fingerprint


def test_one_clear_error_when_there_is_nothing_to_cut_or_the_folder_is_taken(screen):
    table, images, out = screen
    with pytest.raises(CellbookError, match=r"no cell in 4 fields \(4 failed, first: .*expected 50 x 60"):
        extract(table, images, out, workers=1, size=24, field_size=(50, 60), progress=False)
    # nothing was finished, so other settings find the place free
    extract(table, images, out, workers=1, illumination=False, **SMALL)
    assert not out.with_name("cells.parts").exists()
    lost = next(images.rglob("*_w4.tif"))
    lost.rename(lost.with_suffix(".lost"))
    half = out.with_name("half")
    assert extract(table, images, half, workers=1, illumination=False, **SMALL).failed == 1
    shutil.rmtree(half)
    with pytest.raises(CellbookError, match="other settings or other fields"):
        extract(table, images, half, workers=1, illumination=False, **SMALL | {"size": 26})
    assert extract(table, images, half, workers=1, illumination=False, resume=False, **SMALL | {"size": 26}).done == 3
    lost.with_suffix(".lost").rename(lost)
    with pytest.raises(CellbookError, match="holds something else"):
        extract(table, images, out, workers=1, illumination=False, **SMALL | {"size": 26})
    with pytest.raises(CellbookError, match="holds something else"):
        extract(table, images, images, workers=1, resume=False, **SMALL)
    with pytest.raises(CellbookError, match="unknown setting crop_size"):
        extract(table, images, out, crop_size=3)
    with pytest.raises(CellbookError, match="size is 500"):
        extract(table, images, out, **SMALL | {"size": 500})
    blank = tifffile.imwrite
    for path in images.rglob("*_w1.tif"):
        blank(path, np.full(SHAPE, 900, np.uint16))
    with pytest.raises(CellbookError, match="no nuclei were found"):
        extract(table, images, out.with_name("none"), workers=1, illumination=False, **SMALL)


def test_two_runs_never_share_a_folder(screen, monkeypatch):
    table, images, out = screen
    real = extraction._cut

    def second(*arguments):
        monkeypatch.setattr(extraction, "_cut", real)
        with pytest.raises(CellbookError, match=rf"process {os.getpid()} on .* is at work on"):
            extract(table, images, out, workers=1, illumination=False, **SMALL)
        return real(*arguments)

    monkeypatch.setattr(extraction, "_cut", second)
    assert extract(table, images, out, workers=1, illumination=False, **SMALL).done == 4


def test_ctrl_c_ends_the_workers_and_keeps_their_fields(tmp_path):
    table = make_screen(tmp_path / "images", plates=1, wells=20, sites=4)
    table.to_pickle(tmp_path / "table.pkl")
    script = tmp_path / "run.py"
    script.write_text(
        "import pandas as pd\nfrom cellbook.screens.extraction import extract\n"
        "if __name__ == '__main__':\n"
        f"    extract(pd.read_pickle({str(tmp_path / 'table.pkl')!r}), {str(tmp_path / 'images')!r},\n"
        f"            {str(tmp_path / 'cells')!r}, workers=2, illumination=False, size=24, field_size={SHAPE},\n"
        "            progress=False)\n"
    )
    environment = os.environ | {"PYTHONPATH": "."}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    parts, start = tmp_path / "cells.parts", time.monotonic()
    while len(list(parts.glob("*.npz"))) < 2 and time.monotonic() - start < 60:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("on a busy machine the extraction ended before it could be interrupted")
    finished = len(list(parts.glob("*.npz")))
    assert 2 <= finished < 80
    assert "finished fields are kept" in said
    assert said.count("Traceback") == 1  # the parent's; workers stay silent
    result = extract(table, tmp_path / "images", tmp_path / "cells", workers=1, illumination=False, **SMALL)
    assert (result.done, result.failed) == (80, 0)


SLOW = """
import time
from cellbook.screens.workers import Pool
if __name__ == "__main__":
    with Pool(2) as run:
        for key, _ in run((time.sleep, (1.5,), i) for i in range(40)):
            print(key, flush=True)
"""


def test_a_further_ctrl_c_while_workers_end_leaves_no_worker_and_no_semaphore(tmp_path):
    (tmp_path / "run.py").write_text(SLOW)
    how = {"start_new_session": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": "."}
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], env=environment, **how)
    assert process.stdout.readline()
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert said.startswith("interrupted: finished fields are kept")
    assert said.count("Traceback") == 1, said  # the one of the first
    assert "leaked" not in said


def test_a_full_disk_stops_with_one_sentence(screen, monkeypatch):
    table, images, out = screen

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extraction.np, "savez", full)
    with pytest.raises(CellbookError, match=r"cells\.parts: No space left on device; free some space"):
        extract(table, images, out, workers=1, illumination=False, **SMALL)


def shading(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 1 + 0.8 * np.exp(-(((y - shape[0] * 0.4) / shape[0]) ** 2 + ((x - shape[1] * 0.6) / shape[1]) ** 2) / 0.3)


def test_illumination_function_recovers_a_known_shading():
    rng = np.random.default_rng(0)
    truth = shading((256, 320))
    mean, exact = MeanImage(), []
    for _ in range(60):
        scene = rng.gamma(3, 300, (2, 64, 80)).repeat(4, axis=1).repeat(4, axis=2)
        image = (scene * truth).clip(0, 65_535).astype(np.uint16)
        image[1] = 0
        mean.add(image)
        exact.append(image)
    function = illumination_function(mean)
    assert function.min() >= 1
    assert (function[1] == 1).all()
    ratio = function[0] / truth
    assert ratio.std() / ratio.mean() < 0.03
    # the corrected mean is flatter than the raw one
    flat = np.mean([correct(image, function)[0] for image in exact], axis=0)
    raw = np.mean([image[0] for image in exact], axis=0)
    spread = [np.std(ndimage.uniform_filter(m, 32)) / m.mean() for m in (flat, raw)]
    assert spread[0] < spread[1] / 3
    blocks = np.mean(exact, axis=0).reshape(2, 64, 4, 80, 4).mean(axis=(2, 4))
    assert np.allclose(mean.mean, blocks)


def test_running_means_merge_to_the_same_and_refuse_mixed_sizes():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 4096, (6, 3, 42, 50), dtype=np.uint16)
    whole, left, right = MeanImage(), MeanImage(), MeanImage()
    for i, image in enumerate(images):
        whole.add(image)
        (left if i < 2 else right).add(image)
    left.merge(right)
    left.merge(MeanImage())
    assert np.allclose(left.mean, whole.mean)
    assert left.count == 6
    assert illumination_function(left).shape == (3, 42, 50)
    with pytest.raises(CellbookError, match="use one size"):
        whole.add(images[0, :, :20])
    with pytest.raises(CellbookError, match="no field was added"):
        _ = MeanImage().mean


def test_correction_flattens_a_whole_plate(tmp_path):
    table = make_screen(tmp_path / "images", plates=1, wells=5, sites=4)
    slope = np.linspace(1, 3, SHAPE[1])
    for path in (tmp_path / "images").rglob("*.tif"):
        tifffile.imwrite(path, (tifffile.imread(path) * slope).astype(np.uint16))
    both = {}
    for corrected in (False, True):
        out = tmp_path / f"cells-{corrected}"
        cells = extract(table, tmp_path / "images", out, workers=1, illumination=corrected, **SMALL).open()
        brightness, x = cells.images[:, 2].mean(axis=(1, 2)), cells.table["Metadata_x"].to_numpy()
        both[corrected] = brightness[x > 150].mean() / brightness[x < 50].mean()
    assert both[False] > 1.8
    assert 0.9 < both[True] < 1.1


@pytest.mark.parametrize("place", [0, 5, 19])
def test_a_field_of_another_size_fails_alone_wherever_it_is_listed(tmp_path, monkeypatch, place):
    monkeypatch.setattr(extraction, "MIN_FIELDS", 10)
    monkeypatch.setattr(extraction, "_ILLUMINATION_STEP", 7)
    table, images = make_screen(tmp_path / "images", plates=1, wells=5, sites=4), tmp_path / "images"
    odd = table.iloc[place]
    for stain in ("DAPI", "Tubulin", "Actin"):
        path = images / odd["Image_Metadata_Plate_DAPI"] / odd[f"Image_FileName_{stain}"]
        tifffile.imwrite(path, tifffile.imread(path)[:150])
    how = {"workers": 1, "size": 24, "field_size": None, "progress": False}
    result = extract(table, images, tmp_path / "cells", **how)
    assert (result.report["status"] == "failed").tolist() == [row == place for row in range(20)]
    assert "is 150 x 200 pixels, most fields of its plate 160 x 200" in result.report["note"][place]
    assert set(result.report["note"].drop(place)) == {""}
    # the others are corrected as if it had never been listed
    rest = extract(table.drop(index=place), images, tmp_path / "rest", **how)
    assert np.array_equal(result.open().images, rest.open().images)


def test_extracted_folder_is_an_ordinary_cell_set(screen):
    table, images, out = screen
    extract(table, images, out, workers=1, illumination=False, border="zero", **SMALL)
    cells = CellSet.open(out)
    assert {"Metadata_plate", "Metadata_well", "Metadata_batch", "Metadata_site", "Metadata_y"} <= set(cells.table)
    assert cells.table.groupby(["Metadata_plate", "Metadata_field"])["Metadata_cell"].min().eq(0).all()
