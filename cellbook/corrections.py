"""Every correction for batch effects by name, fitted on controls, and what it leaves of the batch in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError, some
from cellbook.methods.wdn import PRESETS, Config
from cellbook.methods.wdn.step import Wdn
from cellbook.metrics import BatchAccuracy, classify_batch
from cellbook.profiles import Chain, Coral, PlateScaler, Step, Whitening
from cellbook.profiles.centre import Centre, Nothing
from cellbook.profiles.groups import FLOOR, control_groups, group_rows
from cellbook.profiles.harmony import Harmony
from cellbook.profiles.table import controls_mask, features, matrix

HARMONY_WARNING = (
    "harmony is not fitted on controls: it makes all rows of the batches alike, treatments too. Where a compound was "
    "made in one batch only, as in BBBC021, its effect cannot be told from the batch and is partly removed with it"
)
SAME_CONTROLS = (
    "the correction has seen the controls that are classified; where it makes their means equal, those of held-out "
    "plates lean away from the others, and an accuracy below chance says no more than chance"
)
RIDGE = 1.0  # in published code
FARTHEST = 1e5  # deviations; a hundred times what any published profile reaches on its plate
FEWEST_CONTROLS = 10  # of a domain, that maps are learned from
LEAKAGE_ROWS = 10_000  # controls looked at, as in the published code of Tabak et al. 2020


@dataclass(frozen=True)
class Settings:
    """What the methods need beside the table."""

    by: str = "Metadata_batch"  # column of domains
    # Added to covariances: of whitening in units of their mean eigenvalue, else as it is; None is `RIDGE`, but
    # refused where controls are so few that the ridge decides.
    ridge: float | None = None
    wdn: Config = PRESETS["relative"]  # its column of domains is replaced by `by`
    device: str = "auto"  # of WDN
    seed: int = 0  # of Harmony
    step: int | None = None  # map step of WDN that is applied; None leaves it to held-out controls
    fewest_controls: int = FEWEST_CONTROLS  # WDN refuses a domain with fewer controls

    @property
    def amount(self) -> float:
        """The ridge, given or not."""
        return RIDGE if self.ridge is None else self.ridge


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
    return Whitening(ridge=s.amount, relative=True)


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
        lambda s: _scaled(Coral(s.by, s.amount)),
        "domain",
    ),
    "coral-means": Method(
        "the same, and the same mean", lambda s: _scaled(Coral(s.by, s.amount, align_means=True)), "domain"
    ),
    "tvn": Method(
        "whiten all controls, then CORAL per domain to the covariance of all (Ando et al. 2017)",
        lambda s: _scaled(_white(s), Coral(s.by, s.amount, reference="pooled")),
        "domain",
    ),
    "wdn": Method(
        "coral-means, then one learned map a domain (after Tabak et al. 2020), as far as controls that are held out "
        "come closer",
        lambda s: _scaled(Wdn(replace(s.wdn, domains=(s.by,)), s.device, s.step, s.amount)),
        "domain",
    ),
    "harmony": Method(
        "Harmony on all rows, controls or not; see the warning", lambda s: _scaled(Harmony(s.by, s.seed))
    ),
}


@dataclass(frozen=True)
class Corrected:
    """A corrected table, and how well the domain of its controls can be told before and after."""

    profiles: pd.DataFrame
    before: BatchAccuracy | None  # None, as the next, where there are too few controls to classify
    after: BatchAccuracy | None
    held_out: str  # what a fold holds out: "plates", "rows", or "" without classification
    notes: list[str]
    training: dict[str, Any] | None = None  # of WDN: steps taken, why it stopped, and `Wdn.distances_`


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
    CellbookError : on an unknown method, one domain only, a domain without controls, features that are not finite, too
        few controls for a covariance where no ridge is given, too few for WDN, or a step that WDN has not.
    """
    s = settings or Settings()
    if method not in METHODS:
        raise CellbookError(f"there is no method {method!r}: there are {', '.join(METHODS)}")
    if not (np.isfinite(s.amount) and s.amount >= 0):
        raise CellbookError(f"ridge is {s.ridge}; it must be zero or more")
    if s.step is not None and method != "wdn":
        raise CellbookError(f"step={s.step}: only method 'wdn' has steps, not {method!r}; leave it out")
    if s.step is not None and s.step not in {*range(0, s.wdn.iterations, s.wdn.checkpoint_every), s.wdn.iterations}:
        raise CellbookError(
            f"step={s.step} has no checkpoint: maps are kept every {s.wdn.checkpoint_every} steps from 0 to "
            f"{s.wdn.iterations}"
        )
    wild = [] if method in ("none", "centre") else _wild(profiles, s.by, controls)
    profiles = profiles.drop(columns=wild)
    names, rows = control_groups(profiles, s.by, controls)
    if len(names) < 2:
        raise CellbookError(
            f"all {len(profiles)} rows have {s.by} {names[0]!r}, so there is nothing to correct; name another column"
        )
    if method == "wdn":
        _check_enough(s, names, rows)
    notes = _check_rank(METHODS[method], method, s, names, rows)
    step = METHODS[method].make(s)
    corrected = step.fit(profiles, controls).transform(profiles)
    training = None
    if method == "wdn":
        maps = cast(Wdn, cast(Chain, step).steps[-1])
        training = {"steps": maps.steps_, "stopped": maps.stopped_, **maps.distances_}
    notes += [HARMONY_WARNING] if method == "harmony" else [SAME_CONTROLS] if method != "none" else []
    first = step.steps[0] if isinstance(step, Chain) else step
    if gone := [*wild, *getattr(first, "dropped_", [])]:
        notes.append(
            f"{len(gone)} feature{'s' * (len(gone) > 1)} without spread among the controls left out (less than "
            f"{FLOOR:g} of their size, or a row beyond {FARTHEST:g} deviations): {some(gone)}"
        )
    before, held_out = leakage(profiles, s.by, controls)
    after, _ = leakage(corrected, s.by, controls)
    return Corrected(corrected, before, after, held_out, notes, training)


