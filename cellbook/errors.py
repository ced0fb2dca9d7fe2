"""The errors that Cellbook raises on purpose, and words that many of their messages share."""

import difflib
from collections.abc import Iterable


class CellbookError(ValueError):
    """Bad input, named: what is wrong, how many rows or files it touches, and how to mend it.

    The command line prints the message alone and exits with code 2; anything else that is raised is a bug.
    """


class DataNotFound(CellbookError):
    """Data that this machine does not have and could not fetch; the message says how to get them."""


class Stopped(SystemExit):
    """Work that was asked to stop and has kept how far it was; leaves with `code` and says how to go on."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[1])


def some(values: Iterable[object], n: int = 3) -> str:
    """Name up to `n` distinct values and count the rest."""
    distinct = list(dict.fromkeys(" ".join(str(value).splitlines()) for value in values))
    return ", ".join(distinct[:n]) + (f" and {len(distinct) - n} more" if len(distinct) > n else "")


def nearest(name: object, known: Iterable[str], otherwise: str) -> str:
    """Ask whether the known name that is most alike was meant; without one, say `otherwise`."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
