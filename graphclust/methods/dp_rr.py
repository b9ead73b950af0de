"""Edge-private clustering by flipping edges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphclust.methods._private import PrivateClusterer, dense_centre, pure_parts
from graphclust.privacy.ledger import Event
from graphclust.privacy.mechanisms import flip_event, flip_pairs
from graphclust.privacy.sampling import Uniform


class DpRr(PrivateClusterer):
    """Randomised response on every pair, then spectral clustering of the re-centred graph.

    Each of the n (n - 1) / 2 pairs is flipped with probability p = 1 / (1 + e^epsilon) (Hehir, Slavkovic & Niu 2022):
    pure epsilon-DP for an edge, and also if every pair flips its own bit. (B - p) / (1 - 2p) - density J is then
    without bias, and its leading eigenvectors show the clusters.

    Deviates from the paper: re-centred by the density, not by the flip probability alone, which leaves less noise in
    the first eigenvector; k-means instead of k-medians.

    Parameters
    ----------
    n_clusters : int
    epsilon : float > 0
    density : float in 0..1 or None
        Public share of the pairs that are edges; None: it is estimated privately with ``count_share`` of epsilon.
    contrast : float in (0, 1], default 0.5
        Assumed (p - q) as a share of the most that the density allows; only the prediction uses it.
    count_share : float in (0, 1), default 0.05
    unit : "edge"
        What is protected. "node" is refused with the reason.
    regularise : bool, default False
        Divide by the root of the noisy degrees plus their mean (Qin & Rohe 2013): for graphs with uneven degrees.
    force : bool, default False
        Run although the prediction says that nothing can be found.
    budget : path or None
        A budget file, charged before the graph is looked at.
    n_init : int, default 50
        Starts of k-means, on the noisy matrix: post-processing.
    random_state : int, Generator or None
        None: entropy of the operating system. A seed is for dry runs and voids the guarantee.
    """

    name = "dp_rr"
    summary = "edge-private: flips every pair, then re-centred spectral clustering; pure epsilon"
    source = "Hehir, Slavkovic & Niu 2022, J. Privacy and Confidentiality 12(2), arXiv 2105.12615"
    pure = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PrivateClusterer._parameter_constraints, "regularise": ["boolean"]}

    def __init__(
        self, n_clusters: int | None = None, *, epsilon: float | None = None, density: float | None = None,
        contrast: float = 0.5, count_share: float = 0.05, unit: str = "edge", regularise: bool = False,
        force: bool = False, budget: str | Path | None = None, n_init: int = 50, random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.epsilon = epsilon
        self.density = density
        self.contrast = contrast
        self.count_share = count_share
        self.unit = unit
        self.regularise = regularise
        self.force = force
        self.budget = budget
        self.n_init = n_init
        self.random_state = random_state

    def look(self, n: int, density: float, events: list[Event]) -> Event:
        """Epsilon less what the count took."""
        return flip_event(float(pure_parts(float(self.epsilon), events)))[1]

    def answer(self, adjacency: np.ndarray, density: float) -> np.ndarray:
        """The edges themselves."""
        return adjacency

    def noisy(self, answer: np.ndarray, event: Event, uniform: Uniform) -> np.ndarray:
        """The flipped pairs."""
        assert event.loss is not None
        return flip_pairs(answer, flip_event(event.loss)[0], uniform)

    def signal(self, noisy: np.ndarray, event: Event, density: float) -> np.ndarray:
        """(B - p) / (1 - 2p) - density J, and between the roots of the degrees if asked."""
        p = event.scale
        unbiased = (noisy - p) / (1 - 2 * p)
        np.fill_diagonal(unbiased, 0)
        if not self.regularise:
            return dense_centre(unbiased, density)
        degrees = np.maximum(unbiased.sum(1), 0)
        scale = 1 / np.sqrt(degrees + max(degrees.mean(), math.ulp(1.0)))
        return dense_centre(unbiased, density) * scale[:, None] * scale
