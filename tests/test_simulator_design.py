"""The simulated plate map is that of BBBC021, at any size, and biology does not depend on nuisance."""

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.screens import bbbc021
from cellbook.screens.simulator import SimulatedScreen, plate_map, preset
from cellbook.screens.simulator.design import PRESETS, variants
from cellbook.screens.simulator.nuisance import nuisances
from cellbook.screens.simulator.phenotypes import MECHANISMS, compound_effects, dose_effects
from cellbook.screens.simulator.simulate import screen_tables

TREATMENT = ["Metadata_compound", "Metadata_concentration"]


def test_full_plate_map_has_the_published_numbers():
    wells = plate_map(SimulatedScreen(controls=6, positive_controls=6))
    plates = wells.groupby("Metadata_batch").Metadata_plate.nunique()
    assert dict(plates) == bbbc021.PLATES_PER_WEEK
    assert len(wells) == 962
    assert dict(wells.Metadata_role.value_counts()) == {
        "negative control": 330,
        "positive control": 330,
        "treatment": 302,
    }
    library = wells[wells.Metadata_role == "treatment"]
    replicates = library.groupby(TREATMENT).size()
    assert len(replicates) == 103
    assert dict(replicates.value_counts()) == {3: 96, 2: 7}
    assert library.groupby(TREATMENT).Metadata_batch.nunique().eq(1).all()
    taxol = library[(library.Metadata_compound == "taxol") & (library.Metadata_concentration == 0.3)]
    assert set(taxol.Metadata_well) == {"D05"}
    assert set(taxol.Metadata_batch) == {"Week1"}
    assert not wells.duplicated(["Metadata_plate", "Metadata_well"]).any()


@pytest.mark.data
def test_wells_and_replicates_are_those_of_the_real_screen(data_dir):
    real = bbbc021.wells(data_dir / "bbbc021" / "metadata")
    real = real[real.Metadata_moa.notna()]
    simulated = plate_map(SimulatedScreen(controls=6, positive_controls=6))
    columns = [*TREATMENT, "Metadata_moa", "Metadata_batch", "Metadata_well", "Metadata_replicate", "Metadata_role"]

    def rows(table):
        return table[columns].astype({"Metadata_concentration": float}).sort_values(columns).reset_index(drop=True)

    pd.testing.assert_frame_equal(rows(simulated), rows(real), check_dtype=False)
    # The same wells share a plate.
    keys = [*columns, "Metadata_plate"]
    layouts = [
        sorted(
            tuple(map(tuple, plate[columns].sort_values(columns).to_numpy()))
            for _, plate in t[keys].groupby("Metadata_plate")
        )
        for t in (simulated, real)
    ]
    assert layouts[0] == layouts[1]


@pytest.mark.parametrize("name", PRESETS)
def test_every_size_keeps_every_treatment_week_and_control(name):
    wells = plate_map(preset(name))
    treated = wells[wells.Metadata_role == "treatment"]
    assert len(treated[TREATMENT].drop_duplicates()) == 103
    assert wells.Metadata_batch.nunique() == 10
    assert (wells[wells.Metadata_compound == "DMSO"].groupby("Metadata_plate").size() >= 1).all()
    assert wells.Metadata_plate.nunique() == 55


def test_genetic_design_puts_every_variant_on_every_plate():
    wells = plate_map(SimulatedScreen(design="genetic", wells=6))
    table = variants()
    assert (len(table), table.gene.nunique(), (table.split == "train").sum()) == (26, 10, 10)
    treated = wells[wells.Metadata_role == "treatment"]
    assert (treated.groupby("Metadata_plate").Metadata_compound.nunique() == 26).all()
    assert treated.groupby("Metadata_compound").Metadata_batch.nunique().eq(4).all()
    assert wells[wells.Metadata_role == "negative control"].Metadata_compound.eq("EMPTY").all()
    places = treated[treated.Metadata_compound == "KRAS_G12V"].Metadata_well
    assert len(set(places)) > 1
    assert not wells.duplicated(["Metadata_plate", "Metadata_well"]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"design": "chem"}, "'chemical' or 'genetic'"),
        ({"wells": 4}, "wells=4"),
        ({"crop": 8}, "crop=8"),
        ({"week_effect": -1.0}, "week_effect=-1"),
        ({"field": (64, 64)}, "field="),
        ({"controls": 0}, "controls=0"),
    ],
)
def test_configuration_names_what_is_out_of_range(changes, message):
    with pytest.raises(CellbookError, match=message):
        SimulatedScreen(**changes)
    with pytest.raises(CellbookError, match="no preset"):
        preset("huge")


def test_every_mechanism_has_a_phenotype():
    assert set(bbbc021.MOAS) | set(variants().gene) == set(MECHANISMS)


