"""CFL: groups are split in two where their clients' updates disagree."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fedclust.aggregate import flatten
from fedclust.algorithms._groups import means_of_groups, sent_models
from fedclust.algorithms._linkage import cut_into, distances, merges
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
from fedclust.models import Model
from fedclust.task import Cohort


class CFL(FederatedAlgorithm):
    """A group near a stationary point of its objective, whose clients still pull apart, is split in two (algorithm 1).

    With Delta_i = theta_i - theta_k of the group's members: split when |sum_i (n_i / n) Delta_i| < eps_1 and
    max_i |Delta_i| > eps_2; the children are the two clusters of complete linkage on 1 - cos(Delta_i, Delta_j).

    Deviations: eps_1 and eps_2 are lengths that hold for one model and step size, so by default the test is free of
    scale, |mean| < rho max_i |Delta_i|; complete linkage as in the authors' code (the paper minimises the largest
    similarity across); the mean is weighted by n_i as in the paper, while the code weighs all clients alike. The
    authors' code and its ports take positions inside a group for client numbers, so that clients are lost from the
    second split on. A group is split only in a round in which all its members answered: from ``first_split`` on every
    client is asked in every round.
    """

    source: ClassVar[str] = "Sattler, Müller and Samek, IEEE TNNLS 2021, arXiv 1910.01991"

    rho: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Largest ratio of the mean update to the longest update at a stationary point."""
    eps1: Annotated[float, Field(gt=0)] | None = None
    """With ``eps2`` in place of ``rho``: largest length of the mean update; the authors take .4."""
    eps2: Annotated[float, Field(gt=0)] | None = None
    """Least length of the longest update; the authors take 1.6."""
    first_split: Annotated[int, Field(ge=0)] = 20
    """Rounds before the first round that may split."""
    gamma_max: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Optional gap test: split only where sqrt((1 - alpha) / 2) > gamma_max, alpha the largest similarity across."""

    @model_validator(mode="after")
    def _both_lengths(self) -> CFL:
        if (self.eps1 is None) != (self.eps2 is None):
            raise ValueError("eps1 and eps2 belong together; give both, or neither for the test with rho")
        return self

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """One group. The tree of splits is empty: see :meth:`_grown`."""
        first = initial_models(model, seed, 1)
        state = with_models({}, {name: t[:0] for name, t in first.items()}, "node")
        return with_models(
            state, first, weights=torch.ones(len(n_samples), 1), tree=torch.zeros(0, 2, dtype=torch.long),
            directions=torch.zeros(0, 2, flatten(first).shape[1]),
        )

    def needs_everyone(self, state: State) -> bool:
        """True in the rounds that may split."""
        return int(state["round"]) >= self.first_split

    def payload(self, state: State, client: int) -> Payload:
        """The model of the client's group."""
        return Payload([group_of(state, client)])

    def update(self, state: State, reports: Reports) -> State:
        """Split what has to be split, then FedAvg in every group, old or new."""
        groups = state["weights"][reports.clients].argmax(1)
        updates = flatten(sent_models(reports)) - flatten(models(state))[groups]
        if self.needs_everyone(state):
            nobody = torch.zeros(len(state["weights"]), dtype=torch.bool)
            asked = ~state.get("excluded", nobody)
            for k in range(n_groups(state)):
                members = (groups == k).nonzero()[:, 0]
                if len(members) < int(state["weights"][asked, k].sum()):
                    continue
                second = self._second_child(updates[members], reports.n[members])
                if second.any():
                    state = _grown(state, k, reports.clients[members[second]], updates[members], second)
        groups = state["weights"][reports.clients].argmax(1)
        return with_models(state, means_of_groups(state, reports, groups))

    def _second_child(self, updates: Tensor, n: Tensor) -> Tensor:
        """(S,) bool: the members that leave for the second child; none when the group stays whole."""
        stay = torch.zeros(len(updates), dtype=torch.bool)
        lengths = updates.norm(dim=1)
        mean = (n / n.sum() @ updates).norm()
        if self.eps1 is not None and self.eps2 is not None:
            torn = mean < self.eps1 and lengths.max() > self.eps2
        else:
            torn = mean < self.rho * lengths.max()
        if len(updates) <= 2 or not torn:
            return stay
        d = distances(updates, "cosine")
        second = torch.from_numpy(cut_into(merges(d, "complete"), 2) == 1)
        alpha = 1 - float(d[~second][:, second].min())
        if self.gamma_max is not None and not math.sqrt((1 - alpha) / 2) > self.gamma_max:
            return stay
        return second

    def newcomer(self, state: State) -> Payload:
        """The models that were split, from which the updates that decided the splits were made."""
        splits = len(state["tree"])
        return Payload(list(range(splits)), family="node", phase="evidence") if splits else super().newcomer(state)

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """One round's update from each."""
        return Report(cohort.train(delivery.models, self.training))

    def assign(self, state: State, report: Reports | None) -> Tensor:
        """Down the tree of splits, each time to the child whose members' updates have the larger mean cosine."""
        k = n_groups(state)
        if report is None or k == 1:
            return super().assign(state, None)
        updates = flatten({name: t[0] for name, t in report.models.items()}) - flatten(models(state, "node"))
        at = 0
        while at >= 0:
            at = int(state["tree"][at, (state["directions"][at] @ updates[at]).argmax()])
        return one_hot(torch.tensor([-1 - at]), k)[0]


def _grown(state: State, k: int, leaving: Tensor, updates: Tensor, second: Tensor) -> State:
    """The state after clients ``leaving`` left group k for a new one, which starts from the same model.

    ``tree`` (M, 2): the two children of every split, a later split m or, as -1 - k, group k; ``node/...`` (M, ...): the
    models that were split; ``directions`` (M, 2, P): mean of the children's Delta_i / |Delta_i|.
    """
    old, split = models(state), len(state["tree"])
    new = n_groups(state)
    weights = torch.nn.functional.pad(state["weights"], (0, 1))
    weights[leaving] = one_hot(torch.full_like(leaving, new), new + 1)
    tree = torch.where(state["tree"] == -1 - k, split, state["tree"])
    unit = torch.nn.functional.normalize(updates)
    directions = torch.stack([unit[~second].mean(0), unit[second].mean(0)])
    nodes = {name: torch.cat([t, old[name][k : k + 1]]) for name, t in models(state, "node").items()}
    return with_models(
        with_models(state, nodes, "node"), {name: torch.cat([t, t[k : k + 1]]) for name, t in old.items()},
        weights=weights, tree=torch.cat([tree, torch.tensor([[-1 - k, -1 - new]])]),
        directions=torch.cat([state["directions"], directions[None]]),
    )
