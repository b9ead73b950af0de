"""A saved federation: nothing lost, nothing half written, and a table and picture that say what is there."""

import numpy as np
import pandas as pd
import pytest
import torch

from fedclust.data import artefact
from fedclust.data.artefact import class_counts, draw, load, save, table
from fedclust.data.build import build_federation
from fedclust.data.client import ClientData, Federation, Split
from fedclust.data.concept import ConceptShift
from fedclust.data.draw import Draw
from fedclust.data.graphs import Nodes
from fedclust.data.partition import Iid
from fedclust.data.spec import FederationSpec, HeldBack, Unseen
from graphclust.graph import InputError

DRAWN = FederationSpec(n_clients=3, partition=Draw(train=(20,), test=(10,), validation=(0,)),
                       concept=ConceptShift(maps=("identity", "reverse")), unseen=Unseen(support=10, test=10))
NODES = FederationSpec(source="asbm:n=90,k=3,degree_in=8,degree_out=1,d=5", n_clients=3,
                       partition=Nodes(method="random"))


@pytest.mark.parametrize("spec", [DRAWN, NODES], ids=["samples", "nodes"])
def test_round_trip(spec, tmp_path):
    federation = build_federation(spec)
    save(federation, spec, tmp_path / "f")
    again, stored = load(tmp_path / "f")
    assert stored == spec
    assert (again.n_classes, again.truth) == (federation.n_classes, federation.truth)
    assert [c.id for c in again.everyone] == [c.id for c in federation.everyone]
    for a, b in zip(federation.everyone, again.everyone, strict=True):
        for name in ("train", "test", "validation"):
            assert torch.equal(getattr(a, name).x, getattr(b, name).x)
            assert torch.equal(getattr(a, name).y, getattr(b, name).y)
        assert (a.nodes is None) == (b.nodes is None)
        if a.nodes is not None:
            assert torch.equal(a.nodes, b.nodes) and torch.equal(a.adjacency, b.adjacency)


def tiny():
    def split(*y):
        return Split(torch.zeros(len(y), 2), torch.tensor(y, dtype=torch.long))

    clients = (ClientData("a", split(0, 0, 1), split(2), split()), ClientData("b", split(1), split(1, 1), split(0)))
    unseen = (ClientData("n", split(2, 2), split(2), split()),)
    return Federation(clients, unseen, 3, {"concept": {"a": 0, "b": 1, "n": 1}, "group": {"a": 0, "b": 1, "n": 1}})


def test_the_table_by_hand():
    rows = table(tiny())
    assert rows.to_dict("records") == [
        {"client": "a", "role": "train", "train": 3, "test": 1, "validation": 0, "classes": "2 1 1",
         "true_concept": 0, "true_group": 0},
        {"client": "b", "role": "train", "train": 1, "test": 2, "validation": 1, "classes": "1 3 0",
         "true_concept": 1, "true_group": 1},
        {"client": "n", "role": "unseen", "train": 2, "test": 1, "validation": 0, "classes": "0 0 3",
         "true_concept": 1, "true_group": 1},
    ]
    assert class_counts(tiny().clients[0], 4).tolist() == [2, 1, 1, 0]


def test_the_table_of_a_graph_counts_nodes_and_edges():
    federation = build_federation(NODES)
    rows = table(federation)
    assert rows["nodes"].sum() == 90
    first = federation.clients[0]
    off_diagonal = first.adjacency - torch.diag(first.adjacency.diagonal())
    assert rows["edges"][0] == int((off_diagonal > 0).sum()) // 2


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    save(build_federation(DRAWN), DRAWN, tmp_path / "f")
    fewer = DRAWN.model_copy(update={"n_clients": 2, "unseen": None})
    save(build_federation(fewer), fewer, tmp_path / "f")
    assert [c.id for c in load(tmp_path / "f")[0].everyone] == ["client-0000", "client-0001"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f"]
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == [
        "clients", "clients.csv", "digest", "spec.yaml"]


def test_a_save_that_breaks_off_leaves_the_old_one(tmp_path, monkeypatch):
    federation = build_federation(DRAWN)
    save(federation, DRAWN, tmp_path / "f")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(artefact, "client_bytes", full)
    with pytest.raises(OSError, match="no space"):
        save(federation, DRAWN.model_copy(update={"seed": 9}), tmp_path / "f")
    assert load(tmp_path / "f")[1] == DRAWN
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f"]


def test_other_folders_are_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(InputError, match="holds something else"):
        save(tiny(), DRAWN, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(InputError, match="no saved federation"):
        load(tmp_path)
    save(build_federation(DRAWN), DRAWN, tmp_path / "f")
    file = tmp_path / "f" / "clients" / "client-0001.npz"
    content = file.read_bytes()
    file.write_bytes(content[:200])
    with pytest.raises(InputError, match=r"client-0001\.npz"):
        load(tmp_path / "f")
    np.savez(file, train_x=np.ones((1, 2)), train_y=[0])
    with pytest.raises(InputError, match="lacks test_x, test_y, validation_x"):
        load(tmp_path / "f")
    file.unlink()
    with pytest.raises(InputError, match=r"client-0001\.npz"):
        load(tmp_path / "f")
    file.write_bytes(content)
    (tmp_path / "f" / "spec.yaml").write_text("n_client: 3\n")
    with pytest.raises(InputError, match="n_client"):
        load(tmp_path / "f")


def test_the_picture_shows_every_sample_and_orders_by_group():
    figure = draw(tiny())
    bars, strip = figure.axes
    heights = np.array([[p.get_height() for p in c] for c in bars.containers])  # (C, clients)
    assert heights.sum(axis=0).tolist() == [4, 4, 3]
    assert [t.get_text() for t in strip.get_xticklabels()] == ["a", "b", "n"]
    assert [t.get_text() for t in strip.texts] == ["0", "1", "1"]
    assert strip.get_ylabel() == "concept"
    mixed = build_federation(DRAWN.model_copy(update={"n_clients": 5, "unseen": None}))
    names = [t.get_text() for t in draw(mixed).axes[-1].get_xticklabels()]
    assert names == [f"client-000{i}" for i in (0, 2, 4, 1, 3)]


def test_a_picture_of_many_clients_has_one_outline_a_class(monkeypatch, tmp_path):
    monkeypatch.setattr(artefact, "_CLIENTS_NAMED", 2)
    figure = draw(tiny())
    figure.savefig(tmp_path / "p.png")
    bars, _ = figure.axes
    steps = [p.get_data() for p in bars.patches]
    heights = np.array([s.values - s.baseline for s in steps])  # (C, clients)
    assert heights.T.tolist() == [[2, 1, 1], [1, 3, 0], [0, 0, 3]]
    assert all(s.edges.tolist() == [-0.5, 0.5, 1.5, 2.5] for s in steps)


def test_a_federation_without_truth_has_a_picture_of_one_panel(tmp_path):
    federation = build_federation(FederationSpec(n_clients=2, partition=Iid(), max_samples=50, unseen=HeldBack()))
    figure = draw(federation)
    assert len(figure.axes) == 1 and "true groups" not in figure.axes[0].get_title(loc="left")
    figure.savefig(tmp_path / "p.png")
    assert isinstance(table(federation), pd.DataFrame)
