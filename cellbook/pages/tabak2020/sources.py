"""The profiles that are aligned: published well features, cells by classical features, and cells by codes of VAE+."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import pandas as pd

from cellbook import profiles
from cellbook.cells import CellSet
from cellbook.configure import choose_preset
from cellbook.files import digest
from cellbook.methods import vae_plus
from cellbook.pages.lafarge2019 import config as lafarge2019
from cellbook.pages.tabak2020.config import VERSION, Config
from cellbook.screens import named
from cellbook.screens.named import FEATURES, PLANTED, SAMPLE, SIMULATED, is_positive
from cellbook.screens.preflight import usable_rows
from cellbook.study import premises
from cellbook.study.encoding import CLASSICAL, begun, encode, standardise
from cellbook.study.processes import one_thread
from cellbook.study.profile import whiten
from cellbook.study.trainings import Place, Training
from cellbook.training import State
from cellbook.training.codes import code_table

ENGINEERED, LEARNED = "engineered", "learned"
WELLS = "BBBC021 wells, CellProfiler"
WELL_SCREENS = {FEATURES: WELLS, PLANTED: "planted wells"}
PLACES = {SAMPLE: "real cells", SIMULATED: "simulated cells"}
EMBEDDINGS = {ENGINEERED: CLASSICAL, LEARNED: "VAE+"}


@dataclass(frozen=True)
class Source:
    """Profiles to be aligned, in the form in which the paper's "uncorrected" rows have them.

    Attributes
    ----------
    name : str, as shown
    table : DataFrame, all rows, those of the positive control too; features scaled and reduced, fitted on DMSO
    unit : "wells" or "cells"
    family : "engineered" or "learned"
    week_effect : float or None, of a simulated screen
    main : bool, False for further strengths of the simulated week effect
    clean : str or None, the source with the same cells and no week effect
    untrained : DataFrame or None, of learned features: `profiles` by the same encoder before its first step
    change : float, of learned features: how much their training's objective still changed, see `premises.change`
    """

    name: str
    table: pd.DataFrame = field(repr=False)
    unit: str = "cells"
    family: str = ENGINEERED
    week_effect: float | None = None
    main: bool = True
    clean: str | None = None
    untrained: pd.DataFrame | None = field(default=None, repr=False)
    change: float = float("nan")

    @property
    def profiles(self) -> pd.DataFrame:
        """Treatments and DMSO: what is aligned and scored."""
        return self.table[~is_positive(self.table)].reset_index(drop=True)

    @property
    def positives(self) -> pd.DataFrame:
        """Cells of the positive control; empty where there are none."""
        return self.table[is_positive(self.table)].reset_index(drop=True)


def screens(config: Config) -> tuple[list[str], str]:
    """The screens that are read, and one sentence on what is left out, or nothing."""
    if config.screen != "all":
        return [config.screen], ""
    if named.missing_files():
        left_out = "The real data of BBBC021 is not on this machine, so that its wells and cells are left out."
        return [SIMULATED], left_out
    return [FEATURES, SAMPLE, SIMULATED], ""


def strengths(config: Config, screen: str) -> list[float]:
    """Strengths of the week effect of a screen, the page's first; one for a screen that is not simulated."""
    others = [effect for effect in config.week_effects if effect != config.week_effect]
    return [config.week_effect, *(others if screen == SIMULATED else [])]


def cells_config(config: Config, screen: str, week_effect: float) -> lafarge2019.Config:
    """The page of VAE+ whose cells and first training are used."""
    base = choose_preset(lafarge2019.PRESETS, config.vae)
    return replace(base, screen=screen, seed=config.seed, week_effect=week_effect)


def source_digest(config: Config) -> str:
    """Digest of all that the profiles follow from."""
    parts: list[object] = []
    for screen in screens(config)[0]:
        if screen == PLANTED:
            parts.append([PLANTED, VERSION])
        elif screen == FEATURES:
            parts.append(named.checksums(named.TABLES))
        else:
            for effect in strengths(config, screen):
                of = cells_config(config, screen, effect)
                cells = named.fingerprint(of.screen, of.simulated)
                parts.append([cells, of.per_well, asdict(lafarge2019.trainings(of)[0].config)])
    return digest(parts)[:32]


