"""k-means on the node features: the baseline that ignores the graph."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.utils._param_validation import Interval

from graphclust.graph import Graph
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor


class KMeans(GraphClusterer):
    """Lloyd's k-means with k-means++ starts on ``x`` (Arthur & Vassilvitskii, SODA 2007).

    Parameters
    ----------
    n_clusters : int
    n_init : int, default 20
        Starts; the one with the smallest inertia is kept.
    random_state : int, Generator or None
    """

    name = "kmeans"
    summary = "k-means on the features; ignores the edges"
    source = "Lloyd 1982, doi:10.1109/TIT.1982.1056489; k-means++ starts, Arthur & Vassilvitskii, SODA 2007"
    needs_features = True
    needs_k = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(self, n_clusters: int | None = None, *, n_init: int = 20, random_state: Any = None) -> None:
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.random_state = random_state

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        seed = int(rng.integers(2**31))
        model = SklearnKMeans(self.n_clusters, n_init=self.n_init, random_state=seed).fit(graph.x)
        return Clustering(model.labels_)
