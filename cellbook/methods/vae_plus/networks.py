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
    """Batch norm whose moments come from the first batches that it is given and normalise all of them.

    Running moments are 0.9 old + 0.1 new with the biased variance (torch's own layer keeps the unbiased one). Gradients
    flow through the moments, so also from the other batches into the first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, *x: Tensor, first: int = 1, sign: Tensor | None = None) -> list[Tensor]:
        """Normalise batches, (B, C, H, W) each; in training by the moments of the `first` of them together.

        With the `sign` of the weights, (C,), batches are those signs times what is to be normalised, and come out as
        the largest of two by two values, (B, C, H / 2, W / 2). Normalising keeps their order, so that only a quarter
        of the values has to be.
        """
        pool, sign = sign is not None, torch.ones_like(self.weight) if sign is None else sign
        weight = self.weight * sign
        if not self.training:
            x = tuple(F.max_pool2d(part, 2) for part in x) if pool else x
            moments = self.running_mean * sign, self.running_var
            return [F.batch_norm(part, *moments, weight, self.bias, eps=EPSILON) for part in x]
        *y, mean, var = _Normalise.apply(weight, self.bias, first, pool, *x)
        with torch.no_grad():
            self.running_mean.lerp_(mean * sign, 0.1)
            self.running_var.lerp_(var, 0.1)
        return y


class Layer(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(self, c_in: int, c_out: int, size: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, size, bias=False)
        self.norm = BatchNorm(c_out)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / (size * size * c_in + c_out)))

    def forward(self, *x: Tensor, first: int = 1, pool: bool = False) -> list[Tensor]:
        """Batches (B, c_in, H, W) -> (B, c_out, H', W'), or half of H' and W'; see `BatchNorm` for `first`."""
        kernel, sign = self.conv.weight, None
        if pool:
            sign = torch.where(self.norm.weight.detach() < 0, -1.0, 1.0).to(kernel.dtype)
            kernel = kernel * sign[:, None, None, None]
        missing = -kernel.shape[1] % 8
        if missing and kernel.is_cuda:  # matrix units take channels by eights: with 3 of them they stand still
            kernel, *x = (F.pad(part, (0, 0, 0, 0, 0, missing)) for part in (kernel, *x))  # type: ignore[assignment]
        return self.norm(*(F.conv2d(part, kernel) for part in x), first=first, sign=sign)


class Widening(Layer):
    """Layer behind an image doubled in size: every pixel four times, and 4 pixels of zeros around.

    A kernel of 5 x 5 meets only 3 x 3 different pixels there. Which of its weights share one depends on whether row and
    column of the result are even: four kernels of 3 x 3 on the small image need a third of the operations.
    """

    def forward(self, *x: Tensor, first: int = 1) -> list[Tensor]:  # type: ignore[override]
        """Batches (B, c_in, H, H) -> (B, c_out, M, 4) with M = (H + 2)^2: see `interleave`."""
        kernel = _parities(_parities(self.conv.weight, -1), -2).flatten(0, 2)  # (2, 2, c_out, c_in, 3, 3) -> (4 c_out,)
        found = []
        for part in x:
            y = F.conv2d(F.pad(part, (2, 2, 2, 2)), kernel).permute(0, 2, 3, 1)  # (B, H + 2, H + 2, 4 c_out)
            found.append(y.reshape(len(y), -1, 4, y.shape[-1] // 4).permute(0, 3, 1, 2))
        return self.norm(*found, first=first)


def interleave(x: Tensor) -> Tensor:
    """Image of its pixels at even and odd rows and columns, (B, c, M, 4) -> (B, c, 2 sqrt(M), 2 sqrt(M))."""
    side = math.isqrt(x.shape[2])
    pixels = x.unflatten(3, (2, 2)).unflatten(2, (side, side))  # (B, c, H, W, 2, 2)
    return pixels.permute(0, 2, 4, 3, 5, 1).reshape(len(x), 2 * side, 2 * side, -1).permute(0, 3, 1, 2)


def activate(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.01, in place."""
    return F.leaky_relu(x, SLOPE, inplace=True)


