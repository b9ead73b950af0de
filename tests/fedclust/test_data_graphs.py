"""Clients on the nodes of one graph."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from fedclust.data.build import build_federation
from fedclust.data.concept import ConceptShift
from fedclust.data.feature import Corruption, FeatureShift
from fedclust.data.graphs import LabelledGraph, Nodes, cut_nodes
from fedclust.data.spec import FederationSpec, HeldBack
from graphclust.data.npz import write_npz
from graphclust.graph import InputError, from_adjacency

SBM = "asbm:n=120,k=3,degree_in=10,degree_out=1,d=6,seed=1"


def spec(**changes):
    return FederationSpec(**{"source": SBM, "n_clients": 4, "partition": Nodes(method="random"), **changes})


@pytest.mark.parametrize("method", ["leiden", "random"])
def test_every_node_goes_to_exactly_one_client(method):
    graph = LabelledGraph(SBM).graph
    parts, again = (cut_nodes(Nodes(method=method), graph, 5, seed=0) for _ in range(2))
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(120))
    sizes = [len(p) for p in parts]
    assert max(sizes) <= 2 * min(sizes)
    assert all(np.array_equal(p, q) for p, q in zip(parts, again, strict=True))


def test_leiden_keeps_more_edges_than_chance():
    a = LabelledGraph(SBM).graph.adjacency

    def kept(method):
        return sum(a[p][:, p].nnz for p in cut_nodes(Nodes(method=method), LabelledGraph(SBM).graph, 3, seed=0)) / a.nnz

    assert kept("leiden") > 0.8 > 0.5 > kept("random")


def test_a_client_has_its_nodes_their_features_and_the_edges_among_them():
    whole = LabelledGraph(SBM)
    federation = build_federation(spec())
    parts = cut_nodes(Nodes(method="random"), whole.graph, 4, seed=0)
    for client, nodes in zip(federation.clients, parts, strict=True):
        assert torch.equal(client.nodes, torch.from_numpy(whole.features(nodes)))
        splits = (client.train, client.test, client.validation)
        assert sorted(torch.cat([s.x for s in splits]).tolist()) == list(range(len(nodes)))
        assert all(torch.equal(s.y, torch.from_numpy(whole.y[nodes])[s.x]) for s in splits)
    assert federation.input_shape == (6,) and federation.n_classes == 3


def test_the_adjacency_is_normalised_symmetrically_with_self_loops():
    """A path 0-1-2 and a node that nobody knows: D = diag(2, 3, 2, 1) with the loops."""
    whole = object.__new__(LabelledGraph)
    path = sp.csr_array(np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=np.float32))
    whole.graph = from_adjacency(path)
    a = whole.adjacency(np.arange(4))
    s = 1 / np.sqrt(6)
    expected = torch.tensor([[0.5, s, 0, 0], [s, 1 / 3, s, 0], [0, s, 0.5, 0], [0, 0, 0, 1]],
                            dtype=torch.float32)
    assert torch.allclose(a, expected, atol=1e-6) and a.dtype == torch.float32
    assert torch.allclose(whole.adjacency(np.array([0, 2])), torch.eye(2))  # the edge's other end is elsewhere


def test_concept_and_feature_shifts_reach_nodes():
    plain = build_federation(spec())
    noise = FeatureShift(variants=(Corruption(), Corruption(kind="noise", amount=0.5)))
    shifted = build_federation(spec(concept=ConceptShift(maps=("identity", "reverse")), feature=noise))
    for i, (a, b) in enumerate(zip(plain.clients, shifted.clients, strict=True)):
        assert torch.equal(b.train.y, 2 - a.train.y if i % 2 else a.train.y)
        assert torch.equal(a.nodes, b.nodes) == (i % 2 == 0)
        assert torch.equal(a.adjacency, b.adjacency)


def test_newcomers_are_held_back():
    federation = build_federation(spec(unseen=HeldBack(clients=1)))
    assert len(federation.clients) == 4
    (newcomer,) = federation.unseen
    assert (newcomer.id, len(newcomer.validation)) == ("unseen-0000", 0)
    assert sum(len(c.nodes) for c in federation.everyone) == 120


def test_nodes_without_label_are_seen_but_in_no_split(tmp_path):
    from graphclust.data import load

    data = load(SBM)
    data.y[:30] = -1
    write_npz(data, tmp_path / "part.npz")
    federation = build_federation(spec(source=str(tmp_path / "part.npz")))
    assert sum(len(c.nodes) for c in federation.clients) == 120
    assert sum(len(s) for c in federation.clients for s in (c.train, c.test, c.validation)) == 90


@pytest.mark.parametrize("changes, word", [
    ({"source": "karate"}, "no features"), ({"n_clients": 121}, "121 clients for 120 nodes"),
    ({"max_samples": 50}, "max_samples"), ({"n_clients": 110}, "needs 2"), ({"source": "asbn:n=5"}, "asbm"),
])
def test_what_cannot_be_cut_is_refused(changes, word):
    with pytest.raises(InputError, match=word):
        build_federation(spec(**changes))
