"""Structure metrics against igraph, networkx, brute force and hand-computed values; and `evaluate` itself."""

import time

import igraph
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from graphclust.coerce import as_graph
from graphclust.graph import Graph, InputError, build_graph
from graphclust.metrics import METRICS, Windows, evaluate, metric_names, structure


def random_graph(n=60, m=150, seed=0, weighted=True):
    rng = np.random.default_rng(seed)
    return build_graph(rng.integers(n, size=(2, m)), n, rng.uniform(0.5, 3, m) if weighted else None)


def to_networkx(graph):
    return nx.from_scipy_sparse_array(graph.adjacency)


@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("weighted", [True, False])
def test_modularity_equals_igraph(resolution, weighted):
    graph = random_graph(weighted=weighted)
    labels = np.random.default_rng(1).integers(5, size=graph.n)
    pairs, weights = graph.edges()
    expected = igraph.Graph(n=graph.n, edges=pairs.tolist()).modularity(
        labels.tolist(), weights=weights, resolution=resolution)
    got = structure.modularity(structure.structure(graph, labels), resolution)
    assert got == pytest.approx(expected, abs=1e-6)


def test_codelength_equals_the_one_igraph_reports():
    graph = random_graph(m=300)
    pairs, weights = graph.edges()
    found = igraph.Graph(n=graph.n, edges=pairs.tolist()).community_infomap(edge_weights=weights, trials=3)
    got = evaluate(np.array(found.membership), graph=graph, names=["codelength"])["codelength"]
    assert got == pytest.approx(found.codelength, abs=1e-6)


def test_conductance_and_coverage_equal_networkx():
    graph = random_graph(m=400)
    labels = np.random.default_rng(2).integers(6, size=graph.n)
    g = to_networkx(graph)
    groups = [np.flatnonzero(labels == c).tolist() for c in range(6)]
    phi = np.array([nx.conductance(g, group, weight="weight") for group in groups])
    volumes = np.array([nx.volume(g, group, weight="weight") for group in groups])
    got = evaluate(labels, graph=graph)
    assert got["conductance_mean"] == pytest.approx(phi.mean())
    assert got["conductance_max"] == pytest.approx(phi.max())
    assert got["conductance_weighted"] == pytest.approx((phi * volumes).sum() / volumes.sum())
    plain = Graph(sp.csr_array((np.ones_like(graph.adjacency.data), graph.adjacency.indices, graph.adjacency.indptr)))
    coverage, _ = nx.community.partition_quality(to_networkx(plain), groups)
    assert evaluate(labels, graph=plain)["coverage"] == pytest.approx(coverage)


