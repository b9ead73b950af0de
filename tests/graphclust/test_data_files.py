"""Readers of files: what is kept, what is sniffed, and each refusal."""

import gzip

import igraph
import networkx as nx
import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch
from torch_geometric.data import Data

from graphclust.data import load
from graphclust.graph import InputError


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHCLUST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edges_of(data) -> dict[tuple, float]:
    """Edges once, by original ids, with weights."""
    ids = (data.node_id if "node_id" in data else np.arange(data.num_nodes)).tolist()
    weights = data.edge_weight.tolist() if "edge_weight" in data else [1.0] * data.num_edges
    pairs = zip(*data.edge_index.tolist(), weights, strict=True)
    return {(ids[a], ids[b]): w for a, b, w in pairs if a < b}


@pytest.mark.parametrize(("name", "text", "params", "edges"), [
    ("e.csv", "0,1\n1,2\n", "", {(0, 1): 1, (1, 2): 1}),
    ("e.csv", "source,target\n0,1\n", "", {(0, 1): 1}),
    ("e.tsv", "a\tb\nb\tc\n", "", {("a", "b"): 1, ("b", "c"): 1}),
    ("e.txt", "0 1\r\n1   2\r\n", "", {(0, 1): 1, (1, 2): 1}),
    ("e.txt", "# a comment\n% another\n5 9\n# in the middle\n9 11\n\n", "", {(5, 9): 1, (9, 11): 1}),
    ("e.csv", "from;to;weight\nx;y;2.5\n", "", {("x", "y"): 2.5}),
    ("e.csv", "u1,u2,strength\n1,2,3\n", ":weight=strength", {(1, 2): 3}),
    ("e.csv", "when,b,a\n9,1,2\n", ":source=a,target=b", {(1, 2): 1}),
    ("e.csv", "1,2,3\n", ":weight=2", {(1, 2): 3}),
    ("e.csv", "1,2,3\n", ":weight=false", {(1, 2): 1}),
    ("e.csv", "a,b\n1,2\n", ":header=false", {("1", "2"): 1, ("a", "b"): 1}),
    ("e.csv", "007,7\n7,8\n", "", {("007", "7"): 1, ("7", "8"): 1}),
    ("e.csv", "NA,null\nnull,é\n", "", {("NA", "null"): 1, ("null", "é"): 1}),
    ("e.csv", "1.50,2\n", "", {("1.50", "2"): 1}),
    ("e.csv", '"a, b",c\n', "", {("a, b", "c"): 1}),
    ("e.csv", "\ufeffsource,target\n0,1\n", "", {(0, 1): 1}),
    ("e.csv", "-5,3\n", "", {(-5, 3): 1}),
    ("e.csv", "3,100000000000000\n", "", {(3, 10**14): 1}),
    ("e.csv", "99999999999999999999,1\n", "", {("1", "99999999999999999999"): 1}),
    ("e.csv", "0,1\n1,0\n0,0\n0,1\n", ":directed=false", {(0, 1): 3}),
])
def test_text_edge_lists(here, name, text, params, edges):
    (here / name).write_bytes(text.encode())
    assert edges_of(load(name + params)) == edges


def test_gzip_and_policy_are_recorded(here):
    with gzip.open(here / "e.csv.gz", "wt") as f:
        f.write("0,1\n1,0\n2,2\n0,1\n1,2\n")
    data = load("e.csv.gz:multi_edges=max")
    assert edges_of(data) == {(0, 1): 1, (1, 2): 1}
    assert data.info["policy"] == {
        "directed": "symmetrise", "self_loops": "drop", "multi_edges": "max", "dropped_self_loops": 1,
        "dropped_zero_weights": 0, "merged_multi_edges": 1, "symmetrised_edges": 1,
    }
    assert data.name == "e"


