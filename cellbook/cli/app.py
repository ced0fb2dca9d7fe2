"""The command line: `cellbook --help`. Bad input ends in one sentence on standard error and exit code 2."""

from __future__ import annotations

import errno
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from cellbook.cli.kept import app as kept
from cellbook.cli.lease import app as lease
from cellbook.cli.measure import app as measure
from cellbook.cli.models import app as models
from cellbook.cli.screens import app as screens
from cellbook.errors import CellbookError, Stopped

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

app.add_typer(screens)
app.add_typer(measure)
app.add_typer(models)
app.add_typer(lease)
app.add_typer(kept)

INTERRUPTED = 130

Given = Annotated[list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="set a parameter")]


def parse_given(given: list[str] | None) -> dict[str, str]:
    """Turn ``name=value`` words into a dictionary."""
    values: dict[str, str] = {}
    for word in given or []:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise CellbookError(f"-p takes name=value, got {word!r}")
        if name in values:
            raise CellbookError(f"parameter {name!r} is given twice")
        values[name] = value
    return values


@app.command()
def run(
    page: str,
    given: Given = None,
    force: Annotated[bool, typer.Option(help="execute although the page is up to date")] = False,
) -> None:
    """Execute one page of the book: checked parameters, cleaned and stamped page. See `cellbook pages`."""
    from cellbook.book.build import run_page

    folder, now = run_page(page, parse_given(given), force=force, echo=sys.stderr.isatty())
    print(f"{'executed' if now else 'already up to date'}: {folder / f'{page}.ipynb'}")


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="module under cellbook/methods, for example vae_plus")],
    cells: Annotated[Path, typer.Option(metavar="FOLDER", help="folder of a saved cell set, or bbbc021-sample")],
    given: Given = None,
    confounder: Annotated[str | None, typer.Option(metavar="COLUMN", help="short for -p confounder=COLUMN")] = None,
    store: Annotated[Path, typer.Option(help="folder of runs")] = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    force: Annotated[bool, typer.Option(help="train anew although the run is there")] = False,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="least time between two checkpoints")] = 60.0,
    compiled: Annotated[bool, typer.Option("--compile", help="compile the networks first")] = False,
    end_at_collapse: Annotated[bool, typer.Option(help="end a CytoGAN that draws one cell again and again")] = True,
) -> None:
    """Train one method, or go on where it was stopped; -p preset=quick or any field of its configuration."""
    from cellbook.cells import CellSet
    from cellbook.configure import configure
    from cellbook.methods import find_method
    from cellbook.screens.named import SAMPLE
    from cellbook.screens.sample import bbbc021_sample
    from cellbook.training import train_run

    module = find_method(method)
    more = [] if confounder is None else [f"confounder={confounder}"]
    config = configure(module, parse_given([*(given or []), *more]))
    how: dict[str, Any] = {"force": force, "checkpoint_seconds": checkpoint_seconds, "compiled": compiled}
    how["end_at_collapse"] = end_at_collapse
    known = bbbc021_sample() if str(cells) == SAMPLE else CellSet.open(cells)
    print(train_run(module, config, known, store, device, **how).folder)


