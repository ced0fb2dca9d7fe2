"""What a page measured: tables, the data behind its figures, the runs it read, verdicts; and their verification.

While a notebook runs, a `Page` collects these in `<store>/pages/<page>/`. Publishing copies that folder, with the
runs' products, to `book/results/<page>/`, from where every table can be computed again without the data and without
a GPU: the page's module has a function ``evaluate(runs) -> {name: table}`` that `verify` calls a second time.
"""

from __future__ import annotations

import importlib
import io
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from cellbook import claims
from cellbook.files import read_json, sha256, write_json, write_text, writing
from cellbook.runs import Run, environment, run_key

TOLERANCE = 1e-9  # between a stored number and the same number computed again


class Page:
    """The results of one page, collected while its notebook runs.

    Parameters
    ----------
    name : the page, as in `notebooks/pages.yml`
    store : folder of the runs; the page's own folder is made anew inside it
    """

    def __init__(self, name: str, store: str | Path) -> None:
        self.name = name
        self.folder = Path(store) / "pages" / name
        self.runs: list[Run] = []
        with writing(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            (self.folder / "figures").mkdir(parents=True)

    def evaluate(self, *runs: Run) -> dict[str, pd.DataFrame]:
        """Measure the runs with the page's module, judge the claims, keep every table and return them by name."""
        self.runs = list(runs)
        tables = measure(self.name, self.runs)
        for name, table in tables.items():
            save_csv(table, self.folder / f"{name}.csv")
        self._record()
        return tables

    def figure(self, name: str, data: pd.DataFrame) -> None:
        """Keep the data that a figure was drawn from as `figures/<name>.csv`."""
        save_csv(data, self.folder / "figures" / f"{name}.csv")
        self._record()

    def _record(self) -> None:
        files = sorted(path for path in self.folder.rglob("*.csv"))
        record = {
            "page": self.name,
            "runs": {run.key: str(run.folder.resolve()) for run in self.runs},
            "environment": environment(),
            "files": {path.relative_to(self.folder).as_posix(): sha256(path) for path in files},
        }
        write_json(self.folder / "page.json", record)


def save_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV with every digit of its numbers."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def claims_path(page: str) -> Path:
    """The file with a page's published numbers and claims."""
    from cellbook.book.notebooks import page_entry, root

    return root() / "book" / "claims" / f"{page_entry(page)['notebook']}.yml"


def study_of(page: str) -> ModuleType:
    """The package under `cellbook/pages` whose `evaluate` measures a page and whose `PREDICATES` test its claims."""
    from cellbook.book.notebooks import page_entry

    return importlib.import_module(f"cellbook.pages.{page_entry(page)['notebook']}")


def measure(page: str, runs: list[Run]) -> dict[str, pd.DataFrame]:
    """All tables of a page: what its study measures, and the verdicts on published numbers and claims."""
    code = study_of(page)
    tables: dict[str, pd.DataFrame] = dict(code.evaluate(runs))
    published = claims.load(claims_path(page))
    screen = runs[0].record["config"]["screen"]  # of the page's own run; further ones stand beside it
    other = "" if screen == published["screen"] else f"measured on {screen}, not on the papers' data"
    tables["verdicts"] = claims.judge_numbers(published.get("numbers", []), tables["numbers"], other)
    tables["claims"], parts = claims.judge_claims(published.get("claims", []), code.PREDICATES, tables["numbers"])
    if len(parts):
        tables["evidence"] = parts
    return tables


def differences(stored: str, fresh: pd.DataFrame, what: str, limit: int = 3) -> list[str]:
    """How a stored CSV text differs from the same table computed again: one sentence a column, at most `limit`."""
    if fresh.empty and not stored.strip():  # a page without published numbers has no verdicts on any
        return []
    old = pd.read_csv(io.StringIO(stored))
    new = pd.read_csv(io.StringIO(fresh.to_csv(index=False)))
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        sizes = [f"{len(table)} rows of {', '.join(table.columns)}" for table in (old, new)]
        return [f"{what}: stored {sizes[0]}; computed {sizes[1]}"]
    found = []
    for column in old.columns:
        left, right = old[column], new[column]
        if all(pd.api.types.is_numeric_dtype(side) and side.dtype != bool for side in (left, right)):
            equal = ((left - right).abs() <= TOLERANCE) | (left.isna() & right.isna())
        else:
            equal = (left == right) | (left.isna() & right.isna())
        if not equal.all():
            row = int((~equal).to_numpy().argmax())
            found.append(f"{what}, row {row + 1}, {column}: stored {left.iloc[row]}, computed {right.iloc[row]}")
    return found[:limit]


def verify_page(folder: Path) -> list[str]:
    """Recompute every table of a published page from its stored products; return what does not agree."""
    record: dict[str, Any] = read_json(folder / "page.json")
    name = record["page"]
    faults = []
    for file, expected in record["files"].items():
        path = folder / file
        if not path.exists():
            faults.append(f"{name}: {file} is missing")
        elif sha256(path) != expected:
            faults.append(f"{name}: {file} has other bytes than when it was published")
    runs = [Run(folder / "runs" / key) for key in record["runs"]]
    for run in runs:
        faults += [f"{name}: {damage}" for damage in run.damage()]
        stored = run.record
        if run.key != run_key(stored["method"], stored["method_version"], stored["config"], stored["fingerprint"]):
            faults.append(f"{name}: {run.key} does not follow from its method, version, configuration and data")
        if sha256(run.folder / "run.json") != record["run_records"].get(run.key):
            faults.append(f"{name}: {run.key}/run.json has other bytes than when it was published")
    try:
        tables = measure(name, runs)
    except Exception as error:
        return [*faults, f"{name}: cannot be computed again from its products ({error})"]
    for table_name, table in tables.items():
        path = folder / f"{table_name}.csv"
        if path.exists():
            faults += differences(path.read_text(encoding="utf-8"), table, f"{name}: {table_name}.csv")
        else:
            faults.append(f"{name}: {table_name}.csv is missing")
    return faults
