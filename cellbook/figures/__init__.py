"""Every plot of the book, one function each: data in, figure out; the caller keeps the data beside it."""

from cellbook.figures.profiles import (
    confusion,
    embedding,
    forest,
    leakage,
    path,
    retrieval,
    settings,
    similarity,
)
from cellbook.figures.style import MOA_COLOURS, colours, style

__all__ = [
    "MOA_COLOURS",
    "colours",
    "confusion",
    "embedding",
    "forest",
    "leakage",
    "path",
    "retrieval",
    "settings",
    "similarity",
    "style",
]
