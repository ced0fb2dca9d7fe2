"""Cells that are simulated in a second, by device, side of the crop and part: what numpy does and what torch does.

    python benchmarks/simulate.py --csv

Each part runs for about `--seconds` at most. "tables" are parameters, layout and nuisances; "numpy" draws shapes of
cells and noise of the camera in as many threads as there are cores; "torch" draws, develops and cuts on the device what
is there already; "all" is both at once, the crops left on the device. A set of cells on a GPU is drawn first and not
timed.
"""

import argparse
import os
import time
from functools import partial

import numpy as np
import torch
from table import add_option, write

from cellbook.pixels import in_threads
from cellbook.runs import device_name
from cellbook.screens.simulator import plate_map, preset, render, simulate
from cellbook.screens.simulator.simulate import (
    _LARGE,
    _SMALL,
    _expose,
    _photographs,
    _prepare,
    field_shape,
    screen_tables,
)

HELD = 20  # batches that wait for the device when it is timed alone


def drain(work, seconds: float, device: str) -> tuple[int, float]:
    """How many cells come in how many seconds, until there are no more or the time is over."""
    start, count = time.perf_counter(), 0
    for cells in work:
        count += cells
        if time.perf_counter() - start > seconds:
            break
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return count, time.perf_counter() - start


def parts(config, device: str, plates: list[str], seconds: float, threads: int):
    """Name of a part, cells and seconds."""
    start = time.perf_counter()
    cells, wells = screen_tables(config, plates)
    yield "tables", len(cells), time.perf_counter() - start

    on, shape = torch.device(device), field_shape(config)
    bounds = np.concatenate([[0], np.cumsum(cells.groupby("field").size().to_numpy())])
    pixels, at_once = _SMALL if on.type == "cpu" else _LARGE
    step = max(1, pixels // (shape[0] * shape[1]))
    prepare = partial(_prepare, config, cells, wells, shape, bounds, step, at_once, pinned=on.type == "cuda")
    firsts, held = range(0, len(bounds) - 1, step), []

    def prepared():
        for batch in in_threads(prepare, firsts, threads):
            held.extend([batch] if len(held) < HELD else [])
            yield batch.rows.stop - batch.rows.start

    yield "numpy", *drain(prepared(), seconds, device)

    canvas = render.canvas(config.seed, on)

    def cut(batch, fields) -> int:
        for places in batch.places:
            render.cut(fields.view(torch.int16), *(place.to(on, non_blocking=True) for place in places), config.crop)
        return batch.rows.stop - batch.rows.start

    turns = len(firsts) // len(held) + 1
    yield "torch", *drain((cut(each, _expose(config, canvas, each)) for each in held * turns), seconds, device)
    whole = _photographs(config, cells, wells, device, progress=False)
    yield "all", *drain((cut(*each) for each in whole), seconds, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each part, at most")
    parser.add_argument("--crops", type=int, nargs="+", default=[68, 96, 128])
    parser.add_argument("--cells", type=int, default=100_000, help="about so many, if there is time")
    known = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    parser.add_argument("--devices", nargs="+", default=known)
    add_option(parser, __file__)
    args = parser.parse_args()
    threads, rows = len(os.sched_getaffinity(0)), []
    names = list(plate_map(preset("paper"))["Metadata_plate"].unique())
    for device in args.devices:
        for crop in args.crops:
            config = preset("paper", crop=crop, controls=3, positive_controls=1)
            wells = len(plate_map(config)) / len(names)
            plates = names[: max(1, round(args.cells / (wells * config.cells)))]
            if device != "cpu":
                simulate(preset("smoke", crop=crop), device, plates=names[:1])  # warm-up
            for part, count, seconds in parts(config, device, plates, args.seconds, threads):
                where = f"{part}, crops of {crop} pixels, {device_name(device)}"
                rows.append({"what": where, "value": count / seconds, "unit": "cells a second"})
                print(f"{device:5} {crop:4} {part:7} {count:7} cells {seconds:7.2f} s {count / seconds:9.0f} a second")
    write(args.csv, rows, args.devices[-1], threads)


if __name__ == "__main__":
    main()
