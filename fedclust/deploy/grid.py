"""Flower's Grid of a deployed ServerApp, asked for replies more often."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import Error, Message

from fedclust.flwr_compat import NODE_UNAVAILABLE
from fedclust.forwarding import ForwardingGrid

PAUSE = 0.5
"""Seconds between two looks for replies; Flower's own are 3 apart."""


class PromptGrid(ForwardingGrid):
    """Sends and receives as ``grid`` does, but looks for replies every :data:`PAUSE` seconds.

    A message that the SuperLink does not take, since its node is not registered any more, is answered with an error at
    once; Flower would wait for its reply until the timeout.
    """

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
