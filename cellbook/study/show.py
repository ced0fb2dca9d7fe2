"""Tables as a page shows them: proportions in per cent with their interval, a caption, nothing else."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from IPython.display import HTML, Markdown


SPACE = "\N{NO-BREAK SPACE}"


def percent(value: float, low: float = np.nan, high: float = np.nan) -> str:
    """Write a proportion in per cent, its interval in brackets: ``92.2 [85.0, 97.1]``; a dash where there is none."""
    if value is None or np.isnan(value):
        return "–"
    text = f"{100 * value:.1f}"
    return text if np.isnan(low) else f"{text} [{100 * low:.1f}, {100 * high:.1f}]".replace(" ", SPACE)


def plain(value: float, low: float = np.nan, high: float = np.nan, digits: int = 3) -> str:
    """Write a number with so many decimals, its interval in brackets."""
    text = f"{value:.{digits}f}"
    return text if np.isnan(low) else f"{text} [{low:.{digits}f}, {high:.{digits}f}]".replace(" ", SPACE)


def say(text: str) -> Markdown | None:
    """Return a sentence as Markdown; nothing where there is none to be said."""
    from IPython.display import Markdown

    return Markdown(text) if text else None


def show(table: pd.DataFrame, caption: str) -> HTML:
    """Return a table as HTML that scrolls in its own box under its caption; text in back quotes becomes code."""
    from IPython.display import HTML

    body = table.rename_axis(columns=None).to_html(
        index=False, border=0, classes="dataframe", na_rep="–", justify="unset"
    )
    words = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(caption))
    label = escape(caption.replace("`", ""), quote=True)
    return HTML(
        f'<p class="table-caption">{words}</p><div class="table-wrapper" role="region" tabindex="0" '
        f'aria-label="{label}">{body}</div>'
    )


def protocol_box(name: str) -> Markdown:
    """Return the box that says how a named protocol compares treatments."""
    from IPython.display import Markdown

    from cellbook.metrics import describe

    rows = "\n".join(f"| {what} | {how} |" for what, how in describe(name))
    return Markdown(f"| `{name}` | |\n| --- | --- |\n{rows}")
