"""The generators' statistics against what their parameters say, determinism, and each refusal."""

import numpy as np
import pytest
import torch
from scipy import stats

from graphclust.data import load
from graphclust.data.generators.sampling import bernoulli_pairs, power_law, power_law_mean, stochastic_round
from graphclust.graph import InputError

ALL = ["sbm", "dcsbm", "lfr", "asbm", "hsbm"]


def parts(data):
    """Sources, targets, labels and degrees as arrays."""
    source, target = data.edge_index.numpy()
    return source, target, data.y.numpy(), np.bincount(source, minlength=data.num_nodes)


def pair_counts(data, y, k):
    """Dense (k, k) counts of directed edges between groups."""
    source, target = data.edge_index.numpy()
    return np.bincount(y[source] * k + y[target], minlength=k * k).reshape(k, k)


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_graph_and_other_seed_other_graph(name):
    a, b, c = load(f"{name}:seed=3"), load(f"{name}:seed=3"), load(f"{name}:seed=4")
    assert torch.equal(a.edge_index, b.edge_index)
    assert torch.equal(a.y, b.y)
    assert not torch.equal(a.edge_index[:, :100], c.edge_index[:, :100])
    if a.x is not None:
        assert torch.equal(a.x, b.x)


@pytest.mark.parametrize("name", ALL)
def test_global_generators_are_left_alone_and_order_tells_nothing(name):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    y = load(name).y.numpy()
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert abs(stats.spearmanr(np.arange(len(y)), y).statistic) < 0.15


def test_bernoulli_pairs_visits_every_candidate_at_p_one():
    first, count = np.array([0, 5, 2, 0]), np.array([2, 0, 3, 1])
    v, u = bernoulli_pairs(first, count, 1.0, np.random.default_rng(0))
    assert list(zip(v.tolist(), u.tolist(), strict=True)) == [(0, 0), (0, 1), (2, 2), (2, 3), (2, 4), (3, 0)]
    assert len(bernoulli_pairs(first, count, 0.0, np.random.default_rng(0))[0]) == 0


def test_bernoulli_pairs_are_independent_with_probability_p():
    rng, p, trials = np.random.default_rng(1), 0.3, 4000
    hits = np.zeros(7)
    for _ in range(trials):
        v, u = bernoulli_pairs(np.array([0, 0]), np.array([3, 4]), p, rng)
        np.add.at(hits, v * 3 + u, 1)
    assert np.all(np.abs(hits / trials - p) < 4 * np.sqrt(p * (1 - p) / trials))
    tiny = bernoulli_pairs(np.zeros(10**6, int), np.full(10**6, 10**6), 1e-9, rng)  # 10^12 candidates, 1000 expected
    assert 850 < len(tiny[0]) < 1150


@pytest.mark.parametrize("exponent", [1.0, 2.0, 2.5])
def test_power_law_has_its_mean(exponent):
    x = power_law(3.0, 60.0, exponent, 200_000, np.random.default_rng(0))
    assert x.min() >= 3 and x.max() <= 60
    assert x.mean() == pytest.approx(power_law_mean(3.0, 60.0, exponent), rel=0.01)
    assert stochastic_round(x, np.random.default_rng(1)).mean() == pytest.approx(x.mean(), rel=0.01)


def test_sbm_densities_of_every_pair_of_blocks():
    data = load("sbm:sizes=[300,500,200],p_in=0.08,p_out=0.02,seed=5")
    size = np.array([300, 500, 200])
    assert data.y.bincount().tolist() == size.tolist()
    pairs = np.outer(size, size) - np.diag(size)
    density = pair_counts(data, data.y.numpy(), 3) / pairs
    expected = np.where(np.eye(3, dtype=bool), 0.08, 0.02)
    assert np.all(np.abs(density - expected) < 5 * np.sqrt(expected * 2 / pairs))


def test_sbm_degrees_are_means_over_all_nodes():
    data = load("sbm:n=20000,k=20,degree_in=15,degree_out=5")
    source, target, y, degree = parts(data)
    inside = np.bincount(source, y[source] == y[target]).mean()
    assert inside == pytest.approx(15, rel=0.02)
    assert degree.mean() - inside == pytest.approx(5, rel=0.02)
    assert degree.var() == pytest.approx(20, rel=0.1)  # Poisson


