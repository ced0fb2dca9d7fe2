"""A trained model without the cells it was trained on, and the cells it draws: of noise, and between two real ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods import cytogan
from cellbook.methods.cytogan import codes as of
from cellbook.methods.cytogan.config import Config
from cellbook.runs import Run
from cellbook.screens.fields import CHANNELS, PIXEL_UM
from cellbook.training import State, load_kept, load_run
from cellbook.training.state import CHECKPOINT

PATHS = {"slerp": of.slerp, "straight": of.straight}
BLOCK = 2048  # cells that are drawn at a time
WHITE = 65_535  # a stored 1

log = logging.getLogger(__name__)


def load(run: Run, device: str = "auto") -> tuple[State, CellSet]:
    """The trained state of a run of this method, and black cells that stand for those it was trained on.

    These have their channels, pixels and treatments, which the run keeps: in its record and beside its codes.

    Raises
    ------
    CellbookError
        If the run is unfinished, of another method or of another version of it, or has lost its weights.
    """
    fault = run.fault()
    if fault:
        more = "; samples of an unfinished one need its cells (--cells)" if (run.folder / CHECKPOINT).is_file() else ""
        raise CellbookError(f"{run.folder} is no finished run ({fault}): give the folder of one, or its key{more}")
    record = run.record
    made_by = record["method"], record["method_version"]
    if made_by != ("cytogan", cytogan.VERSION):
        raise CellbookError(
            f"run {run.key} is of {made_by[0]}, version {made_by[1]}: take one of cytogan, version {cytogan.VERSION}"
        )
    config = Config(**{name: value for name, value in record["config"].items() if name != "course"})
    if "channels" not in record:
        log.warning("run %s does not say what its channels show: they are taken for those of BBBC021", run.key)
    channels, pixel_um = record.get("channels", CHANNELS), record.get("pixel_um", PIXEL_UM)
    table = run.table("codes").filter(like="Metadata_") if config.condition != "none" else pd.DataFrame(index=[0])
    table = table.iloc[np.resize(np.arange(len(table)), max(len(table), config.settings.batch))]
    black = np.broadcast_to(np.uint16(0), (len(table), len(channels), config.side, config.side))
    like = CellSet(black, table, tuple(channels), pixel_um)
    return load_run(cytogan, config, like, run, device), like


def drawn(
    run: Run,
    n: int,
    seed: int = 0,
    compound: str | None = None,
    concentration: float | None = None,
    device: str = "auto",
    cells: CellSet | None = None,
) -> Iterator[CellSet]:
    """`n` cells of a trained model, in parts; see `codes.sample`.

    `run` may also be the folder of an unfinished training, whose last checkpoint draws: with `cells`, which it is
    trained on.

    Their table says run, model, seed and number of the draw, and the treatment that a conditional model was told; of an
    unfinished training also the step. Grey
    values are relative to the brightest of each channel of each crop, as the model sees cells: 65,535 is 1.
    """
    at: dict[str, int] = {}
    if cells is not None and (run.folder / CHECKPOINT).is_file():
        (state, at["Metadata_step"]), like = load_kept(cytogan, cells, run.folder, device), cells
    else:
        state, like = load(run, device)
    z = of.noise(state, n, seed)
    for start in range(0, n, BLOCK):
        images = of.decode(state, z[start : start + BLOCK], compound, concentration)
        table = pd.DataFrame({"Metadata_draw": np.arange(start, start + len(images))})
        told = {"compound": compound, "concentration": concentration} if state.config.condition != "none" else {}
        yield _cells(run, state, like, images, table.assign(Metadata_seed=seed, **at), told)


def between(
    run: Run,
    cells: CellSet,
    rows: tuple[int, int],
    steps: int = 10,
    path: str = "slerp",
    compound: str | None = None,
    concentration: float | None = None,
    device: str = "auto",
) -> CellSet:
    """What a model that encodes cells sees between two of them: the images of codes on the way, both ends among them.

    Parameters
    ----------
    run : Run
        Of BiGAN, BEGAN, VAE or AE.
    cells : CellSet
        Of the size and the channels of the crops that the model was trained on.
    rows : (int, int)
        Where it begins and where it ends.
    steps : int
        Images, at least 2.
    path : {"slerp", "straight"}
        Along an arc, on which normal noise lies, or a line.
    compound, concentration
        As a conditional BEGAN is told.

    Returns
    -------
    CellSet
        Its table says run, model, rows, path, share of the way, and length of the code.
    """
    state, like = load(run, device)
    if cells.images.shape[1:] != like.images.shape[1:] or cells.channels != like.channels:
        raise CellbookError(
            f"the cells have {_kind(cells)}, run {run.key} was trained on {_kind(like)}: crop them anew, or give others"
        )
    if path not in PATHS:
        raise CellbookError(f"path={path!r} is none of {', '.join(PATHS)}")
    start, end = of.encode(state, cells.select(np.asarray(rows)))
    way = PATHS[path](start, end, steps)
    images = of.redraw(state, way, compound, concentration)
    table = pd.DataFrame({"Metadata_share": np.linspace(0, 1, steps), "Metadata_length": np.linalg.norm(way, axis=1)})
    return _cells(
        run, state, like, images, table.assign(Metadata_from=rows[0], Metadata_to=rows[1], Metadata_path=path)
    )


def _cells(
    run: Run,
    state: State,
    like: CellSet,
    images: np.ndarray,
    table: pd.DataFrame,
    told: dict[str, object] | None = None,
) -> CellSet:
    """Images (N, C, H, W) in [0, 1] as cells that say where they come from."""
    words = {name: value for name, value in (told or {}).items() if value is not None}
    if "compound" in words:
        words.setdefault("concentration", np.nan)  # not told, which is no dose of 0
    table = table.assign(Metadata_run=run.key, Metadata_model=state.config.model)
    table = table.assign(**{f"Metadata_{name}": value for name, value in words.items()})
    return CellSet(np.round(WHITE * images).astype(np.uint16), table, like.channels, like.pixel_um)


def _kind(cells: CellSet) -> str:
    _, _, height, width = cells.images.shape
    return f"{height} x {width} pixels of {'/'.join(cells.channels)}"