def test_nodes_labels_and_features_keep_isolated_nodes_and_order(here):
    (here / "e.csv").write_text("b,a\n")
    (here / "nodes.csv").write_text("id\nz\nb\na\n")
    (here / "labels.csv").write_text("node,label\na,red\nz,blue\n")
    (here / "x.csv").write_text("node,f,g\nz,1,2\na,3,4\nb,5,6\n")
    data = load("e.csv:nodes=nodes.csv,labels=labels.csv,features=x.csv")
    assert data.node_id.tolist() == ["z", "b", "a"]
    assert data.edge_index.tolist() == [[1, 2], [2, 1]]
    assert data.y.tolist() == [0, -1, 1]
    assert (data.k, data.class_names) == (2, ["blue", "red"])
    assert data.x.tolist() == [[1, 2], [5, 6], [3, 4]]
    np.save(here / "x.npy", np.eye(3))
    assert torch.equal(load("e.csv:nodes=nodes.csv,features=x.npy").x, torch.eye(3))
    assert load("e.csv:labels=labels.csv").node_id.tolist() == ["a", "b", "z"]


def test_integer_ids_with_labels_and_count(here):
    (here / "e.csv").write_text("0,1\n1,2\n")
    (here / "l.csv").write_text("0,1\n4,2\n")
    data = load("e.csv:labels=l.csv")
    assert data.node_id.tolist() == [0, 1, 2, 4]
    assert data.y.tolist() == [0, -1, -1, 1]
    assert data.class_names == ["1", "2"]
    data = load("e.csv:n=5,labels=l.csv")
    assert "node_id" not in data
    assert data.num_nodes == 5


@pytest.mark.parametrize(("text", "ref", "words"), [
    ("", "e.csv", "is empty"),
    ("# only\n", "e.csv", "is empty"),
    ("1,2\n3,4,5\n", "e.csv", "cannot be read as a table"),
    ("1\n2\n", "e.csv", "has one column"),
    ("1,2,3\n", "e.csv", "say which one holds the weights"),
    ("1,2,3\n", "e.csv:weight=w", "no column 'w' (weight); its columns: 0..2, no header"),
    ("source,target,w\n1,2,3\n", "e.csv:weight=cost", "no column 'cost' (weight); its columns: source, target, w"),
    ("source,target\n1,2\n", "e.csv:source=src", "no column 'src' (source)"),
    ("a,b,weight\n1,2,x\n", "e.csv", "row 1 of the data has the weight 'x'"),
    ("a,b,weight\n1,2,\n", "e.csv", "row 1 of the data has the weight"),
    ("a,b,weight\n1,2,-3\n", "e.csv", "negative value -3"),
    ("source,target\na,\n", "e.csv", "empty node id"),
    ("1,2\n", "e.csv:weight=1", "is a column of node ids"),
    ("1,2\n", "e.csv:nodes=nodes.csv", "row 1 of the data names the node 1, which nodes.csv lacks"),
    ("5,6\n", "e.csv:nodes=twice.csv", "lists the node 5 more than once"),
    ("5,6\n", "e.csv:labels=text.csv", "the node id 'a' and the edges' ids are integers"),
    ("5,6\n", "e.csv:labels=nodes.csv", "needs two: node, label"),
    ("5,6\n", "e.csv:labels=absent.csv", "absent.csv cannot be read: No such file"),
    ("5,6\n", "e.csv:n=6", "names the node 6"),
    ("5,6\n", "e.csv:n=0", "n = 0"),
    ("5,6\n", "e.csv:features=short.csv", "no row for the node 6"),
    ("5,6\n", "e.csv:features=absent.npy", "features = absent.npy"),
    ("5,6\n", "e.csv:directed=sideways", "directed = 'sideways' is unknown"),
    ("5,6\n", "e.csv:wieght=2", "did you mean weight"),
    ("5,6\n5,6\n", "e.csv:multi_edges=error", "listed more than once"),
    ("5,5\n", "e.csv:self_loops=error", "self-loops"),
    ("5,6\n", "e.csv:directed=error", "directed"),
])
def test_text_refusals(here, text, ref, words):
    (here / "e.csv").write_text(text)
    (here / "nodes.csv").write_text("5\n6\n")
    (here / "twice.csv").write_text("5\n6\n5\n")
    (here / "text.csv").write_text("id,label\na,0\n")
    (here / "short.csv").write_text("5,1.0\n")
    with pytest.raises(InputError) as e:
        load(ref)
    assert words in str(e.value)