@pytest.mark.parametrize(("ref", "edges"), [
    ("sbm:n=20,k=1,p_in=1,p_out=0", 190), ("sbm:n=20,k=20,p_in=1,p_out=1", 190), ("sbm:n=20,k=2,p_in=1,p_out=0", 90),
    ("sbm:n=20,k=4,p_in=0,p_out=1", 150), ("sbm:n=1,k=1", 0), ("dcsbm:n=30,k=3,p_in=0,p_out=0", 0),
])
def test_sbm_at_the_ends_of_its_range(ref, edges):
    data = load(ref)
    assert data.edge_index.shape[1] == 2 * edges
    assert data.y.unique().numel() == data.k


def test_dcsbm_degrees_follow_the_power_law_and_blocks_keep_their_density():
    plain, corrected = (load(f"{m}:n=20000,k=10,degree_in=14,degree_out=6") for m in ("sbm", "dcsbm"))
    source, target, y, degree = parts(corrected)
    assert degree.mean() == pytest.approx(20, rel=0.04)
    assert np.mean(y[source] == y[target]) == pytest.approx(0.7, abs=0.01)
    assert degree.var() > 10 * parts(plain)[3].var()
    even = load("dcsbm:n=20000,k=10,degree_in=14,degree_out=6,max_ratio=1")
    assert parts(even)[3].var() == pytest.approx(20, rel=0.1), "equal theta: the plain model"


@pytest.mark.parametrize("mu", [0.1, 0.4, 0.7])
def test_lfr_mixing_degrees_and_sizes(mu):
    data = load(f"lfr:n=4000,mu={mu},average_degree=15,max_degree=60,min_community=40,max_community=150,seed=2")
    source, target, y, degree = parts(data)
    outside = np.bincount(source, y[source] != y[target], minlength=4000)
    assert outside.sum() / degree.sum() == pytest.approx(mu, abs=0.01)
    busy = degree >= 20
    assert np.abs(outside[busy] / degree[busy] - mu).mean() < 0.05, "each node mixes, not just the sum"
    assert degree.mean() == pytest.approx(15, rel=0.05)
    assert degree.max() <= 60
    sizes = np.bincount(y)
    assert sizes.min() >= 40 and sizes.max() <= 150 and sizes.sum() == 4000
    assert data.k == len(sizes)
    assert data.info["dropped_edges"] < 0.005 * len(source) / 2
    # the continuous maximum-likelihood exponent of the degrees
    low = np.quantile(degree, 0.3)
    tail = degree[degree >= low]
    exponent = 1 + len(tail) / np.log(tail / (low - 0.5)).sum()
    assert 2.0 < exponent < 3.3


def test_lfr_without_mixing_has_no_edge_between_communities():
    source, target, y, _ = parts(load("lfr:n=500,mu=0"))
    assert np.all(y[source] == y[target])


def test_asbm_gaussian_features_have_the_signal_and_the_noise():
    data = load("asbm:n=6000,k=3,d=20,signal=4,noise=0.5")
    x, y = data.x.numpy(), data.y.numpy()
    means = np.stack([x[y == c].mean(axis=0) for c in range(3)])
    assert np.linalg.norm(means, axis=1) == pytest.approx(4, abs=0.1)
    assert (x - means[y]).std() == pytest.approx(0.5, rel=0.02)
    quiet = load("asbm:n=60,k=3,d=2,noise=0")
    assert len(np.unique(quiet.x.numpy().round(4), axis=0)) == 3, "without noise, one row a block"


def test_asbm_binary_words_belong_to_blocks():
    data = load("asbm:n=3000,k=3,d=100,features=binary,signal=0.2,noise=0.01")
    assert data.x.is_sparse
    x, y = data.x.to_dense().numpy(), data.y.numpy()
    assert set(np.unique(x)) == {0.0, 1.0}
    rate = np.stack([x[y == c].mean(axis=0) for c in range(3)])
    owner = rate.argmax(axis=0)
    assert np.bincount(owner).tolist() == [33, 33, 34]
    assert rate[owner, np.arange(100)].mean() == pytest.approx(0.2, rel=0.03)
    others = rate[np.arange(3)[:, None] != owner[None, :]]
    assert others.mean() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("depth", "arity"), [(3, 2), (2, 3)])
