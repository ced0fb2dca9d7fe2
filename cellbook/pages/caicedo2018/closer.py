"""Profiles looked at closer: other whitenings, what every layer knows, and how long a profile takes.

It is a run beside the page's, made of the same trainings, so that nothing of the page's own has to be made anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.features.transferred import grey_range, installed
from cellbook.methods import weakly_supervised
from cellbook.pages.caicedo2018.config import LAYERS, PROTOCOL, Config, judged
from cellbook.pages.caicedo2018.layers import DISTANCE, known
from cellbook.pages.caicedo2018.models import BASELINE
from cellbook.pages.caicedo2018.plain import Plain, encoded, like, obtain_plain, plain_encoders
from cellbook.profiles import to_wells
from cellbook.runs import Run, obtain, save_table, to_float32
from cellbook.screens import named
from cellbook.study import profile
from cellbook.study.course import MEANS
from cellbook.study.encoding import IMAGENET, UNTRAINED, begun, encode, of_layer
from cellbook.study.measured import Matched, optional, truth
from cellbook.study.processes import one_thread
from cellbook.study.rows import Draws, Votes, average, by_repeat, difference, pick, row
from cellbook.study.show import percent
from cellbook.study.tables import wide
from cellbook.study.trainings import (
    LONG,
    Arrays,
    Place,
    Tables,
    Training,
    contents,
    save_contents,
    train_all,
    under_one_another,
)
from cellbook.study.words import accuracy, points
from cellbook.training.codes import kept_rows

VERSION = 1
METHOD = "caicedo2018-closer"
SETTINGS = {"page": "caicedo2018", "closer": VERSION}
TVN, BY_CELLS = "mean, TVN", "mean, whitened by cells"
TIMED = 512  # cells behind a speed
SPEED, PAIRED, READ, WEEK = "speed", "whitenings, paired", "parameters", "week of positive controls"


# --- whitenings -----------------------------------------------------------------------------------------------------


def whitenings(wells: pd.DataFrame, cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Mean profiles of wells after TVN, and after a whitening that is fitted on single DMSO cells.

    TVN is that of the notebook of 2019, on wells: DMSO wells are whitened with 1 added to every eigenvalue, then CORAL
    turns the second moments of those of each week, 1 added again, into those of all. Of cells the ridge is what
    `profile.shrinkage_ridge` finds.

    Parameters
    ----------
    wells : without the positive control; TVN is left out unless each of several weeks has two DMSO wells
    cells : some cells with the same features; without rows where none were kept, and nothing is fitted on them
    """
    varying = profiles.drop_unusable(wells)[0]
    found = {}
    controls = varying.loc[profiles.controls_mask(varying), "Metadata_batch"].value_counts()
    if len(controls) > 1 and varying["Metadata_batch"].map(controls).fillna(0).min() > 1:
        coral = profiles.Coral(eta=1.0, reference="pooled", centre=False)
        found[TVN] = profiles.Chain([profiles.Whitening(ridge=1.0), coral]).fit_transform(varying)
    if len(cells):
        control = cells.loc[profiles.controls_mask(cells), ["Metadata_compound", *profiles.features(varying)]]
        ridge = profile.shrinkage_ridge(profiles.matrix(control), np.zeros(len(control), int))
        white = profiles.Whitening(ridge, relative=True).fit(control.reset_index(drop=True))
        found[BY_CELLS] = white.transform(varying)
    return found


def distances(wells: pd.DataFrame, cells: pd.DataFrame) -> Arrays:
    """Distances between treatments by "summary|distance"."""
    return profile.distances(whitenings(wells, cells), PROTOCOL, DISTANCE)


# --- of a training, and of what is not trained ----------------------------------------------------------------------


def measure(training: Training, run: Run, cells: CellSet, config: Config) -> tuple[Tables, Arrays]:
    """What is looked at closer of a finished training; of the baseline also its layers, if they were kept."""
    wells = profile.mean_codes(profile.without_positives(run.table("wells"))[0])
    layers = optional(run, "layers") if training.variant == BASELINE else ()
    return known(layers, cells) if len(layers) else {}, distances(wells, optional(run, "codes"))


def closer_plain(one: Plain, config: Config, cells: CellSet, place: Place) -> Run:
    """The same of a plain encoder; of the first seed also how long it takes."""

    def make(folder: Path) -> None:
        codes, layers = encoded(one, config, cells, place)
        wells = to_float32(to_wells(codes))
        found = distances(wells[~named.is_positive(wells)].reset_index(drop=True), codes.iloc[kept_rows(cells.table)])
        tables = known(layers, cells) if len(layers) else {}
        if one.repeat == 0:
            tables["speed"] = speed(one, config, cells, place.device)
        save_contents(tables, found, folder)

    return obtain_plain(one, config, cells, place, SETTINGS, make)


