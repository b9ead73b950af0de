"""What the generators share: sparse Bernoulli sampling, truncated power laws, parameter checks."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from torch_geometric.data import Data

from graphclust.data.assemble import from_pairs, make_data
from graphclust.data.catalogue import CATALOGUE
from graphclust.graph import InputError


def bernoulli_pairs(
    first: np.ndarray, count: np.ndarray, p: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each pair ``(v, first[v] + j)``, ``0 <= j < count[v]``, independently with probability ``p``.

    The candidates of all v are laid end to end and walked with geometric skips (Batagelj and Brandes 2005, DOI
    10.1103/PhysRevE.71.036113), so the cost is that of the pairs that come out, whatever p.

    Returns
    -------
    v, u : int64 arrays, sorted by v then u, no pair twice
    """
    total = int(count.sum())
    if p <= 0 or total == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    parts, at = [], -1
    while at < total:
        expected = (total - at) * p
        skips = rng.geometric(p, size=int(expected + 4 * np.sqrt(expected) + 16))
        # A skip past the end ends the walk; capping it keeps the sum within 64 bits for tiny p.
        positions = at + np.cumsum(np.minimum(skips, total + 1))
        parts.append(positions)
        at = int(positions[-1])
    positions = np.concatenate(parts)
    positions = positions[: np.searchsorted(positions, total)]
    start = np.concatenate(([0], np.cumsum(count)))
    v = np.repeat(np.arange(len(count)), np.diff(np.searchsorted(positions, start)))
    return v, first[v] + positions - start[v]


def power_law(low: float, high: float, exponent: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws from the density proportional to ``x**-exponent`` on [low, high], by inversion."""
    u = rng.random(size)
    if exponent == 1:
        return low * (high / low) ** u
    a = 1 - exponent
    return (low**a + u * (high**a - low**a)) ** (1 / a)


def power_law_mean(low: float, high: float, exponent: float) -> float:
    """The mean of :func:`power_law`."""
    if low == high:
        return low

    def moment(order: int) -> float:
        a = order + 1 - exponent
        return float(np.log(high / low)) if a == 0 else (high**a - low**a) / a

    return moment(1) / moment(0)


def stochastic_round(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round up with the probability of the fractional part: integers of the same mean."""
    floor = np.floor(values)
    return (floor + (rng.random(len(values)) < values - floor)).astype(np.int64)


def whole(name: str, value: Any, low: int, high: float = np.inf) -> int:
    """``value`` as an int in [low, high]; InputError names it otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise InputError(f"{name} = {value!r}; it must be an integer {_range(low, high)}")
    return int(value)


def real(name: str, value: Any, low: float, high: float = np.inf, *, open_low: bool = False) -> float:
    """``value`` as a float in [low, high], or (low, high]; InputError names it otherwise."""
    fits = not isinstance(value, bool) and isinstance(value, Real) and low <= float(value) <= high
    if not fits or (open_low and value == low):
        raise InputError(f"{name} = {value!r}; it must be a number {_range(low, high, open_low)}")
    return float(value)


def _range(low: float, high: float, open_low: bool = False) -> str:
    if high == np.inf:
        return f"{'>' if open_low else '>='} {low:g}"
    return f"in {'(' if open_low else '['}{low:g}, {high:g}]"


def planted(
    name: str, v: np.ndarray, u: np.ndarray, y: np.ndarray, k: int, rng: np.random.Generator,
    params: dict[str, Any], x: Any = None,
) -> tuple[Data, np.ndarray]:
    """The Data of distinct pairs, with the nodes shuffled: their order must not give the blocks away.

    Returns the data and ``order``, where new node i is old node ``order[i]``.
    """
    n = len(y)
    order = rng.permutation(n)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    adjacency = from_pairs(place[v], place[u], n)
    entry = CATALOGUE[name]
    info = {"source": entry.source, "licence": entry.licence, "parameters": params, "policy": "generated simple graph"}
    data = make_data(name, adjacency, x=None if x is None else x[order], y=y[order], k=k,
                     class_names=None, info=info)
    return data, order
