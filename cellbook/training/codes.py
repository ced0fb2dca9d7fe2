"""What is done with the networks of any method: codes of cells, images of codes, and what is kept of codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cellbook.cells import CellSet
from cellbook.files import write_atomically
from cellbook.machine import kept_memory
from cellbook.pixels import channel_max
from cellbook.profiles import to_wells
from cellbook.profiles.aggregate import WELL
from cellbook.runs import save_table, to_float32
from cellbook.screens.named import without_place
from cellbook.training.checkpoints import save_weights
from cellbook.training.history import History
from cellbook.training.state import Method, State

BLOCK, BLOCK_CUDA = 64, 2048  # cells at a time; on a CPU more take memory and time
KEPT = 20  # cells of a well whose own codes are kept
COURSE = "checkpoint-course"  # outlives a killed training, as checkpoints do


@contextmanager
def inference(state: State) -> Iterator[None]:
    """Batch norm by running moments, no gradients."""
    training = {network: network.training for network in state.networks.values()}
    try:
        with torch.no_grad(), kept_memory():
            for network in training:
                network.eval()
            yield
    finally:
        for network, was in training.items():
            network.train(was)


def encode(state: State, cells: CellSet, code: Callable[[Tensor], Tensor], width: int) -> np.ndarray:
    """Codes of cells, (N, width) float32, by a function of a batch of images; cells need not fit the device."""
    codes = [np.empty((0, width), np.float32)]
    block = BLOCK_CUDA if state.device.type == "cuda" else BLOCK
    with inference(state):
        for start in range(0, len(cells), block):
            images = torch.from_numpy(np.array(cells.images[start : start + block])).to(state.device)
            codes.append(code(channel_max(images)).cpu().numpy())
    return np.concatenate(codes)


def decode(state: State, codes: Tensor, image: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Images of codes, (N, width) -> (N, c, H, W) float32, by a function of a batch of codes."""
    block = BLOCK_CUDA if state.device.type == "cuda" else BLOCK
    with inference(state):
        return np.concatenate([image(part.to(state.device)).cpu().numpy() for part in codes.split(block)])


def code_table(cells: CellSet, codes: np.ndarray) -> pd.DataFrame:
    """Codes as a profile table: metadata of the cells, then the features z0, z1, and so on."""
    return cells.feature_table(codes, [f"z{i}" for i in range(codes.shape[1])])


def check_wells(cells: CellSet) -> None:
    """Refuse cells of one well whose labels differ, as `write_codes` would when the training is done."""
    if set(WELL) <= set(cells.table):
        to_wells(without_place(code_table(cells, np.zeros((len(cells), 1), np.float32))))


def write_codes(method: Method, state: State, cells: CellSet, folder: Path) -> None:
    """Write what is kept of the codes of all cells: profiles of wells, and the codes of some cells.

    ``wells.parquet`` has means and standard deviations over all cells of each well, as of `profiles.to_wells` (of one
    cell the deviation is 0); it is left out where the cells have no wells. ``codes.parquet`` has the codes of the
    cells of `kept_rows`.
    """
    codes = code_table(cells, method.encode(state, cells))
    if set(WELL) <= set(codes):
        save_table(to_float32(to_wells(without_place(codes), "mean_sd", single="zero")), folder / "wells.parquet")
    save_table(codes.iloc[kept_rows(cells.table)], folder / "codes.parquet")


def kept_rows(table: pd.DataFrame) -> np.ndarray:
    """Rows of at most `KEPT` cells of each well, all where there are no wells; sorted, and no seed changes them."""
    if not set(WELL) <= set(table):
        return np.arange(len(table))
    order = np.random.default_rng(0).permutation(len(table))
    turn = table.iloc[order].groupby(WELL, sort=False).cumcount().to_numpy()
    return np.sort(order[turn < KEPT])


# --- the course of a training ---------------------------------------------------------------------------------------


def course_steps(iterations: int, n: int = 10) -> list[int]:
    """Steps at which a training is looked at: 0 and about `n` - 1 more, in equal ratios, the last among them."""
    ratios = np.geomspace(max(1.0, iterations / 500), iterations, n - 1)
    return sorted({0, *np.round(ratios).astype(int).tolist()})


def follow(method: Method, state: State, cells: CellSet, history: History) -> None:
    """Keep the mean codes of wells where a training is now, over the cells of `kept_rows`, beside its checkpoint.

    Also the weights of those networks that the method wants to draw images with later, see `Method`.
    """
    head = history.folder / f"{COURSE}-{history.step:09d}"
    rows = kept_rows(cells.table)
    # In parts, of which each is copied, and in whole blocks.
    parts = (cells.select(rows[i : i + BLOCK_CUDA]) for i in range(0, len(rows), BLOCK_CUDA))
    codes = pd.concat([code_table(some, method.encode(state, some)) for some in parts], ignore_index=True)
    wells = to_wells(without_place(codes))
    wells.insert(0, "step", history.step)
    save_table(to_float32(wells), head.with_suffix(".parquet"))
    if names := [name for name in getattr(method, "FOLLOWED", ()) if name in state.networks]:
        save_weights(state, head.with_suffix(".safetensors"), names)


def join_course(history: History) -> None:
    """Write all that was followed as ``course.parquet``: step, metadata of the wells, mean codes.

    Weights, if any were kept, as ``course.safetensors``, tensors named ``step.network.layer.weight``.
    """
    parts, weights = (sorted(history.folder.glob(f"{COURSE}-*.{kind}")) for kind in ("parquet", "safetensors"))
    save_table(
        pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True), history.folder / "course.parquet"
    )
    if weights:
        steps = {int(part.stem.rpartition("-")[2]): load_file(part) for part in weights}
        named = {f"{step}.{name}": value for step, found in steps.items() for name, value in found.items()}
        write_atomically(history.folder / "course.safetensors", lambda path: save_file(named, path))
    for part in (*parts, *weights):
        part.unlink()
