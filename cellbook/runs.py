"""A run: method, configuration, data fingerprint and method version in; products in a folder of their own out.

The four together are the run's key, so a run that was made on another machine is found again by whoever asks for
the same thing, and nothing that is already there is computed twice. The device is recorded but is not in the key.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cellbook.errors import CellbookError
from cellbook.files import alone, digest, put_folder, read_json, sha256, write_atomically, write_json, writing
from cellbook.machine import PeakMemory, give_back

log = logging.getLogger(__name__)

# The packages whose version can change a number.
VERSIONED = ("torch", "numpy", "scipy", "pandas", "scikit-learn", "scikit-image", "copairs", "openTSNE", "POT")
# Of a field (its `metadata`) that came after runs of its configuration were published: see `known_by`.
ADDED = {"added": True}
UNVERIFIED = (".safetensors",)  # weights are an optional product: large, and no number is recomputed from them


@dataclass(frozen=True)
class Run:
    """A finished run: the folder that holds its products and their record, `run.json`."""

    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        """What is in `run.json`: the key and its four parts, products with checksums, device, times, versions.

        `peak_memory_mib` is the peak memory of all processes together, of which there were at most `processes` at a
        time; records without `processes` are older and tell only of the process that made the run.
        """
        return dict(read_json(self.folder / "run.json"))

    @property
    def key(self) -> str:
        """Method and twelve hexadecimal digits, for example ``classical-3f2a91c04be7``."""
        return self.folder.name

    def path(self, name: str) -> Path:
        """Path of the product `name`; an error if the run has none of that name."""
        path, known = self.folder / name, self.products()
        if not path.exists():
            lost = "has lost its" if name in known else "has no"
            held = ", ".join(other for other in known if (self.folder / other).exists())
            raise CellbookError(f"run {self.key} {lost} product {name!r}: {self.folder} holds {held or 'none'}")
        return path

    def products(self) -> list[str]:
        """Names of the products, sorted."""
        return sorted(self.record["products"])

    def table(self, name: str) -> pd.DataFrame:
        """The product `name` as a table."""
        return pd.read_parquet(self.path(f"{name}.parquet"))

    def fault(self) -> str | None:
        """What keeps the folder from being a finished run, None if nothing does; sizes alone are compared."""
        try:
            for name, entry in self.record["products"].items():
                path = self.folder / name
                if not path.is_file():
                    return f"its product {name} is missing"
                if path.stat().st_size != entry["bytes"]:
                    return f"its product {name} has {path.stat().st_size} bytes, not {entry['bytes']}"
        except (CellbookError, OSError, KeyError, TypeError, ValueError, AttributeError):
            return f"its record {self.folder / 'run.json'} is missing or cannot be read"
        return None

    def damage(self) -> list[str]:
        """One sentence a product that is missing or whose bytes are not those that the run wrote."""
        found = []
        for name, entry in self.record["products"].items():
            path = self.folder / name
            if not path.exists():
                if not name.endswith(UNVERIFIED):
                    found.append(f"{self.key}: product {name} is missing")
            elif sha256(path) != entry["sha256"]:
                found.append(f"{self.key}: product {name} has other bytes than the run wrote")
        return found


def run_key(method: str, method_version: int, config: dict[str, Any], fingerprint: str) -> str:
    """Key of a run: the method's name and a digest of everything that decides what comes out."""
    return f"{method}-{digest([method, method_version, config, fingerprint])[:12]}"


def known_by(config: Any) -> dict[str, Any]:
    """The part of a configuration in the key of a run: all fields, but those with `ADDED` that have their default."""
    values = asdict(config)
    for one in fields(config):
        if one.metadata.get("added") and getattr(config, one.name) == one.default:
            del values[one.name]
    return values


