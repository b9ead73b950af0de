"""Clients with data of their own: what they hold, what they remember, and what is told before the first round."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from fedclust.client_app import client_app
from fedclust.config import FederationConfig
from fedclust.data.build import build_federation
from fedclust.data.concept import ConceptShift
from fedclust.data.draw import Draw
from fedclust.data.spec import FederationSpec
from fedclust.data.stored import client_bytes
from fedclust.deploy import clients
from fedclust.deploy.clients import deployed, home, own_client
from fedclust.deploy.grid import PromptGrid
from fedclust.deploy.memory import FEDERATIONS, recall, remember
from fedclust.flwr_compat import SERVER_NODE, task_identity
from fedclust.joining import assign_file
from fedclust.participant import simulated
from fedclust.record import FederationRecord
from fedclust.rounds import RunStopped
from fedclust.server_app import server_app
from fedclust.task import Training
from graphclust.graph import InputError
from graphclust.runs.store import RunDir
from simulations.engines.inprocess import InProcessGrid, simulate

NAMES = ("amber", "birch", "cedar")


def samples(name):
    """Two groups of clients: cedar's labels are turned round."""
    rng = np.random.default_rng(NAMES.index(name))
    y = rng.integers(0, 3, 60)
    x = np.eye(3)[y] * 2 + rng.normal(0, 0.4, (60, 3))
    return x.astype(np.float32), 2 - y if name == "cedar" else y


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One npz or csv file for each client, as a simulation takes them, and each in a folder of its own."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    for name in NAMES:
        x, y = samples(name)
        for place in (tmp_path / "all", tmp_path / name):
            place.mkdir(exist_ok=True)
            if name == "birch":
                table = np.column_stack((x, y))
                np.savetxt(place / "birch.csv", table, delimiter=",", header="a,b,c,label", comments="", fmt="%.9g")
            else:
                np.savez(place / f"{name}.npz", x=x, y=y)
    return tmp_path


def config(folder=None, **changes):
    """FedRC on three clients with data of their own; with a folder, as a simulation of it."""
    spec = FederationSpec(source=str(folder) if folder else "own", n_clients=3,
                          partition={"kind": "files", "n_classes": 3}, seed=4)
    fixed = {"federation": spec, "settings": {"n_groups": 2, "restarts": 1, "relaxation": 1}, "rounds": 4,
             "timeout": 20, "training": Training(batch_size=10, lr=0.3)}
    return FederationConfig(algorithm="fedrc", **{**fixed, **changes})


def run(configured, data, out, monitor=None):
    """The federation through Flower's apps on nodes that know a name and a place only."""
    run_config = {"config": configured.model_dump_json(), "clients": len(data), "folder": str(out)}
    nodes = [{"client": name, "data": str(place)} for name, place in data.items()]
    found = []
    with task_identity(1):
        grid = PromptGrid(InProcessGrid(client_app(), nodes, run_config))
        app = server_app(lambda _, result: found.append(result), monitor=monitor)
        app(grid, Context(1, SERVER_NODE, {}, RecordDict(), run_config))
    return found[0]


def same(one, other):
    assert one.ids == other.ids and one.clients == other.clients
    for name, t in other.state.items():
        assert torch.equal(one.state[name], t), name


def test_own_folders_give_what_a_simulation_of_all_files_gives(folder):
    whole = simulate(config(folder / "all"))
    same(run(config(), {name: folder / name for name in NAMES}, folder / "out"), whole)
    left = RunDir(folder / "out" / "run-0", FederationRecord)
    record = left.record()
    assert (record.status, record.rounds_done, record.missing) == ("finished", 4, {}) and len(left.history()) == 4
    assert record.metrics["local"] == pytest.approx(np.mean([r["accuracy"] for r in whole.clients]))
    newcomer = assign_file(left.path / "model", folder / "all" / "cedar.npz")
    assert newcomer["group"] == int(whole.weights[2].argmax())
    with pytest.raises(InputError, match="holds the run of another config"):
        run(config(rounds=2), {name: folder / name for name in NAMES}, folder / "out")


def test_the_split_depends_on_name_seed_and_number_only(folder):
    simulated = {c.id: c for c in build_federation(config(folder / "all").federation).clients}
    for name in NAMES:
        mine = own_client(name, str(folder / name), config())
        assert [len(mine.train), len(mine.test), len(mine.validation)] == [42, 12, 6]
        for split in ("train", "test", "validation"):
            assert torch.equal(getattr(mine, split).x, getattr(simulated[name], split).x)
    other = own_client("dawn", str(folder / "amber"), config())
    assert not torch.equal(other.test.x, simulated["amber"].test.x)


def test_the_files_of_a_folder_are_one_client(folder):
    x, y = samples("birch")
    np.savez(folder / "amber" / "more.npz", x=x, y=y)
    mine = own_client("amber", str(folder / "amber"), config())
    assert len(mine.train) + len(mine.test) + len(mine.validation) == 120


