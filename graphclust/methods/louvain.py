"""Louvain communities."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from graphclust.communities import with_igraph
from graphclust.communities.partition import Quality, split_disconnected
from graphclust.graph import Graph
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor


class Louvain(GraphClusterer):
    """Louvain optimisation of modularity (Blondel, Guillaume, Lambiotte & Lefebvre 2008), igraph's implementation.

    Deviation: Louvain can leave a community in several pieces that no path inside it links; each piece then becomes a
    community of its own, which never lowers the modularity. ``chosen_["split_communities"]`` says how many that added.

    Parameters
    ----------
    resolution : float, default 1
    random_state : int, Generator or None
        The order in which nodes are visited.
    """

    name = "louvain"
    summary = "Louvain communities by modularity; finds k itself"
    source = "Blondel, Guillaume, Lambiotte & Lefebvre 2008, doi:10.1088/1742-5468/2008/10/P10008"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "resolution": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(self, *, resolution: float = 1.0, random_state: Any = None) -> None:
        self.resolution = resolution
        self.random_state = random_state

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        g, weights = with_igraph.to_igraph(graph)
        if not graph.m:
            return Clustering(np.arange(graph.n), chosen={"quality": 0.0, "split_communities": 0})
        with with_igraph.generator(rng):
            found = g.community_multilevel(weights=weights, resolution=self.resolution)
        labels = split_disconnected(graph, np.asarray(found.membership))
        split = int(labels.max()) + 1 - len(found)
        quality = Quality.make(graph, "modularity", self.resolution).of(labels)
        return Clustering(labels, chosen={"quality": quality, "split_communities": split})
