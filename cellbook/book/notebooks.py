"""Notebooks of the book: their typed parameters, execution with papermill, and what is cleaned before a page is shown.

`notebooks/<name>.md` (MyST) is the source that people edit; `notebooks/<name>.ipynb` beside it is the same without
outputs, for plain papermill. An executed copy goes elsewhere and never back into the pair.
"""

from __future__ import annotations

import ast
import base64
import io
import logging
import math
import os
import re
import shutil
import sys
import tempfile
import time
import tokenize
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import yaml

from cellbook.configure import read_value
from cellbook.errors import CellbookError, DataNotFound
from cellbook.files import digest, write_text

if typing.TYPE_CHECKING:
    from nbformat import NotebookNode

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
TYPES = {"str": str, "int": int, "float": float, "bool": bool}
MAX_OUTPUT_LINES = 60
MAX_COLOURS = 1 << 15  # of a figure of lines, areas and text; micrographs have more
JPEG = {"quality": 85, "subsampling": 0, "optimize": True}
BAR = re.compile(r"\d+%\|")
ABSOLUTE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|tmp|work|mnt|opt|var|scratch)(?:/[\w.@+-]+)+")


@dataclass(frozen=True)
class Parameter:
    """One line of a `parameters` cell: ``name: type = value  # what it does``."""

    name: str
    type: type
    default: Any
    help: str

    def parse(self, given: Any) -> Any:
        """Turn a value from the command line into this parameter's type; refuse any other."""
        return read_value(self.name, given, self.type)


def root() -> Path:
    """Folder of the checkout; an error where the package was installed without one."""
    if not (ROOT / "_toc.yml").exists():
        raise CellbookError("this command works on a checkout of the book: clone it and `pip install -e .` there")
    return ROOT


def pages() -> dict[str, dict[str, Any]]:
    """The executed pages of the book, from `notebooks/pages.yml`: page -> notebook and parameters that differ."""
    return dict(yaml.safe_load((root() / "notebooks/pages.yml").read_text(encoding="utf-8")))


def page_entry(page: str) -> dict[str, Any]:
    """The entry of one page; an unknown one is an error that lists the known."""
    known = pages()
    if page not in known:
        raise CellbookError(f"no page {page!r}: the pages are {', '.join(known)}")
    return {"parameters": {}, **known[page]}


def source_path(page: str) -> Path:
    """The text source of a page's notebook."""
    return root() / "notebooks" / f"{page_entry(page)['notebook']}.md"


def source_digest(page: str) -> str:
    """Digest of a page's source and of its own parameters: what a published page must agree with."""
    return digest([source_path(page).read_text(encoding="utf-8"), page_entry(page)["parameters"]])


def read_source(path: Path) -> NotebookNode:
    """Read a MyST notebook with cell ids that depend on their position alone."""
    import jupytext

    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def parameters(page: str) -> dict[str, Parameter]:
    """The parameters of a page's notebook, in order, with the page's own defaults."""
    entry = page_entry(page)
    notebook = read_source(source_path(page))
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise CellbookError(f"notebook {entry['notebook']!r} has {len(cells)} cells tagged `parameters`, not one")
    found = parse_parameters(cells[0].source)
    for name, value in entry["parameters"].items():
        parameter = found[name]
        found[name] = Parameter(name, parameter.type, parameter.parse(value), parameter.help)
    return found


def parse_parameters(source: str) -> dict[str, Parameter]:
    """Read the lines of a `parameters` cell; every one needs a type, a literal value and a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            raise CellbookError(f"line {node.lineno} of the parameters cell is not `name: type = value  # help`")
        kind, name = ast.unparse(node.annotation), node.target.id
        if kind not in TYPES or node.lineno not in comments:
            raise CellbookError(f"parameter {name!r} needs a type of {', '.join(TYPES)} and a comment that explains it")
        found[name] = Parameter(name, TYPES[kind], ast.literal_eval(node.value), comments[node.lineno])
    return found


def check_parameters(page: str, given: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a page with the given ones in place; unknown names, wrong types, numbers below 0 are errors."""
    known = parameters(page)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise CellbookError(f"page {page!r} has no parameter {', '.join(unknown)}: it takes {', '.join(known)}")
    values = {name: parameter.parse(given.get(name, parameter.default)) for name, parameter in known.items()}
    for name in given:
        value = values[name]
        if isinstance(value, float) and not math.isfinite(value):
            raise CellbookError(f"parameter {name!r} takes a finite number, got {given[name]}")
        if isinstance(value, int | float) and value < 0:  # all numbers of pages are counts, seeds and strengths
            raise CellbookError(f"parameter {name!r} takes 0 or more, got {given[name]}")
        if isinstance(value, str) and not (value.isprintable() and value.strip()):
            raise CellbookError(f"parameter {name!r} takes a word, got {given[name]!r}")
    return values