def test_a_client_that_is_split_already_stays_as_it_is(folder):
    mine = own_client("amber", str(folder / "amber"), config())
    (folder / "split").mkdir()
    (folder / "split" / "anything.npz").write_bytes(client_bytes(mine))
    again = own_client("fern", str(folder / "split"), config())
    assert again.id == "fern" and torch.equal(again.train.x, mine.train.x) and torch.equal(again.test.y, mine.test.y)


@pytest.fixture
def module(monkeypatch):
    """A module of the user's with whatever a test puts into it."""
    made = types.ModuleType("hospital")
    monkeypatch.setitem(sys.modules, "hospital", made)
    return made


def test_a_function_gives_the_samples_and_may_split_them(module):
    x, y = samples("amber")
    split = np.array(["train"] * 40 + ["test"] * 15 + ["validation"] * 5)
    asked = []
    module.read = lambda client: asked.append(client) or {"x": x.tolist(), "y": y.tolist()}
    module.ready = lambda client: {"x": x, "y": y, "split": split}
    drawn, ready = (own_client("amber", f"hospital:{name}", config()) for name in ("read", "ready"))
    assert asked == ["amber"] and [len(drawn.train), len(drawn.test)] == [42, 12]
    assert torch.equal(ready.test.y, torch.from_numpy(y[40:55])) and ready.train.x.dtype == torch.float32


@pytest.mark.parametrize(("held", "told"), [
    ({"x": [[1.0]]}, "has no 'y'"),
    ([1, 2], "returns list for 'amber'"),
    ({"x": [[1.0], [2.0]], "y": [0]}, r"y must hold one label a sample"),
    ({"x": [[1.0], [float("nan")]], "y": [0, 1]}, "NaN"),
    ({"x": [[1.0], [2.0]], "y": [0, 1], "split": ["train", "exam"]}, "'exam'"),
    ({"x": [[1.0], [2.0]], "y": [0, 1], "split": ["test", "test"]}, "no training samples"),
    ({"x": [[1.0], [2.0], [3.0]], "y": [0, 1, 7]}, r"labels must lie in 0\.\.2, found"),
])
def test_a_function_that_returns_something_else_is_refused(module, held, told):
    module.read = lambda client: held
    with pytest.raises(InputError, match=told):
        own_client("amber", "hospital:read", config())


def test_data_that_cannot_be_read_are_told_with_the_client(folder, module):
    module.read = lambda client: {}[client]
    for data, told in [("hospital:read", r"client 'amber' raised KeyError"), ("hospital:none", "no attribute 'none'"),
                       ("no_such_module:read", "No module named"), ("relative/folder", "absolute path of a folder"),
                       (str(folder / "nowhere"), "is no folder"), (str(folder), "holds no .npz or .csv")]:
        with pytest.raises(InputError, match=told):
            own_client("amber", data, config())


@pytest.mark.parametrize(("spec", "told"), [
    (FederationSpec(n_clients=3, partition=Draw()), r"partition: \{kind: files, n_classes: C\}"),
    (FederationSpec(n_clients=3, partition={"kind": "files"}), "give n_classes"),
    (FederationSpec(n_clients=3, partition={"kind": "files", "n_classes": 3}, concept=ConceptShift(maps=("reverse",))),
     "nothing is planted"),
])
def test_a_config_for_other_clients_is_refused(folder, spec, told):
    with pytest.raises(InputError, match=told):
        own_client("amber", str(folder / "amber"), config(federation=spec))


def trial(**changes):
    spec = FederationSpec(n_clients=2, partition=Draw(train=(20,), test=(10,), validation=(5,)))
    return config(federation=spec, scenario="digits:n_clients=2", **changes)


def test_a_client_of_a_scenario_is_kept_for_the_next_message(folder, monkeypatch):
    node = {"client": "amber", "data": "scenario:digits:client-0001"}
    made = deployed({"config": trial().model_dump_json()}, node, 0)
    wanted = build_federation(trial().federation).clients[1]
    assert (made.data.id, made.n_classes, made.role) == ("amber", 10, "train")
    clients._deployed.cache_clear()
    monkeypatch.setattr(clients, "simulated_federation", None)
    again = deployed({"config": trial().model_dump_json()}, node, 0)
    assert torch.equal(again.data.train.x, wanted.train.x) and torch.equal(again.data.test.y, wanted.test.y)


@pytest.mark.parametrize(("data", "told"), [
    ("scenario:mnist:client-0000", "the run is on the scenario 'digits:n_clients=2'"),
    ("scenario:digits:client-0007", "no client 'client-0007', but for example 'client-0000'"),
])
def test_a_client_of_another_scenario_is_refused(folder, data, told):
    with pytest.raises(InputError, match=told):
        deployed({"config": trial().model_dump_json()}, {"client": "amber", "data": data}, 0)


def test_a_node_without_data_or_a_name_says_what_to_give(folder):
    settings = {"config": config().model_dump_json()}
    with pytest.raises(InputError, match="no `client`"):
        deployed(settings, {"data": str(folder / "amber")}, 0)
    with pytest.raises(InputError, match="neither `data` nor `partition-id`"):
        simulated(settings, {"client": "amber"}, 0)


