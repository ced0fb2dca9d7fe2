"""Figures of the page about cells: plate map, micrographs, nuclei in a field, calibration, drops, what is known."""

from __future__ import annotations

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cellbook.figures.panels import SERIES, circles, distinct, entry, grid, legend
from cellbook.figures.profiles import natural
from cellbook.figures.style import ACCENT, MARKERS, PALE, SECOND, colours

BAR_UM = 20  # length of the scale bars on crops
FIELD_BAR_UM = 100  # and on a field
ENLARGE = 2  # screen pixels a side of one pixel of a small crop
KINDS = {"real": "black", "simulated": ACCENT}


def plate_map(design: pd.DataFrame) -> Figure:
    """Which treatments each week holds: a circle a treatment, the number of its compound inside, coloured by mechanism.

    `design` has the columns week, compound, number (of the compound), concentration, moa. A layout of this kind is
    figure 2 of Tabak et al. 2020.
    """
    weeks = sorted(design["week"].unique(), key=natural)
    shade = colours([*sorted(design["moa"].unique()), "DMSO"])
    figure, axes = plt.subplots(figsize=(9.2, 0.42 * len(weeks) + 2.2))
    circles(axes, design.sort_values(["moa", "number", "concentration"]), weeks, shade)
    handles = [Patch(color=colour, label=name) for name, colour in shade.items()]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4, fontsize=8)
    return figure


