"""Executing the book's pages, publishing them, and building the site.

Three doors that never mix: `jupyter-book build .` renders the committed pages and runs nothing; `remake` executes
every page into a build folder and shows each number beside the published one; `publish` replaces committed pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellbook.book import notebooks, results
from cellbook.book.fragments import markdown, stale_fragments, write_fragments
from cellbook.claims import KEYS
from cellbook.errors import CellbookError, DataNotFound
from cellbook.files import alone, digest, put_folder, read_json, sha256, write_json, write_text, writing
from cellbook.machine import PeakMemory
from cellbook.runs import UNVERIFIED, Run, environment

if TYPE_CHECKING:
    from nbformat import NotebookNode


def code_digest() -> str:
    """Digest of the package's source: a page executed under another one is executed again."""
    package = notebooks.ROOT / "cellbook"
    return digest([path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))])


def run_page(page: str, given: dict[str, Any], *, force: bool = False, echo: bool = False) -> tuple[Path, bool]:
    """Execute a page into `<results>/pages/<page>/`, cleaned and stamped.

    Returns the folder, and whether it was executed now: a page with the same source, parameters and code that is
    already there is left as it is.
    """
    values = notebooks.check_parameters(page, given)
    # A notebook's working folder is the checkout, and not the one in which a screen of one's own was named.
    if "screen" in given and Path(values["screen"], "cellset.json").is_file():
        values["screen"] = os.path.abspath(values["screen"])
    folder = Path(notebooks.root(), values["results"], "pages", page)
    wanted = {
        "source": notebooks.source_digest(page),
        "code": code_digest(),
        "parameters": {name: value for name, value in values.items() if name != "results"},
    }
    with writing(folder):  # a name that no folder can have
        if not force and is_executed(folder, wanted):
            return folder, False
    with alone(folder) as waited:
        if (waited or not force) and is_executed(folder, wanted):  # by the process that was waited for
            return folder, False
        execute_page(page, values, folder, wanted, echo)
    return folder, True


