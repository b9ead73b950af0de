"""What only leidenalg can do: size limits, fixed nodes, surprise, significance, slices of time.

11 to 15 times slower than igraph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import igraph
import leidenalg
import numpy as np

from graphclust.graph import Graph, InputError

# leidenalg's size limits are a penalty that is off by default; at this strength it outweighs any gain in quality.
ENFORCEMENT = 1e6

PARTITIONS = {
    "modularity": leidenalg.RBConfigurationVertexPartition,
    "cpm": leidenalg.CPMVertexPartition,
    "surprise": leidenalg.SurpriseVertexPartition,
    "significance": leidenalg.SignificanceVertexPartition,
}


def leiden(
    g: igraph.Graph,
    weights: list[float] | None,
    objective: str,
    resolution: float,
    n_iterations: int,
    rng: np.random.Generator,
    *,
    min_size: int | None = None,
    max_size: int | None = None,
    fixed: np.ndarray | None = None,
) -> np.ndarray:
    """One run of leidenalg's Leiden; labels of shape (n,), 0..K-1.

    Parameters
    ----------
    g, weights : the graph
    objective : "modularity", "cpm", "surprise" or "significance"
    resolution : of the first two
    n_iterations, rng
    min_size, max_size : limits on the size of a community
    fixed : (n,) int, the community of each node that must stay where it is, -1 for the others

    Raises
    ------
    InputError
        No partition within the limits was found.
    """
    options: dict[str, Any] = {} if objective == "significance" else {"weights": weights}
    if objective in ("modularity", "cpm"):
        options["resolution_parameter"] = resolution
    is_fixed = None
    if fixed is not None:
        is_fixed = (fixed >= 0).tolist()
        start = np.unique(fixed, return_inverse=True)[1]
        free = fixed < 0
        start[free] = start.max() + 1 + np.arange(free.sum())
        options["initial_membership"] = start.tolist()
    partition = PARTITIONS[objective](g, **options)
    optimiser = leidenalg.Optimiser()
    optimiser.set_rng_seed(int(rng.integers(2**31)))
    if min_size or max_size:
        optimiser.min_comm_size, optimiser.max_comm_size = min_size or 0, max_size or g.vcount()
        optimiser.community_constraint_enforcement = ENFORCEMENT
    optimiser.optimise_partition(partition, n_iterations=n_iterations, is_membership_fixed=is_fixed)
    labels = np.unique(partition.membership, return_inverse=True)[1]
    sizes = np.bincount(labels)
    if (min_size and sizes.min() < min_size) or (max_size and sizes.max() > max_size):
        raise InputError(
            f"min_cluster_size = {min_size}, max_cluster_size = {max_size}: no partition within these limits was "
            f"found; the nearest has sizes {sizes.min()} to {sizes.max()}; widen the limits"
        )
    return labels


def quality(g: igraph.Graph, weights: list[float] | None, objective: str, labels: np.ndarray) -> float:
    """Surprise or significance of the partition ``labels`` (n,)."""
    options = {} if objective == "significance" else {"weights": weights}
    return float(PARTITIONS[objective](g, initial_membership=labels.tolist(), **options).quality())


def multislice(
    slices: Sequence[Graph], omega: float, resolution: float, n_iterations: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Leiden on the multislice modularity of Mucha et al. 2010 (doi:10.1126/science.1184819, eq. 1).

    Parameters
    ----------
    slices : W graphs of the same n nodes, in the order of time, at least one with an edge
    omega : coupling of a node with itself in the next slice in which it has an edge
    resolution : gamma
    n_iterations, rng

    Returns
    -------
    labels of shape (W, n), -1 for a node without an edge in the slice, and Q.
    """
    active = np.stack([graph.degrees > 0 for graph in slices])
    vertex = np.cumsum(active).reshape(active.shape) - 1
    count = int(active.sum())
    partitions = []
    for graph, own in zip(slices, vertex, strict=True):
        pairs, weights = graph.edges()
        layer = igraph.Graph(count, own[pairs])
        partitions.append(leidenalg.RBConfigurationVertexPartition(
            layer, weights=weights.tolist(), resolution_parameter=resolution
        ))
    coupling = igraph.Graph(count, _couplings(active, vertex))
    # a constant Potts model of resolution 0 counts the coupling inside communities and nothing else
    partitions.append(leidenalg.CPMVertexPartition(
        coupling, weights=[omega] * coupling.ecount(), node_sizes=[0] * count, resolution_parameter=0
    ))
    optimiser = leidenalg.Optimiser()
    optimiser.set_rng_seed(int(rng.integers(2**31)))
    optimiser.optimise_partition_multiplex(partitions, n_iterations=n_iterations)
    labels = np.full(active.shape, -1)
    labels[active] = np.unique(partitions[0].membership, return_inverse=True)[1]
    # leidenalg counts every pair of an undirected layer twice, as the sum over i, j, s, r does
    total = sum(float(graph.degrees.sum()) for graph in slices) + 2 * omega * coupling.ecount()
    return labels, float(sum(partition.quality() for partition in partitions) / total)


def _couplings(active: np.ndarray, vertex: np.ndarray) -> np.ndarray:
    """Pairs of vertices (C, 2): a node in two slices between which it is in none."""
    node, slice_ = np.nonzero(active.T)
    last = np.flatnonzero(node[:-1] == node[1:])
    own = vertex[slice_, node]
    return np.column_stack((own[last], own[last + 1]))
