"""Pieces of pages that are generated from `book/results/`: no number on a prose page is typed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cellbook.book import front, notebooks, scale, trained
from cellbook.claims import VERDICTS
from cellbook.files import read_json, sha256, write_atomically

WORKERS = 1000  # of a cluster for which the costs of a large screen are told
RUN_PAGES = "_generated/runs"  # of the book; made at every build, see `run_pages`


def published_pages(book: Path) -> list[Path]:
    """Folders of the published results, in the order of the book."""
    order = list(notebooks.pages())
    folders = [path.parent for path in (book / "results").glob("*/page.json")]
    return sorted(folders, key=lambda folder: order.index(folder.name) if folder.name in order else len(order))


def read(path: Path) -> pd.DataFrame:
    """Read a stored table with every digit; a table without rows has no columns either."""
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        return pd.DataFrame()
    return pd.read_csv(path)


def results_json(book: Path) -> str:
    """All published numbers, verdicts, claims and stamps as one JSON text, tables column by column, for the site."""
    content: dict[str, Any] = {"about": "Published results of the book Cellbook; proportions from 0 to 1.", "pages": {}}
    for folder in published_pages(book):
        stamp = read_json(folder / "stamp.json")
        tables = {name: read(folder / f"{name}.csv") for name in ("numbers", "verdicts", "claims")}
        content["pages"][folder.name] = {
            "stamp": stamp,
            "run_pages": {run["key"]: f"book/{RUN_PAGES}/{run['key']}.html" for run in stamp["runs"]},
            "page_json_sha256": sha256(folder / "page.json"),
            **{name: columns(table) for name, table in tables.items()},
        }
    return json.dumps(content, separators=(",\n", ":"), ensure_ascii=False) + "\n"  # a value a line


def records(book: Path) -> str:
    """A digest of the record of every published page, and of those of its trainings, so that an edit is found."""
    folders = published_pages(book)
    found = {folder.name: sha256(folder / "page.json") for folder in folders}
    found |= {
        f"{f.name}/{trained.TRAINED}": sha256(f / trained.TRAINED) for f in folders if (f / trained.TRAINED).exists()
    }
    return json.dumps(found, indent=1) + "\n"


def columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns of a table as plain values; what is missing is null."""
    found = json.loads(table.to_json(orient="split", double_precision=15))
    return {name: [row[place] for row in found["data"]] for place, name in enumerate(found["columns"])}


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> str:
    """A table in Markdown; the columns named in `right` are flush right."""
    marks = ["---:" if name in right else "---" for name in head]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in (head, marks, *rows))


def verdict_counts(table: pd.DataFrame) -> dict[str, int]:
    """How many rows of a table of verdicts got each of them."""
    return {verdict: int((table["verdict"] == verdict).sum()) if len(table) else 0 for verdict in VERDICTS}


