"""Lower bounds of epsilon from what an attack got right, each with its confidence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, ndtri
from scipy.stats import beta, binom

Value = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A bound from a rate of true positives that is surely reached and one of false positives that is surely not passed."""


def log_ratio(delta: float) -> Value:
    """ln((TPR - delta) / FPR): what (epsilon, delta)-privacy caps by epsilon (Kairouz et al. 2015, theorem 2.1)."""
    return lambda tpr, fpr: np.log(np.maximum(tpr - delta, 1e-300) / fpr)


def gaussian_shift(tpr: np.ndarray, fpr: np.ndarray) -> np.ndarray:
    """mu = Phi^-1(TPR) - Phi^-1(FPR): what a Gaussian mechanism caps by sensitivity / sigma (Dong, Roth & Su 2022)."""
    return ndtri(tpr) - ndtri(fpr)


def clopper_pearson(hits: np.ndarray, trials: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of a rate, each wrong with probability at most ``alpha`` (Clopper & Pearson 1934)."""
    hits = np.asarray(hits)
    low = np.where(hits > 0, beta.ppf(alpha, hits, np.maximum(trials - hits + 1, 1)), 0.0)
    high = np.where(hits < trials, beta.ppf(1 - alpha, hits + 1, np.maximum(trials - hits, 1)), 1.0)
    return low, high


def two_sample_bound(one: np.ndarray, two: np.ndarray, alpha: float, value: Value) -> float:
    """A lower bound from a statistic on runs over two neighbouring graphs; too high with probability <= ``alpha``.

    In both directions: the first half of the runs picks the threshold, the second half alone makes the bound, of two
    rates, each with its interval at alpha / 4.

    Parameters
    ----------
    one, two : arrays of shape (runs,) of the statistic on either graph, at least 4 runs
    alpha : probability of error
    value : :func:`log_ratio` or :func:`gaussian_shift`
    """
    half = len(one) // 2
    best = 0.0
    for hit, miss in ((two, one), (-one, -two)):
        pooled = np.unique(np.concatenate((hit[:half], miss[:half])))
        # between two values, so that a threshold does not hang on the last digit of one of them
        middle = (pooled[1:] + pooled[:-1]) / 2
        if not len(middle):
            continue
        thresholds = middle[np.unique(np.linspace(0, len(middle) - 1, 500).astype(int))]
        picked = int(np.argmax(_bounds(hit[:half], miss[:half], thresholds, alpha / 4, value)))
        shown = _bounds(hit[half:], miss[half:], thresholds[picked : picked + 1], alpha / 4, value)
        best = max(best, float(shown[0]))
    return best


def _bounds(hit: np.ndarray, miss: np.ndarray, thresholds: np.ndarray, alpha: float, value: Value) -> np.ndarray:
    above = [len(s) - np.searchsorted(np.sort(s), thresholds, side="left") for s in (hit, miss)]
    tpr, _ = clopper_pearson(above[0], len(hit), alpha)
    _, fpr = clopper_pearson(above[1], len(miss), alpha)
    return value(tpr, fpr)


def canary_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Chance that an (epsilon, delta)-private method lets ``correct`` of ``guesses`` coins be guessed, at most.

    With q = e^epsilon / (1 + e^epsilon) and B binomial (guesses, q), P[correct >= v] is at most

        P[B >= v] + 2 m delta max_i P[v > B >= v - i] / i      (Steinke, Nasr & Jagielski 2023, theorem 5.2).

    Parameters
    ----------
    canaries : m, number of fair coins
    guesses : how many of them were guessed, fixed beforehand
    correct : how many of the guesses were right, v
    """
    q = expit(epsilon)
    tail = float(binom.sf(correct - 1, guesses, q))
    if delta == 0 or correct == 0:
        return min(tail, 1.0)
    i = np.arange(1, correct + 1)
    below = binom.cdf(correct - 1, guesses, q) - binom.cdf(correct - 1 - i, guesses, q)
    return min(tail + 2 * canaries * delta * float((below / i).max()), 1.0)


def canary_bound(canaries: int, guesses: int, correct: int, delta: float, alpha: float) -> float:
    """The largest epsilon that :func:`canary_p_value` refutes at level ``alpha``; 0 when none."""

    def excess(epsilon: float) -> float:
        return canary_p_value(canaries, guesses, correct, epsilon, delta) - alpha

    if guesses == 0 or excess(0.0) >= 0:
        return 0.0
    high = 1.0
    while excess(high) < 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-9))
