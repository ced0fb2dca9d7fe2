"""The run of the page: all trainings, each a run of its own in the store, and what the page keeps of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cellbook import profiles
from cellbook.cells import CellSet
from cellbook.features.transferred import installed
from cellbook.methods import cytogan
from cellbook.methods.cytogan.config import ADVERSARIAL
from cellbook.pages.goldsborough2017 import drawn, pictures, quality
from cellbook.pages.goldsborough2017.config import BASELINES, PROTOCOL, VERSION, Config, trainings
from cellbook.pages.goldsborough2017.equations import equations
from cellbook.pages.goldsborough2017.features import ASKED, PLAIN, distances, of_layers, summaries
from cellbook.runs import Run, choose_device, obtain, save_table
from cellbook.screens import named
from cellbook.screens.outlines import LARGER, OPEN
from cellbook.study import course, profile
from cellbook.study.encoding import CLASSICAL, IMAGENET, RANDOM, UNTRAINED, begun, encode, standardise
from cellbook.study.pictures import normalised
from cellbook.study.processes import one_thread
from cellbook.study.projections import project
from cellbook.study.trainings import (
    LONG,
    Arrays,
    Place,
    Tables,
    Training,
    contents,
    key_of_measured,
    measured,
    obtain_trainings,
    save_contents,
    save_products,
    told,
    train_all,
    under_one_another,
)
from cellbook.study.transferred import transferred
from cellbook.training import State, load_run
from cellbook.training.checkpoints import load_course
from cellbook.training.loop import keyed

REAL = "real cells"
MEASURED = 2  # rises when `measure` or `baselines` find something else
END = -1  # step of what was measured at the end of a training, of more images than on its way


def run(config: Config, store: str | Path, **how: Any) -> Run:
    """The run of this configuration, computed only if it is not in the store; so is each of its trainings.

    See `obtain_trainings` for the further arguments.
    """
    cells = named.fingerprint(config.screen, config.simulated, config.side, config.shrink)
    return obtain_trainings(PROTOCOL, VERSION, config, store, make_products, cells=cells, **how)


def baseline(config: Config, store: str | Path, device: str = "auto") -> list[Run]:
    """Runs of the ImageNet features: of the cells, and of samples; none where their package is not installed.

    A run of a few iterations checks the code, and no baseline that takes longer than it stands beside it.
    """
    if config.iterations < LONG or not installed():
        return []
    return [*of_cells(config, store, device), of_samples(config, Place(store, choose_device(device)))]


def of_cells(config: Config, store: str | Path, device: str = "auto") -> list[Run]:
    """The run of the ImageNet features of the cells of the page."""
    device = choose_device(device)
    return transferred(config.screen, whole(config, store, device), PROTOCOL, store, device=device, seed=config.seed)


def of_samples(config: Config, place: Place) -> Run:
    """The run of what ImageNet features say of the samples that trainings have kept; made of their runs."""
    cells, todo = load(config, place.store, place.device), trainings(config)
    about = {
        "of": [key_of_measured(one, cells, how(config)) for one in todo],
        "features": IMAGENET,
        "screen": Path(config.screen).name,
        **how(config),
    }

    def make(folder: Path) -> None:
        beside = references(cells, config)
        real, other = (quality.seen(x, IMAGENET, place.device) for x in (beside.real, beside.other))
        found = [quality.compare(real, other, config.blocks).assign(variant=REAL, repeat=0)]
        for one in todo:
            run = measured(one, cells, place, measure, config, how(config))
            if (bytes_ := contents(run)[1].get(pictures.SAMPLES)) is not None:
                features = quality.seen(bytes_[: len(real)] / np.float32(255), IMAGENET, place.device)
                table = quality.compare(real, features, config.blocks)
                found.append(table.assign(variant=one.variant, repeat=one.repeat))
        save_table(pd.concat(found, ignore_index=True).assign(features=IMAGENET, step=END), folder / "quality.parquet")

    with one_thread():
        return obtain(place.store, "samples", VERSION, about, cells.fingerprint, make, device=place.device)


def parts(config: Config) -> dict[str, Training | None]:
    """What can be made by itself, on another machine or beside others, most worth first; None: no training."""
    return {f"{one.variant}, {one.repeat}": one for one in trainings(config)} | {"plain encoders": None, IMAGENET: None}


def make_part(config: Config, name: str, place: Place) -> list[Run]:
    """Make one of the `parts`, if it is not in the store."""
    one = parts(config)[name]
    if name == IMAGENET:
        return of_cells(config, place.store, place.device)
    cells = part_cells(config, name, place)
    if one is None:
        return [baselines(config, cells, place)]
    return [measured(one, cells, place, measure, config, how(config))]


def part_cells(config: Config, name: str, place: Place) -> CellSet:
    """The cells of a part, as its networks see them."""
    if name == IMAGENET:
        return whole(config, place.store, place.device)
    return load(config, place.store, place.device)


def load(config: Config, store: str | Path, device: str = "cpu") -> CellSet:
    """The cells of the page as its networks see them, each alone and in the middle of its crop."""
    return named.load(
        config.screen, config.simulated, store, device, config.per_well, canvas=config.side, times=config.shrink
    )


def whole(config: Config, store: str | Path, device: str = "cpu") -> CellSet:
    """The same cells as their screen has them, with neighbours, for features that find their own outlines."""
    return named.load(config.screen, config.simulated, store, device, config.per_well)


def how(config: Config) -> dict[str, Any]:
    """What decides, beside a training, what `measure` finds."""
    names = ("seed", "drawn", "watched", "blocks", "triples", "frames", "shown")
    return {name: getattr(config, name) for name in names} | {"page": PROTOCOL, "version": MEASURED}


def make_products(config: Config, place: Place, folder: Path, workers: int | None) -> None:
    """Train what is not there, measure every training, and write the products."""
    cells, todo = load(config, place.store, place.device), trainings(config)
    worth = place.device == "cpu" and config.iterations >= LONG
    tables, found = train_all(todo, {None: cells}, place, measure, config, how(config), workers=workers, worth=worth)
    further, arrays = contents(baselines(config, cells, place))
    tables, found = under_one_another([tables, further]), found | arrays
    tables["treatments"] = tables["treatments"].drop(columns=["variant", "repeat"])
    size = profile.size(cells, len(tables["treatments"]))
    tables["size"] = size.assign(**{name: cells.table[name].mean() for name in (LARGER, OPEN) if name in cells.table})
    images = {name: found.pop(name) for name in list(found) if name.count("|") == 2}  # those of distances have more
    album = pictures.draw(config, cells, images)
    tables["pictures"] = album.table
    if points := course.collected(found, {}):
        course.save(profile.nearest_alone(points, tables["treatments"], ASKED), folder)
    save_products(tables, folder)
    profile.save_distances(profile.nearest_alone(found, tables["treatments"], ASKED), folder)
    album.save(folder)


# --- one training ---------------------------------------------------------------------------------------------------


class References(NamedTuple):
    """Real cells beside which made ones are put, (n, C, H, W) in [0, 1], twice; and some to learn states from."""

    real: np.ndarray
    other: np.ndarray
    rows: np.ndarray  # of the cells that states are learned from


def references(cells: CellSet, config: Config) -> References:
    """As many real cells as images are drawn, each equally likely as in training, twice; no cell is in both."""
    order, n = np.random.default_rng(config.seed).permutation(len(cells)), min(config.drawn, len(cells) // 2)
    first, second = (normalised(cells.select(order[part])) for part in (slice(n), slice(n, 2 * n)))
    return References(first, second, order[2 * n : 6 * n])


def measure(training: Training, run: Run, cells: CellSet, config: Config) -> tuple[Tables, Arrays]:
    """Tables of a finished training, and distances between treatments by "summary|distance"."""
    state = load_run(cytogan, training.config, cells, run)  # on a GPU if there is one: the paper's networks are large
    codes, wells = run.table("codes"), run.table("wells")
    plain = summaries(codes, wells)[PLAIN]
    found = distances(codes, wells) | of_layers(state, cells)
    followed, tables = course.parts(run, (training.variant, training.repeat), PROTOCOL)
    units = profile.treatments(plain, PROTOCOL)
    tables |= {
        "history": run.table("history").melt("step", var_name="term"),
        "trainings": pd.DataFrame([told(run) | {"model": training.config.model}]),
        "equations": equations(plain),
    }
    if training.repeat == 0:
        tables["maps"] = project(units, config.seed).query("method == 't-SNE'")
    if training.config.model in ADVERSARIAL:
        tables["directions"] = directions(state, cells, config)
    if training.config.model != "ae" and training.config.condition == "none":
        shown, pictured = of_images(state, run, cells, config)
        tables, found = tables | shown, found | pictured
    if training.repeat == 0 and training.config.model in ("began", "bigan", "vae", "ae"):
        some = cells.select(named.balanced_rows(cells, config.shown, config.seed))
        found[pictures.MADE_OF_CELLS] = pictures.as_bytes(cytogan.reconstruct(state, some))
    if training.config.model == "bigan":
        found |= pictures.dose_path(state, codes, config.frames)
    return tables, found | followed


def directions(state: State, cells: CellSet, config: Config) -> pd.DataFrame:
    """How much of the representation the output of a discriminator sees, see `cytogan.directions`."""
    found = cytogan.directions(state, cells.select(named.balanced_rows(cells, config.drawn, config.seed)))
    return pd.DataFrame([{"seen": found.seen[0], "varied": found.varied, "rank": found.rank}])


def of_images(state: State, run: Run, cells: CellSet, config: Config) -> tuple[Tables, Arrays]:
    """What is measured of the images of a model, at its end and on its way, and the images themselves as bytes."""

    def image(codes: np.ndarray) -> np.ndarray:
        return drawn.scaled(cytogan.decode(state, codes).clip(0, 1))

    beside = references(cells, config)
    n, noise = len(beside.real), cytogan.noise(state, config.drawn, config.seed)
    made = image(noise)
    values = drawn.properties(made)
    paths, lengths = drawn.paths(image, noise, config.triples, config.frames, config.seed)
    tables = {
        "paths": paths,
        "lengths": lengths,
        "sums": drawn.sums(image, noise, values, config.triples, config.seed),
        "properties": values,
        "radial": drawn.radial_profile(made),
    }
    at_end, shares = compare(cells, beside, made[:n], config)
    steps = {END: at_end}
    tables |= {"states": shares} if len(shares) else {}
    start, end = cytogan.noise(state, 2, config.seed + 1)
    found = {
        pictures.SAMPLES: pictures.as_bytes(made),
        drawn.ARC: pictures.as_bytes(image(cytogan.slerp(start, end, config.frames))),
        drawn.LINE: pictures.as_bytes(image(cytogan.straight(start, end, config.frames))),
        **pictures.of_sums(image, noise, values),
    }
    followed = run.table("course")["step"].unique() if "course.parquet" in run.products() else ()
    for place, step in enumerate(sorted(map(int, followed))):
        load_course(state, run.path("course.safetensors"), step)
        made = image(noise[: min(config.watched, n)])
        steps[step] = quality.by_random(beside.real[: len(made)], made, config.blocks)
        found[f"{pictures.ON_THE_WAY}, {place:02d}"] = pictures.as_bytes(made[: config.shown])
    tables["quality"] = pd.concat([table.assign(step=step) for step, table in steps.items()], ignore_index=True)
    return tables, found


def compare(cells: CellSet, beside: References, made: np.ndarray, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measures of some images against as many real cells, and shares of states where they are known."""
    found, shares = quality.by_random(beside.real, made, config.blocks), pd.DataFrame()
    if "truth_state" in cells.table and len(beside.rows):
        known = cells.select(beside.rows)
        features = [quality.seen(x, RANDOM) for x in (normalised(known), beside.real, made)]
        shares, counts = quality.states(features[0], known.table["truth_state"].to_numpy(), *features[1:])
        more = pd.DataFrame({"measure": list(counts), "value": list(counts.values()), "block": quality.WHOLE})
        more["features"] = RANDOM
        found = pd.concat([found, more], ignore_index=True)
    return found, shares


