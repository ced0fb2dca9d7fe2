"""What is known of cells: a probe against features that hold a parameter, or do not; weeks that can be named."""

import numpy as np
import pandas as pd

from cellbook.study import known


def probe_input(n_plates=10, wells=8, per_well=12):
    """Features that hold one parameter of the cell linearly, one of the well, and one that they do not hold."""
    rng = np.random.default_rng(0)
    n = n_plates * wells * per_well
    plate, well = np.repeat(np.arange(n_plates), wells * per_well), np.repeat(np.arange(n_plates * wells), per_well)
    seen, hidden, gain = rng.normal(50, 3, n), rng.normal(size=n), rng.normal(size=n_plates * wells)[well]
    values = np.stack([1e4 * seen + 10 * rng.normal(size=n), 1e-3 * gain, rng.normal(size=n)], axis=1)
    encoded = pd.DataFrame(values, columns=["a", "b", "c"])
    encoded.insert(0, "Metadata_well", [f"B{w:03d}" for w in well])
    encoded.insert(0, "Metadata_plate", [f"Week1_{p}" for p in plate])
    truth = pd.DataFrame({"truth_seen": seen, "truth_hidden": hidden, "truth_gain": gain, "truth_phase": seen})
    truth["truth_constant"] = 1.0
    return encoded, truth.assign(truth_state=np.where(seen > 50, "mitotic", "interphase"))


def test_probe_reads_what_is_there_and_nothing_else():
    found = known.probe(*probe_input(), folds=5).set_index("parameter")
    assert found.loc["seen", "r2"] > 0.99
    assert found.loc["gain", "r2"] > 0.99
    assert found.loc["hidden", "r2"] < 0.05
    assert 0.4 < found.loc["state: mitotic", "r2"] < 0.8  # a step seen by a line: 2 / pi at most
    assert found["kind"].to_dict()["gain"] == "nuisance"
    assert found["kind"].to_dict()["seen"] == "cell"
    assert not {"constant", "phase"} & set(found.index)


def test_one_dead_crop_does_not_turn_the_probe():
    encoded, truth = probe_input()
    encoded.loc[encoded.index[3], "a"] = 1e12
    assert known.probe(encoded, truth, folds=5).set_index("parameter").loc["gain", "r2"] > 0.9


def positive_controls(plates, shift):
    """Rows of one compound on some plates of each week; a shift of a feature by week."""
    rng = np.random.default_rng(2)
    rows = [(f"Week{w}", f"Week{w}_{p}", k) for w, n in enumerate(plates) for p in range(n) for k in range(12)]
    table = pd.DataFrame(rows, columns=["Metadata_batch", "Metadata_plate", "Metadata_well"]).astype(str)
    table["Metadata_role"] = "positive control"
    week = table["Metadata_batch"].str[4:].astype(int).to_numpy()
    return table.assign(a=rng.normal(size=len(table)) + shift * week, b=rng.normal(size=len(table)))


def test_the_week_of_a_positive_control_is_named_where_weeks_differ_and_only_of_weeks_with_three_plates():
    apart = known.week_of_controls(positive_controls((3, 4, 2), 20.0), seed=0)
    assert apart["correct"].all()
    assert apart["plate"].str[:5].value_counts().to_dict() == {"Week1": 48, "Week0": 36}
    assert (apart["majority"] == 48 / 84).all()
    alike = known.week_of_controls(positive_controls((4, 4), 0.0), seed=0)
    assert abs(alike["correct"].mean() - 0.5) < 0.2
    assert known.week_of_controls(positive_controls((4, 2), 1.0), seed=0).empty
    treated = positive_controls((4, 4), 1.0).assign(Metadata_role="treatment")
    assert known.week_of_controls(treated, seed=0).empty
