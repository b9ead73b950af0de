"""The data sets that come with the package and its dependencies: no network, no file of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.neighbors import kneighbors_graph
from torch_geometric.data import Data

from graphclust.data.assemble import EdgePolicy, build
from graphclust.data.catalogue import CATALOGUE
from graphclust.data.npz import read_npz
from graphclust.graph import InputError

EMBEDDED = Path(__file__).parent / "embedded"


def debtopics13() -> Data:
    """Debian packages: dependencies as edges, description words as features, archive sections as classes."""
    data = read_npz(EMBEDDED / "debtopics13.npz", "debtopics13")
    del data.info["path"]
    return data


def karate() -> Data:
    """Zachary's karate club with its interaction counts as weights; the class is the faction joined."""
    import networkx as nx  # 11 MB that no other data set needs

    graph = nx.karate_club_graph()
    pairs = np.array(graph.edges)
    weights = np.array([w for *_, w in graph.edges.data("weight")], dtype=np.float64)
    clubs = [club for _, club in graph.nodes.data("club")]
    names = ["Mr. Hi", "Officer"]
    return build("karate", pairs.T, len(clubs), weights=weights, y=np.array([names.index(c) for c in clubs]),
                 class_names=names, policy=EdgePolicy(directed=False), info=_info("karate"))


def digits_knn(k: int = 5) -> Data:
    """Handwritten digits of 8 x 8 pixels, each joined to its ``k`` nearest (Euclidean), in either direction.

    Raises
    ------
    InputError
        ``k`` is no integer in 1..n-1.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < len(x):
        raise InputError(f"k = {k!r} neighbours; it must be an integer in 1..{len(x) - 1}")
    graph = kneighbors_graph(x, k).tocoo()
    return build("digits-knn", np.stack((graph.row, graph.col)), len(x), x=x, y=y, k=10,
                 info=_info("digits-knn"))


def _info(name: str) -> dict[str, str]:
    entry = CATALOGUE[name]
    return {"source": entry.source, "licence": entry.licence}


LOADERS = {"debtopics13": debtopics13, "karate": karate, "digits-knn": digits_knn}
