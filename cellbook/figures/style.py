"""Look of all figures: opaque white (so that dark pages leave them readable), one colour a mechanism everywhere."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib.pyplot as plt
import seaborn as sns

# Twelve mechanisms need more hues than a colour-blind-safe palette has, so related ones share a hue and differ in
# lightness, and every scatter also varies the marker.
MOA_COLOURS = {
    "Actin disruptors": "#c1272d",
    "Aurora kinase inhibitors": "#0b5fa5",
    "Cholesterol-lowering": "#8c6d31",
    "DNA damage": "#1b7837",
    "DNA replication": "#7fbf7b",
    "Eg5 inhibitors": "#5aa9e6",
    "Epithelial": "#e377c2",
    "Kinase inhibitors": "#555555",
    "Microtubule destabilizers": "#762a83",
    "Microtubule stabilizers": "#b891c9",
    "Protein degradation": "#e66101",
    "Protein synthesis": "#f4b042",
    "DMSO": "#b0b0b0",
}
MARKERS = "osD^v<>PXp*h"
ACCENT, SECOND, PALE = "#0b5fa5", "#c1272d", "#9aa5b1"


def style() -> None:
    """Set the book's plotting style for the notebook that calls it."""
    sns.set_theme(context="notebook", style="whitegrid")
    plt.rcParams.update(
        {
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.dpi": 110,
            "savefig.bbox": "tight",
            "axes.titlesize": 12,
            "axes.titleweight": "bold",
            "axes.labelsize": 11,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "font.family": "DejaVu Sans",
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def colours(labels: Iterable[str]) -> dict[str, str]:
    """Colour of each label: its own for a mechanism of BBBC021, else one of a ramp in order of the labels."""
    names = list(dict.fromkeys(labels))
    ramp = sns.color_palette("viridis", max(len(names), 2)).as_hex()
    return {name: MOA_COLOURS.get(name, ramp[place]) for place, name in enumerate(names)}
