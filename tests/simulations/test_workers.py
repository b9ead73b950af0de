"""Engine workers: the results of engine inprocess, and processes that end when they should."""

import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from itertools import product
from pathlib import Path

import psutil
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedclust.algorithms import algorithm_names
from fedclust.flwr_compat import SERVER_NODE, task_identity
from fedclust.participant import simulated_federation
from fedclust.records import pack, unpack
from fedclust.rounds import RunStopped
from fedclust.server_app import server_app
from fedclust.state import Checkpoint
from simulations.attacks import simulated_app
from simulations.engines import get_engine, workers
from simulations.engines.inprocess import RUN_ID, InProcessGrid
from simulations.engines.workers import WorkersGrid, balanced, loaded_app, n_workers
from tests.processes import commands_below
from tests.simulations.test_inprocess import tiny

SETTINGS = {"oracle": {"true_groups": (0, 1, 0, 1)}}
PINS = (0, 1, 0)


def counting_app():
    """Counts the messages of each node, and does what it is told."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        told = message.content["settings"]
        n = int(unpack(context.state["memory"])["n"]) + 1 if "memory" in context.state else 1
        context.state["memory"] = pack({"n": torch.tensor(n)})
        if told.get("fail"):
            raise ValueError("no such thing")
        if told.get("meet"):
            (Path(told["meet"]) / str(os.getpid())).touch()
            wait_for(lambda: len(os.listdir(told["meet"])) == 2)
        if told.get("who", message.metadata.dst_node_id) == message.metadata.dst_node_id:
            time.sleep(told.get("sleep", 0.0))
        shared = id(message.content["shared"]["w"]) if "shared" in message.content else 0
        about = {"n": n, "process": os.getpid(), "threads": torch.get_num_threads(), "shared": shared}
        return Message(RecordDict({"about": ConfigRecord(about)}), reply_to=message)

    return app


def a_grid(**options):
    return WorkersGrid(counting_app, [{"partition-id": i} for i in range(3)], {}, PINS, **options)


def messages_for(grid, shared=None, **told):
    content = {"settings": ConfigRecord(told)} | ({} if shared is None else {"shared": shared})
    return [Message(RecordDict(content), node, "train") for node in grid.get_node_ids()]


def said(replies, what="n"):
    return [r.content["about"][what] for r in replies]


def wait_for(holds, seconds=30.0):
    """True once it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def gone(processes):
    """True once these processes have ended, reaped or not."""
    return wait_for(lambda: not {p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]} & processes)


def below():
    """The processes that the grids of this process have started."""
    return {p.pid for p, command in commands_below().items() if any("fork_workers" in part for part in command)}


@pytest.fixture(scope="module")
def grid():
    with task_identity(RUN_ID), a_grid(threads=2) as made:
        yield made
    assert not below()


def test_nodes_keep_their_process_and_their_context(grid):
    first, second = (grid.send_and_receive(messages_for(grid)) for _ in range(2))
    a, b, c = said(first, "process")
    assert a == c != b and os.getpid() not in (a, b) and said(second, "process") == [a, b, c]
    assert [n - m for m, n in zip(said(first), said(second), strict=True)] == [1, 1, 1]
    assert said(first, "threads") == [2, 2, 2]


def test_replies_come_in_the_order_of_their_messages(grid):
    sent = messages_for(grid)[::-1]
    replies = grid.send_and_receive(sent)
    assert [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in sent]
    assert [r.metadata.src_node_id for r in replies] == grid.get_node_ids()[::-1]
    assert {r.metadata.dst_node_id for r in replies} == {SERVER_NODE}
    assert len({m.metadata.message_id for m in [*sent, *replies]}) == 6


def test_workers_work_at_the_same_time(grid, tmp_path):
    assert len(grid.send_and_receive(messages_for(grid, meet=str(tmp_path)), timeout=30.0)) == 3


def test_a_shared_record_travels_once_to_a_worker(grid):
    a, b, c = said(grid.send_and_receive(messages_for(grid, shared=pack({"w": torch.ones(3)}))), "shared")
    assert a == c and a != 0 and b != 0


