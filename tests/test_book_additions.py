"""What the build adds to committed pages: runs behind tables, functions behind figures, links that need an address."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from safetensors.numpy import save_file

from cellbook.book import fragments, notebooks, run_pages, site, trained
from cellbook.book.fragments import RUN_PAGES
from cellbook.configure import configure, restore
from cellbook.files import read_json, sha256
from cellbook.methods import find_method
from cellbook.runs import known_by, obtain
from cellbook.study import models

BOOK = notebooks.root() / "book"
PAGES = [page for page in notebooks.pages() if (BOOK / "results" / page).exists()]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A copy of the book's results with the pages of runs."""
    book = tmp_path_factory.mktemp("book")
    shutil.copytree(BOOK / "results", book / "results")
    run_pages.write(book)
    return book


def test_trainings_that_two_runs_share_are_told_of_in_both_at_places_of_their_own(tmp_path):
    shutil.copytree(BOOK / "results" / "lafarge2019", tmp_path / "results" / "lafarge2019")
    first = next((tmp_path / "results").glob("lafarge2019/runs/*/trainings.parquet")).parent
    other = tmp_path / "results" / "twice" / "runs" / "other-0"
    shutil.copytree(first, other)
    shutil.copy(tmp_path / "results" / "lafarge2019" / "stamp.json", other.parents[1])
    labels = [
        line
        for folder in (first.parents[1], other.parents[1])
        for run in folder.glob("runs/*")
        for part in run_pages.trainings(folder, run.name)
        for line in part.splitlines()
        if line.startswith("(training-")
    ]
    assert len(labels) == len(set(labels)) > 2
    assert {f"({at})=" for _, at in run_pages.places(tmp_path).values()} <= set(labels)


def test_every_published_run_has_a_page_with_its_command_products_and_checksums(book):
    runs = sorted(book.glob("results/*/runs/*/run.json"))
    assert {path.stem for path in (book / RUN_PAGES).iterdir()} == {path.parent.name for path in runs}
    for path in runs:
        record, text = read_json(path), (book / RUN_PAGES / f"{path.parent.name}.md").read_text(encoding="utf-8")
        assert f"cellbook run {path.parents[2].name}" in text
        assert record["commit"] in text
        assert record["fingerprint"] in text
        for name in record["config"]:
            assert f"| `{name}` |" in text
        for name, product in record["products"].items():
            rest = f" | {product['bytes']:,} | `{product['sha256'][:16]}` |"
            (at,) = re.findall(rf"{{download}}`{re.escape(name)} <(\S+)>`{re.escape(rest)}", text)
            assert sha256(book / RUN_PAGES / at) == product["sha256"]
    keys = json.loads(fragments.results_json(book))["pages"]
    assert {key for page in keys.values() for key in page["run_pages"]} == {path.parent.name for path in runs}


def test_pages_of_runs_that_are_published_no_more_are_removed_and_others_left_alone(book):
    stray, kept = book / RUN_PAGES / "old-0123456789ab.md", next((book / RUN_PAGES).iterdir())
    stray.write_text("# old", encoding="utf-8")
    before = kept.stat().st_mtime_ns
    run_pages.write(book)
    assert not stray.exists()
    assert kept.stat().st_mtime_ns == before


def test_every_published_training_is_told_of_on_the_page_of_its_run_and_its_record_follows_from_its_parts():
    book, count = BOOK, 0
    places = run_pages.places(book)
    for folder in fragments.published_pages(book):
        assert trained.faults(folder) == []
        table, kept = trained.table(folder), trained.kept(folder)
        for row in table.to_dict("records"):
            run, at = places[row["key"]]
            lines = "\n\n".join(run_pages.trainings(folder, run)).splitlines()
            start = lines.index(f"({at})=")
            assert lines[start + 1] == f"### {row.get('variant') or row['source']}"
            text = "\n".join(
                lines[start : next((n for n in range(start + 1, len(lines)) if lines[n][:1] == "("), None)]
            )
            (line,) = (line for line in text.splitlines() if f"`{row['key']}`" in line)
            assert f"| {row['repeat']} |" in line
            record = kept.get(row["key"])
            count += record is not None
            for what in (record["commit"], record["device"], record["fingerprint"][:12]) if record else ():
                assert what in line
            if record and row["repeat"] == 0:  # repeats differ by their seeds alone, so that one list is for all
                for name, value in record["config"].items():
                    assert name == "seed" or f"{name} = {run_pages.code(value)}" in text
                assert f"{record['losses'][-1]['step']:.5g} |" in text
    assert count > 100