class Encoder(nn.Module):
    """Image -> mean and log variance of its code; 464,416 parameters."""

    def __init__(self, channels: int = 3, latent: int = 256, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(channels, width), Layer(width, width), Layer(width, width)])
        self.code = Layer(width, 2 * latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, c, 68, 68) -> mu and logvar, (B, 256) each."""
        for layer in self.layers:
            (x,) = map(activate, layer(x, pool=True))  # (B, w, 32, 32), (B, w, 14, 14), (B, w, 5, 5)
        (x,) = self.code(x)  # (B, 512, 1, 1)
        mu, logvar = x.flatten(1).float().chunk(2, dim=1)  # (B, 512) -> (B, 256) twice
        return mu, logvar


class Decoder(nn.Module):
    """Code -> image; 281,856 parameters and 102 of the output layer.

    The image is not squashed: values slightly below 0 or above 1 are possible; clip it to show it.
    """

    def __init__(self, channels: int = 3, latent: int = 256, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(latent, width), *(Widening(width, width) for _ in range(3))])
        self.output = Layer(width, channels, size=1)

    def forward(self, *z: Tensor) -> list[Tensor]:
        """Batches (B, 256) -> (B, c, 68, 68) float32; moments of the first batch."""
        start, *layers, last = self.layers
        # A convolution of one pixel with 4 zeros around, (B, 256, 9, 9) -> (B, w, 5, 5), is a product of matrices.
        kernel = start.conv.weight.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2)  # (25 w, 256)
        x = [F.linear(part, kernel).view(len(part), 5, 5, -1).permute(0, 3, 1, 2) for part in z]
        x = list(map(activate, start.norm(*x)))  # (B, w, 5, 5), to be doubled like all that follow
        for layer in layers:
            x = [interleave(activate(part)) for part in layer(*x)]  # (B, w, 14, 14), (B, w, 32, 32)
        x = list(map(activate, last(*x)))  # (B, w, 34 * 34, 4)
        kernel = self.output.conv.weight.flatten(1)  # (c, w): as wide as one pixel
        if kernel.is_cuda:  # there pixels by channels: moments of 3 long rows are work for 3 of its many processors
            flat = [(part.permute(0, 2, 3, 1).flatten(0, 2) @ kernel.T).T for part in x]
        else:
            flat = [kernel @ part.transpose(0, 1).flatten(1) for part in x]  # (c, B * 34 * 34 * 4)
        y = self.output.norm(*(part[None, :, :, None] for part in flat))  # (1, c, B * 34 * 34 * 4, 1)
        images = (activate(made).reshape(-1, len(part), *part.shape[2:]) for made, part in zip(y, x, strict=True))
        return [interleave(image.transpose(0, 1)).float() for image in images]  # (B, c, 68, 68)


class Discriminator(nn.Module):
    """Image -> features of four hidden layers and the logit of being real; 105,186 parameters."""

    def __init__(self, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(channels, width), Layer(width, width), Layer(width, width)])
        self.top = Layer(width, 2 * width)
        self.logit = Layer(2 * width, 1, size=1)

    def forward(self, *x: Tensor, first: int = 1) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Batches (B, c, 68, 68) -> D_1 to D_4 of each and their logits (B,); moments of the `first` batches together.

        Also returned is a list for each layer, see comments, with a tensor for each batch.
        """
        sizes = [len(part) for part in x[:first]]
        x = [activate(part) for part in self.layers[0](*x, first=first, pool=True)]
        hidden = [x]  # (B, w, 32, 32)
        x = [torch.cat(x[:first]), *x[first:]]  # from here on small enough to be one batch
        for layer in (*self.layers[1:], self.top):
            x = [activate(part) for part in layer(*x, pool=layer is not self.top)]
            hidden.append([*x[0].split(sizes), *x[1:]])  # (B, w, 14, 14), (B, w, 5, 5), (B, 2 w, 1, 1)
        logits = [part.flatten().float() for part in self.logit(*x)]  # (B, 1, 1, 1) -> (B,)
        return hidden, [*logits[0].split(sizes), *logits[1:]]


def kernels(network: nn.Module) -> list[Tensor]:
    """Weights of the convolutions: what decays. Scale and offset of batch norm do not."""
    return [layer.conv.weight for layer in network.modules() if isinstance(layer, Layer)]


def _parities(kernel: Tensor, dim: int) -> Tensor:
    """Weights of three doubled pixels under five neighbours, for an even and an odd place: (..., 5) -> (2, ..., 3)."""
    a, b, c, d, e = kernel.unbind(dim)
    return torch.stack([torch.stack([a + b, c + d, e], dim), torch.stack([a, b + c, d + e], dim)])


class _Normalise(torch.autograd.Function):
    """Normalise batches by the moments of the first, with torch's fused kernels; also returns mean and variance.

    Plain operations would do, but their passes over the first layers took a quarter of a step.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, bias: Tensor, first: int, pool: bool, *x: Tensor) -> tuple[Tensor, ...]:
        counts = [part.numel() // len(weight) for part in x[:first]]
        unused = torch.zeros_like(weight), torch.zeros_like(weight)  # running moments: float32, so are the others then
        means, variances = zip(*(torch.batch_norm_update_stats(part, *unused, 0.0) for part in x[:first]), strict=True)
        shares = [count / sum(counts) for count in counts]
        mean = sum(share * own for share, own in zip(shares, means, strict=True))
        var = sum(s * (v + (m - mean).square()) for s, m, v in zip(shares, means, variances, strict=True))
        kept = [F.max_pool2d(part, 2, return_indices=True) if pool else (part, part) for part in x]
        y = [F.batch_norm(own, mean, var, weight, bias, eps=EPSILON) for own, _ in kept]
        ctx.save_for_backward(weight, mean, var, *x, *(own for own, _ in kept), *(place for _, place in kept))
        ctx.first, ctx.pool, ctx.count = first, pool, sum(counts)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(mean, var)
        return *y, mean, var

    @staticmethod
    def backward(ctx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, mean, var, *saved = ctx.saved_tensors
        n = len(saved) // 3
        x, kept, places = saved[:n], saved[n : 2 * n], saved[2 * n :]
        dx: list[Tensor | None] = [None] * n
        dweight, dbias, none = torch.zeros_like(mean), torch.zeros_like(mean), mean.new_empty(0)
        for i, grad in enumerate(grads[:n]):
            if grad is not None:  # a batch of which nothing is asked costs nothing
                dx[i], dw, db = torch.ops.aten.native_batch_norm_backward(
                    grad, kept[i], weight, mean, var, none, none, False, EPSILON, [True, True, True]
                )
                dweight, dbias = dweight + dw, dbias + db
                if ctx.pool:
                    dx[i] = torch.ops.aten.max_pool2d_with_indices_backward(
                        dx[i], x[i], [2, 2], [2, 2], [0, 0], [1, 1], False, places[i]
                    )
        # What all batches ask of the moments is linear in the values of the first.
        share = weight / ((var + EPSILON).sqrt() * ctx.count)
        for i in range(ctx.first):
            asked = F.batch_norm(x[i], mean, var, share * dweight, share * dbias, eps=EPSILON)
            dx[i] = asked.neg_() if dx[i] is None else dx[i].sub_(asked)
        return dweight, dbias, None, None, *dx
