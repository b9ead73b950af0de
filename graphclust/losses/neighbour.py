"""The neighbour contrast of Graph-MLP and SCGC, and with cumulative influence the IAC loss of SCGC*."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphclust.losses.pairs import Pairs, positive_sum

# Values of one block of rows of the (n, n) similarity: 64 MB of float32.
BLOCK = 2**24


def neighbour_contrast(
    z: Tensor, pairs: Pairs, tau: float, *, columns: Tensor | None = None, population: int | None = None
) -> Tensor:
    """L_NC = mean_i -log( sum_j Gamma_ij e_ij / sum_j e_ij + 1e-8 ), e_ij = exp(tau cos(z_i, z_j)), cos_ii := 0.

    SCGC eq. 5 (arXiv 2204.12656; Graph-MLP, arXiv 2106.04051, eq. 5) with Gamma = P^r; with the cumulative influence
    Gamma = P + ... + P^r it is the influence augmented contrast of SCGC* (eq. 8). The numerator is summed over the
    stored entries of Gamma alone. The denominator runs over all j, i and the positives included; it is computed in
    blocks of rows that the backward pass computes again, so that memory is O(n d + nnz).

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
    anchors = torch.arange(pairs.shape[0], device=z.device)
    if columns is None:
        columns = torch.arange(len(z), device=z.device)
    others = unit[columns]
    step = max(1, BLOCK // len(columns))
    sums = torch.cat([
        checkpoint(_row_sums, unit[rows], others, rows, columns, tau, use_reentrant=False)
        for rows in anchors.split(step)
    ])
    # exp(tau cos_ii) = 1 is added once, whether i was drawn or not
    sampled = len(columns) - torch.isin(anchors, columns).to(z.dtype)
    denominator = 1 + sums * ((population or len(z)) - 1) / sampled.clamp_min(1)
    return -torch.log(positive_sum(unit, pairs, tau) / denominator + 1e-8).mean()


def _row_sums(unit: Tensor, others: Tensor, rows: Tensor, columns: Tensor, tau: float) -> Tensor:
    return torch.exp(tau * (unit @ others.T)).masked_fill(rows[:, None] == columns, 0).sum(1)
