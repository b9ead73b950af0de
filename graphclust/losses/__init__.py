"""Losses as pure functions of tensors."""

from graphclust.losses.assignment import kl_divergence, soft_assignment, target_distribution
from graphclust.losses.meta_node import meta_node_contrast
from graphclust.losses.neighbour import neighbour_contrast, neighbour_contrast_of_nodes
from graphclust.losses.pairs import Pairs, positive_sum

__all__ = [
    "Pairs",
    "kl_divergence",
    "meta_node_contrast",
    "neighbour_contrast",
    "neighbour_contrast_of_nodes",
    "positive_sum",
    "soft_assignment",
    "target_distribution",
]
