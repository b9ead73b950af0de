"""Spectral clustering of the graph alone."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.cluster import KMeans
from sklearn.cluster._spectral import cluster_qr
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval, StrOptions

from graphclust.graph import Graph
from graphclust.methods._eigen import bethe_hessian, count_communities, leading, regularised_adjacency
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor


class Spectral(GraphClusterer):
    """Leading eigenvectors of the regularised adjacency (Qin & Rohe 2013), rounded by pivoted QR (Damle et al. 2019).

    The eigenvectors of the k largest eigenvalues of (D + tau I)^-1/2 A (D + tau I)^-1/2 come from Lanczos iterations on
    the sparse matrix itself; nothing is factorised. ``cluster_qr`` turns them into labels without a random start.
    Nodes without an edge have a zero row and fall to the first cluster.

    Parameters
    ----------
    n_clusters : int or "auto"
        "auto": the number of negative eigenvalues of the Bethe-Hessian (Saade et al. 2014), at most 256.
    operator : "adjacency" or "bethe_hessian"
        The second takes the eigenvectors of the smallest eigenvalues of (r^2 - 1) I - r A + D, better on very sparse
        graphs.
    tau : float >= 0 or None
        Regularisation of the first operator; None: the mean degree.
    rounding : "cluster_qr" or "kmeans"
        k-means works on rows of length 1 and starts ``n_init`` times.
    n_init : int, default 10
    tol : float, default 1e-3
        Relative accuracy of the eigenvalues.
    random_state : int, Generator or None
        Of the start vector, and of k-means.
    """

    name = "spectral"
    summary = "spectral clustering of the edges: regularised adjacency or Bethe-Hessian, pivoted QR"
    source = ("Qin & Rohe 2013, arXiv 1309.4111; Damle, Minden & Ying 2019, doi:10.1093/imaiai/iay008; "
              "Saade, Krzakala & Zdeborova 2014, arXiv 1406.1880")
    needs_k = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "operator": [StrOptions({"adjacency", "bethe_hessian"})],
        "tau": [Interval(Real, 0, None, closed="left"), None],
        "rounding": [StrOptions({"cluster_qr", "kmeans"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, 1, closed="left")],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(
        self,
        n_clusters: int | str | None = None,
        *,
        operator: str = "adjacency",
        tau: float | None = None,
        rounding: str = "cluster_qr",
        n_init: int = 10,
        tol: float = 1e-3,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.operator = operator
        self.tau = tau
        self.rounding = rounding
        self.n_init = n_init
        self.tol = tol
        self.random_state = random_state

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        given = self.n_clusters
        k = int(given) if isinstance(given, Integral) else count_communities(graph, rng)
        chosen: dict[str, Any] = {} if given == k else {"n_clusters": k}
        if k == graph.n:
            return Clustering(np.arange(graph.n), chosen=chosen)
        matrix = bethe_hessian(graph) if self.operator == "bethe_hessian" else regularised_adjacency(graph, self.tau)
        if not graph.m:
            return Clustering(np.zeros(graph.n, dtype=int), chosen={**chosen, "n_edges": 0})
        values, vectors = leading(matrix, k, rng, self.tol)
        if self.rounding == "cluster_qr":
            labels = cluster_qr(vectors)
        else:
            seed = int(rng.integers(2**31))
            labels = KMeans(k, n_init=self.n_init, random_state=seed).fit_predict(normalize(vectors))
        return Clustering(labels, embedding=vectors, chosen={**chosen, "eigenvalues": values.tolist()})
