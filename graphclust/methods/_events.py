"""A stream as training samples: each event seen from both of its ends, its history, and negative nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphclust.stream import Stream

# Weights of co-contacts below this are no edges: they would only fill memory.
LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Events:
    """The 2E entries (s, t, tau) of a stream: entry e and the ones before it with the same s are s's history.

    Attributes
    ----------
    node, other : (2E,) int64, s and t; sorted by s, then by time
    time : (2E,) float64, tau in units of ``unit``; in float32 the units of a long stream are no longer told apart
    first : (n,) int64, the first entry of each node
    event : (2E,) int64, the event of an entry: its place in the order of time
    frequency : (n,) float64, cumulated degree^0.75, from which negatives are drawn (word2vec's noise)
    """

    node: Tensor
    other: Tensor
    time: Tensor
    first: Tensor
    event: Tensor
    frequency: Tensor

    @classmethod
    def of(cls, stream: Stream, unit: str) -> Events:
        """The entries of a stream.

        Parameters
        ----------
        unit : "span": the time from the first event to the last; "gap": the median time between two successive events
            of a node, those at the same instant left out
        """
        node = np.concatenate((stream.src, stream.dst))
        event = np.tile(np.arange(stream.m), 2)
        order = np.lexsort((event, node))
        node, event = node[order], event[order]
        other = np.concatenate((stream.dst, stream.src))[order]
        time = stream.unit_time()[event]
        if unit == "gap":
            gaps = np.diff(time)[node[1:] == node[:-1]]
            gaps = gaps[gaps > 0]
            time /= np.median(gaps) if len(gaps) else 1.0
        frequency = np.cumsum(np.bincount(node, minlength=stream.n) ** 0.75)
        first = np.searchsorted(node, np.arange(stream.n))
        return cls(*map(torch.from_numpy, (node, other, time, first, event, frequency)))

    def __len__(self) -> int:
        return len(self.node)

    def entries(self, chosen: Tensor) -> Tensor:
        """The entries of the events ``chosen``, (E,) bool, in the order of time."""
        found = torch.nonzero(chosen[self.event]).ravel()
        return found[self.event[found].argsort(stable=True)]

    def history(self, entries: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The entries (B, length) before each one, latest first, and which of them exist; the others are entry 0."""
        before = entries[:, None] - torch.arange(1, length + 1)
        exists = before >= self.first[self.node[entries]][:, None]
        return torch.where(exists, before, 0), exists

    def cocontacts(self) -> sp.csr_array:
        """Who is met in turn: for two successive events of a node, exp(-time between them) counts for the two nodes
        that it met, (n, n), symmetric, without diagonal. What TGC's history sees (eq. 1 at delta = 1), as a graph."""
        node, other, time = self.node.numpy(), self.other.numpy(), self.time.numpy()
        i, j = other[:-1], other[1:]
        weight = np.exp(-np.diff(time).clip(0))
        keep = (node[1:] == node[:-1]) & (i != j) & (weight > LEAST)
        n = len(self.first)
        half = sp.coo_array((weight[keep].astype(np.float32), (i[keep], j[keep])), shape=(n, n)).tocsr()
        return sp.csr_array(half + half.T)

    def negatives(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Nodes drawn by degree^0.75, (count, size); a true partner may be among them, as in the public code."""
        drawn = torch.rand(count, size, generator=generator, dtype=torch.float64) * self.frequency[-1]
        return torch.searchsorted(self.frequency, drawn, right=True).clamp_max(len(self.frequency) - 1)
