"""The page's pictures as small integers: samples beside real cells, paths, sums, doses, samples on the way.

A training keeps images as bytes under the names below; `draw` puts those of the first repeat into the page's album.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellbook import profiles
from cellbook.cells import CellSet
from cellbook.methods import cytogan
from cellbook.pages.goldsborough2017 import drawn
from cellbook.pages.goldsborough2017.config import Config
from cellbook.screens.named import balanced_rows
from cellbook.study.pictures import Album, treatment
from cellbook.training import State

SAMPLES = "samples"  # that are measured; the first are shown
ON_THE_WAY, MADE_OF_CELLS, DOSES = "on the way", "made of cells", "doses"
SUMS = "sum"  # then the property
PATHS = "paths"
TERMS = ("a", "b", "c", "a - b + c")
DOSED = "AZ-A"  # the paper's compound, shown if it is there in two doses


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as uint8, a quarter of the size."""
    return np.round(255 * images.clip(0, 1)).astype(np.uint8)


def of_sums(image: drawn.Draw, noise: np.ndarray, values: pd.DataFrame, n: int = 2) -> dict[str, np.ndarray]:
    """Images of the first sums of each property, (n * 4, C, H, W): a, b, c and a - b + c one after another."""
    found = {}
    for name in (drawn.AREA, drawn.TUBULIN):
        a, b = drawn.chosen(values[name].to_numpy(), n, 1)[drawn.ONE]
        codes = [(noise[a[i][0]], noise[b[i][0]], noise[i]) for i in range(n)]
        found[f"{SUMS}, {name}"] = as_bytes(
            image(np.stack([code for abc in codes for code in (*abc, cytogan.analogy(*abc))]))
        )
    return found


def dose_path(state: State, codes: pd.DataFrame, frames: int) -> dict[str, np.ndarray]:
    """Images on the arc from the mean code of the lowest to that of the highest dose of a compound."""
    of = codes[codes["Metadata_compound"] != "DMSO"].groupby(["Metadata_compound", "Metadata_concentration"])
    means = of[profiles.features(codes)].mean()
    several = means.index.get_level_values(0).value_counts()
    several = several[several > 1]
    if several.empty:
        return {}
    compound = DOSED if DOSED in several else sorted(several[several == several.max()].index)[0]
    ends = means.loc[compound].sort_index()
    path = cytogan.slerp(ends.iloc[0].to_numpy(), ends.iloc[-1].to_numpy(), frames)
    name = f"{DOSES}, {compound} {ends.index[0]:g} to {ends.index[-1]:g}"
    return {name: as_bytes(cytogan.decode(state, path))}


def draw(config: Config, cells: CellSet, found: dict[str, np.ndarray]) -> Album:
    """All pictures of the page from the images that trainings kept, by "variant|repeat|name", of the first repeats."""
    album, rows = Album(cells.images.shape[-2:]), balanced_rows(cells, config.shown, config.seed)
    names = [f"{place}: {treatment(cells.table, row)}" for place, row in enumerate(rows, 1)]
    for place, (name, row) in enumerate(zip(names, rows, strict=True)):
        album.keep_place(SAMPLES, "real cells", f"{place:02d}", row)
        album.keep_place(MADE_OF_CELLS, name, "original", row)
    for key, kept in found.items():
        variant, repeat, kind = key.split("|")
        if repeat != "0":
            continue
        images = kept / np.float32(255)
        figure, _, rest = kind.partition(", ")
        if figure == SUMS:
            for place, image in enumerate(images):
                album.add(kind, f"{variant}, {place // len(TERMS) + 1}", TERMS[place % len(TERMS)], image)
        elif figure == ON_THE_WAY:
            album.add(figure, variant, rest, images[0])
        elif figure == MADE_OF_CELLS:
            for name, image in zip(names, images, strict=True):
                album.add(figure, name, variant, image)
        else:
            figure, row = {drawn.ARC: PATHS, drawn.LINE: PATHS}.get(figure, figure), f"{variant}, {rest or figure}"
            for place, image in enumerate(images[: config.shown] if figure == SAMPLES else images):
                album.add(figure, variant if figure == SAMPLES else row, f"{place:02d}", image)
    return album
