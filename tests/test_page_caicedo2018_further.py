"""Weak supervision beyond its table of drugs: genes, sweeps, parts, screens of one's own, real crops."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from executing import execute
from scipy.spatial.distance import cdist

from cellbook import claims
from cellbook.book import build, fragments, freshness, notebooks, results
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features import transferred
from cellbook.figures import caicedo2018 as plots
from cellbook.methods import weakly_supervised
from cellbook.pages import caicedo2018
from cellbook.pages.caicedo2018 import closer, genes, making, measures, shown
from cellbook.pages.caicedo2018.config import Config, judged, trainings, with_genes
from cellbook.pages.caicedo2018.models import (
    AS_DESCRIBED,
    ATTENDED,
    BASELINE,
    GENETIC,
    LABELS,
    MODELS,
    POOLED,
    PRETRAINED,
    SHUFFLED,
    SWEPT,
    TRAINED,
    of_genes,
)
from cellbook.runs import Run
from cellbook.screens import named
from cellbook.screens.simulator.design import GENES, variants
from cellbook.study import measured, rows
from cellbook.study.encoding import UNTRAINED
from cellbook.study.trainings import Place, key_of

SETS3 = "recurrent, T 3"
ALL = replace(
    caicedo2018.PRESETS["smoke"],
    models=tuple(LABELS),
    iterations=2,
    once=(SETS3, *AS_DESCRIBED.values(), POOLED, ATTENDED, SHUFFLED),
    weeks_left_out=("Week1", "Week3"),
    genetic=tuple(LABELS),
    genetic_once=(SETS3,),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(store):
    return caicedo2018.run(ALL, store, device="cpu")


@pytest.fixture(scope="module")
def tables(run):
    return results.measure("caicedo2018", [run])


@pytest.fixture(scope="module")
def numbers(tables):
    return tables["numbers"]


# --- what is trained ------------------------------------------------------------------------------------------------


def test_models_are_the_papers_and_what_they_change_of_the_baseline():
    base = weakly_supervised.Config()
    of = {name: replace(base, **changes) for name, changes in MODELS.items()}
    assert of[BASELINE] == base
    assert [of[name].set_size for name in SWEPT if of[name].model == "recurrent"] == [3, 5, 8]
    alphas = [of[name].alpha for name in SWEPT if of[name].model == "mixup"]
    assert len(alphas) >= 5
    assert alphas == sorted(alphas)
    assert (of["recurrent"].set_size, of["mixup"].alpha) == (5, 0.2)
    assert {of[name].partners for name in AS_DESCRIBED.values()} == {"apart"}
    assert len(set(of.values())) == len(of)


def test_every_preset_can_be_trained_and_the_largest_train_every_model():
    for name, config in caicedo2018.PRESETS.items():
        names = [(one.variant, one.repeat) for one in trainings(config)]
        assert len(set(names)) == len(names), name
    for name in ("wide", "lease3", "paper"):
        there = {one.variant for one in trainings(caicedo2018.PRESETS[name])}
        assert there >= {*MODELS, *map(of_genes, SWEPT)}
    whole = caicedo2018.PRESETS["lease3"]
    own = {one.variant for one in trainings(replace(whole, screen="my/cells"))}  # whose weeks and genes are its own
    assert own == {one.variant for one in trainings(whole) if "without" not in one.variant and one.cells is None}
    two = caicedo2018.PRESETS["lease2"]
    assert {one.config for one in trainings(caicedo2018.PRESETS["lease"])} < {one.config for one in trainings(two)}
    assert [one.repeat for one in making.plain_encoders(two) if one.encoder == UNTRAINED] == [0, 1, 2]


def test_the_page_of_genes_adds_the_models_that_are_judged_on_the_genetic_screen_and_nothing_else():
    for name, config in caicedo2018.PRESETS.items():
        there = name in ("wide", "lease3", "paper")
        assert with_genes(config) == (config if there else replace(config, genetic=config.models)), name
    quick = caicedo2018.PRESETS["quick"]
    added = [one.variant for one in trainings(with_genes(quick)) if one not in trainings(quick)]
    assert added == ["baseline CNN, genes", "mixup, genes"]
    with pytest.raises(CellbookError, match="genes=True needs screen=simulated, not bbbc021-sample: drop it"):
        with_genes(replace(quick, screen=named.SAMPLE))


def test_the_pages_of_the_paper_differ_by_their_cells_and_genes_and_name_every_preset():
    pages = {
        page: notebooks.parameters(page) for page, of in notebooks.pages().items() if of["notebook"] == "caicedo2018"
    }
    assert {page: (of["screen"].default, of["genes"].default) for page, of in pages.items()} == {
        "caicedo2018": (named.SIMULATED, False),
        "caicedo2018-sample": (named.SAMPLE, False),
        "caicedo2018-genes": (named.SIMULATED, True),
    }
    assert all(page == of["page"].default for page, of in pages.items())
    assert len({fragments.titles()[page] for page in pages}) == len(pages)
    listed = pages["caicedo2018"]["preset"].help.partition(": ")[2]
    assert listed.replace(" or ", ", ").split(", ") == list(caicedo2018.PRESETS)
    assert freshness.version_now("baseline-genes", "caicedo2018-genes") == genes.VERSION
    assert freshness.version_now(closer.METHOD, "caicedo2018-genes") == closer.VERSION


def test_models_that_are_not_known_or_trained_anyway_are_refused():
    for wrong, message in (
        ({"models": ("mixed",)}, "models=mixed is no model: there are baseline; recurrent; mixup"),
        ({"once": ("mixup, alpha 3",)}, "once=mixup, alpha 3 is no model: there are baseline CNN; "),
        ({"once": ("mixup",)}, "once=mixup is trained anyway: drop it"),
        ({"validation": -1}, "validation=-1 must be a replicate, or 0 for none"),
    ):
        with pytest.raises(CellbookError, match=message):
            Config(**wrong)


def test_a_pretrained_network_without_its_package_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "installed", lambda: False)
    with pytest.raises(
        CellbookError, match="'pretrained on photographs' is to be trained, which begins with efficient"
    ):
        caicedo2018.run(replace(ALL, once=(PRETRAINED,)), tmp_path)
    assert not list(tmp_path.glob("weakly_supervised*"))


# --- parts ----------------------------------------------------------------------------------------------------------


def test_what_claims_are_about_is_made_first_and_a_part_made_elsewhere_is_not_made_again(run, store):
    names = list(making.parts(ALL))
    first = [f"{name}, 0" for name in judged(ALL)]
    assert names[: len(first)] == first
    assert {"ImageNet features", "ImageNet features, genes", "untrained encoder, genes, 0"} < set(names)
    assert names[-1] == f"{of_genes(SETS3)}, 0"
    wanted = ("mixup, 0", "mixup, genes, 0", "classical features, 0", "untrained encoder, genes, 0")
    caicedo2018.look_closer(run, ALL, store, "cpu")
    before = {path: path.stat().st_mtime_ns for path in store.glob("*/run.json")}
    made = [making.make_part(ALL, name, Place(store)) for name in wanted]
    methods = [[one.record["method"] for one in part] for part in made]
    assert methods == [["measured-weakly_supervised"] * 2, ["measured-weakly_supervised"], ["plain"] * 2, ["plain"]]
    assert {path: path.stat().st_mtime_ns for path in store.glob("*/run.json")} == before
    assert making.part_cells(ALL, "ImageNet features, genes", Place(store)).channels[-1] == "Mito"


def test_the_page_is_made_of_what_was_measured_without_the_networks(run, store, tmp_path):
    left = shutil.ignore_patterns("weakly_supervised-*", "caicedo2018-*")
    shutil.copytree(store, tmp_path / "store", ignore=left)
    again = caicedo2018.run(ALL, tmp_path / "store", device="cpu")
    assert not list((tmp_path / "store").glob("weakly_supervised-*"))
    for name in ("distances.npz", "genes.parquet", "cells.parquet", "validation.parquet"):
        assert again.path(name).read_bytes() == run.path(name).read_bytes()


# --- genes ----------------------------------------------------------------------------------------------------------


def test_the_genetic_screen_has_its_variants_on_every_plate_and_controls_as_everywhere(store):
    cells = making.load(ALL, store, screen=GENETIC)
    table = cells.table
    assert len(cells.channels) == 5
    assert cells.fingerprint == named.fingerprint(named.SIMULATED, ALL.simulated_genes)
    treated = table[table["Metadata_compound"] != "DMSO"]
    assert set(treated["Metadata_compound"]) == set(variants()["variant"])
    assert set(treated["Metadata_moa"]) == set(GENES)
    assert (treated.groupby("Metadata_plate")["Metadata_compound"].nunique() == 26).all()
    assert (table.loc[table["Metadata_compound"] == "DMSO", "Metadata_moa"] == "DMSO").all()
    one = next(one for one in trainings(ALL) if one.cells == GENETIC)
    parts = weakly_supervised.split(one.config, cells)
    assert parts.classes == tuple(f"{name} 0" for name in sorted(TRAINED))
    trained = table["Metadata_compound"][parts.training]
    assert set(trained) == set(TRAINED)
    assert trained.str.split("_").str[0].nunique() == 10


def slow_votes(wells, label, other):
    """Whether the nearest other well is of the same label, by plain loops over wells in the order of plates."""
    used = wells[wells["Metadata_compound"] != "DMSO"].sort_values(["Metadata_plate", "Metadata_well"])
    x = used[[name for name in used if name.endswith("_mean")]].to_numpy(np.float64)
    distance = cdist(x, x, "cosine")
    names, who = used[label].to_numpy(), used[["Metadata_compound", "Metadata_batch"]].to_numpy()
    right = []
    for i in range(len(used)):
        allowed = [j for j in range(len(used)) if j != i and other(who[i], who[j])]
        if any(names[j] == names[i] for j in allowed):
            right.append(names[min(allowed, key=lambda j: distance[i, j])] == names[i])
    return np.mean(right), len(right)


@pytest.mark.parametrize(
    ("measure", "label", "other"),
    [
        (genes.REPLICATE, "Metadata_compound", lambda a, b: True),
        (genes.GENE, "Metadata_moa", lambda a, b: True),
        ("gene accuracy, other variants", "Metadata_moa", lambda a, b: a[0] != b[0]),
        ("gene accuracy, other batches", "Metadata_moa", lambda a, b: a[1] != b[1]),
    ],
)
def test_wells_of_variants_are_matched_as_by_a_slow_loop(store, numbers, measure, label, other):
    one = next(one for one in trainings(ALL) if one.variant == of_genes("mixup"))
    wells = Run(store / key_of(one, making.load(ALL, store, screen=GENETIC))).table("wells")
    share, scored = slow_votes(wells, label, other)
    found = rows.one(numbers, setting="mixup, genes, mean", protocol=genes.PROTOCOL, measure=measure)
    assert (found["value"], found["scored"]) == (pytest.approx(share), scored)
    gap = rows.one(numbers, setting="mixup, genes - recurrent, genes, mean", protocol=genes.PAIRED, measure=measure)
    against = rows.one(numbers, setting="recurrent, genes, mean", protocol=genes.PROTOCOL, measure=measure)
    assert gap["value"] == pytest.approx(share - against["value"])


def test_chance_is_the_share_of_candidates_that_are_right(numbers):
    of = {one.measure: one.value for one in rows.pick(numbers, setting="candidates at random").itertuples()}
    sizes = np.array([len(alleles) for alleles in GENES.values() for _ in alleles])
    assert of[genes.REPLICATE] == pytest.approx(1 / 51)  # two wells of each of 26 variants
    assert of[genes.GENE] == pytest.approx(np.mean(2 * sizes - 1) / 51)
    assert of["gene accuracy, other variants"] == pytest.approx(np.mean(2 * sizes - 2) / 50)


def test_maps_are_of_held_out_cells_of_the_ten_variants(run, store):
    maps = shown.cell_maps([run], 0)
    cells = making.load(ALL, store, screen=GENETIC).table
    held = cells[cells["Metadata_compound"].isin(TRAINED) & (cells["Metadata_replicate"] == 2)]
    for name, part in maps.groupby("variant"):
        assert part["allele"].value_counts().to_dict() == held["Metadata_compound"].value_counts().to_dict(), name
        assert np.isfinite(part[["x", "y"]].to_numpy()).all()
    assert maps["variant"].unique().tolist() == [name for name in genes.VARIANTS if not name.startswith("ImageNet")]


@pytest.mark.skipif(not transferred.installed(), reason="the package with the weights is an extra")
def test_features_of_photographs_stand_beside_the_networks_of_genes(run, store):
    (photographed,) = making.photographed(replace(ALL, photographs=1), GENETIC, Place(store))
    assert len(photographed.table("genes")) == 2 * len(genes.MEASURES) * 52  # two wells of each of 26 variants
    numbers = caicedo2018.evaluate([run, photographed])["numbers"]
    line = rows.one(numbers, setting="mixup, genes - ImageNet features, genes, mean", measure=genes.GENE)
    sides = [rows.one(numbers, setting=f"{n}, genes, mean", measure=genes.GENE) for n in ("mixup", "ImageNet features")]
    assert line["value"] == pytest.approx(sides[0]["value"] - sides[1]["value"])
    maps = shown.cell_maps([run, photographed], 0)
    assert maps["variant"].unique().tolist() == list(genes.VARIANTS)
    plots.maps(maps)
    assert shown.missing(maps, genes.VARIANTS, "figure 6") == ""


# --- what is shown --------------------------------------------------------------------------------------------------


def test_a_week_that_was_left_out_is_judged_by_its_own_treatments(run, numbers, tables):
    line = rows.one(
        numbers, setting="without their week - baseline CNN, treatments of Week1, Week3, mean", measure="NSC"
    )
    found = measured.matches(run, measures.OURS)
    week = run.table("treatments")["Metadata_batch"]
    right = {}
    for name in ("without Week1", "without Week3", BASELINE):
        (votes,) = found[(name, "mean", "cosine"), "NSC"]
        right[name] = votes.correct
    gaps = [gap for w in ("Week1", "Week3") for gap in (right[f"without {w}"] - right[BASELINE])[week == w]]
    assert (line["value"], line["scored"]) == (pytest.approx(np.mean(gaps)), 19 + 29)


def test_every_figure_and_table_is_drawn_of_what_was_trained(run, numbers, tables):
    goals = shown.regularised_rows(numbers)
    found = {key: part["strength"].unique().tolist() for key, part in goals.groupby(["screen", "model"])}
    assert found == {
        (screen, model): ["none", *strengths]
        for screen in ("drugs", "genes")
        for model, strengths in (("recurrent", ["3", "5"]), ("mixup", ["0.2"]))
    }
    assert shown.not_swept(numbers, shown.GENES).startswith(
        "For figure 5, genes, these are missing: recurrent, T 8, genes; mixup, alpha 0.05, genes;"
    )
    shared = shown.regularised_table(goals)
    assert len(shared) == len(goals) / 2
    mixed = shared[(shared["screen"] == "genes") & (shared["strength"] == "0.2")].iloc[0]
    line = rows.one(numbers, setting="mixup, genes, mean, whitened", protocol=genes.PROTOCOL, measure=genes.GENE)
    assert mixed["gene"].startswith(f"{100 * line['value']:.1f}")
    assert mixed["mechanism, NSCB"] == "–"
    further = shown.further_table(numbers, ALL)
    assert further["model"].tolist() == [
        SETS3,
        *AS_DESCRIBED.values(),
        POOLED,
        ATTENDED,
        SHUFFLED,
        "without Week1",
        "without Week3",
    ]
    table = shown.table_1(numbers, tables["verdicts"])
    mixed = table[(table["profile"] == of_genes("mixup")) & (table["from"] == "paper")].iloc[0]
    assert mixed[["replicate accuracy", "gene accuracy"]].tolist() == ["59.6", "78.4"]
    assert shown.table_2(numbers, tables["verdicts"], run)["summary"].ne("not trained").all()
    assert len(shown.gene_differences(numbers)) == 2 * (3 * 2 + 3)
    assert set(tables["claims"]["verdict"]) == {claims.INCOMPARABLE}


def test_the_box_at_the_top_tells_screens_and_networks_apart(run):
    said = shown.warning(ALL, run, "caicedo2018-genes")
    assert "of BBBC021 and, 4 of them, on a simulated genetic screen, on CPU: 15 trainings, of a narrower" in said
    assert "was not trained" not in said
    assert "EfficientNet" not in said
    told = run.table("trainings").assign(variant=[PRETRAINED, *run.table("trainings")["variant"][1:]])
    said = shown.warning(ALL, SimpleNamespace(table=lambda name: told), "caicedo2018-genes")
    assert "a narrower network than the paper's but for 1 of EfficientNet-Lite0, each on 16 cell views" in said
    budget = shown.budget_table(ALL, run).set_index("")["here"]
    assert budget["treated wells of the genetic screen"] == "52"


def test_the_notebook_shows_every_figure(run, store, monkeypatch):
    monkeypatch.setitem(caicedo2018.PRESETS, "smoke", ALL)
    given = {"page": "caicedo2018-genes", "genes": True, "results": str(store)}
    space = execute("caicedo2018-genes", given, monkeypatch, "caicedo2018")
    assert space["run"].key == run.key
    drawn = {path.stem for path in (store / "pages" / "caicedo2018-genes" / "figures").glob("*.csv")}
    assert drawn == {"accuracies", "layers", "known", "goals", "cells", "course"}


def own_screen(folder, channels=5, replicates=(1, 2, 3), dark=4):
    """A screen with other channels and classes: three mechanisms of two compounds, dark cells, a lonely one."""
    rng = np.random.default_rng(6)
    wells = [(f"{m}{i}", m, r, f"{m}{i}") for m in "abc" for i in (1, 2) for r in replicates]
    wells += [("DMSO", "DMSO", r, f"d{i}") for r in replicates for i in range(3)]
    table = pd.DataFrame(
        [(c, m, r, f"Week{r}", f"p{r}", f"{w}_{r}") for c, m, r, w in wells for _ in range(4)],
        columns=[f"Metadata_{name}" for name in ("compound", "moa", "replicate", "batch", "plate", "well")],
    )
    lonely = (table["Metadata_compound"] == "c2") & ~((table["Metadata_replicate"] == 1) & ~table.duplicated())
    table = table[~lonely].reset_index(drop=True)  # of c2 a single cell
    images = rng.integers(1, 60_000, (len(table), channels, 40, 40)).astype(np.uint16)
    images[np.flatnonzero(table["Metadata_compound"] == "a1")[:dark]] = 0
    return CellSet(images, table, tuple(f"stain {i}" for i in range(channels)), 0.5).save(folder)


def test_a_screen_of_ones_own_with_five_channels_names_what_takes_no_part(tmp_path, monkeypatch):
    own_screen(tmp_path / "own")
    given = {"screen": str(tmp_path / "own"), "repeats": 1, "results": str(tmp_path / "store")}
    space = execute("caicedo2018", given, monkeypatch)
    run, numbers = space["run"], space["numbers"]
    assert run.table("dimensions").set_index("variant")["dimension"]["ImageNet features"] == 5 * 1280
    said = shown.exclusions(run, space["config"])
    assert "Treatments that are no class, as fewer than two of their cells train (1): c2 0." in said
    assert "Cells that take no part, as all their pixels are 0: 4." in said
    auxiliary = rows.one(numbers, protocol="auxiliary", variant=BASELINE, measure="validation cells")
    assert auxiliary["null"] == pytest.approx(1 / 5)  # of six treatments
    assert set(numbers["protocol"]).isdisjoint({genes.PROTOCOL, genes.PAIRED})


def test_without_replicates_a_screen_is_refused_unless_nothing_validates(tmp_path, monkeypatch):
    whole = own_screen(tmp_path / "whole", channels=2)
    table = whole.table.drop(columns="Metadata_replicate")
    CellSet(np.array(whole.images), table, whole.channels, 0.5).save(tmp_path / "own")
    given = {"screen": str(tmp_path / "own"), "repeats": 1, "results": str(tmp_path / "store")}
    with pytest.raises(
        CellbookError, match=r"no column 'Metadata_replicate': .*, or train on all cells with validation=\(\)"
    ):
        execute("caicedo2018", given, monkeypatch)
    space = execute("caicedo2018", given | {"validation": 0}, monkeypatch)
    assert "No replicate validates: all cells train" in shown.exclusions(space["run"], space["config"])
    assert rows.one(space["numbers"], protocol="auxiliary", measure="validation cells") is None


@pytest.mark.parametrize(
    ("kept", "side", "message"),
    [
        ("Metadata_compound in ['a1', 'DMSO']", 40, "1 mechanisms are in Metadata_moa"),
        ("Metadata_batch != ''", 24, "24 x 24 pixels, the network takes squares of 32 or more: crop anew"),
        ("Metadata_replicate == 1", 40, "validation=\\(2,\\) is no replicate of 21 cells, which have 1"),
    ],
)
def test_what_cannot_be_trained_on_is_one_sentence(tmp_path, kept, side, message):
    whole = own_screen(tmp_path / "whole", channels=2, dark=0)
    some = CellSet(np.array(whole.images)[..., :side, :side], whole.table, whole.channels, 0.5).select(kept)
    some.save(tmp_path / "own")
    with pytest.raises(CellbookError, match=message) as refused:
        caicedo2018.run(replace(caicedo2018.PRESETS["smoke"], screen=str(tmp_path / "own")), tmp_path / "store")
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "store").glob("*/run.json"))


@pytest.mark.data
def test_the_page_runs_on_the_real_crops(tmp_path, monkeypatch):
    given = {"preset": "smoke", "screen": "bbbc021-sample", "iterations": 2, "results": str(tmp_path)}
    folder, _ = build.run_page("caicedo2018", given)
    numbers = pd.read_csv(folder / "numbers.csv")
    line = rows.one(numbers, setting="mixup, mean, whitened", protocol="caicedo2018", measure="NSC")
    assert (line["scored"], line["trainings"]) == (103, 1)
    assert rows.one(numbers, protocol="auxiliary", variant=BASELINE, measure="validation cells")["null"] == 1 / 100
    text = (folder / "caicedo2018.ipynb").read_text()
    assert "as fewer than two of their cells train (3): floxuridine 10, simvastatin 20, simvastatin 6." in text
    assert "real crops of BBBC021" in text
    screen = {"page": "caicedo2018-sample", "screen": "bbbc021-sample", "iterations": 2, "results": str(tmp_path)}
    space = execute("caicedo2018-sample", screen, monkeypatch, "caicedo2018")
    assert space["run"].key in {one.name for one in tmp_path.iterdir()}