def load(config: Config, place: Place) -> tuple[list[Source], str]:
    """All sources in the order in which they are shown, and a sentence on what is left out."""
    found: list[Source] = []
    names, note = screens(config)
    for screen in names:
        if screen in WELL_SCREENS:
            found.append(well_source(config, screen))
        else:
            found += cell_sources(config, screen, place)
    return found, note


def well_source(config: Config, screen: str) -> Source:
    """Well profiles, scaled plate by plate and reduced to factors: the paper's engineered features, of means."""
    scaled = profiles.PlateScaler("percentile", on_constant="drop").fit_transform(named.load_wells(screen))
    return Source(WELL_SCREENS[screen], to_factors(scaled, config), "wells", ENGINEERED)


def cell_sources(config: Config, screen: str, place: Place) -> Iterator[Source]:
    """Classical features and codes of VAE+ of the cells of a screen; of a simulated one under all week effects."""
    where = PLACES.get(screen, "own cells")
    wanted = {effect: cells_config(config, screen, effect) for effect in strengths(config, screen)}
    sets = {e: named.load(of.screen, of.simulated, place.store, place.device, of.per_well) for e, of in wanted.items()}
    for cells in sets.values():
        usable_rows(cells.table, batches=2)  # before anything is trained
    simulated = screen == SIMULATED
    for family, embedding in EMBEDDINGS.items():
        names = {effect: f"{where}, {embedding}" for effect in sets}
        for effect in list(sets)[1:]:
            names[effect] = f"{where} with week effect {effect:g}, {embedding}"
        one, own = lafarge2019.trainings(wanted[config.week_effect])[0], sets[config.week_effect]
        encoder = trained(one, own, place) if family == LEARNED else None
        for effect, cells in sets.items():
            table = engineered(cells, config) if encoder is None else learned(cells, encoder)
            strength, clean = (effect, names.get(0.0)) if simulated else (None, None)
            source = Source(names[effect], table, "cells", family, strength, effect == config.week_effect, clean)
            if encoder is not None and source.main:
                before = learned(cells, begun(one, cells, one.config.seed))
                before = before[~is_positive(before)].reset_index(drop=True)
                history = place.stored(one, cells).table("history").melt("step", var_name="term")
                change = premises.change(history, lafarge2019.objective(one))
                source = replace(source, untrained=before, change=change)
            yield source


def trained(one: Training, cells: CellSet, place: Place) -> State:
    """The first training of the page of VAE+, from the store if it is there.

    All strengths of the week effect are encoded by it, so that their codes can be compared.
    """
    replace(place, force=False).of(one, cells)
    return place.state(one, cells)


def engineered(cells: CellSet, config: Config) -> pd.DataFrame:
    """Classical features, standardised by all DMSO cells, as factors.

    A plate has too few DMSO cells for percentiles of its own, which the paper scales by.
    """
    return to_factors(standardise(encode(CLASSICAL, cells)), config)


def learned(cells: CellSet, encoder: State) -> pd.DataFrame:
    """Codes of VAE+, whitened on all DMSO cells, which the paper calls TVN; the ridge is Ledoit and Wolf's."""
    with one_thread():
        codes = vae_plus.encode(encoder, cells)
    table = named.without_place(code_table(cells, codes.astype(float)))
    return whiten(profiles.drop_unusable(table)[0], kind="pca")[0]


def to_factors(scaled: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Factors of the controls, as many as the paper has, or as few controls allow."""
    controls = int(profiles.controls_mask(scaled).sum())
    n = min(config.factors, controls - 1, len(profiles.features(scaled)))
    return profiles.FactorAnalysis(n, tol=config.factor_tolerance).fit_transform(scaled)