def test_broken_files_are_named(here):
    gz = gzip.compress(b"0,1\n" * 1000)
    for name, content, words in (
        ("e.csv.gz", gz[:-20], "truncated gzip"), ("e.csv", b"\xff\xfe\x00a", "no UTF-8"),
        ("e.npz", b"0,1\n", "no npz"),
        ("e.graphml", b"<graphml", "no valid GraphML"), ("e.mtx", b"%%MatrixMarket nonsense", "no valid Matrix Market"),
        ("e.pt", b"hello", "e.pt"), ("e.dat", b"0 1", "known: .npz, .csv"),
    ):
        (here / name).write_bytes(content)
        with pytest.raises(InputError, match=words) as e:
            load(name)
        assert name in str(e.value)
    (here / "e.npz").write_text("hello")
    with pytest.raises(InputError, match="savez writes them") as e:
        load("e.npz")
    assert "allow_pickle" not in str(e.value), "numpy's advice is to load it unsafely"
    np.savez(here / "good.npz", edge_index=np.zeros((2, 5), int))
    (here / "cut.npz").write_bytes((here / "good.npz").read_bytes()[:100])
    with pytest.raises(InputError, match=r"cut\.npz is no npz file, or a truncated one"):
        load("cut.npz")
    with pytest.raises(InputError, match="is a folder"):
        load(str(here))


@pytest.mark.parametrize(("arrays", "words"), [
    ({"y": np.zeros(3)}, "no array 'edge_index' (it has: y)"),
    ({"edge_index": np.zeros((3, 2), int)}, "shape (3, 2)"),
    ({"edge_index": np.zeros((2, 2))}, "float64"),
    ({"edge_index": np.array([[0], [7]]), "y": np.zeros(3, int)}, "node id 7"),
    ({"edge_index": np.array([[0], [1]]), "x_data": np.ones(1)}, "lack x_indices, x_indptr, x_shape"),
    ({"edge_index": np.array([[0], [1]]), "n": 3, "x": np.ones((2, 2))}, "2 rows"),
    ({"edge_index": np.array([[0], [1]]), "n": 2, "x": np.array([[1.0], [np.inf]])}, "first is inf at row 1, column 0"),
    ({"edge_index": np.array([[0], [1]]), "x_data": np.array([1.0, np.nan]), "x_indices": np.array([0, 2]),
      "x_indptr": np.array([0, 1, 2]), "x_shape": np.array([2, 3])}, "first is nan at row 1, column 2"),
    ({"edge_index": np.empty((2, 0), int)}, "empty graph"),
    ({"edge_index": np.array([[0], [1]]), "x": np.ones((3, 2)), "y": np.zeros(2, int)}, "y has 2, x has 3"),
    ({"edge_index": np.array([{}, 1], dtype=object)}, "pickled objects are not read"),
])
def test_npz_refusals(here, arrays, words):
    np.savez(here / "g.npz", **arrays)
    with pytest.raises(InputError) as e:
        load("g.npz")
    assert words in str(e.value)


def test_scipy_npz_is_an_adjacency_matrix(here):
    a = sp.csr_array(np.array([[0, 2, 0], [2, 0, 0], [0, 0, 0]]))
    for matrix in (a, a.tocoo(), a.tocsc()):
        sp.save_npz(here / "a.npz", matrix)
        data = load("a.npz")
        assert data.num_nodes == 3
        assert edges_of(data) == {(0, 1): 2}
    sp.save_npz(here / "a.npz", sp.csr_array(np.ones((2, 3))))
    with pytest.raises(InputError, match="square"):
        load("a.npz")


def test_graphml_of_igraph_and_networkx(here):
    graph = nx.Graph()
    graph.add_node("lone", label="b")
    graph.add_node("p", label="a")
    graph.add_edge("p", "q", weight=2.5)
    graph.nodes["q"]["label"] = "a"
    nx.write_graphml(graph, here / "nx.graphml")
    data = load("nx.graphml")
    assert data.node_id.tolist() == ["lone", "p", "q"]
    assert data.y.tolist() == [1, 0, 0]
    assert edges_of(data) == {("p", "q"): 2.5}
    directed = igraph.Graph(n=3, edges=[(0, 1), (1, 0), (1, 2)], directed=True)
    directed.vs["group"] = [5.0, 5.0, 9.0]
    directed.write_graphml(str(here / "ig.graphml"))
    data = load("ig.graphml:label=group")
    assert "node_id" not in data
    assert data.class_names == ["5", "9"]
    assert edges_of(data) == {(0, 1): 1, (1, 2): 1}
    with pytest.raises(InputError, match="directed"):
        load("ig.graphml:directed=error")
    for ref, words in (("ig.graphml:label=colour", "no node attribute 'colour'; its attributes: group"),
                       ("ig.graphml:weight=cost", "no edge attribute 'cost'")):
        with pytest.raises(InputError, match=words):
            load(ref)


