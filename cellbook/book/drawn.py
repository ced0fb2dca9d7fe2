"""The figures of an executed page: what was drawn, by which function of the package, and from which stored data."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PLOTS = "cellbook.figures"


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    `png` is in base 64, `functions` are those that drew it, such as "cellbook.figures.course.course", and `data` is the
    name of the table that it was drawn from, under `figures/` of the page's results; empty if none was kept.
    """

    cell: dict[str, Any]
    alt: str
    caption: str
    png: str
    functions: tuple[str, ...]
    data: str


def figures(notebook: dict[str, Any]) -> Iterator[Figure]:
    """Figures of an executed notebook (as read from JSON), in order."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = imported("\n".join(text(cell) for cell in code))
    for cell in code:
        about = cell["metadata"].get("mystnb", {})
        pictures = [o["data"]["image/png"] for o in cell["outputs"] if "image/png" in o.get("data", {})]
        if pictures and "figure" in about:
            kept = re.search(r"\.figure\(\s*['\"]([\w-]+)", text(cell))
            alt, caption = about.get("image", {}).get("alt", ""), about["figure"].get("caption", "")
            found = tuple(dict.fromkeys(calls(text(cell), names)))
            yield Figure(cell, alt, caption, "".join(pictures[-1]).strip(), found, kept[1] if kept else "")


def text(cell: dict[str, Any]) -> str:
    """Source of a cell, which a notebook keeps in one piece or line by line."""
    return "".join(cell["source"])


def imported(source: str) -> dict[str, str]:
    """What each imported name stands for, with dots."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in nodes for alias in node.names}


def calls(source: str, names: dict[str, str]) -> Iterator[str]:
    """Functions of `cellbook.figures` that a cell calls, by the module that defines them."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        word = ast.unparse(node.func)
        first, _, rest = word.partition(".")
        full = names.get(first, "") + (f".{rest}" if rest else "")
        if full.startswith(f"{PLOTS}."):
            yield defined(full)


def defined(name: str) -> str:
    """A function by the module that defines it, where another one offers it, too; as it is if it is there no longer."""
    module, _, function = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError):
        return name
    return f"{found.__module__}.{found.__qualname__}"
