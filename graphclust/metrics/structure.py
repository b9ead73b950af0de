"""Metrics of a partition from the graph alone, in one pass over the edges. Edge weights count.

Symbols: cluster c has n_c nodes, internal edge weight w_c (each edge once), volume vol_c (sum of the weighted degrees)
and cut_c = vol_c - 2 w_c; W is the weight of all edges and vol = 2 W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.special import xlogy

from graphclust.graph import Graph, InputError


@dataclass(frozen=True, eq=False)
class Structure:
    """What the metrics of one partition of one graph need; arrays have shape (K,), one entry a cluster.

    Attributes
    ----------
    graph : Graph
    labels : (n,) int, 0..K-1 without gaps
    sizes : nodes
    internal : w_c
    volume : vol_c
    """

    graph: Graph
    labels: np.ndarray
    sizes: np.ndarray
    internal: np.ndarray
    volume: np.ndarray

    @property
    def cut(self) -> np.ndarray:
        """Weight of the edges that leave each cluster."""
        return np.maximum(self.volume - 2 * self.internal, 0.0)

    @property
    def total(self) -> float:
        """vol: twice the weight of all edges."""
        return float(self.volume.sum())


def structure(graph: Graph, labels: Any) -> Structure:
    """Sums per cluster, O(n + m).

    Parameters
    ----------
    graph : Graph
    labels : (n,) cluster ids of any kind

    Raises
    ------
    InputError
        Another number of labels than nodes.
    """
    labels = np.asarray(labels)
    if labels.shape != (graph.n,):
        raise InputError(f"labels has shape {labels.shape}; the graph has n = {graph.n} nodes, one label each")
    ids, inverse = np.unique(labels, return_inverse=True)
    inverse, k = inverse.astype(np.int32), len(ids)
    a = graph.adjacency
    own = np.repeat(inverse, np.diff(a.indptr))
    inside = own == inverse[a.indices]
    internal = np.bincount(own[inside], weights=a.data[inside], minlength=k) / 2
    volume = np.bincount(inverse, weights=graph.degrees, minlength=k)
    return Structure(graph, inverse, np.bincount(inverse, minlength=k), internal, volume)


def modularity(s: Structure, resolution: float = 1.0) -> float:
    """Sum over clusters of w_c / W - resolution (vol_c / vol)^2; 0 for a graph without edges.

    Newman & Girvan 2004, eq. 5, doi:10.1103/PhysRevE.69.026113; with a resolution Reichardt & Bornholdt 2006,
    doi:10.1103/PhysRevE.74.016110.
    """
    if not s.total:
        return 0.0
    return float((2 * s.internal / s.total - resolution * (s.volume / s.total) ** 2).sum())


def conductances(s: Structure) -> np.ndarray:
    """cut_c / min(vol_c, vol - vol_c) of every cluster with an edge (Kannan, Vempala & Vetta 2004).

    0 for a cluster that no edge leaves, the single cluster included. Clusters of isolated nodes alone have no
    conductance and do not occur in the result.
    """
    has = s.volume > 0
    cut, smaller = s.cut[has], np.minimum(s.volume, s.total - s.volume)[has]
    return np.divide(cut, smaller, out=np.zeros_like(cut), where=smaller > 1e-12 * s.total)


def conductance_mean(s: Structure) -> float:
    """Plain mean of :func:`conductances`; 0 for a graph without edges."""
    phi = conductances(s)
    return float(phi.mean()) if len(phi) else 0.0


def conductance_max(s: Structure) -> float:
    """The worst of :func:`conductances`; 0 for a graph without edges."""
    return float(conductances(s).max(initial=0.0))


def conductance_weighted(s: Structure) -> float:
    """Mean of :func:`conductances` weighted by the volumes; 0 for a graph without edges."""
    if not s.total:
        return 0.0
    return float(np.average(conductances(s), weights=s.volume[s.volume > 0]))


def coverage(s: Structure) -> float:
    """Share of the edge weight inside clusters; 1 for a graph without edges, where nothing is cut."""
    return float(2 * s.internal.sum() / s.total) if s.total else 1.0


def cut_ratio(s: Structure) -> float:
    """Mean over clusters of cut_c / (n_c (n - n_c)) (Yang & Leskovec 2015, sec. 3.1); 0 for a single cluster."""
    pairs = s.sizes * (s.graph.n - s.sizes)
    return float(np.divide(s.cut, pairs, out=np.zeros_like(s.cut), where=pairs > 0).mean())


def internal_density(s: Structure) -> float:
    """Mean of w_c / (n_c (n_c - 1) / 2) over the clusters of two nodes or more (Yang & Leskovec 2015, sec. 3.1).

    0 when every cluster is a singleton.
    """
    several = s.sizes > 1
    pairs = s.sizes[several] * (s.sizes[several] - 1) / 2
    return float((s.internal[several] / pairs).mean()) if len(pairs) else 0.0


def codelength(s: Structure) -> float:
    """Two-level map equation in bits a step, undirected random walk (Rosvall, Axelsson & Bergstrom 2009, eq. 4).

    With q_c = cut_c / vol and p_c = vol_c / vol, and plogp(x) = x log2 x:
    L = plogp(sum q) - 2 sum plogp(q) - sum_nodes plogp(d / vol) + sum plogp(q + p). 0 for a graph without edges.
    """
    if not s.total:
        return 0.0
    q, p = s.cut / s.total, s.volume / s.total
    bits = _plogp(q.sum()) - 2 * _plogp(q).sum() - _plogp(s.graph.degrees / s.total).sum() + _plogp(q + p).sum()
    return float(bits)


def disconnected(s: Structure) -> float:
    """Number of clusters whose nodes do not hang together by edges inside the cluster."""
    a = s.graph.adjacency
    source = np.repeat(np.arange(s.graph.n, dtype=a.indices.dtype), np.diff(a.indptr))
    inside = s.labels[source] == s.labels[a.indices]
    kept = sp.coo_array((np.ones(inside.sum(), dtype=np.int8), (source[inside], a.indices[inside])), shape=a.shape)
    count, component = connected_components(kept, directed=False)
    cluster_of = np.empty(count, dtype=s.labels.dtype)
    cluster_of[component] = s.labels
    return float((np.bincount(cluster_of) > 1).sum())


def _plogp(x: np.ndarray) -> np.ndarray:
    return xlogy(x, x) / np.log(2)
