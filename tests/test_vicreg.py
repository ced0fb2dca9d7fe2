"""VICReg on pairs of treatments: its loss against slow loops and closed forms, its pairs against lists of partners."""

import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cellbook.cells import CellSet
from cellbook.configure import configure
from cellbook.errors import CellbookError
from cellbook.methods import vicreg
from cellbook.methods.vicreg.objective import EPSILON, terms, weighted
from cellbook.methods.vicreg.pairs import Pairs
from cellbook.training import loop, train

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SMOKE = vicreg.PRESETS["smoke"]


# --- the loss -------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_slow_loops():
    rng = np.random.default_rng(0)
    z, other = rng.normal(size=(2, 7, 4)) * [0.3, 0.8, 1.5, 1.0]
    invariance = np.mean([(z[i, j] - other[i, j]) ** 2 for i in range(7) for j in range(4)])
    variance, covariance, deviation = 0.0, 0.0, 0.0
    for batch in (z, other):
        mean = batch.sum(axis=0) / 7
        for j in range(4):
            s = np.sqrt(sum((batch[i, j] - mean[j]) ** 2 for i in range(7)) / 6 + EPSILON)
            variance += max(0.0, 1 - s) / 4 / 2
            deviation += s / 4 / 2
            for k in range(4):
                c = sum((batch[i, j] - mean[j]) * (batch[i, k] - mean[k]) for i in range(7)) / 6
                covariance += c**2 / 4 if j != k else 0.0
    found = terms(*torch.tensor(np.stack([z, other])))
    expected = {"invariance": invariance, "variance": variance, "covariance": covariance, "deviation": deviation}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)
    assert weighted(vicreg.Config(), found).item() == pytest.approx(25 * invariance + 25 * variance + covariance)


def signs():
    """Eight embeddings of three numbers of unit variance, no two of them correlated."""
    columns = torch.cartesian_prod(*3 * [torch.tensor([-1.0, 1.0])])
    return columns * np.sqrt(7 / 8)


def test_views_that_are_alike_spread_and_uncorrelated_cost_nothing():
    found = terms(signs(), signs())
    assert {name: found[name].item() for name in ("invariance", "variance", "covariance")} == pytest.approx(
        {"invariance": 0, "variance": 0, "covariance": 0}, abs=1e-6
    )
    assert found["deviation"].item() == pytest.approx(1, abs=1e-4)


def test_a_collapse_costs_all_of_the_variance_and_shows_in_the_deviation():
    found = terms(*torch.full((2, 8, 3), 5.0))
    assert found["variance"].item() == pytest.approx(0.99)
    assert found["deviation"].item() == pytest.approx(0.01)
    assert found["invariance"].item() == found["covariance"].item() == 0


def test_equal_numbers_cost_as_many_covariances_as_there_are_pairs_of_them():
    z = signs()[:, :1].expand(-1, 5)
    assert terms(z, z)["covariance"].item() == pytest.approx(2 * (5 - 1))


def test_pairs_that_share_nothing_are_spread_to_a_quarter_of_what_is_asked():
    z, other = torch.randn(2, 20_000, 1, generator=torch.Generator().manual_seed(0))
    scales = torch.linspace(0.05, 1, 96)
    losses = [weighted(vicreg.Config(covariance=0.0), terms(s * z, s * other)) for s in scales]
    assert scales[int(torch.stack(losses).argmin())].item() == pytest.approx(0.25, abs=0.011)


# --- pairs ----------------------------------------------------------------------------------------------------------


def screen(wells, each=3):
    """Table of cells from (compound, week, plate, well), so many cells each, in random order."""
    names = ["Metadata_compound", "Metadata_batch", "Metadata_plate", "Metadata_well"]
    table = pd.DataFrame([well for well in wells for _ in range(each)], columns=names)
    return table.assign(Metadata_concentration=1.0).sample(frac=1, random_state=0, ignore_index=True)


MIXED = [
    *(("DMSO", f"w{i}", f"w{i}p{j}", "A1") for i in (1, 2) for j in (1, 2)),  # in two weeks
    *(("drug", "w1", f"w1p{j}", well) for j in (1, 2) for well in ("B1", "B2")),  # on two plates of a week
    *(("wells", "w2", "w2p1", well) for well in ("C1", "C2", "C3")),  # in three wells of a plate
    ("once", "w1", "w1p1", "D1"),  # in one well, which gives no pair
]


