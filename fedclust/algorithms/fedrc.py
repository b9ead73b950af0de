"""FedRC: soft groups by concept; clients that differ only in P(x) or P(y) stay together."""

from __future__ import annotations

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

# A weight of exactly zero would make a group unreachable for ever.
FLOOR = 1e-30


class FedRC(FederatedAlgorithm):
    """max sum_ij ln sum_k omega_ik I~(x_ij, y_ij; theta_k), I~ = exp(-l) / c_k(y) (equations 4 to 8 of the paper).

    A round: gamma_ijk = softmax_k(ln omega_ik - l_ijk - ln c_k(y_ij)); omega_ik = mean_j gamma_ijk; every model trained with
    gamma as sample weights; c_k(y) = sum_ij 1[y_ij = y] gamma_ijk / sum_ij gamma_ijk.

    Deviations: the released code averages the models with n_i (``aggregation="n"``), which shrinks the step of group k by
    sum_i n_i omega_ik / sum_i n_i; the default weighs with n_i omega_ik. c_k comes from the round's replies.
    """

    source: ClassVar[str] = "Guo et al., ICML 2024, arXiv 2301.12379"
    sends: ClassVar[str] = "K models, its label histogram split over the groups, its weights"

    n_groups: Annotated[int, Field(ge=1)] = 3
    aggregation: Literal["omega", "n"] = "omega"
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Groups with at most this share of sum_ijk gamma are left out from then on; the authors' value is .05; 0: never."""

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """K models from K streams, omega = 1/K, c constant (it cancels)."""
        k, c = self.n_groups, model.n_classes
        return with_models({}, initial_models(model, seed, k), weights=torch.full((len(n_samples), k), 1 / k),
                           class_weights=torch.full((k, c), 1 / c), alive=torch.ones(k, dtype=torch.bool))

    def payload(self, state: State, client: int) -> Payload:
        """The models that are not pruned, and their c_k."""
        alive = state["alive"].nonzero()[:, 0]
        return Payload(alive.tolist(), {"class_weights": state["class_weights"][alive], "groups": alive})

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """E-step with the old omega, then every model on its soft share of the samples."""
        gamma, omega = _e_step(cohort, delivery, self._omega(cohort, delivery))
        everywhere = torch.zeros(len(cohort), self.n_groups)
        cohort.memory["omega"] = everywhere.scatter(1, delivery.arrays["groups"], omega)
        classes = torch.nn.functional.one_hot(cohort.y, cohort.model.n_classes).float() * cohort.mask[..., None]
        trained = cohort.train(delivery.models, self.training, sample_weight=gamma)
        return Report(trained, {"weights": omega, "counts": torch.einsum("bkj,bjc->bkc", gamma, classes)})

    def _omega(self, cohort: Cohort, delivery: Delivery) -> Tensor:
        """The clients' weights (B, k) of the delivered groups, from their memory; at first uniform."""
        k = delivery.arrays["groups"].shape[1]
        if "omega" not in cohort.memory:
            return torch.full((len(cohort), k), 1 / k)
        held = cohort.memory["omega"].gather(1, delivery.arrays["groups"]).clamp_min(FLOOR)
        return held / held.sum(1, keepdim=True)

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """The delivered models under the clients' omega."""
        return delivery.models, self._omega(cohort, delivery)

    def update(self, state: State, reports: Reports) -> State:
        """M-step on the server: models, c_k, and the weights as reported."""
        alive = state["alive"].nonzero()[:, 0]
        omega, k = reports.arrays["weights"], len(state["alive"])
        share = reports.n[:, None] * (omega if self.aggregation == "omega" else torch.ones_like(omega))
        old = models(state)
        new = group_means(reports.models, share, {name: t[alive] for name, t in old.items()})
        weights = state["weights"].clone()
        weights[reports.clients] = torch.zeros(len(omega), k).index_copy(1, alive, omega)
        counts = reports.arrays["counts"].sum(0).clamp_min(1e-8)  # (k, C): s[k, y] = sum_ij 1[y_ij = y] gamma_ijk
        class_weights = state["class_weights"].index_copy(0, alive, counts / counts.sum(1, keepdim=True))
        mass = torch.zeros(k).index_copy(0, alive, counts.sum(1))
        keep = state["alive"] & ((mass > self.prune * mass.sum()) | (self.prune == 0))
        return with_models(state, {name: t.index_copy(0, alive, new[name]) for name, t in old.items()},
                           weights=weights, class_weights=class_weights, alive=keep)

    def newcomer(self, state: State) -> Payload:
        """The same as in training, with c_k: the released code leaves it out, which makes it FedEM's rule."""
        return Payload(**{**vars(self.payload(state, 0)), "phase": "evidence"})

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """E-steps from omega = 1/K until it moves by less than 1e-3, at most 50."""
        groups = delivery.arrays["groups"]
        omega = torch.full(groups.shape, 1 / groups.shape[1])
        for _ in range(50):
            old, (_, omega) = omega, _e_step(cohort, delivery, omega)
            if float((omega - old).abs().sum(1).max()) < 1e-3:
                break
        everywhere = torch.zeros(len(cohort), self.n_groups)
        return Report(arrays={"weights": everywhere.scatter(1, groups, omega)})


def _e_step(cohort: Cohort, delivery: Delivery, omega: Tensor) -> tuple[Tensor, Tensor]:
    """gamma (B, k, n_max), 0 where padded, and its mean over the samples, omega (B, k)."""
    log_c = delivery.arrays["class_weights"].log().transpose(1, 2)  # (B, C, k)
    of_labels = log_c.gather(1, cohort.y[..., None].expand(-1, -1, log_c.shape[2])).transpose(1, 2)
    logits = omega.clamp_min(FLOOR).log()[..., None] - cohort.losses(delivery.models) - of_labels
    gamma = torch.softmax(logits, dim=1) * cohort.mask[:, None]
    return gamma, gamma.sum(-1) / cohort.n[:, None]
