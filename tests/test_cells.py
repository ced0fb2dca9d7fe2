"""CellSet: what is saved is what is opened, selection is by row, normalisation never divides by zero."""

import json
import subprocess
import sys
import textwrap
import time
import weakref

import numpy as np
import pandas as pd
import pytest
import torch

from cellbook.cells import CellSet, save_parts
from cellbook.errors import CellbookError
from cellbook.pixels import channel_max, gather, stretch, stretch_limits, unit

CHANNELS = ("DNA", "Tubulin", "Actin")


def make(n=12, dtype=np.uint16, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, np.iinfo(dtype).max, (n, 3, 7, 5), dtype=dtype, endpoint=True)
    table = pd.DataFrame(
        {
            "Metadata_plate": [f"Week{i % 3 + 1}_1" for i in range(n)],
            "Metadata_compound": ["DMSO" if i % 2 else "taxol" for i in range(n)],
            "Metadata_concentration": rng.normal(size=n),
            "Metadata_moa": [None if i == 0 else "x" for i in range(n)],
            "truth_kind": np.arange(n),
        }
    )
    return CellSet(images, table, CHANNELS, 0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_saved_set_opens_with_same_pixels_table_and_fingerprint(tmp_path, dtype):
    cells = make(dtype=dtype)
    opened = cells.save(tmp_path / "a" / "set")
    again = CellSet.open(tmp_path / "a" / "set")
    assert isinstance(again.images, np.memmap)
    assert np.array_equal(again.images, cells.images)
    assert again.fingerprint == opened.fingerprint == cells.fingerprint
    pd.testing.assert_frame_equal(again.table, cells.table)
    again.verify()
    assert (again.channels, again.pixel_um, len(again)) == (CHANNELS, 0.5, 12)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["set"]


@pytest.mark.parametrize("what", ["pixel", "number", "text", "missing", "name", "channel", "pixel_um"])
def test_fingerprint_changes_with_any_content(what):
    cells = make()
    images, table, channels, pixel = cells.images.copy(), cells.table.copy(), cells.channels, cells.pixel_um
    if what == "pixel":
        images[3, 1, 2, 2] ^= 1
    elif what == "number":
        table.loc[5, "Metadata_concentration"] += 1e-9
    elif what == "text":
        table.loc[5, "Metadata_plate"] = "Week1_2"
    elif what == "missing":
        table.loc[3, "Metadata_moa"] = None
    elif what == "name":
        table = table.rename(columns={"truth_kind": "truth_other"})
    elif what == "channel":
        channels = ("DNA", "Actin", "Tubulin")
    else:
        pixel = 0.6
    assert CellSet(images, table, channels, pixel).fingerprint != cells.fingerprint


def test_of_parts_that_are_written_one_after_another_one_is_in_memory(tmp_path):
    cells = make()
    alive: list[weakref.ref] = []

    def parts():
        for start in range(0, len(cells), 4):
            assert not any(one() is not None for one in alive)
            part = cells.select(slice(start, start + 4))
            alive.append(weakref.ref(part.images))
            yield part
            del part

    assert save_parts(parts(), tmp_path / "set").content == cells.content
    assert len(alive) == 3


def test_fingerprint_does_not_depend_on_string_dtype():
    cells = make()
    table = cells.table.astype({"Metadata_plate": object, "Metadata_compound": object})
    assert CellSet(cells.images, table, CHANNELS, 0.5).fingerprint == cells.fingerprint


def test_opening_a_gigabyte_takes_milliseconds_and_reads_no_table(tmp_path):
    folder = make().save(tmp_path / "set").__dict__["_folder"]
    shape = (250_000, 3, 37, 37)  # 1.02 GB of uint8
    np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    header = json.loads((folder / "cellset.json").read_text()) | {"shape": shape, "dtype": "uint8"}
    (folder / "cellset.json").write_text(json.dumps(header))
    (folder / "cells.parquet").write_bytes(b"not read yet")
    start = time.perf_counter()
    cells = CellSet.open(folder)
    assert time.perf_counter() - start < 0.2
    assert len(cells) == 250_000
    with pytest.raises(CellbookError, match=r"cells\.parquet is damaged"):
        cells.table  # noqa: B018


def test_select_by_query_mask_and_rows_agree():
    cells = make()
    by_query = cells.select("Metadata_compound == 'DMSO' and truth_kind > 4")
    rows = [5, 7, 9, 11]
    mask = np.isin(np.arange(12), rows)
    for other in (cells.select(mask), cells.select(rows), cells.select(pd.Series(mask)), cells.select(slice(5, 12, 2))):
        assert other.fingerprint == by_query.fingerprint
    assert np.array_equal(by_query.images, cells.images[rows])
    assert list(cells.select([4, 1]).table.truth_kind) == [4, 1]


def test_what_cells_are_known_as_stands_for_their_pixels_on_disk_and_in_selections(tmp_path):
    plain, lighter = make(), make()
    lighter.images[:, 0] ^= 1
    one, two = (CellSet(each.images, each.table, CHANNELS, 0.5, "drawn") for each in (plain, lighter))
    assert one.fingerprint == two.fingerprint == "drawn"
    assert len({plain.content, one.content, two.content, lighter.content}) == 2
    saved = [each.save(tmp_path / name) for name, each in (("one", one), ("two", two))]
    assert [each.fingerprint for each in saved] == ["drawn", "drawn"]
    assert CellSet.open(tmp_path / "one", "other").fingerprint == "other"
    assert one.select(slice(None)).fingerprint == "drawn"
    picks = (slice(2, 5), [2, 3, 4], np.isin(np.arange(12), [2, 3, 4]), [-10, 3, -8], "2 <= truth_kind <= 4")
    some = {cells.select(pick).fingerprint for pick in picks for cells in (one, *saved)}
    assert len(some) == 1
    orders = ([2, 3, 4], [2, 4, 3], [2, 3], np.arange(12)[::-1])
    assert len({one.select(pick).fingerprint for pick in orders} | {"drawn"}) == 5
    assert len(some & {one.select([2, 3, 4]).content, plain.select([2, 3, 4]).fingerprint}) == 0


def test_damage_is_found_in_cells_that_are_known_by_another_name(tmp_path):
    cells = make()
    CellSet(cells.images, cells.table, CHANNELS, 0.5, "drawn").save(tmp_path / "set").verify()
    np.load(tmp_path / "set" / "images.npy", mmap_mode="r+")[3, 1, 2, 2] ^= 1
    with pytest.raises(CellbookError, match="a file was changed or damaged after saving"):
        CellSet.open(tmp_path / "set").verify()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("Metadata_moaa == 'x'", "Metadata_moaa"),
        ("truth_kind +", "no expression"),
        ("truth_kind + 1", "true or false"),
        ("truth_kind > 99", "selects none of 12"),
        (np.ones(5, dtype=bool), "mask"),
        ([12], "outside the set of 12"),
        ([0.5], "row numbers"),
    ],
)
def test_select_names_what_is_wrong(rows, message):
    with pytest.raises(CellbookError, match=message):
        make().select(rows)


