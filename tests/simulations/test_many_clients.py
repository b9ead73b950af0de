"""Very many clients of which each round asks a few: samples and state of those who were asked, not of all."""

import gc

import pytest
import torch

from fedclust import participant
from fedclust.algorithms.base import models
from fedclust.config import FederationConfig
from fedclust.data import client as module
from fedclust.data.client import ClientData, Kept
from fedclust.data.concept import ConceptShift
from fedclust.data.draw import Draw
from fedclust.data.spec import FederationSpec
from fedclust.models import ModelConfig
from fedclust.outcome import outcome
from fedclust.rounds import select
from fedclust.task import Training
from simulations.engines.inprocess import simulate

N = 400
FEDERATION = FederationSpec(
    n_clients=N, partition=Draw(train=(60,), test=(20,), validation=(0,)),
    concept=ConceptShift(maps=("identity", "reverse")),
)
BYTES = 80 * (64 * 4 + 8)
"""Of one client."""


def config(algorithm, federation=FEDERATION, **more):
    return FederationConfig(
        algorithm=algorithm, federation=federation, rounds=2, fraction=0.02, evaluate_every=0,
        model=ModelConfig(hidden=(4,)), training=Training(epochs=1, lr=0.1, batch_size=30), **more).resolved()


@pytest.fixture(autouse=True)
def little_room(monkeypatch):
    """Room for ten clients, and no federation from before or for after."""
    monkeypatch.setattr(module, "ROOM", 10 * BYTES)
    monkeypatch.setattr(Kept.__init__, "__defaults__", (10 * BYTES,))
    forget()
    yield
    forget()


def forget():
    participant._federation.cache_clear()
    participant._job.cache_clear()


def clients_in_memory():
    return sum(type(o) is ClientData for o in gc.get_objects())


def test_samples_are_made_when_a_round_needs_them_and_dropped_again(monkeypatch):
    made, most = [], 0
    others = clients_in_memory()

    def counted(self, i, old=Kept.__call__):
        nonlocal most
        fresh = i not in self._held
        client = old(self, i)
        if fresh:
            made.append(i)
            if len(made) % 50 == 0:
                most = max(most, clients_in_memory() - others)
        return client

    monkeypatch.setattr(Kept, "__call__", counted)
    result = simulate(config("fedavg"))
    drawn = [result.ids[i] for r in range(2) for i in select(N, 0.02, 0, r)]
    # the first tells the shape of all; then those of each round, and in the end everyone is evaluated once
    assert made[: 1 + len(drawn)] == [result.ids[0], *drawn]
    assert len(made) <= 1 + len(drawn) + N and set(made) == set(result.ids)
    assert 0 < most < 30
    assert all(row["accuracy"] is not None for row in result.clients)


def test_little_room_changes_no_result(monkeypatch):
    tight = simulate(config("ifca", settings={"n_groups": 2}))
    monkeypatch.undo()  # room for all, whose stacked samples then stay in memory too
    forget()
    wide = simulate(config("ifca", settings={"n_groups": 2}))
    assert participant.simulated_federation(config("ifca", settings={"n_groups": 2})).fits
    assert tight.clients == wide.clients and torch.equal(tight.weights, wide.weights)
    assert all(torch.equal(t, models(wide.state)[name]) for name, t in models(tight.state).items())


def test_local_remembers_those_who_began_and_nobody_else():
    result = simulate(config("local"))
    begun = sorted({i for r in range(2) for i in select(N, 0.02, 0, r)})
    assert result.state["weights"].shape == result.weights.shape == (N, len(begun))
    tables = outcome(result, {})
    assert (tables.found >= 0).nonzero()[0].tolist() == begun
    assert sorted(tables.found[begun]) == list(range(len(begun)))  # each a group of its own
    first = select(N, 0.02, 0, 0)
    assert [int(tables.groups[1][i]) for i in first] == [int(tables.found[i]) for i in first] == list(range(len(first)))