def _wild(profiles: pd.DataFrame, by: str, controls: str) -> list[str]:
    """Features of which some row lies farther than `FARTHEST` standard deviations of its domain's controls."""
    x, (_, codes) = matrix(profiles), group_rows(profiles, by)
    found = np.zeros(x.shape[1], dtype=bool)
    for code, inside in enumerate(control_groups(profiles, by, controls)[1]):
        reach = np.abs(x[codes == code] - inside.mean(axis=0)).max(axis=0)
        found |= reach > FARTHEST * inside.std(axis=0)
    kept = ~found if not found.all() else np.ones_like(found)  # of nothing but these the scaler complains
    return [name for name, keep in zip(features(profiles), kept, strict=True) if not keep]


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


def _check_enough(settings: Settings, names: list[str], rows: list[np.ndarray]) -> None:
    """Refuse to learn maps from a handful of controls."""
    counts = [len(x) for x in rows]
    few = [name for name, count in zip(names, counts, strict=True) if count < settings.fewest_controls]
    if few:
        raise CellbookError(
            f"{len(few)} of {len(names)} values of {settings.by} have fewer than {settings.fewest_controls} controls "
            f"(first: {few[0]} with {counts[names.index(few[0])]}), from which 'wdn' learns the controls and not the "
            "batch; leave them out, or lower --fewest-controls"
        )


def _check_rank(method: Method, name: str, settings: Settings, names: list[str], rows: list[np.ndarray]) -> list[str]:
    """Refuse a covariance that cannot be inverted, or whose ridge decides unless it was given; note that then."""
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
    if not settings.ridge:
        raise CellbookError(
            f"{fact}, so method {name!r} cannot invert their covariance without a ridge that decides the rest; give "
            f"--ridge above 0 ({RIDGE:g} in published code), or fewer features"
        )
    return [f"{fact}: the ridge of {settings.ridge:g} decides the rest"]
