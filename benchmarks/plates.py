"""Time plates of simulated fields on one worker and on two, with several encoders: `python benchmarks/plates.py`.

Plates of the same fields, 1024 x 1280 pixels and three channels, are made in this process and then by two workers of
Dask, which are started and have made small plates before the clock runs; so one after the other for every encoder, as
many times as `--pairs` says. One row a run is written to `plates.csv`, from where the book's page on scale has it; rows
of other encoders stay. The disk needs some hundred MB for each plate. `cellbook sync` then renews the page.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import pandas as pd

TABLE = Path(__file__).with_suffix(".csv")
ENCODERS = ("cell-count", "classical", "imagenet")
CHANNELS = 3


def screen(folder, plates, fields):
    """Write plates of as many fields; one row a field."""
    from cellbook.screens import bbbc021, extraction
    from cellbook.screens.simulator import plate_map, preset, simulate_fields

    config = preset("quick")
    wells = plate_map(config).groupby("Metadata_plate", sort=False).size()
    sites = -(-fields // int(wells.nlargest(plates).min()))
    names = list(wells.nlargest(plates).index)
    simulate_fields(config, folder, sites=sites, plates=names)
    table = extraction.labelled_fields(bbbc021.image_table(folder), folder, bbbc021.moa_table(folder))
    return table.groupby("Metadata_plate", sort=False).head(fields).reset_index(drop=True)


def processor():
    """What the system calls its processor."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def timed(fields, out, settings, encoder, scheduler=None):
    """Seconds and the report of making all plates."""
    from cellbook.study.plates import make_plates

    start = time.perf_counter()
    report = make_plates(fields, out, settings, encoder, scheduler=scheduler)
    seconds = time.perf_counter() - start
    if (report["status"] != "done").any() or report["failed_fields"].any():
        raise SystemExit(report.to_string())
    return seconds, report


def peak():
    """Peak memory of this process so far (MiB)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if platform.system() == "Darwin" else 2**10)


def measure(fields, folder, encoder, settings, pairs):
    """One row a run: pairs of one worker, this process, and of two."""
    from distributed import Client, LocalCluster

    few = fields.groupby("Metadata_plate", sort=False).head(2)
    how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**how) as cluster, Client(cluster) as client:
        for place, address in (("here", None), ("there", cluster.scheduler_address)):
            timed(few, folder / f"{encoder.name}-{place}", settings, encoder, address)
        for pair in range(pairs):
            for workers, address in ((1, None), (2, cluster.scheduler_address)):
                out = folder / f"{encoder.name}-{pair}-{workers}"
                seconds, report = timed(fields, out, settings, encoder, address)
                row = {"encoder": encoder.name, "workers": workers, "pair": pair, "plates": len(report)}
                row |= {"fields": report["fields"].sum(), "cells": report["cells"].sum(), "channels": CHANNELS}
                row |= {"crop": settings.size, "seconds": round(seconds, 2)}
                row |= {"plates_per_second": round(len(report) / seconds, 4)}
                mib = max(client.run(peak).values()) if address else None
                yield row | {"peak_memory_mib": mib, "machine": processor()}


def main():
    import torch

    from cellbook.screens.crops import make_settings
    from cellbook.study.encoders import Encoder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plates", type=int, default=2)
    parser.add_argument("--fields", type=int, default=20, help="of a plate; with fewer none is corrected")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--folder", type=Path, help="where fields and cells are written for a while")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        fields = screen(Path(name) / "raw", args.plates, args.fields)
        for encoder in (Encoder(name, device="cpu") for name in args.encoders):
            for row in measure(fields, Path(name), encoder, make_settings(), args.pairs):
                rows.append(row)
                print(pd.DataFrame([row]).to_string(index=False, header=len(rows) == 1), flush=True)
    table = pd.DataFrame(rows)
    if TABLE.exists():
        before = pd.read_csv(TABLE)
        table = pd.concat([before[~before["encoder"].isin(args.encoders)], table], ignore_index=True)
    table["peak_memory_mib"] = table["peak_memory_mib"].astype("Int64")
    table.to_csv(TABLE, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
