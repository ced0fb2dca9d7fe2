"""The run of the page: all trainings, each a run of its own in the store, and what the page keeps of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import squareform
from threadpoolctl import threadpool_limits

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.files import write_atomically
from cellbook.methods import vae_plus
from cellbook.pages.lafarge2019 import pictures, profile
from cellbook.pages.lafarge2019.config import LABELS, VERSION, Config, Training, trainings
from cellbook.pages.lafarge2019.quality import Kept, measure
from cellbook.pages.lafarge2019.screen import fingerprint, load
from cellbook.runs import Run, obtain_page, processes, run_key, save_table, to_float32
from cellbook.training import load_run, train_run

LARGE = 50  # iterations; below, starting another process takes longer than the training
FIGURE_4 = ("nocodazole", 3.0)  # the paper's example, shown if the models disagree on it here, too


def run(
    config: Config, store: str | Path, *, device: str = "auto", force: bool = False, workers: int | None = None
) -> Run:
    """The run of this configuration, computed only if it is not in the store; so is each of its trainings.

    Parameters
    ----------
    config : Config
    store : folder of the runs
    device : where networks are trained; everything else is done on the CPU
    force : make all anew, trainings as well
    workers : processes that train; as many as there are cores, if trainings are long and on a CPU
    """

    def make(folder: Path, on: str) -> None:
        make_products(config, store, folder, on, force, workers)

    return obtain_page(store, "lafarge2019", VERSION, config, fingerprint(config), make, device=device, force=force)


def make_products(
    config: Config, store: str | Path, folder: Path, device: str, force: bool, workers: int | None
) -> None:
    """Train what is not there, measure every training, and write the products."""
    cells = load(config, store, device)
    kept = train_all(config, cells, store, device, force, workers)
    tables = gather(kept)
    found = {name: values for one in kept for name, values in one.distances.items()}
    bases, whitenings = baselines(config, cells)
    found |= bases
    tables["whitenings"] = pd.concat([tables["whitenings"], whitenings], ignore_index=True)
    treatments = profile.treatment_table(profile.wells_of(kept_embeddings(config, cells, store, 0))[0])
    counts = profile.cell_counts(cells, config.screen)
    if counts is not None:
        treatments = treatments.merge(counts.rename(columns={"Metadata_cell_count": "count"}), how="left")
    tables |= {"treatments": treatments, "size": size(cells, treatments)}
    tables["maps"] = maps(config, cells, store)
    scene = pictures.Scene(config, cells, *first_repeat(config, cells, store))
    tables["assigned"] = assigned(found, treatments)
    album = pictures.draw(scene, disagreement(tables["assigned"]))
    tables["pictures"] = album.table
    for name, table in tables.items():
        save_table(to_float32(table) if name != "trainings" else table, folder / f"{name}.parquet")
    save_distances(found, folder)
    write_atomically(folder / "pictures.npz", lambda path: np.savez_compressed(path, images=album.stack))


def save_distances(found: dict[str, np.ndarray], folder: Path) -> None:
    """Write distances with 16 bits each, a 65,535th of the largest of their setting: a third of the size."""
    values = np.stack(list(found.values())).astype(np.float64)
    scale = np.maximum(values.max(axis=1), np.finfo(float).tiny) / 65535
    kept = np.round(values / scale[:, None]).astype(np.uint16)

    def write(path: Path) -> None:
        np.savez_compressed(path, names=np.array(list(found)), scale=scale, values=kept)

    write_atomically(folder / "distances.npz", write)


# --- trainings ------------------------------------------------------------------------------------------------------


def train_all(
    config: Config, cells: CellSet, store: str | Path, device: str, force: bool, workers: int | None
) -> list[Kept]:
    """Train and measure everything, in several processes where that is faster; results in the order of `trainings`."""
    todo = trainings(config)
    screens = {None: cells} | other_screens(config, todo, store, device)
    if workers is None:
        workers = min(len(todo), os.cpu_count() or 1) if device == "cpu" and config.iterations >= LARGE else 1
    if workers == 1:
        return [train_one(one, screens[one.week_effect], config, store, device, force) for one in todo]
    with ExitStack() as stack, processes(workers) as pool:
        folders = {effect: stack.enter_context(on_disk(found, store)) for effect, found in screens.items()}
        waiting = [
            pool.submit(train_from_disk, one, folders[one.week_effect], config, store, device, force) for one in todo
        ]
        return [each.result() for each in waiting]


def other_screens(config: Config, todo: list[Training], store: str | Path, device: str) -> dict[float, CellSet]:
    """The same simulated cells under every other strength of the batch effect that is trained on."""
    effects = {one.week_effect for one in todo if one.week_effect is not None}
    return {effect: load(replace(config, week_effect=effect), store, device) for effect in sorted(effects)}


@contextmanager
def on_disk(cells: CellSet, store: str | Path) -> Iterator[str]:
    """Save cells beside the runs for as long as other processes need them."""
    Path(store).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store, prefix=".cells-") as folder:
        cells.save(Path(folder) / "cells")
        yield str(Path(folder) / "cells")


def train_from_disk(
    training: Training, folder: str, config: Config, store: str | Path, device: str, force: bool
) -> Kept:
    """`train_one` on cells that another process saved."""
    with threadpool_limits(1, user_api="blas"):
        return train_one(training, CellSet.open(folder), config, store, device, force)


def train_one(training: Training, cells: CellSet, config: Config, store: str | Path, device: str, force: bool) -> Kept:
    """Train one model if it is not in the store, and measure it."""
    done = train_run(vae_plus, training.config, cells, store, device, force=force)
    return measure(training, done, cells, config)


def stored(training: Training, cells: CellSet, store: str | Path) -> Run:
    """The run of a training that is in the store."""
    key = run_key("vae_plus", vae_plus.VERSION, asdict(training.config), cells.fingerprint)
    return Run(Path(store) / key)


def gather(kept: list[Kept]) -> dict[str, pd.DataFrame]:
    """Tables of all trainings under one another, by name."""
    names = dict.fromkeys(name for one in kept for name in one.tables)
    return {name: pd.concat([o.tables[name] for o in kept if name in o.tables], ignore_index=True) for name in names}


def first_repeat(
    config: Config, cells: CellSet, store: str | Path
) -> tuple[dict[str, torch.nn.Module], dict[str, np.ndarray]]:
    """Trained states and codes of all cells, of every named model's first training, by variant."""
    chosen = [one for one in trainings(config) if one.repeat == 0 and one.variant in LABELS.values()]
    states, codes = {}, {}
    for one in chosen:
        done = stored(one, cells, store)
        states[one.variant] = load_run(vae_plus, one.config, cells, done, "cpu")
        codes[one.variant] = profiles.matrix(done.table("embeddings")).astype(np.float32)
    return states, codes


