"""What every method of the registry promises, on graphs that are easy and on graphs that are awkward."""

import inspect

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import Data, TemporalData

from graphclust.coerce import as_graph
from graphclust.graph import Graph, InputError, from_adjacency
from graphclust.methods import get_method, method_names
from graphclust.stream import Stream, build_stream
from tests.conftest import planted_graph

QUICK = {"epochs": 12, "pretrain_epochs": 4, "hidden": (32,), "n_init": 3,
         "epsilon": 30.0, "delta": 1e-4, "force": True}  # of private methods: hardly any noise

TAKES_K = [m for m in method_names() if "n_clusters" in inspect.signature(get_method(m)).parameters]
STATIC = [m for m in method_names() if not get_method(m).temporal]


def make(name: str, k: int | None = 3, **params):
    """The method with few epochs, k where it takes one."""
    cls = get_method(name)
    known = inspect.signature(cls).parameters
    params = {p: v for p, v in {**QUICK, **params}.items() if p in known}
    if "n_clusters" in known and (cls.needs_k or k is not None):
        params["n_clusters"] = k
    return cls(**{"random_state": 0, **params})


def stream_of(graph: Graph, repeats: int = 3) -> Stream:
    """Every edge as that many events, all at distinct times in a random order."""
    pairs = np.tile(graph.edges()[0], (repeats, 1))
    time = np.random.default_rng(0).permutation(len(pairs)).astype(float)
    return build_stream(*pairs.T, time, graph.n, graph.x)


def seen_by(name: str, graph: Graph) -> Graph | Stream:
    """The graph, for a temporal method as a stream."""
    return stream_of(graph) if get_method(name).temporal else graph


def edited(graph: Graph, x=None) -> Graph:
    """The graph with other features."""
    return Graph(graph.adjacency, x)


def isolated_nodes(graph: Graph) -> Graph:
    a = graph.adjacency.tolil()
    a[:10] = 0
    a[:, :10] = 0
    return from_adjacency(a.tocsr(), graph.x)


def without_edges(graph: Graph) -> Graph:
    return from_adjacency(sp.csr_array(graph.adjacency.shape, dtype=np.float32), graph.x)


def disconnected(graph: Graph) -> Graph:
    return from_adjacency(sp.block_diag([graph.adjacency] * 2).tocsr(), np.vstack((graph.x, graph.x)))


AWKWARD = {
    "isolated nodes": isolated_nodes,
    "no edges": without_edges,
    "disconnected, duplicate rows": disconnected,
    "constant features": lambda g: edited(g, np.ones_like(g.x)),
    "one feature": lambda g: edited(g, g.x[:, :1].copy()),
    "sparse features": lambda g: edited(g, sp.csr_array(np.where(g.x > 1, g.x, 0))),
    "weighted": lambda g: from_adjacency(g.adjacency * 2.5, g.x),
}


def check_result(model, n: int) -> None:
    """Labels cover every node with ids 0..K-1 by decreasing size; the other results have matching shapes."""
    assert model.labels_.shape == (n,)
    assert model.labels_.dtype == np.int64
    sizes = np.bincount(model.labels_)
    assert (sizes > 0).all() and (np.diff(sizes) <= 0).all()
    assert model.n_clusters_ == len(sizes)
    if model.embedding_ is not None:
        assert model.embedding_.shape[0] == n and np.isfinite(model.embedding_).all()
    if model.soft_assignment_ is not None:
        assert model.soft_assignment_.shape[0] == n
        np.testing.assert_allclose(model.soft_assignment_.sum(axis=1), 1, atol=1e-4)
    for epoch in model.history_:
        assert all(np.isfinite(v) for v in epoch.values())
    if model.window_labels_ is not None:
        assert model.window_labels_.dtype == np.int64 and model.window_labels_.min() >= -1
        assert model.window_labels_.shape == (len(model.window_edges_) - 1, n)
        assert (np.diff(model.window_edges_) >= 0).all()


@pytest.fixture(params=method_names())
def name(request):
    return request.param


def test_constructor_stores_and_clones(name):
    model = make(name)
    for key, value in model.get_params().items():
        assert getattr(model, key) is value
    copy = clone(model)
    assert copy.get_params() == model.get_params() and not hasattr(copy, "labels_")


def test_class_says_what_it_is(name):
    cls = get_method(name)
    assert cls.summary and cls.source and cls.__doc__ and "Parameters" in cls.__doc__
    assert set(cls._parameter_constraints) == set(inspect.signature(cls).parameters)


