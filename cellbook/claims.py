"""Published numbers and claims beside what was measured, each with a verdict.

A file `book/claims/<key>.yml` holds, for one page, the published *numbers* (where they are printed, under which
protocol) and the *claims* (sentences that a predicate in the page's module can test). The rule of the verdicts is
the same for all papers:

number
    *reproduced* if the two differ by no more than half the last printed digit plus one of the units that were scored (a
    treatment, or a neighbour where neighbours are pooled);
    *partly* if the published value lies inside the interval of the measured one;
    *not reproduced* otherwise;
    *not comparable* where the file gives a reason, whatever the two values are.
claim
    what the predicate says, with the evidence in numbers beside it; *undecided* where a network was trained too little
    for its results to say anything about the paper.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from cellbook.errors import CellbookError

REPRODUCED, PARTLY, NOT = "reproduced", "partly", "not reproduced"
UNDECIDED, INCOMPARABLE = "undecided", "not comparable"
VERDICTS = (REPRODUCED, PARTLY, NOT, UNDECIDED, INCOMPARABLE)
KEYS = ["setting", "protocol", "measure", "k"]  # what names a number, measured or published
NUMBER_FIELDS = {"id", "source", "where", "value", "digits", *KEYS}
OPTIONAL_FIELDS = {"sd", "se", "not_comparable", "why"}  # sd, se: what is printed beside the value


@dataclass(frozen=True)
class Verdict:
    """What a predicate found: one of the five verdicts, the evidence in words with numbers, and its parts.

    `parts` are (name, verdict, evidence) of each source of numbers that was judged by itself, if any was.
    """

    verdict: str
    evidence: str
    parts: tuple[tuple[str, str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise CellbookError(f"verdict {self.verdict!r} is not one of {', '.join(VERDICTS)}")


IN_WORDS = {verdict: verdict for verdict in VERDICTS} | {PARTLY: "partly reproduced", INCOMPARABLE: "not judged"}
Predicate = Callable[[pd.DataFrame], Verdict]


def load(path: str | Path) -> dict[str, Any]:
    """Read a claims file; a field that is unknown, missing or of another kind is an error that names the entry."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise CellbookError(f"cannot read the claims in {path}: {why}") from error
    if not isinstance(content, dict) or not isinstance(content.get("screen"), str):
        raise CellbookError(f"{path} holds no claims: it needs a line `screen: name of the papers' data`")
    if unknown := sorted(str(name) for name in set(content) - {"screen", "numbers", "claims"}):
        raise CellbookError(f"{path} has unknown parts {', '.join(unknown)}: there are screen, numbers and claims")
    seen: set[str] = set()
    for part, needed, further in (
        ("numbers", NUMBER_FIELDS, OPTIONAL_FIELDS),
        ("claims", {"id", "source", "sentence"}, set()),
    ):
        content[part] = content.get(part) or []
        if not isinstance(content[part], list):
            raise CellbookError(f"{path}: {part} is no list of entries, each of which begins with `- id:`")
        for place, entry in enumerate(content[part], 1):
            if fault := _fault(entry, needed, further, seen):
                name = entry.get("id", f"no. {place}") if isinstance(entry, dict) else f"no. {place}"
                raise CellbookError(f"{path}: entry {name} of {part} {fault}")
            seen.add(entry["id"])
    return content


def _fault(entry: Any, needed: set[str], further: set[str], seen: set[str]) -> str | None:
    """What is wrong with one entry of a claims file."""
    if not isinstance(entry, dict):
        return "holds no fields"
    if missing := sorted(needed - set(entry)):
        return f"lacks {', '.join(missing)}"
    if unknown := sorted(str(name) for name in set(entry) - needed - further):
        return f"has unknown fields {', '.join(unknown)}"
    for name, value in entry.items():
        if name in ("value", "sd", "se") and not (type(value) in (int, float) and np.isfinite(value)):
            return f"has the {name} {value}, which is no finite number"
        if name in ("digits", "k") and not (type(value) is int and 0 <= value < 100):
            return f"has {name} {value}, which is no whole number from 0 to 99"
        if name not in ("value", "sd", "se", "digits", "k") and not (isinstance(value, str) and value.strip()):
            return f"has {name} {'empty' if value in (None, '') else value}, which is no text"
    return "has an id that occurs twice" if entry["id"] in seen else None


