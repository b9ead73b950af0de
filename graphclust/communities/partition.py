"""The quality that Leiden maximises, merging communities down to k by it, and splitting disconnected ones."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from graphclust.graph import Graph


@dataclass(frozen=True, eq=False)
class Quality:
    """H = (1/W) sum_c (w_c - resolution s_c^2 / 2): w_c the edge weight inside community c, s_c its sum of ``size``.

    - modularity: size_i = d_i / sqrt(2W), which makes H Newman's Q (doi:10.1103/PhysRevE.69.026113, eq. 5);
    - cpm: size_i = 1, the constant Potts model up to a constant (Traag et al. 2011, doi:10.1103/PhysRevE.84.016114).

    Merging communities a and b changes H by (w_ab - resolution s_a s_b) / W.
    """

    graph: Graph
    size: np.ndarray
    resolution: float

    @classmethod
    def make(cls, graph: Graph, objective: str, resolution: float | None = None) -> Self:
        """``objective`` is "modularity" or "cpm"; the default resolution is 1, for "cpm" the density of the graph."""
        if objective == "cpm":
            pairs = graph.n * (graph.n - 1) / 2
            density = graph.degrees.sum() / 2 / pairs if graph.m else 1.0
            return cls(graph, np.ones(graph.n), float(density) if resolution is None else float(resolution))
        degrees = graph.degrees
        size = degrees / np.sqrt(degrees.sum()) if graph.m else degrees
        return cls(graph, size, 1.0 if resolution is None else float(resolution))

    def of(self, labels: np.ndarray) -> float:
        """H of the partition ``labels`` (n,), 0..K-1; 0 for a graph without edges."""
        total = self.graph.degrees.sum() / 2
        if not total:
            return 0.0
        inside = self.graph.adjacency.data[_inside(self.graph, labels)].sum(dtype=np.float64) / 2
        sizes = np.bincount(labels, weights=self.size)
        return float((inside - self.resolution * (sizes**2).sum() / 2) / total)


def split_disconnected(graph: Graph, labels: np.ndarray) -> np.ndarray:
    """Each community cut into its connected pieces; labels of shape (n,), 0..K-1."""
    kept = graph.adjacency.copy()
    kept.data = _inside(graph, labels).astype(np.float32)
    kept.eliminate_zeros()
    return connected_components(kept, directed=False)[1]


def n_components(graph: Graph) -> int:
    """Number of connected components, isolated nodes included."""
    return int(connected_components(graph.adjacency, directed=False, return_labels=False))


def merge_to(labels: np.ndarray, k: int, quality: Quality, across: bool) -> tuple[np.ndarray, int]:
    """Merge communities one pair at a time, always the pair whose merger changes the quality best, until k are left.

    Parameters
    ----------
    labels : (n,), 0..K-1 with K >= k
    k : number wanted
    quality : what decides
    across : pairs without an edge between them are candidates too; otherwise only connected ones are, and k must not
        be below the number of connected components

    Returns
    -------
    labels of shape (n,), 0..k-1, and how many of the mergers joined two communities without an edge between them.
    """
    graph, gamma = quality.graph, quality.resolution
    n_communities = int(labels.max()) + 1
    member = sp.csr_array((np.ones(graph.n), (np.arange(graph.n), labels)), shape=(graph.n, n_communities))
    between = sp.coo_array(member.T @ graph.adjacency @ member)
    links: dict[int, dict[int, float]] = {c: {} for c in range(n_communities)}
    for a, b, w in zip(*between.coords, between.data, strict=True):
        if a != b:
            links[int(a)][int(b)] = float(w)
    size = dict(enumerate(np.bincount(labels, weights=quality.size).tolist()))
    count = dict(enumerate(np.bincount(labels).tolist()))
    # the best unconnected pair is always that of the two smallest, so two heaps hold all candidates
    pairs = [(gamma * size[a] * size[b] - w, a, b) for a in links for b, w in links[a].items() if a < b]
    smallest = [(size[c], count[c], c) for c in links] if across else []
    heapq.heapify(pairs)
    heapq.heapify(smallest)
    parent, joined_across = list(range(n_communities)), 0

    while len(links) > k:
        while pairs and not (pairs[0][1] in links and pairs[0][2] in links):
            heapq.heappop(pairs)
        if across:
            first = _pop_alive(smallest, links)
            second = _pop_alive(smallest, links)
            loss = gamma * first[0] * second[0] - links[first[2]].get(second[2], 0.0)
            if pairs and pairs[0][0] <= loss:
                heapq.heappush(smallest, first)
                heapq.heappush(smallest, second)
                _, a, b = heapq.heappop(pairs)
            else:
                a, b = first[2], second[2]
                joined_across += 1
        else:
            _, a, b = heapq.heappop(pairs)
        new = len(parent)
        parent[a] = parent[b] = new
        parent.append(new)
        size[new], count[new] = size[a] + size[b], count[a] + count[b]
        links[new] = merged = _joined(links.pop(a), links.pop(b), a, b)
        for c, w in merged.items():
            links[c].pop(a, None)
            links[c].pop(b, None)
            links[c][new] = w
            heapq.heappush(pairs, (gamma * size[c] * size[new] - w, c, new))
        if across:
            heapq.heappush(smallest, (size[new], count[new], new))
    for c in range(len(parent) - 1, -1, -1):
        parent[c] = parent[parent[c]]
    return np.unique(np.asarray(parent)[labels], return_inverse=True)[1], joined_across


def _pop_alive(heap: list[tuple[float, int, int]], links: dict[int, dict[int, float]]) -> tuple[float, int, int]:
    while True:
        entry = heapq.heappop(heap)
        if entry[2] in links:
            return entry


def _joined(one: dict[int, float], other: dict[int, float], a: int, b: int) -> dict[int, float]:
    if len(one) < len(other):
        one, other = other, one
    for c, w in other.items():
        one[c] = one.get(c, 0.0) + w
    one.pop(a, None)
    one.pop(b, None)
    return one


def _inside(graph: Graph, labels: np.ndarray) -> np.ndarray:
    """Which stored entries of the adjacency lie inside a community; (nnz,) bool."""
    a = graph.adjacency
    return np.repeat(labels, np.diff(a.indptr)) == labels[a.indices]
