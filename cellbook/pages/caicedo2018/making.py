"""The run of the page: all trainings and plain encoders, each a run of its own, and what the page keeps of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features.transferred import PACKAGE, WIDTH, installed
from cellbook.methods import weakly_supervised
from cellbook.pages.caicedo2018 import closer, genes
from cellbook.pages.caicedo2018.config import OWN, PLAIN, PROTOCOL, VERSION, Config, judged, layer_parts, trainings
from cellbook.pages.caicedo2018.layers import by_layer, distances, named_by_layer, prefixed
from cellbook.pages.caicedo2018.models import GENETIC, LABELS, PRETRAINED, of_genes
from cellbook.pages.caicedo2018.plain import Plain, plain, plain_encoders
from cellbook.runs import Run, choose_device
from cellbook.screens import named
from cellbook.study import course, profile
from cellbook.study.encoding import IMAGENET
from cellbook.study.measured import optional
from cellbook.study.rows import pick
from cellbook.study.trainings import (
    LONG,
    Arrays,
    Place,
    Tables,
    Training,
    contents,
    measured,
    obtain_trainings,
    save_products,
    told,
    train_all,
    under_one_another,
)
from cellbook.study.transferred import transferred


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


def look_closer(run: Run, config: Config, store: str | Path, device: str = "auto") -> Run:
    """The run of what is looked at closer of the trainings behind the page's run, see `closer`."""
    return closer.obtain_closer(
        run, config, lambda place: load(config, place.store, place.device), Place(store, choose_device(device))
    )


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
    near = closer.worth_it(one, config)
    if isinstance(one, Plain):
        return [of(one, config, cells, place) for of in (plain, *[closer.closer_plain] * near)]
    looks = [(measure, OWN), *[(closer.measure, closer.SETTINGS)] * near]
    return [measured(one, cells, place, look, config, settings) for look, settings in looks]


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
    units = pick(tables.pop("treatments"), variant=PLAIN[0]).drop(columns=["variant", "repeat"])
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
