"""Figures of the page of weak supervision: accuracies, layers, and the two goals of a training."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cellbook.figures.panels import DASHES, distinct, entry, grid, in_two_columns, legend
from cellbook.figures.style import ACCENT

COLOURS = {
    "baseline CNN": ACCENT,
    "mixup": "#e08214",
    "recurrent": "#762a83",
    "untrained encoder": "#777777",
}
OTHER = "#1b7837"  # features that are nowhere trained on these cells


def accuracies(single: pd.DataFrame, numbers: pd.DataFrame, printed: pd.DataFrame) -> Figure:
    """NSC and NSCB, a row a profile: whitened filled, plain open; every training a dot, a line is the interval.

    `single` has the columns variant, summary, measure, accuracy; `numbers` the same and low, high; `printed` the
    columns setting, measure, published.
    """
    names = distinct(numbers["variant"])
    figure, panels = grid(1, 2, 0.42 * len(names) + 0.4, sharey=True)
    for axes, measure in zip(panels[0], ("NSC", "NSCB"), strict=True):
        for place, name in enumerate(names):
            shade = COLOURS.get(name, OTHER)
            for line in numbers[(numbers["variant"] == name) & (numbers["measure"] == measure)].itertuples():
                white = line.summary.endswith("whitened")
                y = place + (-0.13 if white else 0.17)
                axes.plot([100 * line.low, 100 * line.high], [y, y], color=shade, lw=3, alpha=0.5 if white else 0.2)
                mine = single[(single["variant"] == name) & (single["measure"] == measure)]
                each = 100 * mine.loc[mine["summary"] == line.summary, "accuracy"]
                axes.plot(each, np.full(len(each), y), "o", color=shade, mfc=shade if white else "white", ms=5)
            for line in printed[(printed["setting"] == f"{name}, mean, whitened")].itertuples():
                if line.measure == measure:
                    axes.plot(100 * line.published, place - 0.13, "D", mfc="none", mec="black", ms=6)
        axes.set_title(f"{measure} (%)", fontsize=11)
        axes.set_xlim(0, 100)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=10)
    panels[0][0].invert_yaxis()
    handles = [
        entry("whitened", color="black", marker="o", ls=""),
        entry("not whitened", color="black", marker="o", mfc="white", ls=""),
        entry("published", color="black", marker="D", mfc="none", ls=""),
    ]
    legend(figure, handles, 3)
    return figure


def layers(rows: pd.DataFrame) -> Figure:
    """NSC and NSCB against the layer, whitened (line) and not (dashes), one colour a network; a band for the first.

    `rows` has the columns network, layer, summary, measure, value, low, high, in the order of the layers.
    """
    names, networks = distinct(rows["layer"]), distinct(rows["network"])
    figure, panels = grid(1, 2, 3.4, sharey=True)
    for axes, measure in zip(panels[0], ("NSC", "NSCB"), strict=True):
        for (network, summary), part in rows[rows["measure"] == measure].groupby(["network", "summary"], sort=False):
            x, shade = [names.index(layer) for layer in part["layer"]], COLOURS.get(str(network), OTHER)
            white = str(summary).endswith("whitened")
            axes.plot(x, 100 * part["value"], color=shade, ls="-" if white else "--", marker="o", ms=3)
            if white and network == networks[0]:
                axes.fill_between(x, 100 * part["low"], 100 * part["high"], color=shade, alpha=0.1, lw=0)
        axes.set_xticks(range(len(names)), [name.replace("embedding", "emb.") for name in names])
        axes.set_title(f"{measure} (%)", fontsize=11)
        axes.set_xlabel("layer")
        axes.set_ylim(0, 100)
    handles = [entry(name, color=COLOURS.get(name, OTHER), marker="o") for name in networks]
    handles += [entry("whitened", color="black"), entry("not whitened", color="black", ls="--")]
    legend(figure, handles, len(handles))
    return figure


def known(rows: pd.DataFrame) -> Figure:
    """What every layer knows: the parameters of cells and the week, a panel each, one colour a network.

    `rows` has the columns network, layer, panel, line, value, low, high, null, in the order of the layers.
    """
    names, networks = distinct(rows["layer"]), distinct(rows["network"])
    panels = list(rows.groupby("panel", sort=False))
    figure, grid_ = grid(1, len(panels), 3.4)
    for axes, (panel, drawn) in zip(grid_[0], panels, strict=True):
        share, lines = drawn["null"].notna().any(), sorted(set(drawn["line"]), reverse=True)
        for (network, line), part in drawn.groupby(["network", "line"], sort=False):
            x, shade = [names.index(layer) for layer in part["layer"]], COLOURS.get(str(network), OTHER)
            dash = DASHES[lines.index(line)]
            axes.plot(x, (100 if share else 1) * part["value"], color=shade, ls=dash, marker="o", ms=3)
        axes.axhline(100 * drawn["null"].mean() if share else 0, color="black", lw=0.8)
        axes.set_xticks(range(len(names)), [name.replace("embedding", "emb.") for name in names])
        axes.set_title(f"{panel} ({'%' if share else 'R²'})", fontsize=11)
        axes.set_xlabel("layer")
        kinds = [
            entry(line.removeprefix("mean, "), color="black", ls=dash)
            for line, dash in zip(lines, DASHES, strict=False)
        ]
        axes.legend(handles=kinds, fontsize=9)
    legend(figure, [entry(name, color=COLOURS.get(name, OTHER), marker="o") for name in networks], 2)
    return figure


def regularised(rows: pd.DataFrame) -> Figure:
    """The two goals of a training by the strength of its regularisation: solid the main goal, dashed the auxiliary one.

    `rows` has the columns screen, model, sign, place, strength, goal, value, low, high; a panel a screen and model.
    """
    panels = list(rows.groupby(["screen", "model"], sort=False))
    figure, grid_ = in_two_columns(len(panels), 3.2)
    for axes, ((screen, model), part) in zip(grid_.flat, panels, strict=False):
        for goal, dash in zip(distinct(part["goal"]), ("-", "--"), strict=False):
            line = part[part["goal"] == goal]
            y = 100 * line["value"]
            error = [y - 100 * line["low"], 100 * line["high"] - y]
            axes.errorbar(
                line["place"], y, error, ls=dash, color=COLOURS[str(model)], marker="o", capsize=3, label=goal
            )
        steps = part.drop_duplicates("place").sort_values("place")
        axes.set_xticks(steps["place"], steps["strength"])
        axes.set_xlabel(steps["sign"].iloc[0])
        axes.set_xlim(-0.4, steps["place"].max() + 0.4)
        axes.set_ylim(0, 105)
        axes.set_ylabel("accuracy (%)")
        axes.set_title(f"{model}, {screen}", fontsize=11)
        axes.legend(fontsize=9)
    figure.tight_layout()
    return figure


def maps(rows: pd.DataFrame) -> Figure:
    """Held-out cells in the plane, a panel an encoder, coloured by gene; `rows` has variant, x, y, gene."""
    names, genes = distinct(rows["variant"]), sorted(set(rows["gene"]))
    shades = dict(zip(genes, plt.get_cmap("tab10").colors, strict=False))
    figure, grid_ = in_two_columns(len(names), 3.6)
    for axes, name in zip(grid_.flat, names, strict=False):
        part = rows[rows["variant"] == name]
        axes.scatter(part["x"], part["y"], s=8, c=[shades[gene] for gene in part["gene"]])
        axes.set_title(name.removesuffix(", genes"), fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
    legend(figure, [entry(gene, color=shades[gene], marker="o", ls="") for gene in genes], 5)
    return figure
