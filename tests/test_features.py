"""Classical features: finite for any crop, right on shapes with known answers, blind to orientation and gain."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import label, regionprops
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features import cell_count, classical, encoders, pixel_pca, random_network
from cellbook.features.families import LEVELS, cooccurrence, correlation, granularity, intensity, radial, shape
from cellbook.features.masks import blur, dilate, find_masks


def table(n):
    return pd.DataFrame({"Metadata_plate": "Week1_1", "Metadata_well": "B02", "truth_area": np.arange(n, dtype=float)})


def synthetic(n=24, size=68, channels=3, seed=0):
    """Round cells with an elliptic nucleus in the middle and a neighbour at the side."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    images = np.empty((n, channels, size, size))
    for i in range(n):
        a, b, angle = rng.uniform(9, 14), rng.uniform(7, 11), rng.uniform(0, np.pi)
        u, v = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
        nucleus = (u / a) ** 2 + (v / b) ** 2 < 1
        neighbour = (y - 30) ** 2 + (x + 4) ** 2 < 80
        body = y**2 + x**2 < rng.uniform(20, 26) ** 2
        for c in range(channels):
            signal = 4000 * (nucleus | neighbour) if c == 0 else rng.uniform(2000, 5000) * body
            images[i, c] = ndimage.gaussian_filter(signal.astype(float), 1) + 800 + rng.normal(0, 40, (size, size))
    return images.clip(0, 65_535).astype(np.uint16)


def cellset(images):
    names = ("DNA", "Tubulin", "Actin", "RNA", "ER")[: images.shape[1]]
    return CellSet(images, table(len(images)), names, 0.656)


class Placed(TorchFunctionMode):
    """Refuses tensors that are made without saying on which device."""

    makers = (torch.arange, torch.tensor, torch.zeros, torch.ones, torch.full, torch.empty, torch.eye, torch.linspace)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in self.makers or (kwargs or {}).get("device") is not None, f"{function.__name__}{args}"
        return function(*args, **(kwargs or {}))


def values(frame):
    return frame[[column for column in frame if not column.startswith("Metadata_")]]


def test_one_row_a_cell_with_metadata_and_no_constant_feature():
    frame = classical(cellset(synthetic()))
    assert len(frame) == 24
    assert {"Metadata_plate", "Metadata_well"} <= set(frame)
    assert "truth_area" not in frame
    features = values(frame)
    assert features.shape[1] == 252
    assert features.columns.is_unique
    assert np.isfinite(features.to_numpy()).all()
    assert (frame["Nucleus_Found"] == 1).all()
    constant = set(features.columns[features.std() == 0])  # the same neighbour stands beside every cell
    assert all("Neighbors" in name or name == "Nucleus_Found" for name in constant)


@pytest.mark.parametrize("kind", ["zero", "saturated", "noise", "one zero channel", "one pixel", "dim", "8-bit zero"])
def test_any_crop_gives_finite_features_without_warnings(kind, recwarn):
    rng = np.random.default_rng(0)
    images = {
        "zero": np.zeros((3, 3, 68, 68), np.uint16),
        "saturated": np.full((3, 3, 68, 68), 65_535, np.uint16),
        "noise": rng.integers(700, 900, (3, 3, 68, 68)).astype(np.uint16),
        "one zero channel": synthetic(3) * np.array([1, 0, 1], np.uint16)[:, None, None],
        "one pixel": np.pad(np.full((3, 3, 1, 1), 60_000, np.uint16), ((0, 0), (0, 0), (30, 37), (30, 37))),
        "dim": synthetic(3) // 400,
        "8-bit zero": np.zeros((3, 3, 40, 40), np.uint8),
    }[kind]
    features = values(classical(cellset(images)))
    assert np.isfinite(features.to_numpy()).all()
    assert np.abs(features.to_numpy()).max() < 1e5
    if kind in ("zero", "saturated", "noise"):
        assert (features["Nucleus_Found"] == 0).all()
        assert (features["Nucleus_Shape_Area"] == features["Nucleus_Shape_Area"].iloc[0]).all()
    assert not recwarn.list


@pytest.mark.parametrize(("channels", "size"), [(1, 68), (5, 96), (3, 33), (2, 128)])
def test_any_number_of_channels_and_any_size(channels, size):
    frame = classical(cellset(synthetic(4, size, channels)))
    assert np.isfinite(values(frame).to_numpy()).all()


