"""Sparse matrices as torch tensors, and as the input of an encoder."""

from __future__ import annotations

import warnings
from typing import Any

import scipy.sparse as sp
import torch
from torch import Tensor, nn


def csr_tensor(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A CSR tensor, without torch's once-per-process notice that the layout is in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=False)


class SparseInput:
    """A sparse (n, d) matrix on a device with its transpose, which the gradient of the first layer multiplies with.

    Parameters
    ----------
    matrix : csr_array of shape (n, d)
    device : where to hold it
    """

    def __init__(self, matrix: sp.csr_array, device: torch.device | str = "cpu") -> None:
        self.rows = _to_torch(matrix, device)
        self.columns = _to_torch(matrix.T.tocsr(), device)

    def linear(self, layer: nn.Linear) -> Tensor:
        """The layer applied to the matrix, shape (n, out)."""
        return _SparseLinear.apply(layer.weight, self).add_(layer.bias)


class _SparseLinear(torch.autograd.Function):
    """X W^T; the backward of ``torch.sparse.mm`` transposes X anew in each pass, which costs more than the product."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: SparseInput) -> Tensor:
        ctx.x = x
        return torch.cat(_strips(x.rows, weight.T), dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # in the layout of the weights, for which autograd would copy it
        return torch.cat([strip.T for strip in _strips(ctx.x.columns, grad)]), None


def _strips(matrix: Tensor, dense: Tensor) -> list[Tensor]:
    """matrix @ dense by strips of columns: one stays in the inner cache, where each of its rows is read many times."""
    return [matrix @ strip.contiguous() for strip in dense.split(64, dim=1)]


def _to_torch(matrix: sp.csr_array, device: torch.device | str) -> Tensor:
    crow, col, values = (torch.tensor(part, device=device) for part in (matrix.indptr, matrix.indices, matrix.data))
    return csr_tensor(crow, col, values, matrix.shape)
