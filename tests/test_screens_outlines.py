"""Cells alone in the middle of their crops: against loops, drawn discs, the simulator's own shapes, real cells."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.pixels import centre
from cellbook.screens import named, outlines
from cellbook.screens.named import SIMULATED
from cellbook.screens.simulator import preset, simulate
from cellbook.screens.simulator.layout import ANGLES
from cellbook.screens.simulator.simulate import _anatomies, crops, field_shape, screen_tables

PLATES = ["Week1_4"]
CONFIG = preset("smoke", cells=4, seed=5, crop=96)


def by_hand(image, mask, side):
    """One cell (C, H, W) in the middle, pixel by pixel; and the size of its box."""
    new, places = np.zeros((len(image), side, side), image.dtype), np.argwhere(mask)
    if not len(places):
        return new, (0, 0)
    low, high = places.min(axis=0), places.max(axis=0)
    shift = [(side - (b - a + 1)) // 2 - a for a, b in zip(low, high, strict=True)]
    for y, x in places:
        to = y + shift[0], x + shift[1]
        if min(to) >= 0 and max(to) < side:
            new[:, to[0], to[1]] = image[:, y, x]
    return new, tuple(high - low + 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_is_put_in_the_middle_as_a_loop_over_pixels_does_it(dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(1, np.iinfo(dtype).max, (40, 2, 21, 26), dtype=dtype, endpoint=True)
    masks = np.zeros((40, 21, 26), bool)
    for i in range(39):  # the last is empty
        y, x = rng.integers(0, 18), rng.integers(0, 22)
        masks[i, y : y + rng.integers(1, 22), x : x + rng.integers(1, 27)] = rng.random() < 0.9
        masks[i] &= rng.random((21, 26)) < 0.8
    for side in (12, 17, 30):
        found, boxes = centre(torch.from_numpy(images), torch.from_numpy(masks), side)
        wanted = [by_hand(image, mask, side) for image, mask in zip(images, masks, strict=True)]
        np.testing.assert_array_equal(found.numpy(), np.stack([image for image, _ in wanted]))
        assert boxes.tolist() == [list(box) for _, box in wanted]
    assert np.array_equal(boxes[-1], [0, 0])


@pytest.fixture(scope="module")
def plain():
    return simulate(CONFIG, plates=PLATES)


@pytest.mark.parametrize("side", [96, 64])
def test_simulated_cells_are_cut_along_the_outlines_they_were_drawn_with(plain, side):
    made = simulate(replace(CONFIG, crop=side), plates=PLATES, outlined=True)
    cells, wells = screen_tables(CONFIG, PLATES)
    names = wells[["Metadata_plate", "Metadata_well"]].to_numpy()
    fields = cells["field"].unique()
    bounds = np.concatenate([[0], np.cumsum(cells.groupby("field").size())])
    keys = [(*names[field // CONFIG.sites], field % CONFIG.sites + 1) for field in fields]
    border = _anatomies(CONFIG, cells, keys, bounds, field_shape(CONFIG))["border"]
    y, x = np.mgrid[-48:48, -48:48]
    angle = np.arctan2(y, x) % (2 * np.pi)
    directions = np.arange(ANGLES + 1) * 2 * np.pi / ANGLES
    larger = []
    for i in range(len(made)):
        inside = np.hypot(y, x) < np.interp(angle, directions, np.append(border[i], border[i][0]))
        image, box = by_hand(plain.images[i], inside, side)
        assert (image != made.images[i]).mean() < 2e-3  # where a pixel lies on the line, rounding decides
        row = made.table.iloc[i]
        assert np.abs(np.array(box) - row[list(outlines.BOX)].to_numpy(int)).max() <= 1
        larger.append(max(box) > side)
        assert row[outlines.LARGER] == (row[list(outlines.BOX)].max() > side)
    assert not any(larger) if side == 96 else 0 < sum(larger) < len(larger)
    pd.testing.assert_frame_equal(made.table.drop(columns=[*outlines.BOX, outlines.LARGER]), plain.table)


def test_what_an_outline_leaves_out_is_mostly_of_neighbours():
    quiet = {"week_effect": 0, "plate_effect": 0, "position_effect": 0, "noise": 0, "delay_effect": 0, "effect": 0}
    config = replace(CONFIG, **quiet)
    light = [simulate(config, plates=PLATES, outlined=alone).images.astype(float) for alone in (False, True)]
    shown = light[1] > 0
    assert 0.2 < shown[:, 0].mean() < 0.7
    middle = np.s_[:, :, 40:56, 40:56]
    assert shown[middle].mean() > 0.98
    edge = shown[:, :, [0, -1], :].mean() + shown[:, :, :, [0, -1]].mean()
    assert edge < 0.02


def test_every_operation_of_outlining_is_told_where():
    cells, wells = screen_tables(CONFIG, PLATES)
    boxes = torch.empty(len(cells), 2, dtype=torch.int64, device="meta")
    images = crops(replace(CONFIG, crop=48), cells, wells, "meta", boxes=boxes)
    assert (images.device.type, images.shape) == ("meta", (len(cells), 3, 48, 48))


def discs(radius, size=68, shift=0):
    """Round cells of these radii with a nucleus in the middle, on a dark background; the last crop is noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:size, :size] - size // 2
    images = rng.normal(800, 20, (len(radius) + 1, 3, size, size))
    for i, r in enumerate(radius):
        images[i, 0] += 12_000 * (np.hypot(y, x) < 9)
        images[i, 1:] += 9000 * (np.hypot(y - shift, x) < r)
    table = pd.DataFrame({"Metadata_plate": "p", "Metadata_well": "A01", "truth_r": [*radius, 0]})
    return CellSet(images.clip(0, 65_535).astype(np.uint16), table, ("DNA", "Tubulin", "Actin"), 0.5)


