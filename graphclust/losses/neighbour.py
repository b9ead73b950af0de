"""The neighbour contrast of Graph-MLP and SCGC, and with cumulative influence the IAC loss of SCGC*."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphclust.losses.pairs import Pairs, positive_sum

# Values of one block of rows of the (n, n) similarity: 2 MB of float32, so that few calls each do much.
BLOCK = 2**19


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


def neighbour_contrast_of_nodes(z: Tensor, gamma: Tensor, tau: float) -> Tensor:
    """The terms of :func:`neighbour_contrast`, l_i = -log( sum_j Gamma_ij e_ij / sum_j e_ij + 1e-8 ), one a node.

    Dense and of plain tensor operations: for small graphs, under the transforms of torch.func and with weights on the
    nodes. A node whose row of Gamma is zero is padding: it is no j of any sum.

    Parameters
    ----------
    z : (n, d), the embedding
    gamma : Gamma, (n, n), dense; a node has influence on itself
    tau : inverse temperature

    Returns
    -------
    (n,)
    """
    unit = F.normalize(z, dim=1)
    cosine = (unit @ unit.T).masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), 0)
    e = torch.exp(tau * cosine)
    real = (gamma.sum(1) > 0).to(e.dtype)
    return -torch.log((gamma * e).sum(1) / (e @ real) + 1e-8)


class _LogRatio(torch.autograd.Function):
    """mean_i -log(pos_i / D_i + 1e-8) with D_i = 1 + factor_i sum_{j in columns, j != i} exp(tau <u_i, u_j>).

    pos_i is known before its row of exp(tau <u_i, u_j>) is, so that the row's share of the gradient is added while the
    row is at hand: nothing is kept or computed again for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, positive: Tensor, columns: Tensor, factor: Tensor, tau: float) -> Tensor:
        n = len(positive)
        anchors, others = unit[:n], unit[columns]
        drawn = torch.isin(torch.arange(n, device=unit.device), columns)
        # e_ii, which the blocks hold where i was drawn: taken off again, exp(tau cos_ii) = 1 is added once for every i
        own = torch.exp(tau * (anchors * anchors).sum(1)) * drawn
        # with a column of ones the product that the gradient needs also gives the row sums
        extended = torch.cat((others, others.new_ones(len(others), 1)), 1)
        scaled, grad_others = tau * anchors, torch.zeros_like(others)
        found = []
        step = max(1, BLOCK // len(columns))
        for u, v, pos, f, e_ii in zip(*(t.split(step) for t in (anchors, scaled, positive, factor, own)), strict=True):
            e = torch.exp_(v @ others.T)
            sums = e @ extended
            d = 1 + f * (sums[:, -1] - e_ii)
            ratio = pos / d
            grad_positive = -1 / (n * d * (ratio + 1e-8))
            weight = -grad_positive * ratio * f * tau
            found.append((ratio, grad_positive, weight, weight[:, None] * sums[:, :-1]))
            grad_others += e.T @ (weight[:, None] * u)
        ratio, grad_positive, weight, grad_anchors = map(torch.cat, zip(*found, strict=True))
        grad = torch.zeros_like(unit)
        grad[:n] = grad_anchors
        grad.index_add_(0, columns, grad_others)
        grad[:n] -= (2 * weight * own)[:, None] * anchors
        ctx.save_for_backward(grad, grad_positive)
        return -torch.log(ratio + 1e-8).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        unit, positive = ctx.saved_tensors
        return grad * unit, grad * positive, None, None, None
