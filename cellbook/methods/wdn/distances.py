"""Distances between minibatches that need no critic, for the comparison the authors suggest."""

from __future__ import annotations

import torch
from torch import Tensor

from cellbook.errors import CellbookError


def energy(views: Tensor, sides: Tensor, *, relative: bool = False) -> Tensor:
    """Energy distance 2 E|x - y| - E|x - x'| - E|y - y'| of pairs of samples, (P,); 0 for equal distributions.

    Unbiased: a row is not compared with itself, so that the estimate may be negative. In one dimension it is twice the
    squared Cramer distance.

    Parameters
    ----------
    views : (V, B, n)
    sides : (2, P), the views of each pair
    relative : bool
        Divide by 2 E|x - y|, as Szekely and Rizzo do: 1 at most, and the same at any scale, so that nothing is won by
        shrinking.
    """
    batch = views.shape[1]
    own = torch.cdist(views, views).sum(dim=(1, 2)) / (batch * (batch - 1))  # (V,)
    across = torch.cdist(views[sides[0]], views[sides[1]]).mean(dim=(1, 2))
    distance = 2 * across - own[sides[0]] - own[sides[1]]
    return distance / (2 * across) if relative else distance


def sinkhorn(views: Tensor, sides: Tensor, blur: float) -> Tensor:
    """Sinkhorn divergence of pairs of samples with Euclidean cost, (P,), by POT.

    The transport cost of the entropic plan, less half of that of each sample with itself: without this equal
    distributions would be pulled towards a point. The gradient holds the plans fixed.

    Parameters
    ----------
    views : (V, B, n)
    sides : (2, P), the views of each pair
    blur : float
        Regularisation in units of the mean cost between the samples of each pair, pooled over pairs.
    """
    try:
        from ot.batch import solve_batch
    except ImportError as error:
        raise CellbookError("distance='sinkhorn' needs POT 0.9.6 or newer: install the package POT") from error

    count = len(views)
    own = torch.arange(count, device=views.device)
    cost = torch.cdist(torch.cat([views[sides[0]], views[own]]), torch.cat([views[sides[1]], views[own]]))
    with torch.no_grad():
        scale = cost[: sides.shape[1]].mean()
        plan = solve_batch(cost.detach() / scale, reg=blur, max_iter=200, tol=1e-4, grad="detach").plan
    found = (plan * cost).sum(dim=(1, 2))
    across, within = found[: sides.shape[1]], found[sides.shape[1] :]
    return across - (within[sides[0]] + within[sides[1]]) / 2
