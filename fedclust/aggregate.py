"""Pure functions on stacked parameters: what a server does with what clients sent."""

from __future__ import annotations

import torch
from torch import Tensor

from fedclust.models import Params


def weighted_mean(models: Params, weights: Tensor) -> Params:
    """sum_s w_s theta_s / sum_s w_s over the leading axis.

    Parameters
    ----------
    models : tensors (S, ...)
    weights : (S,), not negative, with a positive sum
    """
    w = (weights.double() / weights.double().sum()).float()
    return {name: torch.tensordot(w, t, dims=1) for name, t in models.items()}


def group_means(models: Params, weights: Tensor, previous: Params) -> Params:
    """For every group k the mean of the clients' models with weights[:, k]; a group without weight keeps its model.

    Parameters
    ----------
    models : tensors (S, ...), one model a client, or (S, K, ...), one for every group
    weights : (S, K), not negative
    previous : tensors (K, ...)

    Returns
    -------
    tensors (K, ...); those that are not floating point (counters) are ``previous``'s
    """
    total = weights.double().sum(0)
    w = torch.where(total > 0, weights.double() / total.clamp_min(1e-300), 0).float()
    means = {}
    for name, old in previous.items():
        new = models[name]
        if not old.is_floating_point():
            means[name] = old
            continue
        one_each = new.dim() == old.dim()
        mean = torch.einsum("sk,s...->k..." if one_each else "sk,sk...->k...", w, new)
        filled = (total > 0).view(-1, *[1] * (old.dim() - 1))
        means[name] = torch.where(filled, mean, old)
    return means


def flatten(models: Params) -> Tensor:
    """Stacked models (S, ...) as one matrix (S, P), parameters in the order of their names."""
    return torch.cat([models[name].flatten(1) for name in sorted(models)], dim=1)