def test_what_is_said_to_train_a_model_alone_is_its_configuration():
    asked = 0
    for folder in fragments.published_pages(BOOK):
        for record in trained.kept(folder).values():
            if command := trained.command(record):
                given = dict(word.split("=", 1) for word in command.split(" -p ")[1:])
                module = find_method(record["method"])
                made = known_by(configure(module, given))
                assert made == known_by(
                    restore(module.Config, {n: v for n, v in record["config"].items() if n != "course"})
                )
                asked += 1
    assert asked > 50


def test_a_record_of_a_training_that_was_edited_is_found(tmp_path):
    folder = tmp_path / "lafarge2019"
    shutil.copytree(BOOK / "results" / "lafarge2019", folder)
    kept = trained.kept(folder)
    first, second = list(kept)[:2]
    kept[first]["config"]["iterations"] += 1
    kept[second]["seconds"] += 1
    (folder / trained.TRAINED).write_text(json.dumps(kept), encoding="utf-8")
    faults = trained.faults(folder)
    assert [first in fault for fault in faults] == [True, False]
    assert second in faults[1]


def test_records_of_trainings_come_from_the_store_and_stay_where_it_has_none(tmp_path):
    store, folder = tmp_path / "store", tmp_path / "page"

    def make(place):
        pd.DataFrame({"step": range(9), "loss": np.arange(9) / 3}).to_parquet(place / "history.parquet")

    run = obtain(store, "m", 1, {"a": 1}, "data", make)
    (folder / "runs" / "r").mkdir(parents=True)
    told = pd.DataFrame(
        {"key": [run.key, "gone"], "variant": "A", "repeat": [0, 1], "seconds": [run.record["seconds"], 1]}
    )
    told.to_parquet(folder / "runs" / "r" / "trainings.parquet")
    trained.keep(folder, [tmp_path / "other", store], {"gone": {"key": "gone"}, "of another page": {}})
    kept = trained.kept(folder)
    assert list(kept) == [run.key, "gone"]
    assert [line["step"] for line in kept[run.key]["losses"]] == [0, 6, 7, 8]
    assert kept[run.key]["config"] == {"a": 1}
    trained.keep(folder, [], kept)
    assert trained.kept(folder) == kept


@pytest.mark.parametrize(
    ("row", "linked"),
    [
        ("<td>VAE+</td><td>92.1</td>", "VAE+"),
        ("<td>mean</td><td>A &amp; B</td>", "A &amp; B"),
        ("<td>VAE+</td><td>paper</td><td>92.1</td>", ""),  # a number that was not made here
        ("<td>VAE+, mean</td><td>92.1</td>", ""),
        ("<td>wells</td><td>CORAL</td>", ""),  # what was aligned, and not by a training
        ("<td>wells</td><td>WDN, at the end</td>", "wells"),
    ],
)
def test_a_row_links_to_the_trainings_of_the_model_that_it_names(row, linked):
    links = {"VAE+": "r.html#training-a", "A & B": "r.html#training-b", "wells": "r.html#training-wdn-c"}
    found = BeautifulSoup(site.with_training(f"<tr>{row}</tr>", links), "html.parser")
    plain = BeautifulSoup(row, "html.parser")
    assert [str(link.string) for link in found.select("a.training")] == (
        [linked.replace("&amp;", "&")] if linked else []
    )
    assert [cell.text for cell in found.select("td")] == [cell.text for cell in plain.select("td")]


