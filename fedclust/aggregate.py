"""Pure functions on stacked parameters: what a server does with what clients sent.

Robust averages: Yin, Chen, Ramchandran and Bartlett, ICML 2018, arXiv 1803.01498 (coordinate-wise median and trimmed
mean, definitions 1 and 2); norm clipping: Sun, Kairouz, Suresh and McMahan, 2019, arXiv 1911.07963.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedclust.models import Params
from fedclust.robust import PLAIN, Robust

# Of weights that sum to 1: below this a difference is rounding.
ROUNDING = 1e-9


def weighted_mean(models: Params, weights: Tensor) -> Params:
    """sum_s w_s theta_s / sum_s w_s over the leading axis.

    Parameters
    ----------
    models : tensors (S, ...)
    weights : (S,), not negative, with a positive sum
    """
    w = (weights.double() / weights.double().sum()).float()
    return {name: torch.tensordot(w, t, dims=1) for name, t in models.items()}


def group_means(models: Params, weights: Tensor, previous: Params, robust: Robust = PLAIN) -> Params:
    """For every group k the mean of the clients' models with weights[:, k]; a group without weight keeps its model.

    Every average inside a group is formed here, so that ``robust`` serves every algorithm.

    Parameters
    ----------
    models : tensors (S, ...), one model a client, or (S, K, ...), one for every group
    weights : (S, K), not negative
    previous : tensors (K, ...)
    robust : in place of the mean

    Returns
    -------
    tensors (K, ...); those that are not floating point (counters) are ``previous``'s
    """
    if not robust.plain:
        return _robust_means(models, weights, previous, robust)
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


def _robust_means(models: Params, weights: Tensor, previous: Params, robust: Robust) -> Params:
    """theta_k + the robust average of the updates theta_ik - theta_k of the clients with weight in group k."""
    means = {name: old.clone() for name, old in previous.items()}
    moving = [name for name in sorted(previous) if previous[name].is_floating_point()]
    for k in range(weights.shape[1]):
        members = weights[:, k] > 0
        if not members.any():
            continue
        sent = {name: models[name][members] if models[name].dim() == previous[name].dim() else models[name][members, k]
                for name in moving}
        updates = flatten({name: t - previous[name][k] for name, t in sent.items()}).double()
        step, at = robust_average(updates, weights[members, k].double(), robust), 0
        for name in moving:
            size = previous[name][k].numel()
            means[name][k] += step[at : at + size].view_as(previous[name][k]).to(previous[name].dtype)
            at += size
    return means


def robust_average(updates: Tensor, weights: Tensor, robust: Robust) -> Tensor:
    """The average (P,) of one group's updates (m, P) with weights (m,): clipped if asked for, then averaged."""
    if robust.clip is not None:
        lengths = updates.norm(dim=1)
        updates = clipped(updates, weighted_median(lengths[:, None], weights) if robust.clip == "median"
                          else torch.tensor(robust.clip))
    if robust.average == "median":
        return weighted_median(updates, weights)
    return trimmed_mean(updates, weights, robust.share if robust.average == "trimmed_mean" else 0.0)


def clipped(updates: Tensor, bound: Tensor) -> Tensor:
    """u_i min(1, bound / |u_i|) of updates (m, P)."""
    lengths = updates.norm(dim=1, keepdim=True)
    return torch.where(lengths > bound, updates * (bound / lengths.clamp_min(1e-300)), updates)


def trimmed_mean(values: Tensor, weights: Tensor, trim: float) -> Tensor:
    """Of each coordinate the mean without the share ``trim`` of the weight at each end (Yin et al., definition 2).

    The values are laid side by side in their order, each as wide as its weight of 1 in all; what lies in
    [trim, 1 - trim] is averaged, of a value on the border its part. With equal weights and trim m whole this is the
    paper's; a heavy client is trimmed no later than many light ones, and soft weights need no rule of their own. One
    client, or two of equal weight, have nothing to be trimmed against: the result is their mean.

    Parameters
    ----------
    values : (m, P)
    weights : (m,), positive
    trim : in [0, .5)

    Returns
    -------
    (P,)
    """
    ordered, right = _side_by_side(values, weights)
    left = torch.cat([torch.zeros_like(right[:1]), right[:-1]])
    kept = right.clamp(trim, 1 - trim) - left.clamp(trim, 1 - trim)
    return (kept * ordered).sum(0) / kept.sum(0)


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Of each coordinate the value at half of the weight (Yin et al., definition 1); between two, their middle.

    Parameters and result as of :func:`trimmed_mean`.
    """
    ordered, right = _side_by_side(values, weights)
    last = len(values) - 1
    low = (right < 0.5 - ROUNDING).sum(0).clamp_max(last)
    high = (right < 0.5 + ROUNDING).sum(0).clamp_max(last)
    return (ordered.gather(0, low[None])[0] + ordered.gather(0, high[None])[0]) / 2


def _side_by_side(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The values (m, P) in the order of each column, and the right ends (m, P) of their weights laid side by side."""
    ordered, order = values.sort(dim=0)
    return ordered, (weights.double() / weights.double().sum())[order].cumsum(0)


def flatten(models: Params) -> Tensor:
    """Stacked models (S, ...) as one matrix (S, P), parameters in the order of their names."""
    return torch.cat([models[name].flatten(1) for name in sorted(models)], dim=1)
