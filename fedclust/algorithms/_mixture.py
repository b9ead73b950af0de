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
    leading,
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
    """gamma_ijk = softmax_k(ln omega_ik - cost_ijk); omega_ik = sum_j w_ij gamma_ijk; SGD with gamma as weights.

    w_ij is 1/n_i, or in the end depends on the sample's class (``class_balance``). The costs are the subclass's. A
    client keeps its omega in its memory, over all groups of all starts.

    EM finds a local optimum, and which one is decided by the initial models: two concepts in one group, and one torn
    between two, is a stable state. So, as for k-means, several starts are tried and the likelihood, which sees no
    truth, chooses: sum_ij ln sum_k omega_ik exp(-cost_ijk). While they run, a client is sent and sends ``restarts``
    times K models, numbered through: start s has groups s K to s K + K - 1. Those of the start that goes on are 0 to
    K - 1 from then on.
    """

    sends: ClassVar[str] = "K models and its weights"

    n_groups: Annotated[int, Field(ge=1)] = 3
    aggregation: Literal["omega", "n"] = "omega"
    """Weight of client i in the mean of model k: n_i omega_ik, or n_i as in the authors' code."""
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Groups with at most this share of sum_ik n_i omega_ik are left out from then on; 0: never."""
    restarts: Annotated[int, Field(ge=1)] = 3
    """Starts, each with K models of its own, that run side by side until one is chosen; 1: the papers' single start."""
    trial_rounds: Annotated[int, Field(ge=1)] = 30
    """Rounds until the start with the largest likelihood goes on alone.

    By the likelihood of the training samples alone, on seeds 10 to 15 of digits-3shift with K = 3 and 5 and of
    digits-one-concept (17 federations): the start that led after 25 rounds came within 1 % of the likeliest one's
    likelihood after 60 in 13, the one that led after 30 in 16, and in all by 1.0 % (plain EM, pixels in [0, 1]).
    """

    relaxation: Annotated[float, Field(ge=1, lt=2)] = 1.0
    """eta of over-relaxed EM: omega_ik <- omega_ik^(1 - eta) (sum_j w_ij gamma_ijk)^eta, normalised; 1: EM as it is.

    Near a maximum EM with a longer step still climbs to it for eta < 2 (Salakhutdinov and Roweis, ICML 2003).
    """

    m_step: Literal["samples", "client"] = "samples"
    """Weight of sample j of client i when model k is trained: gamma_ijk, as in EM; or, from round ``trial_rounds`` on,
    omega_ik, alike for all samples of the client. With gamma the models of two groups may each learn their share of a
    client's samples by heart, and then none gives its share up."""

    class_balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """beta: from round ``trial_rounds`` on w_ij is n_i(y_ij)^-beta, divided by the sum of these over j.

    n_i(y) counts the samples of class y that client i holds. 0: every sample weighs alike, as published; 1: every class
    that the client holds."""

    @property
    def needs_labels(self) -> bool:
        """True: what is mixed are probabilities of classes; embeddings of different models have no mean."""
        return True

    @property
    def extras(self) -> tuple[str, ...]:
        """The weights; those of all starts and their likelihoods while there are several."""
        return ("weights", "omega", "likelihood") if self.starts > 1 else ("weights",)

    @abstractmethod
    def costs(self, cohort: Cohort, delivery: Delivery) -> Tensor:
        """What a sample costs under each delivered model, (B, k, n_max)."""

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """K models of every start, each from its own stream, omega = 1/K; the first start leads."""
        k, starts = self.n_groups, self.starts
        omega, best = torch.full((len(n_samples), starts * k), 1 / k), torch.tensor(0)
        return with_models({}, initial_models(model, seed, starts * k), omega=omega, weights=_only(omega, best, starts),
                           n=n_samples.float(), alive=torch.ones(starts * k, dtype=torch.bool),
                           starts=torch.tensor(starts), best=best)

    @property
    def starts(self) -> int:
        """How many starts there are; a single group needs no second one."""
        return self.restarts if self.n_groups > 1 else 1

    def payload(self, state: State, client: int) -> Payload:
        """The models that are not pruned, of all starts or of the one that was chosen, and which start leads."""
        alive = living(state)
        return Payload(alive.tolist(), {"groups": alive, **{name: state[name] for name in ("starts", "best")}})

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """E-step with the old omega, then every model on its soft share of the samples."""
        costs, held, starts = self.costs(cohort, delivery), self._held(cohort, delivery), n_starts(delivery)
        gamma, fitted = e_step(costs, held, self._shares(cohort), starts)
        omega = over_relaxed(held, fitted, self.relaxation, starts)
        cohort.memory["omega"] = self._everywhere(omega, delivery)
        alike = self.m_step == "client" and cohort.round >= self.trial_rounds
        weight = omega[..., None] * cohort.mask[:, None] if alike else gamma
        trained = cohort.train(delivery.models, self.training, sample_weight=weight)
        trial = {"omega": omega, "likelihood": likelihood(cohort, costs, held, starts)} if starts > 1 else {}
        weights = _only(omega, delivery.arrays["best"], starts)
        return Report(trained, {"weights": weights, **trial, **self.statistics(cohort, gamma)})

    def statistics(self, cohort: Cohort, gamma: Tensor) -> dict[str, Tensor]:
        """What else is reported."""
        return {}

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """The delivered models under the clients' omega; without one, E-steps on the training samples find it."""
        omega, starts = self._held(cohort, delivery), n_starts(delivery)
        if "omega" not in cohort.memory:
            costs, share = self.costs(cohort, delivery), self._shares(cohort)
            moving = torch.ones_like(omega[:, :1], dtype=torch.bool)  # every client stops by itself
            for _ in range(E_STEPS):
                old, (_, new) = omega, e_step(costs, omega, share, starts)
                omega = torch.where(moving, new, old)
                moving &= (new - old).abs().sum(1, keepdim=True) >= SETTLED
                if not moving.any():
                    break
        return delivery.models, _only(omega, delivery.arrays["best"], starts)

    def update(self, state: State, reports: Reports) -> State:
        """M-step on the server: the models, and the weights as reported."""
        alive, omega = living(state), reports.arrays.get("omega", reports.arrays["weights"])
        share = reports.n[:, None] * (omega if self.aggregation == "omega" else torch.ones_like(omega))
        old = models(state)
        means = group_means(reports.models, share, {name: t[alive] for name, t in old.items()}, reports.robust)
        known = state["omega"].clone()
        known[reports.clients] = torch.zeros(len(omega), known.shape[1]).index_copy(1, alive, omega)
        new = {name: t.index_copy(0, alive, means[name]) for name, t in old.items()}
        starts = int(state["starts"])
        best = reports.arrays["likelihood"].sum(0).argmax() if starts > 1 else state["best"]
        state = with_models(state, new, omega=known, best=best, weights=_only(known, best, starts))
        if starts > 1 and int(state["round"]) + 1 >= self.trial_rounds:
            state = self.finished(state)
        return self._pruned(state) if self.prune and int(state["starts"]) == 1 else state

    def finished(self, state: State) -> State:
        """Of several starts the leading one goes on alone."""
        if int(state["starts"]) == 1:
            return state
        own = leading(state, self.n_groups)
        kept = {name: t[own] for name, t in models(state).items()}
        state = with_models(state, kept, starts=torch.tensor(1), alive=state["alive"][own])
        return {**state, **{name: state[name][:, own].clone() for name in ("omega", "weights")}}

    def _pruned(self, state: State) -> State:
        """Groups with next to no sample of all clients leave; n_i omega_ik are those of client i."""
        mass = state["n"] @ state["weights"]
        keep = state["alive"] & (mass > self.prune * mass.sum())
        keep[mass.argmax()] = True
        weights = state["weights"].clamp_min(FLOOR) * keep
        weights = weights / weights.sum(1, keepdim=True)
        return {**state, "alive": keep, "weights": weights, "omega": weights}

    def newcomer(self, state: State) -> Payload:
        """The same as in training."""
        payload = self.payload(state, 0)
        payload.phase = "evidence"
        return payload

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """The weights that E-steps on the labelled samples end with."""
        omega, groups = self.local_predictor(cohort, delivery)[1], delivery.arrays["groups"]
        whole = omega.new_zeros(len(omega), n_starts(delivery) * self.n_groups)
        return Report(arrays={"weights": whole.scatter(1, groups, omega)})

    def _held(self, cohort: Cohort, delivery: Delivery) -> Tensor:
        """omega (B, k) of the delivered groups from the clients' memory, sum 1 in each start; at first uniform."""
        places, starts = self._places(delivery), n_starts(delivery)
        if "omega" not in cohort.memory:
            return torch.full_like(places, starts / places.shape[1], dtype=torch.float)
        held = cohort.memory["omega"].gather(1, places).clamp_min(FLOOR).unflatten(1, (starts, -1))
        return (held / held.sum(2, keepdim=True)).flatten(1)

    def _shares(self, cohort: Cohort) -> Tensor:
        """(B, n_max) what each sample weighs in omega_ik."""
        return shares(cohort, self.class_balance if cohort.round >= self.trial_rounds else 0)

    def _everywhere(self, omega: Tensor, delivery: Delivery) -> Tensor:
        """omega over all groups of all starts, 0 for those that were not delivered."""
        return omega.new_zeros(len(omega), self.starts * self.n_groups).scatter(1, self._places(delivery), omega)

    def _places(self, delivery: Delivery) -> Tensor:
        """(B, k) where the clients' memory has the delivered groups: among those of all starts, always."""
        groups, best = delivery.arrays["groups"], delivery.arrays["best"]
        return groups if n_starts(delivery) > 1 else groups + self.n_groups * best[:, None]


