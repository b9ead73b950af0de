"""Linear operators on a graph: normalised adjacency, smoothed features, influence between nodes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from graphclust.graph import InputError

Normalisation = Literal["symmetric", "row"]
Influence = Literal["power", "cumulative", "ppr"]

# A dense result of more values than this (8 GB of float32) is refused.
MAX_DENSE = 2**31
# Working values at a time: a column block of `smooth`, a row block of one sparse product.
BLOCK = 2**25


def normalised_adjacency(
    adjacency: sp.csr_array, kind: Normalisation = "symmetric", self_loops: bool = True
) -> sp.csr_array:
    """D^-1/2 (A + I) D^-1/2 (Kipf & Welling 2017, arXiv 1609.02907, eq. 2) or D^-1 (A + I).

    Parameters
    ----------
    adjacency : csr_array of shape (n, n)
        Symmetric, without self-loops.
    kind : "symmetric" or "row"
    self_loops : add the identity first; D is the degree after that. Without it an isolated node has a zero row.

    Returns
    -------
    csr_array of shape (n, n), float32
    """
    a = sp.csr_array(adjacency, dtype=np.float32)
    if self_loops:
        a = sp.csr_array(a + sp.eye_array(a.shape[0], dtype=np.float32, format="csr"))
    else:
        a = a.copy()
    degree = np.asarray(a.sum(axis=1, dtype=np.float64)).ravel()
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    if kind == "row":
        a.data = (a.data / degree[rows]).astype(np.float32)
    elif kind == "symmetric":
        a.data = (a.data / np.sqrt(degree[rows] * degree[a.indices])).astype(np.float32)
    else:
        raise InputError(f"kind = {kind!r}; it must be 'symmetric' or 'row'")
    return a


def smooth(
    features: np.ndarray | sp.csr_array, adjacency: sp.csr_array, steps: int, kind: Normalisation = "symmetric"
) -> np.ndarray:
    """P^steps X, P the :func:`normalised_adjacency` with self-loops (SGC, Wu et al. 2019, arXiv 1902.07153, section 2).

    Works on blocks of columns, so that beside the result only two blocks are held.

    Parameters
    ----------
    features : array or csr_array of shape (n, d)
    adjacency : csr_array of shape (n, n)
    steps : int >= 0
    kind : "symmetric" or "row"

    Returns
    -------
    ndarray of shape (n, d), float32

    Raises
    ------
    InputError
        ``steps`` < 0, or n x d above 2**31 values: reduce the features first.
    """
    n, d = features.shape
    if steps < 0:
        raise InputError(f"steps = {steps}; it must be at least 0")
    if n * d > MAX_DENSE:
        raise InputError(f"smoothed features of {n} x {d} values exceed {MAX_DENSE}; reduce the features first (SVD)")
    p = normalised_adjacency(adjacency, kind)
    width = max(1, BLOCK // n)
    columns: Any = sp.csc_array(features) if sp.issparse(features) else features
    out = np.empty((n, d), dtype=np.float32)
    for start in range(0, d, width):
        block = columns[:, start : start + width]
        block = block.toarray() if sp.issparse(block) else np.asarray(block, dtype=np.float32)
        for _ in range(steps):
            block = p @ block
        out[:, start : start + width] = block
    return out


def influence(
    adjacency: sp.csr_array,
    steps: int,
    kind: Influence = "power",
    *,
    alpha: float = 0.15,
    epsilon: float = 0.0,
    max_nonzeros: int = 50_000_000,
) -> sp.csr_array:
    """How much each node's features reach each other node, with P = D^-1 (A + I).

    - ``power``: P^r, rows sum to 1.
    - ``cumulative``: P + P^2 + ... + P^r, rows sum to r.
    - ``ppr``: personalised PageRank truncated after r steps, Z <- (1 - alpha) Z P + alpha I from Z = I
      (APPNP, Gasteiger et al. 2019, arXiv 1810.05997, eq. 4); rows sum to 1.

    The bound: no row holds more than ``max_nonzeros // n`` entries, after any step, so that the result holds at most
    ``max_nonzeros`` (8 bytes each). A row with more keeps its largest, and is not renormalised: its sum then tells
    what was cut. Up to n = sqrt(max_nonzeros), 7,071 nodes by default, nothing can be cut.

    Parameters
    ----------
    adjacency : csr_array of shape (n, n)
    steps : int >= 1, r
    kind : "power", "cumulative" or "ppr"
    alpha : restart probability of "ppr", in (0, 1)
    epsilon : entries below it are dropped after each step; 0 keeps all
    max_nonzeros : int >= n

    Returns
    -------
    csr_array of shape (n, n), float32, sorted indices

    Raises
    ------
    InputError
        A parameter outside its range.
    """
    n = adjacency.shape[0]
    if steps < 1:
        raise InputError(f"steps = {steps}; it must be at least 1")
    if not 0 < alpha < 1:
        raise InputError(f"alpha = {alpha}; it must lie strictly between 0 and 1")
    if max_nonzeros < n:
        raise InputError(f"max_nonzeros = {max_nonzeros}; it must be at least n = {n}, one entry a row")
    top = max_nonzeros // n
    p = normalised_adjacency(adjacency, "row")
    if kind == "ppr":
        eye = sp.eye_array(n, dtype=np.float32, format="csr")
        result = eye
        for _ in range(steps):
            result = _prune(_product(result, p, epsilon, top) * np.float32(1 - alpha) + np.float32(alpha) * eye, 0, top)
    elif kind in ("power", "cumulative"):
        term = result = _prune(p, epsilon, top)
        for _ in range(steps - 1):
            term = _product(term, p, epsilon, top)
            result = term if kind == "power" else _prune(result + term, 0, top)
    else:
        raise InputError(f"kind = {kind!r}; it must be 'power', 'cumulative' or 'ppr'")
    result.sort_indices()
    return result


def _product(left: sp.csr_array, right: sp.csr_array, epsilon: float, top: int) -> sp.csr_array:
    """left @ right, pruned block by block: no more than a block of the full product ever exists."""
    degree = np.diff(right.indptr)
    work = np.add.reduceat(np.append(degree[left.indices], 0), left.indptr[:-1]).astype(np.int64)
    work[np.diff(left.indptr) == 0] = 0
    block_of = np.cumsum(np.minimum(work, right.shape[1])) // BLOCK
    starts = np.flatnonzero(np.diff(block_of, prepend=-1))
    ends = np.append(starts[1:], left.shape[0])
    blocks = [_prune(left[a:b] @ right, epsilon, top) for a, b in zip(starts, ends, strict=True)]
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def _prune(matrix: sp.csr_array, epsilon: float, top: int) -> sp.csr_array:
    """Drop entries below ``epsilon`` and, in each row, all but the ``top`` largest."""
    keep = matrix.data >= epsilon
    counts = np.diff(matrix.indptr)
    for row in np.flatnonzero(counts > top):
        start, end = matrix.indptr[row], matrix.indptr[row + 1]
        keep[start + np.argpartition(matrix.data[start:end], -top)[:-top]] = False
    if keep.all():
        return sp.csr_array(matrix)
    kept_before = np.concatenate(([0], np.cumsum(keep)))
    indptr = kept_before[matrix.indptr].astype(matrix.indptr.dtype)
    return sp.csr_array((matrix.data[keep], matrix.indices[keep], indptr), shape=matrix.shape)