def test_a_cell_does_not_depend_on_its_company():
    images = synthetic(10)
    together, alone = values(classical(cellset(images))), values(classical(cellset(images[3:4])))
    assert np.allclose(together.iloc[3], alone.iloc[0], rtol=1e-4, atol=1e-5)


def test_features_are_blind_to_quarter_turns():
    """Up to directional bins, whose edges a turned pixel may cross."""
    images = synthetic(8)
    straight, turned = (values(classical(cellset(i))) for i in (images, np.rot90(images, axes=(2, 3)).copy()))
    spread = values(classical(cellset(synthetic(30, seed=3)))).std() + 1e-6
    change = ((straight - turned).abs() / spread).mean()
    binned = change.index.str.contains("Radial_Variation|Lobes|RadiusVariation")
    assert change[~binned].max() < 0.1
    assert change[binned].median() < 0.1


def test_relative_features_are_blind_to_gain():
    images = synthetic(8)
    plain, bright = values(classical(cellset(images))), values(classical(cellset(images * 3)))
    relative = [c for c in plain if "Correlation" in c or "Shape" in c or "Texture_" in c or "Radial" in c]
    assert len(relative) > 100
    assert np.allclose(plain[relative], bright[relative], atol=0.05, rtol=0.02)
    assert np.allclose(bright["Nucleus_Intensity_Mean_DNA"], 3 * plain["Nucleus_Intensity_Mean_DNA"], rtol=0.02)


def test_an_empty_set_and_tiny_crops_are_refused():
    with pytest.raises(CellbookError, match="too small"):
        classical(cellset(np.zeros((2, 3, 12, 12), np.uint16)))
    with pytest.raises(CellbookError, match="0 cells"):
        classical(cellset(np.zeros((0, 3, 68, 68), np.uint16)))


def test_masks_are_the_drawn_nucleus_and_leave_the_neighbour_out():
    y, x = np.mgrid[:68, :68]
    truth = (y - 33) ** 2 + (x - 35) ** 2 < 144
    images = np.full((1, 3, 68, 68), 800.0)
    images[0, 0][truth | ((y - 57) ** 2 + (x - 35) ** 2 < 121)] = 4000
    images[0, 1:] += 3000 * ((y - 33) ** 2 + (x - 35) ** 2 < 400)
    images = ndimage.gaussian_filter(images, (0, 0, 1, 1)) + np.random.default_rng(0).normal(0, 30, images.shape)
    masks = find_masks(torch.from_numpy(images.astype(np.float32) / 65_535))
    nucleus = masks.nucleus[0].numpy()
    assert (nucleus & truth).sum() / (nucleus | truth).sum() > 0.85
    assert masks.neighbours.tolist() == [1]
    assert abs(masks.distance[0] - 24) < 3
    assert not (masks.nucleus & ~masks.cell).any()


