"""Streams of events from npz and text: what is kept, what is sniffed, each refusal, and the way back to a file."""

import gzip
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, TemporalData
from typer.testing import CliRunner

from graphclust.cli import app
from graphclust.coerce import as_graph, as_stream
from graphclust.data import CATALOGUE, load
from graphclust.data.catalogue import local_copy
from graphclust.data.cli import app as data_app
from graphclust.data.convert import save
from graphclust.data.events import build_events
from graphclust.data.summary import summarise
from graphclust.graph import InputError


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHCLUST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def events_of(data) -> list[tuple]:
    """The events in their order: original ids and time."""
    ids = (data.node_id if "node_id" in data else np.arange(data.n_nodes)).tolist()
    return [(ids[s], ids[d], t) for s, d, t in zip(*(data[key].tolist() for key in ("src", "dst", "t")), strict=True)]


def run(command: str, *arguments: str) -> str:
    whole = (data_app, arguments) if command == "data" else (app, (command, *arguments))
    result = CliRunner().invoke(whole[0], list(whole[1]))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(("text", "params", "events"), [
    ("source,target,time\nb,a,7\na,c,5\n", "", [("a", "c", 5), ("b", "a", 7)]),
    ("t i j\n5 1 2\n3 2 3\n", "", [(2, 3, 3), (1, 2, 5)]),
    ("u,v,Timestamp\n0,1,1700000010.5\n1,2,1700000000\n", "", [(1, 2, 1.7e9), (0, 1, 1700000010.5)]),
    ("20 4 5\n10 5 4\n", ":time=0", [(5, 4, 10), (4, 5, 20)]),
    ("4,5,0.5,x\n5,4,0.25,y\n", ":time=2", [(5, 4, 0.25), (4, 5, 0.5)]),
    ("who,whom,when\n1,2,9\n", ":time=when", [(1, 2, 9)]),
    ("when,a,b\n9,1,2\n", ":time=when,source=b,target=a", [(2, 1, 9)]),
    ("a,b,ts\n1,2,3\n1,2,3\n2,1,3\n3,3,4\n", "", [(1, 2, 3), (1, 2, 3), (2, 1, 3)]),
    ("s,t,time\n1,2,3\n", "", [(1, 2, 3)]),
    ("a,b,date\n1,2,1970-01-02\n2,3,1970-01-01T01:00:30\n3,1,1970-01-01 02:00:00+01:00\n", "",
     [(3, 1, 3600), (2, 3, 3630), (1, 2, 86400)]),
])
def test_a_column_of_times_makes_a_stream(here, text, params, events):
    (here / "e.csv").write_text(text)
    data = load(f"e.csv{params}")
    assert isinstance(data, TemporalData)
    assert events_of(data) == events
    assert (data.src.dtype, data.dst.dtype, data.t.dtype) == (torch.int64, torch.int64, torch.float64)
    assert data.name == "e"


@pytest.mark.parametrize(("text", "params"), [
    ("a,b,time\n1,2,5\n1,2,6\n", ":time=false"), ("s,t\n1,2\n2,1\n", ""), ("s,t,weight\n1,2,2\n", ""),
    ("a,b,time\n1,2,2\n", ":weight=time"), ("time,t\n1,2\n2,1\n", ":source=time,target=t"),
])
def test_what_is_no_time_leaves_a_static_graph(here, text, params):
    (here / "e.csv").write_text(text)
    data = load(f"e.csv{params}")
    assert type(data) is Data
    assert as_graph(data).m == 1


def test_info_says_what_was_dropped_ignored_and_out_of_order(here):
    with gzip.open(here / "e.csv.gz", "wt") as f:
        f.write("source,target,weight,time\n1,2,9,5\n2,2,9,4\n1,3,9,6\n3,1,9,0\n")
    info = load("e.csv.gz").info
    assert info["policy"] == {"dropped_self_loops": 1, "steps_back_in_time": 2}
    assert info["ignored_columns"] == ["weight"]


