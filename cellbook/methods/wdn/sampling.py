"""What is compared with what, and in which order rows are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from cellbook.errors import CellbookError
from cellbook.methods.wdn.config import Config
from cellbook.profiles.groups import group_rows
from cellbook.profiles.table import controls_mask, require


@dataclass(frozen=True)
class Pairs:
    """Pairs of views, a view being the rows of one group, mapped or (for eq. 13, the first half) as they are."""

    sides: Tensor  # (2, P) int64, the views of each pair
    weight: Tensor  # (P,) float64, weights in the loss; they sum to 1


@dataclass(frozen=True)
class Design:
    """Groups, each one treatment in one domain, and the pairs of them that are compared."""

    names: list[str]  # (D,) domains
    codes: np.ndarray  # (rows of the table,) domain of every row
    domain: np.ndarray  # (G,) domain of each group
    treatment: np.ndarray  # (G,)
    rows: list[np.ndarray]  # (G,) row numbers of each group
    pairs: Pairs


def make_design(profiles: pd.DataFrame, by: str, within: str | None, config: Config, controls: str = "DMSO") -> Design:
    """Find the treatments that lie in several domains, and all pairs of their domains.

    Parameters
    ----------
    profiles : DataFrame
    by : str
        Column of domains.
    within : str or None
        Pairs are made only of domains with the same value of this column: plates of one week.
    config : Config
        `treatments` and `loss`.
    controls : str
        Compound of the controls.

    Raises
    ------
    CellbookError
        If there is one domain only, a domain has no row to be aligned by, or two sets of domains share no treatment.
    """
    names, codes = group_rows(profiles, by)
    if len(names) < 2:
        raise CellbookError(f"all {len(profiles)} rows have {by} {names[0]!r}, so there is nothing to align")
    parents = np.zeros(len(names), dtype=np.intp)
    if within is not None:
        outer = group_rows(profiles, within)[1]
        parents[codes] = outer
        if (parents[codes] != outer).any():
            wrong = names[codes[(parents[codes] != outer).argmax()]]
            raise CellbookError(f"{by} {wrong!r} lies in more than one {within}; name the finest column first")
    treatment = _treatments(profiles, config, controls)
    found = pd.DataFrame({"treatment": treatment, "parent": parents[codes], "domain": codes, "row": range(len(codes))})
    found = found[found["treatment"] >= 0]
    groups = found.groupby(["treatment", "parent", "domain"], sort=True)["row"].agg([list, "size"]).reset_index()
    groups = groups[groups["size"] >= 2]  # one row says nothing of a distribution
    together = groups.groupby(["treatment", "parent"])["domain"].transform("size")
    groups = groups[together >= 2].reset_index(drop=True)
    _check_reached(groups, names, by, within, config, controls, found)
    return Design(
        names=names,
        codes=codes,
        domain=groups["domain"].to_numpy(np.int64),
        treatment=groups["treatment"].to_numpy(np.int64),
        rows=[np.array(rows, dtype=np.int64) for rows in groups["list"]],
        pairs=_pairs(groups, config),
    )


def _treatments(profiles: pd.DataFrame, config: Config, controls: str) -> np.ndarray:
    """Number the treatments that are made alike, -1 for rows that are not."""
    control = controls_mask(profiles, controls)
    if config.treatments == "controls":
        return np.where(control, 0, -1)
    require(profiles, "Metadata_concentration")
    # By treatment, not by compound as in the published code: two doses of one compound are not alike.
    dose = profiles["Metadata_concentration"].mask(control, 0.0)
    keys = pd.DataFrame({"compound": profiles["Metadata_compound"].astype(str), "dose": dose})
    return keys.groupby(["compound", "dose"], sort=True, dropna=False).ngroup().to_numpy()


def _pairs(groups: pd.DataFrame, config: Config) -> Pairs:
    """Every pair of groups of one treatment; each treatment weighs the same, and each of its pairs."""
    sides, weights = [], []
    sets = [np.asarray(members) for members in groups.groupby(["treatment", "parent"]).indices.values()]
    for members in sets:
        if config.loss == "pairs":
            i, j = np.triu_indices(len(members), 1)
            pair = np.stack([members[i], members[j]])
        else:  # views 0 to G - 1 are the rows as they are, G to 2 G - 1 the mapped ones
            i, j = (side.ravel() for side in np.indices((len(members), len(members))))
            pair = np.stack([members[i], members[j] + len(groups)])
        sides.append(pair)
        weights.append(np.full(pair.shape[1], 1 / (len(sets) * pair.shape[1])))
    return Pairs(torch.from_numpy(np.concatenate(sides, axis=1)), torch.from_numpy(np.concatenate(weights)))


def _check_reached(
    groups: pd.DataFrame,
    names: list[str],
    by: str,
    within: str | None,
    config: Config,
    controls: str,
    found: pd.DataFrame,
) -> None:
    """Refuse domains that nothing ties to the others; below the coarsest level some may stay as they are."""
    what = f"rows with Metadata_compound {controls!r}" if config.treatments == "controls" else "replicated treatments"
    if groups.empty:
        raise CellbookError(
            f"no two of {len(names)} values of {by} share {what}, two rows or more in each, so nothing can be aligned"
        )
    if within is not None:
        return
    missing = [name for code, name in enumerate(names) if code not in set(groups["domain"])]
    if missing:
        rows = int(found["domain"].isin([names.index(name) for name in missing]).sum())
        raise CellbookError(
            f"{len(missing)} of {len(names)} values of {by} have too few {what} ({rows} rows, two are needed in each): "
            f"{', '.join(missing[:5])}; add controls there or leave these rows out"
        )
    ties = coo_array((np.ones(len(groups)), (groups["treatment"], groups["domain"]))).tocsr()
    parts, label = connected_components(ties.T @ ties, directed=False)
    if parts > 1:
        apart = [[name for name, part in zip(names, label, strict=True) if part == p] for p in range(parts)]
        raise CellbookError(
            f"{by} falls into {parts} sets without a common treatment (first: {', '.join(apart[0][:3])}; second: "
            f"{', '.join(apart[1][:3])}), which cannot be aligned with each other; add a control that all of them have"
        )


class Minibatches:
    """Rows of every group in minibatches, without replacement within a pass; a minibatch may straddle two passes.

    A group smaller than a minibatch passes through it several times. Drawn on the CPU whatever the device, so that a
    seed means the same draws everywhere.
    """

    def __init__(self, rows: list[np.ndarray], batch: int, generator: torch.Generator) -> None:
        self.rows = [torch.from_numpy(group) for group in rows]
        self.left = [torch.empty(0, dtype=torch.long) for _ in rows]
        self.batch, self.generator = batch, generator

    def draw(self, steps: int) -> Tensor:
        """Rows of the next `steps` steps, (steps, G, B)."""
        need, drawn = steps * self.batch, []
        for g, rows in enumerate(self.rows):
            passes = max(0, -(-(need - len(self.left[g])) // len(rows)))
            if passes:
                order = torch.rand(passes, len(rows), generator=self.generator, dtype=torch.float64).argsort(dim=1)
                self.left[g] = torch.cat([self.left[g], rows[order].flatten()])
            drawn.append(self.left[g][:need])
            self.left[g] = self.left[g][need:]
        return torch.stack(drawn).view(len(drawn), steps, self.batch).transpose(0, 1)
