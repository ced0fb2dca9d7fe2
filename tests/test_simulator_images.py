"""Simulated pixels: reproducible, in the camera's range, the same in crops and fields, and showing what was planted."""

import importlib

import numpy as np
import pandas as pd
import pytest
import torch

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.screens.simulator import layout, nuisance, preset, render, simulate, simulate_fields, with_fields
from cellbook.screens.simulator.calibration import calibrate, measure
from cellbook.screens.simulator.simulate import crops, screen_tables

PLATES = ["Week3_1", "Week7_4"]
SMALL = preset("smoke", seed=2, cells=5)


@pytest.fixture(scope="module")
def small():
    return simulate(SMALL, plates=PLATES)


@pytest.fixture(scope="module")
def controls():
    """Untreated cells without nuisance or noise."""
    config = preset(
        "smoke", cells=60, controls=2, week_effect=0, plate_effect=0, position_effect=0, noise=0, delay_effect=0
    )
    return simulate(config, plates=["Week6_4"])


def test_same_arguments_give_the_same_fingerprint(small):
    assert simulate(SMALL, plates=PLATES).fingerprint == small.fingerprint
    assert simulate(preset("smoke", seed=3, cells=5), plates=PLATES).fingerprint != small.fingerprint


def test_a_plate_is_the_same_alone_and_among_others(small):
    alone = simulate(SMALL, plates=PLATES[1:])
    among = small.select(f"Metadata_plate == '{PLATES[1]}'")
    # Batches differ, so sums may round differently in the last bit: at most one grey level, in few pixels.
    difference = np.abs(alone.images.astype(int) - among.images.astype(int))
    assert difference.max() <= 16
    assert (difference > 0).mean() < 1e-3
    pd.testing.assert_frame_equal(alone.table, among.table)


def test_grey_values_are_twelve_bit_times_sixteen(small):
    assert small.images.dtype == np.uint16
    assert (small.images % 16 == 0).all()
    assert small.images.max() <= 4095 * 16
    assert small.images.min() > 0
    assert small.images.shape[1:] == (3, 68, 68)
    assert small.channels == ("DNA", "Tubulin", "Actin")


def test_table_has_metadata_of_a_screen_and_truth_without_gaps(small):
    table = small.table
    needed = [
        "plate",
        "well",
        "batch",
        "compound",
        "concentration",
        "moa",
        "replicate",
        "role",
        "site",
        "field",
        "y",
        "x",
        "cell_count",
    ]
    assert {f"Metadata_{name}" for name in needed} <= set(table)
    assert all(c.startswith(("Metadata_", "truth_")) for c in table)
    assert not table.isna().any().any()
    counts = table.groupby(["Metadata_plate", "Metadata_well"]).size()
    stored = table.groupby(["Metadata_plate", "Metadata_well"]).Metadata_cell_count.first()
    assert counts.equals(stored.rename(None))
    assert np.isfinite(table.select_dtypes("number").to_numpy(dtype=float)).all()


def test_every_crop_has_its_nucleus_in_the_middle(controls):
    dna = controls.images[:, 0].astype(float)
    middle = dna[:, 30:38, 30:38].mean((1, 2))
    background = np.percentile(dna, 5, axis=(1, 2))
    assert (middle > 1.5 * background).mean() > 0.99
    area = measure(controls).nucleus_area
    truth = controls.table.truth_nucleus_area
    plain = (controls.table.truth_state == "interphase") & area.between(300, 2500)
    assert np.corrcoef(area[plain], truth[plain])[0, 1] > 0.6
    assert 0.75 < (area[plain] / truth[plain]).median() < 1.25


def test_parameters_of_truth_can_be_seen(controls):
    grey = np.log(controls.images.astype(float).mean((2, 3)))
    table = controls.table
    assert np.corrcoef(grey[:, 1], np.log(table.truth_tubulin))[0, 1] > 0.4
    assert np.corrcoef(grey[:, 2], np.log(table.truth_actin))[0, 1] > 0.4


