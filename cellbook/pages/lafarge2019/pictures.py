"""The page's pictures as small integers: same cells by all models, walks, disagreements, prior samples, one direction.

Everything is drawn by the models of the first repeat.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.methods import vae_plus
from cellbook.pages.lafarge2019 import walks
from cellbook.pages.lafarge2019.config import Config
from cellbook.profiles.aggregate import TREATMENT
from cellbook.screens.named import balanced_rows
from cellbook.study.pictures import Album, treatment
from cellbook.training import State

DIRECTION = (-3, -2, -1, 0, 1, 2, 3)  # standard deviations along one feature of the code
MIXED = ("nocodazole", 3.0)  # the paper's example of a mixed population
RANDOM_CELLS = 6


@dataclass(frozen=True)
class Scene:
    """What all figures are drawn from: the models of the first repeat with the codes of all cells, by variant."""

    config: Config
    cells: CellSet
    states: dict[str, State]
    codes: dict[str, np.ndarray]


def draw(scene: Scene, disagreement: pd.Series | None) -> Album:
    """Draw all pictures of the page; `disagreement` is the treatment of figure 4, with what each model takes it for."""
    album = Album(scene.cells.images.shape[-2:])
    same_cells(album, scene)
    walk_figures(album, scene)
    if disagreement is not None:
        disagree(album, scene, disagreement)
    prior_and_direction(album, scene)
    return album


def same_cells(album: Album, scene: Scene, n: int = 6) -> None:
    """Figure 2: the same random cells by all models, decoded from mu."""
    order = np.random.default_rng(scene.config.seed).permutation(balanced_rows(scene.cells, 104))
    by_moa = scene.cells.table.loc[order].drop_duplicates("Metadata_moa").index.to_numpy()
    for row in by_moa[:n]:
        name = treatment(scene.cells.table, int(row))
        album.keep_place("cells", name, "original", int(row))
        for variant, state in scene.states.items():
            album.add("cells", name, variant, vae_plus.decode(state, scene.codes[variant][[row]])[0])


def walk_figures(album: Album, scene: Scene) -> None:
    """Figure 3: walks of VAE+ from one control cell to the target of several treatments, and to several of two."""
    state, codes, table = scene.states["VAE+"], scene.codes["VAE+"], scene.cells.table
    control = walks.typical(codes, np.flatnonzero(table["Metadata_compound"] == "DMSO"))
    chosen = walks.choose_treatments(table, scene.config.walks)
    for compound, concentration in chosen:
        rows = walks.rows_of(table, compound, concentration)
        add_walk(album, scene, state, "walks", f"{compound} {concentration:g}", control, walks.typical(codes, rows))
    mixed = [pair for pair in (MIXED, *chosen) if len(walks.rows_of(table, *pair)) >= 2 * walks.CLUSTERS]
    for compound, concentration in (mixed or chosen)[:2]:
        rows = walks.rows_of(table, compound, concentration)
        for place, (target, size) in enumerate(walks.cluster_targets(codes, rows), start=1):
            name = f"{compound} {concentration:g}, part {place} ({size} of {len(rows)} cells)"
            add_walk(album, scene, state, "targets", name, control, target)


def add_walk(album: Album, scene: Scene, state: State, figure: str, name: str, start: int, target: int) -> None:
    """One row of images; under each, similarity of its code to the target, and of the code of the image itself."""
    codes = scene.codes["VAE+"]
    path = vae_plus.walk(state, codes[start], codes[target], scene.config.frames)
    seen = reencode(state, path.images)
    goal = codes[target].astype(np.float64)
    again = seen @ goal / np.maximum(np.linalg.norm(seen, axis=1) * np.linalg.norm(goal), 1e-12)
    for k, image in enumerate(path.images):
        text = f"{path.similarity[k]:.2f} | {again[k]:.2f}"
        album.add(figure, name, f"{k:02d}", image, text)
    album.keep_place(figure, name, "target cell", target)


def reencode(state: State, images: np.ndarray) -> np.ndarray:
    """Codes of decoded images, (N, d) float64: clipped, stored as 16-bit crops, and encoded like any cell."""
    crops = np.round(images.clip(0, 1) * 65535).astype(np.uint16)
    names = tuple(f"channel {i}" for i in range(crops.shape[1]))
    cells = CellSet(crops, pd.DataFrame(index=range(len(crops))), names, 1.0)
    return vae_plus.encode(state, cells).astype(np.float64)


def disagree(album: Album, scene: Scene, which: pd.Series) -> None:
    """Figure 4: a treatment that AE and VAE+ assign to different mechanisms, reconstructed by both."""
    table = scene.cells.table
    compound, concentration = str(which[TREATMENT[0]]), float(which[TREATMENT[1]])
    rows = walks.rows_of(table, compound, concentration)
    controls = np.flatnonzero(table["Metadata_compound"] == "DMSO")
    for name, group in (("control", controls), (f"{compound} {concentration:g}", rows)):
        row = walks.typical(scene.codes["VAE+"], group)
        album.keep_place("disagreement", name, "original", row)
        for variant in ("AE", "VAE+"):
            image = vae_plus.decode(scene.states[variant], scene.codes[variant][[row]])[0]
            text = "" if name == "control" else "\n".join(textwrap.wrap(str(which[variant]), 16))
            album.add("disagreement", name, variant, image, text)
    chosen = np.random.default_rng(scene.config.seed).permutation(rows)[:RANDOM_CELLS]
    for place, cell in enumerate(np.sort(chosen)):
        album.keep_place("random cells", f"{compound} {concentration:g}", f"{place:02d}", cell)


def prior_and_direction(album: Album, scene: Scene) -> None:
    """Images of codes from N(0, I) by all models, and what moving one feature of a control cell does in VAE+."""
    for variant, state in scene.states.items():
        if state.config.terms.noise and state.config.kl_weight > 0:
            for k, image in enumerate(vae_plus.sample_prior(state, 8, scene.config.seed)):
                album.add("prior", variant, f"{k:02d}", image)
    state, codes = scene.states["VAE+"], scene.codes["VAE+"].astype(np.float64)
    control = walks.typical(codes, np.flatnonzero(scene.cells.table["Metadata_compound"] == "DMSO"))
    spread = codes.std(axis=0)
    for feature in np.argsort(-spread)[:3]:
        moved = np.repeat(codes[[control]], len(DIRECTION), axis=0)
        moved[:, feature] += np.array(DIRECTION) * spread[feature]
        for sd, image in zip(DIRECTION, vae_plus.decode(state, moved), strict=True):
            album.add("direction", f"feature {feature}", f"{sd:+d} SD", image)
