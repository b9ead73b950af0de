"""FeSEM: k-means on the clients' model parameters."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

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
from fedclust.contract import Form
from fedclust.models import Model, Params
from fedclust.task import Cohort


class FeSEM(FederatedAlgorithm):
    """r_i = argmin_k |W_i - theta_k|_2; theta_k <- mean of W_i over r_i = k (algorithm 1: E and M step); W_i is client
    i's last local model, which the server keeps.

    Deviations: the mean is weighted by n_i and goes over the round's replies, so that one group is FedAvg under any
    participation. The paper leaves the start open. Here, as in the authors' code, all clients start from one model and
    k-means of their first weights makes the first groups. With K models from K streams (as others have built it) the
    centres are so far apart in weight space that the first choice is never undone. A client that has no W_i once there
    are groups is sent all K models and trains the one with the smallest loss.
    """

    source: ClassVar[str] = "Xie et al., 2020, arXiv 2005.01026"

    n_groups: Annotated[int, Field(ge=1)] = 3
    start_from: Literal["kmeans", "random"] = "kmeans"
    """One model, then k-means of the weights after the first round, in which every client takes part; or K models."""

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """K models, equal or from K streams; nobody assigned."""
        n, k = len(n_samples), self.n_groups
        new = initial_models(model, seed, k)
        if self.start_from == "kmeans":
            new = {name: t[:1].repeat(k, *[1] * (t.dim() - 1)) for name, t in new.items()}
        state = with_models({}, {name: t.new_zeros(n, *t.shape[1:]) for name, t in new.items()}, "local")
        return with_models(state, new, weights=torch.full((n, k), torch.nan), seed=torch.tensor(seed))

    def _makes_groups(self, state: State) -> bool:
        """True in the round whose weights k-means clusters."""
        return self.start_from == "kmeans" and self.n_groups > 1 and bool(_new(state).all())

    def needs_everyone(self, state: State) -> bool:
        """True in that round."""
        return self._makes_groups(state)

    def payload(self, state: State, client: int) -> Payload:
        """The model of the client's group; while it has none all, or the one from which all start."""
        if _new(state)[client]:
            return Payload([0] if self._makes_groups(state) else list(range(self.n_groups)))
        return Payload([group_of(state, client)])

    def reply(self, payload: Payload, n_classes: int) -> Form:
        """One model, of however many that were sent."""
        return Form(1)

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Train the model that was sent, of several the one that fits best."""
        return Report(cohort.train(own_models(delivery.models, best_fitting(cohort, delivery.models)), self.training))

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """The model that was sent, of several the one with the smallest training loss."""
        k = next(iter(delivery.models.values())).shape[1]
        return delivery.models, one_hot(best_fitting(cohort, delivery.models), k)

    def update(self, state: State, reports: Reports) -> State:
        """E-step for every client whose W_i is known, M-step over the replies."""
        local = models(state, "local")
        for name, t in sent_models(reports).items():
            local[name] = local[name].index_copy(0, reports.clients, t)
        known = ~_new(state)
        known[reports.clients] = True
        clients = known.nonzero()[:, 0]
        if self._makes_groups(state):
            groups = self._first_groups(flatten(local)[clients], reports.n, int(state["seed"]))
        else:
            groups = torch.cdist(flatten(local)[clients], flatten(models(state))).argmin(1)
        weights = assigned(state, clients, groups)
        new = means_of_groups(state, reports, weights[reports.clients].argmax(1))
        return with_models(with_models(state, local, "local"), new, weights=weights)

    def _first_groups(self, vectors: Tensor, n_samples: Tensor, seed: int) -> Tensor:
        """(S,) the best of 20 runs of k-means on the first weights (S, P), whose centres are means weighted by n_i."""
        from sklearn.cluster import KMeans  # long to import, and clients need none of it

        k = min(self.n_groups, len(vectors))
        kmeans = KMeans(k, n_init=20, random_state=seed).fit(vectors.double().numpy(), sample_weight=n_samples.numpy())
        return torch.from_numpy(kmeans.labels_).long()


def _new(state: State) -> Tensor:
    """(N,) the clients that have never sent a model."""
    return state["weights"].isnan().any(1)