def living(state: State) -> Tensor:
    """The groups that are not pruned."""
    return state["alive"].nonzero()[:, 0]


def n_starts(delivery: Delivery) -> int:
    """Starts whose models were delivered: of one cohort the same, for more starts are more models."""
    return int(delivery.arrays["starts"][0])


def shares(cohort: Cohort, beta: float) -> Tensor:
    """n_i(y_ij)^-beta (B, n_max) of every sample, 0 where padded; n_i(y) counts the client's samples of class y."""
    held = torch.zeros(len(cohort.y), cohort.model.n_classes, device=cohort.y.device)
    held.scatter_add_(1, cohort.y, cohort.mask.float())
    return held.clamp_min(1).gather(1, cohort.y).pow(-beta) * cohort.mask


def e_step(costs: Tensor, omega: Tensor, share: Tensor, starts: int = 1) -> tuple[Tensor, Tensor]:
    """gamma (B, k, n_max) = softmax_k(ln omega_ik - cost_ijk), 0 where padded, and its mean by ``share`` (B, k).

    With several starts the k groups are theirs in turn, and the softmax goes over the groups of one start.
    """
    joint = (omega.clamp_min(FLOOR).log()[..., None] - costs).unflatten(1, (starts, -1))
    gamma = torch.softmax(joint, dim=2).flatten(1, 2) * (share > 0)[:, None]
    return gamma, (gamma * share[:, None]).sum(-1) / share.sum(-1, keepdim=True)


