"""Every plot of the book, one function each: data in, figure out; the caller keeps the data beside it."""

from cellbook.figures.cells import calibration, drops, enough, known, montage, nuclei, plate_map
from cellbook.figures.profiles import confusion, embedding, forest, leakage, path, retrieval, settings, similarity
from cellbook.figures.style import MOA_COLOURS, colours, style
