"""The run of the page: wells of every representation, each a run of its own, their corrections, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features import transferred
from cellbook.files import digest
from cellbook.methods.wdn.step import Wdn
from cellbook.pages.comparison import found
from cellbook.pages.comparison.config import (
    ACTIVITY,
    BEFORE,
    CLEAN,
    CLEAN_CELLS,
    CLEAN_WHITENED,
    CONSISTENCY,
    KNOWN,
    MEASURES,
    NONE,
    PLAIN,
    PLAINLY,
    PROTOCOL,
    TRAINED,
    VERSION,
    Config,
    label,
    untrained,
)
from cellbook.pages.comparison.corrected import RIDGE, corrected
from cellbook.pages.comparison.found import Source
from cellbook.pages.comparison.judged import judged
from cellbook.profiles import Whitening
from cellbook.profiles.aggregate import TREATMENT
from cellbook.profiles.centre import Nothing
from cellbook.runs import Run, choose_device, obtain, obtain_page, save_table, to_float32
from cellbook.screens import named
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study import course, profile
from cellbook.study.encoding import CLASSICAL, IMAGENET, begun, encode, of_layer
from cellbook.study.known import probe
from cellbook.study.processes import one_thread, side_by_side
from cellbook.study.profile import base
from cellbook.study.trainings import LONG, Tables, save_products, under_one_another
from cellbook.study.truth import true_profiles
from cellbook.training import load_run
from cellbook.training.codes import code_table
from cellbook.training.loop import keyed

ENCODED = 1  # version of the profiles of wells of a representation, which rises if an encoder finds something else
POSITIVE, NEGATIVE = "positive control", "DMSO"
COUNTED = ("positives", "pairs", "average_precision")


@dataclass(frozen=True)
class Representation:
    """Something that encodes cells: its name, which training of it, and what decides its profiles."""

    name: str
    repeat: int
    about: dict[str, Any]
    source: Source | None = None  # of networks, trained or not


def run(config: Config, store: str | Path, *, device: str = "auto", force: bool = False) -> Run:
    """The run of this configuration and of the trainings that the store has, made only if it is not there.

    Where the store has none of these trainings, one that was made of them elsewhere is taken, as of a published page.

    Parameters
    ----------
    config : Config
    store : folder of the runs, of which trainings are only read
    device : where cells are encoded
    force : make all anew but trainings
    """
    device = choose_device(device)
    there = found.sources(config, store)
    if not force and not any(source.run for source in there) and (made := found.made_elsewhere(config, VERSION, store)):
        return made
    todo = representations(config, there)
    data = digest([named.fingerprint(config.screen, config.simulated), *([one.name, one.about] for one in todo)])[:32]

    def make(folder: Path, on: str) -> None:
        make_products(config, todo, found.missing(there, config), Path(store), folder, on, force)

    return obtain_page(store, "comparison", VERSION, config, data, make, device=device, force=force)


def representations(config: Config, there: list[Source]) -> list[Representation]:
    """All that is compared: plain encoders, then for every paper its network before the first step and after.

    Where a layer of a network is its codes, the other layers of the first such network are compared as well.
    """
    plain = [*PLAIN, IMAGENET] if config.photographs and transferred.installed() else PLAIN
    todo = [Representation(name, 0, {"encoder": name} | settings(name, config)) for name in plain]
    firsts = found.firsts(there)
    for source in firsts:
        about = {"encoder": "untrained", "like": keyed(source.one.config), "method": source.one.method}
        todo.append(Representation(untrained(source.paper), 0, about, source))
    for source in there:
        if not source.why and source.run is not None:
            how = {"training": source.run.key, "weights": source.weights is not None}
            todo.append(Representation(source.name, source.one.repeat, how, source))
            for layer in other_layers(source) if source in firsts else ():
                name = label(of_layer(source.one.variant, layer), source.paper)
                todo.append(Representation(name, source.one.repeat, how | {"layer": layer}, source))
    return todo


def other_layers(source: Source) -> list[str]:
    """Layers of a trained network beside the one that it is asked for."""
    own = source.one.config
    return [layer for layer in getattr(own, "layers", ()) if layer != own.layer] if source.weights else []


def settings(name: str, config: Config) -> dict[str, int]:
    """What decides a plain encoder beside its cells."""
    return {"seed": config.seed} | ({"per_well": config.photographs} if name == IMAGENET else {"n": config.components})


# --- wells of one representation ------------------------------------------------------------------------------------


def wells_of(one: Representation, config: Config, store: Path, device: str, force: bool) -> Run:
    """The run of a representation: mean features of wells, also without week effects, and what it knows of cells.

    Products are ``wells`` and ``controls``, the DMSO cells; on a simulated screen also ``clean``, ``clean_controls``
    and ``probe``. Of a network of which wells alone were kept there are no more than these.
    """
    about = {"screen": Path(config.screen).name, "folds": config.probe_folds, **one.about}
    if one.source is not None and config.screen == named.SIMULATED:
        about["crop"] = one.source.own.simulated.crop

    def make(folder: Path) -> None:
        if one.about.get("weights") is False:
            tables = {"wells": profile.means(one.source.run.table("wells"))}  # type: ignore[union-attr]
        else:
            tables = encoded(one, config, store, device)
        for name, table in tables.items():
            save_table(to_float32(table), folder / f"{name}.parquet")

    data = digest([named.fingerprint(config.screen, config.simulated), asdict(config.simulated)])[:32]
    with one_thread():
        return obtain(store, "compared", ENCODED, about, data, make, device=device, force=force)


def encoded(one: Representation, config: Config, store: Path, device: str) -> Tables:
    """Wells with and without week effects, and R2 of known parameters, by an encoder that is there."""
    code, cells_of = encoder(one, config, store, device)
    cells = cells_of(weeks=True)
    codes = code(cells)
    tables = {"wells": profiles.to_wells(codes), "controls": codes[profiles.controls_mask(codes)]}
    if config.screen == named.SIMULATED:
        tables["probe"] = probe(codes, cells.table.filter(like="truth_"), config.probe_folds)
        clean = code(cells_of(weeks=False))
        tables |= {"clean": profiles.to_wells(clean), "clean_controls": clean[profiles.controls_mask(clean)]}
    return tables


def encoder(
    one: Representation, config: Config, store: Path, device: str
) -> tuple[Callable[[CellSet], pd.DataFrame], Callable[..., CellSet]]:
    """A function from cells to their features, and one that gives the cells with or without effects of weeks."""
    source = one.source
    if source is None:
        per_well = one.about.get("per_well", 0)

        def plain(cells: CellSet) -> pd.DataFrame:
            return encode(one.name, cells, config.seed, n=config.components, device=device)

        def drawn(weeks: bool) -> CellSet:
            return named.load(config.screen, of_weeks(config.simulated, weeks), store, device, per_well)

        return plain, drawn
    cells_of = partial(found.network_cells, source, config, store)
    module, seen = source.one.module, cells_of(weeks=True)
    if source.weights is not None and "training" in one.about:
        asked = replace(source.one.config, layer=one.about["layer"]) if "layer" in one.about else source.one.config
        state = load_run(module, asked, seen, source.run, device)  # type: ignore[arg-type]
    else:
        state = begun(source.one, seen, source.one.config.seed, device)

    def network(cells: CellSet) -> pd.DataFrame:
        return named.without_place(code_table(cells, module.encode(state, cells)))

    return network, cells_of


def of_weeks(simulated: SimulatedScreen, weeks: bool) -> SimulatedScreen:
    """The screen as it is, or the same cells without any effect of weeks."""
    return simulated if weeks else replace(simulated, week_effect=0.0)


# --- what is measured of one representation -------------------------------------------------------------------------


def measured(
    one: Representation, run: Run, config: Config, device: str, treatments: pd.DataFrame, true: np.ndarray | None
) -> tuple[Tables, dict[str, np.ndarray]]:
    """What is kept of a representation, by correction.

    These are the distances of treatments to their nearest candidates, what was asked of all distances (see `judged`),
    weeks left, and retrieval.
    """
    one_unit, kept = one.name != CLASSICAL, run.products()
    start = base(run.table("wells"), config.components, one_unit)
    controls = start(run.table("controls")) if "controls.parquet" in kept else None
    distances, tables = {}, []
    for summary, step, table in corrected(start(run.table("wells")), controls, config, device):
        about = {"variant": one.name, "repeat": one.repeat, "summary": summary}
        if isinstance(table, str):
            tables.append({"left_out": pd.DataFrame([about | {"why": table}])})
            continue
        treated = table[~named.is_positive(table)].reset_index(drop=True)
        units = profile.treatments(treated, PROTOCOL)
        distances[summary] = profile.condensed(units, "cosine")
        each = {"weeks": weeks_left(table), "precision": precision(treated, units, config)}
        tables.append({name: part.assign(**about) for name, part in each.items()})
        if isinstance(step, Wdn):
            tables.append({"maps": pd.DataFrame([about | {"steps": step.steps_, "stopped": step.stopped_}])})
    if "clean.parquet" in kept:
        distances |= without_weeks(run, config.components, one_unit)
        tables.append({"truth": run.table("probe").assign(variant=one.name, repeat=one.repeat)})
    tables.append({"judged": judged(distances, treatments, true).assign(variant=one.name, repeat=one.repeat)})
    return under_one_another(tables), nearest(distances, treatments, f"{one.name}|{one.repeat}")


def nearest(distances: dict[str, np.ndarray], treatments: pd.DataFrame, head: str) -> dict[str, np.ndarray]:
    """Distances to the nearest candidates alone, also when a compound is left out, as they are named in their file."""
    kept = profile.nearest_alone(distances, treatments, MEASURES, second=True)
    return {f"{head}|{name}|cosine": line for name, line in kept.items()}


def without_weeks(run: Run, components: int, one_unit: bool) -> dict[str, np.ndarray]:
    """Distances between treatments in the screen without weeks: as it is, and whitened by its DMSO wells or cells."""
    start = base(run.table("clean"), components, one_unit)
    wells, controls = start(run.table("clean")), start(run.table("clean_controls"))
    rows = {
        CLEAN: (Nothing(), wells),
        CLEAN_WHITENED: (Whitening(RIDGE), wells),
        CLEAN_CELLS: (Whitening(RIDGE), controls),
    }
    treated = wells[~named.is_positive(wells)].reset_index(drop=True)
    given = {name: step.fit(fitted).transform(treated) for name, (step, fitted) in rows.items()}
    return {name: profile.condensed(profile.treatments(table, PROTOCOL), "cosine") for name, table in given.items()}


def weeks_left(wells: pd.DataFrame) -> pd.DataFrame:
    """Whether the nearest control well on another plate is of the same week; of the positive control if there is one.

    Columns plate, correct, chance (see `course.week_of_wells`) and cells, the kind of control.
    """
    for kind, mask in ((POSITIVE, named.is_positive(wells)), (NEGATIVE, profiles.controls_mask(wells))):
        table = course.week_of_wells(wells[mask].reset_index(drop=True))
        if len(table):
            return table.assign(cells=kind)
    return table.assign(cells="")


def precision(wells: pd.DataFrame, units: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Average precision of every treatment, in finding its wells again and the others of its mechanism.

    Columns kind, compound, value, chance (of a random ranking), significant (q below 0.05, of the treatment or of its
    mechanism, against random rankings); treatments that cannot be scored are left out.
    """
    how = {"null_size": config.null_size, "seed": config.seed}
    active, alike = metrics.activity(wells, **how), metrics.consistency(units, **how)
    active["positives"] = active["positives"] / active["scored"]  # of each of its wells
    active["pairs"] = active["pairs"] / active["scored"]
    active = active.rename(columns={"mean_average_precision": "average_precision"})
    each = pd.concat([units[TREATMENT], metrics.precision_of_treatments(units)[["Metadata_moa", *COUNTED]]], axis=1)
    each = each.merge(alike[["Metadata_moa", "q_value"]], on="Metadata_moa")
    both = pd.concat([active.assign(kind=ACTIVITY), each.assign(kind=CONSISTENCY)], ignore_index=True)
    both = both.dropna(subset="average_precision")
    return pd.DataFrame(
        {
            "kind": both["kind"],
            "compound": both["Metadata_compound"],
            "value": both["average_precision"],
            "chance": metrics.random_precision(both["positives"].to_numpy(), both["pairs"].to_numpy()),
            "significant": both["q_value"] < 0.05,
        }
    )


