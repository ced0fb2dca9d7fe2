"""`python -m cellbook.cli`."""

from cellbook.cli.app import main

main()
