"""Leiden communities, with the number of communities free or given."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from graphclust.communities import with_igraph, with_leidenalg
from graphclust.communities.partition import Quality, merge_to, n_components, split_disconnected
from graphclust.graph import Graph, InputError
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor

# Leiden runs that the search for a given number of communities may take.
SEARCH_RUNS = 12


class Leiden(GraphClusterer):
    """Leiden optimisation of modularity or of the constant Potts model (Traag, Waltman & van Eck 2019).

    The quality is H = (1/W) sum_c (w_c - resolution s_c^2 / 2), see :class:`graphclust.communities.partition.Quality`.
    igraph's implementation runs, unless size limits, fixed nodes, surprise or significance are asked for, which only
    leidenalg has. Every community is connected; with fixed nodes, a minimal size or fewer communities than components
    that cannot be, and ``chosen_["connected_pieces"]`` is then above the number of communities.

    With ``n_clusters`` the resolution is searched by bisection, in at most 12 runs. Each partition met on the way that
    has at least ``n_clusters`` communities is merged down to exactly ``n_clusters``, always joining the pair that
    costs least quality at ``resolution``; of these the best by quality is returned. Below the number of connected
    components no resolution can reach: only then are communities joined that no edge links, and
    ``chosen_["merged_components"]`` says how many times.

    Parameters
    ----------
    n_clusters : int or None
        None: as many as the quality likes.
    objective : "modularity", "cpm", "surprise" or "significance"
        Surprise: Traag, Aldecoa & Delvenne 2015, doi:10.1103/PhysRevE.92.022816; significance: Traag, Krings & Van
        Dooren 2013, doi:10.1038/srep02930 (it knows no edge weights). Neither has a resolution.
    resolution : float or None
        Higher means smaller communities. None: 1 for modularity, the density of the graph for cpm.
    n_iterations : int, default 2
        -1: until nothing improves.
    restarts : int, default 1
        Independent runs; the best by quality is kept.
    min_cluster_size, max_cluster_size : int or None
        Limits in nodes.
    fixed : array of shape (n,) of int, or None
        Nodes with a value >= 0 stay together by that value, and apart from other values; -1: free.
    random_state : int, Generator or None
    """

    name = "leiden"
    summary = "Leiden communities by modularity, CPM, surprise or significance; k free or given"
    source = "Traag, Waltman & van Eck 2019, doi:10.1038/s41598-019-41695-z"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "objective": [StrOptions({"modularity", "cpm", "surprise", "significance"})],
        "resolution": [Interval(Real, 0, None, closed="neither"), None],
        "n_iterations": [Interval(Integral, 1, None, closed="left"), Options(Integral, {-1})],
        "restarts": [Interval(Integral, 1, None, closed="left")],
        "min_cluster_size": [Interval(Integral, 1, None, closed="left"), None],
        "max_cluster_size": [Interval(Integral, 1, None, closed="left"), None],
        "fixed": ["array-like", None],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(
        self,
        n_clusters: int | None = None,
        *,
        objective: str = "modularity",
        resolution: float | None = None,
        n_iterations: int = 2,
        restarts: int = 1,
        min_cluster_size: int | None = None,
        max_cluster_size: int | None = None,
        fixed: Any = None,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.objective = objective
        self.resolution = resolution
        self.n_iterations = n_iterations
        self.restarts = restarts
        self.min_cluster_size = min_cluster_size
        self.max_cluster_size = max_cluster_size
        self.fixed = fixed
        self.random_state = random_state

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        limits: dict[str, Any] = {
            "min_size": self.min_cluster_size, "max_size": self.max_cluster_size, "fixed": self._fixed(graph),
        }
        special = any(v is not None for v in limits.values()) or self.objective in ("surprise", "significance")
        self._check_combination(graph, special)
        g, weights = with_igraph.to_igraph(graph)
        quality = Quality.make(graph, self.objective, self.resolution)

        def run(resolution: float) -> np.ndarray:
            common = g, weights, self.objective, resolution, self.n_iterations, rng
            if not special:
                return split_disconnected(graph, with_igraph.leiden(*common))
            labels = with_leidenalg.leiden(*common, **limits)
            keeps = self.min_cluster_size is not None or self.fixed is not None
            return labels if keeps else split_disconnected(graph, labels)

        def score(labels: np.ndarray) -> float:
            if self.objective in ("surprise", "significance"):
                return with_leidenalg.quality(g, weights, self.objective, labels)
            return quality.of(labels)

        found = []
        for _ in range(self.restarts):
            if self.n_clusters is not None:
                labels, chosen = _search(run, self.n_clusters, quality)
            else:
                labels = run(quality.resolution)
                chosen = {} if self.objective in ("surprise", "significance") else {"resolution": quality.resolution}
            found.append((score(labels), labels, chosen))
        best, labels, chosen = max(found, key=lambda f: f[0])
        pieces = int(split_disconnected(graph, labels).max()) + 1
        return Clustering(labels, chosen={**chosen, "quality": best, "connected_pieces": pieces})

    def _fixed(self, graph: Graph) -> np.ndarray | None:
        if self.fixed is None:
            return None
        fixed = np.asarray(self.fixed)
        if fixed.shape != (graph.n,) or not np.issubdtype(fixed.dtype, np.integer) or fixed.min() < -1:
            raise InputError(
                f"fixed has shape {fixed.shape} and dtype {fixed.dtype}; it must hold one int for each of the "
                f"{graph.n} nodes, -1 for a free one"
            )
        return fixed

    def _check_combination(self, graph: Graph, special: bool) -> None:
        if self.n_clusters is not None and special:
            raise InputError(
                f"n_clusters = {self.n_clusters} cannot be combined with size limits, fixed nodes or objective = "
                f"{self.objective!r}; leave one of them out"
            )
        if self.objective in ("surprise", "significance") and self.resolution is not None:
            raise InputError(f"resolution = {self.resolution}: objective = {self.objective!r} has none; leave it out")
        if self.objective == "significance" and graph.is_weighted:
            raise InputError("objective = 'significance' knows no edge weights and the graph has some; use 'surprise'")
        low, high = self.min_cluster_size or 1, self.max_cluster_size or graph.n
        if low > min(high, graph.n):
            raise InputError(f"min_cluster_size = {low}; it must lie in 1..max_cluster_size, here {min(high, graph.n)}")


def _search(
    run: Callable[[float], np.ndarray], k: int, quality: Quality
) -> tuple[np.ndarray, dict[str, Any]]:
    """Exactly ``k`` communities by bisection of the resolution; the partition, and what was chosen."""
    components = n_components(quality.graph)
    low, high, resolution = 0.0, np.inf, quality.resolution
    candidates: list[tuple[float, np.ndarray, dict[str, Any]]] = []
    runs = 0
    while runs < SEARCH_RUNS or not candidates:
        labels = run(resolution)
        runs += 1
        found = int(labels.max()) + 1
        if found >= k:
            high = resolution
            merged, across = merge_to(labels, k, quality, across=k < components)
            chosen = {"resolution": resolution, "merged_communities": found - k, "merged_components": across}
            candidates.append((quality.of(merged), merged, chosen))
        else:
            low = resolution
        if found == max(k, components):
            break
        resolution = 4 * low if high == np.inf else high / 4 if low == 0 else float(np.sqrt(low * high))
    _, labels, chosen = max(candidates, key=lambda c: c[0])
    return labels, {**chosen, "leiden_runs": runs}
