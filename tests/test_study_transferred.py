"""The transferred baseline: the distances that whole tables and matrices give, and none without its package."""

import numpy as np
import pandas as pd
import pytest

from cellbook import features, metrics, profiles
from cellbook.cells import CellSet
from cellbook.study import measured, profile, transferred
from cellbook.study.encoding import standardise

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cells():
    """Three DMSO wells and two treatments of two wells, three cells each, and a well of the positive control."""
    rng = np.random.default_rng(0)
    compound = ["DMSO"] * 3 + ["a", "a", "b", "b", "taxol"]
    wells = pd.DataFrame({"Metadata_compound": compound, "Metadata_well": [f"W{n}" for n in range(8)]})
    wells["Metadata_role"] = np.where(wells["Metadata_compound"] == "taxol", "positive control", "treatment")
    wells["Metadata_moa"] = wells["Metadata_compound"].map({"DMSO": "DMSO"}).fillna("moa " + wells["Metadata_compound"])
    table = wells.loc[np.repeat(np.arange(8), 3)].assign(
        Metadata_plate="p", Metadata_batch="Week1", Metadata_concentration=1.0, Metadata_y=2.0
    )
    images = rng.integers(0, 2**12, (24, 1, 24, 24), dtype=np.uint16)
    return CellSet(images, table, ("DNA",), 0.65)


def test_wide_profiles_are_whitened_as_all_their_features_would_be():
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"Metadata_compound": ["DMSO"] * 6 + ["a", "b", "c"]})
    wide = profiles.replace_features(
        table, rng.normal(size=(9, 40)) * rng.uniform(1, 9, 40), [f"f{i}" for i in range(40)]
    )
    for some in (wide, wide.iloc[:, :5]):  # more features than rows, and fewer
        full = profiles.matrix(profiles.Whitening(1.0, relative=True).fit_transform(some))
        turned = profiles.matrix(profile.whiten_wide(some, 1.0))
        np.testing.assert_allclose(turned @ turned.T, full @ full.T, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not transferred.installed(), reason="the package with the weights is an extra")
def test_distances_are_those_of_whole_tables(cells, tmp_path):
    (run,) = transferred.transferred("simulated", cells, "lafarge2019", tmp_path)
    table = features.imagenet(cells)
    table = table[table["Metadata_compound"] != "taxol"].drop(columns="Metadata_y").reset_index(drop=True)
    plain = profiles.Whitening(1.0, relative=True).fit_transform(profiles.to_wells(table))
    slow = {"mean": profiles.to_wells(standardise(table)), "mean, whitened": plain}
    found = dict(measured.stored_distances(run))
    assert {summary for _, summary, _ in found} == set(slow)
    for (_, summary, _), square in found.items():
        units = profile.treatments(slow[summary], "lafarge2019")
        expected = metrics.distance_matrix(profiles.matrix(units), "cosine")
        np.testing.assert_allclose(square, expected, atol=1e-4)
    assert run.table("treatments")["Metadata_compound"].tolist() == ["a", "b"]


@pytest.mark.skipif(not transferred.installed(), reason="the package with the weights is an extra")
def test_pages_of_the_same_cells_encode_them_once(cells, tmp_path, monkeypatch):
    transferred.transferred("simulated", cells, "lafarge2019", tmp_path)
    monkeypatch.setattr(transferred, "well_profiles", lambda *_: pytest.fail("encoded again"))
    (run,) = transferred.transferred("simulated", cells, "ljosa2013", tmp_path)
    assert run.record["config"]["protocol"] == "ljosa2013"
    monkeypatch.undo()
    (fresh,) = transferred.transferred("simulated", cells, "ljosa2013", tmp_path / "fresh")
    assert fresh.record["products"] == run.record["products"]


def test_without_the_package_there_is_no_run(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(transferred, "installed", lambda: False)
    assert transferred.transferred("simulated", cells, "lafarge2019", tmp_path) == []
    assert not list(tmp_path.iterdir())
