"""The meta-node contrast of PamC (arXiv 2209.14067)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphclust.losses.pairs import Pairs, positive_sum


def meta_node_contrast(z: Tensor, pairs: Pairs, labels: Tensor, n_clusters: int, tau: float) -> Tensor:
    """L_PamC = -mean_i log(pos_i + 1e-10) + mean_c log(neg_c + 1e-10) (PamC eq. 7 to 10), in O(nnz d + K^2 d).

    pos_i = sum_{j in nz(Gamma_i)} Gamma_ij exp(tau cos(z_i, z_j)) with cos_ii := 0; the meta node of cluster c is the
    sum M_c = sum_{i: c_i = c} z_i over the anchors; neg_c = sum_c' exp(tau cos(M_c, M_c')) with cos_cc := 0. The
    negative part is the mean over the clusters, whatever their sizes.

    Deviations from the public code, for safety: lengths are bounded below by 1e-12, so that a zero meta node has
    cosine 0 instead of NaN; empty clusters take no part, and K does not shrink when the last one is empty.

    Parameters
    ----------
    z : (m, d), the embedding of a block of nodes, anchors first
    pairs : Gamma, (a, m)
    labels : (a,) int, the cluster of each anchor, argmax_j q_ij; no gradient flows through it
    n_clusters : K
    tau : inverse temperature

    Returns
    -------
    scalar
    """
    positive = torch.log(positive_sum(F.normalize(z, dim=1), pairs, tau) + 1e-10).mean()
    meta = z.new_zeros(n_clusters, z.shape[1]).index_add(0, labels, z[: len(labels)])
    unit = F.normalize(meta[torch.bincount(labels, minlength=n_clusters) > 0], dim=1)
    cos = unit @ unit.T
    cos = cos - torch.diag(cos.diagonal())
    negative = torch.log(torch.exp(tau * cos).sum(1) + 1e-10).mean()
    return negative - positive
