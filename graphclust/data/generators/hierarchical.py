"""Hierarchical stochastic block model on a balanced tree (Dreveton et al. 2023, arXiv 2306.00833)."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

from graphclust.data.generators.sampling import bernoulli_pairs, planted, real, whole
from graphclust.graph import InputError


def hsbm(
    depth: int = 4, arity: int = 2, leaf_size: int = 100, a_leaf: float = 35.0, beta: float = 0.4,
    p_leaf: float | None = None, seed: int = 0,
) -> Data:
    """Nodes sit in the leaves of a tree; the deeper the lowest common ancestor of two nodes, the likelier their edge.

    ``p_l = a_l log(N) / N`` with ``a_l = a_leaf * beta**(depth - l)``, l being the depth of the lowest common ancestor
    (0: the root, ``depth``: the same leaf) and N the number of nodes.

    Parameters
    ----------
    depth, arity : levels below the root and children of each inner vertex: ``arity**depth`` leaves
    leaf_size : nodes of a leaf
    a_leaf, beta : see the formula; 0 <= beta
    p_leaf : the link probability inside a leaf, instead of a_leaf
    seed : of the one generator that draws everything

    Returns
    -------
    Data
        ``y`` the leaf; ``y_levels`` (n, depth) int64 the ancestor at depths 1..depth (the last column is ``y``).
    """
    rng = np.random.default_rng(whole("seed", seed, 0))
    depth, arity, leaf_size = whole("depth", depth, 1), whole("arity", arity, 2), whole("leaf_size", leaf_size, 1)
    beta = real("beta", beta, 0)
    n = arity**depth * leaf_size
    if p_leaf is None:
        p_leaf = real("a_leaf", a_leaf, 0) * np.log(n) / n
    else:
        p_leaf = real("p_leaf", p_leaf, 0, 1)
    probability = [p_leaf * beta ** (depth - level) for level in range(depth + 1)]
    if max(probability) > 1:
        raise InputError(
            f"a_leaf = {a_leaf:g} with beta = {beta:g} and n = {n} nodes makes a link probability of "
            f"{max(probability):.3g}; it must be at most 1: lower a_leaf or beta, or enlarge leaf_size"
        )
    nodes = np.arange(n)
    size = [arity ** (depth - level) * leaf_size for level in range(depth + 1)]
    parts = []
    for level, p in enumerate(probability):
        first = nodes - nodes % size[level]  # where the ancestor's nodes begin
        until = nodes - nodes % size[level + 1] if level < depth else nodes  # and where the child's begin
        parts.append(bernoulli_pairs(first, until - first, p, rng))
    v, u = (np.concatenate(side) for side in zip(*parts, strict=True))
    levels = np.stack([nodes // size[level] for level in range(1, depth + 1)], axis=1)
    params = {"depth": depth, "arity": arity, "leaf_size": leaf_size, "p_leaf": p_leaf, "beta": beta, "seed": seed}
    data, order = planted("hsbm", v, u, levels[:, -1], arity**depth, rng, params)
    data.y_levels = torch.from_numpy(levels[order])
    return data
