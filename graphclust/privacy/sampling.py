"""Noise that is exact: integers in, integers out, no floating point on the way.

Noise computed in floating point gives itself away (Mironov 2012, doi:10.1145/2382196.2382264). The samplers are those
of Canonne, Kamath & Steinke 2020 (arXiv 2004.00010, algorithms 1 to 3), over arrays: a draw whose probability is
exp(-a/b) is decided by uniform integers alone. All of them take a :data:`Uniform`: the operating system's entropy for a
release, a seeded generator for a dry run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction

import numpy as np

Uniform = Callable[[int, int], np.ndarray]
"""``uniform(high, size)``: int64 array of shape (size,), uniform on 0..high-1, high < 2**63."""

SCALE = 2**25
"""The discrete Gaussian's largest standard deviation: all its integers then fit into 64 bits."""
_CHUNK = 2**19
# |y| above 64 SCALE has probability e^-64 and would be kept with e^-1900: its square need not be exact
_FAR = 2**31


def os_uniform(high: int, size: int) -> np.ndarray:
    """Uniform integers from the operating system's cryptographic generator, by rejection."""
    bits = (high - 1).bit_length()
    width = 1 if bits <= 8 else 2 if bits <= 16 else 4 if bits <= 32 else 8
    found = np.empty(0, dtype=np.int64)
    while len(found) < size:
        wanted = size - len(found)
        raw = np.frombuffer(os.urandom(width * (wanted + wanted // 2 + 8)), dtype=f"u{width}")
        drawn = (raw >> np.array(8 * width - bits, dtype=raw.dtype)).astype(np.int64) if bits else np.zeros(wanted, int)
        found = np.concatenate((found, drawn[drawn < high]))
    return found[:size]


def seeded_uniform(rng: np.random.Generator) -> Uniform:
    """Uniform integers from a generator: what is drawn with it protects nobody."""
    return lambda high, size: rng.integers(high, size=size)


def bernoulli_exp(numerator: np.ndarray, denominator: int, uniform: Uniform) -> np.ndarray:
    """True with probability exp(-numerator / denominator), elementwise (algorithm 1).

    Parameters
    ----------
    numerator : non-negative int64 array of shape (n,)
    denominator : positive int, below 2**52
    uniform : source of uniform integers
    """
    alive = np.ones(len(numerator), dtype=bool)
    whole = numerator // denominator
    # one factor e^-1 for each whole unit, until one of them fails
    step, at = 0, np.flatnonzero(whole > 0)
    while at.size:
        alive[at] = _below_one(np.ones(at.size, dtype=np.int64), 1, uniform)
        step += 1
        at = at[alive[at] & (whole[at] > step)]
    at = np.flatnonzero(alive)
    alive[at] = _below_one(numerator[at] % denominator, denominator, uniform)
    return alive


def _below_one(numerator: np.ndarray, denominator: int, uniform: Uniform) -> np.ndarray:
    """Bernoulli(exp(-gamma)) for gamma <= 1: the number of successes of Bernoulli(gamma / k), k = 1, 2, ... is even."""
    odd = np.zeros(len(numerator), dtype=bool)
    at, k = np.arange(len(numerator)), 1
    while at.size:
        goes_on = uniform(denominator * k, at.size) < numerator[at]
        odd[at[~goes_on]] = k % 2 == 1
        at, k = at[goes_on], k + 1
    return odd


def discrete_laplace(scale: int, size: int, uniform: Uniform) -> np.ndarray:
    """Integers with probability proportional to exp(-|x| / scale), shape (size,) (algorithm 2)."""
    found = np.empty(0, dtype=np.int64)
    while len(found) < size:
        # about 0.63 of the remainders are kept, and all but one zero in two of the signed values
        rest = uniform(scale, int((size - len(found)) * 1.7) + 8)
        rest = rest[bernoulli_exp(rest, scale, uniform)]
        whole = np.zeros(len(rest), dtype=np.int64)
        at = np.arange(len(rest))
        while at.size:
            at = at[bernoulli_exp(np.ones(at.size, dtype=np.int64), 1, uniform)]
            whole[at] += 1
        size_of = rest + scale * whole
        negative = uniform(2, len(rest)).astype(bool)
        signed = np.where(negative, -size_of, size_of)
        found = np.concatenate((found, signed[~(negative & (size_of == 0))]))
    return found[:size]


def discrete_gaussian(sigma: int, size: int, uniform: Uniform) -> np.ndarray:
    """Integers with probability proportional to exp(-x^2 / 2 sigma^2), shape (size,) (algorithm 3 with t = sigma).

    Parameters
    ----------
    sigma : int in 1..SCALE
    size : how many
    uniform : source of uniform integers
    """
    if not 1 <= sigma <= SCALE:
        raise ValueError(f"sigma = {sigma}; it must lie in 1..{SCALE}")
    found = np.empty(size, dtype=np.int64)
    done = 0
    while done < size:
        y = discrete_laplace(sigma, min(int((size - done) * 1.4) + 8, _CHUNK), uniform)
        away = np.minimum(np.abs(np.abs(y) - sigma), _FAR)
        kept = y[bernoulli_exp(away * away, 2 * sigma * sigma, uniform)][: size - done]
        found[done : done + len(kept)] = kept
        done += len(kept)
    return found


def flips(epsilon: Fraction, size: int, uniform: Uniform) -> np.ndarray:
    """True with probability 1 / (1 + e^epsilon), shape (size,): fair coins against exp(-epsilon), until one decides."""
    flipped = np.zeros(size, dtype=bool)
    undecided = np.arange(size)
    while undecided.size:
        undecided = undecided[uniform(2, undecided.size) == 1]
        odds = np.full(undecided.size, epsilon.numerator, dtype=np.int64)
        decided = bernoulli_exp(odds, epsilon.denominator, uniform)
        flipped[undecided[decided]] = True
        undecided = undecided[~decided]
    return flipped
