"""Student-t soft assignment, its sharpened target and their divergence (DEC, Xie et al. 2016, arXiv 1511.06335)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_assignment(z: Tensor, centres: Tensor, bandwidth: float | Tensor = 1.0) -> Tensor:
    """q_ij = (1 + ||z_i - mu_j||^2 / s)^-1 / sum_j' (1 + ||z_i - mu_j'||^2 / s)^-1 (DEC eq. 1 with alpha = 1, s = 1).

    Parameters
    ----------
    z : (n, d)
    centres : (K, d), mu
    bandwidth : s, the squared distance at which the kernel has fallen to one half; 1 in the papers

    Returns
    -------
    q : (n, K), rows sum to 1
    """
    squared = (z * z).sum(1, keepdim=True) - 2 * z @ centres.T + (centres * centres).sum(1)
    kernel = 1 / (1 + squared.clamp_min(0) / bandwidth)
    return kernel / kernel.sum(1, keepdim=True)


def target_distribution(q: Tensor, frequencies: Tensor | None = None) -> Tensor:
    """p_ij = (q_ij^2 / f_j) / sum_j' (q_ij'^2 / f_j') with f_j = sum_i q_ij (DEC eq. 3); carries no gradient.

    Parameters
    ----------
    q : (n, K)
    frequencies : (K,), f, when ``q`` is a batch and f comes from all nodes

    Returns
    -------
    p : (n, K), rows sum to 1
    """
    q = q.detach()
    f = q.sum(0) if frequencies is None else frequencies
    weight = q * q / f.clamp_min(torch.finfo(q.dtype).tiny)
    return weight / weight.sum(1, keepdim=True)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(P || Q) = (1/n) sum_ij p_ij (log p_ij - log q_ij) (SCGC eq. 10), a scalar; 0 log 0 = 0.

    Parameters
    ----------
    p, q : (n, K), q > 0
    """
    return F.kl_div(q.log(), p, reduction="batchmean")
