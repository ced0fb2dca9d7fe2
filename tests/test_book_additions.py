"""What the build adds to committed pages: runs behind tables, functions behind figures, links that need an address."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from safetensors.numpy import save_file

from cellbook.book import fragments, notebooks, run_pages, site
from cellbook.book.fragments import RUN_PAGES
from cellbook.files import read_json, sha256
from cellbook.runs import obtain
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
            assert f"| `{name}` | {product['bytes']:,} | `{product['sha256'][:16]}` |" in text
    keys = json.loads(fragments.results_json(book))["pages"]
    assert {key for page in keys.values() for key in page["run_pages"]} == {path.parent.name for path in runs}


def test_pages_of_runs_that_are_published_no_more_are_removed_and_others_left_alone(book):
    stray, kept = book / RUN_PAGES / "old-0123456789ab.md", next((book / RUN_PAGES).iterdir())
    stray.write_text("# old", encoding="utf-8")
    before = kept.stat().st_mtime_ns
    run_pages.write(book)
    assert not stray.exists()
    assert kept.stat().st_mtime_ns == before


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


def test_without_an_address_nothing_links_to_a_repository():
    source = (BOOK / "papers" / "lafarge2019.ipynb").read_text(encoding="utf-8")
    made = site.with_links(source, BOOK / "results" / "lafarge2019", "")
    assert "Drawn by `cellbook.figures.lafarge2019.training_curves`" in made
    assert "/blob/" not in made


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


def test_models_that_were_trained_twice_stand_on_the_page_of_status(tmp_path, monkeypatch):
    table = pd.read_csv(notebooks.root() / "benchmarks" / "determinism.csv")
    assert set(benchmark().MODELS) == set(table["model"])
    text = (BOOK / "_generated" / "determinism.md").read_text(encoding="utf-8")
    assert text == fragments.determinism()
    assert text.count("the same bits") == ((table["weights"] == 0) & (table["codes"] == 0)).sum()
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    (tmp_path / "_toc.yml").touch()
    assert fragments.determinism() == "Not measured.\n"
    (tmp_path / "benchmarks").mkdir()
    table.assign(weights=1e-7).to_csv(tmp_path / "benchmarks" / "determinism.csv", index=False)
    assert "the same bits" not in fragments.determinism()


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
