"""Executing the book's pages, publishing them, and building the site.

Three doors that never mix: `jupyter-book build .` renders the committed pages and runs nothing; `remake` executes
every page into a build folder and shows each number beside the published one; `publish` replaces committed pages.
"""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joblib import cpu_count
from tqdm import tqdm

from cellbook.book import comparing, freshness, notebooks, results, trained
from cellbook.book.fragments import markdown, stale_fragments, write_fragments
from cellbook.book.rendering import build_and_print
from cellbook.claims import KEYS
from cellbook.errors import CellbookError, DataNotFound
from cellbook.files import alone, put_folder, read_json, sha256, write_json, write_text, writing
from cellbook.machine import PeakMemory, worker_count
from cellbook.runs import UNVERIFIED, Run, end_with_parent, environment

if TYPE_CHECKING:
    from nbformat import NotebookNode

NAMES = ("now", "published")  # of the two that a build compares
PENDING = "as long as is not known yet"  # of the build itself, and in its PDF for good
SHOWN = 10  # numbers of a page in the overview of a build, at most; the page behind it has all


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
        "code": freshness.code_digest(),
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
        trained.keep(new, {Path(path).parent for path in record["runs"].values()}, trained.kept(target))
        record["runs"] = {key: f"runs/{key}" for key in record["runs"]}
        record["run_records"] = {key: sha256(new / "runs" / key / "run.json") for key in record["runs"]}
        record["page_sha256"] = sha256(folder / f"{page}.ipynb")
        write_json(new / "page.json", record)
        put_folder(new, target)
        (book / "papers").mkdir(exist_ok=True)
        shutil.copyfile(folder / f"{page}.ipynb", book / "papers" / f"{page}.ipynb")
    write_fragments(book)


def verify(book: Path | None = None, *, code: bool = False) -> list[str]:
    """Recompute every published number on this machine and return one sentence for everything that does not agree.

    A page whose notebook, or whose methods' version, is another one now is among it; with `code`, so is a page of
    which any module that it uses has changed.
    """
    book = book or notebooks.root() / "book"
    folders = sorted(path.parent for path in (book / "results").glob("*/page.json"))
    missing = sorted(set(notebooks.pages()) - {folder.name for folder in folders})
    faults = [f"{page}: nothing is published for this page" for page in missing]
    for folder in folders:
        faults += results.verify_page(folder)
        faults += trained.faults(folder)
        faults += [f"{folder.name}: {fault}" for fault in freshness.stale(folder)]
        if code and (change := freshness.change(folder)):
            faults.append(f"{folder.name}: {change}")
        page = book / "papers" / f"{folder.name}.ipynb"
        if not page.exists():
            faults.append(f"{folder.name}: the published page is missing")
        elif sha256(page) != read_json(folder / "page.json").get("page_sha256"):
            faults.append(f"{folder.name}: the published page has other bytes than when it was published")
    return faults + stale_fragments(book)


def remake(out: Path, given: dict[str, Any], *, force: bool = False, echo: bool = False) -> dict[str, Any]:
    """Execute all pages into `out` and build a book of them there; return what ran, what did not, and why."""
    source, start = notebooks.root(), time.perf_counter()
    site = out / "site"
    ran: dict[str, str] = {}
    skipped: dict[str, str] = {}
    folders = {}
    for page, found in execute_all(given | {"results": str(out / "runs")}, force, echo).items():
        if isinstance(found, DataNotFound):
            skipped[page] = str(found)
            continue
        folders[page], now = found
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
        lines = ["# This build beside the published one", "", f"Executing and building took {PENDING}.", ""]
        beside = {}
        for page, folder in folders.items():
            more, text = comparison(page, folder, site / "book")
            lines += more
            beside |= {page: text} if text else {}
            publish(page, folder, site / "book", smoke=True)
        if folders:
            write_text(site / "book" / "this_build.md", "\n".join(lines))
            toc = (site / "_toc.yml").read_text(encoding="utf-8")
            write_text(site / "_toc.yml", toc.rstrip("\n") + "\n      - file: book/this_build\n")
        index = build_and_print(site)
        for last in index.parent.glob("book/this_build.html"):  # which was built before that was known
            took = f"{time.perf_counter() - start:.0f} s"
            write_text(last, last.read_text(encoding="utf-8").replace(PENDING, took))
        for page, text in beside.items():
            write_text(index.parent / "this_build" / f"{page}.html", text)
    return {"ran": ran, "skipped": skipped, "index": index}


