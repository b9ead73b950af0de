"""Federated averaging: one model for all."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedclust.algorithms._groups import mean_of_all
from fedclust.algorithms.base import FederatedAlgorithm, Payload, Reports, State, initial_models, with_models
from fedclust.models import Model


class FedAvg(FederatedAlgorithm):
    """theta <- sum_i (n_i / n) theta_i over the clients of the round (algorithm 1)."""

    source: ClassVar[str] = "McMahan et al., AISTATS 2017, arXiv 1602.05629"

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """One model; every client in its group."""
        return with_models({}, initial_models(model, seed, 1), weights=torch.ones(len(n_samples), 1))

    def payload(self, state: State, client: int) -> Payload:
        """The model."""
        return Payload([0])

    def update(self, state: State, reports: Reports) -> State:
        """The mean of the clients' models, weighted by their samples."""
        return with_models(state, mean_of_all(state, reports))
