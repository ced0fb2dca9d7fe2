"""The head of the first page: its picture, its sentences, the signs of all claims and why some are undecided."""

import matplotlib.pyplot as plt
import pandas as pd

from cellbook.book import fragments, front, notebooks
from cellbook.figures import comparison
from cellbook.figures.front import answer as drawn
from cellbook.study import judging


def test_the_first_page_shows_every_claim_and_without_a_comparison_no_picture():
    book = notebooks.root() / "book"
    claims = [fragments.read(folder / "claims.csv") for folder in fragments.published_pages(book)]
    text = fragments.front_page(book)
    assert text.count('<a class="claim ') == sum(map(len, claims)) > 20
    assert text.count("#judge-the-claims") == sum(map(len, claims))
    assert text.count("<th rowspan=") == len({title.partition(": ")[0] for title in shown_titles(book)})
    published = (book / "results" / "comparison" / "decisions.csv").exists()
    assert ("front.png" in text) == published


def shown_titles(book):
    """Titles of the pages that have claims."""
    names = fragments.titles()
    return [names[f.name] for f in fragments.published_pages(book) if len(fragments.read(f / "claims.csv"))]


def test_the_answer_of_the_first_page_is_that_of_the_comparison():
    told = pd.DataFrame({"situation": ["a", "b"], "first": [True, False], "sentence": ["Take it: 5.", "Not here: 6."]})
    real = pd.DataFrame({"situation": [front.FIRST, "c"], "sentence": ["Take that. For 7.5 of 9. Of weeks 2.", "No."]})
    text = front.answer(told, real)
    assert "- **Take it: 5.**" in text
    assert "Not here" not in text
    assert "papers/comparison.ipynb" in text
    assert text.endswith("of which there are few: **Take that.** For 7.5 of 9.\n")
    assert "real cells" not in front.answer(told, pd.DataFrame())


def test_beside_undecided_claims_stands_how_far_their_models_were_trained():
    views, papers = front.VIEWS
    lines = [("A", views, 50), ("A", papers, 1000), ("B", views, 20), ("B", papers, 1000), ("C", "NSC", 9)]
    numbers = pd.DataFrame(lines, columns=["setting", "measure", "value"])
    verdicts = pd.DataFrame({"verdict": ["undecided", "partly"]})
    assert "trained on at most 5 % of the paper's cell views" in front.because(verdicts, numbers)
    assert "trained on 5 % of" in front.because(verdicts, numbers[numbers["setting"] == "A"])
    assert front.because(verdicts[1:], numbers) == ""
    assert front.because(verdicts, numbers[numbers["setting"] == "C"]) == ""
    assert (judging.VIEWS, judging.PAPERS_VIEWS) == front.VIEWS


def test_the_first_picture_has_a_point_a_pair_and_names_what_nothing_beats(tmp_path):
    rows = pd.DataFrame(
        {
            "representation": ["classical features", "VAE, Lafarge 2019", "VAE, Lafarge 2019"],
            "correction": ["whitened", "none", "Harmony"],
            "measure": ["NSC", "NSC", "NSCB"],
            "value": [0.9, 0.4, 0.3],
            "week": [0.1, 0.5, 0.2],
            "chance": 0.08,
            "control": "DMSO",
            "front": [True, False, True],
        }
    )
    axes = drawn(rows).axes[0]
    points = {
        tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "o" and len(line.get_xydata()) == 1
    }
    assert points == {(10.0, 90.0), (50.0, 40.0)}
    assert [text.get_text() for text in axes.texts] == ["classical features, whitened", "chance"]
    plt.close("all")
    front.draw(tmp_path)
    assert not (tmp_path / front.PICTURE).exists()
    (tmp_path / "results/comparison/figures").mkdir(parents=True)
    rows.to_csv(tmp_path / "results/comparison/figures/kept.csv")
    front.draw(tmp_path)
    assert (tmp_path / front.PICTURE).read_bytes().startswith(b"\x89PNG")
    plt.close("all")


def test_every_published_number_of_the_comparison_is_named_beside_its_mark():
    rows = pd.DataFrame(
        {
            "representation": ["A", "B"],
            "correction": "none",
            "measure": "NSC",
            "value": [0.9, 0.4],
            "low": 0.3,
            "high": 1,
        }
        | {
            "week": [0.1, 0.5],
            "week_low": 0.0,
            "week_high": 0.6,
            "chance": 0.08,
            "control": "DMSO",
            "front": [True, False],
        }
    )
    marks = pd.DataFrame(
        {"measure": ["NSC", "NSC", "NSCB"], "label": ["old", "new", "other"], "value": [0.9, 0.981, 0.7]}
    )
    (axes,) = comparison.kept_and_left(rows, {}, marks).axes
    assert "98.1  new\n90.0  old" in [text.get_text() for text in axes.texts]
    at_the_edge = [line.get_ydata()[0] for line in axes.lines if line.get_xdata()[0] == 0.97]
    assert sorted(at_the_edge) == [90.0, 98.1]
    plt.close("all")
