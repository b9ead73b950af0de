"""Graph convolutional encoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from graphclust.encoders.initial import blank, uniform_


class GCN(nn.Module):
    """Layers H' = A H W + b with a ReLU after each but the last (Kipf and Welling, arXiv 1609.02907, equation 2).

    Parameters
    ----------
    sizes : widths (d, hidden..., out)
    generator : source of the initial weights; the distribution is that of ``torch.nn.Linear``
    """

    def __init__(self, sizes: Sequence[int], generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blank(nn.Linear, a, b) for a, b in pairwise(sizes))
        for layer in self.layers:
            uniform_(layer, layer.in_features, generator)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Map (n, d) to (n, out); ``adjacency`` (n, n), dense or sparse, is normalised already."""
        for i, layer in enumerate(self.layers):
            x = adjacency @ nn.functional.linear(x, layer.weight) + layer.bias
            if i < len(self.layers) - 1:
                x = torch.relu(x)
        return x