def test_wrong_shapes_are_refused_by_name():
    cells = make()
    for images, table, channels, pixel, message in [
        (cells.images[:, 0], cells.table, CHANNELS, 0.5, "images"),
        (cells.images.astype(np.float32), cells.table, CHANNELS, 0.5, "float32"),
        (cells.images, cells.table[:-1], CHANNELS, 0.5, "11 rows for 12 images"),
        (cells.images, cells.table, ("DNA",), 0.5, "3 channels"),
        (cells.images, cells.table, CHANNELS, 0.0, "pixel_um"),
    ]:
        with pytest.raises(CellbookError, match=message):
            CellSet(images, table, channels, pixel)


@pytest.mark.parametrize("name", ["images.npy", "cells.parquet", "cellset.json"])
def test_missing_and_damaged_files_are_named(tmp_path, name):
    cells = make().save(tmp_path / "set")
    path = tmp_path / "set" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CellbookError, match=f"{name} is damaged"):
        CellSet.open(tmp_path / "set").table  # noqa: B018
    path.unlink()
    with pytest.raises(CellbookError, match=f"{name} is missing"):
        CellSet.open(tmp_path / "set")
    assert len(cells) == 12


def test_verify_finds_a_changed_pixel(tmp_path):
    make().save(tmp_path / "set")
    images = np.lib.format.open_memmap(tmp_path / "set" / "images.npy", mode="r+")
    images[2, 1, 3, 3] ^= 16
    images.flush()
    with pytest.raises(CellbookError, match="changed or damaged"):
        CellSet.open(tmp_path / "set").verify()


