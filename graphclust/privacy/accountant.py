"""Privacy of Gaussian and two-point losses together, in closed form.

Two mechanisms make up every method here. Adding Gaussian noise of ``sigma`` to an answer that one edge moves by at most
``Delta`` has the trade-off of N(0, 1) against N(mu, 1), mu = Delta / sigma. A discrete Laplace count of sensitivity 1,
and the flip of one bit, have a privacy loss of +a with probability p = 1 / (1 + e^-a) and of -a otherwise. The loss of
all of them together is a Gaussian one plus a sum of two-point ones, so with L the sum

    delta(epsilon) = E_L[ delta_mu(epsilon - L) ],
    delta_mu(e) = Phi(mu / 2 - e / mu) - exp(e) Phi(-mu / 2 - e / mu)      (Balle & Wang 2018, arXiv 1805.06530, thm 8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from graphclust.graph import InputError

TAIL = 12.0
"""Standard deviations within which the discrete Gaussian is compared with the rounded one."""


def delta_of(epsilon: float, mu: float, losses: Sequence[float] = ()) -> float:
    """The smallest delta at this epsilon of a Gaussian mechanism (``mu`` 0: none) and two-point losses together.

    Parameters
    ----------
    epsilon : >= 0
    mu : sensitivity / sigma
    losses : the a of each two-point loss; at most 16
    """
    total, weights = np.zeros(1), np.ones(1)
    for a in losses:
        p = 1 / (1 + math.exp(-a))
        total = np.concatenate((total + a, total - a))
        weights = np.concatenate((weights * p, weights * (1 - p)))
    rest = epsilon - total
    if mu == 0:
        return float(weights @ np.maximum(-np.expm1(np.minimum(rest, 0)), 0))
    gaussian = ndtr(mu / 2 - rest / mu) - np.exp(rest + log_ndtr(-mu / 2 - rest / mu))
    return float(weights @ np.maximum(gaussian, 0))


def epsilon_of(delta: float, mu: float, losses: Sequence[float] = ()) -> float:
    """The smallest epsilon at this delta, the inverse of :func:`delta_of`."""
    if delta_of(0, mu, losses) <= delta:
        return 0.0
    if delta == 0:
        return sum(losses) if mu == 0 else math.inf
    high = 1.0 + sum(losses)
    while delta_of(high, mu, losses) > delta:
        high *= 2
    return float(brentq(lambda e: delta_of(e, mu, losses) - delta, 0, high, xtol=1e-12))


def gaussian_multiplier(epsilon: float, delta: float, losses: Sequence[float] = ()) -> float:
    """sigma / sensitivity with which a Gaussian mechanism and these losses together are (epsilon, delta)-private.

    Raises
    ------
    InputError
        The losses alone exceed (epsilon, delta).
    """
    if delta_of(epsilon, 0, losses) >= delta:
        raise InputError(
            f"epsilon = {epsilon:g} at delta = {delta:g} is used up by the edge count alone; raise epsilon, lower "
            "count_share, or give a public density"
        )
    low, high = 1e-6, 1.0
    while delta_of(epsilon, high, losses) <= delta:
        high *= 2
    mu = brentq(lambda m: delta_of(epsilon, m, losses) - delta, low, high, xtol=1e-14)
    # rounded towards more noise, so that the root's own error is on the safe side
    return float(1 / mu * (1 + 1e-9))


def discreteness(size: int, sigma: float) -> tuple[float, float]:
    """(zeta, tau): how far ``size`` discrete Gaussians may be from continuous ones that were rounded to integers.

    Rounding a continuous Gaussian is post-processing, so the rounded one is as private as it. Its probability of j is
    that of the discrete one times the mean over |u| <= 1/2 of exp(-u^2 / 2 sigma^2) cosh(j u / sigma^2), which within
    |j| <= T sigma lies between exp(-1 / 8 sigma^2) and exp(T^2 / 8 sigma^2). So on all but a set of probability ``tau``
    the densities of the two vectors differ by a factor of at most exp(zeta), zeta = size T^2 / 8 sigma^2 (and the
    normalising constants by less than exp(-2 pi^2 sigma^2), which is nothing for sigma >= 10). A mechanism that is
    (epsilon, delta)-private with rounded noise is then
    (epsilon + 2 zeta, exp(zeta) delta + (1 + exp(epsilon + zeta)) tau)-private with discrete noise.
    """
    return size * TAIL**2 / (8 * sigma**2), size * 2 * float(ndtr(-TAIL + 1 / sigma))
