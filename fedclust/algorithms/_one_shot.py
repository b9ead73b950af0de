"""What FL+HC and the adaptive hierarchical clustering share: a warm-up, and one clustering of the clients' updates."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedclust.aggregate import flatten, group_means
from fedclust.algorithms._groups import assigned, mean_of_all, means_of_groups, sent_models
from fedclust.algorithms._linkage import Distance, centroids, nearest
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
    n_groups,
    one_hot,
    with_models,
)
from fedclust.models import Model, Params
from fedclust.task import Cohort


class OneShot(FederatedAlgorithm):
    """FedAvg for ``warmup`` rounds; in the next round all clients train from the warm model and are clustered by their
    updates; from then on every group goes on by itself.

    A client that missed the clustering is sent the warm model when it comes back and joins the group whose centroid is
    nearest to its update; so does a newcomer.
    """

    warmup: Annotated[int, Field(ge=0)]
    """Rounds of FedAvg before the clustering round."""
    distance: Distance
    """Between updates of the trainable parameters."""

    @abstractmethod
    def groups_of(self, vectors: Tensor) -> Tensor:
        """Groups (S,) 0..K-1 of updates (S, P)."""

    def step(self, state: State, old: Params, means: Params) -> Params:
        """The group models (K, ...) after a round whose means are ``means``."""
        return means

    def features(self, updates: Params) -> Tensor:
        """What is compared (S, P) of the updates (S, ...)."""
        return flatten(updates)

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """One model; every client in its group."""
        return with_models({}, initial_models(model, seed, 1), weights=torch.ones(len(n_samples), 1),
                           clustered_in=torch.tensor(-1))

    def needs_everyone(self, state: State) -> bool:
        """True in the clustering round."""
        return not clustered(state) and int(state["round"]) >= self.warmup

    def payload(self, state: State, client: int) -> Payload:
        """The model of the client's group; the warm model while it has none."""
        if state["weights"][client].isnan().any():
            return Payload([0], family="warm")
        return Payload([group_of(state, client)])

    def update(self, state: State, reports: Reports) -> State:
        """FedAvg, the clustering, or the means of the groups."""
        if not clustered(state):
            if not self.needs_everyone(state):
                return with_models(state, mean_of_all(state, reports))
            return self._clustering(state, reports)
        groups = state["weights"][reports.clients].argmax(1)
        late = state["weights"][reports.clients].isnan().any(1)
        if late.any():
            vectors = self._vectors(models(state, "warm"), sent_models(reports))
            groups = torch.where(late, nearest(vectors, state["centroids"], self.distance), groups)
        new = self.step(state, models(state), means_of_groups(state, reports, groups))
        return with_models(state, new, weights=assigned(state, reports.clients, groups))

    def _clustering(self, state: State, reports: Reports) -> State:
        """Groups of the clients that answered; each starts from the mean of its members' models."""
        warm, sent = models(state), sent_models(reports)
        vectors = self._vectors(warm, sent)
        groups = self.groups_of(vectors)
        k = int(groups.max()) + 1
        share = one_hot(groups, k) * reports.n[:, None]
        start = {name: t.expand(k, *t.shape[1:]) for name, t in warm.items()}
        means = group_means(sent, share, start, reports.robust)
        weights = torch.full((len(state["weights"]), k), torch.nan)
        weights[reports.clients] = one_hot(groups, k)
        return with_models(
            with_models(state, warm, "warm"), means, weights=weights, clustered_in=state["round"].clone(),
            centroids=centroids(vectors, groups, self.distance),
        )

    def _vectors(self, warm: Params, sent: Params) -> Tensor:
        return self.features({name: t - warm[name] for name, t in sent.items()})

    def newcomer(self, state: State) -> Payload:
        """The warm model, from which the updates of the clustering were made."""
        return Payload([0], family="warm" if clustered(state) else "model", phase="evidence")

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """One round's update from the labelled samples."""
        return Report(cohort.train(delivery.models, self.training))

    def assign(self, state: State, report: Reports | None) -> Tensor:
        """The group with the nearest centroid."""
        k = n_groups(state)
        if report is None or k == 1:
            return super().assign(state, None)
        sent = {name: t[:, 0] for name, t in report.models.items()}
        return one_hot(nearest(self._vectors(models(state, "warm"), sent), state["centroids"], self.distance), k)[0]


def clustered(state: State) -> bool:
    """True once there are groups."""
    return int(state["clustered_in"]) >= 0
