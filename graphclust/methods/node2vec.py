"""node2vec and k-means: random walks, vectors, clusters; the usual start of temporal methods, and their baseline."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from graphclust.graph import Graph
from graphclust.methods._network import kmeans_labels
from graphclust.methods._walks import cooccurrence, factorise, random_walks
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor


class Node2Vec(GraphClusterer):
    """Vectors of nodes that meet on random walks (Grover and Leskovec, arXiv 1607.00653), then k-means.

    The vectors are not trained by skip-gram but factorised (:func:`graphclust.methods._walks.factorise`), which has the
    same optimum, needs no pass over a hundred million pairs, and has no learning rate.

    Parameters
    ----------
    n_clusters : int
    dim : int, default 128
    walks : int, default 10
        Walks from each node.
    walk_length : int, default 20
        Nodes of a walk; paper: 80.
    window : int, default 10
    p, q : float, default 1
        Return and in-out parameter.
    weighted : bool, default True
        Steps by edge weight; False: all edges of a node alike, as TGC's features are made.
    n_init : int, default 20
        Starts of k-means.
    random_state : int, Generator or None
    """

    name = "node2vec"
    summary = "vectors of nodes that meet on random walks, then k-means"
    source = "Grover and Leskovec 2016, arXiv 1607.00653; factorised as in Levy and Goldberg, NeurIPS 2014"
    needs_k = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "dim": [Interval(Integral, 1, None, closed="left")],
        "walks": [Interval(Integral, 1, None, closed="left")],
        "walk_length": [Interval(Integral, 2, None, closed="left")],
        "window": [Interval(Integral, 1, None, closed="left")],
        "p": [Interval(Real, 0, None, closed="neither")],
        "q": [Interval(Real, 0, None, closed="neither")],
        "weighted": ["boolean"],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(
        self, n_clusters: int | None = None, *, dim: int = 128, walks: int = 10, walk_length: int = 20,
        window: int = 10, p: float = 1.0, q: float = 1.0, weighted: bool = True, n_init: int = 20,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.dim = dim
        self.walks = walks
        self.walk_length = walk_length
        self.window = window
        self.p = p
        self.q = q
        self.weighted = weighted
        self.n_init = n_init
        self.random_state = random_state

    def embed(self, graph: Graph, rng: np.random.Generator) -> np.ndarray:
        """The nodes' vectors, (n, dim) float32; zeros for a node that no edge touches."""
        adjacency = graph.adjacency
        if not self.weighted:
            adjacency = adjacency.astype(bool).astype(np.float32)
        walks = random_walks(adjacency, self.walks, self.walk_length, rng, self.p, self.q)
        # a node without edges stays where it is, and would meet itself
        counts = cooccurrence(walks[np.diff(adjacency.indptr)[walks[:, 0]] > 0], graph.n, self.window)
        return factorise(counts, self.dim, int(rng.integers(2**31)))

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        z = self.embed(graph, rng)
        labels = kmeans_labels(z, self.n_clusters, int(rng.integers(2**31)), self.n_init)
        return Clustering(labels, z)
