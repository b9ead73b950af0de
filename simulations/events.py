"""Clients that drop out of rounds or are late in them, the same in every engine: a Grid around the engine's own."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from flwr.app import ConfigRecord, Error, Message
from flwr.serverapp import Grid
from torch import Tensor

from fedclust.config import FederationConfig
from fedclust.deploy.grid import PromptGrid
from fedclust.events import DROPOUT, DROPPED, LATE, STRAGGLER, Absence
from fedclust.flwr_compat import NODE_UNAVAILABLE, REPLY_UNAVAILABLE, set_message_id
from fedclust.forwarding import ForwardingGrid
from fedclust.messages import settings_of
from fedclust.rounds import RunStopped
from fedclust.strategy import KeepsMemories
from fedclust.task import stream
from graphclust.graph import InputError


def eventful(config: FederationConfig, grid: Grid) -> Grid:
    """``grid`` with the events of ``config``; ``grid`` itself where there are none.

    Raises
    ------
    InputError
        A deployed federation, or a trace that is not what it was.
    """
    if not config.events.model_dump(exclude_defaults=True):
        return grid
    if isinstance(grid, PromptGrid):
        raise InputError("events are for simulations, and these are real clients, who drop out by themselves; "
                         "leave events out of the config")
    return (_RememberingGrid if isinstance(grid, KeepsMemories) else EventfulGrid)(grid, config)


class Schedule:
    """What happens to whom, and when: by the trace, else by a draw of each client for itself.

    Parameters
    ----------
    config : of the federation
    """

    def __init__(self, config: FederationConfig) -> None:
        self._seed, self._events = config.seed, config.events
        self._rows: dict[str, list[Absence]] = {}
        for row in config.events.rows():
            self._rows.setdefault(row.client, []).append(row)

    def event(self, client: str, round_: int) -> str | None:
        """The event of a client in a round that asks it, ``dropout`` or ``straggler``; None: it answers in time."""
        for row in self._rows.get(client, ()):
            if row.first <= round_ <= row.last:
                return row.event
        drops, lags = torch.rand(2, generator=stream(self._seed, "events", client, round_))
        if drops < self._events.dropout:
            return DROPOUT
        return STRAGGLER if lags < self._events.straggler else None

    def check(self, ids: Collection[str]) -> None:
        """InputError for a client of the trace that is not among the training clients ``ids``."""
        for client, rows in self._rows.items():
            if client not in ids:
                raise InputError(f"{self._events.trace}, line {rows[0].line}: no training client is called {client!r}; "
                                 f"the first is {min(ids)!r}")


class EventfulGrid(ForwardingGrid):
    """Sends and receives as ``grid`` does, but lets clients drop out of rounds or be late in them.

    A client that drops out is not sent its message and an error is answered for it; one that is late does the round,
    and an error takes the place of its reply. Preparation rounds are rounds; the handshake, the last evaluation and
    newcomers go through untouched.

    Parameters
    ----------
    grid : carries the messages
    config : of the federation that is about to start; its clients are known by how they introduce themselves
    """

    def __init__(self, grid: Grid, config: FederationConfig) -> None:
        super().__init__(grid)
        self._needed, self._schedule = config.min_replies, Schedule(config)
        self._clients: dict[int, str] = {}
        self._late: dict[str, Message] = {}
        self._dropped: dict[str, Message] = {}
        self._count = 0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies, with errors for clients that dropped out or were late."""
        going, late, dropped = self._happen(messages)
        replies = list(self._grid.send_and_receive(going, timeout=timeout)) if going else []
        self._expect_late(late)
        return [*map(self._received, replies), *(_void(m, NODE_UNAVAILABLE, DROPPED) for m in dropped)]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send what is not dropped; an id for each message that the grid takes or that is dropped."""
        going, late, dropped = self._happen(messages)
        ids = list(self._grid.push_messages(going))
        self._expect_late(late)
        self._dropped |= {m.metadata.message_id: m for m in dropped}
        return ids + [m.metadata.message_id for m in dropped]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there, with errors for clients that dropped out or were late."""
        asked = list(message_ids)
        own = [self._dropped.pop(i) for i in asked if i in self._dropped]
        gone = {m.metadata.message_id for m in own}
        replies = self._grid.pull_messages([i for i in asked if i not in gone])
        return [*map(self._received, replies), *(_void(m, NODE_UNAVAILABLE, DROPPED) for m in own)]

    def _happen(self, messages: Iterable[Message]) -> tuple[list[Message], list[Message], list[Message]]:
        """The messages to send, those of them whose replies will be late, and those that are dropped.

        Raises
        ------
        InputError
            The trace names a client that is not there.
        RunStopped
            So many of a round's clients drop out or are late that ``min_replies`` cannot be reached.
        """
        sent = list(messages)
        asked = [m for m in sent if m.metadata.message_type == "train"]
        if not asked:
            return sent, [], []
        self._schedule.check({*self._clients.values()})
        round_ = int(settings_of(asked[0].content)["round"])  # type: ignore[arg-type]  # the strategy's settings
        events = {id(m): self._schedule.event(self._clients[m.metadata.dst_node_id], round_) for m in asked}
        late, dropped = ([m for m in asked if events[id(m)] == kind] for kind in (STRAGGLER, DROPOUT))
        if len(asked) - len(late) - len(dropped) < self._needed:
            raise RunStopped(
                f"round {round_}: of {len(asked)} clients asked {len(dropped)} drop out and {len(late)} are late "
                f"(simulated events), min_replies = {self._needed}; a resumed run meets the same events: lower "
                "events.dropout or events.straggler, change the trace, ask more clients, or take another seed"
            )
        for m in dropped:  # never sent, so nobody else names it
            self._count += 1
            set_message_id(m, f"dropped-{self._count}")
        return [m for m in sent if events.get(id(m)) != DROPOUT], late, dropped

    def _expect_late(self, late: Iterable[Message]) -> None:
        self._late |= {m.metadata.message_id: m for m in late}

    def _received(self, reply: Message) -> Message:
        """The reply, or what the server gets in its place; who says hello is remembered."""
        message = self._late.pop(reply.metadata.reply_to_message_id, None)
        if reply.has_error():  # what broke a client is said even where it was late
            return reply
        hello = reply.content.get("hello")
        if isinstance(hello, ConfigRecord) and hello.get("role") == "train":
            self._clients[reply.metadata.src_node_id] = str(hello["id"])
        return reply if message is None else _void(message, REPLY_UNAVAILABLE, LATE)


class _RememberingGrid(EventfulGrid):
    """Around a grid whose nodes live in this process: what they remember is saved and put back."""

    def memories(self) -> dict[str, Tensor]:
        """As the grid beneath."""
        return self._grid.memories()

    def restore_memories(self, memories: dict[str, Tensor]) -> None:
        """As the grid beneath."""
        self._grid.restore_memories(memories)


def _void(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code, reason), reply_to=message)
