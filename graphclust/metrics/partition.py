"""Metrics of a partition against labels, all computed from one contingency table.

The ids on either side are names only: no value depends on them or on their order, and the two sides may have
different numbers of groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.stats import entropy
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from graphclust.graph import InputError

# Up to this many cells the matching is computed on the dense table, above it on the sparse one; both are exact.
DENSE_CELLS = 1_000_000


@dataclass(frozen=True, eq=False)
class Contingency:
    """How many nodes of class r lie in cluster c.

    Attributes
    ----------
    table : csr_array of shape (number of classes, number of clusters), int64
        Classes and clusters without nodes do not occur.
    """

    table: sp.csr_array

    @property
    def n(self) -> int:
        """Number of nodes."""
        return int(self.table.data.sum())

    @cached_property
    def classes(self) -> np.ndarray:
        """Nodes per class, shape (number of classes,)."""
        return np.asarray(self.table.sum(axis=1)).ravel()

    @cached_property
    def clusters(self) -> np.ndarray:
        """Nodes per cluster, shape (number of clusters,)."""
        return np.asarray(self.table.sum(axis=0)).ravel()

    @cached_property
    def entropies(self) -> tuple[float, float, float]:
        """H(classes), H(clusters) and their mutual information, in nats."""
        mutual = mutual_info_score(None, None, contingency=self.table)
        h_true, h_pred = entropy(self.classes), entropy(self.clusters)
        return float(h_true), float(h_pred), float(np.clip(mutual, 0.0, min(h_true, h_pred)))

    @cached_property
    def matching(self) -> tuple[np.ndarray, np.ndarray]:
        """One-to-one pairs (class, cluster) that put as many nodes as possible on their class (Hungarian method).

        Among the matchings with that many nodes, one with the largest sum of F1 values is taken, so that the F1
        metrics do not depend on the order of the ids. A pair without a common node does not count as matched.
        """
        cells = self.table.tocoo()
        sizes = self.classes[cells.row] + self.clusters[cells.col]
        # the F1 of all pairs together add up to less than one node
        weights = cells.data + 0.5 / min(cells.shape) * (2 * cells.data / sizes)
        if cells.shape[0] * cells.shape[1] <= DENSE_CELLS:
            gain = np.zeros(cells.shape)
            gain[cells.row, cells.col] = weights
            row, col = linear_sum_assignment(gain, maximize=True)
            real = gain[row, col] > 0
            return row[real], col[real]
        # each class may also take a column of its own for nothing: a full matching then always exists
        rows = np.arange(cells.shape[0])
        gain = sp.hstack([
            sp.csr_array((weights + 1, (cells.row, cells.col)), shape=cells.shape),
            sp.csr_array((np.ones(len(rows)), (rows, rows))),
        ]).tocsr()
        row, col = min_weight_full_bipartite_matching(gain, maximize=True)
        real = col < cells.shape[1]
        return row[real], col[real]

    @cached_property
    def matched(self) -> np.ndarray:
        """Nodes in the cells of the matching, shape (number of pairs,)."""
        row, col = self.matching
        return np.asarray(self.table[row, col]).ravel()

    @cached_property
    def pairs(self) -> tuple[int, int, int]:
        """Pairs of nodes together in both partitions, together in a cluster, together in a class."""
        both, cluster, true = (int((c * (c - 1)).sum()) // 2 for c in (self.table.data, self.clusters, self.classes))
        return both, cluster, true


def contingency(y: Any, labels: Any) -> Contingency:
    """The contingency table of true classes ``y`` and cluster ids ``labels``, both of shape (n,).

    Raises
    ------
    InputError
        Different lengths, not one-dimensional, or no nodes at all.
    """
    y, labels = np.asarray(y), np.asarray(labels)
    if y.ndim != 1 or y.shape != labels.shape:
        raise InputError(f"y has shape {y.shape} and labels {labels.shape}; both must be (n,) with the same n")
    if not len(y):
        raise InputError("y and labels are empty; at least one node is needed")
    return Contingency(sp.csr_array(contingency_matrix(y, labels, sparse=True, dtype=np.int64)))


def acc(c: Contingency) -> float:
    """Accuracy after the best one-to-one matching (Kuhn 1955); nodes of unmatched clusters count as wrong."""
    return float(c.matched.sum() / c.n)


def f1(c: Contingency) -> float:
    """F1 per class after matching, averaged over all classes (macro).

    Nodes of an unmatched cluster are misses of their class; a class without a cluster has F1 = 0.
    """
    row, col = c.matching
    per_class = 2 * c.matched / (c.classes[row] + c.clusters[col])
    return float(per_class.sum() / len(c.classes))


def micro_f1(c: Contingency) -> float:
    """F1 of the pooled counts after matching, 2 TP / (2 TP + FP + FN).

    A node of an unmatched cluster is a miss (FN) of its class and a false alarm (FP) of a class that does not exist.
    Every wrong node is then one of each, and the value equals :func:`acc`.
    """
    true_positives = int(c.matched.sum())
    wrong = c.n - true_positives
    return 2 * true_positives / (2 * true_positives + wrong + wrong)


def purity(c: Contingency) -> float:
    """Share of nodes in the majority class of their cluster; 1 for singletons, so compare at equal k only."""
    return float(c.table.max(axis=0).toarray().sum() / c.n)


def nmi(c: Contingency) -> float:
    """Mutual information over the arithmetic mean of the entropies; 1 for two one-group partitions."""
    h_true, h_pred, mutual = c.entropies
    if h_true == h_pred == 0:
        return 1.0
    return float(mutual / ((h_true + h_pred) / 2))


def ami(c: Contingency) -> float:
    """Mutual information adjusted for chance, arithmetic mean (Vinh, Epps & Bailey 2010); 0 at random."""
    cells = c.table.tocoo()
    return float(adjusted_mutual_info_score(np.repeat(cells.row, cells.data), np.repeat(cells.col, cells.data)))


def ari(c: Contingency) -> float:
    """Rand index adjusted for chance (Hubert & Arabie 1985, eq. 5); 1 when both partitions are trivial and equal."""
    both, cluster, true = c.pairs
    expected = cluster * true / max(1, c.n * (c.n - 1) // 2)
    largest = (cluster + true) / 2
    return 1.0 if largest == expected else float((both - expected) / (largest - expected))


def homogeneity(c: Contingency) -> float:
    """1 - H(classes | clusters) / H(classes) (Rosenberg & Hirschberg 2007); 1 when there is one class."""
    h_true, _, mutual = c.entropies
    return mutual / h_true if h_true else 1.0


def completeness(c: Contingency) -> float:
    """1 - H(clusters | classes) / H(clusters) (Rosenberg & Hirschberg 2007); 1 when there is one cluster."""
    _, h_pred, mutual = c.entropies
    return mutual / h_pred if h_pred else 1.0


def v_measure(c: Contingency) -> float:
    """Harmonic mean of homogeneity and completeness; equals the arithmetic NMI."""
    h, k = homogeneity(c), completeness(c)
    return 2 * h * k / (h + k) if h + k else 0.0


def vi(c: Contingency) -> float:
    """Variation of information in nats, H(classes | clusters) + H(clusters | classes) (Meila 2007, eq. 16)."""
    h_true, h_pred, mutual = c.entropies
    return max(0.0, h_true + h_pred - 2 * mutual)


def pairwise_precision(c: Contingency) -> float:
    """Of the pairs of nodes together in a cluster, the share together in a class.

    Without any pair in a cluster: 0, or 1 when no class has a pair either.
    """
    both, cluster, true = c.pairs
    return both / cluster if cluster else float(true == 0)


def pairwise_recall(c: Contingency) -> float:
    """Of the pairs of nodes together in a class, the share together in a cluster.

    Without any pair in a class: 0, or 1 when no cluster has a pair either.
    """
    both, cluster, true = c.pairs
    return both / true if true else float(cluster == 0)


def pairwise_f1(c: Contingency) -> float:
    """Harmonic mean of pairwise precision and recall; 1 when neither side has a pair."""
    both, cluster, true = c.pairs
    return 2 * both / (cluster + true) if cluster + true else 1.0
