"""The published algorithms, one package a paper, read beside it."""

import pkgutil
from importlib import import_module
from typing import Any

from cellbook.errors import CellbookError


def find_method(name: str) -> Any:
    """The module of a method that can be trained; an unknown name is an error that lists the known."""
    modules = {info.name for info in pkgutil.iter_modules(__path__)}
    module = import_module(f"{__name__}.{name}") if name in modules else None
    if not hasattr(module, "begin"):
        trainable = [other for other in sorted(modules) if hasattr(import_module(f"{__name__}.{other}"), "begin")]
        raise CellbookError(f"no method {name!r} that can be trained: there is {', '.join(trainable)}")
    return module