def table_fingerprint(table: pd.DataFrame) -> str:
    """Digest of a table's column names and values, independent of how it is stored."""
    hashes = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return digest([list(map(str, table.columns)), hashes.tobytes().hex()])[:32]


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a product table as Parquet, atomically and in few bytes.

    Numbers that hardly repeat would only grow by a dictionary: they are laid out byte by byte, as their first bytes
    are much alike.
    """
    various = [name for name in table.select_dtypes("floating") if 2 * table[name].nunique() > len(table)]
    how: dict[str, Any] = {"use_dictionary": [name for name in table if name not in various]}
    how |= {"use_byte_stream_split": various, "write_statistics": False, "store_schema": False}
    how |= {"compression": "zstd", "compression_level": 9}
    write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False, **how))


def obtain(
    store: str | Path,
    method: str,
    method_version: int,
    config: Any,
    fingerprint: str,
    make: Callable[[Path], Any],
    *,
    device: str = "cpu",
    force: bool = False,
) -> Run:
    """Return the run of this key from `store`, making it only if it is not there or damaged.

    Of several processes that ask for one run at once, one makes it and the others wait for it and take it.

    Parameters
    ----------
    store : folder that holds one folder a run
    method, method_version : name of the method and the number that rises when its results change
    config : frozen dataclass or dict; its values are part of the key, see `known_by`
    fingerprint : digest of the data the run sees
    make : writes the products into the folder it is given. Files named `checkpoint...` outlive a killed process, so
        `make` may find its own there and go on from them; whatever else was left is removed. What it returns, such as
        the precision it computed in, is recorded beside the device, not part of the key.
    device : recorded, not part of the key
    force : make it anew although it is there
    """
    config = known_by(config) if is_dataclass(config) and not isinstance(config, type) else dict(config)
    key = run_key(method, method_version, config, fingerprint)
    folder = Path(store) / key
    run, partial = Run(folder), folder.with_name(f"{key}.partial")
    if not force and run.fault() is None:
        return run
    with alone(folder) as waited:
        if force and not waited:  # what another process has made meanwhile is new enough
            shutil.rmtree(partial, ignore_errors=True)
        elif run.fault() is None:
            return run
        elif Run(partial).fault() is None:  # the process that made it was killed before it could move it
            put_folder(partial, folder)
            return run
        elif folder.exists():
            log.warning("run %s is damaged (%s) and is made anew", key, run.fault())
        with writing(partial):
            partial.mkdir(parents=True, exist_ok=True)
            _keep_checkpoints(partial)
        started, clock = datetime.now(UTC), time.perf_counter()
        with PeakMemory() as memory:
            try:
                told = make(partial)
            except BaseException:
                with suppress(OSError):  # what was refused before it wrote anything leaves no folder
                    partial.rmdir()
                raise
        give_back()  # to the one that is made next to this process
        facts = told if isinstance(told, dict) else {}
        names = sorted(path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file())
        names = [name for name in names if not name.startswith("checkpoint")]
        record = {
            "key": key,
            "method": method,
            "method_version": method_version,
            "config": config,
            "fingerprint": fingerprint,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 1),
            **environment(device),
            **memory.record,
            **facts,
            "products": {
                name: {"sha256": sha256(partial / name), "bytes": (partial / name).stat().st_size} for name in names
            },
        }
        write_json(partial / "run.json", record)
        put_folder(partial, folder)
    return run


def _keep_checkpoints(partial: Path) -> None:
    """Remove what a killed process has left of its products."""
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith("checkpoint"):
            path.unlink()


def obtain_page(
    store: str | Path,
    method: str,
    method_version: int,
    config: Any,
    fingerprint: str,
    make: Callable[[Path, str], Any],
    *,
    device: str = "auto",
    force: bool = False,
) -> Run:
    """`obtain` for a page whose configuration names a screen; `make` gets the folder and the device.

    A screen that is a folder of the reader's own is known by its name and its content; where it lies decides nothing.
    Linear algebra runs in one thread, as on small matrices more of them only wait for each other.
    """
    on = choose_device(device)

    def in_one_thread(folder: Path) -> Any:
        with threadpool_limits(1, user_api="blas"):
            return make(folder, on)

    named = replace(config, screen=Path(config.screen).name)
    return obtain(store, method, method_version, named, fingerprint, in_one_thread, device=on, force=force)


def environment(device: str = "cpu") -> dict[str, Any]:
    """Where a computation happened: device, commit, Python, package versions."""
    return {
        "device": device_name(device),
        "commit": commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": package_versions(),
    }


@cache
def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def choose_device(device: str = "auto") -> str:
    """Resolve "auto" to "cuda" where there is one, else "cpu"; refuse a device that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if not device.startswith(("cpu", "cuda")):  # torch knows more, of which none trains here
            raise RuntimeError(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CellbookError(f"device {device!r} is not available here: use 'cpu', 'cuda' or 'auto'") from error
    return device


def device_name(device: str) -> str:
    """Readable name of a device for the stamp."""
    if not device.startswith("cuda"):
        return "CPU"
    import torch

    return torch.cuda.get_device_name(device)


@cache
def commit() -> str:
    """Short commit of the checkout, "+" behind it if tracked files differ from it.

    Outside of a checkout what the variable CELLBOOK_COMMIT says, or "unknown".
    """
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", "../notebooks")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("CELLBOOK_COMMIT", "unknown")


def ledger(*stores: str | Path) -> pd.DataFrame:
    """One row a finished run in the given stores: key, method, configuration, data, device, time, versions."""
    rows = []
    for store in stores:
        for path in sorted(Path(store).glob("**/run.json")):
            if path.parent.suffix in (".partial", ".old"):
                continue
            try:
                record = read_json(path)
                rows.append({**record, "folder": str(path.parent), "products": len(record["products"])})
            except (CellbookError, KeyError, TypeError):
                log.warning("left out: %s cannot be read; whoever asks for its run makes it anew", path)
    return pd.DataFrame(rows).drop_duplicates("key") if rows else pd.DataFrame(columns=["key", "method", "folder"])


def seeds(seed: int, repeats: int) -> list[int]:
    """Seeds of the repeats: `seed`, `seed` + 1, and so on."""
    if repeats < 1:
        raise CellbookError(f"repeats must be at least 1, got {repeats}")
    return [seed + repeat for repeat in range(repeats)]


def show_progress() -> bool:
    """Whether to draw progress bars: only in a terminal, never in a page."""
    return sys.stderr.isatty() and "ipykernel" not in sys.modules


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone: killed, that one cannot end it."""
    parent = parent_process()
    if parent is not None:
        Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def to_float32(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its float columns in single precision, for storage; but a dose names its treatment."""
    names = [name for name in table.select_dtypes("float64").columns if not str(name).startswith("Metadata_")]
    return table.astype(dict.fromkeys(names, np.float32))
