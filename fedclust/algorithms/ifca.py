"""IFCA: every client picks the group model that fits it best."""

from __future__ import annotations

from typing import Annotated, ClassVar

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
    one_hot,
    with_models,
)
from fedclust.models import Model, Params
from fedclust.task import Cohort


class IFCA(FederatedAlgorithm):
    """k_i = argmin_k mean_j l(theta_k; x_ij, y_ij); theta_k <- mean of its clients' models (algorithm 1, model averaging).

    Deviation: the mean is weighted by n_i, as FedAvg's; the authors' code, whose clients are all of one size, does not weigh.
    """

    source: ClassVar[str] = "Ghosh et al., NeurIPS 2020, arXiv 2006.04088"
    sends: ClassVar[str] = "its model and its group"

    n_groups: Annotated[int, Field(ge=1)] = 3

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """K models from K streams; nobody assigned."""
        weights = torch.full((len(n_samples), self.n_groups), torch.nan)
        return with_models({}, initial_models(model, seed, self.n_groups), weights=weights)

    def payload(self, state: State, client: int) -> Payload:
        """All K models."""
        return Payload(list(range(self.n_groups)))

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Train the model that fits best."""
        choice = _best(cohort, delivery.models)
        mine = {name: t[torch.arange(len(choice)), choice][:, None] for name, t in delivery.models.items()}
        return Report(cohort.train(mine, self.training), {"group": choice})

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """All weight on the model with the smallest training loss."""
        return delivery.models, one_hot(_best(cohort, delivery.models), self.n_groups)

    def update(self, state: State, reports: Reports) -> State:
        """Means over each group's clients; an empty group keeps its model."""
        chosen = one_hot(reports.arrays["group"], self.n_groups)
        sent = {name: t[:, 0] for name, t in reports.models.items()}
        weights = state["weights"].clone()
        weights[reports.clients] = chosen
        return with_models(state, group_means(sent, chosen * reports.n[:, None], models(state)), weights=weights)


def _best(cohort: Cohort, group_models: Params) -> Tensor:
    """(B,) the group with the smallest mean training loss."""
    return cohort.losses(group_models).sum(-1).argmin(-1)