def judge_number(published: float, measured: float, low: float, high: float, scored: float, digits: int = 3) -> str:
    """Verdict on one published number, printed with `digits` decimals; `scored` is NaN for what counts no units."""
    one_unit = 1 / scored if scored > 0 else 0.0  # NaN is not greater
    if abs(published - measured) <= one_unit + 0.5 * 10.0**-digits + 1e-12:
        return REPRODUCED
    return PARTLY if low <= published <= high else NOT


def judge_numbers(entries: list[dict[str, Any]], measured: pd.DataFrame, other_data: str = "") -> pd.DataFrame:
    """One row a published number: the value that was measured for it, its interval, and the verdict.

    `measured` has the columns setting, protocol, measure, k, value, low, high, scored. A number whose setting was
    not run (a smaller preset) is left out. `other_data`, if given, says on what other data than the papers' was
    measured, and makes every number incomparable.
    """
    rows = []
    table = measured.set_index(KEYS).sort_index()
    for entry in entries:
        where = tuple(entry[name] for name in KEYS)
        if where not in table.index:
            continue
        found = table.loc[[where]].iloc[0]
        verdict = judge_number(
            entry["value"], found["value"], found["low"], found["high"], found["scored"], entry["digits"]
        )
        reasons = [other_data, entry.get("not_comparable", "")]
        if any(reasons):
            verdict = INCOMPARABLE
        rows.append(
            {
                "id": entry["id"],
                "source": entry["source"],
                "where": entry["where"],
                **{name: entry[name] for name in KEYS},
                "published": entry["value"],
                "published_sd": entry.get("sd", np.nan),
                "published_se": entry.get("se", np.nan),
                "measured": found["value"],
                "low": found["low"],
                "high": found["high"],
                "correct": found["correct"],
                "scored": found["scored"],
                "verdict": verdict,
                "why": "; ".join(filter(None, [*reasons, entry.get("why", "")])),
            }
        )
    return pd.DataFrame(rows)


def judge_claims(
    entries: list[dict[str, Any]], predicates: dict[str, Predicate], measured: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the predicate of each claim.

    Returns
    -------
    claims : one row a claim: id, source, sentence, verdict, evidence
    parts : one row a part of a claim that was judged by itself: id, part, verdict, text
    """
    without = [entry["id"] for entry in entries if entry["id"] not in predicates]
    if without:
        raise CellbookError(f"no predicate for the claims {', '.join(without)}")
    found = {entry["id"]: predicates[entry["id"]](measured) for entry in entries}
    rows = [
        entry | {"verdict": of.verdict, "evidence": of.evidence}
        for entry, of in zip(entries, found.values(), strict=True)
    ]
    parts = [(name, *part) for name, of in found.items() for part in of.parts]
    return pd.DataFrame(rows), pd.DataFrame(parts, columns=["id", "part", "verdict", "text"])


def rules(predicates: dict[str, Predicate]) -> pd.DataFrame:
    """What decides each claim, in words; columns id, rule, premise.

    The rule is the first two paragraphs of the predicate's docstring, the premise its attribute of that name.
    """
    texts = [" ".join(" ".join((inspect.getdoc(of) or "").split("\n\n")[:2]).split()) for of in predicates.values()]
    premises = [getattr(of, "premise", "none, as it is about no learned features") for of in predicates.values()]
    return pd.DataFrame({"id": list(predicates), "rule": texts, "premise": premises})
