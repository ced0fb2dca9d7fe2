"""The maps, one a domain, that start from the identity: affine, or with a non-linear branch that starts at zero."""

from __future__ import annotations

import torch
from torch import Tensor

from cellbook.methods.wdn.config import Config

Maps = dict[str, Tensor]  # name -> (D, ...); a stack of checkpoints has one more axis in front


def identity(domains: int, n: int, config: Config, device: torch.device, dtype: torch.dtype = torch.float32) -> Maps:
    """Maps that change nothing: M (D, n, n) and b (D, n), and with `residual` units V tanh(U x + a), V = 0."""
    made = {
        "M": torch.eye(n, device=device, dtype=dtype).repeat(domains, 1, 1),
        "b": torch.zeros(domains, n, device=device, dtype=dtype),
    }
    if config.residual:
        generator = torch.Generator().manual_seed(config.seed)
        u = torch.randn(n, config.residual, generator=generator, dtype=torch.float64) / n**0.5
        made["U"] = u.to(device, dtype).repeat(domains, 1, 1)
        made["a"] = torch.zeros(domains, config.residual, device=device, dtype=dtype)
        made["V"] = torch.zeros(domains, config.residual, n, device=device, dtype=dtype)
    return made


def apply(maps: Maps, x: Tensor, *, bug_bias: bool = False) -> Tensor:
    """Map rows x (D, B, n), one set a map: x M + b, plus tanh(x U + a) V if there is such a branch.

    With `bug_bias` the bias is added to every row of M instead, x (M + 1 b'), as the published code trains.
    """
    m, b = maps["M"], maps["b"]
    y = torch.bmm(x, m + b[:, None, :]) if bug_bias else torch.baddbmm(b[:, None, :], x, m)
    if "V" in maps:
        y = y + torch.bmm(torch.tanh(torch.baddbmm(maps["a"][:, None, :], x, maps["U"])), maps["V"])
    return y


def regulariser(maps: Maps, config: Config) -> Tensor:
    """R, the mean over domains of lambda_mean |b|^2 + lambda_cov |M - I|^2 / n."""
    n = maps["b"].shape[1]
    away = maps["M"] - torch.eye(n, device=maps["M"].device, dtype=maps["M"].dtype)
    each = config.lambda_mean * maps["b"].square().sum(dim=1)
    each = each + config.lambda_cov * away.square().sum(dim=(1, 2)) / n
    return each.mean()
