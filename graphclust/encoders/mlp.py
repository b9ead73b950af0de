"""Multi-layer perceptron whose input may be sparse."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from graphclust.encoders.initial import blank, uniform_
from graphclust.encoders.sparse import SparseInput

# Rows whose gradient passes through a layer at a time in :meth:`MLP.lean`: a part of it stays in the cache.
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
        h, layers = self._first(x)
        for i, layer in enumerate(layers):
            h = layer(h) if i == len(layers) - 1 else torch.relu_(layer(h))
        return h

    def lean(self, x: Tensor | SparseInput) -> Tensor:
        """The values and gradients of :meth:`forward`, with less memory: for the training on many rows at once.

        Gradients overwrite the activations, so that one backward pass is possible, and none under torch.func.
        """
        h, layers = self._first(x)
        if not layers:
            return h
        return _Layers.apply(h, *(part for layer in layers for part in (layer.weight, layer.bias)))

    def _first(self, x: Tensor | SparseInput) -> tuple[Tensor, list[nn.Module]]:
        """What the dense layers get, and these layers."""
        layers = list(self.layers)
        if not isinstance(x, SparseInput):
            return x, layers
        h = x.linear(layers.pop(0))
        return (torch.relu_(h) if layers else h), layers


class _Layers(torch.autograd.Function):
    """Linear layers with a ReLU between them; autograd would hold two gradients beside each activation."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        inputs = [h]
        for weight, bias in zip(weights, biases, strict=True):
            inputs.append(torch.addmm(bias, inputs[-1], weight.T))
            if len(inputs) <= len(weights):
                inputs[-1].relu_()
        ctx.save_for_backward(*inputs[:-1], *weights)
        return inputs[-1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        found: list[Tensor | None] = []
        for i in range(count - 1, -1, -1):
            found = [grad.T @ inputs[i], grad.sum(0), *found]
            if i:
                for part, h in zip(grad.split(ROWS), inputs[i].split(ROWS), strict=True):
                    # the activation is not needed any more: the gradient before the ReLU takes its place
                    torch.ops.aten.threshold_backward.grad_input(part @ weights[i], h, 0, grad_input=h)
                grad = inputs[i]
        return (grad @ weights[0] if ctx.needs_input_grad[0] else None), *found
