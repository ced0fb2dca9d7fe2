"""A small convolutional network with random weights that is never trained: what architecture alone sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


def kernels(channels: Sequence[int], seed: int) -> list[Tensor]:
    """Weights of layers that go from `channels[i]` to `channels[i + 1]`, (out, in, 4, 4) each, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, a, 4, 4, generator=generator) * math.sqrt(2 / (16 * a)) for a, b in pairwise(channels)]


@torch.no_grad()
def layers(x: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """What every layer makes of images (N, C, H, W): (N, channels, H/2, W/2), (N, channels, H/4, W/4), ..."""
    found = []
    for weight in weights:
        # Statistics of the image itself: those of a batch would make its features depend on its company.
        x = F.leaky_relu(F.group_norm(F.conv2d(x, weight, stride=2, padding=1), 1), 0.2)
        found.append(x)
    return found
