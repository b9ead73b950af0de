"""A partition to start training from: what k-means on several widths of the features agrees on."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from graphclust.graph import Graph
from graphclust.metrics.structure import modularity, structure

WIDTHS = (8, 12, 16, 24, 32)
STARTS = 20
# Of the partitions of one width, those with the higher modularity vote.
VOTERS = 10
# k-means fits on no more nodes than this, drawn uniformly; all nodes are then assigned.
FIT_LIMIT = 20_000


def consensus_labels(graph: Graph, features: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """One partition out of 100 k-means runs, chosen without labels; this project's own start, not the papers'.

    For each of five numbers of leading singular vectors, k-means on the rows (of length 1) from 20 starts, of which the
    ten partitions with the highest modularity on the graph are kept: the single best is luck where several are about as
    good. Then k-means on the singular vectors of the fifty partitions side by side (cluster-based consensus: Strehl &
    Ghosh, JMLR 2002, section 3).

    Parameters
    ----------
    graph : Graph
    features : (n, d), smoothed
    n_clusters : K
    seed : int

    Returns
    -------
    labels : (n,) int
    """
    rng = np.random.default_rng(seed)
    size = min(graph.n, max(FIT_LIMIT, 20 * n_clusters))
    fit = np.arange(graph.n) if size == graph.n else rng.choice(graph.n, size, replace=False)
    width = min(max(WIDTHS), *features.shape)
    u, s, _ = randomized_svd(features, width, random_state=seed)
    voters = []
    for d in sorted({min(d, width) for d in WIDTHS}):
        rows = np.ascontiguousarray(normalize((u * s)[:, :d]))
        found = []
        for start in rng.integers(2**31, size=STARTS):
            model = KMeans(n_clusters, n_init=1, max_iter=60, tol=1e-3, random_state=int(start)).fit(rows[fit])
            labels = model.predict(rows)
            # without edges all modularities are 0 and the inertia decides
            found.append((modularity(structure(graph, labels)), -model.inertia_, labels))
        found.sort(key=lambda run: run[:2], reverse=True)
        voters += [labels for *_, labels in found[:VOTERS]]
    u, s, _ = randomized_svd(indicators(voters, n_clusters), 2 * n_clusters, random_state=seed)
    rows = np.ascontiguousarray(u * s)
    return KMeans(n_clusters, n_init=10, random_state=seed).fit(rows[fit]).predict(rows)


def indicators(partitions: list[np.ndarray], n_clusters: int) -> sp.csr_array:
    """The partitions side by side, (n, P K): entry (i, p K + c) is 1 where partition p puts node i in cluster c."""
    n, p = len(partitions[0]), len(partitions)
    # written as it is stored: of a million nodes and fifty partitions, every copy takes half a gigabyte
    columns = np.empty((n, p), dtype=np.int32)
    for i, labels in enumerate(partitions):
        columns[:, i] = labels + i * n_clusters
    starts = np.arange(0, (n + 1) * p, p, dtype=np.int32 if n * p < 2**31 else np.int64)
    return sp.csr_array((np.ones(n * p, dtype=np.float32), columns.ravel(), starts), shape=(n, p * n_clusters))
