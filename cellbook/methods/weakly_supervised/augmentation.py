"""What a network sees of a crop: its grey values scaled, and in training shifted, flipped and turned at random."""

from __future__ import annotations

import torch
from torch import Tensor

from cellbook.pixels import channel_max


def scaled(crops: Tensor, scale: str) -> Tensor:
    """Crops (..., c, S, S) in [0, 1], each channel by its own maximum, or "signed" in [-1, 1]; see `ranged`."""
    return ranged(channel_max(crops), scale)


def ranged(x: Tensor, scale: str) -> Tensor:
    """Grey values of [0, 1], or "signed" of [-1, 1]: background -1, which an empty channel is throughout."""
    return 2 * x - 1 if scale == "signed" else x


def augment(x: Tensor, shift: float, turns: bool) -> Tensor:
    """Shift, flip and turn each crop on its own, (B, c, S, S), by torch's default generator; background is 0.

    In the order of the published code: a translation by 0 to floor(shift * S) - 1 pixels to either side, in rows and
    in columns; left and right changed with probability 1/2; k quarter turns, k uniform in 0 to 3.
    """
    n, device = len(x), x.device
    reach = max(1, int(shift * x.shape[-1]))
    sign = 2 * torch.randint(2, (2, n), device=device) - 1
    offset = sign * torch.randint(reach, (2, n), device=device)
    flip = torch.randint(2 if turns else 1, (n,), device=device)
    return moved(x, offset, flip, torch.randint(4 if turns else 1, (n,), device=device))


def moved(x: Tensor, offset: Tensor, flip: Tensor, k: Tensor) -> Tensor:
    """Crops (B, c, S, S) shifted down and right by `offset` (2, B), then flipped where `flip` (B,), then turned k (B,).

    Turns are counter-clockwise; what is shifted in is 0. Every pixel is fetched from where it comes from: no value is
    interpolated, and shapes do not depend on the draws.
    """
    side = x.shape[-1]
    i, j = torch.meshgrid(*2 * [torch.arange(side, device=x.device)], indexing="ij")  # of the result
    flip, k = flip[:, None, None], k[:, None, None]
    # Where a pixel was before the turn: k = 1 puts row j, column S - 1 - i at row i, column j.
    row = torch.where(k == 0, i, torch.where(k == 1, j, torch.where(k == 2, side - 1 - i, side - 1 - j)))
    column = torch.where(k == 0, j, torch.where(k == 1, side - 1 - i, torch.where(k == 2, side - 1 - j, i)))
    column = torch.where(flip > 0, side - 1 - column, column)
    row, column = row - offset[0, :, None, None], column - offset[1, :, None, None]
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    place = (row.clamp(0, side - 1) * side + column.clamp(0, side - 1)).flatten(1)  # (B, S * S)
    fetched = x.flatten(2).gather(2, place[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return fetched * inside[:, None]
