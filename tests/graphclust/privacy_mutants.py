"""Bugs that were made in private clustering before, planted on purpose: the audit must find them."""

import numpy as np

from graphclust.methods._private import PrivateClusterer
from graphclust.privacy.mechanisms import flip_event, flip_pairs
from graphclust.privacy.sampling import seeded_uniform


def _noise_divided(event, by):
    details = {**event.details, "grid": event.details["grid"] / by}
    return event.model_copy(update={"scale": event.scale / by, "details": details})


class ThirdOfSigma(PrivateClusterer):
    """The ledger states sigma, a third of it is added (bits are flipped as for three times the epsilon)."""

    def noisy(self, answer, event, uniform):
        if event.mu is None:
            return flip_pairs(answer, flip_event(3 * event.loss)[0], uniform)
        return super().noisy(answer, _noise_divided(event, 3), uniform)


class HalfOfSensitivity(PrivateClusterer):
    """A forgotten factor of two in the bound; the noise follows it."""

    def look(self, n, density, events):
        event = _noise_divided(super().look(n, density, events), 2)
        return event.model_copy(update={"sensitivity": event.sensitivity / 2})


class ExactDensity(PrivateClusterer):
    """The density of the graph itself in place of the noisy one."""

    def _cluster(self, graph, rng, monitor):
        self.density = 2 * graph.m / (graph.n * (graph.n - 1))
        return super()._cluster(graph, rng, monitor)


class Polished(PrivateClusterer):
    """Every node moves to the cluster of most of its neighbours in the private graph."""

    def _cluster(self, graph, rng, monitor):
        found = super()._cluster(graph, rng, monitor)
        votes = graph.adjacency.toarray() @ np.eye(self.n_clusters)[found.labels]
        found.labels = np.where(votes.any(1), votes.argmax(1), found.labels)
        return found


class Unmirrored(PrivateClusterer):
    """The noise below the diagonal is drawn anew: the mean of both halves is twice as exact."""

    def noisy(self, answer, event, uniform):
        above, below = (super(Unmirrored, self).noisy(answer, event, uniform) for _ in range(2))
        return np.triu(above) + np.tril(below, -1)


class ConstantSeed(PrivateClusterer):
    """The noise is the same in every release."""

    def noisy(self, answer, event, uniform):
        return super().noisy(answer, event, seeded_uniform(np.random.default_rng(0)))


class ObservedSensitivity(PrivateClusterer):
    """The noise is scaled by a norm of the private matrix."""

    def answer(self, adjacency, density):
        self._seen = float(np.linalg.norm(adjacency))
        return super().answer(adjacency, density)

    def look(self, n, density, events):
        event = super().look(n, density, events)
        return event.model_copy(update={"scale": event.scale * (1 + getattr(self, "_seen", 0))})


class UncutWeights(PrivateClusterer):
    """Weights above the public bound are not cut to it."""

    def adjacency(self, graph):
        return graph.adjacency.toarray().astype(np.float64) / self._weight


class SecondLook(PrivateClusterer):
    """The diagonal of the release holds the degrees."""

    def answer(self, adjacency, density):
        answer = super().answer(adjacency, density).copy()
        np.fill_diagonal(answer, adjacency.sum(1))
        return answer


def planted(bug, method):
    """The class of ``method`` with the ``bug``, whose hooks come first."""
    return type(f"{bug.__name__}{method.__name__}", (bug, method), {"__init__": method.__init__})
