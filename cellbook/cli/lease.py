"""Commands for a GPU that is there for some minutes: make the most of it, and bring home what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cellbook.errors import CellbookError

app = typer.Typer()
runs = typer.Typer(help="Runs that were made on another machine.", no_args_is_help=True)
app.add_typer(runs, name="runs")


@app.command()
def lease(
    plan: Annotated[
        Path,
        typer.Argument(help="YAML: a list of pages and methods with parameters, most worth first; or a lease.json"),
    ],
    minutes: Annotated[float, typer.Option(min=0.1, help="from now to the last file")] = 9.0,
    out: Annotated[Path, typer.Option(help="folder of what is to be carried away")] = Path("lease"),
    store: Annotated[Path, typer.Option(help="folder of runs")] = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    side_by_side: Annotated[
        int | None, typer.Option(min=1, help="trainings at a time; as many as cores and memory bear, 12 at most")
    ] = None,
    fit: Annotated[
        bool,
        typer.Option(help="try speeds and shorten all trainings by one factor, or go on with those of a lease.json"),
    ] = True,
    archives: Annotated[int, typer.Option(min=1, help="files at most that hold what is carried away")] = 4,
    megabytes: Annotated[float, typer.Option(min=0.1, help="size of each, in MiB")] = 15.0,
) -> None:
    """Train what a plan names for some minutes, as much as fits, and pack it; `cellbook runs import` unpacks it."""
    from cellbook.lease import lease as make
    from cellbook.lease import read_plan

    limits = {"archives": archives, "archive_bytes": int(megabytes * 2**20)}
    say = lambda text: print(text, flush=True)  # noqa: E731
    how: dict[str, Any] = {"device": device, "side_by_side": side_by_side, "fit": fit, "say": say, **limits}
    report = make(read_plan(plan), minutes, store, out, **how)
    left = [name for name, told in report["jobs"].items() if "done" not in told]
    print(f"in {out}: {len(report['carried'])} runs, {len(report['begun'])} trainings that were stopped")
    if left:
        print(f"not done, for which see {out / 'lease.json'} and {out / 'work'}: {'; '.join(left)}")
    if not report["carried"] and not report["begun"]:
        raise CellbookError(f"nothing was done: see {out / 'lease.json'} and the logs in {out / 'work'}")
    if report["begun"]:
        print(f"to go on: cellbook lease {out / 'lease.json'} --no-fit --store {store}")


@runs.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="what `cellbook lease` wrote")],
    store: Annotated[Path, typer.Option(help="folder of runs")] = Path("runs"),
) -> None:
    """Check carried runs and put them into a store, where pages find them by their keys."""
    from cellbook.carry import unpack

    told = unpack(folder, store)
    for key in told["new"]:
        print(store / key)
    print(f"{len(told['new'])} runs are new, {len(told['there'])} were there")
    if told["begun"] or told["further"]:
        print(f"{len(told['begun'])} trainings go on from where they were stopped, {len(told['further'])} are further")