def over_relaxed(omega: Tensor, fitted: Tensor, eta: float, starts: int) -> Tensor:
    """omega^(1 - eta) fitted^eta, normalised over the groups of each start, (B, k); ``fitted`` itself where eta = 1."""
    if eta == 1:
        return fitted
    step = (1 - eta) * omega.clamp_min(FLOOR).log() + eta * fitted.clamp_min(FLOOR).log()
    return torch.softmax(step.unflatten(1, (starts, -1)), dim=2).flatten(1)


def likelihood(cohort: Cohort, costs: Tensor, omega: Tensor, starts: int) -> Tensor:
    """sum_j ln sum_k omega_ik exp(-cost_ijk) of each start, (B, starts)."""
    joint = (omega.clamp_min(FLOOR).log()[..., None] - costs).unflatten(1, (starts, -1))
    return (joint.logsumexp(2) * cohort.mask[:, None]).sum(-1)


def _only(values: Tensor, start: Tensor, starts: int) -> Tensor:
    """``values`` (n, k) with zeros in the groups of all starts but one: ``start``, 0-d, or (n,) of every row.

    The start that went on alone is the only one there is, whatever its number was.
    """
    chosen = torch.arange(starts, device=values.device) == start[..., None] % starts
    return (values.unflatten(1, (starts, -1)) * chosen[..., None]).flatten(1)
