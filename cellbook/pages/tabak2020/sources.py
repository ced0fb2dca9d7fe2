"""The profiles that are aligned: published well features, cells by classical features, and cells by codes of VAE+."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook import features, profiles
from cellbook.cells import CellSet
from cellbook.files import digest
from cellbook.methods import vae_plus
from cellbook.pages import lafarge2019
from cellbook.pages.lafarge2019.profile import PLACE, shrinkage_ridge
from cellbook.pages.lafarge2019.screen import SAMPLE, fingerprint, is_positive
from cellbook.pages.lafarge2019.screen import load as load_cells
from cellbook.pages.tabak2020.config import VERSION, Config
from cellbook.screens.preflight import usable_rows
from cellbook.training import load_run, train_run

ENGINEERED, LEARNED = "engineered", "learned"
WELLS = "BBBC021 wells, CellProfiler"
WELL_SCREENS = {"bbbc021-features": WELLS, "planted": "planted wells"}
PLACES = {SAMPLE: "real cells", "simulated": "simulated cells"}
EMBEDDINGS = {ENGINEERED: "classical features", LEARNED: "VAE+"}


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
    """

    name: str
    table: pd.DataFrame = field(repr=False)
    unit: str = "cells"
    family: str = ENGINEERED
    week_effect: float | None = None
    main: bool = True
    clean: str | None = None

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
    from cellbook.pages.cells.real import missing

    if missing():
        left_out = "The real data of BBBC021 is not on this machine, so that its wells and cells are left out."
        return ["simulated"], left_out
    return ["bbbc021-features", SAMPLE, "simulated"], ""


def strengths(config: Config, screen: str) -> list[float]:
    """Strengths of the week effect of a screen, the page's first; one for a screen that is not simulated."""
    others = [effect for effect in config.week_effects if effect != config.week_effect]
    return [config.week_effect, *(others if screen == "simulated" else [])]


def cells_config(config: Config, screen: str, week_effect: float) -> lafarge2019.Config:
    """The page of VAE+ whose cells and first training are used."""
    base = lafarge2019.preset(config.vae)
    return replace(base, screen=screen, seed=config.seed, week_effect=week_effect)


def source_digest(config: Config) -> str:
    """Digest of all that the profiles follow from."""
    parts: list[object] = []
    for screen in screens(config)[0]:
        if screen == "planted":
            parts.append(["planted", VERSION])
        elif screen == "bbbc021-features":
            from cellbook.screens.bbbc021 import IMAGE_TABLE, LJOSA_TABLE, MOA_TABLE
            from cellbook.screens.locate import KNOWN_FILES

            parts.append([KNOWN_FILES[name].sha256 for name in (IMAGE_TABLE, MOA_TABLE, LJOSA_TABLE)])
        else:
            for effect in strengths(config, screen):
                of = cells_config(config, screen, effect)
                parts.append([fingerprint(of), of.per_well, asdict(lafarge2019.trainings(of)[0].config)])
    return digest(parts)[:32]


def load(config: Config, store: str | Path, device: str = "cpu") -> tuple[list[Source], str]:
    """All sources in the order in which they are shown, and a sentence on what is left out."""
    found: list[Source] = []
    names, note = screens(config)
    with threadpool_limits(1, user_api="blas"):
        for screen in names:
            if screen in WELL_SCREENS:
                found.append(well_source(config, screen))
            else:
                found += cell_sources(config, screen, store, device)
    return found, note


def well_source(config: Config, screen: str) -> Source:
    """Well profiles, scaled plate by plate and reduced to factors: the paper's engineered features, of means."""
    from cellbook.screens import bbbc021, planted

    wells = bbbc021.ljosa2013() if screen == "bbbc021-features" else planted.planted_wells()
    scaled = profiles.PlateScaler("percentile", on_constant="drop").fit_transform(wells)
    return Source(WELL_SCREENS[screen], to_factors(scaled, config), "wells", ENGINEERED)


def cell_sources(config: Config, screen: str, store: str | Path, device: str) -> Iterator[Source]:
    """Classical features and codes of VAE+ of the cells of a screen; of a simulated one under all week effects."""
    where = PLACES.get(screen, "own cells")
    wanted = {effect: cells_config(config, screen, effect) for effect in strengths(config, screen)}
    sets = {effect: load_cells(of, store, device) for effect, of in wanted.items()}
    for cells in sets.values():
        usable_rows(cells.table, batches=2)  # before anything is trained
    simulated = screen == "simulated"
    for family, embedding in EMBEDDINGS.items():
        names = {effect: f"{where}, {embedding}" for effect in sets}
        for effect in list(sets)[1:]:
            names[effect] = f"{where} with week effect {effect:g}, {embedding}"
        encoder = trained(config, screen, sets[config.week_effect], store, device) if family == LEARNED else None
        for effect, cells in sets.items():
            table = engineered(cells, config) if encoder is None else learned(cells, encoder)
            clean = names.get(0.0) if simulated else None
            yield Source(
                names[effect],
                table,
                "cells",
                family,
                effect if simulated else None,
                effect == config.week_effect,
                clean,
            )


def trained(config: Config, screen: str, cells: CellSet, store: str | Path, device: str) -> vae_plus.State:
    """The first training of the page of VAE+, from the store if it is there.

    All strengths of the week effect are encoded by it, so that their codes can be compared.
    """
    one = lafarge2019.trainings(cells_config(config, screen, config.week_effect))[0]
    run = train_run(vae_plus, one.config, cells, store, device)
    return load_run(vae_plus, one.config, cells, run, "cpu")


def engineered(cells: CellSet, config: Config) -> pd.DataFrame:
    """Classical features, standardised by all DMSO cells, as factors.

    A plate has too few DMSO cells for percentiles of its own, which the paper scales by.
    """
    table = without_place(features.classical(cells))
    scaled = profiles.PlateScaler("standardise", by=None, on_constant="drop").fit_transform(table)
    return to_factors(scaled, config)


def learned(cells: CellSet, encoder: vae_plus.State) -> pd.DataFrame:
    """Codes of VAE+, whitened on all DMSO cells, which the paper calls TVN; the ridge is Ledoit and Wolf's."""
    codes = vae_plus.encode(encoder, cells)
    named = pd.DataFrame(codes.astype(float), columns=[f"z{i}" for i in range(codes.shape[1])])
    table = without_place(pd.concat([cells.table.filter(like="Metadata_"), named], axis=1))
    return whiten(profiles.drop_unusable(table)[0])


def without_place(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out where in a field a cell lay."""
    return table.drop(columns=[name for name in PLACE if name in table])


def to_factors(scaled: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Factors of the controls, as many as the paper has, or as few controls allow."""
    controls = int(profiles.controls_mask(scaled).sum())
    n = min(config.factors, controls - 1, len(profiles.features(scaled)))
    return profiles.FactorAnalysis(n, tol=config.factor_tolerance).fit_transform(scaled)


def whiten(table: pd.DataFrame) -> pd.DataFrame:
    """Whiten by all controls, with a ridge that shrinkage finds from the controls alone."""
    controls = profiles.matrix(table)[profiles.controls_mask(table)]
    ridge = shrinkage_ridge(controls, pd.Series(0, index=range(len(controls))).to_numpy())
    return profiles.Whitening(ridge, relative=True).fit_transform(table)
