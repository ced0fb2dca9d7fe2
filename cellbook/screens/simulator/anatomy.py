"""From the parameters of cells to shapes that can be drawn: nuclei and their pieces, spindles, outlines, brightness."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellbook.screens.simulator import layout
from cellbook.screens.simulator.phenotypes import KINDS, LABELS

PIECES = 5  # further parts of a nucleus: a second one, chromosome plates, micronuclei
GEOMETRY = 64  # uniform numbers a cell for all that has no biological meaning


def shape_cells(
    cells: pd.DataFrame, geometry: np.ndarray, vectors: np.ndarray, other: np.ndarray
) -> dict[str, np.ndarray]:
    """Everything `render.draw` needs, one row a cell, float32.

    Parameters
    ----------
    cells : pandas.DataFrame
        The ``truth_*`` columns of `phenotypes.draw_cells`.
    geometry : numpy.ndarray
        (N, `GEOMETRY`) uniform numbers.
    vectors, other : numpy.ndarray
        Neighbours of each cell, of `layout.neighbours`; numbers refer to rows of `cells`.

    Returns
    -------
    dict
        ``nucleus``, ``border``, ``contact`` (N, angles); ``pieces`` (N, pieces, 6): y, x, radii, angle, weight;
        scalars (N,) of light, texture and spindle.
    """
    p = {name.removeprefix("truth_"): cells[name].to_numpy() for name in cells if name.startswith("truth_")}
    g = geometry
    state, phase = p["state"], p["phase"]
    mitotic, rounded, binucleate, fragmented = (state == LABELS.index(s) for s in LABELS[1:])
    mono = mitotic & (p["spindle"] == KINDS.index("monopolar"))
    disordered = mitotic & (p["spindle"] == KINDS.index("disordered"))
    bipolar = mitotic & ~mono & ~disordered
    plate, split = bipolar & (phase < 0.65), bipolar & (phase >= 0.65)
    round_cell = mitotic | rounded

    area = p["cell_area"].copy()
    area = np.where(mitotic, 0.24 * area, np.where(rounded, 0.15 * area, area))
    area = np.where(binucleate, 1.25 * area, area)
    radius = np.sqrt(area / np.pi)
    axis = 2 * np.pi * g[:, 0]
    elongation = np.where(round_cell, 1.0 + 0.12 * g[:, 1], p["cell_elongation"])
    elongation = np.where(split, 1.5, elongation)
    spikes = np.where(round_cell, 0.2 * p["spikes"], p["spikes"])
    polarity = np.where(round_cell, 0.0, p["polarity"])
    border, contact = layout.outlines(radius, elongation, axis, spikes, polarity, g[:, 2:14], vectors, radius[other])

    # A long cell has a long nucleus that lies along it, more or less.
    tilt = axis + (g[:, 14] - 0.5) * np.pi * np.clip(1.6 / p["cell_elongation"] ** 2, 0.1, 1.0)
    size = np.sqrt(p["nucleus_area"] / np.pi)
    long = p["nucleus_elongation"].copy()
    size = np.where(rounded, 0.62 * size, size)
    size = np.where(mono | disordered, 0.66 * size, size)
    size = np.where(plate, 0.58 * size, np.where(split, 0.40 * size, size))
    long = np.where(plate, 2.9 - 1.2 * phase, np.where(split, 2.6, np.where(round_cell, 1.08, long)))
    size = np.where(binucleate, 0.86 * size, np.where(fragmented, 0.62 * size, size))
    lobes = np.where(disordered, 0.22, np.where(plate | split, 0.05, p["nucleus_lobes"]))
    nucleus = layout.ellipse(size, long, tilt) * layout.waves(lobes, g[:, 15:23])

    pieces = np.zeros((len(cells), PIECES, 6))
    pieces[:, :, 2:4] = 1.0
    whole = np.sqrt(p["nucleus_area"] / np.pi)
    turn = 2 * np.pi * g[:, 23]
    _set(pieces, binucleate, 0, 1.75 * size, turn, 0.92 * size, 0.80 * size, tilt, 1.0)
    _set(pieces, split, 0, (6.0 + 22.0 * (phase - 0.65)), tilt + np.pi / 2, 1.5 * size, 0.62 * size, tilt, 1.0)
    for j in range(PIECES):
        part = (0.16 + 0.30 * g[:, 24 + j]) * whole
        away = (0.62 + 0.45 * g[:, 29 + j]) * whole
        there = fragmented & (g[:, 34 + j] < 0.8)
        _set(pieces, there, j, away, turn + (j + 0.6 * g[:, 39 + j]) * 2 * np.pi / PIECES, part, 0.9 * part, turn, 0.95)

    # A rounded cell is thick: the same content over less area. Widefield light keeps it all.
    thick = np.clip((p["cell_area"] / area) ** 0.55, 0.8, 3.0)
    condensed = np.where(plate | split, 2.3, np.where(mono | disordered, 1.9, np.where(rounded, 2.0, 1.0)))
    smooth = round_cell | rounded
    out = {
        "nucleus": np.clip(nucleus, 1.5, 40.0),
        "border": np.maximum(border, np.where(round_cell, 6.0, 5.0)[:, None]),
        "contact": contact * np.where(round_cell, 0.3, 1.0)[:, None],
        "pieces": pieces,
        # Quantity of DNA scales with the cell cycle, density with quantity over area.
        "dna": p["dna"] * condensed * (p["dna_content"] / 1.3) ** 0.4,
        "texture": np.where(smooth, 0.3, 1.0) * p["nucleus_texture"],
        "granularity": p["nucleus_granularity"],
        "nucleoli": np.where(smooth, 0.0, p["nucleoli"]),
        "ring": np.where(mono, 0.75, 0.0),  # chromosomes around one pole
        "tubulin": p["tubulin"] * np.where(mitotic, 0.85, 1.0) * thick,
        "perinuclear": np.where(round_cell, 0.1, p["tubulin_perinuclear"]),
        "filaments": np.where(round_cell, 0.15, 1.0) * p["filaments"],
        "bundling": p["bundling"],
        "alignment": p["alignment"],
        "actin": p["actin"] * thick,
        "cortex": p["cortex"] * np.where(mitotic, 1.5, 1.0),
        "stress_fibres": np.where(round_cell, 0.0, p["stress_fibres"]),
        "puncta": p["puncta"],
        "contacts": p["contacts"],
        "softness": np.where(rounded, 4.0, np.where(mono | disordered, 2.2, np.where(mitotic, 1.6, 1.1))),
        "aster": np.where(mono, 2.6, np.where(disordered & (p["filaments"] > 0.35), 1.0, 0.0)),
        "spindle": np.where(plate, 1.8, np.where(split, 1.2, 0.0)),
        "pole": np.where(split, 4.0 + 14.0 * (phase - 0.65), 6.5),
        "axis": axis,
        "side": 2 * np.pi * g[:, 5],  # where the larger part of the cell lies
        "polarity": polarity,
        "tilt": tilt,
        "swirl": 0.035 * (g[:, 44] - 0.5),
        "cross": np.pi * (0.2 + 0.6 * g[:, 45]),
    }
    out = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in out.items()}
    out["offsets"] = g[:, 46:58].astype(np.float32)
    return out


def _set(pieces, where, j, distance, direction, long, short, angle, weight) -> None:
    """Put piece `j` of the chosen cells at a distance and direction from the centre."""
    values = np.stack(
        np.broadcast_arrays(distance * np.sin(direction), distance * np.cos(direction), long, short, angle, weight),
        axis=-1,
    )
    pieces[where, j] = values[where]
