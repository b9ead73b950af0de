"""Neighbour-sampled blocks of an influence matrix, for mini-batch training."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


class BlockSampler:
    """Draws for a batch of seed nodes the part of the influence matrix that its loss needs.

    A row with at most ``fan_out`` entries is taken whole. Of a longer row ``fan_out`` entries are drawn with
    replacement, with probability proportional to the influence, each standing for row sum / fan_out: the weighted
    sum over the row is estimated without bias.

    Parameters
    ----------
    influence : csr_array of shape (n, n), non-negative
    fan_out : neighbours a seed
    """

    def __init__(self, influence: sp.csr_array, fan_out: int) -> None:
        self.matrix, self.fan_out = influence, fan_out
        self.cumulative = np.concatenate(([0.0], np.cumsum(influence.data, dtype=np.float64)))

    def block(self, seeds: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, sp.csr_array]:
        """The nodes of the block, shape (m,), seeds first, and the sampled influence, shape (len(seeds), m)."""
        start, end = self.matrix.indptr[seeds].astype(np.int64), self.matrix.indptr[seeds + 1].astype(np.int64)
        short = end - start <= self.fan_out
        counts = np.where(short, end - start, self.fan_out)
        rows = np.repeat(np.arange(len(seeds)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        entry = start[rows] + within
        drawn = ~short[rows]
        low, high = self.cumulative[start[rows[drawn]]], self.cumulative[end[rows[drawn]]]
        point = low + rng.random(len(low)) * (high - low)
        found = np.searchsorted(self.cumulative, point, side="right") - 1
        entry[drawn] = np.clip(found, start[rows[drawn]], end[rows[drawn]] - 1)
        weight = self.matrix.data[entry].astype(np.float64)
        weight[drawn] = (high - low) / self.fan_out
        columns = self.matrix.indices[entry]
        nodes = np.concatenate((seeds, np.setdiff1d(columns, seeds)))
        order = np.argsort(nodes)
        local = order[np.searchsorted(nodes, columns, sorter=order)]
        shape = (len(seeds), len(nodes))
        return nodes, sp.coo_array((weight.astype(np.float32), (rows, local)), shape=shape).tocsr()
