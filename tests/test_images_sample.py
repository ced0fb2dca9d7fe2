"""The real sample: counts, labels, channel order, and the crops that hold no cell."""

import numpy as np
import pytest

from cellbook.errors import CellbookError
from cellbook.screens.sample import bbbc021_sample


def test_an_unknown_part_is_refused():
    with pytest.raises(CellbookError, match="which is 'all'; use one of all_treatments, dense_wells"):
        bbbc021_sample("all")


@pytest.fixture
def data(data_dir, monkeypatch):
    monkeypatch.setenv("CELLBOOK_DATA", str(data_dir))
    return data_dir


@pytest.mark.data
def test_the_sample_holds_all_treatments_and_reports_its_noise_crops(data):
    cells = bbbc021_sample()
    assert len(cells) == 1996 - 55
    assert cells.table.attrs["noise_crops"] == 55
    treated = cells.table[cells.table["Metadata_compound"] != "DMSO"]
    assert len(treated.groupby(["Metadata_compound", "Metadata_concentration"])) == 103
    assert cells.table["Metadata_moa"].nunique() == 13
    assert not cells.table.isna().any().any()
    positive = cells.table[cells.table["Metadata_role"] == "positive control"]
    assert set(positive["Metadata_compound"]) == {"taxol"}


@pytest.mark.data
def test_channels_are_reordered_to_dna_tubulin_actin(data):
    cells = bbbc021_sample("dense_wells")
    assert cells.channels == ("DNA", "Tubulin", "Actin")
    with np.load(data / "bbbc021" / "crops" / "crops_dense_wells.npz") as stored:
        original = stored["images"]
    assert np.array_equal(cells.images[:, 1], original[:, 2])
    assert np.array_equal(cells.images[:, 2], original[:, 1])
