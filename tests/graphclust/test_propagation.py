"""The propagation method: its likelihoods against models written out in full, its views, its choices."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import norm
from sklearn.metrics import adjusted_rand_score

from graphclust.coerce import as_graph
from graphclust.graph import Graph, InputError, from_adjacency
from graphclust.methods import get_method
from graphclust.methods._joint import JointModel
from graphclust.methods.propagation import STEPS, _smoothed, _subspace, _views
from graphclust.propagation import smooth
from tests.conftest import planted_graph

Propagation = get_method("propagation")


@pytest.fixture(scope="module")
def small() -> Graph:
    g = nx.gnp_random_graph(30, 0.2, seed=1)
    rng = np.random.default_rng(0)
    return Graph(as_graph(g).adjacency, rng.integers(0, 4, (30, 7)).astype(np.float32))


def topics(n: int, p_in: float, p_out: float, signal: float, seed: int = 0) -> tuple[Graph, np.ndarray]:
    """Three blocks with bags of 12 words of 90, a share ``signal`` of them from the block's own 30."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    upper = np.triu(rng.random((n, n)) < np.where(y[:, None] == y, p_in, p_out), 1)
    x = np.zeros((n, 90), dtype=np.float32)
    for i in range(n):
        own = rng.random(12) < signal
        x[i, np.where(own, 30 * y[i] + rng.integers(0, 30, 12), rng.integers(0, 90, 12))] = 1
    return from_adjacency(sp.csr_array((upper | upper.T).astype(np.float32)), sp.csr_array(x)), y


def edge_log_likelihood(a: np.ndarray, labels: np.ndarray) -> float:
    """Degree-corrected block model with its best rates, Poisson edges, terms free of the labels left out."""
    total, degree = 0.0, a.sum(axis=1)
    for c in set(labels):
        for d in set(labels):
            inside, out = labels == c, labels == d
            rate = a[np.ix_(inside, out)].sum() / (degree[inside].sum() * degree[out].sum())
            for i in np.flatnonzero(inside):
                for j in np.flatnonzero(out):
                    mean = degree[i] * degree[j] * rate
                    total += (a[i, j] * np.log(mean) if a[i, j] else 0) - mean
    return total / 2


def word_log_likelihood(x: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for i, row in enumerate(x):
        words = x[labels == labels[i]].sum(axis=0)
        total += sum(v * np.log(words[w] / words.sum()) for w, v in enumerate(row) if v)
    return total


def test_score_of_counts_is_the_gain_in_log_likelihood(small):
    labels = np.random.default_rng(2).integers(0, 3, small.n)
    one = np.zeros(small.n, dtype=int)
    model = JointModel.make(small, small.x, 3)
    a = small.adjacency.toarray().astype(float)
    want = (edge_log_likelihood(a, labels) - edge_log_likelihood(a, one)
            + word_log_likelihood(small.x, labels) - word_log_likelihood(small.x, one))
    assert model.counts
    assert model.score(labels) == pytest.approx(want, rel=1e-5)
    assert model.score(one) == pytest.approx(0, abs=1e-6)
    sparse = JointModel.make(Graph(small.adjacency, sp.csr_array(small.x)), small.x, 3)
    assert sparse.score(labels) == pytest.approx(want, rel=1e-5)


def test_score_of_real_features_is_the_gain_of_gaussians():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(25, 4))
    graph = Graph(sp.csr_array((25, 25), dtype=np.float32), x)
    labels = rng.integers(0, 3, 25)
    means = np.stack([x[labels == c].mean(axis=0) for c in range(3)])[labels]
    want = (norm.logpdf(x, means, (x - means).std(axis=0)) - norm.logpdf(x, x.mean(axis=0), x.std(axis=0))).sum()
    model = JointModel.make(graph, x, 3)
    assert not model.counts
    # (x - means) has column means of zero, so its std is the root mean square
    assert model.score(labels) == pytest.approx(want, rel=1e-6)


def test_the_scale_of_edge_weights_does_not_matter(small):
    labels = np.random.default_rng(3).integers(0, 3, small.n)
    heavy = Graph(small.adjacency * np.float32(7), small.x)
    assert JointModel.make(heavy, small.x, 3).score(labels) == pytest.approx(
        JointModel.make(small, small.x, 3).score(labels), rel=1e-5)


