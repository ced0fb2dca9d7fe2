"""Whether a published page is what notebook and code would give today, or what has changed since it was executed."""

from __future__ import annotations

import ast
import importlib
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cellbook.book import notebooks
from cellbook.book.drawn import text
from cellbook.configure import restore
from cellbook.files import digest, read_json

SHOWN = 4  # changed modules that are named on a page


def line(folder: Path) -> str:
    """One line on a published page's freshness, in Markdown."""
    commit = f"commit `{read_json(folder / 'stamp.json')['commit']}`"
    if faults := stale(folder):
        return f"*Stale:* {'; '.join(faults)}."
    if found := change(folder):
        return f"The notebook is that of {commit}; {found}."
    return f"*Fresh:* the notebook and all modules that it uses are those of {commit}."


def change(folder: Path) -> str:
    """What has changed in the code that a published page was executed with, in words; empty if nothing has."""
    stamp = read_json(folder / "stamp.json")
    if stamp["code"] == code_digest():
        return ""
    read = modules(stamp["page"])
    changed = changed_since(stamp["commit"], read)
    if changed is None:
        return "the library has changed since, and where cannot be told without the history of the code"
    names = [f"`{dotted(path)}`" for path in changed[:SHOWN]]
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"{len(changed)} of {len(read)} modules have changed since: {', '.join(names)}{more}" if changed else ""


def stale(folder: Path) -> list[str]:
    """Why a published page has to be executed again: another notebook, or methods of another version."""
    stamp = read_json(folder / "stamp.json")
    page = stamp["page"]
    faults = []
    if page not in notebooks.pages():
        return [f"the book has no page {page!r} any more"]
    if stamp["source"] != notebooks.source_digest(page):
        faults.append("its notebook has changed since it was executed")
    for run in sorted((folder / "runs").glob("*/run.json")):
        record = read_json(run)
        now = version_now(record["method"], page)
        if now not in (None, record["method_version"]):
            faults.append(f"run {record['key']} is of version {record['method_version']}, the present one is {now}")
        if lost := old_trainings(run.parent, record, page):
            faults.append(f"of the trainings of {record['key']}, {lost} are of another version than the present one")
    return faults


def version_now(method: str, page: str) -> int | None:
    """The present version of what makes runs of this name for a page; None if nobody says.

    A run of the name of a page's notebook, alone or with a part behind it, is made by the page; so is a baseline with a
    part behind it.
    """
    study = f"cellbook.pages.{notebooks.page_entry(page)['notebook']}"
    part = method.removeprefix(study.rpartition(".")[2]).removeprefix("baseline").lstrip("-") or "config"
    homes = (f"{study}.{part}", f"{study}.config") if method != "baseline" else ("cellbook.study.transferred",)
    for home in homes:
        with suppress(ImportError, AttributeError):
            return int(importlib.import_module(home).VERSION)
    return None


def old_trainings(run: Path, record: dict[str, Any], page: str) -> int:
    """How many trainings behind a run are not those that its configuration asks for today.

    0 where the study has no list of them.
    """
    import pandas as pd

    study = importlib.import_module(f"cellbook.pages.{notebooks.page_entry(page)['notebook']}.config")
    if not (run / "trainings.parquet").exists() or not hasattr(study, "trainings"):
        return 0
    table = pd.read_parquet(run / "trainings.parquet")
    if "fingerprint" not in table:
        return 0
    key_of = importlib.import_module("cellbook.study.trainings").key_of
    asked = study.trainings(restore(study.Config, record["config"]))
    screens = [SimpleNamespace(fingerprint=name) for name in table["fingerprint"].unique()]
    return len(set(table["key"]) - {key_of(one, cells) for one in asked for cells in screens})


def code_digest() -> str:
    """Digest of the package's source: a page executed under another one is executed again."""
    package = notebooks.ROOT / "cellbook"
    return digest([path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))])


def changed_since(commit: str, files: list[str]) -> list[str] | None:
    """Those of these files, from the root of the checkout, that differ from a commit; None where nobody can tell.

    That is outside of a checkout, where the commit is not known, and where files had been changed since that commit.
    """
    if commit.endswith("+") or commit == "unknown":
        return None
    command = ["git", "diff", "--name-only", "--no-renames", commit, "--", *files]
    try:
        done = subprocess.run(command, cwd=notebooks.root(), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.split()


@cache
def modules(page: str) -> list[str]:
    """Files of the modules that a page's notebook uses, directly or through others, from the root of the checkout."""
    notebook = notebooks.read_source(notebooks.source_path(page))
    source = "\n".join(text(cell) for cell in notebook.cells if cell.cell_type == "code")
    todo, found = [*needed(source)], set[str]()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += needed((notebooks.root() / path).read_text(encoding="utf-8"))
    return sorted(found)


def needed(source: str) -> Iterator[str]:
    """Files of the package that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] == "cellbook":
                stem = name.replace(".", "/")
                for path in (f"{stem}.py", f"{stem}/__init__.py"):
                    if (notebooks.root() / path).is_file():
                        yield path


def dotted(path: str) -> str:
    """Name of a module by its file."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