def test_graphml_labels_that_name_each_node_are_no_classes(here):
    graph = igraph.Graph.Ring(3)
    graph.vs["label"] = ["Ann", "Bob", "Cleo"]
    graph.write_graphml(str(here / "g.graphml"))
    assert "y" not in load("g.graphml")
    assert load("g.graphml:label=label").k == 3


def test_undirected_graphml_repeats_are_parallel_edges(here):
    graph = igraph.Graph(n=2, edges=[(0, 1), (1, 0)])
    graph.write_graphml(str(here / "g.graphml"))
    assert edges_of(load("g.graphml")) == {(0, 1): 2}
    assert edges_of(load("g.graphml:multi_edges=first")) == {(0, 1): 1}


def test_matrix_market(here):
    a = sp.coo_array((np.array([1.5, 2.0]), ([0, 1], [1, 2])), shape=(4, 4))
    scipy.io.mmwrite(here / "a.mtx", a)
    data = load("a.mtx")
    assert data.num_nodes == 4, "the last node is isolated"
    assert edges_of(data) == {(0, 1): 1.5, (1, 2): 2}
    assert edges_of(load("a.mtx:weight=false")) == {(0, 1): 1, (1, 2): 1}
    scipy.io.mmwrite(here / "b.mtx", sp.coo_array(np.ones((2, 3))))
    with pytest.raises(InputError, match="square"):
        load("b.mtx")


def test_pt_of_tensors_is_read_and_of_code_refused(here):
    x, edge_index = torch.rand(3, 2), torch.tensor([[0], [1]])
    full = Data(x=x, edge_index=edge_index, y=torch.tensor([[1], [0], [1]]), edge_attr=torch.tensor([[2.0]]))
    for content in (full, full.to_dict(), (full.to_dict(), None)):
        torch.save(content, here / "g.pt")
        data = load("g.pt")
        assert torch.equal(data.x, x)
        assert data.y.tolist() == [1, 0, 1]
        assert edges_of(data) == {(0, 1): 2}
    torch.save(Data(x=x, edge_index=edge_index, y=torch.ones(3, 4), edge_attr=torch.ones(1, 2)), here / "g.pt")
    data = load("g.pt")
    assert "y" not in data
    assert "4 labels a node" in data.info["labels"] and "2 values an edge" in data.info["edge_features"]
    torch.save({"edge_index": edge_index, "code": print}, here / "g.pt")
    with pytest.raises(InputError, match="cannot be loaded safely"):
        load("g.pt")
    torch.save([1, 2], here / "g.pt")
    with pytest.raises(InputError, match="holds a list"):
        load("g.pt")


def test_a_million_edges_are_read_in_well_under_a_second_of_cpu(here):
    import time

    import pandas as pd

    edges = np.random.default_rng(0).integers(0, 100_000, (1_000_000, 2))
    pd.DataFrame(edges).to_csv(here / "big.txt", sep=" ", index=False, header=False)
    clock = time.process_time()
    data = load("big.txt")
    assert time.process_time() - clock < 2, "0.5 s alone on one core; the margin is for a busy machine"
    assert data.num_nodes == len(np.unique(edges))


def test_features_that_name_a_node_twice_are_refused(tmp_path):
    (tmp_path / "e.csv").write_text("a,b\nb,c\n")
    (tmp_path / "x.csv").write_text("a,1\nb,2\na,3\n")
    with pytest.raises(InputError, match=r"'a' more than once.*\.npy"):
        load(f"{tmp_path / 'e.csv'}:features={tmp_path / 'x.csv'}")