def execute(page: str, given: dict[str, Any], kept: Path, *, echo: bool = False) -> tuple[NotebookNode, float]:
    """Execute a page's notebook from its text source and return it, uncleaned, with the wall time in seconds.

    The kernel is the interpreter that runs this, whatever kernels are installed, and knows no settings of the user's.
    What the notebook's code writes to standard error goes to ours, once: what the kernel forwards of its workers it
    also writes to its own, which is shown only if the kernel dies. Of a notebook that fails, what came of it until then
    is written to `kept`.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    with tempfile.TemporaryDirectory() as folder, Path(folder, "kernel.log").open("w+", encoding="utf-8") as said:
        source, target = Path(folder, "source.ipynb"), Path(folder, "executed.ipynb")
        nbformat.write(read_source(source_path(page)), source)
        start = time.perf_counter()
        try:
            with patch.dict(os.environ, _environment(folder, Path(root(), given["results"], "caches"))):
                papermill.execute_notebook(
                    source,
                    target,
                    given,
                    kernel_name="python3",
                    kernel_manager_class=_kernel_class(said),
                    cwd=root(),
                    progress_bar=echo,
                    log_output=False,
                    stderr_file=sys.stderr,
                    start_timeout=600,  # a busy machine
                    extra_arguments=["--log-level=ERROR"],  # the kernel's warnings about its own transport
                )
        except papermill.PapermillExecutionError as error:
            # The kernel sends an error's name and text, not the error: ours are known again by their names.
            if error.ename == DataNotFound.__name__:
                raise DataNotFound(str(error.evalue)) from error
            ours = error.ename == CellbookError.__name__
            reason = str(error.evalue) if ours else f"{error.ename}: {error.evalue}"
            if (kept.parent / "page.json").exists() and not (kept.parent / "stamp.json").exists():
                shutil.copyfile(target, kept)
                reason += f" (finished runs are kept, and {kept} holds the page as far as it came)"
            raise CellbookError(f"page {page!r} did not run to its end: {reason}") from error
        except RuntimeError as error:  # a dead kernel, or one that never answered
            if not isinstance(error, DeadKernelError) and "ernel d" not in str(error):
                raise
            said.seek(0)
            sys.stderr.write(said.read())
            raise CellbookError(
                f"the process that executes page {page!r} does not answer ({str(error).rstrip('.')}), most likely for "
                "want of memory: finished runs are kept, so run it again with more memory or at a smaller preset"
            ) from error
        return nbformat.read(target, as_version=4), time.perf_counter() - start


def _kernel_class(said: IO[str]) -> type:
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        """A kernel of this interpreter: another one would run other code under this code's stamp."""

        async def start_kernel(self, **how: Any) -> None:
            """Start it with a standard error of its own."""
            await self._async_start_kernel(**how, stderr=said)

        @property
        def kernel_spec(self) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    return Kernel


