"""PamC: clusters by contrasting neighbours with meta nodes instead of all other nodes."""

from __future__ import annotations

from torch import Tensor

from graphclust.losses import Pairs, meta_node_contrast
from graphclust.methods._contrastive import ContrastiveClusterer


class PamC(ContrastiveClusterer):
    """Parallel meta-node contrastive clustering (Kulatilleke, Portmann & Chandra, arXiv 2209.14067).

    L = beta KL(P || Q) + alpha L_PamC. The negative part of the contrast runs over K meta nodes, the sums of the
    embeddings of each cluster, so that an epoch costs O(nnz(Gamma) d + K^2 d); see
    :func:`graphclust.losses.meta_node_contrast`, which also lists what keeps it from turning into NaN.

    Parameters
    ----------
    n_clusters, epochs, alpha, beta, tau, order, ...
        Those of :class:`graphclust.methods._contrastive.ContrastiveClusterer`, where each is explained.
    """

    name = "pamc"
    summary = "auto-encoder + contrast of neighbours against meta nodes + KL to a sharpened assignment"
    source = "Kulatilleke, Portmann & Chandra 2022, arXiv 2209.14067"
    _alpha = 1.0

    def _contrast(self, z: Tensor, pairs: Pairs, labels: Tensor, columns: Tensor | None, population: int) -> Tensor:
        return meta_node_contrast(z, pairs, labels, self.n_clusters, self.tau)
