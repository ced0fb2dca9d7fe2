"""Detection and cropping: known centres are found, nothing is found in noise, crops are the very pixels."""

import numpy as np
import pytest
from scipy import ndimage

from cellbook.errors import CellbookError
from cellbook.screens.crops import crop
from cellbook.screens.nuclei import METHODS, detect, match_centres, nuclei_csv


def blobs(seed=0, shape=(400, 500), spacing=50, radius=14, background=800, height=3000, noise=40):
    """Ellipses on a jittered grid: image and true centres."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[30 : shape[0] - 30 : spacing, 30 : shape[1] - 30 : spacing].reshape(2, -1).T
    centres = grid + rng.integers(-5, 6, grid.shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for cy, cx in centres:
        a, b, angle = radius * rng.uniform(0.8, 1.2), radius * rng.uniform(0.7, 1), rng.uniform(0, np.pi)
        u = (y - cy) * np.cos(angle) + (x - cx) * np.sin(angle)
        v = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle)
        image = np.maximum(image, rng.uniform(0.6, 2) * height * ((u / a) ** 2 + (v / b) ** 2 < 1))
    image = ndimage.gaussian_filter(image, 1.5) + background + rng.normal(0, noise, shape)
    return np.clip(image, 0, 65_535).astype(np.uint16), centres


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1, 0.05, 8])
def test_known_blobs_are_found_at_any_grey_scale(method, scale):
    image, centres = blobs()
    found = detect((image * scale).astype(np.uint16), method)
    matching = match_centres(found, centres, radius=4)
    assert matching.precision > 0.98
    assert matching.recall > 0.98


@pytest.mark.parametrize("method", METHODS)
def test_touching_nuclei_are_two_and_a_bright_neighbour_hides_none(method):
    image, centres = blobs(radius=12)
    y, x = np.mgrid[:400, :500]
    pair = centres[20] + np.array([0, 22])
    image[(y - pair[0]) ** 2 + (x - pair[1]) ** 2 < 121] = 3800
    bright = centres[40]
    image[(y - bright[0]) ** 2 + (x - bright[1]) ** 2 < 144] = 60_000
    matching = match_centres(detect(image, method), np.vstack([centres, pair]), radius=5)
    assert matching.recall > 0.98
    assert matching.precision > 0.98


@pytest.mark.parametrize("method", METHODS)
def test_sparse_field_of_three_nuclei_is_found_whole(method):
    image, _ = blobs(height=0)
    y, x = np.mgrid[:400, :500]
    truth = np.array([[100, 100], [200, 300], [330, 410]])
    for cy, cx in truth:
        image[(y - cy) ** 2 + (x - cx) ** 2 < 200] += 2500
    assert match_centres(detect(image, method), truth, radius=3).f1 == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["zero", "saturated", "noise", "tilted noise", "float zero"])
def test_fields_without_nuclei_give_none_and_no_warning(method, kind, recwarn):
    rng = np.random.default_rng(1)
    noise = rng.normal(900, 50, (200, 260))
    image = {
        "zero": np.zeros((200, 260), np.uint16),
        "saturated": np.full((200, 260), 65_535, np.uint16),
        "noise": noise.astype(np.uint16),
        "tilted noise": (noise + np.linspace(0, 300, 260)).astype(np.uint16),
        "float zero": np.zeros((200, 260), np.float32),
    }[kind]
    assert detect(image, method).shape == (0, 2)
    assert not recwarn.list


@pytest.mark.parametrize("method", METHODS)
def test_unknown_areas_are_masked_before_anything_else(method):
    image, centres = blobs()
    known = np.ones(image.shape, bool)
    known[:, 240:290] = False
    holes = np.where(known, image, 0).astype(np.uint16)
    found = detect(holes, method, known=known)
    assert known[found[:, 0], found[:, 1]].all()
    clear = np.abs(centres[:, 1] - 265) > 60
    expected = centres[clear]
    far = np.abs(found[:, 1] - 265) > 60
    assert match_centres(found[far], expected, radius=6).f1 > 0.95


def test_detection_refuses_what_it_cannot_answer():
    image, _ = blobs()
    with pytest.raises(CellbookError, match="method is 'cellpose'"):
        detect(image, "cellpose")
    with pytest.raises(CellbookError, match="one channel"):
        detect(np.stack([image, image]))
    with pytest.raises(CellbookError, match="known has shape"):
        detect(image, known=np.ones((3, 3), bool))
    with pytest.raises(CellbookError, match="1 NaN"):
        detect(np.where(np.arange(image.size).reshape(image.shape) == 5, np.nan, image))


def test_matching_uses_no_centre_twice_and_handles_empty_sides():
    truth = np.array([[10, 10], [50, 50]])
    found = np.array([[10, 12], [10, 9], [90, 90]])
    matching = match_centres(found, truth, radius=5)
    assert (matching.precision, matching.recall) == (1 / 3, 1 / 2)
    assert matching.pairs.tolist() == [[1, 0]]
    nothing = np.empty((0, 2))
    assert match_centres(nothing, truth)[:2] == (0, 0)
    assert match_centres(nothing, nothing).f1 == 1


def test_centres_as_csv_have_a_header_and_are_those_detected(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    image, _ = blobs(shape=(200, 200))
    tifffile.imwrite(tmp_path / "dna.tif", image)
    lines = nuclei_csv(tmp_path / "dna.tif", "otsu").splitlines()
    assert lines[0] == "y,x"
    assert np.array_equal(np.array([line.split(",") for line in lines[1:]], int), detect(image, "otsu"))


@pytest.mark.parametrize("size", [1, 7, 20])
def test_crops_are_integer_slices(size):
    image = np.random.default_rng(0).integers(0, 65_536, (3, 60, 80), dtype=np.uint16)
    centres = np.array([[30, 40], [10, 10], [49, 69]])
    crops, kept = crop(image, centres, size)
    assert kept.tolist() == [0, 1, 2]
    for (y, x), piece in zip(centres, crops, strict=True):
        top, left = y - size // 2, x - size // 2
        assert np.array_equal(piece, image[:, top : top + size, left : left + size])


def test_border_rules_drop_or_fill_and_never_shift():
    image = np.random.default_rng(0).integers(1, 65_536, (2, 40, 50), dtype=np.uint16)
    centres = np.array([[9, 20], [10, 20], [30, 25], [31, 25], [20, 10], [20, 41], [0, 0], [39, 49]])
    crops, kept = crop(image, centres, 20, "drop")
    assert kept.tolist() == [1, 2, 4]
    assert len(crops) == 3
    for rule, mode in (("zero", "constant"), ("reflect", "reflect")):
        crops, kept = crop(image, centres, 20, rule)
        assert len(crops) == len(kept) == len(centres)
        padded = np.pad(image, ((0, 0), (25, 25), (25, 25)), mode=mode)
        for (y, x), piece in zip(centres, crops, strict=True):
            assert np.array_equal(piece, padded[:, y + 15 : y + 35, x + 15 : x + 35])
    crops, kept = crop(image, np.empty((0, 2)), 20)
    assert crops.shape == (0, 2, 20, 20)
    assert not kept.size


def test_crop_refuses_unknown_rules_sizes_and_swapped_coordinates():
    image = np.zeros((3, 40, 50), np.uint16)
    with pytest.raises(CellbookError, match="border is 'wrap'"):
        crop(image, np.array([[5, 5]]), 10, "wrap")
    with pytest.raises(CellbookError, match="size is 41"):
        crop(image, np.array([[5, 5]]), 41)
    with pytest.raises(CellbookError, match=r"1 of 1 centres lie outside.*y before x"):
        crop(image, np.array([[45, 20]]), 10)


def reassembled(data_dir):
    paths = sorted((data_dir / "bbbc021" / "fields_reassembled").glob("*.npz"))
    assert len(paths) == 5
    for path in paths:
        with np.load(path) as stored:
            yield stored["image"], stored["known"], stored["centres"][:, 1:]


@pytest.mark.data
@pytest.mark.parametrize("method", METHODS)
def test_real_nuclei_are_found(data_dir, method):
    """Scored inside the known area, 17 pixels (a nuclear radius) from its edge, against CellProfiler's centres."""
    for image, known, truth in reassembled(data_dir):
        inside = ndimage.distance_transform_edt(np.pad(known, 1))[1:-1, 1:-1] > 17
        found = detect(image[0], method, known=known)
        pairs = match_centres(found, truth).pairs
        found_inside, truth_inside = inside[tuple(found.T)], inside[tuple(truth.T)]
        precision = found_inside[pairs[:, 0]].sum() / found_inside.sum()
        recall = truth_inside[pairs[:, 1]].sum() / truth_inside.sum()
        assert 2 * precision * recall / (precision + recall) > 0.95
        if method == "otsu":  # the default, because its centres are centroids
            near = truth_inside[match_centres(found, truth, radius=2).pairs[:, 1]].sum() / truth_inside.sum()
            assert near > 0.9


@pytest.mark.data
def test_crops_at_true_centres_are_the_published_crops(data_dir, monkeypatch):
    from cellbook.screens.sample import bbbc021_sample

    monkeypatch.setenv("CELLBOOK_DATA", str(data_dir))
    published = bbbc021_sample("dense_wells")
    compared = 0
    for path in (data_dir / "bbbc021" / "fields_reassembled").glob("*.npz"):
        with np.load(path) as stored:
            image, index, centres = stored["image"][[0, 2, 1]], stored["centres"][:, 0], stored["centres"][:, 1:]
        crops, kept = crop(image, centres, 68)
        assert len(kept) == len(centres)
        rows = np.flatnonzero(published.table["Metadata_field"] == path.stem)
        place = {cell: i for i, cell in enumerate(index)}
        for row in rows:
            cell = published.table["Metadata_cell"][row]
            if cell in place:
                assert np.array_equal(published.images[row], crops[place[cell]])
                compared += 1
    assert compared > 20