def is_executed(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether a folder holds the page that was executed from this source, code and parameters."""
    if not all((folder / name).exists() for name in ("stamp.json", "page.json", f"{folder.name}.ipynb")):
        return False
    with suppress(CellbookError, AttributeError):  # a damaged stamp stands for nothing
        stamp = read_json(folder / "stamp.json")
        return all(stamp.get(name) == value for name, value in wanted.items())
    return False


def execute_page(page: str, values: dict[str, Any], folder: Path, wanted: dict[str, Any], echo: bool) -> None:
    """Execute a page into its folder and stamp it; one that is not fit to be shown is kept there under another name."""
    import nbformat

    kept = folder / "refused.ipynb"
    with PeakMemory() as memory:
        notebook, seconds = notebooks.execute(page, values, kept, echo=echo)
    notebook = notebooks.clean(notebook)
    if faults := notebooks.page_faults(notebook):
        with writing(kept):
            nbformat.write(notebook, kept)
        raise CellbookError(
            f"the page is not fit to be shown: {'; '.join(faults)}. It is kept in {kept}, and so are all finished runs"
        )
    record = read_json(folder / "page.json")
    stamp = {
        "page": page,
        **wanted,
        "executed": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_seconds": round(seconds, 1),
        **memory.record,
        **{name: record["environment"][name] for name in ("device", "commit", "python", "system")},
        "versions": environment()["versions"],
        "runs": [describe_run(Run(Path(path))) for path in record["runs"].values()],
    }
    add_stamp(notebook, stamp)
    with writing(folder):
        nbformat.write(notebook, folder / f"{page}.ipynb")
    write_json(folder / "stamp.json", stamp)  # last: a page without it is not a page


def describe_run(run: Run) -> dict[str, Any]:
    """What a stamp says of one run."""
    record = run.record
    return {name: record[name] for name in ("key", "method", "config", "fingerprint", "device", "seconds", "commit")}


def again(page: str, used: dict[str, Any]) -> str:
    """The command that executes a page with these parameters."""
    defaults = notebooks.parameters(page)
    given = [f" -p {name}={value}" for name, value in used.items() if defaults[name].default != value]
    return f"cellbook run {page}" + "".join(given)


def add_stamp(notebook: NotebookNode, stamp: dict[str, Any]) -> None:
    """Put the stamp into the notebook's metadata and, readable, behind its title and at its end."""
    from nbformat.v4 import new_markdown_cell

    notebook.metadata["cellbook"] = stamp
    made = sum(run["seconds"] for run in stamp["runs"])
    cost = (
        f"```{{admonition}} What it costs\n:class: tip\n"
        f"Executed on {stamp['executed'][:10]} ({stamp['device']}; {stamp['system']}), {stamp['wall_seconds']:.0f} s, "
        f"at most {stamp['peak_memory_mib'] / 1024:.1f} GiB of memory (all processes together), "
        f"preset `{stamp['parameters'].get('preset')}`.\n"
        f"The runs behind it took {made:.0f} s when they were made, not counting trainings that were there already.\n"
        f"Again: `{again(stamp['page'], stamp['parameters'])}`.\n```"
    )
    parameters = [[f"`{name}`", f"`{value}`"] for name, value in stamp["parameters"].items()]
    runs = [
        [f"`{run['key']}`", run["device"], f"{run['seconds']} s", f"`{run['commit']}`", f"`{run['fingerprint'][:12]}`"]
        for run in stamp["runs"]
    ]
    versions = ", ".join(f"{name} {number}" for name, number in stamp["versions"].items())
    end = (
        "## How this page was made\n\n"
        f"Source `{stamp['source'][:12]}`, library `{stamp['code'][:12]}`, commit `{stamp['commit']}`, "
        f"Python {stamp['python']}, {versions}.\n\n"
        + markdown(["parameter", "value"], parameters)
        + "\n"
        + markdown(["run", "device", "time", "commit", "data"], runs).rstrip("\n")
    )
    first, last = new_markdown_cell(cost), new_markdown_cell(end)
    first["id"], last["id"] = "stamp-cost", "stamp-end"
    notebook.cells.insert(1, first)
    notebook.cells.append(last)


def publish(page: str, folder: Path, book: Path | None = None, *, smoke: bool = False) -> None:
    """Replace the committed page and results by an executed one; refuse a page that is stale, smoke or unstamped."""
    book = book or notebooks.root() / "book"
    if not (folder / "stamp.json").exists():
        raise CellbookError(f"{folder} holds no finished execution of {page!r}: do `cellbook run {page}` first")
    stamp = read_json(folder / "stamp.json")
    if stamp["source"] != notebooks.source_digest(page):
        raise CellbookError(f"{page!r} was executed from another source than the present one: run it again")
    if stamp["parameters"].get("preset") == "smoke" and not smoke:
        raise CellbookError(f"{page!r} was executed at the smoke preset, which is for tests: run it at another one")
    record = read_json(folder / "page.json")
    for path in record["runs"].values():
        if fault := Run(Path(path)).fault():
            raise CellbookError(
                f"run {Path(path).name} of {page!r} is damaged ({fault}): `cellbook run {page} --force`"
            )
    target = book / "results" / page
    with alone(folder), writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{page}.new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(folder, new, ignore=shutil.ignore_patterns("*.ipynb"))
        for key, path in record["runs"].items():
            shutil.copytree(path, new / "runs" / key, ignore=shutil.ignore_patterns(*(f"*{s}" for s in UNVERIFIED)))
        record["runs"] = {key: f"runs/{key}" for key in record["runs"]}
        record["run_records"] = {key: sha256(new / "runs" / key / "run.json") for key in record["runs"]}
        record["page_sha256"] = sha256(folder / f"{page}.ipynb")
        write_json(new / "page.json", record)
        put_folder(new, target)
        (book / "papers").mkdir(exist_ok=True)
        shutil.copyfile(folder / f"{page}.ipynb", book / "papers" / f"{page}.ipynb")
    write_fragments(book)


def verify(book: Path | None = None) -> list[str]:
    """Recompute every published number on this machine and return one sentence for everything that does not agree."""
    book = book or notebooks.root() / "book"
    folders = sorted(path.parent for path in (book / "results").glob("*/page.json"))
    missing = sorted(set(notebooks.pages()) - {folder.name for folder in folders})
    faults = [f"{page}: nothing is published for this page" for page in missing]
    for folder in folders:
        faults += results.verify_page(folder)
        page = book / "papers" / f"{folder.name}.ipynb"
        if not page.exists():
            faults.append(f"{folder.name}: the published page is missing")
        elif sha256(page) != read_json(folder / "page.json").get("page_sha256"):
            faults.append(f"{folder.name}: the published page has other bytes than when it was published")
    return faults + stale_fragments(book)


def compare(fresh: Path, published: Path) -> pd.DataFrame:
    """Each number of a fresh `numbers.csv` beside the published one: both values and their difference."""
    old = pd.read_csv(published / "numbers.csv")
    new = pd.read_csv(fresh / "numbers.csv")
    both = new[[*KEYS, "value"]].merge(
        old[[*KEYS, "value"]], on=KEYS, how="outer", suffixes=("_now", "_published"), validate="one_to_one"
    )
    return both.assign(difference=both["value_now"] - both["value_published"])


def remake(out: Path, given: dict[str, Any], *, force: bool = False, echo: bool = False) -> dict[str, Any]:
    """Execute all pages into `out` and build a book of them there; return what ran, what did not, and why."""
    source = notebooks.root()
    site = out / "site"
    ran: dict[str, str] = {}
    skipped: dict[str, str] = {}
    folders = {}
    for page in notebooks.pages():
        values = {name: value for name, value in given.items() if name in notebooks.parameters(page)}
        try:
            folders[page], now = run_page(page, values | {"results": str(out / "runs")}, force=force, echo=echo)
        except DataNotFound as error:
            skipped[page] = str(error)
            continue
        if now:
            ran[page] = f"{read_json(folders[page] / 'stamp.json')['wall_seconds']:.0f} s"
        else:
            skipped[page] = "already executed from this source, code and parameters"
    with alone(site):
        with writing(site):
            shutil.rmtree(site, ignore_errors=True)
            shutil.copytree(source / "book", site / "book", ignore=shutil.ignore_patterns("_build"))
            for name in ("_config.yml", "_toc.yml"):
                shutil.copyfile(source / name, site / name)
        lines = ["# This build beside the published one", ""]
        for page, folder in folders.items():
            lines += comparison_section(page, folder, site / "book")
            publish(page, folder, site / "book", smoke=True)
        if len(lines) > 2:
            write_text(site / "book" / "this_build.md", "\n".join(lines))
            toc = (site / "_toc.yml").read_text(encoding="utf-8")
            write_text(site / "_toc.yml", toc.rstrip("\n") + "\n      - file: book/this_build\n")
        index = build(site)
    return {"ran": ran, "skipped": skipped, "index": index}


def comparison_section(page: str, folder: Path, book: Path) -> list[str]:
    """Lines of the page that shows a fresh execution's numbers beside the published ones."""
    published = book / "results" / page
    if not (published / "numbers.csv").exists():
        return [f"## {page}", "", "Nothing was published for this page before.", ""]
    table = compare(folder, published)
    moved = table[table["difference"].abs() > 1e-9]
    both = int(table["difference"].notna().sum())
    file = book / "_generated" / f"this_build_{page}.csv"
    results.save_csv(table.round(6), file)
    return [
        f"## {page}",
        "",
        f"{both} numbers are in both; {len(moved)} of them differ"
        + (f", by at most {moved['difference'].abs().max():.4f}." if len(moved) else "."),
        "",
        f"```{{csv-table}}\n:file: _generated/this_build_{page}.csv\n:header-rows: 1\n```",
        "",
    ]


def build(folder: Path, *, strict: bool = True) -> Path:
    """Run Jupyter Book on a folder, without executing anything, and return the first page."""
    # Through the interpreter that runs this, whatever PATH holds; jupyter_book has no __main__.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "--all", str(folder)]
    command += ["-W", "-n", "--keep-going"] if strict else []
    log = folder / "_build" / "build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    index = folder / "_build" / "html" / "index.html"
    if done.returncode or not index.exists():
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8"))
        found = re.findall(r"^.*(?:WARNING|ERROR).*$", text, flags=re.M) or text.strip().splitlines()[-1:]
        raise CellbookError(f"the book did not build; {log} has all of it: " + " | ".join(found[:5]))
    return index