def montage(rows: list[tuple[str, list[np.ndarray | None]]], titles: list[str], pixel_um: float) -> Figure:
    """Small colour images in rows, with a name a row, a title a column, and a scale bar in each row's first image.

    Parameters
    ----------
    rows : list of (name, images)
        Images (side, side, 3) uint8, or None where there is none; equal names that follow each other are written once.
    titles : list of str
        One a column.
    pixel_um : float
        Side of a pixel.
    """
    side = max(image.shape[0] for _, images in rows for image in images if image is not None)
    gap, dpi = 2, 110
    height, width = len(rows) * (side + gap), len(titles) * (side + gap)
    canvas = np.full((height, width, 3), 255, np.uint8)
    for y, (_, images) in enumerate(rows):
        for x, image in enumerate(images):
            if image is not None:
                top, left = y * (side + gap), x * (side + gap)
                canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    figure = plt.figure(figsize=(ENLARGE * width / dpi, ENLARGE * height / dpi), dpi=dpi)
    axes = figure.add_axes((0, 0, 1, 1))
    # A pixel of the camera is drawn as a square of pixels of the screen: nothing is smoothed.
    axes.imshow(canvas, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
    enlarge = max(1.0, len(titles) / 7)  # a wide montage is shown smaller
    for x, title in enumerate(titles):
        place = x * (side + gap) + side / 2
        axes.text(place, -4, fill(title, 14), ha="center", va="bottom", fontsize=8.5 * enlarge)
    names = [name for name, _ in rows]
    for name in dict.fromkeys(names):
        own = [y for y, other in enumerate(names) if other == name]
        middle = (own[0] + own[-1] + 1) / 2 * (side + gap)
        axes.text(-5, middle, name, ha="right", va="center", rotation=90, fontsize=9.5 * enlarge)
        length = BAR_UM / pixel_um
        bottom = (own[0] + 1) * (side + gap) - gap - 5
        axes.plot([4, 4 + length], [bottom, bottom], color="white", lw=2.5, solid_capstyle="butt")
    axes.set_axis_off()
    return figure


def nuclei(
    image: np.ndarray,
    known: np.ndarray,
    found: np.ndarray,
    truth: np.ndarray,
    matched: tuple[np.ndarray, np.ndarray],
    pixel_um: float,
) -> Figure:
    """Centres of nuclei over a DNA image: found and right, found and wrong, missed; unknown area in white.

    `image` and `known` are (H, W), `found` and `truth` (n, 2) rows y, x, `matched` says for each of them whether it has
    a partner.
    """
    low, high = np.percentile(image[known], [0.5, 99.5])
    grey = np.clip((image - low) / (high - low), 0, 1)
    shown = np.where(known, grey, 1.0)
    figure, axes = plt.subplots(figsize=(8.4, 8.4 * image.shape[0] / image.shape[1] + 0.5))
    axes.imshow(np.round(63 * shown) / 63, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    right, wrong, missed = found[matched[0]], found[~matched[0]], truth[~matched[1]]
    axes.plot(right[:, 1], right[:, 0], "o", mfc="none", mec="#4dd0e1", ms=8, mew=1.3, label=f"found ({len(right)})")
    axes.plot(wrong[:, 1], wrong[:, 0], "x", color="#ffb300", ms=8, mew=2.4, label=f"not published ({len(wrong)})")
    axes.plot(missed[:, 1], missed[:, 0], "s", mfc="none", mec="#ff4d6d", ms=9, mew=2, label=f"missed ({len(missed)})")
    bottom, left = image.shape[0] - 4, 4
    axes.plot([left, left + FIELD_BAR_UM / pixel_um], [bottom] * 2, color="black", lw=4, solid_capstyle="butt")
    axes.set_axis_off()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3)
    return figure


def calibration(table: pd.DataFrame, areas: pd.DataFrame, channels: tuple[str, ...]) -> Figure:
    """Real against simulated control cells: grey values, power spectra, nuclear area, correlations, neighbours.

    `table` is that of `cellbook.screens.simulator.calibration.calibrate` with the column measurement; `areas` has the
    columns percentile, real, simulated (pixels). Bands are the middle 68 % of cells.
    """
    stored = table.set_index("measurement")
    figure, panels = plt.subplots(3, len(channels), figsize=(9.2, 8.6))

    def lines(axes: Axes, names: list[str], x: list[float]) -> None:
        rows = stored.loc[names]
        for kind, colour in KINDS.items():
            middle, spread = rows[kind].to_numpy(), rows[f"{kind}_spread"].to_numpy()
            axes.fill_between(x, middle - spread, middle + spread, color=colour, alpha=0.13, lw=0)
            axes.plot(x, middle, "o-", color=colour, ms=3.5, label=kind)

    for column, channel in enumerate(channels):
        quantiles = [name for name in stored.index if name.startswith(f"{channel}_p")]
        lines(panels[0, column], quantiles, [float(name.rsplit("_p", 1)[1]) for name in quantiles])
        panels[0, column].set_title(f"{channel}: grey values", fontsize=10)
        panels[0, column].set_xlabel("percentile within a crop")
        waves = [name for name in stored.index if name.startswith(f"{channel}_waves_")]
        lines(panels[1, column], waves, [np.sqrt(np.prod([float(v) for v in w.split("_")[-2:]])) for w in waves])
        panels[1, column].set_xscale("log")
        panels[1, column].set_xticks([2, 5, 10, 25], ["2", "5", "10", "25"])
        panels[1, column].minorticks_off()
        panels[1, column].set_title(f"{channel}: power spectrum", fontsize=10)
        panels[1, column].set_xlabel("waves across 68 pixels")
    panels[0, 0].set_ylabel("grey value (log2)")
    panels[1, 0].set_ylabel("power (log10)")
    for kind, colour in KINDS.items():
        panels[2, 0].plot(areas[kind], areas["percentile"], color=colour, label=kind)
    panels[2, 0].set_title("nuclear area", fontsize=10)
    panels[2, 0].set_xlabel("pixels")
    panels[2, 0].set_ylabel("cells up to it (%)")
    pairs = [name for name in stored.index if name.endswith("_correlation")]
    for offset, (kind, colour) in zip((-0.1, 0.1), KINDS.items(), strict=True):
        y = np.arange(len(pairs)) + offset
        middle, spread = stored.loc[pairs, kind], stored.loc[pairs, f"{kind}_spread"]
        panels[2, 1].errorbar(middle, y, xerr=spread, fmt="o", color=colour, ms=5, label=kind)
    labels = [name.removesuffix("_correlation").replace("_", "\nand ") for name in pairs]
    panels[2, 1].set_yticks(range(len(pairs)), labels, fontsize=8)
    panels[2, 1].set_title("correlation of channels", fontsize=10)
    near = [name for name in stored.index if name.startswith("neighbour_distance_p")]
    axes = panels[2, 2]
    for kind, colour in KINDS.items():
        axes.plot(stored.loc[near, kind], [float(name.rsplit("_p", 1)[1]) for name in near], "o-", color=colour, ms=3.5)
    axes.set_title("distance to the nearest nucleus", fontsize=10)
    axes.set_xlabel("pixels")
    axes.set_ylabel("cells up to it (%)")
    figure.tight_layout()
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, 0.005), ncols=2)
    return figure


