"""The losses of Lafarge et al. (2019), section 2, and one simultaneous update of the three networks.

N cells of a batch, P = c * 68 * 68 values of an image, x an original, x_hat its reconstruction, D_i the i-th hidden
layer of the discriminator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods.vae_plus.config import Config
from cellbook.methods.vae_plus.networks import SIDE, Decoder, Discriminator, Encoder, kernels
from cellbook.pixels import channel_max
from cellbook.training import Batch, Sampler, State, place, treatment_codes


def gamma(t: int | Tensor, i: int, ramp: int = 2500) -> float | Tensor:
    """Weight of the feature term of layer i = 1 to 4 after t updates: rises from 0 at t = iT to 1 at t = (i+1)T.

    The paper leaves the first index open; in the published code it is 1: the first T iterations are a plain VAE.
    """
    if isinstance(t, Tensor):
        return (t / ramp - i).clamp(0.0, 1.0)
    return min(1.0, max(0.0, t / ramp - i))


def pixel_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """L_pix: half the squared distance of the images, (N, c, H, W), summed over pixels, mean over cells."""
    return 0.5 * (x - x_hat).square().sum() / len(x)


def kl_loss(mu: Tensor, logvar: Tensor) -> Tensor:
    """L_KL: divergence of N(mu, exp(logvar)), (N, d) each, from N(0, I) in nats, mean over cells."""
    return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum() / len(mu)


def feature_loss(features: Tensor, features_hat: Tensor, pixels: int) -> Tensor:
    """L_i: half the mean squared distance of two hidden layers times P = `pixels`: every layer counts like an image."""
    return 0.5 * pixels * (features.float() - features_hat.float()).square().mean()


def cross_entropy(logits: Tensor, real: Tensor) -> Tensor:
    """Binary cross-entropy of logits and targets (1 real, 0 not), mean; 1e-7 inside the logarithms as published."""
    p = torch.sigmoid(logits)
    return -(real * (p + 1e-7).log() + (1 - real) * (1 - p + 1e-7).log()).mean()


def scaled(images: Tensor) -> Tensor:
    """Images (N, c, 68, 68) as the networks take them: of grey values up to 1, channels last."""
    return channel_max(images).contiguous(memory_format=torch.channels_last)


def begin(config: Config, cells: CellSet, device: torch.device) -> State:
    """Networks, optimisers and sampler at step 0."""
    if cells.images.shape[-2:] != (SIDE, SIDE):
        height, width = cells.images.shape[-2:]
        raise CellbookError(f"the crops have {height} x {width} pixels, the networks take {SIDE} x {SIDE}: crop anew")
    sampler = Sampler(treatment_codes(cells.table), device, config.seed)
    if config.batch is None and len(sampler.counts) < 2:
        raise CellbookError("all cells are of one treatment: batch=None takes one of each, give a number instead")
    channels = len(cells.channels)
    networks = {
        "encoder": Encoder(channels, config.latent, config.width),
        "decoder": Decoder(channels, config.latent, config.width),
    }
    fused = device.type == "cuda"
    # One Adam over both is two Adams: it works number by number. eps is the published code's.
    weights = [p for network in networks.values() for p in place(network, device).parameters()]
    adam = torch.optim.Adam(weights, lr=config.adam_rate, betas=(0.9, 0.999), eps=1e-7, fused=fused, capturable=fused)
    optimisers: dict[str, torch.optim.Optimizer] = {"autoencoder": adam}
    if config.terms.layers:
        judge = networks["discriminator"] = place(Discriminator(channels, config.width), device)
        optimisers["discriminator"] = torch.optim.SGD(
            judge.parameters(), lr=config.sgd_rate, momentum=config.momentum, fused=fused
        )
    return State(config, device, sampler, networks, optimisers)


def draw(state: State, t: int) -> Tensor:
    """Rows of two independent batches, (2, N): B1 to reconstruct, B2 as real examples; (1, N) without discriminator."""
    n = state.config.batch
    draws = 2 if state.config.terms.layers else 1
    return torch.stack([state.sampler.each() if n is None else state.sampler.balanced(n) for _ in range(draws)])


def step(state: State, batch: Batch, t: int | Tensor) -> dict[str, Tensor]:
    """One update of all networks from one forward pass; the terms of the objective before it, unweighted.

    The encoder minimises L_pix + L_D + beta L_KL, the decoder L_pix + L_D with L_D = sum_i gamma_i L_i, the
    discriminator its cross-entropy alone. Neither autoencoder half sees the cross-entropy: there is no fooling term.
    """
    config, terms = state.config, state.config.terms
    encoder, decoder, judge = (state.networks.get(name) for name in ("encoder", "decoder", "discriminator"))
    x, *real = (scaled(images) for images in batch.images)  # (N, c, 68, 68) each
    # Batch norm widens the small differences of codes: on a CPU a bf16 encoder, a tenth of a step faster, turns the
    # gradients of all networks by several times as much as bf16 decoder and discriminator do together.
    with state.autocast(enabled=x.is_cuda):
        mu, logvar = encoder(x)  # (N, 256) each
    with state.autocast():
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu) if terms.noise else mu
        # With images from the prior beside the reconstructions, whose moments serve for both.
        x_hat, *prior = decoder(z, torch.randn_like(mu)) if terms.fooling else decoder(z)  # (N, c, 68, 68) each
    losses = {"pixel": pixel_loss(x, x_hat)}
    objective = losses["pixel"] if terms.pixels else 0.0
    if terms.noise:  # without, logvar is not used: its KL means nothing, and it learns nothing
        losses["kl"] = kl_loss(mu, logvar)
        objective = objective + config.kl_weight * losses["kl"]
    if judge is not None:
        with state.autocast():
            # Moments from reals and reconstructions; the originals of B1 (and the prior's) are only normalised.
            hidden, logits = judge(*real, x_hat, x, *prior, first=2)  # four layers and logits of each batch
        for i in terms.layers:
            losses[f"feature_{i}"] = feature_loss(hidden[i - 1][2], hidden[i - 1][1], x[0].numel())
            # Open: whether gamma counts the present update. Here t is the number of updates done before it.
            weight = gamma(t, i, config.ramp) if terms.progressive else 1.0
            if isinstance(weight, Tensor) or weight > 0:
                objective = objective + weight * losses[f"feature_{i}"]
        fake = torch.cat([logits[1], *logits[3:]])  # (N,) of made images, or (2N,)
        judged = torch.cat([logits[0], fake])
        losses["discriminator"] = cross_entropy(judged, (torch.arange(len(judged), device=x.device) < len(x)).float())

    for optimiser in state.optimisers.values():
        optimiser.zero_grad(set_to_none=True)
    objective.backward(inputs=[*encoder.parameters(), *decoder.parameters()], retain_graph=judge is not None)
    if terms.fooling:
        losses["fooling"] = cross_entropy(fake, torch.ones_like(fake))
        (terms.fooling * losses["fooling"]).backward(inputs=list(decoder.parameters()), retain_graph=True)
    if judge is not None:
        losses["discriminator"].backward(inputs=list(judge.parameters()))
    for optimiser in state.optimisers.values():
        optimiser.step()
    with torch.no_grad():  # after the step, an order that the published code leaves open
        for network in state.networks.values():
            torch._foreach_mul_(kernels(network), 1 - config.decay)
    return losses
