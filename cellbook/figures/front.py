"""The picture of the first page: every representation under every correction, biology kept against week left."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cellbook.figures.comparison import PLAINLY, family, shades
from cellbook.figures.panels import distinct, entry
from cellbook.figures.style import style

PLAIN_COLOUR, TRAINED = "#9aa5b1", "a trained network"


def answer(rows: pd.DataFrame, measure: str = "NSC") -> Figure:
    """One panel: up and to the left is better, and what nothing beats is named.

    Parameters
    ----------
    rows : representation, correction, measure, value, week, chance, control, front; shares from 0 to 1
    measure : which of the measures is shown
    """
    style()
    part = rows[rows["measure"] == measure]
    learned = part["representation"].map(family).str.startswith("trained")
    shade = shades(distinct(part.loc[~learned, "representation"]))
    figure, axes = plt.subplots(figsize=(8.4, 5.2))
    for line in part.sort_values("front").itertuples():
        axes.plot(
            100 * line.week, 100 * line.value, "o", color=shade.get(line.representation, PLAIN_COLOUR),
            ms=11 if line.front else 7, mec="black" if line.front else "white", mew=1.3 if line.front else 0.6,
        )  # fmt: skip
    lowest = -np.inf
    for line in part[part["front"]].sort_values("value").itertuples():  # each name above the one before
        lowest = max(100 * line.value, lowest + 5)
        name = line.representation + ("" if line.correction == PLAINLY else f", {line.correction}")
        axes.text(100 * line.week - 3, lowest, name, ha="right", va="center", fontsize=10.5)
    chance = 100 * part["chance"].mean()
    axes.axvline(chance, color="black", ls=":", lw=1.2, zorder=0)
    axes.annotate("chance", (chance, 1), xycoords=("data", "axes fraction"), xytext=(4, 2), textcoords="offset points")
    axes.set_xlim(-62, 102)  # room for the names
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(f"week left: nearest {part['control'].iloc[0]} well elsewhere is of the same week (%)", fontsize=13)
    axes.set_ylabel("biology kept: NSC (%)", fontsize=13)
    axes.tick_params(labelsize=12)
    kinds = {family(name): colour for name, colour in shade.items()} | (
        {TRAINED: PLAIN_COLOUR} if learned.any() else {}
    )
    handles = [entry(name, color=colour, marker="o", ls="", ms=9) for name, colour in kinds.items()]
    axes.legend(handles=handles, loc="lower right", fontsize=11, frameon=True)
    figure.tight_layout()
    return figure
