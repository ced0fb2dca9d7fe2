"""How hard the simulated screen is beside the real sample, at equal layout and numbers of cells, for several strengths.

Features of a network that learned elsewhere, and classical features, judge both: NSC and NSCB of treatments (raw, and
whitened by DMSO wells), and how often the week of a single DMSO cell is named. Compounds are split in two halves, one
to choose strengths by and one to show the agreement on. Writes a line a screen as it goes:

    python benchmarks/calibrate_screen.py out.csv --effects 1.0 1.2 --weeks 1.0 0.7 --seeds 3
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from cellbook import features, metrics, profiles
from cellbook.cells import CellSet
from cellbook.metrics import prepare
from cellbook.screens.named import is_positive, without_place
from cellbook.screens.sample import bbbc021_sample
from cellbook.screens.simulator import SimulatedScreen, simulate
from cellbook.screens.simulator.calibration import matched_rows

ENCODERS = ("imagenet", "classical")


def halves(compounds: pd.Series) -> dict[str, str]:
    """Half of each compound, alternating by name."""
    return {name: "AB"[i % 2] for i, name in enumerate(sorted(set(compounds)))}


def judged(cells: CellSet) -> dict[str, float]:
    """All numbers of one set of cells."""
    found: dict[str, float] = {"cells": len(cells)}
    for encoder in ENCODERS:
        table = without_place(getattr(features, encoder)(cells))
        controls = table[table["Metadata_compound"] == "DMSO"].reset_index(drop=True)
        named = metrics.classify_batch(controls, seed=0, standardise=True)
        found |= {f"{encoder}, week": named.accuracy, f"{encoder}, largest week": named.majority}
        wells = profiles.drop_unusable(profiles.to_wells(table))[0]
        scaled = profiles.PlateScaler("standardise", by=None, on_constant="drop").fit_transform(wells)
        white = profiles.Whitening(1.0, relative=True).fit_transform(wells if encoder == "imagenet" else scaled)
        for name, one in (("raw" if encoder == "imagenet" else "scaled", wells), ("whitened", white)):
            one = scaled if name == "scaled" else one
            units = prepare(one, "lafarge2019", drop_unusable=True).profiles
            for measure in metrics.PROTOCOLS["lafarge2019"].measures:
                queries = metrics.match(units, **measure.arguments()).per_query
                half = queries["compound"].map(halves(queries["compound"]))
                for part in ("A", "B", "AB"):
                    chosen = queries[half.isin(list(part))]
                    value = chosen["correct"].sum() / chosen["counted"].sum()
                    found[f"{encoder}, {name}, {measure.name}, {part}"] = value
    return found


def main() -> None:
    """Judge the real sample, then every screen that is asked for; what is in the file already is not done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--effects", type=float, nargs="+", default=[1.0])
    parser.add_argument("--weeks", type=float, nargs="+", default=[1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=100, help="first seed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = pd.read_csv(given.out).to_dict("records") if given.out.exists() else []
    sample = bbbc021_sample()
    real = sample.select(~is_positive(sample.table))

    def keep(line: dict[str, object]) -> None:
        lines.append(line)
        pd.DataFrame(lines).to_csv(given.out, index=False)

    if not lines:
        keep({"screen": "real", **judged(real)})
    done = {(line.get("effect"), line.get("week_effect"), line.get("seed")) for line in lines}
    for seed in range(given.first, given.first + given.seeds):
        for effect in given.effects:
            for week in given.weeks:
                if (effect, week, seed) in done:
                    continue
                screen = SimulatedScreen(
                    seed=seed, controls=1, positive_controls=0, cells=20, effect=effect, week_effect=week
                )
                cells = simulate(screen)
                cells = cells.select(matched_rows(cells.table, real.table))
                keep({"screen": "simulated", "effect": effect, "week_effect": week, "seed": seed, **judged(cells)})


if __name__ == "__main__":
    main()
