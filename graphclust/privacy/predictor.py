"""Which mechanism can see the clusters, from public parameters alone: before any privacy is spent.

A mechanism shows the clusters when the largest eigenvalue of what they leave in its matrix stands out of the noise's
spectrum. The ratios are those of k equal blocks with p inside and q between, pbar the density:

    dp_rr        (p - q)(n / k) / sqrt(n (sigma^2 + pbar (1 - pbar))),   sigma = 1 / (2 sinh(epsilon / 2))
    dp_gaussian  (p - q)(n / k) / sqrt(n (c^2 + pbar (1 - pbar)))
    dp_sdp       sqrt(n (p - q)) / (k c sqrt 2), without sqrt 2 under X >= 0

c is the Gaussian multiplier of (epsilon, delta). At a ratio of 1 the eigenvalue leaves the noise (Benaych-Georges &
Nadakuditi 2011, arXiv 0910.2120); an adjusted Rand index of about one half was measured at 1.5, 1.5 and 2.1, under
X >= 0 at about 5 (one size, k = 2: X is then 1 and 0 instead of 1 and -1, half the signal, which the ratio does not
know).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphclust.privacy.accountant import gaussian_multiplier

THRESHOLDS = {"dp_rr": 1.5, "dp_gaussian": 1.5, "dp_sdp": 2.1}
"""Ratio at which the adjusted Rand index was about one half (docs/privacy.md)."""
NONNEGATIVE_THRESHOLD = 5.0
"""The same of dp_sdp with X >= 0."""
BLIND = 1.0
"""Ratio below which nothing can be seen."""


@dataclass(frozen=True)
class Prediction:
    """The ``ratio`` of one mechanism with the assumed contrast, and the ``best`` there is at this density."""

    mechanism: str
    ratio: float
    best: float
    threshold: float

    @property
    def possible(self) -> bool:
        """False when even clusters without an edge between them would be hidden."""
        return self.best >= BLIND

    @property
    def verdict(self) -> str:
        """What to expect, in words."""
        if not self.possible:
            return "impossible"
        if self.ratio < BLIND:
            return "only if the clusters hardly touch"
        return "weak" if self.ratio < self.threshold else "good"


def threshold(mechanism: str, nonnegative: bool = False) -> float:
    """The ratio from which on a mechanism finds about half of the clusters' structure."""
    return NONNEGATIVE_THRESHOLD if nonnegative and mechanism == "dp_sdp" else THRESHOLDS[mechanism]


def gap(k: int, density: float, contrast: float) -> float:
    """p - q of k equal blocks of this mean density; ``contrast`` 1 is the most that density allows (q = 0 or p = 1)."""
    if k == 1:
        return 0.0
    return contrast * min(k * density, (1 - density) * k / (k - 1))


def spike_ratio(
    mechanism: str, n: int, k: int, epsilon: float, delta: float, density: float, contrast: float,
    nonnegative: bool = False,
) -> float:
    """The ratio of the module's text; inf for k = 1, where there is nothing to find.

    Parameters
    ----------
    mechanism : "dp_sdp", "dp_rr" or "dp_gaussian"
    n, k : numbers of nodes and clusters
    epsilon, delta : the budget (dp_rr needs no delta)
    density : share of the pairs that are edges, public or private by itself
    contrast : see :func:`gap`
    nonnegative : dp_sdp with X >= 0
    """
    difference = gap(k, density, contrast)
    if k == 1:
        return math.inf
    if mechanism == "dp_rr":
        noise = 1 / (4 * math.sinh(epsilon / 2) ** 2)
        return difference * (n / k) / math.sqrt(n * (noise + density * (1 - density)))
    c = gaussian_multiplier(epsilon, delta)
    if mechanism == "dp_gaussian":
        return difference * (n / k) / math.sqrt(n * (c * c + density * (1 - density)))
    return math.sqrt(n * difference) / (k * c * (1 if nonnegative else math.sqrt(2)))


def predict(
    mechanism: str, n: int, k: int, epsilon: float, delta: float, density: float, contrast: float = 0.5,
    nonnegative: bool = False,
) -> Prediction:
    """Predict one mechanism; see :func:`spike_ratio`."""
    ratio, best = (spike_ratio(mechanism, n, k, epsilon, delta, density, c, nonnegative) for c in (contrast, 1.0))
    return Prediction(mechanism, ratio, best, threshold(mechanism, nonnegative))


def recommend(
    n: int, k: int, epsilon: float, delta: float, density: float, contrast: float = 0.5, nonnegative: bool = False
) -> list[Prediction]:
    """All mechanisms, the most promising first: by the ratio in units of its own threshold."""
    found = [predict(m, n, k, epsilon, delta, density, contrast, nonnegative) for m in THRESHOLDS]
    return sorted(found, key=lambda p: -p.ratio / p.threshold)
