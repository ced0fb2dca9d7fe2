"""Figures of the pages about profiles: accuracies, paths, embeddings, similarities, batch leakage."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from cellbook.figures.style import ACCENT, MARKERS, PALE, SECOND, colours

SERIES = {"NSC": (ACCENT, "o"), "NSCB": (SECOND, "s")}


def natural(name: str) -> list[int | str]:
    """Sort key under which Week2 comes before Week10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def forest(verdicts: pd.DataFrame) -> Figure:
    """Published values (open diamonds) beside measured ones (dots with 95 % intervals), one row a number.

    `verdicts` has the columns label, published, measured, low, high (proportions) and verdict.
    """
    shades = {"reproduced": "#1b7837", "partly": "#e08214", "not reproduced": SECOND}
    shades |= {"undecided": "#b891c9", "not comparable": "#777777"}
    rows = verdicts.reset_index(drop=True)
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(rows) + 1.4))
    for place, row in rows.iterrows():
        shade = shades[row["verdict"]]
        axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=shade, lw=2, solid_capstyle="round")
        axes.plot(100 * row["measured"], place, "o", color=shade, ms=6)
        axes.plot(100 * row["published"], place, "D", mfc="none", mec="black", ms=6, mew=1.3)
    axes.set_yticks(range(len(rows)), rows["label"], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy (%)")
    handles = [plt.Line2D([], [], marker="D", mfc="none", mec="black", ls="", label="published")]
    handles += [
        plt.Line2D([], [], marker="o", color=shade, label=f"measured, {name}")
        for name, shade in shades.items()
        if name in set(rows["verdict"])
    ]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.35, 1.0), ncols=2)
    return figure


