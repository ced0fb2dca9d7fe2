"""A page for each published run: how it was made, from what, what it took, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cellbook.book import fragments, trained
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
        *trainings(readers[0], key),
        "## Products",
        "The record of the run has all digits of the checksums. In the repository they lie in",
        f"```text\nbook/results/{readers[0].name}/runs/{key}/\n```",
        fragments.markdown(
            ["product", "bytes", "SHA-256 begins with"], product_rows(record, folders[0]), right=["bytes"]
        ),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def command(folder: Path) -> str:
    """The command that executes a published page as it was."""
    stamp = read_json(folder / "stamp.json")
    return again(stamp["page"], stamp["parameters"])


def code(value: Any) -> str:
    """A value in a table; text of several words or none stays text."""
    return f"`{fragments.short(value)}`" if str(value).strip() and value != [] else "–"


def trainings(folder: Path, run: str) -> list[str]:
    """The trainings behind a run: what each took, and a section for all of one name; nothing if it has none."""
    table = trained.table(folder)
    table = table[table["run"] == run] if len(table) else table
    if table.empty:
        return []
    kept = trained.kept(folder)
    parts = [
        "## Its trainings",
        f"Each of these {len(table)} trainings is a run of its own. Its products stay in the store of whoever trained "
        f"it; its record is kept here ({{download}}`all of them <../../results/{folder.name}/{trained.TRAINED}>`)."
        if kept
        else "The record of a training on its own is not kept: this is what the run tells of them.",
    ]
    for name, some in table.groupby(trained.names(table), sort=False):
        parts += [f"({anchor(some['key'].iloc[0], run)})=\n### {name}", *of_one_name(some, kept)]
    return parts


def places(book: Path) -> dict[str, tuple[str, str]]:
    """The run on whose page each published training is told of, and where there."""
    found = {}
    for folder in fragments.published_pages(book):
        table = trained.table(folder)
        for _, some in table.groupby(["run", trained.names(table)], sort=False) if len(table) else ():
            run = str(some["run"].iloc[0])
            place = run, anchor(some["key"].iloc[0], run)
            found |= {key: found.get(key, place) for key in some["key"]}
    return found


def anchor(key: str, run: str) -> str:
    """Where the page of a run tells of a training and others of its name; runs may share trainings."""
    return f"training-{key}-of-{run}".replace("_", "-")


def of_one_name(some: pd.DataFrame, kept: dict[str, dict[str, Any]]) -> list[str]:
    """What there is of trainings of one name: a row each, what was given to all of them, and how their losses went."""
    head = ["repeat", "run", "seconds", "device", "precision", "memory (MiB)", "commit", "PyTorch", "data", "weights"]
    rows, losses = [], []
    for row in some.to_dict("records"):
        record = kept.get(row["key"], {})
        about = {"device": "–", "peak_memory_mib": "–", "fingerprint": ""} | row | record
        versions = record.get("versions", {})
        where = about["device"], about.get("precision", "–"), about["peak_memory_mib"], code(about.get("commit", ""))
        weights = trained.weights(record)
        which = code(versions.get("torch", "")), code(str(about["fingerprint"])[:12]), code(weights[:12])
        rows.append([row["repeat"], code(row["key"]), f"{row['seconds']:.0f}", *where, *which])
        losses += [{"repeat": row["repeat"]} | line for line in record.get("losses", [])]
    parts = [fragments.markdown(head, rows, right=["seconds", "memory (MiB)"])]
    records = [kept[key] for key in some["key"] if key in kept]
    if not records:
        return [*parts, "Of these the run keeps no more."] if kept else parts
    if command_line := trained.command(records[0]):
        parts.append(f"Alone, on a saved set of these cells: `{command_line}`, and for each repeat its seed.")
    given = ", ".join(f"{name} = {code(value)}" for name, value in records[0]["config"].items() if name != "seed")
    parts.append(f"Parameters: {given}.")
    if losses:
        names = list(dict.fromkeys(name for line in losses for name in line))
        lines = [[f"{line[n]:.5g}" if n in line else "" for n in names] for line in losses]
        parts += ["How the losses began and ended:", fragments.markdown(names, lines, right=names[1:])]
    return parts


def product_rows(record: dict[str, Any], folder: Path) -> list[list[str]]:
    """Each product, to be downloaded, with its size and checksum; the record of the run is the first."""
    at = f"../../results/{folder.parents[1].name}/runs/{folder.name}"
    rows = [[f"{{download}}`run.json <{at}/run.json>`", f"{(folder / 'run.json').stat().st_size:,}", "–"]]
    for name, product in record["products"].items():
        there = f"{{download}}`{name} <{at}/{name}>`" if (folder / name).exists() else f"`{name}`"
        rows.append([there, f"{product['bytes']:,}", f"`{product['sha256'][:16]}`"])
    return rows