def titles() -> dict[str, str]:
    """What the table of contents calls each page; else the first heading of its source."""
    contents = yaml.safe_load((notebooks.root() / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in contents["parts"] for chapter in part["chapters"]]
    named = {chapter["file"]: chapter["title"] for chapter in chapters if "title" in chapter}
    return {page: named.get(f"book/papers/{page}") or heading(page) for page in notebooks.pages()}


def apart(page: str) -> str:
    """What tells a page from others of its notebook, in the words of the table of contents; empty if it is alone."""
    pages, named = notebooks.pages(), titles()
    same = [one for one, entry in pages.items() if entry["notebook"] == pages[page]["notebook"]]
    first, own = (re.split("[:,] ", named[one]) for one in (same[0], page))
    return "" if len(same) < 2 else next((part for part in own if part not in first), first[-1])


def heading(page: str) -> str:
    """The first heading of a page's source."""
    lines = notebooks.source_path(page).read_text(encoding="utf-8").splitlines()
    return next((line[2:].strip() for line in lines if line.startswith("# ")), page)


def summary(book: Path) -> str:
    """State of the results, two rows a page: verdicts on published numbers, and on claims."""
    rows, names = [], titles()
    for folder in published_pages(book):
        stamp = read_json(folder / "stamp.json")
        made = f"{stamp['parameters'].get('preset')}, {trained_on(folder) or stamp['device']}"
        name = f"[{names.get(folder.name, folder.name)}](/book/papers/{folder.name}.ipynb)"
        for kind, file in (("numbers", "verdicts"), ("claims", "claims")):
            table = read(folder / f"{file}.csv")
            if len(table):
                rows.append([name, kind, *verdict_counts(table).values(), made])
                name = made = ""
    return markdown(["page", "judged", *VERDICTS, "preset, device"], rows, right=VERDICTS)


def trained_on(folder: Path) -> str:
    """Devices on which the trainings of a page were made; empty where it has none."""
    return devices(trained.table(folder))


def front_page(book: Path) -> str:
    """Head of the first page: the answer of the published comparison, if there is one, and the state of all claims."""
    names, claims = titles(), {}
    for folder in published_pages(book):
        tables = read(folder / "claims.csv"), read(folder / "numbers.csv")
        if len(tables[0]):
            claims[folder.name] = (names.get(folder.name, folder.name), *tables)
    decisions, real = (read(book / "results" / page / "decisions.csv") for page in (front.PAGE, front.REAL))
    head = front.answer(decisions, real) + "\n" if len(decisions) else ""
    return head + front.claims_chart(claims)


def status(book: Path) -> str:
    """When, where and from what each page was made."""
    rows, names = [], titles()
    for folder in published_pages(book):
        stamp = read_json(folder / "stamp.json")
        made = f"{stamp['device']}; {stamp['system']}", f"`{stamp['commit']}`", f"`{stamp['code'][:10]}`"
        rows.append([names.get(folder.name, folder.name), stamp["executed"][:10], *made, stamp["python"]])
    return markdown(["page", "executed", "machine", "commit", "library", "Python"], rows)


def costs(book: Path) -> str:
    """Where the time goes: a page's execution, the runs that it reads by their method, and its trainings."""
    rows, names = [], titles()
    for folder in published_pages(book):
        stamp = read_json(folder / "stamp.json")
        records = pd.DataFrame([read_json(folder / "runs" / run["key"] / "run.json") for run in stamp["runs"]])
        parts = {"execution": pd.DataFrame([stamp | {"seconds": stamp["wall_seconds"]}])}
        parts |= {f"`{method}`": part for method, part in records.groupby("method", sort=False)}
        name = names.get(folder.name, folder.name)
        for part, table in (parts | {"trainings": trained.table(folder)}).items():
            if len(table):
                cost = duration(table["seconds"].sum()), devices(table) or "–", memory(table)
                rows.append([name, part, "" if name else len(table), *cost])
                name = ""
    return markdown(["page", "part", "runs", "time", "device", "memory"], rows, right=["runs", "time", "memory"])


def duration(seconds: float) -> str:
    """A time in the unit that it is read in."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def devices(records: pd.DataFrame) -> str:
    """Devices that records name."""
    return " and ".join(sorted(records["device"].dropna().unique())) if "device" in records else ""


def memory(records: pd.DataFrame) -> str:
    """Peak memory of what needed most; a dash where one of them tells of a single process only, as old records do."""
    if "processes" not in records or not (records["processes"] > 0).all():
        return "–"
    return f"{records['peak_memory_mib'].max() / 1024:.1f} GiB"


def runs_table(book: Path) -> str:
    """Every run behind a published number."""
    rows = []
    for folder in published_pages(book):
        for run in read_json(folder / "stamp.json")["runs"]:
            config = "; ".join(f"{name} = {short(value)}" for name, value in run["config"].items())
            data = f"`{run['fingerprint'][:12]}`"
            key = f"[`{run['key']}`](/book/{RUN_PAGES}/{run['key']}.md)"
            rows.append([key, folder.name, data, config, duration(run["seconds"])])
    return markdown(["run", "page", "data", "configuration", "time"], rows)


def short(value: Any) -> str:
    """A configuration value on one line."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def versions(book: Path) -> str:
    """Package versions under which the pages were executed."""
    found: dict[str, dict[str, str]] = {
        folder.name: read_json(folder / "stamp.json")["versions"] for folder in published_pages(book)
    }
    rows = []
    for name in sorted({name for table in found.values() for name in table}, key=str.lower):
        pages: dict[str, list[str]] = {}
        for page, table in found.items():
            pages.setdefault(table.get(name, "–"), []).append(page)
        rows += [[name, number, "all" if len(pages) == 1 else ", ".join(on)] for number, on in pages.items()]
    return markdown(["package", "version", "pages"], rows)


def determinism() -> str:
    """How far two trainings with one seed are apart, from `benchmarks/determinism.csv`.

    Which models gave the same bits, a sentence a device, and a row for each that did not.
    """
    table = read(notebooks.root() / "benchmarks" / "determinism.csv")
    if table.empty:
        return "Not measured.\n"
    same = (table["weights"] == 0) & (table["codes"] == 0)
    said = [
        f"The same bits twice, {device}, torch {torch}, {steps} steps: {'; '.join(part['model'])}.\n"
        for (device, torch, steps), part in table[same].groupby(["device", "torch", "steps"], sort=False)
    ]
    rows = [
        [line.model, line.device, line.torch, line.steps, f"{line.weights:.2g}", f"{line.codes:.2g}"]
        for line in table[~same].itertuples()
    ]
    head = ["model", "device", "torch", "steps", "weights differ by", "codes differ by"]
    return "\n".join(said + ([markdown(head, rows, right=head[3:])] if rows else []))


def speed() -> str:
    """What was timed beside what, one row a line, from the tables beside the scripts in `benchmarks/`."""
    rows = []
    for path in sorted((notebooks.root() / "benchmarks").glob("*.csv")):
        table = read(path)
        name = f"`{path.stem}`"
        for line in table.itertuples() if {"faster", "machine", "unit"} <= set(table) else ():
            beside = [f"{line.faster:.3g}", line.beside] if line.faster > 0 else ["", ""]
            rows.append([name, line.what, f"{line.value:.3g} {line.unit}", *beside, line.threads, line.machine])
            name = ""
    head = ["script", "what", "speed", "times as fast", "as", "threads", "machine"]
    return markdown(head, rows, right=["speed", "times as fast", "threads"]) if rows else "Not measured.\n"


def plate_rates() -> str:
    """How fast plates are made, one row an encoder, from `benchmarks/plates.csv`."""
    table = read(notebooks.root() / "benchmarks" / "plates.csv")
    if table.empty:
        return "Not measured.\n"
    rows = []
    for line in scale.rates(table).itertuples():
        plates = f"{line.plates_one:.3f}", f"{line.plates_two:.3f}", f"{line.ratio:.2f}"
        rows.append([f"`{line.encoder}`", *plates, f"{line.cells:.0f}", f"{line.gib:.1f} GiB"])
    head = ["encoder", "plates/s, one worker", "two workers", "ratio", "cells/s, one worker", "memory"]
    first = table.iloc[0]
    said = f"{first['plates']} plates of {first['fields'] // first['plates']} fields and "
    said += f"{first['cells'] / first['plates']:,.0f} cells each; "
    pairs = table["pair"].nunique()
    said += "one pair of runs" if pairs == 1 else f"medians of {pairs} pairs of runs"
    return f"{markdown(head, rows, right=head[1:])}\n{said}; {' and '.join(table['machine'].unique())}.\n"


def screen_costs() -> str:
    """What the screen of `benchmarks/jump.csv` would cost at the measured speed: its size, then one row an encoder."""
    table, known = (read(notebooks.root() / "benchmarks" / f"{name}.csv") for name in ("plates", "jump"))
    if known.empty:
        return "Not measured.\n"
    screen = known.set_index("what")["number"].to_dict()
    size = {name: f"{screen[name]:,}" for name in ("plates", "wells", "fields", "cells", "channels")}
    size |= {"images": f"{screen['bytes'] / 1e12:.0f} TB"}
    size_table = markdown(list(size), [list(size.values())], right=list(size))
    if table.empty:
        return f"{size_table}\nWhat it would cost is not measured.\n"
    rows = []
    for line in scale.costs(table, screen, WORKERS).itertuples():
        hours = f"{line.cutting:,.0f}", f"{line.encoding:,.0f}", f"{line.both:,.0f}", f"{line.plate:.1f}"
        rows.append([f"`{line.encoder}`", *hours, f"{line.days:.1f}", f"{line.gigabytes:.1f}"])
    head = ["encoder", "cutting, h", "encoding, h", "both, h", "a plate, h"]
    head += [f"{WORKERS:,} workers, days", "reading, GB/s"]
    crops = scale.scratch(table, screen) / scale.GB
    return (
        f"{size_table}\n"
        f"{markdown(head, rows, right=head[1:])}\n"
        f"While it is made, the crops of a plate take {crops:.0f} GB.\n"
    )


def protocols() -> str:
    """The named protocols, each as a definition list of what it does."""
    from cellbook.metrics import PROTOCOLS, describe

    parts = [
        f"### `{name}`\n\n" + markdown(["what", "how"], describe(protocol)) for name, protocol in PROTOCOLS.items()
    ]
    return "\n".join(parts) + "\n"


def fragments(book: Path) -> dict[Path, bytes]:
    """Every generated file and what is in it."""
    texts = {
        book / "results" / "records.json": records(book),
        book / "_generated" / "summary.md": summary(book),
        book / "_generated" / "status.md": status(book),
        book / "_generated" / "costs.md": costs(book),
        book / "_generated" / "runs.md": runs_table(book),
        book / "_generated" / "weights.sha256": trained.checksums(published_pages(book)),
        book / "_generated" / "versions.md": versions(book),
        book / "_generated" / "protocols.md": protocols(),
        book / "_generated" / "front.md": front_page(book),
        book / "_generated" / "determinism.md": determinism(),
        book / "_generated" / "speed.md": speed(),
        book / "_generated" / "plate_rates.md": plate_rates(),
        book / "_generated" / "screen_costs.md": screen_costs(),
    }
    return {path: text.encode() for path, text in texts.items()}


def write_fragments(book: Path) -> None:
    """Write every generated file that has changed."""
    for path, content in fragments(book).items():
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, partial(_write, content))


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def stale_fragments(book: Path) -> list[str]:
    """One sentence for each generated file that does not follow from the stored results."""
    faults = []
    for path, content in fragments(book).items():
        name = path.relative_to(book).as_posix()
        if not path.exists():
            faults.append(f"{name} is missing")
        elif path.read_bytes() != content:
            faults.append(f"{name} does not follow from the stored results")
    return faults
