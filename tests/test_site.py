"""The built book: a strict build that runs nothing, links that lead somewhere, pages that a browser shows whole."""

import json
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from cellbook.book import build, notebooks, rendering
from cellbook.errors import CellbookError

# A session's own build when the book was not built just before (`make test` builds it and says where).
WIDTHS = {"wide": 1280, "narrow": 390}


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Folder of the built HTML."""
    if named := os.environ.get("CELLBOOK_SITE"):
        return Path(named).resolve()
    folder = tmp_path_factory.mktemp("site")
    root = notebooks.root()
    shutil.copytree(root / "book", folder / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copyfile(root / name, folder / name)
    return build.build(folder).parent


@pytest.fixture(scope="session")
def pages(site):
    """Every page of the book: path -> parsed HTML."""
    found = [site / "book" / "index.html", *sorted((site / "book").rglob("*.html"))]
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in dict.fromkeys(found)}


def test_every_executed_page_is_in_the_site(site):
    for page in notebooks.pages():
        assert (site / "book" / "papers" / f"{page}.html").exists()


def test_results_are_at_their_fixed_address(site):
    content = json.loads((site / "results.json").read_text(encoding="utf-8"))["pages"]
    assert list(content) == list(notebooks.pages())
    numbers = pd.read_csv(notebooks.root() / "book" / "results" / "cells" / "numbers.csv")
    np.testing.assert_allclose(np.array(content["cells"]["numbers"]["value"], float), numbers["value"], rtol=1e-12)


def test_internal_links_lead_somewhere(site, pages):
    lost = []
    for path, page in pages.items():
        for link in page.select("a[href]"):
            parts = urlsplit(link["href"])
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                lost.append(f"{path.name}: {link['href']}")
            elif parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                if not pages[target].find(id=anchor) and not pages[target].find(attrs={"name": anchor}):
                    lost.append(f"{path.name}: {link['href']} (no such anchor)")
    assert lost == []


def test_every_image_has_alt_text_in_words(pages):
    without = [
        f"{path.name}: {image['src']}"
        for path, page in pages.items()
        for image in page.select("article img")
        if len(image.get("alt", "").split()) < 3
    ]
    assert without == []


def test_figures_of_executed_pages_have_captions_and_numbers(pages):
    for path, page in pages.items():
        if path.parent.name == "papers":
            figures = page.select("figure")
            assert figures
            for figure in figures:
                assert figure.select_one("figcaption .caption-number"), path.name
                assert len(figure.select_one("figcaption").get_text()) > 40


def test_pages_load_nothing_from_elsewhere(pages):
    remote = [
        f"{path.name}: {tag.get('src') or tag.get('href')}"
        for path, page in pages.items()
        for tag in page.select("script[src], link[rel=stylesheet], img[src], iframe[src]")
        if urlsplit(tag.get("src") or tag.get("href") or "").netloc
    ]
    assert remote == []


def test_no_page_carries_a_path_of_the_machine_that_built_it(pages):
    for path, page in pages.items():
        text = page.get_text()
        assert str(Path.home()) not in text, path.name
        assert str(notebooks.root()) not in text, path.name


@pytest.fixture(scope="session")
def chromium():
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*options, "--disable-sync"])
        yield browser
        browser.close()


@pytest.mark.browser
def test_no_table_is_cut_on_a_usual_screen_and_all_scroll_on_a_narrow_one(chromium, pages):
    """A table fits its box, but where the window is narrow, and then the page does not grow with it."""
    wider = """[...document.querySelectorAll('article table')].map(table => {
        let box = table.parentElement
        while (!['auto', 'scroll'].includes(getComputedStyle(box).overflowX) && box.tagName != 'ARTICLE')
            box = box.parentElement
        return [table.scrollWidth - box.clientWidth, box.tagName]
    })"""
    faults = []
    for width in (1400, 800, 400):
        tab = chromium.new_page(viewport={"width": width, "height": 900})
        for path in pages:
            tab.goto(path.as_uri())
            for number, (excess, box) in enumerate(tab.evaluate(wider), 1):
                if excess > 1 and (width == 1400 or box == "ARTICLE"):
                    faults.append(f"{path.name}, table {number}: {excess} pixels too wide in {box} at {width}")
        tab.close()
    assert faults == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_in_a_real_browser(chromium, pages, width, scheme):
    context = chromium.new_context(viewport={"width": WIDTHS[width], "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    faults = []
    tab.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    tab.on("requestfailed", lambda request: faults.append(f"not loaded: {request.url}"))
    for path, page in pages.items():
        tab.goto(path.as_uri())
        tab.wait_for_load_state("load")
        if page.select(".math"):
            tab.wait_for_selector("mjx-container", timeout=20_000)
        overflow = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if overflow > 1:
            faults.append(f"{path.name}: {overflow} pixels wider than the window")
        broken = tab.evaluate(
            "[...document.querySelectorAll('article img')].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        )
        faults += [f"{path.name}: image not shown: {source}" for source in broken]
        shown = tab.evaluate("document.documentElement.dataset.theme")
        if shown != scheme:
            faults.append(f"{path.name}: theme {shown} instead of {scheme}")
    context.close()
    assert faults == []


@pytest.mark.browser
@pytest.mark.slow
def test_the_book_as_one_file_has_all_figures_and_no_path_of_this_machine(tmp_path):
    for name in ("book", "_config.yml", "_toc.yml"):
        source = notebooks.root() / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / name)
    pdf = rendering.print_book(tmp_path)
    content = pdf.read_bytes()
    assert content.count(b"/Type /Page\n") > 50
    assert str(tmp_path).encode() not in content
    assert b"file://" not in content
    pages = tmp_path / "_build" / "singlehtml" / "cellbook.html"
    shown = BeautifulSoup(pages.read_text(encoding="utf-8"), "html.parser")
    assert len(shown.select("article img[src$='.png']")) > 50
    assert shown.select(".math")
    assert rendering.missing(pages, pdf) == []


@pytest.mark.browser
def test_a_figure_that_was_not_printed_is_missed(tmp_path):
    from matplotlib.figure import Figure

    for name, size in (("a", 3), ("b", 4)):
        Figure(figsize=(size, 2)).savefig(tmp_path / f"{name}.png")
    page, pdf = tmp_path / "page.html", tmp_path / "page.pdf"
    page.write_text('<img alt="" src="a.png" /><img alt="" src="b.png" />', encoding="utf-8")
    rendering.print_page(page, pdf)
    for lost in ('<img alt="" src="gone.png" />', '<p style="display: none"><img alt="" src="b.png" /></p>'):
        page.write_text(f'<img alt="" src="a.png" />{lost}', encoding="utf-8")
        before = pdf.read_bytes()
        with pytest.raises(CellbookError, match=r"1 figures are not in the PDF .*: (gone|b)\.png"):
            rendering.print_page(page, pdf)
        assert pdf.read_bytes() == before
