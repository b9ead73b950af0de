"""Normalised adjacency, smoothing and influence against dense matrix products."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from graphclust import propagation
from graphclust.graph import InputError, from_adjacency
from graphclust.propagation import influence, normalised_adjacency, smooth


@pytest.fixture
def adjacency():
    weighted = nx.gnp_random_graph(40, 0.1, seed=3)
    for i, (a, b) in enumerate(weighted.edges):
        weighted[a][b]["weight"] = 1 + i % 3
    weighted.add_nodes_from([40, 41])  # isolated
    return from_adjacency(nx.to_scipy_sparse_array(weighted, format="csr")).adjacency


def dense_row(adjacency):
    a = adjacency.toarray() + np.eye(adjacency.shape[0])
    return a / a.sum(1, keepdims=True)


def test_normalised_adjacency_of_a_path():
    path = from_adjacency(nx.to_scipy_sparse_array(nx.path_graph(3), format="csr")).adjacency
    s6 = 1 / np.sqrt(6)
    np.testing.assert_allclose(
        normalised_adjacency(path).toarray(), [[0.5, s6, 0], [s6, 1 / 3, s6], [0, s6, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(
        normalised_adjacency(path, "row").toarray(), [[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(
        normalised_adjacency(path, "row", self_loops=False).toarray(), [[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]])
    assert path.toarray().sum() == 4, "the input is left as it was"


def test_isolated_nodes_without_self_loops_have_zero_rows(adjacency):
    p = normalised_adjacency(adjacency, self_loops=False)
    assert p.dtype == np.float32 and np.isfinite(p.data).all()
    assert p[[40]].nnz == 0


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("block", [2**25, 84])
def test_smooth_is_the_power_of_the_operator(adjacency, sparse, block, monkeypatch):
    monkeypatch.setattr(propagation, "BLOCK", block)
    x = sp.random_array((42, 7), density=0.4, rng=np.random.default_rng(0), dtype=np.float32, format="csr")
    want = np.linalg.matrix_power(normalised_adjacency(adjacency).toarray(), 3) @ x.toarray()
    got = smooth(x if sparse else x.toarray(), adjacency, 3)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_array_equal(smooth(x, adjacency, 0), x.toarray())


@pytest.mark.parametrize("block", [2**25, 100])
def test_influence_equals_dense_powers(adjacency, block, monkeypatch):
    monkeypatch.setattr(propagation, "BLOCK", block)
    p = dense_row(adjacency)
    np.testing.assert_allclose(influence(adjacency, 3).toarray(), p @ p @ p, atol=1e-6)
    np.testing.assert_allclose(influence(adjacency, 3, "cumulative").toarray(), p + p @ p + p @ p @ p, atol=1e-6)
    eye, a = np.eye(42), 0.15
    z = eye
    for _ in range(3):
        z = (1 - a) * z @ p + a * eye
    np.testing.assert_allclose(influence(adjacency, 3, "ppr").toarray(), z, atol=1e-6)
    exact = a * np.linalg.inv(eye - (1 - a) * p)
    np.testing.assert_allclose(influence(adjacency, 80, "ppr").toarray(), exact, atol=1e-5)


@pytest.mark.parametrize("kind", ["power", "cumulative", "ppr"])
def test_influence_keeps_the_largest_entries_within_the_bound(adjacency, kind):
    full, cut = influence(adjacency, 1, kind), influence(adjacency, 1, kind, max_nonzeros=3 * 42)
    assert np.diff(full.indptr).max() > 3 >= np.diff(cut.indptr).max()
    for row in range(42):
        want = np.sort(full[[row]].data)[-3:]
        if kind != "ppr":  # there the restart joins what the step's product kept
            np.testing.assert_allclose(np.sort(cut[[row]].data), want, rtol=1e-6)
    deeper = influence(adjacency, 4, kind, max_nonzeros=3 * 42)
    assert np.diff(deeper.indptr).max() <= 3
    assert deeper.sum(axis=1).max() <= (4 if kind == "cumulative" else 1) + 1e-5


def test_epsilon_drops_small_entries(adjacency):
    got = influence(adjacency, 2, "power", epsilon=0.05)
    assert got.nnz < influence(adjacency, 2, "power").nnz
    assert got.data.min() >= np.float32(0.05)


def test_a_graph_without_edges_and_one_node():
    empty = sp.csr_array((3, 3), dtype=np.float32)
    for kind, total in (("power", 1), ("cumulative", 2), ("ppr", 1)):
        np.testing.assert_allclose(influence(empty, 2, kind).toarray(), total * np.eye(3), rtol=1e-6)
        assert influence(empty[:1, :1], 2, kind).shape == (1, 1)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda a: influence(a, 0), "steps"),
        (lambda a: influence(a, 1, "walk"), "kind"),
        (lambda a: influence(a, 1, "ppr", alpha=1.0), "alpha"),
        (lambda a: influence(a, 1, max_nonzeros=41), "max_nonzeros"),
        (lambda a: smooth(np.ones((42, 1)), a, -1), "steps"),
        (lambda a: normalised_adjacency(a, "column"), "kind"),
        (lambda a: smooth(sp.csr_array((42, 2**30)), a, 1), "reduce the features"),
    ],
)
def test_bad_parameters_are_named(adjacency, call, word):
    with pytest.raises(InputError, match=word):
        call(adjacency)
