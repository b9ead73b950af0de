"""What the private methods share: the order in which they look, the budget, the ledger and the rounding."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import networkx as nx
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval, StrOptions

from graphclust.coerce import is_temporal
from graphclust.graph import Graph, InputError
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor
from graphclust.privacy.ledger import NODE_DP, Event, Ledger, charge, settle
from graphclust.privacy.mechanisms import count_scale, private_count, spent
from graphclust.privacy.predictor import Prediction, predict, recommend
from graphclust.privacy.sampling import Uniform, os_uniform, seeded_uniform

PACKAGES = ("graphclust", "numpy", "scipy", "scikit-learn")
# dense (n, n) float64 matrices that a method holds at once, with what the eigensolver adds
MATRICES = 10


class Undetectable(InputError):
    """The predictor says that the clusters cannot be seen at this budget; nothing but the edge count was spent."""


class PrivateClusterer(GraphClusterer):
    """Base of the edge-private methods: count, predict, look once with noise, then post-process what came out.

    The privacy is that of one undirected edge; n, the nodes and k are public. What is private is read in
    :meth:`edge_count` and :meth:`answer` alone; all that follows works on their noisy results. The parameters that
    decide on noise (scale, sensitivity, solver error) come from public values or from the noisy count.

    Attributes
    ----------
    privacy_ : graphclust.privacy.ledger.Ledger
        What was spent, and whether the guarantee holds: a seed voids it.
    """

    needs_k = True
    private: ClassVar[bool] = True
    pure: ClassVar[bool] = False
    """True when the method spends no delta."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "epsilon": [Interval(Real, 0, None, closed="neither"), None],
        "density": [Interval(Real, 0, 1, closed="both"), None],
        "contrast": [Interval(Real, 0, 1, closed="right")],
        "count_share": [Interval(Real, 0, 1, closed="neither")],
        "unit": [StrOptions({"edge", "node"})],
        "force": ["boolean"],
        "budget": [str, Path, None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state", np.random.Generator],
    }

    def fit(self, data: Any, y: Any = None, *, monitor: Monitor | None = None, graph_name: str | None = None) -> Self:
        """Cluster the nodes of ``data`` with edge-level differential privacy.

        Parameters
        ----------
        data : as for every method, but undirected
        y : ignored
        monitor : watcher, optional; it is told nothing that depends on the edges
        graph_name : the name that the budget file must bear; None: not compared

        Raises
        ------
        InputError
            Before the edges are looked at: epsilon or k missing, delta outside (0, 1/n), a directed or weighted graph,
            more nodes than memory holds, a used-up budget.
        Undetectable
            No clusters can be seen with this budget; ``force=True`` goes on.
        """
        self.check_params()
        _refuse_directed(data)
        self._graph_name = graph_name
        super().fit(data, y, monitor=monitor)
        self.privacy_ = self._ledger
        return self

    def edge_count(self, graph: Graph) -> int:
        """The private number of edges: one edge changes it by at most 1."""
        return math.floor(float(np.minimum(graph.adjacency.data.astype(np.float64) / self._weight, 1).sum()) / 2 + 1e-6)

    def noisy_count(self, graph: Graph, uniform: Uniform) -> tuple[int, Event]:
        """The number of edges with the noise of ``count_share`` of epsilon."""
        return private_count(self.edge_count(graph), count_scale(self.count_share * float(self.epsilon)), uniform)

    @abstractmethod
    def look(self, n: int, density: float, events: list[Event]) -> Event:
        """Calibrate the look at the edges from what is public and the events before, without the graph."""

    @abstractmethod
    def answer(self, adjacency: np.ndarray, density: float) -> np.ndarray:
        """The exact (n, n) answer that the noise of :meth:`look` covers; deterministic.

        ``adjacency`` holds the (n, n) edges with weights in 0..1.
        """

    @abstractmethod
    def noisy(self, answer: np.ndarray, event: Event, uniform: Uniform) -> np.ndarray:
        """The private release of ``answer``, shape (n, n)."""

    @abstractmethod
    def signal(self, noisy: np.ndarray, event: Event, density: float) -> np.ndarray:
        """The symmetric (n, n) matrix whose leading eigenvectors show the clusters; post-processing."""

    def public(self, n: int, density: float) -> dict[str, Any]:
        """Values that the release rests on and that everybody may know, for the ledger."""
        return {"n": n, "n_clusters": int(self.n_clusters), "density": density}

    def adjacency(self, graph: Graph) -> np.ndarray:
        """The edges as a dense (n, n) array with weights in 0..1."""
        return np.minimum(graph.adjacency.toarray().astype(np.float64) / self._weight, 1)

    def predict_detection(self, n: int, density: float) -> Prediction:
        """What the predictor expects of this method."""
        return predict(self.name, n, int(self.n_clusters), float(self.epsilon), self._delta, density, self.contrast,
                       bool(getattr(self, "nonnegative", False)))

    @property
    def _delta(self) -> float:
        return float(getattr(self, "delta", None) or 0.0)

    @property
    def _weight(self) -> float:
        return float(getattr(self, "weight_bound", None) or 1.0)

    def check_params(self) -> None:
        """Refuse what can be refused without the graph."""
        super().check_params()
        if self.unit == "node":
            raise InputError(f"unit = 'node': {NODE_DP}; use unit='edge'")
        if self.epsilon is None:
            raise InputError(f"{self.name} needs the parameter epsilon, which is None; give the privacy loss that you "
                             "accept, for example 1 (graphclust predict helps to choose)")
        if self.n_clusters is None:
            raise InputError(f"{self.name} needs the parameter n_clusters (-k), which is None: counting clusters would "
                             "look at the edges")
        if not self.pure and self.delta is None:
            raise InputError(f"{self.name} needs the parameter delta, which is None; give a probability well below "
                             "1/n, or use dp_rr, which needs none")

    def _check(self, graph: Graph) -> None:
        super()._check(graph)
        n = graph.n
        if not self.pure and self._delta >= 1 / n:
            raise InputError(f"delta = {self._delta:g}; it must be below 1/n = {1 / n:g}: with more, a release that "
                             "publishes one node's edges would count as private")
        need, there = MATRICES * 8 * n * n, _memory()
        if need > 0.8 * there:
            most = int(math.sqrt(0.8 * there / (8 * MATRICES)))
            raise InputError(f"{self.name} on n = {n} nodes needs about {need / 1e9:.0f} GB, this machine has "
                             f"{there / 1e9:.0f} GB: at most n = {most} here")
        if graph.is_weighted and getattr(self, "weight_bound", None) is None:
            mend = ("give weight_bound: larger weights are cut to it" if hasattr(self, "weight_bound") else
                    "it flips unweighted edges: drop the weights, or use dp_sdp or dp_gaussian with weight_bound")
            raise InputError(f"the graph is weighted and {self.name} has no public bound of the weights; {mend}")

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        seeded = self.random_state is not None
        uniform = seeded_uniform(rng) if seeded else os_uniform
        n, k, epsilon = graph.n, int(self.n_clusters), float(self.epsilon)
        entry = None
        self._ledger = self._new_ledger(seeded)
        if self.budget is not None and not seeded:
            entry = charge(Path(self.budget), self._graph_name, self.name, epsilon, self._delta)
        events: list[Event] = []
        density = self.density
        try:
            if density is None:
                count, event = self.noisy_count(graph, uniform)
                events.append(event)
                density = min(max(2 * count / max(n * (n - 1), 1), 0.0), 1.0)
            self._predicted(n, density)
        except Undetectable:
            if entry is not None:
                settle(Path(self.budget), entry, *spent(events, epsilon, 0.0))
            raise
        event = self.look(n, density, events)
        events.append(event)
        noisy = self.noisy(self.answer(self.adjacency(graph), density), event, uniform)
        self._ledger.events = events
        self._ledger.public |= self.public(n, density)
        self._ledger.spent_epsilon, self._ledger.spent_delta = spent(events, epsilon, self._delta)
        vectors = _top_vectors(self.signal(noisy, event, density), k, rng)
        labels = KMeans(k, n_init=self.n_init, random_state=int(rng.integers(2**31))).fit_predict(normalize(vectors))
        return Clustering(labels, embedding=vectors, chosen={"density": density})

    def _predicted(self, n: int, density: float) -> None:
        """Refuse when the predictor sees no hope, unless ``force``."""
        found = self.predict_detection(n, density)
        self._ledger.public |= {"predicted_ratio": found.ratio, "predicted_best": found.best}
        if found.possible or self.force:
            return
        others = [p for p in recommend(n, int(self.n_clusters), float(self.epsilon), self._delta or 1 / n**2, density,
                                       self.contrast) if p.possible]
        advice = f"{others[0].mechanism} may find them" if others else "no mechanism here can find communities"
        raise Undetectable(
            f"at epsilon = {self.epsilon:g} on a graph of n = {n} nodes and density {density:.2g}, {self.name} cannot "
            f"find {self.n_clusters} clusters even if no edge ran between them (signal/noise {found.best:.2f}, below "
            f"1): {advice}. Raise epsilon, ask graphclust predict, or set force=true to spend the budget all the same")

    def _new_ledger(self, seeded: bool) -> Ledger:
        return Ledger(
            method=self.name, epsilon=float(self.epsilon), delta=self._delta, guarantee=not seeded,
            void="a seed decided the noise (dry run): whoever knows it can take the noise away" if seeded else None,
            randomness="seeded generator" if seeded else "operating system entropy",
            budget=None if self.budget is None else str(self.budget), versions=_versions(),
        )


