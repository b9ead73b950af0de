"""Multi-layer perceptron whose input may be sparse."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from graphclust.encoders.initial import blank, uniform_
from graphclust.encoders.sparse import SparseInput

# Above four times this many rows the layers (but a sparse first one) work on that many at a time: the backward pass
# then holds the gradients of one part only (100 MB less for 10,000 rows of the paper's network), and finds them in the
# cache.
ROWS = 1024


class MLP(nn.Module):
    """Linear layers with a ReLU after each but the last; no dropout, no normalisation (the encoder of SDCN).

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

    def forward(self, x: Tensor | SparseInput) -> Tensor:
        """Map (n, d), dense or :class:`SparseInput`, to (n, out)."""
        layers = list(self.layers)
        if isinstance(x, SparseInput):
            h = x.linear(layers.pop(0))
            if not layers:
                return h
            h = torch.relu_(h)
        else:
            h = x
        if len(h) <= 4 * ROWS:
            return _through(layers, h)
        return torch.cat([_through(layers, part) for part in h.split(ROWS)])


def _through(layers: Sequence[nn.Module], h: Tensor) -> Tensor:
    for layer in layers[:-1]:
        h = torch.relu_(layer(h))
    return layers[-1](h)
