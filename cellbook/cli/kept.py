"""Commands about what is kept of the book: two runs beside each other, links, one file of all pages, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellbook.errors import CellbookError

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
) -> None:
    """Pack the weights of all trained models of the published pages, with their checksums, as one archive."""
    from cellbook.book import notebooks
    from cellbook.study import models

    trainings = models.published(notebooks.root() / "book" / "results")
    found = models.stored(trainings, store)
    if not found:
        raise CellbookError(f"--store {store} has the weights of none of {len(trainings)} published trainings")
    checksum = models.pack(found, store, out)
    for model in found:
        print(f"{model.sha256}  {model.name} (repeat {model.repeat})")
    print(f"{checksum}  {out}")
    print(f"models: {len(found)}, and of {len(trainings) - len(found)} published trainings {store} has no weights")


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
