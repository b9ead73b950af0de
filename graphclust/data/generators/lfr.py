"""The LFR benchmark (Lancichinetti, Fortunato, Radicchi 2008, arXiv 0805.4770): power-law degrees and community sizes.

Written here because networkx's generator needs minutes for 10,000 nodes and often gives up, and igraph has none. As
in the authors' second paper (arXiv 0904.3940) the edges are drawn by stub matching, apart for the inside and the
outside of communities, and loops and repeated edges are switched away; what cannot be switched is dropped and counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq
from torch_geometric.data import Data

from graphclust.data.generators.sampling import planted, power_law, power_law_mean, real, stochastic_round, whole
from graphclust.graph import InputError

ROUNDS = 60
"""Rounds of switching; in sparse communities three or four are enough."""


def lfr(
    n: int = 1000, mu: float = 0.3, tau1: float = 2.5, tau2: float = 1.5, average_degree: float = 20.0,
    max_degree: int = 50, min_community: int = 20, max_community: int = 100, seed: int = 0,
) -> Data:
    """LFR benchmark graph.

    Parameters
    ----------
    n : nodes
    mu : share of each node's edges that leave its community, in [0, 1]
    tau1, tau2 : exponents of the degrees (> 1) and of the community sizes (>= 1)
    average_degree, max_degree : of the degree sequence; the smallest degree follows from them
    min_community, max_community : bounds of the community sizes
    seed : of the one generator that draws everything

    Raises
    ------
    InputError
        A parameter out of range; bounds that no graph fulfils, with the one to change.
    """
    rng = np.random.default_rng(whole("seed", seed, 0))
    n, mu = whole("n", n, 2), real("mu", mu, 0, 1)
    tau1, tau2 = real("tau1", tau1, 1, open_low=True), real("tau2", tau2, 1)
    max_degree = whole("max_degree", max_degree, 1, n - 1)
    average_degree = real("average_degree", average_degree, 1, max_degree)
    max_community = whole("max_community", max_community, 2, n)
    min_community = whole("min_community", min_community, 2, max_community)
    degree = _degrees(n, average_degree, max_degree, tau1, rng)
    inner = stochastic_round((1 - mu) * degree, rng)
    if inner.max() >= max_community:
        raise InputError(
            f"max_degree = {max_degree} with mu = {mu:g} asks for {inner.max()} neighbours inside a community, and "
            f"max_community = {max_community}; raise max_community or mu, or lower max_degree"
        )
    sizes, community = _communities(n, inner, min_community, max_community, tau2, rng)
    # From here on the nodes are numbered by community, so that the edges inside one are neighbours in sorted order.
    order = np.argsort(community, kind="stable")
    degree, inner, y = degree[order], inner[order], community[order]
    _make_even(degree, inner, y, rng)
    v, u = _wire(inner, y, degree - inner, rng)
    params: dict[str, Any] = {"mu": mu, "tau1": tau1, "tau2": tau2, "average_degree": average_degree, "seed": seed,
                              "max_degree": max_degree, "min_community": min_community, "max_community": max_community}
    data, _ = planted("lfr", v, u, y, len(sizes), rng, params)
    data.info["dropped_edges"] = int(degree.sum() // 2 - len(v))
    data.info["mixing"] = float(np.mean(y[v] != y[u])) if len(v) else 0.0
    return data


def _degrees(n: int, average: float, largest: int, tau1: float, rng: np.random.Generator) -> np.ndarray:
    """A truncated power law whose lower end is set so that the mean is ``average``."""
    if average == largest:
        return np.full(n, largest)
    low = 1.0
    if power_law_mean(low, largest, tau1) > average:
        raise InputError(f"average_degree = {average:g} is below what tau1 = {tau1:g} and max_degree = {largest} allow")
    low = brentq(lambda a: power_law_mean(a, largest, tau1) - average, low, largest)
    return np.maximum(stochastic_round(power_law(low, largest, tau1, n, rng), rng), 1)


def _communities(
    n: int, inner: np.ndarray, low: int, high: int, tau2: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Community sizes (c,) that add up to n, and the community of each node: one larger than its inner degree."""
    least, most = -(-n // high), n // low
    if least > most:
        raise InputError(f"n = {n} nodes do not fit in communities of min_community = {low} to max_community = {high}")
    for _ in range(20):
        sizes = _sizes(n, low, high, tau2, rng)
        community = _assign(inner, sizes, rng)
        if community is not None:
            return sizes, community
    raise InputError(
        f"no community is large enough for the nodes of many inner neighbours (max_community = {high}, largest inner "
        f"degree {inner.max()}); raise max_community or mu, or lower max_degree"
    )


def _sizes(n: int, low: int, high: int, tau2: float, rng: np.random.Generator) -> np.ndarray:
    drawn = np.floor(power_law(low, high + 1, tau2, n // low + 1, rng)).astype(np.int64).clip(low, high)
    count = int(np.searchsorted(np.cumsum(drawn), n)) + 1
    sizes = drawn[: max(min(count, n // low), -(-n // high))].copy()
    # The last community rarely fits: the difference is spread over those that have room.
    while (missing := n - int(sizes.sum())) != 0:
        room = np.flatnonzero(sizes < high if missing > 0 else sizes > low)
        some = rng.permutation(room)[: abs(missing)]
        sizes[some] += np.sign(missing)
    return sizes


def _assign(inner: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A random seat for each node in a community of size > its inner degree; None when the seats run out.

    Nodes are seated by falling inner degree, so that the communities open to one node are open to all after it.
    """
    community = np.empty(len(inner), dtype=np.int64)
    by_size = np.argsort(-sizes, kind="stable")
    seats = np.repeat(by_size, sizes[by_size])
    open_until = np.searchsorted(-sizes[seats], -inner, side="left")  # seats[:open_until] have size > inner
    pool, opened, waiting = np.empty(0, dtype=np.int64), 0, np.argsort(open_until, kind="stable")
    limits, first = np.unique(open_until[waiting], return_index=True)
    for limit, nodes in zip(limits, np.split(waiting, first[1:]), strict=True):
        pool = rng.permutation(np.concatenate((pool, seats[opened:limit])))
        opened = limit
        if len(pool) < len(nodes):
            return None
        community[nodes], pool = pool[: len(nodes)], pool[len(nodes):]
    return community


def _make_even(degree: np.ndarray, inner: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> None:
    """Make the stubs inside each community even in number, and those outside, by moving or dropping single stubs."""
    order = rng.permutation(len(y))
    order = order[inner[order] > 0]
    odd = np.bincount(y, inner).astype(np.int64) % 2 == 1
    _, pick = np.unique(y[order], return_index=True)
    chosen = order[pick]
    chosen = chosen[odd[y[chosen]]]
    if not np.any(degree > inner):  # mu = 0: no edge may leave a community
        degree[chosen] -= 1
    inner[chosen] -= 1
    if (degree - inner).sum() % 2:
        degree[rng.choice(np.flatnonzero(degree > inner))] -= 1


def _wire(
    inner: np.ndarray, y: np.ndarray, outer: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    n = len(y)
    stubs = np.repeat(np.arange(n), inner)
    stubs = stubs[np.argsort(y[stubs] + rng.random(len(stubs)))]
    inside = _switch(stubs[::2], stubs[1::2], y, True, rng)
    stubs = rng.permutation(np.repeat(np.arange(n), outer))
    outside = _switch(stubs[::2], stubs[1::2], y, False, rng)
    key = np.concatenate((inside, outside))
    return key // n, key % n


def _switch(a: np.ndarray, b: np.ndarray, y: np.ndarray, inside: bool, rng: np.random.Generator) -> np.ndarray:
    """Switch away loops, repetitions and (outside) pairs of one community; the keys ``low * n + high`` of the rest.

    A bad pair (a, b) and a random good edge (c, d), inside: of the same community, become (a, d), (c, b).
    """
    n = len(y)

    def keys(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.minimum(s, t) * n + np.maximum(s, t)

    def allowed(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        return s != t if inside else y[s] != y[t]

    fine = allowed(a, b)
    good = np.sort(keys(a[fine], b[fine]))
    repeated = np.append(False, good[1:] == good[:-1])[: len(good)]
    again = good[repeated]
    good = good[~repeated]
    a, b = np.concatenate((a[~fine], again // n)), np.concatenate((b[~fine], again % n))
    first_key = np.searchsorted(y, np.arange(y[-1] + 2)) * n  # of each community, the nodes being sorted by it
    for _ in range(ROUNDS):
        if not len(a) or not len(good):
            break
        if inside:
            bound = np.searchsorted(good, first_key)
            low, high = bound[y[a]], bound[y[a] + 1]
        else:
            low, high = np.zeros(len(a), dtype=np.int64), np.full(len(a), len(good))
        partner = low + (rng.random(len(a)) * (high - low)).astype(np.int64)
        edge = good[np.minimum(partner, len(good) - 1)]
        c, d = edge // n, edge % n
        flip = rng.random(len(a)) < 0.5
        c, d = np.where(flip, d, c), np.where(flip, c, d)
        new = np.stack((keys(a, d), keys(c, b)))
        _, inverse, times = np.unique(new, return_inverse=True, return_counts=True)
        at = np.minimum(np.searchsorted(good, new), len(good) - 1)
        unseen = ((good[at] != new) & (times[inverse].reshape(new.shape) == 1)).all(axis=0)
        alone = np.zeros(len(a), dtype=bool)
        alone[np.unique(partner, return_index=True)[1]] = True
        done = unseen & alone & (high > low) & allowed(a, d) & allowed(c, b)
        keep = np.ones(len(good), dtype=bool)
        keep[partner[done]] = False
        good = np.sort(np.concatenate((good[keep], np.sort(new[:, done].ravel()))), kind="stable")
        a, b = a[~done], b[~done]
    return good