def test_nodes_labels_features_and_count_as_for_edge_lists(here):
    (here / "e.csv").write_text("a,b,time\nb,a,2\n")
    (here / "nodes.csv").write_text("id\nz\nb\na\n")
    (here / "labels.csv").write_text("node,label\na,red\nz,blue\n")
    (here / "x.csv").write_text("node,f,g\nz,1,2\na,3,4\nb,5,6\n")
    data = load("e.csv:nodes=nodes.csv,labels=labels.csv,features=x.csv")
    assert (data.n_nodes, data.k, data.class_names) == (3, 2, ["blue", "red"])
    assert data.node_id.tolist() == ["z", "b", "a"] and data.y.tolist() == [0, -1, 1]
    assert data.x.tolist() == [[1, 2], [5, 6], [3, 4]]
    stream = as_stream(data)
    assert stream.n == 3 and stream.node_ids.tolist() == ["z", "b", "a"] and stream.x.shape == (3, 2)
    (here / "i.csv").write_text("0,1,2\n")
    assert load("i.csv:time=2,n=5").n_nodes == 5


@pytest.mark.parametrize(("text", "params", "words"), [
    ("a,b,time\n1,2,5\n2,3,\n", "", "row 2 of the data has the time 'nan'"),
    ("a,b,time\n1,2,\n2,3,4\n", "", "row 1 of the data has the time 'nan'"),
    ("a,b,time\n1,2,5\n2,3,nan\n", "", "row 2 of the data has the time 'nan'"),
    ("a,b,time\n1,2,5\n2,3,-7\n", "", "row 2 of the data has the time '-7'"),
    ("a,b,time\n1,2,inf\n", "", "row 1 of the data has the time 'inf'"),
    ("a,b,time\n1,2,5\n1,2,soon\n", "", "row 2 of the data has the time 'soon'"),
    ("a,b,time\n1,2,1969-12-31\n", "", "ISO dates from 1970 on"),
    ("a,b,time\n", "", "the stream is empty"),
    ("a,b,time\n1,1,3\n", "", "join a node with itself"),
    ("a,time\n1,2\n1,2\n", ":target=time,time=time", "one column besides the times"),
    ("a,b,time\n1,2,3\n", ":time=a,source=a", "time = 'a' is a column of node ids"),
    ("a,b,c\n1,2,3\n", ":time=when", "no column 'when' (time); its columns: a, b, c"),
    ("1,2,3\n", ":time=3", "no column 3 (time); its columns: 0..2, no header"),
    ("1,2,3\n", "", "or the times of a stream, such as time=2"),
    ("a,b,time\n1,2,3\n", ":directed=false", "time=false"),
    ("a,b,time,w\n1,2,3,4\n", ":weight=w", "events, which have no weight"),
    ("a,b,time\n0,7,3\n", ":n=5", "row 1 of the data names the node 7"),
    ("a,b,time\nx,,3\n", "", "row 1 of the data has an empty node id"),
])
def test_text_refusals(here, text, params, words):
    (here / "e.csv").write_text(text)
    with pytest.raises(InputError) as e:
        load(f"e.csv{params}")
    assert words in str(e.value)


EVENTS = {"src": np.array([0, 2, 1]), "dst": np.array([1, 1, 1]), "time": np.array([5, 3, 4])}


@pytest.mark.parametrize(("change", "words"), [
    ({"time": None}, "has 'src' but not time"), ({"dst": None}, "has 'src' but not dst"),
    ({"time": np.array([1, 2])}, "3 sources, 3 targets and 2 times"),
    ({"time": np.array([1, np.nan, 2])}, "event 1 has the time nan"),
    ({"time": np.array([1, 3, -2])}, "event 2 has the time -2"),
    ({"n": 2}, "node id 2; with n = 2"), ({"label": np.array([0, 1])}, "node id 2; with n = 2"),
    ({"src": np.array([0.0, 1, 2])}, "src has dtype float64"), ({"src": np.array(["a", "b", "c"])}, "dtype <U1"),
    ({"src": np.array(["a", "b", "c"]), "dst": np.array(["b", "c", "b"]), "y": np.zeros(3, int)}, "needs node_id"),
    ({"time": np.array(["5", "late", "6"])}, "the times have dtype <U4"),
    ({"n": 9, "y": np.zeros(4, int)}, "4 labels for n = 9"), ({"n": 9, "node_id": np.arange(4)}, "4 node ids"),
    ({key: np.empty(0, int) for key in EVENTS}, "the stream is empty"),
    ({"n": 4, "x": np.ones((3, 1))}, "the features have 3 rows"),
])
def test_npz_refusals(here, change, words):
    np.savez(here / "s.npz", **{key: value for key, value in {**EVENTS, **change}.items() if value is not None})
    with pytest.raises(InputError) as e:
        load("s.npz")
    assert words in str(e.value)


