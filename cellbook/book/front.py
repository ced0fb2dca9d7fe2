"""The head of the first page: what to use, in one picture and few sentences, and the state of all claims.

The picture is that of the published comparison, as it was executed; its sentences are a table that `verify` recomputes.
Where it is not published, the claims stand alone.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import pandas as pd

from cellbook.book import drawn, notebooks
from cellbook.claims import IN_WORDS, INCOMPARABLE, NOT, PARTLY, REPRODUCED, UNDECIDED
from cellbook.files import read_json

PAGE = "comparison"
HEADING = "Judge the claims"  # of the section of a page that its claims link to
SIGNS = {REPRODUCED: "✓", PARTLY: "◐", NOT: "✗", UNDECIDED: "?", INCOMPARABLE: "–"}


def picture(book: Path) -> bytes | None:
    """The first figure of the published comparison as PNG; None where there is none."""
    path = book / "papers" / f"{PAGE}.ipynb"
    first = next(drawn.figures(read_json(path)), None) if path.exists() else None
    return base64.b64decode(first.png) if first else None


def answer(decisions: pd.DataFrame) -> str:
    """The picture with the sentences of the first page under it, as Markdown, from those of the comparison."""
    lines = [
        "```{figure} _generated/front.png",
        ":alt: Accuracy of every representation under every correction against the week left in control wells.",
        ":width: 85%",
        "",
        "Biology kept against batch left, simulated cells; up and to the left is better. "
        f"[The comparison](papers/{PAGE}.ipynb) says what each point is, and how sure.",
        "```",
        "",
    ]
    lines += [f"- {sentence}" for sentence in decisions.loc[decisions["first"].astype(bool), "sentence"]]
    return "\n".join(lines) + "\n"


def claims_chart(pages: dict[str, tuple[str, pd.DataFrame]]) -> str:
    """A row of signs a page, one a claim, which links to where the page judges it; as HTML.

    Parameters
    ----------
    pages : by page, its title and its table of claims
    """
    rows = []
    for page, (title, table) in pages.items():
        target = f"papers/{page}.html"
        if f"## {HEADING}" in notebooks.source_path(page).read_text(encoding="utf-8"):
            section = f"{target}#{HEADING.lower().replace(' ', '-')}"
        else:
            section = target
        signs = [
            f'<a class="claim {verdict.replace(" ", "-")}" href="{section}" '
            f'title="{escape(f"{IN_WORDS.get(verdict, verdict)}: {sentence}")}">{SIGNS.get(verdict, "!")}</a>'
            for verdict, sentence in zip(table["verdict"], table["sentence"], strict=True)
        ]
        rows.append(f'<tr><td><a href="{target}">{escape(title)}</a></td><td>{"".join(signs)}</td></tr>')
    legend = ", ".join(f"{sign} {IN_WORDS[verdict]}" for verdict, sign in SIGNS.items())
    return (
        '<table class="claims"><caption>Every claim of every page, one sign each: '
        f"{legend}. A sign says its claim when you point at it, and links to the evidence.</caption>\n"
        + "\n".join(rows)
        + "\n</table>\n"
    )
