"""Commands about what is kept of the book: two runs beside each other, links, one file of all pages, releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellbook.errors import CellbookError, some

app = typer.Typer()

Store = Annotated[Path, typer.Option(help="folder of runs")]


@app.command()
def diff(
    one: Annotated[str, typer.Argument(metavar="RUN_A", help="folder, key of a run, or page of the book")],
    other: Annotated[str, typer.Argument(metavar="RUN_B", help="the same")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write a page in HTML, with the figures")] = None,
    store: Store = Path("runs"),
) -> None:
    """Show two runs, or two executions of a page, beside each other: parameters, environment, numbers, figures."""
    from cellbook.book import comparing, notebooks
    from cellbook.files import write_text

    book = notebooks.root() / "book"
    sides = [comparing.read(comparing.find(name, store, book), store, book) for name in (one, other)]
    print(comparing.report(sides[0], sides[1]))
    if out is not None:
        write_text(out, comparing.page(sides[0], sides[1], (one, other)))
        print(f"\npage: {out}")


@app.command()
def weights(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="archive, .zip")],
    store: Store = Path("runs"),
    check: Annotated[bool, typer.Option("--check", help="compare an archive with what the repository keeps")] = False,
) -> None:
    """Pack the weights of all trained models of the published pages, with their checksums, as one archive."""
    from cellbook.book import notebooks
    from cellbook.study import models

    results = notebooks.root() / "book" / "results"
    if check:
        faults, count = models.compare(out, results)
        for fault in faults:
            print(fault)
        print(f"models: {count}, {len(faults)} of them are not as published")
        raise typer.Exit(1 if faults else 0)
    trainings = models.published(results)
    found = models.stored(trainings, store)
    if not found:
        raise CellbookError(f"--store {store} has the weights of none of {len(trainings)} published trainings")
    checksum = models.pack(found, store, out)
    for model in found:
        print(f"{model.sha256}  {model.name} (repeat {model.repeat})")
    print(f"{checksum}  {out}")
    print(f"models: {len(found)}, and of {len(trainings) - len(found)} published trainings {store} has no weights")


@app.command()
def release(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="folder of the release, made anew")] = Path(
        "_build/release"
    ),
    store: Store = Path("runs"),
) -> None:
    """Put all that is given to readers into one folder: site, PDF, results, weights, checksums; say what it lacks."""
    from cellbook.book import notebooks
    from cellbook.book.release import make
    from cellbook.study import models

    def pack(path: Path) -> list[str]:
        trainings = models.published(notebooks.root() / "book" / "results")
        found = models.stored(trainings, store)
        if found:
            models.pack(found, store, path)
        there = {(model.name, model.repeat) for model in found}
        rest = [f"{n} (repeat {r})" for n, r, _ in trainings.itertuples(index=False) if (n, r) not in there]
        return [f"weights of {len(rest)} trainings that {store} has not: {some(rest)}"] if rest else []

    out = notebooks.root() / out
    lacking = make(notebooks.root(), out, pack)
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size / 2**20:8.1f} MiB  {path}")
    for sentence in lacking:
        print(f"lacks {sentence}")


@app.command()
def pdf() -> None:
    """Print the whole book of the checkout as one PDF, which the pages of the next build link to."""
    from cellbook.book import notebooks
    from cellbook.book.rendering import print_book

    made = print_book(notebooks.root())
    print(f"{made.stat().st_size / 2**20:.1f} MiB: {made}")


@app.command()
def links() -> None:
    """Ask for every address that the book links to; exit 1 if one does not answer. Needs a network."""
    from cellbook.book import notebooks
    from cellbook.book.rendering import broken_links

    broken, asked = broken_links(notebooks.root())
    for sentence in broken:
        print(sentence)
    print(f"links: {asked}, {len(broken)} of them do not answer")
    if broken:
        raise typer.Exit(1)
