"""Three SuperNodes with data of their own, over TLS and with keys: as in process, and when things are killed."""

import dataclasses

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict
from sklearn.datasets import load_digits

from fedclust.client_app import client_app
from fedclust.config import FederationConfig
from fedclust.data.spec import FederationSpec
from fedclust.deploy import commands, kit
from fedclust.deploy.settings import read_supernode
from fedclust.flwr_compat import task_identity
from fedclust.server_app import server_app
from fedclust.task import Training
from simulations.engines.inprocess import InProcessGrid, simulate
from tests.e2e.loopback import free_port, loopback, rounds_done, wait_for

pytestmark = pytest.mark.slow
NAMES = ("amber", "birch", "cedar")
HOSPITAL = """
from pathlib import Path
import numpy as np

def patients(client):
    return dict(np.load(Path({folder!r}) / f"{{client}}.npz"))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A running federation: amber reads npz files, birch csv, cedar a function; cedar calls every digit 9 - digit."""
    root = tmp_path_factory.mktemp("deployment")
    digits = load_digits()
    for i, name in enumerate(NAMES):
        part = np.random.default_rng(i).permutation(len(digits.target))[:200]
        x, y = digits.data[part].astype(np.float32) / 16, digits.target[part]
        y = 9 - y if name == "cedar" else y
        for place in (root / "all", root / name):
            place.mkdir(exist_ok=True)
            np.savez(place / f"{name}.npz", x=x, y=y)
    (root / "birch" / "birch.npz").unlink()
    held = np.load(root / "all" / "birch.npz")
    np.savetxt(root / "birch" / "birch.csv", np.column_stack((held["x"], held["y"])), delimiter=",", fmt="%.9g",
               header=",".join([*(f"p{i}" for i in range(64)), "label"]), comments="")
    with loopback(root, list(NAMES)) as running:
        (running.kit.supernode("cedar") / "hospital.py").write_text(HOSPITAL.format(folder=str(root / "cedar")))
        running.data = {"amber": str(root / "amber"), "birch": str(root / "birch"), "cedar": "hospital:patients"}
        for name, data in running.data.items():
            running.supernode(name, data)
        running.registered(*NAMES)
        running.files = root / "all"
        yield running


def config(source="own", **changes):
    spec = FederationSpec(source=str(source), n_clients=3, partition={"kind": "files", "n_classes": 10})
    fixed = {"rounds": 4, "timeout": 240, "training": Training(epochs=2, lr=0.3)}
    return FederationConfig(algorithm="fedrc", settings={"n_groups": 2, "restarts": 1}, federation=spec,
                            **{**fixed, **changes})


def same(deployed, simulated):
    """Assignments and accuracies are those of the engine in this process."""
    assert deployed.ids == simulated.ids == list(NAMES) and deployed.n_samples == simulated.n_samples
    assert torch.allclose(deployed.weights, simulated.weights, atol=1e-5)
    for name in ("accuracy", "accuracy_validation", "loss"):
        assert [r[name] for r in deployed.clients] == pytest.approx([r[name] for r in simulated.clients], abs=1e-4)
    for name, t in simulated.state.items():
        assert torch.allclose(deployed.state[name].double(), t.double(), atol=1e-4), name
    assert [r["participants"] for r in deployed.history.rounds] == [r["participants"] for r in simulated.history.rounds]


def test_a_run_whose_server_was_killed_ends_as_one_that_was_not(here, tmp_path):
    """The ServerApp is killed in round 2; the second `flwr run` begins there, and the clients know what they knew."""
    here.run(config(), 3, tmp_path)
    wait_for(lambda: rounds_done(tmp_path, config()) >= 2, 150, "two rounds")
    here.kill_server_app()
    before = rounds_done(tmp_path, config())
    here.run(config(), 3, tmp_path)
    result = here.result(tmp_path, 150)
    assert before in (2, 3) and [r["round"] for r in result.history.rounds] == [0, 1, 2, 3]
    assert result.history.missing() == {}
    # every round is one message a client, beside the greeting of each run and the evaluation at the end
    trained = [line for line in here.log("amber").splitlines() if "Receiving: train" in line]
    assert len(trained) in (4, 5), "at most the round in which the server was killed is trained twice"
    same(result, simulate(config(here.files)))


