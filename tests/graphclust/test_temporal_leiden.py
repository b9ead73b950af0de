"""Multislice Leiden: the formula, its optimum, the windows, what it finds where static methods cannot."""

from itertools import pairwise, product

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score
from sympy.utilities.iterables import multiset_partitions

from graphclust.communities.with_leidenalg import multislice
from graphclust.graph import InputError
from graphclust.methods.temporal_leiden import TemporalLeiden, window_edges
from graphclust.stream import build_stream


def planted_stream(groups: np.ndarray, m: int = 240, noise: float = 0.05, seed: int = 0):
    """Events at distinct times, window after window of duration 1, nearly all of them inside the groups (W, n)."""
    rng = np.random.default_rng(seed)
    n = groups.shape[1]
    src, dst, time = [], [], []
    for w, row in enumerate(groups):
        for t in np.sort(rng.random(m)):
            s = rng.integers(n)
            others = np.flatnonzero((row == row[s]) == (rng.random() >= noise))
            d = rng.choice(others[others != s])
            src, dst, time = [*src, s], [*dst, d], [*time, w + t]
    return build_stream(np.array(src), np.array(dst), np.array(time), n)


def terms(slices, vertices, omega, gamma, coupled):
    """The terms of Mucha's sum for all pairs of ``vertices`` (slice, node); ``coupled``: pairs of vertices."""
    place = {v: p for p, v in enumerate(vertices)}
    b = np.zeros((len(vertices), len(vertices)))
    for (s, i), p in place.items():
        a, k = slices[s].adjacency, slices[s].degrees
        for (r, j), q in place.items():
            b[p, q] = (a[i, j] - gamma * k[i] * k[j] / k.sum()) * (s == r)
    for one, two in coupled:
        b[place[one], place[two]] = b[place[two], place[one]] = omega
    return b


def inside(b, labels):
    """Mucha's sum before it is divided by 2 mu, of the labels of the vertices."""
    return b[labels[:, None] == labels[None, :]].sum()


def tiny(seed: int):
    """Three slices of four nodes with few events, and its vertices."""
    rng = np.random.default_rng(seed)
    src, dst = rng.integers(4, size=(2, 6))
    stream = build_stream(src, np.where(src == dst, (dst + 1) % 4, dst), np.array([0.0, 0, 0, 1, 2, 2]), 4)
    slices = [part.graph() for part in stream.windows(window_edges(stream, 3))]
    active = [(s, i) for s in range(3) for i in range(4) if slices[s].degrees[i]]
    bridged = [pair for i in range(4) for pair in pairwise([v for v in active if v[1] == i])]
    return slices, active, bridged


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("omega", "gamma"), [(0.0, 1.0), (0.4, 1.0), (1.0, 1.5)])
def test_quality_is_the_papers_formula_and_hardly_below_the_best_of_all_partitions(seed, omega, gamma):
    slices, active, bridged = tiny(seed)
    labels, quality = multislice(slices, omega, gamma, -1, np.random.default_rng(0))
    b = terms(slices, active, omega, gamma, bridged)
    mu = sum(g.degrees.sum() for g in slices) + 2 * omega * len(bridged)
    assert [tuple(v) for v in np.argwhere(labels >= 0)] == active
    assert quality == pytest.approx(inside(b, labels[labels >= 0]) / mu)
    if len(active) <= 8:
        best = -np.inf
        for partition in multiset_partitions(len(active)):
            found = np.empty(len(active), dtype=int)
            for c, block in enumerate(partition):
                found[block] = c
            best = max(best, inside(b, found) / mu)
        assert best - 0.05 <= quality <= best + 1e-9


def test_bridging_a_gap_is_the_same_problem_as_nodes_without_an_edge_in_the_slice():
    # 0-1 and 2-3 in the first and the last slice, 0-1 alone in the second: nodes 2 and 3 have no edge there
    stream = build_stream(np.array([0, 2, 0, 0, 2]), np.array([1, 3, 1, 1, 3]), np.array([0.0, 0, 1, 2, 2]), 4)
    slices = [part.graph() for part in stream.windows(window_edges(stream, 3))]
    active = [(s, i) for s in range(3) for i in range(4) if slices[s].degrees[i]]
    bridged = [pair for i in range(4) for pair in pairwise([v for v in active if v[1] == i])]
    every = [((s, i), (s + 1, i)) for i in range(4) for s in range(2)]
    ours = terms(slices, active, 0.7, 1.0, bridged)
    theirs = terms(slices, [*active, (1, 2), (1, 3)], 0.7, 1.0, every)
    rng = np.random.default_rng(0)
    for _ in range(60):
        labels = rng.integers(3, size=len(active))
        best = max(inside(theirs, np.append(labels, rest)) for rest in product(range(4), repeat=2))
        # a constant apart: each of the two nodes keeps one coupling more
        assert best == pytest.approx(inside(ours, labels) + 2 * 0.7 * 2)