def test_save_never_replaces_silently_or_leaves_pieces(tmp_path, monkeypatch):
    make().save(tmp_path / "set")
    with pytest.raises(CellbookError, match="overwrite=True"):
        make(seed=1).save(tmp_path / "set")
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        make(seed=1).save(tmp_path / "set", overwrite=True)
    monkeypatch.undo()
    assert CellSet.open(tmp_path / "set").fingerprint == make().fingerprint
    assert make(seed=1).save(tmp_path / "set", overwrite=True).fingerprint == make(seed=1).fingerprint
    (tmp_path / "other").mkdir()
    with pytest.raises(CellbookError, match="another name"):
        make().save(tmp_path / "other", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "set"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_device_tensor_and_gather_keep_every_grey_value(tmp_path, dtype):
    cells = make(dtype=dtype).save(tmp_path / "set")
    images = cells.to("cpu")
    rows = torch.tensor([11, 0, 0, 7])
    assert np.array_equal(gather(images, rows).numpy(), cells.images[rows.numpy()])
    assert np.array_equal(images.numpy(), cells.images)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_normalisations_agree_with_numpy_and_survive_empty_crops(dtype):
    cells = make(dtype=dtype)
    cells.images[0] = 0
    cells.images[1] = np.iinfo(dtype).max
    batch, x = cells.to("cpu"), cells.images.astype(np.float64)
    peak = np.maximum(x.max((2, 3), keepdims=True), 1)
    np.testing.assert_allclose(channel_max(batch).numpy(), x / peak, rtol=1e-6)
    np.testing.assert_allclose(unit(batch).numpy(), x / np.iinfo(dtype).max, rtol=1e-6)
    low, high = stretch_limits(cells.images, cells.table["Metadata_plate"], (5, 90))
    plate = (cells.table.Metadata_plate == "Week3_1").to_numpy()
    np.testing.assert_allclose(high[plate][0], np.percentile(x[plate], 90, axis=(0, 2, 3)), rtol=1e-6)
    expected = np.clip((x - low[..., None, None]) / (high - low)[..., None, None], 0, 1)
    np.testing.assert_allclose(stretch(batch, low, high).numpy(), expected, atol=1e-5)
    flat = stretch(batch, np.full(3, 9.0), np.full(3, 9.0))
    assert flat.abs().max() == 0
    for result in (channel_max(batch), unit(batch), stretch(batch, low, high)):
        assert result.dtype == torch.float32
        assert bool(torch.isfinite(result).all())
        assert result.min() >= 0
        assert result.max() <= 1


def test_stretch_limits_need_rising_percentiles():
    with pytest.raises(CellbookError, match="rise"):
        stretch_limits(make().images, np.zeros(len(make())), (90, 5))


def test_parts_join_to_the_same_set_and_unequal_ones_are_refused(tmp_path):
    whole = make()
    parts = (whole.select(slice(start, start + 5)) for start in range(0, len(whole), 5))
    joined = save_parts(parts, tmp_path / "joined")
    joined.verify()
    assert joined.fingerprint == whole.fingerprint == whole.save(tmp_path / "set").fingerprint
    with pytest.raises(CellbookError, match="part 2 has"):
        save_parts([whole, CellSet(whole.images, whole.table, whole.channels, 2 * whole.pixel_um)], tmp_path / "mixed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["joined", "set"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    script = f"""
        import resource, numpy as np, pandas as pd
        from cellbook.cells import CellSet
        from cellbook.errors import CellbookError
        cells = CellSet(np.ones((200, 1, 64, 64), np.uint16), pd.DataFrame(index=range(200)), ("DNA",), 1.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            cells.save({str(tmp_path / "set")!r})
        except CellbookError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot write" in done.stdout
    assert list(tmp_path.iterdir()) == []
