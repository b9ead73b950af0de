"""SCGC*: contrast of each node's influence neighbourhood against all nodes, encoder only."""

from __future__ import annotations

from torch import Tensor

from graphclust.losses import Pairs, neighbour_contrast
from graphclust.methods._contrastive import ContrastiveClusterer


class SCGCStar(ContrastiveClusterer):
    """SCGC* (Kulatilleke, Portmann & Chandra, arXiv 2204.12656, section 4.4).

    L = beta KL(P || Q) + alpha L_IAC, where L_IAC is the neighbour contrast with the cumulative influence
    P + ... + P^r: :func:`graphclust.losses.neighbour_contrast`. After the pre-training only the encoder is used. The
    sum over all pairs in the denominator is exact up to 20,000 nodes and takes O(n^2) time in linear memory; above,
    and in mini-batches, a uniform sample of nodes stands for all, scaled without bias.

    Parameters
    ----------
    n_clusters, epochs, alpha, beta, tau, order, ...
        Those of :class:`graphclust.methods._contrastive.ContrastiveClusterer`, where each is explained.
    """

    name = "scgc_star"
    summary = "auto-encoder + contrast of the influence neighbourhood against all nodes + KL; encoder only"
    source = "Kulatilleke, Portmann & Chandra 2022, arXiv 2204.12656"
    _alpha = 0.1

    def _contrast(self, z: Tensor, pairs: Pairs, labels: Tensor, columns: Tensor | None, population: int) -> Tensor:
        return neighbour_contrast(z, pairs, self.tau, columns=columns, population=population)
