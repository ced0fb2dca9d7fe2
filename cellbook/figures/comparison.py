"""Figures of the comparison: biology kept against batch left, ranks, and which measure ranks as the truth does."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cellbook.figures.panels import distinct, entry, grid, legend
from cellbook.figures.style import ACCENT, MARKERS

MEANS = {"NSC": "NSC (%)", "NSCB": "NSCB (%)", "truth": "agreement with the truth"}
GREY = "#777777"
PLAINLY = "none"  # name of no correction
NAMED = "name of a point of the front"
RIGHT = 103  # end of an axis of per cent
LEGIBLE = 20  # names beside each other whose numbers can be read


def family(name: str) -> str:
    """What a representation is a kind of: untrained networks, the networks of one paper, or itself."""
    kind, _, paper = name.rpartition(", ")
    return "untrained networks" if name.startswith("untrained") else f"trained, {paper}" if kind else name


def shades(names: list[str]) -> dict[str, tuple[float, ...]]:
    """A colour of each family of some representations, by the name of a representation."""
    families = distinct(pd.Series([family(name) for name in names]))
    ramp = plt.get_cmap("tab10")
    return {name: ramp(families.index(family(name)) % 10) for name in names}


def key(shade: Mapping[str, tuple[float, ...]]) -> list[Line2D]:
    """Entries of a legend, one a family."""
    colours = {family(name): colour for name, colour in shade.items()}
    return [entry(name, color=colour, marker="o", ls="", ms=7) for name, colour in colours.items()]


def scale(measure: str) -> int:
    """What a value is multiplied by: shares are shown in per cent."""
    return 1 if measure == "truth" else 100


def kept_and_left(rows: pd.DataFrame, bounds: Mapping[str, float], marks: pd.DataFrame) -> Figure:
    """Biology kept against week left, a panel a measure; up and to the left is better.

    Parameters
    ----------
    rows : representation, correction, measure, value, low, high, week, week_low, week_high, chance, control, front
    bounds : by measure, what the known truth itself has: a dashed line
    marks : measure, label, value of published numbers: short lines at the right edge, listed beside the panel
    """
    measures, names, corrections = (distinct(rows[key]) for key in ("measure", "representation", "correction"))
    shade = shades(names)
    marker = dict(zip(corrections, MARKERS, strict=False))
    figure, panels = grid(len(measures), 1, 3.9, sharex=True)
    for axes, measure in zip(panels[:, 0], measures, strict=True):
        k, part = scale(measure), rows[rows["measure"] == measure]
        for line in part.itertuples():
            strength = 0.75 if line.front else 0.18
            axes.hlines(k * line.value, 100 * line.week_low, 100 * line.week_high, color=GREY, alpha=strength / 2, lw=1)
            axes.vlines(100 * line.week, k * line.low, k * line.high, color=GREY, alpha=strength / 2, lw=1)
            edge, size, wide, above = ("black", 9, 1.2, 4) if line.front else ("white", 6, 0.5, 3)
            axes.plot(100 * line.week, k * line.value, marker[line.correction], color=shade[line.representation],
                      ms=size, mec=edge, mew=wide, zorder=above)  # fmt: skip
        front = part[part["front"]].sort_values("week")
        axes.step(100 * front["week"], k * front["value"], where="post", color="black", lw=1)
        axes.axvline(100 * rows["chance"].mean(), color="black", ls=":", lw=1)
        if measure in bounds:
            axes.axhline(k * bounds[measure], color="black", ls="--", lw=1)
        list_marks(axes, marks[marks["measure"] == measure], k)
        axes.set_ylabel(MEANS.get(measure, measure))
        axes.set_xlim(-45, RIGHT)  # nothing is up and to the left of the front, so that its names have room
        name_front(axes, front, k)
    panels[-1, 0].set_xticks(range(0, 101, 20))
    panels[-1, 0].set_xlabel(f"nearest {rows['control'].iloc[0]} well on another plate is of the same week (%)")
    handles = key(shade)
    handles += [entry(name, color="black", marker=marker[name], ls="", ms=7, mfc="white") for name in corrections]
    handles += [entry("beaten by none", color="black"), entry("chance", color="black", ls=":")]
    handles += [entry("the truth itself", color="black", ls="--")] if bounds else []
    handles += [entry("published", color=ACCENT)] if len(marks) else []
    legend(figure, handles, 3)
    make_room(panels[:, 0])
    return figure


def make_room(panels: np.ndarray) -> None:
    """Move the left end of an axis of per cent so far that the longest name in any panel is within its frame."""
    left = -45.0
    for axes in panels:
        axes.figure.canvas.draw()
        for name in (text for text in axes.texts if text.get_gid() == NAMED):
            width = name.get_window_extent().width / axes.get_window_extent().width  # whatever the axis
            end = name.get_position()[0]
            left = min(left, (end - 3 - width * RIGHT) / max(1 - width, 0.3))
    for axes in panels:
        axes.set_xlim(left, RIGHT)


def list_marks(axes: Axes, marks: pd.DataFrame, k: int) -> None:
    """Published numbers as short lines at the right edge, and what each is, the highest first, outside."""
    for value in marks["value"]:
        axes.axhline(k * value, xmin=0.97, color=ACCENT, lw=1.5)
    lines = [f"{k * mark.value:.1f}  {mark.label}" for mark in marks.sort_values("value", ascending=False).itertuples()]
    axes.text(1.01, 1, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=7, color=ACCENT)


def name_front(axes: Axes, front: pd.DataFrame, k: int) -> None:
    """Name the points of the front on their left, from the lowest up, each above the one before."""
    height = np.diff(axes.get_ylim()).item() / 18
    lowest = -np.inf
    for line in front.sort_values("value").itertuples():
        lowest = max(k * line.value, lowest + height)
        done = "" if line.correction == PLAINLY else f", {line.correction}"
        axes.annotate(
            line.representation + done,
            (100 * line.week, k * line.value),
            xytext=(100 * line.week - 3, lowest),
            ha="right",
            va="center",
            fontsize=8,
            zorder=5,
            gid=NAMED,
        ).set_in_layout(False)  # has its room within the frame, see `make_room`
    axes.set_ylim(top=max(axes.get_ylim()[1], lowest + height))


def ranks(rows: pd.DataFrame) -> Figure:
    """Probability of every rank: representations on the left and corrections on the right, a row a measure.

    `rows` has the columns of, measure, name, rank, probability, value; within a panel in the order of drawing. Numbers
    are written where there are few names.
    """
    kinds, measures = distinct(rows["of"]), distinct(rows["measure"])
    most = max(rows[rows["of"] == kind]["name"].nunique() for kind in kinds)
    widths = [max(rows[rows["of"] == kind]["name"].nunique(), most // 2) for kind in kinds]
    figure, panels = plt.subplots(
        len(measures),
        len(kinds),
        figsize=(10.5, len(measures) * ((0.2 if most > LEGIBLE else 0.3) * most + 0.8)),
        squeeze=False,
        width_ratios=widths,
    )
    for row, measure in zip(panels, measures, strict=True):
        for axes, kind in zip(row, kinds, strict=True):
            part = rows[(rows["of"] == kind) & (rows["measure"] == measure)]
            names = distinct(part["name"])
            table = part.pivot_table(index="name", columns="rank", values="probability").loc[names]
            few = len(names) <= LEGIBLE
            # By the root, or a rank of a few per cent would be as white as none.
            axes.imshow(table, cmap="Blues", norm=PowerNorm(1 if few else 0.5, 0, 1), aspect="auto")
            for (y, x), value in np.ndenumerate(table.to_numpy()):
                if few and value >= 0.005:
                    axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=7,
                              color="white" if value > 0.55 else "black")  # fmt: skip
            values = part.drop_duplicates("name")["value"] * scale(measure)
            digits = 1 if scale(measure) == 100 else 2
            labels = [f"{name}  {value:.{digits}f}" for name, value in zip(names, values, strict=True)]
            axes.set_yticks(range(len(names)), labels, fontsize=8)
            each = slice(None) if few else slice(4, None, 5)
            axes.set_xticks(range(len(names))[each], table.columns[each], fontsize=8)
            axes.set_title(f"{kind}s by {MEANS.get(measure, measure)}", fontsize=10)
            axes.grid(visible=False)
    for axes in panels[-1]:
        axes.set_xlabel("rank")
    figure.tight_layout()
    return figure


def predictors(points: pd.DataFrame, measures: pd.DataFrame) -> Figure:
    """NSC against agreement with the truth, and on the right how well each measure ranks points as the truth does.

    `points` has the columns representation, correction, NSC, truth; `measures` measure, value, low, high, best.
    """
    names, corrections = distinct(points["representation"]), distinct(points["correction"])
    shade, marker = shades(names), dict(zip(corrections, MARKERS, strict=False))
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 3.9))
    for point in points.itertuples():
        panels[0].plot(100 * point.NSC, point.truth, marker[point.correction], color=shade[point.representation],
                       ms=7, mec="white", mew=0.5)  # fmt: skip
    panels[0].set_xlabel("NSC (%)")
    panels[0].set_ylabel(MEANS["truth"])
    y = np.arange(len(measures))
    panels[1].hlines(y, measures["low"], measures["high"], color=ACCENT, alpha=0.35, lw=3)
    panels[1].plot(measures["value"], y, "o", color=ACCENT)
    for place, line in zip(y, measures.itertuples(), strict=True):
        panels[1].annotate(f"best in {100 * line.best:.0f} % of draws", (line.value, place), xytext=(0, 7),
                           textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    panels[1].set_yticks(y, measures["measure"])
    panels[1].set_ylim(len(measures) - 0.5, -0.7)
    panels[1].set_xlabel("rank correlation with the ranking by truth")
    handles = key(shade)
    handles += [entry(name, color="black", marker=marker[name], ls="", mfc="white") for name in corrections]
    legend(figure, handles, 4)
    return figure
