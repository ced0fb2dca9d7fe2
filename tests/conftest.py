"""What all tests share: real data where it is, a planted screen everywhere; no network, no display, few threads."""
# ruff: noqa: E402

import os
import shutil
import sys

# Before numpy and torch are imported: on a busy machine a second thread makes small matrices ten times slower.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ["CELLBOOK_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from cellbook.cli import main
from cellbook.errors import CellbookError
from cellbook.screens import bbbc021, locate
from cellbook.screens.planted import planted_wells

TABLES = (bbbc021.IMAGE_TABLE, bbbc021.MOA_TABLE, bbbc021.LJOSA_TABLE)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _no_data() -> str | None:
    """Why the real tables cannot be used here, if they cannot."""
    try:
        missing = [name for name in TABLES if not locate.is_local(name)]
    except CellbookError as error:
        return str(error)
    return f"the real data is not on this machine: {', '.join(missing)}" if missing else None


def _no_browser() -> str | None:
    return None if any(map(shutil.which, BROWSERS)) else f"none of {', '.join(BROWSERS)} is installed"


def _no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose marker names something that this machine lacks."""
    for marker, reason_of in {"data": _no_data, "browser": _no_browser, "gpu": _no_gpu}.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = reason_of() if marked else None
        if reason:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data (it holds ``bbbc021/metadata``, ``bbbc021/crops``, ...); skips where there is none."""
    reason = _no_data()
    if reason:
        pytest.skip(reason)
    table = locate.find(bbbc021.IMAGE_TABLE)
    folder = table.parents[2] if len(table.parents) > 2 else table.parent
    if not (folder / "bbbc021" / "crops").is_dir():
        pytest.skip(f"{table.parent} holds tables but {folder} no bbbc021/crops")
    return folder


@pytest.fixture(scope="session")
def ljosa() -> pd.DataFrame:
    """Published profiles, 632 wells x 464 features; skips where they are absent. Shared: do not change it."""
    reason = _no_data()
    if reason:
        pytest.skip(reason)
    return bbbc021.ljosa2013()


@pytest.fixture(scope="session")
def planted() -> pd.DataFrame:
    """Planted screen with default effects, 639 wells x 60 features. Shared: do not change it."""
    return planted_wells()


@pytest.fixture
def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `main` on some words as the console script does; returns exit code, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cellbook", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch while a test runs: on a busy machine more of them make small matrices slow."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