def partners(table, row):
    """Rows that may be the partner of a cell, by a slow loop."""
    mine = table.loc[row]
    same = table[table["Metadata_compound"] == mine["Metadata_compound"]]
    for names in (["batch"], ["batch", "plate"], ["batch", "plate", "well"]):
        columns = [f"Metadata_{name}" for name in names]
        if len(same[columns].drop_duplicates()) > 1:
            return set(same.index[(same[columns] != mine[columns]).any(axis=1)])
    return set()


def test_partners_are_those_of_a_slow_loop_and_all_equally_likely():
    table = screen(MIXED)
    sampler = Pairs(table, 8, CPU, 0)
    paired = [row for row in table.index if partners(table, row)]
    assert set(sampler.rows.tolist()) == set(paired) == set(table.index[table["Metadata_compound"] != "once"])
    for row in paired:
        counts = Counter(sampler.away(torch.full((3000,), row)).tolist())
        allowed = partners(table, row)
        assert counts.keys() == allowed
        assert max(counts.values()) < 3000 / len(allowed) + 5 * np.sqrt(3000 / len(allowed))


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_of_one_treatment_and_never_of_one_well(seed):
    rng = np.random.default_rng(seed)
    wells = {(f"w{p // 2}", f"w{p // 2}p{p}", f"A{rng.integers(9)}") for p in rng.integers(6, size=25)}
    table = screen([(f"c{rng.integers(4)}", *well) for well in sorted(wells)], each=2)
    state = vicreg.begin(replace(SMOKE, batch=16), cells_of(table), CPU)
    rows = torch.cat([vicreg.draw(state, t) for t in range(40)], dim=1)
    one, other = (table.iloc[row.tolist()].reset_index(drop=True) for row in rows)
    assert (one["Metadata_compound"] == other["Metadata_compound"]).all()
    place = ["Metadata_plate", "Metadata_well"]
    assert (one[place] != other[place]).any(axis=1).all()


def test_treatments_are_equally_likely_however_many_cells_they_have():
    table = pd.concat([screen(MIXED), screen(MIXED[:4], each=40)], ignore_index=True)
    state = vicreg.begin(replace(SMOKE, batch=64), cells_of(table), CPU)
    drawn = torch.cat([vicreg.draw(state, t)[0] for t in range(100)])
    shares = table["Metadata_compound"].iloc[drawn.tolist()].value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx(dict.fromkeys(["DMSO", "drug", "wells"], 1 / 3), abs=0.03)


def test_a_screen_without_weeks_has_partners_on_other_plates():
    table = screen(MIXED).drop(columns="Metadata_batch")
    sampler = Pairs(table, 8, CPU, 0)
    row = int(table.index[table["Metadata_compound"] == "DMSO"][0])
    found = table.loc[sampler.away(torch.full((500,), row)).tolist(), "Metadata_plate"]
    assert set(found) == set(table.loc[table["Metadata_compound"] == "DMSO", "Metadata_plate"]) - {
        table.loc[row, "Metadata_plate"]
    }


# --- what cannot be trained on --------------------------------------------------------------------------------------


def test_treatments_in_one_well_are_named_and_take_no_part(caplog):
    with caplog.at_level(logging.WARNING):
        sampler = Pairs(screen(MIXED), 8, CPU, 0)
    assert "of 4 treatments, 1 are in one well only and take no part, as they give no pairs: once 1" in caplog.text
    assert len(sampler.counts) == 3


@pytest.mark.parametrize("doses", [{}, {"Metadata_concentration": np.nan}, {"Metadata_concentration": "low"}])
def test_treatments_without_a_number_for_a_dose_are_named_as_they_are(doses, caplog):
    table = screen(MIXED).drop(columns="Metadata_concentration").assign(**doses)
    Pairs(table, 8, CPU, 0)
    assert caplog.text.rstrip().endswith("no pairs: once low" if "low" in doses.values() else "no pairs: once")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[t["Metadata_compound"] == "once"], "of 1 treatments, 1 are in one well only, of 3 cells"),
        (lambda t: t[t["Metadata_compound"].isin(["wells", "once"])], "batch=10 is more than the 9 cells that have"),
        (lambda t: t.drop(columns="Metadata_well"), "no column Metadata_well, by which partners"),
        (
            lambda t: t.assign(Metadata_plate=t["Metadata_plate"].where(t.index > 1)),
            "Metadata_plate is missing in 2 of",
        ),
        (lambda t: t.drop(columns="Metadata_compound"), "no column 'Metadata_compound'"),
    ],
)
def test_cells_that_give_no_pairs_are_refused(change, message):
    with pytest.raises(CellbookError, match=message):
        vicreg.begin(replace(SMOKE, batch=10), cells_of(change(screen(MIXED)).reset_index(drop=True)), CPU)


