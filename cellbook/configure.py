"""Configurations: by preset, from a stored record, and from the words of a command line."""

from __future__ import annotations

import re
import types
import typing
from dataclasses import fields, replace
from typing import Any

from cellbook.errors import CellbookError

C = typing.TypeVar("C")
SEEDS = 2**31  # every generator takes seeds below this
WORDS = {"none": None, "true": True, "yes": True, "false": False, "no": False}
INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def choose_preset(presets: dict[str, C], name: str) -> C:
    """The configuration of a preset; an unknown one is an error that lists the known."""
    if name not in presets:
        raise CellbookError(f"preset {name!r} is not known: use one of {', '.join(presets)}")
    return presets[name]


def restore(kind: type[C], values: dict[str, Any]) -> C:
    """The configuration of a stored run from the values in its record, where tuples stand as lists."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def configure(method: Any, given: dict[str, Any]) -> Any:
    """A method's configuration from words such as ``{"preset": "quick", "seed": "3"}``; unknown ones are refused.

    Without a preset its defaults are taken, which are the paper's where there is one.
    """
    given = dict(given)
    default = choose_preset(method.PRESETS, given.pop("preset")) if "preset" in given else method.Config()
    hints = typing.get_type_hints(method.Config)
    known = {field.name: _kinds(hints[field.name]) for field in fields(method.Config)}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise CellbookError(f"no parameter {', '.join(unknown)}: there is preset, {', '.join(known)}")
    return replace(default, **{name: read_value(name, v, *known[name]) for name, v in given.items()})


def read_value(name: str, given: Any, *kinds: type) -> Any:
    """The value of a parameter, as one of its types.

    A word is read as the first of these that is among the types: "none"; "true" or "yes", "false" or "no", in capitals
    or not; digits as an integer, so that 010 is 10; a decimal number such as 2, .5 or 1e-3 as a float; the word itself.
    What is no word must have one of the types, but a whole number may stand for a float. A seed is one that every
    generator takes.
    """
    readings = [given]
    if isinstance(given, str):
        readings = [WORDS[given.lower()]] if given.lower() in WORDS else []
        readings += [kind(given) for kind, form in ((int, INTEGER), (float, DECIMAL)) if form.fullmatch(given)]
        readings.append(given)
    elif type(given) is int:
        readings.append(float(given))
    for value in readings:
        if type(value) in kinds:
            if name == "seed" and not 0 <= value < SEEDS:
                raise CellbookError(f"parameter 'seed' takes a whole number from 0 to {SEEDS - 1}, got {value}")
            return value
    allowed = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
    raise CellbookError(f"parameter {name!r} takes {allowed}, got {given!r}")


def _kinds(hint: Any) -> tuple[type, ...]:
    """Types of a field by its annotation: those of a union, or of the values of a Literal."""
    if typing.get_origin(hint) is typing.Literal:
        return tuple({type(value) for value in typing.get_args(hint)})
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return typing.get_args(hint)
    return (typing.get_origin(hint) or hint,)
