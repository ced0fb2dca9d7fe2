"""Grids of panels with one legend: what the figures of alignments have in common."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cellbook.figures.style import ACCENT, SECOND

SERIES = (ACCENT, "#e08214", "#1b7837", "#762a83", SECOND, "#8c6d31", "#5aa9e6", "#555555")
DASHES = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (5, 1)), (0, (3, 3)))
WIDE = 9.2


def distinct(column: pd.Series) -> list[str]:
    """Values in the order in which they appear."""
    return list(dict.fromkeys(column))


def as_read(name: str) -> str:
    """A week as it is read: "Week10" is week 10."""
    return name.replace("Week", "week ") if name.startswith("Week") else name


def circles(axes: Axes, treated: pd.DataFrame, weeks: Sequence[str], shade: dict[str, str]) -> None:
    """A row a week, a circle a treatment: the number of its compound in the colour of its mechanism; DMSO first, as 0.

    `treated` has the columns week, number, moa, in the order in which treatments are drawn.
    """
    for y, week in enumerate(weeks):
        here = treated.loc[treated["week"] == week, ["number", "moa"]]
        for x, (number, moa) in enumerate([(0, "DMSO"), *here.itertuples(index=False)]):
            axes.plot(x, y, "o", ms=15, color=shade[moa])
            axes.text(x, y, number, ha="center", va="center_baseline", fontsize=8, color=_ink(shade[moa]))
    axes.set_yticks(range(len(weeks)), [as_read(week) for week in weeks], fontsize=10)
    axes.set_ylim(len(weeks) - 0.4, -0.6)
    axes.set_xlim(-0.7, treated["week"].value_counts().max() + 0.7)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _ink(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.6 else "black"


def broken(name: str) -> str:
    """The name of a source on two lines."""
    return name.replace(", ", ",\n", 1)


def grid(rows: int, columns: int, height: float, **shared: object) -> tuple[Figure, np.ndarray]:
    """Panels (rows, columns), each `height` inches high."""
    return plt.subplots(rows, columns, figsize=(WIDE, height * rows + 0.7), squeeze=False, **shared)


def legend(figure: Figure, handles: Sequence[plt.Artist], columns: int) -> None:
    """One legend for all panels, above them."""
    figure.tight_layout()
    above = 1 - 0.1 / figure.get_figheight()  # a tenth of an inch below the top, however high the figure is
    figure.legend(handles=list(handles), loc="lower center", bbox_to_anchor=(0.5, above), ncols=columns, fontsize=10)


def entry(label: str, **style: object) -> plt.Line2D:
    """An entry of a legend."""
    return plt.Line2D([], [], label=label, **style)


def step_axis(axes: Axes, last: float) -> None:
    """An axis of map steps, from 0 on."""
    axes.set_xlim(-0.03 * last, 1.03 * last)
    axes.locator_params(axis="x", nbins=5)


def name_rows(panels: np.ndarray, names: Sequence[str]) -> None:
    """Name each row beside its first panel, outside the label of the axis."""
    for axes, name in zip(panels[:, 0], names, strict=True):
        axes.set_ylabel(f"{broken(name)}\n\n{axes.get_ylabel()}", fontsize=10)


def over_repeats(table: pd.DataFrame, value: str) -> pd.Series:
    """Mean over repeats at every step that all of them have."""
    wide = table.pivot_table(index="step", columns="repeat", values=value)
    return wide.dropna().mean(axis=1)


def in_two_columns(count: int, height: float) -> tuple[Figure, np.ndarray]:
    """Panels in two columns (one if there is only one), those left over hidden."""
    columns = min(2, count)
    figure, panels = grid(-(-count // columns), columns, height)
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    return figure, panels


def label_outside(panels: np.ndarray, count: int, x: str, y: str) -> None:
    """Label the axes at the left and at the bottom of `in_two_columns`."""
    columns = panels.shape[1]
    for place, axes in enumerate(panels.flat[:count]):
        if place + columns >= count:
            axes.set_xlabel(x)
        if place % columns == 0:
            axes.set_ylabel(y)
