"""Leiden communities."""

from __future__ import annotations

import random
from numbers import Integral, Real
from typing import Any, ClassVar

import igraph
import numpy as np
from sklearn.utils._param_validation import Interval

from graphclust.graph import Graph
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor


class Leiden(GraphClusterer):
    """Leiden optimisation of modularity (Traag, Waltman & van Eck 2019).

    Parameters
    ----------
    resolution : float, default 1
    n_iterations : int, default 2
    random_state : int, Generator or None
    """

    name = "leiden"
    summary = "Leiden communities"
    source = "Traag, Waltman & van Eck 2019, doi:10.1038/s41598-019-41695-z"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "resolution": [Interval(Real, 0, None, closed="neither")],
        "n_iterations": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(self, *, resolution: float = 1.0, n_iterations: int = 2, random_state: Any = None) -> None:
        self.resolution = resolution
        self.n_iterations = n_iterations
        self.random_state = random_state

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        pairs, weights = graph.edges()
        g = igraph.Graph(n=graph.n, edges=pairs.tolist())
        # igraph draws from a module-wide generator that only this call can point at ours
        igraph.set_random_number_generator(random.Random(int(rng.integers(2**31))))
        try:
            found = g.community_leiden(
                "modularity", weights=weights if graph.is_weighted else None,
                resolution=self.resolution, n_iterations=self.n_iterations,
            )
        finally:
            igraph.set_random_number_generator(random)
        return Clustering(np.asarray(found.membership))
