"""Time training steps of AE, VAE and VAE+: bf16, channels-last and compiled networks, each on and off, side by side.

    python benchmarks/train_step.py --steps 3 --threads 1 --csv
    python benchmarks/train_step.py --device cuda --steps 50 --settings all

A step includes drawing and gathering its batches from images that lie on the device. Cells are random numbers: the work
is the same. Times are medians over steps, on CUDA by events; compiling falls into the warm-up.
"""

import argparse
import itertools
import time

import numpy as np
import pandas as pd
import torch
from table import add_option, write

from cellbook.cells import CellSet
from cellbook.methods import vae_plus
from cellbook.pixels import gather
from cellbook.runs import choose_device, device_name
from cellbook.training import Batch
from cellbook.training.state import has_bf16


def random_cells(n: int, treatments: int = 104) -> CellSet:
    """Make `n` cells of noise with as many treatments as BBBC021 has, DMSO included."""
    images = np.random.default_rng(0).integers(0, 65_536, (n, 3, 68, 68), dtype=np.uint16)
    table = pd.DataFrame({"Metadata_compound": [f"compound {i % treatments}" for i in range(n)]})
    return CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.656)


def time_steps(state, images, steps: int, warmup: int) -> dict[str, float]:
    """Seconds a step and seconds of processor time a step, medians after `warmup` steps at full feature weights."""
    cuda = state.device.type == "cuda"
    wall, cpu = [], []
    for k in range(warmup + steps):
        if cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
        clock, processor = time.perf_counter(), time.process_time()
        rows = vae_plus.draw(state, 0)
        vae_plus.step(state, Batch(gather(images, rows), rows), 5 * state.config.ramp + k)
        if cuda:
            end.record()
            end.synchronize()
        if k >= warmup:
            wall.append(begin.elapsed_time(end) / 1000 if cuda else time.perf_counter() - clock)
            cpu.append(time.process_time() - processor)
    return {"seconds": float(np.median(wall)), "spread": float(np.ptp(wall)), "cpu_seconds": float(np.median(cpu))}


def measure(cells, device, model, bf16, channels_last, compiled, args) -> dict[str, object]:
    torch.manual_seed(0)
    config = vae_plus.Config(model=model, width=args.width, batch=args.batch)
    state = vae_plus.begin(config, cells, device)
    state.bf16 = bf16
    for network in state.networks.values():
        network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        if compiled:
            network.compile()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = time_steps(state, cells.to(device), args.steps, args.warmup)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    return {
        "model": model,
        "bf16": bf16,
        "channels_last": channels_last,
        "compiled": compiled,
        **times,
        "steps_per_second": 1 / times["seconds"],
        "images_per_second": args.batch / times["seconds"],
        "peak_mib": memory,
    }


def named(row: dict[str, object]) -> str:
    """A setting in words."""
    parts = ["bf16" if row["bf16"] else "float32", "channels last" if row["channels_last"] else "channels first"]
    return ", ".join([str(row["model"]), *parts, *["compiled"] * bool(row["compiled"])])


def line(row: dict[str, object], first: dict[str, object]) -> dict[str, object]:
    """A setting for the table of all benchmarks, beside the first of its model; on a CPU by processor time."""
    measure = "cpu_seconds" if row["peak_mib"] is None else "seconds"
    unit = "processor s a step" if row["peak_mib"] is None else "s a step"
    about = {"what": named(row), "value": row[measure], "unit": unit}
    return about | {"faster": first[measure] / row[measure], "beside": named(first)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", nargs="+", default=["ae", "vae", "vae_plus"], choices=list(vae_plus.MODELS))
    parser.add_argument("--settings", default="used", choices=["used", "all"], help="what training uses, or all on/off")
    parser.add_argument("--batch", type=int, default=104)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    add_option(parser, __file__)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(choose_device(args.device))
    cuda = device.type == "cuda"
    if cuda:
        torch.backends.cudnn.benchmark = True
    cells = random_cells(4 * 104)
    settings = [(bf16, True, False) for bf16 in sorted({has_bf16(device, on_cpu=True), False})]
    if args.settings == "all":
        settings = list(itertools.product((False, True), repeat=3))
    rows, lines = [], []
    print(f"{device_name(str(device))}, {torch.get_num_threads()} threads, batch {args.batch}, width {args.width}")
    print(f"{'model':16} bf16 ch.last compile  s/step   spread  CPU s/step  images/s")
    for model, (bf16, channels_last, compiled) in itertools.product(args.models, settings):
        row = measure(cells, device, model, bf16, channels_last, compiled, args)
        first = next((one for one in rows if one["model"] == model), row)
        rows.append(row)
        lines.append(line(row, first))
        print(
            f"{model:16} {bf16!s:5} {channels_last!s:5} {compiled!s:6} {row['seconds']:9.4f} {row['spread']:8.4f}"
            f" {row['cpu_seconds']:9.3f} {row['images_per_second']:10.1f}",
            flush=True,
        )
    write(args.csv, lines, str(device), torch.get_num_threads())


if __name__ == "__main__":
    main()
