"""The grid of settings, scaling x transform, and the products of its run.

The published well features (Ljosa et al. 2013) go through every setting of a grid, scaling x transform, each fitted on
DMSO wells alone; every setting is scored under every protocol. The choice of a setting is nested: it is made again
without each compound in turn, and the accuracy of the compound that was left out counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from threadpoolctl import threadpool_limits

from cellbook import metrics, profiles
from cellbook.configure import choose_preset, restore
from cellbook.errors import CellbookError
from cellbook.metrics.scores import prepare
from cellbook.runs import Run, choose_device, obtain, save_table, table_fingerprint, to_float32

VERSION = 1
SCREENS = ("bbbc021-features", "planted")


@dataclass(frozen=True)
class Config:
    """The grid and the numbers of draws; the values are those of the preset `quick`.

    Percentile scaling and factor analysis on DMSO are Ljosa et al. 2013; 50 factors are Tabak et al. 2020; the table of
    Caicedo et al. 2018 prints 20 factors for Ljosa. Ridges are relative to the mean eigenvalue of the DMSO covariance.
    """

    screen: str = "bbbc021-features"
    scalings: tuple[str, ...] = ("percentile", "standardised", "robust", "standardised by week")
    factors: tuple[int, ...] = (20, 50)
    ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
    # Rise of the log-likelihood a step at which factor analysis stops. With more features than controls the likelihood
    # has no maximum, so that a stricter rule only takes longer.
    factor_tolerance: float = 10.0
    ridge: float = 1.0  # of TVN and of CORAL, absolute, as in Ando et al. 2017 and Tabak et al. 2020
    closer: tuple[str, ...] = (  # settings whose control wells are kept, for batch leakage and for the fall to NSCB
        "unscaled",
        "percentile",
        "percentile, CORAL",
        "percentile, 50 factors",
        "percentile, 50 factors, CORAL",
        "standardised by week",
        "standardised, TVN 1",
    )
    drawn: str = "percentile"  # the setting of maps, matrices and retrieval: the benchmark's scaling and nothing else
    resamples: int = 10_000  # of compounds, behind every interval
    permutations: int = 1_000  # of labels, behind chance
    thinnings: int = 200  # random removals of candidates, beside the fall from NSC to NSCB
    null_size: int = 10_000  # of retrieval; the smallest p value is one over it
    repeats: int = 3  # seeds of what is random: forests, noise baselines
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise CellbookError(f"repeats must be at least 1, got {self.repeats}")
        if self.seed < 0:
            raise CellbookError(f"seed must be zero or more, got {self.seed}")
        if self.screen not in SCREENS:
            raise CellbookError(f"screen {self.screen!r} holds no profiles: use one of {', '.join(SCREENS)}")


PRESETS = {
    "smoke": Config(
        scalings=("percentile", "standardised"),
        ridges=(1e-1, 1.0),
        closer=("percentile", "percentile, 50 factors"),
        resamples=500,
        permutations=100,
        thinnings=20,
        null_size=200,
        repeats=1,
    ),
    "quick": Config(),
    "paper": Config(
        factors=(5, 10, 20, 50, 100),
        ridges=tuple(10.0**power for power in np.arange(-4, 3.5, 0.5).round(1)),
        permutations=10_000,
        repeats=10,
    ),
}


def preset(name: str) -> Config:
    """The configuration of a preset."""
    return choose_preset(PRESETS, name)


def load(screen: str) -> pd.DataFrame:
    """Well profiles of a screen: the published features of BBBC021, or a planted stand-in that needs no data."""
    from cellbook.screens import bbbc021, planted

    return bbbc021.ljosa2013() if screen == "bbbc021-features" else planted.planted_wells(n_features=120)


# --- the grid -------------------------------------------------------------------------------------------------------


def scale(wells: pd.DataFrame, scaling: str) -> pd.DataFrame:
    """Scale all wells by the DMSO wells of their plate, or of their week."""
    method = {"percentile": "percentile", "robust": "robust"}.get(scaling, "standardise")
    by = "Metadata_batch" if scaling.endswith("by week") else "Metadata_plate"
    return profiles.PlateScaler(method, by=by, on_constant="drop").fit_transform(wells)


def transforms(config: Config) -> dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]]:
    """Every transform by its name: the transform that it starts from ("" is the scaled wells), and the step."""
    coral = profiles.Coral(eta=config.ridge).fit_transform
    found: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {}
    for n in config.factors:
        found[f"{n} factors"] = "", profiles.FactorAnalysis(n, tol=config.factor_tolerance).fit_transform
    for ridge in config.ridges:
        found[f"whitened {ridge:g}"] = "", profiles.Whitening(ridge, relative=True).fit_transform
    found["CORAL"] = "", coral
    found["50 factors, CORAL"] = "50 factors", coral
    found[f"TVN {config.ridge:g}"] = "", profiles.tvn(config.ridge, config.ridge).fit_transform
    return {name: (start, step) for name, (start, step) in found.items() if start in ("", *found)}


def settings(config: Config, wells: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield every setting of the grid: its name and the wells it makes."""
    yield "unscaled", wells
    for scaling in config.scalings:
        made = {"": scale(wells, scaling)}
        yield scaling, made[""]
        for name, (start, step) in transforms(config).items():
            made[name] = step(made[start])
            yield setting_name(scaling, name), made[name]


