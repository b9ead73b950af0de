"""What the README claims, at full size: minutes, so they run in the second pass."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from graphclust.coerce import as_graph
from graphclust.data import load
from graphclust.methods import get_method
from graphclust.metrics import evaluate
from graphclust.training import effective_clusters

pytestmark = pytest.mark.slow


def test_portfolio_recovers_fifty_blocks_where_one_run_does_not():
    data = load("sbm:n=50000,k=50,degree_in=16.22,degree_out=23.78,seed=0")
    graph, y = as_graph(data), data.y.numpy()
    planted = evaluate(y, graph=graph, names=["modularity"])["modularity"]
    model = get_method("leiden_auto")(random_state=0).fit(graph)
    found = evaluate(model.labels_, y, graph, names=["modularity", "ari", "disconnected"])
    assert found["modularity"] >= 0.999 * planted and found["ari"] >= 0.99 and found["disconnected"] == 0
    assert adjusted_rand_score(y, get_method("leiden")(random_state=0).fit(graph).labels_) < 0.9


def test_spectral_recovers_twenty_blocks_of_a_hundred_thousand_nodes():
    data = load("sbm:n=100000,k=20,degree_in=14,degree_out=10,seed=0")
    model = get_method("spectral")(20, random_state=0).fit(data)
    assert adjusted_rand_score(data.y.numpy(), model.labels_) >= 0.999


@pytest.mark.parametrize("name", ["scgc", "scgc_star", "pamc"])
def test_deep_methods_do_not_collapse_on_a_real_graph_in_any_of_three_seeds(name):
    import torch

    data = load("debtopics13")
    graph, y = as_graph(data), data.y.numpy()
    scores = []
    for seed in range(3):
        model = get_method(name)(13, random_state=seed).fit(graph)
        assert model.n_clusters_ == 13 and effective_clusters(torch.from_numpy(model.labels_)) > 6
        scores.append(evaluate(model.labels_, y, names=["acc", "nmi"]))
    features_only = get_method("kmeans")(13, random_state=0).fit(graph).labels_
    assert np.mean([s["nmi"] for s in scores]) > 0.45 > evaluate(features_only, y, names=["nmi"])["nmi"]
    assert np.mean([s["acc"] for s in scores]) > 0.45


def test_a_hundred_thousand_nodes_train_in_mini_batches_without_a_dense_matrix():
    data = load("asbm:n=100000,k=5,degree_in=8,degree_out=2,d=32,seed=0")
    model = get_method("pamc")(5, random_state=0, epochs=1, pretrain_epochs=1).fit(data)
    assert adjusted_rand_score(data.y.numpy(), model.labels_) > 0.9
