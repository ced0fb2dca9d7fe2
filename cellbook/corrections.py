"""Every correction for batch effects by name, fitted on controls, and what it leaves of the batch in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.methods.wdn import PRESETS, Config
from cellbook.methods.wdn.baselines import Centre, Harmony, Nothing, Wdn
from cellbook.metrics import BatchAccuracy, classify_batch
from cellbook.profiles import Chain, Coral, PlateScaler, Step, Whitening
from cellbook.profiles.files import SUFFIXES
from cellbook.profiles.groups import control_groups
from cellbook.profiles.table import (
    check_finite,
    controls_mask,
    drop_unusable,
    features,
    metadata,
)

HARMONY_WARNING = (
    "harmony is not fitted on controls: it makes all rows of the batches alike, treatments too. Where a compound was "
    "made in one batch only, as in BBBC021, its effect cannot be told from the batch and is partly removed with it"
)
SAME_CONTROLS = (
    "the correction has seen the controls that are classified; where it makes their means equal, those of held-out "
    "plates lean away from the others, and an accuracy below chance says no more than chance"
)
LEAKAGE_ROWS = 10_000  # controls looked at, as in the published code of Tabak et al. 2020


@dataclass(frozen=True)
class Settings:
    """What the methods need beside the table.

    Attributes
    ----------
    by : column of domains
    ridge : added to covariances: of whitening in units of their mean eigenvalue, of CORAL as it is
    wdn : Config of WDN; its column of domains is replaced by `by`
    device : of WDN
    seed : of Harmony
    """

    by: str = "Metadata_batch"
    ridge: float = 1.0
    wdn: Config = PRESETS["quick"]
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Method:
    """A correction: what it does in a sentence, how to make it, and whether it inverts a covariance (of what)."""

    does: str
    make: Callable[[Settings], Step]
    inverts: str = ""  # "controls", "domain" or nothing


def _scaled(*steps: Step) -> Chain:
    """One scale for all features first: ridges and learning rates are absolute."""
    return Chain([PlateScaler("standardise", by=None, on_constant="drop"), *steps])


def _white(s: Settings) -> Whitening:
    return Whitening(ridge=s.ridge, relative=True)


METHODS: dict[str, Method] = {
    "none": Method("leave everything as it is", lambda s: Nothing()),
    "centre": Method("subtract the mean of each domain's controls", lambda s: Centre(s.by)),
    "standardise": Method(
        "give each domain's controls mean 0 and standard deviation 1",
        lambda s: PlateScaler("standardise", by=s.by, on_constant="drop"),
    ),
    "robust": Method(
        "subtract the median of each domain's controls, divide by their MAD",
        lambda s: PlateScaler("robust", by=s.by, on_constant="drop"),
    ),
    "percentile": Method(
        "send the 1st and 99th percentile of each domain's controls to 0 and 1",
        lambda s: PlateScaler("percentile", by=s.by, on_constant="drop"),
    ),
    "whiten": Method("whiten all controls together; domains play no part", lambda s: _scaled(_white(s)), "controls"),
    "coral": Method(
        "give each domain's controls the same covariance, as in Tabak et al. 2020: means stay apart",
        lambda s: _scaled(Coral(s.by, s.ridge)),
        "domain",
    ),
    "coral-means": Method(
        "the same, and the same mean", lambda s: _scaled(Coral(s.by, s.ridge, align_means=True)), "domain"
    ),
    "tvn": Method(
        "whiten all controls, then CORAL per domain to the covariance of all (Ando et al. 2017)",
        lambda s: _scaled(_white(s), Coral(s.by, s.ridge, reference="pooled")),
        "controls",
    ),
    "wdn": Method(
        "whiten all controls, then learn one map a domain in Wasserstein distance (Tabak et al. 2020)",
        lambda s: _scaled(_white(s), Wdn(replace(s.wdn, domains=(s.by,)), s.device)),
        "controls",
    ),
    "harmony": Method(
        "Harmony on all rows, controls or not; see the warning", lambda s: _scaled(Harmony(s.by, s.seed))
    ),
}


@dataclass(frozen=True)
class Corrected:
    """A corrected table, and how well the domain of its controls can be told before and after.

    Attributes
    ----------
    profiles : DataFrame
    before, after : BatchAccuracy, or None where there are too few controls to classify
    held_out : what a fold holds out: "plates", "rows", or "" without classification
    notes : list of str
    """

    profiles: pd.DataFrame
    before: BatchAccuracy | None
    after: BatchAccuracy | None
    held_out: str
    notes: list[str]


def correct(profiles: pd.DataFrame, method: str, settings: Settings | None = None, controls: str = "DMSO") -> Corrected:
    """Correct a profile table by a method of `METHODS`, and measure batch leakage among the controls.

    Parameters
    ----------
    profiles : DataFrame
        A profile table with controls in every domain.
    method : str
    settings : Settings
    controls : str

    Raises
    ------
    CellbookError
        On an unknown method, one domain only, a domain without controls, features that are not finite, or too few
        controls for a covariance without a ridge.
    """
    s = settings or Settings()
    if method not in METHODS:
        raise CellbookError(f"there is no method {method!r}: there are {', '.join(METHODS)}")
    if not (np.isfinite(s.ridge) and s.ridge >= 0):
        raise CellbookError(f"ridge is {s.ridge}; it must be zero or more")
    names, rows = control_groups(profiles, s.by, controls)
    if len(names) < 2:
        raise CellbookError(
            f"all {len(profiles)} rows have {s.by} {names[0]!r}, so there is nothing to correct; name another column"
        )
    notes = _check_rank(METHODS[method], method, s, names, rows)
    step = METHODS[method].make(s)
    corrected = step.fit(profiles, controls).transform(profiles)
    notes += [HARMONY_WARNING] if method == "harmony" else [SAME_CONTROLS] if method != "none" else []
    if gone := len(features(profiles)) - len(features(corrected)):
        notes.append(f"{gone} feature{'s' * (gone > 1)} without spread among the controls left out")
    before, held_out = leakage(profiles, s.by, controls)
    after, _ = leakage(corrected, s.by, controls)
    return Corrected(corrected, before, after, held_out, notes)


def leakage(profiles: pd.DataFrame, by: str, controls: str = "DMSO") -> tuple[BatchAccuracy | None, str]:
    """Classify the domain of controls: plates held out where every domain has three, else rows, else not at all.

    Logistic regression on standardised features, three folds; see `metrics.classify_batch`. Lower is better. The
    controls are those that the correction was fitted on, so that "after" is a best case.
    """
    rows = profiles[controls_mask(profiles, controls)]
    if len(rows) > LEAKAGE_ROWS:
        rows = rows.groupby(by, group_keys=False).sample(frac=LEAKAGE_ROWS / len(rows), random_state=0)
    rows = rows.reset_index(drop=True)
    plates = "Metadata_plate"
    if by != plates and plates in rows and rows[plates].notna().all():
        per_domain = rows.groupby(by)[plates].nunique()
        one_each = not rows[[plates, by]].drop_duplicates()[plates].duplicated().any()
        if one_each and (per_domain >= 3).all():
            return classify_batch(rows, by, plates, standardise=True), "plates"
    if (rows[by].value_counts() >= 3).all():
        return classify_batch(rows, by, None, standardise=True), "rows"
    return None, ""


def _check_rank(method: Method, name: str, settings: Settings, names: list[str], rows: list[np.ndarray]) -> list[str]:
    """Refuse a covariance that cannot be inverted; note one that the ridge decides."""
    dimensions = rows[0].shape[1]
    if method.inverts == "controls":
        where, count = "", sum(len(x) for x in rows)
    elif method.inverts == "domain":
        few = int(np.argmin([len(x) for x in rows]))
        where, count = f" of {settings.by} {names[few]}", len(rows[few])
    else:
        return []
    if count > dimensions:
        return []
    fact = f"the {count} controls{where} span at most {count - 1} of {dimensions} dimensions"
    if settings.ridge == 0:
        raise CellbookError(
            f"{fact}, so method {name!r} cannot invert their covariance without a ridge; pass a ridge above 0 (1 in "
            "published code), or fewer features"
        )
    return [f"{fact}: the ridge of {settings.ridge:g} decides the rest"]


def column_of(profiles: pd.DataFrame, name: str) -> str:
    """Metadata column that is meant by a name with or without the prefix: "batch" is "Metadata_batch"."""
    known = metadata(profiles)
    for column in (name, f"Metadata_{name}"):
        if column in known:
            return column
    plain = [column.removeprefix("Metadata_") for column in known]
    near = get_close_matches(name.removeprefix("Metadata_"), plain, n=1)
    raise CellbookError(
        f"domain {name!r} is no metadata column of the table{f', did you mean {near[0]!r}?' if near else ''}; "
        f"there are {', '.join(plain) or 'none'}"
    )


def read_config(given: dict[str, str], preset: str = "quick") -> Config:
    """Configuration of WDN from a preset and words such as ``{"iterations": "200"}``; unknown ones are refused."""
    from cellbook.notebooks import Parameter

    if preset not in PRESETS:
        raise CellbookError(f"preset {preset!r} is not known: use one of {', '.join(PRESETS)}")
    default = PRESETS[preset]
    known = {
        f.name: Parameter(f.name, type(getattr(default, f.name)), None, "")
        for f in fields(Config)
        if f.name != "domains"
    }
    unknown = [name for name in given if name not in known]
    if unknown:
        raise CellbookError(f"no parameter {', '.join(unknown)} of WDN: there are {', '.join(known)}")
    return replace(default, **{name: known[name].parse(value) for name, value in given.items()})


def usable(profiles: pd.DataFrame, *, drop: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """The table if all features are finite; with `drop` what can be used of it, and a note of what was dropped."""
    if drop:
        kept, dropped = drop_unusable(profiles)
        found = bool(dropped.rows or dropped.not_finite or dropped.constant)
        return kept.reset_index(drop=True), [str(dropped)] if found else []
    try:
        check_finite(profiles)
    except CellbookError as error:
        # The table's own advice is a function; here the same is one argument away.
        raise CellbookError(str(error).replace("with drop_unusable(df)", "with --drop-unusable")) from None
    return profiles, []


def check_output(path: Path) -> None:
    """Refuse a place where no table can be written before anything is computed."""
    if not path.name.lower().endswith(SUFFIXES):
        raise CellbookError(f"--output {path} has an unknown suffix; it must end with one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise CellbookError(f"--output {path}: there is no folder {path.parent}; make it first, or name another")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise CellbookError(f"--output {path} cannot be written: it is a folder, or its folder is read-only")


def report(found: Corrected, method: str, settings: Settings, controls: str, output: str) -> dict[str, Any]:
    """What was done and how well the domain can be told before and after, as plain values."""
    before, after = found.before, found.after
    measured = before is not None and after is not None
    return {
        "method": method,
        "does": METHODS[method].does,
        "domain": settings.by,
        "controls": controls,
        "rows": len(found.profiles),
        "features": len(features(found.profiles)),
        "output": output,
        "held_out": found.held_out,
        "control_rows": before.n if measured else None,
        "domains": before.n_batches if measured else None,
        "accuracy_before": before.accuracy if measured else None,
        "accuracy_after": after.accuracy if measured else None,
        "noise": after.noise_baseline if measured else None,
        "largest": before.majority if measured else None,
        "notes": found.notes,
    }


def in_words(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{report['method']}: {report['does']}"]
    if report["held_out"]:
        lines += [
            f"{report['domain']} of {report['control_rows']} {report['controls']} rows told by logistic regression, "
            f"{report['held_out']} held out (lower is better):",
            f"  before  {100 * report['accuracy_before']:5.1f} %",
            f"  after   {100 * report['accuracy_after']:5.1f} %",
            f"  chance  {100 * report['largest']:5.1f} % by the largest of {report['domains']}, "
            f"{100 * report['noise']:.1f} % from noise",
        ]
    else:
        lines.append(f"fewer than three {report['controls']} rows in a domain: leakage cannot be measured")
    lines += [f"note: {note}" for note in report["notes"]]
    lines.append(f"written: {report['output']}, {report['rows']} rows, {report['features']} features")
    return "\n".join(lines)
