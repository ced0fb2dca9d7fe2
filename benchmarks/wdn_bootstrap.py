"""Time WDN's bootstrap over cells beside a plain pandas loop that does the same, in one run, and check that both agree.

    python benchmarks/wdn_bootstrap.py --csv

Both score every resample at all 129 checkpoints: NSC and NSCB for k = 1 to 4, the silhouette, and both stopping rules
with every compound left out in turn. The loop draws the cells of each well again, maps them, takes their means with
`groupby`, and counts neighbours query by query. It is timed on `--loop` resamples at `--checkpoints` checkpoints and
scaled up. The cells lie on the design of the planted screen and the maps are random ones near the identity: their
values do not matter to the time.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_score
from table import add_option, write
from threadpoolctl import threadpool_limits

from cellbook.methods.wdn import Alignment, Level, bootstrap
from cellbook.methods.wdn.evaluation import KS
from cellbook.methods.wdn.instances import draw_wells
from cellbook.profiles import PlateScaler, features
from cellbook.profiles.table import matrix, replace_features
from cellbook.screens.planted import planted_wells

STEP = 40  # map steps between checkpoints
UNIT = ["Metadata_compound", "Metadata_concentration", "Metadata_batch"]
WELL = ["Metadata_plate", "Metadata_well"]
KEYS = ["rule", "replicate", "measure", "k"]


def make_cells(n: int, n_features: int, seed: int = 0) -> pd.DataFrame:
    """Make `n` cells around the wells of the planted screen, controls among them, in random order."""
    wells = PlateScaler("standardise").fit_transform(planted_wells(n_features=n_features))
    rng = np.random.default_rng(seed)
    of = np.concatenate([np.arange(len(wells)), rng.integers(len(wells), size=n - len(wells))])
    cells = wells.iloc[rng.permutation(of)].drop(columns="Metadata_cell_count").reset_index(drop=True)
    return replace_features(cells, matrix(cells) + 2 * rng.normal(size=(n, n_features)), features(cells))


def make_alignment(cells: pd.DataFrame, checkpoints: int, seed: int = 0) -> Alignment:
    """Make maps of every week that move away from the identity at random, as far as 128 checkpoints of 40 steps do."""
    rng = np.random.default_rng(seed)
    names, weeks = features(cells), sorted(set(cells["Metadata_batch"]))
    d, n = len(weeks), len(names)
    grow = np.linspace(0, 0.5, checkpoints)[:, None, None, None]
    maps = {
        "M": (np.eye(n) + grow * rng.normal(size=(d, n, n)) / np.sqrt(n)).astype(np.float32),
        "b": (grow[..., 0] * rng.normal(size=(d, n))).astype(np.float32),
    }
    return Alignment(names, (Level("Metadata_batch", weeks, STEP * np.arange(checkpoints), maps),), pd.DataFrame())


def some_checkpoints(alignment: Alignment, count: int) -> Alignment:
    """Keep some checkpoints, spread evenly, the first and the last among them."""
    (level,) = alignment.levels
    kept = np.linspace(0, len(level.steps) - 1, count).round().astype(int)
    part = Level(level.by, level.names, level.steps[kept], {name: v[kept] for name, v in level.maps.items()})
    return Alignment(alignment.features, (part,), alignment.history)


def neighbours(d: np.ndarray, table: pd.DataFrame) -> dict[str, list[np.ndarray]]:
    """Candidates of every query, nearest first, under NSC and NSCB."""
    compound, batch = table["Metadata_compound"].to_numpy(), table["Metadata_batch"].to_numpy()
    found: dict[str, list[np.ndarray]] = {"NSC": [], "NSCB": []}
    for q in range(len(d)):
        order = np.argsort(d[q], kind="stable")
        order = order[compound[order] != compound[q]]
        found["NSC"].append(order)
        found["NSCB"].append(order[batch[order] != batch[q]])
    return found


def count(found: list[np.ndarray], table: pd.DataFrame, without: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Right and counted neighbours (queries, 4), k cut to the right candidates there are; without a compound."""
    moa, compound = table["Metadata_moa"].to_numpy(), table["Metadata_compound"].to_numpy()
    right, counted = np.zeros((2, len(found), len(KS)), dtype=int)
    for q, order in enumerate(found):
        if compound[q] == without:
            continue
        hits = moa[order if without is None else order[compound[order] != without]] == moa[q]
        for j, k in enumerate(KS):
            counted[q, j] = min(k, hits.sum())
            right[q, j] = hits[: counted[q, j]].sum()
    return right, counted


def loop(alignment: Alignment, cells: pd.DataFrame, n: int, seed: int = 0) -> tuple[pd.DataFrame, float, float]:
    """Bootstrap cells the plain way; the same draws as `bootstrap`.

    Returns the scores, the seconds of a resample apart from its checkpoints, and those of a checkpoint.
    """
    treated = cells[cells["Metadata_compound"] != "DMSO"].reset_index(drop=True)
    well = treated.groupby(WELL).ngroup().to_numpy()
    rows, drawing, working = [], 0.0, 0.0
    for r, s in enumerate(np.random.SeedSequence(seed).generate_state(n)):
        start = time.perf_counter()
        drawn = treated.iloc[draw_wells(well, 1, int(s))[0]].reset_index(drop=True)
        drawing += time.perf_counter() - start
        start = time.perf_counter()
        rows += [(rule, r, *line) for rule, *line in score_resample(alignment, drawn)]
        working += time.perf_counter() - start
    return pd.DataFrame(rows, columns=[*KEYS, "value"]), drawing / n, working / n / len(alignment.steps)


