"""The loss of VICReg, one step towards it, and the codes that are left when it is thrown away.

N pairs of a batch, d = 512 numbers of an embedding; z and z' are those of the two cells of each pair.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods.vicreg.config import Config
from cellbook.methods.vicreg.pairs import Pairs
from cellbook.methods.weakly_supervised.augmentation import augment
from cellbook.methods.weakly_supervised.config import LEAST
from cellbook.methods.weakly_supervised.networks import Trunk
from cellbook.pixels import channel_max
from cellbook.training import Batch, State, place
from cellbook.training import codes as trained

EPSILON = 1e-4  # of variances, under the root
MOMENTUM = 0.1  # share of a batch in the running moments of batch norm


def expander(features: int, expanded: int) -> nn.Sequential:
    """Three layers from codes to the embeddings that the loss is taken of, (B, features) -> (B, expanded)."""
    layers: list[nn.Module] = []
    for width in (features, expanded):
        layers += [nn.Linear(width, expanded, bias=False), nn.BatchNorm1d(expanded), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(expanded, expanded, bias=False))


def deviations(z: Tensor) -> Tensor:
    """Standard deviation of each number of the embeddings over a batch, (N, d) -> (d,), at least 0.01."""
    return (z.var(dim=0) + EPSILON).sqrt()


def hinge(z: Tensor) -> Tensor:
    """By how much deviations fall short of 1, mean over the numbers of an embedding; of a collapse 0.99."""
    return F.relu(1 - deviations(z)).mean()


def covariances(z: Tensor) -> Tensor:
    """Sum of the squared covariances between different numbers of the embeddings, over how many there are."""
    z = z - z.mean(dim=0)
    covariance = z.T @ z / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def terms(z: Tensor, other: Tensor) -> dict[str, Tensor]:
    """The three terms of the loss of two batches of embeddings, (N, d) each, before they are weighted.

    As in the published code, on which the weights rest: the invariance is a mean over numbers too, the variance a mean
    over the two batches, and the covariance a sum.

    `deviation` is no term. It is 1 of embeddings that are spread as asked, and falls to 0 when they collapse. Between
    these, invariance and variance, with weights a and b, pull evenly at b / (4 a (1 - r)), where r is the correlation
    of the two cells of a pair: at 1/4 if these have nothing in common, and at 1 from r = 3/4 on.
    """
    return {
        "invariance": F.mse_loss(z, other),
        "variance": (hinge(z) + hinge(other)) / 2,
        "covariance": covariances(z) + covariances(other),
        "deviation": (deviations(z).mean() + deviations(other).mean()) / 2,
    }


def weighted(config: Config, found: dict[str, Tensor]) -> Tensor:
    """The loss."""
    return (
        config.invariance * found["invariance"]
        + config.variance * found["variance"]
        + config.covariance * found["covariance"]
    )


def begin(config: Config, cells: CellSet, device: torch.device) -> State:
    """Networks, optimiser and sampler at step 0."""
    height, width = cells.images.shape[-2:]
    if height != width or height < LEAST:
        raise CellbookError(
            f"the crops have {height} x {width} pixels, the network takes squares of {LEAST} or more: crop anew"
        )
    sampler = Pairs(cells.table, config.batch, device, config.seed)
    trunk = Trunk(len(cells.channels), config.width, MOMENTUM)
    networks = {"trunk": place(trunk, device), "expander": place(expander(trunk.features, config.expanded), device)}
    weights = [p for network in networks.values() for p in network.parameters()]
    optimiser = torch.optim.Adam(weights, lr=config.rate, fused=True, capturable=device.type == "cuda")
    return State(config, device, sampler, networks, {"network": optimiser})


def draw(state: State, t: int) -> Tensor:
    """Rows of pairs, (2, N): a cell of a treatment, each treatment equally likely, and its partner."""
    one = state.sampler.balanced(state.config.batch)
    return torch.stack([one, state.sampler.away(one)])


def step(state: State, batch: Batch, t: int | Tensor) -> dict[str, Tensor]:
    """One update of trunk and expander; the loss before it and its terms, see `terms`."""
    config = state.config
    x = augment(channel_max(batch.images.flatten(0, 1)), config.shift, turns=True)  # (2 N, c, S, S)
    with state.autocast():
        codes = state.networks["trunk"](x.contiguous(memory_format=torch.channels_last))
    found = terms(*state.networks["expander"](codes).chunk(2))  # in float32
    losses = {"loss": weighted(config, found), **found}

    (optimiser,) = state.optimisers.values()
    optimiser.zero_grad(set_to_none=True)
    losses["loss"].backward()
    for group in optimiser.param_groups:
        group["lr"] = config.rate * (1 - t / config.iterations)
    optimiser.step()
    return losses


def encode(state: State, cells: CellSet) -> np.ndarray:
    """Codes of cells, (N, 8 x width) float32: the mean over the pixels of the trunk's last map."""
    trunk = state.networks["trunk"]
    return trained.encode(state, cells, trunk, trunk.features)
