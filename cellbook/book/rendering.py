"""Rendering the pages by Jupyter Book, which runs none: as a site, as one PDF; and asking for what they link to."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cellbook.errors import CellbookError, some
from cellbook.files import write_atomically, write_text

PDF = "cellbook.pdf"  # in the folder of what is built
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 600
OPTIONS = (
    "--headless",
    "--no-sandbox",  # it reads nothing but these pages, and in a container it would not start
    "--disable-gpu",
    "--disable-background-networking",
    "--no-pdf-header-footer",
    "--virtual-time-budget=120000",  # milliseconds that scripts, which set the formulas, believe to have
)
ANSWER = re.compile(r"\d{3} ")  # of a server that is there, such as "404 Client Error"
PNG = struct.Struct(">8s8x2I")  # signature, width and height


def build(folder: Path, *, strict: bool = True, builder: str = "html") -> Path:
    """Run Jupyter Book on a folder, without executing anything, and return the first page."""
    words = ["--builder", builder, *(["-W", "-n", "--keep-going"] if strict else [])]
    code, log = run_jupyter_book(folder, words)
    index = folder / "_build" / builder / "index.html"
    if code or not index.exists():
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8"))
        found = re.findall(r"^.*(?:WARNING|ERROR).*$", text, flags=re.M) or text.strip().splitlines()[-1:]
        raise CellbookError(f"the book did not build; {log} has all of it: " + " | ".join(found[:5]))
    return index


def run_jupyter_book(folder: Path, words: list[str]) -> tuple[int, Path]:
    """Run Jupyter Book on a folder; its exit code, and the file with all that it says."""
    # Through the interpreter that runs this, whatever PATH holds; jupyter_book has no __main__.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "--all", str(folder)]
    log = folder / "_build" / "build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run([*command, *words], stdout=file, stderr=subprocess.STDOUT, check=False)
    return done.returncode, log


def broken_links(folder: Path) -> tuple[list[str], int]:
    """Ask for every address that the pages of a book link to: one sentence for each that does not answer as it should.

    Also returns how many there are. Needs a network.
    """
    code, log = run_jupyter_book(folder, ["--builder", "custom", "--custom-builder", "linkcheck"])
    answers = folder / "_build" / "linkcheck" / "output.json"
    if not answers.exists():
        raise CellbookError(f"links could not be checked (exit code {code}): {log} says why")
    found = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    asked = [link for link in found if link["status"] in ("broken", "working", "redirected", "timeout")]
    bad = [link for link in asked if link["status"] in ("broken", "timeout")]
    if bad and not any(link["status"] in ("working", "redirected") or ANSWER.match(link["info"]) for link in asked):
        raise CellbookError(f"none of the {len(asked)} addresses can be reached: asking for them needs a network")
    return [f"{link['filename']}: {link['uri']}: {link['info'] or link['status']}" for link in bad], len(asked)


# --- one file -------------------------------------------------------------------------------------------------------


def browser() -> str | None:
    """A browser that prints; None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def build_and_print(folder: Path) -> Path:
    """Build a book as a site, with all of it as one PDF where there is a browser, and return the first page."""
    if browser() is None:
        return build(folder)
    pdf = folder / "_build" / PDF
    with tempfile.TemporaryDirectory() as beside, ThreadPoolExecutor(1) as other:
        printed = other.submit(print_book, shutil.copytree(folder, Path(beside, folder.name)))
        pdf.parent.mkdir(exist_ok=True)
        pdf.touch()  # pages link to what will be there
        try:
            index = build(folder)
            shutil.copyfile(printed.result(), pdf)
        except BaseException:
            pdf.unlink()
            raise
    shutil.copyfile(pdf, index.parent / PDF)
    return index


def print_book(folder: Path) -> Path:
    """Build all pages of a book as one, print it, and return the PDF."""
    if browser() is None:
        raise CellbookError(f"a PDF is printed by a browser, and none of {', '.join(BROWSERS)} is installed")
    pdf = folder / "_build" / PDF
    print_page(on_paper(build(folder, builder="singlehtml")), pdf)
    shutil.rmtree(folder / "_build" / ".doctrees")  # what was read for one page has other links than for many
    return pdf


def print_page(pages: Path, pdf: Path) -> None:
    """Print a page in HTML; a PDF that lacks a figure of it is refused."""

    def write(path: Path) -> None:
        command = [str(browser()), *OPTIONS, f"--print-to-pdf={path}", pages.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode or not path.stat().st_size:
            raise CellbookError(f"{command[0]} did not print {pages}: {' '.join(done.stderr.split())[-300:]}")
        if lost := missing(pages, path):
            raise CellbookError(f"{len(lost)} figures are not in the PDF that {command[0]} printed: {some(lost)}")

    write_atomically(pdf, write)


def on_paper(index: Path) -> Path:
    """All pages as one for printing, from what Sphinx has made: beside its images, unfolded, without links to files."""
    made = next(
        index.parent.glob("*/index.html")
    )  # in the folder of the first page, though all addresses are from above
    text = made.read_text(encoding="utf-8").replace("<details", "<details open")
    pages = index.with_name("cellbook.html")
    write_text(pages, re.sub(r'(<a [^>]*?)href="(?!#|https?:)[^"]*"', r"\1", text))
    return pages


def missing(pages: Path, pdf: Path) -> list[str]:
    """Figures (PNG) of a page in HTML that a PDF printed from it has not, by their sizes in pixels."""
    held = re.findall(rb"/Subtype /Image\s*/Width (\d+)\s*/Height (\d+)", pdf.read_bytes())
    left: Counter[Any] = Counter((int(width), int(height)) for width, height in held)
    lost = []
    for name in dict.fromkeys(re.findall(r'<img[^>]* src="([^":]+\.png)"', pages.read_text(encoding="utf-8"))):
        file = pages.parent / name
        size = PNG.unpack(file.read_bytes()[: PNG.size])[1:] if file.exists() else None
        if not left[size]:
            lost.append(name)
        left[size] -= 1
    return lost
