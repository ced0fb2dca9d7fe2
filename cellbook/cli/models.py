"""Commands that draw cells with a trained CytoGAN: sample, interpolate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellbook.errors import CellbookError, some

app = typer.Typer()

STRIP = "strip.png"

Model = Annotated[str, typer.Argument(metavar="MODEL", help="folder of a run of cytogan, or its key in the store")]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="folder of the cell set that is written")]
Compound = Annotated[str | None, typer.Option(help="what a conditional model is told")]
Concentration = Annotated[float | None, typer.Option(help="what a conditional model is told, in micromolar")]
Store = Annotated[Path, typer.Option(help="folder of runs")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")]
Force = Annotated[bool, typer.Option("--force", help="replace a cell set that is there")]


@app.command()
def sample(
    model: Model,
    out: Out,
    n: Annotated[int, typer.Option(min=1, help="cells")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="of the noise")] = 0,
    compound: Compound = None,
    concentration: Concentration = None,
    store: Store = Path("runs"),
    device: Device = "auto",
    force: Force = False,
    cells: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="of an unfinished MODEL: the cells it is trained on")
    ] = None,
) -> None:
    """Draw cells with a trained model, as a cell set that says where each comes from."""
    from cellbook.cells import CellSet, save_parts
    from cellbook.methods.cytogan.stored import drawn

    run, own = find(model, store), None if cells is None else CellSet.open(cells)
    made = save_parts(drawn(run, n, seed, compound, concentration, device, own), out, force)
    print(f"cells: {len(made)}")
    print(f"fingerprint: {made.fingerprint}")
    print(f"folder: {out}")


@app.command()
def interpolate(
    model: Model,
    cells: Annotated[Path, typer.Option(metavar="FOLDER", help="folder of a cell set of your own")],
    start: Annotated[int, typer.Option("--from", min=0, metavar="ROW", help="cell to begin with, from 0")],
    end: Annotated[int, typer.Option("--to", min=0, metavar="ROW", help="cell to end with")],
    out: Out,
    steps: Annotated[int, typer.Option(min=2, help="images, both ends among them")] = 10,
    path: Annotated[str, typer.Option(help="slerp (an arc) or straight")] = "slerp",
    compound: Compound = None,
    concentration: Concentration = None,
    store: Store = Path("runs"),
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Draw what lies between two cells for a model that encodes cells: bigan, began, vae or ae."""
    import numpy as np
    from PIL import Image

    from cellbook.cells import CellSet
    from cellbook.files import write_atomically
    from cellbook.methods.cytogan.stored import between
    from cellbook.study.pictures import colours, normalised

    own = CellSet.open(cells)
    made = between(find(model, store), own, (start, end), steps, path, compound, concentration, device)
    ends = normalised(own.select([start, end]))
    shown = colours(np.concatenate([ends[:1], normalised(made), ends[1:]]))
    made = made.save(out, force)
    strip = Image.fromarray(np.concatenate(list(shown), axis=1))
    write_atomically(out / STRIP, strip.save)
    print(f"cells: {len(made)}")
    print(f"strip: {out / STRIP}, the two cells at its ends")
    print(f"fingerprint: {made.fingerprint}")
    print(f"folder: {out}")


def find(model: str, store: Path):
    """The run that a word names: its folder, or its key in the store."""
    from cellbook.runs import Run
    from cellbook.training.state import CHECKPOINT

    for folder in (Path(model), store / model):
        if any((folder / name).is_file() for name in ("run.json", CHECKPOINT)):
            return Run(folder)
    there = sorted(path.parent.name for path in store.glob("cytogan-*/run.json"))
    raise CellbookError(
        f"{model} is neither the folder of a run nor its key in {store}, which holds "
        f"{some(there, 5) if there else 'no run of cytogan'}; train one with `cellbook train cytogan`"
    )
