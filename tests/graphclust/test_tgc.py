"""TGC: what it finds, windows, new events, resumption, awkward input."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import TemporalData

from graphclust.coerce import as_stream
from graphclust.data import load
from graphclust.graph import DivergenceError, InputError
from graphclust.methods import get_method
from graphclust.methods import tgc as module
from graphclust.methods.tgc import TGC
from graphclust.stream import Stream, build_stream, equal_windows
from graphclust.training import Checkpoints
from tests.graphclust.test_deep import Killed, Resuming

SESSIONS = "sessions:n=100,k=2,sessions=4,events=8"
DRIFTING = "drifting:n=90,k=3,windows=4,events=24,move=0.1,mixing=0.05"
small = partial(TGC, 2, dim=8, epochs=4, random_state=0)


@pytest.fixture(scope="module")
def sessions() -> tuple[Stream, np.ndarray]:
    data = load(SESSIONS)
    return as_stream(data), data.y.numpy()


@pytest.fixture(scope="module")
def found(sessions) -> TGC:
    return TGC(2, random_state=0, epochs=4).fit(sessions[0])


def test_communities_that_only_timing_shows_are_found_and_by_no_static_method(sessions, found):
    stream, y = sessions
    assert adjusted_rand_score(y, found.labels_) >= 0.9
    for static in (get_method("spectral")(2, random_state=0), get_method("leiden")(random_state=0)):
        assert adjusted_rand_score(y, static.fit(stream).labels_) <= 0.1


def test_the_order_of_time_is_as_good(sessions, found):
    stream, y = sessions
    ordered = TGC(2, random_state=0, epochs=4, order="chronological").fit(stream)
    assert adjusted_rand_score(y, ordered.labels_) >= 0.9
    assert np.abs(ordered.embedding_ - found.embedding_).max() > 1e-4


def test_a_seed_decides_everything(sessions):
    stream, _ = sessions
    first, again, other = (small(clusters="model", random_state=seed).fit(stream) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.embedding_, again.embedding_)
    np.testing.assert_array_equal(first.labels_, again.labels_)
    assert np.abs(first.embedding_ - other.embedding_).max() > 1e-2
    assert first.history_ == again.history_ and [h["epoch"] for h in first.history_] == [0, 1, 2, 3]
    np.testing.assert_array_equal(first.soft_assignment_.argmax(1), first.labels_)


def test_true_labels_change_nothing(sessions, found):
    stream, y = sessions
    src, dst, t = map(torch.from_numpy, (stream.src, stream.dst, stream.time))
    data = TemporalData(src=src, dst=dst, t=t, y=torch.from_numpy(y[::-1].copy()))
    np.testing.assert_array_equal(TGC(2, random_state=0, epochs=4).fit(data, y).embedding_, found.embedding_)


@pytest.mark.parametrize("mode", ["default", "faithful"])
def test_raw_seconds_and_scaled_times_are_the_same(sessions, mode):
    stream, _ = sessions
    fits = [
        small(mode=mode).fit((stream.src, stream.dst, time)).labels_
        for time in (stream.time, stream.unit_time(), 1_385_982_020 + np.round(stream.time * 3600, 3))
    ]
    for labels in fits[1:]:
        assert adjusted_rand_score(fits[0], labels) == 1


def test_an_option_overrides_what_the_mode_says(sessions):
    stream, _ = sessions
    faithful = small(mode="faithful").fit(stream)
    assert faithful.soft_assignment_ is None, "its clusters are those of k-means"
    default = {**module.MODES["default"], "dim": 8}
    spelled, default = (small(mode=mode, **default).fit(stream) for mode in ("faithful", "default"))
    np.testing.assert_array_equal(spelled.embedding_, default.embedding_)
    assert np.abs(faithful.embedding_ - default.embedding_).max() > 1e-2


@pytest.fixture(scope="module")
def drifting() -> tuple[Stream, np.ndarray]:
    data = load(DRIFTING)
    return as_stream(data), data.y_windows.numpy()


def test_windows_follow_communities_that_change(drifting):
    stream, truth = drifting
    model = TGC(3, windows=4, epochs=5, dim=16, random_state=0).fit(stream)
    np.testing.assert_allclose(model.window_edges_, np.linspace(stream.time[0], stream.time[-1], 5))
    windows, overall = [], []
    for planted, row in zip(truth, model.window_labels_, strict=True):
        seen = (planted >= 0) & (row >= 0)
        assert seen.mean() > 0.95
        windows.append(adjusted_rand_score(planted[seen], row[seen]))
        overall.append(adjusted_rand_score(planted[seen], model.labels_[seen]))
    assert min(windows) > 0.45 and np.mean(windows) > 0.65
    assert windows[0] > overall[0] + 0.15, "one partition for all windows is not the first one"
    assert len(model.history_) == 20


@pytest.mark.parametrize("seed", range(4))
def test_an_id_means_the_same_cluster_everywhere(seed, drifting):
    """In the windows and in the end; and for old nodes after new events, before these are trained on."""
    stream, _ = drifting
    model = TGC(3, windows=2, dim=8, epochs=1, random_state=seed).fit(stream)
    last = model.window_labels_[-1]
    assert (last == model.labels_)[last >= 0].all()
    labels, soft, delta, n = model.labels_, model.soft_assignment_, model._table.delta.clone(), stream.n
    # node n meets an old node, node n + 1 only a new one
    model.partial_fit((np.array([0, n]), np.array([n, n + 1]), stream.time[-2:]), epochs=0)
    np.testing.assert_array_equal(model.labels_[:n], labels)
    np.testing.assert_allclose(model.soft_assignment_[:n], soft, atol=1e-6)
    np.testing.assert_array_equal(model._table.delta[:n], delta)
    np.testing.assert_array_equal(model.embedding_[n], model.embedding_[0])
    assert np.linalg.norm(model.embedding_[n + 1]) == pytest.approx(1, rel=1e-5) and model.labels_.shape == (n + 2,)


def test_windows_without_events_are_empty():
    src, dst = np.array([0, 1, 2, 0, 3, 4]), np.array([1, 2, 0, 3, 4, 5])
    gap = small(windows=4).fit((src, dst, np.array([0.0, 0, 0, 10, 10, 10])))
    assert [set(np.flatnonzero(row >= 0)) for row in gap.window_labels_] == [{0, 1, 2}, set(), set(), {0, 3, 4, 5}]
    at_once = small(windows=3).fit((src, dst, np.full(6, 3.0)))
    assert [(row >= 0).sum() for row in at_once.window_labels_] == [0, 0, 6]


def test_windows_need_clusters_that_live_on_and_an_event_each(drifting):
    with pytest.raises(InputError, match="windows > 1 with clusters = 'kmeans'"):
        small(windows=2, clusters="kmeans").fit(drifting[0])
    with pytest.raises(InputError, match=r"windows = 2; it must lie in 1..1, the number of events"):
        small(windows=2).fit(([0], [1], [5.0]))


@pytest.fixture
def every_epoch_is_written(monkeypatch):
    monkeypatch.setattr(Checkpoints.__init__, "__defaults__", (0.0,))


@pytest.mark.parametrize("options", [{}, {"mode": "faithful"}, {"windows": 3}, {"order": "chronological"}], ids=str)
def test_killed_and_resumed_equals_uninterrupted(options, drifting, tmp_path, every_epoch_is_written):
    stream, _ = drifting
    make = partial(TGC, 3, dim=8, epochs=4, **options)
    whole = make(random_state=0).fit(stream)
    for step in range(1, 4 * options.get("windows", 1), 3):
        file = tmp_path / f"{step}.pt"
        with pytest.raises(KeyboardInterrupt):
            make(random_state=0).fit(stream, monitor=Killed(file, "training", step))
        watch = Resuming(file)
        again = make(random_state=0).fit(stream, monitor=watch)
        assert watch.seen[0] == ("training", step)
        np.testing.assert_array_equal(again.labels_, whole.labels_)
        np.testing.assert_array_equal(again.embedding_, whole.embedding_)
        np.testing.assert_array_equal(again.window_labels_, whole.window_labels_)
        assert again.history_ == whole.history_
    with pytest.raises(InputError, match="other parameters or data"):
        make(random_state=0, hist_len=2).fit(stream, monitor=Resuming(file))


@pytest.mark.parametrize("options", [{}, {"windows": 2, "order": "chronological"}], ids=str)
def test_a_fit_killed_within_a_pass_goes_on_there(options, drifting, tmp_path, every_epoch_is_written, monkeypatch):
    """A pass in parts is the same pass, also after a kill in the first, and in each later one."""
    stream, _ = drifting
    make = partial(TGC, 3, dim=8, epochs=2, batch_size=128, random_state=0, **options)
    whole = make().fit(stream)
    windows = make().windows
    longest = max(part.stop - part.start for part in stream.cut(equal_windows(stream, windows)))
    monkeypatch.setattr(module, "PART", 128 * 4 + 127)
    parts = -(-2 * longest // (128 * 4))
    assert parts > 2
    file = tmp_path / "c"
    for step in range(parts // 2, 2 * parts * windows, parts):
        with pytest.raises(KeyboardInterrupt):
            make().fit(stream, monitor=Killed(file, "training", step))
    watch = Resuming(file)
    again = make().fit(stream, monitor=watch)
    assert watch.seen[0][1] == step and len(again.history_) == 2 * parts * windows
    np.testing.assert_array_equal(again.embedding_, whole.embedding_)
    np.testing.assert_array_equal(again.labels_, whole.labels_)
    np.testing.assert_array_equal(again.window_labels_, whole.window_labels_)


def test_a_resumed_model_takes_new_events_as_if_it_had_not_been_killed(sessions, tmp_path, every_epoch_is_written):
    stream, _ = sessions
    old, new = stream.between(0, stream.m - 500), stream.between(stream.m - 500, stream.m)
    with pytest.raises(KeyboardInterrupt):
        small().fit(old, monitor=Killed(tmp_path / "c", "training", 2))
    again = small().fit(old, monitor=Resuming(tmp_path / "c"))
    whole = small().fit(old)
    np.testing.assert_array_equal(again.partial_fit(new).embedding_, whole.partial_fit(new).embedding_)


@pytest.mark.parametrize("mode", ["default", "faithful"])
def test_new_events_out_of_order_and_with_new_nodes(sessions, mode):
    """Held back: a random third of the events, from all over the time, and every event of ten nodes."""
    stream, _ = sessions
    rng = np.random.default_rng(0)
    late = (rng.random(stream.m) < 1 / 3) | (np.maximum(stream.src, stream.dst) >= 90)
    order = rng.permutation(np.flatnonzero(late))
    clusters = "model" if mode == "default" else None
    early = tuple(part[~late] for part in (stream.src, stream.dst, stream.time))
    model = small(mode=mode, clusters=clusters).fit(early)
    before, passes = model.labels_.copy(), len(model.history_)
    assert len(before) == 90
    model.partial_fit(tuple(part[order] for part in (stream.src, stream.dst, stream.time)), epochs=3)
    assert model.labels_.shape == (100,) and model.embedding_.shape == (100, 8)
    assert np.isfinite(model.embedding_).all() and len(model.history_) == passes + 3
    assert (model.labels_[:90] == before).mean() > 0.75, "clusters keep their ids"
    np.testing.assert_array_equal(model._stream.time, stream.time)
    assert Counter(zip(model._stream.src, model._stream.dst, strict=True)) == Counter(
        zip(stream.src, stream.dst, strict=True)
    )
    if mode == "default":
        np.testing.assert_array_equal(model.soft_assignment_.argmax(1), model.labels_)


def test_new_events_complete_what_the_first_eighth_told(sessions):
    stream, y = sessions
    model = TGC(2, epochs=4, random_state=0).fit(stream.between(0, stream.m // 8))
    first = adjusted_rand_score(y, model.labels_)
    model.partial_fit(stream.between(stream.m // 8, stream.m), epochs=10)
    assert adjusted_rand_score(y, model.labels_) > max(0.8, first)


def named(events: list[tuple[str, str, float]]) -> Stream:
    names = sorted({v for s, t, _ in events for v in (s, t)})
    src, dst = ([names.index(event[end]) for event in events] for end in (0, 1))
    return build_stream(np.array(src), np.array(dst), np.array([t for *_, t in events]), node_ids=np.array(names))


def test_new_events_are_matched_by_node_id():
    old = named([("bob", "cat", 1), ("cat", "dan", 2), ("dan", "bob", 3), ("eve", "fay", 1), ("fay", "gil", 2)])
    model = small().fit(old)
    # "ann" is new and met by bob and cat; within its own stream she is node 0, and bob is not
    model.partial_fit(named([("cat", "ann", 5), ("ann", "bob", 4), ("zoe", "gil", 3.5)]), epochs=0)
    assert model._stream.node_ids.tolist() == ["bob", "cat", "dan", "eve", "fay", "gil", "ann", "zoe"]
    np.testing.assert_allclose(model.embedding_[7], model.embedding_[5], atol=1e-6)
    np.testing.assert_allclose(model.embedding_[6], model.embedding_[[0, 1]].mean(0), atol=1e-6)
    assert model.labels_.shape == (8,) and model._stream.src[-3:].tolist() == [7, 6, 1]
    with pytest.raises(InputError, match="node ids and the other has none"):
        model.partial_fit((np.array([0]), np.array([1]), np.array([9.0])))
    assert model.partial_fit((["gil"], ["ann"], [9.0]), epochs=0).labels_.shape == (8,), "arrays of names too"


@pytest.mark.parametrize(("events", "settings", "words"), [
    ((np.array([0]), np.array([1]), np.array([np.nan])), {}, "times must be finite"),
    ((np.array([0]), np.array([1]), np.array([-1.0])), {}, "times must be finite"),
    (([], [], []), {}, "stream is empty"), (([3], [3], [0.0]), {}, "join a node with itself"),
    (([0], [1], [9.0]), {"kernel": "sideways"}, "'kernel' parameter of TGC"),
    (([0], [1], [9.0]), {"epochs": -1}, "epochs = -1"), (([0], [1], [9.0]), {"epochs": 1.5}, "epochs = 1.5"),
])
def test_bad_new_events_are_refused_and_leave_the_model_as_it_was(sessions, events, settings, words):
    stream, _ = sessions
    model = small(epochs=1).fit(stream.between(0, 500))
    before = model.embedding_.copy()
    epochs = settings.pop("epochs", None)
    with pytest.raises(InputError, match=words):
        model.set_params(**settings).partial_fit(events, epochs=epochs)
    np.testing.assert_array_equal(model.embedding_, before)


def test_a_step_size_that_diverges_is_an_error_and_no_labels(sessions):
    model = small(lr=1e4)
    with pytest.raises(DivergenceError, match="lower lr"):
        model.fit(sessions[0])
    assert not hasattr(model, "labels_")


def test_new_events_that_diverge_leave_the_model_as_it_was(sessions):
    stream, _ = sessions
    old = stream.between(0, 3000)
    new = (np.append(stream.src, 100), np.append(stream.dst, 3), np.append(stream.time, 0))
    model, untouched = small().fit(old), small().fit(old)
    with pytest.raises(DivergenceError):
        model.set_params(lr=1e4).partial_fit(new)
    np.testing.assert_array_equal(model.embedding_, untouched.embedding_)
    later = [m.set_params(lr=0.01).partial_fit(new, epochs=1).embedding_ for m in (model, untouched)]
    np.testing.assert_array_equal(*later)


@pytest.mark.parametrize("mode", ["default", "faithful"])
@pytest.mark.parametrize("n", [2, 6])
def test_one_event(n, mode):
    data = build_stream(np.array([0]), np.array([1]), np.array([5.0]), n)
    model = small(mode=mode, hist_len=3).fit(data)
    assert model.labels_.shape == (n,) and np.isfinite(model.embedding_).all()


def test_all_events_at_one_time(sessions):
    stream, _ = sessions
    for mode in module.MODES:
        model = small(mode=mode).fit((stream.src, stream.dst, np.full(stream.m, 7.0)))
        assert np.isfinite(model.embedding_).all() and model.n_clusters_ == 2


def test_impossible_input_is_refused():
    events = (np.array([0, 1]), np.array([1, 2]))
    with pytest.raises(InputError, match="n_clusters = 4"):
        TGC(4).fit((*events, np.array([0.0, 1.0])))
    with pytest.raises(InputError, match="n_clusters"):
        TGC().fit((*events, np.array([0.0, 1.0])))
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="times must be finite numbers >= 0"):
            TGC(2).fit((*events, np.array([0.0, wrong])))
    with pytest.raises(InputError, match="stream is empty"):
        TGC(2).fit((np.array([], int), np.array([], int), np.array([])))
    with pytest.raises(InputError, match=r"node id 9; with n = 3"):
        TGC(2).fit(build_stream(np.array([0, 9]), np.array([1, 2]), np.array([0.0, 1.0]), 3))


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"epochs": 2, "collapse_guard": 0.999}])
def test_every_window_has_the_clusters_of_its_nodes_however_early_training_ends(settings):
    stream = as_stream(load("drifting:n=100,k=3,windows=4,events=10,seed=0"))
    model = TGC(3, windows=4, random_state=0, **settings).fit(stream)
    for row, part in zip(model.window_labels_, stream.windows(model.window_edges_), strict=True):
        active = np.union1d(part.src, part.dst)
        assert (row[active] >= 0).all() and (np.delete(row, active) == -1).all()


def test_windows_end_with_the_stream_they_were_cut_from():
    stream = as_stream(load("drifting:n=60,k=2,windows=2,events=8,seed=0"))
    model = TGC(2, windows=2, epochs=1, random_state=0).fit(stream.between(0, stream.m - 50))
    assert model.window_labels_.shape == (2, stream.n)
    model.partial_fit(stream.between(stream.m - 50, stream.m), epochs=1)
    assert model.window_labels_ is None and model.window_edges_ is None
