"""Flower's Grid of a deployed ServerApp, asked for replies more often."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedclust.flwr_compat import NODE_UNAVAILABLE

PAUSE = 0.5
"""Seconds between two looks for replies; Flower's own are 3 apart."""


class PromptGrid(Grid):
    """Sends and receives as ``grid`` does, but looks for replies every :data:`PAUSE` seconds.

    A message that the SuperLink does not take, since its node is not registered any more, is answered with an error at
    once; Flower would wait for its reply until the timeout.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies that came within ``timeout`` seconds."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        sent = list(messages)
        taken = set(filter(None, self.push_messages(sent)))
        replies = [Message(Error(NODE_UNAVAILABLE, "the SuperLink knows no such node"), reply_to=m)
                   for m in sent if m.metadata.message_id not in taken]
        while taken:
            new = list(self.pull_messages(taken))
            replies += new
            taken -= {m.metadata.reply_to_message_id for m in new}
            if not taken or time.monotonic() > deadline:
                break
            time.sleep(PAUSE)
        return replies

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are online."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, without waiting; an id a message, None for one that is not taken."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there."""
        return self._grid.pull_messages(message_ids)

    def set_run(self, run: Any) -> None:
        """As the grid beneath."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """The run."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message (Flower asks every Grid for this method, and everyone to construct Message instead)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)
