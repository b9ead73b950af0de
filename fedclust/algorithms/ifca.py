"""IFCA: every client picks the group model that fits it best."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedclust.aggregate import group_means
from fedclust.algorithms._groups import assigned, best_fitting, means_of_groups, own_models
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
    n_groups,
    one_hot,
    with_models,
)
from fedclust.contract import Form
from fedclust.models import Model, Params
from fedclust.task import Cohort


class IFCA(FederatedAlgorithm):
    """k_i = argmin_k sum_j l(theta_k; x_ij, y_ij); theta_k <- mean of its clients' models.

    This is algorithm 1 with model averaging. Deviations: the mean is weighted by n_i, as FedAvg's; the authors' clients
    are all of one size and not weighted. Newcomers choose on their labelled samples; the authors' code chooses on the
    labelled test set.

    The result depends on the initial models: two concepts in one group, and a group without clients, is a stable state.
    So ``restarts`` of them may run side by side for some rounds, as for k-means, and the one with the least training
    loss, sum_i min_k sum_j l(theta_k; x_ij, y_ij), goes on. Until then start s has the groups s K to s K + K - 1.
    """

    source: ClassVar[str] = "Ghosh et al., NeurIPS 2020, arXiv 2006.04088"
    sends: ClassVar[str] = "its model and its group"

    n_groups: Annotated[int, Field(ge=1)] = 3
    restarts: Annotated[int, Field(ge=1)] = 1
    """Starts, each with K models of its own, that run side by side until one is chosen; 1: the paper's single start."""
    trial_rounds: Annotated[int, Field(ge=1)] = 30
    """Rounds until the start with the least training loss goes on alone.

    On digits-3shift, three seeds, with and without attackers, the best of three after 20 rounds was another than after
    40 in four of twelve federations, after 25 in two, after 30 in one, where two were alike.
    """

    @property
    def extras(self) -> tuple[str, ...]:
        """The group; with several starts the one in each, and how well it fits."""
        return ("group", "likelihood") if self.starts > 1 else ("group",)

    @property
    def starts(self) -> int:
        """How many starts there are; a single group needs no second one."""
        return self.restarts if self.n_groups > 1 else 1

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """K models of every start, each from its own stream; nobody assigned."""
        k = self.starts * self.n_groups
        nobody = torch.full((len(n_samples), k), torch.nan)
        trial: State = {"fits": nobody, "best": torch.tensor(0)} if self.starts > 1 else {}
        return with_models({**trial, "weights": nobody}, initial_models(model, seed, k))

    def payload(self, state: State, client: int) -> Payload:
        """All K models; while there are several starts those of all, and which one leads."""
        return Payload(list(range(n_groups(state))), {"best": state["best"]} if "best" in state else {})

    def newcomer(self, state: State) -> Payload:
        """The same as in training."""
        return replace(self.payload(state, 0), phase="evidence")

    def reply(self, payload: Payload, n_classes: int) -> Form:
        """One model and its group, of every start."""
        if "best" not in payload.arrays:
            return Form(1, {"group": ()})
        return Form(self.starts, {"group": (self.starts,), "likelihood": (self.starts,)})

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Train the model that fits best, of every start."""
        if "best" not in delivery.arrays:
            choice = best_fitting(cohort, delivery.models)
            return Report(cohort.train(own_models(delivery.models, choice), self.training), {"group": choice})
        loss = self._losses(cohort, delivery)
        choice = loss.argmin(2)
        clients, starts = (torch.arange(n, device=loss.device) for n in choice.shape)
        own = {name: t[clients[:, None], starts * self.n_groups + choice] for name, t in delivery.models.items()}
        return Report(cohort.train(own, self.training), {"group": choice, "likelihood": -loss.amin(2)})

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """All weight on the model, of the start that leads, with the smallest training loss."""
        if "best" not in delivery.arrays:
            return delivery.models, one_hot(best_fitting(cohort, delivery.models), self.n_groups)
        loss, best = self._losses(cohort, delivery), delivery.arrays["best"]
        choice = loss.argmin(2).gather(1, best[:, None])[:, 0]
        return delivery.models, one_hot(best * self.n_groups + choice, loss[0].numel())

    def update(self, state: State, reports: Reports) -> State:
        """Means over each group's clients; an empty group keeps its model."""
        groups, k, old = reports.arrays["group"], self.n_groups, models(state)
        if "best" not in state:
            return with_models(state, means_of_groups(state, reports, groups),
                               weights=assigned(state, reports.clients, groups))
        chosen = [one_hot(of_start, k) for of_start in groups.T]
        new = [group_means({name: t[:, s] for name, t in reports.models.items()}, one * reports.n[:, None],
                           {name: t[s * k : (s + 1) * k] for name, t in old.items()}, reports.robust)
               for s, one in enumerate(chosen)]
        fits = state["fits"].clone()
        fits[reports.clients] = torch.cat(chosen, dim=1)
        best = reports.arrays["likelihood"].sum(0).argmax()
        leads = torch.arange(fits.shape[1]) // k == best
        together = {name: torch.cat([one[name] for one in new]) for name in old}
        state = with_models(state, together, fits=fits, best=best, weights=fits * leads)
        return state if int(state["round"]) + 1 < self.trial_rounds else self.finished(state)

    def finished(self, state: State) -> State:
        """Of several starts the leading one goes on alone."""
        if "best" not in state:
            return state
        own = leading(state, self.n_groups)
        rest = {name: t for name, t in state.items() if name not in ("fits", "best")}
        return with_models(rest, {name: t[own] for name, t in models(state).items()}, weights=state["weights"][:, own])

    def _losses(self, cohort: Cohort, delivery: Delivery) -> Tensor:
        """sum_j l(theta_k; x_ij, y_ij) of the groups of every start, (B, starts, K)."""
        return cohort.losses(delivery.models).sum(-1).unflatten(1, (-1, self.n_groups))
