"""Learning the maps: critics first, then critics and maps in turn; maps are kept at every checkpoint."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cellbook.errors import CellbookError
from cellbook.methods.wdn import distances
from cellbook.methods.wdn.alignment import Alignment, Level
from cellbook.methods.wdn.config import Config
from cellbook.methods.wdn.critics import Critics, rmsprop_
from cellbook.methods.wdn.maps import Maps, apply, identity, regulariser
from cellbook.methods.wdn.sampling import Design, Minibatches, make_design
from cellbook.profiles.table import check_finite, features
from cellbook.runs import choose_device, show_progress

CHUNK = 256  # critic steps whose random numbers are drawn at a time


def fit(profiles: pd.DataFrame, config: Config, controls: str = "DMSO", device: str = "auto") -> Alignment:
    """Learn one map a domain so that what is known to be alike in all domains becomes so (Tabak et al. 2020).

    Parameters
    ----------
    profiles : DataFrame (rows)
        A profile table, of cells or of wells; features of one scale, such as factors or whitened features: the rates
        are absolute. Only controls (or the replicated treatments) are looked at, but every domain of the table must
        have some.
    config : Config
    controls : str
        Compound of the controls.
    device : str
        "auto", "cpu" or "cuda". The draws are the same everywhere.

    Returns
    -------
    Alignment
        Maps at step 0, the identity, and at every checkpoint.

    Raises
    ------
    CellbookError
        On features that are not finite, domains that cannot be aligned, or maps that are no numbers any more.
    """
    on = torch.device(choose_device(device))
    x, names = check_finite(profiles), features(profiles)
    levels: list[Level] = []
    histories = []
    for i, by in enumerate(config.domains):
        within = config.domains[i + 1] if i + 1 < len(config.domains) else None
        design = make_design(profiles, by, within, config, controls)
        level = Fitting(x, design, config, on).run()
        levels.append(Level(by, design.names, *level.checkpoints()))
        histories.append(level.history().assign(level=by))
        # The next level starts from what this one has reached.
        x = levels[-1].map_rows(x, design.codes, -1)
    return Alignment(names, tuple(levels), pd.concat(histories, ignore_index=True))


class Fitting:
    """One level of domains being fitted, on rows x (rows, n) float64."""

    def __init__(self, x: np.ndarray, design: Design, config: Config, device: torch.device) -> None:
        self.config, self.device, self.design = config, device, design
        n = x.shape[1]
        sizes = [len(rows) for rows in design.rows]
        rows = torch.from_numpy(x[np.concatenate(design.rows)].astype(np.float32))
        self.data = rows.to(device)  # (N, n), the rows of each group side by side
        self.sizes = sizes
        self.domain = torch.tensor(design.domain, device=device)  # (G,)
        # With one level and one treatment the groups are the domains in order, and nothing need be gathered.
        self.in_order = np.array_equal(design.domain, np.arange(len(design.names)))
        self.sides = design.pairs.sides.to(device)
        self.weight = design.pairs.weight.to(device, torch.float32)
        self.maps: Maps = identity(len(design.names), n, config, device)
        self.square = {name: torch.full_like(value, config.accumulator) for name, value in self.maps.items()}
        self.generator = torch.Generator().manual_seed(config.seed)
        starts = np.cumsum(sizes) - sizes
        places = [np.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        # Without critics rows are compared with each other, and a row must not be its own neighbour.
        batch = config.batch if config.distance == "critic" else min(config.batch, *sizes)
        self.batches = Minibatches(places, batch, self.generator)
        self.critics = Critics(design.pairs, n, config, device) if config.distance == "critic" else None
        self.steps = [0]
        self.kept: list[Maps] = [self._copy()]
        self.record: list[tuple[int, int, Tensor, Tensor]] = []
        self.critic_done = self.map_done = 0

    def run(self) -> Fitting:
        """Train to the end."""
        config = self.config
        total = config.pretraining * (self.critics is not None) + config.iterations
        with tqdm(total=total, disable=not show_progress(), desc="WDN") as bar:
            if self.critics is not None and config.pretraining:
                self.teach(config.pretraining, moved=False, bar=bar)
            self.advance(config.iterations, bar)
        return self

    def advance(self, until: int, bar: tqdm | None = None) -> None:
        """Take critic and map steps in turn until so many map steps are taken."""
        while self.map_done < until:
            if self.critics is not None:
                self.teach(self.config.critic_steps)
            steps = min(self.config.map_steps, until - self.map_done)
            self.move(steps)
            if bar is not None:
                bar.update(steps)

    @torch.no_grad()
    def teach(self, steps: int, *, moved: bool = True, bar: tqdm | None = None) -> None:
        """Take critic steps on fixed maps; `moved` is False while the maps are the identity."""
        assert self.critics is not None
        count, batch = len(self.weight), self.batches.batch
        # Fixed maps: where that is less work than mapping minibatches, all rows are mapped once.
        whole = moved and len(self.data) <= steps * len(self.sizes) * batch
        source = self._map_all() if whole else self.data
        for start in range(0, steps, CHUNK):
            n = min(CHUNK, steps - start)
            rows = self.batches.draw(n).to(self.device)  # (n, G, B)
            epsilon = torch.rand(n, count, batch, generator=self.generator).to(self.device)
            for i in range(n):
                x = _take(source, rows[i])
                y = x if whole or not moved else self._map(x)
                views = self._views(_take(self.data, rows[i]) if self._doubled else x, y)
                estimate, penalty = self.critics.ascend(views, epsilon[i])
                self.critic_done += 1
                if not moved and (self.critic_done % 100 == 0 or self.critic_done == steps):
                    self._note(estimate, penalty)
            if bar is not None:
                bar.update(n)
        if moved:
            self._note(estimate, penalty)

    def move(self, steps: int) -> None:
        """Take map steps against frozen critics, or against a distance that needs none."""
        rows = self.batches.draw(steps).to(self.device)
        for i in range(steps):
            x = _take(self.data, rows[i])
            for value in self.maps.values():
                value.requires_grad_(True)
            views = self._views(x, self._map(x))
            estimate = self.estimate(views)
            loss = (self.weight * estimate).sum()
            if self.config.lambda_mean or self.config.lambda_cov:
                loss = loss + regulariser(self.maps, self.config)
            gradients = torch.autograd.grad(loss, list(self.maps.values()), allow_unused=True)
            with torch.no_grad():
                for (name, value), gradient in zip(self.maps.items(), gradients, strict=True):
                    value.requires_grad_(False)
                    if gradient is not None:
                        rmsprop_(value, -gradient, self.square[name], self.config, self.config.map_rate)
            self.map_done += 1
            if self.critics is None:
                self._note(estimate.detach(), torch.zeros_like(estimate))
            if self.map_done % self.config.checkpoint_every == 0 or self.map_done == self.config.iterations:
                self._keep()

    def estimate(self, views: Tensor) -> Tensor:
        """Distance of every pair of views, (P,)."""
        if self.critics is not None:
            return self.critics.distance(views)
        if self.config.distance in ("energy", "relative"):
            return distances.energy(views, self.sides, relative=self.config.distance == "relative")
        return distances.sinkhorn(views, self.sides, self.config.blur)

    def checkpoints(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Map steps (C,) and maps at each, name -> (C, D, ...)."""
        stacked = {name: np.stack([kept[name].numpy() for kept in self.kept]) for name in self.maps}
        return np.array(self.steps), stacked

    def history(self) -> pd.DataFrame:
        """Weighted mean of the critics' estimates and penalties: critic and map steps done, distance, penalty."""
        if not self.record:
            return pd.DataFrame({"critic_steps": [], "map_steps": [], "distance": [], "penalty": []})
        values = torch.stack([torch.stack([d, p]) for _, _, d, p in self.record]).cpu().numpy()
        table = pd.DataFrame([line[:2] for line in self.record], columns=["critic_steps", "map_steps"])
        return table.assign(distance=values[:, 0], penalty=values[:, 1])

    @property
    def _doubled(self) -> bool:
        """Whether rows appear twice, as they are and mapped."""
        return self.config.loss == "barycentre"

    def _map(self, x: Tensor) -> Tensor:
        """Minibatches (G, B, n) under the maps of their domains."""
        maps = self.maps if self.in_order else {name: value[self.domain] for name, value in self.maps.items()}
        return apply(maps, x, bug_bias=self.config.bug_bias)

    def _map_all(self) -> Tensor:
        """All rows (N, n) under the maps of their domains."""
        mapped = []
        for domain, x in zip(self.design.domain, self.data.split(self.sizes), strict=True):
            one = {name: value[domain : domain + 1] for name, value in self.maps.items()}
            mapped.append(apply(one, x[None], bug_bias=self.config.bug_bias)[0])
        return torch.cat(mapped)

    def _views(self, x: Tensor, y: Tensor) -> Tensor:
        """What is compared: the mapped rows y, for eq. 13 behind the rows x as they are; lengths 1 on the sphere."""
        views = torch.cat([x, y]) if self._doubled else y
        return torch.nn.functional.normalize(views, dim=2) if self.config.sphere else views

    def _note(self, estimate: Tensor, penalty: Tensor) -> None:
        distance, strain = (self.weight * estimate).sum(), (self.weight * penalty).sum()
        self.record.append((self.critic_done, self.map_done, distance, strain))

    def _copy(self) -> Maps:
        return {name: value.detach().cpu().clone() for name, value in self.maps.items()}

    def _keep(self) -> None:
        """Keep the maps of this step, unless they are no numbers any more."""
        kept = self._copy()
        if not all(value.isfinite().all() for value in kept.values()):
            raise CellbookError(
                f"the maps are no numbers any more at map step {self.map_done}: lower map_rate={self.config.map_rate}, "
                "raise critic_steps, or bring the features to one scale first"
            )
        self.steps.append(self.map_done)
        self.kept.append(kept)


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of x (N, n) by number (G, B): (G, B, n)."""
    return x.index_select(0, rows.flatten()).view(*rows.shape, -1)
