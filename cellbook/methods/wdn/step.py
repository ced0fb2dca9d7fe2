"""WDN as a step of a chain of corrections, stopped by what controls that are held out show."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import cdist
from tqdm import tqdm

from cellbook.methods.wdn.alignment import Alignment, Level
from cellbook.methods.wdn.config import PRESETS, Config
from cellbook.methods.wdn.fitting import Fitting
from cellbook.methods.wdn.sampling import make_design
from cellbook.profiles.coral import Coral
from cellbook.profiles.groups import group_rows
from cellbook.profiles.table import check_finite, controls_mask, features
from cellbook.runs import choose_device, show_progress

FOLDS = 4
PATIENCE = 10  # checkpoints without a fall
JUDGED = 2_000  # controls that are looked at, of all domains together
# Chance moves the distance, and maps follow it, the more the fewer controls a domain has. Over their number: what
# `lambda_cov` is, so that maps stay where controls do not show anything; and by how much the distance must fall. Found
# on Gaussian, skewed and two-peaked controls with 20, 60 and 300 in each of two and of four batches.
STIFFNESS, FALL = 3.0, 0.12


@dataclass(eq=False)
class Wdn:
    """Align means and covariances of each domain's controls, and learn one map a domain from there.

    Tabak et al. 2020 start at the identity and take a fixed number of steps. Here controls are held out in folds: maps
    are fitted on the others and applied to them. The number of steps is the one after which the relative energy
    distance of the domains (`between`) of all that were held out is least; where it falls by no more than chance, means
    and covariances are all. Then maps are fitted on all controls, with so many steps.

    Parameters
    ----------
    config : Config
        The first of its columns of domains counts. `iterations` is the most that is taken; the rate of the maps falls
        with the root of the number of checkpoints. "relative" distance without `lambda_cov` takes its own.
    device : str
    step : int or None
        Map step whose maps are applied, a checkpoint; None leaves it to the controls.
    ridge : float
        Of the covariances, see `Coral`; features should have one scale before.

    Attributes
    ----------
    start_ : Coral
    alignment_ : Alignment, the maps that follow it
    steps_ : int, taken
    stopped_ : str, why
    distances_ : dict
        `between` of held-out controls: "before", "start" (means and covariances aligned) and "after" the steps taken;
        empty where a domain has fewer than four controls, of which none can be held out.
    """

    config: Config = PRESETS["relative"]
    device: str = "auto"
    step: int | None = None
    ridge: float = 1.0
    start_: Coral = field(init=False, repr=False)
    alignment_: Alignment = field(init=False, repr=False)
    steps_: int = field(init=False, repr=False)
    stopped_: str = field(init=False, repr=False)
    distances_: dict[str, float] = field(init=False, repr=False)

    def fit(self, profiles: pd.DataFrame, controls: str = "DMSO") -> Self:
        """Find the number of steps on folds of the controls, then fit on all of them."""
        rows = profiles
        if self.config.treatments == "controls":  # no other row plays any part
            rows = profiles[controls_mask(profiles, controls)].reset_index(drop=True)
        self._judge(rows, controls)
        last = _Part(self, rows, np.zeros(len(rows), dtype=bool), controls)
        while last.training.map_done < self.steps_:
            last.advance()
        level = Level(self.config.domains[0], last.names, *last.training.checkpoints())
        self.start_ = last.start
        self.alignment_ = Alignment(features(profiles), (level,), last.training.history())
        return self

    def transform(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Map all rows, controls and treatments."""
        return self.alignment_.transform(self.start_.transform(profiles), self.steps_)

    def _judge(self, rows: pd.DataFrame, controls: str) -> None:
        """Choose the number of steps."""
        limit = self.config.iterations if self.step is None else self.step
        self.steps_, self.distances_ = self.step or 0, {}
        self.stopped_ = "fewer than four controls in a domain, so that none can be held out"
        folds = _folds(rows, self.config, controls)
        if not folds:
            return
        parts = [_Part(self, rows, held_out, controls) for held_out in folds]
        names, domains = group_rows(rows, self.config.domains[0])
        codes = np.concatenate([domains[held_out] for held_out in folds])
        least = FALL / np.bincount(domains[controls_mask(rows, controls)], minlength=len(names)).min()

        def distance() -> float:
            return between(np.concatenate([part.mapped() for part in parts]), codes)

        before = between(np.concatenate([check_finite(rows[held_out]) for held_out in folds]), codes)
        self.stopped_ = "no more were allowed" if self.step is None else "asked for"
        course, best = [distance()], 0
        checkpoints = -(-limit // self.config.checkpoint_every)
        for now in tqdm(range(1, checkpoints + 1), disable=not show_progress(), desc="WDN"):
            for part in parts:
                part.advance()
            course.append(distance())
            if self.step is not None or (course[now] < course[0] - least and course[now] < course[best]):
                best = now
            elif now - best >= PATIENCE:
                self.stopped_ = f"the distance between held-out controls fell no more at {PATIENCE} checkpoints"
                break
        if self.step is None and not best:
            self.stopped_ = f"none of {parts[0].training.map_done} steps brought held-out controls closer"
        self.steps_ = parts[0].training.steps[best]
        self.distances_ = {"before": before, "start": course[0], "after": course[best]}


class _Part:
    """A training on the rows that are not held out, after a start that is fitted on the same rows."""

    def __init__(self, made: Wdn, rows: pd.DataFrame, held_out: np.ndarray, controls: str) -> None:
        config, by = made.config, made.config.domains[0]
        self.start = Coral(by, made.ridge, align_means=True)
        table = self.start.fit_transform(rows[~held_out].reset_index(drop=True), controls)
        design = make_design(table, by, None, config, controls)
        if config.distance == "relative" and not config.lambda_cov:
            config = replace(config, lambda_cov=STIFFNESS / min(map(len, design.rows)))
        self.names, self.rate = design.names, config.map_rate
        self.training = Fitting(check_finite(table), design, config, torch.device(choose_device(made.device)))
        if held_out.any():
            self.held = check_finite(self.start.transform(rows[held_out]))
            self.codes = group_rows(rows[held_out], by, self.names)[1]

    def advance(self) -> None:
        """Train to the next checkpoint."""
        training, config = self.training, self.training.config
        if training.critics is not None and not training.map_done:
            training.teach(config.pretraining, moved=False)
        training.config = replace(config, map_rate=self.rate / len(training.steps) ** 0.5)
        training.advance(min(training.map_done + config.checkpoint_every, config.iterations))

    def mapped(self) -> np.ndarray:
        """The held-out controls under the maps of the last checkpoint."""
        maps = {name: value[None].numpy() for name, value in self.training.kept[-1].items()}
        return Level("", self.names, np.zeros(1), maps).map_rows(self.held, self.codes, 0)


def between(x: np.ndarray, codes: np.ndarray) -> float:
    """Relative energy distance between domains, mean over their pairs: 1 - (E|x - x'| + E|y - y'|) / 2 E|x - y|.

    It is 0 where two domains have one distribution and 1 where they are two points; scale plays no part (Szekely and
    Rizzo 2013). Rows are not compared with themselves, so that chance alone gives about 0, and often less.

    Parameters
    ----------
    x : float64 (rows, n)
    codes : int (rows,), domain of each, two rows of every one at least
    """
    member = np.eye(int(codes.max()) + 1)[codes]
    count = member.sum(axis=0)
    sums = member.T @ cdist(x, x) @ member
    own = np.diag(sums) / (count * (count - 1))
    a, b = np.triu_indices(len(count), 1)
    return float(np.mean(1 - (own[a] + own[b]) * count[a] * count[b] / (2 * sums[a, b])))


def _folds(rows: pd.DataFrame, config: Config, controls: str) -> list[np.ndarray]:
    """Controls that are held out, bool (rows,) each: the same share of every domain."""
    names, codes = group_rows(rows, config.domains[0])
    mask, rng = controls_mask(rows, controls), np.random.default_rng(config.seed)
    drawn = [rng.permutation(np.flatnonzero(mask & (codes == d))) for d in range(len(names))]
    folds = min(FOLDS, *(len(d) // 2 for d in drawn))
    most = max(1, JUDGED // (len(names) * FOLDS))
    held_out = np.zeros((folds, len(rows)), dtype=bool)
    for i in range(folds):
        held_out[i, np.concatenate([d[i::folds][:most] for d in drawn])] = True
    return list(held_out) if folds > 1 else []
