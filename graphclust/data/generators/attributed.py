"""Attributed stochastic block model: the blocks show in the edges and, as strongly as wanted, in the features."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from torch_geometric.data import Data

from graphclust.data.generators.sampling import bernoulli_pairs, planted, real, whole
from graphclust.data.generators.sbm import blocks, sbm_pairs
from graphclust.graph import InputError


def asbm(
    n: int | None = None, k: int | None = None, sizes: list[int] | None = None,
    p_in: float | None = None, p_out: float | None = None,
    degree_in: float | None = None, degree_out: float | None = None,
    d: int = 64, features: str = "gaussian", signal: float | None = None, noise: float | None = None, seed: int = 0,
) -> Data:
    """SBM whose nodes carry features drawn from their block (the contextual SBM of arXiv 1807.09596, for k blocks).

    Parameters
    ----------
    n, k, sizes, p_in, p_out, degree_in, degree_out, seed : as in :func:`graphclust.data.generators.sbm.sbm`
    d : number of features; for binary features at least k
    features : "gaussian" or "binary"
    signal : gaussian: length of each block's mean, a random direction (2). binary: the probability that a node has a
        word of its block's own vocabulary, d/k words (.1)
    noise : gaussian: standard deviation of each feature (1). binary: the probability of any other word (.01)
    """
    rng = np.random.default_rng(whole("seed", seed, 0))
    if features not in ("gaussian", "binary"):
        raise InputError(f"features = {features!r} is unknown; allowed: gaussian, binary")
    b = blocks(n, k, sizes, p_in, p_out, degree_in, degree_out)
    d = whole("d", d, len(b.sizes) if features == "binary" else 1)
    v, u = sbm_pairs(b, rng)
    if features == "gaussian":
        signal = real("signal", 2.0 if signal is None else signal, 0)
        noise = real("noise", 1.0 if noise is None else noise, 0)
        x = _gaussian(b.y, len(b.sizes), d, signal, noise, rng)
    else:
        signal = real("signal", 0.1 if signal is None else signal, 0, 1)
        noise = real("noise", 0.01 if noise is None else noise, 0, 1)
        x = _binary(b.y, len(b.sizes), d, signal, noise, rng)
    params = {"p_in": b.p_in, "p_out": b.p_out, "d": d, "features": features, "signal": signal, "noise": noise,
              "seed": seed}
    return planted("asbm", v, u, b.y, len(b.sizes), rng, params, x)[0]


def _gaussian(y: np.ndarray, k: int, d: int, signal: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """x_i = signal * m_{y_i} + noise * g_i, with |m_c| = 1 and g_i standard normal."""
    means = rng.standard_normal((k, d), dtype=np.float32)
    means *= signal / np.linalg.norm(means, axis=1, keepdims=True)
    x = rng.standard_normal((len(y), d), dtype=np.float32)
    x *= np.float32(noise)
    x += means[y]
    return x


def _binary(y: np.ndarray, k: int, d: int, signal: float, noise: float, rng: np.random.Generator) -> sp.csr_array:
    """Block c owns the words ``c*d//k`` to ``(c+1)*d//k``."""
    start = np.arange(k) * d // k
    own = (np.arange(1, k + 1) * d // k - start)[y]
    rows, words = bernoulli_pairs(start[y], own, signal, rng)
    other_rows, other = bernoulli_pairs(np.zeros_like(own), d - own, noise, rng)
    other = other + np.where(other >= start[y[other_rows]], own[other_rows], 0)
    index = np.concatenate((rows, other_rows)), np.concatenate((words, other))
    return sp.csr_array((np.ones(len(index[0]), dtype=np.float32), index), shape=(len(y), d))
