"""A Flower Grid in this process: deterministic, one client after the other, no server and no Ray."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import Tensor

from fedclust.config import FederationConfig
from fedclust.flwr_compat import CLIENT_FAILED, SERVER_NODE, empty_run, set_message_id, task_identity
from fedclust.participant import simulated_federation
from fedclust.records import pack, unpack
from fedclust.server_app import server_app
from fedclust.state import FederationResult
from graphclust.monitor import Monitor
from simulations.attacks import simulated_app
from simulations.events import eventful

RUN_ID = 1


class InProcessGrid(Grid):
    """Nodes whose ClientApp is called in this process, in the order in which their messages are sent.

    Every node keeps its Context. A ClientApp that raises gives an error reply, as on a SuperNode, and its Context stays
    what it was before the call.

    Parameters
    ----------
    app : the ClientApp of all nodes
    node_configs : one a node
    run_config : of the run
    """

    def __init__(self, app: ClientApp, node_configs: Sequence[UserConfig], run_config: UserConfig) -> None:
        self._app = app
        self._contexts = {
            node: Context(RUN_ID, node, config, RecordDict(), run_config)
            for node, config in enumerate(node_configs, start=SERVER_NODE + 1)
        }
        self._waiting: dict[str, Message] = {}
        self._count = 0

    def get_node_ids(self) -> list[int]:
        """All nodes; they are always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Name and keep the messages; they are handled when their replies are asked for."""
        ids = []
        for message in messages:
            self._count += 1
            set_message_id(message, f"message-{self._count}")
            self._waiting[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Handle these messages and give the replies."""
        return [self._handle(self._waiting.pop(i)) for i in message_ids if i in self._waiting]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies; none for messages whose turn comes after ``timeout`` seconds."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        replies = []
        for i in self.push_messages(messages):
            message = self._waiting.pop(i)
            if time.monotonic() < deadline:
                reply = self._handle(message)
                if time.monotonic() < deadline:
                    replies.append(reply)
        return replies

    def _handle(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        before = context.state.copy()
        # the sender shares records among messages: a ClientApp that empties one must not empty it for the others
        message.content = RecordDict({name: record.copy() for name, record in message.content.items()})
        try:
            reply = self._app(message, context)
        except Exception:
            context.state = before
            return self._reply(message, Error(CLIENT_FAILED, traceback.format_exc()))
        return self._named(reply)

    def _reply(self, message: Message, answer: RecordDict | Error) -> Message:
        return self._named(Message(answer, reply_to=message))  # type: ignore[call-overload]  # it takes both

    def _named(self, reply: Message) -> Message:
        self._count += 1
        set_message_id(reply, f"message-{self._count}")
        return reply

    def memories(self) -> dict[str, Tensor]:
        """The tensors in the nodes' Contexts, as "<node>/<record>/<name>"."""
        return {
            f"{node}/{record}/{name}": t
            for node, context in self._contexts.items()
            for record, arrays in context.state.items() if isinstance(arrays, ArrayRecord)
            for name, t in unpack(arrays).items()
        }

    def restore_memories(self, memories: dict[str, Tensor]) -> None:
        """Put back what :meth:`memories` gave."""
        records: dict[tuple[int, str], dict[str, Tensor]] = {}
        for key, t in memories.items():
            node, record, name = key.split("/", 2)
            records.setdefault((int(node), record), {})[name] = t
        for (at, record), tensors in records.items():
            self._contexts[at].state[record] = pack(tensors)

    def set_run(self, run: Any) -> None:
        """Nothing to do: there is one run."""

    @property
    def run(self) -> Any:
        """The run."""
        return empty_run(RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message (Flower asks every Grid for this method, and everyone to construct Message instead)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)


def simulate(
    config: FederationConfig, *, checkpoint: Path | None = None, monitor: Monitor | None = None
) -> FederationResult:
    """Run a federation in this process; see :class:`~simulations.engines.Simulate`."""

    def grid(nodes: Sequence[UserConfig], run_config: UserConfig) -> Grid:
        return InProcessGrid(simulated_app(), nodes, run_config)

    return simulate_on(grid, config, checkpoint=checkpoint, monitor=monitor)


def simulate_on(
    make_grid: Callable[[Sequence[UserConfig], UserConfig], Grid], config: FederationConfig, *,
    checkpoint: Path | None, monitor: Monitor | None,
) -> FederationResult:
    """Run the ServerApp in this process on a grid made for (node configs, run config)."""
    torch.set_num_threads(config.threads)
    n = len(simulated_federation(config).everyone)
    run_config: UserConfig = {"config": config.model_dump_json(), "clients": n, "folder": ""}
    nodes: list[UserConfig] = [{"partition-id": i, "num-partitions": n} for i in range(n)]
    results: list[FederationResult] = []
    app = server_app(lambda _, result: results.append(result), checkpoint=checkpoint, monitor=monitor,
                     around=eventful)
    with task_identity(RUN_ID):
        app(make_grid(nodes, run_config), Context(RUN_ID, SERVER_NODE, {}, RecordDict(), run_config))
    return results[0]
