"""The networks of Caicedo et al. (2018): a ResNet-18, what classifies its features, and a GRU over sets of cells.

Sizes in comments are those of the paper for crops of 96 x 96 pixels: c = 3 channels, w = 64, K = 103 classes. They are
built as by keras-resnet 0.0.8, which differs from torchvision: the first block of every stage has a shortcut with a
convolution and batch norm, also where nothing changes its size; images are padded as by TensorFlow; batch norm has
Keras' momentum and epsilon. Its convolutions also had biases, which the batch norm behind each of them takes out again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellbook.features import transferred
from cellbook.methods.weakly_supervised.config import STAGES

EPSILON = 1e-3  # of batch norm


class Convolution(nn.Conv2d):
    """Convolution without bias and with TensorFlow's "same" padding, of which the odd pixel lies right and below."""

    def __init__(self, c_in: int, c_out: int, size: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, size, stride, padding=size // 2 if stride == 1 else 0, bias=False)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H / stride, W / stride), rounded up."""
        return super().forward(x if self.stride[0] == 1 else same(x, self.kernel_size[0], self.stride[0]))


def same(x: Tensor, size: int, stride: int) -> Tensor:
    """Images with as many zeros around as a window of `size` pixels needs to come out at ceil(side / stride)."""
    padding = []
    for side in x.shape[:1:-1]:  # width, then height
        missing = max((math.ceil(side / stride) - 1) * stride + size - side, 0)
        padding += [missing // 2, missing - missing // 2]
    return F.pad(x, padding)


class Block(nn.Module):
    """Two convolutions of 3 x 3, each with batch norm, and a shortcut; a `first` block's has a convolution too."""

    def __init__(self, c_in: int, c_out: int, stride: int, first: bool, momentum: float) -> None:
        super().__init__()
        self.branch2a = nn.Sequential(Convolution(c_in, c_out, 3, stride), norm(c_out, momentum))
        self.branch2b = nn.Sequential(Convolution(c_out, c_out, 3), norm(c_out, momentum))
        self.branch1 = (
            nn.Sequential(Convolution(c_in, c_out, 1, stride), norm(c_out, momentum)) if first else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""
        return F.relu(self.branch2b(F.relu(self.branch2a(x))) + self.branch1(x))


class Trunk(nn.Module):
    """ResNet-18 up to its pooled features; 11,180,736 parameters."""

    def __init__(self, channels: int = 3, width: int = 64, momentum: float = 0.01) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(Convolution(channels, width, 7, 2), norm(width, momentum))
        nn.init.xavier_uniform_(self.conv1[0].weight)
        blocks, c_in = {}, width
        for name in STAGES:  # 2a to 5b
            stage, first = int(name[0]), name[1] == "a"
            c_out = width << (stage - 2)
            blocks[name] = Block(c_in, c_out, 2 if first and stage > 2 else 1, first, momentum)
            c_in = c_out
        self.blocks = nn.ModuleDict(blocks)
        self.channels, self.features = channels, c_in

    def outputs(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Images (B, c, S, S) -> name and map of each block: 24 x 24 pixels, 12 x 12, 6 x 6 ("4a": 256), 3 x 3."""
        x = F.relu(self.conv1(x))  # (B, w, 48, 48)
        x = F.max_pool2d(same(x, 3, 2), 3, 2)  # (B, w, 24, 24); no value is below the zeros around
        for name, block in self.blocks.items():
            x = block(x)
            yield name, x

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, S, S) -> pool5, (B, 512) float32."""
        for _, last in self.outputs(x):
            x = last
        return pooled(x)


class Classifier(nn.Module):
    """Features -> logits; at submission through an embedding of 256, with batch norm and dropout."""

    def __init__(self, features: int, classes: int, embedding: int | None, dropout: float, momentum: float) -> None:
        super().__init__()
        self.embed = nn.Linear(features, embedding, bias=False) if embedding else nn.Identity()
        self.between = (
            nn.Sequential(norm(embedding, momentum, nn.BatchNorm1d), nn.Dropout(dropout))
            if embedding
            else nn.Identity()
        )
        self.dense = dense(embedding or features, classes)
        if embedding:
            nn.init.xavier_uniform_(self.embed.weight)

    def forward(self, pool: Tensor) -> Tensor:
        """(B, 512) -> (B, K)."""
        return self.dense(self.between(self.embed(pool)))


class SetClassifier(nn.Module):
    """Features of the cells of a set, one after another -> logits of the set: a GRU's last output, then a dense layer.

    The GRU is that of Keras at the time (590,592 parameters): its gates are piecewise linear, the reset gate works
    before the product with the recurrent weights, and it has one bias. Torch's own is another function.
    """

    def __init__(self, features: int, classes: int, units: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * units, features)))  # update, reset, new
        self.recurrent = nn.Parameter(nn.init.orthogonal_(torch.empty(3 * units, units)))
        self.bias = nn.Parameter(torch.zeros(3 * units))
        self.dense = dense(units, classes)

    def state(self, pool: Tensor) -> Tensor:
        """(T, B, 512) -> (B, 256)."""
        gates, new = self.recurrent.split([2 * self.recurrent.shape[1], self.recurrent.shape[1]])
        h = pool.new_zeros(pool.shape[1], self.recurrent.shape[1])
        for z, r, candidate in (part.chunk(3, dim=1) for part in F.linear(pool, self.kernel, self.bias)):
            u_z, u_r = F.linear(h, gates).chunk(2, dim=1)
            z, r = hard_sigmoid(z + u_z), hard_sigmoid(r + u_r)
            h = z * h + (1 - z) * torch.tanh(candidate + F.linear(r * h, new))
        return h

    def forward(self, pool: Tensor) -> Tensor:
        """(T, B, 512) -> (B, K)."""
        return self.dense(self.state(pool))


class PooledClassifier(nn.Module):
    """Features of the cells of a set -> logits of the set, whatever their order: a dense layer of their mean."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.dense = dense(features, classes)

    def forward(self, pool: Tensor) -> Tensor:
        """(T, B, 512) -> (B, K)."""
        return self.dense(pool.mean(dim=0))


class AttentionClassifier(nn.Module):
    """Features of the cells of a set -> logits of the set, whatever their order: a dense layer of a weighted mean.

    How much a cell counts is a softmax over the set of w' tanh(V h), as Ilse, Tomczak and Welling (2018) pool bags.
    """

    def __init__(self, features: int, classes: int, units: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(features, units, bias=False), nn.Tanh(), nn.Linear(units, 1, bias=False))
        self.dense = dense(features, classes)

    def forward(self, pool: Tensor) -> Tensor:
        """(T, B, 512) -> (B, K)."""
        return self.dense((self.score(pool).softmax(dim=0) * pool).sum(dim=0))


class PretrainedTrunk(nn.Module):
    """EfficientNet-Lite0 up to its pooled features, as photographs have taught it; all of its 3.35 M weights learn.

    Its batch norms are folded into its convolutions. Channels of a cell take the place of red, green and blue alike.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        folded = transferred.layers(channels)
        self.weights = nn.ParameterList(weight.clone() for weight, _ in folded)
        self.biases = nn.ParameterList(bias.clone() for _, bias in folded)
        self.channels, self.features = channels, transferred.WIDTH

    def outputs(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Images (B, c, S, S) from -1 to 1 -> name and map of the only layer, 5 x 5 pixels; they are enlarged first."""
        x = F.interpolate(x, size=2 * (transferred.SIDE,), mode="bilinear", align_corners=False)
        yield "pool", transferred.last_map(x, list(zip(self.weights, self.biases, strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, S, S) -> (B, 1280) float32."""
        return pooled(next(self.outputs(x))[1])


def pooled(x: Tensor) -> Tensor:
    """Mean over the pixels of a map, (B, d, H, W) -> (B, d) float32."""
    return x.mean(dim=(2, 3), dtype=torch.float32)


def hard_sigmoid(x: Tensor) -> Tensor:
    """Keras' gates: 0 below -2.5, 1 above 2.5, a line between."""
    return (0.2 * x + 0.5).clamp(0, 1)


def norm(
    channels: int, momentum: float, kind: type[nn.BatchNorm2d] | type[nn.BatchNorm1d] = nn.BatchNorm2d
) -> nn.Module:
    """Batch norm with Keras' epsilon."""
    return kind(channels, eps=EPSILON, momentum=momentum)


def dense(features: int, classes: int) -> nn.Linear:
    """Dense layer as Keras starts it."""
    layer = nn.Linear(features, classes)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