def worth_it(one: Training | Plain, config: Config) -> bool:
    """Whether a part of the page is looked at closer: models of the table, classical features, untrained networks."""
    return one.twice if isinstance(one, Plain) else not one.cells and one.variant in judged(config)


def speed(one: Plain, config: Config, cells: CellSet, device: str) -> pd.DataFrame:
    """Seconds that some cells take to encode, one row; of a network up to the layer that is profiled."""
    of = like(one, config)
    if one.encoder == UNTRAINED:
        state = begun(of, cells, of.config.seed, device)
        return timed(lambda some: weakly_supervised.encode(state, some), cells, device)
    grey = grey_range(cells) if one.encoder == IMAGENET else None
    return timed(lambda some: encode(one.encoder, some, device=device, grey=grey), cells, device)


def timed(work: Callable[[CellSet], Any], cells: CellSet, device: str) -> pd.DataFrame:
    """Seconds that work on the first cells takes, after a few to begin with.

    On a CPU these are seconds of a core, which others on the machine do not lengthen.
    """
    some, clock = cells.select(slice(0, TIMED)), time.process_time if device == "cpu" else time.perf_counter
    work(cells.select(slice(0, 8)))
    start = clock()
    work(some)
    return pd.DataFrame([{"cells": len(some), "seconds": clock() - start}])


# --- the run --------------------------------------------------------------------------------------------------------


def obtain_closer(run: Run, config: Config, load: Callable[[Place], CellSet], place: Place) -> Run:
    """The run of all this beside that of the page, made if it is not in the store."""
    photographs = installed() and config.iterations >= LONG

    def make(folder: Path) -> None:
        cells = load(place)
        todo = [one for of in judged(config).values() for one in of if worth_it(one, config)]
        worth = place.device == "cpu" and config.iterations >= LONG
        tables, arrays = train_all(todo, {None: cells}, place, measure, config, SETTINGS, worth=worth)
        further = []
        for one in (one for one in plain_encoders(config) if worth_it(one, config)):
            own, more = contents(closer_plain(one, config, cells, place))
            further.append({name: table.assign(variant=one.variant, repeat=one.repeat) for name, table in own.items()})
            arrays |= {f"{one.variant}|{one.repeat}|{name}": values for name, values in more.items()}
        if photographs:
            with one_thread():
                found = speed(Plain(IMAGENET, 0, None), config, cells, place.device)
            further.append({"speed": found.assign(variant=IMAGENET, repeat=0)})
        tables = under_one_another([tables, *further])
        for name in ("truth", "weeks"):
            if name in tables:
                names = [of_layer(*key) for key in tables[name][["variant", "layer"]].itertuples(index=False)]
                tables[name] = tables[name].assign(variant=names).drop(columns="layer")
        for name, table in tables.items():
            save_table(to_float32(table), folder / f"{name}.parquet")
        treatments = run.table("treatments")
        save_table(treatments, folder / "treatments.parquet")
        asked = metrics.PROTOCOLS[PROTOCOL].measures
        profile.save_distances(profile.nearest_alone(arrays, treatments, asked), folder)

    about = {"screen": config.screen, "page": run.key, "photographs": photographs}
    data = run.record["fingerprint"]
    return obtain(place.store, METHOD, VERSION, about, data, make, device=place.device, force=place.force)


# --- what is shown of it --------------------------------------------------------------------------------------------


