"""Stochastic block models: plain (Holland et al. 1983), degree-corrected (Karrer and Newman 2011, arXiv 1008.3926)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch_geometric.data import Data

from graphclust.data.generators.sampling import bernoulli_pairs, planted, power_law, real, whole
from graphclust.graph import InputError

DEFAULT_DEGREES = (12.0, 4.0)
"""Mean number of neighbours in the own block and outside it, when neither degrees nor probabilities are given."""


class Blocks(NamedTuple):
    """Block sizes (k,), the block of each node in block order (n,), and the two link probabilities."""

    sizes: np.ndarray
    y: np.ndarray
    p_in: float
    p_out: float


def block_sizes(n: Any, k: Any, sizes: Any) -> np.ndarray:
    """``sizes``, or n nodes in k blocks as equal as can be.

    Raises
    ------
    InputError
        Sizes that are no positive integers, or that contradict n or k.
    """
    if sizes is None:
        n = whole("n", 1000 if n is None else n, 1)
        k = whole("k", 5 if k is None else k, 1, n)
        return np.full(k, n // k) + (np.arange(k) < n % k)
    if not isinstance(sizes, list | tuple | np.ndarray) or len(sizes) == 0:
        raise InputError(f"sizes = {sizes!r}; it must be a list of block sizes such as [100, 200]")
    found = np.array([whole("sizes", int(s) if isinstance(s, np.integer) else s, 1) for s in sizes])
    if n is not None and n != found.sum():
        raise InputError(f"n = {n} but sizes add up to {found.sum()}; leave out n")
    if k is not None and k != len(found):
        raise InputError(f"k = {k} but there are {len(found)} sizes; leave out k")
    return found


def blocks(n: Any, k: Any, sizes: Any, p_in: Any, p_out: Any, degree_in: Any, degree_out: Any) -> Blocks:
    """Check the parameters that the block models share, and turn mean degrees into probabilities."""
    size = block_sizes(n, k, sizes)
    total = int(size.sum())
    inner, outer = int((size * (size - 1)).sum()), total**2 - int((size**2).sum())
    if p_in is not None or p_out is not None:
        if degree_in is not None or degree_out is not None:
            raise InputError("p_in and p_out were given together with degree_in or degree_out; give one pair of them")
        for name, value in (("p_in", p_in), ("p_out", p_out)):
            if value is None:
                raise InputError(f"{name} is missing; p_in and p_out go together")
        probabilities = real("p_in", p_in, 0, 1), real("p_out", p_out, 0, 1)
    else:
        probabilities = (
            _probability("degree_in", degree_in, DEFAULT_DEGREES[0], inner, total),
            _probability("degree_out", degree_out, DEFAULT_DEGREES[1], outer, total),
        )
    return Blocks(size, np.repeat(np.arange(len(size)), size), *probabilities)


def _probability(name: str, degree: Any, default: float, pairs: int, n: int) -> float:
    if degree is None:
        return min(1.0, default * n / pairs) if pairs else 0.0
    return real(name, degree, 0, pairs / n) * n / pairs if pairs else real(name, degree, 0, 0)


def sbm(
    n: int | None = None, k: int | None = None, sizes: list[int] | None = None,
    p_in: float | None = None, p_out: float | None = None,
    degree_in: float | None = None, degree_out: float | None = None, seed: int = 0,
) -> Data:
    """Stochastic block model: an edge has probability ``p_in`` inside a block and ``p_out`` between two blocks.

    Parameters
    ----------
    n, k : nodes (1000) and blocks (5), of equal sizes up to one node
    sizes : the block sizes, instead of n and k
    p_in, p_out : link probabilities
    degree_in, degree_out : mean number of neighbours in the own block and outside it, over all nodes (12 and 4)
    seed : of the one generator that draws everything
    """
    rng = np.random.default_rng(whole("seed", seed, 0))
    b = blocks(n, k, sizes, p_in, p_out, degree_in, degree_out)
    v, u = sbm_pairs(b, rng)
    return planted("sbm", v, u, b.y, len(b.sizes), rng, {"p_in": b.p_in, "p_out": b.p_out, "seed": seed})[0]


def sbm_pairs(b: Blocks, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The edges of an SBM whose nodes are in block order."""
    start = (np.cumsum(b.sizes) - b.sizes)[b.y]
    inside = bernoulli_pairs(start, np.arange(len(b.y)) - start, b.p_in, rng)
    outside = bernoulli_pairs(np.zeros_like(start), start, b.p_out, rng)
    return np.concatenate((inside[0], outside[0])), np.concatenate((inside[1], outside[1]))


def dcsbm(
    n: int | None = None, k: int | None = None, sizes: list[int] | None = None,
    p_in: float | None = None, p_out: float | None = None,
    degree_in: float | None = None, degree_out: float | None = None,
    exponent: float = 2.5, max_ratio: float = 50.0, seed: int = 0,
) -> Data:
    """Degree-corrected SBM: the number of edges of u and v is Poisson(theta_u theta_v p), its repetitions counted once.

    So u and v are joined with probability ``1 - exp(-theta_u theta_v p)``, p being p_in or p_out; the theta are drawn
    from a power law and scaled to mean 1 in each block. Dense graphs fall short of the degrees asked for.

    Parameters
    ----------
    n, k, sizes, p_in, p_out, degree_in, degree_out, seed : as in :func:`sbm`
    exponent : of the power law of theta, > 1
    max_ratio : largest over smallest theta before scaling, >= 1
    """
    rng = np.random.default_rng(whole("seed", seed, 0))
    exponent, max_ratio = real("exponent", exponent, 1, open_low=True), real("max_ratio", max_ratio, 1)
    b = blocks(n, k, sizes, p_in, p_out, degree_in, degree_out)
    theta = power_law(1.0, max_ratio, exponent, len(b.y), rng)
    theta *= (b.sizes / np.bincount(b.y, theta))[b.y]
    v, u = _poisson_pairs(theta, b, rng)
    params = {"p_in": b.p_in, "p_out": b.p_out, "exponent": exponent, "max_ratio": max_ratio, "seed": seed}
    return planted("dcsbm", v, u, b.y, len(b.sizes), rng, params)[0]


def _poisson_pairs(theta: np.ndarray, b: Blocks, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    n, size = len(theta), b.sizes[b.y].astype(float)
    ends = np.cumsum(theta)
    start = (np.cumsum(b.sizes) - b.sizes)[b.y].astype(float)  # theta sums to the block's size in each block
    nodes = np.arange(n)
    # A pair's rate is reached from both of its ends, half from each.
    u_in = np.repeat(nodes, rng.poisson(theta * size * b.p_in / 2))
    u_out = np.repeat(nodes, rng.poisson(theta * (n - size) * b.p_out / 2))
    inside = start[u_in] + rng.random(len(u_in)) * size[u_in]
    outside = rng.random(len(u_out)) * (n - size[u_out])
    outside += np.where(outside >= start[u_out], size[u_out], 0)  # skip the own block
    u = np.concatenate((u_in, u_out))
    v = np.minimum(np.searchsorted(ends, np.concatenate((inside, outside))), n - 1)
    key = np.sort((np.minimum(u, v) * n + np.maximum(u, v))[u != v])
    key = key[np.append(True, key[1:] != key[:-1])[: len(key)]]
    u, v = np.divmod(key, n)
    return v, u