def test_communities_that_change_are_followed():
    groups = np.tile(np.arange(24) % 2, (4, 1))
    groups[2:, :6] = 1 - groups[2:, :6]  # six nodes change sides half-way
    model = TemporalLeiden(windows=4, random_state=0).fit(planted_stream(groups))
    assert model.window_labels_.shape == (4, 24) and (model.window_labels_ >= 0).all()
    assert adjusted_rand_score(groups.ravel(), model.window_labels_.ravel()) > 0.9, "and the ids last"
    assert model.n_clusters_ == 2 and model.chosen_["windows"] == 4 and 0 < model.chosen_["quality"] < 1
    np.testing.assert_allclose(model.window_edges_, np.linspace(0, 4, 5), atol=0.05)


def test_the_interslice_weight_decides_how_much_changes():
    groups = np.tile(np.arange(24) % 2, (4, 1))
    groups[2:, :6] = 1 - groups[2:, :6]
    stream = planted_stream(groups)
    free = TemporalLeiden(windows=4, interslice_weight=0, random_state=0).fit(stream)
    assert all(not {*a} & {*b} for a, b in pairwise(free.window_labels_.tolist())), "uncoupled: no community lasts"
    tied = TemporalLeiden(windows=4, interslice_weight=1e4, random_state=0).fit(stream)
    assert (tied.window_labels_ == tied.labels_).all(), "coupled hard: nobody changes"


def test_labels_are_the_community_of_most_events_and_silent_nodes_are_alone():
    rows = [(0, 1, 0.0), (0, 1, 0.1), (0, 1, 0.2), (0, 1, 0.2), (2, 3, 0.3), (2, 3, 0.4),
            (1, 2, 4.0), (1, 2, 4.5), (1, 2, 5.0)]
    src, dst, time = (np.array(part) for part in zip(*rows, strict=True))
    model = TemporalLeiden(windows=2, interslice_weight=0, random_state=0).fit(build_stream(src, dst, time, n=7))
    first, second = model.window_labels_
    assert first[0] == first[1] and first[2] == first[3] and (first[4:] == -1).all()
    assert second[1] == second[2] and second[0] == second[3] == -1
    assert model.labels_[1] == first[1], "node 1: four events then, three later"
    assert model.labels_[2] == second[2], "node 2: two events then, three later"
    assert len(set(model.labels_[4:]) | set(model.labels_[:4])) == model.n_clusters_ == 3 + 3


def test_few_distinct_times_are_windows_of_their_own():
    stream = build_stream(np.array([0, 1, 2, 0]), np.array([1, 2, 3, 3]), np.array([1.0, 1, 5, 100]))
    assert window_edges(stream, 3).tolist() == [1, 5, 100, 100]
    assert [part.m for part in stream.windows(window_edges(stream, 3))] == [2, 1, 1]
    assert window_edges(stream, 2).tolist() == [1, 50.5, 100]
    model = TemporalLeiden(windows=3, random_state=0).fit(stream)
    assert (model.window_labels_ >= 0).sum(axis=1).tolist() == [3, 2, 2]


def test_a_window_without_an_event_is_bridged():
    rows = np.array([(0, 1), (2, 3)] * 2)
    model = TemporalLeiden(windows=3, random_state=0).fit((rows[:, 0], rows[:, 1], np.array([0.0, 1, 99, 100])))
    assert (model.window_labels_[1] == -1).all()
    assert (model.window_labels_[0] == model.window_labels_[2]).all() and model.n_clusters_ == 2


@pytest.mark.parametrize(("params", "words"), [
    ({"windows": 0}, "windows"), ({"interslice_weight": -1.0}, "interslice_weight"), ({"resolution": 0}, "resolution"),
    ({"n_iterations": 0}, "n_iterations"),
])
def test_parameters_outside_their_rule_are_refused(params, words):
    with pytest.raises(InputError, match=words):
        TemporalLeiden(**params).fit((np.array([0]), np.array([1]), np.array([0.0])))


def test_a_graph_without_times_is_refused_with_advice():
    with pytest.raises(InputError, match=r"needs a torch_geometric TemporalData or \(src, dst, t\)"):
        TemporalLeiden().fit(sp.csr_array(np.ones((3, 3))))
