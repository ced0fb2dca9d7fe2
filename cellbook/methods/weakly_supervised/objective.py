"""The weakly supervised problem of Caicedo et al. (2018), which treatment did a cell get, and one step towards it.

N samples of a batch (cells, mixed pairs or sets of T cells), K classes, x an image, q its target: shares of classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods.weakly_supervised.augmentation import augment, ranged
from cellbook.methods.weakly_supervised.config import LEAST, RATES, SETS, Config
from cellbook.methods.weakly_supervised.networks import (
    AttentionClassifier,
    Classifier,
    PooledClassifier,
    PretrainedTrunk,
    SetClassifier,
    Trunk,
)
from cellbook.methods.weakly_supervised.sampling import Partners
from cellbook.methods.weakly_supervised.split import split
from cellbook.pixels import channel_max
from cellbook.training import Batch, State, place


def one_hot(y: Tensor, classes: int) -> Tensor:
    """Targets of single cells, (N,) -> (N, K) float32."""
    return (y[:, None] == torch.arange(classes, device=y.device)).float()


def mix(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Images or targets mixed, lambda x_1 + (1 - lambda) x_2, with a `weight` lambda for each row, (N,)."""
    weight = weight.view(-1, *[1] * (one.ndim - 1))
    return weight * one + (1 - weight) * other


def cross_entropy(logits: Tensor, q: Tensor) -> Tensor:
    """- sum_k q_k log p_k of logits and targets, (N, K) each, in nats, mean over the batch."""
    return -(q * logits.log_softmax(dim=1)).sum(dim=1).mean()


def rate(config: Config, t: int | Tensor) -> float | Tensor:
    """Learning rate after t of all iterations; a scalar on the device if t is one. See `config.RATES`."""
    first, steps = RATES[config.optimiser]
    value, before = first if config.rate is None else config.rate, 1.0
    for share, factor in steps.items():
        value = value * (1.0 + (factor / before - 1.0) * (t >= share * config.iterations))
        before = factor
    return value


def begin(config: Config, cells: CellSet, device: torch.device) -> State:
    """Networks, optimiser and sampler at step 0."""
    height, width = cells.images.shape[-2:]
    if height != width or height < LEAST:
        raise CellbookError(
            f"the crops have {height} x {width} pixels, the network takes squares of {LEAST} or more: crop anew"
        )
    parts = split(config, cells)
    sampler = Partners(config, parts, cells.table, device)
    c, k, embedding = len(cells.channels), len(parts.classes), 4 * config.width
    trunk = Trunk(c, config.width, config.norm_momentum) if config.trunk == "resnet18" else PretrainedTrunk(c)
    if config.model == "recurrent":
        head: nn.Module = SetClassifier(trunk.features, k, embedding)
    elif config.model == "pooled":
        head = PooledClassifier(trunk.features, k)
    elif config.model == "attended":
        head = AttentionClassifier(trunk.features, k, embedding)
    else:
        between = embedding if config.head == "embedded" else None
        head = Classifier(trunk.features, k, between, config.dropout, config.norm_momentum)
    head.classes = parts.classes  # type: ignore[assignment]
    networks = {"trunk": place(trunk, device), "head": place(head, device)}
    weights = [p for network in networks.values() for p in network.parameters()]
    if config.optimiser == "adam":
        optimiser: torch.optim.Optimizer = torch.optim.Adam(
            weights, lr=rate(config, 0), fused=True, capturable=device.type == "cuda"
        )
    else:
        optimiser = torch.optim.SGD(weights, lr=rate(config, 0), fused=True)
    labels = {"class": torch.from_numpy(parts.label).to(device)}
    return State(config, device, sampler, networks, {"network": optimiser}, labels=labels)


def draw(state: State, t: int) -> Tensor:
    """Rows of single cells (1, N), pairs (2, N) or sets (T, N); treatments are equally likely.

    Within a treatment so are cells; the paper draws an image first, then cells of it.
    """
    config, sampler = state.config, state.sampler
    if config.model in SETS:
        return sampler.sets(config.batch, config.set_size)
    if config.partners.startswith("label"):
        return sampler.sets(config.batch, 2)
    one = sampler.balanced(config.batch)
    if config.model == "baseline":
        return one[None]
    return torch.stack([one, sampler.away(one) if sampler.apart else sampler.balanced(config.batch)])


def step(state: State, batch: Batch, t: int | Tensor) -> dict[str, Tensor]:
    """One update of trunk and classifier; the cross-entropy before it and the share of samples that were right.

    Each crop is scaled and augmented on its own, before cells are mixed. A mixed pair counts as right if its heavier
    cell was found.
    """
    config, k = state.config, len(state.sampler.counts)
    x = augment(channel_max(batch.images.flatten(0, 1)), config.shift, config.turns)
    x = ranged(x, config.scale).unflatten(0, batch.rows.shape)  # (draws, N, c, S, S)
    y = state.labels["class"][batch.rows]  # (draws, N)
    q = one_hot(y[0], k)
    if config.model == "mixup":
        weight = state.sampler.mixing(config.batch)
        x, q = mix(x[0], x[1], weight)[None], mix(q, one_hot(y[1], k), weight)
    with state.autocast():
        pool = state.networks["trunk"](x.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    # (N, 512), or (T, N, 512) of sets; the little that follows is computed in float32.
    logits = state.networks["head"](pool.unflatten(0, x.shape[:2]) if config.model in SETS else pool)
    losses = {"cross_entropy": cross_entropy(logits, q)}
    losses["accuracy"] = (logits.argmax(dim=1) == q.argmax(dim=1)).float().mean()

    (optimiser,) = state.optimisers.values()
    optimiser.zero_grad(set_to_none=True)
    losses["cross_entropy"].backward()
    for group in optimiser.param_groups:
        group["lr"] = rate(config, t)
    optimiser.step()
    return losses
