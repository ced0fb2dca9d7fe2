"""What is kept of the trainings behind the published pages: the record of each, and how its losses began and ended.

Weights and codes are large and stay in the store of whoever trained them.  Their records are small, and are published
with the page: with them a reader sees how a model was trained, and can tell whether weights are those that it has.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cellbook.book import notebooks
from cellbook.files import read_json, write_text
from cellbook.runs import Run, run_key

TRAINED = "trainings.json"  # beside the results of a page
LAST = 3  # lines of a history that are kept, beside its first
WEIGHTS = "weights.safetensors"


def table(folder: Path) -> pd.DataFrame:
    """Trainings of a published page as its runs tell of them, one row a training; `run` is the run that tells."""
    tables = [
        pd.read_parquet(path).assign(run=path.parent.name) for path in sorted(folder.glob("runs/*/trainings.parquet"))
    ]
    return pd.concat(tables, ignore_index=True).drop_duplicates("key") if tables else pd.DataFrame()


def names(trainings: pd.DataFrame) -> pd.Series:
    """What a page calls each of its trainings: its variant, or the profiles that were aligned."""
    return trainings["variant" if "variant" in trainings else "source"].astype(str)


def behind(folder: Path) -> dict[str, str]:
    """The first training of each name that the tables of a page use, also where it is another page's."""
    told = table(folder)
    found = dict(zip(names(told)[::-1], told["key"][::-1], strict=True)) if len(told) else {}
    for path in sorted(folder.glob("runs/*/compared.parquet")):
        rows = pd.read_parquet(path, columns=["variant", "training"])
        found |= {name: key for name, key in rows.itertuples(index=False) if key}
    return found


def kept(folder: Path) -> dict[str, dict[str, Any]]:
    """The kept records of a page's trainings, by key; `losses` are lines of the history, with the step of each."""
    path = folder / TRAINED
    return dict(read_json(path)) if path.exists() else {}


def keep(folder: Path, stores: Iterable[Path], before: dict[str, dict[str, Any]] | None = None) -> None:
    """Write the records of a page's trainings: of those that a store has, and of others what was kept before."""
    found = {}
    for key in table(folder).get("key", ()):
        runs = [run for run in (Run(store / key) for store in stores) if (run.folder / "run.json").is_file()]
        if runs:
            found[key] = runs[0].record | {"losses": ends(runs[0].folder / "history.parquet")}
        elif key in (before or {}):
            found[key] = (before or {})[key]
    if found:  # a training a line, so that a change shows as one
        lines = (f"{json.dumps(key)}: {json.dumps(record, ensure_ascii=False)}" for key, record in found.items())
        write_text(folder / TRAINED, "{\n" + ",\n".join(lines) + "\n}\n")


def ends(path: Path) -> list[dict[str, float]]:
    """First and last lines of a history of losses, without what is not measured there; none where there is no file."""
    if not path.is_file():
        return []
    history = pd.read_parquet(path)
    shown = pd.concat([history[:1], history[max(1, len(history) - LAST) :]])
    shown = shown.select_dtypes("number")
    return [{name: float(f"{v:.6g}") for name, v in row.items() if v == v} for row in shown.to_dict("records")]


def faults(folder: Path) -> list[str]:
    """One sentence for each kept record that does not follow from its parts, or that the page's runs tell otherwise."""
    told, found = table(folder), []
    known = told.set_index("key")["seconds"] if len(told) else pd.Series(dtype=float)
    for key, record in kept(folder).items():
        parts = record["method"], record["method_version"], record["config"], record["fingerprint"]
        if not key == record["key"] == run_key(*parts):
            found.append(
                f"{folder.name}: {TRAINED}: {key} does not follow from its method, version, configuration, data"
            )
        if key not in known or abs(known[key] - record["seconds"]) > 1e-3:
            found.append(f"{folder.name}: {TRAINED}: {key} is not a training that the page's runs tell of")
    return found


def checksums(folders: Iterable[Path]) -> str:
    """SHA-256 of the weights of all published trainings whose record is kept, in the form of `sha256sum`."""
    found = {key: weights(record) for folder in folders for key, record in kept(folder).items()}
    return "".join(f"{checksum}  {key}.safetensors\n" for key, checksum in found.items() if checksum)


def weights(record: dict[str, Any]) -> str:
    """SHA-256 of the weights of a training, from its record; empty where none were kept, or no record."""
    return str(record.get("products", {}).get(WEIGHTS, {}).get("sha256", ""))


def address(what: str = "weights") -> str:
    """Where the archive of weights, or what else is named, is offered: its `url` in `_config.yml`; else empty."""
    path = notebooks.root() / "_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return str(((config or {}).get(what) or {}).get("url") or "")


def command(record: dict[str, Any]) -> str:
    """The command that trains a model alone, on a saved set of its cells; empty where a value is no word."""
    default = importlib.import_module(f"cellbook.methods.{record['method']}").Config()
    words = [f"cellbook train {record['method']} --cells CELLS"]
    for name, value in record["config"].items():
        if name == "course":  # pictures of the way, which only a page asks for
            continue
        usual = getattr(default, name)
        if value == (list(usual) if isinstance(usual, tuple) else usual):
            continue
        if isinstance(value, list | dict):
            return ""
        words.append(f"-p {name}={value}")
    return " ".join(words)
