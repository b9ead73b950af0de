"""Planted streams: what timing alone shows and the aggregated graph does not, balance, changes, refusals."""

import time

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import TemporalData

from graphclust.coerce import as_graph, as_stream
from graphclust.data import CATALOGUE, load
from graphclust.graph import Graph, InputError
from graphclust.methods import get_method


def ari(data, labels) -> float:
    return adjusted_rand_score(data.y.numpy(), labels)


def met_in_a_row(data, pause: float) -> np.ndarray:
    """How often two nodes are met one after the other by a third one, no longer than ``pause`` apart: (n, n)."""
    s = as_stream(data)
    who, whom, when = np.append(s.src, s.dst), np.append(s.dst, s.src), np.append(s.time, s.time)
    order = np.lexsort((when, who))
    who, whom, when = who[order], whom[order], when[order]
    close = (who[1:] == who[:-1]) & (np.diff(when) < pause)
    pairs = (whom[:-1][close], whom[1:][close])
    counts = sp.coo_array((np.ones(close.sum()), pairs), shape=(s.n, s.n)).toarray()
    return counts + counts.T


def factorise(counts: np.ndarray, k: int) -> np.ndarray:
    """k-means of the leading singular vectors but the first, of the counts divided by those of chance."""
    degree = np.maximum(counts.sum(axis=0), 1)
    u = np.linalg.svd(counts / np.sqrt(np.outer(degree, degree)))[0]
    return KMeans(k, n_init=10, random_state=0).fit_predict(u[:, 1:k])


@pytest.mark.parametrize("ref", ["sessions:seed=0", "sessions:seed=1", "sessions:n=300,k=5,sessions=3,events=5"])
def test_timing_shows_the_communities_and_no_static_method_does(ref):
    data = load(ref)
    assert ari(data, factorise(met_in_a_row(data, pause=5.0), data.k)) >= 0.9
    graph = as_graph(data)
    wedges = sp.csr_array(graph.adjacency @ graph.adjacency)
    wedges.setdiag(0)
    for seen in (graph, Graph(wedges)):
        assert abs(ari(data, get_method("spectral")(n_clusters=data.k, random_state=0).fit(seen).labels_)) <= 0.1
    assert abs(ari(data, get_method("leiden")(random_state=0).fit(graph).labels_)) <= 0.1
    shuffled = load(ref)
    shuffled.t = shuffled.t[torch.randperm(shuffled.num_events, generator=torch.Generator().manual_seed(0))]
    assert abs(ari(data, factorise(met_in_a_row(shuffled, pause=5.0), data.k))) <= 0.1, "times at random: nothing left"


def pairs_of(data) -> np.ndarray:
    return np.sort(data.src.numpy() * data.n_nodes + data.dst.numpy())


def test_the_aggregated_graph_of_sessions_does_not_depend_on_the_communities():
    two, three, lone = (load(f"sessions:n=60,k={k},sessions={s},events=4,seed=5") for k, s in ((2, 3), (3, 2), (1, 6)))
    assert np.array_equal(pairs_of(two), pairs_of(three)) and np.array_equal(pairs_of(two), pairs_of(lone))
    assert not torch.equal(two.y, three.y)


