"""Figures of the page of WDN: the screen, the course of alignments, and methods beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cellbook.figures.panels import (
    DASHES,
    SERIES,
    as_read,
    broken,
    circles,
    distinct,
    entry,
    grid,
    in_two_columns,
    label_outside,
    legend,
    name_rows,
    over_repeats,
    step_axis,
)
from cellbook.figures.profiles import natural
from cellbook.figures.style import ACCENT, MARKERS, colours
from cellbook.figures.tabak2020_truth import bugs as bugs
from cellbook.figures.tabak2020_truth import bugs_on_profiles as bugs_on_profiles
from cellbook.figures.tabak2020_truth import carry_over as carry_over
from cellbook.figures.tabak2020_truth import truth as truth

METHOD_COLOURS = {
    "uncorrected": "#6b6b6b",
    "TVN": "#9aa5b1",
    "robust by plate": "#8c6d31",
    "CORAL": "#e08214",
    "CORAL, means aligned": "#a63603",
    "centred by week": "#1b7837",
    "Harmony": "#762a83",
    "WDN": ACCENT,
    "WDN, max k-NN": ACCENT,
    "WDN, max silhouette": "#5aa9e6",
    "WDN, k-NN in hindsight": ACCENT,
    "WDN, silhouette in hindsight": "#5aa9e6",
    "WDN, last step": "#08306b",
}
OTHER = "#777777"
GAP = 0.5  # lines between the mechanisms of a key
# Dark to light, distinct without colour too.
K_COLOURS = {1: "#440154", 2: "#3b6a8f", 3: "#22a884", 4: "#c2a30a"}


# --- the screen -----------------------------------------------------------------------------------------------------


def layout(treatments: pd.DataFrame) -> Figure:
    """Which compounds were screened in which week: a circle a dose, numbered by compound, coloured by mechanism.

    `treatments` has the columns batch, compound, concentration, moa; DMSO is number 0.
    """
    rows = treatments.drop_duplicates(["batch", "compound", "concentration"])
    treated = rows[rows["moa"] != "DMSO"].sort_values(["moa", "compound", "concentration"])
    shade = colours([*sorted(treated["moa"].unique()), "DMSO"])
    number = {name: i + 1 for i, name in enumerate(distinct(treated["compound"]))}
    weeks = sorted(rows["batch"].unique(), key=natural)
    groups, columns = list(treated.groupby("moa", sort=False)), 4
    blocks = _in_columns(
        [[moa, *(f"{number[c]}  {c}" for c in distinct(part["compound"]))] for moa, part in groups], columns
    )
    heights = 0.36 * len(weeks) + 0.3, 0.21 * max(map(_length, blocks)) + 0.2
    figure, (axes, key) = plt.subplots(2, 1, figsize=(10, sum(heights)), height_ratios=heights)
    circles(axes, treated.assign(week=treated["batch"], number=treated["compound"].map(number)), weeks, shade)
    key.set_axis_off()
    for x, column in enumerate(blocks):
        y = 0.0
        for moa, *compounds in column:
            key.text(x / columns, y, moa, fontsize=9.5, fontweight="bold", va="center")
            key.plot(x / columns - 0.014, y, "o", ms=8, color=shade[moa], clip_on=False)
            for place, text in enumerate(compounds):
                key.text(x / columns, y + place + 1, text, fontsize=9.5, va="center")
            y += len(compounds) + 1 + GAP
    key.set_xlim(-0.02, 1)
    key.set_ylim(max(map(_length, blocks)), -0.8)
    figure.subplots_adjust(hspace=0.03, left=0.09, right=0.99, top=0.99, bottom=0.01)
    return figure


def _length(column: list[list[str]]) -> float:
    """Lines of a column of the key."""
    return sum(len(block) + GAP for block in column)


def _in_columns(blocks: list[list[str]], columns: int) -> list[list[list[str]]]:
    """Blocks of lines in columns, in order, so that the longest column is as short as can be."""
    for most in range(1, sum(map(len, blocks)) + len(blocks) + 1):
        found: list[list[list[str]]] = [[]]
        for block in blocks:
            if found[-1] and _length([*found[-1], block]) > most:
                found.append([])
            found[-1].append(block)
        if len(found) <= columns and max(map(_length, found)) <= most:
            break
    return found


# --- the course of an alignment -------------------------------------------------------------------------------------


def course(table: pd.DataFrame) -> Figure:
    """Accuracy against map step, a row a source, NSC and NSCB beside each other, a line each k from 1 to 4.

    `table` has the columns source, repeat, step, measure, k, mean, sd (of resamples). Thick: mean over alignments,
    with the mean of their deviations as a band; thin: every alignment.
    """
    table = table[table["measure"].isin(["NSC", "NSCB"])]
    sources = distinct(table["source"])
    figure, panels = grid(len(sources), 2, 2.3, sharey="row")
    for row, source in zip(panels, sources, strict=True):
        for axes, measure in zip(row, ("NSC", "NSCB"), strict=True):
            part = table[(table["source"] == source) & (table["measure"] == measure)]
            for k, lines in part.groupby("k"):
                colour = K_COLOURS[int(k)]
                mean, sd = 100 * over_repeats(lines, "mean"), 100 * over_repeats(lines, "sd")
                axes.fill_between(mean.index, mean - sd, mean + sd, color=colour, alpha=0.13, lw=0)
                for _, one in lines.groupby("repeat"):
                    axes.plot(one["step"], 100 * one["mean"], color=colour, lw=0.6, alpha=0.5)
                axes.plot(mean.index, mean, color=colour, lw=2)
            step_axis(axes, part["step"].max())
            axes.set_title(measure if source == sources[0] else "")
        row[0].set_ylabel("accuracy (%)")
    for axes in panels[-1]:
        axes.set_xlabel("map steps")
    name_rows(panels, sources)
    legend(figure, [entry(f"k = {k}", color=colour, lw=2) for k, colour in K_COLOURS.items()], 4)
    return figure


def violins(table: pd.DataFrame) -> Figure:
    """Accuracies of resamples by method, a row a source, NSC and NSCB, k from 1 to 4; lines at the quartiles.

    `table` has the columns source, method, measure, k, value.
    """
    import seaborn as sns

    sources, methods = distinct(table["source"]), distinct(table["method"])
    shade = {name: METHOD_COLOURS.get(name, OTHER) for name in methods}
    figure, panels = grid(len(sources), 2, 2.0, sharey="row")
    for row, source in zip(panels, sources, strict=True):
        for axes, measure in zip(row, ("NSC", "NSCB"), strict=True):
            part = table[(table["source"] == source) & (table["measure"] == measure)].reset_index(drop=True)
            part = part.assign(value=100 * part["value"])
            sns.violinplot(
                part,
                x="k",
                y="value",
                hue="method",
                hue_order=methods,
                palette=shade,
                inner="quart",
                inner_kws={"color": "white", "linewidth": 0.9},
                density_norm="width",
                cut=0,
                linewidth=0.4,
                saturation=1,
                legend=False,
                ax=axes,
            )
            axes.set_title(measure if source == sources[0] else "")
            axes.set_xlabel("k" if source == sources[-1] else "")
            axes.set_ylabel("accuracy (%)" if measure == "NSC" else "")
    name_rows(panels, sources)
    legend(figure, [plt.Rectangle((0, 0), 1, 1, color=shade[name], label=name) for name in methods], len(methods))
    return figure


def silhouette(course: pd.DataFrame, bands: pd.DataFrame) -> Figure:
    """Silhouette against map step, a panel a source: WDN with a deviation of resamples, flat bands for other methods.

    `course` is as for the figure of that name, with the measure "silhouette"; `bands` has the columns source, method,
    mean, sd.
    """
    table = course[course["measure"] == "silhouette"]
    sources = distinct(table["source"])
    figure, panels = in_two_columns(len(sources), 2.5)
    for axes, source in zip(panels.flat, sources, strict=False):
        part = table[table["source"] == source]
        last = part["step"].max()
        for name, mean, sd in bands[bands["source"] == source][["method", "mean", "sd"]].itertuples(index=False):
            _band(axes, name, mean, sd, last)
        for _, one in part.groupby("repeat"):
            axes.plot(one["step"], one["mean"], color=ACCENT, lw=0.6, alpha=0.5)
        mean, sd = over_repeats(part, "mean"), over_repeats(part, "sd")
        every = max(1, len(mean) // 14)
        axes.errorbar(mean.index, mean, sd, color=ACCENT, lw=2, elinewidth=1.2, errorevery=every)
        step_axis(axes, last)
        axes.set_title(source, fontsize=10)
    label_outside(panels, len(sources), "map steps", "silhouette")
    legend(figure, _method_handles(distinct(bands["method"])), 4)
    return figure


def batch_accuracy(table: pd.DataFrame) -> Figure:
    """How often the week of a control is named against map step, a row a source, a column a classifier.

    `table` has the columns source, method, model ("logistic" or "forest"), step (missing for methods without steps,
    drawn as bands), mean, sd (over alignments), baseline (the same classifier on noise).
    """
    words = {"logistic": "logistic regression", "forest": "random forest"}
    sources, models = distinct(table["source"]), distinct(table["model"])
    figure, panels = grid(len(sources), len(models), 2.2, sharey="row")
    flat = [name for name in distinct(table["method"]) if table.loc[table["method"] == name, "step"].isna().all()]
    for row, source in zip(panels, sources, strict=True):
        for axes, model in zip(row, models, strict=True):
            part = table[(table["source"] == source) & (table["model"] == model)]
            last = part["step"].max()
            for name, mean, sd in part[part["step"].isna()][["method", "mean", "sd"]].itertuples(index=False):
                _band(axes, name, 100 * mean, 100 * sd, last)
            line = part.dropna(subset="step").sort_values("step")
            spread = 100 * line["sd"].fillna(0)
            axes.errorbar(line["step"], 100 * line["mean"], spread, color=ACCENT, lw=2, marker="o", ms=4, elinewidth=1)
            axes.axhline(100 * part["baseline"].mean(), color="black", ls=":", lw=1.5)
            step_axis(axes, last)
            axes.set_title(words.get(model, model) if source == sources[0] else "")
        row[0].set_ylim(bottom=0)  # of all panels of the row, and so not before they are drawn
        row[0].set_ylabel("week named (%)")
    for axes in panels[-1]:
        axes.set_xlabel("map steps")
    name_rows(panels, sources)
    legend(figure, [*_method_handles(flat), entry("noise", color="black", ls=":", lw=1.5)], 4)
    return figure


def damage(table: pd.DataFrame) -> Figure:
    """What maps do to the controls in the course of training, a panel a measure, a line a source; thin: alignments.

    Sources differ in their numbers of map steps by far more than tenfold, so that the axis is the share of these.
    `table` has the columns source, repeat, step, measure ("variance", "gap", "change"), value.
    """
    words = {
        "variance": "variance of controls\n(share of the first)",
        "gap": "gap between weeks\n(deviations within)",
        "change": "change of the maps\n(norm of M - I)",
    }
    measures = [name for name in words if name in set(table["measure"])]
    sources = distinct(table["source"])
    figure, panels = grid(1, len(measures), 2.9, sharex=True)
    for axes, measure in zip(panels[0], measures, strict=True):
        for place, source in enumerate(sources):
            part = table[(table["measure"] == measure) & (table["source"] == source)]
            part = part.assign(step=100 * part["step"] / part["step"].max())
            style = {"color": SERIES[place % len(SERIES)], "ls": DASHES[place % len(DASHES)]}
            for _, one in part.groupby("repeat"):
                axes.plot(one["step"], one["value"], color=style["color"], lw=0.6, alpha=0.5)
            mean = over_repeats(part, "value")
            axes.plot(mean.index, mean, lw=2, **style)
        axes.set_ylim(bottom=0)
        step_axis(axes, 100)
        axes.set_xlabel("map steps (% of a source's)")
        axes.set_title(words[measure], fontsize=10, fontweight="normal")
    handles = [
        entry(name, color=SERIES[i % len(SERIES)], ls=DASHES[i % len(DASHES)], lw=2) for i, name in enumerate(sources)
    ]
    legend(figure, handles, 2)
    return figure


def controls_pca(table: pd.DataFrame) -> Figure:
    """First two principal components of controls, a row a source, a column a method, coloured by week.

    `table` has the columns source, method, x, y, batch. Axes of a panel are its own: scale and direction of a method
    mean nothing.
    """
    sources, methods = distinct(table["source"]), distinct(table["method"])
    weeks = sorted(table["batch"].unique(), key=natural)
    shade = colours(weeks)
    figure, panels = grid(len(sources), len(methods), 2.2)
    for row, source in zip(panels, sources, strict=True):
        for axes, method in zip(row, methods, strict=True):
            part = table[(table["source"] == source) & (table["method"] == method)]
            for place, week in enumerate(weeks):
                here = part[part["batch"] == week]
                marker = MARKERS[place % len(MARKERS)]
                axes.plot(here["x"], here["y"], marker, color=shade[week], ms=4, mec="none", alpha=0.75)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(broken(method) if source == sources[0] else "", fontsize=11)
    name_rows(panels, sources)
    handles = [
        entry(as_read(week), color=shade[week], marker=MARKERS[i % len(MARKERS)], ls="", ms=6)
        for i, week in enumerate(weeks)
    ]
    legend(figure, handles, 5)
    return figure


def _band(axes: Axes, method: str, mean: float, sd: float, last: float) -> None:
    """A method without steps: its mean and a deviation to both sides, all along the axis."""
    colour = METHOD_COLOURS.get(method, OTHER)
    spread = 0.0 if np.isnan(sd) else sd
    axes.fill_between([0, last], mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
    axes.plot([0, last], [mean, mean], color=colour, lw=1.6, ls="--")


def _method_handles(flat: Sequence[str]) -> list[plt.Line2D]:
    others = [entry(name, color=METHOD_COLOURS.get(name, OTHER), ls="--", lw=1.6) for name in flat]
    return [entry("WDN", color=ACCENT, lw=2), *others]
