"""The neighbour contrast of Graph-MLP and SCGC, and with cumulative influence the IAC loss of SCGC*."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphclust.losses.pairs import Pairs, positive_sum

# Values of one block of rows of the (n, n) similarity: 1 MB of float32, which stays in the cache.
BLOCK = 2**18


def neighbour_contrast(
    z: Tensor, pairs: Pairs, tau: float, *, columns: Tensor | None = None, population: int | None = None
) -> Tensor:
    """L_NC = mean_i -log( sum_j Gamma_ij e_ij / sum_j e_ij + 1e-8 ), e_ij = exp(tau cos(z_i, z_j)), cos_ii := 0.

    SCGC eq. 5 (arXiv 2204.12656; Graph-MLP, arXiv 2106.04051, eq. 5) with Gamma = P^r; with the cumulative influence
    Gamma = P + ... + P^r it is the influence augmented contrast of SCGC* (eq. 8). The numerator is summed over the
    stored entries of Gamma alone. The denominator runs over all j, i and the positives included; it and its gradient
    are computed together in blocks of rows, so that memory is O(n d + nnz).

    With ``columns`` the denominator is estimated from a sample J of the nodes:
    e_ii + (n - 1) / |J \\ {i}| sum_{j in J \\ {i}} e_ij, which is unbiased for a uniform J (its logarithm is not).

    Parameters
    ----------
    z : (m, d), the embedding of a block of nodes, anchors first
    pairs : Gamma, (a, m): anchors by block
    tau : inverse temperature
    columns : (s,) int, ids in the block of the sample J; None: all m nodes
    population : n, the number of nodes that J stands for; None: m

    Returns
    -------
    scalar
    """
    unit = F.normalize(z, dim=1)
    if columns is None:
        columns = torch.arange(len(z), device=z.device)
    anchors = torch.arange(pairs.shape[0], device=z.device)
    sampled = len(columns) - torch.isin(anchors, columns).to(z.dtype)
    factor = ((population or len(z)) - 1) / sampled.clamp_min(1)
    return _LogRatio.apply(unit, positive_sum(unit, pairs, tau), columns, factor, tau)


class _LogRatio(torch.autograd.Function):
    """mean_i -log(pos_i / D_i + 1e-8) with D_i = 1 + factor_i sum_{j in columns, j != i} exp(tau <u_i, u_j>).

    pos_i is known before its row of exp(tau <u_i, u_j>) is, so that the row's share of the gradient is added while the
    row is at hand: nothing is kept or computed again for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, positive: Tensor, columns: Tensor, factor: Tensor, tau: float) -> Tensor:
        n = len(positive)
        others = unit[columns]
        position = torch.full((len(unit),), -1, dtype=torch.long, device=unit.device)
        position[columns] = torch.arange(len(columns), device=unit.device)
        ratio, grad_positive = torch.empty_like(positive), torch.empty_like(positive)
        grad, grad_others = torch.zeros_like(unit), torch.zeros_like(others)
        for rows in torch.arange(n, device=unit.device).split(max(1, BLOCK // len(columns))):
            e = torch.exp_((tau * unit[rows]) @ others.T)
            drawn = torch.nonzero(position[rows] >= 0).ravel()
            e[drawn, position[rows[drawn]]] = 0
            # exp(tau cos_ii) = 1 is added once, whether i was drawn or not
            d = 1 + factor[rows] * e.sum(1)
            ratio[rows] = positive[rows] / d
            grad_positive[rows] = -1 / (n * d * (ratio[rows] + 1e-8))
            weight = (-grad_positive[rows] * ratio[rows] * factor[rows] * tau)[:, None]
            grad[rows] += weight * (e @ others)
            grad_others += e.T @ (weight * unit[rows])
        ctx.save_for_backward(grad.index_add_(0, columns, grad_others), grad_positive)
        return -torch.log(ratio + 1e-8).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        unit, positive = ctx.saved_tensors
        return grad * unit, grad * positive, None, None, None
