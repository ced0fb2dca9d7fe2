"""Figures of the page of WDN: faults of the published code, a known truth, and what holds beyond the controls."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

from cellbook.figures.panels import (
    DASHES,
    SERIES,
    broken,
    distinct,
    entry,
    grid,
    legend,
    name_rows,
    over_repeats,
    step_axis,
)
from cellbook.figures.style import MARKERS

SPANS = {"NSCB": 5.0, "silhouette": 0.05}  # of an axis at least: per cent, and as it is


def bugs(toy: pd.DataFrame) -> Figure:
    """Three clouds aligned with and without each fault: gap, variance and the critics' estimate against map step.

    `toy` has the columns variant, step, gap, gap_in_training, variance, estimate. Dotted: the gap under the maps as
    they are trained, where these differ from the maps that are applied.
    """
    words = {"gap": "gap between centroids", "variance": "total variance\n(share of the first)"}
    words |= {"estimate": "distance by the critics"}
    differ = [name for name, part in toy.groupby("variant") if not np.allclose(part["gap"], part["gap_in_training"])]
    inside = toy[toy["variant"].isin(differ)][["variant", "step", "gap_in_training"]]
    inside = inside.rename(columns={"gap_in_training": "value"}).assign(measure="gap")
    return _faults(toy.melt(["variant", "step"], list(words), "measure"), words, 3, inside)


def bugs_on_profiles(study: pd.DataFrame) -> Figure:
    """A screen aligned with and without each fault: accuracy, silhouette, gap and variance against map step.

    `study` has the columns variant, step, measure, k, value. Dotted: the gap under the maps as they are trained, where
    these differ from the maps that are applied.
    """
    words = {
        "NSCB": "accuracy, NSCB, k = 1 (%)",
        "silhouette": "silhouette",
        "gap": "gap between weeks\n(deviations within)",
        "variance": "variance of controls\n(share of the first)",
    }
    share = study["measure"] == "NSCB"
    study = study.assign(value=study["value"].astype(float).where(~share, 100 * study["value"].astype(float)))
    inside = study[study["measure"] == "gap in training"].assign(measure="gap")
    return _faults(study[study["measure"].isin(words) & study["k"].isin([0, 1])], words, 2, inside)


def _faults(long: pd.DataFrame, words: dict[str, str], columns: int, inside: pd.DataFrame) -> Figure:
    """A panel a measure, a line a variant; `inside` are dotted lines more."""
    variants = distinct(long["variant"])
    figure, panels = grid(len(words) // columns, columns, 2.6, sharex=True)
    for axes, (measure, title) in zip(panels.flat, words.items(), strict=True):
        for place, variant in enumerate(variants):
            for table, dashes, width in ((long, DASHES[place], 2), (inside, ":", 1.8)):
                part = table[(table["measure"] == measure) & (table["variant"] == variant)]
                axes.plot(part["step"], part["value"], color=SERIES[place], ls=dashes, lw=width)
        values = long.loc[long["measure"] == measure, "value"]
        if measure == "variance" and values.max() > 20 * values.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(ticker.NullLocator())
        low, high = axes.get_ylim()
        if (least := SPANS.get(measure, 0.0)) > high - low:  # or rounding would look like a result
            axes.set_ylim((low + high - least) / 2, (low + high + least) / 2)
        step_axis(axes, long["step"].max())
        axes.set_title(title, fontsize=10, fontweight="normal")
    for axes in panels[-1]:
        axes.set_xlabel("map steps")
    handles = [entry(name, color=SERIES[i], ls=DASHES[i], lw=2) for i, name in enumerate(variants)]
    for name in distinct(inside["variant"]):
        handles.append(entry(f"{name}, in training", color=SERIES[variants.index(name)], ls=":", lw=1.8))
    legend(figure, handles, 3)
    return figure


def truth(table: pd.DataFrame) -> Figure:
    """What corrections restore of the true distances, a row an embedding, a column a measure, a line a week effect.

    `table` has the columns embedding, week_effect, method, measure ("rank correlation", "neighbours kept", "relative
    error"), value, low, high, null (by chance).
    """
    words = {
        "rank correlation": "rank correlation\n(more is better)",
        "neighbours kept": "neighbours kept\n(more is better)",
        "relative error": "relative error\n(less is better)",
    }
    embeddings, methods = distinct(table["embedding"]), distinct(table["method"])
    effects = sorted(table["week_effect"].unique())
    shade = dict(zip(effects, _ramp(len(effects)), strict=True))
    figure, panels = grid(len(embeddings), len(words), 0.36 * len(methods) + 0.7, sharex="col", sharey=True)
    for row, embedding in zip(panels, embeddings, strict=True):
        for axes, (measure, title) in zip(row, words.items(), strict=True):
            part = table[(table["embedding"] == embedding) & (table["measure"] == measure)]
            for place, effect in enumerate(effects):
                lines = part[part["week_effect"] == effect].drop_duplicates("method").set_index("method")
                lines = lines.reindex(methods)
                y = np.arange(len(methods)) + 0.22 * (place - (len(effects) - 1) / 2)
                axes.hlines(y, lines["low"], lines["high"], color=shade[effect], lw=2, alpha=0.5)
                axes.plot(lines["value"], y, MARKERS[place], color=shade[effect], ms=6)
            axes.axvline(part["null"].mean(), color="black", ls=":", lw=1.4)
            axes.grid(axis="y", visible=False)
            axes.set_title(title if embedding == embeddings[0] else "", fontsize=10, fontweight="normal")
        row[0].set_yticks(range(len(methods)), methods, fontsize=9)
        row[0].set_ylabel(broken(embedding), fontsize=10)
    panels[0][0].invert_yaxis()
    handles = [
        entry(f"week effect {effect:g}", color=shade[effect], marker=MARKERS[i], ls="", ms=7)
        for i, effect in enumerate(effects)
    ]
    legend(figure, [*handles, entry("by chance", color="black", ls=":", lw=1.4)], 4)
    return figure


def carry_over(table: pd.DataFrame, measure: str = "gap left") -> Figure:
    """Controls and an unseen treatment on unseen plates against map step, a row a source, a line what was fitted on.

    `table` has the columns source, fit, measured on, measure, step, value, low, high, chance, and repeat where there
    are several: thin lines are these, thick ones their mean. `measure` is "gap left", "gap" or "week named".
    """
    words = {"gap left": "gap left (share)", "gap": "gap between weeks\n(deviations within)"}
    words |= {"week named": "week named (%)"}
    scale = 100 if measure == "week named" else 1
    table = table[table["measure"] == measure]
    table = table if "repeat" in table else table.assign(repeat=0)
    sources, places = distinct(table["source"]), distinct(table["measured on"])
    fits = [name for name in distinct(table["fit"]) if name != "nothing"]
    figure, panels = grid(len(sources), len(places), 2.1, sharey="row")
    for row, source in zip(panels, sources, strict=True):
        for axes, place in zip(row, places, strict=True):
            here = table[(table["source"] == source) & (table["measured on"] == place)]
            if here.empty:
                axes.set_visible(False)
                continue
            for i, fit in enumerate(fits):
                part, colour = here[here["fit"] == fit], SERIES[i]
                for _, one in part.groupby("repeat"):
                    axes.plot(one["step"], scale * one["value"], color=colour, lw=0.6, alpha=0.6)
                mean, low, high = (scale * over_repeats(part, name) for name in ("value", "low", "high"))
                if len(low):
                    axes.fill_between(low.index, low, high, color=colour, alpha=0.13, lw=0)
                axes.plot(mean.index, mean, color=colour, ls=DASHES[i], lw=2, marker=MARKERS[i], ms=5)
            still, by_chance = here.loc[here["fit"] == "nothing", "value"].mean(), here["chance"].mean()
            axes.axhline(scale * still, color="#6b6b6b", lw=1.4, ls="--")
            if not np.isnan(by_chance):
                axes.axhline(scale * by_chance, color="black", lw=1.4, ls=":")
            step_axis(axes, here["step"].max())
            axes.set_title(f"measured on {place}" if source == sources[0] else "")
        row[0].set_ylim(bottom=0)  # of all panels of the row, and so not before they are drawn
        row[0].set_ylabel(words[measure])
    for axes in panels[-1]:
        axes.set_xlabel("map steps")
    name_rows(panels, sources)
    handles = [
        entry(f"fitted on {n}", color=SERIES[i], ls=DASHES[i], lw=2, marker=MARKERS[i]) for i, n in enumerate(fits)
    ]
    handles.append(entry("no map", color="#6b6b6b", ls="--", lw=1.4))
    if table["chance"].notna().any():
        handles.append(entry("by chance", color="black", ls=":", lw=1.4))
    legend(figure, handles, len(handles))
    return figure


def _ramp(count: int) -> list[str]:
    """Light to dark."""
    return [["#08306b"], ["#5aa9e6", "#08306b"], ["#8fbfe6", "#3b78b8", "#08306b"]][min(count, 3) - 1] + list(
        SERIES[1 : max(count - 2, 1)]
    )
