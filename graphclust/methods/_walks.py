"""Node vectors from random walks: node2vec's walks, and two ways to make vectors of what meets on them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from sklearn.utils.extmath import randomized_svd

# Walks a step of skip-gram.
BATCH = 64
# Step size of skip-gram at its start; it falls linearly to nothing, as in word2vec.
LR = 0.025


def random_walks(
    adjacency: sp.csr_array, per_node: int, length: int, rng: np.random.Generator, p: float = 1.0, q: float = 1.0
) -> np.ndarray:
    """Second-order random walks (node2vec, arXiv 1607.00653, section 3.2).

    From v, having come from t, the next node x is drawn with probability proportional to alpha(t, x) w_vx, where alpha
    is 1/p for x = t, 1 for a neighbour x of t and 1/q for any other (equation 2). A node without neighbours stays.

    Parameters
    ----------
    adjacency : symmetric, weights >= 0
    per_node : walks that start at each node
    length : nodes of a walk
    rng : the only source of randomness
    p, q : return and in-out parameter; 1 and 1 give first-order walks (DeepWalk)

    Returns
    -------
    walks : (n * per_node, length) int32
    """
    n = adjacency.shape[0]
    cumulative = np.cumsum(adjacency.data, dtype=np.float64)
    before = np.append(0.0, cumulative)[adjacency.indptr]
    alone = np.diff(adjacency.indptr) == 0
    keys = np.repeat(np.arange(n, dtype=np.int64), np.diff(adjacency.indptr)) * n + adjacency.indices
    highest = max(1.0, 1 / p, 1 / q)

    def propose(at: np.ndarray) -> np.ndarray:
        """A neighbour of each node, by weight."""
        low, high = before[at], before[at + 1]
        entry = np.searchsorted(cumulative, low + rng.random(len(at)) * (high - low), side="right")
        entry = np.minimum(entry, adjacency.indptr[at + 1] - 1)
        return np.where(alone[at], at, adjacency.indices[entry] if adjacency.nnz else at)

    def accepted(previous: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Rejection sampling: keep x with probability alpha(t, x) / max alpha."""
        key = previous * n + x
        known = keys[np.minimum(np.searchsorted(keys, key), len(keys) - 1)] == key
        alpha = np.where(x == previous, 1 / p, np.where(known, 1.0, 1 / q))
        return rng.random(len(x)) * highest < alpha

    walks = np.empty((length, n * per_node), dtype=np.int32)
    walks[0] = np.tile(np.arange(n), per_node)
    for step in range(1, length):
        at = walks[step - 1]
        walks[step] = propose(at)
        if p == q == 1 or step == 1:
            continue
        previous = walks[step - 2].astype(np.int64)
        open_ = np.flatnonzero(~alone[at])
        while len(open_):
            open_ = open_[~accepted(previous[open_], walks[step][open_])]
            walks[step][open_] = propose(at[open_])
    return walks.T


def cooccurrence(walks: np.ndarray, n: int, window: int) -> sp.csr_array:
    """How often two nodes lie within ``window`` steps of each other on a walk, (n, n), symmetric.

    A pair r steps apart counts (window + 1 - r) / window, which is what word2vec's random shrinking of the window
    comes to on average.
    """
    total = sp.csr_array((n, n), dtype=np.float32)
    for r in range(1, min(window, walks.shape[1] - 1) + 1):
        i, j = walks[:, :-r].ravel(), walks[:, r:].ravel()
        weight = np.full(len(i), (window + 1 - r) / window, dtype=np.float32)
        total = total + sp.coo_array((weight, (i, j)), shape=(n, n)).tocsr()
    return sp.csr_array(total + total.T)


def factorise(counts: sp.csr_array, dim: int, seed: int) -> np.ndarray:
    """U sqrt(S) of the positive pointwise mutual information of ``counts``, (n, min(dim, n)), float32.

    log(#(i,j) #total / (#(i) #(j))) is what skip-gram with one negative sample factorises (Levy and Goldberg, NeurIPS
    2014, equation 11; for walks: NetMF, arXiv 1710.02971); negative values count as 0, which keeps the matrix sparse.
    """
    entries = counts.tocoo()
    i, j = entries.coords
    marginal = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    information = np.log(entries.data * marginal.sum() / (marginal[i] * marginal[j]))
    keep = information > 0
    matrix = sp.csr_array((information[keep].astype(np.float32), (i[keep], j[keep])), shape=counts.shape)
    dim = min(dim, matrix.shape[0])
    u, s, _ = randomized_svd(matrix, dim, random_state=seed)
    return (u * np.sqrt(s)).astype(np.float32)


def skip_gram(
    walks: np.ndarray, n: int, dim: int, window: int, negatives: int, generator: torch.Generator
) -> np.ndarray:
    """Skip-gram with negative sampling on walks, one pass (word2vec, arXiv 1310.4546, equation 4), (n, dim) float32.

    For each walk all its pairs within the window are trained at once; the walk's nodes share ``negatives`` times
    ``length`` nodes drawn by degree^0.75, weighted so that a pair still meets ``negatives`` of them.
    """
    length = walks.shape[1]
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
    near = torch.where((distance > 0) & (distance <= window), (window + 1 - distance) / window, 0.0)
    inner = (torch.rand(n, dim, generator=generator) - 0.5) / dim
    outer = torch.zeros(n, dim)
    frequency = torch.from_numpy(np.cumsum(np.bincount(walks.ravel(), minlength=n) ** 0.75))
    order = torch.randperm(len(walks), generator=generator).split(BATCH)
    share = near.sum(1, keepdim=True) / length
    for step, rows in enumerate(order):
        nodes = torch.from_numpy(walks[rows.numpy()]).long()
        drawn = torch.rand(len(nodes), negatives * length, generator=generator, dtype=torch.float64) * frequency[-1]
        noise = torch.searchsorted(frequency, drawn).clamp_max(n - 1)
        u, v, w = (F.embedding(i, t).requires_grad_() for i, t in ((nodes, inner), (nodes, outer), (noise, outer)))
        loss = -(near * F.logsigmoid(u @ v.mT)).sum() - (share * F.logsigmoid(-u @ w.mT)).sum()
        loss.backward()
        lr = LR * (1 - step / len(order))
        for index, table, part in ((nodes, inner, u), (nodes, outer, v), (noise, outer, w)):
            add_rows(table, index, part.grad, -lr)
    return inner.numpy()


def add_rows(table: torch.Tensor, index: torch.Tensor, change: torch.Tensor | None, factor: float) -> None:
    """table[index] += factor * change in place, repeated rows adding up: a step of SGD on the rows of a batch alone.

    Parameters
    ----------
    table : (n, d)
    index : (...) int64
    change : (..., d)
    """
    assert change is not None
    d = table.shape[1]
    table.scatter_add_(0, index.reshape(-1, 1).expand(-1, d), change.reshape(-1, d) * factor)
