"""Clients that are made when they are asked for: the same ones, no more of them in memory than there is room for."""

import gc
import weakref

import numpy as np
import pytest
import torch

from fedclust.data import client as module
from fedclust.data.artefact import load, save
from fedclust.data.build import build_federation
from fedclust.data.client import ClientData, Federation, Kept, OnDemand, Split
from fedclust.data.draw import Draw, LabelShift
from fedclust.data.feature import Corruption, FeatureShift
from fedclust.data.graphs import Clustering, Nodes
from fedclust.data.partition import Dirichlet, Iid
from fedclust.data.spec import FederationSpec, HeldBack, Unseen
from graphclust.graph import InputError

SMALL = Draw(train=(30, 20), test=(10,), validation=(8,), labels=LabelShift(concentration=3.0))
DRAWN = FederationSpec(n_clients=6, partition=SMALL, unseen=Unseen(support=20, test=12))
CUT = FederationSpec(n_clients=5, partition=Dirichlet(concentration=2.0), unseen=HeldBack(clients=2), max_samples=300)
GRAPH = FederationSpec(source="asbm:n=90,k=3,degree_in=8,degree_out=1,d=5", n_clients=4, unseen=HeldBack(),
                       partition=Nodes(method="random"))
CLUSTERED = GRAPH.model_copy(update={"unseen": None, "partition": Nodes(method="random", clustering=Clustering())})


def folder(place, n=4):
    place.mkdir()
    rng = np.random.default_rng(0)
    for k in range(n):
        np.savez(place / f"client{k}.npz", x=rng.random((10 + k, 5)), y=np.arange(10 + k) % 3)
    return FederationSpec.model_validate(
        {"source": str(place), "partition": {"kind": "files"}, "unseen": {"kind": "held_back"}})


def spec_of(name, tmp_path):
    specs = {"drawn": DRAWN, "cut": CUT, "graph": GRAPH, "clustered": CLUSTERED}
    return specs[name] if name in specs else folder(tmp_path / "files")


def tensors(c):
    return [t for s in (c.train, c.test, c.validation) for t in (s.x, s.y)] + [
        t for t in (c.nodes, c.adjacency) if t is not None]


def same(one, other):
    return one.id == other.id and all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def simple(name, n=10):
    x = torch.zeros(n, 5)
    return ClientData(name, Split(x, torch.zeros(n, dtype=torch.long)), *[Split(x[:0], torch.zeros(0).long())] * 2)