@settings(max_examples=40)
@given(st.integers(1, 7), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_all_against_brute_force(n, m, seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(n, m, seed)
    labels = rng.integers(3, size=n)
    a, got = graph.adjacency.toarray().astype(float), evaluate(labels, graph=graph)
    assert all(np.isfinite(v) for v in got.values())
    cut_ratio, density, phi, broken = [], [], [], 0
    for c in set(labels.tolist()):
        inside = labels == c
        size, cut = inside.sum(), a[inside][:, ~inside].sum()
        volume, rest = a[inside].sum(), a[~inside].sum()
        cut_ratio.append(cut / (size * (n - size)) if size < n else 0.0)
        if size > 1:
            density.append(a[np.ix_(inside, inside)].sum() / (size * (size - 1)))
        if volume:
            phi.append(cut / min(volume, rest) if rest else 0.0)
        broken += not nx.is_connected(nx.from_numpy_array(a[np.ix_(inside, inside)]))
    assert got["cut_ratio"] == pytest.approx(np.mean(cut_ratio), abs=1e-6)
    assert got["internal_density"] == pytest.approx(np.mean(density or [0]), abs=1e-6)
    assert got["conductance_mean"] == pytest.approx(np.mean(phi or [0]), abs=1e-6)
    assert got["disconnected"] == broken


def test_two_triangles_by_hand():
    g = nx.Graph([(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (2, 3)])
    got = evaluate(np.array([0, 0, 0, 1, 1, 1]), graph=as_graph(g))
    assert got == pytest.approx({
        "modularity": 6 / 7 - 1 / 2, "conductance_mean": 1 / 7, "conductance_max": 1 / 7, "conductance_weighted": 1 / 7,
        "coverage": 6 / 7, "cut_ratio": 1 / 9, "internal_density": 1.0, "disconnected": 0.0,
        "codelength": got["codelength"],
    })


def test_conventions_at_the_edge():
    no_edges = build_graph(np.empty((2, 0), dtype=int), 4)
    flat = {"modularity": 0, "conductance_mean": 0, "conductance_max": 0, "conductance_weighted": 0, "coverage": 1,
            "cut_ratio": 0, "internal_density": 0, "codelength": 0}
    assert evaluate(np.zeros(4), graph=no_edges) == flat | {"disconnected": 1}
    assert evaluate(np.arange(4), graph=no_edges) == flat | {"disconnected": 0}
    path = build_graph(np.array([[0, 1], [1, 2]]), 4)  # 0-1-2 and the isolated node 3
    one = evaluate(np.zeros(4), graph=path)
    assert (one["modularity"], one["conductance_max"], one["coverage"], one["disconnected"]) == (0, 0, 1, 1)
    cut = evaluate(np.array([0, 0, 1, 2]), graph=path)  # the isolated node's cluster has no conductance: not averaged
    assert cut["conductance_mean"] == cut["conductance_max"] == cut["conductance_weighted"] == 1.0
    singles = evaluate(np.arange(4), graph=path)
    assert singles["internal_density"] == 0 and singles["coverage"] == 0


def test_disconnected_counts_communities_not_components():
    graph = build_graph(np.array([[0, 2, 6], [1, 3, 7]]), 8)
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1])  # cluster 0 falls into four components, cluster 1 hangs together
    assert evaluate(labels, graph=graph, names=["disconnected"]) == {"disconnected": 1.0}


def test_a_value_does_not_depend_on_what_else_is_asked():
    graph = random_graph()
    rng = np.random.default_rng(3)
    y, labels = rng.integers(-1, 4, size=graph.n), rng.integers(6, size=graph.n)
    windows = Windows(rng.integers(-1, 6, (3, graph.n)), *rng.integers(-1, 4, (2, 5, graph.n)))
    everything = evaluate(labels, y, graph, windows=windows)
    assert list(everything) == list(METRICS)
    for name in METRICS:
        assert evaluate(labels, y, graph, [name], windows) == {name: everything[name]}
    backwards = evaluate(labels, y, graph, reversed(list(METRICS)), windows)
    assert backwards == everything and list(backwards) == list(METRICS)[::-1]


def test_bad_requests_are_refused():
    graph = random_graph()
    labels = np.zeros(graph.n, dtype=int)
    with pytest.raises(InputError, match="unknown metric 'modularty'; did you mean 'modularity'"):
        evaluate(labels, graph=graph, names=["modularty"])
    with pytest.raises(InputError, match="'acc' needs true labels"):
        evaluate(labels, graph=graph, names=["acc"])
    with pytest.raises(InputError, match="'coverage' needs the graph"):
        evaluate(labels, labels, names=["coverage"])
    with pytest.raises(InputError, match="'window_smoothness' needs clusters over windows"):
        evaluate(labels, graph=graph, names=["window_smoothness"], windows=Windows())
    with pytest.raises(InputError, match="'window_ari' needs true classes over windows"):
        evaluate(labels, names=["window_ari"], windows=Windows(labels[None]))
    with pytest.raises(InputError, match="n = 60"):
        evaluate(labels[:5], graph=graph)
    assert evaluate(labels) == {}


def test_names_say_their_direction():
    names = metric_names()
    assert list(names) == list(METRICS)
    assert "lower is better" in names["vi"] and "lower is better" in names["conductance_max"]
    assert "higher is better" in names["acc"] and "needs graph" in names["modularity"]
    assert "neither is better" in names["window_births"] and "needs window labels" in names["window_ari"]


def test_curves_and_large_graphs_are_fast():
    rng = np.random.default_rng(0)
    y, labels = rng.integers(10, size=10_000), rng.integers(10, size=10_000)
    clock = time.process_time()
    for _ in range(200):
        evaluate(labels, y, names=["acc", "nmi", "ari", "f1"])
    assert time.process_time() - clock < 2
    graph = build_graph(rng.integers(100_000, size=(2, 1_000_000)), 100_000)
    clock = time.process_time()
    evaluate(rng.integers(50, size=graph.n), graph=graph)
    assert time.process_time() - clock < 5
