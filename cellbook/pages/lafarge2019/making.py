"""The run of the page: all trainings, each a run of its own in the store, and what the page keeps of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import squareform

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.methods import vae_plus
from cellbook.metrics import images
from cellbook.pages.lafarge2019 import pictures, walks
from cellbook.pages.lafarge2019.config import (
    BASELINES,
    LABELS,
    PAPER_MODELS,
    PROTOCOL,
    VERSION,
    Config,
    judged,
    trainings,
)
from cellbook.profiles.aggregate import TREATMENT
from cellbook.runs import Run, choose_device, obtain
from cellbook.screens import named
from cellbook.study import course, profile
from cellbook.study.encoding import UNTRAINED, begun, encode, standardise
from cellbook.study.known import probe, week_of_controls
from cellbook.study.pictures import normalised
from cellbook.study.projections import project
from cellbook.study.reconstructions import beside_originals
from cellbook.study.trainings import (
    LONG,
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
from cellbook.training import State, load_run
from cellbook.training.codes import kept_rows
from cellbook.training.loop import keyed

OWN = {"page": "lafarge2019", "version": 2}  # rises when `measure` or `baselines` find something else
FIGURE_4 = ("nocodazole", 3.0)  # the paper's example, shown if the models disagree on it here, too


def run(config: Config, store: str | Path, **how: Any) -> Run:
    """The run of this configuration, computed only if it is not in the store; so is each of its trainings.

    See `obtain_trainings` for the further arguments.
    """
    return obtain_trainings("lafarge2019", VERSION, config, store, make_products, **how)


def baseline(config: Config, store: str | Path, device: str = "auto") -> list[Run]:
    """The run of the ImageNet features on the cells of the page; none where their package is not installed.

    A run of a few iterations checks the code, and no baseline that takes longer than it stands beside it.
    """
    if config.iterations < LONG:
        return []
    device = choose_device(device)
    return transferred(config.screen, load(config, store, device), PROTOCOL, store, device=device, seed=config.seed)


def parts(config: Config) -> dict[str, Training | None]:
    """What can be made by itself, on another machine or beside others, most worth first; None: no training."""
    named_trainings = {f"{one.variant}, {one.repeat}": one for one in trainings(config)}
    return named_trainings | {"plain encoders": None, "ImageNet features": None}


def make_part(config: Config, name: str, place: Place) -> list[Run]:
    """Make one of the `parts`, if it is not in the store."""
    one = parts(config)[name]
    if name == "ImageNet features":
        return baseline(config, place.store, place.device)
    cells = part_cells(config, name, place)
    if one is None:
        return [baselines(config, cells, place)]
    return [measured(one, cells, place, measure, config, settings(config))]


def part_cells(config: Config, name: str, place: Place) -> CellSet:
    """The cells of a part."""
    one = parts(config)[name]
    effect = config.week_effect if one is None or one.cells is None else one.cells
    return load(replace(config, week_effect=effect), place.store, place.device)


def load(config: Config, store: str | Path, device: str = "cpu") -> CellSet:
    """The cells of the page."""
    return named.load(config.screen, config.simulated, store, device, config.per_well)


def make_products(config: Config, place: Place, folder: Path, workers: int | None) -> None:
    """Train what is not there, measure every training, and write the products."""
    cells, todo = load(config, place.store, place.device), trainings(config)
    effects = sorted({one.cells for one in todo} - {None})
    others = {effect: load(replace(config, week_effect=effect), place.store, place.device) for effect in effects}
    worth = place.device == "cpu" and config.iterations >= LONG
    screens, how = {None: cells} | others, settings(config)
    tables, found = train_all(todo, screens, place, measure, config, how, workers=workers, worth=worth)
    further, arrays = contents(baselines(config, cells, place))
    found |= arrays
    tables = under_one_another([tables, further])
    units = (
        tables.pop("profiles").query("variant == @todo[0].variant and repeat == 0").drop(columns=["variant", "repeat"])
    )
    treatments = profile.with_counts(units, cells, config.screen)
    tables |= {
        "treatments": treatments,
        "size": profile.size(cells, len(treatments)),
        "maps": project(units, config.seed),
    }
    tables["assigned"] = assigned(found, treatments)
    models = judged(config).values() if config.course else ()
    lengths = {(one.variant, one.repeat): config.iterations for of in models for one in of}
    if points := course.collected(found, lengths):
        asked = metrics.PROTOCOLS[PROTOCOL].measures
        course.save(profile.nearest_alone(points, treatments, asked), folder)
    first = [one for one in todo if one.repeat == 0 and one.variant in LABELS.values()]
    states = {one.variant: place.state(one, cells) for one in first}
    kept = kept_rows(cells.table)
    some = cells.select(kept)
    codes = {variant: vae_plus.encode(state, some) for variant, state in states.items()}
    album = pictures.draw(pictures.Scene(config, some, states, codes), disagreement(tables["assigned"]))
    originals = album.table["cell"]  # rows of those that are kept, become rows of all
    tables["pictures"] = album.table.assign(cell=originals.where(originals < 0, kept[originals]))
    save_products(tables, folder)
    profile.save_distances(found, folder)
    album.save(folder)


def settings(config: Config) -> dict[str, Any]:
    """What decides, beside a training, what `measure` finds."""
    return {"seed": config.seed, "looked_at": config.looked_at, "probe_folds": config.probe_folds, **OWN}


# --- one training ---------------------------------------------------------------------------------------------------


def measure(training: Training, run: Run, cells: CellSet, config: Config) -> tuple[Tables, dict[str, np.ndarray]]:
    """Tables of a finished training, and distances between treatments by "summary|distance"."""
    if training.config.width != config.width:
        return on_its_way(training, run)
    embedded, wells = run.table("codes"), run.table("wells")
    summaries, whitenings = profile.summaries(wells)
    paper = training.variant in PAPER_MODELS
    if not paper:  # the paper's four; the reading of whitening by plate and the other distance for its models alone
        summaries = {name: wells for name, wells in summaries.items() if name in profile.SUMMARIES}
    found = profile.distances(summaries, PROTOCOL, profile.DISTANCES if paper else profile.DISTANCES[:1])
    state = load_run(vae_plus, training.config, cells, run, "cpu")
    shown = cells.select(named.balanced_rows(cells, config.looked_at))
    tables = reconstructions(state, shown, config.seed)
    tables["whitenings"] = whitenings
    tables["weeks"] = week_of_controls(embedded, config.seed)
    codes = profiles.matrix(embedded).astype(np.float32)
    some = cells.table.iloc[kept_rows(cells.table)].reset_index(drop=True)
    tables["walks"] = walks.statistics(codes, some, config.seed)
    followed, points = on_its_way(training, run)
    found, tables = found | points, tables | followed
    if training.repeat == 0:
        tables["profiles"] = profile.treatments(summaries["mean"], PROTOCOL)
    if "truth_state" in some:
        truth = some.filter(like="truth_")
        tables["truth"] = probe(named.without_place(embedded), truth, config.probe_folds)
    return tables, found


def on_its_way(training: Training, run: Run) -> tuple[Tables, dict[str, np.ndarray]]:
    """The course of a training, its history, and what is told of it."""
    found, tables = course.parts(run, (training.variant, training.repeat), PROTOCOL)
    tables["history"] = run.table("history").melt("step", var_name="term")
    model = {"model": training.config.model, "beta": training.config.kl_weight}
    return tables | {"trainings": pd.DataFrame([told(run) | model])}, found


def reconstructions(state: State, cells: CellSet, seed: int) -> Tables:
    """Quality of the reconstructions of some cells, one row a cell, and the numbers that are of all cells together."""
    x = normalised(cells)
    with torch.no_grad():
        mu, logvar = (part.numpy() for part in state.networks["encoder"].eval()(torch.from_numpy(x)))
    rows = beside_originals(cells.table, cells.channels, x, vae_plus.decode(state, mu).clip(0, 1), seed)
    if state.config.terms.noise:
        rows["KL (nats)"] = images.kl_nats(mu, logvar).astype(np.float32)
    return {"images": rows, "units": pd.DataFrame([{"active": images.active_units(mu)}])}


# --- what is not of one training ------------------------------------------------------------------------------------


def baselines(config: Config, cells: CellSet, place: Place) -> Run:
    """The run of the plain encoders: distances under the same summaries, and what their whitenings were fitted on.

    Of the networks before their first step, one a seed, also their reconstructions and the walks in their codes. They
    are the same for all models, whose encoders and decoders differ in nothing but what they are trained for.
    """
    like = trainings(config)[0]
    repeats = {name: config.repeats if name == UNTRAINED else 1 for name in BASELINES}
    about = {"encoders": repeats, "n": config.latent, "like": keyed(like.config), **settings(config)}
    kept, shown = kept_rows(cells.table), cells.select(named.balanced_rows(cells, config.looked_at))
    table = cells.table.iloc[kept].reset_index(drop=True)

    def make(folder: Path) -> None:
        found: dict[str, np.ndarray] = {}
        parts = []
        for name, repeat in ((name, repeat) for name, n in repeats.items() for repeat in range(n)):
            codes = encode(name, cells, config.seed + repeat, n=config.latent, device=place.device, like=like)
            by_summary, whitenings = profile.summaries(profile.to_wells(standardise(codes)))
            distances = profile.distances(by_summary, PROTOCOL, profile.DISTANCES[:1])
            found |= {f"{name}|{repeat}|{key}": values for key, values in distances.items()}
            tables = {"whitenings": whitenings}
            if name == UNTRAINED:
                tables |= reconstructions(begun(like, cells, config.seed + repeat), shown, config.seed)
                tables["walks"] = walks.statistics(profiles.matrix(codes)[kept], table, config.seed)
            parts.append({of: rows.assign(variant=name, repeat=repeat) for of, rows in tables.items()})
        save_contents(under_one_another(parts), found, folder)

    data = cells.fingerprint
    return obtain(place.store, "plain", OWN["version"], about, data, make, device=place.device, force=place.force)


def assigned(found: dict[str, np.ndarray], treatments: pd.DataFrame) -> pd.DataFrame:
    """Mechanism of the nearest neighbour by AE and VAE+ (first training, mean profiles, NSC), one column a model."""
    nearest, moa = {}, treatments["Metadata_moa"].to_numpy()
    for variant in ("AE", "VAE+"):
        square = squareform(found[f"{variant}|0|mean|cosine"].astype(np.float64))
        nsc = metrics.PROTOCOLS[PROTOCOL].measures[0]
        neighbour = metrics.match(treatments, distances=square, **nsc.arguments()).per_query["neighbour"].to_numpy()
        nearest[variant] = np.where(neighbour >= 0, moa[neighbour], "")
    return treatments[[*TREATMENT, "Metadata_moa"]].assign(**nearest)


def disagreement(table: pd.DataFrame) -> pd.Series | None:
    """A treatment whose mechanism one of the models gets right and the other wrong; None if there is none.

    The paper's, if it is one; else the first that VAE+ gets right, as the paper's is, and if there is none the first
    that AE gets right.
    """
    right = {variant: table[variant] == table["Metadata_moa"] for variant in ("AE", "VAE+")}
    differ = table[right["VAE+"] != right["AE"]]
    if differ.empty:
        return None
    first = differ.assign(papers=[tuple(pair) == FIGURE_4 for pair in differ[TREATMENT].to_numpy()], plus=right["VAE+"])
    return first.sort_values(["papers", "plus"], ascending=False, kind="stable").iloc[0]
