"""Dense distances between all nodes, for methods that need nothing else."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import shortest_path
from sklearn.metrics import pairwise_distances

from graphclust.graph import Graph, InputError

DISTANCES = frozenset({"walk", "path", "euclidean", "cosine"})
WALK_STEPS = 4
# A dense matrix of this many nodes squared takes 3.2 GB.
MAX_NODES = 20_000


def node_distances(graph: Graph, distance: str) -> np.ndarray:
    """Distances (n, n), float64, symmetric, zero diagonal.

    Parameters
    ----------
    distance : "walk", Pons & Latapy's (arXiv physics/0512106, equation 1): sqrt(sum_k (P^t_ik - P^t_jk)^2 / d_k), the
        difference between where random walks of t = 4 steps over A + I from i and from j end; "path": shortest paths
        whose edges have length 1 / weight, pairs that no path links being twice as far apart as the farthest that one
        does; "euclidean" or "cosine" between feature rows

    Raises
    ------
    InputError
        Features are asked for and there are none; more than 20,000 nodes.
    """
    if graph.n > MAX_NODES:
        raise InputError(f"the graph has n = {graph.n} nodes; all their distances fit in memory up to n = {MAX_NODES}: "
                         "use kmeans, leiden or spectral")
    if distance == "walk":
        return _symmetric(pairwise_distances(_walks(graph)))
    if distance == "path":
        return _paths(graph)
    if graph.x is None:
        raise InputError(f"distance = {distance!r} works on node features and the data has none; give features, or "
                         "distance = 'walk' or 'path'")
    return _symmetric(pairwise_distances(graph.x, metric=distance).astype(np.float64))


def _symmetric(d: np.ndarray) -> np.ndarray:
    np.fill_diagonal(d, 0)
    return np.maximum(d, d.T)


def _walks(graph: Graph) -> np.ndarray:
    """P^t D^-1/2 (n, n)."""
    a = sp.csr_array(graph.adjacency, dtype=np.float64) + sp.eye_array(graph.n, format="csr")
    degree = np.asarray(a.sum(axis=1)).ravel()
    step = sp.dia_array((1 / degree[None], [0]), shape=a.shape).tocsr() @ a
    walks = np.diag(1 / np.sqrt(degree))
    for _ in range(WALK_STEPS):
        walks = step @ walks
    return walks


def _paths(graph: Graph) -> np.ndarray:
    lengths = sp.csr_array(graph.adjacency, dtype=np.float64, copy=True)
    lengths.data = 1 / lengths.data
    d = shortest_path(lengths, directed=False)
    reached = np.isfinite(d)
    d[~reached] = 2 * d[reached].max() or 1.0
    return d
