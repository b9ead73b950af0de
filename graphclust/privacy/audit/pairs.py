"""Neighbouring graphs to try a method on: random ones, and those on which one edge weighs most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle

import networkx as nx
import numpy as np
import scipy.sparse as sp

from graphclust.graph import Graph, from_adjacency


@dataclass(frozen=True)
class Pair:
    """Two graphs that differ in the edge (u, v), and the family they come from."""

    family: str
    one: Graph
    two: Graph
    edge: tuple[int, int]


def _two_cliques(n: int, rng: np.random.Generator) -> nx.Graph:
    return nx.disjoint_union(nx.complete_graph(n // 2), nx.complete_graph(n - n // 2))


def _bridged(n: int, rng: np.random.Generator) -> nx.Graph:
    graph = _two_cliques(n, rng)
    graph.add_edge(0, n - 1)
    return graph


def _blocks(n: int, rng: np.random.Generator) -> nx.Graph:
    inside, outside = np.sort(rng.random(2))[::-1]
    return nx.planted_partition_graph(2, n // 2, inside, outside, seed=int(rng.integers(2**31)))


FAMILIES: dict[str, Callable[[int, np.random.Generator], nx.Graph]] = {
    "empty": lambda n, rng: nx.empty_graph(n),
    "tree": lambda n, rng: nx.random_labeled_tree(n, seed=int(rng.integers(2**31))),
    "star": lambda n, rng: nx.star_graph(n - 1),
    "two cliques": _two_cliques,
    "bridge": _bridged,
    "blocks": _blocks,
    "random": lambda n, rng: nx.gnp_random_graph(n, rng.random(), seed=int(rng.integers(2**31))),
    "sparse random": lambda n, rng: nx.gnp_random_graph(n, 3 / n, seed=int(rng.integers(2**31))),
    "complete": lambda n, rng: nx.complete_graph(n),
}


def pairs(n: int, weight: float, rng: np.random.Generator) -> Iterator[Pair]:
    """Pairs without end: each family in turn, with its end nodes 0 and n - 1, an edge, or any two nodes flipped.

    Parameters
    ----------
    n : number of nodes; at least 4
    weight : of every edge
    rng : decides on the graphs and the flips
    """
    for family, make in cycle(FAMILIES.items()):
        edges = nx.to_numpy_array(make(n, rng))
        if len(edges) < n:  # blocks of an odd n
            edges = np.pad(edges, (0, n - len(edges)))
        present = np.argwhere(np.triu(edges, 1))
        what = rng.integers(3)
        if what == 0:
            u, v = 0, n - 1
        elif what == 1 and len(present):
            u, v = present[rng.integers(len(present))]
        else:
            u, v = np.sort(rng.choice(n, 2, replace=False))
        yield Pair(family, as_weighted(edges, weight), as_weighted(flipped(edges, u, v), weight), (int(u), int(v)))


def flipped(edges: np.ndarray, u: int, v: int) -> np.ndarray:
    """A copy of the 0/1 matrix (n, n) with the pair u, v flipped."""
    other = edges.copy()
    other[u, v] = other[v, u] = 1 - edges[u, v]
    return other


def as_weighted(edges: np.ndarray, weight: float) -> Graph:
    """The graph of a 0/1 matrix (n, n), with this weight on every edge."""
    return from_adjacency(sp.csr_array((edges * weight).astype(np.float32)))