def test_dilation_and_blur_are_those_of_torch_and_scipy():
    x = torch.randn(3, 2, 31, 40, generator=torch.Generator().manual_seed(0))
    for side in (3, 5, 9, 13, 17):
        assert torch.equal(dilate(x, side), F.max_pool2d(x, side, 1, side // 2))
    assert torch.equal(dilate(x > 2, 9), F.max_pool2d((x > 2).float(), 9, 1, 4) > 0)
    expected = ndimage.gaussian_filter(x.numpy().astype(float), (0, 0, 2.5, 2.5), mode="reflect")
    assert np.allclose(blur(x, 2.5), expected, atol=1e-5)


def test_shape_agrees_with_scikit_image():
    rng = np.random.default_rng(2)
    masks = ndimage.gaussian_filter(rng.normal(size=(12, 68, 68)), (0, 7, 7)) > 0.02
    masks = np.stack([(parts := label(m)) == np.bincount(parts[parts > 0]).argmax() for m in masks])
    ours = {key: value.numpy() for key, value in shape(torch.from_numpy(masks), "M").items()}
    props = [regionprops(m.astype(int))[0] for m in masks]
    assert np.array_equal(ours["M_Shape_Area"], [p.area for p in props])
    assert np.allclose(ours["M_Shape_Extent"], [p.extent for p in props], atol=1e-5)
    assert np.allclose(ours["M_Shape_MajorAxis"], [p.axis_major_length for p in props], rtol=0.02)
    assert np.allclose(ours["M_Shape_Eccentricity"], [p.eccentricity for p in props], atol=0.02)
    assert np.allclose(ours["M_Shape_Perimeter"], [p.perimeter_crofton for p in props], rtol=0.05)
    hu = np.array([p.moments_hu for p in props])
    assert np.allclose(ours["M_Shape_Hu1"], hu[:, 0], rtol=1e-3)
    assert np.allclose(ours["M_Shape_Hu4"], hu[:, 3], rtol=2e-3, atol=1e-6)


def test_lobes_count_the_lobes():
    y, x = np.mgrid[:68, :68] - 33.5
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    for lobes in (2, 3, 4, 5):
        mask = radius < 16 * (1 + 0.35 * np.cos(lobes * angle + 0.4))
        found = shape(torch.from_numpy(mask[None]), "M")
        strength = [float(found[f"M_Shape_Lobes{k}"]) for k in range(1, 7)]
        assert np.argmax(strength) + 1 == lobes


def test_intensity_and_correlation_agree_with_a_slow_loop():
    images = synthetic(5)
    x = torch.from_numpy(images.astype(np.float32) / 65_535)
    masks = find_masks(x)
    regions = {"Nucleus": masks.nucleus, "Cytoplasm": masks.cell & ~masks.nucleus, "Cell": masks.cell}
    found = intensity(x, regions, ("DNA", "Tubulin", "Actin")) | correlation(x, regions, ("DNA", "Tubulin", "Actin"))
    for i in range(5):
        for name, mask in regions.items():
            inside = images[i][:, mask[i].numpy()].astype(float) / 65_535
            for c, channel in enumerate(("DNA", "Tubulin", "Actin")):
                v = inside[c]
                centred = v - v.mean()
                expected = {"Mean": v.mean(), "Integrated": v.sum(), "SD": v.std(), "Max": v.max()}
                expected |= {"Skewness": (centred**3).mean() / v.std() ** 3, "Variation": v.std() / v.mean()}
                expected |= {"Kurtosis": (centred**4).mean() / v.std() ** 4}
                for key, value in expected.items():
                    assert found[f"{name}_Intensity_{key}_{channel}"][i] == pytest.approx(
                        value, rel=2e-3, abs=1e-3 if key == "Skewness" else 1e-6
                    )
            r = np.corrcoef(inside)
            assert found[f"{name}_Correlation_Pearson_DNA_Actin"][i] == pytest.approx(r[0, 2], abs=1e-3)


def test_cooccurrence_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=(40, 50)), 2).astype(np.float32) + 5
    mask = np.ones(image.shape, bool)
    found = cooccurrence(torch.from_numpy(image)[None, None], torch.from_numpy(mask)[None], ("DNA",), "M")
    levels = np.clip((image - image.mean()) / (4 * image.std()) + 0.5, 0, 1) * (LEVELS - 1e-3)
    for distance in (2, 6):
        counts = graycomatrix(levels.astype(np.uint8), [distance], [0, np.pi / 2], LEVELS, symmetric=True).sum(axis=3)
        matrix = (counts / counts.sum())[..., None]
        for ours, theirs in (("Contrast", "contrast"), ("Energy", "ASM"), ("Correlation", "correlation")):
            expected = graycoprops(matrix, theirs)[0, 0]
            assert found[f"M_Texture_{ours}{distance}_DNA"].item() == pytest.approx(expected, rel=0.01)


def test_granularity_falls_where_the_grains_are():
    y, x = np.mgrid[:68, :68]
    fine = ((y % 8 < 3) & (x % 8 < 3)).astype(np.float32)
    coarse = ((y % 24 < 14) & (x % 24 < 14)).astype(np.float32)
    whole = torch.ones(1, 68, 68, dtype=torch.bool)
    small, large = (granularity(torch.from_numpy(i)[None, None], whole, ("A",)) for i in (fine, coarse))
    assert small["Cell_Granularity_3_A"] > 0.9
    assert large["Cell_Granularity_3_A"] < 0.3
    assert large["Cell_Granularity_9_A"] > large["Cell_Granularity_5_A"]


