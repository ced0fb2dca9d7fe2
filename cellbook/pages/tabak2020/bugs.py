"""Faults of the published code, and the order of steps as printed: what each does to three clouds, and to profiles.

*Bias inside the product.* Training multiplies rows by M + 1b', which gives xM + s b with s the sum of the row's
coordinates; evaluation applies xM + b. A domain's mean m is then moved by the sum of m times b and by M: where the
coordinates of m sum to 0, the bias moves nothing, and a domain whose mean is the origin stays there, whatever is
learned. Profiles centred on their controls are near that. The bias that evaluation adds was never asked to be one.

*Norm of the minibatch.* One slope is held to 1 for all rows of a minibatch together, and so that of each row to about
one over the root of their number: with 100 rows the distances come out ten times too small, and so do the gradients
that the maps get. RMSProp divides by their running size, but that starts at 1 and not at 0: as long as what is left of
the 1 outweighs the gradients, steps shrink with them, and in few steps the maps come less far. Only a long training
hardly notices.

*Order as printed.* One critic step and 50 map steps: the maps run after critics that no longer know where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cellbook.methods import wdn
from cellbook.methods.wdn.evaluation import control_moments
from cellbook.profiles import matrix

RIGHT, BIAS, NORM, ORDER = (
    "as it should be",
    "bias inside the product",
    "norm of the minibatch",
    "order as printed",
)
VARIANTS: dict[str, dict[str, Any]] = {
    RIGHT: {},
    BIAS: {"bug_bias": True},
    NORM: {"bug_norm": True},
    ORDER: {"critic_steps": 1, "map_steps": 50},
}
APART = 2.5  # distance between the means of any two clouds; each has variance 1 in every direction
WAY = 0.6  # what a number of a map may change in all steps together, enough to bring the clouds together
FASTEST = 1e-2


def clouds(seed: int = 0, *, rows: int = 300, n: int = 10, domains: int = 3) -> pd.DataFrame:
    """Draw controls of some weeks: normal clouds that differ in their means alone, each `APART` from every other."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((n, domains)))[0].T
    means = directions * APART / np.sqrt(2)
    x = rng.standard_normal((domains, rows, n)) + means[:, None]
    table = pd.DataFrame(x.reshape(-1, n), columns=[f"x{i}" for i in range(n)])
    week = np.repeat([f"Week{d + 1}" for d in range(domains)], rows)
    return table.assign(Metadata_batch=week, Metadata_compound="DMSO", Metadata_concentration=0.0)


def toy(budget: wdn.Config, seed: int = 0, device: str = "cpu") -> pd.DataFrame:
    """Align three clouds that differ in their means alone, once as it should be and once with each fault.

    All variants take the same number of map steps. The rates are the toy's own, so that a short budget gets there too:
    as large as brings the clouds together in the budget's map steps, at most 0.01. Critics start at random, as those
    that all start on the first two coordinates can be blind to what is left.

    Returns
    -------
    DataFrame
        One row a variant and checkpoint: variant, step, gap (mean distance between the centroids; 2.5 at first, 0 when
        aligned; lower is better), gap_in_training (the same under the maps as they are trained, which differ only with
        the misplaced bias), variance (total, relative to step 0; below 1 is shrinkage) and estimate (what the critics
        take the distance to be just before that step; of the first about 2.8, as the penalty allows slopes a little
        above 1).
    """
    data, rate = clouds(seed), min(FASTEST, WAY / budget.iterations)
    base = replace(budget, map_rate=rate, critic_rate=rate, start="random", seed=seed, domains=("Metadata_batch",))
    rows = []
    for variant, alignment in _variants(data, base, "DMSO", device):
        trained, estimates = as_trained(alignment) if variant == BIAS else alignment, seen(alignment)
        for checkpoint, step in enumerate(alignment.steps.tolist()):
            gap, variance = spread(data, alignment, checkpoint)
            inside, _ = spread(data, trained, checkpoint)
            rows.append((variant, step, gap, inside, variance, estimates[checkpoint]))
    table = pd.DataFrame(rows, columns=["variant", "step", "gap", "gap_in_training", "variance", "estimate"])
    first = table.groupby("variant")["variance"].transform("first")
    return table.assign(variance=table["variance"] / first)


