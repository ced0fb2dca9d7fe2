"""The profiles that are aligned: published well features, cells by classical features, and cells by codes of VAE+."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd
from sklearn.decomposition import PCA

from cellbook import profiles
from cellbook.cells import CellSet
from cellbook.configure import choose_preset
from cellbook.features import transferred
from cellbook.files import digest
from cellbook.methods import vae_plus
from cellbook.pages.lafarge2019 import config as lafarge2019
from cellbook.pages.tabak2020.config import VERSION, Config
from cellbook.profiles.aggregate import TREATMENT
from cellbook.runs import Run, obtain, run_key, save_table
from cellbook.screens import named
from cellbook.screens.named import FEATURES, PLANTED, SAMPLE, SIMULATED, is_positive
from cellbook.screens.preflight import usable_rows
from cellbook.study import premises
from cellbook.study.encoding import CLASSICAL, IMAGENET, begun, encode, standardise
from cellbook.study.processes import one_thread, side_by_side
from cellbook.study.profile import whiten
from cellbook.study.trainings import Place, Training
from cellbook.training import State, load_run
from cellbook.training.codes import code_table
from cellbook.training.loop import keyed

ENGINEERED, TRANSFERRED, LEARNED = "engineered", "transferred", "learned"
WELLS = "BBBC021 wells, CellProfiler"
WELL_SCREENS = {FEATURES: WELLS, PLANTED: "planted wells"}
PLACES = {SAMPLE: "real cells", SIMULATED: "simulated cells"}
EMBEDDINGS = {ENGINEERED: CLASSICAL, TRANSFERRED: IMAGENET, LEARNED: "VAE+"}


@dataclass(frozen=True)
class Source:
    """Profiles to be aligned, in the form in which the paper's "uncorrected" rows have them.

    Attributes
    ----------
    name : str, as shown
    table : DataFrame, all rows, those of the positive control too; features scaled and reduced, fitted on DMSO
    unit : "wells" or "cells"
    family : "engineered", "transferred" or "learned"
    screen : str, whose rows they are
    week_effect : float or None, of a simulated screen
    main : bool, False for further strengths of the simulated week effect
    clean : str or None, the source with the same cells and no week effect
    untrained : DataFrame or None, of learned features: `profiles` by the same encoder before its first step
    change : float, of learned features: how much their training's objective still changed, see `premises.change`
    views : float, of learned features: cell views of their training
    """

    name: str
    table: pd.DataFrame = field(repr=False)
    unit: str = "cells"
    family: str = ENGINEERED
    screen: str = ""
    week_effect: float | None = None
    main: bool = True
    clean: str | None = None
    untrained: pd.DataFrame | None = field(default=None, repr=False)
    change: float = float("nan")
    views: float = float("nan")

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


def strengths(config: Config, screen: str, family: str = ENGINEERED) -> list[float]:
    """Strengths of the week effect of a screen, the page's first; one for a screen that is not simulated.

    ImageNet features are made at the page's alone, as they take longest.
    """
    others = [effect for effect in config.week_effects if effect != config.week_effect]
    return [config.week_effect, *(others if screen == SIMULATED and family != TRANSFERRED else [])]


def families(config: Config) -> list[str]:
    """Kinds of features of cells; those of the ImageNet network only where they are wanted and its package is there."""
    return [name for name in EMBEDDINGS if name != TRANSFERRED or (config.imagenet and transferred.installed())]


def vae_config(config: Config, screen: str) -> lafarge2019.Config:
    """The page of VAE+ whose first training is used."""
    base = choose_preset(lafarge2019.PRESETS, config.vae)
    base = replace(base, screen=screen, seed=config.seed, week_effect=config.week_effect)
    return lafarge2019.resize(base, dict(config.vae_iterations).get(screen, base.iterations))


def cells_config(config: Config, screen: str, week_effect: float) -> lafarge2019.Config:
    """The same for the cells that are aligned."""
    base = vae_config(config, screen)
    return replace(base, cells=config.cells or base.cells, week_effect=week_effect)


def source_digest(config: Config) -> str:
    """Digest of all that the profiles follow from."""
    parts: list[object] = [families(config)]
    for screen in screens(config)[0]:
        if screen == PLANTED:
            parts.append([PLANTED, VERSION])
        elif screen == FEATURES:
            parts.append(named.checksums(named.TABLES))
        else:
            vae = vae_config(config, screen)
            parts.append([named.fingerprint(screen, vae.simulated), asdict(lafarge2019.trainings(vae)[0].config)])
            for effect in strengths(config, screen):
                of = cells_config(config, screen, effect)
                parts.append([named.fingerprint(screen, of.simulated), of.per_well])
    return digest(parts)[:32]


def load(config: Config, place: Place, workers: int | None = None, worth: bool = False) -> tuple[list[Source], str]:
    """All sources in the order in which they are shown, and a sentence on what is left out; see `side_by_side`."""
    names, note = screens(config)
    of_cells = [screen for screen in names if screen not in WELL_SCREENS]
    for screen in of_cells:
        for effect in strengths(config, screen):  # before anything is trained
            usable_rows(draw(cells_config(config, screen, effect), place).table, batches=2)
        trained(vae_config(config, screen), place)
    todo = [
        (screen, family, effect)
        for screen in of_cells
        for family in families(config)
        for effect in strengths(config, screen, family)
    ]
    made = side_by_side(cell_source, [(config, place, *one) for one in todo], workers=workers, worth=worth)
    sources = [well_source(config, screen) for screen in names if screen in WELL_SCREENS] + made
    if config.imagenet and TRANSFERRED not in families(config):
        note = f"{note} The ImageNet features need a package that is not installed and are left out.".strip()
    return sources, note


def well_source(config: Config, screen: str) -> Source:
    """Well profiles, scaled plate by plate and reduced to factors: the paper's engineered features, of means."""
    scaled = profiles.PlateScaler("percentile", on_constant="drop").fit_transform(named.load_wells(screen))
    return Source(WELL_SCREENS[screen], to_factors(scaled, config), "wells", ENGINEERED, screen)


