"""What the prose pages and the files at the root say about design, commands and versions follows from the code."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

from cellbook.cli.app import app
from cellbook.metrics import as_json, score
from cellbook.screens.bbbc021 import PLATES_PER_WEEK, treatments
from cellbook.screens.planted import planted_wells

ROOT = Path(__file__).parents[1]
PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]


def rows(file: str, heading: str) -> list[list[str]]:
    """Cells of the Markdown table whose first line begins with `heading`."""
    text = (ROOT / file).read_text(encoding="utf-8")
    table = text[text.index(heading) :].split("\n\n")[0].split("\n:::")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_treatments_is_the_design_that_the_code_uses():
    shown = {
        (compound, float(dose), moa, week)
        for moa, compound, doses, week in rows("book/data.md", "| mechanism | compound")
        for dose in doses.split(",")
    }
    columns = ["compound", "concentration", "moa", "week"]
    assert shown == set(treatments()[columns].itertuples(index=False, name=None))


def test_the_table_of_weeks_counts_plates_controls_and_treatments_rightly():
    table = rows("book/data.md", "| week | plates")
    counts = treatments()["week"].value_counts()
    expected = [[week, str(n), str(6 * n), str(counts[week])] for week, n in PLATES_PER_WEEK.items()]
    assert table == [*expected, ["all", "55", "330", "103"]]


def test_the_denominators_follow_from_the_design():
    design = treatments()
    same = {name: design[name].to_numpy()[:, None] == design[name].to_numpy() for name in ("moa", "compound", "week")}
    expected = []
    chance = []
    for candidates in (~same["compound"], ~same["compound"] & ~same["week"]):
        right = (same["moa"] & candidates).sum(axis=1)
        expected.append([str(np.minimum(right, k).sum()) for k in (1, 2, 3, 4)])
        expected.append([str(k * (right > 0).sum()) for k in (1, 2, 3, 4)])
        chance.append((right / candidates.sum(axis=1))[right > 0].mean())
    assert [row[1:] for row in rows("book/evaluation.md", "| | $k = 1$")] == expected
    assert np.round(chance, 2).tolist() == [0.06, 0.06]
    assert "right in about 6\N{NO-BREAK SPACE}%" in (ROOT / "book/evaluation.md").read_text(encoding="utf-8")


def test_the_example_of_scores_is_what_the_command_prints():
    printed = json.loads((ROOT / "book/_static/score_example.json").read_text(encoding="utf-8"))
    for shown, now in zip(printed, as_json(score(planted_wells(), "ljosa2013")), strict=True):
        assert {**shown, "accuracy": 0, "interval": 0} == {**now, "accuracy": 0, "interval": 0}
        assert [shown["accuracy"], *shown["interval"]] == pytest.approx([now["accuracy"], *now["interval"]], abs=1e-9)


@pytest.mark.parametrize("file", PROSE, ids=lambda path: path.name)
def test_every_command_that_is_named_exists(file):
    known = set(typer.main.get_command(app).commands)
    named = set(re.findall(r"(?:^|`)cellbook ([a-z]+)", file.read_text(encoding="utf-8"), flags=re.M))
    assert named <= known


def test_the_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (package["version"], package["license"])


def test_the_readme_links_to_files_that_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_styles_and_drawings_load_nothing_from_elsewhere():
    for file in filter(Path.is_file, (ROOT / "book/_static").rglob("*")):
        if file.suffix == ".png":  # pixels load nothing
            continue
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text, file.name
        if file.suffix in (".css", ".svg"):  # a script may name a picture that lies beside it
            assert "url(" not in text, file.name
