"""An alignment as a run of the store: computed once for a configuration and a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cellbook.files import digest
from cellbook.methods.wdn.alignment import Alignment
from cellbook.methods.wdn.config import Config
from cellbook.methods.wdn.evaluation import evaluate
from cellbook.methods.wdn.fitting import fit
from cellbook.runs import Run, choose_device, obtain, save_table, table_fingerprint

VERSION = 1  # rises when the results of a configuration change


def run(
    profiles: pd.DataFrame,
    config: Config,
    store: str | Path,
    controls: str = "DMSO",
    *,
    device: str = "auto",
    force: bool = False,
) -> Run:
    """The run of this configuration on this table, computed only if it is not in the store.

    Its products are the maps of all checkpoints, the history of the training and the table ``checkpoints`` of
    `evaluate`.
    """
    on = choose_device(device)

    def make(folder: Path) -> None:
        alignment = fit(profiles, config, controls, on)
        alignment.save(folder)
        save_table(evaluate(alignment, profiles, controls), folder / "checkpoints.parquet")

    fingerprint = digest([table_fingerprint(profiles), controls])[:32]
    return obtain(store, "wdn", VERSION, config, fingerprint, make, device=on, force=force)


def load(run: Run) -> Alignment:
    """The alignment of a finished run."""
    return Alignment.load(run.folder)
