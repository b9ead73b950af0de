"""Distances between nodes, and the two methods that need nothing else: k-medoids and HDBSCAN."""

from itertools import combinations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from graphclust.coerce import as_graph
from graphclust.graph import Graph, InputError, from_adjacency
from graphclust.methods import _distances, get_method
from graphclust.methods._distances import node_distances
from tests.conftest import planted_graph

WEIGHTED = from_adjacency(sp.csr_array(np.array(
    [[0, 2, 0, 0, 0], [2, 0, 4, 0, 0], [0, 4, 0, 0.5, 0], [0, 0, 0.5, 0, 0], [0, 0, 0, 0, 0]], dtype=float)))


def test_paths_are_shortest_with_lengths_one_over_weight():
    d = node_distances(WEIGHTED, "path")
    np.testing.assert_allclose(d[0, :4], [0, 0.5, 0.75, 2.75])
    np.testing.assert_allclose(d[4, :4], 2 * 2.75)  # nobody reaches node 4: twice the longest path
    assert (d == d.T).all()


def test_walk_distance_is_the_formula_of_pons_and_latapy():
    graph, _ = planted_graph(n=20)
    a = graph.adjacency.toarray().astype(float) + np.eye(20)
    degree = a.sum(1)
    p4 = np.linalg.matrix_power(a / degree[:, None], 4)
    want = [np.sqrt(((p4[i] - p4[j]) ** 2 / degree).sum()) for i, j in combinations(range(20), 2)]
    np.testing.assert_allclose(node_distances(graph, "walk")[np.triu_indices(20, 1)], want, atol=1e-10)


def test_without_any_edge_no_two_nodes_are_nearer_than_others():
    graph = from_adjacency(sp.csr_array((4, 4)))
    for distance in ("path", "walk"):
        d = node_distances(graph, distance)
        assert len(np.unique(d[np.triu_indices(4, 1)])) == 1 and d[0, 1] > 0


def test_feature_distances_need_features_and_all_need_room(monkeypatch):
    with pytest.raises(InputError, match="distance = 'cosine'"):
        get_method("kmedoids")(2, distance="cosine").fit(WEIGHTED)
    monkeypatch.setattr(_distances, "MAX_NODES", 4)
    with pytest.raises(InputError, match="n = 5 nodes"):
        get_method("hdbscan")().fit(WEIGHTED)


@pytest.mark.parametrize("distance", ["walk", "path", "euclidean"])
def test_kmedoids_reaches_the_best_medoids_by_brute_force(distance):
    graph, _ = planted_graph(n=15)
    d = node_distances(graph, distance)
    best = min(d[:, list(m)].min(1).sum() for m in combinations(range(15), 3))
    model = get_method("kmedoids")(3, distance=distance, random_state=0).fit(graph)
    assert model.chosen_["loss"] == pytest.approx(best)
    medoids = model.chosen_["medoids"]
    assert d[:, medoids].min(1).sum() == pytest.approx(best)
    assert len(set(model.labels_[medoids])) == 3


@pytest.mark.parametrize("name", ["kmedoids", "hdbscan"])
def test_the_edges_alone_or_the_features_alone_find_the_blocks(name):
    graph, y = planted_graph()
    k = {"n_clusters": 3} if name == "kmedoids" else {}
    shuffled = Graph(graph.adjacency, graph.x[np.random.default_rng(0).permutation(graph.n)])
    assert adjusted_rand_score(y, get_method(name)(**k).fit(shuffled).labels_) == 1
    edgeless = from_adjacency(sp.csr_array(graph.adjacency.shape), graph.x)
    assert adjusted_rand_score(y, get_method(name)(**k, distance="euclidean").fit(edgeless).labels_) == 1


def test_hdbscan_gives_noise_a_place_and_says_so():
    cliques = nx.disjoint_union(nx.complete_graph(8), nx.complete_graph(8))
    cliques.add_edge(7, 8, weight=0.5)
    cliques.add_edge(15, 16, weight=0.1)  # farther from its neighbour than the cliques are from each other
    nx.set_edge_attributes(cliques, {e: cliques.edges[e].get("weight", 1.0) for e in cliques.edges}, "weight")
    model = get_method("hdbscan")(distance="path").fit(as_graph(cliques))
    assert model.chosen_["noise"] == 1
    assert model.labels_[16] == model.labels_[15] != model.labels_[0]
    assert model.n_clusters_ == 2


def test_hdbscan_on_fewer_nodes_than_a_cluster_needs_is_one_cluster():
    model = get_method("hdbscan")(min_cluster_size=9).fit(planted_graph(n=8)[0])
    assert model.n_clusters_ == 1 and model.chosen_["noise"] == 8
