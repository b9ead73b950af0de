"""The private methods: what they refuse before they look, what they charge, what they find."""

import json

import igraph
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import Data

from graphclust.graph import InputError, from_adjacency
from graphclust.methods import _private, get_method, method_names
from graphclust.methods._private import Undetectable, pure_parts
from graphclust.privacy.ledger import create_budget, read_budget
from graphclust.privacy.mechanisms import private_count
from graphclust.privacy.sampling import os_uniform

PRIVATE = [m for m in method_names() if get_method(m).private]


def blocks(n=120, k=2, p=0.6, q=0.1, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    upper = np.triu(rng.random((n, n)) < np.where(y[:, None] == y, p, q), 1)
    return from_adjacency(sp.csr_array((upper | upper.T).astype(np.float32))), y


def make(name, k=2, epsilon=20.0, **params):
    cls = get_method(name)
    if not cls.pure:
        params.setdefault("delta", 1e-5)
    return cls(k, epsilon=epsilon, **params)


def test_the_private_methods_are_these():
    assert {"dp_gaussian", "dp_rr", "dp_sdp"} == set(PRIVATE)


@pytest.mark.parametrize("name", PRIVATE)
def test_a_release_finds_clear_clusters_and_keeps_its_books(name):
    graph, y = blocks()
    model = make(name).fit(graph)
    ledger = model.privacy_
    assert adjusted_rand_score(y, model.labels_) > 0.9
    assert ledger.guarantee and ledger.void is None and ledger.randomness == "operating system entropy"
    assert len(ledger.events) == 2 and ledger.events[0].what == "number of edges"
    assert ledger.spent_epsilon == pytest.approx(20, abs=1e-5) and ledger.spent_epsilon <= 20
    assert ledger.spent_delta == (0 if model.pure else 1e-5)
    assert {"n", "n_clusters", "density", "predicted_ratio"} <= set(ledger.public)
    assert json.loads(ledger.model_dump_json())["versions"]["graphclust"]


@pytest.mark.parametrize("name", PRIVATE)
def test_a_seed_repeats_the_noise_and_voids_the_guarantee(name):
    graph, _ = blocks(p=0.35)
    first, again = (make(name, epsilon=2.0, random_state=5, force=True).fit(graph) for _ in range(2))
    assert (first.labels_ == again.labels_).all() and first.chosen_ == again.chosen_
    assert not first.privacy_.guarantee and "seed" in first.privacy_.void
    free = [make(name, epsilon=2.0, force=True).fit(graph) for _ in range(2)]
    assert not np.allclose(free[0].embedding_, free[1].embedding_)


@pytest.mark.parametrize("name", PRIVATE)
def test_a_public_density_saves_the_count(name):
    model = make(name, density=0.35).fit(blocks()[0])
    assert [e.what for e in model.privacy_.events] != [] and len(model.privacy_.events) == 1
    assert model.privacy_.public["density"] == 0.35


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize(("change", "match"), [
    ({"epsilon": 0}, "'epsilon'"), ({"epsilon": -1.0}, "'epsilon'"), ({"epsilon": None}, "needs the parameter epsilon"),
    ({"n_clusters": None}, "needs the parameter n_clusters"), ({"n_clusters": 0}, "n_clusters"),
    ({"unit": "node"}, "unit = 'node'.*n - 1 edges"), ({"count_share": 1.0}, "count_share"),
    ({"density": 1.5}, "density"), ({"delta": 0.0}, "delta"), ({"delta": 1.0}, "delta"), ({"delta": None}, "delta"),
])
def test_bad_parameters_are_refused_before_the_data_is_touched(name, change, match):
    if "delta" in change and get_method(name).pure:
        with pytest.raises(TypeError):
            make(name, **change)
        return
    with pytest.raises(InputError, match=match):
        make(name).set_params(**change).fit("not even a graph")


@pytest.mark.parametrize("name", PRIVATE)
def test_what_the_graph_is_may_be_refused_before_its_edges_are_used(name, monkeypatch):
    def looked(*_):
        raise AssertionError("the edges were used")

    monkeypatch.setattr(get_method(name), "edge_count", looked)
    monkeypatch.setattr(get_method(name), "answer", looked)
    graph, _ = blocks(n=30)
    with pytest.raises(InputError, match="the graph is weighted"):
        make(name).fit(from_adjacency(graph.adjacency * 2.5))
    for directed in (nx.DiGraph([(0, 1), (1, 2)]), igraph.Graph([(0, 1), (1, 2)], directed=True),
                     sp.csr_array(np.triu(graph.adjacency.toarray())),
                     Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3)):
        with pytest.raises(InputError, match="the graph is directed"):
            make(name).fit(directed)
    if not get_method(name).pure:
        with pytest.raises(InputError, match=r"below 1/n = 0\.0333"):
            make(name, delta=0.04).fit(graph)
    monkeypatch.setattr(_private, "_memory", lambda: 100_000)
    with pytest.raises(InputError, match=r"n = 30 nodes needs about .* at most n = 31 here|n = 31"):
        make(name).fit(blocks(n=40)[0])