def test_crops_that_the_network_cannot_halve_are_refused():
    with pytest.raises(CellbookError, match="24 x 24 pixels, the network takes squares of 32 or more"):
        vicreg.begin(SMOKE, cells_of(screen(MIXED), side=24), CPU)


@pytest.mark.parametrize("change", [{"batch": 1}, {"iterations": 0}, {"shift": 1.0}, {"rate": -1.0}])
def test_values_that_cannot_be_meant_are_refused(change):
    (name,) = change
    with pytest.raises(CellbookError, match=f"^{name}="):
        vicreg.Config(**change)


# --- training -------------------------------------------------------------------------------------------------------


def cells_of(table, side=32):
    """Cells of which the compound decides how wide they are, and chance where they lie and how bright they are."""
    rng = np.random.default_rng(1)
    n = len(table)
    known = table.get("Metadata_compound", pd.Series("", index=table.index))
    width = 3 + 3 * pd.factorize(known, sort=True)[0].reshape(-1, 1, 1, 1) + rng.uniform(0, 1, (n, 2, 1, 1))
    y, x = np.mgrid[:side, :side] - side / 2 + rng.normal(size=(2, n, 1, 1, 1))
    images = rng.uniform(0.3, 1, (n, 2, 1, 1)) * np.exp(-(y**2 + x**2) / width**2)
    return CellSet((60_000 * images).astype(np.uint16), table, ("DNA", "Actin"), 0.5)


@pytest.fixture(scope="module")
def cells():
    return cells_of(screen(MIXED[:-1], each=6))


def trained(cells, folder, **changes):
    config = replace(SMOKE, iterations=60, batch=32, width=4, rate=3e-3, **changes)
    state = train(vicreg, config, cells, folder, "cpu")
    return state, pd.read_parquet(folder / "history.parquet")


def test_a_training_tells_treatments_apart_and_is_the_same_bits_twice(cells, tmp_path):
    state, history = trained(cells, tmp_path / "one")
    again, _ = trained(cells, tmp_path / "two")
    codes = vicreg.encode(state, cells)
    assert codes.shape == (len(cells), 8 * 4)
    np.testing.assert_array_equal(codes, vicreg.encode(again, cells))
    early, late = history.iloc[:10].mean(), history.iloc[-10:].mean()
    assert late["loss"] < 0.8 * early["loss"]
    assert late["deviation"] > 0.4  # of pairs that share nothing 0.25
    wells = cells.feature_table(codes, [f"z{i}" for i in range(32)]).groupby(["Metadata_compound", "Metadata_plate"])
    means = wells[[f"z{i}" for i in range(32)]].mean()
    away = np.linalg.norm(means.to_numpy()[:, None] - means.to_numpy(), axis=2) + np.diag(np.full(len(means), np.inf))
    compound = means.index.get_level_values(0).to_numpy()
    several = pd.Series(compound).duplicated(keep=False).to_numpy()
    assert (compound[away.argmin(axis=1)] == compound)[several].all()


def test_a_training_without_the_variance_term_is_seen_to_collapse(cells, tmp_path):
    _, history = trained(cells, tmp_path / "kept")
    _, collapsed = trained(cells, tmp_path / "collapsed", variance=0.0)
    assert collapsed["deviation"].iloc[-1] < 0.1 < 0.4 < history["deviation"].iloc[-1]


def test_a_step_told_its_number_by_the_device_is_that_told_by_a_number(cells):
    ends = []
    for number in (int, torch.tensor):
        torch.manual_seed(0)
        state = vicreg.begin(SMOKE, cells, CPU)
        for t in range(3):
            rows = vicreg.draw(state, number(t))
            found = vicreg.step(state, loop.Batch(loop.gather(cells.to("cpu"), rows), rows), number(t))
            assert all(value.ndim == 0 for value in found.values())
        ends.append(state.networks["trunk"].state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-6)


def test_without_a_preset_the_long_one_is_trained():
    assert configure(vicreg, {"seed": "3"}) == replace(vicreg.PRESETS["long"], seed=3)


def test_presets_fall_from_their_first_rate_to_zero(cells):
    state = vicreg.begin(SMOKE, cells, CPU)
    found = []
    for _ in loop.steps(vicreg, state, cells.to("cpu")):
        found.append(state.optimisers["network"].param_groups[0]["lr"])
    np.testing.assert_allclose(found, SMOKE.rate * np.array([1, 0.75, 0.5, 0.25]))
