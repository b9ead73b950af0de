"""What every method that reads a stream of events promises beyond the contract of all methods; and what the others see
of a stream."""

import numpy as np
import pytest
import torch
from torch_geometric.data import TemporalData

from graphclust.coerce import as_stream
from graphclust.graph import InputError
from graphclust.methods import get_method, method_names
from graphclust.stream import Stream, build_stream
from tests.contract.test_methods import STATIC, TAKES_K, check_result, make, stream_of

TEMPORAL = [m for m in method_names() if get_method(m).temporal]


@pytest.fixture(scope="module")
def stream(planted):
    return stream_of(planted[0], repeats=2)


@pytest.fixture(params=TEMPORAL)
def name(request):
    return request.param


def columns(stream: Stream) -> tuple[np.ndarray, ...]:
    return stream.src, stream.dst, stream.time


def temporal_data(stream: Stream) -> TemporalData:
    src, dst, t = map(torch.from_numpy, columns(stream))
    return TemporalData(src=src, dst=dst, t=t)


def test_windows_hold_the_nodes_that_have_an_event_in_them(name, stream):
    model = make(name).fit(stream)
    check_result(model, stream.n)
    if model.window_labels_ is not None:
        for row, part in zip(model.window_labels_, stream.windows(model.window_edges_), strict=True):
            assert np.flatnonzero(row >= 0).tolist() == np.union1d(part.src, part.dst).tolist()


def test_events_in_another_order_are_the_same_stream(name, stream):
    first = make(name).fit(columns(stream))
    order = np.random.default_rng(1).permutation(stream.m)
    src, dst, time = (part[order] for part in columns(stream))
    again = make(name).fit((src, dst, time))
    assert (again.labels_ == first.labels_).all()
    if first.window_labels_ is not None:
        np.testing.assert_array_equal(again.window_labels_, first.window_labels_)


def test_takes_every_kind_of_stream_and_leaves_it_as_it_is(name, stream):
    before = [part.copy() for part in columns(stream)]
    want = make(name).fit(stream).labels_
    for data in (columns(stream), temporal_data(stream)):
        assert (make(name).fit(data).labels_ == want).all()
    assert all((a == b).all() for a, b in zip(before, columns(stream), strict=True))


def test_the_unit_of_time_does_not_matter(name, stream):
    want = make(name).fit(stream).labels_
    seconds = 1_385_982_020 + 1024 * stream.time  # raw epoch seconds; a power of two keeps every fraction exact
    assert (make(name).fit((stream.src, stream.dst, seconds)).labels_ == want).all()


def one_event(n=2):
    return build_stream(np.array([0]), np.array([1]), np.array([7.0]), n)


def at_one_time(stream):
    return build_stream(stream.src, stream.dst, np.full(stream.m, 3.0), stream.n)


def isolated(stream):
    return build_stream(*columns(stream), stream.n + 5)


def repeated(stream):
    """Each event three times over, and events of nodes with themselves."""
    own = np.arange(stream.n)
    src, dst = (np.concatenate((np.repeat(part, 3), own)) for part in (stream.src, stream.dst))
    return build_stream(src, dst, np.concatenate((np.repeat(stream.time, 3), own)), stream.n)


@pytest.mark.parametrize("case", [at_one_time, isolated, repeated])
def test_awkward_streams(name, stream, case):
    data = case(stream)
    check_result(make(name).fit(data), data.n)


@pytest.mark.parametrize("n", [2, 6])
def test_one_event(name, n):
    model = make(name, k=2).fit(one_event(n))
    check_result(model, n)


def test_more_clusters_than_nodes_are_refused(name):
    if name in TAKES_K:
        with pytest.raises(InputError, match=r"n_clusters = 5; it must lie in 1..n"):
            make(name, k=5).fit(one_event(4))


@pytest.mark.parametrize("time", [-1.0, np.nan, np.inf])
def test_impossible_times_are_refused(name, time):
    with pytest.raises(InputError, match="times must be finite numbers >= 0"):
        make(name).fit((np.array([0, 1]), np.array([1, 2]), np.array([0.0, time])))


def test_a_graph_without_times_is_refused(name, planted):
    with pytest.raises(InputError, match="without times"):
        make(name).fit(planted[0])


@pytest.mark.parametrize("static", [m for m in STATIC if not get_method(m).needs_features])
def test_static_methods_see_the_aggregated_graph(static, stream):
    graph = as_stream(stream).graph()
    if static == "dp_rr":  # the number of events is a weight, and it flips edges without any
        with pytest.raises(InputError, match="the graph is weighted"):
            make(static).fit(stream)
        return
    want = make(static, weight_bound=3.0).fit(graph)
    for data in (stream, temporal_data(stream)):
        got = make(static, weight_bound=3.0).fit(data)
        assert (got.labels_ == want.labels_).all() and got.window_labels_ is None