def _environment(folder: str, caches: Path) -> dict[str, str]:
    """Variables of the kernel: figures are kept, no settings of the user's are read, and caches can be written.

    Where MPLBACKEND names a backend without display, the kernel would drop figures silently.
    """
    changed = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONSTARTUP": ""}
    changed |= {"IPYTHONDIR": folder, "JUPYTER_RUNTIME_DIR": folder}
    # On Linux memory comes in larger pages then: half of the time that the system took goes, a seventh of a page's.
    changed["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    usual = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not _can_write(usual):
        log.warning("%s cannot be written: caches of matplotlib and other libraries go to %s", usual, caches)
        changed |= {name: os.environ.get(name, str(caches)) for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR")}
    return changed


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return folder.is_absolute()  # without a home, "~" stays as it is


def clean(notebook: NotebookNode) -> NotebookNode:
    """Remove from an executed notebook what a reader must not meet: bookkeeping, warnings, and the folders of paths.

    Figures are kept in fewer bytes, see `lighten`.
    """
    for name in ("jupytext", "papermill", "widgets"):
        notebook.metadata.pop(name, None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        for name in ("papermill", "execution", "collapsed", "jupyter"):
            cell.metadata.pop(name, None)
        tags = set(cell.metadata.pop("tags", []))
        if "injected-parameters" in tags:
            tags.add("remove-cell")
        if tags:
            cell.metadata["tags"] = sorted(tags)
        for output in cell.get("outputs", []):
            shorten_paths(output)
            lighten(output)
        if "outputs" in cell:  # warnings are for who executes the page, not for who reads it
            cell["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]
    return notebook


def shorten_paths(output: NotebookNode) -> None:
    """Leave of each absolute path in a cell's output its last name."""
    texts = output.get("data", output)
    for name in [name for name in texts if name == "text" or name.startswith("text/")]:
        texts[name] = ABSOLUTE_PATH.sub(lambda found: Path(found[0]).name, texts[name])


def lighten(output: NotebookNode) -> None:
    """Keep a figure of lines and text in 256 colours, which is a third of the bytes, and micrographs as JPEG."""
    from PIL import Image

    data = output.get("data", {})
    if "image/png" not in data:
        return
    figure = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    few = figure.getcolors(MAX_COLOURS) is not None
    stream = io.BytesIO()
    if few:
        figure.quantize(256, kmeans=1, dither=Image.Dither.NONE).save(stream, format="PNG", optimize=True)
    else:
        figure.save(stream, format="JPEG", **JPEG)
    light = base64.b64encode(stream.getvalue()).decode()
    if len(light) < len(data["image/png"]):
        del data["image/png"]
        data["image/png" if few else "image/jpeg"] = light


def page_faults(notebook: NotebookNode) -> list[str]:
    """What must not be in a page: progress bars, absolute paths, over-long output, errors, figures without alt text.

    Nor a number of a figure that was not drawn, as where real data is absent.
    """
    faults, absent = [], set()
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        described = cell.metadata.get("mystnb", {})
        if not any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            absent.add(described.get("figure", {}).get("name"))
        for output in cell.get("outputs", []):
            text = output.get("text", "") or output.get("data", {}).get("text/plain", "")
            if output.output_type == "error":
                faults.append(f"cell {number} ends in {output.ename}")
            if BAR.search(text) or "\r" in text:
                faults.append(f"cell {number} shows a progress bar")
            if output.output_type == "stream" and text.count("\n") > MAX_OUTPUT_LINES:
                faults.append(f"cell {number} prints {text.count(chr(10))} lines (at most {MAX_OUTPUT_LINES})")
            html = str(output.get("data", {}).get("text/html", ""))
            if ABSOLUTE_PATH.search(text + html):
                faults.append(f"cell {number} shows an absolute path")
            if any(kind.startswith("image/") for kind in output.get("data", {})) and not (
                described.get("image", {}).get("alt") and described.get("figure", {}).get("caption")
            ):
                faults.append(f"cell {number} draws a figure without alt text or caption")
    prose = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    wanted = absent.intersection(re.findall(r"{numref}`([^`]+)`", prose))
    return faults + [f"the text numbers the figure {name}, which is not drawn" for name in sorted(wanted)]


def sync(check: bool = False) -> list[str]:
    """Write every pair's `.ipynb` from its text source; with `check`, write nothing and return those that differ."""
    import nbformat

    differing = []
    for source in sorted((root() / "notebooks").glob("*.md")):
        notebook = read_source(source)
        notebook.metadata.pop("jupytext", None)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.update(outputs=[], execution_count=None)
        text = nbformat.writes(notebook, indent=1) + "\n"
        target = source.with_suffix(".ipynb")
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            differing.append(target.name)
            if not check:
                write_text(target, text)
    return differing