def test_problems_of_clients_are_told_by_name_before_the_first_round(folder):
    (folder / "birch" / "birch.csv").write_text("a,b,c,label\n1,2,x,0\n")
    data = {**{name: folder / name for name in NAMES}, "cedar": folder / "gone"}
    with pytest.raises(InputError, match=r"client 'birch': .*the column 'c'.*; client 'cedar': .*is no folder"):
        run(config(), data, folder / "out")
    assert not list((folder / "out").glob("checkpoint*"))
    np.savez(folder / "cedar" / "cedar.npz", x=np.zeros((9, 5)), y=np.zeros(9, dtype=int))
    with pytest.raises(InputError, match=r"client 'cedar' has samples of shape \(5,\)"):
        run(config(), {"amber": folder / "amber", "fern": folder / "amber", "cedar": folder / "cedar"}, folder / "out")


def test_other_versions_are_told_before_the_first_round(folder, monkeypatch):
    monkeypatch.setattr("fedclust.answers.versions", lambda: ("graphclust 0.1", "flwr 1.30", "torch 2.6"))
    with pytest.raises(InputError, match=r"client 'amber': it runs graphclust 0.1, flwr 1.30, torch 2.6, the server"):
        run(config(), {name: folder / name for name in NAMES}, folder / "out")


def test_a_server_that_was_killed_goes_on_and_the_clients_know_what_they_knew(folder):
    """FedRC's clients remember their weights; the nodes of the second run are new and know nothing by themselves."""
    class Stop:
        checkpoint = None

        def start(self, total, what):
            assert total == 4

        def step(self, step, values, labels=None):
            if step == 1:
                raise RunStopped("killed")

    data, out = {name: folder / name for name in NAMES}, folder / "out"
    with pytest.raises(RunStopped, match="killed"):
        run(config(), data, out, Stop())
    # what a client did in the round in which the server was killed must not count twice
    for name in NAMES:
        (held,) = (home(name) / "memory").iterdir()
        remember(home(name), held.stem, 2, {"omega": torch.full((1, 2), 9.0)})
    assert (out / "error.json").exists()
    resumed = run(config(), data, out)
    assert not (out / "error.json").exists() and not (out / "checkpoint-0.safetensors").exists()
    same(resumed, simulate(config(folder / "all")))
    assert [r["round"] for r in resumed.history.rounds] == [0, 1, 2, 3]
    finished = run(config(), {name: folder / "nowhere" for name in NAMES}, out)
    same(finished, resumed)


def test_memory_is_that_before_the_round(tmp_path):
    for r in (-1, 0, 1, 2):
        remember(tmp_path, "f", r, {"w": torch.tensor([float(r)]), "model/a.b": torch.zeros(2, 3)})
    assert recall(tmp_path, "other", 3) == {} and recall(tmp_path / "other", "f", 3) == {}
    assert [float(recall(tmp_path, "f", r)["w"]) for r in (9, 3, 2)] == [2, 2, 1]
    assert recall(tmp_path, "f", 2)["model/a.b"].shape == (2, 3)
    with pytest.raises(InputError, match="holds rounds 1 to 2, and round 1 is run again"):
        recall(tmp_path, "f", 1)
    remember(tmp_path, "f", 1, {"w": torch.tensor([7.0])})
    assert float(recall(tmp_path, "f", 2)["w"]) == 7, "what came after the round that is run again is forgotten"


def test_memories_of_old_federations_are_removed(tmp_path):
    for i in range(FEDERATIONS + 3):
        remember(tmp_path, f"f{i}", 0, {"w": torch.zeros(1)})
        os.utime(tmp_path / "memory" / f"f{i}.safetensors", (i, i))
    kept = {p.stem for p in (tmp_path / "memory").iterdir()}
    assert len(kept) == FEDERATIONS and "f0" not in kept and f"f{FEDERATIONS + 2}" in kept


def test_a_broken_memory_is_told(tmp_path):
    remember(tmp_path, "f", 0, {"w": torch.zeros(1)})
    next((tmp_path / "memory").iterdir()).write_bytes(b"half")
    with pytest.raises(InputError, match="is no memory of a client"):
        recall(tmp_path, "f", 1)


DIET = """
import sys
import torch
import fedclust.client_app, fedclust.server_app, fedclust.deploy.clients
from fedclust.models import Model, ModelConfig
Model(ModelConfig(), (1, 8, 8), 10).init(torch.Generator())
heavy = ("pandas", "sklearn", "scipy.ndimage", "sympy", "matplotlib", "networkx", "torch_geometric", "torch._dynamo",
         "simulations", "ray")
print(*(name for name in heavy if name in sys.modules))
"""


def test_a_client_imports_nothing_that_it_does_not_need():
    """Every message of a deployed client starts a process: what it imports is paid for in every round."""
    done = subprocess.run([sys.executable, "-c", DIET], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_names_cannot_leave_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    assert home("../../etc").parent == tmp_path / "fedclust"
    remember(tmp_path, "../x", 0, {"w": torch.zeros(1)})
    assert [p.parent.name for p in tmp_path.rglob("*.safetensors")] == ["memory"]
