"""The critics: one small network a treatment and pair of domains, all of them in one stacked tensor.

    u_1 = W_1 z + b_1,   a_l = softplus(u_l),   u_{l+1} = W_{l+1} a_l + b_{l+1},   f(z) = v . a_L + c

The published widths are two units, so everything but W_1 is tiny, and nothing that a step needs has the size of the
data but the products with the rows. Two facts make that so. An interpolate e x + (1 - e) y has the first layer
e u(x) + (1 - e) u(y), so it is never formed. And the input gradient is W_1' q with q = df/du_1 of two numbers, so its
length is the root of q' (W_1 W_1') q, and its derivative by the parameters is one pass backward, not two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cellbook.methods.wdn.config import Config
from cellbook.methods.wdn.sampling import Pairs


class Layers(NamedTuple):
    """Views into the stacked parameters of P critics."""

    weights: list[Tensor]  # (P, h, n), then (P, h, h) for every further layer
    biases: list[Tensor]  # (P, h) a layer
    v: Tensor  # (P, h)
    c: Tensor  # (P,), no gradient ever: a constant cancels between the two means


def n_parameters(n: int, width: int = 2, depth: int = 1) -> int:
    """Count the parameters of one critic: 389 for n = 192 and 105 for n = 50 with the paper's sizes."""
    return width * n + width + (depth - 1) * (width * width + width) + width + 1


def layers(theta: Tensor, n: int, width: int, depth: int) -> Layers:
    """Split stacked parameters (P, size) into views."""
    sizes = [width * n, width, *[width * width, width] * (depth - 1), width, 1]
    parts = theta.split(sizes, dim=1)
    weights = [part.unflatten(1, (width, -1)) for part in parts[: 2 * depth : 2]]
    return Layers(weights, list(parts[1 : 2 * depth : 2]), parts[-2], parts[-1][:, 0])


def softplus(u: Tensor) -> Tensor:
    """log(1 + exp(u)); torch's own threshold is exact to nine digits only."""
    return F.softplus(u, threshold=40)


def outputs(w: Layers, u: Tensor) -> Tensor:
    """Critics without their constants, from what the first layer says: (..., P, h, B) -> (..., P, B)."""
    for weight, bias in zip(w.weights[1:], w.biases[1:], strict=True):
        u = weight @ softplus(u) + bias[:, :, None]
    return (w.v[:, :, None] * softplus(u)).sum(dim=-2)


def squared_slopes(w: Layers, u: Tensor) -> Tensor:
    """Squared length of the gradient of f by its input, from what the first layer says: (P, h, B) -> (P, B)."""
    us = [u]
    for weight, bias in zip(w.weights[1:], w.biases[1:], strict=True):
        us.append(weight @ softplus(us[-1]) + bias[:, :, None])
    q = w.v[:, :, None] * us.pop().sigmoid()  # df/du of the last layer, then of the one before it
    for weight in reversed(w.weights[1:]):
        q = (weight.mT @ q) * us.pop().sigmoid()
    first = w.weights[0]
    return (q * (first @ first.mT @ q)).sum(dim=1)


