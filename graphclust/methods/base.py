"""The contract of every clusterer, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils._param_validation import InvalidParameterError

from graphclust.graph import Graph, InputError, as_graph
from graphclust.monitor import Monitor, Silent


@dataclass
class Clustering:
    """What a method's computation returns to :meth:`GraphClusterer.fit`.

    ``labels`` (n,) int; ``soft_assignment`` (n, K) with rows summing to 1 and column c belonging to label c;
    ``embedding`` (n, d); ``history`` one dict of losses an epoch; ``chosen`` what the method itself decided without
    labels (number of steps, stopping epoch, resolution...), for the run record.
    """

    labels: np.ndarray
    embedding: np.ndarray | None = None
    soft_assignment: np.ndarray | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)


class GraphClusterer(ClusterMixin, BaseEstimator, ABC):
    """Base of every method: the constructor stores, ``fit`` validates and computes, results end in ``_``.

    A subclass lives in ``graphclust/methods/<name>.py``, sets the class attributes, lists its parameter rules in
    ``_parameter_constraints`` (scikit-learn's form) and implements :meth:`_cluster`.

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int64
        Cluster ids 0..K-1, by decreasing cluster size.
    n_clusters_ : int
        Number of non-empty clusters.
    embedding_ : ndarray of shape (n, d) or None
    soft_assignment_ : ndarray of shape (n, K) or None
        Rows sum to 1.
    history_ : list of dict
        Losses per epoch; empty for methods that do not train.
    chosen_ : dict
        What the method decided by itself, without labels.
    privacy_ : None
        The privacy spent, for private methods.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    """Paper and identifier."""
    needs_features: ClassVar[bool] = False
    needs_k: ClassVar[bool] = False
    """True when ``n_clusters`` must be given (the method cannot find it)."""
    trains: ClassVar[bool] = False
    """True when the method has epochs, a history and a checkpoint."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    def fit(self, data: Any, y: Any = None, *, monitor: Monitor | None = None) -> Self:
        """Cluster the nodes of ``data``.

        Parameters
        ----------
        data : whatever :func:`graphclust.graph.as_graph` takes
        y : ignored, as scikit-learn's clusterers do
        monitor : watcher of the training, optional

        Raises
        ------
        InputError
            Bad data, a parameter outside its rule, ``n_clusters`` above the number of nodes, missing features.
        """
        try:
            self._validate_params()
        except InvalidParameterError as e:
            raise InputError(str(e)) from e
        graph = as_graph(data)
        self._check(graph)
        found = self._cluster(graph, np.random.default_rng(self._seed()), monitor or Silent())
        if len(found.labels) != graph.n:
            raise RuntimeError(f"{self.name} returned {len(found.labels)} labels for {graph.n} nodes")
        self.labels_, order = by_size(found.labels)
        self.n_clusters_ = len(order)
        self.embedding_ = found.embedding
        soft = found.soft_assignment
        if soft is not None:
            empty = np.setdiff1d(np.arange(soft.shape[1]), order)
            soft = soft[:, np.concatenate((order, empty)).astype(int)]
        self.soft_assignment_ = soft
        self.history_ = found.history
        self.chosen_ = found.chosen
        self.privacy_ = None
        return self

    def fit_predict(self, data: Any, y: Any = None, **kwargs: Any) -> np.ndarray:
        """Fit and return ``labels_``."""
        return self.fit(data, y, **kwargs).labels_

    @abstractmethod
    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        """Compute the partition; all randomness comes from ``rng``."""

    def _seed(self) -> Any:
        return getattr(self, "random_state", None)

    def _check(self, graph: Graph) -> None:
        k = getattr(self, "n_clusters", None)
        if k is None and self.needs_k:
            raise InputError(
                f"{self.name} needs the parameter n_clusters, which is None; give an int in 1..{graph.n} "
                "(-k on the command line), or use a method that finds it: leiden, leiden_auto"
            )
        if isinstance(k, Integral) and not 1 <= int(k) <= graph.n:
            raise InputError(f"n_clusters = {k}; it must lie in 1..n, and the graph has n = {graph.n} nodes")
        if self.needs_features and graph.x is None:
            raise InputError(
                f"{self.name} works on node features and the data has none; add features, or use a method that does "
                "without: leiden, leiden_auto, louvain, spectral"
            )


def by_size(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Relabel to 0..K-1 by decreasing size (ties: smaller old id first).

    Returns the new labels, shape (n,), and the old ids in their new order, shape (K,).
    """
    old, inverse, sizes = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse].astype(np.int64), old[order]
