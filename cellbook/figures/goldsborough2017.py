"""Figures of the page of CytoGAN: its course, tubulin around nuclei, lengths of codes, treatments, losses."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from cellbook.figures import course as shared
from cellbook.figures.panels import distinct, entry, grid, in_two_columns, legend
from cellbook.figures.style import ACCENT, MARKERS, SECOND, colours

MODEL_COLOURS = {
    "LSGAN": ACCENT,
    "DCGAN": SECOND,
    "WGAN-GP": "#1b7837",
    "VAE": "#e08214",
    "BiGAN": "#762a83",
    "BEGAN": "#5aa9e6",
    "AE": "#8c6d31",
    "WGAN, clipped": "#7fbf7b",
    "LSGAN, told the dose": "#c51b7d",
    "LSGAN, told the compound": "#00a6a6",
    "LSGAN, told dose and compound": "#777777",
    "real cells": "black",
}
OTHER, FAINT = "#777777", "#b5b5b5"
REST = "other models"


def shade(name: str) -> str:
    """Colour of a model."""
    return MODEL_COLOURS.get(name, OTHER)


def halo(rows: pd.DataFrame) -> Figure:
    """Mean tubulin by distance from the outline of the nucleus, one line a model; real cells are black and thick.

    `rows` has the columns variant, distance (pixels, negative inside), value.
    """
    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    for name in distinct(rows["variant"]):
        part = rows[rows["variant"] == name]
        axes.plot(part["distance"], part["value"], color=shade(name), lw=3 if name == "real cells" else 1.5, label=name)
    axes.axvline(0, color="black", ls=":", lw=1)
    axes.set_xlabel("distance from the outline of the nucleus (pixels)")
    axes.set_ylabel("tubulin (share of the brightest)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def course(lines: pd.DataFrame, references: pd.DataFrame, papers_views: float, judged: Sequence[str]) -> Figure:
    """`figures.course.course` in which the judged models alone have colours and bands; the others are thin and grey.

    Every line of the others ends with a gap, so that they are one entry of the legend.
    """
    others = lines[~lines["variant"].isin(judged)]
    parts = [lines[lines["variant"].isin(judged)]]
    for _, part in others.groupby(["panel", "variant"], sort=False):
        gap = part.iloc[[-1]].assign(value=np.nan)
        parts.append(pd.concat([part, gap]).assign(variant=REST, low=np.nan, high=np.nan))
    figure = shared.course(pd.concat(parts, ignore_index=True), references, papers_views, MODEL_COLOURS | {REST: FAINT})
    for line in [line for part in (*figure.axes, *figure.legends) for line in part.get_lines()]:
        if line.get_color() == FAINT:
            line.set(lw=0.8, marker="", zorder=1)
    return figure


def lengths(rows: pd.DataFrame) -> Figure:
    """Mean length of codes on the way between two, on arcs and on straight lines, a panel a kind of noise.

    `rows` has the columns variant, way, frame, length.
    """
    names, ways = distinct(rows["variant"]), distinct(rows["way"])
    figure, panels = in_two_columns(len(names), 2.4)
    for axes, name in zip(panels.flat, names, strict=False):
        for way, dash in zip(ways, ("-", "--"), strict=True):
            part = rows[(rows["variant"] == name) & (rows["way"] == way)]
            axes.plot(part["frame"] / part["frame"].max(), part["length"], ls=dash, color=ACCENT)
        axes.set_ylim(bottom=0)
        axes.set_title(fill(name, 48), fontsize=10)
        axes.set_xlabel("share of the way")
        axes.set_ylabel("length")
    legend(figure, [entry(way, color=ACCENT, ls=dash) for way, dash in zip(ways, ("-", "--"), strict=True)], 2)
    return figure


def maps(points: pd.DataFrame) -> Figure:
    """Treatments in the plane, a panel a model: colour and marker the mechanism, size the rank of the dose.

    `points` has the columns variant, x, y, moa, rank.
    """
    variants, names = distinct(points["variant"]), sorted(points["moa"].unique())
    tints, marks = colours(names), {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}
    figure, panels = in_two_columns(len(variants), 3.6)
    for axes, variant in zip(panels.flat, variants, strict=False):
        for name in names:
            part = points[(points["variant"] == variant) & (points["moa"] == name)]
            axes.scatter(part["x"], part["y"], s=14 * part["rank"], c=tints[name], marker=marks[name], lw=0, alpha=0.85)
        axes.set_title(variant, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
    legend(figure, [entry(name, color=tints[name], marker=marks[name], ls="") for name in names], 4)
    return figure


def together(points: pd.DataFrame) -> Figure:
    """Accuracy of features against closeness of images, one line a training from the untrained network to its end.

    `points` has the columns variant, repeat, step, closeness (octaves), accuracy.
    """
    figure, axes = plt.subplots(figsize=(6.8, 4.4))
    for (name, _), part in points.sort_values("step").groupby(["variant", "repeat"], sort=False):
        axes.plot(part["closeness"], 100 * part["accuracy"], color=shade(str(name)), lw=0.8, alpha=0.5)
        axes.scatter(part["closeness"], 100 * part["accuracy"], s=8, color=shade(str(name)), alpha=0.7)
        last = part.iloc[-1]
        axes.scatter(last["closeness"], 100 * last["accuracy"], s=45, color=shade(str(name)), ec="black")
    axes.set_xlabel("closeness of samples to cells of the screen (- log2 of the Fréchet distance)")
    axes.set_ylabel("accuracy (%)")
    names = distinct(points["variant"])
    handles = [entry(name, color=shade(name), marker="o") for name in names]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def losses(history: pd.DataFrame) -> Figure:
    """Losses during training, a panel a model and a line a term, faint for every training after the first.

    `history` has the columns variant, repeat, step, term, value.
    """
    variants = distinct(history["variant"])
    figure, panels = grid(-(-len(variants) // 3), 3, 2.3)
    for axes in panels.flat[len(variants) :]:
        axes.set_axis_off()
    for axes, variant in zip(panels.flat, variants, strict=False):
        mine = history[history["variant"] == variant]
        tints = dict(zip(distinct(mine["term"]), plt.get_cmap("tab10").colors, strict=False))
        for (repeat, term), line in mine.groupby(["repeat", "term"], sort=False):
            faint = {"alpha": 1.0, "label": term} if repeat == mine["repeat"].min() else {"alpha": 0.3}
            axes.plot(line["step"], line["value"], color=tints[term], lw=1, **faint)
        if np.all(mine["value"] > 0):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
        axes.set_title(variant, fontsize=10)
        axes.legend(fontsize=7, frameon=True, framealpha=0.8)
        axes.set_xlabel("step")
    figure.tight_layout()
    return figure
