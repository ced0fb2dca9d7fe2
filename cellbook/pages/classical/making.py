"""The grid of settings, scaling x transform, each fitted on DMSO wells alone, and the products of its run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cellbook import profiles
from cellbook.errors import CellbookError
from cellbook.metrics import classify_batch, prepare
from cellbook.pages.classical.config import VERSION, Config, kinds, setting_name
from cellbook.profiles.aggregate import TREATMENT
from cellbook.runs import Run, obtain_page, save_table, seeds, table_fingerprint, to_float32
from cellbook.screens.named import load_wells
from cellbook.study.profile import condensed
from cellbook.study.projections import project

BENCHMARK = "ljosa2013"
N_FEATURES = 120  # of planted wells


def run(config: Config, store: str | Path, *, device: str = "cpu", force: bool = False) -> Run:
    """The run of this configuration, computed only if it is not in the store."""
    wells = load_wells(config.screen, N_FEATURES)

    def make(folder: Path, _: str) -> None:
        make_products(config, wells, folder)

    key = table_fingerprint(wells)
    return obtain_page(store, "classical", VERSION, config, key, make, device=device, force=force)


def make_products(config: Config, wells: pd.DataFrame, folder: Path) -> None:
    """Compute the products: distances between treatments for every setting, weeks of the settings looked at closer."""
    treated = wells[wells["Metadata_compound"] != "DMSO"]
    batches = treated.groupby(TREATMENT)["Metadata_batch"].nunique()
    if (batches > 1).any():
        raise CellbookError(f"{int((batches > 1).sum())} treatments lie in several batches; leave out control wells")
    distances: dict[str, dict[str, np.ndarray]] = {name: {} for name in kinds()}
    weeks, drawn = {}, {}
    for setting, transformed in settings(config, wells):
        for name, protocol in kinds().items():
            units = prepare(transformed, protocol, drop_unusable=True).profiles
            distances[name][setting] = rounded(condensed(units, protocol.distance))
        if setting in config.closer:
            controls = to_float32(transformed[transformed["Metadata_compound"] == "DMSO"])
            weeks[setting] = weeks_of_controls(controls, config).assign(setting=setting)
        if setting == config.drawn:
            drawn = {"wells": transformed, "treatments": prepare(transformed, BENCHMARK).profiles}
    for name, columns in distances.items():
        save_table(pd.DataFrame(columns), folder / f"distances-{name}.parquet")
    save_table(pd.concat([weeks[name] for name in config.closer if name in weeks]), folder / "weeks.parquet")
    save_table(units[profiles.metadata(units)], folder / "treatments.parquet")
    save_table(wells[profiles.metadata(wells)], folder / "wells.parquet")
    for name, table in drawn.items():
        save_table(to_float32(without_features(table)), folder / f"drawn-{name}.parquet")
    save_table(project(drawn["treatments"], config.seed, setting=config.drawn), folder / "maps.parquet")


def rounded(distances: np.ndarray) -> np.ndarray:
    """Distances to about 16 bits of the largest, in a power of two, so that what is stored ends in zeros."""
    step = 2.0 ** (np.ceil(np.log2(max(distances.max(), np.finfo(np.float32).tiny))) - 16)
    return np.round(distances / step) * step


def without_features(table: pd.DataFrame) -> pd.DataFrame:
    """Other coordinates of the same profiles, from which no feature can be read back.

    Lengths of profiles, cosines between them, and the mean of each over its features stay as they were, and with these
    all correlations: the axes are the mean and those of the profiles without it, turned so that the mean is the mean of
    the coordinates again. The published features themselves are not ours to store.
    """
    x = profiles.matrix(table)
    width = x.shape[1]
    mean = x.mean(axis=1, keepdims=True)
    axes, size, _ = np.linalg.svd(x - mean, full_matrices=False)
    y = np.zeros_like(x)
    y[:, :1] = mean * np.sqrt(width)
    n = min(width - 1, len(size))  # what lies beside the mean has a dimension less
    y[:, 1 : n + 1] = (axes * size)[:, :n]
    # The reflection that swaps the first axis and the diagonal of all.
    across = np.full(width, 1 / np.sqrt(width))
    across[0] -= 1
    y -= np.outer(y @ across, across) * (2 / (across @ across))
    return profiles.replace_features(table, y, [f"axis_{i}" for i in range(width)])


def weeks_of_controls(controls: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Whether the week of every control well is named, on plates held out.

    One row a classifier, seed and well: model, seed, plate, correct, and of the classifier the accuracy (mean over
    folds), that on noise, and the share of the largest week.
    """
    found = []
    for model in ("logistic", "forest"):
        for seed in seeds(config.seed, config.repeats):
            named = classify_batch(controls, model=model, seed=seed, standardise=model == "logistic")
            about = {"accuracy": named.accuracy, "noise": named.noise_baseline, "majority": named.majority}
            rows = pd.DataFrame({"plate": controls["Metadata_plate"].to_numpy(), "correct": named.correct})
            found.append(rows.assign(model=model, seed=seed, **about))
    return pd.concat(found, ignore_index=True)


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
