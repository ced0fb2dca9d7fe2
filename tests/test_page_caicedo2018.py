"""The page of weak supervision: stored trainings found again, accuracies against slow loops, premises, verdicts."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from cellbook import claims, figures
from cellbook.book import notebooks, results
from cellbook.configure import choose_preset
from cellbook.errors import CellbookError
from cellbook.figures import caicedo2018 as plots
from cellbook.methods import weakly_supervised
from cellbook.pages import caicedo2018
from cellbook.pages.caicedo2018 import alleles, genes, layers, measures, shown
from cellbook.pages.caicedo2018.config import LAYERS, PAPERS_VIEWS, VERSION, judged, resize, trainings
from cellbook.pages.caicedo2018.models import LABELS, TRAINED, of_genes
from cellbook.runs import Run, known_by, obtain, run_key, save_table
from cellbook.study import course, judging, premises, rows
from cellbook.study.encoding import UNTRAINED, of_layer
from cellbook.study.tables import verdict_table
from cellbook.study.trainings import key_of

TWICE = replace(caicedo2018.PRESETS["smoke"], repeats=2, untrained=2, iterations=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(store):
    return caicedo2018.run(TWICE, store, device="cpu")


@pytest.fixture(scope="module")
def tables(run):
    return results.measure("caicedo2018", [run])


@pytest.fixture(scope="module")
def numbers(tables):
    return tables["numbers"]


def test_the_lease_has_the_trainings_that_are_published():
    folder = notebooks.root() / "book" / "results" / "caicedo2018"
    if not folder.exists():
        pytest.skip("the page is not published")
    published = next(
        run for path in (folder / "runs").iterdir() if (run := Run(path)).record["method"] == "caicedo2018"
    )
    cells = SimpleNamespace(fingerprint=published.record["fingerprint"])
    wanted = {(one.variant, one.repeat): key_of(one, cells) for one in trainings(caicedo2018.PRESETS["lease"])}
    made = published.table("trainings")
    assert {(line.variant, line.repeat): line.key for line in made.itertuples()} == wanted
    own = known_by(caicedo2018.PRESETS["lease"])
    assert run_key("caicedo2018", VERSION, own, cells.fingerprint) == published.key
    assert own == {name: tuple(v) if isinstance(v, list) else v for name, v in published.record["config"].items()}


def test_the_paper_preset_trains_the_papers_networks():
    config = caicedo2018.PRESETS["paper"]
    of = judged(config)
    assert {name: len(found) for name, found in of.items()} == dict.fromkeys(
        [*LABELS.values(), *map(of_genes, LABELS.values())], 3
    )
    for name, mine in of.items():
        for one in mine:
            changed = {"model": one.config.model, "seed": one.config.seed}
            changed |= {"classes": TRAINED, "validation": (2, 5)} if genes.is_genetic(name) else {}
            assert one.config == replace(weakly_supervised.PRESETS["paper"], **changed)
    assert len(TRAINED) == 10
    assert PAPERS_VIEWS == 192_000_000
    assert [one.variant for one in trainings(config) if one.course] == ["baseline CNN"]


def slow_votes(wells, names, across):
    """NSC or NSCB of mean profiles by plain loops; treatments without a right candidate are left out on both sides."""
    treated = wells[(wells["Metadata_compound"] != "DMSO") & (wells["Metadata_role"] != "positive control")]
    units = treated.groupby(["Metadata_compound", "Metadata_concentration"])
    x = units[names].median().to_numpy(np.float64)
    who = units[["Metadata_moa", "Metadata_batch"]].first().reset_index()

    def allowed(i, j):
        other = who["Metadata_compound"][i] != who["Metadata_compound"][j]
        return other and (not across or who["Metadata_batch"][i] != who["Metadata_batch"][j])

    n = len(who)
    moa = who["Metadata_moa"]
    asked = [i for i in range(n) if any(allowed(i, j) and moa[i] == moa[j] for j in range(n))]
    distance, right = cdist(x, x, "cosine"), {}
    for i in asked:
        near = min((j for j in asked if allowed(i, j)), key=lambda j: distance[i, j])
        right[i] = moa[near] == moa[i]
    return right


@pytest.mark.parametrize(("measure", "scored"), [("NSC", 103), ("NSCB", 92)])
def test_accuracies_are_those_of_a_slow_loop(run, store, numbers, measure, scored):
    for variant in ("baseline CNN", "mixup"):
        each = []
        for line in rows.pick(run.table("trainings"), variant=variant).itertuples():
            wells = Run(store / line.key).table("wells")
            votes = slow_votes(wells, [name for name in wells if name.endswith("_mean")], measure == "NSCB")
            assert len(votes) == scored
            each.append(np.mean(list(votes.values())))
        found = rows.one(numbers, setting=f"{variant}, mean", protocol="caicedo2018", measure=measure)
        assert found["value"] == pytest.approx(np.mean(each))
        assert (found["scored"], found["trainings"]) == (scored, 2)


def test_the_papers_layer_is_one_of_all_layers(numbers):
    for variant in ("baseline CNN", "mixup", UNTRAINED):
        for measure in ("NSC", "NSCB", "drop"):
            names = (variant, of_layer(variant, "4a"))
            lines = [rows.one(numbers, setting=f"{n}, mean, whitened", measure=measure) for n in names]
            assert lines[0]["value"] == lines[1]["value"]
    assert rows.pick(numbers, network=UNTRAINED)["layer"].unique().tolist() == list(LAYERS)
    assert (rows.pick(numbers, protocol="caicedo2018", network=UNTRAINED)["trainings"] == 2).all()


def test_the_layers_of_a_training_are_told_apart_by_their_columns(store, run):
    key = run.table("trainings")["key"].iloc[0]
    names = layers.features_of(Run(store / key).table("layers"))
    width = TWICE.width
    assert {layer: len(found) for layer, found in names.items()} == dict(
        zip(LAYERS, width * np.array([1, 1, 2, 2, 4, 4, 8, 8, 4]), strict=True)
    )


def test_a_drop_is_the_difference_of_two_shares_and_its_interval_that_of_a_resampled_difference(numbers):
    of = {m: rows.one(numbers, setting="mixup, mean", protocol="caicedo2018", measure=m)["value"]
          for m in ("NSC", "NSCB", "drop")}  # fmt: skip
    assert of["drop"] == pytest.approx(of["NSCB"] - of["NSC"])
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(60), 4)
    right = (rng.random((2, 240)) < (0.4 + 0.4 * rng.random(60))[group]).astype(float)
    counted = np.array([rng.random(240) < 0.8, np.ones(240)])
    across, within = (rows.Votes(r * c, c, group) for r, c in zip(right, counted, strict=True))
    drawn = []
    for _ in range(4000):
        chosen = (4 * rng.integers(60, size=60)[:, None] + np.arange(4)).ravel()
        drawn.append(np.subtract(*(v.correct[chosen].sum() / v.counted[chosen].sum() for v in (across, within))))
    found = rows.interval(measures.apart(across, within), rows.Draws(4000, 0))
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


def test_the_auxiliary_accuracy_is_that_of_all_validation_cells(run, store, numbers):
    keys = rows.pick(run.table("trainings"), variant="mixup")["key"]
    tested = [Run(store / key).table("validation") for key in keys]
    line = rows.one(numbers, protocol="auxiliary", measure="validation cells", variant="mixup")
    assert line["value"] == pytest.approx(np.mean([t["right"].sum() / t["validation"].sum() for t in tested]))
    assert line["null"] == 1 / len(tested[0])
    kept = run.table("validation")
    taxol = kept.loc[kept["treatment"] == "taxol 0.3", "compound"]
    assert set(taxol) == {"taxol"}
    assert kept["compound"].notna().all()


def test_premises_are_of_every_training_and_of_the_time_before_the_rate_falls(store):
    config = replace(TWICE, iterations=30)
    history = pd.DataFrame({"step": range(1, 31), "term": "cross_entropy", "value": 4.0, "repeat": 0})
    falling = history.assign(value=[4 - 0.1 * min(step, 12) for step in history["step"]])  # flat from the first fall on
    table = pd.concat([falling.assign(variant=name, repeat=r) for name in ("baseline CNN", "mixup") for r in (0, 1)])

    class Stored:
        def table(self, name):
            assert name == "history"
            return table

    found = pd.DataFrame(measures.premise(Stored(), config, {}, rows.Draws(10, 0)))
    changes = rows.pick(found, measure=judging.CHANGE)
    assert changes["setting"].tolist() == [f"{n}, training {k}" for n in ("baseline CNN", "mixup") for k in (1, 2)]
    assert (changes["value"].abs() > judging.FLAT).all()
    assert premises.change(falling, {"cross_entropy": 1.0}) == 0  # of the whole training
    assert set(rows.pick(found, measure=judging.VIEWS)["value"]) == {30 * config.batch}


def test_gains_are_over_the_untrained_network_of_the_same_seed(tables, numbers):
    single = rows.pick(tables["accuracies"], summary="mean, whitened", measure="NSC", repeat=1)
    share = single.set_index("variant")["accuracy"]
    line = rows.one(numbers, setting="mixup, training 2", measure=judging.gain("NSC"))
    assert line["value"] == pytest.approx(share["mixup"] - share[UNTRAINED])


def test_the_course_of_the_baseline_ends_near_its_profiles_and_no_other_is_followed(numbers):
    lines = rows.pick(numbers, protocol=course.COURSE)
    assert set(lines["variant"]) == {"baseline CNN"}
    assert set(lines["views"]) == {step * TWICE.batch for step in (0, 1, 2, 3)}
    panels = shown.course_rows(numbers)
    assert {"NSC, mean", "NSCB, mean, whitened", "cross-entropy (nats)"} <= set(panels["panel"])
    assert set(shown.course_references(numbers)["variant"]) == {UNTRAINED, "classical features"}


def test_tables_and_figures_show_every_profile_and_what_was_not_trained(run, tables, numbers):
    table = shown.table_2(numbers, tables["verdicts"], run)
    assert table["profile"].tolist()[-1] == "recurrent"
    assert table["summary"].tolist()[-1] == "not trained"
    mine = table[(table["profile"] == "baseline CNN") & (table["from"] == "paper")].iloc[0]
    assert mine[["NSC", "NSCB", "drop", "dimension"]].tolist() == ["97.0", "86.0", "-11.0", "8"]
    assert len(shown.layer_table(numbers)) == 3 * len(LAYERS)
    figures.style()
    variants = {"variant": shown.VARIANTS, "measure": shown.MEASURES}
    single = rows.pick(tables["accuracies"], variant=shown.VARIANTS)
    plots.accuracies(single, rows.pick(numbers, protocol="caicedo2018", **variants), tables["verdicts"])
    drawn = plots.layers(shown.layer_rows(numbers))
    assert [len(axes.lines) for axes in drawn.axes] == [6, 6]
    goals = shown.regularised_rows(numbers)
    assert goals["strength"].tolist() == ["none", "none", "0.2", "0.2"]
    assert set(goals["model"]) == {"mixup"}
    assert len(plots.regularised(goals).axes) == 1
    text = shown.not_swept(numbers, shown.DRUGS)
    assert text.startswith("For figure 5, drugs, these are missing: recurrent, T 3; recurrent; recurrent, T 8;")
    assert "mixup, alpha 0.05" in text
    assert len(shown.table_1(numbers, tables["verdicts"])) == len(shown.further_table(numbers, TWICE)) == 0
    lost = [shown.missing(shown.cell_maps([run], 0), genes.VARIANTS, "it"), shown.not_swept(numbers, shown.GENES)]
    assert lost[0] == "For it the genetic screen is missing, which parameter `genes` adds to simulated cells."
    assert lost[1] == lost[0].replace("it the", "figure 5, genes, the")
    assert shown.missing(pd.DataFrame({"variant": genes.OTHERS}), genes.VARIANTS, "it").count("genes") == 3
    said = shown.warning(TWICE, run, "caicedo2018")
    assert "of BBBC021, on CPU: 4 trainings, of a narrower network than the paper's, each on 24 cell views" in said
    assert "The recurrent model was not trained." in said


def test_numbers_have_one_meaning_each_and_lie_in_their_intervals(tables, numbers):
    assert not numbers.duplicated(claims.KEYS).any()
    bounded = numbers.dropna(subset=["low", "high"])
    assert (bounded["low"] <= bounded["value"] + 1e-9).all()
    assert (bounded["value"] <= bounded["high"] + 1e-9).all()


def test_tables_are_those_of_a_second_evaluation(run, tables):
    for name, table in caicedo2018.evaluate([run]).items():
        pd.testing.assert_frame_equal(table, tables[name])


def test_what_is_printed_is_written_down_and_nothing_of_it_is_comparable_here(tables):
    published = claims.load(notebooks.root() / "book" / "claims" / "caicedo2018.yml")
    ours = [entry for entry in published["numbers"] if entry["source"] == "Caicedo et al. 2018"]
    assert sum(entry["value"] for entry in ours if entry["measure"] == "NSC") == pytest.approx(0.97 + 0.93 + 0.95)
    assert sum(entry["value"] for entry in ours if entry["measure"] == "NSCB") == pytest.approx(0.86 + 0.82 + 0.89)
    assert {claim["id"] for claim in published["claims"]} == set(caicedo2018.PREDICATES)
    assert set(tables["verdicts"]["verdict"]) == {claims.INCOMPARABLE}
    assert len(shown.printed_table(published["numbers"])) == 10
    assert set(tables["claims"]["verdict"]) == {claims.INCOMPARABLE}  # two trainings


# --- verdicts -------------------------------------------------------------------------------------------------------


def numbers_of(*lines):
    """Measured differences as (setting, measure, value, low, high, agree), of three trainings with all cell views."""
    table = pd.DataFrame(lines, columns=["setting", "measure", "value", "low", "high", "agree"])
    table = table.assign(protocol="paired", trainings=3, sd=0.01)
    table.loc[table["measure"] == genes.GENE, "protocol"] = genes.PAIRED
    names = [*LABELS.values(), *genes.NETWORKS]
    whole = [line for n in names for line in premises.budget(n, PAPERS_VIEWS, PAPERS_VIEWS, variant=n)]
    return pd.concat([table, pd.DataFrame(whole)], ignore_index=True)


UP, UNSURE, DOWN = (0.1, 0.05, 0.2, 1), (0.1, -0.1, 0.2, 1), (-0.1, -0.2, -0.05, 1)
CLASSICAL = "baseline CNN - classical features, mean, whitened"
MIXED = "mixup - baseline CNN, mean, whitened"


def middle(first, last):
    ends = zip(("2a", "5b"), (first, last), strict=True)
    return [(f"baseline CNN, best of the middle - {end}, mean, whitened", "NSC", *line) for end, line in ends]


def white(*gains):
    return [(f"baseline CNN, layer {a}: whitened - mean", "NSC", *g) for a, g in zip(LAYERS, gains, strict=True)]


SETS = "recurrent - baseline CNN, mean, whitened"
TOLD = ("mixup - baseline CNN", "validation cells")


def gained(*found):
    plain, sets, mixed = genes.NETWORKS
    pairs = zip(((sets, plain), (mixed, plain), (mixed, sets)), found, strict=True)
    return [(f"{a} - {b}, mean, whitened", genes.GENE, *line) for (a, b), line in pairs]


CASES = [
    ("sets-cost-both", [(SETS, "NSC", *DOWN), (SETS, "NSCB", *DOWN)], "reproduced"),
    ("sets-cost-both", [(SETS, "NSC", *DOWN), (SETS, "NSCB", *UNSURE)], "partly"),
    ("sets-cost-both", [(SETS, "NSC", *UP), (SETS, "NSCB", *UNSURE)], "not reproduced"),
    ("tells-less-matches-more", [(*TOLD, *DOWN), (MIXED, "NSCB", *UP)], "reproduced"),
    ("tells-less-matches-more", [(*TOLD, *DOWN), (MIXED, "NSCB", *DOWN)], "partly"),
    ("tells-less-matches-more", [(*TOLD, *UP), (MIXED, "NSCB", *UNSURE)], "not reproduced"),
    ("genes-gain", gained(UP, UP, UP), "reproduced"),
    ("genes-gain", gained(UP, UNSURE, DOWN), "partly"),
    ("genes-gain", gained(DOWN, UNSURE, DOWN), "not reproduced"),
    ("better-than-classical", [(CLASSICAL, "NSC", *UP), (CLASSICAL, "NSCB", *UP)], "reproduced"),
    ("better-than-classical", [(CLASSICAL, "NSC", *UP), (CLASSICAL, "NSCB", *UNSURE)], "partly"),
    ("better-than-classical", [(CLASSICAL, "NSC", *DOWN), (CLASSICAL, "NSCB", *UNSURE)], "not reproduced"),
    ("middle-is-best", middle(UP, UP), "reproduced"),
    ("middle-is-best", middle(UP, DOWN), "partly"),
    ("middle-is-best", middle(UNSURE, DOWN), "not reproduced"),
    ("whitening-helps-everywhere", white(*[UNSURE] * 9), "reproduced"),
    ("whitening-helps-everywhere", white(*[UP] * 5, *[DOWN] * 4), "partly"),
    ("whitening-helps-everywhere", white(*[UP] * 4, *[DOWN] * 5), "not reproduced"),
    ("mixup-across-weeks", [(MIXED, "NSCB", *UP), (MIXED, "NSC", *DOWN)], "reproduced"),
    ("mixup-across-weeks", [(MIXED, "NSCB", *UP), (MIXED, "NSC", *UP)], "partly"),
    ("mixup-across-weeks", [(MIXED, "NSCB", *UNSURE), (MIXED, "NSC", *DOWN)], "partly"),
    ("mixup-across-weeks", [(MIXED, "NSCB", *DOWN), (MIXED, "NSC", *DOWN)], "not reproduced"),
]


@pytest.mark.parametrize(("claim", "lines", "verdict"), CASES)
def test_verdicts_follow_their_rule_and_need_three_trainings_and_a_premise(claim, lines, verdict):
    numbers, decide = numbers_of(*lines), caicedo2018.PREDICATES[claim]
    assert decide(numbers).verdict == verdict
    assert decide(numbers.assign(trainings=2)).verdict == claims.INCOMPARABLE
    assert decide(numbers.iloc[:0]).verdict == claims.INCOMPARABLE
    short = numbers.assign(value=numbers["value"].mask(numbers["measure"] == judging.VIEWS, 204_800))
    undecided = decide(short)
    assert undecided.verdict == claims.UNDECIDED
    assert "204,800 of 192,000,000 cell views, objective not kept" in undecided.evidence


# --- genes ----------------------------------------------------------------------------------------------------------


def test_alleles_are_matched_as_by_a_slow_loop_and_chance_is_that_of_many_permutations():
    rng = np.random.default_rng(0)
    genes = rng.choice(["a", "b", "c", "d"], 24)
    maps = np.array([[True, False], [False, True], [True, True]])[rng.choice(3, 24, p=[0.45, 0.45, 0.1])]
    correlation = np.corrcoef(rng.normal(size=(24, 5)))
    found = alleles.match(correlation, genes, maps)
    group = [tuple(line) for line in maps]
    near = [max((j for j in range(24) if j != i), key=lambda j: correlation[i, j]) for i in range(24)]
    for i in range(24):
        away = [j for j in range(24) if group[j] != group[i]]
        assert found["all"][i] == (genes[near[i]] == genes[i])
        assert found["elsewhere"][i] == (genes[max(away, key=lambda j: correlation[i, j])] == genes[i])
        assert found["asked"][i] == any(genes[j] == genes[i] for j in away)
        apart = [j for j in range(24) if not (maps[i] & maps[j]).any()]
        assert found["separate"][i] == any(genes[j] == genes[i] for j in apart)
        assert found["one_map"][i] == (near[i] not in apart)
        assert found["one_map_chance"][i] == pytest.approx((23 - len(apart)) / 23)
    parts = [[k for k in range(24) if group[k] == one] for one in set(group)]
    within, free = np.zeros(24), 0.0
    for _ in range(4000):
        mixed = genes.copy()
        for part in parts:
            mixed[part] = rng.permutation(genes[part])
        within += mixed[near] == mixed
        mixed = rng.permutation(genes)
        free += np.mean(mixed[near] == mixed)
    np.testing.assert_allclose(found["chance_within_maps"], within / 4000, atol=0.04)
    assert found["chance"][0] == pytest.approx(free / 4000, abs=0.01)


def test_nothing_of_the_genes_is_shown_where_the_data_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(alleles.locate, "is_local", lambda name: False)
    assert alleles.outcomes(tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_alleles_beside_the_page_do_not_change_what_its_numbers_were_measured_on(run, tables, tmp_path):
    gene = np.repeat(["a", "b", "c"], 4)
    correlation = np.corrcoef(np.random.default_rng(1).normal(size=(12, 5)))
    found = alleles.match(correlation, gene, np.ones((12, 2), bool))
    table = found.assign(allele=gene, gene=gene, benchmark=True)
    beside = obtain(
        tmp_path, "alleles", 1, {"screen": "luad"}, "0", lambda folder: save_table(table, folder / "alleles.parquet")
    )
    verdicts = results.measure("caicedo2018", [run, beside])["verdicts"]
    pd.testing.assert_frame_equal(verdicts, tables["verdicts"])
    assert verdicts["why"].str.startswith("measured on simulated, not on the papers' data").all()
    assert verdict_table(verdicts)["why"].str.startswith("measured on simulated cells, not on the papers' data").all()


@pytest.mark.data
def test_the_published_alleles_keep_outcomes_and_no_correlation(tmp_path):
    (run,) = alleles.outcomes(tmp_path)
    table = run.table("alleles")
    assert (len(table), table["gene"].nunique(), table["benchmark"].sum()) == (375, 50, 20)
    assert {str(kind) for kind in table.dtypes.iloc[2:]} == {"bool", "float64"}
    assert table.select_dtypes("float64").columns.tolist() == ["one_map_chance", "chance", "chance_within_maps"]
    assert table["all"].mean() == pytest.approx(0.68)
    lines = alleles.table_1(rows.numbers(alleles.lines(run, rows.Draws(50, 0))))
    assert lines["per cent"].iloc[0].startswith("68.0")


def test_bad_sizes_are_refused_in_words(tmp_path):
    with pytest.raises(CellbookError, match="iterations=0 must be at least 1"):
        resize(TWICE, 0)
    with pytest.raises(CellbookError, match="neither simulated nor"):
        caicedo2018.run(replace(TWICE, screen="nowhere"), tmp_path)
    with pytest.raises(CellbookError, match="smoke, quick, long, wide, lease, lease2, lease3, paper"):
        choose_preset(caicedo2018.PRESETS, "fast")
