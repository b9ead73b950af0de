"""Initial weights from a generator; torch's layers take theirs from the global stream."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def blank(kind: type[Layer], *args: Any, **options: Any) -> Layer:
    """A layer whose weights are still to be set; the global stream stays as it is.

    As ``torch.nn.utils.skip_init``, which imports sympy on its way: a third of a second in every process that builds a
    model, and a deployed client is a process for every message.
    """
    with torch.random.fork_rng(devices=[]):
        return kind(*args, **options)


def uniform_(layer: nn.Module, fan_in: int, generator: torch.Generator | None) -> None:
    """Fill weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as ``torch.nn.Linear`` and ``Conv2d`` do."""
    bound = 1 / math.sqrt(fan_in)
    with torch.no_grad():
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