@pytest.mark.parametrize("page", PAGES)
def test_every_trained_model_that_a_table_names_leads_to_its_trainings(page):
    folder = BOOK / "results" / page
    made = json.loads(site.with_links((BOOK / "papers" / f"{page}.ipynb").read_text(encoding="utf-8"), folder, ""))
    html = "".join("".join(o.get("data", {}).get("text/html", "")) for c in made["cells"] for o in c.get("outputs", []))
    names = trained.behind(folder)
    places = run_pages.places(BOOK)
    links = {link.text: link["href"] for link in BeautifulSoup(html, "html.parser").select("a.training")}
    assert bool(links) == bool(names)
    for name, address in links.items():
        run, at = places[names[name]]
        assert address == f"../{RUN_PAGES}/{run}.html#{at}"
    for path in folder.glob("*.csv"):
        assert f"<../results/{page}/{path.name}>" in "".join(made["cells"][-1]["source"])


@pytest.mark.parametrize("page", PAGES)
def test_every_table_names_runs_and_every_figure_what_drew_it(page):
    source = (BOOK / "papers" / f"{page}.ipynb").read_text(encoding="utf-8")
    folder = BOOK / "results" / page
    runs = read_json(folder / "stamp.json")["runs"]
    made = json.loads(site.with_links(source, folder, "https://example.org/book/"))
    html = ["".join(o.get("data", {}).get("text/html", "")) for c in made["cells"] for o in c.get("outputs", [])]
    captions = [caption for text in html for caption in BeautifulSoup(text, "html.parser").select("p.table-caption")]
    assert captions
    for caption in captions:
        links = [link["href"] for link in caption.select("a.run")]
        few = [f"../{RUN_PAGES}/{run['key']}.html" for run in runs]
        if "benchmarks/" in caption.text:  # of no run
            few = []
        assert links == (few if len(few) <= site.FEW else ["#how-this-page-was-made"])
    commit = read_json(folder / "stamp.json")["commit"].rstrip("+")
    figures = [c["metadata"]["mystnb"]["figure"]["caption"] for c in made["cells"] if "mystnb" in c["metadata"]]
    drawn = [caption for caption in figures if "Drawn by [`cellbook.figures." in caption]
    assert drawn
    for caption in drawn:
        (path, *_) = re.findall(rf"\(https://example\.org/book/blob/{commit}/(\S+?)\)", caption)
        assert (notebooks.root() / path).is_file()
    assert "freshness" in [cell.get("id") for cell in made["cells"]][:4]
    for run in runs:
        assert f"(/book/{RUN_PAGES}/{run['key']}.md)" in "".join(made["cells"][-1]["source"])


def test_a_page_with_trained_models_says_how_they_measure_other_cells():
    said = {page: site.use_of_models(BOOK / "results" / page) for page in PAGES}
    assert {page for page, words in said.items() if words} == {
        page for page in PAGES if len(models.published(BOOK / "results").query("name.str.startswith(@page + '/')"))
    }
    assert "--encoder 'lafarge2019/VAE+'" in said["lafarge2019"]
    assert said["caicedo2018"] == "The models of this page cannot measure other cells: their weights were not kept."


def test_without_an_address_nothing_links_to_a_repository():
    source = (BOOK / "papers" / "lafarge2019.ipynb").read_text(encoding="utf-8")
    made = site.with_links(source, BOOK / "results" / "lafarge2019", "")
    assert "Drawn by `cellbook.figures.lafarge2019.training_curves`" in made
    assert "/blob/" not in made


