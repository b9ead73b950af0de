"""`flwr run` of simulations/flower_app: the same result as in this process, and nothing left behind."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import torch
from filelock import FileLock

from fedclust.algorithms import algorithm_names
from fedclust.config import FederationConfig
from fedclust.events import DROPPED, LATE
from fedclust.flwr_compat import environment
from graphclust.graph import InputError
from simulations.engines import get_engine, ray
from simulations.setups import load_setup
from tests.processes import commands_below
from tests.simulations.test_inprocess import tiny

ROOT = Path(__file__).parents[2]
WORKER = "PYTEST_XDIST_WORKER"
SETTINGS = {"oracle": {"true_groups": (0, 1, 0, 1)}}

NAMES = [*algorithm_names(), "clustering", "events"]
TRACE = Path(__file__).with_name("events.csv")


def config(name):
    """Five clients, newcomers included; "clustering": five who cluster their nodes; "events": some drop out."""
    if name == "clustering":
        setup = load_setup("graph-sbm-clustering:n=100,n_clients=5", 0)
        body = {**setup.config, "rounds": 2, "model": {**setup.config["model"], "hidden": [8]}}
        return FederationConfig(algorithm="fedavg", label=name, federation=setup.federation, **body)
    if name == "events":
        events = {"dropout": 0.2, "straggler": 0.2, "trace": str(TRACE)}
        return tiny("fedrc", label=name, rounds=4, events=events)
    return tiny(name, settings=SETTINGS.get(name, {}), rounds=2, fraction=0.75)


@pytest.fixture(scope="module", autouse=True)
def alone_with_ray(tmp_path_factory):
    """Files of tests that look for what Ray left on the machine wait for each other in pytest's several workers."""
    shared = tmp_path_factory.getbasetemp().parent
    with FileLock(shared / "ray.lock"):
        yield


def left_behind():
    """Folders of the engine, and processes of Flower and Ray but for those of pytest's other workers."""
    folders = {str(p) for p in Path(tempfile.gettempdir()).glob("fedclust-*")}
    words = ("flower-superlink", "flower-superexec", "flwr-simulation", "raylet", "gcs_server")
    processes = {p.pid for p in psutil.process_iter(["cmdline", "environ"])
                 if any(word in part for part in (p.info["cmdline"] or [])[:3] for word in words)
                 and (p.info["environ"] or os.environ).get(WORKER) == os.environ.get(WORKER)}
    return folders | processes


def assert_same(through_ray, here):
    """Two results of one config, up to the order of additions."""
    assert through_ray.ids == here.ids and through_ray.traffic == here.traffic
    assert through_ray.state.keys() == here.state.keys()
    for key, t in here.state.items():
        assert torch.allclose(through_ray.state[key].double(), t.double(), atol=1e-6, equal_nan=True), key
    assert through_ray.embeddings.keys() == here.embeddings.keys()
    for client, z in here.embeddings.items():
        assert torch.allclose(through_ray.embeddings[client], z, atol=1e-5)
    for a, b in ((through_ray.clients, here.clients), (through_ray.unseen, here.unseen)):
        assert [r["accuracy"] for r in a] == pytest.approx([r["accuracy"] for r in b])
    for what in ("participants", "failures"):
        assert [r[what] for r in through_ray.history.rounds] == [r[what] for r in here.history.rounds]


@pytest.fixture(scope="module")
def runs():
    """Every algorithm in one `flwr run`: one start of Ray serves them all."""
    before, names, told = left_behind(), NAMES, []

    class Watch:
        checkpoint = None

        def start(self, total, what):
            told.append((total, what))

        def step(self, step, values, labels=None):
            told.append(step)

    results = ray.simulate_all([config(name) for name in names], monitor=Watch())
    return dict(zip(names, results, strict=True)), left_behind() - before, told


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_two_engines_give_the_same_result(runs, name):
    here = get_engine("inprocess")(config(name))
    assert_same(runs[0][name], here)
    reasons = {reason for row in here.history.rounds for reason in row["failures"].values()}
    assert reasons == ({DROPPED, LATE} if name == "events" else set())


@pytest.mark.slow
def test_nothing_is_left_behind_and_the_rounds_are_told(runs):
    _, left, told = runs
    assert left == set()
    starts = [i for i, item in enumerate(told) if isinstance(item, tuple)]
    assert [told[i][1] for i in starts] == list(NAMES)
    for start, stop in zip(starts, [*starts[1:], len(told)], strict=True):
        (total, name), rounds = told[start], told[start + 1 : stop]
        trains, prepares = config(name).rounds, config(name).make().preparation_rounds(4)
        assert total == trains + prepares and rounds == list(range(len(rounds)))
        # a preparation may end before the rounds that it was announced with
        assert len(rounds) == total or (prepares and trains < len(rounds) < total)


@pytest.mark.slow
def test_what_the_server_refuses_arrives_here():
    before = left_behind()
    with pytest.raises(InputError, match=r"n_groups = 9 of ifca: there are 4 clients"):
        get_engine("ray")(tiny("ifca", settings={"n_groups": 9}))
    assert left_behind() == before


@pytest.mark.slow
def test_a_run_that_is_terminated_leaves_nothing_behind():
    code = "import tests.simulations.test_inprocess as t; t.get_engine('ray')(t.tiny(rounds=10_000))"
    before = left_behind()
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not any("raylet" in command[0] for command in commands_below(process.pid).values()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    process.terminate()
    assert process.wait(60) == 128 + 15
    assert left_behind() == before


def test_without_ray_the_engine_says_what_to_install(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else real(name, *rest))
    with pytest.raises(InputError, match=r"pip install 'graphclust\[ray\]'"):
        get_engine("ray")(tiny())


def test_configs_with_unlike_numbers_of_clients_are_refused():
    other = tiny().federation.model_copy(update={"n_clients": 3})
    with pytest.raises(InputError, match=r"\[4, 5\] clients"):
        ray.simulate_all([tiny(), tiny(federation=other)])


@pytest.mark.slow
def test_the_app_packs_itself_only(tmp_path):
    """A copy of fedclust in the package would hide the installed one."""
    app = shutil.copytree(ray.APP, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([Path(sys.executable).parent / "flwr", "build"], cwd=app, check=True, capture_output=True,
                   env={**os.environ, **environment(tmp_path / "home")})
    fab = next(app.glob("*.fab"))
    assert {n for n in zipfile.ZipFile(fab).namelist() if n.endswith(".py")} == {"apps.py"}
