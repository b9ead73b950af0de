"""What a client's model minimises: losses of samples, pure functions of the parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from fedclust.models import Model, Params
from graphclust.losses import neighbour_contrast_of_nodes


def cross_entropy(
    model: Model, params: Params | None, x: Tensor, y: Tensor, at: Tensor | None, adjacency: Tensor | None
) -> Tensor:
    """Per-sample losses l(theta; x, y) (b,); on nodes x holds the features of all nodes and ``at`` (b,) the samples."""
    logits = model.logits(params, x, adjacency)
    return torch.nn.functional.cross_entropy(logits if at is None else logits[at], y, reduction="none")


def scgc(model: Model, params: Params | None, x: Tensor, at: Tensor, gamma: Tensor) -> Tensor:
    """Losses of nodes without labels, l_i = |x_hat_i - x_i|^2 / d + alpha l_NC,i (b,).

    Their mean over all nodes is L of SCGC (arXiv 2204.12656, equation 11) without KL(P || Q), which needs centres.

    Parameters
    ----------
    x, gamma : features (n, d) and influence (n, n) of all nodes of one graph
    at : (b,) the nodes
    """
    z, decoded = model.autoencode(params, x)
    contrast = neighbour_contrast_of_nodes(z, gamma, model.config.tau)
    return (decoded - x).square().mean(1)[at] + model.config.alpha * contrast[at]


def sample_losses(
    model: Model, params: Params | None, x: Tensor, y: Tensor, at: Tensor | None, adjacency: Tensor | None
) -> Tensor:
    """The losses (b,) of the model's task; only that of classification sees ``y``."""
    if model.clusters:
        assert at is not None and adjacency is not None
        return scgc(model, params, x, at, adjacency)
    return cross_entropy(model, params, x, y, at, adjacency)
