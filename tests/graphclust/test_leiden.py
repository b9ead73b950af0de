"""Leiden, its portfolio, Louvain and the scan, against igraph's and networkx's own values and hand-made cases."""

import os
import subprocess
import sys
from itertools import combinations

import igraph
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from graphclust.coerce import as_graph
from graphclust.communities.partition import Quality, merge_to, n_components, split_disconnected
from graphclust.communities.scan import draw, scan
from graphclust.communities.with_igraph import to_igraph
from graphclust.graph import Graph, InputError, from_adjacency
from graphclust.methods import get_method
from tests.conftest import planted_graph

Leiden, LeidenAuto, Louvain = (get_method(m) for m in ("leiden", "leiden_auto", "louvain"))


def cliques(count: int, size: int, bridges: bool = True) -> Graph:
    """``count`` cliques in a ring (or apart)."""
    g = nx.disjoint_union_all([nx.complete_graph(size)] * count)
    if bridges:
        g.add_edges_from((c * size, (c + 1) % count * size + 1) for c in range(count))
    return as_graph(g)


@pytest.fixture(scope="module")
def karate() -> Graph:
    return as_graph(nx.karate_club_graph())  # weighted


@pytest.fixture(scope="module")
def blocks() -> tuple[Graph, np.ndarray]:
    sizes = [40] * 12
    p = np.full((12, 12), 0.01) + np.eye(12) * 0.29
    return as_graph(nx.stochastic_block_model(sizes, p, seed=1, sparse=True)), np.repeat(np.arange(12), 40)


def pieces(graph: Graph, labels: np.ndarray) -> int:
    """Connected pieces, by networkx."""
    g = nx.from_scipy_sparse_array(graph.adjacency)
    return sum(nx.number_connected_components(g.subgraph(np.flatnonzero(labels == c))) for c in np.unique(labels))


# --- the quality and the mergers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.0])
def test_quality_is_modularity(karate, resolution):
    labels = np.random.default_rng(0).integers(0, 4, karate.n)
    sets = [set(np.flatnonzero(labels == c).tolist()) for c in range(4)]
    want = nx.community.modularity(nx.from_scipy_sparse_array(karate.adjacency), sets, resolution=resolution)
    assert Quality.make(karate, "modularity", resolution).of(labels) == pytest.approx(want, abs=1e-6)


def test_cpm_quality_by_hand():
    graph = cliques(2, 3, bridges=False)  # 6 edges; density 6 / 15
    q = Quality.make(graph, "cpm")
    assert q.resolution == pytest.approx(6 / 15)
    assert q.of(np.array([0, 0, 0, 1, 1, 1])) == pytest.approx((6 - 0.4 * (9 + 9) / 2) / 6)


def test_quality_without_edges_is_zero():
    empty = from_adjacency(sp.csr_array((3, 3)))
    assert Quality.make(empty, "modularity").of(np.arange(3)) == 0
    assert Quality.make(empty, "cpm").of(np.arange(3)) == 0


@pytest.mark.parametrize("objective", ["modularity", "cpm"])
@pytest.mark.parametrize("across", [False, True])
def test_merging_is_greedy_at_every_step(objective, across):
    g = nx.gnp_random_graph(14, 0.22, seed=5)
    g.add_edges_from([(14, 15), (15, 16)])
    graph = as_graph(g)
    quality = Quality.make(graph, objective)
    for k in range(13, n_components(graph) - 1 if not across else 0, -1):
        before, _ = merge_to(np.arange(17), k + 1, quality, across)
        after, _ = merge_to(np.arange(17), k, quality, across)
        assert after.max() + 1 == k
        a = graph.adjacency.toarray()
        options = []
        for c, d in combinations(range(k + 1), 2):
            if across or a[np.ix_(before == c, before == d)].any():
                options.append(quality.of(np.unique(np.where(before == d, c, before), return_inverse=True)[1]))
        assert quality.of(after) == pytest.approx(max(options), abs=1e-6)


def test_mergers_across_components_are_counted():
    graph = cliques(4, 4, bridges=False)
    labels, across = merge_to(np.repeat(np.arange(4), 4), 2, Quality.make(graph, "modularity"), across=True)
    assert across == 2 and sorted(np.bincount(labels)) == [8, 8]


