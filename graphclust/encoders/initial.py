"""Initial weights from a generator; torch's layers take theirs from the global stream."""

from __future__ import annotations

import math

import torch
from torch import nn


def uniform_(layer: nn.Module, fan_in: int, generator: torch.Generator | None) -> None:
    """Fill weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as ``torch.nn.Linear`` and ``Conv2d`` do."""
    bound = 1 / math.sqrt(fan_in)
    with torch.no_grad():
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