def test_without_nuisance_and_noise_weeks_look_alike_and_noise_scales():
    quiet = dict(week_effect=0, plate_effect=0, position_effect=0, delay_effect=0, noise=0)
    shape = (2, 3, 64, 64)
    light = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    light[1] = light[0]
    config = preset("smoke", **quiet)
    wells = screen_tables(config, plates=PLATES)[1]
    two = wells.groupby("Metadata_plate").first().reset_index()
    stains = render.STAINS["chemical"]
    pixels = nuisance.develop(light, two, config, stains, None).numpy().astype(int)
    assert np.array_equal(pixels[0], pixels[1])
    weeks = preset("smoke", **(quiet | {"week_effect": 1.0}))
    with_weeks = screen_tables(weeks, plates=PLATES)[1].groupby("Metadata_plate").first().reset_index()
    assert not np.array_equal(*nuisance.develop(light, with_weeks, weeks, stains, None).numpy())
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    spread = [
        (nuisance.develop(light, two, preset("smoke", **(quiet | {"noise": s})), stains, noise).numpy() - pixels).std()
        for s in (1.0, 2.0)
    ]
    assert spread[0] > 20
    assert spread[1] == pytest.approx(2 * spread[0], rel=0.05)


def test_late_staining_dims_tubulin_only_when_it_has_an_effect():
    config = preset("smoke", week_effect=0, plate_effect=0, position_effect=0, noise=0)
    wells = screen_tables(config, plates=["Week1_1"])[1].iloc[[0, 0]].assign(truth_delay=[0.0, 1.0])
    light = torch.full((2, 3, 32, 32), 0.5)
    early, late = nuisance.develop(light, wells, config, render.STAINS["chemical"], None).numpy().astype(float)
    assert late[1].mean() < 0.85 * early[1].mean()
    assert np.array_equal(early[0], late[0])
    off = preset("smoke", week_effect=0, plate_effect=0, position_effect=0, noise=0, delay_effect=0)
    early, late = nuisance.develop(light, wells, off, render.STAINS["chemical"], None).numpy()
    assert np.array_equal(early, late)


def test_cut_is_integer_slicing_and_wraps():
    fields = torch.arange(2 * 3 * 40 * 50).reshape(2, 3, 40, 50)
    crops = render.cut(fields, torch.tensor([1, 0]), torch.tensor([20, 0]), torch.tensor([25, 1]), 16)
    assert torch.equal(crops[0], fields[1, :, 12:28, 17:33])
    assert torch.equal(crops[1], torch.roll(fields[0], (8, 7), (1, 2))[:, :16, :16])


def test_scatter_adds_patches_where_a_loop_would():
    canvas = render.canvas(0, "cpu")
    draw = np.random.default_rng(0)
    light = [torch.from_numpy(draw.random((3, render.PATCH**2), dtype=np.float32)) for _ in range(2)]
    field, y, x = torch.tensor([0, 1, 1]), torch.tensor([5, 60, 119]), torch.tensor([100, 3, 70])
    fields = torch.zeros(2, 2, 120, 130)
    render.scatter(canvas, fields, light, field, y, x)
    slow = np.zeros(fields.shape)
    half = render.PATCH // 2
    for i in range(3):
        for c in range(2):
            patch = light[c][i].numpy().reshape(render.PATCH, render.PATCH)
            rows, columns = (y[i].item() + np.arange(-half, half)) % 120, (x[i].item() + np.arange(-half, half)) % 130
            slow[field[i], c][np.ix_(rows, columns)] += patch
    np.testing.assert_allclose(fields.numpy(), slow, rtol=1e-5)


