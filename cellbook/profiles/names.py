"""What the columns of a table are, by their names: labels of a row, what names or places an object, and features."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError

# Kept as text whatever they look like: a plate called 27481 and a well called 1E02 are names.
TEXT_COLUMNS = (
    "Metadata_plate",
    "Metadata_well",
    "Metadata_batch",
    "Metadata_compound",
    "Metadata_moa",
    "Metadata_field",
    "Metadata_role",
)
NUMBER_COLUMNS = ("Metadata_concentration", "Metadata_cell_count")
LABELS = (*(c.removeprefix("Metadata_") for c in (*TEXT_COLUMNS, *NUMBER_COLUMNS)), "replicate", "site")

NO_NAME, COUNTER = "without a name", "that count rows"
BOOKKEEPING = "that name or place an image or object"
_FEWEST_COUNTED = 8  # rows below which 1, 2, 3, ... may be a measurement
# CellProfiler: where a cell lies, what it is called, how many pieces it has. The numbers of a cell's neighbours stay.
_CELLPROFILER = re.compile(
    r"(?:^|_)(?:Location|Parent|Children|Number|TrackObjects)_|_Center_[XYZ]$|_BoundingBox(?:Minimum|Maximum)_[XYZ]$"
    r"|_EulerNumber$|^(?:Frame|Series|Scaling|Group)_|\bObject No in "
    r"|(?:^|[\W_])ID$|(?-i:[a-z]ID$)",
    re.IGNORECASE,
)
# The same in the words of other programs, as `simplify` writes them: whole names, or how they end or begin.
_COUNTERS = re.compile(
    r"((orig|original|old)?index|no|nr|num|number|sno|srno|lfdnr|order)|(index)?level\d+|rownames?|row(id|index|number)|obs|unnamed\d*"
)
_OTHER = re.compile(
    r"""(?x) (rows?|col|columns?|fov|fieldofview|frame|plane|slice|timepoint|barcode|label|name|id|uuid|guid|image)
    | (abs)?time(s|stamp)? | .*date | day | week | cluster | fold | split | seed
    | (log(10)?)?(dose|conc|concentration)(um|nm|mm|m|ugml|level)?
    | [xyzt] | [xy]m | b[xy] | [xyz](um|m|px|pixels?|pos|position|coord|coordinate|centroid|center|centre|location)
    | .*(image|object|table|track|field|site|fov|well|plate|row|column|group|series|label|compound|drug|treatment|moa
        |batch)(number|no|id|index|name|label|position|barcode|code|encoded)
    | [xyz](cell|nuc|nucleus|nuclei|obj|object|spot|crop) | (cell|nuc|nucleus|nuclei|obj|object|spot|crop)[xyz]
    | .*(cell|nucleus|nuclei)(id|label|name)
    | .*(centroid|center|centre|centerofmass|position|pos|location|coord|boundingbox|cg)[xyz](um|m|px|pixels?)?
    | .*(centroid|bbox|boundingbox)\d
    | (image)?(filename|pathname|url|md5digest|executiontime|moduleerror|processingstatus|imageset).*
    | image(series|frame|channel|width|height|scaling).*"""
)


def simplify(name: object) -> str:
    """Lower case, without punctuation and the prefix: "Image_Metadata_Cell Count" is "cellcount"."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^(image[_. ])?metadata[_. ]", "", str(name).lower()))


def standard_names(names: Iterable[object], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Find the columns that are labels under another name: own name -> standard name.

    Parameters
    ----------
    names : all columns of a table.
    given : own name -> label (``{"Drug": "compound"}``). Columns named like a label in any case, with or without
        ``Metadata_``, need no entry.

    Raises
    ------
    CellbookError : if a given column is missing, a label is unknown, or two columns claim one name.
    """
    own_names, given = [str(name) for name in names], dict(given or {})
    standard = {simplify(label): f"Metadata_{label}" for label in LABELS}
    if missing := [name for name in given if name not in own_names]:
        raise CellbookError(f"columns names {', '.join(missing)}, which the table lacks; it has {', '.join(own_names)}")
    if unknown := [own for own, label in given.items() if simplify(label) not in standard]:
        own = unknown[0]
        raise CellbookError(f"columns maps {own!r} to {given[own]!r}; use one of {', '.join(LABELS)}")
    found = {own: standard[simplify(label)] for own, label in given.items()}
    taken = set(found.values())
    for own in own_names:
        name = standard.get(simplify(own), "")
        if own not in found and name and (name not in taken or own == name):
            found[own] = name
    for target in found.values():
        if len(twice := [own for own, name in found.items() if name == target]) > 1:
            raise CellbookError(f"two columns of the table mean {target} ({' and '.join(twice)}); drop or rename one")
    return {own: name for own, name in found.items() if own != name}


def left_out(df: pd.DataFrame, names: Sequence[str], kept: Sequence[str] = ()) -> dict[str, str]:
    """Find the columns among `names` that are no features although they may be numbers: column -> why.

    Parameters
    ----------
    names : columns that are not metadata.
    kept : names, or patterns such as ``*_Number_*``, of columns that are features all the same.

    Raises
    ------
    CellbookError : if an entry of `kept` fits no column.
    """
    if wrong := [pattern for pattern in kept if not any(fnmatchcase(name, pattern) for name in names)]:
        raise CellbookError(
            f"feature={wrong[0]!r} fits none of the {len(names)} columns that are not metadata; they are "
            f"{', '.join(names[:8])}{' ...' * (len(names) > 8)}"
        )
    reasons = {name: _reason(name, df[name]) for name in names if not any(fnmatchcase(name, k) for k in kept)}
    return {name: why for name, why in reasons.items() if why}


def is_bookkeeping(name: str) -> bool:
    """Whether a column names or places an image or object: its number, its parent, where it lies, its file."""
    return bool(_CELLPROFILER.search(name) or _OTHER.fullmatch(simplify(name)))


def _reason(name: str, column: pd.Series) -> str:
    if not re.search(r"\w", name) or re.match(r"Unnamed: \d|\(column \d+\)", name):
        return NO_NAME
    name = re.sub(r"\.\d$", "", name)  # a second column of one name, as pandas calls it
    if _COUNTERS.fullmatch(simplify(name)) or _counts(column):
        return COUNTER
    return BOOKKEEPING if is_bookkeeping(name) else ""


def _counts(column: pd.Series) -> bool:
    """Whether the values are whole numbers that rise, or fall, from each row to the next."""
    if len(column) < _FEWEST_COUNTED or not pd.api.types.is_numeric_dtype(column.dtype):
        return False
    x = column.to_numpy(np.float64, na_value=np.nan)
    with np.errstate(invalid="ignore"):
        step = np.diff(x)
    return bool(((step > 0).all() or (step < 0).all()) and (x == np.floor(x)).all())
