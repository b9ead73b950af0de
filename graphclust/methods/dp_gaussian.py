"""Edge-private clustering of the noisy adjacency matrix."""

from __future__ import annotations

from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from graphclust.methods._private import PrivateClusterer, dense_centre
from graphclust.privacy.ledger import Event
from graphclust.privacy.mechanisms import add_gaussian, gaussian_event
from graphclust.privacy.sampling import Uniform


class DpGaussian(PrivateClusterer):
    """Gaussian noise on every entry of the adjacency matrix, then spectral clustering of what is left.

    One edge changes one entry above the diagonal by at most 1, so noise of c(epsilon, delta) on each is enough
    (analytic Gaussian, Balle & Wang 2018). The plainest mechanism, and the one that the others must beat.

    Parameters
    ----------
    n_clusters, epsilon, density, contrast, count_share, unit, force, budget, n_init, random_state
        As for ``dp_rr``.
    delta : float in (0, 1/n)
    weight_bound : float > 0 or None
        Public bound of the edge weights: larger ones are cut to it, and all are divided by it. Needed for a weighted
        graph.
    """

    name = "dp_gaussian"
    summary = "edge-private: Gaussian noise on the adjacency matrix, then spectral clustering"
    source = "Dwork, Talwar, Thakurta & Zhang 2014, doi:10.1145/2591796.2591883; Balle & Wang 2018, arXiv 1805.06530"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PrivateClusterer._parameter_constraints,
        "delta": [Interval(Real, 0, 1, closed="neither"), None],
        "weight_bound": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self, n_clusters: int | None = None, *, epsilon: float | None = None, delta: float | None = None,
        density: float | None = None, contrast: float = 0.5, count_share: float = 0.05, unit: str = "edge",
        weight_bound: float | None = None, force: bool = False, budget: str | Path | None = None, n_init: int = 50,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.epsilon = epsilon
        self.delta = delta
        self.density = density
        self.contrast = contrast
        self.count_share = count_share
        self.unit = unit
        self.weight_bound = weight_bound
        self.force = force
        self.budget = budget
        self.n_init = n_init
        self.random_state = random_state

    def look(self, n: int, density: float, events: list[Event]) -> Event:
        """Sensitivity 1: one edge is one entry, of at most 1."""
        losses = tuple(e.loss for e in events if e.loss is not None)
        return gaussian_event("adjacency", n, 1.0, float(self.epsilon), self._delta, losses)

    def answer(self, adjacency: np.ndarray, density: float) -> np.ndarray:
        """The edges themselves."""
        return adjacency

    def noisy(self, answer: np.ndarray, event: Event, uniform: Uniform) -> np.ndarray:
        """The edges with Gaussian noise."""
        return add_gaussian(answer, event, uniform)

    def signal(self, noisy: np.ndarray, event: Event, density: float) -> np.ndarray:
        """The noisy edges less their density."""
        return dense_centre(noisy, density)
