"""IFCA: every client picks the group model that fits it best."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedclust.algorithms._groups import assigned, best_fitting, means_of_groups, own_models
from fedclust.algorithms.base import (
    Delivery,
    FederatedAlgorithm,
    Payload,
    Report,
    Reports,
    State,
    initial_models,
    one_hot,
    with_models,
)
from fedclust.models import Model, Params
from fedclust.task import Cohort


class IFCA(FederatedAlgorithm):
    """k_i = argmin_k sum_j l(theta_k; x_ij, y_ij); theta_k <- mean of its clients' models.

    This is algorithm 1 with model averaging. Deviations: the mean is weighted by n_i, as FedAvg's; the authors' clients
    are all of one size and not weighted. Newcomers choose on their labelled samples; the authors' code chooses on the
    labelled test set.
    """

    source: ClassVar[str] = "Ghosh et al., NeurIPS 2020, arXiv 2006.04088"
    sends: ClassVar[str] = "its model and its group"

    n_groups: Annotated[int, Field(ge=1)] = 3

    @property
    def extras(self) -> tuple[str, ...]:
        """The group."""
        return ("group",)

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """K models from K streams; nobody assigned."""
        weights = torch.full((len(n_samples), self.n_groups), torch.nan)
        return with_models({}, initial_models(model, seed, self.n_groups), weights=weights)

    def payload(self, state: State, client: int) -> Payload:
        """All K models."""
        return Payload(list(range(self.n_groups)))

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Train the model that fits best."""
        choice = best_fitting(cohort, delivery.models)
        return Report(cohort.train(own_models(delivery.models, choice), self.training), {"group": choice})

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """All weight on the model with the smallest training loss."""
        return delivery.models, one_hot(best_fitting(cohort, delivery.models), self.n_groups)

    def update(self, state: State, reports: Reports) -> State:
        """Means over each group's clients; an empty group keeps its model."""
        groups = reports.arrays["group"]
        return with_models(state, means_of_groups(state, reports, groups),
                           weights=assigned(state, reports.clients, groups))
