"""What one client holds, and a federation of clients."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphclust.graph import InputError

UNKNOWN = -1
"""The label of all training samples of a client that clusters its nodes."""


@dataclass(frozen=True)
class Split:
    """Labelled samples: ``x`` (n, ...) float32 and ``y`` (n,) int64.

    In the tasks on nodes ``x`` is (n,) int64: the positions of the samples among the nodes of the client's graph.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class ClientData:
    """One client: its stable id and its samples.

    Parameters
    ----------
    id : the client's own name, the same in every run; never a position and never a Flower node id
    train, test : the client's own split
    validation : held out of training, for the best-validation round only; may be empty
    nodes : features (n, d) of the client's subgraph, for the task on nodes; None otherwise
    adjacency : (n, n) normalised adjacency of the subgraph, sparse or dense, or None; where nodes are clustered, the
        influence Gamma between them, dense
    """

    id: str
    train: Split
    test: Split
    validation: Split
    nodes: Tensor | None = None
    adjacency: Tensor | None = None


@dataclass(frozen=True)
class Federation:
    """Clients that train, clients that were never seen in training, and what is known about them.

    Parameters
    ----------
    clients : sorted by id
    unseen : newcomers, sorted by id; their ``train`` is the labelled support
    n_classes : C
    truth : what the scenario planted, never shown to an algorithm (but to ``oracle``): name ("concept", "feature",
        "group") -> {client id: true group}; the unseen clients are in it too
    """

    clients: tuple[ClientData, ...]
    unseen: tuple[ClientData, ...]
    n_classes: int
    truth: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = [c.id for c in self.everyone]
        if len(set(ids)) != len(ids):
            raise InputError(f"client ids must be unique; twice there: {sorted({i for i in ids if ids.count(i) > 1})}")
        if not self.clients:
            raise InputError("the federation has no clients; give at least one")
        for c in self.everyone:
            check_client(c, self.n_classes)

    @property
    def everyone(self) -> tuple[ClientData, ...]:
        """The training clients, then the unseen ones: the order of Flower's partition ids."""
        return self.clients + self.unseen

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, or (d,) of one node."""
        first = self.clients[0]
        return tuple((first.train.x if first.nodes is None else first.nodes).shape[1:])


def check_client(client: ClientData, n_classes: int) -> None:
    """InputError, by the client's name: no training samples, labels outside 0..C-1, NaN."""
    if not len(client.train):
        raise InputError(f"client {client.id!r} has no training samples; leave it out, or give it data")
    for name in ("train", "test", "validation"):
        split: Split = getattr(client, name)
        if len(split.x) != len(split.y):
            raise InputError(f"client {client.id!r}: {name} has {len(split.x)} samples and {len(split.y)} labels")
        if name == "train" and client.nodes is not None and bool((split.y == UNKNOWN).all()):
            continue
        if len(split) and (int(split.y.min()) < 0 or int(split.y.max()) >= n_classes):
            raise InputError(
                f"client {client.id!r}: {name} labels must lie in 0..{n_classes - 1}, found "
                f"{int(split.y.min())}..{int(split.y.max())}; raise n_classes or mend the labels"
            )
        if split.x.is_floating_point() and not torch.isfinite(split.x).all():
            raise InputError(f"client {client.id!r}: {name} features hold NaN or inf; clean them first")
