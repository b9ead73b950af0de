"""SCGC: neighbour contrast, reconstruction and self-training."""

from __future__ import annotations

from torch import Tensor

from graphclust.losses import Pairs, neighbour_contrast
from graphclust.methods._contrastive import ContrastiveClusterer


class SCGC(ContrastiveClusterer):
    """Self-supervised contrastive graph clustering (Kulatilleke, Portmann & Chandra, arXiv 2204.12656, eq. 11).

    L = MSE(x_hat, x) + beta KL(P || Q) + alpha L_NC, with the neighbour contrast over Gamma = P^r:
    :func:`graphclust.losses.neighbour_contrast`; the sum over all pairs as in ``scgc_star``.

    Parameters
    ----------
    n_clusters, epochs, alpha, beta, tau, order, ...
        Those of :class:`graphclust.methods._contrastive.ContrastiveClusterer`, where each is explained.
    """

    name = "scgc"
    summary = "auto-encoder + contrast of r-step neighbours against all nodes + KL + reconstruction"
    source = "Kulatilleke, Portmann & Chandra 2022, arXiv 2204.12656"
    _reconstructs = True
    _influence = "power"
    _alpha = 0.1

    def _contrast(self, z: Tensor, pairs: Pairs, labels: Tensor, columns: Tensor | None, population: int) -> Tensor:
        return neighbour_contrast(z, pairs, self.tau, columns=columns, population=population)
