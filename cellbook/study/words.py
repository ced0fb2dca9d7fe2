"""Numbers and findings as a page writes them: an accuracy, a difference, a printed value, a box of sentences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from cellbook.claims import IN_WORDS
from cellbook.study.show import SPACE, percent

FEWEST_DRAWS = 20  # resamples behind a standard error that is shown


def accuracy(line: pd.Series) -> str:
    """A proportion in per cent: mean ± deviation over trainings, then (standard error of resamples) or [interval].

    Of fewer than `FEWEST_DRAWS` resamples no standard error is shown.
    """
    text = percent(line["value"]) + _deviation(line, 100, 1)
    if line.get("draws", np.nan) > 0:
        return (text + _error(line, 100, 1)).replace(" ", SPACE)
    if np.isfinite(line["low"]):
        digits = 0 if line["high"] - line["low"] > 0.02 else 1  # ends that round to one another are no interval
        text += f" [{100 * line['low']:.{digits}f}, {100 * line['high']:.{digits}f}]"
    return text.replace(" ", SPACE)


def share(line: pd.Series) -> str:
    """A proportion in per cent [interval], for a sentence: `accuracy` without what trainings differ by."""
    return accuracy(line.reindex(["value", "low", "high"]))


def number(line: pd.Series, digits: int = 3) -> str:
    """A number that is no proportion: mean ± deviation over trainings (standard error of resamples)."""
    text = f"{line['value']:.{digits}f}" + _deviation(line, 1, digits) + _error(line, 1, digits)
    return text.replace(" ", SPACE)


def points(line: pd.Series, label: str = "") -> str:
    """A difference of proportions in points, with its interval, behind a label."""
    text = f"{100 * line['value']:+.1f} points [{100 * line['low']:+.1f}, {100 * line['high']:+.1f}]"
    return f"{label} {text}".strip()


def printed(verdict: pd.Series, digits: int | None = None) -> str:
    """A published number with what is printed beside it: ± deviation, or (standard error); `digits`: no proportion."""
    scale, places = (100, 1) if digits is None else (1, digits)
    text = f"{scale * verdict['published']:.{places}f}"
    if np.isfinite(verdict["published_sd"]):
        text += f" ± {scale * verdict['published_sd']:.{places}f}"
    if np.isfinite(verdict["published_se"]):
        text += f" ({scale * verdict['published_se']:.{places}f})"
    return text.replace(" ", SPACE)


def _deviation(line: pd.Series, scale: float, digits: int) -> str:
    sd = line.get("sd", np.nan)
    return f" ± {scale * sd:.{digits}f}" if np.isfinite(sd) else ""


def _error(line: pd.Series, scale: float, digits: int) -> str:
    known = line.get("draws", np.nan) >= FEWEST_DRAWS and np.isfinite(line["se"])
    return f" ({scale * line['se']:.{digits}f})" if known else ""


def box(title: str, lines: Iterable[str], kind: str = "important") -> str:
    """A box as Markdown; a kind is one of the theme: important, warning, tip, note."""
    return "\n".join([f"```{{admonition}} {title}", f":class: {kind}", *lines, "```"])


def takeaways(lines: Iterable[str], claims: pd.DataFrame) -> str:
    """The box of key takeaways: sentences, then a line a verdict with the claims that have it."""
    verdicts = []
    for verdict, of in claims.groupby("verdict", sort=False)["sentence"]:
        some = f"{len(of)} claims" if len(of) > 1 else "One claim"
        verdicts.append(f"{some} *{IN_WORDS[verdict]}*: {'; '.join(of.str.removesuffix('.'))}.")
    return box("Key takeaways", [f"- {text}" for text in (*lines, *verdicts)])


def smaller(config: Any, paper: Any, sizes: dict[str, str]) -> list[str]:
    """What of the paper's budget is not there, by field and its words: "1,600 iterations instead of 40,000"."""
    return [
        f"{getattr(config, name):,} {words} instead of {getattr(paper, name):,}"
        for name, words in sizes.items()
        if getattr(config, name) != getattr(paper, name)
    ]