@app.command()
def pages(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """List the executed pages and the parameters that each takes."""
    from cellbook.book import notebooks

    listing = {page: notebooks.parameters(page) for page in notebooks.pages()}
    if as_json:
        plain = {
            page: {p.name: {"type": p.type.__name__, "default": p.default, "help": p.help} for p in known.values()}
            for page, known in listing.items()
        }
        print(json.dumps(plain, indent=1))
        return
    for page, known in listing.items():
        print(page)
        for parameter in known.values():
            print(f"  {parameter.name}: {parameter.type.__name__} = {parameter.default!r}  # {parameter.help}")


@app.command()
def publish(
    names: Annotated[list[str] | None, typer.Argument(metavar="[PAGE]...", help="pages; all if none")] = None,
    store: Annotated[Path, typer.Option("--from", help="folder of runs that holds the executed pages")] = Path("runs"),
) -> None:
    """Replace committed pages and results by executed ones."""
    from cellbook.book import notebooks
    from cellbook.book.build import publish as publish_page

    for page in names or list(notebooks.pages()):
        notebooks.page_entry(page)
        publish_page(page, notebooks.root() / store / "pages" / page)
        print(f"published: book/papers/{page}.ipynb and book/results/{page}/")


@app.command()
def verify(
    code: Annotated[
        bool, typer.Option("--code", help="refuse also a page if a module that it uses has changed")
    ] = False,
) -> None:
    """Recompute every published number from stored products on the CPU; exit 1 if one differs or a page is stale."""
    from cellbook.book import notebooks
    from cellbook.book.build import verify as find_faults

    faults = find_faults(code=code)
    for fault in faults:
        print(fault)
    if faults:
        print(f"{len(faults)} differences: restore book/results/ and book/papers/ from git, or run and publish anew")
        raise typer.Exit(1)
    print(f"every published number of {len(notebooks.pages())} pages follows from the stored products")


@app.command()
def results(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    store: Annotated[
        Path | None, typer.Option(help="folder of runs; `runs` of the checkout and of the working folder if none")
    ] = None,
) -> None:
    """List what has been run: published runs and those in the store."""
    from cellbook.book import notebooks
    from cellbook.runs import ledger

    # A page is executed in the checkout, a training in the working folder: what they wrote is looked for in both.
    places = {place.resolve() for place in (notebooks.root() / (store or "runs"), store or Path("runs"))}
    if store and not any(place.is_dir() for place in places):
        raise CellbookError(f"--store {store} is no folder: give the folder that holds the runs")
    table = ledger(notebooks.root() / "book" / "results", *sorted(places))
    if as_json:
        print(table.to_json(orient="records", indent=1))
    elif table.empty:
        print("nothing has been run: try `cellbook run`")
    else:
        columns = ["key", "method", "device", "seconds", "started", "commit", "folder"]
        print(table[columns].to_string(index=False))


def in_words_of_the_shell(message: str) -> str:
    """Name options where the library's errors name arguments and functions."""
    words = {
        "drop them with drop_unusable(df)": "leave them out with --drop-unusable",
        "drop_unusable=True": "--drop-unusable",
        "pass overwrite=True": "pass --force",
        "end_at_collapse=False": "--no-end-at-collapse",
        "drop_unlabelled=True": "--drop-unlabelled",
        "controls=": "--controls ",
        "feature=": "--feature ",
    }
    for argument, option in words.items():
        message = message.replace(argument, option)
    return message


def read(file: Path, feature: list[str] | None, as_json: bool) -> tuple[Any, str, list[str]]:
    """A profile table, one line for standard error on its features, and notes for the report."""
    from cellbook.profiles import read_profiles

    notes: list[str] = []
    table = read_profiles(file, feature or [], notes)
    notes = [in_words_of_the_shell(note) for note in notes]
    first = 0 if as_json and "left out" in notes[0] else 1  # what was left out is also for programs
    return table, notes[0], notes[first:]


Feature = Annotated[list[str] | None, typer.Option(metavar="NAME", help="column or pattern that is a feature, too")]
Controls = Annotated[str, typer.Option(help="compound of the control rows")]
DropUnusable = Annotated[bool, typer.Option(help="leave out NaN, infinite or constant features; refused otherwise")]


@app.command()
def score(
    file: Path,
    protocol: Annotated[str, typer.Option(help="named protocol; see the chapter on evaluation")],
    feature: Feature = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a list of objects, one a measure and k")] = False,
    controls: Controls = "DMSO",
    drop_unlabelled: Annotated[bool, typer.Option(help="leave out rows without MOA instead of refusing them")] = False,
    drop_unusable: DropUnusable = False,
    seed: Annotated[int, typer.Option(min=0, help="of the resampling behind the intervals")] = 0,
) -> None:
    """Score a profile table (Parquet or CSV) under a named protocol."""
    from cellbook.metrics import as_json as to_json
    from cellbook.metrics import score as score_profiles
    from cellbook.profiles import check_finite

    table, said, notes = read(file, feature, as_json)
    if not drop_unusable:
        check_finite(table)  # of the controls too, which the scores do not see: a NaN there is a fault of the table
    options: dict[str, Any] = {"drop_unlabelled": drop_unlabelled, "drop_unusable": drop_unusable, "seed": seed}
    rows = to_json(score_profiles(table, protocol, controls=controls, **options))
    for row in rows:
        row["notes"] = [*notes, *row["notes"]]
    print(said, file=sys.stderr)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'measure':10} {'k':>2} {'accuracy':>9} {'95 % interval':>15} {'correct':>8} {'scored':>7} {'excluded':>9}")
    for row in rows:
        low, high = row["interval"]
        accuracy = "-" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} %"
        interval = "-" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"
        counts = f"{row['correct']:>8} {row['scored']:>7} {row['excluded']:>9}"
        print(f"{row['measure']:10} {row['k']:>2} {accuracy:>9} {interval:>15} {counts}")
    for note in dict.fromkeys(note for row in rows for note in row["notes"]):
        print(note)


