"""Steps on CUDA: done a few times as they are written, then recorded as a graph and played again.

The networks of this book are small: a step is hundreds of operations, and starting them one by one takes longer than
doing them. A graph starts them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

WARM = 3  # steps before recording: optimisers make their state, cuDNN chooses its algorithms

Update = Callable[[int | Tensor], dict[str, Tensor]]


class Recorded:
    """Plays `update`, one graph for each phase.

    The losses of a graph lie where it left them until the next step: whoever keeps them copies them.

    Parameters
    ----------
    update : the step after t others, with its draw; t is given as a scalar on the device
    phase : of a step, by its number; steps of one phase do the same
    generator : of the draws, beside torch's own
    start : number of the first step
    """

    def __init__(
        self, update: Update, phase: Callable[[int], Hashable], generator: torch.Generator, start: int
    ) -> None:
        self.update, self.phase, self.generator = update, phase, generator
        self.t = torch.tensor(start, device=generator.device)
        self.warm: dict[Hashable, int] = {}
        self.graphs: dict[Hashable, tuple[Any, dict[str, Tensor]]] = {}

    def __call__(self, t: int) -> dict[str, Tensor]:
        """The step after `t` others; its losses, scalars on the device."""
        phase = self.phase(t)
        if phase in self.graphs:
            graph, losses = self.graphs[phase]
            graph.replay()
            return losses
        self.warm[phase] = self.warm.get(phase, 0) + 1
        if self.warm[phase] <= WARM:
            return self._aside()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph):
            losses = self._step()
        self.graphs[phase] = graph, losses
        graph.replay()
        return losses

    def _step(self) -> dict[str, Tensor]:
        losses = {name: loss.detach() for name, loss in self.update(self.t).items()}
        self.t += 1
        return losses

    def _aside(self) -> dict[str, Tensor]:
        """One step on another stream, as recording asks for."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses = self._step()
        torch.cuda.current_stream().wait_stream(stream)
        return losses
