"""A release: everything that is given to readers, in one folder with the checksum of each file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from cellbook.book import build, rendering
from cellbook.errors import CellbookError, some
from cellbook.files import put_folder, sha256, write_text, writing

SUMS, SITE, WEIGHTS = "SHA256SUMS", "site.zip", "weights.zip"


def make(root: Path, out: Path, pack: Callable[[Path], list[str]]) -> list[str]:
    """Write a release of the book, and return what it lacks, a sentence each.

    Parameters
    ----------
    root : the checkout
    out : folder of the release, which is made anew
    pack : writes the archive of weights to a path, and says what that lacks

    Raises
    ------
    CellbookError : if a page is stale, or a published number does not follow from what is stored.
    """
    if faults := build.verify(root / "book", code=True):
        raise CellbookError(
            f"no release: {len(faults)} faults, all of which `cellbook verify --code` has: {some(faults)}. Run these "
            "pages by the commands in the boxes at their top, and `cellbook publish` them"
        )
    lacking = [] if rendering.browser() else ["the PDF: there is no browser that could print it"]
    index = rendering.build_and_print(root)
    lacking += broken(root)
    new = out.with_name(f".{out.name}.new")
    with writing(out):
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        shutil.make_archive(str(new / SITE.removesuffix(".zip")), "zip", index.parent)
        for name in ("results.json", rendering.PDF):
            if (index.parent / name).exists():
                shutil.copyfile(index.parent / name, new / name)
        lacking += pack(new / WEIGHTS)
        sums = [f"{sha256(path)}  {path.name}\n" for path in sorted(new.iterdir())]
        write_text(new / SUMS, "".join(sums))
        put_folder(new, out)
    return lacking


def broken(root: Path) -> list[str]:
    """What is wrong with the addresses that the book links to, as far as it can be asked for."""
    try:
        return [f"a link: {sentence}" for sentence in rendering.broken_links(root)[0]]
    except CellbookError as error:
        return [f"the check of links: {error}"]
