"""Nodes that go, come back under another id, or are not there: replies by client, and no endless waiting."""

import io
import logging
import time

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedclust.deploy import grid as prompt
from fedclust.deploy.artefacts import speak
from fedclust.deploy.grid import PromptGrid
from fedclust.flwr_compat import NODE_UNAVAILABLE, is_deployed, task_identity
from simulations.engines.inprocess import InProcessGrid
from tests.fedclust.flower import Flower, settings


class Slow(InProcessGrid):
    """A reply is there at the third look; messages to node 3 are not taken, those to node 4 never answered."""

    def push_messages(self, messages):
        taken = super().push_messages([m for m in messages if m.metadata.dst_node_id != 3])
        self.looks = 0
        return [*taken, None]

    def pull_messages(self, message_ids):
        self.looks += 1
        ready = [i for i in message_ids if self._waiting[i].metadata.dst_node_id != 4] if self.looks == 3 else []
        return super().pull_messages(ready)


def ask(grid, nodes, timeout):
    messages = [Message(RecordDict({"settings": ConfigRecord()}), node, "train") for node in nodes]
    return messages, grid.send_and_receive(messages, timeout=timeout)


@pytest.fixture
def slow(clock):
    with task_identity(1):
        yield Slow(lambda message, context: Message(RecordDict(), reply_to=message), [{}, {}, {}], {})


def test_replies_are_asked_for_until_all_are_there(slow):
    messages, replies = ask(PromptGrid(slow), [2], 60)
    assert [r.metadata.reply_to_message_id for r in replies] == [messages[0].metadata.message_id]
    assert slow.looks == 3 and time.monotonic() == 2 * prompt.PAUSE


def test_a_message_that_is_not_taken_is_an_error_at_once(slow):
    messages, replies = ask(PromptGrid(slow), [2, 3], 60)
    told = {r.metadata.reply_to_message_id: r for r in replies}
    refused = told[messages[1].metadata.message_id]
    assert refused.has_error() and refused.error.code == NODE_UNAVAILABLE
    assert not told[messages[0].metadata.message_id].has_error()


def test_the_waiting_ends_at_the_deadline(slow):
    assert ask(PromptGrid(slow), [4], 7)[1] == [] and 7 < time.monotonic() <= 7 + prompt.PAUSE


def test_a_prompt_grid_is_the_grid_beneath(slow):
    wrapped = PromptGrid(slow)
    assert list(wrapped.get_node_ids()) == [2, 3, 4] and wrapped.run.run_id == slow.run.run_id
    assert not is_deployed(slow) and not is_deployed(wrapped)


class Moving(InProcessGrid):
    """Node 4 (client c02) is gone from the third question for nodes on, and comes back as node 99 at the fifth."""

    asked = 0

    def get_node_ids(self):
        self.asked += 1
        return [*range(2, 8)] if self.asked < 3 else [2, 3, 5, 6, 7, *([99, 100] if self.asked >= 5 else [])]

    def push_messages(self, messages):
        # 100 is c00 a second time: its place is taken
        self._contexts |= {99: self._contexts[4], 100: self._contexts[2]}
        return super().push_messages([m for m in messages if m.metadata.dst_node_id != 4 or self.asked < 3])


def test_a_client_that_comes_back_under_another_node_is_the_same_client():
    flower = Flower(settings(rounds=6), grid_class=Moving)
    result = flower.run()
    missing = result.history.missing()
    assert missing == {"c02": [1, 2]}, "the questions for nodes are those of the handshake and of each round"
    assert [row["participants"].count("c02") for row in result.history.rounds] == [1, 0, 0, 1, 1, 1]
    assert result.ids == [f"c0{i}" for i in range(6)] and result.clients[2]["accuracy"] is not None


def test_the_log_of_a_deployed_run_has_a_line_for_every_round(monkeypatch):
    """With who was missing and why; Flower shows the operator what the ServerApp writes to stderr."""
    shown, package = io.StringIO(), logging.getLogger("fedclust")
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(package, "handlers", [])  # another test's server may have spoken in this process
    try:
        speak()
        speak()
        Flower(settings(rounds=3), grid_class=Moving).run()
    finally:
        package.setLevel(logging.NOTSET)
    lines = [line for line in shown.getvalue().splitlines() if line.startswith("round ")]
    assert [line.partition(":")[0] for line in lines] == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]
    assert "6 of 6 clients in" in lines[0] and "accuracy" in lines[0] and "c02" not in lines[0]
    assert "5 of 6 clients in" in lines[1] and "c02: " in lines[1]
