"""Hierarchical clustering of clients in the space of their updates."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.cluster.hierarchy import cut_tree, fcluster, linkage
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

Distance = Literal["euclidean", "cosine", "l1"]
Linkage = Literal["ward", "complete", "average", "single"]


def distances(vectors: Tensor, distance: Distance) -> np.ndarray:
    """Pairwise distances (S, S) of the rows of ``vectors``; cosine: 1 - cos, a zero vector being orthogonal to all."""
    metric = {"l1": "cityblock"}.get(distance, distance)
    found = squareform(pdist(vectors.double().numpy(), metric))
    return np.nan_to_num(found, nan=1.0)


def merges(d: np.ndarray, method: Linkage) -> np.ndarray:
    """The dendrogram of distances (S, S), S >= 2, in scipy's form: S - 1 merges by increasing height."""
    return linkage(squareform(d, checks=False), method)


def cut_into(tree: np.ndarray, k: int) -> np.ndarray:
    """Labels (S,) of exactly k clusters, at most S."""
    return cut_tree(tree, n_clusters=min(k, len(tree) + 1))[:, 0]


def cut_at_distance(tree: np.ndarray, threshold: float) -> np.ndarray:
    """Labels (S,) of the clusters whose merges all lie at most this high."""
    return fcluster(tree, threshold, criterion="distance") - 1


def cut_at_gap(tree: np.ndarray, least: float) -> np.ndarray:
    """Labels (S,) where the merge heights have their largest relative gap (h_{j+1} - h_j) / h_{j+1}.

    Only cuts into at most S / 2 clusters are looked at, for the first merges join what is alike by chance. One cluster
    when no gap reaches ``least``.
    """
    upper = tree[(len(tree) - 1) // 2 :, 2]
    gaps = np.diff(upper) / np.maximum(upper[1:], np.finfo(float).tiny)
    if not len(gaps) or gaps.max() < least:
        return np.zeros(len(tree) + 1, dtype=int)
    return cut_into(tree, len(gaps) - int(gaps.argmax()) + 1)


def cut_by_silhouette(tree: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Labels (S,) of the cut with the largest mean silhouette on distances (S, S); one cluster when none is above 0."""
    from sklearn.metrics import silhouette_score  # long to import, and clients need none of it

    cuts = [cut_into(tree, k) for k in range(2, len(d))]
    scores = [silhouette_score(d, labels, metric="precomputed") for labels in cuts]
    if not scores or max(scores) <= 0:
        return np.zeros(len(d), dtype=int)
    return cuts[int(np.argmax(scores))]


def dissolve_small(labels: np.ndarray, d: np.ndarray, least: int) -> np.ndarray:
    """Labels (S,) after the members of clusters with fewer than ``least`` went to the large cluster nearest on average.

    Without any large cluster all are one.
    """
    ids, sizes = np.unique(labels, return_counts=True)
    large = ids[sizes >= least]
    if not len(large):
        return np.zeros_like(labels)
    to = np.stack([d[:, labels == k].mean(1) for k in large], axis=1)
    return np.where(np.isin(labels, large), labels, large[to.argmin(1)])


def in_order(labels: np.ndarray) -> Tensor:
    """Labels (S,) renumbered 0..K-1 by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return torch.from_numpy(np.argsort(np.argsort(first))[inverse])


def centroids(vectors: Tensor, groups: Tensor, distance: Distance) -> Tensor:
    """Means (K, P) of the groups' vectors; under cosine of their directions."""
    if distance == "cosine":
        vectors = torch.nn.functional.normalize(vectors)
    return torch.stack([vectors[groups == k].mean(0) for k in range(int(groups.max()) + 1)])


def nearest(vectors: Tensor, centres: Tensor, distance: Distance) -> Tensor:
    """(S,) the centre at the smallest distance of every vector."""
    if distance == "cosine":
        return torch.nn.functional.cosine_similarity(vectors[:, None], centres[None], dim=2).argmax(1)
    return torch.cdist(vectors, centres, p=1 if distance == "l1" else 2).argmin(1)
