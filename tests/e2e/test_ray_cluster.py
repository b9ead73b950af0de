"""The ray engine on a Ray cluster that is there already: two nodes on this machine, afterwards as they were before."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fedclust.flwr_compat import environment
from fedclust.processes import end, program
from graphclust.graph import InputError
from simulations.engines import get_engine, ray
from tests.e2e.test_flwr_run import ROOT, alone_with_ray, assert_same, left_behind  # noqa: F401
from tests.processes import commands_below
from tests.simulations.test_inprocess import tiny

ACTOR, WORKING = "ray::ClientAppActor", "ray::ClientAppActor.run"
START = 90
CONFIGS = [tiny("fedrc", rounds=2), tiny("ifca", rounds=2, fraction=0.75)]  # clients of fedrc remember


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def ray_node(folder, name, *options):
    """`ray start` with one processor: gone with all below it when the block ends, however it ends."""
    command = [program("ray"), "start", "--num-cpus", "1", "--node-ip-address", "127.0.0.1", "--disable-usage-stats",
               "--object-store-memory", "100000000", "--min-worker-port", "0", "--max-worker-port", "0", "--block"]
    log = folder / f"{name}.log"
    with log.open("w") as out:
        process = subprocess.Popen([*command, *options], stdout=out, stderr=out, start_new_session=True,
                                   env={**os.environ, **environment(folder), "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + START
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield process.pid
    finally:
        end(process)


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two nodes, and the processes of both."""
    folder, port = Path(tempfile.mkdtemp(prefix="rc-")), free_port()  # short: sockets lie in it
    try:
        with ExitStack() as stack:
            pids = [
                stack.enter_context(ray_node(
                    folder, "head", "--head", "--port", str(port), "--temp-dir", str(folder), "--include-dashboard",
                    "false", "--ray-client-server-port", str(free_port()))),
                stack.enter_context(ray_node(folder, "node", "--address", f"127.0.0.1:{port}")),
            ]
            yield f"127.0.0.1:{port}", pids
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def titles(pid):
    return {command[0] for command in commands_below(pid).values()}


def left_beside(pids):
    """What is left behind, but for the nodes themselves, whose processes come and go."""
    return left_behind() - {p for pid in pids for p in (pid, *commands_below(pid))}


def assert_idle(pids):
    """Both nodes are there, and nobody's clients on them."""
    deadline = time.monotonic() + 30
    while any(ACTOR in title for pid in pids for title in titles(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert all(any(title.endswith("raylet") for title in titles(pid)) for pid in pids)


@pytest.mark.slow
def test_clients_run_on_both_nodes_with_the_result_of_one_process(cluster, monkeypatch):
    address, pids = cluster
    monkeypatch.setenv("RAY_ADDRESS", address)
    before, seen, over = left_beside(pids), {pid: set() for pid in pids}, threading.Event()

    def watch():
        while not over.wait(0.2):
            for pid in pids:
                seen[pid] |= titles(pid)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        results = ray.simulate_all(CONFIGS)
    finally:
        over.set()
        watching.join()
    assert [WORKING in seen[pid] for pid in pids] == [True, True]
    for through_ray, config in zip(results, CONFIGS, strict=True):
        assert_same(through_ray, get_engine("inprocess")(config))
    assert_idle(pids)
    assert left_beside(pids) == before


@pytest.mark.slow
def test_a_run_that_is_terminated_leaves_the_cluster_to_others(cluster):
    address, pids = cluster
    code = "import tests.simulations.test_inprocess as t; t.get_engine('ray')(t.tiny(rounds=10_000))"
    before = left_beside(pids)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "RAY_ADDRESS": address})
    try:
        deadline = time.monotonic() + START
        while not all(any(ACTOR in title for title in titles(pid)) for pid in pids):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        process.terminate()
        assert process.wait(60) == 128 + 15
    finally:
        end(process)
    assert_idle(pids)
    assert left_beside(pids) == before


@pytest.mark.slow
def test_the_processors_of_a_cluster_are_not_the_engines_to_choose(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster[0])
    with pytest.raises(InputError, match=r"cpus = 2: the cluster at RAY_ADDRESS = 127\.0\.0\.1:\d+ has the processors"):
        ray.simulate_all([tiny()], cpus=2)


@pytest.mark.parametrize("address", ["auto", "ray://10.0.0.1:10001", "10.0.0.1", ":6379", "10.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"RAY_ADDRESS = {address}: give HOST:PORT"):
        get_engine("ray")(tiny())


def test_where_nothing_answers_the_engine_says_how_to_start_a_cluster(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(InputError, match=r"nothing answers there .*refused.*; start one with `ray start --head"):
        get_engine("ray")(tiny())


def test_what_answers_must_be_ray(monkeypatch):
    monkeypatch.setattr(ray, "ANSWER", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(InputError, match="what answers there is no head of a Ray cluster"):
            get_engine("ray")(tiny())


@pytest.mark.parametrize("address", ["", "local"])
def test_without_a_cluster_ray_is_started_for_the_run(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert ray.cluster() is None
