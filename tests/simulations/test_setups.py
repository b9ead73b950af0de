"""How each scenario is trained unless told otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from fedclust.config import FederationConfig
from fedclust.data import artefact
from fedclust.data.artefact import save
from fedclust.data.build import build_federation
from fedclust.data.client import Kept
from fedclust.data.images import read_arrays
from graphclust.graph import InputError
from simulations.cli import main
from simulations.engines import inprocess
from simulations.scenarios import scenario, scenario_names
from simulations.setups import SETUPS, load_setup, save_defaults


def test_every_scenario_has_a_setup_that_is_a_valid_config():
    assert set(SETUPS) == set(scenario_names())
    for name, setup in SETUPS.items():
        config = FederationConfig(algorithm="fedavg", federation=scenario("digits-3shift"), **setup["config"])
        assert config.rounds >= 60 and setup["settings"]["n_groups"] >= 2, name


def test_options_and_the_seed_reach_the_federation():
    spec = load_setup("digits-3shift:n_clients=12,A=10", 5).federation
    assert (spec.n_clients, spec.seed, spec.partition.labels.concentration) == (12, 5, 10)
    assert load_setup("digits-3shift:seed=2", 5).federation.seed == 2, "what is written out wins"


def test_a_federation_of_ones_own_from_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("source: digits\nn_clients: 7\n")
    setup = load_setup(str(file), 3)
    assert (setup.federation.n_clients, setup.federation.seed, setup.config) == (7, 3, {})
    file.write_text("source: digits\nclients: 7\n")
    with pytest.raises(InputError, match="clients"):
        load_setup(str(file), 3)


def saved(place, ref="digits-3shift:n_clients=3", seed=4):
    setup = load_setup(ref, seed)
    save(build_federation(setup.federation), setup.federation, place)
    save_defaults(setup, place)
    return setup


def config(ref, seed=0, **changes):
    setup = load_setup(str(ref), seed)
    body = {**setup.config, "rounds": 2, "shots": (), "engine": "inprocess", **changes}
    return FederationConfig(algorithm="fedavg", federation=setup.federation, scenario="mine", **body)


def rewrite(file, **changes):
    held = read_arrays(file)
    np.savez(file, **{**held, **{name: change(held[name]) for name, change in changes.items()}})


def test_a_saved_federation_is_a_scenario_and_keeps_its_seed(tmp_path):
    setup = saved(tmp_path / "mine")
    held = load_setup(str(tmp_path / "mine"), 9)
    assert held.federation.model_copy(update={"stored": None}) == setup.federation and held.federation.seed == 4
    assert replace(held, federation=setup.federation) == setup


@pytest.mark.parametrize("ref", ["graph-sbm-clustering:n=120,n_clients=4", "graph-sbm:n_clients=4"])
def test_a_saved_federation_of_a_graph_is_trained_as_its_scenario(ref, tmp_path):
    setup = saved(tmp_path / "mine", ref, 2)
    held = load_setup(str(tmp_path / "mine"), 9)
    assert (held.config, held.settings) == (setup.config, setup.settings)
    built, read = inprocess.simulate(config(f"{ref},seed=2")), inprocess.simulate(config(tmp_path / "mine"))
    assert built.clients == read.clients, "the stored clients are those that were built"


def test_the_stored_samples_are_what_is_trained_on_wherever_that_is(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.random((90, 5), dtype=np.float32), y=np.arange(90) % 3)
    (tmp_path / "own.yaml").write_text("source: own.npz\nn_clients: 3\npartition: {kind: iid}\n")
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "mine", "own.yaml")
    first = inprocess.simulate(config("mine"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "own.npz").unlink()
    again = config("../mine")
    assert again.run_id == config(tmp_path / "mine").run_id
    assert inprocess.simulate(again).clients == first.clients
    rewrite(tmp_path / "mine" / "clients" / "client-0001.npz", train_x=lambda x: x[:10], train_y=lambda y: 2 - y[:10])
    federation = build_federation(config("../mine").federation)
    assert federation.n_train["client-0001"] == len(federation.clients[1].train) == 10
    assert inprocess.simulate(config("../mine")).clients[1]["n"] == 10


def test_a_run_on_samples_that_were_changed_is_another_run(tmp_path):
    saved(tmp_path / "mine")
    before = config(tmp_path / "mine")
    moved = tmp_path / "moved"
    (tmp_path / "mine").rename(moved)
    assert config(moved).run_id == before.run_id, "where it lies decides nothing"
    rewrite(moved / "clients" / "client-0001.npz", train_x=lambda x: 1 - x)
    after = config(moved)
    assert after.run_id != before.run_id and after.run_id != config("digits-3shift:n_clients=3,seed=4").run_id
    rewrite(moved / "clients" / "client-0001.npz", train_x=lambda x: x / 2)
    with pytest.raises(InputError, match="its files were changed since"):
        build_federation(after.federation)


def test_clients_of_a_saved_federation_are_read_when_they_are_asked_for(tmp_path, monkeypatch):
    saved(tmp_path / "mine")
    read, real = [], artefact.read_client
    monkeypatch.setattr(artefact, "read_client", lambda path: read.append(path.stem) or real(path))
    monkeypatch.setattr(Kept.__init__, "__defaults__", (1,))  # room for one byte: nothing is kept
    federation = build_federation(load_setup(str(tmp_path / "mine"), 0).federation)
    assert read == [] and [*federation.n_train.values()] == [len(c.train) for c in federation.everyone]
    read.clear()
    assert federation.clients[1].id == "client-0001" and read == ["client-0001"]


@pytest.mark.parametrize("change", [
    lambda mine: rewrite(mine / "clients" / "client-0001.npz", train_x=lambda x: 1 - x),
    lambda mine: (mine / "digest").unlink(),
    lambda mine: (mine / "clients.csv").write_text((mine / "clients.csv").read_text() + "\n"),
], ids=["client", "digest", "table"])
def test_all_are_looked_at_once_where_a_file_was_changed(change, tmp_path, monkeypatch):
    saved(tmp_path / "mine")
    change(tmp_path / "mine")
    read, real = [], artefact.read_client
    monkeypatch.setattr(artefact, "read_client", lambda path: read.append(path.stem) or real(path))
    monkeypatch.setattr(Kept.__init__, "__defaults__", (1,))  # room for one byte: nothing is kept
    spec = load_setup(str(tmp_path / "mine"), 0).federation
    federation = build_federation(spec)
    assert build_federation(spec) is federation and sorted(read) == sorted(federation.ids)


def test_a_saved_federation_can_be_saved_again_and_lies_then_elsewhere(tmp_path):
    saved(tmp_path / "mine")
    rewrite(tmp_path / "mine" / "clients" / "client-0001.npz", train_x=lambda x: 1 - x)
    saved(tmp_path / "copy", str(tmp_path / "mine"))
    assert "stored" not in (tmp_path / "copy" / "spec.yaml").read_text()
    one, other = (build_federation(load_setup(str(tmp_path / place), 0).federation) for place in ("mine", "copy"))
    assert all((a.train.x == b.train.x).all() for a, b in zip(one.everyone, other.everyone, strict=True))


def test_a_saved_federation_without_its_table_is_refused(tmp_path):
    saved(tmp_path / "mine")
    (tmp_path / "mine" / "clients.csv").unlink()
    with pytest.raises(InputError, match="no saved federation"):
        load_setup(str(tmp_path / "mine"), 0)


HEAD = "client,role,train,classes\n"


@pytest.mark.parametrize("content", ["garbage\n", "", HEAD, HEAD + "a,train,,1 2\n"])
def test_a_table_that_is_none_is_refused_by_name(content, tmp_path):
    saved(tmp_path / "mine")
    (tmp_path / "mine" / "clients.csv").write_text(content)
    with pytest.raises(InputError, match=r"clients\.csv is no table of a federation"):
        build_federation(load_setup(str(tmp_path / "mine"), 0).federation)


def test_clients_whose_samples_were_given_another_shape_are_refused(tmp_path):
    saved(tmp_path / "mine")
    splits = ("train_x", "test_x", "validation_x")
    rewrite(tmp_path / "mine" / "clients" / "client-0001.npz", **dict.fromkeys(splits, lambda x: x[:, :, :4]))
    with pytest.raises(InputError, match=r"client 'client-0001' has samples of shape \(1, 4, 8\)"):
        build_federation(load_setup(str(tmp_path / "mine"), 0).federation)


@pytest.mark.parametrize(("words", "told"), [
    (["simulate", "fedavg", "--scenario", "./nowhere"], "scenario './nowhere': there is no such folder"),
    (["simulate", "nothere.yaml"], "the config nothere.yaml does not exist"),
    (["simulate", "ifca"], "give --scenario"),
    (["simulate", "fedavg", "--scenario", "empty"], "error: the folder empty holds no .npz or .csv file"),
    (["simulate", "hierarchical", "--scenario", "digits-3shift", "--set", "linkage=ward"],
     "error: settings of hierarchical: linkage ward needs distance euclidean"),
    (["simulate", "fedavg", "--scenario", "digits-3shift", "--out", "file"], "the output folder file is a file"),
    (["partition", "digits-3shift:n_clients=2", "--out", "file/x"], "error: file: File exists; give a place"),
    (["partition", "nothing.yaml"], "error: the config nothing.yaml is wrong: it must be keys and values; it has"),
])
def test_bad_input_is_one_line_that_names_it(words, told, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "nothing.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fedclust", *words])
    monkeypatch.setattr("fedclust.flwr_compat.apply_environment", lambda: None)
    with pytest.raises(SystemExit) as e:
        main()
    out = capsys.readouterr()
    assert e.value.code == 2 and out.out == "" and told in out.err and len(out.err.splitlines()) == 1


def test_a_folder_with_a_file_for_each_client_is_a_scenario(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("paris", "rome"):
        np.savez(tmp_path / f"{name}.npz", x=rng.random((20, 5), dtype=np.float32), y=np.arange(20) % 2)
    federation = build_federation(load_setup(str(tmp_path), 0).federation)
    assert [c.id for c in federation.clients] == ["paris", "rome"] and federation.n_classes == 2
    (tmp_path / "rome.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="rome"):
        build_federation(load_setup(str(tmp_path), 0).federation)
