"""The command line, `cellbook --help`."""

from cellbook.cli.app import main

__all__ = ["main"]
