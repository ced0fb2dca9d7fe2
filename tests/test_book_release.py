"""A release: refused while anything is stale, whole with the checksum of each file, and plain about what it lacks."""

import zipfile

import pytest

from cellbook.book import build, notebooks, release, rendering
from cellbook.errors import CellbookError
from cellbook.files import sha256


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A checkout whose site is built already; nothing in it is stale, and there are a browser and a network."""
    site = tmp_path / "_build" / "html"

    def built(root):
        site.mkdir(parents=True, exist_ok=True)
        for name in ("index.html", "results.json", rendering.PDF):
            (site / name).write_text(name, encoding="utf-8")
        return site / "index.html"

    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    (tmp_path / "_toc.yml").touch()
    monkeypatch.setattr(build, "verify", lambda book, *, code: [])
    monkeypatch.setattr(rendering, "build_and_print", built)
    monkeypatch.setattr(rendering, "broken_links", lambda root: ([], 3))
    monkeypatch.setattr(rendering, "browser", lambda: "/usr/bin/browser")
    return tmp_path


def packed(path):
    path.write_bytes(b"weights")
    return []


def test_a_release_has_every_file_and_its_checksum(book):
    out = book / "_build" / "release"
    out.mkdir(parents=True)
    (out / "old.txt").touch()
    assert release.make(book, out, packed) == []
    lines = (out / release.SUMS).read_text(encoding="utf-8").splitlines()
    assert {line.split("  ")[1] for line in lines} | {release.SUMS} == {path.name for path in out.iterdir()}
    assert {line.split("  ")[1] for line in lines} == {"site.zip", "weights.zip", "results.json", rendering.PDF}
    for line in lines:
        checksum, name = line.split("  ")
        assert sha256(out / name) == checksum
    with zipfile.ZipFile(out / "site.zip") as site:
        assert "index.html" in site.namelist()


def test_a_stale_page_is_refused_and_an_earlier_release_stays(book, monkeypatch):
    out = book / "_build" / "release"
    release.make(book, out, packed)
    before = (out / release.SUMS).read_bytes()
    monkeypatch.setattr(build, "verify", lambda book, *, code: ["page: 1 of 2 modules have changed"] if code else [])
    with pytest.raises(CellbookError, match=r"no release: 1 faults, .* 1 of 2 modules have changed"):
        release.make(book, out, packed)
    assert (out / release.SUMS).read_bytes() == before


def test_what_a_release_lacks_is_said_and_the_rest_is_made(book, monkeypatch, run_main):
    def no_network(root):
        raise CellbookError("none of the 3 addresses can be reached")

    monkeypatch.setattr(rendering, "browser", lambda: None)
    monkeypatch.setattr(rendering, "broken_links", no_network)
    code, out, _ = run_main("release", "--store", book / "empty")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("lacks")] == [
        "lacks the PDF: there is no browser that could print it",
        "lacks the check of links: none of the 3 addresses can be reached",
    ]
    assert (book / "_build" / "release" / "site.zip").exists()
    monkeypatch.setattr(rendering, "broken_links", lambda root: (["a.md: u: 404"], 3))
    assert release.broken(book) == ["a link: a.md: u: 404"]