def test_split_disconnected(karate):
    labels = np.zeros(karate.n, dtype=int)
    labels[[16, 11]] = 1  # two leaves that are not neighbours
    split = split_disconnected(karate, labels)
    assert split.max() + 1 == pieces(karate, labels) and split[16] != split[11]


# --- leiden -----------------------------------------------------------------------------------------------------------


def test_igraph_gets_the_same_graph(karate):
    g, weights = to_igraph(karate)
    a = np.zeros((karate.n, karate.n))
    for (s, t), w in zip(g.get_edgelist(), weights, strict=True):
        a[s, t] = a[t, s] = w
    np.testing.assert_allclose(a, karate.adjacency.toarray())


def test_karate_reaches_the_known_optimum():
    unweighted = from_adjacency((as_graph(nx.karate_club_graph()).adjacency != 0).astype(float))
    model = Leiden(restarts=10, n_iterations=-1, random_state=0).fit(unweighted)
    assert model.chosen_["quality"] == pytest.approx(0.41979, abs=1e-5)  # the optimum (Brandes et al. 2008)
    assert model.n_clusters_ == 4


def test_weights_count():
    a = np.zeros((4, 4))
    a[0, 1] = a[2, 3] = 1
    a[1, 2] = a[0, 3] = 10
    weighted = from_adjacency(sp.csr_array(a + a.T))
    labels = Leiden(random_state=0).fit_predict(weighted)
    assert labels[1] == labels[2] and labels[0] == labels[3] and labels[0] != labels[1]


def test_restarts_keep_the_best(blocks):
    graph, _ = blocks
    many = Leiden(restarts=6, n_iterations=1, random_state=3).fit(graph).chosen_["quality"]
    assert many >= Leiden(n_iterations=1, random_state=3).fit(graph).chosen_["quality"]


def test_cpm_by_default_does_not_make_singletons(blocks):
    graph, y = blocks
    model = Leiden(objective="cpm", resolution=0.1, random_state=0).fit(graph)
    assert adjusted_rand_score(y, model.labels_) > 0.95
    free = Leiden(objective="cpm", random_state=0).fit(graph)
    assert free.n_clusters_ < graph.n / 5
    assert free.chosen_["resolution"] == pytest.approx(2 * graph.m / graph.n / (graph.n - 1))


@pytest.mark.parametrize("k", [1, 2, 5, 12, 13, 100, 480])
@pytest.mark.parametrize("objective", ["modularity", "cpm"])
def test_n_clusters_is_exact_and_connected(blocks, k, objective):
    graph, y = blocks
    model = Leiden(k, objective=objective, random_state=0).fit(graph)
    assert model.n_clusters_ == k
    assert pieces(graph, model.labels_) == k == model.chosen_["connected_pieces"]
    assert model.chosen_["merged_components"] == 0
    if k == 12:
        assert adjusted_rand_score(y, model.labels_) > 0.99


def test_fewer_clusters_than_components_is_recorded():
    graph = cliques(5, 4, bridges=False)
    model = Leiden(3, random_state=0).fit(graph)
    assert model.n_clusters_ == 3
    assert model.chosen_["merged_components"] == 2
    assert model.chosen_["connected_pieces"] == 5
    assert all(len(set(model.labels_[4 * c : 4 * c + 4])) == 1 for c in range(5))


def test_isolated_nodes_stay_alone_or_join_first():
    a = sp.block_diag([cliques(3, 5).adjacency, np.zeros((4, 4))]).tocsr()
    graph = from_adjacency(a)
    assert Leiden(random_state=0).fit(graph).n_clusters_ == 3 + 4
    labels = Leiden(4, random_state=0).fit_predict(graph)
    assert len(set(labels[15:])) == 1 and labels[15] not in labels[:15]


def test_size_limits_hold(karate):
    small = Leiden(max_cluster_size=6, random_state=0).fit(karate)
    assert np.bincount(small.labels_).max() <= 6
    assert small.chosen_["connected_pieces"] == small.n_clusters_
    assert np.bincount(Leiden(min_cluster_size=10, random_state=0).fit_predict(karate)).min() >= 10


