"""Screens by name: what is opened, which cells are taken, and a digest that follows their content."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.screens import bbbc021, named
from cellbook.screens.named import PLANTED, SAMPLE, SIMULATED
from cellbook.screens.simulator import preset


@pytest.fixture
def cells():
    """Nine treatments and DMSO in wells of 1 to 5 cells, the positive control among them."""
    rng = np.random.default_rng(3)
    rows = []
    for place in range(20):
        compound = "DMSO" if place < 2 else f"c{place % 9}"
        role = {0: "negative control", 1: "negative control", 2: named.POSITIVE}.get(place, "treatment")
        moa = "DMSO" if place < 2 else f"m{place % 9 // 5}"
        labels = (f"p{place % 3}", f"A{place:02d}", f"week{place % 2}", compound, 1.0, moa, role, 10 * place)
        rows += [labels] * (1 + place % 5)
    names = ("plate", "well", "batch", "compound", "concentration", "moa", "role", "cell_count")
    table = pd.DataFrame(rows, columns=[f"Metadata_{name}" for name in names])
    images = rng.integers(0, 2**16, (len(table), 3, 8, 8), dtype=np.uint16)
    return CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.65)


def test_fingerprint_of_a_simulated_screen_follows_its_content_and_that_of_others_does_not():
    config = preset("smoke")
    assert named.fingerprint(SIMULATED, config) == named.fingerprint(SIMULATED, replace(config))
    others = [replace(config, seed=1), replace(config, week_effect=0.7), replace(config, cells=4)]
    found = [named.fingerprint(SIMULATED, each) for each in (config, *others)]
    assert len(set(found)) == 4
    assert len({named.fingerprint(SAMPLE, each) for each in (config, *others)} - set(found)) == 1


def test_a_simulated_screen_is_known_by_what_it_is_drawn_from_not_by_its_pixels(tmp_path, monkeypatch):
    def lighter(config, **how):
        for part in drawn(config, **how):
            yield CellSet(part.images + 16, part.table, part.channels, part.pixel_um)

    config, drawn = preset("smoke", cells=2), named.in_turns
    cells = named.load(SIMULATED, config, tmp_path / "one")
    monkeypatch.setattr(named, "in_turns", lighter)
    other = named.load(SIMULATED, config, tmp_path / "other")
    assert other.content != cells.content
    assert other.fingerprint == cells.fingerprint == named.fingerprint(SIMULATED, config)
    assert other.select([3, 1]).fingerprint == cells.select([3, 1]).fingerprint
    some = named.load(SIMULATED, config, tmp_path / "one", per_well=1)
    assert some.fingerprint not in {cells.fingerprint, some.content}
    assert some.fingerprint == named.load(SIMULATED, config, tmp_path / "other", per_well=1).fingerprint
    changed = named.load(SIMULATED, replace(config, noise=0.5), tmp_path / "one")
    assert changed.fingerprint != cells.fingerprint
    for each in (cells, other, changed):
        each.verify()


def test_a_screen_of_ones_own_is_its_folder_and_has_its_fingerprint(cells, tmp_path):
    cells.save(tmp_path / "own")
    own = named.load(str(tmp_path / "own"), preset("smoke"), tmp_path)
    assert own.fingerprint == cells.fingerprint == named.fingerprint(str(tmp_path / "own"), preset("smoke"))
    for ask in (named.load, named.fingerprint):
        with pytest.raises(CellbookError, match="'nowhere' is neither simulated nor bbbc021-sample nor the folder"):
            ask("nowhere", preset("smoke"), *([tmp_path] if ask is named.load else []))


def test_at_most_so_many_cells_of_a_well_are_taken_the_same_each_time(cells, tmp_path):
    cells.save(tmp_path / "own")
    first, second = (named.load(str(tmp_path / "own"), preset("smoke"), tmp_path, per_well=2) for _ in "12")
    assert first.fingerprint == second.fingerprint
    wells = cells.table.groupby(named.WELL).size().clip(upper=2)
    pd.testing.assert_series_equal(first.table.groupby(named.WELL).size(), wells)


def test_cells_without_mechanisms_are_refused(cells, tmp_path):
    CellSet(cells.images, cells.table.drop(columns="Metadata_moa"), cells.channels, 0.65).save(tmp_path / "own")
    with pytest.raises(CellbookError, match="the 60 cells have no column Metadata_moa, so nothing"):
        named.load(str(tmp_path / "own"), preset("smoke"), tmp_path)


def test_looked_at_cells_are_balanced_over_treatments(cells):
    rows = named.balanced_rows(cells, 10)
    assert len(set(rows)) == 10
    assert cells.table.loc[rows].groupby(named.TREATMENT).size().tolist() == [1] * 10
    assert named.balanced_rows(cells, 1_000).tolist() == list(range(len(cells)))


def test_counts_of_treatments_are_medians_over_wells_without_controls(cells):
    found = named.cell_counts(cells, "own").set_index("Metadata_compound")["Metadata_cell_count"]
    # c2 lies in wells 2 (the positive control), 11; c0 in 9, 18; c3 in 3, 12.
    assert found[["c2", "c0", "c3"]].tolist() == [110, (90 + 180) / 2, (30 + 120) / 2]
    assert "DMSO" not in found
    table = cells.table.drop(columns="Metadata_cell_count")
    assert named.cell_counts(CellSet(cells.images, table, cells.channels, 0.65), "own") is None


def test_planted_wells_need_no_data():
    wells = named.load_wells(PLANTED, 30)
    assert len([name for name in wells if not name.startswith("Metadata_")]) == 30


@pytest.mark.data
def test_real_files_are_known_and_published_wells_are_those_of_the_features(data_dir, monkeypatch):
    monkeypatch.setenv("CELLBOOK_DATA", str(data_dir))
    assert named.missing_files() == []
    assert len(named.checksums(named.real_files())) == len(set(named.real_files()))
    pd.testing.assert_frame_equal(named.load_wells(named.FEATURES), bbbc021.ljosa2013())