KINDS = ["drawn", "cut", "files", "graph", "clustered"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_does_not_depend_on_when_it_is_made_nor_on_whether_it_was_dropped(kind, tmp_path, monkeypatch):
    spec = spec_of(kind, tmp_path)
    whole = list(build_federation(spec).everyone)
    monkeypatch.setattr(Kept.__init__, "__defaults__", (1,))  # room for one byte: every client is made again
    federation = build_federation(spec)
    for i in reversed(range(len(whole))):
        assert same(federation.everyone[i], whole[i])
    assert same(federation.everyone[-1], whole[-1]) and federation.everyone[0] is not whole[0]


@pytest.mark.parametrize("kind", KINDS)
def test_names_sizes_and_shape_are_known_before_any_client_but_the_first_is_made(kind, tmp_path, monkeypatch):
    spec, made = spec_of(kind, tmp_path), []
    monkeypatch.setattr(Kept, "__call__", lambda self, i, old=Kept.__call__: made.append(i) or old(self, i))
    federation = build_federation(spec)
    assert made == []
    known = [federation.pending(i) for i in range(len(federation.ids))]
    assert set(made) <= {federation.ids[0]}
    for c, p in zip(federation.everyone, known, strict=True):
        assert (p.id, p.n_train, p.input_shape) == (c.id, len(c.train), c.input_shape)
        assert p.make() is c
    assert federation.training_ids == [c.id for c in federation.clients] == sorted(federation.training_ids)
    assert federation.n_train == {c.id: len(c.train) for c in federation.everyone}


def test_those_asked_for_last_are_kept_as_far_as_there_is_room():
    made = []
    size = simple("x").n_bytes
    assert size == 10 * 5 * 4 + 10 * 8
    kept = Kept(lambda i: made.append(i) or simple(i), 1, room=2 * size)
    clients = OnDemand(dict.fromkeys("abcd", 10), kept)
    for i in (0, 1, 0, 2, 0, 1):  # b is the one that nobody asked for when c comes
        assert clients[i].id == "abcd"[i]
    assert made == ["a", "b", "c", "b"]
    assert [c.id for c in clients[1:3]] == ["b", "c"] and clients[1:].n_train == dict.fromkeys("bcd", 10)
    assert [c.id for c in clients[:1] + clients[3:]] == ["a", "d"]
    with pytest.raises(IndexError):
        clients[4]


def test_a_client_that_is_dropped_is_gone_and_one_larger_than_the_room_is_kept():
    kept = Kept(simple, 1, room=1)
    first = weakref.ref(kept("a"))
    assert kept("a") is first()
    kept("b")
    gc.collect()
    assert first() is None


def test_what_is_made_is_checked_then_and_counted_at_once():
    bad = simple("a")
    bad.train.x[3, 1] = torch.nan
    federation = Federation(OnDemand({"a": 10}, Kept(lambda _: bad, 1)), (), 1)
    with pytest.raises(InputError, match="client 'a': train features hold NaN"):
        federation.clients[0]
    with pytest.raises(InputError, match=r"client 'a': train labels must lie in 0\.\.-1"):
        Kept(simple, 0)("a")
    with pytest.raises(InputError, match="client 'b' has no training samples"):
        Federation(OnDemand({"a": 10, "b": 0}, Kept(simple, 1)), (), 1)
    part = OnDemand({"a": 10}, Kept(simple, 1))
    with pytest.raises(InputError, match=r"twice there: \['a'\]"):
        Federation(part, part, 1)
    with pytest.raises(InputError, match="no clients"):
        Federation(part[1:], part, 1)


@pytest.mark.parametrize("draw, word", [
    (Draw(train=(300,), bootstrap=None, labels=LabelShift(concentration=1.0)), r"needs \d+ samples of class \d"),
    (Draw(train=(300,), bootstrap=None), "'client-0000' needs 30 samples of class 0"),
    (Draw(pools=(0.98, 0.01, 0.01), validation=(40,)), "and the pool has 0"),
])
def test_a_draw_that_some_client_cannot_make_is_refused_before_any_is(draw, word, monkeypatch):
    monkeypatch.setattr(Kept, "__call__", lambda *_: pytest.fail("a client was made"))
    with pytest.raises(InputError, match=word):
        build_federation(FederationSpec(n_clients=200, partition=draw, max_samples=200))


def test_a_shift_that_fits_no_vectors_is_refused_before_any_client_is_made(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).random((90, 4)), y=np.arange(90) % 3)
    blurred = FeatureShift(variants=(Corruption(), Corruption(kind="blur", amount=1.0)))
    own = FederationSpec(source=str(tmp_path / "own.npz"), n_clients=3, feature=blurred)
    files = folder(tmp_path / "files").model_copy(update={"feature": blurred})
    graph = GRAPH.model_copy(update={"feature": blurred})
    for spec in (own, own.model_copy(update={"partition": Iid()}), files, graph):
        with pytest.raises(InputError, match="'blur' needs images"):
            build_federation(spec)


def test_a_file_that_breaks_after_it_was_looked_at_is_named_when_it_is_read_again(tmp_path):
    federation = build_federation(folder(tmp_path / "files"))
    (tmp_path / "files" / "client1.npz").unlink()
    assert federation.clients[0].id == "client0"
    with pytest.raises(InputError, match=r"client1\.npz does not exist"):
        federation.clients[1]


def test_a_saved_federation_is_read_client_by_client(tmp_path, monkeypatch):
    save(build_federation(CUT), CUT, tmp_path / "f")
    monkeypatch.setattr(Kept.__init__, "__defaults__", (1,))
    again, _ = load(tmp_path / "f")
    first = again.clients[2]
    assert again.clients[0].id == "client-0000" and again.clients[2] is not first
    assert all(same(a, b) for a, b in zip(again.everyone, build_federation(CUT).everyone, strict=True))
    assert again.n_train == build_federation(CUT).n_train


def test_whether_everyones_training_samples_fit_is_known_without_them(monkeypatch):
    federation = build_federation(DRAWN)
    total = sum(c.train.x.nbytes for c in federation.everyone)
    monkeypatch.setattr(module, "ROOM", total)
    assert federation.fits
    monkeypatch.setattr(module, "ROOM", total - 1)
    assert not build_federation(DRAWN).fits


def test_ready_made_clients_are_a_federation_too():
    federation = Federation((simple("a"), simple("b", 3)), (simple("n"),), 1)
    assert federation.n_train == {"a": 10, "b": 3, "n": 10} and federation.training_ids == ["a", "b"]
    assert federation.pending(1).make() is federation.clients[1]
