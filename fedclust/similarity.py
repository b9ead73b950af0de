"""How alike clients are, and the graph of clients that a clusterer works on."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from graphclust.graph import Graph, InputError, from_adjacency


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a zero row stays zero. The inner products of such rows are their cosines."""
    vectors = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def root_histograms(counts: np.ndarray) -> np.ndarray:
    """Square roots of label shares (N, C), rows of length 1: their inner products are Bhattacharyya coefficients.

    BC(p, q) = sum_c sqrt(p_c q_c) = 1 - H(p, q)^2 with the Hellinger distance H (Bhattacharyya 1943).
    """
    return np.sqrt(counts / counts.sum(axis=1, keepdims=True))


def loss_similarity(losses: np.ndarray) -> np.ndarray:
    """s_ij = exp(-(e_ij + e_ji) / 2), e_ij = max(0, L_ij - L_ii): what client i loses by taking the model of client j.

    Parameters
    ----------
    losses : (N, N), L_ij the mean loss of j's model on i's samples
    """
    excess = np.maximum(losses - np.diag(losses)[:, None], 0)
    return np.exp(-(excess + excess.T) / 2)


def client_graph(similarity: np.ndarray, *, neighbours: int | None = None, threshold: float = 0.0) -> Graph:
    """Clients as nodes, similarities as edge weights, sparsified.

    Two clients are linked when each is among the other's nearest, and every client to its own nearest one, so that none
    is cut off by being nobody's choice. Links of similarity <= ``threshold`` are dropped in any case.

    Parameters
    ----------
    similarity : (N, N), symmetric; the diagonal is not looked at
    neighbours : how many are "nearest"; None: all others, so that the threshold alone decides
    threshold : at least 0, for edge weights are positive

    Returns
    -------
    Graph whose features are the rows of the factor X of similarity = X X^T (negative eigenvalues dropped): for cosines
    and Bhattacharyya coefficients the clients' own descriptors, rotated.

    Raises
    ------
    InputError
        A similarity that is not a finite, symmetric, square matrix.
    """
    s = np.array(similarity, dtype=np.float64)
    n = len(s)
    if s.shape != (n, n) or not np.isfinite(s).all() or not np.allclose(s, s.T, atol=1e-5):
        raise InputError(f"similarity of shape {s.shape}: it must be a finite, symmetric matrix (N, N)")
    values, vectors = np.linalg.eigh((s + s.T) / 2)
    x = vectors[:, ::-1] * np.sqrt(values[::-1].clip(0))
    np.fill_diagonal(s, -np.inf)
    k = min(neighbours or n - 1, n - 1)
    order = np.argsort(-s, axis=1, kind="stable")
    chosen = np.zeros((n, n), dtype=bool)
    np.put_along_axis(chosen, order[:, :k], True, axis=1)
    nearest = np.zeros((n, n), dtype=bool)
    if n > 1:
        np.put_along_axis(nearest, order[:, :1], True, axis=1)
    linked = (chosen & chosen.T) | nearest | nearest.T
    weights = np.where(linked & (s > max(threshold, 0.0)), s, 0.0)
    return from_adjacency(sp.csr_array(weights), x)
