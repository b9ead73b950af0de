"""Multi-layer perceptron whose input may be sparse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from graphclust.encoders.sparse import SparseInput


class MLP(nn.Module):
    """Linear layers with a ReLU after each but the last; no dropout, no normalisation (the encoder of SDCN).

    Parameters
    ----------
    sizes : widths (d, hidden..., out)
    generator : source of the initial weights; the distribution is that of ``torch.nn.Linear``
    """

    def __init__(self, sizes: Sequence[int], generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, a, b) for a, b in pairwise(sizes)
        )
        with torch.no_grad():
            for layer in self.layers:
                bound = 1 / math.sqrt(layer.in_features)
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def forward(self, x: Tensor | SparseInput) -> Tensor:
        """Map (n, d), dense or :class:`SparseInput`, to (n, out)."""
        for i, layer in enumerate(self.layers):
            if i:
                x = torch.relu_(x)
            x = x.linear(layer) if isinstance(x, SparseInput) else layer(x)
        return x