def test_limits_that_no_partition_meets_are_refused(karate):
    with pytest.raises(InputError, match="min_cluster_size"):
        Leiden(min_cluster_size=16, max_cluster_size=16, random_state=0).fit(karate)
    with pytest.raises(InputError, match="min_cluster_size = 9"):
        Leiden(min_cluster_size=9, max_cluster_size=4).fit(karate)


def test_fixed_nodes_stay(karate):
    fixed = np.full(karate.n, -1)
    fixed[[0, 33]], fixed[[1, 32]] = 5, 2
    labels = Leiden(fixed=fixed, random_state=0).fit_predict(karate)
    assert labels[0] == labels[33] != labels[1] == labels[32]
    assert len(set(labels)) > 1
    with pytest.raises(InputError, match="fixed"):
        Leiden(fixed=fixed[:-1]).fit(karate)
    with pytest.raises(InputError, match="fixed"):
        Leiden(fixed=fixed + 0.5).fit(karate)


@pytest.mark.parametrize("objective", ["surprise", "significance"])
def test_the_other_qualities(objective):
    graph = cliques(6, 5)
    model = Leiden(objective=objective, restarts=2, random_state=0).fit(graph)
    assert model.n_clusters_ == 6
    assert "resolution" not in model.chosen_


@pytest.mark.parametrize(
    "params",
    [
        {"n_clusters": 3, "max_cluster_size": 20}, {"n_clusters": 3, "objective": "surprise"},
        {"objective": "surprise", "resolution": 2.0}, {"objective": "significance"},
    ],
)
def test_combinations_that_mean_nothing_are_refused(karate, params):
    with pytest.raises(InputError):
        Leiden(**params).fit(karate)


@pytest.mark.parametrize("params", [{"objective": "cut"}, {"resolution": 0}, {"n_iterations": 0}, {"restarts": 0}])
def test_bad_parameters_are_named(karate, params):
    with pytest.raises(ValueError, match=next(iter(params))):
        Leiden(**params).fit(karate)


HASHES = """
import hashlib
import networkx as nx
from graphclust.coerce import as_graph
from graphclust.methods import get_method

g = as_graph(nx.gnp_random_graph(200, .04, seed=2))
told = [hashlib.sha256(get_method(m)(random_state=7).fit(g).labels_.tobytes()).hexdigest()
        for m in ("leiden", "leiden_auto", "louvain")]
"""


def test_same_seed_same_labels_in_another_process():
    """Python hashes words there with another seed than here."""
    here: dict[str, list[str]] = {}
    exec(HASHES, here)
    there = {"1": "2"}.get(os.environ.get("PYTHONHASHSEED", ""), "1")
    told = subprocess.run([sys.executable, "-c", HASHES + "print(*told)"], check=True, capture_output=True, text=True,
                          env={**os.environ, "PYTHONHASHSEED": there}).stdout
    assert told.split() == here["told"] and len(here["told"]) == 3


def test_igraphs_generator_is_given_back():
    import random

    g = igraph.Graph.Famous("Zachary")
    random.seed(5)
    want = g.community_leiden("modularity", n_iterations=1).membership, random.random()
    random.seed(5)
    Leiden(random_state=0).fit(g)
    assert (g.community_leiden("modularity", n_iterations=1).membership, random.random()) == want


