"""Time simulating cells, opening a set of 100,000 and moving it to the device, beside loops that take one cell a time.

    python benchmarks/cells.py --csv

The loop of the simulator is the same code with one cell a step, on fewer plates; the cells must come out the same to
within a grey level. The loops over stored cells read and move them one by one, `--loop` of them, scaled up. The stored
set is written to `--folder` first (2.8 GB for 100,000 cells) and removed.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from table import add_option, write

from cellbook.cells import CellSet, save_parts
from cellbook.pixels import gather
from cellbook.runs import device_name
from cellbook.screens.simulator import plate_map, preset, simulate

GREY_LEVEL = 16


def timed(work, device: str = "cpu", times: int = 1):
    """Return the result and the shortest of some times in seconds."""
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        result = work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return result, best


def time_simulation(plates: int, devices: list[str]) -> list[dict[str, object]]:
    """Cells a second by device, and of one cell a step on the CPU."""
    import sys

    module = sys.modules["cellbook.screens.simulator.simulate"]
    config = preset("quick")
    names = list(plate_map(config)["Metadata_plate"].unique())[:plates]
    rows, whole = [], None
    for device in devices:
        simulate(config, device, plates=names[:1])  # warm-up
        cells, seconds = timed(lambda device=device: simulate(config, device, plates=names), device)
        rows.append(
            {"what": f"simulate, {device_name(device)}", "cells": len(cells), "per_second": len(cells) / seconds}
        )
        whole = cells if whole is None else whole
    batch = module._SMALL
    module._SMALL = (batch[0], 1)
    try:
        cells, seconds = timed(lambda: simulate(config, "cpu", plates=names[:1]))
    finally:
        module._SMALL = batch
    rows.append({"what": "one cell a step, CPU", "cells": len(cells), "per_second": len(cells) / seconds})
    difference = np.abs(cells.images.astype(int) - whole.images[: len(cells)]).max()
    for row in rows:
        row["ratio"] = row["per_second"] / rows[-1]["per_second"]
        row["same"] = bool(difference <= GREY_LEVEL)
    return rows


def random_set(n: int, folder: Path) -> CellSet:
    """Write `n` cells of noise in parts of 10,000."""
    noise = np.random.default_rng(0).integers(0, 65_536, (min(n, 10_000), 3, 68, 68), dtype=np.uint16)

    def parts():
        for start in range(0, n, 10_000):
            size = min(10_000, n - start)
            table = pd.DataFrame({"Metadata_well": [f"well {(start + i) // 300}" for i in range(size)]})
            yield CellSet(noise[:size], table, ("DNA", "Tubulin", "Actin"), 0.656)

    return save_parts(parts(), folder)


def time_stored(n: int, folder: Path, devices: list[str], loop: int, batches: int = 20) -> list[dict[str, object]]:
    """Seconds to open, to move to the device and to take batches there, beside a loop over cells."""
    stored = random_set(n, folder / "set")
    rows = []
    _, opened = timed(lambda: CellSet.open(folder / "set"), times=5)
    _, read = timed(lambda: np.load(folder / "set" / "images.npy"))
    rows.append({"what": f"open {n} cells", "seconds": opened, "loop": read, "against": "reading the file"})
    draw = np.random.default_rng(1).integers(0, n, (batches, 128))
    for device in devices:
        if device.startswith("cuda"):
            torch.cuda.init()
        images, moved = timed(lambda device=device: stored.to(device), device)

        def one_by_one(device=device):
            return torch.stack([torch.from_numpy(np.array(stored.images[i])).to(device) for i in range(loop)])

        _, slow = timed(one_by_one, device)
        name = device_name(device)
        rows.append({"what": f"move to {name}", "seconds": moved, "loop": slow * n / loop, "against": "cell by cell"})
        rows_on = torch.from_numpy(draw).to(device)
        _, fast = timed(lambda images=images, rows_on=rows_on: [gather(images, row) for row in rows_on], device)

        def from_disk(device=device):
            return [torch.stack([torch.from_numpy(np.array(stored.images[i])) for i in row]).to(device) for row in draw]

        _, slow = timed(from_disk, device)
        what = f"{batches} batches of 128, {name}"
        rows.append({"what": what, "seconds": fast, "loop": slow, "against": "cell by cell from the file"})
        del images
    for row in rows:
        row["ratio"] = row["loop"] / row["seconds"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plates", type=int, default=4, help="plates of the quick preset that are simulated")
    parser.add_argument("--stored", type=int, default=100_000)
    parser.add_argument("--loop", type=int, default=2_000, help="cells of the loop that moves them one by one")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--folder", type=Path, help="where the stored set is written for a while")
    add_option(parser, __file__)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print(f"{torch.get_num_threads()} threads")
    simulated = time_simulation(args.plates, devices)
    for row in simulated:
        print(
            f"{row['what']:45} {row['cells']:7} cells {row['per_second']:9.0f} a second  x {row['ratio']:6.1f}"
            f"  same cells: {row['same']}"
        )
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        stored = time_stored(args.stored, Path(folder), devices, args.loop)
    for row in stored:
        print(f"{row['what']:45} {row['seconds']:9.4f} s  {row['against']} {row['loop']:9.3f} s  x {row['ratio']:8.1f}")
    kept = [{"value": row["per_second"], "unit": "cells a second", "beside": "one cell a time"} for row in simulated]
    kept += [{"value": row["seconds"], "unit": "s", "beside": row["against"]} for row in stored]
    names = [{"what": row["what"], "faster": row["ratio"]} for row in (*simulated, *stored)]
    write(args.csv, [a | b for a, b in zip(names, kept, strict=True)], devices[-1], torch.get_num_threads())


if __name__ == "__main__":
    main()
