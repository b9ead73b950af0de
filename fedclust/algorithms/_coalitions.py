"""FedCollab's objective and its search: which clients should train together, given their divergences and sizes.

Source: Bao, Wang, Wu & He, ICML 2023, arXiv 2306.06508: their bound with alpha_ij = n_j / n_S inside a coalition S:

    L = sum_i [ C / sqrt(n_S(i)) + sum_{j in S(i)} (n_j / n_S(i)) D_ij ],   n_S = sum of n_j over the coalition S

Coalition by coalition, with Q(S) = sum_{i, j in S} n_j D_ij, this is L = sum_S [ C |S| / sqrt(n_S) + Q(S) / n_S ]: a
move touches two coalitions only, and its gain needs no more than |S|, n_S, Q(S) and T_iS, client i's part in Q(S + i).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.cluster.hierarchy import average, cut_tree
from scipy.spatial.distance import squareform

# A gain below this is rounding, not progress.
TOLERANCE = 1e-10


def objective(divergence: np.ndarray, n_samples: np.ndarray, labels: np.ndarray, c: float) -> float:
    """L of a partition, straight from the definition.

    Parameters
    ----------
    divergence : (N, N), >= 0, zero diagonal
    n_samples : (N,), > 0
    labels : (N,) int, the coalition of every client
    c : C >= 0, the price of few samples
    """
    together = labels[:, None] == labels
    share = together * n_samples / (together @ n_samples)[:, None]  # alpha_ij
    return float((c / np.sqrt(together @ n_samples)).sum() + (share * divergence).sum())


class Partition:
    """A partition with everything that the gain of a move, a swap or a merge needs.

    Parameters
    ----------
    divergence, n_samples, c : as of :func:`objective`
    labels : (N,) int in 0..N-1

    Attributes
    ----------
    cost : (N,) L_S of every coalition, 0 for an empty one; L is their sum
    """

    def __init__(self, divergence: np.ndarray, n_samples: np.ndarray, c: float, labels: np.ndarray) -> None:
        self.n_samples, self.c, self.labels = n_samples.astype(float), c, labels.copy()
        paid = divergence * self.n_samples  # n_j D_ij
        self._pair = paid + paid.T
        member = np.eye(len(labels))[labels]  # (N, coalitions)
        self._size, self._weight = member.sum(0), self.n_samples @ member
        self._links = self._pair @ member  # T_iS = sum_{j in S} n_j D_ij + n_i D_ji
        self._inside = (member * self._links).sum(0) / 2  # Q(S)
        self.cost = self._price(self._size, self._weight, self._inside)

    def _price(self, size: np.ndarray, weight: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """L_S = C |S| / sqrt(n_S) + Q(S) / n_S."""
        weight = np.where(size > 0, weight, 1.0)
        return np.where(size > 0, self.c * size / np.sqrt(weight) + inside / weight, 0.0)

    def move_gains(self, i: int) -> np.ndarray:
        """(N,) decrease of L when client i moves to each coalition; 0 for its own."""
        a, n = self.labels[i], self.n_samples[i]
        left = self._price(self._size[a] - 1, self._weight[a] - n, self._inside[a] - self._links[i, a])
        joined = self._price(self._size + 1, self._weight + n, self._inside + self._links[i])
        gains = self.cost[a] + self.cost - left - joined
        gains[a] = 0
        return gains

    def swap_gains(self) -> np.ndarray:
        """(N, N) decrease of L when clients i and j change places; 0 for two of one coalition."""
        a, n = self.labels, self.n_samples
        own = self._links[np.arange(len(a)), a]
        # coalition of i after i left and j came
        weight = self._weight[a][:, None] - n[:, None] + n
        inside = self._inside[a][:, None] - own[:, None] + self._links[:, a].T - self._pair
        after = self._price(np.broadcast_to(self._size[a][:, None], weight.shape), weight, inside)
        gains = self.cost[a][:, None] + self.cost[a] - after - after.T
        return np.where(a[:, None] == a, 0.0, gains)

    def merge_gains(self) -> np.ndarray:
        """(N, N) decrease of L when two coalitions become one; 0 where either is empty, and on the diagonal."""
        across = np.eye(len(self.labels))[self.labels].T @ self._links
        size, weight, inside = (np.add.outer(v, v) for v in (self._size, self._weight, self._inside))
        gains = np.add.outer(self.cost, self.cost) - self._price(size, weight, inside + across)
        np.fill_diagonal(gains, 0.0)
        filled = self._size > 0
        return np.where(np.outer(filled, filled), gains, 0.0)

    def move(self, i: int, coalition: int) -> None:
        """Client i joins ``coalition``."""
        for s, sign in ((self.labels[i], -1), (coalition, 1)):
            self._inside[s] += sign * self._links[i, s]
            self._size[s] += sign
            self._weight[s] += sign * self.n_samples[i]
            self._links[:, s] += sign * self._pair[:, i]
        self.labels[i] = coalition
        self.cost = self._price(self._size, self._weight, self._inside)

    def swap(self, i: int, j: int) -> None:
        """Clients i and j change places."""
        a, b = int(self.labels[i]), int(self.labels[j])
        self.move(i, b)
        self.move(j, a)

    def merge(self, a: int, b: int) -> None:
        """Coalition b joins a."""
        for i in np.flatnonzero(self.labels == b):
            self.move(int(i), a)


def find_coalitions(
    divergence: np.ndarray, n_samples: np.ndarray, c: float, rng: np.random.Generator, *, restarts: int = 20,
) -> np.ndarray:
    """The best partition that local search finds.

    From each start it sweeps over the clients in random order, moving each to its best coalition, as the authors do;
    where no client wants to move, the best merge of two coalitions is tried, then the best swap of two clients, which
    single moves can only reach uphill. It ends where none of the three lowers L. The starts are singletons (the
    authors'), random partitions, and every cut of the average-linkage tree of D: small clients that have joined a large
    stranger would have to leave it together, which none of the moves can do.

    Parameters
    ----------
    divergence, n_samples, c : as of :func:`objective`
    rng : orders the sweeps and draws the random starts
    restarts : starts from singletons, and as many from random partitions

    Returns
    -------
    (N,) int labels 0..K-1, numbered by first member; the best of all starts.
    """
    best, lowest = np.zeros(len(n_samples), dtype=int), np.inf
    for start in _starts(divergence, rng, restarts):
        partition = Partition(divergence, n_samples, c, start)
        while _sweep(partition, rng) or _merge(partition) or _swap(partition):
            pass
        total = partition.cost.sum()
        if total < lowest - TOLERANCE:
            best, lowest = partition.labels, total
    return first_come(best)


def _starts(divergence: np.ndarray, rng: np.random.Generator, restarts: int) -> Iterator[np.ndarray]:
    n = len(divergence)
    if n > 1:
        symmetric = (divergence + divergence.T) / 2
        yield from cut_tree(average(squareform(symmetric, checks=False))).T
    for _ in range(restarts):
        yield np.arange(n)
        yield rng.integers(rng.integers(1, n + 1), size=n)


def _sweep(partition: Partition, rng: np.random.Generator) -> bool:
    moved = False
    for i in rng.permutation(len(partition.labels)):
        gains = partition.move_gains(i)
        if gains.max() > TOLERANCE:
            partition.move(i, int(gains.argmax()))
            moved = True
    return moved


def _merge(partition: Partition) -> bool:
    gains = partition.merge_gains()
    a, b = np.unravel_index(gains.argmax(), gains.shape)
    if gains[a, b] > TOLERANCE:
        partition.merge(int(a), int(b))
    return bool(gains[a, b] > TOLERANCE)


def _swap(partition: Partition) -> bool:
    gains = partition.swap_gains()
    i, j = np.unravel_index(gains.argmax(), gains.shape)
    if gains[i, j] > TOLERANCE:
        partition.swap(int(i), int(j))
    return bool(gains[i, j] > TOLERANCE)


def first_come(labels: np.ndarray) -> np.ndarray:
    """The same partition with labels 0..K-1 in the order in which they first occur."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def c_curve(
    divergence: np.ndarray, n_samples: np.ndarray, cs: np.ndarray, rng: np.random.Generator, *, restarts: int = 5,
) -> np.ndarray:
    """The partitions (G, N) found for each of ``cs`` (G,); their numbers of coalitions fall as C grows."""
    return np.stack([find_coalitions(divergence, n_samples, c, rng, restarts=restarts) for c in cs])


def most_stable(cs: np.ndarray, partitions: np.ndarray) -> float:
    """The C in the middle of the longest stretch of ``cs``, in equal ratios, over which the partition is the same.

    Parameters
    ----------
    cs : (G,) a geometric grid
    partitions : (G, N) of :func:`c_curve`
    """
    changes = np.flatnonzero((partitions[1:] != partitions[:-1]).any(axis=1)) + 1
    stretches = np.split(np.arange(len(cs)), changes)
    longest = max(stretches, key=len)
    return float(np.sqrt(cs[longest[0]] * cs[longest[-1]]))
