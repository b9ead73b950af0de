"""The edge policy, label codes and features, against hand-computed and dense results."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphclust.data.assemble import EdgePolicy, build, clean_edges, encode_labels, feature_tensor
from graphclust.graph import InputError

# a loop, an edge listed three times in one direction and once in the other, and a one-way edge
EDGES = np.array([[0, 1, 1, 1, 2, 2], [0, 2, 2, 2, 1, 3]])
WEIGHTS = np.array([9.0, 1.0, 5.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(("policy", "weight", "merged", "one_way"), [
    (EdgePolicy(), 8, 2, 1),  # max(1 + 5 + 2, 3)
    (EdgePolicy(directed=True), 8, 2, 1),
    (EdgePolicy(directed=False), 11, 3, 0),  # 1 + 5 + 2 + 3
    (EdgePolicy(multi_edges="first"), 3, 2, 1),  # max(1, 3)
    (EdgePolicy(multi_edges="max"), 5, 2, 1),
    (EdgePolicy(directed=False, multi_edges="first"), 1, 3, 0),
])
def test_policy_by_hand(policy, weight, merged, one_way):
    matrix, counts = clean_edges(EDGES, 4, WEIGHTS, policy)
    expected = np.zeros((4, 4))
    expected[1, 2] = expected[2, 1] = weight
    expected[2, 3] = expected[3, 2] = 4
    assert np.array_equal(matrix.toarray(), expected)
    assert counts == {"dropped_self_loops": 1, "dropped_zero_weights": 0, "merged_multi_edges": merged,
                      "symmetrised_edges": one_way}


@pytest.mark.parametrize(("policy", "words"), [
    (EdgePolicy(self_loops="error"), "1 self-loops, the first at node 0"),
    (EdgePolicy(multi_edges="error"), r"2 edges are listed more than once, such as \(1, 2\)"),
    (EdgePolicy(directed="error", multi_edges="first"), "directed: 1 arcs"),
])
def test_policy_refuses(policy, words):
    with pytest.raises(InputError, match=words):
        clean_edges(EDGES, 4, WEIGHTS, policy)


def test_directed_error_sees_unequal_weights_and_passes_symmetric_lists():
    both = np.array([[0, 1], [1, 0]])
    clean_edges(both, 2, np.array([2.0, 2.0]), EdgePolicy(directed="error"))
    with pytest.raises(InputError, match="directed"):
        clean_edges(both, 2, np.array([2.0, 3.0]), EdgePolicy(directed="error"))


@pytest.mark.parametrize("bad", [{"directed": "maybe"}, {"directed": 1}, {"self_loops": "keep"}, {"multi_edges": True}])
def test_unknown_policy_is_named(bad):
    (key, value), = bad.items()
    with pytest.raises(InputError, match=f"{key} = {value!r} is unknown; allowed: "):
        EdgePolicy(**bad)


@pytest.mark.parametrize(("edges", "weights", "words"), [
    ([[0], [4]], None, "node id 4; with n = 4"),
    ([[-1], [2]], None, "node id -1"),
    ([[0], [1]], [-1.0], "negative value -1"),
    ([[0], [1]], [np.nan], "NaN"),
    ([[0], [1]], [1.0, 2.0], "2 edge weights for 1 edges"),
])
def test_bad_edges_are_refused(edges, weights, words):
    with pytest.raises(InputError, match=words):
        clean_edges(np.array(edges), 4, None if weights is None else np.array(weights), EdgePolicy())


def test_zero_weights_are_no_edges():
    matrix, counts = clean_edges(np.array([[0, 1], [1, 2]]), 3, np.array([0.0, 1.0]), EdgePolicy())
    assert matrix.nnz == 2
    assert counts["dropped_zero_weights"] == 1


@settings(max_examples=60)
@given(st.integers(1, 6).flatmap(lambda n: st.tuples(
    st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.integers(1, 9)), max_size=20))),
    st.sampled_from(["sum", "first", "max"]), st.sampled_from(["symmetrise", False]))
def test_policy_equals_a_loop_over_the_rows(graph, multi, directed):
    n, rows = graph
    seen: dict[tuple[int, int], float] = {}
    for a, b, w in rows:
        if a == b:
            continue
        pair = (min(a, b), max(a, b)) if directed is False else (a, b)
        old = seen.get(pair)
        seen[pair] = w if old is None else {"sum": old + w, "first": old, "max": max(old, w)}[multi]
    dense = np.zeros((n, n))
    for (a, b), w in seen.items():
        dense[a, b] = dense[b, a] = max(w, seen.get((b, a), 0))
    edges = np.array([r[:2] for r in rows], dtype=np.int64).reshape(-1, 2).T
    weights = np.array([r[2] for r in rows], dtype=float)
    matrix, _ = clean_edges(edges, n, weights, EdgePolicy(directed=directed, multi_edges=multi))
    assert np.array_equal(matrix.toarray(), dense)


def test_edge_weight_only_when_not_all_one():
    pair = np.array([[0], [1]])
    assert "edge_weight" not in build("g", pair, 2, weights=[1.0])
    assert build("g", pair, 2, weights=[2.0]).edge_weight.tolist() == [2.0, 2.0]
    data = build("g", np.empty((2, 0), dtype=int), 3)
    assert data.num_nodes == 3
    assert data.edge_index.shape == (2, 0)
    assert data.x is None and "y" not in data and "node_id" not in data and "k" not in data
    with pytest.raises(InputError, match="empty graph"):
        build("g", np.empty((2, 0), dtype=int), 0)


@pytest.mark.parametrize(("labels", "codes", "k", "names"), [
    ([0, 1, 1, -1], [0, 1, 1, -1], 2, None),
    ([3, 7, 7, -5], [0, 1, 1, -1], 2, ["3", "7"]),
    ([2.0, np.nan, 1.0], [1, -1, 0], 2, ["1", "2"]),
    ([0.5, 1.5], [0, 1], 2, ["0.5", "1.5"]),
    (np.array(["b", None, "a", ""], dtype=object), [1, -1, 0, -1], 2, ["a", "b"]),
    ([-1, -1], [-1, -1], 0, None),
])
def test_labels_are_coded(labels, codes, k, names):
    y, count, found = encode_labels(labels)
    assert y.tolist() == codes
    assert count == k
    assert (None if found is None else [str(c) for c in found]) == names


def test_declared_classes_win_over_those_that_occur():
    data = build("g", np.array([[0], [1]]), 2, y=[0, 1], class_names=["p", "q", "r"])
    assert data.k == 3
    with pytest.raises(InputError, match="label 5 has no name"):
        build("g", np.array([[0], [1]]), 2, y=[0, 5], class_names=["p"])
    with pytest.raises(InputError, match="3 labels for n = 2"):
        build("g", np.array([[0], [1]]), 2, y=[0, 1, 0])


def test_labels_that_are_all_unknown_are_no_labels():
    assert "y" not in build("g", np.array([[0], [1]]), 2, y=[-1, -1])
    data = build("g", np.array([[0], [1]]), 2, y=[-1, -1], k=4)
    assert (data.k, data.y.tolist()) == (4, [-1, -1])


def test_features_are_sparse_below_a_tenth():
    x = np.zeros((10, 10))
    x[np.arange(9), 0] = 1
    assert feature_tensor(x, 10).is_sparse
    assert torch.equal(feature_tensor(x, 10).to_dense(), torch.tensor(x, dtype=torch.float32))
    x[9, 0] = 1
    assert not feature_tensor(x, 10).is_sparse
    for bad, words in ((np.full((2, 1), np.nan), "NaN"), (np.ones((3, 1)), "3 rows")):
        with pytest.raises(InputError, match=words):
            feature_tensor(bad, 2)