@pytest.mark.parametrize("kind", ["counts", "real"])
def test_refinement_raises_the_score_and_repairs_a_partition(kind):
    graph, y = topics(240, 0.12, 0.02, 0.6) if kind == "counts" else planted_graph(240)
    reduced = graph.x.toarray() if kind == "counts" else graph.x
    model = JointModel.make(graph, reduced, 3)
    assert model.counts == (kind == "counts")
    rng = np.random.default_rng(0)
    spoilt = np.where(rng.random(240) < 0.25, rng.integers(0, 3, 240), y)
    repaired = model.refine(spoilt)
    assert model.score(repaired) > model.score(spoilt)
    assert adjusted_rand_score(y, repaired) > 0.97 > adjusted_rand_score(y, spoilt)


def test_smoothing_is_the_shared_operator_and_deflation_takes_the_limit_away(small):
    found = list(_smoothed(small, small.x, (0, 2, 60)))
    for t, plain, _ in found:
        np.testing.assert_allclose(plain, smooth(small.x, small.adjacency, t), rtol=1e-4, atol=1e-5)
    _, plain, deflated = found[-1]
    v = np.sqrt(small.degrees + 1)
    np.testing.assert_allclose(plain, np.outer(v, v @ small.x) / (v @ v), rtol=1e-3)  # what all rows end in
    assert np.abs(deflated).max() < 1e-2 * np.abs(plain).max()


def test_subspace_is_that_of_the_singular_vectors():
    z = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    u = np.linalg.svd(z, full_matrices=False)[0][:, :3]
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    got = _subspace(z, 3)
    np.testing.assert_allclose(np.abs(got), np.abs(u), atol=1e-4)
    assert _subspace(np.ones((5, 2), dtype=np.float32), 2).shape == (5, 1), "directions of no variance are dropped"
    assert np.isfinite(_subspace(np.zeros((5, 2), dtype=np.float32), 2)).all()
    assert [name for name, _ in _views(z, z, 3)] == ["smoothed", "subspace", "deflated", "deflated subspace"]


def test_steps_follow_what_edges_and_features_tell():
    informative, y = topics(300, 0.1, 0.01, 0.25)
    model = Propagation(3, random_state=0).fit(informative)
    assert model.chosen_["steps"] >= 2
    assert adjusted_rand_score(y, model.labels_) > 0.9
    assert adjusted_rand_score(y, Propagation(3, steps=0, random_state=0).fit_predict(informative)) < 0.6
    misleading, y = topics(300, 0.02, 0.02, 0.7)
    model = Propagation(3, random_state=0).fit(misleading)
    assert model.chosen_["steps"] <= 1
    assert adjusted_rand_score(y, model.labels_) > 0.8
    assert adjusted_rand_score(y, Propagation(3, steps=8, random_state=0).fit_predict(misleading)) < 0.7


def test_the_best_of_what_was_tried_is_returned():
    graph, _ = topics(200, 0.1, 0.02, 0.4)
    model = Propagation(3, random_state=0).fit(graph)
    tried = model.chosen_["tried"]
    best = max(tried, key=lambda t: t["score"])
    assert (best["steps"], best["view"], best["score"]) == tuple(model.chosen_[k] for k in ("steps", "view", "score"))
    seen = [t["steps"] for t in tried[::4]]
    assert seen == list(STEPS[: seen.index(best["steps"]) + 1 + 3]), "three more after the best, then the end"
    x = JointModel.make(graph, graph.x.toarray(), 3)
    assert x.score(model.labels_) == pytest.approx(best["score"])


def test_fixed_steps_and_view():
    graph, _ = topics(120, 0.1, 0.02, 0.4)
    model = Propagation(3, steps=5, view="deflated", random_state=0).fit(graph)
    assert [(t["steps"], t["view"]) for t in model.chosen_["tried"]] == [(5, "deflated")]
    refined = Propagation(3, steps=5, view="deflated", refine=True, random_state=0).fit(graph)
    assert refined.chosen_["score"] >= model.chosen_["score"]


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("k", [1, 2, 6])
@pytest.mark.parametrize("x", [np.zeros((6, 3)), np.ones((6, 1)), np.repeat([[1.0, -1.0], [0.0, 2.0]], 3, axis=0)])
def test_poor_features(refine, k, x):
    a = sp.block_diag([np.ones((3, 3)) - np.eye(3), np.zeros((3, 3))]).tocsr()
    model = Propagation(k, refine=refine, random_state=0).fit(from_adjacency(a, x))
    assert 1 <= model.n_clusters_ <= k
    assert np.isfinite(model.embedding_).all()


def test_features_and_k_are_needed(small):
    with pytest.raises(InputError, match="features"):
        Propagation(2).fit(Graph(small.adjacency))
    with pytest.raises(ValueError, match="n_clusters"):
        Propagation().fit(small)
    with pytest.raises(ValueError, match="view"):
        Propagation(2, view="none").fit(small)
