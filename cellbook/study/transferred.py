"""The transferred baseline of a study of trainings: a run of its own, so that no other product depends on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cellbook import profiles
from cellbook.cells import CellSet
from cellbook.features.transferred import installed
from cellbook.profiles.subsets import Subsets
from cellbook.runs import Run, obtain, save_table
from cellbook.screens.named import is_positive, without_place
from cellbook.study import profile
from cellbook.study.encoding import IMAGENET, add_sums
from cellbook.study.processes import one_thread

VERSION = 1
RIDGE = 1.0  # of the whitening, in mean eigenvalues; fixed before anything was scored
KEPT = {"mean": profile.SUMMARIES[0], "whitened": profile.SUMMARIES[1]}  # of wells, by the name of the product


def transferred(
    screen: str, cells: CellSet, protocol: str, store: str | Path, *, device: str = "cpu", seed: int = 0
) -> list[Run]:
    """The run of the ImageNet features of these cells, made if it is not there; none where they are not installed.

    Its products are `treatments` and `distances`, as of a training: cosine distances of mean profiles, standardised by
    DMSO cells, and of plain means whitened by DMSO wells. Means and standard deviations together are left out.
    """
    if not installed():
        return []
    config = {"profile": IMAGENET, "screen": Path(screen).name, "protocol": protocol, "ridge": RIDGE, "seed": seed}

    def make(folder: Path) -> None:
        encoded = wells_of(cells, store, device, seed)
        wells = {summary: encoded.table(name) for name, summary in KEPT.items()}
        found = profile.distances(wells, protocol, profile.DISTANCES[:1])
        units = profile.treatments(wells["mean"], protocol)
        save_table(units[profiles.metadata(units)], folder / "treatments.parquet")
        profile.save_distances({f"{IMAGENET}|0|{name}": values for name, values in found.items()}, folder)

    with one_thread():
        return [obtain(store, "baseline", VERSION, config, cells.fingerprint, make, device=device)]


def wells_of(cells: CellSet, store: str | Path, device: str, seed: int) -> Run:
    """The run of the `well_profiles` of these cells, by the names in `KEPT`: pages of the same cells share it."""

    def make(folder: Path) -> None:
        found = well_profiles(cells, seed, device)
        for name, summary in KEPT.items():
            save_table(found[summary], folder / f"{name}.parquet")

    config = {"profile": IMAGENET, "ridge": RIDGE, "seed": seed}
    return obtain(store, "imagenet", VERSION, config, cells.fingerprint, make, device=device)


def well_profiles(cells: CellSet, seed: int, device: str) -> dict[str, pd.DataFrame]:
    """ImageNet features of wells by summary: means standardised by DMSO cells; plain means whitened by DMSO wells."""
    used = ~is_positive(cells.table)
    sums = Subsets(without_place(cells.table.filter(like="Metadata_")), used[:, None])
    add_sums(sums, IMAGENET, cells, seed, np.flatnonzero(used), device=device)
    mean, plain = sums.profiles(0), sums.profiles(0, standardised=False)
    return dict(zip(profile.SUMMARIES, (mean, profile.whiten_wide(plain, RIDGE)), strict=False))