def settings(numbers: pd.DataFrame, published: dict[str, float] | None = None) -> Figure:
    """NSC and NSCB of each setting with 95 % intervals, a panel a scaling, a row a transform; published as lines.

    `numbers` has the columns scaling, transform, measure ("NSC" or "NSCB"), value, low, high.
    """
    panels_of = {name: rows for name, rows in numbers.groupby("scaling", sort=False) if len(set(rows["transform"])) > 1}
    order = list(dict.fromkeys(name for rows in panels_of.values() for name in rows["transform"]))
    figure, panels = plt.subplots(
        2, -(-len(panels_of) // 2), figsize=(8.4, 0.46 * len(order) + 1.6), sharex=True, sharey=True, squeeze=False
    )
    for axes in panels.flat[len(panels_of) :]:
        axes.set_visible(False)
    for axes, (scaling, part) in zip(panels.flat, panels_of.items(), strict=False):
        for measure, (colour, marker) in SERIES.items():
            rows = part[part["measure"] == measure].set_index("transform").reindex(order)
            y = np.arange(len(order)) + (-0.15 if measure == "NSC" else 0.15)
            axes.hlines(y, 100 * rows["low"], 100 * rows["high"], color=colour, alpha=0.35, lw=2)
            axes.plot(100 * rows["value"], y, marker, color=colour, ms=5, label=measure)
            if published and measure in published:
                axes.axvline(100 * published[measure], color=colour, ls=":", lw=1.4, label=f"{measure}, published")
        axes.set_title(scaling, fontsize=11)
        axes.grid(axis="y", alpha=0.25)
        axes.tick_params(labelsize=10)
    panels[0][0].set_yticks(range(len(order)), order)
    panels[0][0].invert_yaxis()
    for axes in panels[-1]:
        axes.set_xlabel("accuracy (%)")
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center", ncols=4, fontsize=10)
    return figure


def path(numbers: pd.DataFrame, x: str, label: str) -> Figure:
    """Accuracy along a path of one parameter, NSC and NSCB with 95 % bands, one panel a scaling.

    `numbers` has the columns scaling, `x` (positive numbers, drawn on a logarithmic axis), measure, value, low, high.
    """
    scalings = list(dict.fromkeys(numbers["scaling"]))
    figure, panels = plt.subplots(
        -(-len(scalings) // 2),
        2,
        figsize=(8.4, 2.7 * -(-len(scalings) // 2) + 0.5),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axes, scaling in zip(panels.flat, scalings, strict=False):
        for measure, (colour, marker) in SERIES.items():
            rows = numbers[(numbers["scaling"] == scaling) & (numbers["measure"] == measure)].sort_values(x)
            axes.fill_between(rows[x], 100 * rows["low"], 100 * rows["high"], color=colour, alpha=0.13, lw=0)
            axes.plot(rows[x], 100 * rows["value"], marker=marker, color=colour, ms=5, label=measure)
        axes.set_xscale("log")
        axes.set_title(scaling, fontsize=11)
    for axes in panels[-1]:
        axes.set_xlabel(label)
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy (%)")
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center", ncols=2, fontsize=10)
    return figure


def embedding(points: pd.DataFrame) -> Figure:
    """Two-dimensional maps of treatments: a row a method, coloured by mechanism (left) and by week (right).

    `points` has the columns method, x, y, moa, batch.
    """
    methods = list(dict.fromkeys(points["method"]))
    figure, panels = plt.subplots(len(methods), 2, figsize=(9.6, 4.1 * len(methods)), squeeze=False)
    for row, method in zip(panels, methods, strict=True):
        chosen = points[points["method"] == method]
        for axes, column, title in zip(row, ("moa", "batch"), ("mechanism", "week"), strict=True):
            names = sorted(chosen[column].unique(), key=natural)
            shade = colours(names)
            for place, name in enumerate(names):
                group = chosen[chosen[column] == name]
                marker = MARKERS[place % len(MARKERS)]
                axes.plot(group["x"], group["y"], marker, color=shade[name], ms=5.5, mec="white", mew=0.5, label=name)
            axes.set_title(f"{method}, by {title}")
            axes.set_xticks([])
            axes.set_yticks([])
            if method == methods[-1]:
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, handletextpad=0.2, fontsize=8)
    figure.tight_layout()
    return figure


def confusion(table: pd.DataFrame, title: str = "") -> Figure:
    """Confusion matrix with counts: rows are the true mechanism, columns that of the nearest neighbour."""
    figure, axes = plt.subplots(figsize=(7.2, 6.2))
    share = table.to_numpy() / np.maximum(table.to_numpy().sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in zip(*np.nonzero(table.to_numpy()), strict=True):
        axes.text(j, i, table.iloc[i, j], ha="center", va="center", color="white" if share[i, j] > 0.6 else "black")
    axes.set_xticks(range(len(table)), table.columns, rotation=45, ha="right", fontsize=9)
    axes.set_yticks(range(len(table)), table.index, fontsize=9)
    axes.set_xlabel("mechanism of the nearest neighbour")
    axes.set_ylabel("true mechanism")
    axes.set_title(title)
    axes.grid(visible=False)
    return figure


def similarity(distances: np.ndarray, labels: pd.Series, batches: pd.Series) -> Figure:
    """Cosine similarity of all treatments, in the order of an average-linkage tree, with mechanism and week strips.

    `distances` is (n, n), cosine; `labels` and `batches` have n entries.
    """
    order = leaves_list(linkage(squareform(distances, checks=False), "average", optimal_ordering=True))
    figure, axes = plt.subplots(figsize=(8.6, 6.6))
    image = axes.imshow(1 - distances[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1, aspect="equal")
    n = len(order)
    for offset, names in ((-0.075, labels), (-0.035, batches)):
        shade = colours(sorted(names.unique(), key=natural))
        for place, row in enumerate(order):
            axes.add_patch(
                plt.Rectangle((offset * n - 0.5, place - 0.5), 0.03 * n, 1, color=shade[names.iloc[row]], clip_on=False)
            )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("treatments, in the same order")
    axes.text(-0.06 * n, -2, "MOA", ha="center", fontsize=8, rotation=90, va="bottom")
    axes.text(-0.02 * n, -2, "week", ha="center", fontsize=8, rotation=90, va="bottom")
    shade = colours(sorted(labels.unique()))
    figure.colorbar(image, ax=axes, shrink=0.5, pad=0.02, label="cosine similarity", location="right", anchor=(0, 1))
    handles = [Patch(color=colour, label=name) for name, colour in shade.items()]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(1.0, 0.0), fontsize=8)
    return figure


def retrieval(table: pd.DataFrame) -> Figure:
    """Mean average precision per mechanism, one panel a question, with its null and the share that is significant.

    `table` has the columns question, moa, value (mean of the treatments' average precision), null, text (what is
    significant).
    """
    questions = list(dict.fromkeys(table["question"]))
    names = sorted(table["moa"].unique(), reverse=True)
    figure, panels = plt.subplots(1, len(questions), figsize=(8.6, 4.6), sharey=True, squeeze=False)
    for axes, question in zip(panels[0], questions, strict=True):
        rows = table[table["question"] == question].set_index("moa").reindex(names)
        y = np.arange(len(names))
        axes.barh(y, rows["value"], color=[colours(names)[name] for name in names], height=0.65)
        axes.plot(rows["null"], y, "|", color="black", ms=11, mew=1.6, label="random ranking")
        for place, (value, text) in enumerate(rows[["value", "text"]].itertuples(index=False)):
            right = 0.0 if np.isnan(value) else max(value, rows["null"].iloc[place])
            axes.text(right + 0.05, place, text, va="center", fontsize=9)
        axes.set_yticks(y, names, fontsize=10)
        axes.set_xlim(0, 1.95)
        axes.set_xticks([0, 0.5, 1])
        axes.set_title(question, fontsize=10)
        axes.set_xlabel("mean average precision")
        axes.grid(axis="y", visible=False)
    figure.tight_layout()
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.02), fontsize=9)
    return figure


def leakage(table: pd.DataFrame) -> Figure:
    """Accuracy of naming the week of control wells, one group a setting, one bar a classifier, baselines as lines.

    `table` has the columns setting, model, value, low, high, noise (baseline on N(0,1) features), majority.
    """
    names, models = list(dict.fromkeys(table["setting"])), list(dict.fromkeys(table["model"]))
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(names) + 1.6))
    height = 0.8 / len(models)
    for place, model in enumerate(models):
        rows = table[table["model"] == model].set_index("setting").loc[names]
        y = np.arange(len(names)) + (place - (len(models) - 1) / 2) * height
        colour = (ACCENT, SECOND, PALE)[place % 3]
        axes.barh(y, 100 * rows["value"], height=0.9 * height, color=colour, label=model)
        axes.hlines(y, 100 * rows["low"], 100 * rows["high"], color="black", lw=1.2)
        axes.plot(100 * rows["noise"], y, "|", color="black", ms=9, mew=2)
    axes.axvline(100 * table["majority"].iloc[0], color="black", ls=":", lw=1.2, label="largest week's share")
    axes.plot([], [], "|", color="black", ms=9, mew=2, label="same classifier on noise")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("control wells whose week is named correctly (%)")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.35, 1.0), ncols=2)
    return figure
