"""Commands for a GPU that is there for some minutes: make the most of it, and bring home what it made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cellbook.errors import CellbookError

app = typer.Typer()
runs = typer.Typer(help="Runs that were made on another machine.", no_args_is_help=True)
app.add_typer(runs, name="runs")


@app.command()
def lease(
    plan: Annotated[Path, typer.Argument(help="YAML: a list of pages and methods with parameters, most worth first")],
    minutes: Annotated[float, typer.Option(min=0.1, help="from now to the last file")] = 9.0,
    out: Annotated[Path, typer.Option(help="folder of what is to be carried away")] = Path("lease"),
    store: Annotated[Path, typer.Option(help="folder of runs")] = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    side_by_side: Annotated[int, typer.Option(min=1, help="trainings at a time")] = 8,
    fit: Annotated[bool, typer.Option(help="shorten all trainings by one factor so that they fit the time")] = True,
) -> None:
    """Train what a plan names for some minutes, as much as fits, and pack it; `cellbook runs import` unpacks it."""
    from cellbook.lease import lease as make
    from cellbook.lease import read_plan

    entries = read_plan(plan)
    say = lambda text: print(text, flush=True)  # noqa: E731
    report = make(entries, minutes, store, out, device=device, side_by_side=side_by_side, fit=fit, say=say)
    failed = {name: told for name, told in report["jobs"].items() if "failed" in told}
    print(f"{len(report['carried'])} runs in {out}; failed: {json.dumps(failed)}")
    if not report["carried"]:
        raise CellbookError(f"nothing was finished: see {out / 'lease.json'} and the logs in {out / 'work'}")


@runs.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="what `cellbook lease` wrote")],
    store: Annotated[Path, typer.Option(help="folder of runs")] = Path("runs"),
) -> None:
    """Check carried runs and put them into a store, where pages find them by their keys."""
    from cellbook.carry import unpack

    new, there = unpack(folder, store)
    for run in new:
        print(run.folder)
    print(f"{len(new)} runs are new, {len(there)} were there")
