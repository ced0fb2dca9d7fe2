"""What a training holds and is given: its cells at random, a batch of them, all that changes, and the method."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cellbook.cells import CellSet
from cellbook.errors import CellbookError

CHECKPOINT = "checkpoint.pt"  # in the folder of a training, as long as it lasts


class Batch(NamedTuple):
    """What a step is given: images as they are stored, on the device, and which cells they are."""

    images: Tensor  # (..., N, C, H, W) uint8 or uint16
    rows: Tensor  # (..., N) row numbers in the table of the cells


class Sampler:
    """Row numbers drawn at random, with replacement, on the device, by a generator that can be saved.

    Parameters
    ----------
    groups : numpy.ndarray
        (cells,) the group of each cell, numbered from 0; see `treatment_codes`.
    device : torch.device
        Where to draw.
    seed : int
        Of its own generator.
    rows : numpy.ndarray, optional
        Which cells are drawn, as row numbers or as a mask (cells,); the others are held out. A group without any of
        these cells is none.
    """

    def __init__(self, groups: np.ndarray, device: torch.device, seed: int, rows: np.ndarray | None = None) -> None:
        drawn = np.arange(len(groups)) if rows is None else np.arange(len(groups))[rows]
        if len(drawn) == 0:
            raise CellbookError(f"rows names none of {len(groups)} cells: there is nothing to train on")
        codes, counts = np.unique(groups[drawn], return_inverse=True, return_counts=True)[1:]
        self.rows = torch.from_numpy(drawn[np.argsort(codes, kind="stable")]).to(device)  # (drawn,) sorted by group
        self.counts = torch.from_numpy(counts).to(device)  # (G,)
        self.starts = torch.from_numpy(np.cumsum(counts) - counts).to(device)  # (G,)
        self.generator = torch.Generator(device).manual_seed(seed)

    def each(self, times: int = 1) -> Tensor:
        """`times` cells of every group: (G * times,)."""
        return self._within(torch.arange(len(self.counts), device=self.rows.device).repeat(times))

    def balanced(self, n: int) -> Tensor:
        """`n` cells, each of a group drawn uniformly: (n,)."""
        return self._within(self._integers(len(self.counts), n))

    def uniform(self, n: int) -> Tensor:
        """`n` cells, each equally likely: (n,)."""
        return self.rows[self._integers(len(self.rows), n)]

    def _integers(self, below: int, n: int) -> Tensor:
        return torch.randint(below, (n,), generator=self.generator, device=self.rows.device)

    def _within(self, groups: Tensor) -> Tensor:
        u = torch.rand(len(groups), generator=self.generator, device=self.rows.device, dtype=torch.float64)
        return self.rows[self.starts[groups] + (u * self.counts[groups]).long()]


@dataclass
class State:
    """All that changes in a training, under names, so that a checkpoint can hold it.

    A number that a method adapts (a balance, a temperature) is a buffer of one of its networks.
    """

    config: Any
    device: torch.device
    sampler: Sampler
    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]
    bf16: bool | None = None  # None: where the device is good at it
    labels: dict[str, Tensor] = field(default_factory=dict)  # (cells,) on the device: classes, weeks, doses, weights
    phase: Any = 0  # of the step that is done now, by the method's `phase`; set by the loop

    def __post_init__(self) -> None:
        if self.bf16 is None:
            self.bf16 = has_bf16(self.device, on_cpu=getattr(self.config, "cpu_bf16", False))

    def autocast(self, *, enabled: bool = True) -> AbstractContextManager:
        """Context for the networks' forward passes; sums, losses and statistics belong outside of it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self.bf16) and enabled)

    @property
    def precision(self) -> str:
        """What the networks compute in, "bf16" or "float32", for the record of a run."""
        return "bf16" if self.bf16 else "float32"

    def finite(self) -> str | None:
        """Name of the first network that holds a NaN or an infinity, if any does."""
        for name, network in self.networks.items():
            values = [v for v in network.state_dict().values() if v.is_floating_point()]
            if not torch.stack([v.isfinite().all() for v in values]).all():
                return name
        return None


@runtime_checkable
class Method(Protocol):
    """What a module must have to be trained.

    Seven things it may have: ``finish(state, cells, folder)`` writes its own products when the last step is done,
    ``FOLLOWED`` names networks whose weights are kept at every checkpoint of a course, to draw images with later,
    ``PARALLEL = True`` says that the N cells of a batch may be split over several devices, ``phase(config, t)`` returns
    a number or name that is the same for steps which do the same, ``resize(config, iterations)`` a configuration of
    another length, of which every phase keeps its share, ``begins_with(config)`` another configuration and how many
    of its steps this one begins with, or None: trainings that share their first phases share one that ends there, and
    ``Watch``, a class whose ``check(state, cells, history)`` is an error if a training should not be gone on with.
    """

    __name__: str
    VERSION: int  # rises when the results of a configuration change
    Config: Any  # frozen dataclass with at least `seed` and `iterations`
    PRESETS: dict[str, Any]  # name -> Config

    def begin(self, config: Any, cells: CellSet, device: torch.device) -> State:
        """Networks, optimisers and a `Sampler` at step 0."""

    def draw(self, state: State, t: int) -> Tensor:
        """Rows of the cells of the step after t others, (N,) or (draws, N)."""

    def step(self, state: State, batch: Batch, t: int | Tensor) -> dict[str, Tensor]:
        """One update of everything, after t others; its losses before it by name, scalars.

        On CUDA, t is a scalar on the device: a step is recorded once and played again. So it must not wait for the
        device (no ``item``, no ``if`` on a tensor), and what it does may differ only between the phases of `phase`,
        of which the present one is ``state.phase``.
        """

    def encode(self, state: State, cells: CellSet) -> np.ndarray:
        """Codes of cells, (N, d)."""


def has_bf16(device: torch.device, *, on_cpu: bool = False) -> bool:
    """Whether trainings compute in bf16 on a device: where it is no imitation, and on a CPU only if that is asked for.

    By itself a CPU computes in float32, in which the stored trainings were made; in the first steps of VAE+ gradients
    in bf16 agree with those to a cosine of 0.94 only.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return on_cpu and device.type == "cpu" and any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to its device, for channels-last images: faster there and here, and the same numbers."""
    return network.to(device, memory_format=torch.channels_last)


def treatment_codes(table: pd.DataFrame) -> np.ndarray:
    """Number of the treatment (compound and concentration) of each cell, (N,), sorted by name; controls are one."""
    if "Metadata_compound" not in table:
        raise CellbookError(f"the cells' table has no column 'Metadata_compound': it has {', '.join(table.columns)}")
    key = table[["Metadata_compound"]].copy()
    missing = int(key["Metadata_compound"].isna().sum())
    if missing:
        raise CellbookError(f"Metadata_compound is missing in {missing} of {len(table)} cells: label or drop them")
    if "Metadata_concentration" in table:
        control = key["Metadata_compound"] == "DMSO"
        key["Metadata_concentration"] = table["Metadata_concentration"].mask(control, 0.0)
    return key.groupby(list(key.columns), dropna=False, sort=True).ngroup().to_numpy()
