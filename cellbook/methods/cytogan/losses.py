"""The losses of the models, in the order of the paper's table. N real cells of a batch, as many made images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 1e-8  # least k of BEGAN, and its first


def targets(real: int, made: int, smoothing: float, device: torch.device) -> Tensor:
    """y: 0 for made images, then a number drawn between `smoothing` and 1 for each real one; (made + real,)."""
    drawn = smoothing + (1 - smoothing) * torch.rand(real, device=device)
    return torch.cat([torch.zeros(made, device=device), drawn])


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """DCGAN, BiGAN: binary cross-entropy of logits and targets in [0, 1], (M,) each, in nats; mean."""
    return F.binary_cross_entropy_with_logits(logits, y)


def squared(outputs: Tensor, y: Tensor) -> Tensor:
    """LSGAN: (y - D)^2, (M,) each; mean. Mao et al. (2017) halve it, which Adam does not see."""
    return (y - outputs).square().mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, made: Tensor) -> Tensor:
    """WGAN-GP: mean of (|gradient of the critic| - 1)^2 at one point between each real and made image.

    The point is drawn uniformly on the line, with one number a pair; the published code draws one a pixel, which
    leaves the line. (N, c, H, W) each; can be differentiated once more.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * made).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    length = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()  # at 0 a root has no slope
    return (length - 1).square().mean()


def reconstruction(images: Tensor, autoencoded: Tensor) -> Tensor:
    """L of BEGAN: mean absolute difference over everything, (N, c, H, W) each."""
    return (images - autoencoded).abs().mean()


def balanced(k: Tensor, real: Tensor, made: Tensor, gamma: float, gain: float) -> Tensor:
    """BEGAN's next k: it rises while made images are autoencoded better than gamma times as badly as real ones."""
    return (k + gain * (gamma * real - made)).clamp(FLOOR, 1)


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """Autoencoders: squared distance of the images, (N, c, H, W) each, summed over pixels, mean over cells."""
    return (x - x_hat).square().sum() / len(x)


def divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """VAE: KL divergence of N(mu, exp(logvar)), (N, d) each, from N(0, I) in nats, mean over cells."""
    return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum() / len(mu)
