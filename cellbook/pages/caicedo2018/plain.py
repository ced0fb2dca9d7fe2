"""What is not trained, on the cells of the page: classical features, pixels, and networks before their first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cellbook import profiles
from cellbook.cells import CellSet
from cellbook.methods import weakly_supervised
from cellbook.pages.caicedo2018 import genes
from cellbook.pages.caicedo2018.config import LAYER, OWN, PLAIN, PROTOCOL, Config, trainings
from cellbook.pages.caicedo2018.layers import by_layer, distances, features_of, table_of
from cellbook.pages.caicedo2018.models import GENETIC, of_genes
from cellbook.profiles import to_wells
from cellbook.runs import Run, obtain, save_table, to_float32
from cellbook.screens import named
from cellbook.study import profile
from cellbook.study.encoding import CLASSICAL, UNTRAINED, begun, encode, standardise
from cellbook.study.processes import one_thread
from cellbook.study.trainings import Arrays, Place, Training, save_contents
from cellbook.training.codes import kept_rows
from cellbook.training.loop import keyed

CODES = 1  # rises when `encoded` finds something else


class Plain(NamedTuple):
    """An encoder that is not trained, on one of the page's screens."""

    encoder: str
    repeat: int  # whose seed it has
    screen: str | None

    @property
    def variant(self) -> str:
        """Its name in tables."""
        return of_genes(self.encoder) if self.screen == GENETIC else self.encoder

    @property
    def twice(self) -> bool:
        """Whether two runs measure it: also the one of what is looked at closer."""
        return not self.screen and self.encoder in (CLASSICAL, UNTRAINED)


def plain_encoders(config: Config) -> list[Plain]:
    """All encoders that are not trained, but for that of photographs; untrained networks of several seeds."""
    own = dict.fromkeys((one.cells, one.repeat) for one in trainings(config))
    names = [*((name, None) for name in PLAIN), (CLASSICAL, GENETIC)]
    found = [Plain(name, 0, screen) for name, screen in names if (screen, 0) in own]
    return found + [Plain(UNTRAINED, repeat, screen) for screen, repeat in own if repeat < config.untrained]


def like(one: Plain, config: Config) -> Training:
    """The training whose screen and seed a plain encoder has."""
    return next(of for of in trainings(config) if (of.cells, of.repeat) == (one.screen, one.repeat))


def encoded(one: Plain, config: Config, cells: CellSet, place: Place) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features of all cells, and of an untrained network the wells of all its layers.

    Pixels and classical features are standardised by DMSO cells; a network is that of the seed of a repeat. Where two
    runs measure them, what the cells were encoded to is a run of its own.
    """

    def make(folder: Path) -> None:
        for name, table in _codes(one, config, cells, place.device).items():
            save_table(table, folder / f"{name}.parquet")

    if one.twice:
        run = obtain_plain(one, config, cells, place, {"page": "caicedo2018", "codes": CODES}, make)
        found = {name: run.table(name) for name in ("codes", *["layers"] * (one.encoder == UNTRAINED))}
    else:
        found = _codes(one, config, cells, place.device)
    codes = found["codes"] if one.encoder == UNTRAINED else standardise(found["codes"])
    return codes, found.get("layers", pd.DataFrame())


def _codes(one: Plain, config: Config, cells: CellSet, device: str) -> dict[str, pd.DataFrame]:
    """Codes of cells, and of an untrained network the wells of all its layers."""
    of = like(one, config)
    if one.encoder != UNTRAINED:
        return {"codes": encode(one.encoder, cells, of.config.seed, n=config.components, device=device)}
    codes = table_of(cells, weakly_supervised.layers(begun(of, cells, of.config.seed, device), cells))
    own = codes[[*profiles.metadata(codes), *features_of(codes)[LAYER]]]
    return {"codes": own, "layers": to_float32(to_wells(codes))}


def obtain_plain(
    one: Plain, config: Config, cells: CellSet, place: Place, settings: dict[str, Any], make: Callable[[Path], None]
) -> Run:
    """A run of a plain encoder, or of what is measured of it, with `settings` in its key."""
    of = like(one, config).config
    about: dict[str, Any] = {**settings, "encoder": one.encoder, "seed": of.seed, "validation": list(of.validation)}
    about |= {"like": keyed(of)} if one.encoder == UNTRAINED else {"n": config.components}
    with one_thread():
        return obtain(
            place.store,
            "plain",
            OWN["version"],
            about,
            cells.fingerprint,
            make,
            device=place.device,
            force=place.force,
        )


def plain(one: Plain, config: Config, cells: CellSet, place: Place) -> Run:
    """What is measured of a plain encoder, of all cells: tables, and distances as of a training.

    Of a network before its first step all layers are measured as a trained one's are.
    """

    def make(folder: Path) -> None:
        codes, layers = encoded(one, config, cells, place)
        found: Arrays = by_layer(layers) if len(layers) and one.screen != GENETIC else {}
        wells = to_float32(to_wells(codes))
        tables = {"dimensions": pd.DataFrame([{"dimension": len(profiles.features(wells))}])}
        if one.screen == GENETIC:
            tables["genes"] = genes.votes(wells)
            if one.repeat == 0:
                replicates = like(one, config).config.validation
                tables["cells"] = genes.held_out_cells(codes.iloc[kept_rows(cells.table)], replicates)
        else:
            found |= distances(wells)
            units = profile.treatments(wells[~named.is_positive(wells)], PROTOCOL)
            tables["treatments"] = units[profiles.metadata(units)]
        save_contents(tables, found, folder)

    return obtain_plain(one, config, cells, place, OWN, make)
