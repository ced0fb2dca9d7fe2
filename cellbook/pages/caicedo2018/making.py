"""The run of the page: all trainings and plain encoders, each a run of its own, and what the page keeps of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook import profiles
from cellbook.cells import CellSet
from cellbook.features.transferred import WIDTH
from cellbook.methods import weakly_supervised
from cellbook.pages.caicedo2018.config import (
    LAYER,
    PLAIN,
    PROTOCOL,
    VERSION,
    Config,
    judged,
    of_layer,
    trainings,
)
from cellbook.profiles import to_wells
from cellbook.runs import Run, choose_device, obtain, obtain_page, save_table, to_float32
from cellbook.screens import named
from cellbook.study import course, measured, profile
from cellbook.study.encoding import IMAGENET, UNTRAINED, begun, encode, standardise
from cellbook.study.processes import one_thread
from cellbook.study.trainings import LONG, Arrays, Place, Tables, Training, save_products, told, train_all
from cellbook.study.transferred import transferred
from cellbook.training.loop import keyed

DISTANCE = profile.DISTANCES[:1]


def run(
    config: Config, store: str | Path, *, device: str = "auto", force: bool = False, workers: int | None = None
) -> Run:
    """The run of this configuration, computed only if it is not in the store; so is each of its trainings.

    Parameters
    ----------
    config : Config
    store : folder of the runs
    device : where networks are trained
    force : make all anew, trainings as well
    workers : processes that train; as many as cores and memory bear, if trainings are long and on a CPU
    """

    def make(folder: Path, on: str) -> None:
        make_products(config, Place(store, on, force), folder, workers)

    cells = named.fingerprint(config.screen, config.simulated)
    return obtain_page(store, "caicedo2018", VERSION, config, cells, make, device=device, force=force)


def baseline(config: Config, store: str | Path, device: str = "auto") -> list[Run]:
    """The run of the ImageNet features on the cells of the page; none where their package is not installed.

    A run of a few iterations checks the code, and no baseline that takes longer than it stands beside it.
    """
    if config.iterations < LONG:
        return []
    device = choose_device(device)
    some = load(config, store, device, config.photographs)
    return transferred(config.screen, some, PROTOCOL, store, device=device, seed=config.seed)


def load(config: Config, store: str | Path, device: str = "cpu", per_well: int = 0) -> CellSet:
    """The cells of the page, all or some of every well."""
    return named.load(config.screen, config.simulated, store, device, per_well)


def make_products(config: Config, place: Place, folder: Path, workers: int | None = None) -> None:
    """Train what is not there, measure every training, and write the products."""
    cells, todo = load(config, place.store, place.device), trainings(config)
    how = {"page": "caicedo2018", "version": VERSION}
    worth = place.device == "cpu" and config.iterations >= LONG
    tables, arrays = train_all(todo, {None: cells}, place, measure, config, how, workers=workers, worth=worth)
    points = course.collected(arrays, {})  # of what was followed; the others have no ends beside it
    found, widths = named_by_layer(arrays), {IMAGENET: WIDTH * len(cells.channels)}
    for name in PLAIN:
        wells = plain(name, config, cells, place).table("wells")
        found |= prefixed(distances(wells), f"{name}|0")
        widths[name] = len(profiles.features(wells))
    for repeat in range(min(config.untrained, config.repeats)):
        wells = plain(UNTRAINED, config, cells, place, repeat).table("wells")
        layers = by_layer(wells)
        found |= named_by_layer(prefixed(layers, f"{UNTRAINED}|{repeat}"))
        found |= {
            f"{UNTRAINED}|{repeat}|{summary}|cosine": layers[f"{LAYER}|{summary}|cosine"] for summary in course.MEANS
        }
    widths |= dict.fromkeys((*judged(config), UNTRAINED), len(features_of(wells)[LAYER]))
    tables["dimensions"] = pd.DataFrame({"variant": list(widths), "dimension": list(widths.values())})
    units = profile.treatments(profile.without_positives(place.stored(todo[0], cells).table("wells"))[0], PROTOCOL)
    treatments = profile.with_counts(units, cells, config.screen)
    tables |= {"treatments": treatments, "size": profile.size(cells, len(treatments))}
    if points:
        course.save(points, folder)
    save_products({name: table for name, table in tables.items() if len(table)}, folder)
    profile.save_distances(found, folder)


# --- one training ---------------------------------------------------------------------------------------------------


def measure(training: Training, run: Run, cells: CellSet, config: Config) -> tuple[Tables, Arrays]:
    """Tables of a finished training, and distances between treatments by "summary|distance".

    Of a run that kept the profiles of all layers also by "layer|summary|distance".
    """
    found = distances(profile.without_positives(run.table("wells"))[0])
    if len(layers := measured.optional(run, "layers")):
        found |= by_layer(layers)
    followed, weeks = course.parts(run, (training.variant, training.repeat), PROTOCOL)
    tables = {
        "history": run.table("history").melt("step", var_name="term"),
        "validation": with_compound(measured.optional(run, "validation"), cells),
        "trainings": pd.DataFrame([told(run)]),
    }
    return tables | weeks, found | followed


def with_compound(table: pd.DataFrame, cells: CellSet) -> pd.DataFrame:
    """Classes with the compound of each, which an interval is drawn over."""
    if table.empty:
        return table
    known = cells.table[["Metadata_compound", "Metadata_concentration"]].drop_duplicates()
    compound = {f"{name} {dose:g}": name for name, dose in known.itertuples(index=False)}
    return table.assign(compound=table["treatment"].map(compound))


# --- profiles -------------------------------------------------------------------------------------------------------


def distances(wells: pd.DataFrame) -> Arrays:
    """Distances between treatments by "summary|distance": of mean profiles, as they are and whitened by DMSO wells.

    Wells of the positive control are part of no profile.
    """
    used = wells[~named.is_positive(wells)].reset_index(drop=True)
    varying = profiles.drop_unusable(used)[0]
    found = dict(zip(course.MEANS, (varying, profile.whiten(varying)[0]), strict=True))
    return profile.distances(found, PROTOCOL, DISTANCE)


def by_layer(wells: pd.DataFrame) -> Arrays:
    """The same of every layer, by "layer|summary|distance"; wells as a training keeps them of all its layers."""
    found: Arrays = {}
    for layer, names in features_of(wells).items():
        found |= prefixed(distances(wells[[*profiles.metadata(wells), *names]]), layer)
    return found


def features_of(wells: pd.DataFrame) -> dict[str, list[str]]:
    """Columns of each layer, in the order of the network."""
    names: dict[str, list[str]] = {}
    for column in wells.columns.difference(profiles.metadata(wells), sort=False):
        names.setdefault(str(column).rpartition("_")[0], []).append(str(column))
    return names


def prefixed(found: Arrays, head: str) -> Arrays:
    """Arrays with another word in front of their names."""
    return {f"{head}|{name}": values for name, values in found.items()}


def named_by_layer(found: Arrays) -> Arrays:
    """Arrays by "variant|repeat|summary|distance": the name of a layer goes into that of the variant."""
    named_: Arrays = {}
    for name, values in found.items():
        variant, repeat, *layer, summary, distance = name.split("|")
        named_["|".join([of_layer(variant, *layer) if layer else variant, repeat, summary, distance])] = values
    return named_


# --- what is not of one training ------------------------------------------------------------------------------------


def plain(name: str, config: Config, cells: CellSet, place: Place, repeat: int = 0) -> Run:
    """The run of a plain encoder: mean features of wells, of all cells.

    Those of pixels and classical ones are standardised by DMSO cells; of a network before its first step, that of the
    seed of a repeat, all layers are kept as a trained one's are.
    """
    like = trainings(config)[repeat]
    seed = like.config.seed
    about: dict[str, Any] = {"encoder": name, "seed": seed}
    about |= {"like": keyed(like.config)} if name == UNTRAINED else {"n": config.components}

    def make(folder: Path) -> None:
        if name == UNTRAINED:
            layers = weakly_supervised.layers(begun(like, cells, seed, place.device), cells)
            columns = [f"{layer}_{i}" for layer, x in layers.items() for i in range(x.shape[1])]
            codes = named.without_place(cells.feature_table(np.concatenate(list(layers.values()), axis=1), columns))
        else:
            codes = standardise(encode(name, cells, seed, n=config.components, device=place.device))
        save_table(to_float32(to_wells(codes)), folder / "wells.parquet")

    with one_thread():
        return obtain(
            place.store, "wells", VERSION, about, cells.fingerprint, make, device=place.device, force=place.force
        )
