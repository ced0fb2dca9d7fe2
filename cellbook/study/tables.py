"""Tables that several pages show: the measured numbers of one kind spread out, beside what was printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from cellbook.claims import KEYS
from cellbook.screens.named import IN_WORDS
from cellbook.study.judging import CHANGE, PAPERS_VIEWS, PREMISE, VIEWS
from cellbook.study.rows import one, pick
from cellbook.study.show import SPACE, percent, plain
from cellbook.study.words import accuracy, printed


def wide(
    lines: pd.DataFrame, index: str | Sequence[str], text: Callable[[pd.Series], str], columns: str = "measure"
) -> pd.DataFrame:
    """One row an `index`, one column a value of `columns`, each line as `text` writes it; in the order of the lines."""
    if lines.empty:
        return pd.DataFrame()
    index = [index] if isinstance(index, str) else list(index)
    texts = lines.assign(text=[text(line) for _, line in lines.iterrows()])
    table = texts.pivot_table(index=index, columns=columns, values="text", aggfunc="first", sort=False)
    table = table.reset_index().rename_axis(columns=None)
    return lines[index].drop_duplicates().merge(table, on=index).fillna("–")  # a pivot sorts each label by itself


def beside_paper(
    numbers: pd.DataFrame,
    verdicts: pd.DataFrame | None,
    rows: Sequence[tuple[dict[str, str], dict[str, object]]],
    columns: dict[str, dict[str, object]],
    text: Callable[[pd.Series], str] = accuracy,
    print_: Callable[[pd.Series], str] = printed,
) -> pd.DataFrame:
    """Measured numbers, and in a row of their own under each what was printed.

    Parameters
    ----------
    numbers, verdicts : the page's tables; a number and its verdict have the same names (`claims.KEYS`)
    rows : of each row its labels, and which lines it is made of, as for `pick`
    columns : of each column by its heading which line it shows
    text, print_ : how a line and a verdict are written

    Returns
    -------
    DataFrame
        The labels, "from" (here or paper; left out where nothing was printed), then the columns; a dash where there is
        nothing. A row without any number is left out.
    """
    found = []
    for labels, where in rows:
        lines = {name: one(numbers, **where, **which) for name, which in columns.items()}
        if all(line is None for line in lines.values()):
            continue
        theirs = {name: _of(verdicts, line) for name, line in lines.items()}
        write = {name: "–" if line is None else text(line) for name, line in lines.items()}
        found.append({**labels, "from": "here", **write})
        if any(verdict is not None for verdict in theirs.values()):
            write = {name: "–" if verdict is None else print_(verdict) for name, verdict in theirs.items()}
            found.append({**labels, "from": "paper", **write})
    table = pd.DataFrame(found)
    return table if table.empty or (table["from"] == "paper").any() else table.drop(columns="from")


def _of(verdicts: pd.DataFrame | None, line: pd.Series | None) -> pd.Series | None:
    """The verdict on a number."""
    if verdicts is None or line is None:
        return None
    return one(verdicts, **{name: line[name] for name in KEYS})


def verdict_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Published, with the spread in print, beside measured; the verdict and its reason.

    All are proportions but for silhouettes and squared errors.
    """
    if verdicts.empty:
        return verdicts
    digits = [_decimals(verdict) for _, verdict in verdicts.iterrows()]
    lines = list(zip(digits, verdicts[["measured", "low", "high"]].itertuples(index=False), strict=True))
    why = verdicts["why"]
    for screen, words in IN_WORDS.items():
        why = why.str.replace(f"measured on {screen},", f"measured on {words},", regex=False)
    return pd.DataFrame(
        {
            "printed in": verdicts["where"],
            "published": [printed(verdict, n) for n, (_, verdict) in zip(digits, verdicts.iterrows(), strict=True)],
            "measured": [percent(*line) if n is None else plain(*line, digits=n) for n, line in lines],
            "verdict": verdicts["verdict"],
            "why": why,
        }
    )


def _decimals(verdict: pd.Series) -> int | None:
    """Of a number that is no proportion."""
    if verdict["measure"] == "MSE":
        return 5
    return 3 if "silhouette" in (verdict["protocol"], verdict["measure"]) else None


def evidence_table(claims: pd.DataFrame, evidence: pd.DataFrame | None) -> pd.DataFrame:
    """The evidence of every claim, one row a source with its own verdict; one row where a claim has no parts.

    `evidence` is missing where no claim has parts.
    """
    found = []
    for claim in claims.itertuples():
        parts = pd.DataFrame() if evidence is None else evidence[evidence["id"] == claim.id]
        lines = [(part.part, part.verdict, part.text) for part in parts.itertuples()]
        for source, verdict, text in lines or [("–", claim.verdict, claim.evidence)]:
            found.append({"claim": claim.sentence, "profiles": source, "verdict": verdict, "evidence": text})
    table = pd.DataFrame(found)
    return table.assign(claim=table["claim"].where(~table["claim"].duplicated(), ""))


def premise_table(numbers: pd.DataFrame, key: str) -> pd.DataFrame:
    """How far each model was trained, see `judging`: one row a value of the column `key`, trainings side by side."""
    rows = []
    for name, lines in pick(numbers, protocol=PREMISE).groupby(key, sort=False):
        row = {"": name}
        for measure, part in lines.groupby("measure", sort=False):
            if measure in (VIEWS, PAPERS_VIEWS):
                row[str(measure)] = f"{part['value'].iloc[0]:,.0f}"
            elif measure == CHANGE:
                row[f"{measure} (%)"] = ", ".join(f"{100 * value:+.1f}" for value in part["value"])
            else:
                each = (f"{r.value:+.3f}{SPACE}[{r.low:+.3f},{SPACE}{r.high:+.3f}]" for r in part.itertuples())
                row[str(measure)] = "; ".join(each)
        rows.append(row)
    return pd.DataFrame(rows)


def budget_table(lines: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """How large a run is beside the paper's: what, here, in the paper."""
    return pd.DataFrame(lines, columns=["", "here", "in the paper, or in its code"])