def lines(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """Lines of speeds, of what layers know of cells, and of how often they tell the week of a positive control."""
    for line in run.table("speed").itertuples():
        yield row(str(line.variant), SPEED, "cells a second", line.cells / line.seconds, variant=line.variant)
    yield from truth(run)
    weeks = optional(run, "weeks")
    for (variant, summary), repeats in by_repeat(weeks, "variant", "summary").items() if len(weeks) else ():
        told = [Votes.of(part["correct"], part["plate"]) for part in repeats]
        about = {"variant": variant, "summary": summary, "null": repeats[0]["chance"].astype(np.float64).mean()}
        yield average(f"{variant}, {summary}", WEEK, "nearest well", told, draws, **about)


def compare(found: Matched, variants: Iterable[str], draws: Draws) -> Iterator[dict[str, Any]]:
    """Paired differences of the further whitenings from that by wells."""
    for name, way, measure in product(variants, (TVN, BY_CELLS), metrics.PROTOCOLS[PROTOCOL].measures):
        sides = [found.get(((name, summary, "cosine"), measure.name), []) for summary in (way, MEANS[1])]
        if all(sides):
            about = {"variant": name, "summary": way}
            yield difference(f"{name}: {way} - {MEANS[1]}", PAIRED, measure.name, *sides, draws, **about)


def whitening_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every profile that was whitened in several ways, and its differences from the whitening by wells."""
    ways = [*MEANS, TVN, BY_CELLS]
    own = pick(numbers, protocol=PROTOCOL, summary=ways, measure=[m.name for m in metrics.PROTOCOLS[PROTOCOL].measures])
    own = own[own["variant"].isin(own.loc[own["summary"].isin(ways[2:]), "variant"])]
    order = own["variant"].map({name: place for place, name in enumerate(dict.fromkeys(own["variant"]))})
    own = own.assign(order=order, way=own["summary"].map(ways.index)).sort_values(["order", "way"], kind="stable")
    gaps = pick(numbers, protocol=PAIRED)
    gaps = gaps.assign(measure=gaps["measure"] + ", less whitened by wells")
    both = pd.concat([own, gaps], ignore_index=True)

    def text(line: pd.Series) -> str:
        return points(line) if line["protocol"] == PAIRED else accuracy(line)

    return wide(both, ["variant", "summary"], text).rename(columns={"variant": "profile"})


def no_cells(numbers: pd.DataFrame) -> str:
    """Whose codes of single cells were not kept, as a sentence; empty if all were."""
    ways = pick(numbers, protocol=PROTOCOL, summary=[TVN, BY_CELLS])
    lost = [name for name in dict.fromkeys(ways["variant"]) if not len(pick(ways, variant=name, summary=BY_CELLS))]
    return f"Codes of single cells were not kept of: {', '.join(lost)}; no whitening is fitted on them." if lost else ""


def speed_words(numbers: pd.DataFrame, run: Run) -> str:
    """What the column of speeds is, as a sentence."""
    count, device = run.table("speed")["cells"].max(), run.record["device"]
    core = "one core of a CPU" if device == "CPU" else device
    return (
        f"Cells a second are those of {core}, measured once on {count:.0f} crops in memory; the three models are one "
        "network up to this layer. The paper prints 100 for its networks, 10 for ImageNet features and 0.15 for "
        "classical ones."
    )


def known_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """What every layer knows: network, layer, panel, line, value, low, high, null, in the order of the layers.

    R2 is the median over the parameters of a kind, those below 0 counted as 0: it has no lower bound, and one parameter
    that is read far worse than by guessing would outweigh all others in a mean.
    """
    order = {layer: place for place, layer in enumerate(LAYERS)}
    told = pick(numbers, protocol="truth")
    told = told.assign(value=told["value"].clip(lower=0))
    median = told.groupby(["network", "layer", "kind"], sort=False)["value"].median().reset_index()
    weeks = pick(numbers, protocol=WEEK).rename(columns={"summary": "line"})
    found = [median.assign(panel=READ).rename(columns={"kind": "line"}), weeks.assign(panel=WEEK)]
    rows = pd.concat([part for part in found if len(part)] or found, ignore_index=True)
    rows = rows.reindex(columns=["network", "layer", "panel", "line", "value", "low", "high", "null"])
    return rows.assign(place=rows["layer"].map(order)).sort_values("place", kind="stable").drop(columns="place")


def truth_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """R2 of every known parameter by layer, a row a network and parameter."""
    told = pick(numbers, protocol="truth").rename(columns={"measure": "parameter"})
    return wide(told, ["network", "kind", "parameter"], lambda line: f"{line['value']:.2f}", "layer")


def week_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How often every layer tells the week, a row a network and summary."""
    weeks = pick(numbers, protocol=WEEK)
    chance = weeks.assign(layer="chance", value=weeks["null"], low=np.nan, high=np.nan)

    def text(line: pd.Series) -> str:
        return percent(line["value"], line["low"], line["high"])

    return wide(pd.concat([weeks, chance]), ["network", "summary"], text, "layer")


def layer_words(numbers: pd.DataFrame) -> str:
    """Of how many trainings the layers were looked at, as a sentence."""
    trainings = pick(numbers, protocol=["truth", WEEK]).groupby("network", sort=False)["trainings"].max()
    if trainings.empty:
        return (
            "No training of this run kept the profiles of all its layers where there is a truth or a week to be told."
        )
    each = ", ".join(f"{name} {n:.0f}" for name, n in trainings.items())
    return f"Trainings of which the profiles of all layers are at hand: {each}."
