"""Coercion of every input kind to one Graph, its policy, and what is refused."""

import igraph
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphclust.coerce import as_graph
from graphclust.graph import InputError, build_graph, from_adjacency

EDGES = np.array([[0, 1, 2, 2], [1, 2, 0, 3]])


def test_policy_loops_dropped_duplicates_summed_direction_dropped():
    graph = build_graph(np.array([[0, 0, 1, 2, 2], [1, 1, 2, 2, 1]]), 4, np.array([1.0, 2.0, 5.0, 9.0, 4.0]))
    dense = graph.adjacency.toarray()
    want = np.zeros((4, 4))
    want[0, 1] = want[1, 0] = 3  # a repeated edge: summed
    want[1, 2] = want[2, 1] = 5  # both directions given: the larger
    assert (dense == want).all()  # and the loop at 2 is gone


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=40))
def test_adjacency_is_symmetric_and_loopless_for_any_edge_list(pairs):
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = build_graph(edges, 9)
    a = graph.adjacency
    assert (a != a.T).nnz == 0 and not a.diagonal().any() and a.has_sorted_indices
    once, weights = graph.edges()
    assert len(once) == len(weights) == graph.m
    assert (once[:, 0] < once[:, 1]).all()
    assert {tuple(sorted(p)) for p in pairs if p[0] != p[1]} == {tuple(p) for p in once.tolist()}


def test_all_kinds_agree():
    want = build_graph(EDGES, 5).adjacency.toarray()
    both = np.hstack((EDGES, EDGES[::-1]))
    g = nx.Graph(EDGES.T.tolist())
    g.add_node(4)
    g = nx.relabel_nodes(g, {i: i for i in range(5)})
    ordered = nx.Graph()
    ordered.add_nodes_from(range(5))
    ordered.add_edges_from(g.edges)
    kinds = [
        Data(edge_index=torch.from_numpy(both), num_nodes=5),
        ordered,
        igraph.Graph(n=5, edges=EDGES.T.tolist()),
        sp.csr_array(want),
        (np.ones((5, 2)), EDGES),
        (torch.ones(5, 2), torch.from_numpy(EDGES)),
    ]
    for kind in kinds:
        assert (as_graph(kind).adjacency.toarray() == want).all(), type(kind)


def test_ids_and_weights_survive():
    g = nx.Graph()
    g.add_edge("b", "a", weight=2.0)
    g.add_node("lonely")
    graph = as_graph(g)
    assert graph.node_ids.tolist() == ["b", "a", "lonely"] and graph.is_weighted
    h = igraph.Graph(n=3, edges=[(0, 1)])
    h.vs["name"], h.es["weight"] = ["x", "y", "z"], [3.0]
    assert as_graph(h).node_ids.tolist() == ["x", "y", "z"] and as_graph(h).adjacency[0, 1] == 3


def test_weights_of_pyg_data():
    edges = torch.tensor([[0, 1], [1, 0]])
    assert as_graph(Data(edge_index=edges, num_nodes=2, edge_weight=torch.tensor([2.0, 2.0]))).adjacency[0, 1] == 2
    assert as_graph(Data(edge_index=edges, num_nodes=2, edge_attr=torch.full((2, 1), 4.0))).adjacency[0, 1] == 4
    assert not as_graph(Data(edge_index=edges, num_nodes=2, edge_attr=torch.ones(2, 3))).is_weighted


def test_degrees_and_counts():
    graph = build_graph(EDGES, 5)
    assert graph.n == 5 and graph.m == 4 and graph.degrees.tolist() == [2, 2, 3, 1, 0]


def test_sparse_and_torch_features_equal_dense():
    x = np.array([[0, 2.0], [0, 0], [1, 0], [0, 0], [0, 3]], dtype=np.float32)
    t = torch.from_numpy(x)
    for kind in (sp.csr_array(x), t, t.to_sparse_coo(), t.to_sparse_csr()):
        got = build_graph(EDGES, 5, x=kind).x
        assert ((got.toarray() if sp.issparse(got) else got) == x).all()


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"edge_index": np.array([[0], [7]]), "n": 5}, ["7", "0..4"]),
        ({"edge_index": np.array([[-1], [1]]), "n": 5}, ["-1"]),
        ({"edge_index": np.array([[0.5], [1]]), "n": 5}, ["float64", "integers"]),
        ({"edge_index": np.zeros((3, 2), int), "n": 5}, ["(3, 2)"]),
        ({"edge_index": np.empty((2, 0), int), "n": 0}, ["empty"]),
        ({"edge_index": EDGES, "n": 5, "weights": [1, 2]}, ["2 edge weights", "4 edges"]),
        ({"edge_index": EDGES, "n": 5, "weights": [1, 2, 3, -1]}, ["negative", "-1"]),
        ({"edge_index": EDGES, "n": 5, "weights": [1, 2, 3, np.nan]}, ["NaN"]),
        ({"edge_index": EDGES, "n": 5, "x": np.ones((4, 2))}, ["4 rows", "n = 5"]),
        ({"edge_index": EDGES, "n": 5, "x": np.full((5, 2), np.inf)}, ["infinite"]),
        ({"edge_index": EDGES, "n": 5, "x": np.ones(5)}, ["(n, d)"]),
        ({"edge_index": EDGES, "n": 5, "node_ids": ["a"]}, ["1 node ids", "n = 5"]),
    ],
)
def test_bad_input_is_refused_by_name(kwargs, words):
    with pytest.raises(InputError) as e:
        build_graph(**kwargs)
    assert all(w in str(e.value) for w in words), str(e.value)


def test_other_types_and_shapes_are_refused():
    with pytest.raises(InputError, match="str"):
        as_graph("cora")
    with pytest.raises(InputError, match="square"):
        from_adjacency(sp.csr_array((2, 3)))
    with pytest.raises(InputError, match="empty"):
        as_graph(nx.Graph())


def test_input_is_not_modified():
    a = sp.csr_array(np.array([[1.0, 2], [0, 0]]))
    before = a.copy()
    from_adjacency(a)
    assert (a != before).nnz == 0
