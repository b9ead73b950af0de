"""FeSEM: k-means on the clients' model parameters."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedclust.aggregate import flatten
from fedclust.algorithms._groups import assigned, best_fitting, means_of_groups, own_models, sent_models
from fedclust.algorithms.base import (
    Delivery,
    FederatedAlgorithm,
    Payload,
    Report,
    Reports,
    State,
    group_of,
    initial_models,
    models,
    one_hot,
    with_models,
)
from fedclust.models import Model, Params
from fedclust.task import Cohort


class FeSEM(FederatedAlgorithm):
    """r_i = argmin_k |W_i - theta_k|_2; theta_k <- mean of W_i over r_i = k (algorithm 1: E and M step); W_i is client
    i's last local model, which the server keeps.

    Deviations: the mean is weighted by n_i and goes over the round's replies, so that one group is FedAvg under any
    participation; a client that has no W_i yet is sent all K models and trains the one with the smallest loss, since
    the paper does not say how the first assignment is made. Models that start from different points stay far apart, so
    this first choice is seldom undone.
    """

    source: ClassVar[str] = "Xie et al., 2020, arXiv 2005.01026"

    n_groups: Annotated[int, Field(ge=1)] = 3

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """K models from K streams; nobody assigned."""
        n, new = len(n_samples), initial_models(model, seed, self.n_groups)
        state = with_models({}, {name: t.new_zeros(n, *t.shape[1:]) for name, t in new.items()}, "local")
        return with_models(state, new, weights=torch.full((n, self.n_groups), torch.nan))

    def payload(self, state: State, client: int) -> Payload:
        """The model of the client's group; all while it has none."""
        return Payload(list(range(self.n_groups)) if _new(state)[client] else [group_of(state, client)])

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Train the model that was sent, of several the one that fits best."""
        return Report(cohort.train(own_models(delivery.models, _choice(cohort, delivery.models)), self.training))

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """The model that was sent, of several the one with the smallest training loss."""
        k = next(iter(delivery.models.values())).shape[1]
        return delivery.models, one_hot(_choice(cohort, delivery.models), k)

    def update(self, state: State, reports: Reports) -> State:
        """E-step for every client whose W_i is known, M-step over the replies."""
        local = models(state, "local")
        for name, t in sent_models(reports).items():
            local[name] = local[name].index_copy(0, reports.clients, t)
        known = ~_new(state)
        known[reports.clients] = True
        nearest = torch.cdist(flatten(local), flatten(models(state))).argmin(1)
        clients = known.nonzero()[:, 0]
        weights = assigned(state, clients, nearest[clients])
        new = means_of_groups(state, reports, nearest[reports.clients])
        return with_models(with_models(state, local, "local"), new, weights=weights)


def _new(state: State) -> Tensor:
    """(N,) the clients that have never sent a model."""
    return state["weights"].isnan().any(1)


def _choice(cohort: Cohort, delivered: Params) -> Tensor:
    """(B,) the best of several models; 0 when there is one."""
    k = next(iter(delivered.values())).shape[1]
    return best_fitting(cohort, delivered) if k > 1 else torch.zeros(len(cohort), dtype=torch.long)