@pytest.mark.parametrize("name", PRIVATE)
def test_undirected_graphs_of_every_kind_are_taken(name):
    graph, _ = blocks(n=40)
    pairs = graph.edges()[0]
    both = torch.from_numpy(np.hstack((pairs.T, pairs.T[::-1])).astype(np.int64))
    for data in (nx.from_scipy_sparse_array(graph.adjacency), igraph.Graph(n=40, edges=pairs.tolist()),
                 graph.adjacency, Data(edge_index=both, num_nodes=40)):
        assert make(name).fit(data).privacy_.guarantee


@pytest.mark.parametrize("name", [m for m in PRIVATE if m != "dp_rr"])
def test_weights_are_cut_to_their_public_bound(name):
    graph, y = blocks()
    weights = 3.0 * graph.adjacency.toarray()
    weights[0, 2] = weights[2, 0] = 1e6
    heavy = from_adjacency(sp.csr_array(weights))
    model = make(name, weight_bound=3.0).fit(heavy)
    assert adjusted_rand_score(y, model.labels_) > 0.9
    assert model.adjacency(heavy).max() == 1 and model.edge_count(heavy) == heavy.m


@pytest.mark.parametrize("name", PRIVATE)
def test_hopeless_runs_are_refused_and_cost_the_count_only(name, tmp_path):
    graph, _ = blocks(n=60, p=0.1, q=0.02)
    file = tmp_path / "budget.json"
    create_budget(file, "g", 1.0, 1e-4)
    with pytest.raises(Undetectable, match=r"cannot\s+find 2 clusters.*no mechanism here can find.*force=true"):
        make(name, epsilon=0.5, budget=file).fit(graph)
    assert read_budget(file).left == pytest.approx((1 - 0.025, 1e-4))
    with pytest.raises(Undetectable):  # told from a public density, and so for nothing
        make(name, epsilon=0.5, density=0.06, budget=file).fit(graph)
    assert read_budget(file).left == pytest.approx((1 - 0.025, 1e-4))
    forced = make(name, epsilon=0.5, budget=file, force=True).fit(graph)
    assert forced.labels_.shape == (60,)
    assert read_budget(file).left[0] == pytest.approx(0.475)
    with pytest.raises(InputError, match="left after 3 runs"):
        make(name, epsilon=0.5, budget=file, force=True).fit(graph)


def test_a_dry_run_spends_no_budget(tmp_path):
    file = tmp_path / "budget.json"
    create_budget(file, "g", 30.0, 0)
    make("dp_rr", budget=file, random_state=0).fit(blocks()[0])
    assert not read_budget(file).spent


def test_another_mechanism_is_named_when_it_can():
    with pytest.raises(Undetectable, match="dp_rr may find them"):
        make("dp_gaussian", epsilon=0.5, density=0.2, delta=1e-6).fit(blocks(n=800, p=0.3, q=0.1)[0])


def test_pure_parts_never_exceed_epsilon():
    count = private_count(0, 20, os_uniform)[1]
    assert 0.95 - 2**-20 <= float(pure_parts(1.0, [count])) <= 0.95


def test_regularised_flips_see_past_uneven_degrees():
    y, found = np.arange(400) % 2, []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        popular = rng.choice([0.22, 1.0], 400, p=[0.9, 0.1])
        p = np.outer(popular, popular) * np.where(y[:, None] == y, 0.9, 0.4)
        upper = np.triu(rng.random((400, 400)) < p, 1)
        graph = from_adjacency(sp.csr_array((upper | upper.T).astype(np.float32)))
        models = [make("dp_rr", epsilon=9.0, random_state=seed, regularise=r).fit(graph) for r in (False, True)]
        found.append([adjusted_rand_score(y, m.labels_) for m in models])
    plain, regular = np.mean(found, axis=0)
    assert regular > plain + 0.02


@pytest.mark.parametrize(("nonnegative", "most"), [(False, 1.548), (True, 3.097)])
def test_the_scale_ends_where_the_noise_would_hide_what_it_shows(nonnegative, most):
    """Cora's size at epsilon 1: n / (2 k^2 c^2) = 2708 / (2 * 49 * 4.2247^2)."""
    model = make("dp_sdp", k=7, epsilon=1.0, delta=1e-6, nonnegative=nonnegative)
    assert model.s(2708, 0.00144) == pytest.approx(most, rel=1e-3)
    dense = make("dp_sdp", k=2, epsilon=1.0, delta=1e-6)
    assert dense.s(800, 0.2) == pytest.approx(5)  # 1 / (p - q) with p = .3, q = .1
    assert make("dp_sdp", k=2, epsilon=1.0, delta=1e-6, scale=30).s(800, 0.2) == 30
    assert make("dp_sdp", k=9, epsilon=0.1, delta=1e-6).s(50, 0.0) == 1
