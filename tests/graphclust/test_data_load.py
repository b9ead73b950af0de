"""References, the catalogue, embedded sets, and the refusals of ``load``."""

import numpy as np
import pytest
import torch
import torch_geometric.datasets
from sklearn.datasets import load_digits
from sklearn.metrics import pairwise_distances

from graphclust.coerce import as_graph
from graphclust.data import CATALOGUE, data_names, load, parse_ref
from graphclust.data.catalogue import describe
from graphclust.graph import InputError


@pytest.fixture(autouse=True)
def no_user_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHCLUST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAPHCLUST_OFFLINE", "1")


@pytest.mark.parametrize(("ref", "name", "params"), [
    ("karate", "karate", {}),
    ("sbm:n=1000,k=5,seed=1", "sbm", {"n": 1000, "k": 5, "seed": 1}),
    ("edges.csv.gz:directed=true,weight=w,labels=labels.csv", "edges.csv.gz",
     {"directed": True, "weight": "w", "labels": "labels.csv"}),
    ("sbm:sizes=[10,20],p_in=1e-3", "sbm", {"sizes": [10, 20], "p_in": 1e-3}),
    ("pyg:Amazon/Photo", "pyg:Amazon/Photo", {}),
    ("a.csv:nodes=x:y,n=3", "a.csv", {"nodes": "x:y", "n": 3}),
    ("a.csv:weight=", "a.csv", {"weight": None}),
])
def test_parse_ref(ref, name, params):
    assert parse_ref(ref) == (name, params)


@pytest.mark.parametrize("ref", [":n=3", "", "sbm:n=1,n=2", "sbm:n=[1"])
def test_parse_ref_refuses(ref):
    with pytest.raises(InputError):
        parse_ref(ref)


@pytest.mark.parametrize("name", ["debtopics13", "karate", "digits-knn", "sbm", "dcsbm", "lfr", "asbm", "hsbm"])
def test_what_load_promises_and_the_catalogue_declares(name):
    data = load(name)
    entry = CATALOGUE[name]
    index = data.edge_index.numpy()
    n = data.num_nodes
    key = index[0] * n + index[1]
    assert data.edge_index.dtype == torch.int64
    assert np.array_equal(key, np.unique(key)), "sorted, no repetitions"
    assert np.array_equal(np.sort(index[1] * n + index[0]), key), "both directions"
    assert np.all(index[0] != index[1])
    assert data.y.dtype == torch.int64
    assert data.y.max() < data.k
    assert data.name == name
    assert data.info["licence"]
    for field, value in (("n", n), ("m", index.shape[1] // 2), ("k", data.k)):
        assert getattr(entry, field) in (None, value)
    if data.x is not None:
        assert data.x.dtype == torch.float32
        assert entry.d in (None, data.x.shape[1])
    assert as_graph(data).m == index.shape[1] // 2


def test_karate_holds_the_factions_and_the_weights():
    data = load("karate")
    assert data.class_names == ["Mr. Hi", "Officer"]
    assert data.y[0] == 0 and data.y[33] == 1
    assert data.y.bincount().tolist() == [17, 17]
    assert data.edge_weight.sum() == 2 * 231  # Zachary's interaction counts
    assert data.x is None


def test_debtopics_is_sparse_and_named():
    data = load("debtopics13")
    assert data.x.layout == torch.sparse_coo
    assert data.x.is_coalesced()
    assert data.x.shape == (3399, 703)
    assert len(data.class_names) == data.k == 13


def test_digits_neighbours_are_the_nearest():
    data = load("digits-knn:k=3")
    x, _ = load_digits(return_X_y=True)
    distance = pairwise_distances(x[:50], x)
    distance[np.arange(50), np.arange(50)] = np.inf
    edges = set(map(tuple, data.edge_index.numpy().T.tolist()))
    for i in range(50):
        nearest = np.sort(distance[i])[2]
        joined = {j for a, j in edges if a == i}
        assert set(np.flatnonzero(distance[i] < nearest)) <= joined
    assert load("digits-knn:k=1").num_edges < data.num_edges


@pytest.mark.parametrize(("ref", "words"), [
    ("karat", "did you mean 'karate'"),
    ("nothing-like-it", "digits-knn"),
    ("karate:k=3", "karate has no parameter 'k'"),
    ("sbm:sed=3", "did you mean seed"),
    ("digits-knn:k=0", "k = 0"),
    ("digits-knn:k=1797", "1..1796"),
    ("acm", "GRAPHCLUST_DATA"),
    ("absent/file.csv", "does not exist"),
    ("absent.npz", "does not exist"),
    ("pyg:Nothing", "no data set class 'Nothing'"),
    ("pyg:Planetoid/Cora", "GRAPHCLUST_OFFLINE"),
    ("amazon_photo", "put amazon_photo.npz"),
])
def test_load_refuses_and_says_what_to_do(ref, words):
    with pytest.raises(InputError, match=None) as e:
        load(ref)
    assert words in str(e.value)


def test_pyg_sets_without_download_are_read():
    data = load("pyg:KarateClub")
    assert data.num_nodes == 34
    assert data.num_edges == 156
    assert data.k == 4  # torch_geometric's four modularity communities


def test_pyg_without_network_says_why_and_what_else(monkeypatch):
    class Unreachable(torch_geometric.data.Dataset):
        def __init__(self, root, name):
            raise ConnectionError("no route to host")

    class Two(torch_geometric.datasets.KarateClub):
        def __len__(self):
            return 2

    monkeypatch.delenv("GRAPHCLUST_OFFLINE")
    monkeypatch.setattr(torch_geometric.datasets, "Amazon", Unreachable)
    monkeypatch.setattr(torch_geometric.datasets, "Two", Two, raising=False)
    for ref in ("amazon_photo", "pyg:Amazon/Photo"):
        with pytest.raises(InputError, match="ConnectionError: no route to host") as e:
            load(ref)
        assert "GRAPHCLUST_DATA" in str(e.value)
    with pytest.raises(InputError, match="holds 2 graphs"):
        load("pyg:Two")


def test_parameters_of_the_call_override_those_of_the_reference():
    assert load("sbm:n=50,k=2", n=60).num_nodes == 60


def test_data_folder_comes_first(monkeypatch, tmp_path):
    (tmp_path / "graphs").mkdir()
    np.savez(tmp_path / "graphs" / "karate.npz", edge_index=np.array([[0], [1]]), y=np.array([0, 1, 1]))
    np.savez(tmp_path / "acm.npz", edge_index=np.array([[0, 1], [1, 2]]), y=np.array([0, 1, 0]), x=np.eye(3))
    monkeypatch.setenv("GRAPHCLUST_DATA", str(tmp_path))
    assert load("karate").num_nodes == 3
    acm = load("acm")
    assert acm.k == 3, "as the catalogue declares, though only two classes occur"
    assert load("acm:multi_edges=error").num_edges == 4
    with pytest.raises(InputError, match="foo"):
        load("acm:foo=1")
    assert {r["name"]: r["here"] for r in describe()}["acm"]
    monkeypatch.setenv("GRAPHCLUST_DATA", str(tmp_path / "typo"))
    with pytest.raises(InputError, match="typo is no folder"):
        load("karate")


def test_names_are_unique_and_in_order():
    assert data_names()[:3] == ["debtopics13", "karate", "digits-knn"]
    assert len(set(data_names())) == len(data_names())
