"""The three looks that a method takes at the private edges, a count, a matrix, all pairs' bits; noise on a vector."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from graphclust.graph import InputError
from graphclust.privacy.accountant import delta_of, discreteness, gaussian_multiplier
from graphclust.privacy.ledger import Event
from graphclust.privacy.sampling import SCALE, Uniform, discrete_gaussian, discrete_laplace, flips


def count_scale(epsilon: float) -> int:
    """The integer scale of the discrete Laplace noise that makes a count at most ``epsilon``-private."""
    return math.ceil(1 / epsilon)


def private_count(count: int, scale: int, uniform: Uniform) -> tuple[int, Event]:
    """``count`` (one edge moves it by at most 1) with discrete Laplace noise: pure 1 / scale, a two-point loss."""
    noise = int(discrete_laplace(scale, 1, uniform)[0])
    event = Event(what="number of edges", mechanism="discrete Laplace", sensitivity=1, scale=scale, loss=1 / scale)
    return count + noise, event


def gaussian_event(
    what: str, n: int, sensitivity: float, epsilon: float, delta: float, losses: tuple[float, ...]
) -> Event:
    """Calibrate Gaussian noise on the upper triangle of an (n, n) matrix, before anything is looked at.

    The matrix is rounded to a grid of width g and the noise is a discrete Gaussian of ``SCALE`` grid steps, sigma =
    g SCALE. Rounding moves each of the n (n - 1) / 2 entries by at most g / 2 on either side, so the sensitivity grows
    by g sqrt(n (n - 1) / 2); and the discrete noise costs what :func:`graphclust.privacy.accountant.discreteness` says.

    Parameters
    ----------
    what : name of the matrix, for the ledger
    n : number of nodes
    sensitivity : L2 bound on the change of the upper triangle by one edge
    epsilon, delta : of all events together
    losses : of the events before, see :func:`graphclust.privacy.accountant.delta_of`
    """
    pairs = n * (n - 1) // 2
    zeta, tail = discreteness(pairs, SCALE)
    left = (delta - (1 + math.exp(epsilon)) * tail) * math.exp(-zeta)
    c = gaussian_multiplier(epsilon - 2 * zeta, left, losses)
    grid = grid_width(sensitivity, pairs, c)
    total = grid * SCALE / c
    return Event(what=what, mechanism="discrete Gaussian", sensitivity=total, scale=c * total, mu=1 / c,
                 details={"grid": grid, "rounding": total - sensitivity, "multiplier": c,
                          "discreteness_epsilon": 2 * zeta, "discreteness_delta": (1 + math.exp(epsilon)) * tail})


def grid_width(sensitivity: float, size: int, multiplier: float) -> float:
    """g, such that noise of ``SCALE`` grid steps is ``multiplier`` times the sensitivity of values rounded to the grid.

    g SCALE = multiplier (sensitivity + g sqrt(size)): rounding moves each of ``size`` values by at most g / 2.

    Raises
    ------
    InputError
        So much noise on so many values that the grid is coarser than it.
    """
    spread = multiplier * math.sqrt(size) / SCALE
    if spread >= 1:
        raise InputError(f"noise multiplier {multiplier:g} on {size} values: the product of the one and the root of "
                         f"the other must be below {SCALE}; lower the multiplier")
    return multiplier * sensitivity / (1 - spread) / SCALE


def noisy(values: np.ndarray, grid: float, uniform: Uniform) -> np.ndarray:
    """``values`` (n,) rounded to the grid, with discrete Gaussian noise of ``SCALE`` grid steps; float64."""
    steps = np.rint(values / grid).astype(np.int64)
    steps += discrete_gaussian(SCALE, len(steps), uniform)
    return steps * grid


def add_gaussian(matrix: np.ndarray, event: Event, uniform: Uniform) -> np.ndarray:
    """The symmetric (n, n) ``matrix`` with the noise of ``event`` above the diagonal and mirrored below; float64.

    The diagonal must be public: it is kept.
    """
    upper = np.triu_indices(len(matrix), 1)
    return _mirrored(noisy(matrix[upper], event.details["grid"], uniform), upper, np.diagonal(matrix))


def flip_event(epsilon: float) -> tuple[Fraction, Event]:
    """Randomised response on every pair of nodes: one edge is one bit, so pure ``epsilon``; rounded down to 2^-20."""
    exact = Fraction(math.floor(epsilon * 2**20), 2**20)
    probability = 1 / (1 + math.exp(float(exact)))
    return exact, Event(what="adjacency", mechanism="randomised response", sensitivity=1, scale=probability,
                        loss=float(exact))


def flip_pairs(adjacency: np.ndarray, epsilon: Fraction, uniform: Uniform) -> np.ndarray:
    """The 0/1 ``adjacency`` with each pair flipped with probability 1 / (1 + e^epsilon); float64, diagonal 0."""
    upper = np.triu_indices(len(adjacency), 1)
    bits = (adjacency[upper] > 0) ^ flips(epsilon, len(upper[0]), uniform)
    return _mirrored(bits.astype(np.float64), upper, np.zeros(len(adjacency)))


def _mirrored(values: np.ndarray, upper: tuple[np.ndarray, np.ndarray], diagonal: np.ndarray) -> np.ndarray:
    matrix = np.zeros((len(diagonal), len(diagonal)))
    matrix[upper] = values
    matrix += matrix.T
    np.fill_diagonal(matrix, diagonal)
    return matrix


def spent(events: list[Event], epsilon: float, delta: float) -> tuple[float, float]:
    """(epsilon, delta) that these events spend together: of pure events alone their sum and no delta.

    Raises
    ------
    RuntimeError
        It is more than the ``epsilon`` and ``delta`` that were asked for.
    """
    losses = [e.loss for e in events if e.loss is not None]
    mu = math.hypot(*(e.mu for e in events if e.mu is not None))
    slack = sum(e.details.get("discreteness_epsilon", 0) for e in events)
    if delta_of(epsilon * (1 + 1e-12) - slack, mu, losses) > delta:
        raise RuntimeError(f"the events spend more than epsilon = {epsilon}, delta = {delta}: {events}")
    return (epsilon, delta) if mu else (sum(losses), 0.0)
