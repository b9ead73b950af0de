"""What algorithms with hard groups share: one model a client, means over groups, the model that fits best."""

from __future__ import annotations

import torch
from torch import Tensor

from fedclust.aggregate import group_means, weighted_mean
from fedclust.algorithms.base import Reports, State, models, one_hot
from fedclust.models import Params
from fedclust.task import Cohort


def sent_models(reports: Reports) -> Params:
    """The one model (S, ...) that every client sent."""
    return {name: t[:, 0] for name, t in reports.models.items()}


def means_of_groups(state: State, reports: Reports, groups: Tensor) -> Params:
    """theta_k <- sum_{i in k} n_i theta_i / sum_{i in k} n_i over the replies; a group without replies keeps its model.

    Parameters
    ----------
    groups : (S,) the group of every reply
    """
    old = models(state)
    k = len(next(iter(old.values())))
    return group_means(sent_models(reports), one_hot(groups, k) * reports.n[:, None], old, reports.robust)


def mean_of_all(state: State, reports: Reports) -> Params:
    """theta <- sum_i n_i theta_i / sum_i n_i over the replies: the model (1, ...) of the only group."""
    if reports.robust.plain:
        return weighted_mean(reports.models, reports.n)
    return group_means(reports.models, reports.n[:, None], models(state), reports.robust)


def assigned(state: State, clients: Tensor, groups: Tensor) -> Tensor:
    """The assignment (N, K) with ``clients`` (S,) moved to ``groups`` (S,)."""
    weights = state["weights"].clone()
    weights[clients] = one_hot(groups, weights.shape[1])
    return weights


def best_fitting(cohort: Cohort, group_models: Params) -> Tensor:
    """(B,) argmin_k sum_j l(theta_k; x_ij, y_ij) over the clients' training samples; of one model no loss is taken."""
    first = next(iter(group_models.values()))
    if first.shape[1] == 1:
        return first.new_zeros(len(first), dtype=torch.long)
    return cohort.losses(group_models).sum(-1).argmin(-1)


def own_models(group_models: Params, choice: Tensor) -> Params:
    """Of models (B, K, ...) the chosen one (B, 1, ...) of every client."""
    if next(iter(group_models.values())).shape[1] == 1:
        return group_models
    clients = torch.arange(len(choice), device=choice.device)
    return {name: t[clients, choice][:, None] for name, t in group_models.items()}
