"""Cells, pairs and sets of cells, drawn on the device: classes equally often, and partners from elsewhere.

Everything has a fixed shape and waits for nothing, so that it can be recorded as a CUDA graph.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.stats import beta
from torch import Tensor

from cellbook.errors import CellbookError
from cellbook.methods.weakly_supervised.config import Config
from cellbook.methods.weakly_supervised.split import Split, column
from cellbook.training import Sampler

NOWHERE = 1 << 40  # behind the last cell of any group


class Partners(Sampler):
    """Draws training cells by class; a class consists of sources, the cells of one week and replicate.

    Parameters
    ----------
    config : which partners are drawn, and how pairs are mixed
    parts : which cells train, and the class of each
    table : of the cells; for partners from elsewhere with Metadata_replicate and, where there are weeks, Metadata_batch
    device : where to draw

    Raises
    ------
    CellbookError
        If partners come from elsewhere and no class has two sources.
    """

    def __init__(self, config: Config, parts: Split, table: pd.DataFrame, device: torch.device) -> None:
        self.apart = config.partners.endswith("apart")
        weights = beta.ppf(np.linspace(0, 1, 4097), config.alpha, config.alpha)
        self.quantiles = torch.from_numpy(weights).to(device)  # of the mixing weight
        week = _codes(table, "batch") if "Metadata_batch" in table else np.zeros(len(table), dtype=np.int64)
        replicate = _codes(table, "replicate") if self.apart else np.zeros(len(table), dtype=np.int64)
        rows = np.flatnonzero(parts.training)
        rows = rows[np.lexsort((replicate[rows], week[rows], parts.label[rows]))]  # source after source
        super().__init__(parts.label, device, config.seed, rows)
        if not self.apart:
            return
        keys = np.stack([parts.label[rows], week[rows], replicate[rows]])
        (label, weeks, replicates), owner, counts = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
        owner = owner.reshape(-1)
        per_class = np.bincount(label)
        if per_class.max() < 2:
            raise CellbookError(
                f"every one of {len(per_class)} treatments trains on cells of one replicate: partners from elsewhere "
                "need two; change validation, or take partners='any'"
            )
        zone = weeks if len(np.unique(weeks)) > 1 else replicates
        zone = np.unique(zone, return_inverse=True)[1]
        # A class equally often, of its sources outside of the zone each as often as it has cells.
        weight = np.where(np.arange(zone.max() + 1)[:, None] == zone, 0.0, counts)  # (Z, S)
        total = np.stack([np.bincount(label, row) for row in weight])  # (Z, K)
        weight = np.cumsum(weight / np.maximum(total, 1)[:, label], axis=1)
        member = np.full((len(per_class), per_class.max()), -1)  # (K, M) sources of a class
        member[np.arange(member.shape[1]) < per_class[:, None]] = np.arange(len(label))
        home = np.zeros(len(table), dtype=np.int64)
        home[rows] = zone[owner]

        def put(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        self.source_counts, self.source_starts = put(counts), put(np.cumsum(counts) - counts)  # (S,)
        self.many, self.member = put(per_class), put(member)  # (K,), (K, M)
        self.weeks = put(np.unique(weeks, return_inverse=True)[1][member])  # (K, M)
        self.zone = put(home)  # (N,) of each cell: its week or, in a screen of one, its replicate
        self.elsewhere = put(weight / weight[:, -1:])  # (Z, S) cumulative probability of a partner's source

    def away(self, rows: Tensor) -> Tensor:
        """A cell for each of `rows`, (n,), of another week or, in a screen of one, of another replicate.

        Every class that lies elsewhere is equally likely.
        """
        u = self._uniform(len(rows), 1)
        source = (self.elsewhere[self.zone[rows]] <= u).sum(dim=1)
        return self._different(self.source_starts[source][None], self.source_counts[source][None])[0]

    def sets(self, n: int, size: int) -> Tensor:
        """`n` sets of `size` cells of one class, each class equally likely: (size, n), no cell twice where possible.

        Where partners are apart, a set takes a cell from each week of its class in random order, then again from other
        replicates of these weeks, so that no source comes a second time before all others have come.
        """
        k = self._integers(len(self.counts), n)
        if not self.apart:
            starts, counts = self.starts[k], self.counts[k]
            return self._different(starts.expand(size, n), counts.expand(size, n))
        source = self._order(k).gather(1, torch.arange(size, device=k.device) % self.many[k, None]).T
        return self._different(self.source_starts[source], self.source_counts[source])

    def mixing(self, n: int) -> Tensor:
        """Mixing weights of `n` pairs, (n,) float32 of Beta(alpha, alpha): quantiles, with straight lines between them.

        Torch's own sampler of this distribution rejects draws, which takes no fixed number of them.
        """
        place = self._uniform(n) * (len(self.quantiles) - 1)
        below = place.long()
        return torch.lerp(self.quantiles[below], self.quantiles[below + 1], place - below).float()

    def _order(self, k: Tensor) -> Tensor:
        """Sources of classes (n,) in random order, (n, M): one of every week, then another of every week, and so on."""
        member, week = self.member[k], self.weeks[k]
        absent = member < 0
        u = self._uniform(*member.shape).masked_fill(absent, 2.0)
        before = (u[:, None] < u[:, :, None]) & (week[:, None] == week[:, :, None])  # (n, M, M)
        turn = self._uniform(len(k), len(self.elsewhere)).gather(1, week)  # of a week
        place = (before.sum(dim=2) + turn).masked_fill(absent, torch.inf)
        return member.gather(1, place.argsort(dim=1))

    def _different(self, starts: Tensor, counts: Tensor) -> Tensor:
        """Cells of groups that start at and have so many of `rows`, (T, n) each; of one group different ones.

        Where a column asks a group for more cells than it has, all are drawn with replacement.
        """
        u = self._uniform(*starts.shape)
        taken: list[Tensor] = []
        for j in range(len(starts)):
            same = starts[:j] == starts[j]
            place = (u[j] * (counts[j] - same.sum(dim=0)).clamp_min(1)).long()
            if j:  # count over those that are taken, from the lowest on
                others = torch.stack(taken).masked_fill(~same, NOWHERE).sort(dim=0).values
                for other in others:
                    place = place + (place >= other)
            taken.append(place)
        wanted = (starts[:, None] == starts).sum(dim=0)
        return self.rows[starts + torch.where(wanted <= counts, torch.stack(taken), (u * counts).long())]

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.rows.device, dtype=torch.float64)


def _codes(table: pd.DataFrame, name: str) -> np.ndarray:
    return pd.factorize(column(table, name), sort=True)[0].astype(np.int64)