def draw(of: lafarge2019.Config, place: Place) -> CellSet:
    """The cells of a screen."""
    return named.load(of.screen, of.simulated, place.store, place.device, of.per_well)


def trained(of: lafarge2019.Config, place: Place) -> tuple[Training, Run]:
    """The first training of the page of VAE+, from the store if it is there.

    All strengths of the week effect are encoded by it, so that their codes can be compared. A screen of which all cells
    are used is known before it is drawn, and so is the run.
    """
    one = lafarge2019.trainings(of)[0]
    if not of.per_well:
        key = run_key(
            one.method, one.module.VERSION, keyed(one.config, one.course), named.fingerprint(of.screen, of.simulated)
        )
        if (run := Run(Path(place.store) / key)).fault() is None:
            return one, run
    return one, replace(place, force=False).of(one, draw(of, place))


def cell_source(config: Config, place: Place, screen: str, family: str, week_effect: float) -> Source:
    """The profiles of cells of a screen by one kind of features; a run of their own in the store."""
    cells = draw(cells_config(config, screen, week_effect), place)
    vae, main = vae_config(config, screen), week_effect == config.week_effect
    one, training = trained(vae, place)
    learned = family == LEARNED

    def make(folder: Path) -> None:
        if learned:
            state = load_run(one.module, one.config, cells, training, "cpu")
            save_table(codes(cells, state), folder / "profiles.parquet")
            if main:
                before = codes(cells, begun(one, cells, one.config.seed))
                save_table(before[~is_positive(before)].reset_index(drop=True), folder / "untrained.parquet")
        else:
            table = engineered(cells, config) if family == ENGINEERED else components(cells, config)
            save_table(table, folder / "profiles.parquet")

    about = {"family": family, "main": main, "training": training.key if learned else None}
    if not learned:
        about |= {"factors": config.factors, "factor_tolerance": config.factor_tolerance, "seed": config.seed}
    with one_thread():
        run = obtain(place.store, "aligned-cells", VERSION, about, cells.fingerprint, make, force=place.force)
    where = PLACES.get(screen, "own cells")
    names = {e: f"{where} with week effect {e:g}, {EMBEDDINGS[family]}" for e in strengths(config, screen, family)}
    names[config.week_effect] = f"{where}, {EMBEDDINGS[family]}"
    strength, clean = (week_effect, names.get(0.0)) if screen == SIMULATED else (None, None)
    source = Source(
        names[week_effect], run.table("profiles"), "cells", family, Path(screen).name, strength, main, clean
    )
    if not (learned and main):
        return source
    history = training.table("history").melt("step", var_name="term")
    treatments = len(source.profiles[TREATMENT].drop_duplicates()) - 1
    return replace(
        source,
        untrained=run.table("untrained"),
        change=premises.change(history, lafarge2019.objective(one)),
        views=lafarge2019.views(vae, treatments),
    )


def engineered(cells: CellSet, config: Config) -> pd.DataFrame:
    """Classical features, standardised by all DMSO cells, as factors.

    A plate has too few DMSO cells for percentiles of its own, which the paper scales by.
    """
    return to_factors(standardise(encode(CLASSICAL, cells)), config)


def codes(cells: CellSet, encoder: State) -> pd.DataFrame:
    """Codes of VAE+, whitened on all DMSO cells, which the paper calls TVN; the ridge is Ledoit and Wolf's."""
    found = vae_plus.encode(encoder, cells)
    table = named.without_place(code_table(cells, found.astype(float)))
    return whiten(profiles.drop_unusable(table)[0], kind="pca")[0]


def components(cells: CellSet, config: Config) -> pd.DataFrame:
    """ImageNet features of cells: first principal components of the DMSO cells, as many as factors, then whitened.

    All 3,840 are more than the controls of a screen, and more than a map of every week can have.
    """
    table = encode(IMAGENET, cells, config.seed)
    values, control = profiles.matrix(table), profiles.controls_mask(table)
    n = min(config.factors, int(control.sum()) - 1, values.shape[1])
    fitted = PCA(n, svd_solver="full").fit(values[control])
    metadata = table[profiles.metadata(table)].reset_index(drop=True)
    few = pd.DataFrame(fitted.transform(values), columns=[f"pc{i}" for i in range(n)])
    return whiten(pd.concat([metadata, few], axis=1), kind="pca")[0]


def to_factors(scaled: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Factors of the controls, as many as the paper has, or as few controls allow."""
    controls = int(profiles.controls_mask(scaled).sum())
    n = min(config.factors, controls - 1, len(profiles.features(scaled)))
    return profiles.FactorAnalysis(n, tol=config.factor_tolerance).fit_transform(scaled)