def test_dose_effects_rise_with_dose_and_stay_below_one():
    effects = dose_effects(SimulatedScreen())
    doses = bbbc021.treatments().sort_values(["compound", "concentration"])
    for compound, group in doses.groupby("compound"):
        shares = np.array([effects[(compound, dose)] for dose in group.concentration])
        assert (np.diff(shares) > 0).all()
        assert shares.min() > 0.4
        assert shares.max() < 1
    assert effects[("DMSO", 0.0)] == 0


def test_compounds_of_a_mechanism_are_alike_but_not_equal():
    effects = compound_effects(SimulatedScreen(seed=3))
    moa = bbbc021.treatments().drop_duplicates("compound").set_index("compound").moa
    shifts = np.stack([effects[c].shift for c in moa.index])
    cosine = shifts @ shifts.T / np.outer(*[np.linalg.norm(shifts, axis=1)] * 2)
    same = moa.to_numpy()[:, None] == moa.to_numpy()
    np.fill_diagonal(cosine, np.nan)
    assert np.nanmean(cosine[same]) > np.nanmean(cosine[~same]) + 0.4
    assert np.nanmax(cosine) < 0.999
    alone = compound_effects(SimulatedScreen(seed=3, compound_effect=0.0))
    assert np.array_equal(alone["nocodazole"].shift, alone["colchicine"].shift)


def test_measured_effect_rises_with_dose():
    cells, wells = screen_tables(SimulatedScreen(cells=60, controls=1, positive_controls=0))
    named = wells.iloc[cells.row.to_numpy()].reset_index(drop=True)
    cells = cells.assign(compound=named.Metadata_compound, dose=named.Metadata_concentration)
    area = cells[cells.compound == "AZ-A"].groupby("dose").truth_nucleus_area.median()
    control = cells[cells.compound == "DMSO"].truth_nucleus_area.median()
    assert area.iloc[-1] > 1.25 * control
    assert np.corrcoef(np.arange(len(area)), area)[0, 1] > 0.5
    vincristine = cells[cells.compound == "vincristine"].groupby("dose").truth_effect.mean()
    assert vincristine.iloc[-1] > vincristine.iloc[0]
    assert cells[cells.compound == "DMSO"].truth_effect.eq(0).all()


def test_biology_is_untouched_by_every_nuisance():
    base = SimulatedScreen(seed=5, cells=6, controls=1, positive_controls=0, wells=1)
    cells, wells = screen_tables(base)
    for name in ("week_effect", "plate_effect", "position_effect", "delay_effect", "noise"):
        other_cells, other_wells = screen_tables(
            preset("quick", seed=5, cells=6, controls=1, positive_controls=0, wells=1, **{name: 0.0})
        )
        truth = list(cells.filter(like="truth_"))
        pd.testing.assert_frame_equal(cells[truth], other_cells[truth])
        pd.testing.assert_frame_equal(wells.filter(like="Metadata_"), other_wells.filter(like="Metadata_"))
    changed, _ = screen_tables(SimulatedScreen(seed=6, cells=6, controls=1, positive_controls=0, wells=1))
    assert changed.truth_nucleus_area.iloc[0] != cells.truth_nucleus_area.iloc[0]


def test_zero_strengths_remove_nuisances_exactly_and_factors_scale_them():
    wells = plate_map(preset("smoke"))
    stains = ("DNA", "Tubulin", "Actin")
    none = nuisances(preset("smoke", week_effect=0, plate_effect=0, position_effect=0), wells, stains)
    assert (none.drop(columns="truth_delay") == 0).all().all()
    weeks = nuisances(preset("smoke", week_effect=1, plate_effect=0, position_effect=0), wells, stains)
    assert weeks.groupby(wells.Metadata_batch).nunique().drop(columns="truth_delay").eq(1).all().all()
    twice = nuisances(preset("smoke", week_effect=2, plate_effect=0, position_effect=0), wells, stains)
    columns = [c for c in weeks if c != "truth_delay"]
    np.testing.assert_allclose(twice[columns], 2 * weeks[columns])
    assert weeks.truth_gain_DNA.groupby(wells.Metadata_batch).first().nunique() == 10
    assert weeks.truth_delay.between(0, 1).all()
    assert weeks.truth_delay.groupby(wells.Metadata_plate).std().min() > 0


def test_plates_can_be_simulated_alone():
    config = preset("smoke")
    cells, wells = screen_tables(config)
    some, few = screen_tables(config, plates=["Week3_2", "Week10_1"])
    kept = wells.Metadata_plate.isin(["Week3_2", "Week10_1"]).to_numpy()
    pd.testing.assert_frame_equal(few, wells[kept].reset_index(drop=True))
    truth = list(cells.filter(like="truth_"))
    pd.testing.assert_frame_equal(some[truth], cells.loc[kept[cells.row], truth].reset_index(drop=True))
    with pytest.raises(CellbookError, match="Week11_1"):
        screen_tables(config, plates=["Week11_1"])