def execute_all(
    given: dict[str, Any], force: bool = False, echo: bool = False
) -> dict[str, tuple[Path, bool] | DataNotFound]:
    """Execute all pages, as many side by side as cores and memory bear; what `run_page` returns, or why it could not.

    A page comes after those that `after` names in `notebooks/pages.yml`; those that others come after are the first.
    """
    after = {page: entry.get("after", []) for page, entry in notebooks.pages().items()}
    read = sorted(after, key=lambda page: -sum(page in first for first in after.values()))
    order = TopologicalSorter({page: after[page] for page in read})
    own = {p: {name: value for name, value in given.items() if name in notebooks.parameters(p)} for p in after}
    lanes = min(len(own), worker_count())
    if lanes < 2:
        found = {page: run_or_skip(page, own[page], force, echo) for page in order.static_order()}
    else:
        found = in_lanes(own, order, lanes, force, echo)
    return {page: found[page] for page in after}


def in_lanes(
    given: dict[str, dict[str, Any]],
    order: TopologicalSorter[str],
    lanes: int,
    force: bool = False,
    echo: bool = False,
) -> dict[str, tuple[Path, bool] | DataNotFound]:
    """Execute pages with these parameters in several processes, each on its share of the cores."""
    found, running = {}, {}
    share = max(1, cpu_count() // lanes)
    order.prepare()
    # Started afresh: a forked child of a process with running threads can hang.
    with (
        tqdm(total=len(given), desc="pages", disable=not echo) as bar,
        ProcessPoolExecutor(lanes, get_context("spawn"), begin_lane, (share,)) as pool,
    ):
        try:
            while order.is_active():
                running |= {pool.submit(run_or_skip, page, given[page], force): page for page in order.get_ready()}
                bar.set_postfix_str(", ".join(page for one, page in running.items() if one.running()))
                for one in wait(running, 1, FIRST_COMPLETED).done:
                    page = running.pop(one)
                    found[page] = one.result()
                    order.done(page)
                    bar.update()
        except BrokenProcessPool as error:
            raise CellbookError(
                "a process that executes a page ended abruptly, most likely for want of memory: finished runs are "
                "kept, so run it again with more"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def begin_lane(cores: int) -> None:
    """Let this process, and kernels that it starts, use so many cores; it ends with the one that has started it."""
    end_with_parent()
    for name in ("LOKY_MAX_CPU_COUNT", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, str(cores))


def run_or_skip(
    page: str, given: dict[str, Any], force: bool = False, echo: bool = False
) -> tuple[Path, bool] | DataNotFound:
    """`run_page`; where the data of the page are absent, what is said of that."""
    try:
        return run_page(page, given, force=force, echo=echo)
    except DataNotFound as error:
        return error


def comparison(page: str, folder: Path, book: Path) -> tuple[list[str], str]:
    """A fresh execution beside the published one: lines for the page of all, and a page of its own in HTML."""
    if not (book / "results" / page / "numbers.csv").exists():
        return [f"## {page}", "", "Nothing was published for this page before.", ""], ""
    now, published = (comparing.read_page(place, book) for place in (folder, book / "results" / page))
    table = comparing.compare(now.numbers, published.numbers, NAMES)
    apart = comparing.moved(table).query("intervals == 'apart'").head(SHOWN)
    values = [f"value_{name}" for name in NAMES]
    rows = [[*row[:-2], *(f"{value:.4g}" for value in row[-2:])] for row in apart[[*KEYS[:3], *values]].to_numpy()]
    return [
        f"## {page}",
        "",
        comparing.in_brief(table) + (" Those that differ most:" if rows else ""),
        "",
        *([markdown([*KEYS[:3], *NAMES], rows, right=NAMES), ""] if rows else []),
        f'<a href="../this_build/{page}.html">All that differs: numbers, parameters, environment and figures</a>',
        "",
    ], comparing.page(now, published, NAMES)