def dense_centre(adjacency: np.ndarray, density: float) -> np.ndarray:
    """A - density J off the diagonal, 0 on it."""
    centred = adjacency - density
    np.fill_diagonal(centred, 0)
    return centred


def pure_parts(epsilon: float, events: list[Event]) -> Fraction:
    """What pure events leave of epsilon, rounded down to 2^-20."""
    left = Fraction(epsilon) - sum((Fraction(1, int(e.scale)) for e in events), Fraction(0))
    return Fraction(math.floor(left * 2**20), 2**20)


def _top_vectors(matrix: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Eigenvectors of the k largest eigenvalues, shape (n, k)."""
    n = len(matrix)
    if k >= n - 1:
        return np.linalg.eigh(matrix)[1][:, ::-1][:, :k]
    return eigsh(matrix, k, which="LA", v0=rng.standard_normal(n))[1][:, ::-1]


@cache
def _versions() -> dict[str, str]:
    return {package: version(package) for package in PACKAGES}


def _memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _refuse_directed(data: Any) -> None:
    """Refuse what is directed by its type, or stores an edge in one direction only."""
    if is_temporal(data):  # every two nodes with an event are an edge of the aggregated graph
        return
    if isinstance(data, nx.Graph) or type(data).__module__.partition(".")[0] == "igraph":
        directed = data.is_directed()
    elif sp.issparse(data):
        directed = bool((data != data.T).nnz)
    elif hasattr(data, "is_undirected") and getattr(data, "edge_index", None) is not None:
        directed = not data.is_undirected()
    else:
        return
    if directed:
        raise InputError("the graph is directed and the private methods protect undirected edges; make it undirected "
                         "first (torch_geometric.utils.to_undirected, networkx to_undirected)")
