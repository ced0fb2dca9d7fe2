"""The critics: one small network a treatment and pair of domains, all of them in one stacked tensor.

    u_1 = W_1 z + b_1,   a_l = softplus(u_l),   u_{l+1} = W_{l+1} a_l + b_{l+1},   f(z) = v . a_L + c

The published widths are two units, so everything but W_1 is tiny, and nothing that a step needs has the size of the
data but two products with the rows. Two facts make that so. An interpolate e x + (1 - e) y has the first layer
e u(x) + (1 - e) u(y), so it is never formed. And the input gradient is W_1' q with q of two numbers, so its length is
the root of q' (W_1 W_1') q. Gradients are written out below, those of the penalty too, and tested against autograd.
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
    """Views into the stacked parameters of P critics, or into a gradient of the same shape."""

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
        self.gradient = torch.zeros_like(self.theta)
        self.square = torch.full_like(self.theta, config.accumulator)
        self.now, self.slope = (layers(t, n, h, depth) for t in (self.theta, self.gradient))
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
        self._spread = torch.empty(0, device=device, dtype=dtype)

    def _start(self) -> None:
        """Start all critics equal, on the first two coordinates, as the published code does; or at random."""
        w = self.now
        if self.config.start == "identity":
            for weight in w.weights:
                weight.copy_(torch.eye(*weight.shape[1:], device=weight.device, dtype=weight.dtype))
            w.v[:, 0] = 1.0
            return
        generator = torch.Generator().manual_seed(self.config.seed)
        for weight in (*w.weights, w.v):
            draw = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(draw / math.sqrt(weight.shape[-1]))

    def project(self, views: Tensor) -> Tensor:
        """First layer of the rows of both sides of every pair: views (V, B, n) -> (2, P, h, B)."""
        h, batch = self.config.width, views.shape[1]
        first = self.now.weights[0].index_select(0, self.owner).view(self.views, self.degree * h, self.n)
        u = torch.bmm(first, views.transpose(1, 2)).view(-1, h, batch)
        u = u.index_select(0, self.slot).view(2, -1, h, batch)
        return u + self.now.biases[0][:, :, None]

    def distance(self, views: Tensor) -> Tensor:
        """Estimate W_p = mean f_p(first view) - mean f_p(second view) of every pair, (P,); autograd goes through it."""
        w = self.now
        a = F.softplus(self.project(views))
        for weight, bias in zip(w.weights[1:], w.biases[1:], strict=True):
            a = F.softplus(weight @ a + bias[:, :, None])
        f = (w.v[:, :, None] * a).sum(dim=2).mean(dim=2)  # (2, P)
        return f[0] - f[1]

    @torch.no_grad()
    def ascend(self, views: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """One step of RMSProp up the gradient; returns W_p and the penalty g_p before it, (P,) each.

        Parameters
        ----------
        views : (V, B, n) mapped minibatches
        epsilon : (P, B) places of the interpolates between the k-th rows of the two sides, 0 to 1
        """
        found = self.differentiate(views, epsilon)
        rmsprop_(self.theta, self.gradient, self.square, self.config, self.config.critic_rate)
        return found

    @torch.no_grad()
    def differentiate(self, views: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """Fill `gradient` with that of sum_p weight_p (W_p - g_p); returns W_p and g_p, (P,) each."""
        w, out, batch = self.now, self.slope, views.shape[1]
        depth, between = self.config.depth, epsilon[:, None, :]  # (P, 1, B)
        u = self.project(views)
        us = [torch.cat([u, torch.lerp(u[1], u[0], between)[None]])]  # (3, P, h, B): x, y, z
        activations = []  # of x and y at every layer but the last, of z too
        for weight, bias in zip(w.weights[1:], w.biases[1:], strict=True):
            activations.append(F.softplus(us[-1]))
            us.append(weight @ activations[-1] + bias[:, :, None])
        last = F.softplus(us[-1][:2])

        # df/du of every layer, from the last to the first: r_l = sigmoid(u_l) * t_l, t_l = W_{l+1}' r_{l+1}, t_L = v.
        sigmoids = [torch.sigmoid(u) for u in us]
        upward: list[Tensor] = [w.v[:, :, None]] * depth
        slopes = [sigmoids[-1] * upward[-1]] * depth
        for i in range(depth - 2, -1, -1):
            upward[i] = w.weights[i + 1].transpose(1, 2) @ slopes[i + 1]
            slopes[i] = sigmoids[i] * upward[i]

        # The penalty and its derivative by the squared length of the input gradient, 2 d g / d |grad f|^2.
        first = w.weights[0]
        q = slopes[0][2]  # (P, h, B)
        gram_q = torch.bmm(torch.bmm(first, first.transpose(1, 2)), q)
        squared = (q * gram_q).sum(dim=1, keepdim=True)  # (P, 1, B)
        if self.config.bug_norm:
            squared = squared.sum(dim=2, keepdim=True)
        length = squared.clamp_min(1e-30).sqrt()
        excess = (length - 1).clamp_min(0)
        samples = length.shape[2]
        scale = self.weight[:, None, None]
        rate = excess / length * (scale * (-2 * self.config.gamma / samples))
        penalty = self.config.gamma * excess.square().mean(dim=(1, 2))

        # Down again through q, as a function of v and the upper layers.
        pull = rate * gram_q  # (P, h, B), derivative by r_1 of z
        weighted = (rate * q) @ q.transpose(1, 2)  # (P, h, h), for W_1 by way of the Gram matrix
        direct = []
        for i in range(depth):
            s = sigmoids[i][2]
            t = upward[i][2] if i < depth - 1 else upward[i]
            inner = s * pull
            direct.append(inner * (1 - s) * t)
            if i == depth - 1:
                torch.sum(inner, dim=2, out=out.v)
                break
            torch.bmm(slopes[i + 1][2], inner.transpose(1, 2), out=out.weights[i + 1])
            pull = torch.bmm(w.weights[i + 1], inner)

        # The means: +1/B for the rows of x, -1/B for those of y; then back through the layers, x, y and z together.
        means = last.mean(dim=3)  # (2, P, h)
        value = means[0] - means[1]
        distance = (w.v * value).sum(dim=1)
        out.v.add_(value * self.weight[:, None])
        share = scale / batch
        carried = direct[-1]
        for i in range(depth - 1, 0, -1):
            for weight_sum, side in ((share, 0), (-share, 1)):
                part = weight_sum * slopes[i][side]
                out.weights[i].add_(part @ activations[i - 1][side].transpose(1, 2))
                if side == 0:
                    torch.sum(part, dim=2, out=out.biases[i])
                else:
                    out.biases[i].add_(part.sum(dim=2))
            out.weights[i].add_(carried @ activations[i - 1][2].transpose(1, 2))
            out.biases[i].add_(carried.sum(dim=2))
            carried = direct[i - 1] + sigmoids[i - 1][2] * (w.weights[i].transpose(1, 2) @ carried)
        towards = between * carried
        back = torch.stack([share * slopes[0][0] + towards, (carried - towards) - share * slopes[0][1]])
        torch.sum(back.sum(dim=0), dim=2, out=out.biases[0])
        torch.add(self._by_rows(back, views), weighted @ first, out=out.weights[0])
        return distance, penalty

    def _by_rows(self, back: Tensor, views: Tensor) -> Tensor:
        """Derivative by W_1 of what reached u_1: (2, P, h, B) and the rows (V, B, n) -> (P, h, n)."""
        _, count, h, batch = back.shape
        if self._spread.shape[2:] != (batch,):
            self._spread = back.new_zeros(self.views * self.degree, h, batch)
        self._spread.index_copy_(0, self.slot, back.view(2 * count, h, batch))
        product = torch.bmm(self._spread.view(self.views, -1, batch), views).view(-1, h * self.n)
        both = product.index_select(0, self.slot).view(2, count, h, self.n)
        return both[0] + both[1]


def rmsprop_(value: Tensor, gradient: Tensor, square: Tensor, config: Config, rate: float) -> None:
    """Move `value` up its gradient by TensorFlow 1's RMSProp: rate * g / sqrt(mean square + epsilon).

    PyTorch's own adds epsilon to the root and starts the mean square at 0, which takes full steps from the first on.
    """
    square.mul_(config.decay).addcmul_(gradient, gradient, value=1 - config.decay)
    value.addcdiv_(gradient, (square + config.epsilon).sqrt_(), value=rate)
