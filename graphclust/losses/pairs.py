"""Weighted sums over the stored pairs of a sparse influence matrix, in time and memory linear in their number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphclust.encoders.sparse import csr_tensor


@dataclass(frozen=True)
class Pairs:
    """A sparse (a, m) matrix Gamma on a device, with the pattern of its transpose.

    Row i belongs to node i of a block of m nodes whose first a are the anchors; on a whole graph a = m = n.

    Attributes
    ----------
    crow, col, weight : the CSR parts of Gamma
    crow_t, col_t : the CSR pattern of its transpose
    order : position in ``weight`` of each entry of the transpose
    """

    crow: Tensor
    col: Tensor
    weight: Tensor
    crow_t: Tensor
    col_t: Tensor
    order: Tensor
    shape: tuple[int, int]

    @classmethod
    def from_scipy(cls, matrix: sp.csr_array, device: torch.device | str = "cpu", dtype: Any = np.float32) -> Self:
        """A scipy CSR matrix on ``device``; on the CPU a view of it, which nothing may write to."""
        position = np.arange(matrix.nnz, dtype=matrix.indices.dtype)
        order = sp.csr_array((position, matrix.indices, matrix.indptr), shape=matrix.shape).T.tocsr()
        parts = (matrix.indptr, matrix.indices, matrix.data.astype(dtype), order.indptr, order.indices, order.data)
        crow, col, weight, crow_t, col_t, positions = (torch.as_tensor(part, device=device) for part in parts)
        return cls(crow, col, weight, crow_t, col_t, positions, matrix.shape)

    def rows(self) -> Tensor:
        """Row id of each entry, shape (nnz,)."""
        ids = torch.arange(self.shape[0], dtype=self.crow.dtype, device=self.crow.device)
        return torch.repeat_interleave(ids, self.crow.diff())

    def csr(self, values: Tensor) -> Tensor:
        """The pattern with other values."""
        return csr_tensor(self.crow, self.col, values, self.shape)

    def transposed(self, values: Tensor) -> Tensor:
        """The transpose of :meth:`csr`."""
        return csr_tensor(self.crow_t, self.col_t, values[self.order], self.shape[::-1])


def positive_sum(unit: Tensor, pairs: Pairs, tau: float) -> Tensor:
    """pos_i = sum_{j in nz(Gamma_i)} Gamma_ij exp(tau cos_ij), with cos_ii := 0.

    Parameters
    ----------
    unit : (m, d), rows of length 1 (or 0), so that cos_ij = <unit_i, unit_j>
    pairs : Gamma, (a, m)
    tau : factor on the cosine, an inverse temperature

    Returns
    -------
    pos : (a,)
    """
    return _PositiveSum.apply(unit, pairs, tau)


class _PositiveSum(torch.autograd.Function):
    """Autograd alone would keep two (nnz, d) tensors; here one (nnz,) tensor is kept and both passes are sparse."""

    @staticmethod
    def forward(ctx: Any, unit: Tensor, pairs: Pairs, tau: float) -> Tensor:
        pattern = pairs.csr(pairs.weight)
        anchors = unit[: pairs.shape[0]].contiguous()
        cos = torch.sparse.sampled_addmm(pattern, anchors, unit.T, beta=0.0).values()
        own = pairs.rows() == pairs.col
        terms = pairs.weight * torch.exp(tau * cos.masked_fill_(own, 0))
        ctx.save_for_backward(unit, terms.masked_fill(own, 0))
        ctx.pairs, ctx.tau = pairs, tau
        return torch.segment_reduce(terms, "sum", offsets=pairs.crow.long())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        unit, terms = ctx.saved_tensors
        pairs: Pairs = ctx.pairs
        a = pairs.shape[0]
        # d pos_i / d u_i = tau sum_j t_ij u_j and d pos_i / d u_j = tau t_ij u_i
        w = terms * (ctx.tau * grad)[pairs.rows()]
        out = pairs.transposed(w) @ unit[:a].contiguous()
        out[:a] += pairs.csr(w) @ unit
        return out, None, None