def test_hsbm_density_at_each_common_ancestor(depth, arity):
    data = load(f"hsbm:depth={depth},arity={arity},leaf_size=150,p_leaf=0.2,beta=0.5")
    levels, leaves = data.y_levels.numpy(), arity**depth
    assert levels.shape == (data.num_nodes, depth)
    assert np.array_equal(levels[:, -1], data.y.numpy())
    assert np.array_equal(levels[:, 0], data.y.numpy() // arity ** (depth - 1))
    counts = pair_counts(data, data.y.numpy(), leaves)
    a, b = np.meshgrid(np.arange(leaves), np.arange(leaves))
    ancestor = np.sum([a // arity**s == b // arity**s for s in range(depth)], axis=0)  # depth of the common ancestor
    for level in range(depth + 1):
        chosen = ancestor == level
        pairs = chosen.sum() * 150 * (149 if level == depth else 150)
        assert counts[chosen].sum() / pairs == pytest.approx(0.2 * 0.5 ** (depth - level), rel=0.05)


def test_hsbm_leaf_probability_follows_the_formula():
    data = load("hsbm:depth=2,leaf_size=200,a_leaf=20,beta=0")
    assert data.info["parameters"]["p_leaf"] == pytest.approx(20 * np.log(800) / 800)


@pytest.mark.parametrize(("ref", "words"), [
    ("sbm:n=0", "n = 0"), ("sbm:n=2.5", "n = 2.5"), ("sbm:n=10,k=11", "k = 11; it must be an integer in [1, 10]"),
    ("sbm:seed=-1", "seed = -1"), ("sbm:p_in=2,p_out=0", "p_in = 2"), ("sbm:p_in=0.1", "p_out is missing"),
    ("sbm:p_in=0.1,p_out=0.1,degree_in=3", "give one pair"), ("sbm:degree_in=500", "degree_in = 500"),
    ("sbm:n=10,k=1,degree_out=3", "degree_out = 3"), ("sbm:sizes=[3,0]", "sizes = 0"), ("sbm:sizes=7", "sizes = 7"),
    ("sbm:sizes=[3,4],n=8", "sizes add up to 7"), ("sbm:sizes=[3,4],k=3", "there are 2 sizes"),
    ("sbm:n=true", "n = True"), ("dcsbm:exponent=1", "exponent = 1"), ("dcsbm:max_ratio=0.5", "max_ratio = 0.5"),
    ("asbm:features=words", "features = 'words'"), ("asbm:features=binary,d=3", "d = 3"),
    ("asbm:noise=-1", "noise = -1"),
    ("asbm:features=binary,signal=2", "signal = 2"), ("hsbm:depth=0", "depth = 0"), ("hsbm:arity=1", "arity = 1"),
    ("hsbm:beta=-1", "beta = -1"), ("hsbm:leaf_size=2,a_leaf=100", "lower a_leaf"), ("hsbm:p_leaf=1.5", "p_leaf = 1.5"),
    ("lfr:mu=1.5", "mu = 1.5"), ("lfr:tau1=1", "tau1 = 1"), ("lfr:tau2=0.5", "tau2 = 0.5"),
    ("lfr:max_degree=2000", "max_degree = 2000"), ("lfr:average_degree=60", "average_degree = 60"),
    ("lfr:average_degree=2", "average_degree = 2"), ("lfr:min_community=200", "min_community = 200"),
    ("lfr:mu=0,max_degree=150", "raise max_community or mu"), ("lfr:n=101,max_degree=20,average_degree=10,"
     "min_community=80", "do not fit in communities"),
])
def test_bad_parameters_are_refused_by_name(ref, words):
    with pytest.raises(InputError) as e:
        load(ref)
    assert words in str(e.value)


@pytest.mark.parametrize("name", ["sbm", "dcsbm"])
def test_cost_follows_the_edges_not_the_pairs(name):
    data = load(f"{name}:n=200000,k=400,degree_in=2,degree_out=1")  # 2 x 10^10 pairs
    assert data.edge_index.shape[1] == pytest.approx(600_000, rel=0.02)
