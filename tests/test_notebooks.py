import ast
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cellbook.book import notebooks
from cellbook.errors import CellbookError

PAGES = list(notebooks.pages())
REQUIRED = {"page", "screen", "preset", "repeats", "seed", "device", "results"}


def test_every_pair_is_in_sync_and_without_outputs():
    assert notebooks.sync(check=True) == []
    for path in (notebooks.root() / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), path.name
            assert cell.get("execution_count") is None


@pytest.mark.parametrize("page", PAGES)
def test_every_parameter_is_typed_explained_and_read(page):
    known = notebooks.parameters(page)
    assert set(known) >= REQUIRED
    read = set()
    for cell in notebooks.read_source(notebooks.source_path(page)).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            tree = ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M))
            read |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and type(node.ctx) is ast.Load}
    assert set(known) - read == set()
    assert all(parameter.help for parameter in known.values())


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_has_alt_text_caption_and_name(page):
    drawing = [
        cell
        for cell in notebooks.read_source(notebooks.source_path(page)).cells
        if cell.cell_type == "code" and "plt.show()" in cell.source
    ]
    assert drawing
    for cell in drawing:
        described = cell.metadata["mystnb"]
        assert len(described["image"]["alt"]) > 40
        assert len(described["figure"]["caption"]) > 40
        # Where one notebook makes two pages of the book, a name would stand in it twice.
        alone = sum(notebooks.source_path(other) == notebooks.source_path(page) for other in PAGES) == 1
        assert described["figure"].get("name", "").startswith(page) == alone


def test_notebooks_define_nothing_long():
    for page in PAGES:
        for cell in notebooks.read_source(notebooks.source_path(page)).cells:
            if cell.cell_type == "code":
                assert "class " not in cell.source
                assert cell.source.count("\n") < 40, cell.source[:80]


SOURCE = """
page: str = "x"  # name
rate: float = 1e-3  # learning rate, per step
steps: int = 0  # steps; 0: as the preset says
fast: bool = False  # whether to hurry
"""


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("page", "5", "5"),
        ("rate", "2", 2.0),
        ("rate", "1e-4", 1e-4),
        ("rate", ".5", 0.5),
        ("steps", "7", 7),
        ("steps", "010", 10),
        ("steps", "-3", -3),
        ("fast", "true", True),
        ("fast", "Yes", True),
        ("fast", "FALSE", False),
        ("fast", "no", False),
        ("page", "true", "true"),
        ("page", "[a", "[a"),
    ],
)
def test_parameters_are_read_in_their_type(name, given, value):
    parsed = notebooks.parse_parameters(SOURCE)[name].parse(given)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "given"),
    [("steps", g) for g in ("many", "1.5", "None", "1:30", "0x10", "1_000", "[a", "9" * 30, "", True, 2.0)]
    + [("rate", g) for g in ("quick", "1:30", "nan", "inf", "[a", "1e", True)]
    + [("fast", g) for g in ("3", "on", "1", 1)],
)
def test_values_of_another_type_are_refused(name, given):
    with pytest.raises(CellbookError, match=f"parameter '{name}' takes"):
        notebooks.parse_parameters(SOURCE)[name].parse(given)


@pytest.mark.parametrize("line", ["a = 1  # no type", "a: int = 1", "a: list = []  # odd type", "print(1)  # code"])
def test_parameters_without_type_or_help_are_refused(line):
    with pytest.raises(CellbookError):
        notebooks.parse_parameters(line)


def test_unknown_page_and_parameter_are_named():
    with pytest.raises(CellbookError, match=r"no page 'klassical'.*classical"):
        notebooks.check_parameters("klassical", {})
    with pytest.raises(CellbookError, match=r"no parameter sede.*seed"):
        notebooks.check_parameters("classical", {"sede": "1"})


def page_with(*outputs, **metadata):
    cell = new_code_cell("x", outputs=list(outputs))
    cell.metadata.update(metadata)
    return new_notebook(cells=[new_markdown_cell("# Title"), cell])


FIGURE = {"image": {"alt": "words"}, "figure": {"caption": "words"}}


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (new_output("stream", name="stderr", text=" 50%|#####     | 5/10"), "progress bar"),
        (new_output("stream", text="line\n" * 100), "prints 100 lines"),
        (new_output("stream", text="saved to /home/somebody/x"), "absolute path"),
        (new_output("execute_result", data={"text/html": "<b>/root/x</b>"}), "absolute path"),
        (new_output("display_data", data={"image/png": "aGk="}), "without alt text"),
        (new_output("error", ename="ValueError", evalue="", traceback=[]), "ends in ValueError"),
    ],
)
def test_what_a_reader_must_not_meet_is_refused(output, fault):
    with pytest.raises(CellbookError, match=fault):
        notebooks.clean(page_with(output))


def test_described_figures_and_ordinary_output_pass():
    output = new_output("display_data", data={"image/png": "aGk="})
    page = notebooks.clean(page_with(output, new_output("stream", text="a/b 3 of 5"), mystnb=FIGURE))
    assert notebooks.page_faults(page) == []


def test_cleaning_hides_injected_parameters_and_drops_foreign_metadata():
    page = page_with(tags=["injected-parameters"], papermill={"duration": 1})
    page.metadata.update(jupytext={"formats": "md"}, papermill={"version": "2"})
    cleaned = notebooks.clean(page)
    assert cleaned.cells[1].metadata == {"tags": ["injected-parameters", "remove-cell"]}
    assert "jupytext" not in cleaned.metadata
    assert "papermill" not in cleaned.metadata


def copy_of_the_package(folder):
    """A checkout's package elsewhere, so that no folder beside it holds the data."""
    root = folder / "deep" / "checkout"
    shutil.copytree(notebooks.root() / "cellbook", root / "cellbook", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(notebooks.root() / "notebooks", root / "notebooks")
    shutil.copytree(notebooks.root() / "book" / "claims", root / "book" / "claims")
    shutil.copyfile(notebooks.root() / "_toc.yml", root / "_toc.yml")
    return root


def run_page(root, *given):
    command = [sys.executable, "-m", "cellbook.cli", "run", "classical", "-p", "preset=smoke"]
    environment = os.environ | {"PYTHONPATH": str(root), "XDG_CACHE_HOME": str(root), "HOME": str(root)}
    environment.pop("CELLBOOK_DATA", None)
    return subprocess.run(
        [*command, *given], cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_missing_data_is_one_sentence_that_says_how_to_get_them(tmp_path):
    done = run_page(copy_of_the_package(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ljosa_jbiomolscreen_2013_per_well_mean.csv.gz")
    assert "CELLBOOK_DATA" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_that_fails_says_why_in_one_sentence(tmp_path):
    done = run_page(copy_of_the_package(tmp_path), "-p", "screen=planted", "-p", "repeats=-1")
    assert done.returncode == 2
    assert "page 'classical' did not run to its end: repeats must be at least 1" in done.stderr
    assert "Traceback" not in done.stderr
