"""k-medoids: clusters around nodes of the graph."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import kmedoids
import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from graphclust.graph import Graph
from graphclust.methods._distances import DISTANCES, node_distances
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor


class KMedoids(GraphClusterer):
    """FasterPAM: the k nodes whose sum of distances to their nearest one is smallest (Schubert & Rousseeuw 2021).

    Takes n^2 memory. ``chosen_["medoids"]`` holds the medoids, ``chosen_["loss"]`` the sum of distances.

    Parameters
    ----------
    n_clusters : int
    distance : "walk", "path", "euclidean" or "cosine", default "walk"
        The first two look at the edges, the others at the features; see
        :func:`graphclust.methods._distances.node_distances`.
    n_init : int, default 10
        Random starts; the smallest sum of distances is kept.
    random_state : int, Generator or None
    """

    name = "kmedoids"
    summary = "k-medoids on random-walk, path or feature distances (FasterPAM)"
    source = "Schubert & Rousseeuw 2021, doi:10.1016/j.is.2021.101804"
    needs_k = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "distance": [StrOptions(set(DISTANCES))],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(
        self, n_clusters: int | None = None, *, distance: str = "walk", n_init: int = 10, random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.distance = distance
        self.n_init = n_init
        self.random_state = random_state

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        d = node_distances(graph, self.distance)
        if self.n_clusters == graph.n:
            return Clustering(np.arange(graph.n), chosen={"medoids": list(range(graph.n)), "loss": 0.0})
        runs = [
            kmedoids.fasterpam(d, self.n_clusters, random_state=int(rng.integers(2**31)), n_cpu=1)
            for _ in range(self.n_init)
        ]
        best = min(runs, key=lambda r: r.loss)
        labels = np.asarray(best.labels, dtype=np.int64)
        return Clustering(labels, chosen={"medoids": np.asarray(best.medoids).tolist(), "loss": float(best.loss)})
