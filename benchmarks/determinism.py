"""How far two trainings with the same seed, on the same device, are apart: `python benchmarks/determinism.py --help`.

All models are trained for some steps on the same few simulated cells, WDN on planted wells, twice and each time in a
process of its own, and the two trainings' weights and codes (of WDN: maps and aligned profiles) are compared. One row a
model and device is written to `determinism.csv`, from where the book's page *Status* has it; other rows stay.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file

from cellbook import profiles
from cellbook.methods import find_method, wdn
from cellbook.methods.wdn.alignment import MAPS
from cellbook.runs import Run, choose_device, device_name
from cellbook.screens.planted import planted_wells
from cellbook.screens.simulator import SimulatedScreen, plate_map, simulate
from cellbook.training import train_run

TABLE = Path(__file__).with_suffix(".csv")
MODELS = {
    "AE": ("vae_plus", {"model": "ae"}),
    "VAE": ("vae_plus", {"model": "vae"}),
    "VAE+": ("vae_plus", {"model": "vae_plus"}),
    "fair CAE": ("fair_cae", {}),
    "fair CAE, deep": ("fair_cae", {"model": "deep"}),
    "fair CAE, conditional": ("fair_cae", {"conditional": True}),
    "fair CAE, reversal": ("fair_cae", {"penalty": "reversal", "updates": None}),
    "fair CAE, confusion": ("fair_cae", {"penalty": "confusion"}),
    "fair CAE, kernel": ("fair_cae", {"penalty": "kernel", "updates": None}),
    "weakly supervised": ("weakly_supervised", {"validation": ()}),
    "mixup": ("weakly_supervised", {"model": "mixup", "validation": ()}),
    "sets": ("weakly_supervised", {"model": "recurrent", "validation": ()}),
    "VICReg": ("vicreg", {}),
    "WDN": ("wdn", {}),
    **{
        name: ("cytogan", {"model": name, "side": 64})
        for name in ("dcgan", "lsgan", "wgan_gp", "wgan", "began", "bigan")
    },
    **{f"CytoGAN's {name.upper()}": ("cytogan", {"model": name, "side": 64}) for name in ("vae", "ae")},
}
SIDES = {"vae_plus": 68}
STEPS = 20


def cells(side):
    screen = SimulatedScreen(cells=6, wells=1, controls=2, crop=side)
    plates = plate_map(screen).groupby("Metadata_batch")["Metadata_plate"].first().tolist()[:2]
    return simulate(screen, plates=plates)


def train(names, store, device, steps):
    """Train models, each in a store of its own below `store`."""
    torch.set_num_threads(1)
    screens = {side: cells(side) for side in (64, 68)}
    for name in names:
        method, values = MODELS[name]
        if method == "wdn":
            wdn.run(planted_wells(), replace(wdn.PRESETS["smoke"], iterations=steps), store / name, device=device)
            continue
        module = find_method(method)
        config = replace(module.PRESETS["smoke"], **values)
        config = module.resize(config, steps) if hasattr(module, "resize") else replace(config, iterations=steps)
        train_run(module, config, screens[SIDES.get(method, 64)], store / name, device, end_at_collapse=False)


def learned(run):
    """Weights of a training by their names, and codes, (cells, d); of WDN maps and aligned profiles of wells."""
    if run.key.startswith("wdn-"):
        aligned = wdn.load(run).transform(planted_wells())
        return load_file(run.path(MAPS)), profiles.matrix(aligned)
    return load_file(run.path("weights.safetensors")), profiles.matrix(run.table("codes"))


def compare(one, other):
    """Largest difference of a weight and of a code, the second in standard deviations of that code."""
    (a, x), (b, y) = learned(one), learned(other)
    weights = max(float(np.abs(a[name].astype(float) - b[name]).max()) for name in a)
    spread = x.std(axis=0)
    varies = spread > 0
    codes = float((np.abs(x - y)[:, varies] / spread[varies]).max()) if varies.any() else float(np.abs(x - y).max())
    return {"weights": weights, "codes": codes}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--one", type=Path, metavar="STORE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = choose_device(given.device)
    if given.one:
        return train(given.models, given.one, device, given.steps)
    facts = {"device": device_name(device), "torch": torch.__version__, "steps": given.steps}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        stores = [Path(folder, "1"), Path(folder, "2")]
        for store in stores:
            how = ["--device", device, "--steps", str(given.steps), "--one", str(store), "--models", *given.models]
            subprocess.run([sys.executable, __file__, *how], check=True)
        for name in given.models:
            runs = [Run(next((store / name).glob("*/run.json")).parent) for store in stores]
            rows.append({"model": name, **facts, **compare(*runs)})
    found = pd.DataFrame(rows)
    if TABLE.exists():
        before = pd.read_csv(TABLE)
        found = pd.concat([found, before]).drop_duplicates(["model", "device"])
        found = found.sort_values("model", key=lambda names: names.map(list(MODELS).index), kind="stable")
    found.to_csv(TABLE, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
