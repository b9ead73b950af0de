"""What FedEM and FedRC share: clients are mixtures of K models, fitted by one sweep of EM a round."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedclust.aggregate import group_means
from fedclust.algorithms.base import (
    Delivery,
    FederatedAlgorithm,
    Payload,
    Report,
    Reports,
    State,
    initial_models,
    models,
    with_models,
)
from fedclust.models import Model, Params
from fedclust.task import Cohort

FLOOR = 1e-30
"""Least weight of a group in a logarithm: at exactly zero it could never come back."""
E_STEPS, SETTLED = 50, 1e-3
"""A client without weights of its own repeats the E-step until they move by less than this in all, at most so often."""


class Mixture(FederatedAlgorithm):
    """gamma_ijk = softmax_k(ln omega_ik - cost_ijk); omega_ik = mean_j gamma_ijk; SGD with gamma as weights.

    The costs are the subclass's. A client keeps its omega in its memory, over all K groups.
    """

    sends: ClassVar[str] = "K models and its weights"

    n_groups: Annotated[int, Field(ge=1)] = 3
    aggregation: Literal["omega", "n"] = "omega"
    """Weight of client i in the mean of model k: n_i omega_ik, or n_i as in the authors' code."""
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Groups with at most this share of sum_ijk gamma are left out from then on; 0: never."""

    @abstractmethod
    def costs(self, cohort: Cohort, delivery: Delivery) -> Tensor:
        """What a sample costs under each delivered model, (B, k, n_max)."""

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """K models from K streams, omega = 1/K."""
        k = self.n_groups
        return with_models({}, initial_models(model, seed, k), weights=torch.full((len(n_samples), k), 1 / k),
                           n=n_samples.float(), alive=torch.ones(k, dtype=torch.bool))

    def payload(self, state: State, client: int) -> Payload:
        """The models that are not pruned."""
        alive = living(state)
        return Payload(alive.tolist(), {"groups": alive})

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """E-step with the old omega, then every model on its soft share of the samples."""
        gamma, omega = e_step(cohort, self.costs(cohort, delivery), self._held(cohort, delivery))
        cohort.memory["omega"] = self._everywhere(omega, delivery)
        trained = cohort.train(delivery.models, self.training, sample_weight=gamma)
        return Report(trained, {"weights": omega, **self.statistics(cohort, gamma)})

    def statistics(self, cohort: Cohort, gamma: Tensor) -> dict[str, Tensor]:
        """What else is reported."""
        return {}

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """The delivered models under the clients' omega; without one, E-steps on the training samples find it."""
        omega = self._held(cohort, delivery)
        if "omega" not in cohort.memory:
            costs = self.costs(cohort, delivery)
            for _ in range(E_STEPS):
                old, (_, omega) = omega, e_step(cohort, costs, omega)
                if float((omega - old).abs().sum(1).max()) < SETTLED:
                    break
        return delivery.models, omega

    def update(self, state: State, reports: Reports) -> State:
        """M-step on the server: the models, and the weights as reported."""
        alive, omega = living(state), reports.arrays["weights"]
        share = reports.n[:, None] * (omega if self.aggregation == "omega" else torch.ones_like(omega))
        old = models(state)
        means = group_means(reports.models, share, {name: t[alive] for name, t in old.items()})
        weights = state["weights"].clone()
        weights[reports.clients] = torch.zeros(len(omega), self.n_groups).index_copy(1, alive, omega)
        new = {name: t.index_copy(0, alive, means[name]) for name, t in old.items()}
        state = with_models(state, new, weights=weights)
        return self._pruned(state) if self.prune else state

    def _pruned(self, state: State) -> State:
        """Groups with next to no sample of all clients leave; n_i omega_ik = sum_j gamma_ijk."""
        mass = state["n"] @ state["weights"]
        keep = state["alive"] & (mass > self.prune * mass.sum())
        keep[mass.argmax()] = True
        weights = state["weights"].clamp_min(FLOOR) * keep
        return {**state, "alive": keep, "weights": weights / weights.sum(1, keepdim=True)}

    def newcomer(self, state: State) -> Payload:
        """The same as in training."""
        payload = self.payload(state, 0)
        payload.phase = "evidence"
        return payload

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """The weights that E-steps on the labelled samples end with."""
        return Report(arrays={"weights": self._everywhere(self.local_predictor(cohort, delivery)[1], delivery)})

    def _held(self, cohort: Cohort, delivery: Delivery) -> Tensor:
        """omega (B, k) of the delivered groups from the clients' memory; at first uniform."""
        groups = delivery.arrays["groups"]
        if "omega" not in cohort.memory:
            return torch.full(groups.shape, 1 / groups.shape[1])
        held = cohort.memory["omega"].gather(1, groups).clamp_min(FLOOR)
        return held / held.sum(1, keepdim=True)

    def _everywhere(self, omega: Tensor, delivery: Delivery) -> Tensor:
        """omega over all K groups, 0 for those that were not delivered."""
        return torch.zeros(len(omega), self.n_groups).scatter(1, delivery.arrays["groups"], omega)


def living(state: State) -> Tensor:
    """The groups that are not pruned."""
    return state["alive"].nonzero()[:, 0]


def e_step(cohort: Cohort, costs: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """gamma (B, k, n_max) = softmax_k(ln omega_ik - cost_ijk), 0 where padded, and its mean over the samples (B, k)."""
    gamma = torch.softmax(omega.clamp_min(FLOOR).log()[..., None] - costs, dim=1) * cohort.mask[:, None]
    return gamma, gamma.sum(-1) / cohort.n[:, None]
