"""Where the cells of a field lie and what outline their neighbours leave them; fields wrap around at their edges.

Because a field is a torus, no cell is lost at a border and every cell has neighbours on all sides, however small the
field.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

ANGLES = 48  # directions in which outlines are sampled
NEIGHBOURS = 8
REACH = 46.0  # no cell extends further from the centre of its nucleus, in pixels
_THETA = np.arange(ANGLES) * (2 * np.pi / ANGLES)


def place(draw: np.random.Generator, n: int, shape: tuple[int, int], clumping: float) -> np.ndarray:
    """Integer centres (n, 2) of nuclei: spread by repulsion, drawn together into islands by `clumping` (0 to 1).

    The same random numbers are used whatever `clumping` is.
    """
    size = np.asarray(shape, dtype=np.float64)
    points = draw.random((n, 2)) * size
    islands = draw.random((max(1, n // 9), 2)) * size
    jitter = draw.random((n, 2)) - 0.5
    spacing = np.sqrt(size.prod() / n)
    offset = _wrapped(islands[None] - points[:, None], size)
    nearest = np.argmin((offset**2).sum(-1), axis=1)
    pull = 0.75 * clumping * np.clip(spacing / 66.0 - 0.55, 0.0, 1.0)  # crowded cells have nowhere to go
    points = points + pull * offset[np.arange(n), nearest] + jitter
    # Closer than this they push each other away; some keep more room than others.
    room = np.exp(0.42 * draw.standard_normal(n))
    rest = min(0.62 * spacing, 42.0) * np.sqrt(room[:, None] * room[None])
    y, x = points.T.copy()
    for step in range(9):
        # From cell j to cell i at [j, i]; sums over the first axis add one cell after another.
        dy, dx = _wrapped(y - y[:, None], size[0]), _wrapped(x - x[:, None], size[1])
        distance = np.sqrt(dy**2 + dx**2) + 1e-6
        push = np.clip(rest - distance, 0.0, None)
        np.fill_diagonal(push, 0.0)
        weight = 0.30 if step < 7 else 0.5 * (distance < 22.0)
        share = weight * push / distance
        y, x = y + (share * dy).sum(0), x + (share * dx).sum(0)
    return np.floor(np.stack([y, x], axis=1) % size).astype(np.int64)


def neighbours(points: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, k, 2) to the nearest other cells across the edges, and their numbers (n, k); absent ones far away."""
    n = len(points)
    found = np.zeros((n, NEIGHBOURS), dtype=np.int64)
    vectors = np.full((n, NEIGHBOURS, 2), 1e4)
    k = min(NEIGHBOURS, n - 1)
    if k < 1:
        return vectors, found
    size = np.asarray(shape, dtype=np.float64)
    _, index = cKDTree(points, boxsize=size).query(points, k=k + 1)
    # Two nuclei never share a pixel, but ties in the tree may list a cell after its neighbour.
    own = index == np.arange(n)[:, None]
    own[:, -1] |= ~own.any(1)
    index = index[~own].reshape(n, k)
    found[:, :k] = index
    vectors[:, :k] = _wrapped(points[index] - points[:, None], size)
    return vectors, found


def outlines(
    radius: np.ndarray,
    elongation: np.ndarray,
    axis: np.ndarray,
    spikes: np.ndarray,
    polarity: np.ndarray,
    geometry: np.ndarray,
    vectors: np.ndarray,
    other_radius: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the centre of the nucleus to the border of the cell in each direction, and how far it is contact.

    Parameters
    ----------
    radius, elongation, axis, spikes, polarity : numpy.ndarray
        (N,) radius of a circle of the free cell's area in pixels, long over short axis, its direction, height of the
        protrusions and shift of the cell against its nucleus, both as a share of the radius.
    geometry : numpy.ndarray
        (N, 12) uniform numbers: which way, how wavy.
    vectors, other_radius : numpy.ndarray
        (N, k, 2) vectors (y, x) to the neighbours and their free radii (N, k).

    Returns
    -------
    border, contact : numpy.ndarray
        (N, `ANGLES`); contact is 0 on a free border and 1 where a neighbour takes at least a quarter of the radius.
    """
    free = ellipse(radius, elongation, axis)
    for k in range(2, 6):
        amplitude = 0.10 / k + 0.10 * spikes / k
        free *= 1 + amplitude[:, None] * np.cos(k * (_THETA - 2 * np.pi * geometry[:, k - 2, None]))
    for j in range(4):
        # Protrusions grow along the long axis, give or take half a right angle.
        centre = axis + np.pi * (j % 2) + 1.6 * (geometry[:, 4 + j] - 0.5)
        bump = np.exp((np.cos(_THETA - centre[:, None]) - 1) / 0.035)
        free *= 1 + 1.6 * (spikes * (0.3 + geometry[:, 8 + j]))[:, None] * bump - 0.18 * spikes[:, None]
    free *= 1 + polarity[:, None] * np.cos(_THETA - 2 * np.pi * geometry[:, 3, None])
    distance = np.sqrt((vectors**2).sum(-1))
    angle = np.arctan2(vectors[..., 0], vectors[..., 1])
    mine = np.clip(radius[:, None] / (radius[:, None] + other_radius), 0.3, 0.7)
    facing = np.cos(_THETA[None, None] - angle[..., None])
    limit = 1.04 * (distance * mine)[..., None] / np.maximum(facing, 0.04)
    # A smooth minimum of the free outline and all limits.
    squeezed = (free**-8.0 + (limit**-8.0).sum(1)) ** (-1 / 8)
    border = np.clip(squeezed, 5.0, REACH)
    contact = np.clip((free - squeezed) / (0.25 * free), 0.0, 1.0)
    return border.astype(np.float32), contact.astype(np.float32)


def ellipse(radius: np.ndarray, elongation: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Radii (N, `ANGLES`) of ellipses of the area of a circle of that radius."""
    long, short = radius * np.sqrt(elongation), radius / np.sqrt(elongation)
    turned = _THETA[None] - axis[:, None]
    return (long * short)[:, None] / np.hypot(short[:, None] * np.cos(turned), long[:, None] * np.sin(turned))


def waves(amplitude: np.ndarray, geometry: np.ndarray) -> np.ndarray:
    """Factors (N, `ANGLES`) of an outline with three to five lobes."""
    factor = np.ones((len(amplitude), ANGLES))
    for i, k in enumerate((2, 3, 4, 5)):
        phase = 2 * np.pi * geometry[:, i, None]
        factor += (amplitude * (0.25 + 0.75 * geometry[:, 4 + i]))[:, None] * np.cos(k * _THETA - phase)
    return np.maximum(factor, 0.35)


def _wrapped(offset: np.ndarray, size: np.ndarray | float) -> np.ndarray:
    return offset - size * np.round(offset / size)
