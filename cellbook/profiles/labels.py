"""One thing written two ways: doses and wells are joined, what contradicts is refused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError

NAMES = ("Metadata_plate", "Metadata_well", "Metadata_batch", "Metadata_compound", "Metadata_moa")
SAME_DOSE = 1e-4  # relative: doses that agree to four digits are one
_NO_MOA = r"(?i)unknown( (moa|mechanism)( of action)?)?|not (known|annotated|determined|assigned)|tbd"
_WELL = re.compile(r"([A-Za-z]{1,2})[\s_-]*0*(\d{1,2})")


def join(df: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Write each label of a table one way: without spaces at its ends, one form of a well, one number a dose.

    Wells are rewritten where two forms of one occur (B3 and B03), doses where two differ by less than `SAME_DOSE`
    (0.3 and 0.30000000000000004); the one with the fewest digits stands for both.

    Returns
    -------
    DataFrame
        The table itself where nothing had to be joined.
    list of str
        What was joined, with numbers of rows.
    """
    notes: list[str] = []
    for name in (c for c in NAMES if c in df):
        bare = {v: v.strip() for v in df[name].dropna().unique() if isinstance(v, str) and v != v.strip()}
        df = _replace(df, name, bare, "spaces at their ends taken off", notes)
    if "Metadata_moa" in df:
        unknown = df["Metadata_moa"].astype("str").str.fullmatch(_NO_MOA).eq(True)
        if unknown.any():
            notes.append(
                f"Metadata_moa: {df.loc[unknown, 'Metadata_moa'].iloc[0]!r} means none in {unknown.sum()} rows"
            )
            df = df.assign(Metadata_moa=df["Metadata_moa"].astype(object).mask(unknown, None))
    if "Metadata_well" in df:
        forms = {v: _well(v) for v in df["Metadata_well"].dropna().unique() if isinstance(v, str)}
        count = pd.Series(list(forms.values()), dtype=object).value_counts()
        odd = {v: form for v, form in forms.items() if v != form and count[form] > 1}
        df = _replace(df, "Metadata_well", odd, "two forms of a well are one", notes)
    dose = "Metadata_concentration"
    if dose in df and pd.api.types.is_numeric_dtype(df[dose].dtype):
        df = _replace(df, dose, _same_doses(df[dose]), "doses that agree to four digits are one", notes)
    return df, notes


def check(df: pd.DataFrame) -> None:
    """Refuse names that differ in case, spaces or hyphens alone, and wells with two treatments.

    Raises
    ------
    CellbookError : with the number of names or wells, the first of them, and the mend.
    """
    for column in (c for c in NAMES if c in df and c != "Metadata_well"):
        text = df[column].dropna().astype("str")
        names = sorted({part for name in text.unique() for part in name.split("|")})
        ways: dict[str, list[str]] = {}
        for name in names:
            ways.setdefault(_key(name), []).append(name)
        if twice := [way for way in ways.values() if len(way) > 1]:
            rows = int(text.isin({name for way in twice for name in way}).sum())
            raise CellbookError(
                f"{len(twice)} of {len(ways)} names in {column} are written in two ways ({' and '.join(twice[0])}), in "
                f"{rows} of {len(df)} rows, and would count as two for case, spaces or hyphens; write each one way"
            )
    place = [c for c in ("Metadata_batch", "Metadata_plate", "Metadata_well") if c in df]
    treatment = [c for c in ("Metadata_compound", "Metadata_concentration") if c in df]
    if not {"Metadata_plate", "Metadata_well"} <= set(place) or not treatment:
        return
    kinds = df[[*place, *treatment]].dropna().drop_duplicates()
    two = kinds[kinds.duplicated(place, keep=False)]
    if len(two):
        first = two[(two[place] == two[place].iloc[0]).all(axis=1)]
        named = " and ".join(" ".join(map(str, row)) for row in first[treatment].head(2).itertuples(index=False))
        raise CellbookError(
            f"{len(two.drop_duplicates(place))} wells hold two treatments, first {first['Metadata_plate'].iloc[0]} "
            f"{first['Metadata_well'].iloc[0]} ({named}): a well has one; mend the plate map, or how it was joined"
        )


def _replace(df: pd.DataFrame, column: str, ways: Mapping[Any, object], why: str, notes: list[str]) -> pd.DataFrame:
    if not ways:
        return df
    rows = int(df[column].isin(list(ways)).sum())
    old, new = next(iter(ways.items()))
    notes.append(
        f"{column}: {old!r} read as {new!r}{f' and {len(ways) - 1} more' if len(ways) > 1 else ''} in {rows} of "
        f"{len(df)} rows: {why}"
    )
    return df.assign(**{column: df[column].replace(ways)})


def _same_doses(column: pd.Series) -> dict[float, float]:
    values = np.unique(column.dropna().to_numpy(np.float64))
    values = values[np.isfinite(values)]
    groups: list[list[float]] = []
    for value in values.tolist():
        if groups and abs(value - groups[-1][0]) <= SAME_DOSE * abs(value):
            groups[-1].append(value)
        else:
            groups.append([value])
    best = {value: min(group, key=lambda v: (len(repr(v)), v)) for group in groups for value in group}
    return {value: short for value, short in best.items() if value != short}


def _well(name: str) -> str:
    found = _WELL.fullmatch(name)
    return f"{found[1].upper()}{int(found[2]):02d}" if found else name


def _key(name: str) -> str:
    """Equal for names that differ in case, spaces, hyphens, unseen characters, or zeros at the ends of a number."""
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    text = "".join("-" if unicodedata.category(c) == "Pd" else c for c in text if unicodedata.category(c) != "Cf")
    text = re.sub(r"(?<=\d)[\s_-]+(?=\d)", " ", text)  # P1_11 is not P11_1
    text = re.sub(r"(?<=\w)[\s_-]+(?=[^\W\d])|(?<=[^\W\d])[\s_-]+(?=\w)", "", text)
    text = re.sub(r"(?<![\d.,])0+(?=\d)", "", text)
    number = re.fullmatch(r"(\d+)\.0*", text)
    return number[1] if number else text


def like_controls(names: pd.Series, controls: str) -> pd.Series:
    """Which names are not that of the controls, but look like it: dmso, "DMSO 0.1 %", "DMSO_0.1", "Vehicle (DMSO)"."""
    kind = r"(control|ctrl|vehicle|solvent|negative|neg|only|[\d.,]+\s*%|0[.,]\d+)"
    form = rf"(?i)\s*({kind}[\s_(,:-]*)*{re.escape(controls.strip())}([\s_(,:-]*{kind})*[\s)]*(v/v)?[\s)]*"
    return names.astype("str").str.fullmatch(form) & names.ne(controls)


def check_controls(names: pd.Series, controls: str) -> None:
    """Refuse a column of compounds or mechanisms in which a name is like that of the controls, see `like_controls`."""
    if (near := like_controls(names, controls).eq(True)).any():
        found = names[near].iloc[0]
        raise CellbookError(
            f"{names.name} is {found!r} in {near.sum()} of {len(names)} rows, which looks like the controls but is not "
            f"their name {controls!r}; rename it, or pass controls={found!r}."
        )