def test_npz_streams_by_either_name_of_times_and_labels(here):
    for time, label in (("time", "label"), ("t", "y")):
        arrays = {"src": EVENTS["src"], "dst": EVENTS["dst"], time: EVENTS["time"], label: np.array([4, -1, 4, 9])}
        np.savez(here / "s.npz", **arrays)
        data = load("s.npz")
        assert events_of(data) == [(2, 1, 3), (0, 1, 5)] and data.n_nodes == 4
        assert data.y.tolist() == [0, -1, 0, 1] and data.class_names == ["4", "9"]
        assert data.info["policy"]["dropped_self_loops"] == 1
    with pytest.raises(InputError, match="self_loops, multi_edges"):
        load("s.npz:self_loops=error")


def test_npz_streams_whose_nodes_have_names(here):
    names = {"src": np.array(["eve", "ann", "bob"]), "dst": np.array(["ann", "bob", "bob"]), "time": [5, 3, 4]}
    np.savez(here / "s.npz", **names)
    data = load("s.npz")
    assert data.node_id.tolist() == ["ann", "bob", "eve"] and events_of(data) == [("ann", "bob", 3), ("eve", "ann", 5)]
    np.savez(here / "s.npz", **names, node_id=np.array(["bob", "ann", "zoe", "eve"]), y=np.array([0, 1, 1, 0]))
    data = load("s.npz")
    assert events_of(data) == [("ann", "bob", 3), ("eve", "ann", 5)]
    assert data.node_id.tolist() == ["bob", "ann", "zoe", "eve"]
    assert data.n_nodes == 4 and data.y.tolist() == [0, 1, 1, 0]


def test_a_graph_and_a_stream_of_the_users_folder_may_share_a_file_name(monkeypatch, here):
    for folder in ("graphs", "temporal"):
        (here / folder).mkdir()
    stream = {**EVENTS, "label": np.array([0, 1, 0])}
    np.savez(here / "temporal" / "dblp.npz", **stream)
    monkeypatch.setenv("GRAPHCLUST_DATA", str(here))
    with pytest.raises(InputError, match="dblp is not on this machine"):
        load("dblp")
    np.savez(here / "graphs" / "dblp.npz", edge_index=np.array([[0], [1]]), y=np.array([0, 1]))
    assert type(load("dblp")) is Data
    data = load("dblp_temporal")
    assert isinstance(data, TemporalData)
    assert (data.k, data.name) == (10, "dblp_temporal"), "k as the catalogue declares"
    assert data.info["source"] == CATALOGUE["dblp_temporal"].source
    np.savez(here / "temporal" / "mine.npz", **stream)
    assert isinstance(load("mine"), TemporalData), "a name that only this folder knows"
    assert local_copy("dblp_temporal") == here / "temporal" / "dblp.npz"


@st.composite
def streams(draw):
    words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6)
    ids = draw(st.one_of(st.lists(words.filter(lambda w: w[0] not in "#%"), min_size=2, max_size=7, unique=True),
                         st.lists(st.integers(-50, 10**12), min_size=2, max_size=7, unique=True)))
    end = st.integers(0, len(ids) - 1)
    times = st.one_of(st.integers(0, 9), st.floats(0, 2e9, allow_subnormal=False))
    rows = draw(st.lists(st.tuples(end, end, times), min_size=1, max_size=15).filter(
        lambda rows: any(s != d for s, d, _ in rows)))
    labels = draw(st.lists(st.sampled_from(["red", "blue sky", "n,o", ""]), min_size=len(ids), max_size=len(ids)))
    src, dst, time = (np.array(column) for column in zip(*rows, strict=True))
    keep = np.array(ids) if isinstance(ids[0], int) else np.array(ids, dtype=object)
    return rows, build_events("g", src, dst, time, len(ids), y=np.array(labels, dtype=object), node_id=keep)


