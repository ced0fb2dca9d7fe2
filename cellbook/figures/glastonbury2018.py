"""Figures of the page of the fair autoencoder: the weight of the adversary, what is kept and left, maps, and losses."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cellbook.figures.course import log_ticks
from cellbook.figures.panels import SERIES, distinct, entry, grid, in_two_columns, legend
from cellbook.figures.style import MARKERS, SECOND, colours

LOSSES = {"reconstruction": "mean squared error", "adversary": "loss of the adversary (nats)"}


def lambdas(rows: pd.DataFrame) -> Figure:
    """A panel a kind of measure against the weight of the adversary, whose values stand at equal distances.

    `rows` has the columns lam, game, panel, line, value, low, high, null, share. The first game is joined by lines,
    each other one has a marker of its own. Level lines: chance, in the colour of the measure.
    """
    names, places, games = distinct(rows["panel"]), sorted(rows["lam"].unique()), distinct(rows["game"])
    marker = dict(zip(games, MARKERS, strict=False))
    figure, panels = in_two_columns(len(names), 2.9)
    for axes, panel in zip(panels.flat, names, strict=False):
        mine = rows[rows["panel"] == panel]
        for i, line in enumerate(distinct(mine["line"])):
            part, shade = mine[mine["line"] == line], SERIES[i % len(SERIES)]
            scale = 100 if part["share"].all() else 1
            for game, own in part.groupby("game", sort=False):
                joined = game == games[0]
                x, y = [places.index(lam) + 0.06 * i for lam in own["lam"]], scale * own["value"]
                axes.vlines(x, scale * own["low"], scale * own["high"], color=shade, alpha=0.25, lw=2)
                look = {"ls": "-", "ms": 5} if joined else {"ls": "", "ms": 6, "mfc": "white"}
                axes.plot(x, y, color=shade, marker=marker[game], label=line if joined else None, **look)
            if part["null"].notna().any():
                axes.axhline(scale * part["null"].mean(), color=shade, ls=":", lw=1)
        axes.set_title(panel + (" (%)" if mine["share"].all() else ""), fontsize=11)
        axes.set_xticks(range(len(places)), [f"{lam:g}" for lam in places])
        axes.set_xlabel("lambda")
        axes.set_ylim(bottom=min(0, scale * mine["low"].min()))
        axes.legend(fontsize=8)
    fill = dict.fromkeys(games, "white") | {games[0]: "black"}
    legend(figure, [entry(game, color="black", marker=marker[game], ls="", mfc=fill[game]) for game in games], 4)
    return figure


def kept_and_left(rows: pd.DataFrame) -> Figure:
    """Biology kept against week left, a panel a measure of biology; up and to the left is better.

    `rows` has the columns way, label, measure, value, low, high, week, week_low, week_high, chance, lam. The games
    without the treatment are joined in the order of their weights. Points have numbers, which a key on the right names.
    """
    measures, ways = distinct(rows["measure"]), distinct(rows["way"])
    shade = dict(zip(ways, SERIES, strict=False))
    rows = _numbered(rows, ways)
    figure, panels = plt.subplots(len(measures), 1, figsize=(6.8, 4.0 * len(measures)), squeeze=False, sharex=True)
    for axes, measure in zip(panels[:, 0], measures, strict=True):
        for i, way in enumerate(ways):
            part = rows[(rows["measure"] == measure) & (rows["way"] == way)]
            x, y = 100 * part["week"], 100 * part["value"]
            axes.hlines(y, 100 * part["week_low"], 100 * part["week_high"], color=shade[way], alpha=0.25)
            axes.vlines(x, 100 * part["low"], 100 * part["high"], color=shade[way], alpha=0.25)
            axes.plot(x, y, ls="-" if way == "adversary" else "", lw=1, marker=MARKERS[i], color=shade[way], ms=6)
        axes.axvline(100 * rows["chance"].mean(), color="black", ls=":", lw=1)
        axes.set_title(f"{measure} (%)", fontsize=11)
        axes.set_xlabel("nearest positive control well is of the same week (%)")
        axes.set_ylim(0, 100 * min(1, rows["high"].max() + 0.05))
    figure.tight_layout()
    for axes, measure in zip(panels[:, 0], measures, strict=True):
        part = rows[rows["measure"] == measure]
        _write_beside(axes, 100 * part[["week", "value"]].to_numpy(), part["number"].astype(str).tolist())
    handles = []
    for i, way in enumerate(ways):
        handles.append(entry(way, color=shade[way], marker=MARKERS[i], ls=""))
        own = rows[rows["way"] == way].drop_duplicates("number")
        handles += [entry(f"{number}  {name}", ls="") for number, name in zip(own["number"], own["name"], strict=True)]
    key = figure.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, handlelength=1.2)
    for text in key.get_texts():
        text.set_fontweight("bold" if text.get_text() in ways else "normal")
    return figure


def _numbered(rows: pd.DataFrame, ways: list[str]) -> pd.DataFrame:
    """Rows in the order of ways and weights with the number and name of their point; what coincides is one point."""
    rows = rows.sort_values("lam", kind="stable")
    rows = rows.sort_values("way", key=lambda of: of.map(ways.index), kind="stable")
    together: dict[tuple[object, ...], list[str]] = {}
    for (way, label), part in rows.groupby(["way", "label"], sort=False):
        places = part[["measure", "value", "week"]].round(9).itertuples(index=False, name=None)
        together.setdefault((way, *places), []).append(str(label))
    number = {labels[0]: i for i, labels in enumerate(together.values(), 1)}
    name = {labels[0]: " = ".join(labels) for labels in together.values()}
    rows = rows[rows["label"].isin(number)]
    return rows.assign(number=rows["label"].map(number), name=rows["label"].map(name))


def _write_beside(axes: Axes, points: np.ndarray, texts: list[str], size: float = 8) -> None:
    """Write short texts beside points (n, 2), each at the nearest place that is free of other texts and points."""
    at = axes.transData.transform(points) * 72 / axes.figure.dpi  # in points of print
    centres, halves = list(at), [np.full(2, 3.5)] * len(at)  # boxes that are taken, first those of the marks
    turns = np.deg2rad(45 + np.arange(0, 360, 22.5))
    for (x, y), here, text in zip(points, at, texts, strict=True):
        half = np.array([0.34 * size * len(text) + 0.5, 0.5 * size])
        rings = (r * np.array([np.cos(turn), np.sin(turn)]) for r in np.arange(9, 90, 4) for turn in turns)
        free = (
            by for by in rings
            if not any((np.abs(here + by - c) < half + h).all() for c, h in zip(centres, halves, strict=True))
        )  # fmt: skip
        by = next(free, np.array([9.0, 9.0]))
        line = {"arrowstyle": "-", "lw": 0.5, "color": "#777777", "shrinkA": 0, "shrinkB": 2}
        far = line if np.hypot(*by) > 14 else None
        where = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": size}
        axes.annotate(text, (x, y), xytext=tuple(by), arrowprops=far, **where)
        centres.append(here + by)
        halves.append(half)


def maps(points: pd.DataFrame) -> Figure:
    """Treatments in the plane: a row a variant, coloured by mechanism on the left and by week on the right.

    `points` has the columns variant, x, y, moa, batch.
    """
    variants = distinct(points["variant"])
    figure, panels = grid(len(variants), 2, 3.6)
    for row, variant in zip(panels, variants, strict=True):
        mine = points[points["variant"] == variant]
        for axes, column in zip(row, ("moa", "batch"), strict=True):
            names = sorted(points[column].unique(), key=lambda name: (len(name) if column == "batch" else 0, name))
            for i, (name, shade) in enumerate(colours(names).items()):
                own = mine[mine[column] == name]
                axes.plot(own["x"], own["y"], MARKERS[i % len(MARKERS)], color=shade, ms=5, label=name)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
        row[0].set_ylabel(variant)
    figure.tight_layout()
    return figure


def losses(history: pd.DataFrame, lengths: tuple[int, int, int], chance: float) -> Figure:
    """Reconstruction and the adversary's loss by step, a line a training; shades are the phases B and C.

    `history` has the columns variant, repeat, game, step, term, value; `chance` is the loss of who answers without a
    code, and losses are shown up to four times as large. The weights of the first game are shades of one scale, the
    other games are dashed.
    """
    games = history.drop_duplicates("variant").set_index("variant")["game"]
    own, others = (list(games.index[mask]) for mask in (games == games.iloc[0], games != games.iloc[0]))
    ramp = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(own)))
    look = {name: {"color": shade, "ls": "-"} for name, shade in zip(own, ramp, strict=True)}
    look |= {name: {"color": SERIES[i % len(SERIES)], "ls": "--"} for i, name in enumerate(others)}
    figure, panels = grid(1, 2, 3.2)
    for axes, (term, title) in zip(panels[0], LOSSES.items(), strict=True):
        for (variant, _), line in history[history["term"] == term].groupby(["variant", "repeat"], sort=False):
            axes.plot(line["step"], line["value"], lw=1, alpha=0.8, **look[variant])
        a, b, c = np.cumsum(lengths)
        axes.axvspan(a, b, color="black", alpha=0.04, lw=0)
        axes.axvspan(b, c, color=SECOND, alpha=0.08, lw=0)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("step")
        axes.set_yscale("log")
    right = panels[0][1]
    right.axhline(chance, color="black", ls=":", lw=1)
    lowest = history.loc[history["term"] == "adversary", "value"].min()
    right.set_ylim(min(chance / 4, 0.8 * lowest), 4 * chance)  # an adversary at rest leaves the frame
    ticks = log_ticks(*right.get_ylim())
    right.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    right.yaxis.set_minor_formatter(plt.NullFormatter())
    legend(figure, [entry(name, **look[name]) for name in look], 4)
    return figure
