"""What the same processor time gives, spent on width, on the code or on steps: the curves behind the preset `long`.

    python benchmarks/budget.py STORE --csv

Each training of `SPENDS` gets `--minutes` of one core, in steps by the speed measured before it, on the cells of the
preset `long` of another seed, which no page scores. It is looked at on its way: NSC of mean profiles, plain and
whitened, and the objective. Minutes of looking are not counted. What is in STORE is not trained again, and a training
that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import squareform
from table import add_option, machine

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.methods import vae_plus
from cellbook.pages.lafarge2019.config import LABELS, PRESETS, PROTOCOL, objective
from cellbook.runs import Run
from cellbook.screens.named import is_positive
from cellbook.screens.simulator import SimulatedScreen, simulate
from cellbook.study import course, measured, rows
from cellbook.study.profile import treatments
from cellbook.study.trainings import Place, Training
from cellbook.training.loop import steps

SEED = 101
RATE = 3e-3  # of all of them
PHASES = 16  # ramps of VAE+ in a training, as in the preset `long` and in the paper
BOTH = "mean of both"  # summaries
NSC = next(one for one in metrics.PROTOCOLS[PROTOCOL].measures if one.name == "NSC")
DRAWS = rows.Draws(10_000, 0)


class Spend(NamedTuple):
    """One way to spend the time."""

    model: str
    width: int
    code: int
    batch: int


SPENDS = (
    Spend("vae", 8, 64, 24),
    Spend("vae", 8, 256, 24),
    Spend("vae", 16, 256, 24),
    Spend("vae", 32, 256, 24),
    Spend("vae", 16, 128, 104),
    Spend("vae_plus", 8, 64, 24),
    Spend("vae_plus", 16, 256, 24),
)


def config(spend: Spend, iterations: int) -> vae_plus.Config:
    """Configuration of a training of so many steps."""
    return vae_plus.Config(
        model=spend.model,
        seed=SEED,
        iterations=iterations,
        batch=spend.batch,
        ramp=max(1, iterations // PHASES),
        latent=spend.code,
        width=spend.width,
        adam_rate=RATE,
    )


def speed(spend: Spend, cells: CellSet, seconds: float) -> float:
    """Processor seconds of a step in the middle of a training, from as many as `seconds` have room for."""
    device = torch.device("cpu")
    state = vae_plus.begin(config(spend, 2_000_000), cells, device)
    work = steps(vae_plus, state, cells.to(device), done=1_000_000)
    next(work)
    start, done = time.process_time(), 0
    while time.process_time() - start < seconds:
        next(work)
        done += 1
    return (time.process_time() - start) / done


def plan(spends: tuple[Spend, ...], cells: CellSet, store: Path, minutes: float) -> Iterator[tuple[Spend, float, int]]:
    """Each with its seconds a step and its steps; what was planned in the store before stays."""
    path = store / "plan.csv"
    known = pd.read_csv(path).to_dict("records") if path.exists() else []
    for spend in spends:
        line = next((one for one in known if tuple(one[name] for name in Spend._fields) == spend), None)
        if line is None:
            pace = speed(spend, cells, 10 * minutes / 8)
            line = {**spend._asdict(), "pace": pace, "steps": max(1, round(60 * minutes / pace))}
            known.append(line)
            pd.DataFrame(known).to_csv(path, index=False)
        yield spend, line["pace"], line["steps"]


def votes(run: Run, spend: Spend) -> dict[tuple[int, str], rows.Votes]:
    """Votes of the treatments by step and summary, and of both summaries together."""
    wells = run.table("course")
    first = wells[(wells["step"] == 0) & ~is_positive(wells)].drop(columns="step").reset_index(drop=True)
    units = treatments(first, PROTOCOL)
    units = units[profiles.metadata(units)]
    found = {}
    for point, line in course.measure(wells, spend.model, 0, PROTOCOL)[0].items():
        found[point.step, point.summary] = measured.matched(units, squareform(line), NSC)
    for step in sorted({step for step, _ in found}):
        found[step, BOTH] = rows.mean([found[step, summary] for summary in course.MEANS])
    return found


def losses(run: Run, training: Training) -> dict[int, float]:
    """The objective by step: terms that flatten, weighted, means since the line before.

    A line is told of one checkpoint, the last that is not behind it.
    """
    history = run.table("history").set_index("step")
    return sum(weight * history[term] for term, weight in objective(training).items()).to_dict()


def table(
    found: Mapping[Spend, dict[tuple[int, str], rows.Votes]],
    objectives: Mapping[Spend, dict[int, float]],
    paces: Mapping[Spend, float],
) -> pd.DataFrame:
    """One row a spend, checkpoint and summary.

    Accuracy with its 95 % interval over compounds, what it is above the same network untrained (`gain`), and, at the
    end, what it is behind the best of the same model by both summaries together (`behind`), paired over compounds.
    """
    last = {spend: max(step for step, _ in kept) for spend, kept in found.items()}
    lines = []
    for spend, kept in found.items():
        alike = [other for other in found if other.model == spend.model]
        best = max(alike, key=lambda one: found[one][last[one], BOTH].share)
        for (step, summary), here in kept.items():
            following = min((one for one, _ in kept if one > step), default=np.inf)
            after = [value for at, value in sorted(objectives[spend].items()) if following > at >= step > 0]
            line: dict[str, Any] = {**spend._asdict(), "model": LABELS[spend.model], "step": step}
            line |= {"views": step * spend.batch, "seconds": step * paces[spend]}
            line |= {"objective": after[0] if after else None, "summary": summary}
            line |= told("", [here])
            if step:
                line |= told("gain", rows.gaps([here], [kept[0, summary]]))
            if step == last[spend] and spend != best:
                line |= told("behind", rows.gaps([found[best][last[best], summary]], [here]))
            lines.append(line)
    return pd.DataFrame(lines)


def told(name: str, one: list[rows.Votes]) -> dict[str, float]:
    """A share with its interval under a name."""
    ends = rows.interval(one[0], DRAWS)
    return {name or "value": one[0].share} | {f"{name}_{end}".lstrip("_"): value for end, value in ends.items()}


def train(
    spends: tuple[Spend, ...], screen: SimulatedScreen, store: Path, minutes: float
) -> Iterator[tuple[pd.DataFrame, Spend]]:
    """Train one after the other; after each the table of all so far."""
    cells, place = simulate(screen), Place(store, "cpu")
    found, objectives, paces = {}, {}, {}
    for spend, pace, iterations in plan(spends, cells, store, minutes):
        training = Training(LABELS[spend.model], 0, "vae_plus", config(spend, iterations), course=True)
        run = place.of(training, cells)
        found[spend], objectives[spend], paces[spend] = votes(run, spend), losses(run, training), pace
        yield table(found, objectives, paces), spend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="folder of the trainings")
    parser.add_argument("--minutes", type=float, default=8.0, help="of one core, for each")
    add_option(parser, __file__)
    parser.add_argument("--model", choices=sorted({one.model for one in SPENDS}), help="only; rows of others stay")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.store.mkdir(parents=True, exist_ok=True)
    screen = replace(PRESETS["long"], seed=SEED).simulated
    spends = tuple(one for one in SPENDS if args.model in (None, one.model))
    kept = None
    if args.model and args.csv and args.csv.exists():
        kept = pd.read_csv(args.csv)
        kept = kept[kept["model"] != LABELS[args.model]]
    for rows_so_far, spend in train(spends, screen, args.store, args.minutes):
        end = rows_so_far[rows_so_far["summary"] == BOTH].groupby(list(Spend._fields), sort=False).tail(1)
        print(spend, end.to_string(index=False), sep="\n", flush=True)
        if args.csv:
            facts = {"seed": SEED, "machine": machine(), "torch": torch.__version__}
            written = rows_so_far.assign(**facts, date=f"{datetime.now(UTC):%Y-%m-%d}")
            written = pd.concat([kept, written], ignore_index=True)
            written.to_csv(args.csv, index=False, float_format="%.4g", lineterminator="\n")


if __name__ == "__main__":
    main()