def drops(numbers: pd.DataFrame) -> Figure:
    """From NSC down to NSCB, screen by screen, beside what as many candidates removed at random leave.

    `numbers` has the columns group, label, measure ("NSC", "NSCB", "at random", "alike at random"), value, low, high;
    one panel a group.
    """
    groups = list(dict.fromkeys(numbers["group"]))
    figure, panels = plt.subplots(1, len(groups), figsize=(9.2, 4.2), sharey=True, squeeze=False)
    marks = {
        "NSC": (ACCENT, "o", -0.24),
        "at random": ("#777777", "_", -0.08),
        "alike at random": ("black", "_", 0.08),
        "NSCB": (SECOND, "s", 0.24),
    }
    words = {"at random": "as many removed at random", "alike at random": "as many right and wrong removed"}
    for axes, group in zip(panels[0], groups, strict=True):
        rows = numbers[numbers["group"] == group]
        labels = list(dict.fromkeys(rows["label"]))
        for measure, (colour, marker, offset) in marks.items():
            line = rows[rows["measure"] == measure].set_index("label").loc[labels]
            x = np.arange(len(labels)) + offset
            thin = measure in ("NSC", "NSCB")
            axes.vlines(x, 100 * line["low"], 100 * line["high"], color=colour, lw=1.2, alpha=0.45 if thin else 1)
            size = {"ms": 6} if thin else {"ms": 9, "mew": 2.2}
            axes.plot(x, 100 * line["value"], marker, color=colour, label=words.get(measure, measure), **size)
        axes.set_xticks(range(len(labels)), [fill(label, 15) for label in labels], fontsize=8)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        axes.set_title(group, fontsize=10)
        axes.grid(axis="x", visible=False)
    panels[0][0].set_ylabel("accuracy on the queries of NSCB (%)")
    figure.tight_layout()
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.01), ncols=4)
    return figure


def known(table: pd.DataFrame) -> Figure:
    """What can be read linearly from the features: R2 of every known parameter, with and without the effect of weeks.

    `table` has the columns parameter, kind, week_effect, r2, low, high (over seeds); one panel a kind, best on top.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    heights = [table[table["kind"] == kind]["parameter"].nunique() for kind in kinds]
    figure, panels = plt.subplots(1, len(kinds), figsize=(9.2, 0.24 * max(heights) + 1.3), squeeze=False)
    effects = sorted(table["week_effect"].unique(), reverse=True)
    for axes, kind in zip(panels[0], kinds, strict=True):
        rows = table[table["kind"] == kind]
        main = rows[rows["week_effect"] == effects[0]].sort_values("r2")
        names = main["parameter"].tolist()
        y = np.arange(len(names))
        axes.barh(y, main["r2"], color=PALE, height=0.66, label=f"week effect {effects[0]:g}")
        axes.hlines(y, main["low"], main["high"], color="black", lw=1.2)
        for effect in effects[1:]:
            other = rows[rows["week_effect"] == effect].set_index("parameter").reindex(names)
            axes.plot(other["r2"], y, "D", color=SECOND, ms=4.5, label=f"week effect {effect:g}")
        axes.set_yticks(y, [name.replace("_", " ") for name in names], fontsize=8)
        axes.set_xlim(-0.15, 1)
        axes.set_title(kind, fontsize=10)
        axes.set_xlabel("R² on plates held out")
        axes.grid(axis="y", visible=False)
    figure.tight_layout()
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.01), ncols=3)
    return figure


def enough(numbers: pd.DataFrame) -> Figure:
    """Accuracy against cells a treatment, one panel a scaling, one colour a profile; real cells with open marks.

    `numbers` has the columns scaling, profile, kind ("simulated", "real"), a_treatment, value, low, high.
    """
    scalings, profiles = distinct(numbers["scaling"]), distinct(numbers["profile"])
    figure, panels = grid(1, len(scalings), 4.0, sharey=True)
    for axes, scaling in zip(panels[0], scalings, strict=True):
        for place, profile in enumerate(profiles):
            for kind, dash in (("simulated", "-"), ("real", "--")):
                rows = numbers[(numbers[["scaling", "profile", "kind"]] == [scaling, profile, kind]).all(axis=1)]
                rows = rows.sort_values("a_treatment")
                x = rows["a_treatment"] * 1.025 ** (
                    place - (len(profiles) - 1) / 2
                )  # so that no interval hides another
                look = {"color": SERIES[place], "marker": MARKERS[place], "ms": 5, "ls": dash}
                axes.plot(x, 100 * rows["value"], mfc=SERIES[place] if dash == "-" else "white", **look)
                axes.vlines(x, 100 * rows["low"], 100 * rows["high"], color=SERIES[place], lw=1, alpha=0.5)
        ticks = sorted({round(x) for x in numbers["a_treatment"]})
        ticks = [x for n, x in enumerate(ticks) if n == 0 or x > 1.25 * ticks[n - 1]]
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
        axes.minorticks_off()
        axes.set_title(scaling, fontsize=11)
        axes.set_xlabel("cells a treatment (mean)")
    panels[0][0].set_ylabel("NSC (%)")
    looks = [entry(name, color=SERIES[n], marker=MARKERS[n], ms=5) for n, name in enumerate(profiles)]
    if (numbers["kind"] == "real").any():
        looks += [
            entry("simulated cells", color="#777777", marker="o", ms=5),
            entry("real cells", color="#777777", marker="o", ms=5, ls="--", mfc="white"),
        ]
    legend(figure, looks, 3)
    return figure
