"""The planted screen: its design, its difficulty, and that each planted effect is what it says."""

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.screens import bbbc021
from cellbook.screens.planted import planted_wells

TREATMENT = ["Metadata_compound", "Metadata_concentration"]


def features(profiles: pd.DataFrame) -> np.ndarray:
    return profiles[[c for c in profiles if not c.startswith("Metadata_")]].to_numpy(float)


def matching(profiles: pd.DataFrame, shuffle: int | None = None) -> tuple[float, float]:
    """NSC and NSCB by a plain loop: plate-standardised on DMSO, medians of treatments, cosine nearest neighbour."""
    scaled = np.empty_like(features(profiles))
    for _, rows in profiles.groupby("Metadata_plate").indices.items():
        values = features(profiles.iloc[rows])
        controls = values[(profiles.iloc[rows]["Metadata_compound"] == "DMSO").to_numpy()]
        scaled[rows] = (values - controls.mean(0)) / controls.std(0)
    treated = profiles[profiles["Metadata_compound"] != "DMSO"].reset_index(drop=True)
    scaled = scaled[(profiles["Metadata_compound"] != "DMSO").to_numpy()]
    groups = list(treated.groupby(TREATMENT, sort=False).indices.values())
    points = np.array([np.median(scaled[rows], axis=0) for rows in groups])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    named = treated.loc[[rows[0] for rows in groups]]
    compound, week, moa = (named[f"Metadata_{c}"].to_numpy() for c in ("compound", "batch", "moa"))
    if shuffle is not None:
        moa = np.random.default_rng(shuffle).permutation(moa)
    same, both = [], []
    for i, point in enumerate(points):
        similarity = points @ point
        for hits, allowed in ((same, compound != compound[i]), (both, (compound != compound[i]) & (week != week[i]))):
            if (moa[allowed] == moa[i]).any():
                hits.append(moa[np.where(allowed, similarity, -2).argmax()] == moa[i])
    return float(np.mean(same)), float(np.mean(both))


def test_planted_screen_has_the_real_design(planted):
    assert len(planted) == 55 * 6 + 103 * 3
    assert not planted.isna().any(axis=None)
    assert planted.groupby("Metadata_batch")["Metadata_plate"].nunique().to_dict() == bbbc021.PLATES_PER_WEEK
    assert [plate.split("_")[0] for plate in planted["Metadata_plate"]] == planted["Metadata_batch"].tolist()
    assert not planted.duplicated(["Metadata_plate", "Metadata_well"]).any()
    dmso = planted["Metadata_compound"] == "DMSO"
    assert set(planted[dmso].groupby("Metadata_plate").size()) == {6}
    treated = planted[~dmso]
    design = treated[[*TREATMENT, "Metadata_moa", "Metadata_batch"]].drop_duplicates()
    assert set(design.itertuples(index=False, name=None)) == set(
        bbbc021.treatments().itertuples(index=False, name=None)
    )
    assert (treated.groupby(TREATMENT)["Metadata_plate"].nunique() == 3).all()


def test_planted_features_are_uncentred_and_badly_scaled(planted):
    values = features(planted)
    spread = values.std(axis=0)
    assert spread.max() / spread.min() > 1e4
    assert np.median(np.abs(values.mean(axis=0)) / spread) > 2


def test_planted_screen_is_as_hard_as_a_real_one():
    scores = np.array([matching(planted_wells(seed)) for seed in range(4)])
    nsc, nscb = scores.mean(axis=0)
    assert 0.83 < nsc < 0.95
    assert 0.68 < nscb < 0.83
    assert nsc - nscb > 0.05
    assert (scores[:, 0] > scores[:, 1]).all()


def test_without_week_effect_the_drop_between_weeks_is_gone():
    nsc, nscb = matching(planted_wells(week_effect=0))
    assert nsc > 0.95
    assert abs(nsc - nscb) < 0.03


