"""The run of the page: all trainings and plain encoders, each a run of its own, and what the page keeps of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features.transferred import PACKAGE, WIDTH, installed
from cellbook.methods import weakly_supervised
from cellbook.pages.caicedo2018 import genes
from cellbook.pages.caicedo2018.config import (
    LAYER,
    PLAIN,
    PROTOCOL,
    VERSION,
    Config,
    judged,
    layer_parts,
    trainings,
)
from cellbook.pages.caicedo2018.models import GENETIC, LABELS, PRETRAINED, of_genes
from cellbook.profiles import to_wells
from cellbook.runs import Run, choose_device, obtain, to_float32
from cellbook.screens import named
from cellbook.study import course, profile
from cellbook.study.encoding import CLASSICAL, IMAGENET, UNTRAINED, begun, encode, of_layer, standardise
from cellbook.study.measured import optional
from cellbook.study.processes import one_thread
from cellbook.study.trainings import (
    LONG,
    Arrays,
    Place,
    Tables,
    Training,
    contents,
    measured,
    obtain_trainings,
    save_contents,
    save_products,
    told,
    train_all,
    under_one_another,
)
from cellbook.study.transferred import transferred
from cellbook.training.codes import kept_rows
from cellbook.training.loop import keyed

OWN = {"page": "caicedo2018", "version": 2}  # rises when `measure` or `plain` find something else
DISTANCE = profile.DISTANCES[:1]


def run(config: Config, store: str | Path, **how: Any) -> Run:
    """The run of this configuration, computed only if it is not in the store; so is each of its trainings.

    See `obtain_trainings` for the further arguments.
    """
    return obtain_trainings("caicedo2018", VERSION, config, store, make_products, **how)


def baseline(config: Config, store: str | Path, device: str = "auto") -> list[Run]:
    """The runs of the ImageNet features on the cells of the page; none where their package is not installed.

    A run of a few iterations checks the code, and no baseline that takes longer than it stands beside it.
    """
    place = Place(store, choose_device(device))
    screens = dict.fromkeys(one.cells for one in trainings(config)) if config.iterations >= LONG else ()
    return [run for screen in screens for run in photographed(config, screen, place)]


def photographed(config: Config, screen: str | None, place: Place) -> list[Run]:
    """The run of the ImageNet features of one of the page's screens."""
    cells = load(config, place.store, place.device, screen, config.photographs)
    if screen == GENETIC:
        replicates = next(one.config.validation for one in trainings(config) if one.cells == GENETIC)
        return genes.transferred(cells, replicates, config.seed, place.store, place.device)
    return transferred(config.screen, cells, PROTOCOL, place.store, device=place.device, seed=config.seed)


def load(
    config: Config, store: str | Path, device: str = "cpu", screen: str | None = None, per_well: int = 0
) -> CellSet:
    """The cells of one of the page's screens, by what trainings call it, all or some of every well."""
    simulated = config.simulated_genes if screen == GENETIC else config.simulated
    return named.load(config.screen, simulated, store, device, per_well)


# --- its parts ------------------------------------------------------------------------------------------------------


class Plain(NamedTuple):
    """An encoder that is not trained, on one of the page's screens."""

    encoder: str
    repeat: int  # whose seed it has
    screen: str | None

    @property
    def variant(self) -> str:
        """Its name in tables."""
        return of_genes(self.encoder) if self.screen == GENETIC else self.encoder


def plain_encoders(config: Config) -> list[Plain]:
    """All encoders that are not trained, but for that of photographs; untrained networks of several seeds."""
    own = dict.fromkeys((one.cells, one.repeat) for one in trainings(config))
    names = [*((name, None) for name in PLAIN), (CLASSICAL, GENETIC)]
    found = [Plain(name, 0, screen) for name, screen in names if (screen, 0) in own]
    return found + [Plain(UNTRAINED, repeat, screen) for screen, repeat in own if repeat < config.untrained]


def pieces(config: Config) -> dict[str, Training | Plain | str | None]:
    """What can be made by itself, by name, most worth first: what claims are about, what it stands beside, the rest.

    Trainings, plain encoders, and the screens of the ImageNet features.
    """
    own = trainings(config)
    known = set(judged(config))
    first = sorted((one for one in own if one.variant in known), key=lambda one: (one.repeat, one.cells == GENETIC))
    others = [one for one in own if one.variant not in known]
    screens = dict.fromkeys(one.cells for one in own)
    return {
        **{f"{one.variant}, {one.repeat}": one for one in (*first, *plain_encoders(config))},
        **{of_genes(IMAGENET) if screen else IMAGENET: screen for screen in screens},
        **{f"{one.variant}, {one.repeat}": one for one in others},
    }


def parts(config: Config) -> dict[str, Training | None]:
    """What can be made by itself, on another machine or beside others, most worth first; None: no training."""
    return {name: one if isinstance(one, Training) else None for name, one in pieces(config).items()}


def make_part(config: Config, name: str, place: Place) -> list[Run]:
    """Make one of the `parts`, if it is not in the store."""
    one = pieces(config)[name]
    if not isinstance(one, Training | Plain):
        return photographed(config, one, place)
    cells = part_cells(config, name, place)
    if isinstance(one, Plain):
        return [plain(one, config, cells, place)]
    return [measured(one, cells, place, measure, config, OWN)]


def part_cells(config: Config, name: str, place: Place) -> CellSet:
    """The cells of a part."""
    one = pieces(config)[name]
    screen = one.cells if isinstance(one, Training) else one.screen if isinstance(one, Plain) else one
    return load(config, place.store, place.device, screen)