def study(profiles: pd.DataFrame, budget: wdn.Config, controls: str = "DMSO", device: str = "auto") -> pd.DataFrame:
    """Align a screen once as it should be and once with each fault, with equal numbers of map steps and equal seeds.

    Parameters
    ----------
    profiles : DataFrame, cells or wells, with controls and treatments
    budget : wdn.Config
    controls : str
    device : str

    Returns
    -------
    DataFrame
        variant, step, measure, k, value: the measures of `wdn.evaluate` (NSC and NSCB with pooled votes, silhouette,
        variance, gap, change, largest_change); "estimate", the critics' distance just before that step; and for the
        misplaced bias "gap in training", the gap under the maps as they are trained. `evaluate` and so all other
        measures apply the bias as a bias, as the published code does after training.
    """
    parts = []
    for variant, alignment in _variants(profiles, budget, controls, device):
        found = wdn.evaluate(alignment, profiles, controls)
        found = found[found["vote"].isin(["", "pooled"])][["step", "measure", "k", "value"]]
        more = [("estimate", alignment.steps, seen(alignment))]
        if variant == BIAS:
            trained = as_trained(alignment)
            gaps = [control_moments(trained, profiles, c, controls)["gap"] for c in range(len(alignment.steps))]
            more.append(("gap in training", alignment.steps, np.array(gaps)))
        extra = [pd.DataFrame({"step": s, "measure": name, "k": 0, "value": value}) for name, s, value in more]
        parts.append(pd.concat([found, *extra], ignore_index=True).assign(variant=variant))
    return pd.concat(parts, ignore_index=True)[["variant", "step", "measure", "k", "value"]]


def _variants(
    profiles: pd.DataFrame, budget: wdn.Config, controls: str, device: str
) -> Iterator[tuple[str, wdn.Alignment]]:
    for variant, fault in VARIANTS.items():
        yield variant, wdn.fit(profiles, replace(budget, **fault), controls, device)


def as_trained(alignment: wdn.Alignment) -> wdn.Alignment:
    """Maps as the misplaced bias has them in training: x (M + 1b'), without a translation."""
    levels = []
    for level in alignment.levels:
        inside = level.maps["M"] + level.maps["b"][..., None, :]
        levels.append(replace(level, maps={**level.maps, "M": inside, "b": np.zeros_like(level.maps["b"])}))
    return replace(alignment, levels=tuple(levels))


def seen(alignment: wdn.Alignment) -> np.ndarray:
    """Weighted mean of the critics' distances when last asked before every checkpoint, (C,); one level of domains."""
    history = alignment.history
    if history.empty:
        return np.full(len(alignment.steps), np.nan)
    # A line of the history has the map steps done before it: at a checkpoint the line before its last map step counts.
    place = np.searchsorted(history["map_steps"].to_numpy(), np.maximum(alignment.steps, 1), side="left") - 1
    return history["distance"].to_numpy(np.float64)[np.maximum(place, 0)]


def spread(profiles: pd.DataFrame, alignment: wdn.Alignment, checkpoint: int) -> tuple[float, float]:
    """Mean distance between the centroids of all pairs of weeks, and total variance, of mapped rows."""
    y = alignment.map_rows(matrix(profiles), alignment.codes(profiles), checkpoint)
    means = pd.DataFrame(y).groupby(profiles["Metadata_batch"].to_numpy()).mean().to_numpy()
    i, j = np.triu_indices(len(means), 1)
    return float(np.linalg.norm(means[i] - means[j], axis=1).mean()), float(y.var(axis=0, ddof=1).sum())
