"""One client as its app sees it: settings, samples, and cohorts of this client alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedclust.algorithms import FederatedAlgorithm
from fedclust.config import FederationConfig
from fedclust.data.client import ClientData, Federation, Pending, Split
from fedclust.data.spec import FederationSpec
from fedclust.models import Model, ModelConfig
from fedclust.run_config import config_text, jobs
from fedclust.task import Cohort, padded_length, stream
from graphclust.graph import InputError

# By the config's identity: its content may be long, the groups of all clients for one.
_MADE: deque[tuple[FederationConfig, FederatedAlgorithm]] = deque(maxlen=8)
ALL = -1
"""As a number of shots: every labelled sample that the client has."""


@dataclass(frozen=True)
class Participant:
    """One client.

    Parameters
    ----------
    config : of the federation
    client : who it is, with its samples, or with a way to make them whenever they are needed
    n_classes : C of the model's head
    role : "train", or "unseen" for a newcomer
    home : folder of a deployed client's own files; None: what it remembers is kept in Flower's Context
    stays : its stacked samples stay in memory from one message to the next
    """

    config: FederationConfig
    client: ClientData | Pending
    n_classes: int
    role: str = "train"
    home: Path | None = None
    stays: bool = True

    @property
    def data(self) -> ClientData:
        """Its samples."""
        return self.client.make() if isinstance(self.client, Pending) else self.client

    @cached_property
    def lengths(self) -> tuple[int, int, int]:
        """Samples to train on, of the test and of the validation."""
        return len(self.data.train), len(self.data.test), len(self.data.validation)

    @cached_property
    def kind(self) -> Hashable:
        """Clients of one kind compute the same on data that are padded to the same lengths."""
        known = self.lengths if self.stays else (self.client.n_train,)  # to know the others it would have to be made
        lengths = tuple(map(padded_length, known)) if self.model.has_gradient else ()
        return id(self.config), id(self.algorithm), self.role, lengths

    @cached_property
    def algorithm(self) -> FederatedAlgorithm:
        """The algorithm with its settings; clients of one config have the same object."""
        return _algorithm(self.config)

    @cached_property
    def model(self) -> Model:
        """The architecture."""
        return _model(self.config.model, self.client.input_shape, self.n_classes)

    @cached_property
    def _cohort(self) -> Cohort:
        return Cohort([self.data], self.model, seed=self.config.seed, round=0)

    def cohort(self, round: int, memory: dict[str, Tensor]) -> Cohort:
        """The cohort of this client; the same object, with its padded data, in every round if it stays."""
        if not self.stays:
            return Cohort([self.data], self.model, seed=self.config.seed, round=round, memory=memory)
        return self._cohort.begin(round, memory)

    def with_shots(self, m: int, draw: int) -> ClientData:
        """The client with ``m`` of its labelled samples only, drawn by the stream of (id, m, draw)."""
        data, n = self.data, len(self.data.train)
        if m == ALL or m >= n:
            return data
        chosen = torch.randperm(n, generator=stream(self.config.seed, "shots", data.id, m, draw))[:m].sort().values
        return replace(data, train=Split(data.train.x[chosen], data.train.y[chosen]))


class _Job:
    """The clients of one federation in this process, their samples only as far as there is room for them."""

    def __init__(self, config: FederationConfig) -> None:
        self._config, self._made = config, dict[int, Participant]()
        self._federation = simulated_federation(config)

    def participant(self, partition: int) -> Participant:
        if partition not in self._made:
            federation, n = self._federation, len(self._federation.ids)
            if not 0 <= partition < n:
                raise InputError(
                    f"partition-id = {partition}: the federation has {n} clients, 0 to {n - 1}; "
                    "run it with that many SuperNodes"
                )
            self._made[partition] = Participant(
                self._config, federation.pending(partition), federation.n_classes,
                "train" if partition < len(federation.clients) else "unseen", stays=federation.fits)
        return self._made[partition]


def simulated(run_config: Mapping[str, Any], node_config: Mapping[str, Any], job: int) -> Participant:
    """The client of a simulated federation: the run config says which one, the node's partition id which client."""
    if "partition-id" not in node_config:
        raise InputError("the node config has neither `data` nor `partition-id`; start the SuperNode with `client` and "
                         "`data`, as fedclust deploy supernode does")
    return _job(config_text(run_config), job).participant(int(node_config["partition-id"]))


def simulated_federation(config: FederationConfig) -> Federation:
    """The federation of ``config``, built once in this process."""
    return _federation(config.federation.model_dump_json())


@lru_cache(maxsize=2)
def _job(text: str, job: int) -> _Job:
    return _Job(jobs(text)[job])


@lru_cache(maxsize=2)
def _federation(spec: str) -> Federation:
    from fedclust.data.build import build_federation  # what clients with data of their own need not import

    return build_federation(FederationSpec.model_validate_json(spec))


def _algorithm(config: FederationConfig) -> FederatedAlgorithm:
    for known, algorithm in _MADE:
        if known is config:
            return algorithm
    _MADE.appendleft((config, config.make()))
    return _MADE[0][1]


@lru_cache(maxsize=8)
def _model(config: ModelConfig, input_shape: tuple[int, ...], n_classes: int) -> Model:
    return Model(config, input_shape, n_classes)
