"""True profiles of simulated treatments against planted shifts, and agreement of distances against scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from cellbook import metrics
from cellbook.study import truth


def test_true_profiles_are_shifts_in_deviations_between_controls():
    rng = np.random.default_rng(3)
    compound = np.repeat(["DMSO", "a", "b"], 400)
    shift = pd.Series(compound).map({"DMSO": 0.0, "a": 2.0, "b": -1.0}).to_numpy()
    cells = pd.DataFrame(
        {
            "Metadata_compound": compound,
            "Metadata_concentration": np.where(compound == "DMSO", 0.0, 1.0),
            "Metadata_plate": "p",
            "Metadata_well": np.repeat(np.arange(12), 100).astype(str),
            "truth_area": 7 + 3 * (rng.normal(size=1200) + shift),
            "truth_bright": np.repeat(rng.normal(size=12), 100),  # a nuisance: one value a well
            "truth_dose_effect": shift,
            "truth_phase": rng.random(1200),
            "truth_state": np.where(rng.random(1200) < 0.5 + 0.2 * (compound == "a"), "mitotic", "interphase"),
        }
    )
    found = truth.true_profiles(cells)
    assert list(found.columns) == ["area", "state: interphase", "state: mitotic"]
    assert found.loc[("a", 1.0), "area"] == pytest.approx(2, abs=0.2)
    assert found.loc[("b", 1.0), "area"] == pytest.approx(-1, abs=0.2)
    assert found.loc[("a", 1.0), "state: mitotic"] == pytest.approx(0.4, abs=0.15)
    assert len(found) == 2


def test_agreement_of_distances_is_spearmans_of_every_row_over_other_compounds():
    rng, compound = np.random.default_rng(4), np.arange(20) // 2
    one, other = (metrics.distance_matrix(rng.normal(size=(20, 5))) for _ in range(2))
    eligible = compound[:, None] != compound
    agreed = truth.rank_agreement(one, other, eligible)
    expected = [spearmanr(one[i, eligible[i]], other[i, eligible[i]])[0] for i in range(20)]
    np.testing.assert_allclose(agreed, expected)
    np.testing.assert_allclose(truth.rank_agreement(one, 2 * one, eligible), 1.0)
    votes = truth.agreeing(one, other, eligible & (compound != 9)[:, None], compound)
    assert votes.counted.tolist() == [1.0] * 18 + [0.0] * 2  # one has nobody to be compared with
    assert votes.share == pytest.approx(np.mean(expected[:18]))
