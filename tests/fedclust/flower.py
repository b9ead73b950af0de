"""A few hand-made clients behind Flower's apps: what the tests of the Flower side stand on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedclust.client_app import client_app
from fedclust.config import FederationConfig
from fedclust.data.client import ClientData
from fedclust.data.spec import FederationSpec
from fedclust.flwr_compat import task_identity
from fedclust.participant import Participant
from fedclust.state import FederationResult
from fedclust.strategy import ClusteredStrategy
from simulations.engines.inprocess import InProcessGrid
from tests.fedclust.loop import MODEL, TRAINING, concepts

Spoil = Callable[[Message, Callable[[], Message]], Message]
"""(message, call of the real app) -> reply: what goes wrong on one client."""


def settings(algorithm: str = "fedavg", **changes: Any) -> FederationConfig:
    """A config for the clients of tests/fedclust/loop.py; its federation spec is not used."""
    fixed = {"federation": FederationSpec(), "model": MODEL.config, "training": TRAINING, "rounds": 3, "shots": (0, 2),
             "draws": 2, "timeout": 60}
    return FederationConfig(algorithm=algorithm, **{**fixed, **changes})


@dataclass
class Flower:
    """Clients on an in-process Grid.

    Parameters
    ----------
    config : of the federation
    clients : training clients
    unseen : newcomers
    spoil : client id -> what goes wrong with its messages of type train
    """

    config: FederationConfig
    clients: Sequence[ClientData] = field(default_factory=concepts)
    unseen: Sequence[ClientData] = ()
    spoil: dict[str, Spoil] = field(default_factory=dict)
    grid_class: type[InProcessGrid] = InProcessGrid

    def __post_init__(self) -> None:
        everyone = [*self.clients, *self.unseen]
        roles = ["train"] * len(self.clients) + ["unseen"] * len(self.unseen)
        self.participants = [
            Participant(self.config, c, MODEL.n_classes, role) for c, role in zip(everyone, roles, strict=True)
        ]
        self.grid = self.grid_class(self._app(), [{"partition-id": i} for i in range(len(everyone))], {})

    def _app(self) -> ClientApp:
        inner = client_app(lambda context, job: self.participants[int(context.node_config["partition-id"])])

        def outer(message: Message, context: Context) -> Message:
            client = self.participants[int(context.node_config["partition-id"])].data.id
            if client in self.spoil and message.metadata.message_type == "train":
                return self.spoil[client](message, lambda: inner(message, context))
            return inner(message, context)

        return outer  # type: ignore[return-value]  # a ClientApp is a callable

    def strategy(self, checkpoint: Path | None = None, **options: Any) -> ClusteredStrategy:
        """A strategy that expects these clients."""
        return ClusteredStrategy(self.config, len(self.participants), checkpoint=checkpoint, **options)

    def run(self, checkpoint: Path | None = None, **options: Any) -> FederationResult:
        """The federation from start to end."""
        with task_identity(1):
            return self.strategy(checkpoint, **options).start(self.grid)
