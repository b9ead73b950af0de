"""Spectral clustering: operators and counts against dense algebra, partitions against planted ones."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from graphclust.coerce import as_graph
from graphclust.graph import Graph, InputError, from_adjacency
from graphclust.methods import _eigen, get_method
from graphclust.methods._eigen import (
    bethe_hessian,
    bethe_hessian_radius,
    count_communities,
    leading,
    regularised_adjacency,
)

Spectral = get_method("spectral")


def sbm(blocks: int, size: int, p_in: float, p_out: float, seed: int = 0) -> tuple[Graph, np.ndarray]:
    p = np.full((blocks, blocks), p_out) + np.eye(blocks) * (p_in - p_out)
    g = nx.stochastic_block_model([size] * blocks, p, seed=seed, sparse=True)
    return as_graph(g), np.repeat(np.arange(blocks), size)


@pytest.fixture(scope="module")
def blocks() -> tuple[Graph, np.ndarray]:
    return sbm(6, 150, 0.1, 0.005)


def test_regularised_adjacency_by_hand():
    path = as_graph(nx.path_graph(3))  # mean degree 4/3
    tau = 4 / 3
    w = 1 / np.sqrt((1 + tau) * (2 + tau))
    np.testing.assert_allclose(regularised_adjacency(path).toarray(), [[0, w, 0], [w, 0, w], [0, w, 0]], rtol=1e-6)
    isolated = from_adjacency(sp.csr_array((3, 3)))
    assert regularised_adjacency(isolated).nnz == 0


def test_bethe_hessian_by_hand(blocks):
    graph, _ = blocks
    d, a = graph.degrees, graph.adjacency.toarray()
    r = np.sqrt((d**2).mean() / d.mean() - 1)
    assert bethe_hessian_radius(d) == pytest.approx(r)
    np.testing.assert_allclose(-bethe_hessian(graph).toarray(), (r * r - 1) * np.eye(graph.n) - r * a + np.diag(d),
                               rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_count_is_that_of_negative_eigenvalues(seed):
    graph, _ = sbm(5, 40, 0.3, 0.03, seed)
    weighted = from_adjacency(graph.adjacency * 3.0)
    want = int((np.linalg.eigvalsh(-bethe_hessian(graph).toarray().astype(float)) < 0).sum())
    assert count_communities(graph, np.random.default_rng(0)) == want == 5
    assert count_communities(weighted, np.random.default_rng(0)) == want


def test_the_count_goes_on_when_sixteen_are_not_enough():
    graph, _ = sbm(30, 30, 0.6, 0.005)
    assert count_communities(graph, np.random.default_rng(0)) == 30


@pytest.mark.parametrize("k", [1, 4, 9])
def test_sparse_and_dense_eigenvectors_agree(blocks, k, monkeypatch):
    matrix = regularised_adjacency(blocks[0])
    values, vectors = leading(matrix, k, np.random.default_rng(0), 1e-6)
    monkeypatch.setattr(_eigen, "DENSE", 10**6)
    want, dense = leading(matrix, k, np.random.default_rng(0), 1e-6)
    np.testing.assert_allclose(values, want, atol=1e-4)
    assert (np.diff(values) <= 0).all()
    if k <= 6:  # the seventh and later values lie close together
        np.testing.assert_allclose(np.linalg.svd(vectors.T @ dense)[1], 1, atol=1e-3)


def test_too_many_eigenvectors_are_refused(monkeypatch):
    monkeypatch.setattr(_eigen, "DENSE", 4)
    monkeypatch.setattr(_eigen, "MAX_BASIS", 50)
    with pytest.raises(InputError, match="n_clusters"):
        Spectral(9, random_state=0).fit(as_graph(nx.cycle_graph(20)))


@pytest.mark.parametrize("operator", ["adjacency", "bethe_hessian"])
@pytest.mark.parametrize("rounding", ["cluster_qr", "kmeans"])
def test_planted_blocks_are_found(blocks, operator, rounding):
    graph, y = blocks
    model = Spectral(6, operator=operator, rounding=rounding, random_state=0).fit(graph)
    assert adjusted_rand_score(y, model.labels_) > 0.98
    assert model.embedding_.shape == (graph.n, 6)
    assert len(model.chosen_["eigenvalues"]) == 6


def test_auto_finds_the_number(blocks):
    graph, y = blocks
    model = Spectral("auto", random_state=0).fit(graph)
    assert model.chosen_["n_clusters"] == model.n_clusters_ == 6
    assert adjusted_rand_score(y, model.labels_) > 0.98


def test_other_seeds_and_repeats(blocks):
    graph, _ = blocks
    first = Spectral(6, random_state=0).fit_predict(graph)
    assert (Spectral(6, random_state=0).fit_predict(graph) == first).all()
    assert adjusted_rand_score(Spectral(6, random_state=1).fit_predict(graph), first) > 0.99


def test_regularisation_holds_off_small_pieces():
    """Without tau the leading eigenvectors sit on two tiny components; with it the large blocks are found."""
    graph, y = sbm(3, 250, 0.05, 0.005)
    a = sp.block_diag([graph.adjacency, np.ones((2, 2)) - np.eye(2), np.ones((2, 2)) - np.eye(2)]).tocsr()
    both = from_adjacency(a)
    good = Spectral(3, random_state=0).fit_predict(both)[: graph.n]
    bad = Spectral(3, tau=0.0, random_state=0).fit_predict(both)[: graph.n]
    assert adjusted_rand_score(y, good) > 0.95 > 0.7 > adjusted_rand_score(y, bad)


@pytest.mark.parametrize("k", [1, 2, 5, 6, "auto"])
def test_tiny_and_disconnected_graphs(k):
    a = sp.block_diag([np.ones((3, 3)) - np.eye(3), np.ones((2, 2)) - np.eye(2), np.zeros((1, 1))]).tocsr()
    labels = Spectral(k, random_state=0).fit_predict(from_adjacency(a))
    assert len(labels) == 6
    if k == 2:
        assert len(set(labels[:3])) == 1 == len(set(labels[3:5])) and labels[0] != labels[3]
    if k == 6:
        assert sorted(labels) == list(range(6))


def test_k_equal_to_n_on_a_graph_too_large_for_dense(monkeypatch):
    monkeypatch.setattr(_eigen, "DENSE", 4)
    graph = as_graph(nx.cycle_graph(30))
    assert Spectral(30).fit(graph).n_clusters_ == 30
    assert 1 <= Spectral(29, random_state=0).fit(graph).n_clusters_ <= 29


def test_without_edges_there_is_one_cluster_and_it_is_said():
    model = Spectral(3).fit(from_adjacency(sp.csr_array((8, 8))))
    assert model.n_clusters_ == 1 and model.chosen_["n_edges"] == 0


def test_disconnected_blocks_without_features():
    graph = as_graph(nx.disjoint_union_all([nx.complete_graph(5)] * 4))
    labels = Spectral(4, random_state=0).fit_predict(graph)
    assert adjusted_rand_score(np.repeat(np.arange(4), 5), labels) == 1


@pytest.mark.parametrize(
    ("k", "params", "word"),
    [(0, {}, "n_clusters"), ("many", {}, "n_clusters"), (None, {}, "n_clusters"), (2, {"tau": -1.0}, "tau"),
     (2, {"operator": "laplacian"}, "operator"), (2, {"tol": 1.5}, "tol"), (2, {"rounding": "discretize"}, "rounding")],
)
def test_bad_parameters_are_named(blocks, k, params, word):
    with pytest.raises(ValueError, match=word):
        Spectral(k, **params).fit(blocks[0])
