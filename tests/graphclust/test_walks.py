"""Random walks of the second order, what meets on them, and the vectors made of it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import chisquare
from sklearn.metrics import adjusted_rand_score

from graphclust.coerce import as_graph
from graphclust.graph import InputError, from_adjacency
from graphclust.methods._walks import cooccurrence, factorise, random_walks
from graphclust.methods.node2vec import Node2Vec
from graphclust.stream import build_stream


def graph(weighted: bool) -> np.ndarray:
    """A triangle 0-1-2 with a tail 2-3-4 and a square 3-4-5-6; triads open and closed."""
    a = np.zeros((7, 7), np.float32)
    edges = [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (3, 6)]
    for number, (i, j) in enumerate(edges):
        a[i, j] = a[j, i] = 1 + (number % 3 if weighted else 0)
    return a


def second_order(a: np.ndarray, t: int, v: int, p: float, q: float) -> np.ndarray:
    """P(next = x | from t to v), equation 2 of node2vec."""
    weight = np.zeros(len(a))
    for x in range(len(a)):
        if a[v, x]:
            alpha = 1 / p if x == t else 1 if a[t, x] else 1 / q
            weight[x] = alpha * a[v, x]
    return weight / weight.sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.25, 4.0), (4.0, 0.5), (2.0, 2.0)])
def test_steps_follow_the_second_order_probabilities(weighted, p, q):
    a = graph(weighted)
    walks = random_walks(sp.csr_array(a), 700, 12, np.random.default_rng(0), p, q)
    assert walks.shape == (7 * 700, 12)
    counts = np.zeros((7, 7, 7))
    np.add.at(counts, (walks[:, :-2].ravel(), walks[:, 1:-1].ravel(), walks[:, 2:].ravel()), 1)
    tested = 0
    for t in range(7):
        for v in np.flatnonzero(a[t]):
            expected = second_order(a, t, v, p, q)
            assert not counts[t, v][expected == 0].any()
            likely = expected > 0
            if likely.sum() > 1:
                assert chisquare(counts[t, v][likely], expected[likely] * counts[t, v].sum()).pvalue > 1e-5
                tested += 1
            assert counts[t, v].sum() > 200
    assert tested >= 16


def test_the_first_step_is_by_weight_and_every_node_starts_as_many_walks():
    a = graph(True)
    walks = random_walks(sp.csr_array(a), 3000, 2, np.random.default_rng(1), 0.1, 10.0)
    assert (np.bincount(walks[:, 0], minlength=7) == 3000).all()
    for v in range(7):
        counts = np.bincount(walks[walks[:, 0] == v, 1], minlength=7)
        near = a[v] > 0
        assert counts[~near].sum() == 0
        assert chisquare(counts[near], 3000 * a[v][near] / a[v].sum()).pvalue > 1e-4


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_a_node_without_neighbours_stays_and_a_walk_repeats_with_its_seed(p):
    a = np.zeros((9, 9), np.float32)
    a[1:8, 1:8] = graph(False)  # the first and the last node have no edge
    first, again, other = (random_walks(sp.csr_array(a), 5, 9, np.random.default_rng(s), p, 1.0) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    for walk in first:
        if walk[0] in (0, 8):
            assert (walk == walk[0]).all()
        else:
            assert all(a[v, w] for v, w in pairwise(walk))
    nobody = random_walks(sp.csr_array((3, 3), dtype=np.float32), 2, 4, np.random.default_rng(0), p, 1.0)
    assert (nobody == nobody[:, :1]).all()


@pytest.mark.parametrize("window", [1, 3, 20])
def test_cooccurrence_counts_pairs_by_their_distance(window):
    walks = np.random.default_rng(0).integers(0, 5, (6, 7))
    expected = np.zeros((6, 6))
    for walk in walks:
        for i in range(7):
            for j in range(7):
                r = abs(i - j)
                if 0 < r <= window:
                    expected[walk[i], walk[j]] += (window + 1 - r) / window
    np.testing.assert_allclose(cooccurrence(walks, 6, window).toarray(), expected, rtol=1e-6)


def information(counts: np.ndarray) -> np.ndarray:
    """The positive pointwise mutual information, entry by entry."""
    total, found = counts.sum(), np.zeros(counts.shape)
    for i in range(len(counts)):
        for j in range(len(counts)):
            if counts[i, j] > 0:
                found[i, j] = max(0.0, np.log(counts[i, j] * total / (counts[i].sum() * counts[j].sum())))
    return found


def symmetric(n: int, seed: int) -> np.ndarray:
    half = np.random.default_rng(seed).poisson(1.5, (n, n)).astype(np.float32) * 1.3
    return half + half.T


@pytest.mark.parametrize("dim", [5, 30])
def test_vectors_are_the_scaled_rows_of_the_leading_directions(dim):
    counts = symmetric(30, 0)
    z = factorise(sp.csr_array(counts), dim, 0)
    assert z.shape == (30, dim) and z.dtype == np.float32
    u, s, _ = np.linalg.svd(information(counts))
    rows = u[:, :dim] * s[:dim]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    # the vectors are determined up to a rotation, their angles are not
    np.testing.assert_allclose(z @ z.T, rows @ rows.T, atol=2e-3 if dim == 30 else 0.05)
    assert dim == 30 or np.abs(rows @ rows.T - z @ z.T).mean() < 0.01


def test_the_matrix_is_the_same_however_many_entries_are_worked_on_at_once(monkeypatch):
    counts = sp.random_array((30, 30), density=0.3, rng=np.random.default_rng(4), dtype=np.float32)
    counts = sp.csr_array(counts + counts.T)
    whole = factorise(counts, 6, 0)
    monkeypatch.setattr("graphclust.methods._walks.BLOCK", 7)
    np.testing.assert_array_equal(factorise(counts, 6, 0), whole)


def test_angles_of_all_directions_are_those_of_the_matrix_itself():
    counts = symmetric(20, 1)
    m = information(counts)
    m /= np.linalg.norm(m, axis=1, keepdims=True)
    z = factorise(sp.csr_array(counts), 20, 0)
    np.testing.assert_allclose(z @ z.T, m @ m.T, atol=1e-4)


def test_rows_have_length_1_or_0_and_absent_columns_are_0():
    counts = np.zeros((8, 8), np.float32)
    counts[:6, :6] = symmetric(6, 2)
    z = factorise(sp.csr_array(counts), 12, 0)
    assert z.shape == (8, 12) and not z[:, 8:].any() and not z[6:].any()
    length = np.linalg.norm(z[:6], axis=1)
    assert (np.isclose(length, 1, atol=1e-5) | (length == 0)).all() and (length > 0).sum() >= 5
    nothing = factorise(sp.csr_array((4, 4), dtype=np.float32), 3, 0)
    assert nothing.shape == (4, 3) and not nothing.any()


def test_nodes_without_an_edge_have_no_vector(planted):
    block, _ = planted
    a = sp.block_diag((sp.csr_array((2, 2)), block.adjacency, sp.csr_array((1, 1)))).tocsr().astype(np.float32)
    z = Node2Vec(dim=8, walks=4).embed(from_adjacency(sp.csr_array(a)), np.random.default_rng(0))
    length = np.linalg.norm(z, axis=1)
    assert not length[[0, 1, -1]].any()
    np.testing.assert_allclose(length[2:-1], 1, atol=1e-5)


def test_node2vec_finds_planted_blocks_and_repeats_with_its_seed(planted):
    block, y = planted
    first, again, other = (Node2Vec(3, dim=16, random_state=s).fit(block) for s in (0, 0, 1))
    assert adjusted_rand_score(y, first.labels_) > 0.9
    np.testing.assert_array_equal(first.embedding_, again.embedding_)
    assert np.abs(first.embedding_ - other.embedding_).max() > 1e-3
    assert first.embedding_.shape == (block.n, 16)


def test_weights_count_only_when_asked_for():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2  # complete graph: blocks only in the weights
    weight = np.where(y[:, None] == y, 12, 1) + rng.integers(0, 2, (40, 40))
    weight = np.triu(weight, 1)
    data = from_adjacency(sp.csr_array((weight + weight.T).astype(np.float32)))
    find = {w: Node2Vec(2, dim=8, weighted=w, random_state=0).fit(data).labels_ for w in (True, False)}
    assert adjusted_rand_score(y, find[True]) > 0.9 and adjusted_rand_score(y, find[False]) < 0.2


def test_of_a_stream_the_aggregated_graph_counts():
    rng = np.random.default_rng(0)
    src = rng.integers(0, 30, 300)
    stream = build_stream(src, (src + rng.integers(1, 30, 300)) % 30, rng.random(300))
    z = [Node2Vec(3, dim=8, random_state=0).fit(data).embedding_ for data in (stream, as_graph(stream))]
    np.testing.assert_array_equal(*z)


@pytest.mark.parametrize("params", [{"p": 0.0}, {"q": -1.0}, {"walk_length": 1}, {"dim": 0}, {"window": 0}])
def test_parameters_out_of_range_are_refused(params, planted):
    with pytest.raises(InputError, match=f"{next(iter(params))}"):
        Node2Vec(3, **params).fit(planted[0])
