"""Plain encoders: by name, in parts as in one, without place; and treatments in the plane."""

import numpy as np
import pandas as pd
import pytest
import torch

from cellbook import features
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features import transferred
from cellbook.methods import vae_plus
from cellbook.profiles import matrix
from cellbook.profiles.subsets import Subsets
from cellbook.screens.named import PLACE
from cellbook.study import encoding
from cellbook.study.projections import project
from cellbook.study.trainings import Training

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2**16, (12, 3, 68, 68), dtype=np.uint16)
    table = pd.DataFrame({"Metadata_compound": ["DMSO", "a", "b"] * 4, "Metadata_plate": ["p", "q"] * 6})
    return CellSet(images, table.assign(Metadata_y=1.0, Metadata_site=2), ("DNA", "Tubulin", "Actin"), 0.65)


def test_plain_encoders_are_those_of_the_features_without_the_place_of_a_cell(cells, monkeypatch):
    monkeypatch.setattr(encoding, "CHUNK", 5)
    for name, expected in (
        (encoding.CLASSICAL, features.classical(cells)),
        (encoding.PIXELS, features.pixel_pca(cells, n=4, seed=3)),
        (encoding.RANDOM, features.random_network(cells, seed=3)),
    ):
        found = encoding.encode(name, cells, 3, n=4)
        assert not set(found) & set(PLACE)
        np.testing.assert_allclose(matrix(found), matrix(expected), rtol=1e-4, atol=1e-4)
    assert matrix(encoding.encode(encoding.PIXELS, cells, n=1_000)).shape == (12, 12)
    with pytest.raises(CellbookError, match="no plain encoder 'pixels'"):
        encoding.encode("pixels", cells)


@pytest.mark.parametrize("name", [encoding.CLASSICAL, encoding.PIXELS, encoding.RANDOM, encoding.IMAGENET])
def test_encoding_in_blocks_gives_the_wells_of_encoding_all_and_holds_no_more_than_a_block(cells, monkeypatch, name):
    if name == encoding.IMAGENET and not transferred.installed():
        pytest.skip("the package with the weights is an extra")
    table = cells.table.assign(Metadata_well=["A", "B", "C", "B"] * 3)
    cells = CellSet(cells.images, table, cells.channels, cells.pixel_um)
    member = np.column_stack([np.ones(12, bool), np.arange(12) < 9])
    whole = matrix(encoding.encode(name, cells, 5))
    held, encode = [], encoding.encode
    monkeypatch.setattr(encoding, "BLOCK", 5)
    monkeypatch.setattr(encoding, "encode", lambda *args, **how: held.append(len(args[1])) or encode(*args, **how))
    found = Subsets(table, member)
    encoding.add_sums(found, name, cells, 5)
    assert max(held) == (12 if name == encoding.PIXELS else 5)
    for place in range(2):
        wells = found.profiles(place, standardised=False)
        keys = table["Metadata_plate"] + table["Metadata_well"]
        slow = [
            whole[member[:, place] & (keys == key)].mean(axis=0)
            for key in wells["Metadata_plate"] + wells["Metadata_well"]
        ]
        np.testing.assert_allclose(matrix(wells), slow, rtol=1e-4, atol=1e-4)


def test_an_untrained_encoder_follows_its_seed_and_leaves_the_generators_of_its_caller_alone(cells):
    like = Training("VAE", 0, "vae_plus", vae_plus.Config("vae", latent=4, width=2))
    torch.manual_seed(7)
    codes = [matrix(encoding.encode(encoding.UNTRAINED, cells, seed, like=like)) for seed in (0, 0, 1)]
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))
    assert codes[0].shape == (12, 4)
    assert np.array_equal(codes[0], codes[1])
    assert not np.allclose(codes[0], codes[2])


def test_controls_of_each_group_have_mean_zero_and_deviation_one():
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"Metadata_compound": ["DMSO", "DMSO", "DMSO", "a"] * 10, "Metadata_plate": ["p", "q"] * 20})
    table = table.assign(a=rng.normal(5, 3, 40), b=rng.normal(size=40) + 9 * (table["Metadata_plate"] == "q"), c=1.0)
    control = table["Metadata_compound"] == "DMSO"
    for by, groups in ((None, [control]), ("Metadata_plate", [control & (table["Metadata_plate"] == p) for p in "pq"])):
        scaled = encoding.standardise(table, by)
        assert "c" not in scaled
        for group in groups:
            np.testing.assert_allclose(scaled.loc[group, ["a", "b"]].mean(), 0, atol=1e-9)
            np.testing.assert_allclose(scaled.loc[group, ["a", "b"]].std(), 1, rtol=1e-9)


def test_maps_put_alike_treatments_together():
    rng = np.random.default_rng(2)
    moa = np.repeat(["x", "y"], 15)
    units = pd.DataFrame(
        {"Metadata_moa": moa, "Metadata_batch": "w", "Metadata_compound": [f"c{k}" for k in range(30)]}
    )
    centre = np.where(moa == "x", 1.0, -1.0)[:, None] * np.array([3.0, 0, 0, 0])
    values = pd.DataFrame(centre + rng.normal(size=(30, 4)), columns=list("abcd"))
    found = project(pd.concat([units.assign(Metadata_concentration=1.0), values], axis=1), 0, setting="as drawn")
    assert list(found)[:4] == ["method", "setting", "x", "y"]
    for _, part in found.groupby("method"):
        means = part.groupby("moa")[["x", "y"]].mean().to_numpy()
        within = part.groupby("moa")[["x", "y"]].std().to_numpy().mean()
        assert np.linalg.norm(means[0] - means[1]) > 2 * within