# --- products -------------------------------------------------------------------------------------------------------


def make_products(
    config: Config,
    todo: list[Representation],
    missing: pd.DataFrame,
    store: Path,
    folder: Path,
    device: str,
    force: bool,
) -> None:
    """Encode, correct and measure everything, and write the products."""
    cells = named.load(config.screen, config.simulated, store, device)
    made, refused = [], []
    for one in todo:
        try:
            made.append((one, wells_of(one, config, store, device, force)))
        except CellbookError as error:  # a network that does not fit these cells
            refused.append({"representation": one.name, "why": str(error), "command": "–"})
    units = treatments_of(cells)
    known = {NONE: between_truths(cells, units)} if config.screen == named.SIMULATED else {}
    true = squareform(known[NONE]) if known else None
    tasks = [(*pair, config, "cpu", units, true) for pair in made]
    parts = side_by_side(measured, tasks, worth=config.wdn_iterations >= LONG)
    distances = {name: line for _, some in parts for name, line in some.items()}
    distances |= nearest(known, units, f"{KNOWN}|0")
    truth = [{"judged": judged(known, units, None).assign(variant=KNOWN, repeat=0)}] if known else []
    tables = under_one_another([*(part for part, _ in parts), *truth])
    tables |= {"treatments": units, "size": profile.size(cells, len(units))}
    tables["missing"] = pd.concat([missing, pd.DataFrame(refused)], ignore_index=True)
    tables["compared"] = pd.DataFrame([compared(*pair) for pair in made])
    tables["trainings"] = found.own_trainings([one.source for one, _ in made if "training" in one.about])
    save_products({name: table for name, table in tables.items() if len(table)}, folder)
    profile.save_distances(distances, folder)