def test_a_client_that_raises_answers_with_its_error_and_forgets_the_call(grid):
    before = said(grid.send_and_receive(messages_for(grid)))
    failed = grid.send_and_receive(messages_for(grid, fail=True))
    assert all(r.has_error() and r.error.code == 2 and "ValueError: no such thing" in r.error.reason for r in failed)
    assert said(grid.send_and_receive(messages_for(grid))) == [n + 1 for n in before]


def test_a_timeout_leaves_out_what_is_late_in_its_worker(grid):
    sent = messages_for(grid, sleep=3.5, who=grid.get_node_ids()[0])
    replies = grid.send_and_receive(sent, timeout=3.0)
    assert [r.metadata.src_node_id for r in replies] == grid.get_node_ids()[1:2], "the third waits for the first"
    assert grid.pull_messages([m.metadata.message_id for m in sent]) == []


def test_messages_can_be_pushed_now_and_pulled_later(grid):
    ids = grid.push_messages(messages_for(grid))
    assert len(grid.pull_messages(ids[1:])) == 2 and len(grid.pull_messages(ids)) == 1 and grid.pull_messages(ids) == []


def test_memories_are_those_of_the_grid_in_this_process_and_go_there(grid):
    grid.send_and_receive(messages_for(grid))
    counts = said(grid.send_and_receive(messages_for(grid)))
    held = grid.memories()
    assert {name: int(t) for name, t in held.items()} == {
        f"{node}/memory/n": n for node, n in zip(grid.get_node_ids(), counts, strict=True)}
    here = InProcessGrid(counting_app(), [{}, {}, {}], {})
    here.restore_memories(held)
    assert said(here.send_and_receive(messages_for(here))) == [n + 1 for n in counts]
    grid.restore_memories({name: t - 1 for name, t in here.memories().items() if name[0] != "3"})
    assert said(grid.send_and_receive(messages_for(grid))) == [n + 1 for n in counts]


@pytest.fixture
def interruptible():
    """A process that a shell has started in the background ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_workers_in_the_middle_of_their_work(interruptible):
    others = below()
    with task_identity(RUN_ID), pytest.raises(KeyboardInterrupt), a_grid() as grid:
        processes = {*said(grid.send_and_receive(messages_for(grid)), "process")} | below() - others
        assert len(processes) == 3, "two workers, and what they were forked from"
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        grid.send_and_receive(messages_for(grid, sleep=60.0))
    assert gone(processes)


def _work_until_killed(pipe):
    with task_identity(RUN_ID), a_grid() as grid:
        pipe.send(said(grid.send_and_receive(messages_for(grid)), "process"))
        grid.send_and_receive(messages_for(grid, sleep=60.0))


def test_a_daemon_can_have_workers_and_when_it_is_killed_they_end():
    """The processes of fedclust simulate are daemons, and killed when the command is interrupted."""
    ours, theirs = multiprocessing.Pipe()
    others = below()
    process = multiprocessing.get_context("spawn").Process(target=_work_until_killed, args=(theirs,), daemon=True)
    process.start()
    processes = {*ours.recv()} | below() - others
    assert len(processes) == 3
    process.kill()
    process.join()
    assert gone(processes)


def run_all_jobs(grid, run_config):
    results = {}
    app = server_app(results.__setitem__)
    with task_identity(RUN_ID):
        app(grid, Context(RUN_ID, SERVER_NODE, {}, RecordDict(), run_config))
    return results


@pytest.mark.parametrize("names", [
    pytest.param(["fedrc", "ifca"], id="some"),
    pytest.param(algorithm_names(), id="all", marks=pytest.mark.slow),
])
def test_every_algorithm_gives_the_same_bits(names):
    configs = [tiny(name, settings=SETTINGS.get(name, {}), rounds=2, fraction=0.75) for name in names]
    run_config = {"config": f"[{','.join(c.model_dump_json() for c in configs)}]", "clients": 5, "folder": ""}
    nodes = [{"partition-id": i} for i in range(5)]
    here = run_all_jobs(InProcessGrid(simulated_app(), nodes, run_config), run_config)
    with WorkersGrid(partial(loaded_app, configs[0].model_dump_json()), nodes, run_config, (1, 0, 1, 0, 0)) as grid:
        there = run_all_jobs(grid, run_config)
    for job, name in enumerate(names):
        same(there[job], here[job], name)


def same(one, other, name=""):
    assert one.clients == other.clients and one.unseen == other.unseen and one.traffic == other.traffic, name
    assert one.state.keys() == other.state.keys()
    for key, t in one.state.items():
        assert torch.equal(t.nan_to_num(7.0), other.state[key].nan_to_num(7.0)), (name, key)
    for a, b in zip(one.history.rounds, other.history.rounds, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}, name


class Stop:
    """Ends a run within the given round."""

    checkpoint = None

    def __init__(self, at, how):
        self.at, self.how, self.told = at, how, []

    def start(self, total, what):
        self.told.append(total)

    def step(self, step, values, labels=None):
        self.told.append(step)
        if step == self.at:
            self.how()


def kill_a_worker(others):
    """Kill one of the workers that are not among these processes."""
    forker, = (p for p in map(psutil.Process, below() - others) if p.children())
    forker.children()[0].kill()


def test_a_run_whose_worker_dies_says_so_and_goes_on_with_the_same_result(tmp_path, interruptible):
    """FedRC's clients remember their weights, so the result depends on what they remember being saved, too."""
    file, config, here = tmp_path / "checkpoint", tiny(rounds=6, workers=2), get_engine("inprocess")
    with pytest.raises(KeyboardInterrupt):
        here(config, checkpoint=file, monitor=Stop(1, lambda: signal.raise_signal(signal.SIGINT)))
    others = below()
    there, words = Stop(3, lambda: kill_a_worker(others)), (
        r"worker process 1 of 2 was killed by signal 9 .*; it held the clients client-\w+, client-\w+, unseen-\w+; "
        f"the last finished round is saved in {file}: run the same command again")
    with pytest.raises(RunStopped, match=words):
        get_engine("workers")(config, checkpoint=file, monitor=there)
    assert there.told == [6, 2, 3] and below() == others
    assert len(Checkpoint.load(file, config.resolved().fingerprint()).history.rounds) == 4
    same(here(config, checkpoint=file), here(config))