def test_outline_of_a_lonely_round_cell_is_a_circle_and_neighbours_flatten_it():
    one, zero = np.ones(1), np.zeros(1)
    calm = np.full((1, 12), 0.25)
    far = np.full((1, 1, 2), 1e4)
    border, contact = layout.outlines(20 * one, one, zero, zero, zero, calm, far, 20 * np.ones((1, 1)))
    assert border.mean() == pytest.approx(20, rel=0.05)
    assert contact.max() < 0.02
    near = np.array([[[0.0, 24.0]]])  # a cell to the right
    squeezed, contact = layout.outlines(20 * one, one, zero, zero, zero, calm, near, 20 * np.ones((1, 1)))
    assert squeezed[0, 0] < 13.5
    assert contact[0, 0] == 1
    assert squeezed[0, layout.ANGLES // 2] == pytest.approx(border[0, layout.ANGLES // 2], rel=0.02)


def test_neighbours_agree_with_a_slow_search_over_the_edges():
    points = np.random.default_rng(1).integers(0, 150, (14, 2))
    vectors, index = layout.neighbours(points, (150, 160))
    for i in range(14):
        offset = points - points[i]
        offset = offset - np.array([150, 160]) * np.round(offset / np.array([150, 160]))
        distance = np.delete(np.hypot(*offset.T), i)
        np.testing.assert_allclose(np.sort(np.hypot(*vectors[i].T)), np.sort(distance)[:8])
        assert i not in index[i]


def test_nuclei_keep_their_distance():
    points = layout.place(np.random.default_rng(0), 250, (1024, 1280), 0.2)
    distance = np.hypot(*np.moveaxis(layout.neighbours(points, (1024, 1280))[0], -1, 0)).min(1)
    assert 34 < np.median(distance) < 48
    assert np.percentile(distance, 5) > 18


def test_genetic_screen_has_five_stains():
    config = preset("smoke", design="genetic", cells=4, wells=1)
    cells = simulate(config)
    assert cells.channels == ("DNA", "ER", "RNA", "AGP", "Mito")
    assert cells.table.Metadata_compound.nunique() == 27
    assert (cells.images.reshape(len(cells), 5, -1).std(2) > 10).all()
    assert "Metadata_split" in cells.table


@pytest.mark.parametrize("crop", [32, 96, 128])
def test_crop_side_can_be_chosen(crop):
    cells = simulate(preset("smoke", cells=2, crop=crop), plates=["Week6_1"])
    assert cells.images.shape[2:] == (crop, crop)


def test_fields_on_disk_are_the_fields_of_the_crops(tmp_path):
    import tifffile

    from cellbook.screens import bbbc021
    from cellbook.screens.fields import index_fields

    config = preset("smoke", seed=4)
    table = simulate_fields(config, tmp_path / "raw", field=(160, 200), sites=2, plates=["Week6_1"])
    cells = simulate(with_fields(config, (160, 200), 2), plates=["Week6_1"])
    official = bbbc021.image_table(tmp_path / "raw")
    pd.testing.assert_frame_equal(official, table, check_dtype=False)
    assert len(bbbc021.moa_table(tmp_path / "raw")) == 104
    index = index_fields(official, tmp_path / "raw")
    assert len(index) == len(table) == 2 * len(cells.table[["Metadata_plate", "Metadata_well"]].drop_duplicates())
    truth = pd.read_parquet(tmp_path / "raw" / "truth.parquet")
    pd.testing.assert_frame_equal(truth, cells.table, check_dtype=False)
    checked = 0
    for _, row in official.iterrows():
        names = [
            tmp_path / "raw" / row[f"Image_PathName_{c}"] / row[f"Image_FileName_{c}"]
            for c in ("DAPI", "Tubulin", "Actin")
        ]
        image = np.stack([tifffile.imread(name) for name in names])
        assert image.shape == (3, 160, 200)
        field = "_".join(names[0].name.split("_")[:4])
        for i in np.flatnonzero(cells.table.Metadata_field == field):
            y, x = cells.table.Metadata_y[i], cells.table.Metadata_x[i]
            if 34 <= y <= 126 and 34 <= x <= 166:
                assert np.array_equal(image[:, y - 34 : y + 34, x - 34 : x + 34], cells.images[i])
                checked += 1
    assert checked > 3
    with pytest.raises(CellbookError, match="not an empty folder"):
        simulate_fields(config, tmp_path / "raw", field=(160, 200), plates=["Week6_1"])


def test_simulated_fields_go_through_the_path_of_real_images(tmp_path):
    from cellbook.screens.extraction import extract
    from cellbook.screens.nuclei import match_centres

    config = preset("smoke", seed=1)
    table = simulate_fields(config, tmp_path / "raw", field=(384, 400), sites=1, plates=["Week6_1"])
    found = extract(
        table,
        tmp_path / "raw",
        tmp_path / "cells",
        size=68,
        illumination=False,
        field_size=(384, 400),
        workers=1,
        progress=False,
    )
    cells = found.open()
    truth = pd.read_parquet(tmp_path / "raw" / "truth.parquet")
    assert found.failed == 0
    field = cells.table[cells.table.Metadata_compound == "DMSO"]
    known = truth[truth.Metadata_compound == "DMSO"]
    inner = known[known.Metadata_y.between(50, 334) & known.Metadata_x.between(50, 350)]
    places = ["Metadata_y", "Metadata_x"]
    matched = match_centres(field[places].to_numpy(), inner[places].to_numpy(), radius=10)
    assert matched.recall > 0.75


def test_genetic_fields_are_refused_by_name(tmp_path):
    with pytest.raises(CellbookError, match="genetic"):
        simulate_fields(preset("smoke", design="genetic"), tmp_path / "x")


def test_calibration_of_a_set_with_itself_finds_no_difference(controls):
    half = len(controls) // 2
    a, b = controls.select(slice(0, half)), controls.select(slice(half, 2 * half))
    same = calibrate(a, a)
    assert (same.difference.dropna() == 0).all()
    told = calibrate(a, b).loc["told apart", "simulated"]
    brighter = CellSet(np.minimum(b.images.astype(int) * 2, 65520).astype(np.uint16), b.table, b.channels, b.pixel_um)
    assert told < 0.75
    assert calibrate(a, brighter).loc["told apart", "simulated"] > 0.9
    with pytest.raises(CellbookError, match="at least 20"):
        calibrate(a.select([0, 1]), b)


@pytest.mark.data
@pytest.mark.slow
def test_simulated_controls_come_near_real_ones(data_dir):
    from cellbook.screens.sample import bbbc021_sample

    real = bbbc021_sample("all_treatments").select("Metadata_compound == 'DMSO'")
    config = preset("smoke", cells=6, controls=2)
    simulated = simulate(config).select("Metadata_compound == 'DMSO'")
    table = calibrate(real, simulated)
    assert table.difference.abs().median() < 0.4
    assert table.difference.abs().max() < 1.6
    assert table.loc["told apart", "simulated"] < 0.93


def test_every_operation_of_a_device_is_told_where(small):
    """Tensors of the device "meta" have no values: an operation with one of the CPU, or one that waits, fails."""
    cells, wells = screen_tables(SMALL, PLATES)
    images = crops(SMALL, cells, wells, "meta")
    assert images.device.type == "meta"
    assert (images.shape, images.dtype) == (small.images.shape, torch.uint16)


def test_large_batches_draw_the_same_cells(small, monkeypatch):
    module = importlib.import_module("cellbook.screens.simulator.simulate")
    monkeypatch.setattr(module, "_SMALL", module._LARGE)
    monkeypatch.setattr(module, "_TURN", 1)
    other = simulate(SMALL, plates=PLATES)
    assert np.abs(other.images.astype(int) - small.images.astype(int)).max() <= 16
    assert (other.images != small.images).mean() < 1e-3
    pd.testing.assert_frame_equal(other.table, small.table)


@pytest.mark.gpu
def test_cuda_draws_the_same_cells_to_within_a_grey_level(small):
    other = simulate(SMALL, device="cuda", plates=PLATES)
    difference = np.abs(other.images.astype(int) - small.images.astype(int))
    assert difference.max() <= 32
    assert (difference > 0).mean() < 0.01
    pd.testing.assert_frame_equal(other.table, small.table)