class Critics:
    """The critics of all pairs, their step of RMSProp, and what they say of the distance.

    Parameters
    ----------
    pairs : Pairs
        Which views of the data each critic compares, and the weight of each in the loss.
    n : int
        Dimensions.
    config : Config
    device : torch.device
    dtype : torch.dtype
        Single precision but for tests.
    """

    def __init__(
        self, pairs: Pairs, n: int, config: Config, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config, self.n = config, n
        count, h, depth = len(pairs.weight), config.width, config.depth
        self.weight = pairs.weight.to(device, dtype)  # (P,)
        self.theta = torch.zeros(count, n_parameters(n, h, depth), device=device, dtype=dtype)
        self.square = torch.full_like(self.theta, config.accumulator)
        self._start()
        # Each view is in several pairs: its rows meet the first layers of all of them in one product. Views in fewer
        # pairs than others have empty places, which are computed and never read.
        views = int(pairs.sides.max()) + 1
        degree = torch.bincount(pairs.sides.flatten(), minlength=views)
        self.views, self.degree = views, int(degree.max())
        order = pairs.sides.flatten().argsort(stable=True)
        place = torch.arange(2 * count) - (degree.cumsum(0) - degree).repeat_interleave(degree)
        slot = torch.empty(2 * count, dtype=torch.long)
        slot[order] = pairs.sides.flatten()[order] * self.degree + place
        owner = torch.zeros(views * self.degree, dtype=torch.long)
        owner[slot] = torch.arange(2 * count) % count
        self.slot, self.owner = slot.to(device), owner.to(device)  # (2P,), (views * degree,)

    def _start(self) -> None:
        """Start all critics equal, on the first two coordinates, as the published code does; or at random."""
        w = self.layers(self.theta)
        if self.config.start == "identity":
            for weight in w.weights:
                weight.copy_(torch.eye(*weight.shape[1:], device=weight.device, dtype=weight.dtype))
            w.v[:, 0] = 1.0
            return
        generator = torch.Generator().manual_seed(self.config.seed)
        for weight in (*w.weights, w.v):
            draw = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(draw / math.sqrt(weight.shape[-1]))

    def layers(self, theta: Tensor) -> Layers:
        """Split stacked parameters (P, size) of these critics."""
        return layers(theta, self.n, self.config.width, self.config.depth)

    def project(self, w: Layers, views: Tensor) -> Tensor:
        """First layer of the rows of both sides of every pair: views (V, B, n) -> (2, P, h, B)."""
        h, batch = self.config.width, views.shape[1]
        first = w.weights[0][self.owner].view(self.views, self.degree * h, self.n)
        u = (first @ views.mT).view(-1, h, batch)  # (views * degree, h, B)
        return u[self.slot].view(2, -1, h, batch) + w.biases[0][:, :, None]

    def distance(self, views: Tensor) -> Tensor:
        """Estimate W_p = mean f_p(first view) - mean f_p(second view) of every pair, (P,); autograd goes through it."""
        w = self.layers(self.theta)
        f = outputs(w, self.project(w, views)).mean(dim=2)  # (2, P)
        return f[0] - f[1]

    def objective(self, theta: Tensor, views: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """W_p and the penalty g_p of critics with the parameters theta, (P,) each: equation 10.

        W = mean f(x) - mean f(y), g = gamma mean max(|grad f(z)| - 1, 0)^2 with z = e x + (1 - e) y; see `ascend`.
        """
        w = self.layers(theta)
        u = self.project(w, views)  # (2, P, h, B), of x and y
        f = outputs(w, u).mean(dim=2)  # (2, P)
        squared = squared_slopes(w, torch.lerp(u[1], u[0], epsilon[:, None]))  # (P, B), at z
        if self.config.bug_norm:
            squared = squared.sum(dim=1, keepdim=True)
        excess = (squared.clamp_min(1e-30).sqrt() - 1).clamp_min(0)
        return f[0] - f[1], self.config.gamma * excess.square().mean(dim=1)

    @torch.enable_grad()
    def ascend(self, views: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """One step of RMSProp up the gradient of sum_p weight_p (W_p - g_p); returns W_p and g_p before it, (P,) each.

        Parameters
        ----------
        views : (V, B, n) mapped minibatches
        epsilon : (P, B) places of the interpolates between the k-th rows of the two sides, 0 to 1
        """
        theta = self.theta.detach().requires_grad_(True)
        distance, penalty = self.objective(theta, views, epsilon)
        (gradient,) = torch.autograd.grad((self.weight * (distance - penalty)).sum(), theta)
        rmsprop_(self.theta, gradient, self.square, self.config, self.config.critic_rate)
        return distance.detach(), penalty.detach()


def rmsprop_(value: Tensor, gradient: Tensor, square: Tensor, config: Config, rate: float) -> None:
    """Move `value` up its gradient by TensorFlow 1's RMSProp: rate * g / sqrt(mean square + epsilon).

    PyTorch's own adds epsilon to the root and starts the mean square at 0, which takes full steps from the first on.
    """
    square.mul_(config.decay).addcmul_(gradient, gradient, value=1 - config.decay)
    value.addcdiv_(gradient, (square + config.epsilon).sqrt_(), value=rate)
