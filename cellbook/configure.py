"""Configurations: by preset, from a stored record, and from the words of a command line."""

from __future__ import annotations

import typing
from dataclasses import fields, replace
from typing import Any

from cellbook.errors import CellbookError

C = typing.TypeVar("C")
WORDS = {"None": None, "true": True, "True": True, "false": False, "False": False}


def choose_preset(presets: dict[str, C], name: str) -> C:
    """The configuration of a preset; an unknown one is an error that lists the known."""
    if name not in presets:
        raise CellbookError(f"preset {name!r} is not known: use one of {', '.join(presets)}")
    return presets[name]


def restore(kind: type[C], values: dict[str, Any]) -> C:
    """The configuration of a stored run from the values in its record, where tuples stand as lists."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def configure(method: Any, given: dict[str, Any]) -> Any:
    """A method's configuration from words such as ``{"preset": "quick", "seed": "3"}``; unknown ones are refused."""
    given = dict(given)
    preset = given.pop("preset", "paper")
    if preset not in method.PRESETS:
        raise CellbookError(f"parameter 'preset' is one of {', '.join(method.PRESETS)}, got {preset!r}")
    hints = typing.get_type_hints(method.Config)
    known = {field.name: typing.get_args(hints[field.name]) or (hints[field.name],) for field in fields(method.Config)}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise CellbookError(f"no parameter {', '.join(unknown)}: there is preset, {', '.join(known)}")
    return replace(method.PRESETS[preset], **{name: _parse(name, known[name], word) for name, word in given.items()})


def _parse(name: str, kinds: tuple[type, ...], word: Any) -> Any:
    """Read a word as the first of its types that it fits; a value that is no word must have one of them."""
    readings = [WORDS.get(word, word)] if isinstance(word, str) else [word]
    for kind in (int, float):
        if kind in kinds and isinstance(word, str | int) and not isinstance(word, bool):
            try:
                readings.append(kind(word))
            except ValueError:
                continue
    for value in readings:
        if type(value) in kinds:
            return value
    allowed = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
    raise CellbookError(f"parameter {name!r} takes {allowed}, got {word!r}")
