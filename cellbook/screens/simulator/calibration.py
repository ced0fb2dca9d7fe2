"""How near simulated cells come to real ones: the same measurements of both, side by side."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.filters import threshold_otsu
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.profiles.aggregate import TREATMENT, WELL

QUANTILES = (1, 5, 25, 50, 75, 95, 99)
BANDS = ((1, 2), (2, 4), (4, 7), (7, 12), (12, 20), (20, 34))  # waves across 68 pixels
RINGS = (0, 6, 12, 18, 24, 30)


def calibrate(
    real: CellSet, simulated: CellSet, centres: dict[str, np.ndarray] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Medians of simple measurements of real and simulated crops, with the spread of the real ones.

    Parameters
    ----------
    real, simulated : CellSet
        Crops of the same side and channels of the same order, DNA first; the caller selects the controls.
    centres : dict of str to numpy.ndarray, optional
        Nucleus centres (n, 2) of real fields by name; with them and with ``Metadata_field``, ``Metadata_y`` and
        ``Metadata_x`` in the simulated table, distances to the nearest neighbour are compared too.
    seed : int
        Of the classifier.

    Returns
    -------
    pandas.DataFrame
        One row a measurement: ``real``, ``simulated`` (medians over crops), ``real_spread``, ``simulated_spread``
        (half the distance of the 16th and 84th percentile), ``difference`` (simulated minus real, in spreads of the
        real crops). The row
        "told apart" has the five-fold accuracy of a random forest on all these measurements, with as many crops of
        either kind: chance is 0.5, lower is better.

    Raises
    ------
    CellbookError
        If sides or channels differ or there are fewer than 20 crops of a kind.
    """
    if real.channels != simulated.channels or real.images.shape[1:] != simulated.images.shape[1:]:
        raise CellbookError(f"real {real!r} and simulated {simulated!r} must have the same channels and crop side.")
    if min(len(real), len(simulated)) < 20:
        raise CellbookError(f"{len(real)} real and {len(simulated)} simulated crops: give at least 20 of each.")
    a, b = measure(real), measure(simulated)
    spreads = [(m.quantile(0.84) - m.quantile(0.16)) / 2 for m in (a, b)]
    table = pd.DataFrame(
        {"real": a.median(), "simulated": b.median(), "real_spread": spreads[0], "simulated_spread": spreads[1]}
    )
    if centres is not None:
        real_distance = np.concatenate([_nearest(points) for points in centres.values()])
        fields = simulated.table.groupby("Metadata_field")[["Metadata_y", "Metadata_x"]]
        distance = np.concatenate([_nearest(part.to_numpy()) for _, part in fields if len(part) > 1])
        for quantile in (5, 25, 50, 75, 95):
            row = [np.percentile(d, quantile) for d in (real_distance, distance)]
            row += [np.diff(np.percentile(d, (16, 84)))[0] / 2 for d in (real_distance, distance)]
            table.loc[f"neighbour_distance_p{quantile}"] = row
    table["difference"] = (table.simulated - table.real) / table.real_spread
    table.loc["told apart", "simulated"] = _told_apart(a, b, seed)
    return table


def matched_rows(table: pd.DataFrame, real: pd.DataFrame, order: np.ndarray | None = None) -> np.ndarray:
    """Rows of a simulated table with as many cells a well of each treatment, and of each week's DMSO, as the real one.

    Wells of a kind are paired in the order of their numbers of cells; where the simulated well has fewer, all are
    taken. The first cells of a well are taken, in the order of the table or in `order`, its rows (n,); what is found
    comes sorted.
    """
    rows = []
    order = np.arange(len(table)) if order is None else order
    compound = table["Metadata_compound"].to_numpy()
    for of in (TREATMENT, ["Metadata_compound", "Metadata_batch"]):
        control = of[1] == "Metadata_batch"
        theirs = real[(real["Metadata_compound"] == "DMSO") == control]
        ours = order[(compound[order] == "DMSO") == control]
        there = table.iloc[ours].groupby([*of, *WELL]).indices
        for kind, sizes in theirs.groupby([*of, *WELL]).size().groupby(level=[0, 1]):
            wells = sorted((ours[v] for k, v in there.items() if k[:2] == kind), key=len, reverse=True)
            for size, well in zip(sorted(sizes, reverse=True), wells, strict=False):
                rows.append(well[:size])
    return np.sort(np.concatenate(rows))


def measure(cells: CellSet) -> pd.DataFrame:
    """Measurements of each crop: log2 grey quantiles, log10 spectrum, rings, channel correlations, nucleus."""
    images = np.asarray(cells.images, dtype=np.float32)
    n, channels, side, _ = images.shape
    flat = images.reshape(n, channels, -1)
    columns: dict[str, np.ndarray] = {}
    quantiles = np.log2(np.percentile(flat, QUANTILES, axis=2) + 1)
    window = np.hanning(side)[:, None] * np.hanning(side)
    power = np.abs(np.fft.rfft2((images - images.mean((2, 3), keepdims=True)) * window)) ** 2
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) * 68
    y, x = np.indices((side, side)) - side // 2
    radius = np.hypot(y, x)
    for c, channel in enumerate(cells.channels):
        columns |= {f"{channel}_p{q}": quantiles[i, :, c] for i, q in enumerate(QUANTILES)}
        for low, high in BANDS:
            columns[f"{channel}_waves_{low}_{high}"] = np.log10(power[:, c, (f >= low) & (f < high)].mean(1) + 1)
        middle = np.maximum(np.median(flat[:, c], axis=1), 1)
        for low, high in pairwise(RINGS):
            ring = images[:, c, (radius >= low) & (radius < high)].mean(1)
            columns[f"{channel}_ring_{low}"] = np.log2(ring / middle + 1e-3)
    centred = flat - flat.mean(2, keepdims=True)
    norm = np.sqrt((centred**2).sum(2)) + 1e-6
    for i in range(channels):
        for j in range(i + 1, channels):
            value = (centred[:, i] * centred[:, j]).sum(1) / (norm[:, i] * norm[:, j])
            columns[f"{cells.channels[i]}_{cells.channels[j]}_correlation"] = value
    nuclei = [_nucleus(crop) for crop in images[:, 0]]
    columns["nucleus_area"], columns["nucleus_elongation"] = np.array(nuclei).T
    return pd.DataFrame(columns).astype(np.float64)


def _nucleus(dna: np.ndarray) -> tuple[float, float]:
    """Area in pixels and long over short axis of the object in the middle; 0 and 1 where there is none."""
    smooth = ndimage.gaussian_filter(dna, 1.0)
    if smooth.max() <= smooth.min():
        return 0.0, 1.0
    labels, _ = ndimage.label(smooth > threshold_otsu(smooth))
    middle = labels[tuple(s // 2 for s in dna.shape)]
    if middle == 0:
        return 0.0, 1.0
    points = np.argwhere(labels == middle)
    if len(points) < 4:
        return float(len(points)), 1.0
    short, long = np.linalg.eigvalsh(np.cov(points.T) + np.eye(2) / 12)
    return float(len(points)), float(np.sqrt(long / short))


def _nearest(points: np.ndarray) -> np.ndarray:
    return cKDTree(points).query(points, k=2)[0][:, 1]


def _told_apart(a: pd.DataFrame, b: pd.DataFrame, seed: int) -> float:
    n = min(len(a), len(b))
    both = pd.concat([a.sample(n, random_state=seed), b.sample(n, random_state=seed)])
    kind = np.repeat([0, 1], n)
    forest = RandomForestClassifier(200, random_state=seed, n_jobs=1)
    return float(cross_val_score(forest, both, kind, cv=5).mean())
