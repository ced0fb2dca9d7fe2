"""The errors that Cellbook raises on purpose."""


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
