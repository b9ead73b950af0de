"""Clusters that a window does not tell apart are one in it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from graphclust.data import load
from graphclust.methods._tgc import fuse
from graphclust.methods.tgc import TGC


def blocks(sizes: list[int], inside: float, outside: float, degree: np.ndarray | None = None) -> sp.csr_array:
    """The expected weights of communities of these sizes; each times the degrees of both of its nodes."""
    community = np.repeat(np.arange(len(sizes)), sizes)
    weight = np.where(community[:, None] == community, inside, outside)
    degree = np.ones(len(community)) if degree is None else degree
    weight = weight * degree * degree[:, None]
    np.fill_diagonal(weight, 0)
    return sp.csr_array(weight)


def modularity(labels: np.ndarray, weight: np.ndarray) -> float:
    same = labels[:, None] == labels
    expected = np.outer(weight.sum(1), weight.sum(1)) / weight.sum()
    return ((weight - expected) * same).sum() / weight.sum()


def test_parts_of_one_community_are_one_and_the_largest_keeps_its_id():
    """4, 0 and 3 are parts of the first community, of other degrees; 1 is the second; node 40 does not count."""
    graph = blocks([31, 10], 1, 0.1, np.linspace(0.2, 3, 41))
    labels = np.repeat([4, 0, 3, 1, -1], [6, 18, 7, 9, 1])
    before = labels.copy()
    np.testing.assert_array_equal(fuse(labels, [graph]), np.repeat([0, 1, -1], [31, 9, 1]))
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize(("outside", "clusters"), [(0.4, 2), (0.6, 1)])
def test_half_as_many_edges_between_as_inside_make_one(outside, clusters):
    graph = blocks([200, 100], 1, outside)
    assert len(np.unique(fuse(np.repeat([0, 1], [200, 100]), [graph]))) == clusters


def test_what_one_graph_tells_apart_stays_apart():
    told, one = blocks([10, 10], 1, 0.1), blocks([20], 1, 1)
    labels = np.repeat([0, 1], 10)
    for graphs in ([told, one], [one, told]):
        np.testing.assert_array_equal(fuse(labels, graphs), labels)
    assert not fuse(labels, [one, one]).any()


@pytest.mark.parametrize("joined", [0.0, 1.0])
def test_without_edges_inside_there_is_nothing_to_compare(joined):
    graph = sp.csr_array(np.kron([[0, joined], [joined, 0]], np.ones((3, 3))))
    np.testing.assert_array_equal(fuse(np.repeat([0, 1], 3), [graph]), np.repeat([0, 1], 3))


def test_small_clusters_of_a_large_graph_stay_apart_though_modularity_would_join_them():
    ring = np.kron(np.eye(40), np.ones((4, 4)) - np.eye(4))
    last, first = np.arange(3, 160, 4), np.roll(np.arange(0, 160, 4), -1)
    ring[last, first] = ring[first, last] = 1
    labels = np.repeat(np.arange(40), 4)
    assert modularity(labels // 2, ring) > modularity(labels, ring)
    np.testing.assert_array_equal(fuse(labels, [sp.csr_array(ring)]), labels)


@pytest.mark.parametrize(("change", "counts"), [("k=4,merge=[2,0,1]", [4, 4, 3, 3]), ("k=3,split=[2,0]", [3, 3, 4, 4])])
def test_a_merger_and_a_split_are_followed(change, counts):
    data = load(f"drifting:n=160,windows=4,events=20,move=0.03,{change},seed=1")
    model = TGC(4, windows=4, random_state=0).fit(data)
    assert [len(np.unique(row[row >= 0])) for row in model.window_labels_] == counts
    for planted, row in zip(data.y_windows.numpy(), model.window_labels_, strict=True):
        seen = row >= 0
        assert adjusted_rand_score(planted[seen], row[seen]) > 0.95
    assert model.n_clusters_ == 4, "over all windows"


def test_clusters_that_only_timing_tells_stay_apart():
    """In the graph of contacts the clusters of sessions are one."""
    data = load("sessions:n=100,k=3,sessions=6,events=6,seed=2")
    rows = TGC(3, windows=2, epochs=2, random_state=0).fit(data).window_labels_
    assert [adjusted_rand_score(data.y.numpy(), row) > 0.9 for row in rows] == [True, True]
