"""Whether a published page is what its source would give today: changes are seen, named, and refused if they count."""

import json
import shutil
import subprocess

import pandas as pd
import pytest

from cellbook.book import build, freshness, notebooks

BOOK = notebooks.root() / "book"
PAGES = [page for page in notebooks.pages() if (BOOK / "results" / page).exists()]


@pytest.fixture
def folder(tmp_path):
    """A copy of a published page's results."""
    return shutil.copytree(BOOK / "results" / "lafarge2019", tmp_path / "lafarge2019")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_another_notebook_another_version_and_another_training_are_stale(folder, monkeypatch):
    run = next((folder / "runs").glob("lafarge2019-*/run.json"))
    change(folder / "stamp.json", source="0" * 64)
    change(run, method_version=json.loads(run.read_text(encoding="utf-8"))["method_version"] + 1)
    changed, version = freshness.stale(folder)
    assert "notebook has changed" in changed
    assert "is of version 4, the present one is 3" in version
    assert freshness.line(folder).startswith("*Stale:*")

    from cellbook.methods import vae_plus

    monkeypatch.setattr(vae_plus, "VERSION", 99)
    trainings = pd.read_parquet(run.with_name("trainings.parquet"))
    assert f"{len(trainings)} are of another version" in freshness.stale(folder)[-1]


def test_a_version_is_that_of_whoever_makes_the_run():
    from cellbook.pages import cells, lafarge2019
    from cellbook.pages.cells import enough
    from cellbook.study import transferred

    assert freshness.version_now("lafarge2019", "lafarge2019-sample") == lafarge2019.config.VERSION
    assert freshness.version_now("cells-simulated", "cells") == cells.config.VERSION
    assert freshness.version_now("cells-enough", "cells") == enough.VERSION
    assert freshness.version_now("baseline", "caicedo2018") == transferred.VERSION


def test_every_published_run_is_of_a_method_whose_version_is_known():
    for page in PAGES:
        for run in (BOOK / "results" / page / "runs").iterdir():
            method = json.loads((run / "run.json").read_text(encoding="utf-8"))["method"]
            assert freshness.version_now(method, page) is not None, method


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of a page that uses one module, which uses another; a third is used by none."""
    root = tmp_path / "checkout"
    for name, text in {
        "cellbook/__init__.py": "",
        "cellbook/used.py": "def f():\n    from cellbook import below\n",
        "cellbook/below.py": "x = 1\n",
        "cellbook/apart.py": "y = 1\n",
        "_toc.yml": "",
        "notebooks/pages.yml": "p:\n  notebook: p\n",
        "notebooks/p.md": "```{code-cell} ipython3\nfrom cellbook.used import f\n```\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(notebooks, "ROOT", root)
    freshness.modules.cache_clear()
    yield root
    freshness.modules.cache_clear()


def git(root, *words):
    told = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *told, *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def stamped(root, commit):
    folder = root / "book" / "results" / "p"
    (folder / "runs").mkdir(parents=True)
    about = {"page": "p", "source": notebooks.source_digest("p"), "code": freshness.code_digest(), "commit": commit}
    (folder / "stamp.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def test_of_changed_modules_those_are_named_that_the_page_uses(repository):
    git(repository, "init")
    git(repository, "add", ".")
    git(repository, "commit", "-m", "one")
    folder = stamped(repository, git(repository, "rev-parse", "--short=10", "HEAD"))
    assert freshness.change(folder) == ""
    (repository / "cellbook/apart.py").write_text("y = 2\n", encoding="utf-8")
    assert freshness.change(folder) == ""
    (repository / "cellbook/below.py").write_text("x = 2\n", encoding="utf-8")
    assert freshness.change(folder) == "1 of 3 modules have changed since: `cellbook.below`"
    git(repository, "commit", "-am", "two")
    assert freshness.change(folder) == "1 of 3 modules have changed since: `cellbook.below`"
    assert freshness.stale(folder) == []


def test_without_history_only_that_something_changed_can_be_told(repository):
    folder = stamped(repository, "0123456789")
    assert freshness.change(folder) == ""
    (repository / "cellbook/apart.py").write_text("y = 2\n", encoding="utf-8")
    assert "cannot be told" in freshness.change(folder)
    assert "cannot be told" in freshness.line(folder)


def test_verify_refuses_a_stale_page_and_on_demand_one_whose_code_has_changed(tmp_path, monkeypatch):
    book = tmp_path / "book"
    shutil.copytree(BOOK, book)
    monkeypatch.setattr(build.results, "verify_page", lambda folder: [])
    before = build.verify(book)
    change(book / "results/classical/stamp.json", source="0" * 64)
    (new,) = set(build.verify(book)) - set(before)
    assert new == "classical: its notebook has changed since it was executed"
    monkeypatch.setattr(freshness, "change", lambda folder: "something" if folder.name == "cells" else "")
    assert "cells: something" in build.verify(book, code=True)
    assert "cells: something" not in build.verify(book)
