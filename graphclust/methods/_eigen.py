"""Leading eigenvectors of a graph's operators, and the number of communities they show. Never by shift-invert."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh

from graphclust.graph import Graph, InputError

# Up to this many nodes the dense eigenproblem is solved (1 MB), which needs no start vector and no convergence.
DENSE = 512
# Lanczos vectors of more values than this in all (4 GB) are refused.
MAX_BASIS = 2**30
# How many communities the count looks for at most.
MAX_COUNT = 256


def regularised_adjacency(graph: Graph, tau: float | None = None) -> sp.csr_array:
    """(D + tau I)^-1/2 A (D + tau I)^-1/2, float32 (Qin & Rohe 2013, arXiv 1309.4111, section 1.1).

    ``tau`` None is the mean degree, their recommendation. Rows of isolated nodes are zero.
    """
    a, degrees = graph.adjacency, graph.degrees
    tau = float(degrees.mean()) if tau is None else tau
    scale = np.divide(1, np.sqrt(degrees + tau), out=np.zeros(graph.n), where=degrees + tau > 0)
    data = a.data * np.repeat(scale, np.diff(a.indptr)) * scale[a.indices]
    return sp.csr_array((data.astype(np.float32), a.indices, a.indptr), shape=a.shape)


def bethe_hessian_radius(degrees: np.ndarray) -> float:
    """r = sqrt(<d^2> / <d> - 1), the estimate of the non-backtracking spectral radius's root; 1 without edges.

    Saade, Krzakala & Zdeborova 2014, arXiv 1406.1880, section 2 (r_c).
    """
    mean = degrees.mean()
    return float(np.sqrt(max((degrees**2).mean() / mean - 1, 1.0))) if mean else 1.0


def bethe_hessian(graph: Graph) -> sp.csr_array:
    """-H(r) = r A - D - (r^2 - 1) I, so that the informative eigenvalues are the largest (same paper, eq. 1)."""
    r = bethe_hessian_radius(graph.degrees)
    diagonal = sp.diags_array((graph.degrees + r * r - 1).astype(np.float32), format="csr")
    return sp.csr_array(np.float32(r) * graph.adjacency - diagonal)


def leading(matrix: sp.csr_array, k: int, rng: np.random.Generator, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """The k largest (signed) eigenvalues, descending, and their eigenvectors, shape (n, k).

    Implicitly restarted Lanczos from a random start; dense up to 512 nodes or when k >= n - 1.

    Raises
    ------
    InputError
        More eigenvectors than memory should hold: n (2k + 1) > 2**30.
    """
    n = matrix.shape[0]
    if n <= DENSE or (k >= n - 1 and n * n <= MAX_BASIS):
        values, vectors = eigh(matrix.toarray().astype(np.float64), subset_by_index=[n - k, n - 1])
    else:
        if n * min(n, 2 * k + 1) > MAX_BASIS or k >= n - 1:
            raise InputError(
                f"{k} eigenvectors of n = {n} nodes take a basis of more than {MAX_BASIS} values; lower n_clusters")
        start = rng.standard_normal(n).astype(matrix.dtype)
        values, vectors = eigsh(matrix, k, which="LA", v0=start, tol=tol)
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order]


def count_communities(graph: Graph, rng: np.random.Generator) -> int:
    """Number of negative eigenvalues of the Bethe-Hessian H(r) (arXiv 1406.1880, section 3), at least 1, at most 256.

    H(r) = S^1/2 (I - r M) S^1/2 with S = D + (r^2 - 1) I and M = S^-1/2 A S^-1/2, so by Sylvester's law of inertia they
    are as many as the eigenvalues of M above 1/r: those are the largest of M, which Lanczos finds first. The edges are
    counted without their weights, for which r has no such meaning.
    """
    if not graph.m:
        return 1
    plain = Graph(sp.csr_array((np.ones_like(graph.adjacency.data), graph.adjacency.indices, graph.adjacency.indptr),
                               shape=graph.adjacency.shape))
    r = bethe_hessian_radius(plain.degrees)
    matrix = regularised_adjacency(plain, r * r - 1)
    asked = 16
    while True:
        asked = min(asked, MAX_COUNT, graph.n)
        values, _ = leading(matrix, asked, rng, tol=1e-4)
        above = int((values > 1 / r).sum())
        if above < asked or asked == min(MAX_COUNT, graph.n):
            return max(above, 1)
        asked *= 4