def test_real_cells_are_cut_by_segmentation_and_what_is_not_whole_is_named():
    cells = discs([14, 18, 22, 26, 40])
    made = outlines.outlined(cells, 48)
    assert made.images.shape == (6, 3, 48, 48)
    table = made.table
    for i, r in enumerate([14, 18, 22, 26]):
        height, width = table.loc[i, list(outlines.BOX)]
        assert abs(height - 2 * r) <= 4
        assert abs(width - 2 * r) <= 4
        lit = np.argwhere(made.images[i, 1] > 5000)
        if 2 * r < 44:
            assert np.abs(lit.mean(axis=0) - 23.5).max() < 1
            assert (made.images[i, :, [0, -1]] == 0).all()
    assert table[outlines.LARGER].tolist()[:5] == [False, False, False, True, True]
    assert table[outlines.OPEN].tolist()[:5] == [False, False, False, False, True]
    assert table[outlines.FOUND].tolist() == [True] * 5 + [False]
    assert outlines.whole(table.iloc[:5])[0] == "larger than the new crop, and cut: 2 (Metadata_larger)"
    assert outlines.whole(table)[2] == "without a nucleus in the middle: 1 (Metadata_nucleus_found)"
    moved = outlines.outlined(discs([14, 18], shift=6), 48)
    lit = np.argwhere(moved.images[1, 1] > 5000)
    assert np.abs(lit.mean(axis=0) - 23.5).max() < 2  # the cell is in the middle, not its nucleus


def test_outlining_some_at_a_time_changes_nothing(monkeypatch):
    cells = discs([14, 18, 22, 26, 40])
    whole = outlines.outlined(cells, 40)
    monkeypatch.setattr(outlines, "BLOCK", 2)
    some = outlines.outlined(cells, 40)
    assert (some.content, some.fingerprint) == (whole.content, whole.fingerprint)
    assert outlines.outlined(cells, 48).fingerprint != whole.fingerprint != cells.fingerprint


def test_shrunk_pixels_are_means_of_squares():
    rng = np.random.default_rng(2)
    images = rng.integers(0, 65_536, (3, 2, 20, 23)).astype(np.uint16)
    cells = CellSet(images, pd.DataFrame({"a": range(3)}), ("DNA", "Actin"), 0.5)
    found = outlines.shrunk(cells, 3)
    assert (found.images.shape, found.pixel_um, found.images.dtype) == ((3, 2, 6, 7), 1.5, np.uint16)
    for n, c, y, x in np.ndindex(found.images.shape):
        mean = images[n, c, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3].mean()
        assert abs(int(found.images[n, c, y, x]) - mean) <= 0.51
    assert outlines.shrunk(cells, 1) is cells
    with pytest.raises(CellbookError, match="0 pixels a side"):
        outlines.shrunk(cells, 0)
    alone = outlines.outlined(discs([14, 18, 22, 26, 40]), 48, 2)
    whole = outlines.outlined(discs([14, 18, 22, 26, 40]), 96)
    np.testing.assert_array_equal(alone.images, outlines.shrunk(whole, 2).images)
    pd.testing.assert_frame_equal(alone.table, whole.table)


