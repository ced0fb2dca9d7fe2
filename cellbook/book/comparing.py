"""Two runs, or two executions of a page, beside each other: what they were made with, what was measured, figures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook.book import drawn
from cellbook.claims import KEYS
from cellbook.errors import CellbookError
from cellbook.files import read_json
from cellbook.runs import Run

SAME = 1e-9  # numbers that differ by less are the same
SHOWN = 20  # numbers that a terminal shows
ENVIRONMENT = ("device", "system", "commit", "python", "precision", "started", "executed", "source", "code")
COST = ("seconds", "wall_seconds", "peak_memory_mib")


@dataclass(frozen=True)
class Side:
    """One of two that are compared.

    `settings` are parameters, configuration, version and data; `numbers` has the columns `claims.KEYS`, value, low and
    high, and is empty where nothing is measured of a run alone.
    """

    name: str
    settings: dict[str, str]
    environment: dict[str, str]
    numbers: pd.DataFrame
    products: dict[str, Path] = field(default_factory=dict)
    figures: list[drawn.Figure] = field(default_factory=list)


def find(name: str, store: Path, book: Path) -> Path:
    """Folder of a run or of an executed page: the folder itself, a page of the book, or the key of a run.

    A key is looked for in the store and among the published runs.
    """
    places = [Path(name), book / "results" / name, store / name, *sorted((book / "results").glob(f"*/runs/{name}"))]
    for place in places:
        if (place / "run.json").is_file() or (place / "page.json").is_file():
            return place
    raise CellbookError(
        f"no run {name!r}: give a folder that holds run.json or page.json, a page of the book, or the key of a run that"
        f" is published or in {store}; `cellbook results` lists them"
    )


def read(folder: Path, store: Path, book: Path) -> Side:
    """What is kept of a run or of an executed page."""
    return read_run(Run(folder), store, book) if (folder / "run.json").is_file() else read_page(folder, book)


def read_run(run: Run, store: Path, book: Path) -> Side:
    """A run; its numbers and figures are those of a page that was executed from it, published or in the store."""
    record = run.record
    settings = {"method": record["method"], "version": record["method_version"], "data": record["fingerprint"]}
    products = {name: run.folder / name for name in run.products() if (run.folder / name).is_file()}
    side = Side(run.key, words(settings | record["config"]), surroundings(record), no_numbers(), products)
    for stamp in (*sorted((book / "results").glob("*/stamp.json")), *sorted(store.glob("pages/*/stamp.json"))):
        if run.key in [used["key"] for used in read_json(stamp)["runs"]]:
            page = read_page(stamp.parent, book)
            return replace(side, numbers=page.numbers, figures=page.figures)
    return side


def no_numbers() -> pd.DataFrame:
    """A table of numbers without rows."""
    return pd.DataFrame(columns=[*KEYS, "value", "low", "high"])


def read_page(folder: Path, book: Path) -> Side:
    """An executed page, in a folder of runs or published."""
    if not (folder / "stamp.json").is_file():
        raise CellbookError(f"{folder} holds no finished execution of a page: run it to its end")
    stamp, page = read_json(folder / "stamp.json"), folder.name
    settings: dict[str, Any] = dict(stamp["parameters"])
    for run in stamp["runs"]:
        about = {"run": run["key"], "data": run["fingerprint"], **run["config"]}
        settings |= {f"{run['method']}: {name}": value for name, value in about.items()}
    copies = [folder / f"{page}.ipynb", book / "papers" / f"{page}.ipynb"]
    notebook = next((path for path in copies if path.is_file()), None)
    figures = list(drawn.figures(read_json(notebook))) if notebook else []
    numbers = pd.read_csv(folder / "numbers.csv")[[*KEYS, "value", "low", "high"]]
    return Side(page, words(settings), surroundings(stamp), numbers, figures=figures)


def words(values: dict[str, Any]) -> dict[str, str]:
    """Values as text."""
    return {name: ", ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in values.items()}


def surroundings(record: dict[str, Any]) -> dict[str, str]:
    """Where something was made, and what it took."""
    found = {name: record[name] for name in (*ENVIRONMENT, *COST) if name in record}
    return words(found | record.get("versions", {}))


# --- what differs ---------------------------------------------------------------------------------------------------


def unlike(one: dict[str, str], other: dict[str, str]) -> pd.DataFrame:
    """Entries that two have not in common, one row each: name, one, other; a dash where one of them has none."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    rows = [(name, one.get(name, "–"), other.get(name, "–")) for name in names]
    return pd.DataFrame(rows, columns=["", "one", "other"])


def compare(one: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str] = ("one", "other")) -> pd.DataFrame:
    """Numbers of two beside each other.

    Returns
    -------
    DataFrame
        `claims.KEYS`; value, low and high of each with its name behind; `difference`, the first less the second; and
        `intervals`: "overlap", "apart", or a dash where one of them has none.
    """
    suffixes = tuple(f"_{name}" for name in names)
    columns = [*KEYS, "value", "low", "high"]
    both = one[columns].merge(other[columns], on=KEYS, how="outer", suffixes=suffixes, validate="one_to_one")
    bounds = both[[f"{end}{suffix}" for end in ("low", "high") for suffix in suffixes]].to_numpy(dtype=float)
    meet = (bounds[:, 0] <= bounds[:, 3]) & (bounds[:, 1] <= bounds[:, 2])
    told = np.where(np.isnan(bounds).any(axis=1), "–", np.where(meet, "overlap", "apart"))
    return both.assign(difference=both[f"value{suffixes[0]}"] - both[f"value{suffixes[1]}"], intervals=told)