def test_easy_graph_is_solved(name, planted):
    graph, y = planted
    model = make(name).fit(seen_by(name, graph))
    check_result(model, graph.n)
    assert adjusted_rand_score(y, model.labels_) > 0.8


def test_same_seed_same_labels_and_no_global_randomness(name, planted):
    graph = seen_by(name, planted[0])
    first = make(name).fit(graph).labels_
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    assert (make(name).fit(graph).labels_ == first).all()
    assert (np.random.get_state()[1] == numpy_state).all(), "fit drew from numpy's global generator"  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), torch_state), "fit drew from torch's global generator"
    torch.rand(7)  # another global state must change nothing
    assert (make(name).fit(graph).labels_ == first).all()


def test_labels_never_reach_fit(name, planted):
    graph, y = planted
    rng = np.random.default_rng(1)

    def data(labels):
        if get_method(name).temporal:
            s = stream_of(graph)
            src, dst, t = map(torch.from_numpy, (s.src, s.dst, s.time))
            return TemporalData(src=src, dst=dst, t=t, y=torch.from_numpy(labels), y_windows=labels[None])
        pairs, _ = graph.edges()
        both = np.hstack((pairs.T, pairs.T[::-1])).astype(np.int64)
        return Data(x=torch.from_numpy(graph.x), edge_index=torch.from_numpy(both), y=torch.from_numpy(labels))

    first = make(name).fit(data(y), y).labels_
    shuffled = rng.permutation(y)
    assert (make(name).fit(data(shuffled), shuffled).labels_ == first).all()


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_graphs(name, planted, case):
    graph = AWKWARD[case](planted[0])
    before = graph.adjacency.copy(), None if graph.x is None else graph.x.copy()
    if get_method(name).temporal and not graph.m:
        with pytest.raises(InputError, match="the stream is empty"):
            make(name).fit((np.empty(0, int), np.empty(0, int), np.empty(0)))
        return
    model = make(name, **({"weight_bound": 2.5} if case == "weighted" else {}))
    if case == "weighted" and get_method(name).private and not hasattr(model, "weight_bound"):
        with pytest.raises(InputError, match="the graph is weighted"):
            model.fit(graph)
        return
    model.fit(seen_by(name, graph))
    check_result(model, graph.n)
    assert (graph.adjacency != before[0]).nnz == 0, "fit changed the caller's graph"
    assert abs(graph.x - before[1]).max() == 0, "fit changed the caller's features"


def test_featureless(name, planted):
    graph = seen_by(name, edited(planted[0]))
    if get_method(name).needs_features:
        with pytest.raises(InputError, match=r"features.*does without: .*leiden, .*node2vec, spectral$"):
            make(name).fit(graph)
    else:
        check_result(make(name).fit(graph), graph.n)


@pytest.mark.parametrize("k", [1, 12])
@pytest.mark.parametrize("name", TAKES_K)
def test_one_cluster_and_n_clusters(name, k):
    graph = seen_by(name, planted_graph(n=12)[0])
    try:
        model = make(name, k=k).fit(graph)
    except InputError as e:
        assert "n_clusters" in str(e)
    else:
        check_result(model, 12)
        assert model.n_clusters_ <= k


@pytest.mark.parametrize("name", STATIC)
def test_single_node(name):
    graph = from_adjacency(sp.csr_array((1, 1), dtype=np.float32), np.ones((1, 4)))
    model = make(name, k=1).fit(graph)
    assert model.labels_.tolist() == [0]


@pytest.mark.parametrize("k", [0, -2, 13, 2.5])
@pytest.mark.parametrize("name", TAKES_K)
def test_impossible_k_is_refused(name, k):
    with pytest.raises(ValueError, match="n_clusters"):
        make(name, k=k).fit(seen_by(name, planted_graph(n=12)[0]))


def test_missing_k_is_refused_when_needed(name, planted):
    if get_method(name).needs_k:
        with pytest.raises(ValueError, match="n_clusters"):
            make(name, k=None).fit(seen_by(name, planted[0]))


@pytest.mark.parametrize("name", STATIC)
def test_takes_every_kind_of_graph(name, planted):
    graph, _ = planted
    if get_method(name).needs_features:
        pairs, _ = graph.edges()
        same = [(graph.x, pairs.T), (torch.from_numpy(graph.x), torch.from_numpy(pairs.T.astype(np.int64)))]
    else:
        g = nx.from_scipy_sparse_array(graph.adjacency)
        same = [g, graph.adjacency]
    want = make(name).fit(graph).labels_
    for data in same:
        assert as_graph(data).m == graph.m
        assert (make(name).fit(data).labels_ == want).all()
