"""Oracle: federated averaging inside the true groups, an upper bound that no real federation can run."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedclust.algorithms._groups import means_of_groups
from fedclust.algorithms.base import (
    Delivery,
    FederatedAlgorithm,
    Payload,
    Report,
    Reports,
    State,
    group_of,
    initial_models,
    one_hot,
    stack,
    with_models,
)
from fedclust.models import Model
from fedclust.task import Cohort
from graphclust.graph import InputError


class Oracle(FederatedAlgorithm):
    """theta_k <- sum_{i in k} n_i theta_i / sum_{i in k} n_i over the true group k; all groups start from one model.

    A newcomer's group is undetermined: the truth about it is not told either.
    """

    source: ClassVar[str] = "FedAvg (McMahan et al., AISTATS 2017, arXiv 1602.05629) in every true group"

    true_groups: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """The true group of every registered client in the order of their ids; the runner takes it from the scenario."""

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """The initial model for every group; InputError when the true groups are missing or not one a client."""
        given = self.true_groups
        if given is None or len(given) != len(n_samples):
            found = "missing" if given is None else f"{len(given)} groups"
            raise InputError(
                f"true_groups of oracle: {found}, and the federation has {len(n_samples)} clients; give one group for "
                "every client in the order of their ids, or take a scenario whose true groups are known"
            )
        values, groups = torch.tensor(given).unique(return_inverse=True)
        first = {name: t[0] for name, t in initial_models(model, seed, 1).items()}
        return with_models({}, stack([first] * len(values)), weights=one_hot(groups, len(values)))

    def payload(self, state: State, client: int) -> Payload:
        """The model of the client's group."""
        return Payload([group_of(state, client)])

    def update(self, state: State, reports: Reports) -> State:
        """FedAvg in every group."""
        return with_models(state, means_of_groups(state, reports, state["weights"][reports.clients].argmax(1)))

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Nothing: the oracle does not look."""
        return Report()