def kept_embeddings(config: Config, cells: CellSet, store: str | Path, place: int) -> pd.DataFrame:
    """Codes of all cells of one training."""
    return stored(trainings(config)[place], cells, store).table("embeddings")


# --- what is not of one training ------------------------------------------------------------------------------------


def baselines(config: Config, cells: CellSet) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Distances of the plain encoders under the same summaries, as of a first repeat, and their whitenings."""
    found, used = {}, []
    base = trainings(config)[0].config
    for name in profile.BASELINES:
        repeats = config.repeats if name == "untrained encoder" else 1
        for repeat in range(repeats):
            table = profile.baseline(name, cells, replace(base, seed=config.seed + repeat))
            by_summary, whitenings = profile.summaries(table)
            distances = profile.distances(by_summary, profile.DISTANCES[:1])
            found |= {f"{name}|{repeat}|{key}": values for key, values in distances.items()}
            used.append(whitenings.assign(variant=name, repeat=repeat))
    return found, pd.concat(used, ignore_index=True)


def size(cells: CellSet, treatments: pd.DataFrame) -> pd.DataFrame:
    """How much there is: cells, wells, plates, DMSO cells and wells, treatments; one row."""
    table = cells.table
    control = table[table["Metadata_compound"] == "DMSO"]
    numbers = {
        "cells": len(table),
        "wells": len(table[profile.WELL].drop_duplicates()),
        "plates": table["Metadata_plate"].nunique(),
        "weeks": table["Metadata_batch"].nunique(),
        "control_cells": len(control),
        "control_wells": len(control[profile.WELL].drop_duplicates()),
        "treatments": len(treatments),
    }
    return pd.DataFrame([numbers])


def maps(config: Config, cells: CellSet, store: str | Path) -> pd.DataFrame:
    """PCA and t-SNE coordinates of the treatments, from mean profiles of the first VAE+."""
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    units = profile.treatments(profile.wells_of(kept_embeddings(config, cells, store, 0))[0])
    x = profiles.matrix(units)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)  # so that Euclidean neighbours are cosine neighbours
    tsne = TSNE(perplexity=10, initialization="pca", random_state=config.seed, n_jobs=1).fit(x)
    names = {"moa": "Metadata_moa", "batch": "Metadata_batch", "compound": "Metadata_compound"}
    columns = {new: units[old] for new, old in names.items()} | {"concentration": units["Metadata_concentration"]}
    points = {"PCA": PCA(2, svd_solver="full").fit_transform(x), "t-SNE": np.asarray(tsne)}
    return pd.concat(
        [pd.DataFrame({"method": name, "x": xy[:, 0], "y": xy[:, 1], **columns}) for name, xy in points.items()],
        ignore_index=True,
    )


def assigned(found: dict[str, np.ndarray], treatments: pd.DataFrame) -> pd.DataFrame:
    """Mechanism of the nearest neighbour by AE and VAE+ (first training, mean profiles, NSC), one column a model."""
    named = {}
    for variant in ("AE", "VAE+"):
        square = squareform(found[f"{variant}|0|mean|cosine"].astype(np.float64))
        measure_ = metrics.PROTOCOLS[profile.PROTOCOL].measures[0]
        queries = metrics.match(treatments, distances=square, **measure_.arguments()).per_query
        neighbour = queries["neighbour"].to_numpy()
        moa = treatments["Metadata_moa"].to_numpy()
        named[variant] = np.where(neighbour >= 0, moa[neighbour], "")
    return treatments[[*profile.TREATMENT, "Metadata_moa"]].assign(**named)


def disagreement(named: pd.DataFrame) -> pd.Series | None:
    """A treatment whose mechanism one of the models gets right and the other wrong; None if there is none.

    The paper's, if it is one; else the first that VAE+ gets right, as the paper's is, and if there is none the first
    that AE gets right.
    """
    right = {variant: named[variant] == named["Metadata_moa"] for variant in ("AE", "VAE+")}
    differ = named[right["VAE+"] != right["AE"]]
    if differ.empty:
        return None
    first = differ.assign(
        papers=[tuple(pair) == FIGURE_4 for pair in differ[profile.TREATMENT].to_numpy()], plus=right["VAE+"]
    )
    return first.sort_values(["papers", "plus"], ascending=False, kind="stable").iloc[0]