def test_a_client_that_is_killed_and_comes_back_is_missing_in_between(here, tmp_path):
    """birch is killed in round 1 and started in round 2; what the others did is what they do without it."""
    settings = config(rounds=6)
    here.run(settings, 3, tmp_path)
    wait_for(lambda: rounds_done(tmp_path, settings) >= 1, 120, "one round")
    here.kill("birch")
    wait_for(lambda: rounds_done(tmp_path, settings) >= 2, 200, "two rounds")
    here.supervised("birch", here.data["birch"])
    result = here.result(tmp_path, 300)
    gone = result.history.missing()["birch"]
    assert result.history.missing().keys() == {"birch"}
    assert {1} <= set(gone) <= {1, 2, 3, 4} and gone == list(range(1, 1 + len(gone)))
    assert all("unavailable" in row["failures"]["birch"].lower() for row in result.history.rounds if row["failures"])
    same(result, without("birch", gone, config(here.files, rounds=6)))


def without(client, gone, settings):
    """The same federation in this process, with a client that is not there in some rounds."""
    app, position = client_app(), NAMES.index(client)

    def unless_gone(message, context):
        held = message.content.get("settings", {})
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == position:
            assert held["round"] not in gone, "Node unavailable"
        return app(message, context)

    run_config, found = {"config": settings.model_dump_json(), "clients": len(NAMES), "folder": ""}, []
    with task_identity(1):
        grid = InProcessGrid(unless_gone, [{"partition-id": i} for i in range(len(NAMES))], run_config)
        server_app(lambda _, result: found.append(result))(grid, Context(1, 1, {}, RecordDict(), run_config))
    return found[0]


def test_who_is_not_listed_or_not_encrypted_is_refused_and_told_why(here, tmp_path):
    """An unlisted key, another authority, a key without TLS, neither key nor TLS."""
    other = kit.init(tmp_path / "other", "127.0.0.1", ["amber"], port=here.port)
    here.supernode("amber", str(tmp_path), folder=other.supernode("amber"), ca=here.kit.superlink / "ca.crt",
                   name="unlisted")
    here.supernode("amber", str(tmp_path), ca=other.superlink / "ca.crt", name="other authority")
    folder = here.kit.supernode("amber")
    for name, left_out in (("no TLS", ("--root-certificates",)),
                           ("nothing", ("--root-certificates", "--auth-supernode-private-key"))):
        settings = read_supernode(folder).model_copy(update={"port": free_port(), "superlink": here.address})
        command = commands.supernode(folder, settings, str(tmp_path), root_certificates=folder / "ca.crt")
        arguments = [*command.arguments, "--insecure"]
        for option in left_out:
            del arguments[(at := arguments.index(option)): at + 2]
        here.start(name, dataclasses.replace(command, arguments=arguments))
    told = {"unlisted": "Failed to activate SuperNode", "other authority": "CERTIFICATE_VERIFY_FAILED",
            "no TLS": "TLS is not enabled"}
    for name, reason in told.items():
        status = wait_for(lambda n=name: here.processes[n].poll(), 60, f"the end of {name}: {here.log(name)}")
        assert status == 1 and reason in here.log(name), here.log(name)
    # Flower takes this one for a server that is not there yet, and goes on trying
    wait_for(lambda: "Connection attempt failed" in here.log("nothing"), 60, here.log("nothing"))
    assert "Starting insecure channel" in here.log("nothing") and "SuperNode ID" not in here.log("nothing")
    here.kill("nothing")
    assert "Attempted to register SuperNode with public key" in here.log("superlink")