def test_a_table_of_a_benchmark_links_to_no_run_and_all_others_do():
    source = (BOOK / "papers" / "lafarge2019.ipynb").read_text(encoding="utf-8")
    made = json.loads(site.with_links(source, BOOK / "results" / "lafarge2019", ""))
    outputs = [one.get("data", {}) for cell in made["cells"] for one in cell.get("outputs", [])]
    tables = [BeautifulSoup("".join(one.get("text/html", "")), "html.parser") for one in outputs]
    shown = [table.find(class_="table-caption") for table in tables]
    linked = {bool(one.find("a", class_="run")): one for one in shown if one and "benchmarks/" in one.text}
    assert list(linked) == [False]
    assert sum(bool(one.find("a", class_="run")) for one in shown if one) > 10


class App:
    """As much of Sphinx as the extension asks for."""

    def __init__(self, root, url):
        self.srcdir, self.outdir, self.connected = str(root), str(root / "_build" / "html"), {}
        self.config = self
        self.html_theme_options = {"repository_url": url, "launch_buttons": {"binderhub_url": "https://example.org"}}
        self.builder = type("Builder", (), {"name": "html"})

    def connect(self, event, function):
        self.connected[event] = function


@pytest.mark.parametrize("url", ["", "https://example.org/book"])
def test_buttons_are_there_if_and_only_if_the_address_is_given(tmp_path, url):
    shutil.copytree(BOOK / "results", tmp_path / "book" / "results")
    app = App(tmp_path, url)
    site.setup(app)
    app.connected["config-inited"](app, app.config)
    assert app.html_theme_options["use_repository_button"] == bool(url)
    assert bool(app.html_theme_options["launch_buttons"]) == bool(url)


@pytest.mark.parametrize("url", ["", "https://example.org/versions.json"])
def test_versions_are_offered_if_and_only_if_their_list_is_configured(tmp_path, monkeypatch, url):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "_config.yml").write_text(f"versions:\n  url: '{url}'\n", encoding="utf-8")
    monkeypatch.setattr(run_pages, "write", lambda book: None)
    app = App(tmp_path, "")
    site.prepare(app, app.config)
    assert app.html_theme_options.get("switcher", {}).get("json_url", "") == url
    assert ("version-switcher" in app.html_theme_options.get("article_header_end", [])) == bool(url)


def test_once_a_week_the_test_command_of_the_readme_is_run_on_a_bare_machine():
    root = Path(site.__file__).parents[2]
    workflow = yaml.safe_load((root / ".github" / "workflows" / "install.yml").read_text(encoding="utf-8"))
    assert [entry["cron"].split()[-1] for entry in workflow[True]["schedule"]] == ["1"]  # YAML reads "on" as true
    (command,) = (step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step)
    asked = (root / command).read_text(encoding="utf-8").strip().splitlines()[-1]
    assert f"{asked}    # check everything" in (root / "README.md").read_text(encoding="utf-8")
    tested = re.search(r"Python 3\.11, 3\.12 or (3\.\d+)", (root / "README.md").read_text(encoding="utf-8"))[1]
    assert tested in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_pages_of_runs_that_an_earlier_build_has_left_are_removed(tmp_path):
    app = App(tmp_path, "")
    source, built = tmp_path / "book" / RUN_PAGES, Path(app.outdir, "book", RUN_PAGES)
    for folder, names in ((source, ["new.md"]), (built, ["new.html", "old.html"])):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    site.finish(app, None)
    assert [path.name for path in built.iterdir()] == ["new.html"]


def test_pages_link_to_the_pdf_as_soon_as_it_is_there(tmp_path):
    app = App(tmp_path, "")
    Path(app.outdir).mkdir(parents=True)
    context = {"theme_extra_footer": "", "pathto": lambda name, _: f"../{name}"}
    site.link_pdf(app, "book/data", "page.html", context, None)
    assert context["theme_extra_footer"] == ""
    (tmp_path / "_build" / site.PDF).write_bytes(b"%PDF")
    site.link_pdf(app, "book/data", "page.html", context, None)
    assert f'href="../{site.PDF}"' in context["theme_extra_footer"]
    site.finish(app, None)
    assert sha256(Path(app.outdir, site.PDF)) == sha256(tmp_path / "_build" / site.PDF)


