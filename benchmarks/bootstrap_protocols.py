"""Time the bootstrap over wells beside a plain pandas loop that does the same, in one run, and check that both agree.

    python benchmarks/bootstrap_protocols.py --resamples 100 --loop 5 --json result.json

The loop repeats wells, aggregates with `groupby` and scores with `match`, once a resample. It is timed on `--loop`
resamples and scaled up. Without the real features the same is done on random numbers of the same shape.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.metrics import PROTOCOLS, Protocol, bootstrap_wells, match
from cellbook.metrics.scores import prepare
from cellbook.metrics.wells import draw_wells
from cellbook.profiles import PlateScaler
from cellbook.profiles.table import features, metadata
from cellbook.screens.bbbc021 import ljosa2013


def random_wells(n_treatments: int = 103, n_features: int = 464, seed: int = 0) -> pd.DataFrame:
    """Make wells of the benchmark's shape: three a treatment, seven treatments with two, ten batches, 12 MOAs."""
    rng = np.random.default_rng(seed)
    treatment = np.repeat(np.arange(n_treatments), [2] * 7 + [3] * (n_treatments - 7))
    compound = treatment * 38 // n_treatments
    table = pd.DataFrame(
        {
            "Metadata_compound": [f"compound {c}" for c in compound],
            "Metadata_concentration": treatment.astype(float),
            "Metadata_moa": [f"moa {c % 12}" for c in compound],
            "Metadata_batch": [f"Week{1 + c // 4}" for c in compound],
        }
    )
    x = rng.normal(size=(n_treatments, n_features))[treatment] + rng.normal(size=(len(treatment), n_features))
    return pd.concat([table, pd.DataFrame(x, columns=[f"feature_{i}" for i in range(n_features)])], axis=1)


def read_wells() -> tuple[pd.DataFrame, str]:
    """Read the published features, standardised on each plate's controls, if they lie beside the checkout."""
    try:
        wells = ljosa2013()
    except CellbookError:
        return random_wells(), "random"
    return PlateScaler(method="standardise", on_constant="drop").fit_transform(wells), "bbbc021"


def loop(wells: pd.DataFrame, protocol: Protocol, n: int, seed: int = 0) -> pd.DataFrame:
    """Bootstrap wells the plain way, one resample at a time; the same draws as `bootstrap_wells`."""
    u = prepare(wells, protocol)
    described = u.profiles[metadata(u.profiles)]
    names = features(u.rows)
    rows = []
    for draws in draw_wells(u.unit, n, seed):
        drawn = u.rows.iloc[draws].assign(unit=u.unit)
        if protocol.statistic == "median":
            values = drawn.groupby("unit")[names].median()
        elif u.weight is None:
            values = drawn.groupby("unit")[names].mean()
        else:
            weights = drawn[u.weight]
            total = drawn[names].mul(weights, axis=0).groupby(drawn["unit"]).sum()
            values = total.div(weights.groupby(drawn["unit"]).sum(), axis=0)
        profiles = pd.concat([described, values], axis=1)
        rows.append([match(profiles, distance=protocol.distance, **m.arguments()).accuracy for m in protocol.measures])
    return pd.DataFrame(rows, columns=[m.column for m in protocol.measures], index=pd.RangeIndex(n, name="replicate"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--loop", type=int, default=5, help="resamples of the plain loop that are timed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    wells, source = read_wells()
    result: dict[str, object] = {"wells": len(wells), "features": len(features(wells)), "source": source}
    print(f"{len(wells)} wells x {len(features(wells))} features ({source}), {options.resamples} resamples")
    total = {"vectorised": 0.0, "loop": 0.0}
    for name, protocol in PROTOCOLS.items():
        start = time.perf_counter()
        bootstrap_wells(wells, protocol, options.resamples)
        vectorised = time.perf_counter() - start
        start = time.perf_counter()
        slow = loop(wells, protocol, options.loop)
        plain = (time.perf_counter() - start) * options.resamples / options.loop
        # The draws of a shorter run differ, so the check is a run of its own.
        agree = bootstrap_wells(wells, protocol, options.loop).equals(slow)
        result[name] = {"vectorised_s": vectorised, "loop_s": plain, "ratio": plain / vectorised, "identical": agree}
        print(f"{name:18s} {vectorised:7.2f} s  loop {plain:7.2f} s  x {plain / vectorised:5.1f}  identical: {agree}")
        total["vectorised"] += vectorised
        total["loop"] += plain
    ratio = total["loop"] / total["vectorised"]
    result["all"] = {"vectorised_s": total["vectorised"], "loop_s": total["loop"], "ratio": ratio}
    print(f"{'all':18s} {total['vectorised']:7.2f} s  loop {total['loop']:7.2f} s  x {ratio:5.1f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