# --- what is not of one training ------------------------------------------------------------------------------------


def baselines(config: Config, cells: CellSet, place: Place) -> Run:
    """The run of what is not trained: plain encoders, and real cells measured beside other real cells.

    The untrained network is the discriminator of LSGAN of each seed before its first step, all its layers too. Beside
    distances stands the table of treatments.
    """
    like = trainings(config)[0]
    repeats = {name: config.repeats if name == UNTRAINED else 1 for name in BASELINES}
    about = {"encoders": repeats, "n": config.components, "like": keyed(like.config), **how(config)}

    def make(folder: Path) -> None:
        found: Arrays = {}
        for name, repeat in ((name, repeat) for name, n in repeats.items() for repeat in range(n)):
            seed = config.seed + repeat
            of = whole(config, place.store, place.device) if name == CLASSICAL else cells
            table = encode(name, of, seed, n=config.components, device=place.device, like=like)
            table = table if name == UNTRAINED else standardise(table)
            wells = profiles.to_wells(table)
            each = distances(table, wells)
            if name == UNTRAINED:
                each |= of_layers(begun(like, cells, seed, place.device), cells)
            found |= {f"{name}|{repeat}|{key}": values for key, values in each.items()}
        units = profile.treatments(wells[~named.is_positive(wells)], PROTOCOL)
        beside = references(cells, config)
        quality_, shares = compare(cells, beside, beside.other, config)
        tables = {
            "quality": quality_.assign(step=END),
            "properties": drawn.properties(beside.other),
            "radial": drawn.radial_profile(beside.other),
            "states": shares,
            "treatments": units[profiles.metadata(units)],
        }
        save_contents(
            {of: rows.assign(variant=REAL, repeat=0) for of, rows in tables.items() if len(rows)}, found, folder
        )

    data = cells.fingerprint
    return obtain(place.store, "plain", VERSION, about, data, make, device=place.device, force=place.force)
