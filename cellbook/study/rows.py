"""Lines of the table of numbers: everything that a page measures is votes, a set a training, grouped by what is drawn.

A vote is right or not, a share of right neighbours, or the value of any measure; what is drawn anew for an interval is
compounds, plates or whatever else groups the votes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cellbook import metrics
from cellbook.claims import KEYS

KNOWN = ("low", "high", "sd", "trainings", "agree", "se", "draws", "correct", "scored", "excluded", "null")


class Draws(NamedTuple):
    """How often the groups are drawn anew behind an interval, and the seed."""

    n: int
    seed: int


class Votes(NamedTuple):
    """Votes of one training, (n,) each: the sum that is right, out of how many, and the group of each."""

    correct: np.ndarray
    counted: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, value: ArrayLike, group: ArrayLike, counted: ArrayLike | None = None) -> Self:
        """Votes from values and groups; all of them count once unless `counted` says otherwise."""
        value = np.asarray(value, dtype=np.float64)
        counted = np.ones(len(value)) if counted is None else np.asarray(counted, dtype=np.float64)
        return cls(value, counted, np.asarray(group))

    @property
    def share(self) -> float:
        """What is right of what is counted; NaN where nothing is."""
        total = self.counted.sum()
        return float(self.correct.sum() / total) if total else float("nan")

    def where(self, keep: np.ndarray) -> Self:
        """Some of the votes."""
        return type(self)(self.correct[keep], self.counted[keep], self.group[keep])


def mean(repeats: Sequence[Votes]) -> Votes:
    """Votes averaged over trainings."""
    return repeats[0]._replace(correct=np.mean([one.correct for one in repeats], axis=0))


def gaps(left: Sequence[Votes], right: Sequence[Votes]) -> list[Votes]:
    """What `left` has more than `right` on the same queries, of those that both count; one a training of both.

    Something that was done once stands beside each training of the other.
    """
    n = max(len(left), len(right)) if 1 in (len(left), len(right)) else min(len(left), len(right))
    pairs = zip(*(list(side) * n if len(side) == 1 else side[:n] for side in (left, right)), strict=True)
    found = []
    for a, b in pairs:
        both = (a.counted > 0) & (b.counted > 0)
        found.append(Votes((a.correct - b.correct) * both, a.counted * both, a.group))
    return found


# --- lines ----------------------------------------------------------------------------------------------------------


def row(setting: str, protocol: str, measure: str, value: float, k: int = 1, **more: Any) -> dict[str, Any]:
    """One line; what does not apply is missing.

    Columns of all pages are `low` and `high` (95 %), `sd` over `trainings` and `agree`, the share of trainings on the
    side of their mean; `se`, the deviation over as many resamples as `draws` says; `correct`, `scored`, `excluded`;
    `null`, what chance or the largest class gives. Further ones are the page's own.
    """
    line = {"setting": setting, "protocol": protocol, "measure": measure, "k": k, "value": float(value)}
    return {**line, **dict.fromkeys(KNOWN, np.nan), **more}


def spread(values: Iterable[float], *, signs: bool = False) -> dict[str, float]:
    """Sample deviation over trainings (missing for one), their number, and the share with their mean's sign."""
    each = np.asarray(list(values), dtype=np.float64)
    found = {"sd": float(np.std(each, ddof=1)) if len(each) > 1 else np.nan, "trainings": len(each)}
    return found | ({"agree": float(np.mean(np.sign(each) == np.sign(each.mean())))} if signs else {})


def counts(repeats: Sequence[Votes]) -> dict[str, float]:
    """How many queries are right (mean over trainings), scored and excluded."""
    votes = mean(repeats)
    return {
        "correct": float(votes.correct.sum()),
        "scored": float(votes.counted.sum()),
        "excluded": int((votes.counted == 0).sum()),
    }


def interval(votes: Votes, draws: Draws) -> dict[str, float]:
    """95 % interval of the share, drawing groups anew."""
    low, high = metrics.bootstrap_compounds(votes.correct, votes.counted, votes.group, *draws)
    return {"low": low, "high": high}


def average(
    setting: str,
    protocol: str,
    measure: str,
    repeats: Sequence[Votes],
    draws: Draws,
    k: int = 1,
    *,
    signs: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """The line of a share: its mean over trainings, the interval of the mean vote, and the spread over trainings."""
    shares = [one.share for one in repeats]
    found = interval(mean(repeats), draws) | spread(shares, signs=signs)
    return row(setting, protocol, measure, float(np.mean(shares)), k, **(found | more))


def difference(
    setting: str,
    protocol: str,
    measure: str,
    left: Sequence[Votes],
    right: Sequence[Votes],
    draws: Draws,
    k: int = 1,
    *,
    counted: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """The line of a paired difference, see `gaps`; with its counts if `counted`."""
    found = gaps(left, right)
    more = (counts(found) if counted else {}) | more
    return average(setting, protocol, measure, found, draws, k, signs=True, **more)


def random(setting: str, protocol: str, measure: str, values: ArrayLike, k: int = 1, **more: Any) -> dict[str, Any]:
    """The line of something random: mean and central 95 % of its draws."""
    low, high = np.quantile(values, [0.025, 0.975])
    return row(setting, protocol, measure, float(np.mean(values)), k, **({"low": low, "high": high} | more))


def numbers(lines: Iterable[dict[str, Any]], without: Iterable[str] = ()) -> pd.DataFrame:
    """Lines as a table: what names a number, its value, the columns of all pages but `without`, then the page's own."""
    table = pd.DataFrame(list(lines))
    first = [*KEYS, "value", *(name for name in KNOWN if name not in set(without))]
    own = [name for name in table if name not in {*KEYS, "value", *KNOWN}]
    return table.reindex(columns=[*first, *own])


# --- selections -----------------------------------------------------------------------------------------------------


def by_repeat(table: pd.DataFrame, *names: str) -> dict[tuple[Any, ...], list[pd.DataFrame]]:
    """Parts of a product by the columns named, one a training, in the order of the table."""
    found: dict[tuple[Any, ...], list[pd.DataFrame]] = {}
    for (*key, _), part in table.groupby([*names, "repeat"], sort=False):
        found.setdefault(tuple(key), []).append(part)
    return found


def pick(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """Rows in which every named column has the given value, or one of a given list; of an empty table none."""
    if table.empty or not where:
        return table
    masks = [table[n].isin(v) if isinstance(v, list | tuple | set) else table[n] == v for n, v in where.items()]
    return table[np.logical_and.reduce([mask.to_numpy() for mask in masks])]


def one(table: pd.DataFrame, **where: object) -> pd.Series | None:
    """The first row with these values, or None."""
    found = pick(table, **where)
    return found.iloc[0] if len(found) else None


def for_a_figure(history: pd.DataFrame, by: Sequence[str], most: int = 120) -> pd.DataFrame:
    """A history with four digits a value, and at most so many steps of each line, the last among them."""
    left = history.groupby(list(by)).cumcount(ascending=False)
    stride = left.groupby([history[name] for name in by]).transform("max") // most + 1
    kept = history[left % stride == 0]
    return kept.assign(value=[float(f"{value:.4g}") for value in kept["value"]])
