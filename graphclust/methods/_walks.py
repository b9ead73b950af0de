"""Node vectors from random walks: node2vec's walks, and the factorisation of what meets on them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

# Rows shorter than this share of the longest are noise of the factorisation.
SEEN = 1e-4
# Entries of a matrix that are worked on at once in float64, to spare memory.
BLOCK = 2**22


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
    """Rows of U S, scaled to length 1, of the positive mutual information of ``counts``; (n, dim) float32.

    log(#(i,j) #total / (#(i) #(j))) is what skip-gram with one negative sample factorises (Levy and Goldberg, NeurIPS
    2014, equation 11; for walks: NetMF, arXiv 1710.02971); negative values count as 0, which keeps the matrix sparse.
    U S and not U sqrt(S): the angles are then those between the rows of the matrix itself. Columns that the matrix is
    too small for are 0, and so is the row of a node that meets none, or of which the dim leading directions see nothing
    (small components).
    """
    marginal = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    i, j = np.repeat(np.arange(counts.shape[0], dtype=np.int32), np.diff(counts.indptr)), counts.indices
    information = np.empty(counts.nnz, np.float32)
    for start in range(0, counts.nnz, BLOCK):
        at = slice(start, start + BLOCK)
        information[at] = np.log(counts.data[at] * marginal.sum() / (marginal[i[at]] * marginal[j[at]]))
    matrix = sp.csr_array((information.clip(0), j, counts.indptr), shape=counts.shape)
    u, s, _ = randomized_svd(matrix, min(dim, matrix.shape[0]), n_iter=3, random_state=seed)
    z = u * s
    length = np.linalg.norm(z, axis=1, keepdims=True)
    z = np.where(length > SEEN * length.max(initial=0), z / np.maximum(length, np.finfo(z.dtype).tiny), 0)
    return np.pad(z, ((0, 0), (0, dim - z.shape[1]))).astype(np.float32)
