"""Who imports whom: a module stands on what lies below it, and no two units stand on each other."""

import ast
import inspect
import pkgutil
import re
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

from cellbook import methods
from cellbook.training import Method

PACKAGE = Path(__file__).parents[1] / "cellbook"
LEVELS = (
    "errors",
    "files machine",
    "pixels claims configure cells runs",
    "profiles",
    "screens features training metrics carry",
    "methods",
    "corrections study",
    "pages",
    "lease",
)
HEIGHT = {unit: height for height, units in enumerate(LEVELS) for unit in units.split()}
BESIDE = {"book": {"errors", "files", "configure", "runs", "machine", "claims", "metrics", "figures"}, "figures": set()}
BUILDS_ON = {("tabak2020", "lafarge2019")}  # a page on another's training: it may read that page's configuration


def imports():
    """Every import as (what imports, what is imported), both as parts of a name below `cellbook`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path} has a relative import, which this test does not follow"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((here, tuple(name.split(".")[1:])) for name in names if name.startswith("cellbook."))


@pytest.fixture(scope="module")
def arrows():
    found = list(imports())
    assert len(found) > 300
    return found


def test_every_unit_has_its_place(arrows):
    units = {here[0] for here, _ in arrows} | {there[0] for _, there in arrows}
    assert units - {"cli"} <= HEIGHT.keys() | BESIDE.keys()


def test_nothing_imports_what_lies_above_it(arrows):
    wrong = set()
    for (unit, *_), (other, *_) in arrows:
        if unit in HEIGHT and unit != other and HEIGHT.get(other, len(LEVELS)) > HEIGHT[unit]:
            wrong.add((unit, other))
        if unit in BESIDE and other not in BESIDE[unit] | {unit}:
            wrong.add((unit, other))
    assert not wrong


def test_there_is_no_circle_between_units(arrows):
    below = {}
    for (unit, *_), (other, *_) in arrows:
        if unit != other:
            below.setdefault(unit, set()).add(other)
    order = list(TopologicalSorter(below).static_order())  # a circle is an error that names its units
    assert order.index("errors") < order.index("profiles") < order.index("methods") < order.index("pages")


def test_there_is_no_circle_between_modules(arrows):
    """Also where only the type checker imports. What a package offers in its `__init__` is no module's."""
    below = {}
    for here, there in arrows:
        files = [PACKAGE.joinpath(*there[:n]) for n in (len(there), len(there) - 1)]
        found = next((file for file in files if file.with_suffix(".py").is_file() or file.is_dir()), None)
        if here[-1] != "__init__" and found is not None:
            below.setdefault(here, set()).add(found.relative_to(PACKAGE).parts)
    order = list(TopologicalSorter(below).static_order())
    assert order.index(("training", "state")) < order.index(("training", "checkpoints"))


def trainable():
    modules = (import_module(f"cellbook.methods.{info.name}") for info in pkgutil.iter_modules(methods.__path__))
    return [module for module in modules if hasattr(module, "begin")]


@pytest.mark.parametrize("method", trainable(), ids=lambda method: method.__name__)
def test_what_can_be_trained_has_all_that_a_method_must_have(method):
    assert isinstance(method, Method)
    for name in ("begin", "draw", "step", "encode"):
        taken, wanted = (inspect.signature(getattr(owner, name)).parameters for owner in (method, Method))
        assert ["self", *taken] == list(wanted)


def test_a_page_reads_no_other_page_but_the_configuration_it_builds_on(arrows):
    between = [(h[1], t[1], t[2:3]) for h, t in arrows if h[0] == t[0] == "pages" and h[1] != t[1]]
    strays = {(page, other) for page, other, what in between if (page, other) not in BUILDS_ON or what != ("config",)}
    assert not strays


def test_the_way_of_a_cell_in_the_manual_is_true():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    way = text.split("## The way of a cell")[1].split("\n## ")[0]
    names = re.findall(r"\| `cellbook\.([\w.]+)` \|", way)
    assert len(names) == 10
    for name in names:
        module, _, function = name.rpartition(".")
        assert inspect.isfunction(getattr(import_module(f"cellbook.{module}"), function)), name