def between_truths(cells: CellSet, units: pd.DataFrame) -> np.ndarray:
    """Distances between the known changes of the cells of treatments, condensed, in the order of a table of these."""
    true = true_profiles(cells.table[~named.is_positive(cells.table)])
    keys = [tuple(key) for key in units[TREATMENT].itertuples(index=False)]
    return profile.condensed(true.loc[keys].reset_index(), "cosine")


def treatments_of(cells: CellSet) -> pd.DataFrame:
    """Treatments in the order of all distances: metadata alone."""
    table = named.without_place(cells.table.filter(like="Metadata_")).assign(one=np.arange(len(cells)) % 7.0)
    wells = profiles.to_wells(table)
    units = profile.treatments(wells[~named.is_positive(wells)].reset_index(drop=True), PROTOCOL)
    return units[profiles.metadata(units)]


def compared(one: Representation, run: Run) -> dict[str, Any]:
    """What the page tells of a representation: its kind, its runs, where it was trained and how long encoding took."""
    source = one.source
    trained = source is not None and "training" in one.about
    own = source.run.record if source and source.run and trained else {}
    return {
        "variant": one.name,
        "repeat": one.repeat,
        "kind": TRAINED if trained else BEFORE if source else PLAINLY,
        # Of another layer the untrained network is not compared.
        "untrained": untrained(source.paper) if source and trained and "layer" not in one.about else "",
        "run": run.key,
        "training": own.get("key", ""),
        "device": own.get("device", ""),
        "trained": float(own.get("seconds", np.nan)),
        "seconds": run.record["seconds"],
        "clean": "clean.parquet" in run.products(),
    }
