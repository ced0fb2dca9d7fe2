"""A page for each published run: how it was made, from what, what it took, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cellbook.book import fragments
from cellbook.book.build import again
from cellbook.files import read_json, write_text

TOLD = {
    "method": "method",
    "method_version": "version of the method",
    "fingerprint": "data",
    "started": "started",
    "seconds": "seconds",
    "device": "device",
    "precision": "precision",
    "peak_memory_mib": "peak memory (MiB)",
    "processes": "processes at a time, at most",
    "commit": "commit",
    "python": "Python",
    "system": "system",
}


def write(book: Path) -> None:
    """Write the pages of all published runs, and remove those of others."""
    wanted = {book / fragments.RUN_PAGES / f"{key}.md": page(key, folders) for key, folders in published(book).items()}
    for path in set((book / fragments.RUN_PAGES).glob("*.md")) - wanted.keys():
        path.unlink()
    for path, words in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != words:  # an unchanged page is not built again
            write_text(path, words)


def published(book: Path) -> dict[str, list[Path]]:
    """The folder of each published run, by its key, in every page that reads it."""
    found: dict[str, list[Path]] = {}
    for folder in fragments.published_pages(book):
        for run in read_json(folder / "stamp.json")["runs"]:
            found.setdefault(run["key"], []).append(folder / "runs" / run["key"])
    return found


def page(key: str, folders: list[Path]) -> str:
    """The page of a run, in Markdown."""
    record, names = read_json(folders[0] / "run.json"), fragments.titles()
    readers = [folder.parents[1] for folder in folders]
    parts = [
        f"(run-{key})=\n# {key}",
        "Read by " + ", ".join(f"[{names.get(r.name, r.name)}](/book/papers/{r.name}.ipynb)" for r in readers) + ".",
        "Made by executing the page; a run that is in the store already is taken from there:",
        "```bash\n" + "\n".join(command(reader) for reader in readers) + "\n```",
        "## How it was made",
        fragments.markdown(["what", "value"], [[TOLD[n], code(record[n])] for n in TOLD if n in record]),
        fragments.markdown(["package", "version"], record["versions"].items()),
        "## Configuration",
        fragments.markdown(["name", "value"], [[f"`{n}`", code(v)] for n, v in record["config"].items()]),
        *trainings(folders[0] / "trainings.parquet"),
        "## Products",
        "They lie in the repository, beside the run's record `run.json` with all digits of the checksums:",
        f"```text\nbook/results/{readers[0].name}/runs/{key}/\n```",
        fragments.markdown(["product", "bytes", "SHA-256 begins with"], product_rows(record), right=["bytes"]),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def command(folder: Path) -> str:
    """The command that executes a published page as it was."""
    stamp = read_json(folder / "stamp.json")
    return again(stamp["page"], stamp["parameters"])


def code(value: Any) -> str:
    """A value in a table; text of several words or none stays text."""
    return f"`{fragments.short(value)}`" if str(value).strip() and value != [] else "–"


def trainings(path: Path) -> list[str]:
    """What each training behind a run took; nothing if it has none."""
    if not path.exists():
        return []
    table = pd.read_parquet(path)
    names = [
        name for name in ("source", "variant", "repeat", "key", "seconds", "device", "fingerprint") if name in table
    ]
    shown = table[names].rename(columns={"key": "run", "fingerprint": "data"}).astype(object)
    rows = [
        [code(value) if name in ("run", "data") else value for name, value in row.items()]
        for _, row in shown.iterrows()
    ]
    return ["## Where the time went: its trainings", fragments.markdown(list(shown.columns), rows, right=["seconds"])]


def product_rows(record: dict[str, Any]) -> list[list[str]]:
    """Name, size and checksum of each product."""
    return [[f"`{n}`", f"{p['bytes']:,}", f"`{p['sha256'][:16]}`"] for n, p in record["products"].items()]
