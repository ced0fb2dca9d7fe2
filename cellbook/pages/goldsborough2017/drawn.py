"""What is measured on images themselves: nucleus and tubulin, the halo, and what paths and sums in the noise do.

Images are float (N, C, H, W) in [0, 1], each channel divided by its own maximum, real and made ones alike; the first
channel is DNA, the second tubulin.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from cellbook.features.masks import blur
from cellbook.methods.cytogan import analogy, slerp, straight

AREA, TUBULIN = "nuclear area", "tubulin"
RING, FAR = (0.0, 4.0), (10.0, 14.0)  # pixels from the outline of the nucleus: where a halo is, and where it is over
REACH = (-8, 20)  # of the radial profile
TENTH = 10  # of the images, the most and the least are taken from
ONE, MEAN, ANY = "one each", "means of ten", "any two"
ARC, LINE = "arc", "straight line"

Draw = Callable[[np.ndarray], np.ndarray]  # images of codes


def scaled(images: np.ndarray) -> np.ndarray:
    """Each channel of each image divided by its own maximum, as crops are; an empty one stays 0."""
    return images / np.maximum(images.max(axis=(2, 3), keepdims=True), 1e-6)


def nuclei(images: np.ndarray) -> np.ndarray:
    """Pixels whose DNA is brighter than half of the brightest, after smoothing by a pixel: (N, H, W) bool.

    A threshold that needs no black background and no cell in the middle, so that it serves images of any quality.
    """
    dna = blur(torch.from_numpy(np.ascontiguousarray(images[:, 0], dtype=np.float32)), 1.0).numpy()
    return dna > dna.max(axis=(1, 2), keepdims=True) / 2


def properties(images: np.ndarray) -> pd.DataFrame:
    """Nuclear area (pixels) and mean tubulin of every image, and how bright tubulin is in parts around the nucleus.

    Columns: nuclear area, tubulin, inside, ring, far: mean tubulin inside of the nucleus, next to it and away from it;
    NaN where there are no such pixels.
    """
    where = nuclei(images)
    found = {AREA: where.sum(axis=(1, 2)).astype(float), TUBULIN: images[:, 1].mean(axis=(1, 2), dtype=np.float64)}
    away = distances_to(where)
    for name, mask in (("inside", where), ("ring", between(away, *RING)), ("far", between(away, *FAR))):
        count = mask.sum(axis=(1, 2))
        total = (images[:, 1] * mask).sum(axis=(1, 2), dtype=np.float64)
        found[name] = np.divide(total, count, out=np.full(len(images), np.nan), where=count > 0)
    return pd.DataFrame(found)


def has_halo(table: pd.DataFrame) -> np.ndarray:
    """Of `properties`: whether tubulin is brighter next to the nucleus than inside of it, and than away from it."""
    return ((table["ring"] > table["inside"]) & ~(table["far"] >= table["ring"])).to_numpy()


def between(away: np.ndarray, low: float, high: float) -> np.ndarray:
    """Pixels farther than the one and no farther than the other distance."""
    return (away > low) & (away <= high)


def distances_to(masks: np.ndarray) -> np.ndarray:
    """Pixels from the outline of a mask, (N, H, W): positive outside of it, negative inside."""
    sides = ((ndimage.distance_transform_edt(~mask), ndimage.distance_transform_edt(mask)) for mask in masks)
    return np.stack([outside - inside for outside, inside in sides])


def radial_profile(images: np.ndarray) -> pd.DataFrame:
    """Mean tubulin by whole pixels of distance from the outline of the nucleus: distance, value, n (pixels)."""
    place = np.round(distances_to(nuclei(images))).astype(int)
    kept = (place >= REACH[0]) & (place <= REACH[1])
    places = np.arange(REACH[0], REACH[1] + 1)
    at = place[kept] - REACH[0]
    n = np.bincount(at, minlength=len(places))
    total = np.bincount(at, weights=images[:, 1][kept], minlength=len(places))
    value = np.divide(total, n, out=np.full(len(places), np.nan), where=n > 0)
    return pd.DataFrame({"distance": places, "value": value, "n": n})


# --- paths and sums in the noise ------------------------------------------------------------------------------------


def measure(images: np.ndarray) -> pd.DataFrame:
    """The two properties that paths and sums are about."""
    return properties(images)[[AREA, TUBULIN]]


def paths(draw: Draw, noise: np.ndarray, n: int, frames: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What happens between random pairs of codes, on arcs and on straight lines.

    Parameters
    ----------
    draw, noise : what makes images of codes, and codes of the model's noise, (m, d)
    n, frames, seed : pairs; codes of a path; of the pairs

    Returns
    -------
    DataFrame, DataFrame
        One row a pair, way and property: whether the property of the image in the middle lies between those of the
        ends. Of three independent images one is in the middle, so that chance is a third. And the mean length of the
        codes on the way: way, frame, length.
    """
    generator = np.random.default_rng(seed)
    a, b = (noise[generator.integers(len(noise), size=n)] for _ in range(2))
    first, last = (measure(draw(codes)) for codes in (a, b))
    found, lengths = [], []
    for way, path in ((ARC, slerp), (LINE, straight)):
        middle = measure(draw(path(a, b, 3)[1]))
        for name in (AREA, TUBULIN):
            inside = (middle[name] - first[name]) * (middle[name] - last[name]) < 0
            found.append(pd.DataFrame({"way": way, "property": name, "pair": np.arange(n), "between": inside}))
        norm = np.linalg.norm(path(a, b, frames), axis=-1).mean(axis=1)
        lengths.append(pd.DataFrame({"way": way, "frame": np.arange(frames), "length": norm}))
    return pd.concat(found, ignore_index=True), pd.concat(lengths, ignore_index=True)


def chosen(values: np.ndarray, n: int, seed: int) -> dict[str, tuple[list[np.ndarray], list[np.ndarray]]]:
    """Rows of a and of b of n sums by how they are chosen; of the tenth with the most and the tenth with the least."""
    generator = np.random.default_rng(seed)
    order, size = np.argsort(values, kind="stable"), max(1, len(values) // TENTH)
    least, most = order[:size], order[-size:]

    def rows(of: np.ndarray, several: int) -> list[np.ndarray]:
        return [generator.choice(of, several) for _ in range(n)]

    return {
        ONE: (rows(most, 1), rows(least, 1)),
        MEAN: (rows(most, 10), rows(least, 10)),
        ANY: (rows(order, 1), rows(order, 1)),
    }


def sums(draw: Draw, noise: np.ndarray, values: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """What a - b + c does to a property, with a of the most and b of the least of it, and any c.

    Parameters
    ----------
    draw, noise : what makes images of codes, and codes, (m, d)
    values : their properties, (m rows)
    n, seed : sums; of the choice

    Returns
    -------
    DataFrame
        One row a property, kind and sum: rise (whether the image of the sum has more of the property than that of c),
        change. With any a and b, the same c: what chance gives, as a sum is longer than its parts.
    """
    c = np.random.default_rng(seed).integers(len(noise), size=n)
    found = []
    for name in (AREA, TUBULIN):
        for kind, pairs in chosen(values[name].to_numpy(), n, seed + 1).items():
            codes = [analogy(noise[a], noise[b], noise[[k]]) for a, b, k in zip(*pairs, c, strict=True)]
            change = measure(draw(np.stack(codes)))[name].to_numpy() - values[name].to_numpy()[c]
            found.append(pd.DataFrame({"property": name, "kind": kind, "sum": np.arange(n), "change": change}))
    table = pd.concat(found, ignore_index=True)
    return table.assign(rise=table["change"] > 0)