def test_screens_are_outlined_by_name_and_plain_ones_stay_what_they_were(tmp_path):
    config = preset("smoke", cells=2)
    plain = named.load(SIMULATED, config, tmp_path)
    alone = named.load(SIMULATED, config, tmp_path, canvas=48)
    assert alone.images.shape[1:] == (3, 48, 48)
    assert alone.fingerprint == named.fingerprint(SIMULATED, config, 48)
    assert plain.fingerprint == named.fingerprint(SIMULATED, config) != alone.fingerprint
    assert len(named.load(SIMULATED, config, tmp_path, canvas=48)) == len(plain)
    small = named.load(SIMULATED, config, tmp_path, canvas=48, times=2)
    assert small.fingerprint == named.fingerprint(SIMULATED, config, 48, 2) != alone.fingerprint
    assert small.images.shape[1:] == (3, 48, 48)
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert len(folders) == 3
    plain.save(tmp_path / "own")
    own = named.load(str(tmp_path / "own"), config, tmp_path, canvas=48)
    assert own.fingerprint == named.fingerprint(str(tmp_path / "own"), config, 48)
    assert set(outlines.COLUMNS) <= set(own.table)
    assert not set(outlines.COLUMNS) & set(named.without_place(own.table))


def test_from_the_command_line_cells_are_outlined_and_counted(run_main, tmp_path):
    discs([14, 18, 22, 26, 40]).save(tmp_path / "cells")
    code, out, err = run_main("outline", tmp_path / "cells", tmp_path / "alone", "--side", 48, "--device", "cpu")
    assert (code, err) == (0, "")
    made = CellSet.open(tmp_path / "alone")
    assert made.content == outlines.outlined(CellSet.open(tmp_path / "cells"), 48).content
    assert out.splitlines()[:2] == [
        "cells: 6",
        f"larger than the new crop, and cut: {made.table.Metadata_larger.sum()} (Metadata_larger)",
    ]
    assert run_main("outline", tmp_path / "cells", tmp_path / "alone")[0] == 2
    code, _, err = run_main("outline", tmp_path / "cells", tmp_path / "small", "--side", 8)
    assert (code, "the canvas of 8 pixels" in err) == (2, True)
    with pytest.raises(CellbookError, match="0 cells"):
        outlines.outlined(replace(made, images=made.images[:0], table=made.table[:0]), 48)


def test_a_screen_is_simulated_with_cells_alone(run_main, tmp_path):
    words = ["--preset", "smoke", "--plates", PLATES[0], "--crop", 48, "--outlined", "--device", "cpu"]
    code, out, _ = run_main("simulate", tmp_path / "cells", *words)
    assert (code, out.splitlines()[1].endswith("(Metadata_larger)")) == (0, True)
    made = CellSet.open(tmp_path / "cells")
    assert (made.images.max(axis=(2, 3)) > 0).all()
    small = (
        CellSet.open(tmp_path / "small")
        if not run_main("simulate", tmp_path / "small", *words, "--shrink", 2)[0]
        else None
    )
    assert (small.images.shape, small.pixel_um) == (made.images.shape, 2 * made.pixel_um)
    assert small.table.Metadata_larger.sum() == 0 < made.table.Metadata_larger.sum()
    assert (small.images == 0).mean() > 0.2
    code, _, err = run_main("simulate", tmp_path / "fields", *words, "--fields")
    assert (code, "--outlined and --shrink are of crops" in err) == (2, True)


@pytest.mark.data
def test_real_cells_keep_their_middle_and_lose_their_neighbours(data_dir):
    from cellbook.screens.sample import bbbc021_sample

    cells = bbbc021_sample().select(np.arange(0, 1900, 10))
    made = outlines.outlined(cells, 96)
    table = made.table
    assert table[outlines.FOUND].mean() > 0.7
    assert not table[outlines.LARGER].any()  # no crop of 68 pixels holds a larger one
    assert table[outlines.OPEN].mean() > 0.8  # nor most cells as a whole
    whole = made.select((table[outlines.FOUND] & ~table[outlines.OPEN]).to_numpy())
    assert (whole.images[:, :, [0, -1]] == 0).all()
    assert 0.05 < (whole.images[:, 1] > 0).mean() < 0.5
