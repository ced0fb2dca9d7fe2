import ast
import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from scipy import ndimage

from cellbook.book import build, notebooks
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


def as_png(picture):
    """A picture, (H, W, 3) uint8, as it stands in a notebook."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


FIGURE = {"image": {"alt": "words"}, "figure": {"caption": "words"}}


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (new_output("stream", text=" 50%|#####     | 5/10"), "progress bar"),
        (new_output("stream", text="line\n" * 100), "prints 100 lines"),
        (new_output("display_data", data={"image/png": as_png(np.zeros((2, 2, 3), np.uint8))}), "without alt text"),
        (new_output("error", ename="ValueError", evalue="", traceback=[]), "ends in ValueError"),
    ],
)
def test_what_a_reader_must_not_meet_is_refused(output, fault):
    (found,) = notebooks.page_faults(notebooks.clean(page_with(output)))
    assert fault in found


def test_a_figure_that_is_not_drawn_is_not_numbered():
    picture = new_output("display_data", data={"image/png": "aGk="})
    for outputs, faults in (([picture], []), ([], ["the text numbers the figure one, which is not drawn"])):
        page = page_with(*outputs, mystnb=FIGURE | {"figure": {"caption": "words", "name": "one"}})
        page.cells[0].source = "See {numref}`one` and {numref}`of-another-page`."
        assert notebooks.page_faults(page) == faults


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("saved to /home/somebody/x.npy.", "saved to x.npy."),
        ("/tmp/a/b/c.py:12: UserWarning: low", "c.py:12: UserWarning: low"),
        ("cells of '/scratch/me/my_screen', 3", "cells of 'my_screen', 3"),
        ("a/b 3 of 5, 2/home, http://x.org/home/y", "a/b 3 of 5, 2/home, http://x.org/home/y"),
    ],
)
def test_of_paths_of_this_machine_a_page_shows_the_last_name(text, shown):
    outputs = [new_output("stream", text=text), new_output("execute_result", data={"text/html": f"<b>{text}</b>"})]
    page = notebooks.clean(page_with(*outputs))
    assert page.cells[1].outputs[0].text == shown
    assert page.cells[1].outputs[1].data["text/html"] == f"<b>{shown}</b>"
    assert notebooks.page_faults(page) == []


def test_what_a_library_warns_of_is_no_part_of_a_page():
    warning = new_output("stream", name="stderr", text="/opt/lib/matplotlib/axes.py:3: UserWarning: equal limits\n")
    page = notebooks.clean(page_with(new_output("stream", text="kept"), warning, new_output("stream", text="too")))
    assert [output.text for output in page.cells[1].outputs] == ["kept", "too"]


def test_described_figures_and_ordinary_output_pass():
    output = new_output("display_data", data={"image/png": as_png(np.zeros((2, 2, 3), np.uint8))})
    page = notebooks.clean(page_with(output, new_output("stream", text="a/b 3 of 5"), mystnb=FIGURE))
    assert notebooks.page_faults(page) == []
    assert len(page.cells[1].outputs) == 2


def plotted():
    """Lines and text as a page draws them, (H, W, 3)."""
    figure, axes = plt.subplots()
    axes.plot(np.arange(20) ** 2, "o-", label="squares")
    axes.imshow(np.arange(9).reshape(3, 3), extent=(2, 8, 100, 300), aspect="auto")
    axes.legend()
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return picture


def micrographs():
    """Smooth structures with noise in three channels, (H, W, 3)."""
    noise = np.random.default_rng(0).normal(size=(300, 300, 3))
    smooth = ndimage.gaussian_filter(noise, (6, 6, 0))
    return np.uint8(np.clip(100 + 60 * smooth / smooth.std() + 2 * noise, 0, 255))


@pytest.mark.parametrize(
    ("picture", "kind", "share", "levels"),
    [(plotted(), "image/png", 0.6, 0.5), (micrographs(), "image/jpeg", 0.6, 3.0)],
    ids=["plot", "micrographs"],
)
def test_figures_get_lighter_and_look_the_same(picture, kind, share, levels):
    heavy = as_png(picture)
    page = notebooks.clean(page_with(new_output("display_data", data={"image/png": heavy}), mystnb=FIGURE))
    ((found, light),) = page.cells[1].outputs[0].data.items()
    assert found == kind
    assert len(light) < share * len(heavy)
    with Image.open(io.BytesIO(base64.b64decode(light))) as shown:
        apart = np.abs(np.asarray(shown.convert("RGB"), int) - picture)
    assert apart.mean() < levels


def test_cleaning_hides_injected_parameters_and_drops_foreign_metadata():
    page = page_with(tags=["injected-parameters"], papermill={"duration": 1})
    page.metadata.update(jupytext={"formats": "md"}, papermill={"version": "2"})
    cleaned = notebooks.clean(page)
    assert cleaned.cells[1].metadata == {"tags": ["injected-parameters", "remove-cell"]}
    assert "jupytext" not in cleaned.metadata
    assert "papermill" not in cleaned.metadata


TINY = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Tiny

```{code-cell} ipython3
:tags: [parameters]

page: str = "tiny"  # name
results: str = "runs"  # folder
bad: str = ""  # what goes wrong
```

```{code-cell} ipython3
import os, sys, time, warnings
from pathlib import Path
from cellbook.runs import obtain
from cellbook.files import write_json
run = obtain(results, "tiny", 1, {}, "data", lambda folder: (folder / "a.txt").write_text("a"))
folder = Path(results, "pages", page)
folder.mkdir(parents=True, exist_ok=True)
record = {"runs": {run.key: str(run.folder.resolve())}, "environment": dict.fromkeys(
    ("device", "commit", "python", "system"), "x") | {"peak_memory_mib": 1}}
(folder / "stamp.json").unlink(missing_ok=True)
write_json(folder / "page.json", record)
with open(Path(results, "executions"), "a") as file:
    print(os.getpid(), file=file)
print(sys.executable == os.environ["WANTED"], os.environ["IPYTHONDIR"] == os.environ["JUPYTER_RUNTIME_DIR"])
print(os.environ.get("MPLCONFIGDIR"))
warnings.warn("low and high are equal", stacklevel=1)
if bad == "lines":
    print("line\\n" * 100)
if bad == "error":
    1 / 0
if bad == "slow":
    time.sleep(2)
if bad == "killed":
    os.kill(os.getpid(), 9)
if bad == "told":
    import subprocess
    print("of the page", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-c", "import sys; print('of a worker', file=sys.stderr)"], check=True)
    time.sleep(0.5)
```
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A book of one small page beside this package; a function that executes it into `runs` there."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "tiny.md").write_text(TINY)
    (tmp_path / "notebooks" / "pages.yml").write_text("tiny:\n  notebook: tiny\n")
    (tmp_path / "cellbook").symlink_to(notebooks.root() / "cellbook")
    (tmp_path / "_toc.yml").write_text("")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setenv("WANTED", sys.executable)
    return tmp_path


def text_of(path):
    return "".join(o.text for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", []) if "text" in o)


def executions(root):
    return len((root / "runs" / "executions").read_text().split())


@pytest.mark.parametrize("python", ["/opt/removed/bin/python", "/usr/bin/python3"])
def test_a_page_is_executed_by_the_interpreter_that_runs_whatever_is_installed(tiny, monkeypatch, capfd, python):
    spec = tiny / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    command = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "P", "language": "python"}))
    home = tiny / "home"
    (home / ".local/share").mkdir(parents=True)
    (home / ".local/share/jupyter").symlink_to(tiny / "jupyter")
    (home / ".ipython/profile_default/startup").mkdir(parents=True)
    (home / ".ipython/profile_default/startup/a.py").write_text("raise SystemExit(3)")
    for name, value in {"JUPYTER_PATH": str(tiny / "jupyter"), "HOME": str(home), "PATH": "/usr/bin:/bin"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("IPYTHONDIR", raising=False)
    folder, now = build.run_page("tiny", {})
    assert now
    assert text_of(folder / "tiny.ipynb").splitlines()[0] == "True True"
    assert "low and high are equal" in capfd.readouterr().err
    assert os.environ["PATH"] == "/usr/bin:/bin"
    assert "IPYTHONDIR" not in os.environ


def test_the_stamp_tells_the_memory_of_the_kernel_and_of_what_executes_it_together(tiny):
    stamp = json.loads((build.run_page("tiny", {})[0] / "stamp.json").read_text())
    assert stamp["processes"] >= 2
    assert stamp["peak_memory_mib"] > 100  # the page itself says 1


def test_without_a_home_that_can_be_written_caches_lie_beside_the_runs(tiny, monkeypatch, caplog):
    monkeypatch.setenv("HOME", "/dev/null/nobody")
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    folder, _ = build.run_page("tiny", {})
    assert text_of(folder / "tiny.ipynb").splitlines()[1] == "caches"  # of its path the last name
    assert [record.getMessage() for record in caplog.records] == [
        "/dev/null/nobody/.cache cannot be written: caches of matplotlib and other libraries go to "
        f"{tiny / 'runs' / 'caches'}"
    ]


@pytest.mark.parametrize(("bad", "why"), [("lines", "prints 10. lines"), ("error", "ZeroDivisionError")])
def test_a_page_that_is_refused_is_kept_and_its_runs_are_not_made_again(tiny, bad, why):
    with pytest.raises(CellbookError, match=why) as refused:
        build.run_page("tiny", {"bad": bad})
    kept = tiny / "runs" / "pages" / "tiny" / "refused.ipynb"
    assert str(kept) in str(refused.value)
    assert text_of(kept).startswith("True True")
    (record,) = (tiny / "runs").glob("tiny-*/run.json")
    before = record.read_bytes()
    folder, now = build.run_page("tiny", {})
    assert now
    assert (folder / "tiny.ipynb").exists()
    assert record.read_bytes() == before
    with pytest.raises(CellbookError, match="has no parameter"):
        build.run_page("tiny", {"worse": "1"})


def test_a_kernel_that_dies_is_one_sentence(tiny):
    with pytest.raises(CellbookError, match=r"does not answer .*finished runs are kept"):
        build.run_page("tiny", {"bad": "killed"})
    assert len(list((tiny / "runs").glob("tiny-*/run.json"))) == 1


def test_what_a_page_and_its_workers_warn_of_is_told_once(tiny, monkeypatch, capfd):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # under which kernels do not forward what workers write
    build.run_page("tiny", {"bad": "told"})
    err = capfd.readouterr().err
    assert [err.count(line) for line in ("of the page\n", "of a worker\n")] == [1, 1], err


def test_two_at_once_on_one_page_execute_it_once(tiny):
    code = (
        "import sys\nfrom pathlib import Path\nfrom cellbook.book import build, notebooks\n"
        "notebooks.ROOT = Path(sys.argv[1])\nprint(build.run_page('tiny', {'bad': 'slow'})[1])\n"
    )
    command = [sys.executable, "-c", code, str(tiny)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tiny) for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    assert sorted(out.strip() for out, _ in ended) == ["False", "True"]
    assert sum("waiting for process" in err for _, err in ended) == 1
    assert executions(tiny) == 1


@pytest.mark.parametrize("damage", ["stamp", "page", "record"])
def test_a_damaged_page_is_executed_anew(tiny, damage):
    folder, _ = build.run_page("tiny", {})
    assert build.run_page("tiny", {})[1] is False
    if damage == "stamp":
        (folder / "stamp.json").write_text("{")
    else:
        (folder / {"page": "tiny.ipynb", "record": "page.json"}[damage]).unlink()
    assert build.run_page("tiny", {})[1] is True
    assert build.run_page("tiny", {})[1] is False
    assert executions(tiny) == 2


def test_a_screen_of_ones_own_is_found_from_the_folder_in_which_it_was_named(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cellset.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    given = []
    monkeypatch.setattr(build, "execute_page", lambda page, values, *rest: given.append(values["screen"]))
    for screen in ("mine", "simulated"):
        build.run_page("lafarge2019", {"screen": screen, "results": str(tmp_path / "runs")})
    assert given == [str(tmp_path / "mine"), "simulated"]


def test_a_page_of_a_damaged_run_is_not_published(tiny):
    folder, _ = build.run_page("tiny", {})
    (product,) = (tiny / "runs").glob("tiny-*/a.txt")
    product.write_text("")
    with pytest.raises(CellbookError, match=r"tiny-.* is damaged \(its product a\.txt has 0 bytes, not 1\)"):
        build.publish("tiny", folder, tiny / "book")
    assert not (tiny / "book").exists()


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
    done = run_page(copy_of_the_package(tmp_path), "-p", "screen=nowhere")
    assert done.returncode == 2
    assert "page 'classical' did not run to its end: screen 'nowhere' holds no profiles" in done.stderr
    assert "Traceback" not in done.stderr
