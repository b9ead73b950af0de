"""HDBSCAN: clusters of any density, their number found."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.cluster import HDBSCAN as SklearnHDBSCAN
from sklearn.utils._param_validation import Interval, StrOptions

from graphclust.graph import Graph
from graphclust.methods._distances import DISTANCES, node_distances
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor


class HDBSCAN(GraphClusterer):
    """The most stable clusters of the hierarchy of densities (Campello, Moulavi & Sander 2013), scikit-learn's.

    Takes n^2 memory. Deviation: a node that HDBSCAN calls noise joins the cluster of the nearest node that is none, for
    a partition has a place for every node; ``chosen_["noise"]`` says how many did. Without any cluster all are one.

    Parameters
    ----------
    min_cluster_size : int, default 5
    min_samples : int or None
        Neighbours that make a node a core; None: ``min_cluster_size``.
    distance : "walk", "path", "euclidean" or "cosine", default "walk"
        The first two look at the edges, the others at the features; see
        :func:`graphclust.methods._distances.node_distances`.
    selection : "eom" or "leaf"
        By excess of mass, or the leaves of the hierarchy: more and smaller clusters.
    random_state : ignored
        Nothing here is random.
    """

    name = "hdbscan"
    summary = "HDBSCAN on random-walk, path or feature distances; finds k itself"
    source = "Campello, Moulavi & Sander 2013, doi:10.1007/978-3-642-37456-2_14"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "min_cluster_size": [Interval(Integral, 2, None, closed="left")],
        "min_samples": [Interval(Integral, 1, None, closed="left"), None],
        "distance": [StrOptions(set(DISTANCES))],
        "selection": [StrOptions({"eom", "leaf"})],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(
        self, *, min_cluster_size: int = 5, min_samples: int | None = None, distance: str = "walk",
        selection: str = "eom", random_state: Any = None,
    ) -> None:
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples
        self.distance = distance
        self.selection = selection
        self.random_state = random_state

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        d = node_distances(graph, self.distance)
        labels = np.full(graph.n, -1)
        if graph.n >= self.min_cluster_size:
            labels = SklearnHDBSCAN(
                self.min_cluster_size, min_samples=min(self.min_samples or self.min_cluster_size, graph.n),
                metric="precomputed", cluster_selection_method=self.selection, copy=True,
            ).fit_predict(d)
        noise = labels < 0
        if noise.all():
            return Clustering(np.zeros(graph.n, dtype=np.int64), chosen={"noise": graph.n})
        core = np.flatnonzero(~noise)
        labels[noise] = labels[core[d[np.ix_(noise, core)].argmin(axis=1)]]
        return Clustering(labels, chosen={"noise": int(noise.sum())})