def setting_name(scaling: str, transform: str) -> str:
    """Name of a setting: scaling and transform."""
    return f"{scaling}, {transform}" if transform else scaling


def kind(protocol: metrics.Protocol) -> str:
    """Name of what a protocol compares: aggregation of wells and distance."""
    return "-".join([protocol.statistic, *(["weighted"] if protocol.weight else []), protocol.distance])


def kinds() -> dict[str, metrics.Protocol]:
    """One protocol a kind of aggregation and distance, on all treatments."""
    return {kind(p): replace(p, drop_one_batch_moas=False) for p in metrics.PROTOCOLS.values()}


def make(config: Config, wells: pd.DataFrame, folder: Path) -> None:
    """Compute the products: distances between treatments for every setting, wells of the settings looked at closer."""
    treated = wells[wells["Metadata_compound"] != "DMSO"]
    batches = treated.groupby(["Metadata_compound", "Metadata_concentration"])["Metadata_batch"].nunique()
    if (batches > 1).any():
        raise CellbookError(f"{int((batches > 1).sum())} treatments lie in several batches; leave out control wells")
    distances: dict[str, dict[str, np.ndarray]] = {name: {} for name in kinds()}
    for setting, transformed in settings(config, wells):
        for name, protocol in kinds().items():
            units = prepare(transformed, protocol, drop_unusable=True).profiles
            square = metrics.distance_matrix(profiles.matrix(units), protocol.distance)
            distances[name][setting] = squareform(square, checks=False).astype(np.float32)
        if setting in config.closer:
            controls = transformed[transformed["Metadata_compound"] == "DMSO"]
            save_table(to_float32(controls), folder / f"controls-{config.closer.index(setting)}.parquet")
        if setting == config.drawn:
            save_table(to_float32(transformed), folder / "drawn.parquet")
    for name, columns in distances.items():
        save_table(pd.DataFrame(columns), folder / f"distances-{name}.parquet")
    save_table(units[profiles.metadata(units)], folder / "treatments.parquet")
    save_table(wells[profiles.metadata(wells)], folder / "wells.parquet")
    save_table(maps(config, folder), folder / "maps.parquet")


def maps(config: Config, folder: Path) -> pd.DataFrame:
    """PCA and t-SNE coordinates of the treatments, for the setting that is drawn."""
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    units = prepare(pd.read_parquet(folder / "drawn.parquet"), "ljosa2013").profiles
    x = profiles.matrix(units)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)  # so that Euclidean neighbours are cosine neighbours
    tsne = TSNE(perplexity=10, initialization="pca", random_state=config.seed, n_jobs=1).fit(x)
    points = {"PCA": PCA(2, svd_solver="full").fit_transform(x), "t-SNE": np.asarray(tsne)}
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "method": method,
                    "setting": config.drawn,
                    "x": xy[:, 0],
                    "y": xy[:, 1],
                    "moa": units["Metadata_moa"],
                    "batch": units["Metadata_batch"],
                    "compound": units["Metadata_compound"],
                    "concentration": units["Metadata_concentration"],
                }
            )
            for method, xy in points.items()
        ],
        ignore_index=True,
    )


def run(config: Config, store: str | Path, *, device: str = "cpu", force: bool = False) -> Run:
    """The run of this configuration, computed only if it is not in the store."""
    device, wells = choose_device(device), load(config.screen)

    def make_products(folder: Path) -> None:
        # Many small matrices: a second thread costs more than it brings, and one thread gives the same bits everywhere.
        with threadpool_limits(1, user_api="blas"):
            make(config, wells, folder)

    return obtain(
        store,
        "classical",
        VERSION,
        config,
        table_fingerprint(wells),
        make_products,
        device=device,
        force=force,
    )


def config_of(run: Run) -> Config:
    """The configuration of a stored run."""
    return restore(Config, run.record["config"])
