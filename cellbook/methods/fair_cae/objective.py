"""The losses of Glastonbury, Ferlaino et al. (2018), and the steps of the three phases.

x an image, z its code, x_hat its reconstruction, s the confounder of its cell (`confounder.read_column`), theta the
weights of the autoencoder, w those of the adversary. E_lambda(theta, w) = L_CAE(theta) - lambda L_adv(theta, w).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods.fair_cae.config import Config, phase
from cellbook.methods.fair_cae.confounder import labels
from cellbook.methods.fair_cae.networks import SHRINK, Adversary, Decoder, Encoder
from cellbook.pixels import channel_max
from cellbook.training import Batch, Sampler, State, place

WATCHED = 16  # cells of a batch whose reconstruction is looked at in phase B, in which it does not change


def reconstruction_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """L_CAE: squared distance of images in [0, 1], (N, c, H, W), mean over cells, channels and pixels."""
    return (x_hat - x).square().mean()


def reading_loss(answer: Tensor, s: Tensor) -> Tensor:
    """L_adv, mean over cells: cross-entropy of logits and classes in nats, both (N, S), or squared error, (N, 1)."""
    if s.shape[1] == 1:
        return (answer - s).square().mean()
    return -(s * answer.log_softmax(1)).sum(1).mean()


def chance(expected: Tensor, s: Tensor) -> Tensor:
    """L_adv of whoever knows all but the code and answers with the shares or the number expected, both (N, S)."""
    if s.shape[1] == 1:
        return reading_loss(expected, s)
    return -torch.special.xlogy(s, expected).sum(1).mean()


def confusion_loss(answer: Tensor, expected: Tensor) -> Tensor:
    """Divergence of what is answered from what is known without the code, both (N, S), in nats; or squared error."""
    floor = 0.0 if expected.shape[1] == 1 else -torch.special.xlogy(expected, expected).sum(1).mean()
    return reading_loss(answer, expected) - floor


def kernel_loss(z: Tensor, rest: Tensor) -> Tensor:
    """HSIC of codes (N, d) with a Gaussian kernel and `rest`, s less what is expected of it (N, S), with a linear one.

    Mean over pairs of two cells of k(z_i, z_j) <rest_i, rest_j>, which has expectation 0 if codes say nothing of s.
    The kernel's 2 sigma^2 is the mean squared distance in the batch, through which gradients flow: scale plays no part.
    """
    z = z - z.mean(0)
    size = z.square().sum(1)
    distance = (size[:, None] + size - 2 * z @ z.T).clamp_min(0.0)  # (N, N), squared
    pairs = len(z) * (len(z) - 1)
    alike = torch.exp(-distance * pairs / distance.sum().clamp_min(torch.finfo(z.dtype).tiny))
    product = rest @ rest.T
    return ((alike * product).sum() - product.diagonal().sum()) / pairs


def augmented(x: Tensor, brightness: float, contrast: float) -> Tensor:
    """Images (N, c, H, W) in [0, 1], each mirrored or not in either way, and a little brighter and steeper or less.

    Channels change alike, contrast around each one's own mean. Left out: the published shear, which moves nothing by
    a pixel, and the jitter of hue and saturation, which mixes the channels.
    """
    across, down, u, v = torch.rand(4, len(x), 1, 1, 1, device=x.device)
    x = torch.where(across < 0.5, x.flip(-1), x)
    x = torch.where(down < 0.5, x.flip(-2), x)
    x = (x * (1 + brightness * (2 * u - 1))).clamp(0.0, 1.0)
    mean = x.mean((-2, -1), keepdim=True)
    return (mean + (x - mean) * (1 + contrast * (2 * v - 1))).clamp(0.0, 1.0)


def scaled(images: Tensor) -> Tensor:
    """Images (N, c, H, W) as the networks take them: of grey values up to 1, channels last.

    Open: how 16 bits became 8. Here each channel of each crop is divided by its own maximum.
    """
    return channel_max(images).contiguous(memory_format=torch.channels_last)


def begin(config: Config, cells: CellSet, device: torch.device) -> State:
    """Networks, optimisers of all phases, labels and sampler at step 0."""
    side = cells.images.shape[-2:]
    if side[0] % SHRINK or side[1] % SHRINK or 0 in side:
        raise CellbookError(
            f"the crops have {side[0]} x {side[1]} pixels: the networks halve them four times, crop anew to sides that "
            f"are multiples of {SHRINK}"
        )
    known, groups = labels(config, cells, device)
    channels, deep = len(cells.channels), config.model == "deep"
    networks = {
        "encoder": Encoder(channels, side, config.latent, config.width, deep=deep),
        "decoder": Decoder(channels, side, config.latent, config.width, deep=deep),
    }
    # One Adam over both is two Adams: it works number by number. On CUDA it counts its steps there.
    adam: dict[str, Any] = {"amsgrad": True, "fused": True, "capturable": device.type == "cuda"}
    theta = [p for network in networks.values() for p in place(network, device).parameters()]
    optimisers: dict[str, torch.optim.Optimizer] = {
        "pretraining": torch.optim.Adam(
            theta, lr=config.pretraining_rate, weight_decay=config.pretraining_decay, **adam
        ),
        "autoencoder": torch.optim.Adam(theta, lr=config.game_rate, **adam),
    }
    if config.terms.adversary:
        classes, seen = (known[name].shape[1] for name in ("confounder", "treatment"))
        adversary = networks["adversary"] = place(Adversary(classes, config.latent, config.hidden, seen), device)
        w = list(adversary.parameters())
        optimisers["teaching"] = torch.optim.SGD(
            w, lr=config.teaching_rate, weight_decay=config.teaching_decay, fused=True
        )
        optimisers["adversary"] = torch.optim.Adam(w, lr=config.game_rate, **adam)
    return State(config, device, Sampler(groups, device, config.seed), networks, optimisers, labels=known)


def draw(state: State, t: int | Tensor) -> Tensor:
    """Rows of a batch, (N,); in phase C (draws + 1, N): those whose codes the adversary learns from, then the other.

    Classes of the confounder are equally likely; the published training set has as many cells of each.
    """
    config, now = state.config, _phase(state, t)
    if now != "C":
        return state.sampler.balanced(config.batch if now == "A" else config.teaching_batch)
    return state.sampler.balanced((config.draws + 1) * config.batch).view(config.draws + 1, config.batch)


def step(state: State, batch: Batch, t: int | Tensor) -> dict[str, Tensor]:
    """One step of the phase of t; its losses before it, not weighted. See `pretrain`, `teach` and `play`."""
    return {"A": pretrain, "B": teach, "C": play}[_phase(state, t)](state, batch)


def pretrain(state: State, batch: Batch) -> dict[str, Tensor]:
    """Phase A: the autoencoder learns to reconstruct, from images that are mirrored and jittered."""
    x = augmented(scaled(batch.images), state.config.brightness, state.config.contrast)  # also what is aimed at
    z = _encode(state, x)
    loss = reconstruction_loss(x, _decode(state, z))
    _follow(state, "pretraining", loss)
    with torch.no_grad():
        return {"reconstruction": loss, **readings(state, z, batch.rows)}


def teach(state: State, batch: Batch) -> dict[str, Tensor]:
    """Phase B: the adversary learns to read the confounder from codes that no longer change."""
    x = scaled(batch.images)
    with torch.no_grad():
        z = _encode(state, x)
        loss = reconstruction_loss(x[:WATCHED], _decode(state, z[:WATCHED]))
    losses = {"reconstruction": loss, **readings(state, z, batch.rows, state.config.dropout)}
    _follow(state, "teaching", losses["adversary"])
    return losses


def play(state: State, batch: Batch) -> dict[str, Tensor]:
    """Phase C, one round: the adversary learns from codes as they are now, then the autoencoder takes one step.

    All codes of the adversary's updates are computed before the first of them. The published pass takes each training
    cell once; here cells are drawn with replacement, and a batch comes again after `draws` others. The step of the
    autoencoder is on cells of its own, against the adversary as it is then, without dropout unless both step together.
    """
    config, terms = state.config, state.config.terms
    with torch.no_grad():
        codes = [_encode(state, scaled(images)) for images in batch.images[:-1]]  # (N, d) each
    for k in range(config.adversary_updates):
        i = k % len(codes)
        _follow(state, "adversary", readings(state, codes[i], batch.rows[i], config.dropout)["adversary"])
    x = scaled(batch.images[-1])
    z = _encode(state, x)
    losses = {"reconstruction": reconstruction_loss(x, _decode(state, z))}
    losses |= readings(state, z, batch.rows[-1], config.dropout if terms.together else 0.0)
    penalised = losses["reconstruction"] + config.lam * terms.sign * losses[terms.term]
    _follow(state, "autoencoder", penalised, again=terms.together)
    if terms.together:
        _follow(state, "adversary", losses["adversary"])
    return losses


def readings(state: State, z: Tensor, rows: Tensor, dropout: float = 0.0) -> dict[str, Tensor]:
    """The losses beside the reconstruction, for codes (N, d) of the cells of some rows (N,).

    In float32: what is left of the confounder may be smaller than the steps of bf16.
    """
    s, expected, treatment = (state.labels[name][rows] for name in ("confounder", "expected", "treatment"))
    if not state.config.terms.adversary:
        return {"kernel": kernel_loss(z, s - expected)}
    answer = state.networks["adversary"](z, treatment, dropout)
    return {"adversary": reading_loss(answer, s), "confusion": confusion_loss(answer, expected)}


def _encode(state: State, x: Tensor) -> Tensor:
    """Codes of images, (N, d) float32. A context each: weights cast to bf16 are kept for as long as one lasts."""
    with state.autocast():
        return state.networks["encoder"](x)


def _decode(state: State, z: Tensor) -> Tensor:
    """Images of codes, (N, c, H, W) float32."""
    with state.autocast():
        return state.networks["decoder"](z)


def _follow(state: State, name: str, objective: Tensor, *, again: bool = False) -> None:
    """One step of an optimiser down an objective, which reaches no other weights; `again`: the graph is used later."""
    optimiser = state.optimisers[name]
    optimiser.zero_grad(set_to_none=True)
    weights = [p for group in optimiser.param_groups for p in group["params"]]
    objective.backward(inputs=weights, retain_graph=again)
    optimiser.step()


def _phase(state: State, t: int | Tensor) -> str:
    """Phase of the step after t others; on CUDA, where t lies on the device, the loop has named it."""
    return state.phase if isinstance(t, Tensor) else phase(state.config, t)