@app.command()
def correct(
    file: Annotated[Path, typer.Argument(metavar="PROFILES", help="profile table (Parquet or CSV)")],
    method: Annotated[str, typer.Option(help="wdn, coral, tvn, whiten, centre, ...; an unknown one lists all")],
    output: Annotated[Path, typer.Option(help="corrected table (Parquet or CSV), in a folder that exists")],
    feature: Feature = None,
    domain: Annotated[str, typer.Option(help="metadata column to correct for, with or without Metadata_")] = "batch",
    controls: Controls = "DMSO",
    ridge: Annotated[
        float | None, typer.Option(help="of coral and wdn, whitening (relative); 1, or for few controls more")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="of wdn: relative (energy distance), or with critics smoke, quick or paper")
    ] = "relative",
    given: Given = None,
    device: Annotated[str, typer.Option(help="of wdn: auto, cpu, cuda or cuda:1")] = "auto",
    step: Annotated[
        int | None, typer.Option(help="of wdn: map step that is applied; if none, held-out controls choose")
    ] = None,
    fewest_controls: Annotated[int, typer.Option(help="of wdn: refuse a domain with fewer controls")] = 10,
    drop_unusable: DropUnusable = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Correct a profile table for its batches by their controls, and report what is left of the batch in these."""
    from cellbook import corrections
    from cellbook.cli import correct
    from cellbook.configure import configure
    from cellbook.methods import wdn
    from cellbook.profiles import write_profiles
    from cellbook.profiles.files import check_place

    check_place(output)
    config = configure(wdn, {"preset": preset, **parse_given(given)})
    table, said, notes = read(file, feature, as_json)
    profiles, dropped = correct.usable(table, drop=drop_unusable)
    column = correct.column_of(profiles, domain)
    settings = corrections.Settings(column, ridge, config, device, config.seed, step, fewest_controls)
    found = corrections.correct(profiles, method, settings, controls)
    write_profiles(found.profiles, output)
    report = correct.report(found, method, settings, controls, str(output))
    print(said, file=sys.stderr)
    report["notes"] = [*notes, *dropped, *found.notes]
    print(json.dumps(report, indent=1) if as_json else correct.in_words(report))


@app.command()
def book(
    given: Given = None,
    out: Annotated[Path, typer.Option(help="build folder")] = Path("_build/book"),
    force: Annotated[bool, typer.Option(help="execute pages although they are up to date")] = False,
) -> None:
    """Execute all pages into a build folder and build the book there; the working tree stays as it is."""
    import time

    from cellbook.book import notebooks
    from cellbook.book.build import remake
    from cellbook.machine import PeakMemory

    start = time.perf_counter()
    with PeakMemory() as memory:
        done: dict[str, Any] = remake(notebooks.root() / out, parse_given(given), force=force, echo=sys.stderr.isatty())
    for page, seconds in done["ran"].items():
        print(f"executed: {page} ({seconds})")
    for page, reason in done["skipped"].items():
        print(f"not executed: {page}: {reason}")
    took = f"{time.perf_counter() - start:.0f} s and at most {memory.mib / 1024:.1f} GiB of memory"
    print(f"built in {took}; the first page is {done['index']}")


@app.command()
def sync(check: Annotated[bool, typer.Option(help="change nothing; exit 1 if a pair differs")] = False) -> None:
    """Write each notebook's `.ipynb` from its text source, and the generated pieces of pages."""
    from cellbook.book import notebooks
    from cellbook.book.fragments import stale_fragments, write_fragments

    folder = notebooks.root() / "book"
    differing = notebooks.sync(check=check) + (stale_fragments(folder) if check else [])
    if not check:
        write_fragments(folder)
    for name in differing:
        print(f"{'differs' if check else 'written'}: {name}")
    if check and differing:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; turn what was raised on purpose into one line and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name or a sign that the output's encoding lacks is written out
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.showwarning = _in_a_line
    try:
        app()
    except CellbookError as error:
        print(f"error: {in_words_of_the_shell(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.code)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("error: no space left where the output goes: free some or send it elsewhere", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Typer turns Ctrl-C into an exit with this code, without a word.
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        print("interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _in_a_line(message: Warning | str, *_where: Any) -> None:
    """Show what is warned of without the place in the code."""
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
