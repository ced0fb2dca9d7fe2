"""The table that a benchmark writes: what was timed, beside what, and on which machine."""

import argparse
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from joblib import cpu_count

from cellbook.runs import device_name

COLUMNS = ["what", "value", "unit", "faster", "beside", "threads", "machine", "torch", "date"]


def add_option(parser: argparse.ArgumentParser, script: str) -> None:
    """Add ``--csv``: alone it writes the table beside the script, from where the book's page *Status* has it."""
    beside = Path(script).with_suffix(".csv")
    about = f"write the table into {beside.name} beside the script, or into FILE"
    parser.add_argument("--csv", type=Path, nargs="?", const=beside, metavar="FILE", help=about)


def machine(device: str = "cpu") -> str:
    """The device by name; of a CPU also how many cores this process may use, and whether it has bf16."""
    if device != "cpu":
        return device_name(device)
    able = torch.cpu.get_capabilities()
    bf16 = any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return f"{able.get('cpu_name', 'CPU')}, {cpu_count()} cores, {'with' if bf16 else 'without'} bf16"


def write(path: Path | None, rows: Iterable[Mapping[str, object]], device: str = "cpu", threads: int = 1) -> None:
    """Write rows of `what`, `value` and `unit`; `faster` is how many times as fast it is as what is `beside` it."""
    if path is None:
        return
    facts = {"threads": threads, "machine": machine(device), "torch": torch.__version__}
    table = pd.DataFrame([{**row, **facts, "date": f"{datetime.now(UTC):%Y-%m-%d}"} for row in rows])
    table = table.reindex(columns=COLUMNS)
    for name in ("value", "faster"):
        table[name] = table[name].map(lambda number: f"{number:.4g}", na_action="ignore")
    table.to_csv(path, index=False, lineterminator="\n")
