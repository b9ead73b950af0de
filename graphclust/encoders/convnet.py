"""Small convolutional encoder for images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graphclust.encoders.initial import blank, uniform_


class ConvNet(nn.Module):
    """Two 3 x 3 convolutions with 2 x 2 max-pooling after each, then a linear layer; ReLU throughout, no normalisation.

    Parameters
    ----------
    input_shape : (channels, height, width); height and width at least 4
    channels : output channels of the two convolutions
    out : width of the embedding
    generator : source of the initial weights; the distribution is that of torch's layers
    """

    def __init__(
        self, input_shape: tuple[int, int, int], channels: tuple[int, int] = (16, 32), out: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        c, height, width = input_shape
        self.first = blank(nn.Conv2d, c, channels[0], 3, padding=1)
        self.second = blank(nn.Conv2d, channels[0], channels[1], 3, padding=1)
        self.last = blank(nn.Linear, channels[1] * (height // 4) * (width // 4), out)
        for layer in (self.first, self.second, self.last):
            uniform_(layer, math.prod(layer.weight.shape[1:]), generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to (n, out)."""
        h = nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        h = nn.functional.max_pool2d(torch.relu(self.second(h)), 2)
        return self.last(h.flatten(1))
