"""Edge-private clustering by a semidefinite projection."""

from __future__ import annotations

import math
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from graphclust.methods._private import PrivateClusterer, dense_centre
from graphclust.privacy.accountant import gaussian_multiplier
from graphclust.privacy.ledger import Event
from graphclust.privacy.mechanisms import add_gaussian, gaussian_event
from graphclust.privacy.predictor import gap
from graphclust.privacy.projection import project
from graphclust.privacy.sampling import Uniform


class DpSdp(PrivateClusterer):
    """The cut SDP with a quadratic regulariser, whose solution hardly moves with one edge, plus Gaussian noise.

    With Y = s (A - tau J) off the diagonal and 1 on it, the answer is the projection

        X = argmin 1/2 ||X - Y||_F^2   over  K = {X psd, X_ii = 1 [, X_ij >= 0]},

    the minimiser of -<A - tau J, X> + ||X||_F^2 / 2s. K does not depend on the graph, and a projection is firmly
    non-expansive: for two graphs that differ in the edge uv, ||dX||_F^2 <= <dX, dY> = 2 s |dX_uv|. With |dX_uv| <= 2 (1
    under X >= 0) and ||dX||_F^2 >= 2 dX_uv^2 the upper triangle moves by at most

        Delta = min(s, sqrt(2 s))    (X >= 0: min(s, sqrt(s))),

    and by sqrt(2) times the certified error of the solver more. That error is a parameter, never what was reached.

    Named after the SDPs of He, Fichtenberger & Peng and of Chen et al.; of the first no body text or code was at hand,
    so this is a construction with its own proof and no reproduction.

    Parameters
    ----------
    n_clusters, epsilon, density, contrast, count_share, unit, force, budget, n_init, random_state
        As for ``dp_rr``; ``contrast`` also decides on ``scale``.
    delta : float in (0, 1/n)
    scale : float > 0 or None
        s; None: 1 / (p - q) of k equal blocks with the private (or public) density and the assumed contrast, and at
        most what the noise lets pass (:meth:`s`).
    nonnegative : bool, default False
        Also X >= 0: half the sensitivity, a slower solver.
    solver_error : float > 0, default 0.1
        Certified Frobenius distance to the exact projection; the solver goes on until it is reached.
    weight_bound : float > 0 or None
        As for ``dp_gaussian``.
    """

    name = "dp_sdp"
    summary = "edge-private: semidefinite projection with a certified error, Gaussian noise, spectral rounding"
    source = ("after He, Fichtenberger & Peng, ICLR 2024, arXiv 2403.14332, and Chen, Cohen-Addad, d'Orsi, Epasto, "
              "Imola, Steurer & Tiegel, NeurIPS 2023; own construction and proof")

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PrivateClusterer._parameter_constraints,
        "delta": [Interval(Real, 0, 1, closed="neither"), None],
        "scale": [Interval(Real, 0, None, closed="neither"), None],
        "nonnegative": ["boolean"],
        "solver_error": [Interval(Real, 0, None, closed="neither")],
        "weight_bound": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self, n_clusters: int | None = None, *, epsilon: float | None = None, delta: float | None = None,
        scale: float | None = None, nonnegative: bool = False, solver_error: float = 0.1,
        density: float | None = None, contrast: float = 0.5, count_share: float = 0.05, unit: str = "edge",
        weight_bound: float | None = None, force: bool = False, budget: str | Path | None = None, n_init: int = 50,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.epsilon = epsilon
        self.delta = delta
        self.scale = scale
        self.nonnegative = nonnegative
        self.solver_error = solver_error
        self.density = density
        self.contrast = contrast
        self.count_share = count_share
        self.unit = unit
        self.weight_bound = weight_bound
        self.force = force
        self.budget = budget
        self.n_init = n_init
        self.random_state = random_state

    def s(self, n: int, density: float) -> float:
        """The scale of Y: given, or from what is public.

        With s above n / (2 k^2 c^2), c the Gaussian multiplier (X >= 0: twice that), the noise hides what the
        projection shows (:mod:`graphclust.privacy.predictor`), and the solver takes hundreds of steps: there it ends,
        but not below 1.
        """
        if self.scale is not None:
            return float(self.scale)
        k, c = int(self.n_clusters), gaussian_multiplier(float(self.epsilon), self._delta)
        most = n / (k * c) ** 2 / (1 if self.nonnegative else 2)
        return min(1 / max(gap(k, density, self.contrast), 1 / n), max(most, 1.0))

    def sensitivity(self, n: int, density: float) -> float:
        """Delta and the solver's share of it, for the upper triangle."""
        s = self.s(n, density)
        return min(s, math.sqrt(s if self.nonnegative else 2 * s)) + math.sqrt(2) * self.solver_error

    def look(self, n: int, density: float, events: list[Event]) -> Event:
        """Sensitivity of the projection."""
        losses = tuple(e.loss for e in events if e.loss is not None)
        return gaussian_event("semidefinite projection", n, self.sensitivity(n, density), float(self.epsilon),
                              self._delta, losses)

    def answer(self, adjacency: np.ndarray, density: float) -> np.ndarray:
        """X, feasible and within ``solver_error`` of the projection."""
        y = self.s(len(adjacency), density) * dense_centre(adjacency, density)
        np.fill_diagonal(y, 1)
        return project(y, nonnegative=self.nonnegative, error=self.solver_error).x

    def noisy(self, answer: np.ndarray, event: Event, uniform: Uniform) -> np.ndarray:
        """X with Gaussian noise above the diagonal."""
        return add_gaussian(answer, event, uniform)

    def signal(self, noisy: np.ndarray, event: Event, density: float) -> np.ndarray:
        """The noisy X itself."""
        return noisy

    def public(self, n: int, density: float) -> dict[str, Any]:
        """Density, s and the solver's error."""
        return {**super().public(n, density), "scale": self.s(n, density), "solver_error": self.solver_error,
                "nonnegative": self.nonnegative}