def best(sizes, workers):
    """The smallest largest load of all ways to deal the sizes."""
    ways = product(range(workers), repeat=len(sizes))
    return min(max(sum(s for s, at in zip(sizes, way, strict=True) if at == w) for w in range(workers)) for way in ways)


@pytest.mark.parametrize("seed", range(5))
def test_clients_are_balanced_within_grahams_bound(seed):
    sizes, m = torch.randint(1, 30, (7,), generator=torch.Generator().manual_seed(seed)).tolist(), 3
    pins = balanced(sizes, m)
    largest = max(sum(s for s, at in zip(sizes, pins, strict=True) if at == w) for w in range(m))
    assert best(sizes, m) <= largest <= (4 / 3 - 1 / (3 * m)) * best(sizes, m)
    assert pins == balanced(sizes, m)


def test_balance_by_hand():
    assert balanced([3, 9, 4, 5], 2) == [1, 0, 1, 1] or balanced([3, 9, 4, 5], 2) == [0, 0, 1, 1]
    assert balanced([0, 0, 0, 0], 2) == [0, 1, 0, 1], "clients without a sample are work, too"


def test_the_number_of_workers(monkeypatch):
    monkeypatch.setattr(workers, "cpu_count", lambda: 8)
    assert [n_workers(tiny(), n) for n in (3, 100)] == [3, 8]
    assert [n_workers(tiny(threads=t), 100) for t in (3, 16)] == [2, 1]
    assert n_workers(tiny(workers=20), 100) == 20
    assert tiny(workers=20).fingerprint() == tiny().fingerprint()


def test_newcomers_are_balanced_apart(monkeypatch):
    made = {}
    monkeypatch.setattr(workers, "WorkersGrid", lambda *given, **options: made.update(pins=given[3], **options))
    spec = tiny().federation
    config = tiny(workers=2, federation=spec.model_copy(update={"partition": spec.partition.model_copy(
        update={"train": (40, 20)})}))
    workers.grid_of(config, [], {})
    federation = simulated_federation(config)
    assert [len(c.train) for c in federation.everyone] == [40, 40, 20, 20, 10]
    assert made["pins"] == [0, 1, 0, 1, 0] and made["names"] == [c.id for c in federation.everyone]
