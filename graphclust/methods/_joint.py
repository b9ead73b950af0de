"""How well one partition explains edges and features together: a yardstick that sees no label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from scipy.special import xlogy

from graphclust.graph import Graph


@dataclass(frozen=True, eq=False)
class JointModel:
    """Profile log-likelihood of a partition, in nats above that of a single cluster.

    Edges: degree-corrected block model (Karrer & Newman 2011, doi:10.1103/PhysRevE.83.016107, eq. 18, halved because
    it counts each edge twice): 1/2 sum_cd e_cd log(e_cd 2m / (d_c d_d)). Weights are divided by their mean: the average
    edge is one observation.

    Features without negative values: a multinomial for each cluster (the naive Bayes event model of McCallum & Nigam
    1998 with the clusters as classes): sum_cw n_cw log((n_cw / n_c) / (n_w / n)). The values are taken for counts, as
    they are. Any other features: Gaussians with one variance a column, -n/2 sum_j log(1 - R2_j), on the reduced
    features, whose columns hardly correlate.

    Attributes
    ----------
    edges : csr_array (n, n), weights of mean 1
    features : (n, d), counts or reduced features
    counts : whether they are counts
    k : clusters allowed
    """

    edges: sp.csr_array
    features: np.ndarray | sp.csr_array
    counts: bool
    k: int

    @classmethod
    def make(cls, graph: Graph, reduced: np.ndarray, k: int) -> Self:
        """``reduced`` (n, r) are the features to use when ``graph.x`` has negative values."""
        x: Any = reduced if graph.x is None else graph.x
        counts = bool((x.data if sp.issparse(x) else x).min(initial=0) >= 0)
        edges = graph.adjacency / np.float32(graph.adjacency.data.mean()) if graph.m else graph.adjacency
        return cls(sp.csr_array(edges), x if counts else reduced, counts, k)

    def score(self, labels: np.ndarray) -> float:
        """Nats above a single cluster."""
        member = self._member(labels)
        return self._edge_score(member) + self._feature_score(member, labels)

    def refine(self, labels: np.ndarray, sweeps: int = 30) -> np.ndarray:
        """Classification EM (Celeux & Govaert 1992, doi:10.1016/0167-9473(92)90042-E): every node moves to the cluster
        that explains its edges and features best, all at once, while the score rises; at most ``sweeps`` times.
        """
        best = self.score(labels)
        for _ in range(sweeps):
            member = self._member(labels)
            moved = (self._edge_terms(member) + self._feature_terms(member)).argmax(axis=1)
            score = self.score(moved)
            if score <= best + 1e-6:
                break
            labels, best = moved, score
        return labels

    def _member(self, labels: np.ndarray) -> sp.csr_array:
        n = len(labels)
        return sp.csr_array((np.ones(n, dtype=np.float32), (np.arange(n), labels)), shape=(n, self.k))

    def _blocks(self, member: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
        to_cluster = (self.edges @ member).toarray().astype(np.float64)
        return to_cluster, member.T @ to_cluster

    def _edge_score(self, member: sp.csr_array) -> float:
        _, e = self._blocks(member)
        d = e.sum(axis=1)
        return float(xlogy(e, e).sum() - 2 * xlogy(d, d).sum() + xlogy(d.sum(), d.sum())) / 2

    def _edge_terms(self, member: sp.csr_array) -> np.ndarray:
        to_cluster, e = self._blocks(member)
        d, total = e.sum(axis=1), max(e.sum(), 1e-12)
        # half an edge of prior, so that a pair of clusters without edges costs much but not infinity
        return to_cluster @ np.log((e + 0.5) / (np.outer(d, d) / total + 0.5))

    def _sums(self, member: sp.csr_array) -> np.ndarray:
        sums = member.T @ self.features
        return (sums.toarray() if sp.issparse(sums) else sums).astype(np.float64)

    def _feature_score(self, member: sp.csr_array, labels: np.ndarray) -> float:
        sums = self._sums(member)
        if self.counts:
            mass, words = sums.sum(axis=1), sums.sum(axis=0)
            return float(xlogy(sums, sums).sum() - xlogy(mass, mass).sum() - xlogy(words, words).sum()
                         + xlogy(mass.sum(), mass.sum()))
        within, total = self._variances(sums, np.bincount(labels, minlength=self.k))
        varies = total > 1e-12
        return float(-len(labels) / 2 * np.log(np.maximum(within[varies] / total[varies], 1e-9)).sum())

    def _variances(self, sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Per column: mean squared distance from the cluster's mean, and from the overall mean."""
        n = sizes.sum()
        squares = np.square(self.features, dtype=np.float64).sum(axis=0) / n
        between = (sums**2 / np.maximum(sizes, 1)[:, None]).sum(axis=0) / n
        return np.maximum(squares - between, 0), squares - (sums.sum(axis=0) / n) ** 2

    def _feature_terms(self, member: sp.csr_array) -> np.ndarray:
        sums = self._sums(member)
        if self.counts:
            words = sums.sum(axis=0) / max(sums.sum(), 1e-12)
            smoothed = np.log((sums + 0.1 * words + 1e-12) / (sums.sum(axis=1, keepdims=True) + 0.1))
            return self.features @ smoothed.T
        sizes = np.asarray(member.sum(axis=0)).ravel()
        means = sums / np.maximum(sizes, 1)[:, None]
        variance = np.maximum(self._variances(sums, sizes)[0], 1e-9)
        # |x - mu|^2 / 2v without the term in x alone, which is the same for every cluster
        return self.features @ (means / variance).T - (means**2 / variance).sum(axis=1) / 2