def in_brief(numbers: pd.DataFrame) -> str:
    """How many numbers two have in common, how many differ, and of how many the intervals are apart."""
    both = int(numbers["difference"].notna().sum())
    differ = numbers["difference"].abs() > SAME
    if not differ.any():
        return f"{both} numbers are in both; 0 of them differ."
    apart = int((differ & (numbers["intervals"] == "apart")).sum())
    most = numbers["difference"].abs().max()
    return (
        f"{both} numbers are in both; {differ.sum()} of them differ, by at most {most:.4f}; "
        f"the intervals of {apart} of these do not overlap."
    )


def moved(numbers: pd.DataFrame) -> pd.DataFrame:
    """The numbers of `compare` that differ: those whose intervals are apart first, the largest differences before."""
    rows = numbers[(numbers["difference"].abs() > SAME) | numbers["difference"].isna()]
    order = rows.assign(size=rows["difference"].abs()).sort_values(["intervals", "size"], ascending=[True, False])
    return order.drop(columns="size").round(6)


def products(one: Side, other: Side) -> pd.DataFrame:
    """Products that both have: the same bytes, or how many values of a table differ and by how much at most."""
    rows = []
    for name in sorted(one.products.keys() & other.products.keys()):
        a, b = one.products[name], other.products[name]
        same = a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes()
        rows.append((name, "the same" if same else difference(a, b)))
    return pd.DataFrame(rows, columns=["product", "difference"])


def difference(one: Path, other: Path) -> str:
    """How two files of the same name differ, in words."""
    if one.suffix != ".parquet":
        return "other bytes"
    a, b = pd.read_parquet(one), pd.read_parquet(other)
    if list(a.columns) != list(b.columns) or len(a) != len(b):
        return f"{len(a)} rows of {a.shape[1]} columns; {len(b)} rows of {b.shape[1]}"
    unequal = sum(int(((a[name] != b[name]) & ~(a[name].isna() & b[name].isna())).sum()) for name in a)
    numeric = a.select_dtypes("number").columns
    gaps = [float((a[name].astype(float) - b[name].astype(float)).abs().max()) for name in numeric]
    return f"{unequal:,} of {a.size:,} values, by at most {np.nanmax([0.0, *gaps]):.3g}"


# --- shown ----------------------------------------------------------------------------------------------------------


def report(one: Side, other: Side) -> str:
    """The comparison for a terminal."""
    parts = []
    for title, table in tables(one, other):
        parts.append(title)
        if len(table):
            shown = table.head(SHOWN).to_string(index=False, max_colwidth=60)
            parts.append(shown + (f"\n... and {len(table) - SHOWN} more" if len(table) > SHOWN else ""))
    return "\n\n".join(parts)


def tables(one: Side, other: Side) -> list[tuple[str, pd.DataFrame]]:
    """What differs, each table with its heading; numbers whose intervals are apart come first."""
    found = []
    for title, of in (("Parameters", "settings"), ("Environment", "environment")):
        here, there = getattr(one, of), getattr(other, of)
        rows = unlike(here, there)
        found.append((f"{title}: {len(rows)} of {len({**here, **there})} differ.", rows))
    if len(one.numbers) and len(other.numbers):
        numbers = compare(one.numbers, other.numbers)
        found.append((in_brief(numbers), moved(numbers)))
    else:
        found.append(("No numbers are measured of both.", no_numbers()))
    if one.products and other.products:
        rows = products(one, other)
        found.append((f"{len(rows)} products are in both, {(rows['difference'] != 'the same').sum()} differ.", rows))
    return found


def page(one: Side, other: Side, titles: tuple[str, str] | None = None) -> str:
    """The comparison as an HTML page that needs no other file: all that differs, and figures side by side."""
    first, second = map(escape, titles or (one.name, other.name))
    parts = [f"<h1>{first} beside {second}</h1>", f"<p><em>One</em> is {first}, <em>other</em> is {second}.</p>"]
    for title, table in tables(one, other):
        parts.append(f"<h2>{escape(title)}</h2>")
        if len(table):
            parts.append(f'<div class="wide">{table.to_html(index=False, border=0, na_rep="–")}</div>')
    theirs = {figure.alt: figure for figure in other.figures}
    pairs = [(figure, theirs[figure.alt]) for figure in one.figures if figure.alt in theirs]
    unequal = [(a, b) for a, b in pairs if a.png != b.png]
    if pairs:
        parts.append(f"<h2>{len(pairs)} figures are in both, {len(unequal)} differ.</h2>")
    for a, b in unequal:
        parts.append(f'<div class="pair">{picture(a, first)}{picture(b, second)}</div><p>{escape(a.caption)}</p>')
    return (
        f"<!DOCTYPE html>\n<html lang=en>\n<head><meta charset=utf-8><title>{first} beside {second}</title>{STYLE}"
        f"</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def picture(figure: drawn.Figure, name: str) -> str:
    """A figure in HTML, under the name of its side."""
    return (
        f'<figure><figcaption>{name}</figcaption><img src="data:image/png;base64,{"".join(figure.png.split())}" '
        f'alt="{escape(figure.alt, quote=True)}"></figure>'
    )


STYLE = """<style>
body { font: 16px/1.4 sans-serif; margin: 2rem; color: #222; background: #fff; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.6rem; border-bottom: 1px solid #ccc; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin-top: 2rem; }
.pair figure { margin: 0; }
.pair img { max-width: 100%; }
</style>"""
