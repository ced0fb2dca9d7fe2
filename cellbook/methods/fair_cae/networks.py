"""Encoder, decoder and adversary of Glastonbury, Ferlaino et al. (2018).

Sizes in comments are those of the published code: c = 3 channels, crops of 128 x 128 pixels, w = 16, a code of 2048.
There is no normalisation anywhere. Any crop will do whose sides are multiples of 16.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALVINGS = 4
SHRINK = 2**HALVINGS  # sides of the smallest image are so many times smaller than the crop's


def coordinates(height: int, width: int) -> Tensor:
    """Channels x along the width and y along the height, -1 to 1, and the distance r from the centre: (1, 3, H, W).

    The published code measures r from the point (0.5, 0.5) of this frame, off the centre.
    """
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([x, y, torch.hypot(x, y)])[None]


class Doubling(nn.Conv2d):
    """Convolution 3 x 3 without bias of an image doubled in size: every pixel four times, and zeros around.

    A kernel meets only 2 x 2 different pixels there. Which of its weights share one depends on whether row and column
    of the result are even: four kernels of 2 x 2 on the small image need four ninths of the operations.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, 2 H, 2 W)."""
        height, width = x.shape[2:]
        kernel = _parities(_parities(self.weight, -1), -2).flatten(0, 2)  # (2, 2, c_out, c_in, 2, 2) -> (4 c_out,)
        y = F.conv2d(x, kernel, padding=1).permute(0, 2, 3, 1).chunk(4, dim=3)  # (B, H + 1, W + 1, c_out) each
        rows = [
            torch.stack([y[2 * a + b][:, a : a + height, b : b + width] for b in (0, 1)], dim=3) for a in (0, 1)
        ]  # (B, H, W, 2, c_out) each
        return torch.stack(rows, dim=2).reshape(len(x), 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


class Encoder(nn.Module):
    """Image -> code; 16,952,832 parameters. Without activations (`deep`) it is one affine map of the pixels."""

    def __init__(
        self,
        channels: int = 3,
        side: tuple[int, int] = (128, 128),
        latent: int = 2048,
        width: int = 16,
        *,
        deep: bool = False,
    ) -> None:
        super().__init__()
        sizes = [channels + 3, *(width * 2**k for k in range(HALVINGS))]  # 6, 16, 32, 64, 128
        self.deep = deep
        self.register_buffer("places", coordinates(*side), persistent=False)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairwise(sizes))
        self.code = nn.Linear(sizes[-1] * side[0] * side[1] // SHRINK**2, latent)
        start(self.convs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, 128, 128) -> z (B, 2048) float32."""
        x = torch.cat([x, self.places.expand(len(x), -1, -1, -1)], dim=1)  # (B, 6, 128, 128)
        for conv in self.convs:
            x = conv(x)  # (B, 16, 64, 64), (B, 32, 32, 32), (B, 64, 16, 16), (B, 128, 8, 8)
            x = F.relu(x) if self.deep else x
        return self.code(x.flatten(1)).float()


class Decoder(nn.Module):
    """Code -> image between 0 and 1; 17,450,688 parameters.

    Negative values of the code do not come through; the adversary and the distances of codes see them all the same.
    """

    def __init__(
        self,
        channels: int = 3,
        side: tuple[int, int] = (128, 128),
        latent: int = 2048,
        width: int = 16,
        *,
        deep: bool = False,
    ) -> None:
        super().__init__()
        sizes = [8 * width, 16 * width, 8 * width, 4 * width, channels]  # 128, 256, 128, 64, 3
        self.deep = deep
        self.smallest = (sizes[0], side[0] // SHRINK, side[1] // SHRINK)
        self.code = nn.Linear(latent, sizes[0] * self.smallest[1] * self.smallest[2])
        self.convs = nn.ModuleList(Doubling(a, b) for a, b in pairwise(sizes))
        start(self.convs)

    def forward(self, z: Tensor) -> Tensor:
        """(B, 2048) -> (B, c, 128, 128) float32."""
        x = F.relu(self.code(F.relu(z))).view(-1, *self.smallest)  # (B, 128, 8, 8)
        x = x.contiguous(memory_format=torch.channels_last)
        *inner, last = self.convs
        for conv in inner:
            x = conv(x)  # (B, 256, 16, 16), (B, 128, 32, 32), (B, 64, 64, 64)
            x = F.relu(x) if self.deep else x
        return torch.sigmoid(last(x).float())


class Adversary(nn.Module):
    """Code -> what it says of the confounder: logits of the classes, or a number; 2,797,866 parameters for ten.

    Where it also sees the treatment, that is `seen` more inputs, one for each.
    """

    def __init__(
        self,
        classes: int = 10,
        latent: int = 2048,
        hidden: tuple[int, ...] = (1024, 512, 256, 128, 64, 32),
        seen: int = 0,
    ) -> None:
        super().__init__()
        sizes = [latent + seen, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.answer = nn.Linear(sizes[-1], classes)

    def forward(self, z: Tensor, treatment: Tensor, dropout: float = 0.0) -> Tensor:
        """Codes (B, 2048) and treatments (B, seen), 1 for the own one -> (B, classes)."""
        x = torch.cat([z, treatment], dim=1) if treatment.shape[1] else z
        for layer in self.layers:
            x = F.dropout(F.relu(layer(x)), dropout, training=dropout > 0)
        return self.answer(x)


def start(convs: nn.ModuleList) -> None:
    """Draw the weights of convolutions as published, Xavier-normal; linear layers keep torch's own start."""
    for conv in convs:
        nn.init.xavier_normal_(conv.weight)


def _parities(kernel: Tensor, dim: int) -> Tensor:
    """Weights of two doubled pixels under three neighbours, for an even and an odd place: (..., 3) -> (2, ..., 2)."""
    a, b, c = kernel.unbind(dim)
    return torch.stack([torch.stack([a, b + c], dim), torch.stack([a + b, c], dim)])
