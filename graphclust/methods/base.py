"""The contract of every clusterer, and the checks that all of them share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils._param_validation import InvalidParameterError

from graphclust.coerce import as_graph, as_stream
from graphclust.graph import InputError
from graphclust.monitor import Monitor, Silent


@dataclass
class Clustering:
    """What a method's computation returns to :meth:`GraphClusterer.fit`.

    ``labels`` (n,) int; ``soft_assignment`` (n, K) with rows summing to 1 and column c belonging to label c;
    ``embedding`` (n, d); ``history`` one dict of losses an epoch; ``chosen`` what the method itself decided without
    labels (number of steps, stopping epoch, resolution...), for the run record.

    Of temporal methods that follow clusters over time: ``window_labels`` (W, n) int, a cluster having the id it has in
    ``labels``, -1 for a node without an event in that window, and ``window_edges`` (W + 1,), the times between them.
    """

    labels: np.ndarray
    embedding: np.ndarray | None = None
    soft_assignment: np.ndarray | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)
    window_labels: np.ndarray | None = None
    window_edges: np.ndarray | None = None


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
    window_labels_, window_edges_ : ndarray of shape (W, n) and (W + 1,), or None
        Of temporal methods that follow clusters over time: the cluster of each node in each window of time (-1: no
        event in it; an id >= n_clusters_: a cluster that ``labels_`` has no more), and the times between the windows.
    privacy_ : graphclust.privacy.ledger.Ledger or None
        The privacy spent, of private methods.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    """Paper and identifier."""
    needs_features: ClassVar[bool] = False
    needs_k: ClassVar[bool] = False
    """True when ``n_clusters`` must be given (the method cannot find it)."""
    temporal: ClassVar[bool] = False
    """True when the method reads the times of events: :meth:`_cluster` then gets a Stream, else a Graph (of a stream
    the aggregated one)."""
    private: ClassVar[bool] = False
    """True when the method is differentially private: ``random_state`` then voids its guarantee."""
    trains: ClassVar[bool] = False
    """True when the method has epochs, a history and a checkpoint."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    def fit(self, data: Any, y: Any = None, *, monitor: Monitor | None = None) -> Self:
        """Cluster the nodes of ``data``.

        Parameters
        ----------
        data : whatever :func:`graphclust.coerce.as_graph` takes; for a temporal method what
            :func:`graphclust.coerce.as_stream` takes
        y : ignored, as scikit-learn's clusterers do
        monitor : watcher of the training, optional

        Raises
        ------
        InputError
            Bad data, a parameter outside its rule, ``n_clusters`` above the number of nodes, missing features.
        """
        self.check_params()
        graph = as_stream(data) if self.temporal else as_graph(data)
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
        self.window_labels_ = None if found.window_labels is None else follow(found.window_labels, order)
        self.window_edges_ = found.window_edges
        self.history_ = found.history
        self.chosen_ = found.chosen
        self.privacy_: Any = None
        return self

    def fit_predict(self, data: Any, y: Any = None, **kwargs: Any) -> np.ndarray:
        """Fit and return ``labels_``."""
        return self.fit(data, y, **kwargs).labels_

    @abstractmethod
    def _cluster(self, graph: Any, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        """Compute the partition of the Graph (temporal methods: Stream); all randomness comes from ``rng``."""

    def _seed(self) -> Any:
        return getattr(self, "random_state", None)

    def _identity(self, *extent: int) -> str:
        """What a checkpoint of this fit is valid for: the method, its parameters, the size of the data."""
        params = self.get_params(deep=False)
        if not isinstance(self._seed(), Integral):  # then the checkpoint's own seed counts
            params["random_state"] = None
        return json.dumps([self.name, params, *extent], default=str)

    def check_params(self) -> None:
        """Refuse parameters outside their rules, before the data is looked at."""
        try:
            self._validate_params()
        except InvalidParameterError as e:
            raise InputError(str(e)) from e

    def _check(self, graph: Any) -> None:
        k = getattr(self, "n_clusters", None)
        if k is None and self.needs_k:
            raise InputError(
                f"{self.name} needs the parameter n_clusters, which is None; give an int in 1..{graph.n} "
                "(-k on the command line), or use a method that finds it: leiden, leiden_auto"
            )
        if isinstance(k, Integral) and not 1 <= int(k) <= graph.n:
            raise InputError(f"n_clusters = {k}; it must lie in 1..n, and the graph has n = {graph.n} nodes")
        if self.needs_features and graph.x is None:
            from graphclust.methods import get_method, method_names

            classes = {name: get_method(name) for name in method_names()}
            without = [m for m, c in classes.items() if not (c.needs_features or c.temporal or c.private)]
            raise InputError(
                f"{self.name} works on node features and the data has none; add features, or use a method that does "
                f"without: {', '.join(without)}"
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


def follow(window_labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rename clusters as :func:`by_size` did: old id order[c] becomes c, ids not in ``order`` follow, -1 stays."""
    others = np.setdiff1d(window_labels, np.append(order, -1))
    old = np.concatenate((order, others))
    rank = np.argsort(old)
    renamed = rank[np.searchsorted(old, window_labels, sorter=rank).clip(max=len(old) - 1)]
    return np.where(window_labels < 0, -1, renamed).astype(np.int64)
