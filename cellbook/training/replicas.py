"""Several processes that train as one: started by ``torchrun``, each with a part of every batch.

In a single process every function does nothing, so that the loop is written once. Batch norm stays local to a
process: a method whose layers look across the batch either changes its result by being split or must not be.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cellbook.errors import CellbookError


def join() -> tuple[int, int]:
    """Join the group that ``torchrun`` started, if it did: rank and number of processes, (0, 1) otherwise."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return rank(), world()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    """Wait until every process is here."""
    if world() > 1:
        dist.barrier()


def own_device(device: torch.device) -> torch.device:
    """The device of this process: the one given, or of several the one with its number on this machine."""
    if world() > 1 and device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device


def own_part(rows: Tensor) -> Tensor:
    """Share of this process in the rows of a batch, (..., N) -> (..., N / processes)."""
    if rows.shape[-1] % world():
        raise CellbookError(
            f"a batch of {rows.shape[-1]} cannot be split evenly over {world()} processes: change either"
        )
    return rows[..., rank() :: world()]


def share(networks: dict[str, nn.Module], optimisers: dict[str, torch.optim.Optimizer]) -> None:
    """Give every process the weights of the first, and average gradients before each step of an optimiser."""
    if world() == 1:
        return
    for network in networks.values():
        for value in network.state_dict().values():
            dist.broadcast(value, 0)
    for optimiser in optimisers.values():
        optimiser.register_step_pre_hook(_average_gradients)


def mean(values: Tensor) -> Tensor:
    """Mean of a tensor over the processes."""
    if world() > 1:
        dist.all_reduce(values)
        values /= world()
    return values


def first_says(answer: bool, device: torch.device) -> bool:
    """The answer of the first process, for all: clocks differ."""
    if world() == 1:
        return answer
    shared = torch.tensor([answer], dtype=torch.uint8, device=device)
    dist.broadcast(shared, 0)
    return bool(shared.item())


def gather_bytes(value: Tensor) -> list[Tensor]:
    """A CPU tensor of bytes of every process, in the order of their ranks."""
    if world() == 1:
        return [value]
    found = [torch.empty_like(value) for _ in range(world())]
    dist.all_gather(found, value)
    return found


def _average_gradients(optimiser: torch.optim.Optimizer, *_: object) -> None:
    """Replace each gradient by its mean over the processes, in one message."""
    gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    flat = mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
