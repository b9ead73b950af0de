"""Multi-layer perceptron whose input may be sparse."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from graphclust.encoders.initial import uniform_
from graphclust.encoders.sparse import SparseInput

# Above four times this many rows the layers after the first work on that many at a time: the backward pass then holds
# the gradients of one part only (100 MB less for 10,000 rows of the paper's network), and finds them in the cache.
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
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, a, b) for a, b in pairwise(sizes)
        )
        for layer in self.layers:
            uniform_(layer, layer.in_features, generator)

    def forward(self, x: Tensor | SparseInput) -> Tensor:
        """Map (n, d), dense or :class:`SparseInput`, to (n, out)."""
        first = self.layers[0]
        h = x.linear(first) if isinstance(x, SparseInput) else first(x)
        if len(self.layers) == 1:
            return h
        h = torch.relu_(h)
        if len(h) <= 4 * ROWS:
            return self._rest(h)
        return torch.cat([self._rest(part) for part in h.split(ROWS)])

    def _rest(self, h: Tensor) -> Tensor:
        for layer in self.layers[1:-1]:
            h = torch.relu_(layer(h))
        return self.layers[-1](h)