def test_rings_show_where_the_signal_lies():
    y, x = np.mgrid[:68, :68] - 33.5
    nucleus = torch.from_numpy(np.hypot(y, x) < 12)[None]
    bright = np.hypot(y, x) < 6
    onesided = (np.hypot(y, x) < 6) & (x > 0)
    images = torch.from_numpy(np.stack([bright, onesided]).astype(np.float32))[None]
    found = radial(images, nucleus, ("A", "B"))
    assert found["Crop_Radial_Mean0_A"] > 10
    assert found["Crop_Radial_Mean1_A"] < 1
    assert found["Crop_Radial_Variation0_A"] < 0.1
    assert found["Crop_Radial_Variation0_B"] > 0.9


def test_pixel_pca_is_scikit_learns():
    from sklearn.decomposition import PCA

    cells = cellset(synthetic(40))
    ours = values(pixel_pca(cells, 5, shrink=17)).to_numpy()
    images = cells.images.astype(float)
    images /= images.max(axis=(2, 3), keepdims=True)
    small = images.reshape(40, 3, 4, 17, 4, 17).mean(axis=(3, 5)).reshape(40, -1)
    theirs = PCA(5, svd_solver="full").fit_transform(small)
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-4)
    with pytest.raises(CellbookError, match="n is 50; 40 cells"):
        pixel_pca(cells)


def test_a_random_network_depends_on_its_seed_alone():
    cells = cellset(synthetic(6))
    state = torch.random.get_rng_state()
    first, again, other = (values(random_network(cells, seed)).to_numpy() for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert first.shape == (6, 128)
    assert np.isfinite(values(random_network(cellset(np.zeros((2, 3, 68, 68), np.uint16))))).all().all()


def test_cells_are_counted_by_well():
    cells = cellset(synthetic(6))
    cells.table["Metadata_well"] = ["B02", "B02", "C03", "B02", "C03", "B02"]
    cells.table["Metadata_cell"] = range(6)
    wells = cell_count(cells)
    assert wells["Metadata_well"].tolist() == ["B02", "C03"]
    assert wells["Cells_Count"].tolist() == wells["Metadata_cell_count"].tolist() == [4, 2]
    assert "Metadata_cell" not in wells
    del cells.table["Metadata_well"]
    with pytest.raises(CellbookError, match="lacks Metadata_well"):
        cell_count(cells)


@pytest.mark.data
def test_real_cells_tell_mechanisms_far_better_than_chance(data_dir, monkeypatch):
    """Treatment means, cosine, nearest neighbour of another compound; a random match is right in 9 %."""
    from cellbook.screens.sample import bbbc021_sample

    monkeypatch.setenv("CELLBOOK_DATA", str(data_dir))
    cells = bbbc021_sample().select("Metadata_role != 'positive control'")
    frame = classical(cells)
    names = list(values(frame))
    x = frame[names].astype(float)
    control = (frame["Metadata_compound"] == "DMSO").to_numpy()
    x = (x - x[control].mean()) / (x[control].std() + 1e-9)
    keys = ["Metadata_compound", "Metadata_concentration", "Metadata_moa"]
    profiles = x[~control].groupby([frame.loc[~control, key] for key in keys]).mean()
    assert len(profiles) == 103
    unit = profiles.to_numpy() / np.linalg.norm(profiles, axis=1, keepdims=True)
    compound, moa = (profiles.index.get_level_values(i).to_numpy() for i in (0, 2))
    similarity = np.where(compound[:, None] == compound, -2, unit @ unit.T)
    assert (moa[similarity.argmax(axis=1)] == moa).mean() > 0.45


def test_classical_features_make_every_tensor_where_the_images_are():
    cells = cellset(synthetic(4))
    with pytest.raises(AssertionError, match="arange"), Placed():
        torch.arange(3)
    with Placed():
        features = encoders._batch(cells.grey(slice(None)) / 65_535, cells.channels)
    assert {value.device.type for value in features.values()} == {"cpu"}
    assert len(features) == 252


@pytest.mark.gpu
@pytest.mark.parametrize("encoder", [classical, lambda cells, device="cpu": pixel_pca(cells, 5, device=device)])
def test_a_gpu_measures_the_same(encoder):
    cells = cellset(synthetic(64))
    here, there = values(encoder(cells)), values(encoder(cells, device="cuda"))
    scale = here.abs().max() + here.std() + 1e-3
    assert ((here - there).abs() / scale).quantile(0.98).max() < 1e-3