def benchmark():
    """The script that measures determinism, as a module."""
    spec = importlib.util.spec_from_file_location("determinism", notebooks.root() / "benchmarks" / "determinism.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_difference_of_two_trainings_is_nought_for_one_and_what_was_changed_for_another(tmp_path):
    runs = []
    for number, shift in enumerate((0.0, 0.0, 0.25)):
        weights = {"a.w": np.arange(4, dtype=np.float32), "b.w": np.full(3, 2 + shift, np.float32)}
        codes = pd.DataFrame({"Metadata_well": list("abcd"), "z0": np.array([1.0, 3.0, 1.0, 3.0]), "z1": 5.0})
        codes.loc[2, "z0"] += shift

        def make(folder, weights=weights, codes=codes):
            save_file(weights, folder / "weights.safetensors")
            codes.to_parquet(folder / "codes.parquet")

        runs.append(obtain(tmp_path, "m", 1, {"number": number}, "data", make))
    compare = benchmark().compare
    assert compare(runs[0], runs[1]) == {"weights": 0.0, "codes": 0.0}
    assert compare(runs[0], runs[2]) == {"weights": 0.25, "codes": 0.25}  # a deviation of z0 is 1


def test_pages_of_one_notebook_say_in_their_heading_which_they_are():
    assert fragments.apart("tabak2020") == ""
    headings = []
    for page in notebooks.pages():
        source = (BOOK / "papers" / f"{page}.ipynb").read_text(encoding="utf-8")
        made = json.loads(site.with_links(source, BOOK / "results" / page, ""))
        headings.append("".join(made["cells"][0]["source"]).partition("\n")[0])
        told = fragments.apart(page)
        assert headings[-1].startswith("# ")
        assert headings[-1].endswith(f" ({told})" if told else headings[-1][-1])
    assert len(set(headings)) == len(headings)


def test_models_that_were_trained_twice_stand_on_the_page_of_status(tmp_path, monkeypatch):
    table = pd.read_csv(notebooks.root() / "benchmarks" / "determinism.csv")
    assert set(benchmark().MODELS) == set(table["model"])
    text = (BOOK / "_generated" / "determinism.md").read_text(encoding="utf-8")
    assert text == fragments.determinism()
    same = (table["weights"] == 0) & (table["codes"] == 0)
    assert all(name in text.partition(": ")[2].rstrip(".\n").split("; ") for name in table.loc[same, "model"])
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    (tmp_path / "_toc.yml").touch()
    assert fragments.determinism() == "Not measured.\n"
    (tmp_path / "benchmarks").mkdir()
    table.assign(weights=1e-7).to_csv(tmp_path / "benchmarks" / "determinism.csv", index=False)
    apart = fragments.determinism()
    assert "same bits" not in apart
    assert all(f"| {name} |" in apart for name in table["model"])


def test_what_was_timed_stands_on_the_page_of_status_beside_what_it_is_faster_than(tmp_path, monkeypatch):
    text = (BOOK / "_generated" / "speed.md").read_text(encoding="utf-8")
    assert text == fragments.speed()
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    (tmp_path / "_toc.yml").touch()
    assert fragments.speed() == "Not measured.\n"
    (tmp_path / "benchmarks").mkdir()
    monkeypatch.syspath_prepend(BOOK.parent / "benchmarks")
    rows = [{"what": "loop", "value": 4.0, "unit": "s"}]
    rows.append({"what": "here", "value": 0.123456, "unit": "s", "faster": 32.4, "beside": "loop"})
    importlib.import_module("table").write(tmp_path / "benchmarks" / "some.csv", rows, threads=3)
    lines = [line.split(" | ") for line in fragments.speed().splitlines()]
    assert [line[:6] for line in lines[2:]] == [
        ["| `some`", "loop", "4 s", "", "", "3"],
        ["| ", "here", "0.123 s", "32.4", "loop", "3"],
    ]
