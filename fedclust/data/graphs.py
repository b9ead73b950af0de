"""Clients that hold a part of a graph: its nodes, and the edges among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from scipy.sparse import csr_array

from fedclust.data.deal import apportion
from fedclust.data.partition import Cut
from fedclust.data.settings import Settings, stream
from graphclust.coerce import as_graph
from graphclust.graph import Graph, InputError

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from graphclust.methods._features import FeatureTransform


class Clustering(Settings):
    """How clients who cluster their nodes prepare them, each from its own subgraph: nothing is fitted on all nodes.

    Features are scaled to rows of length 1, smoothed by D^-1/2 (A + I) D^-1/2 and multiplied by sqrt(d), a constant
    that all know, in place of their root mean square. What a fit on the whole graph would add is lost: weights of words
    by their frequency, singular vectors, centring.

    Parameters
    ----------
    smoothing : steps; one number for all, as one encoder is for all
    order : r of the influence Gamma = (D^-1 (A + I))^r
    """

    smoothing: NonNegativeInt = 4
    order: PositiveInt = 1


class Nodes(Cut):
    """Every node of the graph ``source`` (a reference for graphclust.data.load) goes to one client.

    A client has its nodes' features and the edges among its own nodes; edges between clients are lost, as in FedSage
    (Zhang et al. 2021, arXiv 2106.13430). The shares of test and validation count labelled nodes; the client sees the
    features of all its nodes while it trains (transductive).

    Parameters
    ----------
    method : "leiden": Leiden communities no larger than a client's equal part, packed so that the clients get about
        equally many nodes; "random": nodes at random, which keeps about 1/N of the edges
    clustering : None: the task is to classify nodes. Else it is to cluster them: all nodes of a client train, without
        labels, those with a label are its test samples, and ``test`` and ``validation`` are not used
    """

    kind: Literal["nodes"] = "nodes"
    method: Literal["leiden", "random"] = "leiden"
    clustering: Clustering | None = None


class LabelledGraph:
    """A graph with features and node labels, ready to be cut.

    Parameters
    ----------
    source : reference for :func:`graphclust.data.load`

    Attributes
    ----------
    graph, y (n,) with -1 for unknown, n_classes

    Raises
    ------
    InputError
        No features, or no labels.
    """

    def __init__(self, source: str) -> None:
        from graphclust.data import load

        data: Data = load(source)
        self.graph: Graph = as_graph(data)
        if self.graph.x is None or getattr(data, "y", None) is None:
            raise InputError(
                f"source = {source!r} has no {'features' if self.graph.x is None else 'labels'}; clients on nodes need "
                "both, as in asbm, debtopics13 and cora"
            )
        self.y = data.y.numpy()
        self.n_classes = int(data.k)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (d,) of one node's features."""
        assert self.graph.x is not None
        return (self.graph.x.shape[1],)

    def features(self, nodes: np.ndarray) -> np.ndarray:
        """(len(nodes), d) float32, dense."""
        assert self.graph.x is not None
        x = self.graph.x[nodes]
        return np.asarray(x if isinstance(x, np.ndarray) else x.todense(), dtype=np.float32)

    def adjacency(self, nodes: np.ndarray) -> torch.Tensor:
        """D^-1/2 (A + I) D^-1/2 of the subgraph, dense float32."""
        from graphclust.propagation import normalised_adjacency

        inner = self.graph.adjacency[nodes][:, nodes]
        return torch.from_numpy(normalised_adjacency(inner).toarray())

    def prepared(self, features: np.ndarray, nodes: np.ndarray, rule: Clustering) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepared features (n, d) and influence (n, n) of the subgraph of ``nodes`` (n,), both dense float32."""
        from graphclust.propagation import influence

        inner = Graph(csr_array(self.graph.adjacency[nodes][:, nodes]), features)
        gamma = influence(inner.adjacency, rule.order, "power")
        x = feature_transform(rule, features.shape[1]).transform(inner)
        return torch.from_numpy(x), torch.from_numpy(gamma.toarray().astype(np.float32))


def feature_transform(rule: Clustering, n_features: int) -> FeatureTransform:
    """How every client prepares its features, as graphclust describes it."""
    from graphclust.methods._features import FeatureTransform

    return FeatureTransform("l2", smoothing=rule.smoothing, scale=True, rms=n_features**-0.5, n_features=n_features,
                            steps=rule.smoothing)


def cut_nodes(rule: Nodes, graph: Graph, n_clients: int, seed: int) -> list[np.ndarray]:
    """The nodes of each client; together 0..n-1, each once.

    Raises
    ------
    InputError
        More clients than nodes.
    """
    if n_clients > graph.n:
        raise InputError(f"{n_clients} clients for {graph.n} nodes; take at most {graph.n} clients")
    rng = stream(seed, "nodes")
    if rule.method == "random":
        order, sizes = rng.permutation(graph.n), apportion(np.full(n_clients, 1 / n_clients), graph.n)
        return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]
    from graphclust.methods.leiden import Leiden

    largest = -(-graph.n // n_clients)
    communities = Leiden(max_cluster_size=largest, random_state=rng).fit(graph).labels_  # ids by decreasing size
    parts: list[list[np.ndarray]] = [[] for _ in range(n_clients)]
    filled = np.zeros(n_clients)
    for c in range(communities.max() + 1):
        members = np.flatnonzero(communities == c)
        smallest = int(filled.argmin())
        parts[smallest].append(members)
        filled[smallest] += len(members)
    return [np.sort(np.concatenate(part)) if part else np.zeros(0, np.int64) for part in parts]
