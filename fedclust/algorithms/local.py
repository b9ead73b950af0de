"""Local training: every client by itself."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedclust.algorithms.base import (
    Delivery,
    FederatedAlgorithm,
    Payload,
    Report,
    Reports,
    State,
    initial_models,
    n_groups,
    one_hot,
    with_models,
)
from fedclust.contract import Form
from fedclust.models import Model, Params
from fedclust.task import Cohort


class Local(FederatedAlgorithm):
    """theta_i <- SGD from theta_i on the client's own samples: the baseline without a federation.

    A client is sent the common initial model once and keeps its own in its memory; nothing else travels. Every client
    is a group of its own, numbered in the order in which they begin: with all from the start the weights are the
    identity. A client that was never drawn has no model, no group and no result.
    """

    source: ClassVar[str] = "the local baseline of Bao et al., ICML 2023, arXiv 2306.06508, section 5"
    sends: ClassVar[str] = "nothing"

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """The initial model, which nobody has yet."""
        return with_models({}, initial_models(model, seed, 1), weights=torch.zeros(len(n_samples), 0))

    def payload(self, state: State, client: int) -> Payload:
        """The initial model until the client has answered once; after that nothing."""
        return Payload([] if state["weights"][client].sum() > 0 else [0])

    def reply(self, payload: Payload, n_classes: int) -> Form:
        """Nothing."""
        return Form(0)

    def evaluation(self, state: State, client: int) -> Payload | None:
        """Nothing is sent: the client evaluates its own model, if it has one."""
        payload = self.payload(state, client)
        return None if payload.groups else payload

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Go on with the client's own model."""
        for name, t in cohort.train(_own(cohort, delivery), self.training).items():
            cohort.memory[f"model/{name}"] = t
        return Report()

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """The clients' own models."""
        own = _own(cohort, delivery)
        return own, next(iter(own.values())).new_ones(len(cohort), 1)

    def update(self, state: State, reports: Reports) -> State:
        """Note who has begun: a column for each of them, and none for the others, who may be many."""
        begun = state["weights"].sum(1) > 0
        new, k = reports.clients[~begun[reports.clients]], state["weights"].shape[1]
        weights = torch.nn.functional.pad(state["weights"], (0, len(new)))
        weights[~begun] = torch.nan
        weights[new] = one_hot(k + torch.arange(len(new)), k + len(new))
        return {**state, "weights": weights}

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Nothing to find: no trained model is on the server."""
        return Report()

    def assign(self, state: State, report: Reports | None) -> Tensor:
        """Undetermined: no group takes newcomers."""
        return torch.full((n_groups(state),), torch.nan)


def _own(cohort: Cohort, delivery: Delivery) -> Params:
    own = {key.removeprefix("model/"): t for key, t in cohort.memory.items() if key.startswith("model/")}
    return own or delivery.models
