"""The run of the page: all trainings, each a run of its own in the store, and what the page keeps of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cellbook import profiles
from cellbook.cells import CellSet
from cellbook.features.transferred import installed
from cellbook.methods import fair_cae
from cellbook.methods.fair_cae.networks import SHRINK
from cellbook.metrics import images
from cellbook.pages.glastonbury2018 import probes
from cellbook.pages.glastonbury2018.config import (
    BASELINES,
    BEFORE,
    FIFTY,
    ONE,
    PROTOCOL,
    VERSION,
    Config,
    trainings,
)
from cellbook.pages.glastonbury2018.corrected import (
    CORAL_CELLS,
    PLAIN,
    apart,
    corrected,
    corrected_by_cells,
    distances,
    encoded_clean,
)
from cellbook.profiles.aggregate import TREATMENT
from cellbook.runs import Run, obtain
from cellbook.screens import named
from cellbook.study import course, profile
from cellbook.study.encoding import CLASSICAL, IMAGENET, UNTRAINED, encode, standardise
from cellbook.study.known import probe
from cellbook.study.pictures import Album, normalised, treatment
from cellbook.study.projections import project
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
from cellbook.study.truth import true_profiles
from cellbook.training import State, load_run
from cellbook.training.codes import code_table, kept_rows
from cellbook.training.loop import keyed

KNOWN = "known truth"  # a variant that nobody has
DECODED = "decoded"  # name of the images that a training draws of some cells
ENCODED = 1  # version of `baselines`


def run(config: Config, store: str | Path, **how: Any) -> Run:
    """The run of this configuration, computed only if it is not in the store; so is each of its trainings.

    See `obtain_trainings` for the further arguments.
    """
    return obtain_trainings(PROTOCOL, VERSION, config, store, make_products, **how)


def parts(config: Config) -> dict[str, Training | None]:
    """What can be made by itself, on another machine or beside others, most worth first; None: no training."""
    return {f"{one.variant}, {one.repeat}": one for one in trainings(config)} | {"plain encoders": None}


def make_part(config: Config, name: str, place: Place) -> list[Run]:
    """Make one of the `parts`, if it is not in the store."""
    one, cells = parts(config)[name], part_cells(config, name, place)
    if one is None:
        return [baselines(config, cells, place)]
    return [measured(one, cells, place, measuring(config, place), config, of_trainings(config))]


def part_cells(config: Config, name: str, place: Place) -> CellSet:
    """The cells of a part, which are those of the page."""
    return load(config, place.store, place.device)


def load(config: Config, store: str | Path, device: str = "cpu") -> CellSet:
    """The cells of the page, in crops that the networks can halve four times."""
    return cut(named.load(config.screen, config.simulated, store, device, config.per_well))


def cut(cells: CellSet) -> CellSet:
    """Cells with the middle of their crops, as large as a multiple of 16 pixels allows; most often as they are."""
    return named.middle(cells, [side // SHRINK * SHRINK for side in cells.images.shape[-2:]])


def without_weeks(config: Config, place: Place) -> CellSet | None:
    """The same cells without any effect of weeks; none of real cells."""
    if config.screen != named.SIMULATED:
        return None
    simulated = replace(config.simulated, week_effect=0.0)
    return cut(named.load(config.screen, simulated, place.store, place.device, config.per_well))


def how(config: Config) -> dict[str, Any]:
    """What decides how codes are measured."""
    names = ("seed", "looked_at", "shown", "probed", "probe_epochs", "probe_folds")
    return {name: getattr(config, name) for name in names} | {"page": PROTOCOL}


def of_trainings(config: Config) -> dict[str, Any]:
    """What decides, beside a training, what `measure` finds."""
    names = ("components", "wdn_iterations")
    return how(config) | {name: getattr(config, name) for name in names} | {"version": VERSION}


def measuring(config: Config, place: Place) -> Callable[..., tuple[Tables, Arrays]]:
    """`measure`, which also sees the cells without weeks."""
    return partial(measure, clean=without_weeks(config, place))


def make_products(config: Config, place: Place, folder: Path, workers: int | None) -> None:
    """Train what is not there, measure every training, and write the products."""
    cells, todo = load(config, place.store, place.device), trainings(config)
    worth = place.device == "cpu" and config.iterations >= LONG
    seen, made = measuring(config, place), of_trainings(config)
    tables, found = train_all(todo, {None: cells}, place, seen, config, made, workers=workers, worth=worth)
    further, arrays = contents(baselines(config, cells, place))
    found |= arrays
    tables = under_one_another([tables, further])
    tables["treatments"] = tables["treatments"].drop(columns=["variant", "repeat"])
    if config.screen == named.SIMULATED:
        true = true_profiles(cells.table[~named.is_positive(cells.table)])
        keys = [tuple(key) for key in tables["treatments"][TREATMENT].itertuples(index=False)]
        found[f"{KNOWN}|0|{PLAIN}|euclidean"] = profile.condensed(true.loc[keys].reset_index(), "euclidean")
    tables["size"] = profile.size(cells, len(tables["treatments"])).assign(side=cells.images.shape[-1])
    album = draw(config, cells, {one.variant: found.pop(f"{one.variant}|0|{DECODED}") for one in todo if is_shown(one)})
    tables["pictures"] = album.table
    if points := course.collected(found, {}):
        course.save(points, folder)
    save_products(tables, folder)
    profile.save_distances(found, folder)
    album.save(folder)


def is_shown(one: Training) -> bool:
    """Whether a training is the first of one in the paper's table."""
    return one.repeat == 0 and one.variant in (BEFORE, ONE, FIFTY)


