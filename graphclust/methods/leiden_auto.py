"""Leiden by modularity, started from several places: out of the poor optima where a single run stays."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from graphclust.communities import with_igraph
from graphclust.communities.partition import Quality, split_disconnected
from graphclust.graph import Graph
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor

# Ratios of the start's resolution to the wanted one, in the order they are tried.
START_RATIOS = (2.0, 3.0, 1.5, 5.0)
# Up to this many edges "auto" tries each ratio twice; above, only the first, once.
SMALL = 200_000


class LeidenAuto(GraphClusterer):
    """A portfolio of Leiden runs, the best modularity wins.

    On graphs with many equal communities a run from singletons merges too early and ends far below the planted
    modularity. A run at a higher resolution keeps the communities apart; from its partition a second run at the wanted
    resolution can only improve. The portfolio is the plain run (the very one of ``leiden`` with the same seed, so the
    result is never worse) and ``starts`` such pairs; graphs of up to 200,000 edges then iterate to convergence.
    On larger graphs the cost is 2.5 plain runs.

    Deviation from the usual advice, a start from the map equation: networkit's takes two thirds of the time of the
    start above and gives no better partition on the planted graphs of ``docs/benchmarks/structural.md``, which is not
    worth the dependency; igraph's infomap takes seven plain runs.

    Parameters
    ----------
    resolution : float, default 1
        Of the modularity that is maximised.
    n_iterations : int, default 2
        Leiden iterations of each run.
    starts : "auto" or int >= 0
        Pairs of runs, at 2, 3, 1.5, 5, 2, ... times the resolution. "auto": 8 up to 200,000 edges, else 1.
    random_state : int, Generator or None
    """

    name = "leiden_auto"
    summary = "Leiden from several starts, best modularity; finds k itself"
    source = "Traag, Waltman & van Eck 2019, doi:10.1038/s41598-019-41695-z"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "resolution": [Interval(Real, 0, None, closed="neither")],
        "n_iterations": [Interval(Integral, 1, None, closed="left")],
        "starts": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(
        self, *, resolution: float = 1.0, n_iterations: int = 2, starts: str | int = "auto", random_state: Any = None
    ) -> None:
        self.resolution = resolution
        self.n_iterations = n_iterations
        self.starts = starts
        self.random_state = random_state

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        g, weights = with_igraph.to_igraph(graph)
        quality = Quality.make(graph, "modularity", self.resolution)

        def run(ratio: float, start: np.ndarray | None = None) -> np.ndarray:
            found = with_igraph.leiden(
                g, weights, "modularity", ratio * self.resolution, self.n_iterations, rng, start)
            return split_disconnected(graph, found)

        small = graph.m <= SMALL
        automatic = 2 * len(START_RATIOS) if small else 1
        starts = automatic if isinstance(self.starts, str) else int(self.starts)
        monitor.start(starts + 1, "starts")
        labels, ratio = run(1.0), 1.0
        plain = best = quality.of(labels)
        monitor.step(0, {"modularity": best})
        for i in range(starts):
            start_ratio = START_RATIOS[i % len(START_RATIOS)]
            found = run(1.0, run(start_ratio))
            score = quality.of(found)
            monitor.step(i + 1, {"modularity": score})
            if score > best:
                labels, best, ratio = found, score, start_ratio
        while small:
            found = run(1.0, labels)
            score = quality.of(found)
            if score <= best + 1e-9:
                break
            labels, best = found, score
        chosen = {"start_resolution": ratio * self.resolution, "quality": best, "quality_of_plain_run": plain}
        return Clustering(labels, chosen=chosen)
