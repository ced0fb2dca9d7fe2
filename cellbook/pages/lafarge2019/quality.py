"""What is measured of one training: images, rate, weeks, truth, walks, and distances between treatments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.methods import vae_plus
from cellbook.metrics import images
from cellbook.pages.lafarge2019 import profile, walks
from cellbook.pages.lafarge2019.config import PAPER_MODELS, Config, Training
from cellbook.pages.lafarge2019.screen import balanced_rows, is_positive
from cellbook.pixels import channel_max
from cellbook.runs import Run
from cellbook.training import State, load_run

MISFIT = "misfit of sharpness"  # octaves between the power of fine detail in reconstruction and original


@dataclass(frozen=True)
class Kept:
    """What the page keeps of one training; every table has the columns variant and repeat."""

    training: Training
    distances: dict[str, np.ndarray]  # "variant|repeat|summary|distance" -> condensed, float32
    tables: dict[str, pd.DataFrame]


def normalised(cells: CellSet) -> np.ndarray:
    """Crops as the networks see them, (N, C, H, W) float32: each channel divided by its own maximum."""
    return channel_max(torch.from_numpy(np.array(cells.images))).numpy()


def measure(training: Training, run: Run, cells: CellSet, config: Config) -> Kept:
    """Measure one finished training."""
    embedded = run.table("embeddings")
    codes = profiles.matrix(embedded).astype(np.float32)
    summaries, whitenings = profile.summaries(embedded)
    paper = training.variant in PAPER_MODELS
    if not paper:  # the paper's four; the reading of whitening by plate and the other distance for its models alone
        summaries = {name: wells for name, wells in summaries.items() if name in profile.SUMMARIES}
    found = profile.distances(summaries, profile.DISTANCES if paper else profile.DISTANCES[:1])
    state = load_run(vae_plus, training.config, cells, run, "cpu")
    shown = cells.select(balanced_rows(cells, config.looked_at))
    tables = reconstructions(state, shown, config)
    tables["whitenings"] = whitenings
    tables["weeks"] = week_of_controls(embedded, config.seed)
    tables["walks"] = walks.statistics(codes, cells.table, config.seed)
    tables["history"] = run.table("history").melt("step", var_name="term")
    record = run.record
    keys = ("key", "seconds", "device", "peak_memory_mib", "fingerprint")
    tables["trainings"] = pd.DataFrame(
        [{name: record[name] for name in keys} | {"model": training.config.model, "beta": training.config.kl_weight}]
    )
    if "truth_state" in cells.table:
        from cellbook.pages.cells.encoding import probe

        place = [name for name in profile.PLACE if name in embedded]
        tables["truth"] = probe(embedded.drop(columns=place), cells.table.filter(like="truth_"), config.probe_folds)
    named = {
        name: table.assign(variant=training.variant, repeat=training.repeat)
        for name, table in tables.items()
        if not table.empty
    }
    head = f"{training.variant}|{training.repeat}|"
    return Kept(training, {head + name: values for name, values in found.items()}, named)


def reconstructions(state: State, cells: CellSet, config: Config) -> dict[str, pd.DataFrame]:
    """Quality of the reconstructions of some cells, one row a cell, and the numbers that are of all cells together."""
    with torch.no_grad():
        encoder = state.networks["encoder"].eval()
        mu, logvar = (part.numpy() for part in encoder(torch.from_numpy(normalised(cells))))
    x, x_hat = normalised(cells), vae_plus.decode(state, mu).clip(0, 1)
    rows = cells.table[["Metadata_compound"]].rename(columns={"Metadata_compound": "compound"})
    measured = {"MSE": images.mse, "SSIM": images.ssim, "sharpness": images.spectral_sharpness}
    for name, function in measured.items():
        values = function(x, x_hat)
        for channel, column in zip(cells.channels, values.T, strict=True):
            rows[f"{name}, {channel}"] = column.astype(np.float32)
        rows[name] = np.nanmean(values, axis=1).astype(np.float32)
    # A grid of artefacts has power, too: how far from the original's, up or down, tells it from detail.
    octaves = np.abs(np.log2(np.maximum(images.spectral_sharpness(x, x_hat), 2.0**-20)))
    rows[MISFIT] = np.nanmean(octaves, axis=1).astype(np.float32)
    rows["feature distance"] = images.feature_distance(x, x_hat).astype(np.float32)
    if state.config.terms.noise:
        rows["KL (nats)"] = images.kl_nats(mu, logvar).astype(np.float32)
    apart = images.two_sample(x, x_hat, seed=config.seed)
    rows["told apart"] = apart.right.mean(axis=0).astype(np.float32)
    rows["made, taken for real"] = (~apart.right[1]).astype(np.float32)
    rows["real, taken for made"] = (~apart.right[0]).astype(np.float32)
    return {"images": rows, "units": pd.DataFrame([{"active": images.active_units(mu)}])}


def week_of_controls(cells: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Whether logistic regression names the week of single taxol 0.3 cells on plates held out, one row a cell.

    The positive control lies on every plate and fits no whitening. Weeks with fewer than three such plates are left
    out; without positive controls, or with one week, the table is empty.
    """
    control = cells[is_positive(cells)].reset_index(drop=True)
    plates = control.groupby("Metadata_batch")["Metadata_plate"].nunique()
    control = control[control["Metadata_batch"].isin(plates.index[plates >= 3])].reset_index(drop=True)
    if control["Metadata_batch"].nunique() < 2:
        return pd.DataFrame()
    found = metrics.classify_batch(control, seed=seed, standardise=True)
    columns = {"plate": control["Metadata_plate"], "correct": found.correct, "majority": found.majority}
    return pd.DataFrame(columns | {"noise": found.noise_baseline})