@pytest.mark.parametrize("form", ["npz", "csv", "tsv.gz"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=streams())
def test_round_trip_of_out_of_order_and_repeated_events(here, form, drawn):
    rows, data = drawn
    kept = sorted(((t, i) for i, (s, d, t) in enumerate(rows) if s != d))
    assert data.t.tolist() == [t for t, _ in kept], "sorted, repetitions kept"
    ref, lost = save(data, here / f"g.{form}")
    again = load(ref)
    assert lost == []
    assert [(str(s), str(d), t) for s, d, t in events_of(again)] == [(str(s), str(d), t) for s, d, t in events_of(data)]
    assert again.n_nodes == data.n_nodes
    assert ("y" in again) == ("y" in data)
    if "y" in data:
        assert torch.equal(again.y, data.y) and again.class_names == data.class_names


def test_planted_windows_survive_npz_and_are_named_as_lost_in_text(here):
    data = load("drifting:n=40,k=2,windows=3,split=[2,0]")
    ref, lost = save(data, here / "d.npz")
    again = load(ref)
    assert lost == [] and again.k == data.k == 3
    for key in ("src", "dst", "t", "y", "y_windows", "window_edges"):
        assert torch.equal(again[key], data[key]) and again[key].dtype == data[key].dtype
    assert save(data, here / "d.csv")[1] == ["y_windows"]
    for form in ("graphml", "mtx"):
        with pytest.raises(InputError, match="cannot hold the times of a stream"):
            save(data, here / f"d.{form}")


def test_summary_by_hand_and_the_commands(here):
    data = build_events("g", np.array([0, 1, 0, 3]), np.array([1, 0, 2, 0]), np.array([2.0, 4, 4, 1]), 5,
                        y=np.array([0, 0, 1, -1, 1]))
    s = summarise(data)
    assert (s["n_nodes"], s["n_events"], s["n_edges"], s["isolated_nodes"]) == (5, 4, 3, 1)
    assert s["time"] == {"first": 1.0, "last": 4.0, "distinct": 3}
    assert (s["n_classes"], s["class_sizes"], s["unlabelled"]) == (2, {"0": 2, "1": 2}, 1)
    assert s["homophily"] == 0.5 and s["degree"]["max"] == 3 and s["components"] == 2
    (here / "e.csv").write_text("a,b,time\nann,bob,1700000000\nbob,cat,1700000060\ndan,bob,1700000001\n")
    assert json.loads(run("data", "info", "e.csv", "--json"))["time"]["last"] == 1700000060
    assert "last 1,700,000,060" in run("data", "info", "e.csv")
    document = json.loads(run("data", "convert", "e.csv", "e.npz", "--json"))
    assert (document["n_events"], document["n_nodes"]) == (3, 4)
    assert events_of(load(document["ref"])) == events_of(load("e.csv"))
    rows = {row["name"]: row for row in json.loads(run("data", "list", "--json"))}
    assert rows["patent"]["events"] == 41916 and rows["school"]["fetchable"]


def test_a_run_on_a_stream_exports_labels_under_the_users_ids(here):
    rows = [f"{a},{b},{t}" for t, (a, b) in enumerate(["xy", "yz", "zx", "pq", "qr", "rp", "xp", "xy"])]
    (here / "e.csv").write_text("a,b,time\n" + "\n".join(rows) + "\n")
    run("run", "leiden", "--data", "e.csv", "--out", "done", "--graphml", "--json")
    table = dict(line.split(",") for line in (here / "done" / "labels.csv").read_text().splitlines()[1:])
    assert table["x"] == table["y"] == table["z"] != table["p"] == table["q"] == table["r"]
    assert (here / "done" / "graph.graphml").exists()
    assert "n_clusters" in json.loads(run("evaluate", "done/labels.csv", "--data", "e.csv", "--json"))
