"""Figures of the page of VAE+: grids of cells, training curves, accuracies of single trainings, what codes know."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cellbook.figures.course import label_lowest, log_ticks
from cellbook.figures.panels import SERIES, distinct, entry, grid, legend
from cellbook.figures.style import ACCENT, SECOND

MODEL_COLOURS = {
    "VAE+": ACCENT,
    "VAE": "#e08214",
    "AE": "#1b7837",
    "VAE+ at once": "#5aa9e6",
    "AE without noise": "#7fbf7b",
    "VAE/GAN": "#762a83",
}
OTHER = "#777777"


def pictures(table: pd.DataFrame, stack: np.ndarray, figure: str, *, size: float = 0.95) -> Figure:
    """A grid of cells: rows and columns as the table names them, text under each picture.

    `table` has the columns figure, row, column, text; `stack` (n, H, W, 3) uint8 in the same order. A column that is
    a bare number is not printed.
    """
    chosen = table[table["figure"] == figure]
    rows, columns = list(dict.fromkeys(chosen["row"])), list(dict.fromkeys(chosen["column"]))
    tall = size * (1.22 if (chosen["text"] != "").any() else 1.0)
    drawn, panels = plt.subplots(
        len(rows), len(columns), figsize=(size * len(columns) + 1.5, tall * len(rows) + 0.4), squeeze=False
    )
    for axes in panels.flat:
        axes.set_axis_off()
    for place, line in chosen.iterrows():
        axes = panels[rows.index(line["row"])][columns.index(line["column"])]
        axes.imshow(stack[place])
        if line["text"]:
            axes.text(0.5, -0.03, line["text"], transform=axes.transAxes, ha="center", va="top", fontsize=7)
    for axes, column in zip(panels[0], columns, strict=True):
        if not column.isdigit():
            axes.set_title(column, fontsize=8, fontweight="normal")
    for axes, row in zip(panels[:, 0], rows, strict=True):
        axes.text(-0.08, 0.5, _wrapped(row), transform=axes.transAxes, ha="right", va="center", fontsize=8)
    drawn.subplots_adjust(wspace=0.04, hspace=0.25 if (chosen["text"] != "").any() else 0.04)
    return drawn


def _wrapped(name: str, width: int = 18) -> str:
    """A name on several lines, broken behind a slash or at a space and never inside a word."""
    lines = textwrap.wrap(name.replace("/", "/ "), width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(line.replace("/ ", "/") for line in lines)


def model_accuracies(single: pd.DataFrame, numbers: pd.DataFrame, printed: pd.DataFrame) -> Figure:
    """NSC and NSCB of each model and summary: every training a dot, intervals over compounds, the paper's value open.

    `single` has the columns variant, summary, measure, accuracy; `numbers` setting, measure, value, low, high;
    `printed` setting, measure, published (may be empty).
    """
    variants, summaries = list(dict.fromkeys(single["variant"])), list(dict.fromkeys(single["summary"]))
    figure, panels = plt.subplots(1, 2, figsize=(9.4, 4.2), sharey=True)
    width = 0.8 / len(variants)
    for axes, measure in zip(panels, ("NSC", "NSCB"), strict=True):
        for i, variant in enumerate(variants):
            shade = MODEL_COLOURS.get(variant, OTHER)
            for j, summary in enumerate(summaries):
                x = j + (i - (len(variants) - 1) / 2) * width
                where = {"setting": f"{variant}, {summary}", "measure": measure}
                line = _one(numbers, where)
                axes.plot([x, x], [100 * line["low"], 100 * line["high"]], color=shade, lw=5, alpha=0.3)
                axes.plot([x - 0.35 * width, x + 0.35 * width], [100 * line["value"]] * 2, color=shade, lw=2)
                mine = single[(single["variant"] == variant) & (single["summary"] == summary)]
                mine = mine[mine["measure"] == measure]
                axes.plot(np.full(len(mine), x), 100 * mine["accuracy"], "o", color=shade, ms=4)
                if (paper := _one(printed, where)) is not None:
                    axes.plot(x, 100 * paper["published"], "D", mfc="none", mec="black", ms=6)
        axes.set_xticks(range(len(summaries)), [name.replace(", ", ",\n") for name in summaries], fontsize=9)
        axes.set_title(measure)
        axes.set_ylim(0, 100)
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("accuracy (%)")
    handles = [plt.Line2D([], [], color=MODEL_COLOURS.get(name, OTHER), marker="o", label=name) for name in variants]
    handles.append(plt.Line2D([], [], marker="D", mfc="none", mec="black", ls="", label="published"))
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.97), ncols=len(handles))
    figure.tight_layout()
    return figure


def _one(table: pd.DataFrame, where: dict[str, str]) -> pd.Series | None:
    """The first row in which every named column has the given value, if there is one."""
    if table.empty:
        return None
    found = table[np.logical_and.reduce([table[name] == value for name, value in where.items()])]
    return found.iloc[0] if len(found) else None


def training_curves(history: pd.DataFrame, ramp: int) -> Figure:
    """Terms of the objective during training, one panel a term, one line a training; shades are the phases of VAE+.

    `history` has the columns variant, repeat, step, term, value.
    """
    order = ["pixel", "kl", *(f"feature_{i}" for i in range(1, 5)), "discriminator"]
    names = {"pixel": "pixel term", "kl": "KL (nats)", "discriminator": "discriminator's cross-entropy"}
    terms = [term for term in order if term in set(history["term"])]
    across = 3
    down = -(-len(terms) // across)
    figure, panels = plt.subplots(down, across, figsize=(10, 2.5 * down), squeeze=False, sharex=True)
    for axes in panels.flat[len(terms) :]:
        axes.set_axis_off()
    last = history["step"].max()
    for axes, term in zip(panels.flat, terms, strict=False):
        for (variant, _), line in history[history["term"] == term].groupby(["variant", "repeat"], sort=False):
            axes.plot(line["step"], line["value"], color=MODEL_COLOURS.get(variant, OTHER), lw=0.9, alpha=0.75)
        for i in range(1, 5):
            axes.axvspan(min(i * ramp, last), min((i + 1) * ramp, last), color="black", alpha=0.03 * i, lw=0)
        axes.set_title(names.get(term, term.replace("feature_", "feature term, layer ")), fontsize=10)
        axes.set_yscale("log")
    label_lowest(panels, len(terms), "iteration")
    variants = list(dict.fromkeys(history["variant"]))
    handles = [plt.Line2D([], [], color=MODEL_COLOURS.get(name, OTHER), label=name) for name in variants]
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=min(4, len(handles)))
    figure.tight_layout()
    return figure


def image_measures(quality: pd.DataFrame, measures: tuple[str, ...]) -> Figure:
    """Measures of reconstructions, one panel each: a dot a training, one row a model.

    `quality` has the columns variant and one a measure.
    """
    variants = list(dict.fromkeys(quality["variant"]))
    figure, panels = plt.subplots(1, len(measures), figsize=(2.3 * len(measures) + 1.2, 0.34 * len(variants) + 1.3))
    for place, (axes, name) in enumerate(zip(np.atleast_1d(panels), measures, strict=True)):
        for y, variant in enumerate(variants):
            values = quality.loc[quality["variant"] == variant, name]
            axes.plot(values, np.full(len(values), y), "o", color=MODEL_COLOURS.get(variant, OTHER), ms=6, alpha=0.8)
        axes.set_yticks(range(len(variants)), variants if place == 0 else [], fontsize=9)
        axes.invert_yaxis()
        axes.set_title(name, fontsize=10)
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=4)
    figure.tight_layout()
    return figure


def truth_heatmap(table: pd.DataFrame) -> Figure:
    """R2 of a linear probe for each known parameter (rows, by kind) and model (columns), written into the cells.

    `table` has the columns setting, parameter, kind, value.
    """
    order = {"cell": 0, "treatment": 1, "nuisance": 2}
    wide = table.pivot_table(index=["kind", "parameter"], columns="setting", values="value", sort=False)
    wide = wide.reset_index().sort_values("kind", key=lambda kind: kind.map(order), kind="stable")
    values = wide.drop(columns=["kind", "parameter"]).clip(lower=0)
    figure, axes = plt.subplots(figsize=(min(9, 0.95 * values.shape[1] + 3), 0.235 * len(values) + 1.6))
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values.to_numpy()):
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color="white" if value > 0.6 else "black")
    axes.set_xticks(range(values.shape[1]), values.columns, rotation=30, ha="left", fontsize=9)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(wide)), wide["parameter"].str.replace("_", " "), fontsize=9)
    for label, kind in zip(axes.get_yticklabels(), wide["kind"], strict=True):
        label.set_color({"cell": "black", "treatment": ACCENT, "nuisance": SECOND}[kind])
    axes.grid(visible=False)
    return figure


def spends(rows: pd.DataFrame) -> Figure:
    """Accuracy and the objective against processor time, a row of panels a model, a line a spend.

    `rows` has the columns model, spend, summary, seconds, value, objective.
    """
    models, summaries = distinct(rows["model"]), distinct(rows["summary"])
    shade = dict(zip(distinct(rows["spend"]), SERIES, strict=False))
    figure, panels = grid(len(models), len(summaries) + 1, 2.7, sharex=True)
    first = rows.loc[rows["seconds"] > 0, "seconds"].min()
    for row, model in zip(panels, models, strict=True):
        for (spend, summary), line in rows[rows["model"] == model].groupby(["spend", "summary"], sort=False):
            style = {"color": shade[spend], "marker": "o", "ms": 3, "lw": 1.5}
            row[summaries.index(summary)].plot(line["seconds"], 100 * line["value"], **style)
            if summary == summaries[0]:
                row[-1].plot(line["seconds"], line["objective"], **style)
        for axes, name in zip(row, [*summaries, "objective"], strict=True):
            axes.set_title(name, fontsize=10)
            axes.set_xscale("symlog", linthresh=first, linscale=0.5)
            axes.set_xlim(left=0)
            axes.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
            axes.xaxis.set_minor_locator(plt.NullLocator())
        row[0].set_ylabel(f"{model}, NSC (%)")
        row[-1].set_yscale("log")
        ticks = log_ticks(*row[-1].get_ylim())
        row[-1].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        row[-1].yaxis.set_minor_formatter(plt.NullFormatter())
    for axes in panels[-1]:
        axes.set_xlabel("processor time (s)")
    legend(figure, [entry(name, color=colour, marker="o", ms=4) for name, colour in shade.items()], 3)
    return figure


def sweeps(table: pd.DataFrame) -> Figure:
    """What codes say against the weight of the KL term and the strength of the batch effect, a column each.

    Rows: accuracy, R2 of known parameters (where there are any), and the week of a control cell; measures differ by
    mark and dash. `table` has the columns sweep, model, x, measure, value.
    """
    panels_of = [
        ("accuracy (%)", ("NSC", "NSCB"), 100),
        ("median $R^2$", ("R2, cell", "R2, treatment", "R2, nuisances"), 1),
        ("week named (%)", ("week named",), 100),
    ]
    panels_of = [panel for panel in panels_of if table["measure"].isin(panel[1]).any()]
    columns = {"beta": "weight of the KL term", "week effect": "strength of the batch effect"}
    columns = {name: label for name, label in columns.items() if (table["sweep"] == name).any()}
    shape = len(panels_of), len(columns)
    figure, panels = plt.subplots(
        *shape, figsize=(4.4 * shape[1] + 1.6, 2.2 * shape[0] + 0.6), squeeze=False, sharey="row", sharex="col"
    )
    signs = [
        {"ls": dash, "marker": mark, "ms": 4} for dash, mark in zip(("-", "--", ":"), ("o", "s", "^"), strict=True)
    ]
    for row, (label, measures, scale) in zip(panels, panels_of, strict=True):
        for axes, sweep in zip(row, columns, strict=True):
            for (model, measure), line in table[table["sweep"] == sweep].groupby(["model", "measure"], sort=False):
                if measure in measures:
                    style = {"color": MODEL_COLOURS.get(str(model), OTHER), **signs[measures.index(measure)]}
                    places = line["x"].rank().to_numpy() if sweep == "beta" else line["x"].to_numpy()
                    axes.plot(places, scale * line["value"], **style)
        highest = table.loc[table["measure"].isin(measures), "value"].max()
        row[0].set_ylim(0, 1.08 * scale * highest)  # of the whole row, once everything is drawn
        row[0].set_ylabel(label)
        if len(measures) > 1:
            handles = [entry(name, color="black", **sign) for sign, name in zip(signs, measures, strict=False)]
            row[-1].legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
    for axes, (sweep, label) in zip(panels[-1], columns.items(), strict=True):
        ticks = sorted(table.loc[table["sweep"] == sweep, "x"].unique())
        names = ["0 (AE)" if sweep == "beta" and x == 0 else f"{x:g}" for x in ticks]
        axes.set_xticks(range(1, len(ticks) + 1) if sweep == "beta" else ticks, names)
        axes.set_xlabel(label)
    models = list(dict.fromkeys(table["model"]))
    handles = [entry(name, color=MODEL_COLOURS.get(name, OTHER), lw=3) for name in models]
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=len(handles))
    figure.tight_layout()
    return figure
