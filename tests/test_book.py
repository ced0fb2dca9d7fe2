"""`cellbook book`, that is `make book`, from beginning to end: pages executed, book built, checkout untouched."""

import shutil
from graphlib import TopologicalSorter

import pytest
from bs4 import BeautifulSoup

from cellbook.book import build, notebooks, rendering
from cellbook.book.rendering import PDF
from cellbook.errors import CellbookError, DataNotFound
from cellbook.files import sha256

PAGE = "classical"  # the cheapest that needs no data
ABSENT = "its data are not on this machine"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the checkout, in which the package looks for its book."""
    here, root = notebooks.root(), tmp_path / "checkout"
    for name in ("cellbook", "notebooks", "book"):
        shutil.copytree(here / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copyfile(here / name, root / name)
    monkeypatch.setattr(notebooks, "ROOT", root)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return root


def content(root):
    """Every file outside of the build folder, and what is in it."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): sha256(path) for path in files if path.relative_to(root).parts[0] != "_build"}


@pytest.mark.slow
def test_the_command_ends_with_a_built_book_and_leaves_the_checkout_as_it_was(checkout, monkeypatch, run_main):
    execute = build.run_page

    def only_one(page, *given, **more):
        if page != PAGE:
            raise DataNotFound(ABSENT)
        return execute(page, *given, **more)

    def printed(site):  # which takes a minute
        (site / "_build").mkdir()
        (site / "_build" / PDF).write_bytes(b"%PDF")
        return site / "_build" / PDF

    monkeypatch.setattr(build, "run_page", only_one)
    monkeypatch.setattr(build, "worker_count", lambda: 1)  # other processes would not know of these
    monkeypatch.setattr(rendering, "browser", lambda: "a browser")
    monkeypatch.setattr(rendering, "print_book", printed)
    before = content(checkout)
    code, out, err = run_main("book", "-p", "preset=smoke", "-p", "screen=planted")
    assert (code, err) == (0, "")
    assert content(checkout) == before

    site = checkout / "_build" / "book" / "site"
    index = site / "_build" / "html" / "index.html"
    executed, *skipped, built = out.splitlines()
    assert executed.startswith(f"executed: {PAGE} (")
    assert skipped == [f"not executed: {page}: {ABSENT}" for page in notebooks.pages() if page != PAGE]
    assert built.endswith(f"the first page is {index}")

    # What was executed now is what is shown, with its figures, and beside what is published.
    page = BeautifulSoup((index.parent / "book" / "papers" / f"{PAGE}.html").read_text(encoding="utf-8"), "html.parser")
    assert "preset smoke" in page.select_one(".admonition.tip").get_text()
    described = notebooks.source_path(PAGE).read_text(encoding="utf-8").count("  figure:\n")
    assert len(page.select("figure img")) == described
    foot = page.select_one(".extra_footer a")["href"]
    assert (index.parent / "book" / "papers" / foot).resolve() == (index.parent / PDF).resolve()
    assert (index.parent / PDF).read_bytes() == b"%PDF"

    compared = BeautifulSoup((index.parent / "book" / "this_build.html").read_text(encoding="utf-8"), "html.parser")
    assert "numbers are in both" in compared.get_text()
    (took,) = (words.text for words in compared.select("p") if words.text.startswith("Executing and building took"))
    assert 1 < int(took.split()[4]) < 3600
    (link,) = compared.select("a[href*='/this_build/']")
    beside = (index.parent / "book" / link["href"]).resolve().read_text(encoding="utf-8")
    assert "now beside published" in beside
    assert "<td>preset</td>" in beside
    assert build.verify(site / "book") == []


def test_a_page_that_reads_others_comes_after_them(monkeypatch):
    after = {page: set(entry.get("after", [])) for page, entry in notebooks.pages().items()}
    assert after["comparison"] >= {"lafarge2019", "glastonbury2018"}
    assert set().union(*after.values()) <= after.keys()
    begun = []
    monkeypatch.setattr(build, "worker_count", lambda: 1)
    monkeypatch.setattr(build, "run_or_skip", lambda page, values, *_: begun.append((page, values)))
    assert list(build.execute_all({"preset": "quick", "nonsense": "1"})) == list(after)
    order = [page for page, _ in begun]
    assert all(order.index(first) < order.index(page) for page, firsts in after.items() for first in firsts)
    assert all(values == {"preset": "quick"} for _, values in begun)


@pytest.mark.slow
def test_pages_are_executed_by_other_processes_whose_errors_come_back(tmp_path):
    results = str(tmp_path / "runs")
    given = {"cells": {"preset": "smoke", "real": False, "results": results}}
    given[PAGE] = {"preset": "smoke", "screen": "planted", "results": results}
    folders = {page: tmp_path / "runs" / "pages" / page for page in given}
    after = {"cells": {PAGE}}
    with pytest.raises(CellbookError, match=r"page 'cells' did not run to its end: .*'vast'"):
        build.in_lanes(given | {"cells": given["cells"] | {"preset": "vast"}}, TopologicalSorter(after), 2)
    found = build.in_lanes(given, TopologicalSorter(after), 2)
    assert found == {PAGE: (folders[PAGE], False), "cells": (folders["cells"], True)}  # the first was done by then
    stamps = [(folder / "stamp.json").read_text(encoding="utf-8") for folder in folders.values()]
    assert all("executed" in stamp for stamp in stamps)
