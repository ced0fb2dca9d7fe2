"""The head of the first page: what to use, in one picture and few sentences, and the state of all claims.

The picture is drawn at every build from what the published comparison keeps of its own figure; its sentences are a
table that `verify` recomputes. Where it is not published, the claims stand alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from html import escape
from pathlib import Path

import pandas as pd

from cellbook.book import notebooks
from cellbook.claims import IN_WORDS, INCOMPARABLE, NOT, PARTLY, REPRODUCED, UNDECIDED
from cellbook.files import write_atomically

PAGE, REAL = "comparison", "comparison-sample"
FIRST = "Controls and no GPU"  # the situation of which the first page says what real cells say
PICTURE = "_generated/front.png"  # of the book
DOTS = 160  # an inch
HEADING = "Judge the claims"  # of the section of a page that its claims link to
SIGNS = {REPRODUCED: "✓", PARTLY: "◐", NOT: "✗", UNDECIDED: "?", INCOMPARABLE: "–"}
VIEWS = ("cell views", "cell views in the paper")  # measures of the published numbers


def draw(book: Path) -> None:
    """Draw the picture of the first page, if the comparison is published."""
    # Imported here: processes that execute pages import this module, too, and what draws takes 70 MiB of each.
    import matplotlib.pyplot as plt

    from cellbook.figures.front import answer as drawn

    data = book / "results" / PAGE / "figures" / "kept.csv"
    if not data.exists():
        return
    with plt.rc_context():  # what a style sets is for this figure alone
        figure = drawn(pd.read_csv(data))
        write_atomically(book / PICTURE, partial(figure.savefig, dpi=DOTS))
        plt.close(figure)


def answer(decisions: pd.DataFrame, real: pd.DataFrame) -> str:
    """The picture with the sentences of the first page under it, as Markdown, from those of the comparisons."""
    lines = [
        f"```{{figure}} {PICTURE}",
        ":alt: Accuracy of every representation under every correction against the week left in control wells.",
        ":width: 100%",
        "",
        "Biology kept against batch left, simulated cells. Up and to the left is better; what nothing beats is named. "
        f"[The comparison](papers/{PAGE}.ipynb) says what each point is, and how sure.",
        "```",
        "",
    ]
    lines += [f"- {stressed(sentence)}" for sentence in decisions.loc[decisions["first"].astype(bool), "sentence"]]
    if len(real):
        said = " ".join(real.loc[real["situation"] == FIRST, "sentence"])
        two = ". ".join(said.split(". ")[:2]).rstrip(".")  # and not what is left of weeks
        lines.append(f"- On [real cells](papers/{REAL}.ipynb), of which there are few: {stressed(f'{two}.')}")
    return "\n".join(lines) + "\n"


def stressed(text: str) -> str:
    """Text whose first sentence, the advice, stands out from the numbers that it rests on, as Markdown."""
    advice, point, rest = text.partition(". ")
    return f"**{advice}.** {rest}" if point else f"**{text}**"


def claims_chart(pages: dict[str, tuple[str, pd.DataFrame, pd.DataFrame]]) -> str:
    """The claims of each paper, a row a page, one sign a claim, which links to where the page judges it; as HTML.

    Parameters
    ----------
    pages : by page, its title, its table of claims and its numbers
    """
    papers: dict[str, list[str]] = {}
    for page, (title, *_) in pages.items():
        papers.setdefault(title.partition(": ")[0], []).append(page)
    rows = []
    for paper, own in papers.items():
        first = f'<th rowspan="{len(own)}">{escape(paper)}</th>'
        for page in own:
            title, table, numbers = pages[page]
            part = title.partition(": ")[2] or title
            name = f'<a href="papers/{page}.html">{escape(part)}</a>{because(table, numbers)}'
            rows.append(f"<tr>{first}<td>{name}</td><td>{''.join(signs(page, table))}</td></tr>")
            first = ""
    legend = ", ".join(f"{sign} {IN_WORDS[verdict]}" for verdict, sign in SIGNS.items())
    return (
        '<table class="claims"><caption>Every claim of every page, one sign each: '
        f"{legend}. A sign says its claim when you point at it, and links to the evidence.</caption>\n"
        + "\n".join(rows)
        + "\n</table>\n"
    )


def signs(page: str, table: pd.DataFrame) -> Iterable[str]:
    """A sign for each claim of a page, as HTML."""
    at = f"papers/{page}.html"
    if f"## {HEADING}" in notebooks.source_path(page).read_text(encoding="utf-8"):
        at += f"#{HEADING.lower().replace(' ', '-')}"
    for verdict, sentence in zip(table["verdict"], table["sentence"], strict=True):
        said = escape(f"{IN_WORDS.get(verdict, verdict)}: {sentence}")
        kind = verdict.replace(" ", "-")
        yield f'<a class="claim {kind}" href="{at}" title="{said}">{SIGNS.get(verdict, "!")}</a>'


def because(table: pd.DataFrame, numbers: pd.DataFrame) -> str:
    """How far the models behind undecided claims were trained beside the paper's, as HTML; empty where none is."""
    if not (table["verdict"] == UNDECIDED).any():
        return ""
    views, papers = (numbers[numbers["measure"] == name].set_index("setting")["value"] for name in VIEWS)
    shares = (views / papers).dropna()
    if shares.empty:
        return ""
    most = "" if len(shares) == 1 else "at most "
    return f"<br><small>trained on {most}{100 * shares.max():.2g} % of the paper's cell views</small>"
