"""The page of classical profiles through the real thing: papermill, stamp, publication, verification."""

import json
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest

from cellbook import claims, profiles
from cellbook.book import build, comparing, fragments, notebooks, results
from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED
from cellbook.errors import CellbookError
from cellbook.files import read_json, write_json
from cellbook.pages import classical
from cellbook.pages.classical import making
from cellbook.study import rows


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The page at the smoke preset on the planted screen, and the store it was made in."""
    store = tmp_path_factory.mktemp("store")
    folder, now = build.run_page("classical", {"preset": "smoke", "screen": "planted", "results": str(store)})
    assert now
    return folder


@pytest.fixture
def published(executed, tmp_path):
    """A book of its own with that page published in it."""
    target = tmp_path / "book"
    shutil.copytree(notebooks.root() / "book" / "claims", target / "claims")
    build.publish("classical", executed, target, smoke=True)
    return target


def test_page_is_executed_once_for_the_same_source_and_parameters(executed):
    given = {"preset": "smoke", "screen": "planted", "results": str(executed.parents[1])}
    _, again = build.run_page("classical", given)
    assert not again


def test_page_carries_its_stamp_and_no_trace_of_the_machine(executed):
    notebook = nbformat.read(executed / "classical.ipynb", as_version=4)
    stamp = notebook.metadata["cellbook"]
    assert stamp["parameters"]["preset"] == "smoke"
    assert stamp["runs"][0]["key"].startswith("classical-")
    assert stamp["source"] == notebooks.source_digest("classical")
    assert stamp["wall_seconds"] > 0
    assert notebooks.page_faults(notebook) == []
    assert str(executed) not in (executed / "classical.ipynb").read_text()


def test_every_number_has_the_columns_that_the_book_needs(executed):
    numbers = pd.read_csv(executed / "numbers.csv")
    assert {*claims.KEYS, "value", "low", "high", "correct", "scored", "excluded"} <= set(numbers)
    assert not numbers.duplicated(claims.KEYS).any()
    accuracies = numbers[numbers["protocol"].isin(["ljosa2013", "tabak2020", "nested", "leakage"])]
    accuracies = accuracies[accuracies["setting"] != "noise"]
    assert accuracies[["low", "high"]].notna().all(axis=None)
    assert (accuracies["low"] <= accuracies["value"] + 1e-9).all()
    assert (accuracies["value"] <= accuracies["high"] + 1e-9).all()


def test_every_setting_of_the_grid_has_its_parts_as_columns(executed):
    numbers = pd.read_csv(executed / "numbers.csv")
    scored = numbers[numbers["protocol"].isin(["ljosa2013", "silhouette", "drop"])]
    assert scored[["scaling", "transform"]].notna().all(axis=None)
    parts = scored.drop_duplicates("setting")
    assert not parts.duplicated(["scaling", "transform"]).any()
    named = parts["scaling"] + (", " + parts["transform"]).where(parts["transform"] != "as scaled", "")
    assert (named == parts["setting"]).all()


def line(value, low, high, measure="NSC", protocol="paired", **more):
    return rows.row("any name", protocol, measure, value, low=low, high=high, **more)


@pytest.mark.parametrize(
    ("low", "value", "verdict"), [(0.01, 0.1, REPRODUCED), (-0.01, 0.1, PARTLY), (-0.2, -0.1, NOT)]
)
def test_claims_on_differences_follow_their_intervals(low, value, verdict):
    factors = {"scaling": "percentile", "left": "20 factors", "right": "as scaled"}
    ridge = {"scaling": "robust", "left": "whitened 1", "right": "whitened 0.001"}
    drop = {"scaling": "robust", "transform": "as scaled", "left": "NSC", "right": "NSCB"}
    two = [line(value, low, 0.3, "same queries", **drop), rows.row("robust", "drop", "NSC", 0.5, **drop)]
    two[1] |= {"left": None, "right": None}
    for claim, lines in (
        ("factors-help", [line(value, low, 0.3, **factors)]),
        ("whitening-needs-ridge", [line(value, low, 0.3, **ridge)]),
        ("batch-drop", two),
    ):
        found = classical.PREDICATES[claim](rows.numbers(lines))
        assert found.verdict == verdict
        assert f"{100 * value:+.1f} points" in found.evidence
    assert "robust: " in found.evidence


@pytest.mark.parametrize(
    ("bounds", "verdict"), [((-0.04, 0.04), REPRODUCED), ((-0.06, 0.04), PARTLY), ((0.01, 0.09), NOT)]
)
def test_nothing_but_a_small_change_is_neutral(bounds, verdict):
    pair = {"scaling": "percentile", "left": "50 factors, CORAL", "right": "50 factors"}
    lines = [line(sum(bounds) / 2, *bounds, measure, **pair) for measure in ("NSC", "NSCB")]
    assert classical.PREDICATES["coral-neutral"](rows.numbers(lines)).verdict == verdict


@pytest.mark.parametrize(("low", "verdict"), [(0.15, REPRODUCED), (0.05, NOT)])
def test_controls_carry_the_week_if_classifiers_beat_noise(low, verdict):
    of = {"scaling": "percentile", "transform": "50 factors"}
    lines = [line(0.2, low, 0.3, model, "leakage", **of) for model in ("logistic", "forest")]
    lines += [rows.row("noise", "leakage", model, 0.1) for model in ("logistic", "forest")]
    assert classical.PREDICATES["controls-carry-week"](rows.numbers(lines)).verdict == verdict


@pytest.mark.parametrize(("nscb", "verdict"), [(0.4, REPRODUCED), (0.6, NOT)])
def test_drop_beyond_thinning_lies_below_what_random_removal_leaves(nscb, verdict):
    lines = [line(nscb, 0, 1, "NSCB", "drop"), line(0.55, 0.5, 0.6, "as many right and wrong", "drop")]
    found = classical.PREDICATES["drop-beyond-thinning"](rows.numbers(lines))
    assert found.verdict == verdict
    assert f"any name: {100 * nscb:.1f} and 50.0" in found.evidence  # also where it is not below


def test_numbers_on_other_data_are_not_comparable(executed):
    verdicts = pd.read_csv(executed / "verdicts.csv")
    assert set(verdicts["verdict"]) == {INCOMPARABLE}
    assert verdicts["why"].str.contains("planted").any()


def test_permuted_labels_fall_to_chance(executed):
    numbers = pd.read_csv(executed / "numbers.csv").set_index(["setting", "measure", "protocol"])["value"]
    assert numbers["labels permuted", "NSC", "baseline"].item() < 0.2
    assert numbers["percentile", "NSC", "ljosa2013"].item() > 0.6


@pytest.mark.parametrize("shape", [(40, 12), (8, 30)])
def test_profiles_are_stored_without_their_features_but_with_all_angles_and_correlations(shape):
    x = np.random.default_rng(0).normal(1, 2, shape)
    table = pd.DataFrame(x, columns=[f"f{i}" for i in range(shape[1])]).assign(Metadata_well="A01")
    y = profiles.matrix(making.without_features(table))
    np.testing.assert_allclose(y @ y.T, x @ x.T, atol=1e-9)
    np.testing.assert_allclose(y.mean(axis=1), x.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(np.corrcoef(y), np.corrcoef(x), atol=1e-9)
    assert np.abs(np.corrcoef(x.T, y.T)[: shape[1], shape[1] :]).max() < 0.999  # no coordinate is a feature


def test_figures_come_with_their_data(executed):
    drawn = [
        cell.metadata["mystnb"]["figure"]["name"].removeprefix("classical-")
        for cell in nbformat.read(executed / "classical.ipynb", as_version=4).cells
        if "mystnb" in cell.metadata
    ]
    assert len(drawn) >= 7
    assert sorted(drawn) == sorted(path.stem for path in (executed / "figures").glob("*.csv"))


def edit_number(folder):
    path = folder / "numbers.csv"
    table = pd.read_csv(path)
    table.loc[5, "value"] += 1e-6
    path.write_text(table.to_csv(index=False))


def edit_verdict(folder):
    path = folder / "claims.csv"
    path.write_text(path.read_text().replace("reproduced", "partly", 1))


def edit_product(folder):
    path = next(folder.glob("runs/*/distances-median-cosine.parquet"))
    table = pd.read_parquet(path)
    table["percentile"] = table["percentile"].to_numpy()[::-1]
    table.to_parquet(path)


def test_verification_recomputes_from_the_products_and_not_from_checksums(published):
    folder = published / "results" / "classical"
    assert results.verify_page(folder) == []
    edit_product(folder)
    (record,) = folder.glob("runs/*/run.json")
    content = read_json(record)
    name = "distances-median-cosine.parquet"
    content["products"][name]["sha256"] = results.sha256(record.parent / name)
    write_json(record, content)
    faults = results.verify_page(folder)
    assert any("numbers.csv" in fault and "computed" in fault for fault in faults)


def test_every_edit_of_published_files_is_found_and_named(published):
    folder = published / "results" / "classical"
    edit_number(folder)
    edit_verdict(folder)
    edit_product(folder)
    (folder / "retrieval.csv").unlink()
    figure = folder / "figures" / "maps.csv"
    figure.write_text(figure.read_text().replace("PCA", "CPA", 1))
    page = published / "papers" / "classical.ipynb"
    page.write_text(page.read_text().replace("Classical profiles", "Classic profiles", 1))
    piece = published / "_generated" / "summary.md"
    piece.write_text(piece.read_text().replace("smoke", "paper"))
    faults = "\n".join(build.verify(published))
    for words in (
        "numbers.csv has other bytes",
        "numbers.csv, row",
        "claims.csv has other bytes",
        "distances-median-cosine.parquet has other bytes",
        "retrieval.csv is missing",
        "figures/maps.csv has other bytes",
        "published page has other bytes",
        "summary.md does not follow",
    ):
        assert words in faults


def test_edits_of_the_record_itself_are_found(published):
    assert fragments.stale_fragments(published) == []
    record = published / "results" / "classical" / "page.json"
    record.write_text(record.read_text().replace('"page_sha256"', '"page_sha257"'))
    assert fragments.stale_fragments(published) == ["results/records.json does not follow from the stored results"]


def test_where_the_time_goes_follows_from_the_records_of_execution_runs_and_trainings(published):
    folder = published / "results" / "classical"
    stamp, (path,) = read_json(folder / "stamp.json"), folder.glob("runs/*/run.json")
    record = read_json(path)

    def told():
        return [[cell.strip() for cell in row.split("|")[1:-1]] for row in fragments.costs(published).splitlines()[2:]]

    def gib(of):
        return f"{of['peak_memory_mib'] / 1024:.1f} GiB"

    rows = told()
    assert [row[1:] for row in rows] == [
        ["execution", "", f"{stamp['wall_seconds']:.0f} s", "CPU", gib(stamp)],
        ["`classical`", "1", f"{record['seconds']:.0f} s", "CPU", gib(record)],
    ]
    assert [bool(row[0]) for row in rows] == [True, False]
    trained = pd.DataFrame({"key": ["a", "b", "a"], "seconds": [20.0, 3.0, 20.0], "device": ["CPU", "GPU", "CPU"]})
    trained.to_parquet(path.parent / "trainings.parquet")
    write_json(path, {name: value for name, value in record.items() if name != "processes"})  # as before it was told
    assert told()[2] == ["", "trainings", "2", "23 s", "CPU and GPU", "–"]
    assert told()[1][-1] == "–"


def test_smoke_and_stale_pages_are_not_published(executed, tmp_path):
    with pytest.raises(CellbookError, match="smoke preset"):
        build.publish("classical", executed, tmp_path / "book")
    folder = tmp_path / "stale"
    shutil.copytree(executed, folder)
    stamp = read_json(folder / "stamp.json")
    write_json(folder / "stamp.json", {**stamp, "source": "0" * 64})
    with pytest.raises(CellbookError, match="another source"):
        build.publish("classical", folder, tmp_path / "book", smoke=True)
    with pytest.raises(CellbookError, match="no finished execution"):
        build.publish("classical", tmp_path, tmp_path / "book")


def test_a_fresh_execution_is_compared_number_by_number(executed, published):
    sides = [comparing.read_page(place, published) for place in (executed, published / "results" / "classical")]
    table = comparing.compare(sides[0].numbers, sides[1].numbers)
    assert (table["difference"].dropna() == 0).all()
    assert len(table) > 50


def test_plain_papermill_runs_the_paired_notebook(tmp_path):
    given = ["-p", "preset", "smoke", "-p", "screen", "planted", "-p", "results", str(tmp_path / "runs")]
    command = [sys.executable, "-m", "papermill", "notebooks/classical.ipynb", str(tmp_path / "out.ipynb"), *given]
    done = subprocess.run(command, cwd=notebooks.root(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs" / "pages" / "classical" / "numbers.csv").exists()


@pytest.mark.data
def test_page_runs_on_the_real_features(tmp_path):
    folder, _ = build.run_page("classical", {"preset": "smoke", "results": str(tmp_path)})
    numbers = pd.read_csv(folder / "numbers.csv")
    scored = numbers[numbers["protocol"] == "tabak2020"].groupby(["measure", "k"])["scored"].first()
    assert scored["NSC"].tolist() == [103, 206, 309, 398]
    assert scored["NSCB"].tolist() == [92, 180, 268, 330]


@pytest.mark.parametrize("page", notebooks.pages())
def test_a_published_page_and_its_results_take_less_than_5_megabytes(page):
    folder = notebooks.root() / "book"
    files = [path for path in (folder / "results" / page).rglob("*") if path.is_file()]
    assert len(files) > 5
    assert sum(path.stat().st_size for path in [folder / "papers" / f"{page}.ipynb", *files]) < 5e6


def test_published_pages_are_whole_and_not_stale():
    folder = notebooks.root() / "book"
    for page in notebooks.pages():
        stamp = nbformat.read(folder / "papers" / f"{page}.ipynb", as_version=4).metadata["cellbook"]
        assert stamp["source"] == notebooks.source_digest(page), f"{page} changed since it was published"
        assert stamp["parameters"]["preset"] != "smoke"
        assert stamp == read_json(folder / "results" / page / "stamp.json")
    assert list(json.loads(fragments.results_json(folder))["pages"]) == list(notebooks.pages())
