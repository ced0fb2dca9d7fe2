"""Two runs beside each other: every difference is found, and none where there is none."""

import json

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from cellbook.book import comparing, drawn, notebooks
from cellbook.claims import KEYS
from cellbook.runs import obtain

BOOK = notebooks.root() / "book"
PAGES = ("lafarge2019", "lafarge2019-sample")


@pytest.fixture
def runs(tmp_path):
    """Two runs of one method that differ in one setting and in one value of one product."""

    def make(value):
        def write(folder):
            pd.DataFrame({"a": [1.0, 2.0, np.nan], "b": [0.5, value, 2.0]}).to_parquet(folder / "table.parquet")
            (folder / "note.txt").write_text("the same")

        return write

    return [obtain(tmp_path, "m", 1, {"rate": rate, "seed": 0}, "data", make(rate)) for rate in (0.25, 1.0)]


def test_of_two_runs_what_differs_is_named_and_nothing_else(runs):
    one, other = (comparing.read(run.folder, run.folder.parent, BOOK) for run in runs)
    assert comparing.unlike(one.settings, other.settings).to_numpy().tolist() == [["rate", "0.25", "1.0"]]
    found = comparing.products(one, other).set_index("product")["difference"]
    assert found["note.txt"] == "the same"
    assert found["table.parquet"] == "1 of 6 values, by at most 0.75"
    same = comparing.read(runs[0].folder, BOOK, BOOK)
    assert set(comparing.products(one, same)["difference"]) == {"the same"}
    assert len(comparing.unlike(one.environment, same.environment)) == 0


def numbers(rows):
    return pd.DataFrame(rows, columns=["setting", "protocol", "measure", "k", "value", "low", "high"])


def test_intervals_that_share_a_point_overlap_and_others_are_apart():
    one = numbers(
        [
            ("a", "p", "NSC", 1, 0.5, 0.4, 0.6),
            ("b", "p", "NSC", 1, 0.5, 0.4, 0.6),
            ("c", "p", "n", 1, 3.0, np.nan, np.nan),
        ]
    )
    other = numbers(
        [("a", "p", "NSC", 1, 0.7, 0.6, 0.8), ("b", "p", "NSC", 1, 0.9, 0.61, 1.0), ("c", "p", "n", 1, 3.0, 2.0, 4.0)]
    )
    table = comparing.compare(one, other).set_index("setting")
    assert table["intervals"].to_dict() == {"a": "overlap", "b": "apart", "c": "–"}
    assert table["difference"].round(9).to_dict() == {"a": -0.2, "b": -0.4, "c": 0.0}
    assert comparing.in_brief(table).startswith(
        "3 numbers are in both; 2 of them differ, by at most 0.4000; the intervals of 1 "
    )


def test_a_page_of_the_book_beside_another_is_shown_with_its_figures(tmp_path, run_main):
    out = tmp_path / "page.html"
    code, said, err = run_main("diff", *PAGES, "--out", out)
    assert (code, err) == (0, "")
    assert "screen" in said
    page = BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")
    figures = list(drawn.figures(json.loads((BOOK / "papers/lafarge2019.ipynb").read_text(encoding="utf-8"))))
    pairs = page.select(".pair")
    assert 0 < len(pairs) <= len(figures)
    assert all(len(pair.select("img[alt]")) == 2 for pair in pairs)
    keys = [set(pd.read_csv(BOOK / "results" / page / "numbers.csv")[KEYS].itertuples(index=False)) for page in PAGES]
    assert f"{len(keys[0] & keys[1])} numbers are in both" in said
    assert not page.select("script, link, [src^=http]")


def test_a_run_that_is_published_is_found_by_its_key_with_the_numbers_of_its_page(run_main):
    key = next(path.name for path in (BOOK / "results/classical/runs").iterdir())
    side = comparing.read(comparing.find(key, BOOK, BOOK), BOOK, BOOK)
    published = pd.read_csv(BOOK / "results/classical/numbers.csv")
    assert side.numbers["value"].tolist() == published["value"].tolist()
    code, _, err = run_main("diff", key, "classical-000000000000")
    assert code == 2
    assert "no run 'classical-000000000000'" in err


def test_every_figure_names_functions_of_the_package_that_exist():
    for page in notebooks.pages():
        path = BOOK / "papers" / f"{page}.ipynb"
        for figure in drawn.figures(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ():
            assert figure.functions, (page, figure.alt)
            for name in figure.functions:
                module, _, function = name.rpartition(".")
                source = notebooks.root() / f"{module.replace('.', '/')}.py"
                assert f"def {function}(" in source.read_text(encoding="utf-8"), name
            if figure.data:
                assert (BOOK / "results" / page / "figures" / f"{figure.data}.csv").exists(), figure.data