def make_products(config: Config, place: Place, folder: Path, workers: int | None = None) -> None:
    """Train what is not there, measure every training, and write the products."""
    todo = trainings(config)
    if PRETRAINED in {*config.once, *config.genetic_once} and not installed():
        raise CellbookError(f"{PRETRAINED!r} is to be trained, which begins with {PACKAGE}: pip install it, or drop it")
    screens = {one.cells: load(config, place.store, place.device, one.cells) for one in todo}
    worth = place.device == "cpu" and config.iterations >= LONG
    tables, arrays = train_all(todo, screens, place, measure, config, OWN, workers=workers, worth=worth)
    points = course.collected(arrays, {})  # of what was followed; the others have no ends beside it
    further = []
    for one in plain_encoders(config):
        own, more = contents(plain(one, config, screens[one.screen], place))
        further.append({name: table.assign(variant=one.variant, repeat=one.repeat) for name, table in own.items()})
        arrays |= prefixed(more, f"{one.variant}|{one.repeat}")
    tables = under_one_another([tables, *further])
    units = tables.pop("treatments").query("variant == @PLAIN[0]").drop(columns=["variant", "repeat"])
    cells = screens[None]
    widths = tables["dimensions"].drop_duplicates("variant")
    widths.loc[len(tables["dimensions"])] = {"variant": IMAGENET, "dimension": WIDTH * len(cells.channels)}
    tables["dimensions"] = widths[["variant", "dimension"]]
    treatments = profile.with_counts(units, cells, config.screen)
    tables |= {"treatments": treatments, "size": profile.size(cells, len(treatments))}
    if points:
        course.save(points, folder)
    save_products(tables, folder)
    arrays, layers = named_by_layer(arrays), layer_parts(config)
    of_layers = {name: values for name, values in arrays.items() if name.partition("|")[0] in layers}
    asked = metrics.PROTOCOLS[PROTOCOL].measures
    profile.save_distances(arrays | profile.nearest_alone(of_layers, treatments, asked), folder)


# --- one training ---------------------------------------------------------------------------------------------------


def measure(training: Training, run: Run, cells: CellSet, config: Config) -> tuple[Tables, Arrays]:
    """Tables of a finished training, and distances between treatments by "summary|distance".

    Of the paper's models, if they kept the profiles of all layers, also by "layer|summary|distance". On the genetic
    screen there are votes of wells instead, and of a first training held-out cells.
    """
    wells = profile.without_positives(run.table("wells"))[0]
    empty = weakly_supervised.split(training.config, cells).empty
    tables = {
        "history": run.table("history").melt("step", var_name="term"),
        "validation": with_compound(optional(run, "validation"), cells),
        "trainings": pd.DataFrame([told(run) | {"empty": empty}]),
        "dimensions": pd.DataFrame([{"dimension": len(profiles.features(wells))}]),
    }
    if training.cells == GENETIC:
        tables["genes"] = genes.votes(wells)
        if training.repeat == 0 and training.variant in map(of_genes, LABELS.values()):
            tables["cells"] = genes.held_out_cells(run.table("codes"), training.config.validation)
        return tables, {}
    found = distances(wells)
    if training.variant in LABELS.values() and len(layers := optional(run, "layers")):
        found |= by_layer(layers)
    followed, weeks = course.parts(run, (training.variant, training.repeat), PROTOCOL)
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


def plain(one: Plain, config: Config, cells: CellSet, place: Place) -> Run:
    """What is measured of a plain encoder, of all cells: tables, and distances as of a training.

    Pixels and classical features are standardised by DMSO cells; of a network before its first step, that of the seed
    of a repeat, all layers are measured as a trained one's are.
    """
    like = next(of for of in trainings(config) if (of.cells, of.repeat) == (one.screen, one.repeat))
    seed, replicates = like.config.seed, like.config.validation
    about: dict[str, Any] = {**OWN, "encoder": one.encoder, "seed": seed, "validation": list(replicates)}
    about |= {"like": keyed(like.config)} if one.encoder == UNTRAINED else {"n": config.components}

    def make(folder: Path) -> None:
        found: Arrays = {}
        if one.encoder == UNTRAINED:
            codes = table_of(cells, weakly_supervised.layers(begun(like, cells, seed, place.device), cells))
            found = {} if one.screen == GENETIC else by_layer(to_float32(to_wells(codes)))
            codes = codes[[*profiles.metadata(codes), *features_of(codes)[LAYER]]]
        else:
            codes = standardise(encode(one.encoder, cells, seed, n=config.components, device=place.device))
        wells = to_float32(to_wells(codes))
        tables = {"dimensions": pd.DataFrame([{"dimension": len(profiles.features(wells))}])}
        if one.screen == GENETIC:
            tables["genes"] = genes.votes(wells)
            if one.repeat == 0:
                tables["cells"] = genes.held_out_cells(codes.iloc[kept_rows(cells.table)], replicates)
        else:
            found |= distances(wells)
            units = profile.treatments(wells[~named.is_positive(wells)], PROTOCOL)
            tables["treatments"] = units[profiles.metadata(units)]
        save_contents(tables, found, folder)

    data = cells.fingerprint
    with one_thread():
        return obtain(place.store, "plain", OWN["version"], about, data, make, device=place.device, force=place.force)


def table_of(cells: CellSet, layers: dict[str, np.ndarray]) -> pd.DataFrame:
    """Features of cells from several layers as a table, in columns 4a_0, 4a_1 and so on."""
    columns = [f"{layer}_{i}" for layer, x in layers.items() for i in range(x.shape[1])]
    return named.without_place(cells.feature_table(np.concatenate(list(layers.values()), axis=1), columns))
