"""The batched engine: every algorithm gets bit for bit what it gets in process; and what cannot be stacked."""

import logging

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from fedclust.algorithms import algorithm_names
from fedclust.config import Attack, FederationConfig
from fedclust.data.draw import Draw
from fedclust.data.spec import FederationSpec, Unseen
from fedclust.events import Events
from fedclust.flwr_compat import task_identity
from fedclust.models import ModelConfig
from fedclust.participant import simulated_federation
from fedclust.privacy import Privacy
from fedclust.records import unpack
from fedclust.rounds import RunStopped
from fedclust.state import Checkpoint
from fedclust.strategy import ClusteredStrategy
from fedclust.task import Cohort, Training
from graphclust.monitor import Silent
from simulations.attacks import SimulatedClients
from simulations.engines import auto, batched, get_engine
from simulations.engines.batched import BatchedGrid
from simulations.setups import load_setup

SETTINGS = {
    "cfl": {"first_split": 2, "rho": 0.9}, "community": {"warmup": 1}, "flhc": {"warmup": 1, "n_groups": 2},
    "fedcollab": {"divergence": {"rounds": 3}}, "hierarchical": {"warmup": 1, "finetune_epochs": 1},
    "oracle": {"true_groups": (0, 0, 1, 1, 0, 1)}, "fedrc": {"restarts": 2, "trial_rounds": 2},
}
RAGGED = FederationSpec(
    n_clients=6, partition=Draw(train=(7, 30, 41), test=(9, 20, 11), validation=(0, 5, 0)),
    unseen=Unseen(support=25, test=30),
)


def config(algorithm="fedavg", engine="batched", **changes) -> FederationConfig:
    training = Training(epochs=1, lr=0.2, batch_size=8)
    return FederationConfig(**{
        "algorithm": algorithm, "settings": SETTINGS.get(algorithm, {}), "federation": RAGGED, "rounds": 4,
        "training": training, "engine": engine, "shots": (0, 3), "draws": 2, **changes,
    })


def run(c: FederationConfig, engine: str, **kwargs):
    return get_engine(engine)(c.model_copy(update={"engine": engine}), **kwargs)


