"""Encoder, decoder and discriminator of Lafarge et al. (2019), for crops of 68 x 68 pixels.

Sizes in comments are those of the paper: c = 3 channels, w = 32, a code of 256. Every convolution is valid, has no
bias and is followed by batch norm, also where the code, the image and the logit come out. The channel counts are those
of the published code; the paper does not print them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 68  # pixels of a crop; 64, 32, 28, 14, 10, 5, 1 follow from it
SLOPE = 0.01
EPSILON = 1e-8


class BatchNorm(nn.Module):
    """Batch norm whose moments may come from the first images of the batch only, then normalise all of them.

    Running moments are 0.9 old + 0.1 new with the biased variance (torch's own layer keeps the unbiased one). Gradients
    flow through the moments, so also from the other images into the first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """Normalise (B, C, H, W); in training by the moments of the `first` images, or of all."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON)
        y, mean, var = _Normalise.apply(x, self.weight, self.bias, len(x) if first is None else first)
        with torch.no_grad():
            self.running_mean.lerp_(mean, 0.1)
            self.running_var.lerp_(var, 0.1)
        return y


class Layer(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(self, c_in: int, c_out: int, size: int = 5, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, size, padding=padding, bias=False)
        self.norm = BatchNorm(c_out)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / (size * size * c_in + c_out)))

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H', W'); see `BatchNorm` for `first`."""
        return self.norm(self.conv(x), first)


def activate(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.01."""
    return F.leaky_relu(x, SLOPE)


class Encoder(nn.Module):
    """Image -> mean and log variance of its code; 464,416 parameters."""

    def __init__(self, channels: int = 3, latent: int = 256, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(channels, width), Layer(width, width), Layer(width, width)])
        self.code = Layer(width, 2 * latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, c, 68, 68) -> mu and logvar, (B, 256) each."""
        for layer in self.layers:
            x = activate(F.max_pool2d(layer(x), 2))  # (B, w, 32, 32), (B, w, 14, 14), (B, w, 5, 5)
        mu, logvar = self.code(x).flatten(1).float().chunk(2, dim=1)  # (B, 512, 1, 1) -> (B, 512) -> (B, 256) twice
        return mu, logvar


class Decoder(nn.Module):
    """Code -> image; 281,856 parameters and 102 of the output layer.

    The image is not squashed: values slightly below 0 or above 1 are possible; clip it to show it.
    """

    def __init__(self, channels: int = 3, latent: int = 256, width: int = 32) -> None:
        super().__init__()
        sizes = [latent, width, width, width]
        self.layers = nn.ModuleList([Layer(size, width, padding=4) for size in sizes])
        self.output = Layer(width, channels, size=1)

    def forward(self, z: Tensor, first: int | None = None) -> Tensor:
        """(B, 256) -> (B, c, 68, 68) float32; moments of the `first` codes, or of all."""
        x = z[:, :, None, None]  # (B, 256) -> (B, 256, 1, 1)
        for layer in self.layers[:3]:
            x = activate(layer(x, first))  # (B, w, 5, 5), (B, w, 14, 14), (B, w, 32, 32)
            x = F.interpolate(x, scale_factor=2, mode="nearest")  # (B, w, 10, 10), (B, w, 28, 28), (B, w, 64, 64)
        x = activate(self.layers[3](x, first))  # (B, w, 68, 68)
        return activate(self.output(x, first)).float()  # (B, c, 68, 68)


class Discriminator(nn.Module):
    """Image -> features of four hidden layers and the logit of being real; 105,186 parameters."""

    def __init__(self, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(channels, width), Layer(width, width), Layer(width, width)])
        self.top = Layer(width, 2 * width)
        self.logit = Layer(2 * width, 1, size=1)

    def forward(self, x: Tensor, first: int | None = None) -> tuple[list[Tensor], Tensor]:
        """(B, c, 68, 68) -> D_1 to D_4, see comments, and the logit (B,); moments of the `first` images, or of all."""
        hidden = []
        for layer in self.layers:
            x = activate(F.max_pool2d(layer(x, first), 2))
            hidden.append(x)  # (B, w, 32, 32), (B, w, 14, 14), (B, w, 5, 5)
        hidden.append(activate(self.top(x, first)))  # (B, 2 w, 1, 1)
        return hidden, self.logit(hidden[3], first).flatten().float()  # (B, 1, 1, 1) -> (B,)


def kernels(network: nn.Module) -> list[Tensor]:
    """Weights of the convolutions: what decays. Scale and offset of batch norm do not."""
    return [layer.conv.weight for layer in network.modules() if isinstance(layer, Layer)]


class _Normalise(torch.autograd.Function):
    """Normalise a batch by the moments of its first images, with torch's fused kernels; also returns mean and variance.

    Plain operations would do, but their passes over the first layers took a quarter of a step.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, rate = torch.native_batch_norm(x[:first], weight, bias, None, None, True, 0.0, EPSILON)
        var = (rate**-2 - EPSILON).clamp_min(0)  # rate = 1 / sqrt(var + eps), var biased
        if first < len(x):
            y = torch.cat([y, F.batch_norm(x[first:], mean, var, weight, bias, eps=EPSILON)])
        ctx.save_for_backward(x, weight, mean, rate, var)
        ctx.first = first
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (x, weight, mean, rate, var), first = ctx.saved_tensors, ctx.first
        kernel, own, want = torch.ops.aten.native_batch_norm_backward, x[:first], [True, True, True]
        dx, dweight, dbias = kernel(grad[:first], own, weight, None, None, mean, rate, True, EPSILON, want)
        if first < len(x):
            dy, dw, db = kernel(grad[first:], x[first:], weight, mean, var, None, None, False, EPSILON, want)
            # What the other images ask of the moments, n values a channel: linear in (x - mean) of the first.
            share = weight * rate / (own.numel() // own.shape[1])
            slope, level = share * rate * dw, share * db
            dx = dx - (own * slope[:, None, None] + (level - slope * mean)[:, None, None]).to(dx.dtype)
            dx, dweight, dbias = torch.cat([dx, dy]), dweight + dw, dbias + db
        return dx, dweight, dbias, None
