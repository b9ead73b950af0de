"""What training starts from: smoothing steps, the consensus partition, the centres."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import adjusted_rand_score

from graphclust.encoders import MLP
from graphclust.graph import Graph, from_adjacency
from graphclust.methods import _consensus, _network
from graphclust.methods._consensus import consensus_labels, indicators
from graphclust.methods._smoothing import smoothing_steps
from graphclust.propagation import normalised_adjacency


def exact_noise(graph: Graph, steps: int) -> float:
    p = normalised_adjacency(graph.adjacency, "row").toarray().astype(np.float64)
    return float(np.square(np.linalg.matrix_power(p, steps)).sum(axis=1).mean())


def test_smoothing_steps_follow_the_rule_on_exact_powers(planted):
    for graph in (planted[0], from_adjacency(sp.csr_array(np.roll(np.eye(60, dtype=np.float32), 1, axis=1)))):
        noise = [exact_noise(graph, t) for t in range(12)]
        expected = next((t for t in range(10) if noise[t + 1] > 0.85 * noise[t]), 10)
        assert smoothing_steps(graph.adjacency) == expected


def test_smoothing_steps_at_the_ends():
    assert smoothing_steps(sp.csr_array((30, 30), dtype=np.float32)) == 0  # no edge removes any noise
    clique = sp.csr_array(1 - np.eye(30, dtype=np.float32))
    assert smoothing_steps(clique) == 1  # one step averages over everything, the next changes nothing
    assert smoothing_steps(clique, max_steps=0) == 0


def test_consensus_finds_the_planted_partition(planted):
    graph, y = planted
    labels = consensus_labels(graph, graph.x, 3, 0)
    assert adjusted_rand_score(y, labels) > 0.95
    np.testing.assert_array_equal(consensus_labels(graph, graph.x, 3, 0), labels)


def test_consensus_prefers_the_partition_that_the_edges_agree_with():
    """Two equally tight splits of the features, by row and by column: only the one by row follows the edges."""
    rng = np.random.default_rng(0)
    n = 80
    row, column = np.arange(n) % 2, np.arange(n) // 2 % 2
    x = np.stack((2.0 * row - 1, 2.0 * column - 1), axis=1) + 0.05 * rng.normal(size=(n, 2))
    graph = from_adjacency(sp.csr_array((row[:, None] == row[None, :]).astype(np.float32)), x)
    assert adjusted_rand_score(row, consensus_labels(graph, graph.x, 2, 0)) == 1


def test_consensus_outvotes_the_partition_with_the_highest_modularity(planted, monkeypatch):
    """One deviant partition of a width scores best; the other nine that are kept agree."""
    graph, y = planted
    odd = np.where(np.arange(graph.n) < 20, 0, y)
    score = _consensus.modularity
    calls = []

    def favour_each_twentieth(given):
        calls.append(given)
        return 2.0 if len(calls) % 20 == 0 else score(given)

    class Deviant(_consensus.KMeans):
        def predict(self, rows):
            return odd if len(calls) % 20 == 19 and len(calls) < 100 else super().predict(rows)

    monkeypatch.setattr(_consensus, "modularity", favour_each_twentieth)
    monkeypatch.setattr(_consensus, "KMeans", Deviant)
    assert adjusted_rand_score(y, consensus_labels(graph, graph.x, 3, 0)) > 0.95
    monkeypatch.setattr(_consensus, "VOTERS", 1)
    calls.clear()
    assert adjusted_rand_score(odd, consensus_labels(graph, graph.x, 3, 0)) > 0.95


def test_consensus_fits_a_sample_of_a_large_graph(planted, monkeypatch):
    graph, y = planted
    monkeypatch.setattr(_consensus, "FIT_LIMIT", 60)
    assert adjusted_rand_score(y, consensus_labels(graph, graph.x, 3, 0)) > 0.9


def test_centres_start_at_the_cluster_means_and_empty_ones_far_out():
    network = _network.ClusterNetwork(MLP((2, 2)), None, 3, cosine=False)
    z = torch.tensor([[0.0, 0.0], [2.0, 0.0], [9.0, 0.0], [11.0, 0.0], [10.0, 7.0]])
    network.start(z, torch.tensor([0, 0, 2, 2, 2]), adapt_bandwidth=True)
    middle = [10.0, 7 / 3]
    torch.testing.assert_close(network.centres.data, torch.tensor([[1.0, 0.0], [10.0, 7.0], middle]))
    squared = [1, 1, 1 + (7 / 3) ** 2, 1 + (7 / 3) ** 2, (14 / 3) ** 2]
    assert network.bandwidth.item() == pytest.approx(np.mean(squared), rel=1e-6)


def test_partitions_side_by_side_are_the_stacked_indicators():
    rng = np.random.default_rng(0)
    partitions = [rng.integers(4, size=30).astype(np.int32) for _ in range(5)]
    stacked = np.hstack([np.eye(4, dtype=np.float32)[labels] for labels in partitions])
    found = indicators(partitions, 4)
    assert found.has_canonical_format and (found.toarray() == stacked).all() and found.dtype == np.float32