# --- leiden_auto and louvain ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many_blocks() -> tuple[Graph, np.ndarray]:
    """40 blocks of 100 nodes, 44 % of the edges inside: a run from singletons may merge too early."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 100)
    inside = rng.integers(0, 4000, 18000)
    pairs = np.vstack((np.column_stack((inside, inside // 100 * 100 + rng.integers(0, 100, 18000))),
                       rng.integers(0, 4000, (28000, 2))))
    a = sp.coo_array((np.ones(len(pairs)), pairs.T), shape=(4000, 4000)).tocsr()
    return from_adjacency(((a + a.T) > 0).astype(np.float32)), y


def test_the_portfolio_reaches_the_planted_partition(many_blocks):
    graph, y = many_blocks
    planted = Quality.make(graph, "modularity").of(y)
    plain = [Leiden(random_state=seed).fit(graph).chosen_["quality"] for seed in range(3)]
    assert min(plain) < 0.999 * planted, "the case is too easy to tell the two apart"
    for seed in range(3):
        auto = LeidenAuto(starts=1, random_state=seed).fit(graph)
        assert auto.chosen_["quality"] >= 0.999 * planted
        assert adjusted_rand_score(y, auto.labels_) > 0.95
        assert pieces(graph, auto.labels_) == auto.n_clusters_


@pytest.mark.parametrize("starts", ["auto", 0, 2])
def test_the_portfolio_is_never_worse_than_leiden(starts):
    for seed in range(5):
        graph = as_graph(nx.gnp_random_graph(120, 0.05, seed=seed))
        plain = Leiden(random_state=seed).fit(graph)
        auto = LeidenAuto(starts=starts, random_state=seed).fit(graph)
        assert auto.chosen_["quality_of_plain_run"] == pytest.approx(plain.chosen_["quality"])
        assert auto.chosen_["quality"] >= plain.chosen_["quality"]


def test_louvain_splits_what_does_not_hang_together(karate, monkeypatch):
    class Fake(list):
        membership = [0] * 15 + [1] * 19

    monkeypatch.setattr(igraph.Graph, "community_multilevel", lambda *a, **k: Fake(range(2)))
    model = Louvain().fit(karate)
    assert model.n_clusters_ == pieces(karate, np.array(Fake.membership)) == 2 + model.chosen_["split_communities"]
    assert model.chosen_["split_communities"] > 0


def test_louvain_is_igraphs(blocks):
    graph, y = blocks
    assert adjusted_rand_score(y, Louvain(random_state=0).fit_predict(graph)) > 0.95
    fine = Louvain(resolution=20, random_state=0).fit(graph)
    assert fine.n_clusters_ > 12


# --- the scan ---------------------------------------------------------------------------------------------------------


def test_scan_finds_the_planted_plateau(blocks):
    graph, y = blocks
    found = scan(graph, random_state=0, resolutions=np.geomspace(0.3, 12, 10))
    plateau = [r for r in found.rows if r.on_plateau]
    assert {r.n_clusters for r in plateau} == {12}
    assert plateau[0].resolution < found.recommended < plateau[-1].resolution
    assert all(r.connected and 0 <= r.stability <= 1 for r in found.rows)
    resolutions = [r.resolution for r in found.rows]
    assert resolutions == sorted(resolutions)
    labels = Leiden(resolution=found.recommended, random_state=1).fit_predict(graph)
    assert adjusted_rand_score(y, labels) > 0.99
    assert scan(graph, random_state=0, resolutions=np.geomspace(0.3, 12, 10)) == found


def test_scan_by_cpm_finds_cliques():
    found = scan(cliques(8, 6), objective="cpm", random_state=0)
    assert {r.n_clusters for r in found.rows if r.on_plateau} == {8}
    assert found.as_dict()["rows"][0]["quality"] == found.rows[0].quality


def test_scan_of_noise_recommends_nothing():
    found = scan(as_graph(nx.gnp_random_graph(150, 0.05, seed=0)), random_state=0, seeds=2)
    assert found.recommended is None and not any(r.on_plateau for r in found.rows)
    assert "no two" in found.reason


@pytest.mark.parametrize(
    "params", [{"seeds": 1}, {"objective": "surprise"}, {"resolutions": [1, -1]}, {"resolutions": []}])
def test_scan_refuses_bad_parameters(karate, params):
    with pytest.raises(InputError, match=next(iter(params))):
        scan(karate, **params)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_scan_is_drawn(tmp_path, suffix):
    graph, _ = planted_graph(n=90)
    draw(scan(graph, resolutions=[0.5, 1.0, 2.0]), tmp_path / f"scan.{suffix}")
    assert (tmp_path / f"scan.{suffix}").stat().st_size > 1000
    with pytest.raises(InputError, match=r"scan\.doc"):
        draw(scan(graph, resolutions=[1.0]), tmp_path / "scan.doc")
