"""What one client holds, and a federation of clients."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

import numpy as np
from torch import Tensor

from graphclust.graph import InputError

UNKNOWN = -1
"""The label of all training samples of a client that clusters its nodes."""
ROOM = 2**30
"""Bytes of clients that a federation keeps: one of 30 clients fits as a whole, one of 10,000 need not."""


@dataclass(frozen=True)
class Split:
    """Labelled samples: ``x`` (n, ...) float32 and ``y`` (n,) int64.

    In the tasks on nodes ``x`` is (n,) int64: the positions of the samples among the nodes of the client's graph.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return self.y.shape[0]  # len() of a tensor takes as long as to draw its order


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

    @property
    def n_train(self) -> int:
        """Training samples."""
        return len(self.train)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, or (d,) of one node."""
        return tuple((self.train.x if self.nodes is None else self.nodes).shape[1:])

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors."""
        splits = [t for s in (self.train, self.test, self.validation) for t in (s.x, s.y)]
        # a sparse adjacency is small beside the features
        return sum(t.nbytes for t in (*splits, self.nodes, self.adjacency) if t is not None and not t.is_sparse)


@dataclass(frozen=True)
class Pending:
    """What is known of a client before its samples are there.

    Parameters
    ----------
    id, n_train, input_shape : as the client's will be
    make : gives the client
    """

    id: str
    n_train: int
    input_shape: tuple[int, ...]
    make: Callable[[], ClientData]


class Kept:
    """Makes and checks clients by id, and keeps those that were asked for last.

    Parameters
    ----------
    make : gives the client of an id, the same tensors every time
    n_classes : C
    room : bytes of clients that are kept; the last one is, however large
    """

    def __init__(self, make: Callable[[str], ClientData], n_classes: int, room: int = ROOM) -> None:
        self._make, self._n_classes, self._room, self._n_bytes = make, n_classes, room, 0
        self._held: OrderedDict[str, ClientData] = OrderedDict()

    def __call__(self, client: str) -> ClientData:
        """The client of that id; InputError as in :func:`check_client`."""
        if client in self._held:
            self._held.move_to_end(client)
            return self._held[client]
        made = self._make(client)
        check_client(made, self._n_classes)
        self._held[client] = made
        self._n_bytes += made.n_bytes
        while self._n_bytes > self._room and len(self._held) > 1:
            self._n_bytes -= self._held.popitem(last=False)[1].n_bytes
        return made


class OnDemand(Sequence[ClientData]):
    """Clients that are made when they are asked for.

    Parameters
    ----------
    n_train : by id, in the order of the sequence, how many training samples there will be
    make : gives the client of an id; parts of one federation share it, see :class:`Kept`
    """

    def __init__(self, n_train: Mapping[str, int], make: Callable[[str], ClientData]) -> None:
        self.n_train, self.make, self._ids = dict(n_train), make, list(n_train)

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, at: int) -> ClientData: ...
    @overload
    def __getitem__(self, at: slice) -> OnDemand: ...
    def __getitem__(self, at: int | slice) -> ClientData | OnDemand:
        if isinstance(at, slice):
            return OnDemand({i: self.n_train[i] for i in self._ids[at]}, self.make)
        return self.make(self._ids[at])

    def __add__(self, others: OnDemand) -> OnDemand:
        """This part of a federation and another."""
        return OnDemand(self.n_train | others.n_train, self.make)


@dataclass(frozen=True)
class Federation:
    """Clients that train, clients that were never seen in training, and what is known about them.

    Parameters
    ----------
    clients : sorted by id; there, or made on demand
    unseen : newcomers, sorted by id; their ``train`` is the labelled support
    n_classes : C
    truth : what the scenario planted, never shown to an algorithm (but to ``oracle``): name ("concept", "feature",
        "group") -> {client id: true group}; the unseen clients are in it too
    """

    clients: Sequence[ClientData]
    unseen: Sequence[ClientData]
    n_classes: int
    truth: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.clients:
            raise InputError("the federation has no clients; give at least one")
        counts: Counter[str] = Counter()
        for part in (self.clients, self.unseen):
            if isinstance(part, OnDemand):
                counts.update(list(part.n_train))
                for i, n in part.n_train.items():
                    _check_trains(i, n)
            else:
                counts.update(c.id for c in part)
                for c in part:
                    check_client(c, self.n_classes)
        twice = sorted(i for i, count in counts.items() if count > 1)
        if twice:
            raise InputError(f"client ids must be unique; twice there: {twice}")

    @cached_property
    def everyone(self) -> Sequence[ClientData]:
        """The training clients, then the unseen ones: the order of Flower's partition ids."""
        if isinstance(self.clients, OnDemand) and isinstance(self.unseen, OnDemand):
            return self.clients + self.unseen
        return (*self.clients, *self.unseen)

    @cached_property
    def n_train(self) -> dict[str, int]:
        """Training samples of everyone by id, in the order of :attr:`everyone`; no client is made for it."""
        everyone = self.everyone
        return everyone.n_train if isinstance(everyone, OnDemand) else {c.id: c.n_train for c in everyone}

    @cached_property
    def ids(self) -> list[str]:
        """The ids of :attr:`everyone`, those that train first; no client is made for it."""
        return list(self.n_train)

    @property
    def training_ids(self) -> list[str]:
        """The ids of the clients that train."""
        return self.ids[: len(self.clients)]

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, or (d,) of one node."""
        return self.clients[0].input_shape

    @cached_property
    def fits(self) -> bool:
        """True when the training samples of all clients are no more than :data:`ROOM` bytes."""
        return 4 * math.prod(self.input_shape) * sum(self.n_train.values()) <= ROOM

    def pending(self, at: int) -> Pending:
        """The client at that place in :attr:`everyone`, not made yet."""
        client = self.ids[at]
        return Pending(client, self.n_train[client], self.input_shape, lambda: self.everyone[at])


def check_client(client: ClientData, n_classes: int) -> None:
    """InputError, by the client's name: no training samples, labels outside 0..C-1, NaN."""
    _check_trains(client.id, len(client.train))
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
        if split.x.is_floating_point() and not np.isfinite(split.x.numpy()).all():  # torch's takes 20 times as long
            raise InputError(f"client {client.id!r}: {name} features hold NaN or inf; clean them first")


def _check_trains(client: str, n_train: int) -> None:
    if not n_train:
        raise InputError(f"client {client!r} has no training samples; leave it out, or give it data")
