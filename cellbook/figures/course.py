"""The course of learning: what a training gives, against how many cells it has seen."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cellbook.figures.panels import DASHES, SERIES

GREY = "#777777"
TICKS = 5
TITLE = 38  # letters on a line of a title, which is no wider than its panel


def label_lowest(panels: np.ndarray, count: int, name: str) -> None:
    """Name the shared x axis, and number its ticks, under the lowest of the first `count` panels in each column."""
    across = panels.shape[1]
    for axes in panels.flat[max(count - across, 0) : count]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(name)


def log_ticks(low: float, high: float) -> np.ndarray:
    """At most `TICKS` numbers to be written beside a log axis: 1, 2 and 5 of each decade, or fewer of more decades.

    Where fewer than three of them lie between the ends, numbers at equal distances.
    """
    tens = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = np.outer(tens, digits).ravel()
        found = found[(found >= low) & (found <= high)]
        if len(found) <= TICKS:
            break
    if len(found) < 3:
        found = plt.MaxNLocator(TICKS, steps=[1, 2, 5, 10]).tick_values(low, high)
        found = found[(found >= low) & (found <= high)]
    return found[:: -(-len(found) // TICKS)]


def course(
    lines: pd.DataFrame,
    references: pd.DataFrame,
    papers_views: float,
    colours: Mapping[str, str] | None = None,
    like: Mapping[str, str] | None = None,
) -> Figure:
    """One panel a measure, one line a model, with 95 % bands; cell views on a log axis that begins with 0.

    Parameters
    ----------
    lines : variant, panel, views, value, low, high, null, share; what is no proportion (`share`) is on a log axis
    references : variant, panel, value: what is not trained, drawn as level lines
    papers_views : cell views in the paper, drawn as an upright line
    colours : of models
    like : models that are drawn in the colour of another one, with open marks
    """
    names, variants = list(dict.fromkeys(lines["panel"])), list(dict.fromkeys(lines["variant"]))
    shades = {name: (colours or {}).get(name, SERIES[i % len(SERIES)]) for i, name in enumerate(variants)}
    like = like or {}
    shades |= {name: shades[other] for name, other in like.items() if other in shades}
    marks = {
        name: {"color": shades[name], "marker": "o", "mfc": "white" if name in like else None} for name in variants
    }
    levels = list(dict.fromkeys(references["variant"]))
    dashes = {name: DASHES[1 + i % (len(DASHES) - 1)] for i, name in enumerate(levels)}
    across = 3
    down = -(-len(names) // across)
    figure, panels = plt.subplots(down, across, figsize=(10, 2.6 * down), squeeze=False, sharex=True)
    first = lines.loc[lines["views"] > 0, "views"].min()
    tens = 10.0 ** np.arange(np.ceil(np.log10(first)), np.log10(max(papers_views, lines["views"].max())) + 0.01)
    for place, axes in enumerate(panels.flat):
        if place >= len(names):
            axes.set_axis_off()
            continue
        mine = lines[lines["panel"] == names[place]]
        scale = 100 if mine["share"].all() else 1
        for variant, part in mine.groupby("variant", sort=False):
            x, shade = part["views"], shades[str(variant)]
            axes.plot(x, scale * part["value"], ms=3, lw=1.5, **marks[str(variant)])
            if part["low"].notna().any():
                axes.fill_between(x, scale * part["low"], scale * part["high"], color=shade, alpha=0.12, lw=0)
        for line in references[references["panel"] == names[place]].itertuples():
            axes.axhline(scale * line.value, color=GREY, ls=dashes[line.variant], lw=1.1)
        if mine["null"].notna().any():
            axes.axhline(scale * mine["null"].mean(), color="black", ls=":", lw=1.1)
        axes.axvline(papers_views, color="black", lw=0.8, alpha=0.6)
        axes.set_xscale("symlog", linthresh=first, linscale=0.7)
        axes.set_xlim(left=0)
        axes.set_xticks([0, *tens], ["0", *(f"$10^{{{round(np.log10(ten))}}}$" for ten in tens)])
        axes.xaxis.set_minor_locator(plt.NullLocator())
        title = names[place] + (" (%)" if scale == 100 else "")
        axes.set_title(textwrap.fill(title, TITLE), fontsize=10)
        if scale == 1:
            axes.set_yscale("log")
            ticks = log_ticks(*axes.get_ylim())
            axes.set_yticks(ticks, [f"{tick:,.9f}".rstrip("0").rstrip(".") for tick in ticks])
            axes.yaxis.set_minor_formatter(plt.NullFormatter())
    label_lowest(panels, len(names), "cell views")
    handles = [plt.Line2D([], [], ms=4, label=name, **marks[name]) for name in variants]
    handles += [plt.Line2D([], [], color=GREY, ls=dashes[name], label=name) for name in levels]
    handles += [plt.Line2D([], [], color="black", lw=0.8, alpha=0.6, label="cell views in the paper")]
    if lines["null"].notna().any():
        handles.append(plt.Line2D([], [], color="black", ls=":", label="chance"))
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=4)
    figure.tight_layout()
    return figure