def equal(a, b):
    assert a.state.keys() == b.state.keys()
    for name, t in a.state.items():
        assert torch.equal(t.nan_to_num(-7), b.state[name].nan_to_num(-7)), name
    assert torch.equal(a.weights.nan_to_num(-7), b.weights.nan_to_num(-7))
    assert a.clients == b.clients and a.unseen == b.unseen
    for one, other in zip(a.history.rounds, b.history.rounds, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def same(c, **kwargs):
    """Run on both engines; equal in every bit, with no client computed by itself."""
    ours = run(c, "batched", **kwargs)
    equal(run(c, "inprocess"), ours)
    assert not ours.notes
    return ours


@pytest.mark.parametrize("name", algorithm_names())
def test_every_algorithm_is_bit_for_bit_the_in_process_engines(name):
    same(config(name))


@pytest.mark.parametrize("changes", [
    {"fraction": 0.5}, {"model": ModelConfig(name="linear")},
    {"training": Training(epochs=2, optimiser="adam", lr=0.01)},
    {"events": Events(dropout=0.3, straggler=0.2)}, {"attack": Attack(kind="sign_flip", share=0.3)},
    {"attack": Attack(kind="label_flip", share=0.3)}, {"attack": Attack(kind="noise", share=0.3)},
    {"privacy": Privacy(clip=1.0, epsilon=20.0, delta=1e-3)}, {"algorithm": "local", "fraction": 0.5, "rounds": 6},
    {"algorithm": "fedrc", "events": Events(dropout=0.3)},
], ids=lambda c: "-".join(c))
def test_so_it_is_under_participation_events_attacks_and_noise(changes):
    same(config(changes.pop("algorithm", "fedavg"), **changes))


@pytest.mark.parametrize("case", ["convnet", "gcn", "autoencoder"])
def test_models_that_vmap_stacks_agree_up_to_rounding(case):
    if case == "convnet":
        c = config(model=ModelConfig(name="convnet", hidden=(8,)), rounds=2)
    else:
        graph = load_setup(f"graph-sbm{'-clustering' if case == 'autoencoder' else ''}:n_clients=4", 0)
        c = FederationConfig(algorithm="fedavg", federation=graph.federation, **graph.config | {"rounds": 2})
    one, other = run(c, "inprocess"), run(c, "batched")
    assert not other.notes and c.model.name == case
    for name, t in one.state.items():
        torch.testing.assert_close(other.state[name], t, atol=1e-5, rtol=1e-5, equal_nan=True)


def grid_of(c, **kwargs):
    n = len(simulated_federation(c).everyone)
    nodes = [{"partition-id": i, "num-partitions": n} for i in range(n)]
    return BatchedGrid(SimulatedClients(), nodes, {"config": c.model_dump_json(), "clients": n, "folder": ""}, **kwargs)


def sizes_of_cohorts(monkeypatch):
    """The cohorts of many that are made from now on."""
    made = []
    make = batched.Cohort

    def watched(clients, *args, **kwargs):
        made.append(len(clients))
        return make(clients, *args, **kwargs)

    monkeypatch.setattr(batched, "Cohort", watched)
    return made


def test_cohorts_fit_the_memory_and_their_size_changes_nothing(monkeypatch):
    c = config("fedrc")
    whole, made = run(c, "batched"), sizes_of_cohorts(monkeypatch)
    monkeypatch.setattr(batched, "bytes_of", lambda me, k: 2**20 // 2)
    equal(whole, run(c.model_copy(update={"memory_mb": 1}), "batched"))
    assert set(made) == {2}


def test_a_client_takes_memory_by_its_models_samples_and_layers():
    c = config()
    me = SimulatedClients()(grid_of(c)._contexts[2], 0)
    one, three = batched.bytes_of(me, 1), batched.bytes_of(me, 3)
    assert me.model.n_parameters == 64 * 64 + 64 + 64 * 10 + 10 and me.model.n_outputs == 64 + 10
    assert 4 * me.model.n_parameters < one < three < 3 * one


def test_samples_are_stacked_once_while_the_same_clients_take_part(monkeypatch):
    made = sizes_of_cohorts(monkeypatch)
    run(config(rounds=5), "batched")
    # three pairs of like size, and the newcomers; twice for these: what they find out, how they fare
    assert sum(made[:3]) == 6 and len(made) <= 6


def test_what_cannot_be_stacked_is_computed_one_by_one_and_said(monkeypatch, caplog):
    c = config("ifca")
    expected, train = run(c, "inprocess"), Cohort.train

    def broken(cohort, *args, **kwargs):
        if len(cohort) > 1:
            raise RuntimeError("vmap: no batching rule for frob")
        return train(cohort, *args, **kwargs)

    monkeypatch.setattr(Cohort, "train", broken)
    with caplog.at_level(logging.WARNING):
        result = run(c, "batched")
    equal(expected, result)
    [note] = result.notes
    assert note == "24 answers were computed one by one: RuntimeError: vmap: no batching rule for frob"
    assert caplog.text.count("no batching rule") == 1, "said once, not for every cohort"


def test_a_client_that_fails_fails_alone(monkeypatch):
    train = Cohort.train

    def picky(cohort, *args, **kwargs):
        if "client-0003" in cohort.ids:
            raise ValueError("disk full")
        return train(cohort, *args, **kwargs)

    monkeypatch.setattr(Cohort, "train", picky)
    result = run(config(), "batched")
    assert all(list(row["failures"]) == ["client-0003"] for row in result.history.rounds)
    assert "disk full" in result.history.rounds[0]["failures"]["client-0003"]
    assert all(len(row["participants"]) == 5 for row in result.history.rounds)


def test_replies_that_come_too_late_are_none():
    c = config()
    with task_identity(1):
        grid = grid_of(c)
        message = grid.create_message(RecordDict({"settings": ConfigRecord({"job": 0})}), "query.hello", 2, "g")
        assert len(list(grid.send_and_receive([message]))) == 1
    with pytest.raises(RunStopped, match="answered within"):
        run(c.model_copy(update={"timeout": 1e-9}), "batched")


@pytest.mark.parametrize("second", ["batched", "inprocess"])
@pytest.mark.parametrize("name", ["local", "fedrc"])
def test_a_checkpoint_is_gone_on_from_bit_for_bit(name, second, tmp_path):
    c, file = config(name), tmp_path / "checkpoint.safetensors"
    expected = run(c, "batched")

    class Kill(Silent):
        def step(self, step, values, labels=None):
            if step == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(c, "batched", checkpoint=file, monitor=Kill())
    # both engines read the other's checkpoints: the config's name for the engine is all that differs
    held = Checkpoint.load(file, c.fingerprint())
    assert len(held.history.rounds) == 2 and held.memories
    there = c.model_copy(update={"engine": second})
    held.fingerprint = there.fingerprint()
    held.save(file)
    equal(expected, run(there, second, checkpoint=file))


def test_what_clients_remember_does_not_keep_the_cohort_in_memory():
    c = config("local", rounds=1)
    with task_identity(1):
        grid = grid_of(c)
        ClusteredStrategy(c, len(simulated_federation(c).everyone)).start(grid)
        held = grid._contexts[2].state["memory-0"]
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in unpack(held).values()) and len(held) == 4


def timed(monkeypatch, stacked, alone):
    """Let the engine's trial trainings take these seconds."""
    monkeypatch.setattr(auto, "_seconds", lambda config, model, *ways: [stacked, alone])


@pytest.mark.parametrize("stacked, alone, processes, expected", [
    (1.0, 2.0, 2, "batched"), (1.0, 1.9, 2, "workers"), (1.0, 1.0, 1, "batched"), (1.0, 0.9, 1, "inprocess"),
])
def test_auto_takes_what_is_faster_and_says_so(stacked, alone, processes, expected, monkeypatch):
    timed(monkeypatch, stacked, alone)
    monkeypatch.setattr(auto, "n_workers", lambda config, n: processes)
    choice = auto.choose(config())
    assert choice.engine == expected and "ms side by side" in choice.why


def test_the_ways_that_auto_times_take_turns(monkeypatch):
    turns, train = [], Cohort.train
    monkeypatch.setattr(Cohort, "train", lambda cohort, *args: turns.append(len(cohort)) or train(cohort, *args))
    auto.choose(config())
    assert turns[:8] == [6, 1, 1, 1] * 2


def test_auto_runs_a_single_client_in_process():
    one = config(federation=FederationSpec(n_clients=1))
    assert auto.choose(one) == auto.Choice("inprocess", "there is one client")


def test_auto_runs_what_it_chose_and_keeps_to_it_after_an_interruption(tmp_path, monkeypatch):
    c, file = config(engine="auto"), tmp_path / "checkpoint.safetensors"
    timed(monkeypatch, stacked=1.0, alone=9.0)
    result = run(c, "auto", checkpoint=file)
    assert result.notes[0].startswith("engine batched: ") and [p.name for p in tmp_path.iterdir()] == [file.name]
    equal(result, run(c, "inprocess"))
    file.with_suffix(".engine.json").write_text('{"engine": "inprocess", "why": "it was before"}')
    monkeypatch.setattr(auto, "choose", lambda config: pytest.fail("chose anew"))
    assert run(c, "auto", checkpoint=file).notes == ["engine inprocess: it was before"]


def test_an_operation_that_torch_cannot_stack_is_no_obstacle_to_auto(monkeypatch):
    train = Cohort.train

    def broken(cohort, *args, **kwargs):
        if len(cohort) > 1:
            raise RuntimeError("no batching rule")
        return train(cohort, *args, **kwargs)

    monkeypatch.setattr(Cohort, "train", broken)
    assert auto.choose(config()).engine in ("workers", "inprocess")
