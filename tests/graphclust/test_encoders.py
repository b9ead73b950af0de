"""Encoders: initialisation, sparse input, feature transform, sampled blocks, storage."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.feature_extraction.text import TfidfTransformer

from graphclust.encoders import GCN, MLP, Autoencoder, ConvNet, load_tensors, mlp, save_tensors
from graphclust.encoders.sparse import SparseInput
from graphclust.graph import Graph, InputError, from_adjacency
from graphclust.methods._blocks import BlockSampler
from graphclust.methods._features import FeatureTransform
from graphclust.propagation import influence, smooth


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def words() -> sp.csr_array:
    """A bag of words of 20 documents, one of them empty."""
    dense = (np.random.default_rng(0).random((20, 15)) < 0.3).astype(np.float32)
    dense[3] = 0
    return sp.csr_array(dense)


@pytest.fixture
def graph(words) -> Graph:
    ring = sp.csr_array(np.roll(np.eye(20, dtype=np.float32), 1, axis=1))
    return from_adjacency(ring, words)


def test_initial_weights_have_the_law_of_torch_linear_and_come_from_the_generator():
    state = torch.random.get_rng_state()
    one, same, other = (MLP((400, 300, 5), seeded(s)) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    weight, reference = one.layers[0].weight, torch.nn.Linear(400, 300).weight
    assert weight.abs().max().item() <= 1 / math.sqrt(400)
    assert weight.std().item() == pytest.approx(reference.std().item(), rel=0.01)


def test_mlp_is_linear_relu_linear():
    net, x = MLP((6, 4, 2), seeded(0)), torch.randn((5, 6), generator=seeded(1))
    kept = x.clone()
    first, last = net.layers
    expected = torch.relu(x @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(net(x), expected)
    assert torch.equal(x, kept)


def test_sparse_input_gives_the_values_and_gradients_of_the_dense_one(words):
    net = MLP((15, 8, 3), seeded(0))
    dense = torch.from_numpy(words.toarray())
    found = []
    for x in (dense, SparseInput(words)):
        net.zero_grad()
        z = net(x)
        z.square().sum().backward()
        found.append((z.detach(), [p.grad.clone() for p in net.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b)


def test_autoencoder_has_the_papers_number_of_parameters():
    net = Autoencoder(1870)
    assert sum(p.numel() for p in net.encoder.parameters()) == 500 * 1870 + 1_273_010
    assert sum(p.numel() for p in net.decoder.parameters()) == 501 * 1870 + 1_273_000
    z, x = net(torch.zeros(3, 1870))
    assert z.shape == (3, 10)
    assert x.shape == (3, 1870)


def test_tfidf_is_that_of_scikit_learn(words, graph):
    expected = TfidfTransformer().fit_transform(sp.csr_matrix(words)).toarray()
    for x in (words, words.toarray()):
        given = Graph(graph.adjacency, x)
        for weighting in ("tfidf", "auto"):  # binary features are a bag of words
            found = FeatureTransform(weighting).fit(given, 0).transform(given)
            assert sp.issparse(found) == sp.issparse(x)
            np.testing.assert_allclose(found.toarray() if sp.issparse(found) else found, expected, atol=1e-6)


def test_auto_weighting_of_real_values_is_row_length_one(graph):
    x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    given = Graph(graph.adjacency, x)
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(FeatureTransform("auto").fit(given, 0).transform(given), expected, rtol=1e-5)


def test_all_steps_in_order(graph, words):
    transform = FeatureTransform("l2", n_components=5, center=True, smoothing=2, scale=True).fit(graph, 0)
    dense = words.toarray()
    lengths = np.linalg.norm(dense, axis=1, keepdims=True)
    x = np.divide(dense, lengths, where=lengths > 0, out=np.zeros_like(dense))
    right = np.linalg.svd(x.astype(np.float64))[2][:5]
    assert np.abs(transform.components @ right.T).diagonal() == pytest.approx(1, abs=1e-4)
    x = x @ transform.components.T
    x = smooth(x - x.mean(axis=0), graph.adjacency, 2)
    found = transform.transform(graph)
    np.testing.assert_allclose(found, x / np.sqrt((x**2).mean()), rtol=1e-4, atol=1e-5)
    assert np.sqrt((found.astype(np.float64) ** 2).mean()) == pytest.approx(1, abs=1e-5)


def test_no_step_is_the_features_themselves_and_sparse_equals_dense(graph, words):
    assert FeatureTransform().fit(graph, 0).transform(graph) is graph.x
    every = ("tfidf", 5, True, 1, True)
    found = FeatureTransform(*every).fit(graph, 0).transform(graph)
    dense = Graph(graph.adjacency, words.toarray())
    np.testing.assert_allclose(FeatureTransform(*every).fit(dense, 0).transform(dense), found, atol=1e-4)


def test_transform_refuses_other_features(graph):
    transform = FeatureTransform().fit(graph, 0)
    with pytest.raises(InputError, match="d = 15 features; the data has 3"):
        transform.transform(Graph(graph.adjacency, np.ones((20, 3), dtype=np.float32)))
    with pytest.raises(InputError, match="the data has None"):
        transform.transform(Graph(graph.adjacency))


def test_constant_and_zero_features_have_a_scale(graph):
    for value in (0.0, 2.0):
        given = Graph(graph.adjacency, np.full((20, 3), value, dtype=np.float32))
        found = FeatureTransform(center=True, scale=True).fit(given, 0).transform(given)
        np.testing.assert_array_equal(found, 0)


def test_short_rows_are_taken_whole():
    rng = np.random.default_rng(0)
    gamma = sp.random_array((30, 30), density=0.1, format="csr", rng=rng)
    seeds = np.array([4, 17, 2])
    nodes, block = BlockSampler(gamma, 30).block(seeds, rng)
    np.testing.assert_array_equal(nodes[:3], seeds)
    assert len(np.unique(nodes)) == len(nodes)
    np.testing.assert_allclose(block.toarray(), gamma.toarray()[np.ix_(seeds, nodes)], rtol=1e-6)


def test_sampled_rows_are_unbiased():
    rng = np.random.default_rng(0)
    a = sp.random_array((40, 40), density=0.5, format="csr", rng=rng)
    gamma = influence(sp.csr_array(a + a.T), 1)
    sampler, seeds = BlockSampler(gamma, 4), np.array([0, 5, 39])
    mean = np.zeros((3, 40))
    draws = 4000
    for _ in range(draws):
        nodes, block = sampler.block(seeds, rng)
        assert (np.diff(block.indptr) <= 4).all()
        mean[:, nodes] += block.toarray() / draws
    # the standard error of an entry is at most sqrt(p / (4 draws)) of its row sum
    np.testing.assert_allclose(mean, gamma.toarray()[seeds], atol=4 * np.sqrt(0.1 / (4 * draws)))
    np.testing.assert_allclose(mean.sum(axis=1), 1, rtol=1e-5)


def test_a_row_without_entries_stays_empty():
    gamma = sp.csr_array(([1.0, 2.0], ([0, 3], [1, 3])), shape=(4, 4))
    nodes, block = BlockSampler(gamma, 2).block(np.array([2, 3]), np.random.default_rng(0))
    np.testing.assert_array_equal(nodes, [2, 3])
    np.testing.assert_array_equal(block.toarray(), [[0, 0], [0, 2]])


def test_store_and_load(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(2.5)}
    save_tensors(tmp_path / "m", tensors, {"sizes": [3, 2]})
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((tmp_path / "m" / "model.json").read_text()) == {"sizes": [3, 2]}
    found, description = load_tensors(tmp_path / "m")
    assert description == {"sizes": [3, 2]}
    assert all(torch.equal(found[k], v) for k, v in tensors.items())


def test_load_refuses_what_is_not_a_model(tmp_path):
    with pytest.raises(InputError, match="no saved model"):
        load_tensors(tmp_path)
    save_tensors(tmp_path, {"a": torch.ones(3)}, {})
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="no saved model"):
        load_tensors(tmp_path)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 7)])
@pytest.mark.parametrize("rows", [1024, 7])
def test_the_lean_pass_gives_the_values_and_gradients_of_the_plain_one(monkeypatch, hidden, rows):
    monkeypatch.setattr(mlp, "ROWS", rows)
    net, x = MLP((6, *hidden, 2), seeded(0)), torch.randn((50, 6), generator=seeded(1)).requires_grad_()
    found = []
    for run in (net.forward, net.lean):
        z = run(x)
        found.append([z.detach(), *torch.autograd.grad(z.square().sum(), (x, *net.parameters()))])
    for plain, lean in zip(*found, strict=True):
        torch.testing.assert_close(lean, plain)


def test_the_lean_pass_of_sparse_input_is_that_of_the_dense_one(words):
    net, found = MLP((15, 8, 7, 3), seeded(0)), []
    for x in (torch.from_numpy(words.toarray()), SparseInput(words)):
        found.append(torch.autograd.grad(net.lean(x).square().sum(), tuple(net.parameters())))
    for dense, sparse in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense)


def test_a_second_backward_through_the_lean_pass_is_refused():
    loss = MLP((6, 8, 2), seeded(0)).lean(torch.randn((5, 6), generator=seeded(1))).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_convnet_is_two_convolutions_with_pooling_and_a_linear_layer():
    net = ConvNet((2, 9, 6), channels=(3, 4), out=5, generator=seeded(0))  # the odd row is left out by the pooling
    x = torch.randn((2, 2, 9, 6), generator=seeded(1))

    def convolved(image, layer):
        c, height, width = image.shape
        padded = torch.zeros(c, height + 2, width + 2)
        padded[:, 1:-1, 1:-1] = image
        patches = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # (c, height, width, 3, 3)
        out = torch.einsum("chwij,ocij->ohw", patches, layer.weight) + layer.bias[:, None, None]
        return torch.relu(out).unfold(1, 2, 2).unfold(2, 2, 2).amax((-2, -1))

    for image, found in zip(x, net(x), strict=True):
        h = convolved(convolved(image, net.first), net.second)
        assert h.shape == (4, 2, 1)
        torch.testing.assert_close(found, net.last(h.flatten()), atol=1e-5, rtol=1e-4)


def test_gcn_spreads_then_adds_the_bias_and_takes_sparse_or_dense_adjacency():
    net, x = GCN((6, 4, 2), seeded(0)), torch.randn((5, 6), generator=seeded(1))
    adjacency = torch.rand((5, 5), generator=seeded(2)) * (torch.rand((5, 5), generator=seeded(3)) < 0.5)
    first, last = net.layers
    hidden = torch.relu(adjacency @ (x @ first.weight.T) + first.bias)
    expected = adjacency @ (hidden @ last.weight.T) + last.bias
    torch.testing.assert_close(net(x, adjacency), expected)
    torch.testing.assert_close(net(x, adjacency.to_sparse()), expected)


@pytest.mark.parametrize("make", [lambda g: ConvNet((1, 8, 8), generator=g), lambda g: GCN((6, 4, 2), g)])
def test_initial_weights_of_convnet_and_gcn_come_from_the_generator(make):
    state = torch.random.get_rng_state()
    one, same, other = (make(seeded(s)) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
    if isinstance(one, ConvNet):
        bound = 1 / math.sqrt(16 * 9)
        assert 0.95 * bound < one.second.weight.abs().max().item() <= bound