def score_resample(alignment: Alignment, drawn: pd.DataFrame) -> list[tuple[str, str, int, float]]:
    """Score one resample at every checkpoint, and by both rules at the checkpoint chosen for each compound."""
    compounds = sorted(set(drawn["Metadata_compound"]))
    right, counted = [], {}
    criterion = {rule: np.zeros((len(compounds), len(alignment.steps))) for rule in ("knn", "silhouette")}
    silhouettes = []
    for c, step in enumerate(alignment.steps):
        mapped = alignment.transform(drawn, int(step))
        means = mapped.groupby([*UNIT, "Metadata_moa"])[alignment.features].mean()
        table = means.index.to_frame(index=False)
        d = cdist(means, means, "cosine").round(12)
        np.fill_diagonal(d, 0)
        found = neighbours(d, table)
        silhouettes.append(silhouette_score(d, table["Metadata_moa"], metric="precomputed"))
        here = {name: count(order, table) for name, order in found.items()}
        right.append({name: r for name, (r, _) in here.items()})
        counted = {name: t for name, (_, t) in here.items()}
        for i, compound in enumerate(compounds):
            for order in found.values():
                r, t = (part.sum(axis=0) for part in count(order, table, compound))
                criterion["knn"][i, c] += (r / t).mean()
            keep = (table["Metadata_compound"] != compound).to_numpy()
            kept = table["Metadata_moa"][keep]
            criterion["silhouette"][i, c] = silhouette_score(d[np.ix_(keep, keep)], kept, metric="precomputed")
    scores: list[tuple[str, str, int, float]] = []
    chosen = {rule: value.round(12).argmax(axis=1) for rule, value in criterion.items()}
    of = table["Metadata_compound"].map({name: i for i, name in enumerate(compounds)})
    for rule, best in {"none": np.zeros(len(compounds), dtype=int), **chosen}.items():
        scores.append((rule, "silhouette", 0, silhouettes[0] if rule == "none" else max(silhouettes)))
        for name, total in counted.items():
            hits = sum(right[best[i]][name][q] for q, i in enumerate(of))
            scores += [(rule, name, k, hits[j] / total[:, j].sum()) for j, k in enumerate(KS)]
    return scores


def measure(n_features: int, options: argparse.Namespace) -> dict[str, float | int | bool]:
    """Time both forms on cells of so many features."""
    cells = make_cells(options.cells, n_features)
    alignment = make_alignment(cells, options.steps)
    start = time.perf_counter()
    bootstrap(alignment, cells, options.resamples)
    vectorised = time.perf_counter() - start

    few = some_checkpoints(alignment, options.checkpoints)
    slow, drawing, working = loop(few, cells, options.loop)
    fast = bootstrap(few, cells, options.loop)[0].set_index(KEYS)["value"].sort_index()
    apart = (fast - slow.set_index(KEYS)["value"].sort_index()).abs().max(skipna=False)
    plain = options.resamples * (drawing + options.steps * working)
    return {
        "features": n_features,
        "vectorised_s": vectorised,
        "loop_s": plain,
        "ratio": plain / vectorised,
        "loop_resample_s": drawing,
        "loop_checkpoint_s": working,
        "largest_difference": float(apart),
        "agree": bool(apart < 1e-9),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000, help="rows of the table, controls among them")
    parser.add_argument("--features", type=int, nargs="+", default=[50, 192], help="the paper's two embeddings")
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--steps", type=int, default=129, help="checkpoints, the identity among them")
    parser.add_argument("--loop", type=int, default=2, help="resamples of the plain loop that are timed")
    parser.add_argument("--checkpoints", type=int, default=4, help="checkpoints of the plain loop that are timed")
    add_option(parser, __file__)
    options = parser.parse_args()

    print(f"{options.cells} cells with controls, {options.steps} checkpoints, {options.resamples} resamples")
    print(f"the loop is timed on {options.loop} resamples at {options.checkpoints} checkpoints and scaled up")
    # One thread for both: the products are small, and threads that wait for each other would blur the ratio.
    with threadpool_limits(1):
        rows = [measure(n, options) for n in options.features]
    for row in rows:
        print(
            f"{row['features']:4d} features {row['vectorised_s']:7.1f} s  loop {row['loop_s']:8.0f} s  "
            f"x {row['ratio']:6.1f}  largest difference {row['largest_difference']:.1e}, agree: {row['agree']}"
        )
    what, beside = f"{options.resamples} resamples of {options.cells} cells", {"unit": "s", "beside": "plain loop"}
    write(options.csv, [
        {"what": f"{what}, {row['features']} features", "value": row["vectorised_s"], "faster": row["ratio"], **beside}
        for row in rows
    ])  # fmt: skip


if __name__ == "__main__":
    main()