def test_more_week_effect_costs_more_matches_between_weeks():
    scores = [matching(planted_wells(week_effect=size))[1] for size in (0, 1, 2)]
    assert scores[0] > scores[1] > scores[2]


def test_planted_screen_without_labels_or_mechanisms_is_at_chance(planted):
    permuted = np.array([matching(planted, shuffle=k) for k in range(5)])
    # the largest class has 14 of 103 treatments; a random match among 12 classes is right for about 9 %
    assert permuted.mean() < 0.14
    assert max(matching(planted_wells(moa_effect=0))) < 0.2


def test_truth_is_untouched_by_nuisance():
    truth = planted_wells(week_effect=0, plate_effect=0, noise=0)
    noisy = planted_wells(week_effect=3, plate_effect=2)
    told = [c for c in truth if c.startswith("Metadata_")]
    pd.testing.assert_frame_equal(truth[told], noisy[told])
    replicates = truth.groupby(["Metadata_compound", "Metadata_concentration"])
    values = pd.DataFrame(features(truth) / features(truth).std(axis=0))
    spread = values.groupby([truth["Metadata_compound"], truth["Metadata_concentration"]]).std()
    assert spread.to_numpy().max() < 1e-9  # wells of a treatment are alike in every week and on every plate
    assert replicates["Metadata_truth_strength"].nunique().max() == 1


def test_each_effect_moves_only_what_it_should():
    quiet = dict(week_effect=0.0, plate_effect=0.0, noise=0.0)
    truth = features(planted_wells(**quiet))
    shifted = planted_wells(**quiet | {"plate_effect": 1.0})
    scale = truth.std(axis=0)
    moved = pd.DataFrame((features(shifted) - truth) / scale).groupby(shifted["Metadata_plate"]).std()
    assert moved.to_numpy().max() < 1e-9  # a plate effect shifts all wells of a plate alike
    assert np.abs(features(shifted) - truth).max(axis=0).min() > 0
    no_biology = planted_wells(**quiet, moa_effect=0, compound_effect=0)
    assert (np.ptp(features(no_biology), axis=0) < 1e-9 * scale).all()
    week = planted_wells(**quiet | {"week_effect": 1.0})
    controls = week["Metadata_compound"] == "DMSO"
    values = pd.DataFrame(features(week)[controls] / scale)
    by_week = values.groupby(week.loc[controls, "Metadata_batch"].to_numpy())
    assert by_week.std().to_numpy().max() < 1e-9  # DMSO of a week is alike, of different weeks not
    assert by_week.mean().std().min() > 0.1


def test_planted_doses_respond_monotonically(planted):
    treated = planted[planted["Metadata_compound"] != "DMSO"].sort_values("Metadata_concentration")
    by_compound = treated.groupby("Metadata_compound")
    assert (by_compound["Metadata_truth_strength"].diff().dropna() >= 0).all()
    assert treated["Metadata_truth_strength"].between(0.05, 1).all()
    controls = planted[planted["Metadata_compound"] == "DMSO"]
    assert (controls[["Metadata_truth_strength", "Metadata_truth_response"]] == 0).all(axis=None)


def test_planted_screen_is_the_same_for_the_same_seed_only(planted):
    pd.testing.assert_frame_equal(planted, planted_wells(seed=0))
    assert not np.allclose(features(planted), features(planted_wells(seed=1)))


def test_planted_sizes_are_kept_and_wrong_ones_refused():
    small = planted_wells(n_features=7, wells=2, controls=4, constant=2)
    assert features(small).shape == (55 * 4 + 103 * 2, 9)
    assert (np.ptp(features(small), axis=0) == 0).sum() == 2
    with pytest.raises(CellbookError, match="week_effect is -1; give 0"):
        planted_wells(week_effect=-1)
    with pytest.raises(CellbookError, match="n_features is 1; give a whole number of at least 2"):
        planted_wells(n_features=1)
    with pytest.raises(CellbookError, match=r"wells=20 and controls=6 put \d+ wells on one plate, which has 60"):
        planted_wells(wells=20)