def draw(config: Config, cells: CellSet, decoded: dict[str, np.ndarray]) -> Album:
    """The same cells by every training, whose images are given: (cells, C, H, W); originals are left open."""
    rows = named.balanced_rows(cells, config.shown, config.seed)
    album, some = Album(cells.images.shape[-2:]), cells.select(rows)
    for i, row in enumerate(rows):
        album.keep_place("cells", f"{i + 1}: {treatment(some.table, i)}", "original", row)
    for name, images_of in decoded.items():
        for i, image in enumerate(images_of):
            album.add("cells", f"{i + 1}: {treatment(some.table, i)}", name, image)
    return album


# --- one training ---------------------------------------------------------------------------------------------------


def measure(
    training: Training, run: Run, cells: CellSet, config: Config, clean: CellSet | None = None
) -> tuple[Tables, Arrays]:
    """Tables of a finished training, and distances between treatments by "summary|distance".

    `clean`: the cells without any effect of weeks.
    """
    embedded, kept = run.table("codes"), kept_rows(cells.table)
    codes = named.without_place(embedded)
    state = load_run(fair_cae, training.config, cells, run, "cpu")
    wells = profile.mean_codes(run.table("wells"))
    profiles_of = corrected(wells)
    tables: Tables = {}
    if training.variant in (BEFORE, FIFTY):
        by_cells, tables["maps_of_weeks"] = corrected_by_cells(wells, codes, config)
        profiles_of |= by_cells
    found, tables["left"] = apart(profiles_of)
    if clean is not None:
        of_clean = named.without_place(code_table(clean, fair_cae.encode(state, clean)))
        found |= distances(encoded_clean(of_clean, config, CORAL_CELLS in profiles_of))
    a, b, rounds = training.config.lengths
    span = {"since": a + b} if rounds else {"until": a}  # the adversary's own phase changes no codes
    followed, weeks = course.parts(run, (training.variant, training.repeat), PROTOCOL, **span)
    shown = cells.select(named.balanced_rows(cells, config.looked_at))
    error = images.mse(normalised(shown), fair_cae.reconstruct(state, shown)).mean(axis=1)
    own = adversarys_weeks(state, profiles.matrix(embedded), kept, cells.table)
    tables |= weeks | {
        "probes": probes.read_weeks(codes, own, config, config.seed),
        "images": pd.DataFrame({"compound": shown.table["Metadata_compound"], "MSE": error}),
        "history": run.table("history").melt("step", var_name="term").dropna(),
        "trainings": pd.DataFrame([told(run) | {"lam": training.config.lam}]),
    }
    if "truth_state" in cells.table:
        truth = cells.table.iloc[kept].reset_index(drop=True).filter(like="truth_")
        tables["truth"] = probe(codes, truth, config.probe_folds)
    if is_shown(training):
        some = cells.select(named.balanced_rows(cells, config.shown, config.seed))
        found[DECODED] = fair_cae.reconstruct(state, some).astype(np.float16)
        treated = wells[~named.is_positive(wells)]
        tables["maps"] = project(profile.treatments(treated, PROTOCOL), config.seed).query("method == 't-SNE'")
    return tables, found | followed


def adversarys_weeks(state: State, codes: np.ndarray, rows: np.ndarray, table: pd.DataFrame) -> np.ndarray | None:
    """The week that the game's adversary, if it has one, names for codes (N, d) of some rows (N,), without dropout."""
    if "adversary" not in state.networks:
        return None
    seen = state.labels["treatment"][torch.from_numpy(rows)]
    with torch.no_grad():
        answer = state.networks["adversary"](torch.from_numpy(codes.astype(np.float32)), seen)
    return np.unique(table["Metadata_batch"].to_numpy(dtype=str))[answer.argmax(1).numpy()]


# --- what is not of one training ------------------------------------------------------------------------------------


def baselines(config: Config, cells: CellSet, place: Place) -> Run:
    """The run of the plain encoders: the network of each seed before its first step, and what needs no training here.

    The first are the same for all weights of the adversary, which encodes nothing. ImageNet features, which take long,
    are of the cells of `kept_rows`. Beside distances and controls stands the table of treatments.
    """
    like = next(one for one in trainings(config) if not one.config.conditional)
    known = [name for name in BASELINES if name != IMAGENET or installed()]
    repeats = {name: config.repeats if name == UNTRAINED else 1 for name in known}
    about = {"encoders": repeats, "n": config.components, "like": keyed(like.config), **how(config), "version": ENCODED}

    def make(folder: Path) -> None:
        found: Arrays = {}
        tables = []
        for name, repeat in ((name, repeat) for name, n in repeats.items() for repeat in range(n)):
            seed = config.seed + repeat
            some = cells.select(kept_rows(cells.table)) if name == IMAGENET else cells
            codes = encode(name, some, seed, n=config.components, device=place.device, like=like)
            wells = profiles.to_wells(standardise(codes) if name == CLASSICAL else codes)
            apart_by, left = apart(corrected(wells))
            found |= {f"{name}|{repeat}|{key}": values for key, values in apart_by.items()}
            tables.append({"left": left.assign(variant=name, repeat=repeat)})
        units = profile.treatments(wells[~named.is_positive(wells)], PROTOCOL)
        tables.append({"treatments": units[profiles.metadata(units)].assign(variant=name, repeat=repeat)})
        save_contents(under_one_another(tables), found, folder)

    data = cells.fingerprint
    return obtain(place.store, "plain", ENCODED, about, data, make, device=place.device, force=place.force)
