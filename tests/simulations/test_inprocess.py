"""The Grid in this process keeps Flower's rules, and a run on it survives being killed."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from fedclust.config import FederationConfig
from fedclust.data.draw import Draw
from fedclust.data.spec import FederationSpec, Unseen
from fedclust.flwr_compat import environment, task_identity
from fedclust.records import pack, unpack
from fedclust.state import Checkpoint
from fedclust.task import Training
from graphclust.graph import InputError
from simulations.engines import get_engine
from simulations.engines.inprocess import InProcessGrid

ROOT = Path(__file__).parents[2]
ROUNDS = 30


def tiny(algorithm="fedrc", **changes):
    """Four clients and a newcomer with a few digits each."""
    spec = FederationSpec(n_clients=4, partition=Draw(train=(20,), test=(10,), validation=(5,)),
                          unseen=Unseen(support=10, test=10))
    fixed = {"federation": spec, "rounds": 3, "shots": (0, 2), "draws": 1, "training": Training(batch_size=10, lr=0.3)}
    return FederationConfig(algorithm=algorithm, **{**fixed, **changes})


@pytest.fixture
def grid():
    app = ClientApp()

    @app.train()
    def count(message, context):
        held = context.state.get("memory")
        n = int(unpack(held)["n"]) if held is not None else 0
        context.state["memory"] = pack({"n": torch.tensor(n + 1)})
        if message.content["settings"].get("fail"):
            raise ValueError("no such thing")
        if "model" in message.content:
            message.content["model"].clear()
        time.sleep(message.content["settings"].get("sleep", 0.0))
        return Message(RecordDict({"arrays": pack({"n": torch.tensor(n + 1)})}), reply_to=message)

    with task_identity(1):
        yield InProcessGrid(app, [{"partition-id": i} for i in range(3)], {})


def ask(grid, *, shared=None, **settings):
    messages = []
    for node in grid.get_node_ids():
        content = RecordDict({"settings": ConfigRecord({k: v for k, v in settings.items() if k != "timeout"})})
        if shared is not None:
            content["model"] = shared
        messages.append(Message(content, node, "train"))
    replies = grid.send_and_receive(messages, timeout=settings.get("timeout"))
    return messages, list(replies)


def counts(replies):
    return [int(unpack(r.content["arrays"])["n"]) for r in replies]


def test_every_node_keeps_its_own_context(grid):
    assert counts(ask(grid)[1]) == [1, 1, 1] and counts(ask(grid)[1]) == [2, 2, 2]
    node = list(grid.get_node_ids())[1]
    grid.send_and_receive([Message(RecordDict({"settings": ConfigRecord()}), node, "train")])
    assert counts(ask(grid)[1]) == [3, 4, 3]


def test_replies_name_their_message_and_come_in_order(grid):
    messages, replies = ask(grid)
    assert [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in messages]
    assert [r.metadata.src_node_id for r in replies] == grid.get_node_ids()
    assert len({m.metadata.message_id for m in messages + replies}) == 6


def test_a_client_that_raises_gives_an_error_reply_and_forgets_the_call(grid):
    ask(grid)
    _, replies = ask(grid, fail=True)
    assert all(r.has_error() and r.error.code == 2 for r in replies)
    assert "ValueError: no such thing" in replies[0].error.reason and "Traceback" in replies[0].error.reason
    assert counts(ask(grid)[1]) == [2, 2, 2]


def test_a_client_that_empties_its_records_does_not_empty_the_others(grid):
    shared = ArrayRecord({"w": torch.ones(2)})
    _, replies = ask(grid, shared=shared)
    assert counts(replies) == [1, 1, 1] and list(shared) == ["w"]


def test_a_timeout_leaves_out_those_that_are_late(grid, clock):
    messages, replies = ask(grid, sleep=0.3, timeout=0.45)
    assert [r.metadata.reply_to_message_id for r in replies] == [messages[0].metadata.message_id]
    assert not grid.pull_messages([m.metadata.message_id for m in messages]), "what was late stays unanswered"


def test_messages_can_be_pushed_now_and_pulled_later(grid):
    messages = [Message(RecordDict({"settings": ConfigRecord()}), node, "train") for node in grid.get_node_ids()]
    ids = grid.push_messages(messages)
    assert counts(grid.pull_messages(ids[1:])) == [1, 1] and counts(grid.pull_messages(ids)) == [1]
    assert grid.pull_messages(ids) == []


def test_memories_can_be_taken_to_another_grid(grid):
    ask(grid)
    held = grid.memories()
    ask(grid)
    grid.restore_memories(held)
    assert counts(ask(grid)[1]) == [2, 2, 2]


def test_flower_has_nothing_to_complain_about(caplog):
    with caplog.at_level(logging.WARNING):
        get_engine("inprocess")(tiny(rounds=1))
    assert not [r for r in caplog.records if r.name.startswith("flwr")]


def test_the_same_config_gives_the_same_result():
    one, other = (get_engine("inprocess")(tiny()) for _ in range(2))
    assert one.clients == other.clients and one.unseen == other.unseen
    assert all(torch.equal(t, other.state[name]) for name, t in one.state.items())
    assert [len(one.ids), len({r["client"] for r in one.unseen})] == [4, 1]


def test_an_unknown_engine_is_refused():
    with pytest.raises(InputError, match="engine 'dask'; the engines are: auto, inprocess, batched, workers, ray"):
        get_engine("dask")


def test_task_identity_is_put_back():
    from flwr.supercore.task_identity import TaskIdentity

    with task_identity(5), task_identity(6, node_id=3):
        assert (TaskIdentity.run_id, TaskIdentity.node_id) == (6, 3)
    with pytest.raises(RuntimeError, match="not set"):
        _ = TaskIdentity.run_id


ALONE = """
import os, sys
from simulations.engines import get_engine
assert "flwr" not in sys.modules
run = get_engine("inprocess")
assert "flwr" in sys.modules and "ray" not in sys.modules
assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "0", "what the user sets stays"
assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
import tests.simulations.test_inprocess as t
run(t.tiny(rounds=1))
"""


def test_flower_is_imported_in_its_environment_and_nothing_is_deprecated(tmp_path):
    errors = [f"error::DeprecationWarning:{m}" for m in ("flwr", "fedclust", "simulations")] + ["error::FutureWarning"]
    done = subprocess.run([sys.executable, *(x for e in errors for x in ("-W", e)), "-c", ALONE], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, "FLWR_DISABLE_UPDATE_CHECK": "0",
                                                    "FLWR_HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in (done.stdout + done.stderr).lower()
    assert not (tmp_path / "home").exists(), "the engine in this process leaves no file"


def test_the_environment_names_where_flower_may_write(tmp_path):
    assert environment(tmp_path) == {**environment(), "FLWR_HOME": str(tmp_path)}


KILLED = """
import sys
from pathlib import Path
import tests.simulations.test_inprocess as t

class Say:
    checkpoint = None
    def start(self, total, what): pass
    def step(self, step, values, labels=None): print("round", step, flush=True)

t.get_engine("inprocess")(t.tiny(rounds=t.ROUNDS), checkpoint=Path(sys.argv[1]), monitor=Say())
"""


def test_killed_and_resumed_is_the_same_run(tmp_path):
    """FedRC's clients remember their weights, so the result depends on what they remember being saved, too."""
    file, config = tmp_path / "checkpoint", tiny(rounds=ROUNDS)
    command = [sys.executable, "-c", KILLED, str(file)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line.split()[1]) >= 3:
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(Checkpoint.load(file, config.resolved().fingerprint()).history.rounds)
    assert 4 <= done < ROUNDS
    resumed, whole = (get_engine("inprocess")(config, checkpoint=c) for c in (file, None))
    assert resumed.clients == whole.clients and resumed.unseen == whole.unseen
    assert all(torch.equal(t, resumed.state[name]) for name, t in whole.state.items())
    assert [r["participants"] for r in resumed.history.rounds] == [r["participants"] for r in whole.history.rounds]
