"""What a screen of the size of JUMP costs, from the rates of `benchmarks/plates.csv` and what is published of JUMP."""

from __future__ import annotations

import math

import pandas as pd

CUT = "cell-count"  # the encoder that only counts: what is left is finding, cutting and storing cells
HOUR, GB = 3600, 1e9
COPIES = 2  # of a plate's crops while it is cut: field by field, and joined


def rates(measured: pd.DataFrame) -> pd.DataFrame:
    """Measured speed of each encoder, medians over pairs of runs.

    Parameters
    ----------
    measured : one row a run: ``encoder``, ``workers``, ``pair``, ``plates``, ``fields``, ``cells``, ``channels``,
        ``seconds``, and of two workers ``peak_memory_mib``, of the one that needed more

    Returns
    -------
    One row an encoder, in the order of the table: plates a second of one worker and of two, the ratio of the two runs
    of a pair, cells a second of one worker, and the peak memory of a worker (GiB).
    """
    rows = []
    for encoder, runs in measured.groupby("encoder", sort=False):
        one, two = (runs[runs["workers"] == workers].set_index("pair") for workers in (1, 2))
        row = {"encoder": encoder, "plates_one": (one["plates"] / one["seconds"]).median()}
        row |= {"plates_two": (two["plates"] / two["seconds"]).median()}
        row |= {"ratio": (one["seconds"] / two["seconds"]).median()}
        row |= {"cells": (one["cells"] / one["seconds"]).median(), "gib": two["peak_memory_mib"].max() / 1024}
        rows.append(row)
    return pd.DataFrame(rows)


def costs(measured: pd.DataFrame, screen: dict[str, float], workers: int) -> pd.DataFrame:
    """Time of one worker for a screen, from the medians over runs with one worker.

    Cutting takes as long for an image of a channel as measured, and encoding as long for a channel of a cell.

    Parameters
    ----------
    measured : as for `rates`, `CUT` among the encoders
    screen : its ``plates``, ``fields``, ``cells`` and ``channels``, and ``bytes`` of images
    workers : of a cluster

    Returns
    -------
    One row an encoder but for `CUT`: hours of ``cutting``, of ``encoding`` and of ``both``, hours of one ``plate``;
    ``days`` of the cluster, of which no worker takes less than a plate; and ``gigabytes`` that all workers together
    read in a second.
    """
    one = measured[measured["workers"] == 1]
    seconds = one.groupby("encoder", sort=False)["seconds"].median()
    size = one.groupby("encoder", sort=False)[["fields", "cells", "channels"]].first()
    images = size.loc[CUT, "fields"] * size.loc[CUT, "channels"]
    cutting = seconds[CUT] / images * screen["fields"] * screen["channels"] / HOUR
    rows = []
    for encoder in seconds.index.drop(CUT):
        each = (seconds[encoder] - seconds[CUT]) / (size.loc[encoder, "cells"] * size.loc[encoder, "channels"])
        encoding = each * screen["cells"] * screen["channels"] / HOUR
        row = {"encoder": encoder, "cutting": cutting, "encoding": encoding, "both": cutting + encoding}
        row |= {"plate": row["both"] / screen["plates"]}
        row |= {"days": math.ceil(screen["plates"] / workers) * row["plate"] / 24}
        rows.append(row | {"gigabytes": workers * screen["bytes"] / GB / (row["both"] * HOUR)})
    return pd.DataFrame(rows)


def scratch(measured: pd.DataFrame, screen: dict[str, float]) -> float:
    """Bytes that the crops of a mean plate of a screen take while it is made, 2 bytes a pixel."""
    pixels = screen["channels"] * int(measured["crop"].iloc[0]) ** 2
    return COPIES * 2 * pixels * screen["cells"] / screen["plates"]