def test_sessions_are_what_the_parameters_say():
    n, k, sessions, events = 120, 3, 4, 6
    data = load(f"sessions:n={n},k={k},sessions={sessions},events={events},gap=2,pause=500,seed=3")
    src, dst, t, y = (data[key].numpy() for key in ("src", "dst", "t", "y"))
    assert np.bincount(src).tolist() == [k * sessions * events] * n, "every node makes as many visits"
    assert np.bincount(y).tolist() == [n // k] * k
    order = np.lexsort((t, src))
    src, dst, t = src[order], dst[order], t[order]
    assert np.all(src != dst)
    begins = np.append(True, (src[1:] != src[:-1]) | (y[dst[1:]] != y[dst[:-1]]))
    # sessions of one community that follow one another run together here: fewer than there are, never more
    blocks = np.bincount(src[begins], minlength=n)
    assert blocks.max() <= k * sessions and blocks.mean() > 0.6 * k * sessions
    same = src[1:] == src[:-1]
    gaps, pauses = np.diff(t)[same & ~begins[1:]], np.diff(t)[same & begins[1:]]
    assert np.median(gaps) == pytest.approx(2 * np.log(2), rel=0.1), "the median of an exponential of mean gap"
    assert pauses.mean() == pytest.approx(500, rel=0.1)
    visits = np.zeros((n, k))
    np.add.at(visits, (src, y[dst]), 1)
    members = (np.bincount(y)[None, :] - np.eye(k)[y]) / (n - 1)
    expected = members * k * sessions * events
    assert np.all(np.abs(visits.mean(axis=0) - expected.mean(axis=0)) < 5 * np.sqrt(expected.mean() / n))
    assert ((visits - expected) ** 2 / expected).mean() == pytest.approx(1 - 1 / k, rel=0.3), "chi square: by chance"


@pytest.mark.parametrize("ref", ["sessions:n=50,k=2,seed=3", "drifting:n=50,k=2,seed=3"])
def test_same_seed_same_stream_and_what_load_promises(ref):
    a, b, c = load(ref), load(ref), load(ref.replace("seed=3", "seed=4"))
    assert isinstance(a, TemporalData)
    for key in ("src", "dst", "t", "y"):
        assert torch.equal(a[key], b[key])
    assert not torch.equal(a.t[:20], c.t[:20])
    assert (a.src.dtype, a.t.dtype, a.y.dtype) == (torch.int64, torch.float64, torch.int64)
    assert torch.all(a.t[1:] >= a.t[:-1]) and a.t[0] >= 0
    assert a.info["parameters"]["seed"] == 3 and a.info["source"] == CATALOGUE[a.name].source
    assert as_stream(a).m == a.num_events


def test_drifting_mixes_as_told_and_keeps_the_truth_of_each_window():
    data = load("drifting:n=600,k=6,windows=5,events=20,mixing=0.3,move=0.1,seed=2")
    truth, y = data.y_windows.numpy(), data.y.numpy()
    assert truth.shape == (5, 600) and data.window_edges.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.num_events == 5 * 600 * 20 / 2
    for w, part in enumerate(as_stream(data).windows(data.window_edges.numpy())):
        seen = np.unique(np.append(part.src, part.dst))
        assert np.array_equal(np.flatnonzero(truth[w] >= 0), seen), "-1 for those without event"
        across = np.mean(truth[w][part.src] != truth[w][part.dst])
        assert across == pytest.approx(0.3, abs=0.03)
        assert part.m == 6000 and np.all(part.src != part.dst)
    moved = (truth[1:] != truth[:-1])[(truth[1:] >= 0) & (truth[:-1] >= 0)]
    assert moved.mean() == pytest.approx(0.1, abs=0.02)
    assert np.array_equal(y, truth[-1]), "with 20 events each, all are seen in the last window"


def test_the_label_is_that_of_the_last_window_with_an_event_and_none_without():
    data = load("drifting:n=400,k=4,windows=3,events=0.7,move=0.3")
    truth = data.y_windows.numpy()
    for node, label in enumerate(data.y.tolist()):
        seen = truth[truth[:, node] >= 0, node]
        assert label == (seen[-1] if len(seen) else -1)
    assert (data.y == -1).any() and (truth == -1).any()


def test_communities_merge_split_are_born_and_die_at_their_windows():
    data = load("drifting:n=200,k=4,windows=6,events=40,move=0,merge=[1,0,1],split=[[2,2],[3,0]],birth=[4,3],"
                "death=[5,2],seed=1")
    truth = data.y_windows.numpy()
    sizes = [sorted(np.bincount(row[row >= 0]).tolist(), reverse=True) for row in truth]
    sizes = [[size for size in row if size] for row in sizes]
    assert sizes == [[50, 50, 50], [100, 50], [100, 25, 25], [50, 50, 25, 25], [50, 50, 50, 25, 25], [50, 50, 50, 25]]
    silent = (truth == -1).sum(axis=1).tolist()
    assert silent == [50, 50, 50, 50, 0, 25]
    assert data.k == 5, "those of the last windows, the dead one among them"
    assert sorted(data.y.bincount().tolist()) == [25, 25, 50, 50, 50]
    merged = np.unique(truth[0][np.isin(truth[1], np.bincount(truth[1][truth[1] >= 0]).argmax())])
    assert len(merged) == 2, "two communities of the first window are one in the second"
    assert truth.max() == 5, "the community that was merged away has a number of its own, after the last ones"


def test_a_lonely_community_and_lonely_nodes_have_events_where_they_can():
    inside = load("drifting:n=30,k=1,windows=2,mixing=0.5")
    assert inside.num_events < 300 and (inside.y == 0).all()
    alone = load("drifting:n=5,k=5,windows=1,mixing=0.5,events=40")
    assert 0 < alone.num_events < 100 and torch.all(alone.src != alone.dst)


@pytest.mark.parametrize(("ref", "words"), [
    ("sessions:n=1", "n = 1"), ("sessions:k=401", "k = 401; it must be an integer in [1, 400]"),
    ("sessions:sessions=0", "sessions = 0"), ("sessions:events=1.5", "events = 1.5"), ("sessions:gap=0", "gap = 0"),
    ("sessions:pause=-1", "pause = -1"), ("sessions:seed=-1", "seed = -1"), ("sessions:size=3", "no parameter 'size'"),
    ("drifting:windows=0", "windows = 0"), ("drifting:mixing=1.5", "mixing = 1.5"), ("drifting:events=0", "events = 0"),
    ("drifting:move=-1", "move = -1"), ("drifting:k=501", "k = 501"), ("drifting:merge=3", "merge = 3"),
    ("drifting:merge=[1,0]", "merge = [1, 0]; it must be [window, community, community]"),
    ("drifting:split=[0,1]", "the window in 1..9"), ("drifting:birth=[10,1]", "birth = [10, 1]"),
    ("drifting:death=[1,x]", "death = [1, 'x']"), ("drifting:death=[1,5]", "there are the communities 0..4"),
    ("drifting:merge=[1,2,2]", "a merge needs two"), ("drifting:split=[3,0],death=[3,5]", "communities 0..4"),
    ("drifting:windows=1,k=1,n=1", "the stream is empty"),
])
def test_bad_parameters_are_refused_by_name(ref, words):
    with pytest.raises(InputError) as e:
        load(ref)
    assert words in str(e.value)


@pytest.mark.parametrize("ref", ["sessions:n=10000,k=5,sessions=4,events=5", "drifting:n=10000,k=20,events=20"])
def test_a_million_events_are_generated_in_seconds(ref):
    clock = time.process_time()
    assert load(ref).num_events == 1_000_000
    assert time.process_time() - clock < 3, "0.4 s alone on one core; the margin is for a busy machine"
